//! How many connections a user has on all nodes together: what each tells the others, where `limits.connections_per_user` asks for it.
//!
//! ```text
//!  admission::headcount ─► tell ─► cluster::tell ─► broker ─► (every node) Ear ─► hear ─► admission::headcount
//! ```
//!
//! Nodes say it on a channel of their own, like orders, but nothing of it is kept: who starts later, or may have missed something,
//! begins another [life](Share::life), and is told everything by those who hear of that.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::cluster::{self, Ear, Told};
use fanfare_protocol::publication::Payload;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::admission::{Share, shards};
use crate::node::Services;
use crate::orders;

/// How often changes are told.
const TICK: Duration = Duration::from_millis(250);

/// The beats after which a silent node is taken for dead.
const SILENCE: u32 = 2;

/// What the two halves share.
struct Teller {
    services: Arc<Services>,
    from: u64,
    life: AtomicU64,
    /// Somebody knows nothing of this node.
    is_unknown: AtomicBool,
    beat: Duration,
}

/// Tells and hears until told to stop.
pub(crate) async fn share(services: Arc<Services>, beat: Duration, stop: CancellationToken) {
    let (from, life) = (fastrand::u64(..), AtomicU64::new(fastrand::u64(..)));
    let teller = Teller { services, from, life, is_unknown: AtomicBool::new(true), beat };
    stop.run_until_cancelled(async { tokio::join!(teller.tell(), teller.hear()) }).await;
}

impl Teller {
    async fn tell(&self) {
        let headcount = self.services.admission.headcount();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut next_beat, mut turns) = (Instant::now(), shards().cycle());
        loop {
            tick.tick().await;
            let now = Instant::now();
            headcount.forget(now.checked_sub(self.beat * SILENCE).unwrap_or(now));
            let is_bounded = self.services.settings().limits.connections_per_user.is_some();
            headcount.note_changes(is_bounded);
            if !is_bounded {
                self.is_unknown.store(true, Ordering::Relaxed);
                continue;
            }
            let is_beat = now >= next_beat;
            let outcome = if is_beat && self.is_unknown.swap(false, Ordering::Relaxed) {
                self.tell_all().await
            } else {
                let changes = headcount.changes();
                let changed = if changes.is_empty() { Ok(()) } else { self.send(None, changes).await };
                let turn = turns.next().filter(|_| is_beat && changed.is_ok());
                match turn {
                    Some(shard) => self.send(Some(shard), headcount.shard(shard)).await,
                    None => changed,
                }
            };
            if is_beat {
                next_beat = now + self.beat;
            }
            if let Err(error) = outcome {
                debug!(%error, "the other nodes are not told how many connections users have");
                self.is_unknown.store(true, Ordering::Relaxed);
            }
        }
    }

    async fn tell_all(&self) -> Result<(), BrokerError> {
        let headcount = self.services.admission.headcount();
        for shard in shards() {
            self.send(Some(shard), headcount.shard(shard)).await?;
        }
        Ok(())
    }

    async fn send(&self, shard: Option<u8>, counts: Vec<(NonZeroU64, u32)>) -> Result<(), BrokerError> {
        let share = Share { from: self.from, life: self.life.load(Ordering::Relaxed), shard, counts };
        let share = serde_json::to_string(&share).expect("plain fields are JSON");
        let payload = Payload::parse(&share).expect("it was just written");
        cluster::tell(&self.services.hub, payload, self.services.clock.unix()).await
    }

    async fn hear(&self) {
        loop {
            match Ear::of_all(&self.services.hub, &self.services.metrics).await {
                Ok(ear) => {
                    self.life.store(fastrand::u64(..), Ordering::Relaxed);
                    self.is_unknown.store(true, Ordering::Relaxed);
                    while let Told::Said(events) = ear.next().await {
                        events
                            .iter()
                            .filter_map(|event| orders::read(event))
                            .for_each(|share| self.take(share));
                    }
                }
                Err(error) => debug!(%error, "other nodes cannot be heard yet"),
            }
            sleep(orders::RETRY).await;
        }
    }

    fn take(&self, share: Share) {
        if share.from != self.from && self.services.admission.headcount().hear(share, Instant::now()) {
            self.is_unknown.store(true, Ordering::Relaxed);
        }
    }
}
