//! What travels: a draft before the broker has placed it, a publication ever after.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::dialect::{Encoding, Form};
use crate::id::{SessionId, UserId};
use crate::msgpack::{self, Malformed};
use crate::tags::Tags;
use crate::time::UnixMicros;
use crate::trace::TraceContext;
use crate::websocket::deflate::WINDOWS;
use crate::websocket::{Frame, Shape};

/// How a payload is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON text on a single line.
    Json,
    /// One value of MessagePack.
    MessagePack,
}

/// What a publisher sent, in the format it was sent in: checked once, and never parsed again but to translate it for
/// those who speak the other format.
///
/// In JSON line breaks between tokens are turned into spaces on the way in, so that line-oriented transports may carry it
/// as it is.
///
/// A publisher may say of what kind it is, and mark it with [`Tags`]: its [`Label`] and they are no part of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    format: Format,
    bytes: Bytes,
    /// Nothing where there is none.
    notes: Option<Arc<Notes>>,
}

/// What a publisher says of a payload beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Notes {
    label: Option<Label>,
    tags: Tags,
}

impl Payload {
    /// Takes JSON that a parser has already checked.
    pub fn from_raw(json: &RawValue) -> Self {
        let text = json.get().as_bytes();
        if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Self::from_trusted(Bytes::copy_from_slice(text));
        }
        // Inside a JSON string a line break must be escaped, so a bare one is white space between tokens.
        Self::from_trusted(
            text.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect(),
        )
    }

    /// Takes the bytes of a JSON payload that another node has checked.
    pub const fn from_trusted(json: Bytes) -> Self {
        Self { format: Format::Json, bytes: json, notes: None }
    }

    /// Checks that `json` is one JSON value and takes it.
    ///
    /// # Errors
    /// The parser's complaint, with its position.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(json).map(Self::from_raw)
    }

    /// Checks that the bytes are one value of MessagePack that has a translation, and takes it.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse_msgpack(value: &[u8]) -> Result<Self, Malformed> {
        msgpack::Reader::check(value)?;
        Ok(Self::from_checked_msgpack(value))
    }

    /// Bytes, which are a value of MessagePack.
    ///
    /// # Panics
    /// When there are 4 GiB of them.
    pub fn binary(bytes: &[u8]) -> Self {
        let mut value = Vec::with_capacity(bytes.len() + 5);
        rmp::encode::write_bin(&mut value, bytes).expect("a vector takes every byte");
        Self { format: Format::MessagePack, bytes: value.into(), notes: None }
    }

    /// Takes a value of MessagePack that has been checked already.
    pub(crate) fn from_checked_msgpack(value: &[u8]) -> Self {
        Self { format: Format::MessagePack, bytes: Bytes::copy_from_slice(value), notes: None }
    }

    /// The same value, of this kind.
    #[must_use]
    pub fn labelled(self, label: Option<Label>) -> Self {
        if label.is_none() && self.notes.is_none() {
            return self; // As nearly all are.
        }
        self.noted(|notes| notes.label = label)
    }

    /// The same value, marked with these.
    #[must_use]
    pub fn tagged(self, tags: Tags) -> Self {
        self.noted(|notes| notes.tags = tags)
    }

    fn noted(self, note: impl FnOnce(&mut Notes)) -> Self {
        let mut notes = self.notes.map(Arc::unwrap_or_clone).unwrap_or_default();
        note(&mut notes);
        let notes = (notes != Notes::default()).then(|| Arc::new(notes));
        Self { notes, ..self }
    }

    /// Of which kind it is, where its publisher says so.
    pub fn label(&self) -> Option<&Label> {
        self.notes.as_ref()?.label.as_ref()
    }

    /// What its publisher has marked it with.
    pub fn tags(&self) -> &Tags {
        const NONE: &Tags = &Tags::NONE;
        self.notes.as_ref().map_or(NONE, |notes| &notes.tags)
    }

    /// How it was sent.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// As it was sent; see [`Payload::format`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that it is, if it is a value of MessagePack that is nothing else.
    pub fn as_binary(&self) -> Option<&[u8]> {
        if self.format != Format::MessagePack {
            return None;
        }
        let header_bytes = match self.bytes.first()? {
            0xc4 => 2,
            0xc5 => 3,
            0xc6 => 5,
            _ => return None,
        };
        self.bytes.get(header_bytes..)
    }

    /// It as JSON text on one line; borrowed if it was sent so.
    pub fn json(&self) -> Cow<'_, [u8]> {
        match self.format {
            Format::Json => Cow::Borrowed(&self.bytes),
            Format::MessagePack => {
                let mut out = Vec::new();
                self.write_json(&mut out);
                Cow::Owned(out)
            }
        }
    }

    /// Appends it as JSON text on one line.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => out.extend_from_slice(&self.bytes),
            Format::MessagePack => msgpack::to_json(&self.bytes, out),
        }
    }

    /// Appends it as a value of MessagePack.
    ///
    /// What came out of the broker as JSON and is none after all becomes nil: anybody may write there.
    pub fn write_msgpack(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => {
                if msgpack::from_json(&self.bytes, out).is_none() {
                    out.push(msgpack::NIL);
                }
            }
            Format::MessagePack => out.extend_from_slice(&self.bytes),
        }
    }

    /// At least as many bytes as it has in any dialect.
    pub fn bytes_at_most(&self) -> usize {
        match self.format {
            Format::Json => {
                self.bytes.len() + msgpack::growth_at_most(&self.bytes).max(growth_in_quotes(&self.bytes))
            }
            Format::MessagePack => {
                let json = self.json();
                self.bytes.len().max(json.len() + growth_in_quotes(&json))
            }
        }
    }
}

/// What JSON grows by where it is told as a string of JSON.
fn growth_in_quotes(json: &[u8]) -> usize {
    2 + json.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

/// The longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 200;

/// What a publisher calls the kind of what it publishes: 1 to [`LABEL_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Arc<str>);

impl Label {
    /// Takes a label; `None` when it is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        (1..=LABEL_BYTES_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client that a publication came from, as far as others are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Whose connection it was; none of an anonymous one, of which only the session can be told.
    pub user: Option<UserId>,
    /// The `info` of that user's token.
    pub profile: Option<Payload>,
    /// Which connection it was, where clients of its kind are known to each other by that.
    pub session: Option<SessionId>,
    /// What was said of it for this channel alone, where it is told with the session.
    pub note: Option<Payload>,
}

/// Where a publication stands in its channel's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Names the stream: under another epoch its end may be lost, or all of it.
    pub epoch: Epoch,
    /// Counts up by one from 1 within the epoch.
    pub offset: Offset,
}

impl Position {
    /// Whether these publications of a stream prove that nothing up to this position has been lost from it, whatever epoch
    /// the stream has by now.
    ///
    /// A stream that goes on under another epoch keeps the positions of what it still has, and what it has lost is its end.
    /// So a publication that was placed in this position's epoch, there or later, has behind it all that ever was behind it.
    pub fn is_shown_by<'a>(self, publications: impl IntoIterator<Item = &'a Arc<Publication>>) -> bool {
        publications
            .into_iter()
            .filter_map(|it| it.position)
            .any(|it| it.epoch == self.epoch && it.offset >= self.offset)
    }
}

/// The name of one life of a channel's stream: 64 random bits, 16 hexadecimal digits to clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that no stream ever has.
    pub const NEVER: Self = Self(0);

    /// Reads what [`Epoch`]'s `Display` wrote; `None` for anything else, which then is an epoch that never was.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
    /// Who sent it, when that was a client of whom anything is told. Boxed: a draft is moved more often than it is made.
    pub sender: Option<Box<Sender>>,
    /// The session that must not hear it: a publisher that asked for no echo.
    pub exclude: Option<SessionId>,
    /// When the gateway received it.
    pub received: UnixMicros,
    /// How the broker keeps it, on a channel with history.
    pub retention: Option<Retention>,
    /// The same key on the same channel is placed once: a repetition is answered with the first one's position. Takes
    /// retention; without it there is nowhere to remember the key.
    pub key: Option<IdempotencyKey>,
    /// The trace that it belongs to, where anybody follows one.
    pub trace: Option<Box<TraceContext>>,
}

impl Draft {
    /// At least as many bytes as it comes to for a subscriber, in whichever format that hears it.
    pub fn bytes_at_most(&self) -> usize {
        self.bytes(Payload::bytes_at_most)
    }

    /// The same without a look at the data, so a multiple of it.
    pub fn bytes_at_worst(&self) -> usize {
        self.bytes(|payload| 2 * msgpack::GROWTH_MAX * payload.as_bytes().len())
    }

    fn bytes(&self, payload_bytes: impl Fn(&Payload) -> usize) -> usize {
        /// The header of the frame, the names of fields, and numbers.
        const ENVELOPE_BYTES: usize = 128;
        // As JSON writes a character: one of a channel's as two bytes, any other as six.
        let channel = 2 * self.channel.as_str().len();
        /// The session, and the names of what is told with it.
        const SESSION_BYTES: usize = 64;
        let sender = self.sender.as_deref().map_or(0, |Sender { user, profile, session, note }| {
            let shown = [profile, note].into_iter().flatten().map(&payload_bytes).sum::<usize>();
            let user = user.as_ref().map_or(0, |user| 6 * user.as_str().len());
            user + shown + session.map_or(0, |_| SESSION_BYTES)
        });
        let label = self.payload.label().map_or(0, |label| 6 * label.as_str().len());
        let tags =
            self.payload.tags().iter().map(|(key, value)| 6 * (key.len() + value.len() + 1)).sum::<usize>();
        ENVELOPE_BYTES + channel + sender + label + tags + payload_bytes(&self.payload)
    }
}

/// How long and how much of a channel the broker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The most publications.
    pub size: NonZeroU32,
    /// How long after the last publication.
    pub ttl: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_ttl: Duration,
}

impl Retention {
    /// Enough to come back from a lost connection: a hundred publications, five minutes.
    pub const SHORT: Self = Self {
        size: NonZeroU32::new(100).unwrap(),
        ttl: Duration::from_secs(300),
        idempotency_ttl: Duration::from_secs(300),
    };
}

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// What a publisher calls a publication, so that sending it again does not publish it again: 1 to
/// [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Takes a key; `None` when it is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a publication comes to a subscriber, as far as the subscriber is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As it was published.
    Live,
    /// Out of history, to one who missed it.
    Replayed,
    /// On a channel where only the newest counts: so many older ones were dropped for this connection.
    Conflated(u64),
}

/// A publication as every subscriber gets it: immutable, shared, and encoded at most once per [`Encoding`], and compressed
/// at most once per encoding and window.
///
/// A node keeps many of those that have a place in a stream, so they are small, and what is seldom needed has no room of its
/// own.
#[derive(Debug)]
pub struct Publication {
    /// Where it was published.
    pub channel: Channel,
    /// What it says.
    pub payload: Payload,
    /// Who sent it, when that was a client of whom anything is told.
    pub sender: Option<Box<Sender>>,
    /// The session that must not hear it.
    pub exclude: Option<SessionId>,
    /// When the gateway that took it received it, by that node's wall clock.
    pub received: UnixMicros,
    /// Its place in the stream, on a channel with history.
    pub position: Option<Position>,
    /// In the encoding that was needed first.
    first: OnceLock<(Encoding, Frame)>,
    others: OnceLock<Box<Others>>,
}

/// Whether the way of what was received at this moment is measured part by part: every node picks the same, a sixteenth of all.
pub const fn is_sampled(received: UnixMicros) -> bool {
    received.0.is_multiple_of(16)
}

/// The frames of a publication but for the first that was needed, and what else few have.
#[derive(Debug, Default)]
struct Others {
    /// The trace that it belongs to, where anybody follows one.
    trace: Option<Box<TraceContext>>,
    encoded: [OnceLock<Frame>; ENCODINGS],
    replayed: Sparse<Frame, ENCODINGS>,
    deflated: Deflated,
    deflated_replayed: Deflated,
    /// Nothing where whole ones are spelt as for everybody.
    whole: Sparse<Option<Arc<Publication>>, ENCODINGS>,
}

impl Others {
    /// Of its own, so that publications without a trace do not pay for it.
    #[cold]
    fn of_trace(trace: Box<TraceContext>) -> OnceLock<Box<Self>> {
        OnceLock::from(Box::new(Self { trace: Some(trace), ..Self::default() }))
    }
}

const ENCODINGS: usize = Encoding::ALL.len();

/// Compressed frames by encoding and window; nothing for those that would not have been shorter.
type Deflated = Sparse<Option<Frame>, { ENCODINGS * WINDOWS }>;

/// Up to `MOST` things that are made when they are needed, which seldom more than one of them is.
#[derive(Debug)]
struct Sparse<T, const MOST: usize> {
    first: OnceLock<(usize, T)>,
    others: OnceLock<Box<[OnceLock<T>]>>,
}

impl<T, const MOST: usize> Default for Sparse<T, MOST> {
    fn default() -> Self {
        Self { first: OnceLock::new(), others: OnceLock::new() }
    }
}

impl<T, const MOST: usize> Sparse<T, MOST> {
    fn of(index: usize, made: T) -> Self {
        Self { first: OnceLock::from((index, made)), others: OnceLock::new() }
    }

    fn get_or_init(&self, index: usize, make: impl Fn() -> T) -> &T {
        match self.first.get_or_init(|| (index, make())) {
            (of, made) if *of == index => made,
            _ => self.others.get_or_init(|| (0..MOST).map(|_| OnceLock::new()).collect())[index]
                .get_or_init(make),
        }
    }
}

/// What was published, whatever has been encoded of it so far.
impl PartialEq for Publication {
    fn eq(&self, other: &Self) -> bool {
        let parts =
            |it: &Self| (it.channel.clone(), it.payload.clone(), it.sender.clone(), it.exclude, it.received);
        parts(self) == parts(other) && self.position == other.position
    }
}

impl Eq for Publication {}

impl Publication {
    /// The user who sent it, and what others are shown of that user.
    pub fn author(&self) -> Option<(&UserId, Option<&Payload>)> {
        let sender = self.sender.as_deref()?;
        Some((sender.user.as_ref()?, sender.profile.as_ref()))
    }

    /// The trace that it belongs to, where anybody follows one.
    #[inline]
    pub fn trace(&self) -> Option<&TraceContext> {
        self.others.get()?.trace.as_deref()
    }

    /// A draft that has found its place.
    #[expect(clippy::inline_always, reason = "a draft is long, and is copied for each call that remains")]
    #[inline(always)]
    pub fn new(draft: Draft, position: Option<Position>) -> Self {
        let Draft { channel, payload, sender, exclude, received, retention: _, key: _, trace } = draft;
        let others = trace.map_or_else(OnceLock::new, Others::of_trace);
        Self { channel, payload, sender, exclude, received, position, first: OnceLock::new(), others }
    }

    /// The same of one that is kept for a while: it is encoded at once, in the way that is native to its format, and what it
    /// says lies in that frame, not beside it. That halves the memory of what its subscribers hear in that encoding, as most
    /// do, and costs one encoding of what nobody does.
    pub fn kept(draft: Draft, position: Position) -> Self {
        let mut publication = Self::new(draft, Some(position));
        let frame = publication.encoded(Encoding::native(publication.payload.format)).bytes().clone();
        let said = &publication.payload.bytes;
        // From the end, where it is.
        let begin = frame.windows(said.len().max(1)).rposition(|window| window == said);
        if let Some(begin) = begin {
            publication.payload.bytes = frame.slice(begin..begin + said.len());
        }
        publication
    }

    /// The frame that carries it to every subscriber of one form: computed for the first, shared by the rest.
    #[inline]
    pub fn encoded(&self, form: impl Into<Form>) -> &Frame {
        let form = form.into();
        let encoding = form.encoding();
        let encode = || encoding.dialect().encode_publication(self, Delivery::Live);
        let plain = match self.first.get_or_init(|| (encoding, encode())) {
            (of, frame) if *of == encoding => frame,
            _ => self.others().encoded[encoding as usize].get_or_init(encode),
        };
        let shape = form.shape().filter(|shape| shape.is_for(plain));
        shape.map_or(plain, |shape| deflated(&self.others().deflated, encoding, shape, plain))
    }

    /// The same for those who recover it: marked as replayed, and shared by all who missed it.
    pub fn replayed(&self, form: impl Into<Form>) -> &Frame {
        let form = form.into();
        let encoding = form.encoding();
        let others = self.others();
        let encode = || encoding.dialect().encode_publication(self, Delivery::Replayed);
        let plain = others.replayed.get_or_init(encoding as usize, encode);
        let shape = form.shape().filter(|shape| shape.is_for(plain));
        shape.map_or(plain, |shape| deflated(&others.deflated_replayed, encoding, shape, plain))
    }

    /// It as the subscribers of an encoding hear it who have agreed to differences, when they do not know what was said before.
    #[must_use]
    pub fn whole(self: &Arc<Self>, encoding: Encoding) -> Arc<Self> {
        let spelt = || Some(self.spelt(encoding, encoding.dialect().encode_chained(self, None)?));
        self.others().whole.get_or_init(encoding as usize, spelt).as_ref().unwrap_or(self).clone()
    }

    /// The same when this is what was said before, and the last thing that they have heard of the channel.
    #[must_use]
    pub fn after(self: &Arc<Self>, before: &Payload, encoding: Encoding) -> Arc<Self> {
        match encoding.dialect().encode_chained(self, Some(before)) {
            Some(frame) => self.spelt(encoding, frame),
            None => self.whole(encoding),
        }
    }

    /// The same for subscribers of one encoding alone, whether it is live or not.
    fn spelt(&self, encoding: Encoding, frame: Frame) -> Arc<Self> {
        let Self { channel, payload, sender, exclude, received, position, .. } = self;
        let trace = self.trace().copied().map(Box::new);
        let replayed = Sparse::of(encoding as usize, frame.clone());
        let others = Others { trace, replayed, ..Others::default() };
        Arc::new(Self {
            channel: channel.clone(),
            payload: payload.clone(),
            sender: sender.clone(),
            exclude: *exclude,
            received: *received,
            position: *position,
            first: OnceLock::from((encoding, frame)),
            others: OnceLock::from(Box::new(others)),
        })
    }

    fn others(&self) -> &Others {
        self.others.get_or_init(Box::default)
    }

    /// Its place in the stream; 0 on a channel without history.
    pub fn offset(&self) -> Offset {
        self.position.map_or(Offset(0), |position| position.offset)
    }
}

/// A frame compressed, once for all who agreed to the same window; as it is when that would not be shorter.
fn deflated<'a>(frames: &'a Deflated, encoding: Encoding, shape: Shape, plain: &'a Frame) -> &'a Frame {
    let index = encoding as usize * WINDOWS + shape.index();
    frames.get_or_init(index, || plain.deflated(shape)).as_ref().unwrap_or(plain)
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

    fn draft(payload: &str) -> Draft {
        Draft {
            channel: Channel::parse("a").unwrap(),
            payload: Payload::parse(payload).unwrap(),
            sender: None,
            exclude: None,
            received: UnixMicros(0),
            retention: None,
            key: None,
            trace: None,
        }
    }

    fn publication(payload: &str) -> Publication {
        Publication::new(draft(payload), None)
    }

    #[test]
    fn one_encoding_is_computed_once() {
        let publication = publication("1");
        let first = publication.encoded(Encoding::NativeJson).bytes().as_ptr();
        assert_eq!(first, publication.encoded(Encoding::NativeJson).bytes().as_ptr());
    }

    #[test]
    fn what_one_says_that_is_kept_lies_in_its_frame() {
        let position = Position { epoch: Epoch(7), offset: Offset(1) };
        let payloads = [
            Payload::parse(r#"{"data":[1,2]}"#).unwrap(),
            Payload::parse("1").unwrap(), // Which the frame says more than once.
            Payload::parse_msgpack(&[0x93, 1, 2, 3]).unwrap(),
            Payload::binary(b"bytes"),
            Payload::from_trusted(Bytes::new()),
        ];
        for payload in payloads {
            let draft = Draft { payload: payload.clone(), ..draft("null") };
            let kept = Publication::kept(draft.clone(), position);
            assert_eq!(kept, Publication::new(draft.clone(), Some(position)));
            let native = kept.encoded(Encoding::native(payload.format())).bytes();
            let said = kept.payload.as_bytes().as_ptr_range();
            assert!(native.as_ptr_range().contains(&said.start) || said.is_empty(), "{payload:?}");
            for encoding in Encoding::ALL {
                let new = Publication::new(draft.clone(), Some(position));
                assert_eq!(kept.encoded(encoding), new.encoded(encoding), "{payload:?}");
                assert_eq!(kept.replayed(encoding), new.replayed(encoding), "{payload:?}");
            }
        }
    }

    #[test]
    fn a_node_that_keeps_many_of_them_keeps_little() {
        assert!(size_of::<Publication>() <= 208, "{}", size_of::<Publication>());
    }

    #[test]
    fn it_is_compressed_once_for_all_of_a_window_and_only_where_that_is_shorter() {
        let form = |window_bits, threshold_bytes| {
            Form::new(Encoding::NativeJson, Some(Shape { window_bits, level: 1, threshold_bytes }))
        };
        let publication = publication(&format!("\"{}\"", "abc".repeat(100)));
        let plain = publication.encoded(Encoding::NativeJson);
        let first = publication.encoded(form(15, 100));
        assert!(first.len() < plain.len() / 2, "{} of {}", first.len(), plain.len());
        assert_eq!(first.bytes().as_ptr(), publication.encoded(form(15, 100)).bytes().as_ptr());
        assert_ne!(first.bytes().as_ptr(), publication.encoded(form(9, 100)).bytes().as_ptr());
        assert_ne!(first.bytes().as_ptr(), publication.replayed(form(15, 100)).bytes().as_ptr());
        assert_eq!(publication.encoded(form(15, 1000)), plain, "below the threshold");
        let tiny = self::publication("1");
        assert_eq!(tiny.encoded(form(15, 1)), tiny.encoded(Encoding::NativeJson), "there is nothing to save");
    }
}
