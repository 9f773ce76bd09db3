//! The dialect of Centrifugo's clients, bidirectional, of version 2, in its two formats: JSON, one or several commands per text
//! message with line breaks between, and Protobuf, the same in binary messages, each with its length before it.
//!
//! `docs/protocol/centrifugo.md` says what of it is spoken here, and the conversations in `transcripts/` show it. Both formats are
//! read into the same [`wire`] commands, and written by the same walk over an event's fields into a sink of either kind: what
//! one has the other has.
//!
//! What a client missed follows the reply to its `subscribe` as publications, where Centrifugo puts it into the reply: so its
//! bytes are shared with all who missed the same, and clients, which count the position up publication by publication, see
//! no difference.

use crate::close::CloseReason;
use crate::command::Decoded;
use crate::depth;
use crate::dialect::{Dialect, Encoding, Incoming, Offer};
use crate::event::Reply;
use crate::manners::{Absence, Manners, Opening, Refusal, Senders, SignOfLife, Telling};
use crate::publication::{Delivery, Payload, Publication};
use crate::websocket::{Frame, FrameKind};

pub mod api;
mod codes;
pub mod emulation;
mod encode;
mod fossil;
mod sink;
mod wire;

use sink::{Json as JsonSink, Protobuf as ProtobufSink};

/// What is spoken at its endpoint.
pub const OFFER: Offer = Offer {
    default: Encoding::CentrifugoJson,
    encodings: &[Encoding::CentrifugoJson, Encoding::CentrifugoProtobuf],
    by_query,
};

/// `format=protobuf`, or the name of the parameter that newer clients use.
fn by_query(query: &str) -> Option<Encoding> {
    let asks = |pair: &str| matches!(pair, "format=protobuf" | "cf_protocol=protobuf");
    query.split('&').any(asks).then_some(Encoding::CentrifugoProtobuf)
}

const MANNERS: Manners = Manners {
    opening: Opening::Client,
    life: SignOfLife::Answer,
    refusal: Refusal::Final,
    absence: Absence::Fine,
    telling: Telling::Final,
    senders: Senders::Connections,
    token_grace: std::time::Duration::from_secs(25),
    ..Manners::PLAIN
};

/// In text frames.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Dialect for Json {
    fn decode(
        &self,
        incoming: Incoming<'_>,
        batch_max: usize,
        on_command: &mut dyn FnMut(Decoded),
    ) -> Result<(), CloseReason> {
        let Incoming::Text(text) = incoming else { return Err(CloseReason::BadRequest) };
        wire::json::commands(text, batch_max, on_command)
    }

    fn exceeds(&self, incoming: Incoming<'_>, levels: usize) -> bool {
        let Incoming::Text(text) = incoming else { return false };
        text.lines().any(|line| depth::json_exceeds(line.as_bytes(), levels))
    }

    fn encode(&self, reply: &Reply) -> Option<Frame> {
        let mut sink = JsonSink::default();
        encode::reply(&mut sink, reply)?;
        Some(sink.into_frame())
    }

    fn encode_publication(&self, publication: &Publication, _delivery: Delivery) -> Frame {
        Frame::build(FrameKind::Text, encode::room(publication), |out| {
            JsonSink::write(out, |sink| encode::push(sink, publication));
        })
    }

    /// What is said comes as a string, so that it can be told from a delta, which is one.
    fn encode_chained(&self, publication: &Publication, before: Option<&Payload>) -> Option<Frame> {
        let now = publication.payload.json();
        let is_text = |before: &[u8]| str::from_utf8(before).is_ok() && str::from_utf8(&now).is_ok();
        let delta = match before.map(Payload::json) {
            None => None,
            Some(before) if is_text(&before) => Some(fossil::delta(&before, &now, fossil::Kind::Text)?),
            Some(_) => return None,
        };
        let said = delta.as_deref().unwrap_or(&now);
        let room = encode::room(publication) + said.len() / 4;
        Some(Frame::build(FrameKind::Text, room, |out| {
            JsonSink::write(out, |sink| encode::chained(sink, publication, said, delta.is_some()));
        }))
    }

    fn farewell(&self, reason: CloseReason) -> Option<Frame> {
        let mut sink = JsonSink::default();
        encode::disconnect(&mut sink, reason);
        Some(sink.into_frame())
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn ping(&self) -> Frame {
        Frame::text("{}")
    }

    fn close(&self, reason: CloseReason) -> (u16, &'static str) {
        codes::disconnect(reason)
    }
}

/// In binary frames.
#[derive(Clone, Copy, Debug)]
pub struct Protobuf;

impl Dialect for Protobuf {
    fn decode(
        &self,
        incoming: Incoming<'_>,
        batch_max: usize,
        on_command: &mut dyn FnMut(Decoded),
    ) -> Result<(), CloseReason> {
        let Incoming::Binary(bytes) = incoming else { return Err(CloseReason::BadRequest) };
        wire::protobuf::commands(bytes, batch_max, on_command)
    }

    /// Its messages nest as deeply as the schema does. The data of a publication may be JSON, and is looked at when it is read.
    fn exceeds(&self, _incoming: Incoming<'_>, _levels: usize) -> bool {
        false
    }

    fn encode(&self, reply: &Reply) -> Option<Frame> {
        let mut sink = ProtobufSink::default();
        encode::reply(&mut sink, reply)?;
        Some(sink.into_frame())
    }

    fn encode_publication(&self, publication: &Publication, _delivery: Delivery) -> Frame {
        let mut sink = ProtobufSink::default();
        encode::push(&mut sink, publication);
        sink.into_frame()
    }

    fn encode_chained(&self, publication: &Publication, before: Option<&Payload>) -> Option<Frame> {
        let (before, now) = (sink::bytes_of(before?), sink::bytes_of(&publication.payload));
        let delta = fossil::delta(&before, &now, fossil::Kind::Bytes)?;
        let mut sink = ProtobufSink::default();
        encode::chained(&mut sink, publication, &delta, true);
        Some(sink.into_frame())
    }

    fn farewell(&self, reason: CloseReason) -> Option<Frame> {
        let mut sink = ProtobufSink::default();
        encode::disconnect(&mut sink, reason);
        Some(sink.into_frame())
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn ping(&self) -> Frame {
        Frame::binary(&[0])
    }

    fn close(&self, reason: CloseReason) -> (u16, &'static str) {
        codes::disconnect(reason)
    }
}

#[cfg(test)]
mod tests;
