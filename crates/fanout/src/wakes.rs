//! Writers that have something to write and have not been woken yet.
//!
//! A write costs more than all else that happens to a publication, and costs next to nothing more when it takes thirty of
//! them at once. So a lane does not wake whoever it has queued something for; it wakes [`SLICE`] of those that wait, the
//! longest first, and lets everybody else run, publishers and itself included, before it wakes the next. On an idle node
//! that is at once. On a busy one publications that arrive meanwhile are queued for writers that have not been woken yet,
//! and leave in the same write: the busier the node, the bigger the batch.
//!
//! **Invariants.**
//! - Whoever is in here has a place in the queue that only moves forward, and no more than [`GATHERED`] deliveries are
//!   made for each writer that is woken: what waits in an outbox for want of waking is bounded.
//! - Nobody else wakes a writer that is in here. Dropped, it wakes them all.

use std::collections::VecDeque;
use std::task::Waker;

/// The writers woken before others run: some 300 µs of writing, after which the sockets are looked at again. A small channel
/// that speaks beside a large one waits for that long, at each of the few steps from its publisher to its subscribers.
const SLICE: usize = 32;

/// The deliveries after which another writer is woken, however many wait.
const GATHERED: u64 = 32;

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(crate) struct Wakes(VecDeque<Waker>);

impl Wakes {
    /// Adds a writer.
    pub(crate) fn extend(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.0.extend(wakers);
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wakes those whose turn it is after so many deliveries.
    pub(crate) fn wake_some(&mut self, deliveries: u64) {
        let turn = usize::try_from(deliveries / GATHERED).unwrap_or(usize::MAX).max(SLICE);
        self.0.drain(..turn.min(self.0.len())).for_each(Waker::wake);
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

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
        wakes.extend((0..members).map(|_| Waker::from(crowd.clone())));
        crowd
    }

    #[test]
    fn the_longest_waiting_are_woken_first() {
        let mut wakes = Wakes::default();
        let [first, second] = [wait(&mut wakes, 40), wait(&mut wakes, 40)];
        wakes.wake_some(0);
        assert_eq!((first.woken(), second.woken()), (SLICE, 0));
        wakes.wake_some(0);
        assert_eq!((first.woken(), second.woken()), (40, 2 * SLICE - 40));
    }

    #[test]
    fn as_many_are_woken_as_bounds_what_waits() {
        let mut wakes = Wakes::default();
        let crowd = wait(&mut wakes, 10_000);
        wakes.wake_some(32 * 1_000);
        assert_eq!(crowd.woken(), 1_000);
        assert!(!wakes.is_empty());
    }

    #[test]
    fn nobody_is_forgotten() {
        let mut wakes = Wakes::default();
        let crowds = [wait(&mut wakes, 10), wait(&mut wakes, 1_000)];
        drop(wakes);
        assert_eq!(crowds.map(|crowd| crowd.woken()), [10, 1_000]);
    }
}
