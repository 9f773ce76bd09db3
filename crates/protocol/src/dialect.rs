//! Dialects: how clients spell commands, and how events are spelt for them.
//!
//! A dialect is a pure function in each direction. It knows the neutral vocabulary ([`crate::command`],
//! [`crate::event`], [`crate::publication`]) and nothing of sessions, sockets or other dialects; and nobody outside this
//! module knows which dialects there are. A new one is a folder here, an [`Encoding`] or two, and a line in each table
//! below.

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::Decoded;
use crate::error::{ErrorCode, Failure};
use crate::event::Reply;
use crate::grant::{Grant, Pass, Signed, Token};
use crate::id::SessionId;
use crate::manners::Manners;
use crate::publication::{Delivery, Format, Payload, Publication};
use crate::realm::Realm;
use crate::websocket::{Frame, Shape};

pub mod centrifugo;
pub mod native;
pub mod pusher;
#[cfg(test)]
mod theatre;

/// One spelling on the wire: a dialect in one of its formats. Subscribers of one encoding share the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `fanfare.v1.json`.
    NativeJson,
    /// `fanfare.v1.msgpack`.
    NativeMessagePack,
    /// `centrifuge-json`.
    CentrifugoJson,
    /// `centrifuge-protobuf`.
    CentrifugoProtobuf,
    /// `pusher-channels-protocol-7`.
    Pusher,
}

impl Encoding {
    /// Every encoding, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::NativeJson,
        Self::NativeMessagePack,
        Self::CentrifugoJson,
        Self::CentrifugoProtobuf,
        Self::Pusher,
    ];

    /// That in which a payload of this format is carried as it is.
    pub const fn native(format: Format) -> Self {
        match format {
            Format::Json => Self::NativeJson,
            Format::MessagePack => Self::NativeMessagePack,
        }
    }

    /// The name of the WebSocket subprotocol.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::NativeJson => "fanfare.v1.json",
            Self::NativeMessagePack => "fanfare.v1.msgpack",
            Self::CentrifugoJson => "centrifuge-json",
            Self::CentrifugoProtobuf => "centrifuge-protobuf",
            Self::Pusher => "pusher-channels-protocol-7",
        }
    }

    /// The code that speaks it.
    pub fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::NativeJson => &native::Json,
            Self::NativeMessagePack => &native::MessagePack,
            Self::CentrifugoJson => &centrifugo::Json,
            Self::CentrifugoProtobuf => &centrifugo::Protobuf,
            Self::Pusher => &pusher::Pusher,
        }
    }
}

/// What the subscribers who share the bytes of a publication have in common: an encoding, and how that is compressed,
/// where it is.
///
/// Every connection has one or two, so it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    encoding: Encoding,
    /// 0 where nothing is compressed.
    window_bits: u8,
    level: u8,
    threshold_bytes: u32,
}

impl Form {
    /// An encoding, compressed in this shape.
    pub const fn new(encoding: Encoding, shape: Option<Shape>) -> Self {
        match shape {
            Some(Shape { window_bits, level, threshold_bytes }) => {
                Self { encoding, window_bits, level, threshold_bytes }
            }
            None => Self { encoding, window_bits: 0, level: 0, threshold_bytes: 0 },
        }
    }

    /// How it is spelt.
    pub const fn encoding(self) -> Encoding {
        self.encoding
    }

    /// How that is compressed.
    #[inline]
    pub const fn shape(self) -> Option<Shape> {
        let Self { window_bits, level, threshold_bytes, .. } = self;
        if window_bits == 0 { None } else { Some(Shape { window_bits, level, threshold_bytes }) }
    }
}

/// Uncompressed.
impl From<Encoding> for Form {
    fn from(encoding: Encoding) -> Self {
        Self::new(encoding, None)
    }
}

/// One whole message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// How one kind of client spells things.
pub trait Dialect: Sync {
    /// Reads the commands of one message, at most `batch_max`, in order.
    ///
    /// What cannot be understood is a [`crate::command::Rejection`] in its place; the commands after it still count.
    ///
    /// # Errors
    /// The reason to close the connection, when the message as such has no place in the dialect.
    fn decode(
        &self,
        incoming: Incoming<'_>,
        batch_max: usize,
        on_command: &mut dyn FnMut(Decoded),
    ) -> Result<(), CloseReason>;

    /// Whether one of a message's commands has more than so many arrays and objects within each other, itself among them.
    fn exceeds(&self, incoming: Incoming<'_>, levels: usize) -> bool;

    /// Spells an event for one client; `None` where the dialect has no word for it.
    fn encode(&self, reply: &Reply) -> Option<Frame>;

    /// Spells a publication for all the subscribers to whom it comes in the same way.
    fn encode_publication(&self, publication: &Publication, delivery: Delivery) -> Frame;

    /// Spells a publication for the subscribers who have agreed to differences: as one from what was said before, where that is
    /// shorter, or whole, where it is not known to them; `None` where it is not shorter, or a whole one is spelt as for everybody.
    fn encode_chained(&self, _publication: &Publication, _before: Option<&Payload>) -> Option<Frame> {
        None
    }

    /// Says why a conversation ends where no Close frame can; `None` where the last event has said so.
    fn farewell(&self, _reason: CloseReason) -> Option<Frame> {
        None
    }

    /// How its conversations are held.
    fn manners(&self) -> &'static Manners {
        &Manners::PLAIN
    }

    /// Asks a client for a sign of life.
    fn ping(&self) -> Frame {
        Frame::ping(&[])
    }

    /// Judges what an application has signed, so that this client may hear a channel.
    ///
    /// # Errors
    /// It has not, or the dialect knows of no applications.
    fn admit(
        &self,
        _realm: &Realm,
        _session: SessionId,
        _channel: &Channel,
        _signed: &Signed,
    ) -> Result<Pass, Failure> {
        Err(Failure::new(ErrorCode::Forbidden, "no signatures are taken here"))
    }

    /// Finds out by its application who a client is.
    ///
    /// # Errors
    /// As [`Dialect::admit`].
    fn recognise(&self, _realm: &Realm, _session: SessionId, _token: &Token) -> Result<Grant, Failure> {
        Err(Failure::new(ErrorCode::Unauthorized, "no signatures are taken here"))
    }

    /// The code and the words of the Close frame that says why a conversation ends.
    fn close(&self, reason: CloseReason) -> (u16, &'static str) {
        (reason.number(), reason.slug())
    }
}

/// What can be agreed on at one endpoint: the encodings of one dialect.
#[derive(Debug)]
pub struct Offer {
    /// What is spoken with clients that do not say what they speak.
    pub default: Encoding,
    /// What they may ask for by the name of its subprotocol.
    pub encodings: &'static [Encoding],
    /// What they may ask for by the query of the URL, where they offer no subprotocol.
    pub by_query: fn(&str) -> Option<Encoding>,
}

impl Offer {
    /// That of the native dialect.
    pub const NATIVE: Self = Self {
        default: Encoding::NativeJson,
        encodings: &[Encoding::NativeJson, Encoding::NativeMessagePack],
        by_query: |_| None,
    };

    /// Picks the first known one of the subprotocols that a client offers in its order of preference.
    pub fn negotiate<'a>(
        &self,
        subprotocols: impl IntoIterator<Item = &'a str>,
        query: Option<&str>,
    ) -> Negotiated {
        let mut offered_unknown = false;
        for name in subprotocols {
            if let Some(encoding) = self.encodings.iter().find(|encoding| encoding.subprotocol() == name) {
                return Negotiated::Chosen(*encoding);
            }
            offered_unknown = true;
        }
        let encoding = query.and_then(self.by_query).unwrap_or(self.default);
        Negotiated::Default { encoding, offered_unknown }
    }
}

/// The outcome of subprotocol negotiation (RFC 6455 section 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiated {
    /// The client offered this one: the answer names it.
    Chosen(Encoding),
    /// The client offered none, or none that is known: the answer names nothing.
    Default {
        /// What is spoken then.
        encoding: Encoding,
        /// Whether it did offer some.
        offered_unknown: bool,
    },
}

impl Negotiated {
    /// What will be spoken.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Chosen(encoding) | Self::Default { encoding, .. } => encoding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_index_their_table() {
        for (index, encoding) in Encoding::ALL.into_iter().enumerate() {
            assert_eq!(encoding as usize, index);
        }
    }

    #[test]
    fn the_first_known_subprotocol_is_chosen() {
        let negotiate = |offered: &[&str]| Offer::NATIVE.negotiate(offered.iter().copied(), Some("format=x"));
        let default =
            |offered_unknown| Negotiated::Default { encoding: Encoding::NativeJson, offered_unknown };
        let json = Negotiated::Chosen(Encoding::NativeJson);
        assert_eq!(negotiate(&["fanfare.v1.json"]), json);
        assert_eq!(negotiate(&["graphql-ws", "fanfare.v1.json"]), json);
        assert_eq!(negotiate(&["fanfare.v1.json", "fanfare.v1.msgpack"]), json);
        let msgpack = Negotiated::Chosen(Encoding::NativeMessagePack);
        assert_eq!(negotiate(&["fanfare.v1.msgpack", "fanfare.v1.json"]), msgpack);
        assert_eq!(negotiate(&["graphql-ws"]), default(true));
        assert_eq!(negotiate(&[]), default(false));
    }
}
