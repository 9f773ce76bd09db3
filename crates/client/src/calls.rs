//! What waits for one answer.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::Error;
use crate::wire::{History, Kind, Position, Presence, Said};

/// The most calls that wait for an answer, or to be sent.
pub(crate) const CALLS_MAX: usize = 1024;

/// A command that is answered once. Its caller waits with a deadline: when that has passed nobody takes the answer.
#[derive(Debug)]
pub(crate) struct Call {
    /// The command without its `id` and its braces.
    pub(crate) fields: String,
    /// Whether doing it twice comes to the same.
    pub(crate) is_repeatable: bool,
    pub(crate) answer: oneshot::Sender<Result<Answer, Error>>,
}

impl Call {
    pub(crate) fn fail(self, error: Error) {
        let _ = self.answer.send(Err(error)); // Whoever has gone does not want to know.
    }

    /// Takes what the server said. Returns the call, and how long to wait, where it is worth another try.
    pub(crate) fn answered(self, said: &mut Said<'_>) -> Option<(Self, Duration)> {
        let answer = match said.kind {
            Kind::Published => Some(Answer::Published(said.position())),
            Kind::History => said.history().map(Answer::History),
            Kind::Presence => said.presence().map(Answer::Presence),
            Kind::Error => {
                let error = refusal(said);
                // Over the rate nothing was done; without the broker nobody may know.
                let again = match said.code {
                    Some(4429) => true,
                    Some(4503) => self.is_repeatable,
                    _ => false,
                };
                if again {
                    return Some((self, retry_after(said)));
                }
                self.fail(error);
                return None;
            }
            _ => None,
        };
        let _ = self.answer.send(answer.ok_or(Error::Unknown)); // As above.
        None
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Published(Option<Position>),
    History(History),
    Presence(Presence),
}

/// An `error`, as the caller sees it.
pub(crate) fn refusal(said: &Said<'_>) -> Error {
    Error::Refused {
        code: said.code.unwrap_or_default(),
        reason: said.reason.clone().unwrap_or_default(),
        text: said.message.clone().unwrap_or_default(),
        retry_after: said.retry_after.map(Duration::from_millis),
    }
}

/// How long to wait before another try, with jitter, so that not all come at once.
pub(crate) fn retry_after(said: &Said<'_>) -> Duration {
    const AT_LEAST: Duration = Duration::from_millis(100);
    said.retry_after.map_or(AT_LEAST, Duration::from_millis).max(AT_LEAST).mul_f64(1.0 + fastrand::f64())
}
