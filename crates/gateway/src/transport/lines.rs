//! One way, in the body of an HTTP response: Server-Sent Events, lines of JSON, or the one answer of a long poll.
//!
//! There is no encoding for them. A publication is spelt once for all who speak its dialect, and what a WebSocket gets as a
//! frame is dressed here as an event or a line: the frame's header is left away, and a few bytes are put before and after.
//! That is one copy into the chunk that the HTTP stack is handed, in which everything that waits is gathered. The frames
//! that are not messages have their own look: a ping becomes a comment or an empty line, a Close ends the body.
//!
//! | | [`Form::Events`] | [`Form::Lines`] | [`Form::Answer`] | [`Form::Bare`] |
//! |---|---|---|---|---|
//! | a message | `data: {…}` and an empty line, under an `id` where that has changed | `{…}` and a line break | `{…}` in an array | as it is |
//! | a ping | `:` and an empty line | an empty line | nothing | nothing |
//! | the wait before coming back | `retry: …` | in `closing` | in `closing` | |

use std::io::{self, Write as _};
use std::mem;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::Outbox;
use fanfare_protocol::error::Failure;
use fanfare_protocol::event::Entry;
use fanfare_protocol::websocket::{Frame, Said};
use fanfare_protocol::{Channel, Publication};

use super::{Cursor, Transport, Wanted, Written};

/// The bytes after which no more is taken from the outbox until the HTTP stack has taken these.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// The bytes after which the answer to a poll takes up no further channel.
const ANSWER_BYTES: usize = 256 * 1024;

/// The wait that a client of Server-Sent Events is told at the beginning, for when the connection breaks: from the first
/// to the second, so that those cut off together do not come back together.
const RETRY_MILLIS: std::ops::RangeInclusive<u64> = 1000..=3000;

/// How messages are dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Server-Sent Events, as the HTML standard has them.
    Events,
    /// One JSON object a line.
    Lines,
    /// Part of an array, for [`Lines::into_answer`].
    Answer,
    /// As they are: each says itself where it ends.
    Bare,
}

/// Whether a client has been here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It has not said where it stands.
    First,
    /// It has: a `subscribed` that takes it up from there is nothing to be answered with.
    Again,
}

/// What there was to be dressed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// No more than that the client is where it was.
    Nothing,
    News,
    /// The last frame.
    End,
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Lines {
    form: Form,
    /// Dressed, and not handed over yet.
    chunk: Vec<u8>,
    cursor: Cursor,
    /// To be told before the next event.
    retry: Option<Duration>,
    /// The first refusal that the client was told of.
    refusal: Option<Failure>,
    arrival: Arrival,
    progress: Progress,
}

impl Lines {
    /// A body of this form for a client that asked for these channels.
    pub(crate) fn new(form: Form, wanted: &[Wanted], arrival: Arrival) -> Self {
        Self {
            form,
            chunk: Vec::new(),
            cursor: Cursor::new(wanted),
            retry: (form == Form::Events).then(|| Duration::from_millis(fastrand::u64(RETRY_MILLIS))),
            refusal: None,
            arrival,
            progress: Progress::Nothing,
        }
    }

    /// What is ready to go.
    pub(crate) fn take_chunk(&mut self) -> Option<Bytes> {
        (!self.chunk.is_empty()).then(|| Bytes::from(mem::take(&mut self.chunk)))
    }

    /// How many bytes are ready to go.
    pub(crate) fn dressed(&self) -> usize {
        self.chunk.len()
    }

    /// Whether there is more than that the client is where it was.
    pub(crate) fn has_news(&self) -> bool {
        self.progress > Progress::Nothing
    }

    /// Whether no more channels are to be joined: the answer to a poll is long enough. The cursor says of the others that
    /// the client is where it was, so the next poll brings them.
    pub(crate) fn is_full(&self) -> bool {
        self.form == Form::Answer && self.chunk.len() >= ANSWER_BYTES
    }

    /// Whether the last frame has been dressed.
    pub(crate) fn is_over(&self) -> bool {
        self.progress == Progress::End
    }

    /// The first refusal that the client was told of.
    pub(crate) fn refusal(&self) -> Option<&Failure> {
        self.refusal.as_ref()
    }

    /// The answer to a poll: what there is, and the cursor for the next one.
    pub(crate) fn into_answer(mut self) -> Vec<u8> {
        self.cursor.settle();
        let mut answer = format!("{{\"since\":\"{}\",\"events\":[", self.cursor).into_bytes();
        answer.append(&mut self.chunk);
        answer.extend_from_slice(b"]}\n");
        answer
    }

    fn dress(&mut self, frame: &Bytes, publication: Option<&Publication>) {
        match (Said::by(frame), self.form) {
            (Said::Message(payload), _) => {
                let is_resumption = publication.is_none() && self.cursor.is_resumption(frame);
                if self.arrival == Arrival::First || !is_resumption {
                    self.progress = self.progress.max(Progress::News);
                }
                self.cursor.pass(frame, publication);
                self.dress_message(&payload);
            }
            (Said::Ping, Form::Events) => self.chunk.extend_from_slice(b":\n\n"),
            (Said::Ping, Form::Lines) => self.chunk.push(b'\n'),
            (Said::Ping, Form::Answer | Form::Bare) | (Said::Pong, _) => {}
            (Said::Close, _) => self.progress = Progress::End,
        }
    }

    fn dress_message(&mut self, payload: &[u8]) {
        match self.form {
            Form::Events => {
                self.tell_retry();
                self.tell_cursor();
                self.chunk.extend_from_slice(b"data: ");
                self.chunk.extend_from_slice(payload);
                self.chunk.extend_from_slice(b"\n\n");
            }
            Form::Lines => {
                self.chunk.extend_from_slice(payload);
                self.chunk.push(b'\n');
            }
            Form::Answer => {
                if !self.chunk.is_empty() {
                    self.chunk.push(b',');
                }
                self.chunk.extend_from_slice(payload);
            }
            Form::Bare => self.chunk.extend_from_slice(payload),
        }
    }

    fn tell_retry(&mut self) {
        if let Some(after) = self.retry.take().filter(|_| self.form == Form::Events) {
            write!(self.chunk, "retry: {}\n\n", after.as_millis()).expect("a vector takes every byte");
        }
    }

    fn tell_cursor(&mut self) {
        if self.cursor.is_news() {
            writeln!(self.chunk, "id: {}", self.cursor).expect("a vector takes every byte");
            self.cursor.told();
        }
    }
}

impl Transport for Lines {
    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<Written>> {
        // The answer to a poll is taken out of the outbox whole: what would be left in it is lost.
        if self.is_over() || self.form != Form::Answer && self.chunk.len() >= CHUNK_BYTES {
            return Poll::Pending;
        }
        let before = self.chunk.len();
        let (mut frames, mut oldest) = (0, None);
        let taken = ready!(outbox.poll_take_each(cx, |frame, publication| {
            frames += 1;
            oldest = oldest.or(publication.map(|it| it.received));
            self.dress(&frame, publication);
        }));
        if outbox.is_empty() {
            self.cursor.settle();
            if self.form == Form::Events && self.cursor.is_news() {
                // An event without data is none to the client, but it keeps the id.
                self.tell_cursor();
                self.chunk.push(b'\n');
            }
        }
        Poll::Ready(Ok(Written { bytes: self.chunk.len() - before, frames, taken, oldest, saved: 0 }))
    }

    fn entering(&mut self, channel: &Channel, entry: Option<Entry>, frame: &Frame) {
        self.cursor.entering(channel, entry, frame);
    }

    fn refused(&mut self, failure: &Failure) {
        self.refusal.get_or_insert_with(|| failure.clone());
    }

    fn closing(&mut self, after: Duration) {
        self.retry = Some(after);
    }
}
