//! The native dialect in its two formats: `fanfare.v1.json`, one JSON object or an array of them per text message, and
//! `fanfare.v1.msgpack`, the same as a map or an array of maps per binary message.
//!
//! `docs/protocol.md` is its specification, `docs/protocol.schema.json` the same for programs, and the conversations in
//! `transcripts/` are what both are held against.

use crate::close::CloseReason;
use crate::command::Decoded;
use crate::depth;
use crate::dialect::{Dialect, Incoming};
use crate::event::{Event, Reply};
use crate::publication::{Delivery, Publication};
use crate::websocket::Frame;

pub mod api;
mod decode;
mod encode;
mod msgpack;
pub mod report;

/// `fanfare.v1.json`, in text frames.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Dialect for Json {
    fn decode(
        &self,
        incoming: Incoming<'_>,
        batch_max: usize,
        on_command: &mut dyn FnMut(Decoded),
    ) -> Result<(), CloseReason> {
        match incoming {
            Incoming::Text(text) => decode::commands(text, batch_max, on_command),
            Incoming::Binary(_) => return Err(CloseReason::UnsupportedData),
        }
        Ok(())
    }

    fn exceeds(&self, incoming: Incoming<'_>, levels: usize) -> bool {
        let Incoming::Text(text) = incoming else { return false };
        let is_batch = text.trim_start().starts_with('[');
        depth::json_exceeds(text.as_bytes(), levels + usize::from(is_batch))
    }

    fn encode(&self, reply: &Reply) -> Option<Frame> {
        (!is_unspoken(&reply.event)).then(|| encode::reply(reply))
    }

    fn encode_publication(&self, publication: &Publication, delivery: Delivery) -> Frame {
        encode::publication(publication, delivery)
    }
}

/// `fanfare.v1.msgpack`, in binary frames.
#[derive(Clone, Copy, Debug)]
pub struct MessagePack;

impl Dialect for MessagePack {
    fn decode(
        &self,
        incoming: Incoming<'_>,
        batch_max: usize,
        on_command: &mut dyn FnMut(Decoded),
    ) -> Result<(), CloseReason> {
        match incoming {
            Incoming::Text(_) => return Err(CloseReason::UnsupportedData),
            Incoming::Binary(bytes) => msgpack::commands(bytes, batch_max, on_command),
        }
        Ok(())
    }

    fn exceeds(&self, incoming: Incoming<'_>, levels: usize) -> bool {
        let Incoming::Binary(value) = incoming else { return false };
        let is_batch = matches!(value.first(), Some(0x90..=0x9f | 0xdc | 0xdd));
        depth::msgpack_exceeds(value, levels + usize::from(is_batch))
    }

    fn encode(&self, reply: &Reply) -> Option<Frame> {
        (!is_unspoken(&reply.event)).then(|| msgpack::reply(reply))
    }

    fn encode_publication(&self, publication: &Publication, delivery: Delivery) -> Frame {
        msgpack::publication(publication, delivery)
    }
}

/// What a client that rewinds sees for itself; and what is said to one that names itself late, which is not done here.
const fn is_unspoken(event: &Event) -> bool {
    matches!(
        event,
        Event::NothingKept { .. }
            | Event::Recognised
            | Event::Sighted { .. }
            | Event::Acquainted { .. }
            | Event::Counted { .. }
    )
}

#[cfg(test)]
mod tests;
