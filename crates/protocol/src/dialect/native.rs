//! The native dialect, `fanfare.v1.json`: one JSON object or an array of them per text message.
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

#[cfg(test)]
mod tests;
