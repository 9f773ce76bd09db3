//! What crosses Redis: one publication as compact bytes that need nothing else to be read.
//!
//! ```text
//!  u8  version = 1
//!  u64 the epoch, 0 without a position ┐ the position
//!  u64 the offset, only with an epoch  ┘
//!  u8  flags: 1 exclude, 2 sender, 4 profile,       ┐
//!             8 the payload is MessagePack,        │
//!             16 label, 32 tags, 128 trace,        │
//!             64 the sender's session              │
//!  u64 received, µs since the Unix epoch            │
//!  16  the session that must not hear it, if flag 1 │ the body: what a publisher knows
//!  u32 length, the user, UTF-8, if flag 2           │
//!  u32 length, the user's profile, JSON, if flag 4  │
//!  16  the sender's session, if flag 64             │
//!  u32 length, its note, JSON, if flag 64           │
//!  u32 length, the payload's label, UTF-8, if 16    │
//!  u32 how many tags, and of each the key and the   │
//!      value, u32 length and UTF-8 each, if 32      │
//!  25  the trace, if flag 128                        │
//!  …   the payload to the end: JSON unless flag 8   ┘
//! ```
//!
//! One byte alone, [`REMOVAL`], says that what was published so far was removed from history.
//!
//! Numbers are big-endian. The position comes first because it is known last: a script in Redis that places a
//! publication puts a few bytes before a body that it need not understand.
//!
//! **Invariants.** An envelope has at most [`ENVELOPE_BYTES_MAX`] bytes; more is neither sent nor read. Whatever the
//! bytes, reading ends with a value or [`Malformed`]: anybody may publish to a channel of Redis. Text is checked to be
//! UTF-8, since it ends up in text frames; that it is JSON is the sending node's promise. MessagePack is checked whole, since
//! it is translated for those who speak JSON.
//!
//! All eight flags have a meaning by now: whatever comes next takes another version. A flag that a node does not know makes
//! an envelope malformed to it: nodes from before MessagePack, or from before traces, drop such publications, and read the
//! others; those of their envelopes that history has kept are read here as ever.

use std::io::{self, Write};

use bytes::Bytes;
use fanfare_protocol::publication::{Draft, Epoch, Format, Label, Offset, Payload, Position, Sender};
use fanfare_protocol::tags::{TAGS_MAX, Tags};
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::trace::TraceContext;
use fanfare_protocol::{Channel, Publication, SessionId, UserId};
use redis::{RedisWrite, ToRedisArgs};

/// The most bytes of one envelope.
pub(super) const ENVELOPE_BYTES_MAX: usize = 16 * 1024 * 1024;

const VERSION: u8 = 1;

/// What nodes are told when a channel's history was removed. Presence has 2.
pub(super) const REMOVAL: &[u8] = &[3];

/// The bytes of a position.
pub(super) const POSITION_BYTES: usize = 16;

mod flag {
    pub(super) const EXCLUDE: u8 = 1;
    pub(super) const SENDER: u8 = 2;
    pub(super) const PROFILE: u8 = 4;
    pub(super) const MESSAGE_PACK: u8 = 8;
    pub(super) const LABEL: u8 = 16;
    pub(super) const TAGS: u8 = 32;
    pub(super) const SESSION: u8 = 64;
    pub(super) const TRACE: u8 = 128;
}

/// A draft, and its position when that is known to the sender, on their way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    pub(super) draft: &'a Draft,
    pub(super) position: Option<&'a Position>,
}

/// Bytes that are no envelope of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Envelope<'_> {
    /// The length of its bytes.
    pub(super) fn len(&self) -> usize {
        let position = self.position.map_or(8, |_| POSITION_BYTES);
        let exclude = if self.draft.exclude.is_some() { 16 } else { 0 };
        let sender = self.draft.sender.as_deref().map_or(0, |it| {
            let user = it.user.as_ref().map_or(0, |user| 4 + user.as_str().len());
            let profile = it.profile.as_ref().map_or(0, |profile| 4 + profile.as_bytes().len());
            user + profile + it.session.map_or(0, |_| 20 + note(it).len())
        });
        let label = self.draft.payload.label().map_or(0, |label| 4 + label.as_str().len());
        let tags = self.draft.payload.tags();
        let each_tag = tags.iter().map(|(key, value)| 8 + key.len() + value.len());
        let tags = if tags.is_empty() { 0 } else { 4 + each_tag.sum::<usize>() };
        let trace = self.draft.trace.as_ref().map_or(0, |_| TraceContext::BYTES);
        1 + position + 9 + exclude + sender + label + tags + trace + self.draft.payload.as_bytes().len()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&[VERSION])?;
        out.write_all(&self.position.map_or(0, |position| position.epoch.0).to_be_bytes())?;
        if let Some(position) = self.position {
            out.write_all(&position.offset.0.to_be_bytes())?;
        }
        Body(self.draft).write(out)
    }
}

/// What a publisher knows of an envelope: all that follows the position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a>(pub(super) &'a Draft);

impl Body<'_> {
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        let Draft { payload, sender, exclude, received, trace, .. } = self.0;
        let user = sender.as_ref().and_then(|it| it.user.as_ref());
        let profile = sender.as_ref().and_then(|it| it.profile.as_ref());
        let session = sender.as_ref().and_then(|it| it.session);
        out.write_all(&[exclude.map_or(0, |_| flag::EXCLUDE)
            | user.map_or(0, |_| flag::SENDER)
            | profile.map_or(0, |_| flag::PROFILE)
            | session.map_or(0, |_| flag::SESSION)
            | payload.label().map_or(0, |_| flag::LABEL)
            | if payload.tags().is_empty() { 0 } else { flag::TAGS }
            | trace.as_ref().map_or(0, |_| flag::TRACE)
            | if payload.format() == Format::MessagePack { flag::MESSAGE_PACK } else { 0 }])?;
        out.write_all(&received.0.to_be_bytes())?;
        if let Some(session) = exclude {
            out.write_all(&session.to_bytes())?;
        }
        let user = user.map(|user| user.as_str().as_bytes());
        for it in [user, profile.map(Payload::as_bytes)].into_iter().flatten() {
            write_text(out, it)?;
        }
        if let (Some(session), Some(sender)) = (session, sender) {
            out.write_all(&session.to_bytes())?;
            write_text(out, note(sender))?;
        }
        if let Some(label) = payload.label() {
            write_text(out, label.as_str().as_bytes())?;
        }
        let tags = payload.tags();
        if !tags.is_empty() {
            write_length(out, tags.iter().len())?;
        }
        for (key, value) in tags.iter() {
            write_text(out, key.as_bytes())?;
            write_text(out, value.as_bytes())?;
        }
        if let Some(trace) = trace {
            out.write_all(&trace.to_bytes())?;
        }
        out.write_all(payload.as_bytes())
    }
}

fn write_text(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    write_length(out, text.len())?;
    out.write_all(text)
}

fn write_length(out: &mut impl Write, length: usize) -> io::Result<()> {
    out.write_all(&u32::try_from(length).expect("an envelope is bounded").to_be_bytes())
}

/// What goes with the sender's session: nothing where there is no note.
fn note(sender: &Sender) -> &[u8] {
    sender.note.as_ref().map_or(&[], Payload::as_bytes)
}

/// Written straight into the command that carries it. Its length has been checked against [`ENVELOPE_BYTES_MAX`].
impl ToRedisArgs for Envelope<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        self.write(&mut out.writer_for_next_arg()).expect("memory takes every write");
    }
}

/// As [`Envelope`].
impl ToRedisArgs for Body<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        self.write(&mut out.writer_for_next_arg()).expect("memory takes every write");
    }
}

/// Reads a position as scripts answer with it.
pub(super) fn position(bytes: &[u8]) -> Option<Position> {
    let (epoch, offset) = bytes.split_first_chunk()?;
    let offset = u64::from_be_bytes(offset.try_into().ok()?);
    Some(Position { epoch: Epoch(u64::from_be_bytes(*epoch)), offset: Offset(offset) })
}

/// Reads a publication of `channel`. Without a sender it allocates once, for the payload: bytes of its own, for what a
/// slow subscriber has yet to read must not keep the whole buffer of a socket alive.
pub(super) fn open(channel: Channel, envelope: &[u8]) -> Result<Publication, Malformed> {
    let mut rest = Rest(envelope);
    if envelope.len() > ENVELOPE_BYTES_MAX || rest.byte()? != VERSION {
        return Err(Malformed);
    }
    let position = match u64::from_be_bytes(rest.array()?) {
        0 => None,
        epoch => Some(Position { epoch: Epoch(epoch), offset: Offset(u64::from_be_bytes(rest.array()?)) }),
    };
    let flags = rest.byte()?;
    let is_nobodys = flags & (flag::SENDER | flag::SESSION) == 0;
    if flags & flag::PROFILE != 0 && is_nobodys {
        return Err(Malformed);
    }
    let received = UnixMicros(u64::from_be_bytes(rest.array()?));
    let exclude = match flags & flag::EXCLUDE {
        0 => None,
        _ => Some(SessionId::from_random(rest.array()?)),
    };
    let sender = if is_nobodys { None } else { Some(Box::new(rest.sender(flags)?)) };
    let notes = match flags & (flag::LABEL | flag::TAGS | flag::TRACE) {
        0 => None,
        _ => Some(rest.notes(flags)?),
    };
    let payload = match flags & flag::MESSAGE_PACK {
        0 => payload(rest.text(rest.0.len())?)?,
        _ => Payload::parse_msgpack(rest.0).map_err(|_| Malformed)?,
    };
    let (payload, trace) = match notes {
        None => (payload, None),
        Some(Notes { label, tags, trace }) => (payload.labelled(label).tagged(tags), trace),
    };
    Ok(Publication::new(
        Draft { channel, payload, sender, exclude, received, retention: None, key: None, trace },
        position,
    ))
}

fn payload(json: &str) -> Result<Payload, Malformed> {
    if json.is_empty() {
        return Err(Malformed);
    }
    Ok(Payload::from_trusted(Bytes::copy_from_slice(json.as_bytes())))
}

/// What few publications have beside what they say.
struct Notes {
    label: Option<Label>,
    tags: Tags,
    trace: Option<Box<TraceContext>>,
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)
    }

    fn sender(&mut self, flags: u8) -> Result<Sender, Malformed> {
        let mut sender = Sender::default();
        if flags & flag::SENDER != 0 {
            sender.user = Some(UserId::new(self.text_with_length()?));
        }
        if flags & flag::PROFILE != 0 {
            sender.profile = Some(payload(self.text_with_length()?)?);
        }
        if flags & flag::SESSION != 0 {
            sender.session = Some(SessionId::from_random(self.array()?));
            let note = Some(self.text_with_length()?).filter(|note| !note.is_empty());
            sender.note = note.map(payload).transpose()?;
        }
        Ok(sender)
    }

    /// Of its own, so that the others do not pay for it.
    #[inline(never)]
    fn notes(&mut self, flags: u8) -> Result<Notes, Malformed> {
        let label = match flags & flag::LABEL {
            0 => None,
            _ => Some(Label::parse(self.text_with_length()?).ok_or(Malformed)?),
        };
        let count = match flags & flag::TAGS {
            0 => 0,
            _ => Some(u32::from_be_bytes(self.array()?) as usize)
                .filter(|it| *it <= TAGS_MAX)
                .ok_or(Malformed)?,
        };
        let tag = |_| -> Result<_, Malformed> { Ok((self.text_with_length()?, self.text_with_length()?)) };
        let tags = (0..count).map(tag).collect::<Result<Vec<_>, Malformed>>()?;
        let tags = Tags::parse(tags).ok_or(Malformed)?;
        let trace = match flags & flag::TRACE {
            0 => None,
            _ => Some(Box::new(TraceContext::from_bytes(self.array()?).ok_or(Malformed)?)),
        };
        Ok(Notes { label, tags, trace })
    }

    fn text_with_length(&mut self) -> Result<&'a str, Malformed> {
        let length = u32::from_be_bytes(self.array()?);
        self.text(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(draft: &Draft, position: Option<&Position>) -> Vec<u8> {
        let envelope = Envelope { draft, position };
        let mut bytes = Vec::new();
        envelope.write(&mut bytes).unwrap();
        assert_eq!(bytes.len(), envelope.len());
        bytes
    }

    /// Bytes as a payload.
    fn binary(bytes: &[u8]) -> Payload {
        let length = u8::try_from(bytes.len()).unwrap();
        Payload::parse_msgpack(&[&[0xc4, length], bytes].concat()).unwrap()
    }

    prop_compose! {
        fn drafts()(
            text in "[0-9]{1,40}|\"[a-zé]{0,40}\"",
            bin in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            (user, profile) in (proptest::option::of(".{0,20}"), proptest::option::of("\\{\\}|[0-9]{1,9}")),
            session in proptest::option::of((any::<[u8; 16]>(), proptest::option::of("[0-9]{1,9}"))),
            exclude in proptest::option::of(any::<[u8; 16]>()),
            received in any::<u64>(),
            label in proptest::option::of(".{1,20}"),
            tags in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..4),
            trace in proptest::option::of(any::<[u8; TraceContext::BYTES]>()),
        ) -> Draft {
            let json = |text: String| Payload::from_trusted(Bytes::from(text));
            let (session, note) = session.unzip();
            let sender = Sender {
                profile: profile.filter(|_| user.is_some() || session.is_some()).map(json),
                user: user.map(|user| UserId::new(&user)),
                session: session.map(SessionId::from_random),
                note: note.flatten().map(json),
            };
            Draft {
                channel: Channel::parse("room:1").unwrap(),
                payload: bin
                    .map_or_else(|| json(text), |bin| binary(&bin))
                    .labelled(label.and_then(|label| Label::parse(&label)))
                    .tagged(Tags::parse(tags).unwrap()),
                sender: Some(Box::new(sender)).filter(|it| **it != Sender::default()),
                exclude: exclude.map(SessionId::from_random),
                received: UnixMicros(received),
                retention: None,
                key: None,
                trace: trace.and_then(TraceContext::from_bytes).map(Box::new),
            }
        }
    }

    fn positions() -> impl Strategy<Value = Option<Position>> {
        let position = (1_u64.., any::<u64>());
        proptest::option::of(
            position.prop_map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset: Offset(offset) }),
        )
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(draft in drafts(), position in positions()) {
            let read = open(draft.channel.clone(), &bytes(&draft, position.as_ref())).unwrap();
            prop_assert_eq!(&read.position, &position);
            prop_assert_eq!(read.trace(), draft.trace.as_deref());
            prop_assert_eq!(read, Publication::new(draft, position));
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..200), draft in drafts(), position in positions(),
            at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let channel = Channel::parse("a").unwrap();
            let _ = open(channel.clone(), &noise);
            let mut near = bytes(&draft, position.as_ref());
            let at = at.index(near.len());
            near[at] = with;
            let _ = open(channel.clone(), &near);
            let _ = open(channel, &near[..cut.index(near.len())]);
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let draft = Draft {
            channel: Channel::parse("a").unwrap(),
            payload: Payload::from_trusted(Bytes::from_static(b"1")),
            sender: None,
            exclude: None,
            received: UnixMicros(7),
            retention: None,
            key: None,
            trace: None,
        };
        let good = bytes(&draft, None);
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            bad
        };
        let last = good.len() - 1;
        let tagged = |tags: u8| {
            let head = [&with(9, flag::TAGS)[..last], &[0, 0, 0, tags]].concat();
            [head, b"\0\0\0\x01k\0\0\0\x01v".repeat(tags.into()), b"1".to_vec()].concat()
        };
        for (why, bad) in [
            ("empty", vec![]),
            ("another version", with(0, 2)),
            ("an epoch that is cut off", with(1, 200)),
            ("tags that are cut off", with(9, flag::TAGS)),
            ("more tags than there may be, though of one key", tagged(33)),
            ("a trace that is cut off", with(9, flag::TRACE)),
            ("a label that is cut off", with(9, flag::LABEL)),
            ("MessagePack that is none", with(9, flag::MESSAGE_PACK).into_iter().chain([b'1']).collect()),
            ("a profile without a sender", with(9, flag::PROFILE)),
            ("a session that is cut off", with(9, flag::SESSION)),
            ("no payload", good[..last].to_vec()),
            ("a payload that is not UTF-8", with(last, 0xff)),
            ("over the bound", [good.clone(), vec![b'1'; ENVELOPE_BYTES_MAX]].concat()),
        ] {
            assert_eq!(open(draft.channel.clone(), &bad).err(), Some(Malformed), "{why}");
        }
        assert!(open(draft.channel.clone(), &tagged(32)).is_ok());
        assert!(open(draft.channel, &good).is_ok());
    }

    /// What history kept before there was MessagePack, byte for byte.
    #[test]
    fn an_envelope_of_old_is_read_as_it_was_meant() {
        let old = b"\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x02\x02\0\0\0\0\0\0\0\x09\0\0\0\x03zoe{\"a\":1}";
        let read = open(Channel::parse("a").unwrap(), old).unwrap();
        assert_eq!(read.position, Some(Position { epoch: Epoch(7), offset: Offset(2) }));
        assert_eq!(read.author(), Some((&UserId::new("zoe"), None)));
        assert_eq!((read.payload.format(), read.payload.as_bytes()), (Format::Json, &b"{\"a\":1}"[..]));
    }
}
