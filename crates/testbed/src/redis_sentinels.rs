//! A primary, a replica, and three Sentinels that watch them.

use std::time::Duration;

use redis::cmd;

use crate::eventually::eventually;
use crate::redis_server::RedisServer;

/// What the Sentinels call the primary.
const NAME: &str = "fanfare";

/// How long the primary is silent before it counts as down.
const DOWN_AFTER: Duration = Duration::from_millis(600);

/// Five processes.
#[derive(Debug)]
pub struct RedisSentinels {
    /// Which of them is the primary changes.
    servers: [RedisServer; 2],
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts all, and waits until the Sentinels know the primary. For a failover they also have to know each other and the
    /// replica: see [`RedisSentinels::are_ready`].
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start() -> Self {
        let primary = RedisServer::start().await;
        let port = primary.port().to_string();
        let replica = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = RedisServer::start_with(&replica).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(RedisServer::start_sentinel(NAME, primary.port(), DOWN_AFTER).await);
        }
        Self { servers: [primary, replica], sentinels }
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

    /// The one that was the primary first, and the one that was its replica.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer; 2] {
        &self.servers
    }

    /// The same, to stop them and start them again.
    pub fn servers_mut(&mut self) -> &mut [RedisServer; 2] {
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

    /// Waits until a failover can succeed: every Sentinel knows the others, and the replica follows the primary.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn are_ready(&self) {
        eventually("the sentinels know each other and a sound replica", async || self.are_ready_now().await)
            .await;
    }

    /// Whether a failover can succeed.
    pub async fn are_ready_now(&self) -> bool {
        for sentinel in &self.sentinels {
            let facts: Vec<(String, String)> = sentinel.query(cmd("SENTINEL").arg("MASTER").arg(NAME)).await;
            let replicas: Vec<Vec<(String, String)>> =
                sentinel.query(cmd("SENTINEL").arg("REPLICAS").arg(NAME)).await;
            let is = |name: &str, value: &str| facts.iter().any(|(its, is)| its == name && is == value);
            let knows = is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master");
            let is = |name: &str, value: &str| {
                replicas.iter().flatten().any(|(its, is)| its == name && is == value)
            };
            if !(knows && is("flags", "slave") && is("master-link-status", "ok")) {
                return false;
            }
        }
        true
    }

    /// SENTINEL FAILOVER: makes the replica the primary, and waits until every Sentinel says so.
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

    async fn primary_port(&self, sentinel: &RedisServer) -> u16 {
        let (_, port): (String, u16) =
            sentinel.query(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(NAME)).await;
        port
    }
}
