//! How a node keeps up with the streams it follows: reads what is missing, and looks whether anything is.
//!
//! A channel's history is read by one task at a time, which goes on until its follower wants nothing more; subscribers
//! that recover and gaps that are refilled share its reads. Two things make a follower want a read that no publication has
//! made it want: the link to the broker was lost and is back, so that the stream may have gone on, or gone back, unheard;
//! and the check, which asks the broker where the streams stand on which nothing has come for a while, so that a lost
//! *last* publication is found too. Streams that have long been quiet take turns
//! ([ADR 0026](../../../../docs/adr/0026-quiet-streams-take-turns.md)).

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_metrics::BrokerCall;
use fanfare_protocol::Channel;
use fanfare_protocol::history::{PAGE_MAX, Page, Query};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Hub;
use crate::broker::BrokerError;
use crate::follower::Read;
use crate::registry::Reader;

/// The pause after a read that failed, before the stream's own needs are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How often it is looked whether the link was lost; publications that come look too.
const LOSSES_INTERVAL: Duration = Duration::from_millis(250);

/// The most channels compared in one call of the broker.
const CHECK_MAX: usize = 512;

impl Hub {
    /// Starts the task that reads a channel's history.
    pub(super) fn start_reading(&self, reader: Reader) {
        self.tasks.spawn(read_on(self.me.clone(), reader));
    }

    /// Puts all streams in doubt when the link was lost since the last time.
    pub(super) fn notice_losses(&self) {
        let losses = self.broker.losses();
        if self.losses.load(Ordering::Acquire) != losses {
            self.registry.doubt_all().into_iter().for_each(|reader| self.start_reading(reader));
            // Only now: another lane must not deliver in between on the strength of what we have not done yet.
            self.losses.store(losses, Ordering::Release);
        }
    }

    /// All that is kept from there on, page by page.
    async fn read(&self, channel: &Channel, read: Read) -> Result<Page, BrokerError> {
        let Read::After(from) = read else {
            return self.history(channel, Query { since: None, limit: 1, reverse: true }).await;
        };
        let mut whole: Option<Page> = None;
        loop {
            let read_to =
                whole.as_ref().and_then(|page| page.publications.last()).map_or(from, |it| it.offset());
            let query = Query { since: Some(read_to), limit: PAGE_MAX, reverse: false };
            let page = self.history(channel, query).await?;
            let is_last = page.publications.last().is_none_or(|last| last.offset() >= page.top);
            match &mut whole {
                Some(so_far) if so_far.epoch == page.epoch => {
                    so_far.top = page.top;
                    so_far.publications.extend(page.publications);
                }
                Some(_) => {
                    whole = None; // Another stream by now: from the beginning.
                    continue;
                }
                None => whole = Some(page),
            }
            if is_last {
                return Ok(whole.expect("a page was read"));
            }
        }
    }

    /// Compares with the broker where quiet streams stand.
    async fn check_positions(&self) {
        let mut is_away = false;
        for channels in self.registry.take_due().chunks(CHECK_MAX) {
            let positions = async {
                let positions = self.broker.positions(channels.to_vec()).await;
                match &positions[0] {
                    Err(error) if positions.iter().all(Result::is_err) => Err(error.clone()),
                    _ => Ok(positions),
                }
            };
            let positions = match is_away {
                true => Vec::new(),
                false => self.call(BrokerCall::History, positions).await.unwrap_or_default(),
            };
            is_away = positions.is_empty();
            for (at, channel) in channels.iter().enumerate() {
                match positions.get(at) {
                    Some(Ok(position)) => {
                        let behind = position.and_then(|it| self.registry.check(channel, it));
                        behind.into_iter().for_each(|reader| self.start_reading(reader));
                    }
                    Some(Err(_)) | None => self.registry.stays_due(channel),
                }
            }
        }
        let mut unchecked = self.unchecked.lock();
        *unchecked = is_away.then(|| unchecked.unwrap_or_else(Instant::now));
    }
}

/// Reads a channel's history until nothing more is wanted, or the hub is gone.
async fn read_on(hub: Weak<Hub>, reader: Reader) {
    while let Some(hub) = hub.upgrade() {
        let turn = hub.reads.acquire().await.expect("the semaphore is never closed");
        let Some(reading) = reader.next() else { return };
        let read = hub.read(reader.channel(), reading.read).await;
        hub.notice_losses(); // It may have come over a new link.
        match read {
            Ok(page) => {
                let delivered = reader.learn(reading, page, hub.registry.tap().on());
                delivered.queued.count(&hub.metrics);
            }
            Err(error) => {
                if !reader.failed(reading, &error) {
                    return;
                }
                drop(turn);
                drop(hub);
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Looks after the streams as long as there is a hub.
pub(super) async fn watch_over(hub: Weak<Hub>, check_interval: Duration) {
    let mut losses = interval(LOSSES_INTERVAL);
    losses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = interval(check_interval);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_check = tokio::select! {
            biased; // A loss that has been noticed saves the check.
            _ = losses.tick() => false,
            _ = checks.tick() => true,
        };
        let Some(hub) = hub.upgrade() else { return };
        hub.notice_losses();
        if is_check {
            hub.check_positions().await;
        }
    }
}
