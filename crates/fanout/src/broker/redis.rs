//! The broker of a cluster: Redis.
//!
//! ```text
//!             ┌ publish ─► queue ─► pipelines ──► PUBLISH, or the script that appends and publishes
//!  Broker ────┼ history ─► queue ─► pipelines ──► scripts that read      │
//!             └ watch ───► ledger ─► SUBSCRIBE in batches                ▼
//!  Lanes ◄──────────────── reads the socket ◄──────────────── one push per publication
//! ```
//!
//! A server gets three connections, so that neither a burst of publications, nor what is heard, nor a page of history
//! ever delays the others. Each belongs to a task that keeps it: connects, serves, and when it is lost connects again, for ever, with jittered
//! waits. A PING with a deadline notices a server that has gone silent. [`link`] says when all are up; a call fails only
//! for want of the connection that it needs.
//!
//! - [`publish`] and [`history`] say what to do, [`scripts`] what Redis does by itself in one step. Both use a [`pipe`]:
//!   the `redis` crate's multiplexed connection behind a bounded queue.
//! - [`watch`] reads its socket itself ([`resp`] says why), straight from the buffer into the lanes.
//! - [`mod@line`] is a connection for what may wait and must not make publications wait: presence.
//! - [`fleet`] has the connections to all servers, and follows when channels move from one to another.
//! - [`envelope`] is what a publication looks like on its way, [`keys`] under which name, [`route`] on which server.
//!
//! **Where memory is bounded.** Outgoing: 16,384 commands wait in a pipe and a few pipelines are under way, 64 MiB in all;
//! beyond that callers hear [`BrokerError::Busy`]. Incoming: one buffer, which grows beyond 64 KiB only for a single longer
//! publication of at most 16 MiB, then the lanes. A full lane stops the reading, TCP makes Redis keep the rest, and
//! Redis keeps as much as its `client-output-buffer-limit pubsub` says (32 MiB by default), then cuts the connection:
//! that is a loss like any other, after which everything watched is heard again. Publications missed in between are
//! in the stream, or lost on a channel without history: there delivery is at most once. [`Broker::losses`] says that it
//! is time to look.
//!
//! **Epochs.** A stream's epoch belongs to one life of the server, as `scripts/epoch.lua` tells: replication and disks
//! may lose the newest publications, and an offset must never name two. After a failover to a replica the stream is still
//! there and goes on under another epoch. Its older entries keep the positions under which they were placed, so one that
//! stands at a known position proves that nothing before it has been lost.
//!
//! **Several servers.** [`RedisMode::Sentinel`] knows one at a time, the primary of the moment. [`RedisMode::Sharded`] spreads
//! channels over servers that know nothing of each other, [`RedisMode::Cluster`] over the shards of a Redis Cluster, where
//! [`pubsub`] has other words; every server has connections of its own. The link is up when it is up to all of them. While one is
//! away, calls for its channels fail, and the other channels go on.
//!
//! **TLS.** `rediss:` in the URLs has every connection go over it, to servers that are named by others as well. A certificate is
//! always checked, for the name or the address that the server was found under.
//!
//! [`servers`] takes who is no broker to a server in the same way.

mod backoff;
mod envelope;
mod fleet;
mod history;
pub(crate) mod keys;
pub(crate) mod line;
mod link;
mod pipe;
mod publish;
mod pubsub;
mod resp;
mod route;
mod scripts;
mod server;
mod servers;
mod watch;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_metrics::Metrics;
use fanfare_protocol::Channel;
use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Position};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerError, Lanes, Link};
use fleet::Connection::{Read, Watch};
use fleet::Fleet;
use keys::Keys;
use line::Switchboard;
use link::Board;
use pipe::PIPELINE_MAX;
use pubsub::Pubsub;
use route::{Layout, Map, PlaceId, Topology};
pub use servers::{RedisLine, RedisServers, RedisWay};

/// How the servers are arranged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Single,
    /// A primary and its replicas, watched by the Sentinels that the URLs name.
    Sentinel {
        /// What the Sentinels call the primary.
        primary: String,
    },
    /// The nodes of a Redis Cluster; the URLs name some of them.
    Cluster,
    /// Several that know nothing of each other; each has its share of the channels. All nodes name them in the same order,
    /// and new ones come last.
    Sharded,
}

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// How the servers are arranged.
    pub mode: RedisMode,
    /// `redis://[user][:password@]host[:port][/database]`, or `rediss://…` over TLS, as many as the mode takes. Never printed:
    /// they may hold passwords.
    pub urls: Vec<String>,
    /// Whom to believe over TLS. `None` where no URL says `rediss://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// What all keys start with, 1 to 64 bytes of printable ASCII without braces: clusters that share a Redis differ in it.
    pub prefix: String,
    /// The longest that Redis may take to answer anything, or to be connected to, before it counts as away.
    pub timeout: Duration,
    /// How long a connection may be idle before Redis is asked for a sign of life. A Redis that has gone silent is
    /// noticed within this and [`RedisOptions::timeout`] together.
    pub ping_interval: Duration,
    /// The node's name, as CLIENT LIST shows it.
    pub node: String,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("mode", &self.mode)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("ping_interval", &self.ping_interval)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisOptionsError {
    /// Not one URL.
    #[error("a single redis is named by exactly one URL, not by {urls}")]
    NotOneUrl {
        /// How many there are.
        urls: usize,
    },
    /// None at all.
    #[error("there is no URL of a redis")]
    NoUrl,
    /// A URL that does not lead to a Redis. The URL is not quoted: it may hold a password.
    #[error("a URL of redis reads redis://[user][:password@]host[:port][/database], or rediss://… over TLS")]
    Url,
    /// TLS, with nobody to believe.
    #[error("a URL of redis says rediss://, and no authority is trusted")]
    Trust,
    /// Some over TLS and some not.
    #[error("all URLs of redis begin with rediss://, or none does")]
    Mixed,
    /// A database, which Redis Cluster does not have.
    #[error("redis cluster has no databases: a URL of one ends with the port")]
    Database,
    /// A prefix that is empty, too long, not printable or has braces, which mean something to Redis Cluster.
    #[error("the prefix of keys is 1 to 64 bytes of printable ASCII without braces")]
    Prefix,
}

/// What the tasks of one broker have in common.
#[derive(Debug)]
struct Shared {
    keys: Keys,
    pubsub: Pubsub,
    timeout: Duration,
    ping_interval: Duration,
    node: String,
    topology: Arc<Topology>,
    /// The layout that calls are routed by, which follows that of the topology.
    layout: RwLock<Arc<Layout>>,
    /// What is watched or being watched, where channels may move while they are.
    wanted: Option<Mutex<HashSet<Channel>>>,
    /// How many channels all places together watch, or are about to.
    watched: Mutex<u64>,
    /// See [`Broker::losses`].
    losses: AtomicU64,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Shared {
    /// Reads the options, and has it followed where servers are until the token that is returned is cancelled.
    fn of(
        options: &RedisOptions,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Self>, CancellationToken), RedisOptionsError> {
        let Map { topology, guide } = Map::of(&options.mode, &options.urls, options.tls.as_ref())?;
        let keys = Keys::new(&options.prefix).ok_or(RedisOptionsError::Prefix)?;
        let following = shutdown.child_token();
        let shared = Arc::new(Self {
            keys,
            pubsub: if options.mode == RedisMode::Cluster { Pubsub::Shard } else { Pubsub::Plain },
            timeout: options.timeout,
            ping_interval: options.ping_interval,
            node: options.node.clone(),
            layout: RwLock::new(topology.layout()),
            wanted: topology.changes().is_some().then(Mutex::default),
            topology,
            watched: Mutex::default(),
            losses: AtomicU64::new(0),
            metrics,
            tasks: tasks.clone(),
            shutdown,
        });
        if let Some(guide) = guide {
            tasks.spawn(following.clone().run_until_cancelled_owned(guide.follow(shared.clone())));
        }
        Ok((shared, following))
    }

    fn layout(&self) -> Arc<Layout> {
        self.layout.read().clone()
    }

    fn set_layout(&self, layout: Arc<Layout>) {
        *self.layout.write() = layout;
    }

    /// Whether a channel's place is this one.
    fn is_at(&self, channel: &Channel, place: PlaceId) -> bool {
        self.layout.read().place(channel) == Some(place)
    }

    /// Whether a channel is still watched by somebody.
    fn is_wanted(&self, channel: &Channel) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.lock().contains(channel))
    }

    fn want(&self, channel: &Channel) {
        if let Some(wanted) = &self.wanted {
            wanted.lock().insert(channel.clone());
        }
    }

    fn want_no_more(&self, channel: &Channel) {
        if let Some(wanted) = &self.wanted {
            wanted.lock().remove(channel);
        }
    }

    /// What a connection is called in CLIENT LIST, where names are printable and without spaces.
    fn client_name(&self, purpose: &str) -> String {
        let node = self.node.chars().map(|it| if it.is_ascii_graphic() { it } else { '_' });
        format!("fanfare:{}:{purpose}", node.collect::<String>())
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub struct RedisBroker {
    board: Arc<Board>,
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    /// Ends the tasks that follow the servers.
    _following: DropGuard,
}

/// A channel that is wanted until it turns out that it is not watched after all.
struct Claim<'a> {
    shared: &'a Shared,
    channel: Option<&'a Channel>,
}

impl<'a> Claim<'a> {
    fn stake(shared: &'a Shared, channel: &'a Channel) -> Self {
        shared.want(channel);
        Self { shared, channel: Some(channel) }
    }

    fn keep(mut self) {
        self.channel = None;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel {
            self.shared.want_no_more(channel);
        }
    }
}

impl RedisBroker {
    /// Starts to connect; what is watched goes to `lanes`. Redis need not be there: until it is, the link is down. The
    /// tasks end when the broker is dropped or `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`RedisOptionsError`] for options that can never work.
    pub fn connect(
        options: &RedisOptions,
        lanes: &Lanes,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, RedisOptionsError> {
        let (shared, following) = Shared::of(options, metrics, tasks, shutdown)?;
        let board = Board::new(shared.metrics.clone());
        let layouts = shared.topology.changes();
        let fleet = Arc::new(Fleet::start(&shared, &board, lanes));
        if let Some(layouts) = layouts {
            tasks.spawn(following.clone().run_until_cancelled_owned(fleet.clone().follow(layouts)));
        }
        Ok(Self { board, shared, fleet, _following: following.drop_guard() })
    }

    /// A line to each server, wherever it is at the time.
    pub(crate) fn switchboard(&self) -> Switchboard {
        Switchboard::new(&self.shared, "presence")
    }
}

impl Broker for RedisBroker {
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        async move { self.fleet.place(&draft)?.placed().await }.boxed()
    }

    fn history(&self, channel: &Channel, query: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        let channel = channel.clone();
        async move {
            let (fleet, channel) = (&self.fleet, &channel);
            fleet.ask(channel, Read, async |ends| ends.reader.history(channel, query).await).await
        }
        .boxed()
    }

    fn positions(&self, channels: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        async move {
            let position =
                |channel| self.fleet.ask(channel, Read, async |ends| ends.reader.position(channel).await);
            let mut positions = Vec::with_capacity(channels.len());
            for channels in channels.chunks(PIPELINE_MAX) {
                positions.append(&mut join_all(channels.iter().map(position)).await);
            }
            positions
        }
        .boxed()
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        let channel = channel.clone();
        async move { self.fleet.ask(&channel, Read, async |ends| ends.reader.remove(&channel).await).await }
            .boxed()
    }

    fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Acquire)
    }

    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        let channel = channel.clone();
        async move {
            let claim = Claim::stake(&self.shared, &channel);
            self.fleet.ask(&channel, Watch, async |ends| ends.watcher.watch(channel.clone()).await).await?;
            claim.keep();
            Ok(())
        }
        .boxed()
    }

    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()> {
        let channel = channel.clone();
        async move {
            self.shared.want_no_more(&channel); // First: see the fleet's invariants.
            if let Ok(ends) = self.fleet.of(&channel) {
                ends.watcher.unwatch(channel).await;
            }
        }
        .boxed()
    }

    fn link(&self) -> Link {
        if self.board.is_up() { Link::Up } else { Link::Down }
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

#[cfg(test)]
pub(super) mod tests;
