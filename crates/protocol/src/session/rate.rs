//! How many commands a connection may send: a token bucket that holds one second's worth, and a grace.
//!
//! The bucket is kept as the one moment at which it would be empty of debt (the generic cell rate algorithm), so it
//! costs 16 bytes and no timer. A command over the rate is refused and told when the bucket will be full again; a
//! connection that goes on over the rate without ever letting it fill, for the whole grace, is closed. So whoever waits
//! as told is never closed, and loses nothing by it: it may then send a second's worth at once.

use std::num::NonZeroU32;
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

/// How often something may happen: a bucket without a grace, for what is refused one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When all that was taken so far is paid for.
    paid_at: Moment,
}

impl Bucket {
    /// Takes one of `per_second`, of which `burst` may be taken at once.
    ///
    /// # Errors
    /// How long until one more is there. Then nothing is taken.
    pub fn take(&mut self, per_second: NonZeroU32, burst: NonZeroU32, now: Moment) -> Result<(), Duration> {
        let cost = Duration::from_secs(1) / per_second.get();
        let owed = self.paid_at.since(now) + cost;
        match owed.saturating_sub(cost * burst.get()) {
            Duration::ZERO => {
                self.paid_at = self.paid_at.max(now) + cost;
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// When it is as if nothing had ever been taken.
    pub fn full_at(&self) -> Moment {
        self.paid_at
    }
}

/// What one connection has published of late, by namespaces that have a rate. Nothing is kept of the others.
#[derive(Debug, Default)]
pub(super) struct Publishing(Option<Box<Namespaces>>);

#[derive(Debug, Default)]
struct Namespaces(Vec<(Box<str>, Bucket)>);

impl Publishing {
    /// Takes one publication of a namespace.
    pub(super) fn take(&mut self, namespace: &str, rate: NonZeroU32, now: Moment) -> Result<(), Duration> {
        let Namespaces(buckets) = &mut **self.0.get_or_insert_default();
        let place = buckets.iter().position(|(name, _)| **name == *namespace).unwrap_or_else(|| {
            buckets.push((namespace.into(), Bucket::default()));
            buckets.len() - 1
        });
        buckets[place].1.take(rate, rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_the_rate_and_says_when() {
        let (rate, burst) = (NonZeroU32::new(10).unwrap(), NonZeroU32::new(3).unwrap());
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, burst, at(1_000)), Ok(()));
        }
        assert_eq!(bucket.take(rate, burst, at(1_000)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate, burst, at(1_099)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(rate, burst, at(1_100)), Ok(()));
        assert_eq!(bucket.take(rate, burst, at(1_100)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.full_at(), at(1_400));
    }

    #[test]
    fn namespaces_have_a_bucket_each() {
        let rate = NonZeroU32::new(1).unwrap();
        let mut publishing = Publishing::default();
        assert_eq!(publishing.take("a", rate, at(0)), Ok(()));
        assert_eq!(publishing.take("b", rate, at(0)), Ok(()));
        assert_eq!(publishing.take("a", rate, at(0)), Err(Duration::from_secs(1)));
        assert_eq!(publishing.take("a", rate, at(1_000)), Ok(()));
    }

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
