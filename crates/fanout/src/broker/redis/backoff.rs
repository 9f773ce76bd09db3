//! How long to wait before the next attempt: full jitter, so that nodes that lost Redis together do not come back
//! together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that grow until [`Backoff::reset`]; it never gives up.
#[derive(Debug)]
pub(super) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { bound: FIRST }
    }

    /// The next wait: anything from nothing to a bound that doubles each time.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(LONGEST);
        wait
    }

    /// The longest that the next wait can be.
    #[cfg(test)]
    pub(super) const fn bound(&self) -> Duration {
        self.bound
    }

    /// An attempt has succeeded.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_anew() {
        let mut backoff = Backoff::new();
        for exponent in 0..20 {
            let bound = (FIRST * (1 << exponent.min(6))).min(LONGEST);
            assert_eq!(backoff.bound(), bound);
            assert!(backoff.next() <= bound);
        }
        backoff.reset();
        assert_eq!(backoff.bound(), FIRST);
    }
}
