//! Waiting for a condition, with a bound.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take to come true before the test fails: far longer than it should, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again, every few milliseconds, until `condition` holds.
///
/// # Panics
/// When it has not come true within [`PATIENCE`]; the text says `what` was waited for.
pub async fn eventually(what: impl Display, condition: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE, what, condition).await;
}

/// The same for what takes others longer by their own clocks.
///
/// # Panics
/// When it has not come true within `patience`.
pub(crate) async fn eventually_within(
    patience: Duration,
    what: impl Display,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + patience;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
