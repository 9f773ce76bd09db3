//! What nodes say to each other: orders and news to all of them, and words to one.
//!
//! All are publications on channels of their own, whose namespace is nobody's to subscribe to or to publish on. So they
//! reach a node within the time of a publication, by the same lanes, whatever the broker is. This module knows neither what they
//! say nor who obeys.
//!
//! - An **order** is for every node, and is kept: the follower sees to it that a lost link or a fail-over loses none, and history is
//!   what a node reads that starts later.
//! - A **bid** is for every node, and is kept for as long as a lost link lasts: whoever starts later has nobody whom it is about.
//! - **News** are for every node, and are not kept: whoever has missed some hears newer ones.
//! - The **census** is news of its own: who is alive, and what is asked of all who are.
//! - **Figures** are what a node says of itself to operators: theirs is the one channel that a client may hear, with a key of the API.
//! - A **word** is for the node of a name, and is not: whoever needs to know that it was heard waits for an answer.
//!
//! **Invariants.** Whoever listens for orders hears first what is kept, then what comes, nothing between left out; or is told that
//! it has lost its place, and listens anew. An ear is no subscription: it is in no count of clients.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fanfare_metrics::Metrics;
use fanfare_protocol::command::Start;
use fanfare_protocol::publication::{Draft, Payload, Retention};
use fanfare_protocol::rules::{FIGURES, RESERVED_NAMESPACE};
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

/// How many bids are kept, and for how long: links are back within seconds.
const BIDS_KEPT: Retention = Retention {
    size: NonZeroU32::new(20_000).unwrap(),
    ttl: Duration::from_secs(120),
    idempotency_ttl: Duration::from_secs(60),
};

/// Twice what the longest history of orders takes: no more than half of a queue is replayed.
const ORDERS_BYTES: usize = 128 * 1024 * 1024;

/// The words that may wait for a node.
const WORDS_BYTES: usize = 32 * 1024 * 1024;

/// Hears what nodes say.
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
    /// Events of the native dialect in JSON, whose `data` is what was said.
    Said(Vec<Bytes>),
    /// Some may be missing: listen anew.
    Lost,
}

/// That of orders.
fn channel() -> Channel {
    Channel::parse(&format!("{RESERVED_NAMESPACE}:orders")).expect("it is printable")
}

/// That of news.
fn channel_of_news() -> Channel {
    Channel::parse(&format!("{RESERVED_NAMESPACE}:news")).expect("it is printable")
}

/// That of bids.
fn channel_of_bids() -> Channel {
    Channel::parse(&format!("{RESERVED_NAMESPACE}:bids")).expect("it is printable")
}

/// That of the census.
fn channel_of_census() -> Channel {
    Channel::parse(&format!("{RESERVED_NAMESPACE}:census")).expect("it is printable")
}

/// That of words to a node; none where no node can have this name.
fn channel_of(node: &str) -> Option<Channel> {
    Channel::parse(&format!("{RESERVED_NAMESPACE}:node:{node}")).ok()
}

/// Gives an order to every node, this one included.
///
/// # Errors
/// Those of [`Hub::publish`]. Then nobody has heard it, or for a timeout nobody knows.
pub async fn order(hub: &Hub, order: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    say(hub, channel(), order, Some(KEPT), now).await
}

/// Gives every node a bid, this one included.
///
/// # Errors
/// As [`order`].
pub async fn bid(hub: &Hub, bid: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    say(hub, channel_of_bids(), bid, Some(BIDS_KEPT), now).await
}

/// Tells every node, this one included, that this one is alive, or asks all of them something.
///
/// # Errors
/// As [`order`].
pub async fn muster(hub: &Hub, line: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    say(hub, channel_of_census(), line, None, now).await
}

/// Tells operators, whatever node they are on, how this one is.
///
/// # Errors
/// As [`order`].
pub async fn report(hub: &Hub, facts: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    let channel = Channel::parse(FIGURES).expect("it is printable");
    say(hub, channel, facts, None, now).await
}

/// Tells every node some news, this one included.
///
/// # Errors
/// As [`order`].
pub async fn tell(hub: &Hub, news: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    say(hub, channel_of_news(), news, None, now).await
}

/// Sends word to the node of this name, if there is one.
///
/// # Errors
/// As [`order`].
pub async fn send(hub: &Hub, node: &str, word: Payload, now: UnixMicros) -> Result<(), BrokerError> {
    match channel_of(node) {
        Some(channel) => say(hub, channel, word, None, now).await,
        None => Ok(()),
    }
}

async fn say(
    hub: &Hub,
    channel: Channel,
    payload: Payload,
    retention: Option<Retention>,
    received: UnixMicros,
) -> Result<(), BrokerError> {
    let draft =
        Draft { channel, payload, sender: None, exclude: None, received, retention, key: None, trace: None };
    hub.publish(draft).await.map(drop)
}

impl Ear {
    /// Begins to listen for orders. What is kept is the first that [`Ear::next`] answers with.
    ///
    /// # Errors
    /// Those of [`Hub::subscribe`].
    pub async fn open(hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Result<Self, BrokerError> {
        let terms = Terms { start: Start::Rewind(u32::MAX), history: true, ..Terms::default() };
        Self::on(channel(), ORDERS_BYTES, terms, hub, metrics).await
    }

    /// Begins to listen for bids, from now on.
    ///
    /// # Errors
    /// Those of [`Hub::subscribe`].
    pub async fn of_bids(hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Result<Self, BrokerError> {
        let terms = Terms { start: Start::Live, history: true, ..Terms::default() };
        Self::on(channel_of_bids(), WORDS_BYTES, terms, hub, metrics).await
    }

    /// Begins to listen to the census.
    ///
    /// # Errors
    /// Those of [`Hub::subscribe`].
    pub async fn of_census(hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Result<Self, BrokerError> {
        let terms = Terms { start: Start::Live, history: false, ..Terms::default() };
        Self::on(channel_of_census(), WORDS_BYTES, terms, hub, metrics).await
    }

    /// Begins to listen for news.
    ///
    /// # Errors
    /// Those of [`Hub::subscribe`].
    pub async fn of_all(hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Result<Self, BrokerError> {
        let terms = Terms { start: Start::Live, history: false, ..Terms::default() };
        Self::on(channel_of_news(), WORDS_BYTES, terms, hub, metrics).await
    }

    /// Begins to listen for words to the node of this name.
    ///
    /// # Errors
    /// Those of [`Hub::subscribe`].
    ///
    /// # Panics
    /// When the name is none of a node: 64 letters, digits, dots, hyphens and underscores at most.
    pub async fn of_node(hub: &Arc<Hub>, metrics: &Arc<Metrics>, node: &str) -> Result<Self, BrokerError> {
        let terms = Terms { start: Start::Live, history: false, ..Terms::default() };
        let channel = channel_of(node).expect("the name of a node is printable");
        Self::on(channel, WORDS_BYTES, terms, hub, metrics).await
    }

    async fn on(
        channel: Channel,
        queue_bytes: usize,
        terms: Terms,
        hub: &Arc<Hub>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BrokerError> {
        let outbox = Outbox::new(SessionId::from_random([0; 16]), Encoding::NativeJson, queue_bytes);
        let ear = Self { hub: hub.clone(), channel, outbox, metrics: metrics.clone() };
        hub.attend(&ear.channel, &ear.outbox, terms).await?;
        hub.go_live(&ear.channel, &ear.outbox, Frame::ping(&[]));
        Ok(ear)
    }

    /// Waits for what is said.
    pub async fn next(&self) -> Told {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Told> {
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            if matches!(order, Order::Overflowed | Order::Lost { .. }) {
                return Poll::Ready(Told::Lost);
            }
        }
        let (mut said, mut has_heard) = (Vec::new(), false);
        let mut batch = Batch::default();
        while let Poll::Ready(taken) = self.outbox.poll_take(cx, &mut batch) {
            self.metrics.outbox_queued(-i64::try_from(taken).expect("a batch is bounded"));
            said.extend(batch.frames.drain(..).filter_map(|frame| event(&frame)));
            batch.bytes = 0;
            has_heard = true;
        }
        if has_heard { Poll::Ready(Told::Said(said)) } else { Poll::Pending }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.hub.depart(&self.channel, &self.outbox);
        let discarded = self.outbox.discard();
        self.metrics.outbox_queued(-i64::try_from(discarded).expect("a queue is bounded"));
    }
}

/// The event that tells of it, out of the frame that carries it; none for a control frame.
fn event(frame: &Bytes) -> Option<Bytes> {
    let [first, length] = *frame.first_chunk()?;
    let start = match length {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (first & 0x08 == 0 && frame.len() >= start).then(|| frame.slice(start..))
}
