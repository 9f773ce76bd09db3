//! The same conversations in MessagePack, and what only MessagePack can say.

use proptest::prelude::*;

use crate::dialect::theatre::{Spelling, check, replay, transcripts};
use crate::dialect::{Encoding, Incoming};
use crate::msgpack;

/// What is no JSON, or holds half a character, is no MessagePack either.
fn of_json(json: &str) -> Vec<u8> {
    const NOISE: u8 = 0xc1;
    if serde_json::from_str::<serde_json::Value>(json).is_err() {
        return vec![NOISE];
    }
    let mut out = Vec::new();
    msgpack::from_json(json.as_bytes(), &mut out).expect("it is JSON");
    out
}

fn to_json(value: &[u8]) -> String {
    msgpack::Reader::check(value).expect("an event is MessagePack");
    let mut out = Vec::new();
    msgpack::to_json(value, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Every conversation is the same in both formats: what is said in MessagePack is what is written, in other words.
#[test]
fn every_transcript_is_said_in_messagepack_too() {
    let encoding = Encoding::NativeMessagePack;
    let spelling = Spelling::Translated { encoding, to_wire: of_json, from_wire: to_json };
    check(&transcripts("native/transcripts"), |written| {
        (without_wording(&replay(written, spelling)), without_wording(written))
    });
}

#[test]
fn what_only_messagepack_can_say_is_as_it_is_written() {
    check(&transcripts("native/transcripts_msgpack"), |written| {
        (replay(written, Spelling::Bytes(Encoding::NativeMessagePack)), written.to_owned())
    });
}

/// What sentences say that are about a format, or about the length that something has in it.
const OF_FORMAT: [&str; 5] = ["`id` must be", "JSON", "MessagePack", "a command is", " bytes, at most"];

/// In one spelling of JSON, and without the sentences that are about a format.
fn without_wording(transcript: &str) -> String {
    let lines = transcript.lines().map(|line| match line.strip_prefix("< ") {
        Some(event) => {
            let event = to_json(&of_json(event));
            match event.split_once(r#""message":""#) {
                Some((fields, text)) if OF_FORMAT.iter().any(|it| text.contains(it)) => {
                    format!("< {fields}…")
                }
                _ => format!("< {event}"),
            }
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn decode(message: &[u8]) -> Result<usize, usize> {
    let (mut understood, mut refused) = (0, 0);
    let dialect = Encoding::NativeMessagePack.dialect();
    let outcome = dialect.decode(Incoming::Binary(message), 128, &mut |command| match command {
        Ok(_) => understood += 1,
        Err(_) => refused += 1,
    });
    outcome.expect("a binary message has a place in this dialect");
    if refused == 0 { Ok(understood) } else { Err(refused) }
}

proptest! {
    #[test]
    fn whatever_comes_is_answered(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let command = r#"[{"type":"publish","id":7,"channel":"room:1","data":[1.5,{"a":null}],"key":"k"},{"type":"ping"}]"#;
        let mut near = of_json(command);
        prop_assert_eq!(decode(&near), Ok(2));
        let cut = cut.index(near.len());
        prop_assert_eq!(decode(&near[..cut]), Err(1), "what is cut off is answered once");
        let at = at.index(near.len());
        near[at] = with;
        for message in [&noise, &near] {
            prop_assert!(decode(message) != Ok(0), "there is an answer");
        }
    }
}

#[test]
fn hostile_nesting_and_lengths_are_refused() {
    for (message, what) in [
        (vec![0x91; 1_000_000], "arrays in arrays"),
        ([0x81, 0xa1, b'a'].repeat(300_000), "maps in maps"),
        (vec![0xdd, 0xff, 0xff, 0xff, 0xff], "a batch that never comes"),
        (vec![0xdf, 0xff, 0xff, 0xff, 0xff], "a map that never comes"),
        (vec![0x81, 0xa1, b'a', 0xc6, 0xff, 0xff, 0xff, 0xff, 0x00], "bytes that never come"),
        (vec![], "nothing"),
    ] {
        assert_eq!(decode(&message), Err(1), "{what}");
    }
}
