//! Redis as the nodes have it: one server, or a primary that Sentinels name.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fanfare_testbed::{RedisSentinels, RedisServer};
use redis::cmd;
use tokio::time::{Instant, sleep};

use crate::args::Topology;
use crate::fault::Kind;
use crate::link::Link;

/// How long Sentinels may take to put things in order.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(100);

/// The servers.
#[derive(Debug)]
pub(crate) enum Store {
    /// One, that keeps its data when it is killed.
    Single(Box<RedisServer>),
    /// A primary, its replica, and who decides which is which.
    Sentinels(Box<RedisSentinels>),
}

impl Store {
    /// Starts the servers.
    pub(crate) async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Single => Self::Single(Box::new(RedisServer::start_durable().await)),
            Topology::Sentinel | Topology::Cluster => {
                let servers = RedisSentinels::start().await;
                servers.are_ready().await;
                Self::Sentinels(Box::new(servers))
            }
        }
    }

    /// Where links lead to; none where the servers tell their addresses themselves.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Single(server) => Some((Ipv4Addr::LOCALHOST, server.port()).into()),
            Self::Sentinels(_) => None,
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
        }
    }

    /// Does to the servers what a fault says, and undoes it.
    pub(crate) async fn disturb(&mut self, kind: Kind, holds: Duration) {
        match (kind, &*self) {
            (Kind::RedisFailover, Self::Sentinels(servers)) => servers.fail_over().await,
            (Kind::RedisRestart | Kind::RedisWipe, _) => self.restart(kind, holds).await,
            _ => disturb(self.primary().await, kind, holds).await,
        }
        if let Self::Sentinels(servers) = self {
            settle(servers).await;
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
        }
    }

    /// The server that takes writes.
    pub(crate) async fn primary(&self) -> &RedisServer {
        match self {
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
            Self::Sentinels(servers) => {
                let server = servers.servers_mut().iter_mut().find(|server| server.port() == port);
                server.expect("a port of one of the servers")
            }
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
            sections.push(server.query(cmd("INFO").arg("replication")).await);
        }
        let follows = sections.iter().any(|section| section.contains("master_link_status:up"));
        let leads = sections.iter().any(|section| section.contains("state=online"));
        if follows && leads {
            return servers.are_ready().await;
        }
        assert!(Instant::now() < deadline, "the replica does not come back: {sections:?}");
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
