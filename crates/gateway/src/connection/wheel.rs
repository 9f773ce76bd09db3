//! One clock for all connections: a timing wheel in place of a timer each.
//!
//! A connection asks for a tick at its session's deadline; the wheel files the request under the slot in which that
//! falls, and one task turns the wheel, ringing what it finds. Nothing is ever cancelled: a tick that has become
//! pointless finds a session that does nothing, and a connection that has gone is a weak reference that leads nowhere.
//!
//! **Invariants.** A tick never rings before its time, and at most one [`SLOT`] after it, except that deadlines beyond
//! the wheel's horizon ring early, at the horizon, and are asked for anew.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fanfare_fanout::{Order, Outbox};
use fanfare_protocol::time::Moment;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// How late a tick may ring.
const SLOT: Duration = Duration::from_millis(250);

/// How many slots there are: the horizon is 128 seconds.
const SLOTS: usize = 512;

/// The ticks rung before the task lets others run.
const RUN: usize = 1024;

#[derive(Debug)]
pub(crate) struct Wheel {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: Box<[Vec<Weak<Outbox>>]>,
    /// The number of the slot that rings next, counted from the node's start.
    next: u64,
}

impl Wheel {
    pub(crate) fn new(clock: Clock) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { clock, state: Mutex::new(State { slots, next: 1 }) }
    }

    /// Rings `outbox` with [`Order::Tick`] once `at` has come.
    pub(crate) fn schedule(&self, at: Moment, outbox: &Arc<Outbox>) {
        let due = number(at);
        let mut state = self.state.lock();
        let due = due.clamp(state.next, state.next + SLOTS as u64 - 1);
        state.slots[index(due)].push(Arc::downgrade(outbox));
    }

    /// Turns until told to stop.
    pub(crate) async fn turn(&self, stop: CancellationToken) {
        let mut interval = interval_at(self.clock.instant(Moment::after_start(SLOT)), SLOT);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let passed = u64::try_from(self.clock.moment().since_start().as_millis() / SLOT.as_millis())
                .expect("a node runs for less than 500 million years");
            for run in self.take_due(passed).chunks(RUN) {
                for outbox in run.iter().filter_map(Weak::upgrade) {
                    outbox.order(Order::Tick);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Empties every slot up to and including number `passed`.
    fn take_due(&self, passed: u64) -> Vec<Weak<Outbox>> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        let last = passed.min(state.next + SLOTS as u64 - 1);
        for number in state.next..=last {
            due.append(&mut std::mem::take(&mut state.slots[index(number)]));
        }
        state.next = state.next.max(passed + 1);
        due
    }
}

/// The slot at whose end `at` has certainly come.
fn number(at: Moment) -> u64 {
    u64::try_from(at.since_start().as_micros().div_ceil(SLOT.as_micros())).unwrap_or(u64::MAX)
}

fn index(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).expect("less than the slots")
}
