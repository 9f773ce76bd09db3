//! The native dialect in its two formats: `fanfare.v1.json`, one JSON object or an array of them per text message, and
//! `fanfare.v1.msgpack`, the same as a map or an array of maps per binary message.
//!
//! `docs/protocol.md` is its specification, `docs/protocol.schema.json` the same for programs, and the conversations in
//! `transcripts/` are what both are held against.

use crate::close::CloseReason;
use crate::command::Decoded;
use crate::dialect::{Dialect, Incoming};
use crate::event::Reply;
use crate::publication::{Delivery, Publication};
use crate::websocket::Frame;

pub mod api;
mod decode;
mod encode;
mod msgpack;

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

    fn encode(&self, reply: &Reply) -> Frame {
        encode::reply(reply)
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

    fn encode(&self, reply: &Reply) -> Frame {
        msgpack::reply(reply)
    }

    fn encode_publication(&self, publication: &Publication, delivery: Delivery) -> Frame {
        msgpack::publication(publication, delivery)
    }
}

#[cfg(test)]
mod tests;
