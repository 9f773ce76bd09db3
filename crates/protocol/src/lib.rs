//! The rules of a Fanfare conversation, and nothing that moves it.
//!
//! Bytes become [`websocket`] events, a [`dialect`] turns those into neutral [`command`]s, a [`session::Session`]
//! decides what they mean, and its effects and [`event`]s go back the same way. Nothing here performs I/O, reads a
//! clock, spawns a task, logs or counts: time is an argument, randomness is handed in, and so every rule can be tested
//! in microseconds and fuzzed.
//!
//! **Invariant.** This crate does not depend on an async runtime (continuous integration asserts the arrow), and
//! outside [`dialect`] nothing asks which dialect a client speaks.

pub mod channel;
pub mod close;
pub mod command;
pub mod depth;
pub mod dialect;
pub mod error;
pub mod event;
pub mod grant;
pub mod happening;
pub mod history;
pub mod hook;
pub mod id;
pub mod limits;
pub mod manners;
pub mod msgpack;
pub mod publication;
pub mod realm;
pub mod rules;
pub mod server_api;
pub mod session;
pub mod tags;
pub mod time;
pub mod trace;
pub mod websocket;

pub use channel::Channel;
pub use close::CloseReason;
pub use dialect::{Encoding, Form};
pub use error::ErrorCode;
pub use id::{RequestId, SessionId, Ticket, UserId};
pub use publication::{Draft, Epoch, Offset, Position, Publication};
