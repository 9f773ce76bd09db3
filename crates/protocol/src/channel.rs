//! Channel names, parsed once at the edge.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 255;

/// The namespace of a channel whose name holds no `:`.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The name of a pub/sub channel: 1 to 255 bytes of printable ASCII without spaces.
///
/// [`Channel::parse`] is the only way to get one, so whoever holds a `Channel` need not check it again. Clones share
/// the text.
///
/// ```
/// use fanfare_protocol::Channel;
/// let channel = Channel::parse("room:42").unwrap();
/// assert_eq!(channel.namespace(), "room");
/// assert_eq!(Channel::parse("lobby").unwrap().namespace(), "default");
/// assert!(Channel::parse("no spaces").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks a name and takes it.
    ///
    /// # Errors
    /// [`InvalidChannel`] when the name is empty, longer than [`CHANNEL_BYTES_MAX`] bytes, or holds a byte outside
    /// `!`..=`~`.
    pub fn parse(name: &str) -> Result<Self, InvalidChannel> {
        match name.bytes().find(|byte| !byte.is_ascii_graphic()) {
            _ if name.is_empty() => Err(InvalidChannel::Empty),
            _ if name.len() > CHANNEL_BYTES_MAX => Err(InvalidChannel::TooLong { bytes: name.len() }),
            Some(byte) => Err(InvalidChannel::Byte { byte }),
            None => Ok(Self(name.into())),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, or [`DEFAULT_NAMESPACE`].
    pub fn namespace(&self) -> &str {
        // Byte by byte, for it is seldom far.
        let end = self.0.bytes().position(|byte| byte == b':');
        end.map_or(DEFAULT_NAMESPACE, |end| &self.0[..end])
    }

    /// The rest of the name, if the part before its first `:` is this one: found without looking for where that ends.
    pub fn within(&self, namespace: &str) -> Option<&str> {
        debug_assert!(!namespace.contains(':'), "a namespace ends before the first");
        self.0.strip_prefix(namespace)?.strip_prefix(':')
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why a text is not a channel name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannel {
    /// Nothing between the quotes.
    #[error("a channel name has 1 to {CHANNEL_BYTES_MAX} bytes, this one is empty")]
    Empty,
    /// Over the bound.
    #[error("a channel name has 1 to {CHANNEL_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A byte that is not printable ASCII, or a space.
    #[error("a channel name is printable ASCII without spaces, this one holds the byte 0x{byte:02x}")]
    Byte {
        /// The first such byte.
        byte: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_ascii_of_bounded_length() {
        let longest = "x".repeat(CHANNEL_BYTES_MAX);
        for good in ["a", "room:42", "a:b:c", "!~", "user:<id>", longest.as_str()] {
            assert_eq!(Channel::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(CHANNEL_BYTES_MAX + 1);
        for (bad, why) in [
            ("", InvalidChannel::Empty),
            ("a b", InvalidChannel::Byte { byte: b' ' }),
            ("a\n", InvalidChannel::Byte { byte: b'\n' }),
            ("\u{7f}", InvalidChannel::Byte { byte: 0x7f }),
            ("é", InvalidChannel::Byte { byte: 0xc3 }),
            (too_long.as_str(), InvalidChannel::TooLong { bytes: CHANNEL_BYTES_MAX + 1 }),
        ] {
            assert_eq!(Channel::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn the_namespace_ends_at_the_first_colon() {
        for (name, namespace) in [("lobby", "default"), ("room:1", "room"), ("a:b:c", "a"), (":x", "")] {
            assert_eq!(Channel::parse(name).unwrap().namespace(), namespace, "{name}");
        }
        let within = |name, namespace| Channel::parse(name).unwrap().within(namespace).map(str::to_owned);
        for (name, rest) in
            [("a:b:c", Some("b:c")), ("a:", Some("")), ("a", None), ("ab:c", None), (":a", None)]
        {
            assert_eq!(within(name, "a").as_deref(), rest, "{name}");
        }
    }
}
