//! Two ways to write the same fields: as an object of JSON, and as a message of Protobuf.
//!
//! In both a field that has the value it has anyway is left out, but where JSON clients rely on it.

use std::borrow::Cow;

use crate::publication::Payload;
use crate::websocket::{Frame, FrameKind};

/// What a field is called in JSON and in Protobuf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    name: &'static str,
    number: u32,
    /// JSON has it even when it is empty.
    is_always: bool,
}

impl Field {
    /// One that is left out when it is empty.
    pub(super) const fn new(name: &'static str, number: u32) -> Self {
        Self { name, number, is_always: false }
    }

    /// One that JSON always has.
    pub(super) const fn always(name: &'static str, number: u32) -> Self {
        Self { name, number, is_always: true }
    }
}

/// Where fields are written to, in the order in which they come.
pub(super) trait Sink: Sized {
    fn text(&mut self, field: Field, text: &str);
    fn number(&mut self, field: Field, number: u64);
    fn switch(&mut self, field: Field, is_on: bool);
    /// What a publisher has sent: JSON within JSON, bytes within Protobuf.
    fn data(&mut self, field: Field, payload: &Payload);
    /// The same as bytes: a string within JSON, so they have to be text there.
    fn bytes(&mut self, field: Field, bytes: &[u8]);
    /// Texts by their keys.
    fn texts<'a>(&mut self, field: Field, texts: impl ExactSizeIterator<Item = (&'a str, &'a str)>);
    /// Fields within a field, which is there even when they are not.
    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self));
    fn list<T>(&mut self, field: Field, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T));
    fn map<T>(
        &mut self,
        field: Field,
        items: impl IntoIterator<Item = (String, T)>,
        write: impl Fn(&mut Self, T),
    );
}

/// An object of JSON, without its braces.
#[derive(Debug, Default)]
pub(super) struct Json {
    out: Vec<u8>,
    /// Something has been written of the object that is being written.
    has_begun: bool,
}

impl Json {
    /// Appends an object.
    pub(super) fn write(out: &mut Vec<u8>, write: impl FnOnce(&mut Self)) {
        out.push(b'{');
        let mut sink = Self { out: std::mem::take(out), has_begun: false };
        write(&mut sink);
        *out = sink.out;
        out.push(b'}');
    }

    pub(super) fn into_frame(self) -> Frame {
        Frame::build(FrameKind::Text, self.out.len() + 2, |out| {
            out.push(b'{');
            out.extend_from_slice(&self.out);
            out.push(b'}');
        })
    }

    /// A field that is an object already; without a name, its fields.
    pub(super) fn whole(&mut self, name: &str, object: &[u8]) {
        if name.is_empty() {
            self.out.extend_from_slice(&object[1..object.len() - 1]);
        } else {
            self.name(name);
            self.out.extend_from_slice(object);
        }
    }

    fn name(&mut self, name: &str) {
        if self.has_begun {
            self.out.push(b',');
        }
        self.has_begun = true;
        self.string(name);
        self.out.push(b':');
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.out, text).expect("a string is JSON and a vector takes every byte");
    }

    fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        self.has_begun = false;
        write(self);
        self.out.push(b'}');
        self.has_begun = true;
    }
}

impl Sink for Json {
    fn text(&mut self, field: Field, text: &str) {
        if field.is_always || !text.is_empty() {
            self.name(field.name);
            self.string(text);
        }
    }

    fn number(&mut self, field: Field, number: u64) {
        if field.is_always || number != 0 {
            self.name(field.name);
            serde_json::to_writer(&mut self.out, &number).expect("a vector takes every byte");
        }
    }

    fn switch(&mut self, field: Field, is_on: bool) {
        if field.is_always || is_on {
            self.name(field.name);
            self.out.extend_from_slice(if is_on { b"true" } else { b"false" });
        }
    }

    fn data(&mut self, field: Field, payload: &Payload) {
        self.name(field.name);
        payload.write_json(&mut self.out);
    }

    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        self.name(field.name);
        self.string(&String::from_utf8_lossy(bytes));
    }

    fn texts<'a>(&mut self, field: Field, texts: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
        if texts.len() == 0 {
            return;
        }
        self.name(field.name);
        self.object(|sink| {
            for (key, text) in texts {
                sink.name(key);
                sink.string(text);
            }
        });
    }

    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.name(field.name);
        self.object(write);
    }

    fn list<T>(&mut self, field: Field, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        let mut items = items.into_iter().peekable();
        if !field.is_always && items.peek().is_none() {
            return;
        }
        self.name(field.name);
        self.out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.object(|sink| write(sink, item));
        }
        self.out.push(b']');
    }

    fn map<T>(
        &mut self,
        field: Field,
        items: impl IntoIterator<Item = (String, T)>,
        write: impl Fn(&mut Self, T),
    ) {
        let mut items = items.into_iter().peekable();
        if !field.is_always && items.peek().is_none() {
            return;
        }
        self.name(field.name);
        self.object(|sink| {
            for (key, item) in items {
                sink.name(&key);
                sink.object(|sink| write(sink, item));
            }
        });
    }
}

/// The fields of a message of Protobuf (proto3).
#[derive(Debug, Default)]
pub(super) struct Protobuf {
    out: Vec<u8>,
}

/// Of an entry of a map.
const KEY: Field = Field::new("", 1);
const VALUE: Field = Field::new("", 2);

/// Lengths and numbers come before what they are of.
const VARINT: u32 = 0;
const LENGTH: u32 = 2;

impl Protobuf {
    /// The message, its length before it.
    pub(super) fn into_frame(self) -> Frame {
        Frame::build(FrameKind::Binary, self.out.len() + 5, |out| {
            varint(out, self.out.len() as u64);
            out.extend_from_slice(&self.out);
        })
    }
}

/// What of a payload is data to clients that take any bytes.
pub(super) fn bytes_of(payload: &Payload) -> Cow<'_, [u8]> {
    payload.as_binary().map_or_else(|| payload.json(), Cow::Borrowed)
}

/// Appends a number, seven bits to a byte, the lowest first.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

impl Sink for Protobuf {
    fn text(&mut self, field: Field, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn number(&mut self, field: Field, number: u64) {
        if number != 0 {
            varint(&mut self.out, u64::from(field.number << 3 | VARINT));
            varint(&mut self.out, number);
        }
    }

    fn switch(&mut self, field: Field, is_on: bool) {
        self.number(field, is_on.into());
    }

    fn data(&mut self, field: Field, payload: &Payload) {
        self.bytes(field, &bytes_of(payload));
    }

    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        varint(&mut self.out, u64::from(field.number << 3 | LENGTH));
        varint(&mut self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn texts<'a>(&mut self, field: Field, texts: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
        for (key, text) in texts {
            self.message(field, |sink| {
                sink.text(KEY, key);
                sink.text(VALUE, text);
            });
        }
    }

    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.out);
    }

    fn list<T>(&mut self, field: Field, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        for item in items {
            self.message(field, |sink| write(sink, item));
        }
    }

    fn map<T>(
        &mut self,
        field: Field,
        items: impl IntoIterator<Item = (String, T)>,
        write: impl Fn(&mut Self, T),
    ) {
        for (key, item) in items {
            self.message(field, |sink| {
                sink.text(KEY, &key);
                sink.message(VALUE, |sink| write(sink, item));
            });
        }
    }
}
