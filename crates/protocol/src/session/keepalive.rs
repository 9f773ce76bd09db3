//! Is the peer still there? A ping every interval, and a sign of life within the timeout after each.
//!
//! Any byte from the peer is a sign of life; only the pong is sure to come. The first ping of a session falls
//! into the second half of its first interval, always at the same place for one session id, so that ten thousand clients that arrive
//! together are not pinged together for ever.

use std::time::Duration;

use crate::id::SessionId;
use crate::limits::Heartbeat;
use crate::time::Moment;

#[derive(Debug)]
pub(super) enum Keepalive {
    /// The last ping was answered; the next one is due.
    Alive { next_ping: Moment },
    /// A ping is out since then.
    Asked { at: Moment },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Close,
}

impl Keepalive {
    pub(super) fn new(heartbeat: Heartbeat, id: SessionId, now: Moment) -> Self {
        let half = heartbeat.interval / 2;
        let half_millis = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
        Self::Alive { next_ping: now + half + Duration::from_millis(id.spread(half_millis)) }
    }

    /// A sign of life; whether it was asked for.
    pub(super) fn heard(&mut self, heartbeat: Heartbeat) -> bool {
        let Self::Asked { at } = *self else { return false };
        *self = Self::Alive { next_ping: at + heartbeat.interval };
        true
    }

    pub(super) fn deadline(&self, heartbeat: Heartbeat) -> Moment {
        match self {
            Self::Alive { next_ping } => *next_ping,
            Self::Asked { at } => *at + heartbeat.timeout,
        }
    }

    pub(super) fn tick(&mut self, heartbeat: Heartbeat, now: Moment) -> Due {
        if now < self.deadline(heartbeat) {
            return Due::Nothing;
        }
        match self {
            Self::Alive { .. } => {
                *self = Self::Asked { at: now };
                Due::Ping
            }
            Self::Asked { .. } => Due::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Heartbeat =
        Heartbeat { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    enum Step {
        Heard,
        Tick(u64, Due),
    }

    #[test]
    fn a_ping_each_interval_and_a_sign_of_life_within_the_timeout() {
        use Step::{Heard, Tick};
        let first = SessionId::from_random([0; 16]); // Its first ping is due after 15 s.
        for (name, steps, deadline) in [
            ("before the first ping", vec![Tick(14, Due::Nothing)], 15),
            ("the first ping", vec![Tick(15, Due::Ping)], 25),
            ("what comes unasked changes nothing", vec![Heard, Tick(14, Due::Nothing), Heard], 15),
            ("still waiting", vec![Tick(15, Due::Ping), Tick(24, Due::Nothing)], 25),
            ("in vain", vec![Tick(15, Due::Ping), Tick(25, Due::Close)], 25),
            ("answered", vec![Tick(15, Due::Ping), Heard, Tick(44, Due::Nothing)], 45),
            ("asked again", vec![Tick(15, Due::Ping), Heard, Tick(45, Due::Ping)], 55),
            ("a late tick puts the next ping off", vec![Tick(17, Due::Ping), Heard], 47),
            ("answered twice", vec![Tick(15, Due::Ping), Heard, Heard, Tick(45, Due::Ping), Heard], 75),
        ] {
            let mut keepalive = Keepalive::new(HEARTBEAT, first, at(0));
            for step in steps {
                match step {
                    Heard => _ = keepalive.heard(HEARTBEAT),
                    Tick(now, due) => assert_eq!(keepalive.tick(HEARTBEAT, at(now)), due, "{name}"),
                }
            }
            assert_eq!(keepalive.deadline(HEARTBEAT), at(deadline), "{name}");
        }
    }

    #[test]
    fn sessions_that_come_together_are_not_pinged_together() {
        let first_pings: Vec<_> = (0..=255_u8)
            .map(|byte| {
                Keepalive::new(HEARTBEAT, SessionId::from_random([byte; 16]), at(0)).deadline(HEARTBEAT)
            })
            .collect();
        assert!(first_pings.iter().all(|ping| (at(15)..at(30)).contains(ping)), "in the second half");
        for tenth in 0..10 {
            let slice = 15_000 + tenth * 1_500;
            let from = Moment::after_start(Duration::from_millis(slice));
            let to = Moment::after_start(Duration::from_millis(slice + 1_500));
            let pings = first_pings.iter().filter(|ping| (from..to).contains(ping)).count();
            assert!((10..45).contains(&pings), "{pings} of 256 in one tenth of the time");
        }
    }
}
