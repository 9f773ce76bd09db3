//! Where spans go.

use std::num::NonZeroU32;
use std::time::Duration;

use super::merge::Merged;
use super::secret::Secret;

/// Where a collector of OpenTelemetry is, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Where: nothing is recorded without.
    pub url: Option<String>,
    /// What it wants to see in `Authorization`.
    pub authorization: Option<Secret>,
    /// Of how many that come without a trace one is recorded.
    pub one_in: NonZeroU32,
    /// The most spans that wait.
    pub queue: usize,
    /// Time for an answer.
    pub timeout: Duration,
}

impl Tracing {
    pub(super) fn of(merged: &Merged) -> Self {
        let whole = |path| merged.whole(path).expect("the key has a default");
        let one_in = u32::try_from(whole("tracing.one_in")).ok().and_then(NonZeroU32::new);
        Self {
            url: merged.text("tracing.url"),
            authorization: merged.text("tracing.authorization").map(Secret::new),
            one_in: one_in.expect("bounded from both sides"),
            queue: usize::try_from(whole("tracing.queue")).unwrap_or(usize::MAX),
            timeout: Duration::from_millis(whole("tracing.timeout_ms")),
        }
    }
}
