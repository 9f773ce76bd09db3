//! Counters that threads do not fight over: each adds to cells of its own, a reader adds the cells up.
//!
//! A shared atomic costs a few nanoseconds while one core writes it, and several times that as soon as two do, since the
//! cache line travels with every addition; `examples/cost.rs` shows it. What is counted once per socket write lives here.
//! Everything rarer stays a plain shared atomic of the `prometheus` crate.
//!
//! **Invariants.** A cell only ever takes additions, relaxed: no reader learns from one counter about another. Two threads may
//! share a stripe when there are more than [`STRIPES`] of them: slower, and still right.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// More than the cores of the machines we expect; a power of two.
const STRIPES: usize = 64;

/// The stripe that the next new thread takes.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's stripe, or `STRIPES` before it has counted anything.
    static MINE: Cell<usize> = const { Cell::new(STRIPES) };
}

/// The cells of one stripe. 128 bytes, since processors fetch cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Cells<const SLOTS: usize>([AtomicU64; SLOTS]);

/// `SLOTS` counters, each in as many cells as there are stripes.
#[derive(Debug)]
pub(crate) struct Stripes<const SLOTS: usize>(Box<[Cells<SLOTS>]>);

impl<const SLOTS: usize> Stripes<SLOTS> {
    pub(crate) fn new() -> Self {
        let zeros = || Cells(std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..STRIPES).map(|_| zeros()).collect())
    }

    /// The cells that this thread adds to.
    #[inline]
    pub(crate) fn mine(&self) -> &[AtomicU64; SLOTS] {
        let stripe = MINE.get();
        let stripe = if stripe < STRIPES { stripe } else { take() };
        &self.0[stripe].0
    }

    /// The sum of a slot over all stripes, modulo 2⁶⁴: additions of `-n as u64` subtract.
    pub(crate) fn sum(&self, slot: usize) -> u64 {
        self.0.iter().map(|cells| cells.0[slot].load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Gives this thread its stripe.
#[cold]
fn take() -> usize {
    let stripe = NEXT.fetch_add(1, Relaxed) % STRIPES;
    MINE.set(stripe);
    stripe
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn additions_of_more_threads_than_stripes_all_arrive() {
        let stripes = Stripes::<2>::new();
        thread::scope(|scope| {
            for _ in 0..STRIPES + 9 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        stripes.mine()[0].fetch_add(3, Relaxed);
                        stripes.mine()[1].fetch_add(1_u64.wrapping_neg(), Relaxed);
                    }
                });
            }
        });
        let additions = (STRIPES as u64 + 9) * 1_000;
        assert_eq!(stripes.sum(0), 3 * additions);
        assert_eq!(stripes.sum(1).cast_signed(), -additions.cast_signed());
    }

    #[test]
    fn neighbouring_stripes_share_no_cache_line() {
        assert_eq!(align_of::<Cells<1>>(), 128);
        assert_eq!(size_of::<Cells<17>>(), 256);
    }
}
