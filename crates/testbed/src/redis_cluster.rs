//! A Redis Cluster of three shards, with a replica each or without.

use std::time::Duration;

use futures_util::future::join_all;
use redis::cmd;

use crate::authority::Authority;
use crate::eventually::eventually;
use crate::redis_server::RedisServer;

/// How many shards have slots at the start.
pub const SHARDS: usize = 3;

/// How many slots there are.
const SLOTS: usize = 16_384;

/// How long a node is silent before the others take it for dead.
const NODE_TIMEOUT: Duration = Duration::from_millis(1000);

/// How many keys of a slot move at once.
const KEYS_AT_ONCE: usize = 100;

/// Three processes, or six.
#[derive(Debug)]
pub struct RedisCluster {
    /// Those that are primaries at the start, in the order of their slots, then their replicas in the same order.
    servers: Vec<RedisServer>,
    replicas: usize,
}

impl RedisCluster {
    /// Starts three primaries with a replica each, and waits until a failover can succeed.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start() -> Self {
        Self::form(2 * SHARDS, None).await
    }

    /// Starts three primaries alone.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_without_replicas() -> Self {
        Self::form(SHARDS, None).await
    }

    /// Starts three primaries alone, all over TLS.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_secure(authority: &Authority) -> Self {
        Self::form(SHARDS, Some(authority)).await
    }

    async fn form(count: usize, authority: Option<&Authority>) -> Self {
        let servers = (0..count).map(|_| RedisServer::start_cluster_node(NODE_TIMEOUT, authority));
        let servers = join_all(servers).await;
        let cluster = Self { servers, replicas: count - SHARDS };
        let primaries = &cluster.servers[..SHARDS];
        for (shard, primary) in primaries.iter().enumerate() {
            let () = primary.query(cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(shard + 1)).await;
            let (first, last) = (Self::first_slot(shard), Self::first_slot(shard + 1) - 1);
            let () = primary.query(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(last)).await;
        }
        for (at, server) in cluster.servers.iter().enumerate() {
            cluster.introduce(server, &cluster.servers[at + 1..]).await;
        }
        for (shard, replica) in cluster.servers[SHARDS..].iter().enumerate() {
            let primary = &primaries[shard];
            eventually("the replica knows its primary", async || {
                id_on(replica, primary.port()).await.is_some()
            })
            .await;
            let id = Self::id(primary).await;
            let () = replica.query(cmd("CLUSTER").arg("REPLICATE").arg(id)).await;
        }
        cluster.is_ready().await;
        cluster
    }

    async fn introduce(&self, server: &RedisServer, others: &[RedisServer]) {
        for other in others {
            let mut meet = cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(other.port()).arg(other.cluster_port());
            let () = server.query(&meet).await;
        }
    }

    /// Starts a primary more, which has no slots.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn grow(&mut self) {
        let server = RedisServer::start_cluster_node(NODE_TIMEOUT, None).await;
        self.introduce(&server, &self.servers).await;
        self.servers.push(server);
        self.is_ready().await;
    }

    /// The first slot that a shard has at the start.
    #[must_use]
    pub fn first_slot(shard: usize) -> usize {
        (SLOTS * shard).div_ceil(SHARDS)
    }

    /// All servers.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The same, to stop them and start them again.
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The addresses of all, as the gateway's configuration has them.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }

    /// Which of the servers has a slot, as most of those that run see it.
    ///
    /// # Panics
    /// When none says so within the patience of tests.
    pub async fn owner(&self, slot: usize) -> usize {
        let mut owner = None;
        eventually("a server has the slot", async || {
            owner = self.owner_now(slot).await;
            owner.is_some()
        })
        .await;
        owner.expect("it was waited for")
    }

    async fn owner_now(&self, slot: usize) -> Option<usize> {
        let mut votes = vec![0; self.servers.len()];
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let nodes: Option<String> = server.try_query(cmd("CLUSTER").arg("NODES")).await;
            let nodes = nodes.unwrap_or_default();
            let Some(port) = Node::all(&nodes).find(|node| node.has(slot)).map(|node| node.port) else {
                continue;
            };
            if let Some(at) = self.servers.iter().position(|server| server.port() == port) {
                votes[at] += 1;
            }
        }
        let (at, votes) = votes.into_iter().enumerate().max_by_key(|(_, votes)| *votes)?;
        (votes > 0).then_some(at)
    }

    /// Waits until every running server finds the cluster in order and every replica follows its primary.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn is_ready(&self) {
        let running: Vec<_> = self.servers.iter().filter(|server| server.is_running()).collect();
        for server in &running {
            eventually("the cluster is in order", async || {
                let facts: Option<String> = server.try_query(cmd("CLUSTER").arg("INFO")).await;
                let facts = facts.unwrap_or_default();
                let known = format!("cluster_known_nodes:{}\r\n", self.servers.len());
                facts.contains("cluster_state:ok") && facts.contains(&known)
            })
            .await;
        }
        let missing = self.servers.len() - running.len();
        eventually("every replica follows", async || {
            let mut following = 0;
            for server in &running {
                let facts: Option<String> = server.try_query(cmd("INFO").arg("replication")).await;
                following += usize::from(facts.is_some_and(|it| it.contains("master_link_status:up")));
            }
            following + missing >= self.replicas
        })
        .await;
    }

    /// Waits until the replicas have all that their primaries have now.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn replicas_are_level(&self) {
        let number = |text: &str, name: &str| -> Option<u64> {
            text.split_once(name)?.1.split([',', '\r']).next()?.parse().ok()
        };
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let facts: String = server.query(cmd("INFO").arg("replication")).await;
            let Some(written) =
                number(&facts, "master_repl_offset:").filter(|_| facts.contains("role:master"))
            else {
                continue;
            };
            eventually("its replicas have read it", async || {
                let facts: String = server.query(cmd("INFO").arg("replication")).await;
                let mut replicas = facts.lines().filter(|line| line.starts_with("slave"));
                replicas.all(|line| number(line, "offset=").is_some_and(|read| read >= written))
            })
            .await;
        }
    }

    /// Kills the primary of a shard and waits until its replica has taken over. Returns which was killed.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn fail_over(&mut self, shard: usize) -> usize {
        let slot = Self::first_slot(shard);
        let old = self.owner(slot).await;
        self.servers[old].stop().await;
        eventually("a replica has taken over", async || {
            self.owner_now(slot).await.is_some_and(|owner| owner != old)
        })
        .await;
        for server in self.servers.iter().filter(|server| server.is_running()) {
            eventually("all agree", async || {
                let facts: Option<String> = server.try_query(cmd("CLUSTER").arg("INFO")).await;
                facts.is_some_and(|facts| facts.contains("cluster_state:ok"))
            })
            .await;
        }
        old
    }

    /// CLUSTER FAILOVER on the replica of a shard: an ordered change, which loses nothing.
    ///
    /// # Panics
    /// When it takes too long, or no replica follows.
    pub async fn fail_over_in_order(&self, shard: usize) {
        let slot = Self::first_slot(shard);
        let old = self.owner(slot).await;
        let id = Self::id(&self.servers[old]).await;
        let nodes: String = self.servers[old].query(cmd("CLUSTER").arg("NODES")).await;
        let replica = Node::all(&nodes).find(|node| node.follows == id).map(|node| node.port);
        let replica = self.servers.iter().find(|server| Some(server.port()) == replica);
        let () = replica.expect("a replica follows").query(cmd("CLUSTER").arg("FAILOVER")).await;
        eventually("the replica has taken over", async || {
            self.owner_now(slot).await.is_some_and(|owner| owner != old)
        })
        .await;
    }

    /// Keeps the replicas of a shard from taking over by themselves.
    ///
    /// # Panics
    /// When none follows.
    pub async fn forbid_failover(&self, shard: usize) {
        let owner = &self.servers[self.owner(Self::first_slot(shard)).await];
        let id = Self::id(owner).await;
        let nodes: String = owner.query(cmd("CLUSTER").arg("NODES")).await;
        let replicas: Vec<_> =
            Node::all(&nodes).filter(|node| node.follows == id).map(|node| node.port).collect();
        assert!(!replicas.is_empty(), "a replica follows");
        for replica in self.servers.iter().filter(|server| replicas.contains(&server.port())) {
            let forbid = ["SET", "cluster-replica-no-failover", "yes"];
            let () = replica.query(cmd("CONFIG").arg(&forbid)).await;
        }
    }

    /// Moves a slot and all its keys to the server `to`, as a resharding does.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn move_slot(&self, slot: usize, to: usize) {
        let from = self.owner(slot).await;
        self.begin_to_move_slot(slot, to).await;
        self.move_keys(slot, from, to).await;
        self.end_of_move(slot, to).await;
    }

    /// The first step of [`RedisCluster::move_slot`]: both servers know that the slot is about to move.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn begin_to_move_slot(&self, slot: usize, to: usize) {
        let from = &self.servers[self.owner(slot).await];
        let to = &self.servers[to];
        let (from_id, to_id) = (Self::id(from).await, Self::id(to).await);
        let () = to.query(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("IMPORTING").arg(from_id)).await;
        let () = from.query(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(to_id)).await;
    }

    /// The second: its keys move.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn move_keys(&self, slot: usize, from: usize, to: usize) {
        let (from, to) = (&self.servers[from], &self.servers[to]);
        loop {
            let ask = cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(KEYS_AT_ONCE).to_owned();
            let keys: Vec<Vec<u8>> = from.query(&ask).await;
            if keys.is_empty() {
                return;
            }
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(to.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            let _: String = from.query(&migrate).await; // NOKEY when they have expired meanwhile.
        }
    }

    /// The last: the slot is the other server's, and all are told.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn end_of_move(&self, slot: usize, to: usize) {
        let id = Self::id(&self.servers[to]).await;
        let mut is = cmd("CLUSTER");
        is.arg("SETSLOT").arg(slot).arg("NODE").arg(id);
        let () = self.servers[to].query(&is).await;
        let others = self.servers.iter().enumerate().filter(|(at, server)| *at != to && server.is_running());
        for (_, server) in others {
            let _: Option<()> = server.try_query(&is).await; // A replica learns it from its primary.
        }
    }

    /// Gives a slot whose server is dead, and whose keys are lost, to the server `to`.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn seize_slot(&self, slot: usize, to: usize) {
        let nodes: String = self.servers[to].query(cmd("CLUSTER").arg("NODES")).await;
        let dead = Node::all(&nodes).find(|node| node.has(slot)).expect("it was somebody's");
        let mut import = cmd("CLUSTER");
        import.arg("SETSLOT").arg(slot).arg("IMPORTING").arg(dead.id);
        let () = self.servers[to].query(&import).await;
        self.end_of_move(slot, to).await;
    }

    async fn id(server: &RedisServer) -> String {
        server.query(cmd("CLUSTER").arg("MYID")).await
    }
}

/// What the server at `port` is called, if `server` knows it.
async fn id_on(server: &RedisServer, port: u16) -> Option<String> {
    let nodes: String = server.query(cmd("CLUSTER").arg("NODES")).await;
    Node::all(&nodes)
        .find(|node| node.port == port && !node.flags.contains("handshake"))
        .map(|it| it.id.to_owned())
}

/// A line of CLUSTER NODES.
struct Node<'a> {
    id: &'a str,
    port: u16,
    flags: &'a str,
    follows: &'a str,
    slots: Vec<&'a str>,
}

impl<'a> Node<'a> {
    fn all(nodes: &'a str) -> impl Iterator<Item = Self> {
        nodes.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (id, address, flags, follows) = (words.next()?, words.next()?, words.next()?, words.next()?);
            let port = address.split('@').next()?.rsplit(':').next()?.parse().ok()?;
            Some(Self { id, port, flags, follows, slots: words.skip(4).collect() })
        })
    }

    fn has(&self, slot: usize) -> bool {
        let bound = |text: &str| text.parse::<usize>().ok();
        self.slots.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((bound(first), bound(last)), (Some(first), Some(last)) if (first..=last).contains(&slot))
        })
    }
}
