//! Writers that have something to write and have not been seen to yet.
//!
//! A write costs more than all else that happens to a publication, and costs next to nothing more when it takes thirty of
//! them at once. So a lane does not see to whoever it has queued something for; it sees to [`SLICE`] of those that wait, the
//! longest first, and lets everybody else run, publishers and itself included, before it turns to the next. On an idle node
//! that is at once. On a busy one publications that arrive meanwhile are queued for writers whose turn it is not yet, and
//! leave in the same write: the busier the node, the bigger the batch.
//!
//! To see to a writer is to write what waits to its socket, past its task, where the [outbox](crate::outbox) has let itself
//! be claimed, and otherwise to wake the task. The former costs half as much: what a task needs to be polled, its future, its
//! connection, tokio's word of its socket, has gone cold since it last ran.
//!
//! **Invariants.**
//! - Whoever is in here has a place in the queue that only moves forward, and after [`GATHERED`] deliveries for each writer
//!   that is seen to nothing more [may come](Wakes::is_behind): what waits in an outbox for want of a turn is bounded.
//! - Nobody else wakes or writes for a writer that is in here. Dropped, it wakes them all.

use std::collections::VecDeque;

use fanfare_metrics::Metrics;
use fanfare_protocol::time::UnixMicros;

use crate::outbox::{Asleep, Row};

/// The writers seen to before others run: some 300 µs of writing, after which the sockets are looked at again. A small channel
/// that speaks beside a large one waits for that long, at each of the few steps from its publisher to its subscribers.
const SLICE: usize = 32;

/// The deliveries after which another writer has to be seen to, however many wait.
const GATHERED: u64 = 32;

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    waiting: VecDeque<Asleep>,
    /// How many of them have to be seen to before anything more may come.
    owed: usize,
    row: Row,
}

impl Wakes {
    /// Adds a writer.
    pub(crate) fn add(&mut self, asleep: Asleep) {
        self.waiting.push_back(asleep);
    }

    /// Takes note of so many deliveries.
    pub(crate) fn delivered(&mut self, deliveries: u64) {
        self.owed = self.owed.saturating_add(usize::try_from(deliveries / GATHERED).unwrap_or(usize::MAX));
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more has been delivered than the next turn makes up for.
    pub(crate) fn is_behind(&self) -> bool {
        self.owed > SLICE
    }

    /// Sees to those whose turn it is.
    pub(crate) fn go_on(&mut self, metrics: &Metrics, now: fn() -> UnixMicros) {
        for asleep in self.waiting.drain(..SLICE.min(self.waiting.len())) {
            asleep.see_to(&mut self.row, metrics, now);
        }
        self.owed = if self.waiting.is_empty() { 0 } else { self.owed.saturating_sub(SLICE) };
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(Asleep::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// A crowd of writers that counts how many of it have been woken.
    #[derive(Debug, Default)]
    struct Crowd(AtomicUsize);

    impl Wake for Crowd {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Crowd {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn wait(wakes: &mut Wakes, members: usize) -> Arc<Crowd> {
        let crowd = Arc::<Crowd>::default();
        (0..members).for_each(|_| wakes.add(Asleep::Task(Waker::from(crowd.clone()))));
        crowd
    }

    fn go_on(wakes: &mut Wakes) {
        wakes.go_on(&Metrics::new(), || UnixMicros(0));
    }

    #[test]
    fn the_longest_waiting_are_woken_first() {
        let mut wakes = Wakes::default();
        let [first, second] = [wait(&mut wakes, 40), wait(&mut wakes, 40)];
        go_on(&mut wakes);
        assert_eq!((first.woken(), second.woken()), (SLICE, 0));
        go_on(&mut wakes);
        assert_eq!((first.woken(), second.woken()), (40, 2 * SLICE - 40));
    }

    #[test]
    fn nothing_more_comes_before_as_many_are_woken_as_bounds_what_waits() {
        let mut wakes = Wakes::default();
        let crowd = wait(&mut wakes, 10_000);
        wakes.delivered(GATHERED * 1_000);
        while wakes.is_behind() {
            go_on(&mut wakes);
        }
        assert!((1_000 - SLICE..=1_000).contains(&crowd.woken()), "{}", crowd.woken());
        wakes.delivered(GATHERED * 1_000_000);
        while !wakes.is_empty() {
            go_on(&mut wakes);
        }
        assert!(!wakes.is_behind(), "nobody waits who is owed anything");
    }

    #[test]
    fn nobody_is_forgotten() {
        let mut wakes = Wakes::default();
        let crowds = [wait(&mut wakes, 10), wait(&mut wakes, 1_000)];
        drop(wakes);
        assert_eq!(crowds.map(|crowd| crowd.woken()), [10, 1_000]);
    }
}
