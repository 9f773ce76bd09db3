//! What Fanfare's things are called in Redis.
//!
//! | key | type | what |
//! |---|---|---|
//! | `<prefix>:c:{<channel>}` | pub/sub channel | carries a channel's publications |
//! | `<prefix>:m:{<channel>}` | hash | meta: where its stream stands (`scripts/epoch.lua`) |
//! | `<prefix>:s:{<channel>}` | stream | its history: an entry's id is the offset, its only field `e` the envelope |
//! | `<prefix>:i:{<channel>}:<key>` | string | an idempotency key: the position it was answered with |
//! | `<prefix>:p:{<channel>}:…` | various | who is subscribed ([`presence::redis`](crate::presence::redis)) |
//! | `<prefix>:p:{seats}:…`, `<prefix>:p:{<number>}:…` | various | under which names nodes write that |
//!
//! **Invariant.** The braces are Redis Cluster's hash tag: whatever belongs to one channel lies in one slot, where a script
//! may touch all of it. Redis takes the first brace of a key and the next closing one, and no tag when nothing is between
//! them; so a prefix has no braces, and in a channel's name `{`, `}` and the `%` that escapes them are written as in URLs.

use std::borrow::Cow;
use std::io::Write;
use std::sync::LazyLock;

use fanfare_protocol::Channel;
use fanfare_protocol::publication::IdempotencyKey;
use redis::{RedisWrite, ToRedisArgs};

/// The longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 64;

/// The names under one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// Up to and with the brace, as all following.
    channels: Box<str>,
    metas: Box<str>,
    streams: Box<str>,
    idempotency: Box<str>,
    presences: Box<str>,
}

/// The name of something that belongs to one channel.
#[derive(Clone, Debug)]
pub(crate) struct Key<'a> {
    head: &'a str,
    /// The channel, escaped.
    tag: Cow<'a, str>,
    /// What follows the tag's closing brace.
    rest: Option<&'a str>,
}

impl Keys {
    /// `None` for a prefix that is empty, longer than 64 bytes, or holds anything but printable ASCII without braces.
    pub(crate) fn new(prefix: &str) -> Option<Self> {
        let sound = |it: u8| it.is_ascii_graphic() && !matches!(it, b'{' | b'}');
        if !(1..=PREFIX_BYTES_MAX).contains(&prefix.len()) || !prefix.bytes().all(sound) {
            return None;
        }
        let head = |kind: char| format!("{prefix}:{kind}:{{").into_boxed_str();
        let [channels, metas, streams, idempotency, presences] = ['c', 'm', 's', 'i', 'p'].map(head);
        Some(Self { channels, metas, streams, idempotency, presences })
    }

    /// The pub/sub channel of Redis that carries a channel of ours.
    pub(crate) fn of<'a>(&'a self, channel: &'a Channel) -> Key<'a> {
        Key { head: &self.channels, tag: escape(channel.as_str()), rest: None }
    }

    /// Where a channel's stream stands.
    pub(super) fn meta<'a>(&'a self, channel: &'a Channel) -> Key<'a> {
        Key { head: &self.metas, tag: escape(channel.as_str()), rest: None }
    }

    /// A channel's stream.
    pub(super) fn stream<'a>(&'a self, channel: &'a Channel) -> Key<'a> {
        Key { head: &self.streams, tag: escape(channel.as_str()), rest: None }
    }

    /// What a draft with this idempotency key was answered.
    pub(super) fn idempotency<'a>(&'a self, channel: &'a Channel, key: &'a IdempotencyKey) -> Key<'a> {
        Key { head: &self.idempotency, tag: escape(channel.as_str()), rest: Some(key.as_str()) }
    }

    /// Something of what is known of those who are subscribed to a channel.
    pub(crate) fn presence<'a>(&'a self, channel: &'a Channel, name: &'a str) -> Key<'a> {
        Key { head: &self.presences, tag: escape(channel.as_str()), rest: Some(name) }
    }

    /// Something of what is known of the nodes' seats. No name is also one of [`Keys::presence`]: there is a channel `seats`.
    pub(crate) fn seats<'a>(&'a self, name: &'a str) -> Key<'a> {
        Key { head: &self.presences, tag: "seats".into(), rest: Some(name) }
    }

    /// Something of what is known of the seats of those who are subscribed to the channels of a slot. No name is also one of
    /// [`Keys::presence`]: there are channels that are called like tags.
    pub(crate) fn in_slot<'a>(&'a self, slot: u16, name: &'a str) -> Key<'a> {
        let tag = TAGS[usize::from(slot)].to_string();
        Key { head: &self.presences, tag: tag.into(), rest: Some(name) }
    }

    /// The channel's name in a pub/sub channel of Redis, if it is one of ours.
    pub(super) fn channel<'a>(&self, key: &'a [u8]) -> Option<Cow<'a, str>> {
        let tag = key.strip_prefix(self.channels.as_bytes())?.strip_suffix(b"}")?;
        unescape(std::str::from_utf8(tag).ok()?)
    }
}

impl Key<'_> {
    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.tag.len() + 1 + self.rest.map_or(0, |rest| 1 + rest.len())
    }

    /// Appends its bytes.
    pub(super) fn write(&self, out: &mut impl Write) {
        let rest = self.rest.map_or(["", ""], |rest| [":", rest]);
        for part in [self.head, &self.tag, "}", rest[0], rest[1]] {
            out.write_all(part.as_bytes()).expect("memory takes every write");
        }
    }
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        self.write(&mut out.writer_for_next_arg());
    }
}

/// The number of slots that Redis Cluster divides all keys into.
pub(super) const SLOTS: usize = 16_384;

/// The slot of everything that belongs to a channel, whatever the prefix.
pub(crate) fn slot(channel: &Channel) -> u16 {
    slot_of(&escape(channel.as_str()))
}

/// The slot of a key that has no braces, and of all that have its name in braces.
pub(super) fn slot_of(key: &str) -> u16 {
    crc16(key.as_bytes()) % SLOTS as u16
}

/// For each slot a number that lies in it as a hash tag: the least, so that all nodes write the same.
static TAGS: LazyLock<Box<[u32]>> = LazyLock::new(|| {
    let mut tags = vec![None; SLOTS];
    let mut missing = SLOTS;
    for number in 0.. {
        let slot = crc16(number.to_string().as_bytes()) % SLOTS as u16;
        missing -= usize::from(tags[usize::from(slot)].is_none());
        tags[usize::from(slot)].get_or_insert(number);
        if missing == 0 {
            break;
        }
    }
    tags.into_iter().flatten().collect()
});

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < table.len() {
            let mut crc = (byte as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc << 1) ^ (if crc & 0x8000 == 0 { 0 } else { POLYNOMIAL });
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

fn escape(name: &str) -> Cow<'_, str> {
    if !name.contains(['{', '}', '%']) {
        return name.into(); // Nearly always.
    }
    name.replace('%', "%25").replace('{', "%7B").replace('}', "%7D").into()
}

/// Undoes [`escape`]; `None` for what it never writes.
fn unescape(tag: &str) -> Option<Cow<'_, str>> {
    if !tag.contains(['{', '}', '%']) {
        return Some(tag.into());
    }
    let name = tag.replace("%7B", "{").replace("%7D", "}").replace("%25", "%");
    (escape(&name) == tag).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_leads_back_to_its_channel_and_no_other_does() {
        let keys = Keys::new("fanfare").unwrap();
        let channel = Channel::parse("room:42").unwrap();
        let command = redis::cmd("PUBLISH").arg(keys.of(&channel)).get_packed_command();
        assert_eq!(command, b"*2\r\n$7\r\nPUBLISH\r\n$19\r\nfanfare:c:{room:42}\r\n");
        assert_eq!(keys.of(&channel).len(), 19);
        assert_eq!(keys.channel(b"fanfare:c:{room:42}").as_deref(), Some("room:42"));
        for foreign in [
            "fanfare:s:{room:42}",
            "other:c:{room:42}",
            "fanfare:c:room:42",
            "fanfare:c:{",
            "fanfare:c:{%7b}",
            "",
        ] {
            assert_eq!(keys.channel(foreign.as_bytes()), None, "{foreign}");
        }
    }

    fn bytes(key: &Key<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.write(&mut bytes);
        assert_eq!(bytes.len(), key.len());
        bytes
    }

    /// Redis' own rule (cluster specification, "hash tags").
    fn hashed(key: &[u8]) -> &[u8] {
        let Some(open) = key.iter().position(|&it| it == b'{') else { return key };
        match key[open + 1..].iter().position(|&it| it == b'}') {
            Some(length @ 1..) => &key[open + 1..][..length],
            _ => key,
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        let keys = Keys::new("fanfare").unwrap();
        for name in ["a", "room:42", "{b}", "a}b{c}", "%"] {
            let channel = Channel::parse(name).unwrap();
            let by_another = redis::cluster_routing::Slot::for_key(bytes(&keys.stream(&channel)));
            assert_eq!(redis::cluster_routing::Slot::new(slot(&channel)), Some(by_another), "{name}");
        }
    }

    #[test]
    fn every_slot_has_a_tag() {
        let keys = Keys::new("fanfare").unwrap();
        for slot in 0..SLOTS as u16 {
            let by_another = redis::cluster_routing::Slot::for_key(bytes(&keys.in_slot(slot, "life")));
            assert_eq!(redis::cluster_routing::Slot::new(slot), Some(by_another));
        }
    }

    proptest! {
        #[test]
        fn whatever_belongs_to_a_channel_lies_in_one_slot(
            name in "[{}%27BDa]{1,12}", other in "[{}%27BDa]{1,12}", idempotency in "[{}%:a]{1,9}",
        ) {
            let keys = Keys::new("p").unwrap();
            let (channel, idempotency) =
                (Channel::parse(&name).unwrap(), IdempotencyKey::parse(&idempotency).unwrap());
            let [meta, stream] = [keys.meta(&channel), keys.stream(&channel)];
            let presence = keys.presence(&channel, "at:x");
            let its = [keys.of(&channel), meta, stream, keys.idempotency(&channel, &idempotency), presence];
            let its = its.map(|key| bytes(&key));
            let tags: Vec<_> = its.iter().map(|key| hashed(key)).collect();
            prop_assert!(tags.iter().all(|tag| *tag == tags[0] && tag.len() < its[0].len()), "{tags:?}");
            let read = keys.channel(&its[0]);
            prop_assert_eq!(read.as_deref(), Some(name.as_str()));
            let other_channel = Channel::parse(&other).unwrap();
            prop_assert_eq!(bytes(&keys.of(&other_channel)) == its[0], other == name);
        }
    }

    #[test]
    fn a_prefix_is_short_and_printable() {
        let too_long = "x".repeat(PREFIX_BYTES_MAX + 1);
        for bad in ["", "a b", "a\r\n", "é", "{a}", &too_long] {
            assert!(Keys::new(bad).is_none(), "{bad:?}");
        }
    }
}
