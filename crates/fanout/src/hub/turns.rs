//! When a task that writes to a crowd lets everybody else run.
//!
//! After each turn, some 32 writes, is what a busy node needs: whatever else waits for this worker, and for the sockets to be
//! looked at, goes on. But on tokio's runtime a worker on which a task yields and nothing else waits wakes another one to
//! look for work, which finds none, looks at the sockets and sleeps again. On an idle node that was thirty wake-ups for a
//! publication to a thousand subscribers, and a fifth of what it cost to write it.
//!
//! So while another worker sleeps, nobody is kept waiting, and the task goes on: the one that sleeps hears of whatever comes,
//! and runs it. Two things it does not hear of: a task that was woken on this worker and has not been put where it can be
//! taken from, and sockets that this worker has been looking at itself, until it yields. Hence two bounds: a
//! task that has taken something from its lane, which is when tasks are woken and a crowd's walk begins, yields; and so does one that has had
//! [`TURNS`] turns in a row.

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::task::yield_now;

/// The most turns in a row: some 2 ms of writing.
const TURNS: usize = 8;

/// The turns of one task; see the [module's essay](self).
#[derive(Debug)]
pub(super) struct Turns {
    runtime: RuntimeMetrics,
    in_a_row: usize,
}

impl Turns {
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn new() -> Self {
        Self { runtime: Handle::current().metrics(), in_a_row: 0 }
    }

    /// Ends a turn: others have theirs, if need be. `has_news` says that something new was begun in it.
    pub(super) async fn end(&mut self, has_news: bool) {
        self.in_a_row += 1;
        if has_news || self.in_a_row >= TURNS || !self.another_sleeps() {
            self.in_a_row = 0;
            // Tokio's budget would let a busy task run on; everybody else comes first.
            yield_now().await;
        }
    }

    /// Whether a worker has nothing to do. This one has: it runs us.
    fn another_sleeps(&self) -> bool {
        // It is counted up when a worker goes to sleep, and again when it wakes.
        (0..self.runtime.num_workers()).any(|worker| self.runtime.worker_park_unpark_count(worker) % 2 == 1)
    }
}
