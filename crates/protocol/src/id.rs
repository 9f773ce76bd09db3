//! Typed names of the parties: sessions, users, requests.

use std::fmt;
use std::sync::Arc;

/// The longest text a client may use as a request id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Names one conversation. 128 random bits, so that knowing one session never helps to guess another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

impl SessionId {
    /// Takes 16 bytes that the shell drew from a cryptographic source.
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The 16 bytes again, for the wire between nodes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// A number spread evenly over `0..bound`, always the same for one session: enough to stagger heartbeats, and it
    /// needs no generator.
    pub const fn spread(self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((self.0 >> 64) as u64) % bound }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Shortened: a whole id in a log would let its reader act for the session.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", self.0 >> 96)
    }
}

/// Lets a request speak for a conversation that it is no part of: the name of the node that holds it, and 128 random bits. It is a
/// secret between the two, which a [`SessionId`] is not: whoever may ask who is on a channel is told those.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    node: Box<str>,
    secret: u128,
}

impl Ticket {
    /// Takes 16 bytes that the shell drew from a cryptographic source.
    pub fn from_random(node: &str, bytes: [u8; 16]) -> Self {
        Self { node: node.into(), secret: u128::from_be_bytes(bytes) }
    }

    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (node, secret) = text.rsplit_once('.')?;
        SessionId::parse(secret).map(|SessionId(secret)| Self { node: node.into(), secret })
    }

    /// The node that gave it.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What nobody else knows.
    pub const fn secret(&self) -> u128 {
        self.secret
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:032x}", self.node, self.secret)
    }
}

/// Shows that there is one, and nothing else.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(ticket)")
    }
}

/// Who the application says a client is: the `sub` of its token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Takes a user id as the application spells it.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What a client calls one of its commands, so that it can match the reply: an integer or a short text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestId {
    /// A whole number.
    Number(i64),
    /// A text of at most [`REQUEST_ID_BYTES_MAX`] bytes.
    Text(Box<str>),
}
