//! What a node asks a backend about its clients, and what the backend may say: bodies of HTTP, and nothing of how they travel.
//!
//! A [`Question`] is about one [`Client`] and becomes one JSON object; so does its answer, whose absence is an empty one: "go
//! on". What an answer means is read here and comes out as the same types that tokens and clients come to, so the backend
//! can say nothing that these could not. Questions whether a client is still welcome are put together for many clients
//! ([`refresh`]).
//!
//! | question | answer |
//! | --- | --- |
//! | `connect` | `user`, `info`, `expires`, `channels`, `allow`, each as in a token |
//! | `refresh` | `clients`: by session, what `connect` is answered |
//! | `subscribe` | |
//! | `publish` | `data`, to be published instead |
//! | `call` | `data`, for the client |
//! | `tell` | |
//!
//! Any of them may be answered by `error` instead: `reason`, `message`, `retry_after` and `code`, as clients know them.
//!
//! **Invariants.** An answer that says two things at once, or something that cannot be understood, says nothing: it is
//! [`Unreadable`], never half obeyed. Its texts are constants, and nothing of an answer is in them.

use crate::error::Failure;
use crate::publication::Payload;

mod answer;
mod question;

pub use answer::{call, connect, consent, publish, refresh_answers};
pub use question::{Client, Question, refresh};

/// Why an answer is not obeyed; for whoever runs the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub &'static str);

/// What a backend has said: yes, with something to it, or no.
pub type Word<A> = Result<Result<A, Failure>, Unreadable>;

/// What an answer to `publish` puts in the place of what the client sent, if anything.
pub type Instead = Option<Payload>;

#[cfg(test)]
mod tests;
