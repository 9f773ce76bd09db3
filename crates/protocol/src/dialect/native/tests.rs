//! The golden conversations: those in `transcripts/` are replayed in JSON, as they are written, and then by a client that speaks
//! MessagePack, and must come out the same but for what is said about JSON. Those in `transcripts_msgpack/` are about what
//! only MessagePack can say.

use std::time::Duration;

use crate::channel::Channel;
use crate::dialect::Encoding;
use crate::dialect::theatre::{Spelling, check, draft, replay, transcripts};
use crate::error::{ErrorCode, Failure};
use crate::event::{Event, Reply};
use crate::id::UserId;
use crate::publication::{Draft, Epoch, Offset, Payload, Position, Publication, Sender};

mod msgpack;

#[test]
fn every_transcript_is_what_is_said() {
    let spelling = Spelling::Text(Encoding::NativeJson);
    check(&transcripts("native/transcripts"), |written| (replay(written, spelling), written.to_owned()));
}

fn json(reply: &Reply) -> String {
    String::from_utf8(Encoding::NativeJson.dialect().encode(reply).unwrap().payload().to_vec()).unwrap()
}

fn position(offset: u64) -> Option<Position> {
    Some(Position { epoch: Epoch(0xab), offset: Offset(offset) })
}

/// No transcript has senders with odd names, nor a position at the end of its range.
#[test]
fn positions_and_senders_are_spelt_where_there_are_any() {
    let channel = Channel::parse("room:\"1\\").unwrap();
    let sender = |profile: Option<&str>| Sender {
        user: Some(UserId::new("zoë \"z\"")),
        profile: profile.map(|json| Payload::parse(json).unwrap()),
        ..Sender::default()
    };
    let encoded = |sender, position| {
        let publication = Publication::new(Draft { sender, ..draft(channel.as_str(), "[1]") }, position);
        String::from_utf8(publication.encoded(Encoding::NativeJson).payload().to_vec()).unwrap()
    };
    assert_eq!(
        encoded(Some(Box::new(sender(Some(r#"{"age":7}"#)))), position(42)),
        r#"{"type":"message","channel":"room:\"1\\","offset":42,"from":{"user":"zoë \"z\"","info":{"age":7}},"data":[1]}"#
    );
    assert_eq!(
        encoded(Some(Box::new(sender(None))), None),
        r#"{"type":"message","channel":"room:\"1\\","from":{"user":"zoë \"z\""},"data":[1]}"#
    );
    let reply = Reply::unasked(Event::Published { channel: channel.clone(), position: position(u64::MAX) });
    assert_eq!(
        json(&reply),
        r#"{"type":"published","channel":"room:\"1\\","epoch":"00000000000000ab","offset":18446744073709551615}"#
    );
    let reply = Reply::unasked(Event::Unsubscribed { channel, cause: Some(ErrorCode::Gap) });
    assert_eq!(json(&reply), r#"{"type":"unsubscribed","channel":"room:\"1\\","code":4410,"reason":"gap"}"#);
}

#[test]
fn a_wait_is_never_told_shorter_than_it_is() {
    for (wait, told) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (333_333_333, 334)] {
        let failure = Failure::retry(ErrorCode::RateLimited, "slower", Duration::from_nanos(wait));
        let text = json(&Reply::unasked(Event::Refused { failure, channel: None }));
        assert!(text.ends_with(&format!(r#""retry_after":{told}}}"#)), "{wait} ns: {text}");
    }
}
