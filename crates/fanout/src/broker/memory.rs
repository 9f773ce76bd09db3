//! The broker of one process: no set-up at all.
//!
//! A node of its own has a [`Bus`] to itself; tests put several nodes on one. A publisher waits for its channel's turn,
//! first come, first served, and holds it while it puts the publication into the lane of every node that watches the
//! channel: that is what gives a channel one order on all nodes, and it is the order in which drafts came. A full lane
//! makes the publisher wait, and those behind it: back-pressure reaches whoever publishes too much.

use std::collections::HashSet;
use std::sync::Arc;

use fanfare_protocol::publication::{Draft, Position};
use fanfare_protocol::{Channel, Publication};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::RwLock;
use tokio::task::coop::unconstrained;

use crate::broker::{Broker, BrokerError, Lanes, Link, spread};

/// What connects the memory brokers of one process.
#[derive(Debug, Clone, Default)]
pub struct Bus(Arc<Shared>);

/// How many channels can be published to at once: more than a node has lanes.
const TURNS: usize = 32;

/// Fair, and made to be held while one waits for a lane: nothing that empties lanes ever publishes.
type Turn = tokio::sync::Mutex<()>;

#[derive(Debug, Default)]
struct Shared {
    nodes: RwLock<Vec<Arc<Node>>>,
    /// Which publication of a channel is put into lanes now. A turn is shared by the channels that hash to it.
    turns: [Turn; TURNS],
}

#[derive(Debug)]
struct Node {
    lanes: Lanes,
    watched: RwLock<HashSet<Channel>>,
}

/// One node's end of a [`Bus`].
#[derive(Debug)]
pub struct MemoryBroker {
    bus: Bus,
    node: Arc<Node>,
}

impl MemoryBroker {
    /// Joins a bus; what is watched goes to `lanes`.
    pub fn new(bus: &Bus, lanes: Lanes) -> Self {
        let node = Arc::new(Node { lanes, watched: RwLock::default() });
        bus.0.nodes.write().push(node.clone());
        Self { bus: bus.clone(), node }
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.bus.0.nodes.write().retain(|node| !Arc::ptr_eq(node, &self.node));
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        async move {
            let publication = Arc::new(Publication::new(draft, None));
            let channel = &publication.channel;
            // The first poll must queue for the turn: tokio's budget, used up, would let a later draft overtake.
            let _turn = unconstrained(self.bus.0.turns[spread(channel, TURNS)].lock()).await;
            let watching: Vec<_> = {
                let nodes = self.bus.0.nodes.read();
                nodes.iter().filter(|node| node.watched.read().contains(channel)).cloned().collect()
            };
            let mut places = Vec::with_capacity(watching.len());
            for node in &watching {
                // A lane that is gone belongs to a node that has shut down: it hears nothing, and that is right.
                if let Ok(place) = node.lanes.lane(channel).reserve().await {
                    places.push(place);
                }
            }
            // All places or none: a publisher that gives up half-way has reached nobody.
            for place in places {
                place.send(publication.clone());
            }
            Ok(None)
        }
        .boxed()
    }

    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.node.watched.write().insert(channel.clone());
        ready(Ok(())).boxed()
    }

    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()> {
        self.node.watched.write().remove(channel);
        ready(()).boxed()
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}
