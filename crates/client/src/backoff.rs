//! How long to wait before the next attempt: full jitter, so that clients which lost a node together do not come back
//! together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(20);

/// Waits that grow until [`Backoff::reset`]; it never gives up.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { bound: FIRST }
    }

    /// The next wait: anything from nothing to a bound that doubles each time, and not less than was asked for.
    pub(crate) fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let wait = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(LONGEST);
        at_least.map_or(wait, |least| least.max(wait))
    }

    /// An attempt has succeeded.
    pub(crate) fn reset(&mut self) {
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
            let bound = (FIRST * (1 << exponent.min(10))).min(LONGEST);
            assert_eq!(backoff.bound, bound);
            assert!(backoff.next(None) <= bound);
        }
        assert!(backoff.next(Some(2 * LONGEST)) >= 2 * LONGEST, "the server's word counts");
        backoff.reset();
        assert_eq!(backoff.bound, FIRST);
    }
}
