//! MessagePack as a pure codec: values read where they lie, and translated to JSON and from it.
//!
//! ```text
//!   bytes of a peer ──► Reader: token by token, or a whole value, checked ──► payload, as it was sent
//!                                                                               │ once per publication
//!   a payload in JSON ──► from_json ──► MessagePack           MessagePack ──► to_json ──► JSON text
//! ```
//!
//! The markers and the shortest form of each value are `rmp`'s. Reading is ours, since `rmp` reads from streams and copies,
//! and its neighbours with `serde` build a tree or use the stack for nesting.
//!
//! **Invariants.**
//! - Whatever the bytes, reading ends with a value or [`Malformed`], without a panic, and without the stack: nesting is
//!   kept on the heap and is bounded by [`DEPTH_MAX`]. Nothing is allocated for what is announced and not there.
//! - Every value that has been checked has a translation: what JSON cannot say is spelt as `docs/protocol.md` has it.
//! - What was JSON and is translated back is the same JSON, but for white space, escapes, and the digits of numbers that
//!   are no integers of 64 bits.
//!
//! **Deliberately absent:** a tree of values, and any meaning of ext types but the timestamp's.

use thiserror::Error;

mod from_json;
mod reader;
mod to_json;
mod walk;

pub(crate) use from_json::{from_json, growth_at_most};
pub(crate) use reader::{Reader, Token};
pub(crate) use to_json::{key_to_json, to_json};

/// How deep values may be nested: as deep as the usual readers of MessagePack and of JSON can follow.
pub const DEPTH_MAX: usize = 512;

/// How many bytes one byte of a value may come to in the other format, at most: an empty bin, of two, is written
/// `{"$binary":""}` and a comma.
pub(crate) const GROWTH_MAX: usize = 8;

/// The value that says nothing.
pub(crate) const NIL: u8 = 0xc0;

/// Why bytes are not MessagePack that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Less is there than was announced.
    #[error("it ends in the middle of a value")]
    Truncated,
    /// A whole value, and more.
    #[error("the message goes on after its value")]
    Trailing,
    /// A byte that MessagePack never uses.
    #[error("no value begins with 0xc1")]
    Reserved,
    /// Bytes where text was promised.
    #[error("a str is not UTF-8: send bytes as bin")]
    NotUtf8,
    /// What has no place in front of a value in JSON.
    #[error("a key of a map is an array, a map or an ext: only the others can be keys")]
    Key,
    /// Over [`DEPTH_MAX`].
    #[error("nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

/// Whether a value has more than so many arrays and maps within each other, as far as it can be read.
pub(crate) fn exceeds(value: &[u8], levels: usize) -> bool {
    walk::walk_within(&mut Reader::new(value), levels, drop) == Err(Malformed::TooDeep)
}

#[cfg(test)]
mod tests;
