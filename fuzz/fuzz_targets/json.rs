//! `fanfare.v1.json`: any text is commands or rejections, each of which can be answered; and what is published is JSON on one
//! line, in either format.

#![no_main]

use fanfare_protocol::command::{Command, Decoded};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::publication::Payload;
use fanfare_protocol::{Encoding, SessionId};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const BATCH_MAX: usize = 4;

fuzz_target!(|text: &str| {
    let mut decoded: Vec<Decoded> = Vec::new();
    let dialect = Encoding::NativeJson.dialect();
    let outcome = dialect.decode(Incoming::Text(text), BATCH_MAX, &mut |command| decoded.push(command));
    outcome.expect("text is what the dialect is made of");
    assert!((1..=BATCH_MAX).contains(&decoded.len()), "{} commands", decoded.len());
    for command in decoded {
        check(command);
    }
});

fn check(command: Decoded) {
    let reply = match command {
        Err(rejection) => Reply {
            id: rejection.id,
            event: Event::Refused { failure: rejection.failure, channel: rejection.channel },
        },
        Ok(request) => {
            if let Command::Publish { payload, .. } = &request.command {
                published(payload);
            }
            Reply {
                id: request.id,
                event: Event::Refreshed {
                    session: SessionId::from_random([7; 16]),
                    expires: None,
                    lasts: None,
                },
            }
        }
    };
    for encoding in Encoding::ALL {
        let Some(frame) = encoding.dialect().encode(&reply) else {
            let is_native = matches!(encoding, Encoding::NativeJson | Encoding::NativeMessagePack);
            assert!(!is_native, "the native dialect has a word for everything");
            continue;
        };
        match encoding {
            Encoding::NativeMessagePack => {
                Payload::parse_msgpack(frame.payload()).expect("events are MessagePack");
            }
            Encoding::CentrifugoProtobuf => {}
            Encoding::NativeJson | Encoding::CentrifugoJson | Encoding::Pusher => {
                let text = str::from_utf8(frame.payload()).expect("text");
                serde_json::from_str::<&RawValue>(text).expect("events are JSON");
                assert!(!text.contains(['\n', '\r']), "on one line: {text:?}");
            }
        }
    }
}

fn published(payload: &Payload) {
    let json = payload.json();
    let text = str::from_utf8(&json).expect("JSON is text");
    serde_json::from_str::<&RawValue>(text).expect("data is JSON");
    assert!(!text.contains(['\n', '\r']), "on one line: {text:?}");
    let mut packed = Vec::new();
    payload.write_msgpack(&mut packed);
    assert!(json.len().max(packed.len()) <= payload.bytes_at_most());
}
