//! A primary, one or two replicas, and three Sentinels that watch them.

use std::time::Duration;

use redis::cmd;

use crate::authority::Authority;
use crate::eventually::{eventually, eventually_within};
use crate::redis_server::RedisServer;

/// What the Sentinels call the primary.
const NAME: &str = "fanfare";

/// How long the primary is silent before it counts as down. Sentinels ask a primary they have just switched to for its first answer
/// after a second, or after this time where it is shorter, and count its silence from the switch: below a second each new primary looks
/// down as soon as it leads, and they fail over again and again.
const DOWN_AFTER: Duration = Duration::from_millis(1_500);

/// How long Sentinels may take to make a replica of a primary that comes back. They ask it who it is every ten seconds, believe for
/// eight that somebody else may tell it, and tell it when they have asked once more.
const DEMOTION: Duration = Duration::from_secs(60);

/// Five processes, or six.
#[derive(Debug)]
pub struct RedisSentinels {
    /// Which of them is the primary changes.
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts a primary and its replica, and waits until the Sentinels know the primary. For a failover they also have to know
    /// each other and the replica: see [`RedisSentinels::are_ready`].
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start() -> Self {
        Self::start_with(1, &[], None).await
    }

    /// The same with two replicas, and servers that take no writes while nobody follows them: a primary that has been replaced
    /// and does not know it acknowledges nothing that would be lost with it.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_careful() -> Self {
        Self::start_with(2, &["--min-replicas-to-write", "1"], None).await
    }

    /// A primary and its replica, all over TLS.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_secure(authority: &Authority) -> Self {
        Self::start_with(1, &[], Some(authority)).await
    }

    async fn start_with(replicas: usize, arguments: &[&str], authority: Option<&Authority>) -> Self {
        let server = async |arguments: &[&str]| match authority {
            Some(authority) => RedisServer::start_secure(authority, arguments).await,
            None => RedisServer::start_with(arguments).await,
        };
        let primary = server(arguments).await;
        let port = primary.service_port().to_string();
        let following = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let mut servers = vec![primary];
        for _ in 0..replicas {
            servers.push(server(&[&following, arguments].concat()).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let watched = servers[0].service_port();
            sentinels.push(RedisServer::start_sentinel(NAME, watched, DOWN_AFTER, authority).await);
        }
        Self { servers, sentinels }
    }

    /// What the Sentinels call the primary.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The addresses of the Sentinels, as the gateway's configuration has them.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The one that was the primary first, then those that were its replicas.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The same, to stop them and start them again.
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The Sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The same, to stop them and start them again.
    pub fn sentinels_mut(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// Waits until a failover can succeed: every Sentinel knows the others, and all replicas follow the primary.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn are_ready(&self) {
        eventually("the sentinels know each other and sound replicas", async || self.are_ready_now().await)
            .await;
    }

    /// Whether a failover can succeed.
    pub async fn are_ready_now(&self) -> bool {
        for sentinel in &self.sentinels {
            let facts: Vec<(String, String)> = sentinel.query(cmd("SENTINEL").arg("MASTER").arg(NAME)).await;
            let replicas: Vec<Vec<(String, String)>> =
                sentinel.query(cmd("SENTINEL").arg("REPLICAS").arg(NAME)).await;
            let is = |name: &str, value: &str| facts.iter().any(|(its, is)| its == name && is == value);
            let count = (self.servers.len() - 1).to_string();
            let knows = is("num-other-sentinels", "2") && is("num-slaves", &count) && is("flags", "master");
            let is_sound = |replica: &Vec<(String, String)>| {
                let is = |name: &str, value: &str| replica.iter().any(|(its, is)| its == name && is == value);
                is("flags", "slave") && is("master-link-status", "ok")
            };
            if !(knows && replicas.iter().all(is_sound)) {
                return false;
            }
        }
        true
    }

    /// SENTINEL FAILOVER: makes a replica the primary, and waits until every Sentinel says so.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn fail_over(&self) {
        let before = self.primary_port(&self.sentinels[0]).await;
        let () = self.sentinels[0].query(cmd("SENTINEL").arg("FAILOVER").arg(NAME)).await;
        self.has_moved_from(before).await;
    }

    /// Waits until every running Sentinel names another primary than the one on that port.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn has_moved_from(&self, port: u16) {
        for sentinel in &self.sentinels {
            eventually("the sentinels name another primary", async || {
                self.primary_port(sentinel).await != port
            })
            .await;
        }
    }

    /// Waits until a server that came back as a primary has been made a replica, and follows.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn has_been_demoted(&self, at: usize) {
        eventually_within(DEMOTION, "it is made a replica", async || {
            // It cuts its connections when that happens.
            let role: Option<String> = self.servers[at].try_query(cmd("INFO").arg("replication")).await;
            role.is_some_and(|role| role.contains("role:slave") && role.contains("master_link_status:up"))
        })
        .await;
    }

    async fn primary_port(&self, sentinel: &RedisServer) -> u16 {
        let (_, port): (String, u16) =
            sentinel.query(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(NAME)).await;
        port
    }
}
