//! Bytes of a client to commands, events and publications to bytes.

use std::hint::black_box;

use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::event::{Entry, Event, Reply};
use fanfare_protocol::publication::Delivery;
use fanfare_protocol::websocket::{Decoder, Input};
use fanfare_protocol::{Encoding, Publication, websocket};

use crate::{Case, Operation, sample};

pub(crate) const CASES: &[Case] = &[
    Case { name: "decode/ping", prepare: || decode(r#"{"type":"ping","id":17}"#, 1) },
    Case { name: "decode/subscribe", prepare: decode_subscribe },
    Case { name: "decode/publish-128", prepare: || decode(&publish(128), 1) },
    Case { name: "decode/publish-1024", prepare: || decode(&publish(1024), 1) },
    Case { name: "decode/batch-of-16", prepare: decode_batch },
    Case { name: "decode/publish-128-messagepack", prepare: decode_messagepack },
    Case { name: "encode/publication-128", prepare: || encode_publication(128) },
    Case { name: "encode/publication-1024", prepare: || encode_publication(1024) },
    Case {
        name: "encode/publication-128-messagepack",
        prepare: || encode_publication_as(Encoding::NativeMessagePack, 128),
    },
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

/// The same publication as JSON has, with its `data` in MessagePack too.
fn decode_messagepack() -> Operation {
    let text: String = "the quick brown fox ".chars().cycle().take(105).collect();
    let string = |text: &str| match u8::try_from(text.len()).expect("a short text") {
        length @ 0..=31 => [&[0xa0 | length], text.as_bytes()].concat(),
        length => [&[0xd9, length], text.as_bytes()].concat(),
    };
    let mut command = vec![0x84];
    for (name, value) in [("type", "publish"), ("channel", "room:benchmark")] {
        command.extend([string(name), string(value)].concat());
    }
    command.extend(
        [&string("id")[..], &[17], &string("data"), &[0x82], &string("n"), &[0xce, 0, 0x12, 0xd6, 0x87]]
            .concat(),
    );
    command.extend([string("text"), string(&text)].concat());
    decode_as(Encoding::NativeMessagePack, &masked(0x82, &command), 1)
}

fn decode(text: &str, commands: usize) -> Operation {
    decode_as(Encoding::NativeJson, &masked(0x81, text.as_bytes()), commands)
}

/// A whole frame of a client, to the commands that are in it.
fn decode_as(encoding: Encoding, frame: &[u8], commands: usize) -> Operation {
    let frame = frame.to_vec();
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
                _ => unreachable!("a command was sent"),
            };
            let outcome = dialect.decode(incoming, 128, &mut |command| {
                decoded += usize::from(black_box(command).is_ok());
            });
            outcome.expect("the dialect takes frames of this kind");
        }
        assert_eq!(decoded, commands);
    })
}

/// A frame as a client sends it (RFC 6455, 5.3), with the first byte given.
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
    encode_publication_as(Encoding::NativeJson, bytes)
}

fn encode_publication_as(encoding: Encoding, bytes: usize) -> Operation {
    let publication = Publication::new(sample::draft(bytes, None), Some(sample::POSITION));
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
    encode(Event::Subscribed { channel: sample::channel(), entry: Some(entry) })
}

fn encode(event: Event) -> Operation {
    let reply = Reply { id: sample::request_id(), event };
    Box::new(move || {
        black_box(Encoding::NativeJson.dialect().encode(black_box(&reply)));
    })
}
