//! What the cases work on.

use bytes::Bytes;
use fanfare_protocol::publication::{Epoch, Offset, Payload, Position, Retention};
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Channel, Draft, RequestId};

/// Where a stream stands.
pub(crate) const POSITION: Position = Position { epoch: Epoch(0x0123_4567_89ab_cdef), offset: Offset(41) };

pub(crate) fn channel() -> Channel {
    Channel::parse("room:benchmark").expect("a channel's name")
}

/// A JSON object of so many bytes.
pub(crate) fn json(bytes: usize) -> String {
    let frame = r#"{"n":1234567,"text":""}"#;
    let text: String = "the quick brown fox ".chars().cycle().take(bytes - frame.len()).collect();
    format!(r#"{{"n":1234567,"text":"{text}"}}"#)
}

pub(crate) fn payload(bytes: usize) -> Payload {
    Payload::from_trusted(Bytes::from(json(bytes)))
}

/// What JSON says, in MessagePack.
pub(crate) fn to_msgpack(json: &str) -> Payload {
    let mut value = Vec::new();
    Payload::parse(json).expect("it is JSON").write_msgpack(&mut value);
    Payload::parse_msgpack(&value).expect("it is MessagePack")
}

/// [`payload`], as a client of MessagePack sends it.
pub(crate) fn msgpack(bytes: usize) -> Payload {
    to_msgpack(&json(bytes))
}

/// So many bytes.
pub(crate) fn bin(bytes: u16) -> Payload {
    let contents = (0..bytes).map(|it| it.to_be_bytes()[1]);
    let value: Vec<u8> = [0xc5].into_iter().chain(bytes.to_be_bytes()).chain(contents).collect();
    Payload::parse_msgpack(&value).expect("it is MessagePack")
}

pub(crate) fn draft(bytes: usize, retention: Option<Retention>) -> Draft {
    Draft {
        channel: channel(),
        payload: payload(bytes),
        sender: None,
        exclude: None,
        // Fifteen of sixteen are like this: their way is not measured part by part.
        received: UnixMicros(1_700_000_000_000_001),
        retention,
        key: None,
        trace: None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what it is for takes an option")]
pub(crate) fn request_id() -> Option<RequestId> {
    Some(RequestId::Number(17))
}
