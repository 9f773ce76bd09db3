//! Bytes of a client to commands, events and publications to bytes.

use std::hint::black_box;

use fanfare_protocol::command::{Start, Wording};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::event::{Entry, Event, Reply};
use fanfare_protocol::publication::{Delivery, Payload};
use fanfare_protocol::websocket::{Decoder, Input};
use fanfare_protocol::{Draft, Encoding, Publication, websocket};

use crate::{Case, Operation, sample};

pub(crate) const CASES: &[Case] = &[
    Case { name: "decode/ping", prepare: || decode(r#"{"type":"ping","id":17}"#, 1) },
    Case { name: "decode/subscribe", prepare: decode_subscribe },
    Case { name: "decode/publish-128", prepare: || decode(&publish(128), 1) },
    Case { name: "decode/publish-1024", prepare: || decode(&publish(1024), 1) },
    Case { name: "decode/batch-of-16", prepare: decode_batch },
    Case { name: "decode/publish-128-msgpack", prepare: || decode_msgpack(128) },
    Case { name: "decode/publish-1024-msgpack", prepare: || decode_msgpack(1024) },
    Case { name: "encode/publication-128", prepare: || encode_publication(128) },
    Case { name: "encode/publication-1024", prepare: || encode_publication(1024) },
    Case { name: "encode/publication-128-msgpack", prepare: || encode_msgpack(sample::msgpack(128)) },
    Case { name: "encode/publication-1024-msgpack", prepare: || encode_msgpack(sample::msgpack(1024)) },
    Case { name: "encode/publication-128-json-to-msgpack", prepare: || encode_msgpack(sample::payload(128)) },
    Case {
        name: "encode/publication-1024-json-to-msgpack",
        prepare: || encode_msgpack(sample::payload(1024)),
    },
    Case { name: "encode/publication-1024-msgpack-to-json", prepare: encode_msgpack_as_json },
    Case { name: "encode/publication-32768-bin-to-json", prepare: encode_bin_as_json },
    Case { name: "encode/published", prepare: encode_published },
    Case { name: "encode/subscribed", prepare: encode_subscribed },
];

fn publish(bytes: usize) -> String {
    format!(r#"{{"type":"publish","id":17,"channel":"room:benchmark","data":{}}}"#, sample::json(bytes))
}

fn decode_subscribe() -> Operation {
    let since = r#"{"epoch":"0123456789abcdef","offset":41}"#;
    decode(&format!(r#"{{"type":"subscribe","id":17,"channel":"room:benchmark","since":{since}}}"#), 1)
}

fn decode_batch() -> Operation {
    decode(&format!("[{}]", vec![publish(128); 16].join(",")), 16)
}

fn decode(text: &str, commands: usize) -> Operation {
    decode_frame(masked(TEXT, text.as_bytes()), Encoding::NativeJson, commands)
}

/// The command of `decode/publish-…`, in MessagePack.
fn decode_msgpack(bytes: usize) -> Operation {
    let command = sample::to_msgpack(&publish(bytes));
    decode_frame(masked(BINARY, command.as_bytes()), Encoding::NativeMessagePack, 1)
}

/// A whole frame of a client, to the commands that are in it.
fn decode_frame(frame: Vec<u8>, encoding: Encoding, commands: usize) -> Operation {
    let mut read = frame.clone();
    let mut decoder = Decoder::new(65_536);
    let dialect = encoding.dialect();
    Box::new(move || {
        read.copy_from_slice(&frame); // The decoder unmasks in place.
        let mut input = Input::new(&mut read);
        let mut decoded = 0;
        while let Some(event) = decoder.next(&mut input).expect("a client that keeps to the protocol") {
            let incoming = match event {
                websocket::Event::Text(text) => Incoming::Text(text),
                websocket::Event::Binary(bytes) => Incoming::Binary(bytes),
                _ => unreachable!("a message was sent"),
            };
            let outcome = dialect.decode(incoming, 128, &mut |command| {
                decoded += usize::from(black_box(command).is_ok());
            });
            outcome.expect("such frames are spoken");
        }
        assert_eq!(decoded, commands);
    })
}

/// The first byte of a whole message.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

/// A message as a client sends it (RFC 6455, 5.3).
fn masked(first: u8, text: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match u16::try_from(text.len()).expect("a short text") {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).expect("at most 125")),
        length => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(text.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn encode_publication(bytes: usize) -> Operation {
    encode_payload(sample::payload(bytes), Encoding::NativeJson)
}

fn encode_msgpack(payload: Payload) -> Operation {
    encode_payload(payload, Encoding::NativeMessagePack)
}

fn encode_msgpack_as_json() -> Operation {
    encode_payload(sample::msgpack(1024), Encoding::NativeJson)
}

/// A chunk of a file, for a client of JSON.
fn encode_bin_as_json() -> Operation {
    encode_payload(sample::bin(32_768), Encoding::NativeJson)
}

fn encode_payload(payload: Payload, encoding: Encoding) -> Operation {
    let draft = Draft { payload, ..sample::draft(128, None) };
    let publication = Publication::new(draft, Some(sample::POSITION));
    Box::new(move || {
        let dialect = encoding.dialect();
        black_box(dialect.encode_publication(black_box(&publication), Delivery::Live));
    })
}

fn encode_published() -> Operation {
    encode(Event::Published { channel: sample::channel(), position: Some(sample::POSITION) })
}

fn encode_subscribed() -> Operation {
    let entry = Entry { position: sample::POSITION, recovered: true };
    encode(Event::Subscribed {
        channel: sample::channel(),
        entry: Some(entry),
        start: Start::Live,
        wording: Wording::Whole,
        lasts: None,
        crowd: None,
        greeting: None,
    })
}

fn encode(event: Event) -> Operation {
    let reply = Reply { id: sample::request_id(), event };
    Box::new(move || {
        black_box(Encoding::NativeJson.dialect().encode(black_box(&reply)));
    })
}
