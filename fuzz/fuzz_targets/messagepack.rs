//! `fanfare.v1.msgpack`: any bytes are commands or rejections; every value that is taken has a translation within its bound;
//! and what was translated once stays as it is, to JSON and back.

#![no_main]

use fanfare_protocol::Encoding;
use fanfare_protocol::command::{Command, Decoded};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::publication::Payload;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const BATCH_MAX: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut decoded: Vec<Decoded> = Vec::new();
    let dialect = Encoding::NativeMessagePack.dialect();
    let outcome = dialect.decode(Incoming::Binary(bytes), BATCH_MAX, &mut |command| decoded.push(command));
    outcome.expect("bytes are what the dialect is made of");
    assert!((1..=BATCH_MAX).contains(&decoded.len()), "{} commands", decoded.len());
    for command in decoded {
        match command {
            Ok(request) => {
                if let Command::Publish { payload, .. } = &request.command {
                    translated(payload);
                }
            }
            Err(rejection) => {
                let event = Event::Refused { failure: rejection.failure, channel: rejection.channel };
                let frame = dialect.encode(&Reply { id: rejection.id, event }).expect("it has a word for it");
                Payload::parse_msgpack(frame.payload()).expect("events are MessagePack");
            }
        }
    }
    if let Ok(payload) = Payload::parse_msgpack(bytes) {
        translated(&payload);
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(payload) = Payload::parse(text)
    {
        translated(&payload);
    }
});

fn translated(payload: &Payload) {
    let json = as_json(payload);
    assert!(json.len() <= payload.bytes_at_most());
    let mut packed = Vec::new();
    payload.write_msgpack(&mut packed);
    assert!(packed.len() <= payload.bytes_at_most());
    // JSON may be deeper than MessagePack is read.
    let Ok(packed) = Payload::parse_msgpack(&packed) else { return };
    let once = as_json(&packed);
    let mut repacked = Vec::new();
    Payload::parse(&once).expect("it was JSON a moment ago").write_msgpack(&mut repacked);
    let twice = as_json(&Payload::parse_msgpack(&repacked).expect("as deep as before"));
    assert_eq!(twice, once, "a translation is not translated into something else");
}

fn as_json(payload: &Payload) -> String {
    let text = String::from_utf8(payload.json().into_owned()).expect("JSON is text");
    serde_json::from_str::<&RawValue>(&text).expect("it has a translation");
    assert!(!text.contains(['\n', '\r']), "on one line: {text:?}");
    text
}
