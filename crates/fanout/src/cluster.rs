//! Orders between nodes: what one of them is told by a backend, all of them do.
//!
//! An order is a publication on a channel of its own, whose namespace is nobody's to subscribe to or to publish on. So it
//! reaches every node within the time of a publication, in one order, by the same lanes; the follower sees to it that a lost
//! link or a fail-over loses none, and history is what a node reads that starts later. This module knows neither what orders
//! say nor who obeys.
//!
//! **Invariants.** Whoever listens hears first what is kept, then what comes, nothing between left out; or is told that it has
//! lost its place, and listens anew. An ear is no subscription: it is in no count of clients.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fanfare_metrics::Metrics;
use fanfare_protocol::command::Start;
use fanfare_protocol::publication::{Draft, Payload, Retention};
use fanfare_protocol::rules::RESERVED_NAMESPACE;
use fanfare_protocol::session::Terms;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, SessionId};

use crate::broker::BrokerError;
use crate::hub::Hub;
use crate::outbox::{Batch, Order, Outbox};

/// How many orders are kept, and how long after the last one.
pub const KEPT: Retention = Retention {
    size: NonZeroU32::new(100_000).unwrap(),
    ttl: Duration::from_secs(30 * 24 * 3600),
    idempotency_ttl: Duration::from_secs(60),
};

/// Twice what the longest history of orders takes: no more than half of a queue is replayed.
const QUEUE_BYTES: usize = 128 * 1024 * 1024;

/// Hears the orders of all nodes.
#[derive(Debug)]
pub struct Ear {
    hub: Arc<Hub>,
    channel: Channel,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
}

/// What an ear hears.
#[derive(Debug)]
pub enum Told {
    /// Orders: events of the native dialect in JSON, whose `data` they are.
    Orders(Vec<Bytes>),
    /// Some may be missing: listen anew.
    Lost,
}

fn channel() -> Channel {
    Channel::parse(&format!("{RESERVED_NAMESPACE}:orders")).expect("it is printable")
}

/// Gives an order to every node, this one included.
///
/// # Errors
/// Those of [`Hub::publish`]. Then nobody has heard it, or for a timeout nobody knows.
pub async fn order(hub: &Hub, order: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    let draft = Draft {
        channel: channel(),
        payload: order,
        sender: None,
        exclude: None,
        received: now,
        retention: Some(KEPT),
        key: None,
    };
    hub.publish(draft).await.map(drop)
}

impl Ear {
    /// Begins to listen. What is kept is the first that [`Ear::next`] answers with.
    ///
    /// # Errors
    /// Those of [`Hub::subscribe`].
    pub async fn open(hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Result<Self, BrokerError> {
        let outbox = Outbox::new(SessionId::from_random([0; 16]), Encoding::NativeJson, QUEUE_BYTES);
        let terms = Terms { start: Start::Rewind(u32::MAX), history: true, ..Terms::default() };
        let ear = Self { hub: hub.clone(), channel: channel(), outbox, metrics: metrics.clone() };
        hub.attend(&ear.channel, &ear.outbox, terms).await?;
        hub.go_live(&ear.channel, &ear.outbox, Frame::ping(&[]));
        Ok(ear)
    }

    /// Waits for orders.
    pub async fn next(&self) -> Told {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Told> {
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            if matches!(order, Order::Overflowed | Order::Lost { .. }) {
                return Poll::Ready(Told::Lost);
            }
        }
        let (mut orders, mut has_heard) = (Vec::new(), false);
        let mut batch = Batch::default();
        while let Poll::Ready(taken) = self.outbox.poll_take(cx, &mut batch) {
            self.metrics.outbox_queued(-i64::try_from(taken).expect("a batch is bounded"));
            orders.extend(batch.frames.drain(..).filter_map(|frame| event(&frame)));
            batch.bytes = 0;
            has_heard = true;
        }
        if has_heard { Poll::Ready(Told::Orders(orders)) } else { Poll::Pending }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.hub.depart(&self.channel, &self.outbox);
        let discarded = self.outbox.discard();
        self.metrics.outbox_queued(-i64::try_from(discarded).expect("a queue is bounded"));
    }
}

/// The event that tells of an order, out of the frame that carries it; none for a control frame.
fn event(frame: &Bytes) -> Option<Bytes> {
    let [first, length] = *frame.first_chunk()?;
    let start = match length {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (first & 0x08 == 0 && frame.len() >= start).then(|| frame.slice(start..))
}
