//! RFC 6455 as a pure server-side codec: bytes in, borrowed events out; frames encoded once, for every socket.
//!
//! The codec owns no socket, no task and no clock. The transport reads into whatever buffer it likes, wraps what it
//! read in an [`Input`] and asks a [`Decoder`] for [`Event`]s until there are none. Frames for the peer are built
//! as [`Frame`]s, whose bytes are the same for all peers because servers do not mask.
//!
//! ```text
//!  bytes read ──► Input ──► header ──► mask ──┬──► Event, borrowed from the input      (a whole frame: no copy)
//!                             │               └──► assembly (utf8) ──► Event           (anything that was split)
//!                             └──► Violation: close code and reason
//! ```
//!
//! # Invariants
//!
//! 1. **An idle connection owns no buffer.** Memory is taken when a message turns out to be split, over fragments or
//!    over reads, and leaves the decoder with the message's last byte: the finished message moves into the `Input`.
//! 2. **Memory follows what was received, never what was announced.** A header that announces a mebibyte costs
//!    nothing; a buffer holds at most twice what has arrived and never more than the message may come to.
//! 3. **A size is refused when it is announced**, before a byte of it is kept: the bound holds for the frame and for
//!    the sum of fragments.
//! 4. **Every message ends.** Fragments that carry nothing are counted, so the work for one message is bounded too.
//! 5. **A violation is final**, and so is a Close: nothing is heard after either.
//! 6. **Text is UTF-8 or a violation**, told at the first byte that cannot belong to any valid text, wherever
//!    fragments and reads cut it.
//!
//! # Deliberately absent
//!
//! Answering (a Pong for a Ping, a Close for a Close) is the transport's, which owns the queue to the peer. There is
//! no handshake here and no client side: tests take the client from tungstenite, an independent reading of the RFC.
//!
//! Of the extensions there is one, permessage-deflate: [`agree`] negotiates it, [`deflate`] compresses and inflates.
//! A compressed frame is the one with RSV1, which `header` lets pass where that was agreed. Its message is never "whole":
//! it is kept as it comes, within a bound, and inflated when it has ended, by an [`Inflater`] that comes with the input.

mod assembly;
mod close;
mod decoder;
pub(crate) mod deflate;
mod extensions;
mod frame;
mod header;
mod input;
mod mask;
mod utf8;
mod violation;

pub use decoder::Decoder;
pub use deflate::{Inflater, Shape, WINDOW_BITS_MAX, WINDOW_BITS_MIN, Window};
pub use extensions::{Agreement, Context, Malformed, Willingness, agree};
pub use frame::{Frame, FrameKind, Said};
pub use input::Input;
pub use violation::Violation;

/// The longest payload of a Ping, Pong or Close, in bytes (RFC 6455, 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// A complete message or control frame from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message, valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A Ping, to be answered by a Pong with the same payload of at most [`CONTROL_BYTES_MAX`] bytes.
    Ping(&'a [u8]),
    /// A Pong, asked for or not, with a payload of at most [`CONTROL_BYTES_MAX`] bytes.
    Pong(&'a [u8]),
    /// The client closes, perhaps with a code that may be sent on a wire and a reason of at most 123 bytes.
    Close(Option<(u16, &'a str)>),
}

#[cfg(test)]
mod tests;
