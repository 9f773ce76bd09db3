//! Two ways, each on its own: what the client hears goes into the body of a response, dressed by [`Lines`], and what it says
//! comes by requests of its own, whose messages wait in an [`Inbox`].
//!
//! **Invariant.** An inbox holds so many messages and so many bytes at most: who does not read is not heard for long either, since
//! a body that is not polled takes nothing out of its inbox.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use fanfare_fanout::Outbox;
use fanfare_protocol::websocket::{Event, Violation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::lines::{CHUNK_BYTES, Lines};
use super::websocket::Read;
use super::{Transport, Written};

/// The most messages that wait in an inbox.
const MESSAGES_MAX: usize = 64;

/// One message of a client; between nodes, bytes are spelt in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    Text(String),
    Binary(#[serde(with = "base64")] Vec<u8>),
}

impl Message {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

/// The inbox is full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// What a client has said and its conversation has not taken up yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Inbox {
    /// One in which so many bytes may wait.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, waiting: Mutex::default() }
    }

    /// Has the conversation take up a message.
    ///
    /// # Errors
    /// Too much waits already: the message is not taken.
    pub(crate) fn push(&self, message: Message) -> Result<(), NoRoom> {
        let mut waiting = self.waiting.lock();
        let bytes = waiting.bytes + message.len();
        if waiting.messages.len() >= MESSAGES_MAX || bytes > self.bytes_max {
            return Err(NoRoom);
        }
        waiting.bytes = bytes;
        waiting.messages.push_back(message);
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Message> {
        let mut waiting = self.waiting.lock();
        match waiting.messages.pop_front() {
            Some(message) => {
                waiting.bytes -= message.len();
                if waiting.messages.is_empty() {
                    // An inbox with nothing in it owns no memory.
                    waiting.messages = VecDeque::new();
                }
                Poll::Ready(message)
            }
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What is dressed and waits for the HTTP stack, which takes it also while the conversation waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct Ready(Mutex<Vec<Bytes>>);

impl Ready {
    /// All of it.
    pub(crate) fn take(&self) -> Option<Bytes> {
        let mut chunks = mem::take(&mut *self.0.lock());
        if chunks.len() > 1 { Some(chunks.concat().into()) } else { chunks.pop() }
    }

    fn is_full(&self) -> bool {
        self.0.lock().iter().map(Bytes::len).sum::<usize>() >= CHUNK_BYTES
    }

    fn push(&self, chunk: Bytes) {
        self.0.lock().push(chunk);
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Posted {
    lines: Lines,
    inbox: Arc<Inbox>,
    ready: Arc<Ready>,
}

impl Posted {
    pub(crate) fn new(lines: Lines, inbox: Arc<Inbox>, ready: Arc<Ready>) -> Self {
        Self { lines, inbox, ready }
    }

    /// Whether the last frame has been dressed.
    pub(crate) fn is_over(&self) -> bool {
        self.lines.is_over()
    }
}

impl Transport for Posted {
    const IS_READ: bool = true;

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<Written>> {
        // Whoever takes what is ready polls again.
        if self.ready.is_full() {
            return Poll::Pending;
        }
        let written = ready!(self.lines.poll_write(cx, outbox));
        self.lines.take_chunk().into_iter().for_each(|chunk| self.ready.push(chunk));
        Poll::Ready(written)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Poll<Result<Read, Violation>> {
        let message = ready!(self.inbox.poll_next(cx));
        match &message {
            Message::Text(text) => on_event(Event::Text(text)),
            Message::Binary(bytes) => on_event(Event::Binary(bytes)),
        }
        Poll::Ready(Ok(Read::Bytes { read: message.len(), saved: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Message {
        Message::Text("x".repeat(length))
    }

    #[test]
    fn an_inbox_is_bounded_in_messages_and_in_bytes() {
        let inbox = Inbox::new(100);
        assert_eq!(inbox.push(text(60)), Ok(()));
        assert_eq!(inbox.push(text(41)), Err(NoRoom), "too many bytes");
        assert_eq!(inbox.push(text(40)), Ok(()));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll_next(&cx), Poll::Ready(text(60)));
        assert_eq!(inbox.poll_next(&cx), Poll::Ready(text(40)));
        assert_eq!(inbox.poll_next(&cx), Poll::Pending);
        assert_eq!(inbox.push(text(100)), Ok(()), "what was taken is room again");
        let inbox = Inbox::new(100);
        for _ in 0..MESSAGES_MAX {
            assert_eq!(inbox.push(text(0)), Ok(()));
        }
        assert_eq!(inbox.push(text(0)), Err(NoRoom), "too many messages");
    }

    #[test]
    fn messages_are_told_between_nodes_as_they_are() {
        for message in [Message::Text("{\"id\":1}\n".to_owned()), Message::Binary(vec![0, 255, 7])] {
            let told = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Message>(&told).unwrap(), message, "{told}");
        }
    }
}
