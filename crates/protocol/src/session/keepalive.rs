//! Is the peer still there? A ping every interval, and a sign of life within the timeout after each.
//!
//! Any byte from the peer is a sign of life; only the pong is sure to come. The first ping of a session falls somewhere
//! in its first interval, always at the same place for one session id, so that ten thousand clients that arrive
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

    pub(super) fn heard(&mut self, heartbeat: Heartbeat) {
        if let Self::Asked { at } = *self {
            *self = Self::Alive { next_ping: at + heartbeat.interval };
        }
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
