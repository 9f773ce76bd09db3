//! Clients subscribe, a node watches: first in watches, last out unwatches.
//!
//! ```text
//!              first enters             watched                  last leaves
//!   (absent) ─────────────► Changing ───────────► Watched ───────────────────► Changing ──► (absent)
//!                           (watch)  └─ failed ─► Failed ─ someone enters ─►   (unwatch) └─ someone entered: watch again
//!                                    └─ no answer ─► (unwatch)
//! ```
//!
//! **Invariants.**
//! - One change at a time per channel: whoever comes while the broker is asked waits for its answer, and if it changes
//!   its mind meanwhile the next change starts when this one has ended. The broker never sees `watch` and `unwatch` of
//!   one channel cross.
//! - A second subscriber waits for the first one's `watch` to be confirmed: nobody is told "subscribed" before the node
//!   really hears.
//! - A `watch` that is not answered by the deadline is given up: whoever waits for it is told so, and it is undone by an
//!   `unwatch` before the channel is watched again, since it may have come to pass, or may yet.
//! - A [`Stake`] is held by everyone who counts. It gives itself back when dropped, so a subscriber that vanishes while
//!   it waits is not counted for ever.
//!
//! The change itself runs in a task of its own and so outlives the subscriber that caused it.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::Channel;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerError};

#[derive(Debug)]
pub(crate) struct Interest {
    broker: Arc<dyn Broker>,
    tasks: TaskTracker,
    /// The longest that a `watch` may take.
    deadline: Duration,
    channels: Mutex<HashMap<Channel, Watch>>,
}

#[derive(Debug)]
struct Watch {
    stakes: usize,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A task is asking the broker; these want to know what it says to a `watch`.
    Changing(Vec<oneshot::Sender<Result<(), BrokerError>>>),
    Watched,
    /// The last `watch` failed, and those who waited for it have not all given up yet.
    Failed,
}

/// What the task of a channel does next.
enum Step {
    Watch,
    Unwatch,
}

/// One subscriber's part in a channel's being watched. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Stake(Option<(Arc<Interest>, Channel)>);

impl Stake {
    /// Leaves the stake in force beyond this value: whoever does so calls [`Interest::leave`] later.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        if let Some((interest, channel)) = self.0.take() {
            interest.leave(&channel);
        }
    }
}

impl Interest {
    pub(crate) fn new(broker: Arc<dyn Broker>, tasks: TaskTracker, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { broker, tasks, deadline, channels: Mutex::default() })
    }

    /// Takes a stake in a channel and waits until the node watches it.
    pub(crate) async fn enter(self: &Arc<Self>, channel: &Channel) -> Result<Stake, BrokerError> {
        let (stake, answer) = self.take_stake(channel);
        if let Some(answer) = answer {
            answer
                .await
                .unwrap_or_else(|_| Err(BrokerError::Unavailable("the node is shutting down".into())))?;
        }
        Ok(stake)
    }

    /// Gives a kept stake back.
    pub(crate) fn leave(self: &Arc<Self>, channel: &Channel) {
        let mut channels = self.channels.lock();
        let watch = channels.get_mut(channel).expect("a stake keeps its channel");
        watch.stakes -= 1;
        if watch.stakes > 0 {
            return;
        }
        match watch.phase {
            Phase::Changing(_) => {} // Its task looks again when the broker has answered.
            Phase::Failed => {
                channels.remove(channel);
            }
            Phase::Watched => {
                watch.phase = Phase::Changing(Vec::new());
                drop(channels);
                self.change(channel.clone(), Step::Unwatch);
            }
        }
    }

    /// How many channels the node watches, or is about to.
    pub(crate) fn len(&self) -> usize {
        self.channels.lock().len()
    }

    fn take_stake(
        self: &Arc<Self>,
        channel: &Channel,
    ) -> (Stake, Option<oneshot::Receiver<Result<(), BrokerError>>>) {
        let stake = Stake(Some((self.clone(), channel.clone())));
        let mut channels = self.channels.lock();
        let watch =
            channels.entry(channel.clone()).or_insert_with(|| Watch { stakes: 0, phase: Phase::Failed });
        watch.stakes += 1;
        match &mut watch.phase {
            Phase::Watched => (stake, None),
            Phase::Changing(waiting) => {
                let (tell, answer) = oneshot::channel();
                waiting.push(tell);
                (stake, Some(answer))
            }
            Phase::Failed => {
                let (tell, answer) = oneshot::channel();
                watch.phase = Phase::Changing(vec![tell]);
                drop(channels);
                self.change(channel.clone(), Step::Watch);
                (stake, Some(answer))
            }
        }
    }

    fn change(self: &Arc<Self>, channel: Channel, first: Step) {
        let interest = self.clone();
        self.tasks.spawn(async move {
            let mut step = Some(first);
            while let Some(now) = step {
                step = match now {
                    Step::Watch => {
                        let asked = timeout(interest.deadline, interest.broker.watch(&channel)).await;
                        match asked {
                            Ok(answer) => interest.watch_answered(&channel, &answer),
                            Err(_) => interest.watch_given_up(&channel),
                        }
                    }
                    Step::Unwatch => {
                        interest.broker.unwatch(&channel).await;
                        interest.unwatch_answered(&channel)
                    }
                };
            }
        });
    }

    fn watch_answered(&self, channel: &Channel, answer: &Result<(), BrokerError>) -> Option<Step> {
        let mut channels = self.channels.lock();
        let watch = channels.get_mut(channel).expect("only its own task removes a changing channel");
        let after = if answer.is_ok() { Phase::Watched } else { Phase::Failed };
        let Phase::Changing(waiting) = mem::replace(&mut watch.phase, after) else {
            unreachable!("only its own task ends a change")
        };
        let next = match (watch.stakes, answer) {
            (0, Ok(())) => {
                watch.phase = Phase::Changing(Vec::new());
                Some(Step::Unwatch)
            }
            (0, Err(_)) => {
                channels.remove(channel);
                None
            }
            _ => None,
        };
        drop(channels);
        for tell in waiting {
            let _ = tell.send(answer.clone()); // Whoever has gone has given its stake back.
        }
        next
    }

    fn watch_given_up(&self, channel: &Channel) -> Option<Step> {
        let mut channels = self.channels.lock();
        let watch = channels.get_mut(channel).expect("only its own task removes a changing channel");
        let Phase::Changing(waiting) = &mut watch.phase else {
            unreachable!("only its own task ends a change")
        };
        let waiting = mem::take(waiting);
        drop(channels);
        for tell in waiting {
            let _ = tell.send(Err(BrokerError::Timeout(self.deadline)));
        }
        Some(Step::Unwatch)
    }

    fn unwatch_answered(&self, channel: &Channel) -> Option<Step> {
        let mut channels = self.channels.lock();
        if channels.get(channel).is_some_and(|watch| watch.stakes > 0) {
            return Some(Step::Watch);
        }
        channels.remove(channel);
        None
    }
}

#[cfg(test)]
mod tests;
