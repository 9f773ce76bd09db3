//! The crate's only door: publish, subscribe, go live, unsubscribe.
//!
//! The hub owns the registry and the broker and runs one task per lane. A lane's task takes everything that waits in the
//! lane, groups runs of one channel, and walks that channel's subscribers once per run: the busier the node, the longer
//! the runs and the fewer the wake-ups. Nothing in the walk depends on the receiver but its encoding and whether it asked
//! for no echo.

use std::sync::Arc;
use std::time::Duration;

use fanfare_metrics::{BrokerCall, Metrics, Outcome};
use fanfare_protocol::publication::{Draft, Position};
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Publication};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerError, LaneEnds, Link};
use crate::interest::Interest;
use crate::outbox::Outbox;
use crate::registry::{Joined, Left, Registry};

/// The most publications taken from a lane before writers get their turn.
const RUN_MAX: usize = 256;

/// How a hub behaves.
#[derive(Debug, Clone, Copy)]
pub struct HubOptions {
    /// The longest that any call of the broker may take.
    pub broker_timeout: Duration,
}

/// One per node. See the [module's essay](self).
#[derive(Debug)]
pub struct Hub {
    registry: Registry,
    interest: Arc<Interest>,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
    options: HubOptions,
}

impl Hub {
    /// Builds a hub on a broker that fills the other ends of `lanes`, and starts its tasks. They end when the broker and
    /// all other holders of the lanes are gone.
    pub fn start(
        broker: Arc<dyn Broker>,
        lanes: LaneEnds,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        options: HubOptions,
    ) -> Arc<Self> {
        let interest = Interest::new(broker.clone(), tasks.clone());
        let hub = Arc::new(Self { registry: Registry::new(), interest, broker, metrics, options });
        for lane in lanes.0 {
            tasks.spawn(carry(Arc::downgrade(&hub), lane));
        }
        hub
    }

    /// Places a draft with the broker; every subscriber on every node hears it by way of the lanes.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline. Then nothing was published, or for a timeout nobody knows.
    pub async fn publish(&self, draft: Draft) -> Result<Option<Position>, BrokerError> {
        self.call(BrokerCall::Publish, self.broker.publish(draft)).await
    }

    /// Joins a channel, its gate closed, once the node watches it. [`Hub::go_live`] opens the gate;
    /// [`Hub::unsubscribe`] undoes either. Dropped half-way, it has done nothing.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline.
    pub async fn subscribe(
        &self,
        channel: &Channel,
        outbox: &Arc<Outbox>,
    ) -> Result<Option<Position>, BrokerError> {
        let stake = self.call(BrokerCall::Watch, self.interest.enter(channel)).await?;
        match self.registry.join(channel, outbox) {
            Joined::Already => return Ok(None), // The stake goes back: the first join holds one.
            Joined::First => self.metrics.channel_opened(),
            Joined::Another => {}
        }
        self.metrics.subscription_added();
        stake.keep();
        Ok(None)
    }

    /// Queues the reply that tells the client it is subscribed, and lets publications follow it.
    pub fn go_live(&self, channel: &Channel, outbox: &Outbox, reply: Frame) {
        match self.registry.go_live(channel, outbox.id(), reply) {
            Some(Ok(grown)) => self.metrics.outbox_queued(signed(grown)),
            Some(Err(full)) => self.metrics.outbox_queued(-signed(full.discarded)),
            None => {}
        }
    }

    /// Leaves a channel. From the return on nothing of it is queued for this outbox.
    pub fn unsubscribe(&self, channel: &Channel, outbox: &Outbox) {
        let left = self.registry.leave(channel, outbox.id());
        if left == Left::WasNotThere {
            return;
        }
        if left == Left::Last {
            self.metrics.channel_closed();
        }
        self.metrics.subscription_removed();
        self.interest.leave(channel);
    }

    /// Whether the broker can be reached.
    pub fn link(&self) -> Link {
        self.broker.link()
    }

    /// The broker's name.
    pub fn broker_kind(&self) -> &'static str {
        self.broker.kind()
    }

    /// How many channels this node watches, or is about to.
    pub fn channels_watched(&self) -> usize {
        self.interest.len()
    }

    async fn call<T>(
        &self,
        call: BrokerCall,
        answer: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let asked = Instant::now();
        let deadline = self.options.broker_timeout;
        let answer = timeout(deadline, answer).await.unwrap_or(Err(BrokerError::Timeout(deadline)));
        let outcome = match &answer {
            Ok(_) => Outcome::Ok,
            Err(BrokerError::Timeout(_)) => Outcome::Timeout,
            Err(BrokerError::Unavailable(_) | BrokerError::Busy(_)) => Outcome::Unavailable,
        };
        self.metrics.broker_call(call, outcome, asked.elapsed());
        answer
    }

    fn deliver(&self, publications: &[Arc<Publication>]) {
        self.metrics.publications_received(publications.len() as u64);
        for run in publications.chunk_by(|one, next| one.channel == next.channel) {
            let began = Instant::now();
            let delivered = self.registry.deliver(&run[0].channel, run);
            self.metrics.outbox_queued(delivered.grown_bytes);
            self.metrics.fanned_out(run.len() as u64, delivered.receivers, began.elapsed());
        }
    }
}

/// Carries what comes through one lane to the subscribers, as long as there is a hub.
async fn carry(hub: std::sync::Weak<Hub>, mut lane: mpsc::Receiver<Arc<Publication>>) {
    let mut publications = Vec::new();
    while lane.recv_many(&mut publications, RUN_MAX).await > 0 {
        let Some(hub) = hub.upgrade() else { return };
        hub.deliver(&publications);
        publications.clear();
        // Tokio's budget would let a busy lane run on; the writers it has woken come first.
        tokio::task::yield_now().await;
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("a queue is shorter than 2^63 bytes")
}

#[cfg(test)]
mod tests;
