//! Reads of crowds, shared: a thousand who ask about one channel at once cost the book one read or two.
//!
//! Whoever asks gets what a read found that began after the question, so a client sees itself and what it was told of. Large
//! crowds change all the time and are dear to read: there an answer may also be up to [`OLD`] old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_protocol::event::Crowd;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::BrokerError;

/// From how many connections on a crowd is large.
const LARGE: u64 = 256;

/// How old the answer about a large crowd may be.
const OLD: Duration = Duration::from_secs(1);

type Answer = Result<Arc<Crowd>, BrokerError>;

/// The last reads. Holds no more than what was asked since the last [`Crowds::forget`].
#[derive(Debug, Default)]
pub(super) struct Crowds(Mutex<HashMap<Question, Arc<Slot>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    channel: Channel,
    members: bool,
}

/// Held while it is read: whoever comes meanwhile waits here.
type Slot = tokio::sync::Mutex<Option<Read>>;

#[derive(Debug)]
struct Read {
    began: Instant,
    answer: Answer,
}

impl Read {
    fn answers(&self, asked: Instant) -> bool {
        let is_large = self.answer.as_ref().is_ok_and(|crowd| crowd.connections >= LARGE);
        self.began > asked || (is_large && asked < self.began + OLD)
    }
}

impl Crowds {
    /// The answer of a read that is fresh enough, or else of a new one.
    pub(super) async fn ask<F>(&self, channel: &Channel, members: bool, read: impl FnOnce() -> F) -> Answer
    where
        F: Future<Output = Result<Crowd, BrokerError>>,
    {
        let asked = Instant::now();
        let slot = self.0.lock().entry(Question { channel: channel.clone(), members }).or_default().clone();
        let mut last = slot.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.answers(asked)) {
            return last.answer.clone();
        }
        // Counted from before the question to the book; equal times count as before, which errs on the fresh side.
        let began = Instant::now();
        let answer = read().await.map(Arc::new);
        *last = Some(Read { began, answer: answer.clone() });
        answer
    }

    /// Lets go of what nobody can be answered with.
    pub(super) fn forget(&self) {
        let now = Instant::now();
        self.0.lock().retain(|_, slot| match slot.try_lock() {
            Ok(last) => last.as_ref().is_some_and(|last| last.answers(now)),
            Err(_) => true,
        });
    }
}
