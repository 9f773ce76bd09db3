//! Whatever a peer sends, and however the reads cut it: the same is heard, the same is refused, and nothing is kept of it.
//!
//! The first byte picks the bound on messages, the second says how many of those behind it are lengths of reads, which are
//! used over and over; the rest is the stream.

#![no_main]

use fanfare_protocol::websocket::{CONTROL_BYTES_MAX, Decoder, Event, Input, Violation};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

fuzz_target!(|bytes: &[u8]| {
    let [bound, reads, rest @ ..] = bytes else { return };
    let bytes_max = [8, 125, 300, 70_000][usize::from(bound % 4)];
    let (reads, stream) = rest.split_at(usize::from(reads % 8).min(rest.len()));
    let whole = hear(stream, &[], bytes_max);
    assert_eq!(hear(stream, reads, bytes_max), whole, "read otherwise");
    assert_eq!(hear(stream, &[1], bytes_max), whole, "read byte by byte");
});

fn hear(stream: &[u8], reads: &[u8], bytes_max: usize) -> (Vec<Heard>, Option<Violation>) {
    let mut decoder = Decoder::new(bytes_max);
    let mut heard = Vec::new();
    let mut lengths = reads.iter().map(|&length| usize::from(length).max(1)).cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (read, later) = rest.split_at(lengths.next().unwrap_or(rest.len()).min(rest.len()));
        rest = later;
        let mut read = read.to_vec();
        let mut input = Input::new(&mut read);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => heard.push(owned(event, bytes_max)),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(decoder.next(&mut input), Err(violation), "a violation is final");
                    assert!(decoder.is_idle(), "and nothing is kept of what came before it");
                    return (heard, Some(violation));
                }
            }
        }
        assert!(input.is_empty(), "a decoder takes all it is given");
    }
    (heard, None)
}

fn owned(event: Event<'_>, bytes_max: usize) -> Heard {
    let bounded = |bytes: &[u8], most: usize| {
        assert!(bytes.len() <= most, "{} bytes of at most {most}", bytes.len());
        bytes.to_vec()
    };
    match event {
        Event::Text(text) => {
            bounded(text.as_bytes(), bytes_max);
            Heard::Text(text.to_owned())
        }
        Event::Binary(bytes) => Heard::Binary(bounded(bytes, bytes_max)),
        Event::Ping(bytes) => Heard::Ping(bounded(bytes, CONTROL_BYTES_MAX)),
        Event::Pong(bytes) => Heard::Pong(bounded(bytes, CONTROL_BYTES_MAX)),
        Event::Close(close) => Heard::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
    }
}
