//! What travels: a draft before the broker has placed it, a publication ever after.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::dialect::Encoding;
use crate::id::{SessionId, UserId};
use crate::time::UnixMicros;
use crate::websocket::Frame;

/// What a publisher sent: JSON text on a single line, checked once and never parsed again.
///
/// Line breaks between tokens are turned into spaces on the way in, so that line-oriented transports may carry it as
/// it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Takes JSON that a parser has already checked.
    pub fn from_raw(json: &RawValue) -> Self {
        let text = json.get().as_bytes();
        if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Self(Bytes::copy_from_slice(text));
        }
        // Inside a JSON string a line break must be escaped, so a bare one is white space between tokens.
        Self(text.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect())
    }

    /// Takes the bytes of a payload that another node has checked.
    pub const fn from_trusted(json: Bytes) -> Self {
        Self(json)
    }

    /// Checks that `json` is one JSON value and takes it.
    ///
    /// # Errors
    /// The parser's complaint, with its position.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(json).map(Self::from_raw)
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, shared.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

/// The authenticated client that a publication came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Whose connection it was.
    pub user: UserId,
    /// The `info` of that user's token.
    pub profile: Option<Payload>,
}

/// Where a publication stands in its channel's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Names the stream: another epoch means that the earlier history is lost.
    pub epoch: Epoch,
    /// Counts up by one from 1 within the epoch.
    pub offset: Offset,
}

/// The name of one life of a channel's stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub Arc<str>);

/// A place within an epoch; the first publication has offset 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// A publication that the broker has not placed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it goes.
    pub channel: Channel,
    /// What it says.
    pub payload: Payload,
    /// Who sent it, when that was an authenticated client.
    pub sender: Option<Sender>,
    /// The session that must not hear it: a publisher that asked for no echo.
    pub exclude: Option<SessionId>,
    /// When the gateway received it.
    pub received: UnixMicros,
}

/// A publication as every subscriber gets it: immutable, shared, and encoded at most once per [`Encoding`].
#[derive(Debug)]
pub struct Publication {
    /// Where it was published.
    pub channel: Channel,
    /// What it says.
    pub payload: Payload,
    /// Who sent it, when that was an authenticated client.
    pub sender: Option<Sender>,
    /// The session that must not hear it.
    pub exclude: Option<SessionId>,
    /// When the gateway that took it received it, by that node's wall clock.
    pub received: UnixMicros,
    /// Its place in the stream, on a channel with history.
    pub position: Option<Position>,
    encoded: [OnceLock<Frame>; Encoding::ALL.len()],
}

impl Publication {
    /// A draft that has found its place.
    pub fn new(draft: Draft, position: Option<Position>) -> Self {
        let Draft { channel, payload, sender, exclude, received } = draft;
        Self { channel, payload, sender, exclude, received, position, encoded: Default::default() }
    }

    /// The frame that carries it to every subscriber of one encoding: computed for the first, shared by the rest.
    pub fn encoded(&self, encoding: Encoding) -> &Frame {
        self.encoded[encoding as usize].get_or_init(|| encoding.dialect().encode_publication(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_json_value_on_one_line() {
        assert_eq!(Payload::parse("{\"a\":\r\n 1}").unwrap().as_bytes(), b"{\"a\":   1}");
        assert_eq!(Payload::parse("\"a\\nb\"").unwrap().as_bytes(), b"\"a\\nb\"");
        for bad in ["", "{", "1 2", "\"a\nb\"", "nul"] {
            assert!(Payload::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn deep_nesting_is_data_like_any_other() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(Payload::parse(&deep).unwrap().as_bytes().len(), deep.len());
    }

    #[test]
    fn one_encoding_is_computed_once() {
        let draft = Draft {
            channel: Channel::parse("a").unwrap(),
            payload: Payload::parse("1").unwrap(),
            sender: None,
            exclude: None,
            received: UnixMicros(0),
        };
        let publication = Publication::new(draft, None);
        let first = publication.encoded(Encoding::NativeJson).bytes().as_ptr();
        assert_eq!(first, publication.encoded(Encoding::NativeJson).bytes().as_ptr());
    }
}
