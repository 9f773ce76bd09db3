//! A circuit breaker: whoever has failed several times in a row is left alone for a while, then tried by one request.
//!
//! ```text
//!            failures in a row                 cool-down over
//!  Closed ──────────────────────► Open ──────────────────────────► Trying
//!    ▲                             ▲ ▲                               │ │
//!    │                             │ └──────────── it failed ────────┘ │
//!    └─────────────────────────────┼──────────────── it is well ───────┘
//!                       given up: the next one tries at once
//! ```
//!
//! What comes of requests that were under way when the breaker opened does not count: they tell of the past.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the [module's note](self).
pub(super) struct Breaker {
    failures_max: u32,
    cool_down: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    /// All may pass; so many have failed since the last that has not.
    Closed { failures: u32 },
    /// Nobody may, until then.
    Open { until: Instant },
    /// One has passed, and nobody else may until it is back.
    Trying,
}

/// What a request's end has done to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    None,
    Opened,
    Closed,
}

/// One request's leave to pass. Dropped without a [verdict](Self::settle) it tells nothing of the server.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    is_trial: bool,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, cool_down: Duration) -> Self {
        Self { failures_max, cool_down, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(*self.state.lock(), State::Closed { .. })
    }

    /// Whether a request could pass.
    ///
    /// # Errors
    /// None may for so long.
    pub(super) fn check(&self, now: Instant) -> Result<(), Duration> {
        match *self.state.lock() {
            State::Open { until } if now < until => Err(until - now),
            State::Trying => Err(self.cool_down),
            State::Open { .. } | State::Closed { .. } => Ok(()),
        }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// None may for so long.
    pub(super) fn admit(&self, now: Instant) -> Result<Pass<'_>, Duration> {
        let mut state = self.state.lock();
        let is_trial = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => true,
            State::Open { until } => return Err(until - now),
            State::Trying => return Err(self.cool_down),
        };
        if is_trial {
            *state = State::Trying;
        }
        Ok(Pass { breaker: self, is_trial })
    }
}

impl Pass<'_> {
    /// Tells how the server has fared.
    pub(super) fn settle(mut self, is_well: bool, now: Instant) -> Turn {
        let mut state = self.breaker.state.lock();
        let open = State::Open { until: now + self.breaker.cool_down };
        let (next, turn) = match (*state, is_well) {
            (State::Closed { .. }, true) => (State::Closed { failures: 0 }, Turn::None),
            (State::Closed { failures }, false) if failures + 1 < self.breaker.failures_max => {
                (State::Closed { failures: failures + 1 }, Turn::None)
            }
            (State::Closed { .. }, false) => (open, Turn::Opened),
            (State::Trying, true) if self.is_trial => (State::Closed { failures: 0 }, Turn::Closed),
            (State::Trying, false) if self.is_trial => (open, Turn::None),
            (before, _) => (before, Turn::None),
        };
        *state = next;
        drop(state);
        self.is_trial = false;
        turn
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            *self.breaker.state.lock() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(10);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, COOL_DOWN);
        for turn in [Turn::None, Turn::None, Turn::Opened] {
            assert_eq!(breaker.admit(now).ok().unwrap().settle(false, now), turn);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (breaker, now) = (Breaker::new(3, COOL_DOWN), Instant::now());
        for is_well in [false, false, true, false, false, true] {
            assert_eq!(breaker.admit(now).ok().unwrap().settle(is_well, now), Turn::None);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn nobody_passes_until_it_has_cooled_down_and_then_one() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.admit(now).err(), Some(COOL_DOWN));
        assert_eq!(breaker.check(now + COOL_DOWN / 4).err(), Some(COOL_DOWN / 4 * 3));
        let later = now + COOL_DOWN;
        assert!(breaker.check(later).is_ok());
        let trial = breaker.admit(later).ok().unwrap();
        assert!(breaker.check(later).is_err() && breaker.admit(later).is_err());
        assert_eq!(trial.settle(false, later), Turn::None);
        assert!(breaker.admit(later).is_err());
        assert_eq!(breaker.admit(later + COOL_DOWN).ok().unwrap().settle(true, later), Turn::Closed);
        assert!(breaker.admit(later).is_ok() && !breaker.is_open());
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_another() {
        let now = Instant::now();
        let breaker = opened(now - COOL_DOWN);
        drop(breaker.admit(now).ok().unwrap());
        assert!(breaker.admit(Instant::now()).is_ok());
    }

    #[test]
    fn who_was_under_way_when_it_opened_decides_nothing() {
        let (breaker, now) = (Breaker::new(1, COOL_DOWN), Instant::now());
        let (well, ill, first) = (breaker.admit(now), breaker.admit(now), breaker.admit(now));
        assert_eq!(first.ok().unwrap().settle(false, now), Turn::Opened);
        assert_eq!(well.ok().unwrap().settle(true, now), Turn::None);
        assert!(breaker.is_open(), "a late success closes nothing");
        let trial = breaker.admit(now + COOL_DOWN).ok().unwrap();
        assert_eq!(ill.ok().unwrap().settle(false, now), Turn::None);
        assert_eq!(trial.settle(true, now), Turn::Closed, "a late failure ends no trial");
    }
}
