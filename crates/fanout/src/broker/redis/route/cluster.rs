//! Where the shards of a Redis Cluster are, as its nodes have it.
//!
//! One task asks the nodes that it knows of, again and again, and at once (but not faster than every 100 ms) when a connection
//! was lost or a server said that something is not its business. It begins with the URLs and goes on with every node that
//! was named to it, so that one URL is enough and none needs to stay.
//!
//! **Whom to believe.** Nodes learn of a change one after the other, and one that was cut off does not learn of it. So in
//! each round the answers of several are laid together: for every slot the claim of the highest *configuration epoch* wins, which
//! is Redis Cluster's own rule. An answer does not count when its node finds the cluster incomplete (a primary that was cut off
//! does after the node timeout), nor when it knows of fewer elections than an answer that was taken before, unless it knows
//! nothing of the nodes that we know: then the cluster was replaced by another one.
//!
//! **Who is given up is nobody.** Of a primary that the majority has not heard for the node timeout every node says `fail`, and
//! while that stands a replica may take its place at any moment. One that wakes or comes back in between acknowledges what
//! its successor never gets. So a shard has no primary from the first such word, whoever says it, until another one has its slots or
//! nobody says so any more; those who say it may find the cluster incomplete. Where no replica is left to take over it
//! stays who it was.
//!
//! **Places.** A place is a shard, not a server: where the new primary of slots is a replica of the old one, the place stays and
//! its address changes, and connections follow as they do with Sentinels. Otherwise a primary that has slots is a new
//! place, and a place without slots is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Layout, Place, PlaceId, Route};
use crate::broker::redis::keys::SLOTS;
use crate::broker::redis::pipe::field;
use crate::broker::redis::server::{Access, Address, Server};
use crate::broker::redis::{RedisOptionsError, Shared};

/// The shortest time between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two rounds while a shard has no primary.
const LEADERLESS: Duration = Duration::from_millis(250);

/// How long the first answer waits for others.
const OTHERS: Duration = Duration::from_millis(200);

/// The most nodes that are asked in a round: far more than disagree with each other.
const ASKED_MAX: usize = 16;

/// The most nodes that are known; Redis Cluster is made for at most a thousand.
const NODES_MAX: usize = 1024;

/// The shards of a Redis Cluster.
#[derive(Debug)]
pub(in crate::broker::redis) struct Shards {
    seeds: Vec<Address>,
    access: Access,
    known: Known,
}

/// What has been learnt so far.
#[derive(Debug, Default)]
struct Known {
    /// Where nodes are, besides the seeds.
    nodes: BTreeSet<Address>,
    /// What they are called.
    ids: BTreeSet<String>,
    /// How many elections there have been.
    epoch: u64,
    shards: Vec<Shard>,
    /// Counts the places.
    places: u64,
}

/// A place.
#[derive(Debug)]
struct Shard {
    place: Place,
    /// Where the primary is.
    found: watch::Sender<Option<Address>>,
    primary: String,
    /// Who may take over.
    replicas: BTreeSet<String>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    epoch: u64,
    /// Whether it finds that every slot is served.
    is_complete: bool,
    nodes: Vec<Node>,
}

/// A node, as another one or itself describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    id: String,
    address: Option<Address>,
    /// The primary that it follows, if it does.
    follows: Option<String>,
    /// Whether it has been given up: a majority of the primaries does not reach it.
    has_failed: bool,
    /// The epoch of its claim to its slots.
    epoch: u64,
    slots: Vec<RangeInclusive<usize>>,
}

impl Shards {
    /// The cluster that these nodes belong to. All of them take the credentials in the first URL.
    pub(super) fn new(servers: &[Server]) -> Result<Self, RedisOptionsError> {
        let access = servers.first().ok_or(RedisOptionsError::NoUrl)?.access().clone();
        if servers.iter().any(|server| server.settings().db() != 0) {
            return Err(RedisOptionsError::Database);
        }
        let seeds = servers.iter().filter_map(Server::address).collect();
        Ok(Self { seeds, access, known: Known::default() })
    }

    /// Asks for ever.
    pub(super) async fn follow(mut self, shared: Arc<Shared>) {
        loop {
            let mut nodes: Vec<_> = self.known.nodes.iter().chain(&self.seeds).cloned().collect();
            nodes.sort_unstable();
            nodes.dedup();
            fastrand::shuffle(&mut nodes);
            nodes.truncate(ASKED_MAX);
            let words = self.ask_all(nodes, &shared).await;
            if let Some(layout) = self.known.learn(words, &self.access) {
                shared.topology.change(layout);
            }
            sleep(PAUSE).await;
            let longest = if self.known.is_led() { shared.ping_interval } else { LEADERLESS };
            let _ = timeout(longest, shared.topology.nudged()).await;
        }
    }

    /// What nodes say, without waiting for those that say nothing while others do.
    async fn ask_all(&self, nodes: Vec<Address>, shared: &Shared) -> Vec<Word> {
        let asked: FuturesUnordered<_> = nodes.into_iter().map(|node| self.ask(node, shared)).collect();
        let mut asked = asked.filter_map(async |word| word).boxed();
        let mut words = Vec::from_iter(asked.next().await);
        let others = async {
            while let Some(word) = asked.next().await {
                words.push(word);
            }
        };
        let _ = timeout(OTHERS, others).await; // Whoever has not answered by then is slow or dead.
        words
    }

    async fn ask(&self, address: Address, shared: &Shared) -> Option<Word> {
        let mut questions = Pipeline::with_capacity(2);
        questions.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("NODES");
        let server = Server::at(address.clone(), self.access.clone());
        let settings = self.access.settings();
        let mut answers = server.ask_once(settings, &questions, shared.timeout).await.ok()?.into_iter();
        let mut text = || redis::from_redis_value::<String>(answers.next().unwrap_or(Value::Nil)).ok();
        Word::read(&text()?, &text()?, &address)
    }
}

impl Known {
    /// Lays together what was said in a round. `None` when nothing of it counts.
    fn learn(&mut self, mut words: Vec<Word>, access: &Access) -> Option<Layout> {
        let is_of_ours = |word: &Word| word.nodes.iter().any(|node| self.ids.contains(&node.id));
        if words.iter().any(is_of_ours) {
            words.retain(|word| word.epoch >= self.epoch && is_of_ours(word));
        }
        let said = words.iter().flat_map(|word| &word.nodes);
        let failed: BTreeSet<_> = said.filter(|node| node.has_failed).map(|node| node.id.clone()).collect();
        words.retain(|word| word.is_complete);
        if words.is_empty() {
            self.shards
                .iter()
                .filter(|shard| shard.is_given_up(&failed))
                .for_each(|shard| shard.is_led_by(None));
            return None;
        }
        self.epoch = words.iter().map(|word| word.epoch).max()?;
        // A node's own description and others': the one with the latest claim is the latest.
        let mut nodes: BTreeMap<&str, &Node> = BTreeMap::new();
        let mut owners: Vec<Option<&Node>> = vec![None; SLOTS];
        for node in words.iter().flat_map(|word| &word.nodes) {
            let latest = nodes.entry(&node.id).or_insert(node);
            if node.epoch > latest.epoch {
                *latest = node;
            }
            for range in &node.slots {
                for owner in &mut owners[range.clone()] {
                    if owner.is_none_or(|other| other.epoch < node.epoch) {
                        *owner = Some(node);
                    }
                }
            }
        }
        self.ids = nodes.keys().map(|&id| id.to_owned()).take(NODES_MAX).collect();
        self.nodes = nodes.values().filter_map(|node| node.address.clone()).take(NODES_MAX).collect();
        let mut primaries: BTreeMap<&str, &Node> = BTreeMap::new();
        for owner in owners.iter().flatten() {
            primaries.entry(&owner.id).or_insert(owner);
        }
        self.settle(&primaries, &nodes, &failed, access);
        let at = |owner: &Node| self.shards.iter().position(|shard| shard.primary == owner.id);
        let at = |owner: &Node| at(owner).and_then(|at| u16::try_from(at).ok());
        let at: BTreeMap<&str, Option<u16>> = primaries.iter().map(|(id, node)| (*id, at(node))).collect();
        let slots = owners.iter().map(|owner| at[owner.as_ref()?.id.as_str()]);
        let places = self.shards.iter().map(|shard| shard.place.clone()).collect();
        Some(Layout { route: Route::Slots(slots.collect()), places })
    }

    /// Whether every shard has a primary.
    fn is_led(&self) -> bool {
        self.shards.iter().all(|shard| shard.found.borrow().is_some())
    }

    /// Makes the places those of these primaries.
    fn settle(
        &mut self,
        primaries: &BTreeMap<&str, &Node>,
        nodes: &BTreeMap<&str, &Node>,
        failed: &BTreeSet<String>,
        access: &Access,
    ) {
        let mut before = std::mem::take(&mut self.shards);
        for (&id, node) in primaries {
            let Some(address) = &node.address else { continue };
            let same = before.iter().position(|shard| shard.primary == id).or_else(|| {
                let deposed = |shard: &Shard| !primaries.contains_key(shard.primary.as_str());
                before.iter().position(|shard| deposed(shard) && shard.replicas.contains(id))
            });
            let mut shard = match same {
                Some(at) => before.swap_remove(at),
                None => {
                    let (found, address_now) = watch::channel(None);
                    let server = Server::elected(&address.to_string(), address_now, access.clone());
                    self.places += 1;
                    let place = Place { id: PlaceId(self.places), server };
                    Shard { place, found, primary: String::new(), replicas: BTreeSet::new() }
                }
            };
            id.clone_into(&mut shard.primary);
            let replicas = nodes.values().filter(|node| node.follows.as_deref() == Some(id));
            shard.replicas = replicas.map(|node| node.id.clone()).collect();
            shard.is_led_by((!shard.is_given_up(failed)).then_some(address));
            self.shards.push(shard);
        }
        self.shards.sort_unstable_by_key(|shard| shard.place.id);
    }
}

impl Shard {
    /// Whether its primary is among those given up, and there is one to replace it.
    fn is_given_up(&self, failed: &BTreeSet<String>) -> bool {
        failed.contains(&self.primary) && !self.replicas.is_subset(failed)
    }

    /// Leads connections to this address, or nowhere.
    fn is_led_by(&self, address: Option<&Address>) {
        self.found.send_if_modified(|found| {
            let is_new = found.as_ref() != address;
            *found = address.cloned();
            is_new
        });
    }
}

impl Word {
    /// What the node at `address` says to CLUSTER INFO and CLUSTER NODES. `None` for what is not understood.
    fn read(facts: &str, nodes: &str, address: &Address) -> Option<Self> {
        let is_complete = field(facts, "cluster_state")? == "ok";
        let epoch = field(facts, "cluster_current_epoch")?.parse().ok()?;
        let nodes = nodes.lines().filter_map(|line| Node::read(line, address)).collect();
        Some(Self { epoch, is_complete, nodes })
    }
}

impl Node {
    /// `<id> <host:port@bus[,name]> <flags> <primary> <pinged> <ponged> <epoch> <link> <slots>…`, as the node at `from` says it.
    fn read(line: &str, from: &Address) -> Option<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next();
        let (id, address, flags, follows) = (word()?, word()?, word()?, word()?);
        let epoch = words.nth(2)?.parse().ok()?;
        let flags: Vec<_> = flags.split(',').collect();
        if flags.contains(&"handshake") {
            return None; // Its id is not its own yet.
        }
        // A moving slot is written once more in brackets: it is still its owner's.
        let slots = words.skip(1).filter(|range| !range.starts_with('[')).filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse().ok()?, last.parse::<usize>().ok()?);
            (last < SLOTS).then_some(first..=last)
        });
        let (host, port) = address.split('@').next()?.rsplit_once(':')?;
        let host = if host.is_empty() && flags.contains(&"myself") { &from.host } else { host };
        let port = port.parse().ok().filter(|&port| port != 0);
        let is_somewhere = !host.is_empty() && !flags.contains(&"noaddr");
        let address = port.filter(|_| is_somewhere).map(|port| Address { host: host.to_owned(), port });
        let follows = (follows != "-").then(|| follows.to_owned());
        let has_failed = flags.contains(&"fail");
        Some(Self { id: id.to_owned(), address, follows, has_failed, epoch, slots: slots.collect() })
    }
}

#[cfg(test)]
mod tests;
