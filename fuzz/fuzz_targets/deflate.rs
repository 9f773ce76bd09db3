//! permessage-deflate: hostile streams are refused or come to what another library makes of them, within the bound; and what
//! we compress comes back, with and without what was said before.
//!
//! The first byte picks the bound and the window, and whether messages refer to each other; then comes one message after
//! the other, each behind its length. They are inflated as they are, and compressed as they are.

#![no_main]

use fanfare_protocol::websocket::{Decoder, Event, Frame, Inflater, Input, Shape, Violation, Window};
use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::stream::{InflateState, inflate as inflate_stream};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

const BINARY: u8 = 0x82;
const RSV1: u8 = 0x40;

/// A tail that a client leaves away (RFC 7692, 7.2.2), and the end of the stream.
const TAIL: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

fuzz_target!(|bytes: &[u8]| {
    let [settings, rest @ ..] = bytes else { return };
    let bytes_max = [16, 1000, 66_000][usize::from(settings % 3)];
    let window_bits = 9 + settings / 4 % 7;
    let is_taken_over = settings & 0x80 != 0;
    let messages = split(rest);
    inflate(&messages, bytes_max, is_taken_over.then(|| Window::new(window_bits)));
    round_trip(&messages, Shape { window_bits, level: 1 + settings % 9, threshold_bytes: 0 }, is_taken_over);
});

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let [length, more @ ..] = rest {
        // The last may be as long as it likes.
        let length = if *length == 0xff { more.len() } else { usize::from(*length).min(more.len()) };
        let (message, later) = more.split_at(length);
        messages.push(message);
        rest = later;
    }
    messages
}

fn inflate(messages: &[&[u8]], bytes_max: usize, mut window: Option<Window>) {
    let mut decoder = Decoder::inflating(bytes_max);
    let (mut inflater, is_fresh) = (Inflater::default(), window.is_none());
    for message in messages {
        let mut wire = masked(BINARY | RSV1, message);
        let mut input = Input::inflating(&mut wire, &mut inflater, window.as_mut());
        let theirs = is_fresh.then(|| as_they_inflate(message, bytes_max)).flatten();
        match decoder.next(&mut input) {
            Ok(Some(Event::Binary(ours))) => {
                assert!(ours.len() <= bytes_max, "{} bytes of at most {bytes_max}", ours.len());
                assert!(theirs.is_none_or(|theirs| theirs == ours));
            }
            Ok(other) => panic!("a binary message, not {other:?}"),
            // What is refused before it is inflated had more bytes than a compressor would make of so few.
            Err(Violation::NotDeflate | Violation::InflatedTooBig { .. }) => assert_eq!(theirs, None),
            Err(_) => assert!(message.len() > bytes_max),
        }
        if decoder.next(&mut Input::new(&mut [])).is_err() {
            return;
        }
    }
}

/// What another library makes of a message, where that is all of a stream, within the bound, and nothing of it is in the tail. One
/// that says before its end that it ends, which RFC 7692 allows (7.2.3.4), it does not follow.
fn as_they_inflate(message: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut inflated = vec![0; bytes_max + 1];
    let mut said = |stream: &[u8], flush| {
        let mut state = InflateState::new_boxed(DataFormat::Raw);
        let result = inflate_stream(&mut state, stream, &mut inflated, flush);
        let has_ended = result.status == Ok(MZStatus::StreamEnd) && result.bytes_consumed == stream.len();
        (result.bytes_written, has_ended)
    };
    let (alone, _) = said(message, MZFlush::None);
    let (whole, has_ended) = said(&[message, &TAIL[..]].concat(), MZFlush::Finish);
    inflated.truncate(whole);
    (has_ended && whole == alone && whole <= bytes_max).then_some(inflated)
}

fn round_trip(messages: &[&[u8]], shape: Shape, is_taken_over: bool) {
    let (mut said, mut heard) = (Window::new(shape.window_bits), Window::new(shape.window_bits));
    let mut inflater = Inflater::default();
    let mut decoder = Decoder::inflating(1 << 20);
    for message in messages {
        let plain = Frame::binary(message);
        let deflated =
            if is_taken_over { plain.deflated_after(shape, &mut said) } else { plain.deflated(shape) };
        let frame = deflated.unwrap_or_else(|| plain.clone());
        assert!(frame.len() <= plain.len());
        let mut wire = masked(frame.bytes()[0], frame.payload());
        let mut input = Input::inflating(&mut wire, &mut inflater, is_taken_over.then_some(&mut heard));
        assert_eq!(decoder.next(&mut input), Ok(Some(Event::Binary(message))));
    }
}

/// A client's frame, masked by zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u64::try_from(payload.len()).unwrap();
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}
