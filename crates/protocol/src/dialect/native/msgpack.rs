//! `fanfare.v1.msgpack`: the envelope is translated, the data is not.
//!
//! The fields of a command are turned into JSON and read as such, and the events are turned into MessagePack from their
//! JSON: so the two formats cannot drift apart, and a field that one has the other has. It costs a microsecond per command.
//! `data` keeps its bytes both ways, and publications, the hot path, are written by hand.

use rmp::Marker;
use rmp::encode as write;

use super::decode::{Data, Fields, check_batch, request, unnamed};
use super::encode;
use crate::command::{Decoded, Rejection};
use crate::event::{Event, Reply};
use crate::history::Page;
use crate::id::UserId;
use crate::msgpack::{Malformed, Reader, Token, from_json, key_to_json, to_json};
use crate::publication::{Delivery, Payload, Publication};
use crate::websocket::{Frame, FrameKind};

/// Reads the commands of one message, in order.
pub(super) fn commands(bytes: &[u8], batch_max: usize, on_command: &mut dyn FnMut(Decoded)) {
    match batch(bytes, batch_max) {
        Err(rejection) => on_command(Err(rejection)),
        Ok(None) => on_command(command(bytes)),
        Ok(Some(batch)) => batch.into_iter().for_each(|value| on_command(command(value))),
    }
}

/// The commands of a batch, if the message is one; the whole message is checked.
fn batch(bytes: &[u8], batch_max: usize) -> Result<Option<Vec<&[u8]>>, Rejection> {
    Reader::check(bytes).map_err(not_understood)?;
    let mut reader = Reader::new(bytes);
    let Ok(Token::Array(count)) = reader.token() else { return Ok(None) };
    check_batch(count as usize, batch_max)?;
    (0..count).map(|_| reader.value()).collect::<Result<_, _>>().map(Some).map_err(not_understood)
}

/// Reads a command that is one value, checked.
fn command(bytes: &[u8]) -> Decoded {
    let mut reader = Reader::new(bytes);
    let count = match reader.token() {
        Ok(Token::Map(count)) => count,
        Ok(Token::Array(_)) => return Err(unnamed("a command is a map, and a batch holds no batches")),
        _ => return Err(unnamed("a command is a map with each field once")),
    };
    let mut data = None;
    let mut envelope = vec![b'{'];
    for _ in 0..count {
        let key = reader.token().map_err(not_understood)?;
        let value = reader.value().map_err(not_understood)?;
        if key == Token::Str("data") {
            if data.replace(Data::MessagePack(value)).is_some() {
                return Err(unnamed("a command is a map with each field once: `data` is there twice"));
            }
            continue;
        }
        if envelope.len() > 1 {
            envelope.push(b',');
        }
        key_to_json(key, &mut envelope);
        envelope.push(b':');
        to_json(value, &mut envelope);
    }
    envelope.push(b'}');
    // It is JSON by construction, so what can be wrong is a field that is there twice.
    let fields: Fields<'_> = serde_json::from_slice(&envelope)
        .map_err(|_| unnamed("a command is a map with each field once: one is there twice"))?;
    request(&fields.with_data(data))
}

fn not_understood(error: Malformed) -> Rejection {
    unnamed(format!("not MessagePack that is taken here: {error}"))
}

pub(super) fn reply(reply: &Reply) -> Frame {
    let id = reply.id.as_ref();
    Frame::build(FrameKind::Binary, 256, |out| match &reply.event {
        Event::Past { channel, page } => {
            let fields = encode::at("history", channel.as_str(), Some(page.position()));
            past(Map::translated(&encode::with_id(fields, id), out), page);
        }
        event => _ = Map::translated(&encode::with_id(encode::fields(event), id), out),
    })
}

/// Adds the messages of a page to the event that they belong to.
fn past(mut event: Map<'_>, page: &Page) {
    let count = u32::try_from(page.publications.len()).expect("a page is bounded");
    let out = event.field("messages");
    write::write_array_len(out, count).expect(NEVER_FULL);
    for publication in &page.publications {
        let mut message = Map::begin(out);
        number(message.field("offset"), publication.offset().0);
        if let Some(author) = publication.author() {
            from(message.field("from"), author);
        }
        if let Some(label) = publication.payload.label() {
            text(message.field("label"), label.as_str());
        }
        publication.payload.write_msgpack(message.field("data"));
    }
}

pub(super) fn publication(publication: &Publication, delivery: Delivery) -> Frame {
    let room = publication.payload.as_bytes().len() + publication.channel.as_str().len() + 64;
    Frame::build(FrameKind::Binary, room, |out| {
        let mut message = Map::begin(out);
        text(message.field("type"), "message");
        text(message.field("channel"), publication.channel.as_str());
        if let Some(position) = &publication.position {
            number(message.field("offset"), position.offset.0);
        }
        if let Some(author) = publication.author() {
            from(message.field("from"), author);
        }
        match delivery {
            Delivery::Live => {}
            Delivery::Replayed => write::write_bool(message.field("recovered"), true).expect(NEVER_FULL),
            Delivery::Conflated(dropped) => number(message.field("conflated"), dropped),
        }
        if let Some(label) = publication.payload.label() {
            text(message.field("label"), label.as_str());
        }
        publication.payload.write_msgpack(message.field("data"));
    })
}

fn from(out: &mut Vec<u8>, (user, profile): (&UserId, Option<&Payload>)) {
    let mut from = Map::begin(out);
    text(from.field("user"), user.as_str());
    if let Some(profile) = profile {
        profile.write_msgpack(from.field("info"));
    }
}

const NEVER_FULL: &str = "a vector takes every byte";

fn text(out: &mut Vec<u8>, text: &str) {
    write::write_str(out, text).expect(NEVER_FULL);
}

fn number(out: &mut Vec<u8>, number: u64) {
    write::write_uint(out, number).expect(NEVER_FULL);
}

/// A map at the end of a buffer, whose fields are counted in its first byte as they come: it has at most 15.
struct Map<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Map<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(Marker::FixMap(0).to_u8());
        Self { out, start }
    }

    /// What JSON clients are told, as a map.
    fn translated(fields: &encode::Fields<'_>, out: &'a mut Vec<u8>) -> Self {
        let mut json = Vec::with_capacity(256);
        encode::write_json(&mut json, fields);
        let start = out.len();
        from_json(&json, out).expect("an event is JSON");
        Self { out, start }
    }

    /// Begins a field; its value is to be appended to what this returns.
    fn field(&mut self, name: &str) -> &mut Vec<u8> {
        debug_assert!((0x80..0x8f).contains(&self.out[self.start]), "a small map has at most 15 fields");
        self.out[self.start] += 1;
        text(self.out, name);
        self.out
    }
}
