//! Whether Redis can be reached: up when every connection is.
//!
//! Each task that keeps a connection owns a [`Half`] and says when it rises and falls. The [`Link`](crate::broker::Link)
//! of the broker, its metrics and its two log lines follow from all halves together: one warning when the first falls,
//! one note when the last is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfare_metrics::Metrics;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::broker::redis::server::Lost;

/// All halves together.
#[derive(Debug)]
pub(super) struct Board {
    metrics: Arc<Metrics>,
    up: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many halves are down.
    down: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not up yet since the start, and no attempt has failed.
    Fresh,
    /// Not up yet since the start, and that has been logged.
    Awaited,
    Up,
    /// It was up.
    Lost,
}

/// One connection's part.
#[derive(Debug)]
pub(super) struct Half {
    board: Arc<Board>,
    name: &'static str,
    server: String,
    /// Changed with the board locked, as is the next.
    up: AtomicBool,
    retired: AtomicBool,
    /// How often it has risen.
    rises: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.broker_connected(false);
        Arc::new(Self {
            metrics,
            up: AtomicBool::new(false),
            state: Mutex::new(State { down: 0, phase: Phase::Fresh }),
        })
    }

    /// Whether all halves are up.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Adds a half, which is down. So is the link until it is up, though nothing was lost by that.
    pub(super) fn half(self: &Arc<Self>, name: &'static str, server: String) -> Arc<Half> {
        let mut state = self.state.lock();
        state.down += 1;
        if state.phase == Phase::Up {
            state.phase = Phase::Awaited;
            self.is_down();
        }
        let (up, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Half { board: self.clone(), name, server, up, retired, rises: watch::Sender::new(0) })
    }

    fn is_down(&self) {
        self.up.store(false, Ordering::Release);
        self.metrics.broker_connected(false);
    }

    /// One half less is down: that may have been the last.
    fn one_less_down(&self, state: &mut State, server: &str) {
        state.down -= 1;
        if state.down > 0 {
            return;
        }
        match state.phase {
            Phase::Lost => {
                self.metrics.broker_reconnected();
                info!(server, "redis is back");
            }
            Phase::Fresh | Phase::Awaited | Phase::Up => info!(server, "redis is connected"),
        }
        state.phase = Phase::Up;
        self.metrics.broker_connected(true);
        self.up.store(true, Ordering::Release);
    }
}

impl Half {
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// How often it has risen, now and from now on.
    pub(super) fn rises(&self) -> watch::Receiver<u64> {
        self.rises.subscribe()
    }

    /// The connection works.
    pub(super) fn rise(&self) {
        let mut state = self.board.state.lock();
        let was_up = self.up.swap(true, Ordering::AcqRel);
        self.rises.send_modify(|rises| *rises += u64::from(!was_up));
        if !was_up && !self.retired.load(Ordering::Relaxed) {
            self.board.one_less_down(&mut state, &self.server);
        }
    }

    /// Nobody wants this connection any more: it counts no longer.
    pub(super) fn retire(&self) {
        let mut state = self.board.state.lock();
        if !self.retired.swap(true, Ordering::Relaxed) && !self.up.load(Ordering::Acquire) {
            self.board.one_less_down(&mut state, &self.server);
        }
    }

    /// The connection is lost, or could not be made.
    pub(super) fn fall(&self, reason: &Lost) {
        let board = &*self.board;
        let mut state = board.state.lock();
        let was_up = self.up.swap(false, Ordering::AcqRel);
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        if was_up {
            state.down += 1;
        }
        let (server, connection) = (&self.server, self.name);
        match state.phase {
            Phase::Up => {
                board.is_down();
                state.phase = Phase::Lost;
                warn!(server, connection, %reason, "redis is lost, trying to get it back");
            }
            Phase::Fresh => {
                state.phase = Phase::Awaited;
                warn!(server, connection, %reason, "redis is away, trying on");
            }
            Phase::Awaited | Phase::Lost => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_up_while_every_half_is() {
        let metrics = Arc::new(Metrics::new());
        let board = Board::new(metrics.clone());
        let halves = [board.half("publish", "a:1".into()), board.half("watch", "a:1".into())];
        let mut seen = Vec::new();
        for (half, rises) in
            [(0, true), (0, true), (1, true), (0, false), (0, false), (1, false), (0, true), (1, true)]
        {
            match rises {
                true => halves[half].rise(),
                false => halves[half].fall(&Lost::Closed),
            }
            seen.push(board.is_up());
        }
        assert_eq!(seen, [false, false, true, false, false, false, false, true]);
        let third = board.half("read", "b:1".into());
        assert!(!board.is_up(), "a server more is not there yet");
        third.rise();
        third.fall(&Lost::Closed);
        third.retire();
        third.retire();
        assert!(board.is_up(), "nobody waits for what is retired");
        third.fall(&Lost::Closed);
        third.rise();
        assert!(board.is_up());
        board.half("read", "c:1".into()).retire();
        assert!(board.is_up(), "whether it ever came or not");
        let counted = metrics.render();
        assert!(counted.contains("fanfare_broker_reconnects_total 2\n"), "{counted}");
        assert!(counted.contains("fanfare_broker_connected 1\n"), "{counted}");
    }
}
