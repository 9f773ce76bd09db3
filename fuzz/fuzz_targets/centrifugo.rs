//! The dialect of Centrifugo's clients in both formats: any message is commands, each of which can be refused under its number,
//! or the end of the conversation.

#![no_main]

use fanfare_protocol::Encoding;
use fanfare_protocol::command::{Command, Decoded};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::publication::Payload;
use libfuzzer_sys::fuzz_target;

const BATCH_MAX: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    decode(Encoding::CentrifugoProtobuf, Incoming::Binary(bytes));
    if let Ok(text) = str::from_utf8(bytes) {
        decode(Encoding::CentrifugoJson, Incoming::Text(text));
    }
});

fn decode(encoding: Encoding, incoming: Incoming<'_>) {
    let mut decoded: Vec<Decoded> = Vec::new();
    let dialect = encoding.dialect();
    let outcome = dialect.decode(incoming, BATCH_MAX, &mut |command| decoded.push(command));
    assert!(outcome.is_err() || (1..=BATCH_MAX).contains(&decoded.len()), "{} commands", decoded.len());
    for command in decoded {
        let (id, failure) = match command {
            Ok(request) => {
                if let Command::Publish { payload, .. } = &request.command {
                    let json = payload.json();
                    Payload::parse(str::from_utf8(&json).expect("JSON is text"))
                        .expect("it has a translation");
                }
                (request.id, Failure::new(ErrorCode::Forbidden, "no"))
            }
            Err(rejection) => (rejection.id, rejection.failure),
        };
        // All but an answer to a ping have a number.
        let is_numbered = id.is_some();
        let reply = Reply { id, event: Event::Refused { failure, channel: None } };
        assert_eq!(dialect.encode(&reply).is_some(), is_numbered);
    }
}
