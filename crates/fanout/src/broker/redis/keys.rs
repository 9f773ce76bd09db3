//! What Fanfare's things are called in Redis: `<prefix>:c:<channel>` carries a channel's publications.

use std::io::Write;

use fanfare_protocol::Channel;
use redis::{RedisWrite, ToRedisArgs};

/// The longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 64;

/// The names under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    channels: Box<str>,
}

/// The pub/sub channel of Redis that carries a channel of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) prefix: &'a str,
    pub(super) channel: &'a str,
}

impl Keys {
    /// `None` for a prefix that is empty, longer than 64 bytes, or holds anything but printable ASCII.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let sound =
            (1..=PREFIX_BYTES_MAX).contains(&prefix.len()) && prefix.bytes().all(|it| it.is_ascii_graphic());
        sound.then(|| Self { channels: format!("{prefix}:c:").into() })
    }

    /// The key of a channel.
    pub(super) fn of<'a>(&'a self, channel: &'a Channel) -> Key<'a> {
        Key { prefix: &self.channels, channel: channel.as_str() }
    }

    /// The channel's name in a key, if it is one of ours.
    pub(super) fn channel<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key.strip_prefix(self.channels.as_bytes())?).ok()
    }
}

impl Key<'_> {
    /// In bytes.
    pub(super) fn len(self) -> usize {
        self.prefix.len() + self.channel.len()
    }
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let mut argument = out.writer_for_next_arg();
        for part in [self.prefix, self.channel] {
            argument.write_all(part.as_bytes()).expect("memory takes every write");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_back_to_its_channel_and_no_other_does() {
        let keys = Keys::new("fanfare").unwrap();
        let channel = Channel::parse("room:42").unwrap();
        let command = redis::cmd("PUBLISH").arg(keys.of(&channel)).get_packed_command();
        assert_eq!(command, b"*2\r\n$7\r\nPUBLISH\r\n$17\r\nfanfare:c:room:42\r\n");
        assert_eq!(keys.of(&channel).len(), 17);
        assert_eq!(keys.channel(b"fanfare:c:room:42"), Some("room:42"));
        for foreign in ["fanfare:s:room:42", "other:c:room:42", "fanfare:c", ""] {
            assert_eq!(keys.channel(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn a_prefix_is_short_and_printable() {
        let too_long = "x".repeat(PREFIX_BYTES_MAX + 1);
        for bad in ["", "a b", "a\r\n", "é", &too_long] {
            assert!(Keys::new(bad).is_none(), "{bad:?}");
        }
    }
}
