//! What a backend is told, and how.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::choice::EventKind;
use super::merge::Merged;
use super::secret::Secret;

/// What a backend is told, and how; that also of the webhooks of applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Where.
    pub url: Option<String>,
    /// What.
    pub kinds: Vec<EventKind>,
    /// What signs the reports: the key, and the one before it.
    pub secrets: Vec<Secret>,
    /// The most events of a report.
    pub batch_events: NonZeroUsize,
    /// About the most bytes of it.
    pub batch_bytes: usize,
    /// How long the first event of a report waits for others.
    pub delay: Duration,
    /// The most events that wait.
    pub queue: NonZeroUsize,
    /// Time for an answer.
    pub timeout: Duration,
    /// For how long a report is tried.
    pub retry: Duration,
}

impl Events {
    pub(super) fn of(merged: &Merged) -> Self {
        let whole = |path| merged.whole(path).expect("the key has a default");
        let size = |path| usize::try_from(whole(path)).unwrap_or(usize::MAX);
        let positive = |path| NonZeroUsize::new(size(path)).expect("bounded from below by 1");
        let secrets = ["events.secret", "events.secret_before"];
        Self {
            url: merged.text("events.url"),
            kinds: merged.list("events.kinds").iter().map(|word| EventKind::of(word)).collect(),
            secrets: secrets.into_iter().filter_map(|path| merged.text(path)).map(Secret::new).collect(),
            batch_events: positive("events.batch_events"),
            batch_bytes: size("events.batch_bytes"),
            delay: Duration::from_millis(whole("events.delay_ms")),
            queue: positive("events.queue"),
            timeout: Duration::from_millis(whole("events.timeout_ms")),
            retry: Duration::from_secs(whole("events.retry_seconds")),
        }
    }
}
