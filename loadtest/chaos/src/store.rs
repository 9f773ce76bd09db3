//! Redis as the nodes have it: one server, a primary that Sentinels name, or a Redis Cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fanfare_testbed::{RedisCluster, RedisSentinels, RedisServer, SHARDS};
use redis::cmd;
use tokio::time::{Instant, sleep};

use crate::args::Topology;
use crate::fault::Kind;
use crate::link::Link;

/// How long Sentinels may take to put things in order.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(100);

/// How soon a node that is cut off loses the connections that it has made anew.
const AGAIN: Duration = Duration::from_millis(50);

/// The servers.
#[derive(Debug)]
pub(crate) enum Store {
    /// One, that keeps its data when it is killed.
    Single(Box<RedisServer>),
    /// A primary, its two replicas, and who decides which is which.
    Sentinels(Box<RedisSentinels>),
    /// Three shards with a replica each.
    Cluster(Box<RedisCluster>),
}

impl Store {
    /// Starts the servers.
    pub(crate) async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Single => Self::Single(Box::new(RedisServer::start_durable().await)),
            Topology::Cluster => Self::Cluster(Box::new(RedisCluster::start().await)),
            Topology::Sentinel => {
                let servers = RedisSentinels::start_careful().await;
                servers.are_ready().await;
                Self::Sentinels(Box::new(servers))
            }
        }
    }

    /// Where links lead to; none where the servers tell their addresses themselves.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Single(server) => Some((Ipv4Addr::LOCALHOST, server.port()).into()),
            Self::Sentinels(_) | Self::Cluster(_) => None,
        }
    }

    /// What a node is told, with its own link where it has one.
    pub(crate) fn settings(&self, link: Option<&Link>) -> Vec<String> {
        match self {
            Self::Single(server) => {
                let url = link.map_or_else(|| server.url(), |link| format!("redis://{}", link.address()));
                vec![format!("redis.urls={url}")]
            }
            Self::Sentinels(servers) => vec![
                "redis.mode=sentinel".into(),
                format!("redis.urls={}", servers.urls().join(",")),
                format!("redis.primary={}", servers.name()),
            ],
            Self::Cluster(servers) => {
                vec!["redis.mode=cluster".into(), format!("redis.urls={}", servers.urls().join(","))]
            }
        }
    }

    /// Does to the servers what a fault says, and undoes it. Where there are shards, it is done to one. The servers may be
    /// busy with it for a while: see [`Store::settle`].
    pub(crate) async fn disturb(&mut self, kind: Kind, shard: usize, holds: Duration) {
        match (kind, &mut *self) {
            (Kind::RedisFailover, Self::Sentinels(servers)) => servers.fail_over().await,
            (Kind::RedisFailover, Self::Cluster(servers)) => servers.fail_over_in_order(shard).await,
            (Kind::RedisMoveSlot, Self::Cluster(servers)) => move_slot(servers, shard).await,
            (Kind::RedisRestart, Self::Cluster(servers)) => {
                let killed = servers.fail_over(shard).await;
                sleep(holds).await;
                servers.servers_mut()[killed].start_again().await;
            }
            (Kind::RedisKillPubsub, Self::Cluster(servers)) => {
                for server in servers.servers() {
                    server.kill_pubsub().await;
                }
            }
            (Kind::RedisRestart | Kind::RedisWipe, _) => self.restart(kind, holds).await,
            _ => disturb(self.primary_of(shard).await, kind, holds).await,
        }
    }

    /// Waits until the servers have come to terms with what was done to them, and can bear the next fault.
    pub(crate) async fn settle(&self) {
        match self {
            Self::Sentinels(servers) => settle(servers).await,
            Self::Cluster(servers) => servers.is_ready().await,
            Self::Single(_) => return,
        }
        self.is_copied().await;
    }

    /// Waits until every replica has what its primary had written. One that has just been given everything counts as online, and
    /// gets nothing more for up to a second.
    async fn is_copied(&self) {
        for server in self.servers() {
            let replication =
                async || -> Option<String> { server.try_query(cmd("INFO").arg("replication")).await };
            let Some(begun) = replication().await else { continue };
            let written = number(&begun, "master_repl_offset:");
            let deadline = Instant::now() + SETTLED_WITHIN;
            loop {
                let now = replication().await.unwrap_or_default();
                let copied = now.lines().filter(|line| line.starts_with("slave") && line.contains("offset="));
                if copied.into_iter().all(|line| number(line, "offset=") >= written) {
                    break;
                }
                assert!(Instant::now() < deadline, "a replica gets nothing: {now}");
                sleep(LOOK).await;
            }
        }
    }

    /// Ends every connection of a node, and each that it makes anew meanwhile: where servers tell their addresses themselves
    /// there is no link to cut.
    pub(crate) async fn cut_off(&self, node: &str, holds: Duration) {
        let name = format!(" name=fanfare:{node}:");
        let deadline = Instant::now() + holds;
        while Instant::now() < deadline {
            for server in self.servers().iter().filter(|server| server.is_running()) {
                let clients: Option<String> = server.try_query(cmd("CLIENT").arg("LIST")).await;
                for client in clients.as_deref().unwrap_or_default().lines().filter(|it| it.contains(&name)) {
                    let id = client.strip_prefix("id=").and_then(|it| it.split(' ').next());
                    let kill = cmd("CLIENT").arg("KILL").arg("ID").arg(id).to_owned();
                    let _: Option<u64> = server.try_query(&kill).await;
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn restart(&mut self, kind: Kind, holds: Duration) {
        let port = self.primary().await.port();
        self.server_mut(port).stop().await;
        if kind == Kind::RedisWipe {
            self.server_mut(port).forget();
        }
        if let Self::Sentinels(servers) = self {
            servers.has_moved_from(port).await;
        }
        sleep(holds).await;
        self.server_mut(port).start_again().await;
    }

    /// What the servers have written to their logs.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Single(server) => server.log(),
            Self::Sentinels(servers) => {
                servers.servers().iter().chain(servers.sentinels()).map(RedisServer::log).collect()
            }
            Self::Cluster(servers) => servers.servers().iter().map(RedisServer::log).collect(),
        }
    }

    /// The server that takes writes; where there are several, that of the first shard.
    pub(crate) async fn primary(&self) -> &RedisServer {
        self.primary_of(0).await
    }

    fn servers(&self) -> &[RedisServer] {
        match self {
            Self::Single(server) => std::slice::from_ref(server),
            Self::Sentinels(servers) => servers.servers(),
            Self::Cluster(servers) => servers.servers(),
        }
    }

    async fn primary_of(&self, shard: usize) -> &RedisServer {
        match self {
            Self::Cluster(servers) => {
                &servers.servers()[servers.owner(RedisCluster::first_slot(shard)).await]
            }
            Self::Single(server) => server,
            Self::Sentinels(servers) => {
                let ask = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(servers.name()).to_owned();
                let (_, port): (String, u16) = servers.sentinels()[0].query(&ask).await;
                let primary = servers.servers().iter().find(|server| server.port() == port);
                primary.expect("the sentinels know no other servers")
            }
        }
    }

    fn server_mut(&mut self, port: u16) -> &mut RedisServer {
        match self {
            Self::Single(server) => server,
            Self::Cluster(_) => unreachable!("a server of a cluster is restarted by its shard"),
            Self::Sentinels(servers) => {
                let server = servers.servers_mut().iter_mut().find(|server| server.port() == port);
                server.expect("a port of one of the servers")
            }
        }
    }
}

/// The number after a name in what INFO says; 0 where there is none.
fn number(info: &str, name: &str) -> u64 {
    let digits = info.split_once(name).map_or("", |(_, rest)| rest);
    digits.split(|it: char| !it.is_ascii_digit()).next().and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// Moves the slot of a channel that is published on to another shard.
async fn move_slot(servers: &RedisCluster, channel: usize) {
    let ask = cmd("CLUSTER").arg("KEYSLOT").arg(format!("{{kept:{channel}}}")).to_owned();
    let slot: usize = servers.servers()[0].query(&ask).await;
    let from = servers.owner(slot).await;
    for shard in (channel..).map(|it| it % SHARDS).take(SHARDS) {
        let to = servers.owner(RedisCluster::first_slot(shard)).await;
        if to != from {
            return servers.move_slot(slot, to).await;
        }
    }
}

/// Waits until a failover can succeed again, as the next fault may take one. A primary that was replaced while it was
/// silent is made a replica only after Sentinels have looked at it for a while, so this may take half a minute.
///
/// # Panics
/// When it takes longer than [`SETTLED_WITHIN`].
async fn settle(servers: &RedisSentinels) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let mut sections: Vec<String> = Vec::new();
        for server in servers.servers() {
            // Sentinels end all connections to a server that they tell whom to follow.
            sections.extend(server.try_query(cmd("INFO").arg("replication")).await);
        }
        let following = sections.iter().filter(|section| section.contains("master_link_status:up")).count();
        let leads = sections.iter().any(|section| section.contains("state=online"));
        if following + 1 == servers.servers().len() && leads && servers.are_ready_now().await {
            return;
        }
        assert!(Instant::now() < deadline, "a replica does not come back: {sections:?}");
        sleep(LOOK).await;
    }
}

/// Those faults that leave the server running.
async fn disturb(server: &RedisServer, kind: Kind, holds: Duration) {
    match kind {
        Kind::RedisPause => {
            server.pause(holds).await;
            sleep(holds).await;
        }
        Kind::RedisKillPubsub => drop(server.kill_pubsub().await),
        Kind::RedisKillNormal => {
            let _: u64 = server.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
        }
        Kind::RedisFreeze => {
            server.freeze().await;
            sleep(holds).await;
            server.thaw().await;
        }
        Kind::RedisFlush => {
            let () = server.query(&cmd("FLUSHALL")).await;
        }
        Kind::RedisFull => {
            limit_memory(server, 1).await;
            sleep(holds).await;
            limit_memory(server, 0).await;
        }
        _ => unreachable!("{kind} is no fault of a running Redis"),
    }
}

/// Lets a server take writes, or none for want of memory.
async fn limit_memory(server: &RedisServer, bytes: u64) {
    let () = server.query(cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes)).await;
}
