//! Pusher Channels: any text is one command or one rejection, which can be answered; what clients name stays within their application;
//! and what is published comes out as the data that it came in as.

#![no_main]

use fanfare_protocol::command::{Command, Decoded};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::publication::Draft;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Encoding, Publication};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let dialect = Encoding::Pusher.dialect();
    let mut decoded: Vec<Decoded> = Vec::new();
    let outcome = dialect.decode(Incoming::Text(text), 1, &mut |command| decoded.push(command));
    outcome.expect("text is what the dialect is made of");
    assert_eq!(decoded.len(), 1, "one message, one command");
    match decoded.remove(0) {
        Err(rejection) => {
            let event = Event::Refused { failure: rejection.failure, channel: rejection.channel };
            let frame = dialect.encode(&Reply { id: rejection.id, event }).expect("a rejection is told");
            let _: Value = serde_json::from_slice(frame.payload()).expect("it is JSON");
        }
        Ok(request) => {
            if let Some(channel) = request.command.channel() {
                assert!(!channel.as_str().contains(':') || channel.as_str().starts_with("#server-to-user-"));
            }
            if let Command::Publish { channel, payload, .. } = request.command {
                let draft = Draft {
                    channel,
                    payload: payload.clone(),
                    sender: None,
                    exclude: None,
                    received: UnixMicros(0),
                    retention: None,
                    key: None,
                    trace: None,
                };
                let bytes_at_most = draft.bytes_at_most();
                let publication = Publication::new(draft, None);
                let frame = publication.encoded(Encoding::Pusher);
                assert!(frame.len() <= bytes_at_most, "{} > {bytes_at_most}", frame.len());
                let event: Value = serde_json::from_slice(frame.payload()).expect("an event is JSON");
                let data = event["data"].as_str().expect("data is a string");
                let value = String::from_utf8(payload.json().into_owned()).expect("JSON is UTF-8");
                let text: Result<String, _> = serde_json::from_str(&value);
                assert_eq!(data, text.unwrap_or(value));
            }
        }
    }
});
