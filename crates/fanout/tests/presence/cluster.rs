//! Several nodes in one process, and clients that listen.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use fanfare_fanout::broker::memory::{Bus, MemoryBroker};
use fanfare_fanout::broker::redis::{RedisBroker, RedisMode, RedisOptions};
use fanfare_fanout::broker::{Broker, LaneEnds, Lanes};
use fanfare_fanout::presence::memory::MemoryPresence;
use fanfare_fanout::presence::redis::RedisPresence;
use fanfare_fanout::presence::{Desk, Listening, Presence, PresenceOptions, Wants};
use fanfare_fanout::{Batch, Outbox};
use fanfare_metrics::Metrics;
use fanfare_protocol::event::{Crowd, Event, Member, Reply};
use fanfare_protocol::{Channel, Encoding, SessionId, UserId};
use fanfare_testbed::{PATIENCE, RedisCluster, RedisSentinels, RedisServer, eventually};
use futures_util::task::noop_waker_ref;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::debts::Ledger;
use super::faults::{Fault, Faulty};

/// So long that a machine which stalls for a second takes nobody for dead.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(3);
pub(crate) const GRACE: Duration = Duration::from_millis(1200);

pub(crate) struct Cluster {
    ground: Ground,
    pub(crate) grace: Duration,
    /// What a backend is to be told of channels.
    pub(crate) wanted: Wants,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

enum Ground {
    Memory(Bus),
    Redis(Vec<RedisServer>),
    Sentinels(Box<RedisSentinels>),
    Shards(Box<RedisCluster>),
}

pub(crate) struct Node {
    pub(crate) desk: Arc<Desk>,
    pub(crate) book: Arc<Faulty>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ledger: Arc<Ledger>,
    _broker: Arc<dyn Broker>,
    _lanes: LaneEnds,
}

/// A client that is told how many there are.
pub(crate) struct Counter(Arc<Outbox>);

/// A client that wants to be told who joins and leaves.
pub(crate) struct Listener {
    outbox: Arc<Outbox>,
    frames: VecDeque<String>,
}

impl Cluster {
    pub(crate) fn in_memory() -> Self {
        Self::on(Ground::Memory(Bus::default()))
    }

    pub(crate) async fn on_redis() -> Self {
        Self::on(Ground::Redis(vec![RedisServer::start().await]))
    }

    /// On several servers, each with its share of the channels.
    pub(crate) async fn on_shards() -> Self {
        let servers = [RedisServer::start().await, RedisServer::start().await, RedisServer::start().await];
        Self::on(Ground::Redis(servers.into()))
    }

    pub(crate) async fn on_durable_redis() -> Self {
        Self::on(Ground::Redis(vec![RedisServer::start_durable().await]))
    }

    /// On a primary with a replica that can take over.
    pub(crate) async fn on_sentinels() -> Self {
        let servers = RedisSentinels::start().await;
        servers.are_ready().await;
        Self::on(Ground::Sentinels(Box::new(servers)))
    }

    /// On a Redis Cluster of three shards.
    pub(crate) async fn on_slots() -> Self {
        Self::on(Ground::Shards(Box::new(RedisCluster::start_without_replicas().await)))
    }

    /// The same with replicas that can take over.
    pub(crate) async fn on_slots_with_replicas() -> Self {
        Self::on(Ground::Shards(Box::new(RedisCluster::start().await)))
    }

    fn on(ground: Ground) -> Self {
        Self {
            ground,
            grace: GRACE,
            wanted: Wants::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }
    }

    pub(crate) fn redis(&mut self) -> &mut RedisServer {
        match &mut self.ground {
            Ground::Redis(servers) => &mut servers[0],
            _ => panic!("there is no redis of its own here"),
        }
    }

    pub(crate) fn sentinels(&mut self) -> &mut RedisSentinels {
        match &mut self.ground {
            Ground::Sentinels(servers) => servers,
            _ => panic!("there are no sentinels here"),
        }
    }

    pub(crate) fn shards(&mut self) -> &mut RedisCluster {
        match &mut self.ground {
            Ground::Shards(servers) => servers,
            _ => panic!("there is no redis cluster here"),
        }
    }

    /// Where the book is, unless it is in memory.
    fn place(&self) -> Option<(RedisMode, Vec<String>)> {
        match &self.ground {
            Ground::Memory(_) => None,
            Ground::Redis(servers) => {
                let mode = if servers.len() == 1 { RedisMode::Single } else { RedisMode::Sharded };
                Some((mode, servers.iter().map(RedisServer::url).collect()))
            }
            Ground::Sentinels(servers) => {
                Some((RedisMode::Sentinel { primary: servers.name().to_owned() }, servers.urls()))
            }
            Ground::Shards(servers) => Some((RedisMode::Cluster, servers.urls())),
        }
    }

    /// A node that watches the [`channel`].
    pub(crate) async fn node(&self, name: &str) -> Node {
        let metrics = Arc::new(Metrics::new());
        let (lanes, mut ends) = Lanes::new(2, 64);
        let ledger = Ledger::new(self.wanted.clone());
        let (broker, book): (Arc<dyn Broker>, Arc<dyn Presence>) = match &self.ground {
            Ground::Memory(bus) => {
                let book = MemoryPresence::new(bus).telling(ledger.clone());
                (Arc::new(MemoryBroker::new(bus, lanes)), Arc::new(book))
            }
            Ground::Redis(_) | Ground::Sentinels(_) | Ground::Shards(_) => {
                let (mode, urls) = self.place().unwrap();
                let options = options(mode, urls, name);
                let (tasks, shutdown) = (&self.tasks, self.shutdown.child_token());
                let broker = RedisBroker::connect(&options, &lanes, metrics.clone(), tasks, shutdown);
                let broker = broker.unwrap();
                let book = RedisPresence::beside(&broker).telling(ledger.clone());
                (Arc::new(broker), Arc::new(book))
            }
        };
        eventually("the channel is watched", async || broker.watch(&channel()).await.is_ok()).await;
        let book = Faulty::new(book);
        let options = PresenceOptions {
            node: name.into(),
            heartbeat: HEARTBEAT,
            grace: self.grace,
            timeout: Duration::from_secs(10),
        };
        let notices = ends.notices().unwrap();
        let desk = Desk::start(book.clone(), notices, metrics.clone(), &self.tasks, options);
        Node { desk, book, metrics, ledger, _broker: broker, _lanes: ends }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Node {
    pub(crate) fn enter(&self, user: &str, session: u128) {
        self.desk.enter(&channel(), member(user, session), Listening::None);
    }

    /// On another channel than the one that all listen to.
    pub(crate) fn enter_on(&self, channel: &Channel, user: &str, session: u128) {
        self.desk.enter(channel, member(user, session), Listening::None);
    }

    /// Users and connections there, unless the book is away.
    pub(crate) async fn try_counts_on(&self, channel: &Channel) -> Option<(u64, u64)> {
        let crowd = self.desk.crowd(channel, false).await.ok()?;
        Some((crowd.users, crowd.connections))
    }

    pub(crate) fn leave(&self, session: u128) {
        self.desk.leave(&channel(), id(session));
    }

    /// Enters, and is told of others from now on.
    pub(crate) fn listen(&self, user: &str, session: u128) -> Listener {
        let outbox = Outbox::new(id(session), Encoding::NativeJson, 64 * 1024 * 1024);
        self.desk.enter(&channel(), member(user, session), Listening::Turns(&outbox));
        Listener { outbox, frames: VecDeque::new() }
    }

    /// Enters, and is told from now on how many there are.
    pub(crate) fn count(&self, user: &str, session: u128) -> Counter {
        let counted = Reply::unasked(Event::Counted { channel: channel(), connections: 1 });
        let speaks = |encoding: &Encoding| encoding.dialect().encode(&counted).is_some();
        let encoding = Encoding::ALL.into_iter().find(speaks).unwrap();
        let outbox = Outbox::new(id(session), encoding, 64 * 1024 * 1024);
        self.desk.enter(&channel(), member(user, session), Listening::Count(&outbox));
        Counter(outbox)
    }

    pub(crate) async fn crowd(&self) -> Arc<Crowd> {
        self.desk.crowd(&channel(), true).await.unwrap()
    }

    /// Users and connections.
    pub(crate) async fn counts(&self) -> (u64, u64) {
        let crowd = self.desk.crowd(&channel(), false).await.unwrap();
        assert_eq!(crowd.members, None);
        (crowd.users, crowd.connections)
    }

    pub(crate) async fn becomes(&self, counts: (u64, u64)) {
        eventually(format!("{counts:?} are there"), async || {
            let crowd = self.desk.crowd(&channel(), false).await;
            crowd.is_ok_and(|crowd| (crowd.users, crowd.connections) == counts)
        })
        .await;
    }

    /// As users and the last digits of sessions, sorted.
    pub(crate) async fn names(&self) -> Vec<String> {
        self.try_names().await.unwrap()
    }

    /// The same of a book that may be away.
    pub(crate) async fn try_names(&self) -> Option<Vec<String>> {
        let crowd = self.desk.crowd(&channel(), true).await.ok()?;
        let mut names: Vec<_> = crowd.members.as_ref().unwrap().iter().map(name).collect();
        names.sort();
        Some(names)
    }

    pub(crate) fn freeze(&self) {
        self.book.set(Fault::Frozen);
    }

    pub(crate) fn crash(self) {
        drop(self);
    }

    pub(crate) async fn close(self) {
        self.desk.close().await;
    }
}

impl Counter {
    /// The numbers that it is told until this one comes.
    pub(crate) async fn hears(&self, number: u64) -> Vec<u64> {
        let mut heard = Vec::new();
        eventually(format!("{number} is told"), async || {
            let mut batch = Batch::default();
            while self.0.poll_take(&Context::from_waker(noop_waker_ref()), &mut batch).is_ready() {
                heard.extend(batch.frames.iter().map(|frame| last_number(frame)));
                batch = Batch::default();
            }
            heard.last() == Some(&number)
        })
        .await;
        heard
    }
}

fn last_number(frame: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(frame);
    let digits = text.rsplit(|it: char| !it.is_ascii_digit()).find(|it| !it.is_empty());
    digits.unwrap().parse().unwrap()
}

impl Listener {
    /// What it was told since it was last asked, as `joined bob/7`.
    pub(crate) fn heard(&mut self) -> Vec<String> {
        let mut batch = Batch::default();
        while self.outbox.poll_take(&Context::from_waker(noop_waker_ref()), &mut batch).is_ready() {
            self.frames.extend(batch.frames.iter().map(|frame| read(frame)));
            batch = Batch::default();
        }
        self.frames.drain(..).collect()
    }

    /// Waits until it has been told exactly so much.
    pub(crate) async fn hears(&mut self, expected: &[&str]) {
        assert_eq!(self.hears_so_much(expected.len()).await, expected);
    }

    /// The same where two nodes tell, which do not wait for each other.
    pub(crate) async fn hears_in_any_order(&mut self, expected: &[&str]) {
        let mut heard = self.hears_so_much(expected.len()).await;
        heard.sort();
        assert_eq!(heard, expected);
    }

    /// What it is told until it is that much or nothing more comes.
    async fn hears_so_much(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while heard.len() < count && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
            heard.extend(self.heard());
        }
        heard
    }
}

/// An unmasked text frame as `joined bob/7`.
fn read(frame: &[u8]) -> String {
    let text = &frame[frame.iter().position(|byte| *byte == b'{').unwrap()..];
    let event: serde_json::Value = serde_json::from_slice(text).unwrap();
    assert_eq!(event["channel"], "room:1");
    let (kind, member) = (event["type"].as_str().unwrap(), &event["member"]);
    let session = u128::from_str_radix(member["session"].as_str().unwrap(), 16).unwrap();
    format!("{kind} {}/{session}", member["user"].as_str().unwrap_or("anonymous"))
}

fn name(member: &Member) -> String {
    let user = member.user.as_ref().map_or("anonymous", |user| user.as_str());
    format!("{user}/{}", u128::from_be_bytes(member.session.to_bytes()))
}

pub(crate) fn options(mode: RedisMode, urls: Vec<String>, node: &str) -> RedisOptions {
    RedisOptions {
        mode,
        urls,
        tls: None,
        prefix: "test".into(),
        timeout: Duration::from_secs(5),
        ping_interval: Duration::from_secs(1),
        node: node.into(),
    }
}

pub(crate) fn channel() -> Channel {
    Channel::parse("room:1").unwrap()
}

pub(crate) fn id(session: u128) -> SessionId {
    SessionId::from_random(session.to_be_bytes())
}

/// Nobody's name is that of an anonymous client.
pub(crate) fn member(user: &str, session: u128) -> Member {
    let user = (!user.is_empty()).then(|| UserId::new(user));
    Member { user, session: id(session), profile: None, note: None }
}
