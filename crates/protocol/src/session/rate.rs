//! How many commands a connection may send: a token bucket that holds one second's worth, and a grace.
//!
//! The bucket is kept as the one moment at which it would be empty of debt (the generic cell rate algorithm), so it
//! costs 16 bytes and no timer. A command over the rate is refused and told when the bucket will be full again; a
//! connection that goes on over the rate without ever letting it fill, for the whole grace, is closed. So whoever waits
//! as told is never closed, and loses nothing by it: it may then send a second's worth at once.

use std::time::Duration;

use crate::limits::Limits;
use crate::time::Moment;

/// What one client has sent of late. See the module's note.
#[derive(Debug)]
pub struct Rate {
    /// When all that was taken so far is paid for.
    paid_at: Moment,
    /// Since when commands have been refused; `None` after one that was allowed at leisure.
    over_since: Option<Moment>,
}

/// What becomes of one more command.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Allowed,
    /// It is not done.
    Refused {
        /// When there is room for a whole burst again.
        retry_after: Duration,
    },
    /// Nor will any other be.
    GraceIsOver,
}

/// What the bucket holds: this much time's worth of commands may come at once.
const BURST: Duration = Duration::from_secs(1);

impl Rate {
    /// Nothing so far.
    pub fn new(now: Moment) -> Self {
        Self { paid_at: now, over_since: None }
    }

    /// Judges one more command, and counts it if it is allowed.
    pub fn take(&mut self, limits: &Limits, now: Moment) -> Verdict {
        if limits.messages_per_second == 0 {
            return Verdict::Allowed;
        }
        let cost = Duration::from_secs(1) / limits.messages_per_second;
        let debt = self.paid_at.since(now);
        if debt + cost <= BURST {
            self.paid_at = self.paid_at.max(now) + cost;
            if debt.is_zero() {
                self.over_since = None;
            }
            return Verdict::Allowed;
        }
        let since = *self.over_since.get_or_insert(now);
        if now.since(since) > limits.burst_grace {
            return Verdict::GraceIsOver;
        }
        Verdict::Refused { retry_after: debt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_start(Duration::from_millis(millis))
    }

    fn limits() -> Limits {
        Limits { messages_per_second: 10, burst_grace: Duration::from_secs(2), ..Limits::default() }
    }

    #[test]
    fn a_burst_of_one_second_is_allowed_and_then_the_rate() {
        let mut rate = Rate::new(at(0));
        for _ in 0..10 {
            assert_eq!(rate.take(&limits(), at(0)), Verdict::Allowed);
        }
        assert_eq!(rate.take(&limits(), at(0)), Verdict::Refused { retry_after: Duration::from_secs(1) });
        assert_eq!(
            rate.take(&limits(), at(99)),
            Verdict::Refused { retry_after: Duration::from_millis(901) }
        );
        assert_eq!(rate.take(&limits(), at(100)), Verdict::Allowed);
    }

    #[test]
    fn whoever_waits_as_told_is_never_closed() {
        let mut rate = Rate::new(at(0));
        let mut now = at(0);
        for _ in 0..1_000 {
            match rate.take(&limits(), now) {
                Verdict::Allowed => {}
                Verdict::Refused { retry_after } => now = now + retry_after,
                Verdict::GraceIsOver => panic!("closed at {now:?}"),
            }
        }
    }

    #[test]
    fn whoever_goes_on_over_the_rate_is_closed_after_the_grace() {
        let mut rate = Rate::new(at(0));
        let closed = (0..).map(at).find(|&now| rate.take(&limits(), now) == Verdict::GraceIsOver).unwrap();
        assert!((at(2_000)..at(2_200)).contains(&closed), "{closed:?}");
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut rate = Rate::new(at(0));
        let limits = Limits { messages_per_second: 0, ..limits() };
        assert!((0..100_000).all(|_| rate.take(&limits, at(0)) == Verdict::Allowed));
    }
}
