//! The broker of one process: no set-up at all.
//!
//! A node of its own has a [`Bus`] to itself; tests put several nodes on one. A publisher waits for its channel's turn,
//! first come, first served, and holds it while it puts the publication into the lane of every node that watches the
//! channel: that is what gives a channel one order on all nodes, and it is the order in which drafts came. A full lane
//! makes the publisher wait, and those behind it: back-pressure reaches whoever publishes too much. Reading history waits
//! for nobody: whoever empties a lane may read.

use std::collections::HashSet;
use std::sync::Arc;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Position};
use fanfare_protocol::{Channel, Publication};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::{Mutex, RwLock};
use tokio::sync::MutexGuard;
use tokio::sync::mpsc::Permit;
use tokio::task::coop::unconstrained;

use crate::broker::{Broker, BrokerError, Heard, Lanes, Link, spread};
use crate::presence::Notice;
use crate::presence::memory::Book;

mod streams;

use streams::{Appended, Streams};

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
    /// Which publication of a channel is placed now; channels share turns by hash.
    turns: [Turn; TURNS],
    /// Who is subscribed.
    book: tokio::sync::Mutex<Book>,
    /// The past of the channels that share a turn. Whoever appends has the turn, and locks this from the offset to the
    /// last lane: nobody hears what history does not have.
    streams: [Mutex<Streams>; TURNS],
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

impl Bus {
    async fn turn(&self, channel: &Channel) -> MutexGuard<'_, ()> {
        // The first poll must queue for the turn: tokio's budget, used up, would let a later draft overtake.
        unconstrained(self.0.turns[spread(channel, TURNS)].lock()).await
    }

    fn streams(&self, channel: &Channel) -> parking_lot::MutexGuard<'_, Streams> {
        self.0.streams[spread(channel, TURNS)].lock()
    }

    fn watching(&self, channel: &Channel) -> Vec<Arc<Node>> {
        let nodes = self.0.nodes.read();
        nodes.iter().filter(|node| node.watched.read().contains(channel)).cloned().collect()
    }

    /// The book of presence, held by one at a time.
    pub(crate) async fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().await
    }

    /// Tells every node that watches the notice's channel.
    pub(crate) async fn announce(&self, notice: Notice) {
        for node in self.watching(&notice.channel) {
            // A queue that is gone belongs to a node that has shut down, or that does without presence.
            let _ = node.lanes.notices().send(notice.clone()).await;
        }
    }

    fn is_watched(&self, channel: &Channel) -> bool {
        self.0.nodes.read().iter().any(|node| node.watched.read().contains(channel))
    }
}

/// A place in each node's lane of the channel. A lane that is gone belongs to a node that has shut down: it hears nothing,
/// and that is right.
async fn places<'a>(nodes: &'a [Arc<Node>], channel: &Channel) -> Vec<Permit<'a, Heard>> {
    let mut places = Vec::with_capacity(nodes.len());
    for node in nodes {
        places.extend(node.lanes.lane(channel).reserve().await);
    }
    places
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.bus.0.nodes.write().retain(|node| !Arc::ptr_eq(node, &self.node));
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        async move {
            let _turn = self.bus.turn(&draft.channel).await;
            let watching = self.bus.watching(&draft.channel);
            let places = places(&watching, &draft.channel).await;
            let mut streams = self.bus.streams(&draft.channel);
            let publication = match draft.retention {
                None => Arc::new(Publication::new(draft, None)),
                Some(retention) => {
                    match streams.append(draft, retention, |channel| self.bus.is_watched(channel)) {
                        Appended::New(publication) => publication,
                        Appended::Repeated(position) => return Ok(Some(position)),
                    }
                }
            };
            // All places or none: a publisher that gives up half-way has reached nobody.
            for place in places {
                place.send(Heard::Publication(publication.clone()));
            }
            Ok(publication.position)
        }
        .boxed()
    }

    fn history(&self, channel: &Channel, query: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        let page = self.bus.streams(channel).read(channel, query);
        ready(Ok(page)).boxed()
    }

    fn positions(&self, channels: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        let positions = channels.iter().map(|channel| Ok(self.bus.streams(channel).position(channel)));
        ready(positions.collect()).boxed()
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        let channel = channel.clone();
        async move {
            let _turn = self.bus.turn(&channel).await;
            let watching = self.bus.watching(&channel);
            let places = places(&watching, &channel).await;
            self.bus.streams(&channel).remove(&channel);
            for place in places {
                place.send(Heard::Removal(Box::new(channel.clone())));
            }
            Ok(())
        }
        .boxed()
    }

    fn losses(&self) -> u64 {
        0
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
