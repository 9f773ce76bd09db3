//! The one place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_protocol::time::{Moment, Now, UnixMicros};
use tokio::time::Instant;

/// A node's clock: monotonic time from tokio, so that tests can pause it, and the wall's beside it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both readings.
    pub fn now(&self) -> Now {
        Now { moment: self.moment(), unix: self.unix() }
    }

    /// The time since the node's start.
    pub fn moment(&self) -> Moment {
        Moment::after_start(self.started.elapsed())
    }

    /// The wall clock.
    pub fn unix(&self) -> UnixMicros {
        Self::wall()
    }

    /// The wall clock, which is the same for everybody; 1970 if it stands before that.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn wall() -> UnixMicros {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMicros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
    }

    /// Tokio's instant at a moment, to sleep until.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.started + moment.since_start()
    }
}
