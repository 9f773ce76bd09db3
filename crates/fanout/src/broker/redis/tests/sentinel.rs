//! A primary that Sentinels replace.

use std::collections::HashSet;

use fanfare_testbed::RedisSentinels;

use super::*;
use crate::broker::contract::{KEPT, kept};

const ALL: Query = Query { since: None, limit: 1_000, reverse: false };

/// The nodes of [`RealRedis`], whose own server is not used, on another set of servers.
pub(in crate::broker) struct Watched {
    servers: RedisSentinels,
    nodes: RealRedis,
}

impl Watched {
    pub(super) fn options(&self) -> RedisOptions {
        let mode = RedisMode::Sentinel { primary: self.servers.name().to_owned() };
        RedisOptions { mode, urls: self.servers.urls(), ..self.nodes.options() }
    }

    pub(super) fn nodes(&self) -> &RealRedis {
        &self.nodes
    }

    pub(super) fn servers(&self) -> &RedisSentinels {
        &self.servers
    }

    pub(super) fn servers_mut(&mut self) -> &mut RedisSentinels {
        &mut self.servers
    }

    fn primary(&self) -> &RedisServer {
        &self.servers.servers()[0]
    }
}

impl Cluster for Watched {
    async fn start() -> Self {
        Self { servers: RedisSentinels::start().await, nodes: RealRedis::on(RedisServer::reserve()) }
    }

    async fn join(&self) -> Node {
        let node = self.nodes.join_with(&self.options());
        node.is_up().await;
        node
    }

    async fn take_away(&mut self) -> bool {
        for server in self.servers.servers_mut().iter_mut().rev() {
            server.stop().await; // The primary last: nobody takes over.
        }
        true
    }

    async fn bring_back(&mut self) {
        for server in self.servers.servers_mut() {
            server.start_again().await;
        }
    }

    async fn forget(&self) -> bool {
        let () = self.primary().query(&cmd("FLUSHALL")).await;
        true
    }

    async fn cut_publishers_off(&self) {
        let _: u64 = self.primary().query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
    }
}

#[tokio::test]
async fn a_replica_takes_over_with_what_it_has_under_another_epoch() {
    let mut redis = Watched::start().await;
    let (mut node, other) = (redis.join().await, redis.join().await);
    for name in ["a", "plain"] {
        node.watch(name).await;
    }
    redis.servers.are_ready().await;
    let mut before = Vec::new();
    for number in 1..=20 {
        before.push(other.place(kept("a", number, KEPT)).await);
        assert_eq!(node.next().await, ("a".to_owned(), number));
    }
    redis.primary().is_copied().await;
    redis.servers.servers_mut()[0].stop().await;
    tokio::join!(node.is_down(), other.is_down());
    assert!(matches!(other.publish("plain", 1).await, Err(BrokerError::Unavailable(_))));
    tokio::join!(node.is_up(), other.is_up());
    assert_eq!(node.broker.losses(), 1);
    let page = node.page("a", ALL).await;
    assert!(page.publications.iter().map(|it| it.position.unwrap()).eq(before.iter().copied()));
    assert_eq!(page.top, before[19].offset);
    assert_ne!(page.epoch, before[19].epoch, "nobody could know that nothing was lost");
    let next = other.place(kept("a", 21, KEPT)).await;
    assert_eq!((next.epoch, next.offset.0), (page.epoch, 21));
    assert_eq!(node.next_whole().await.position, Some(next));
    node.hears_again("plain").await;
    // The old primary comes back, is made a replica, and nobody goes back to it.
    redis.servers.servers_mut()[0].start_again().await;
    eventually("it is made a replica", async || {
        // It cuts its connections when that happens.
        let role: Option<String> = redis.primary().try_query(cmd("INFO").arg("replication")).await;
        role.is_some_and(|role| role.contains("role:slave") && role.contains("master_link_status:up"))
    })
    .await;
    node.hears_again("plain").await;
    assert_eq!(node.broker.losses(), 1);
    assert_eq!(other.place(kept("a", 22, KEPT)).await.offset.0, 22);
}

#[tokio::test]
async fn an_ordered_failover_under_traffic_ends_what_the_old_primary_acknowledges() {
    let redis = Watched::start().await;
    let (node, publisher) = (redis.join().await, redis.join().await);
    redis.servers.are_ready().await;
    let (published, ()) = tokio::join!(published(&publisher, "a"), redis.servers.fail_over());
    let Published { placed, refused } = published;
    let (_, last) = placed.last().expect("a hundred under the second epoch");
    eventually("the other node reads from the new primary too", async || {
        let position = node.broker.positions(vec![channel("a")]).await;
        matches!(position[..], [Ok(Some(it))] if it.epoch == last.epoch)
    })
    .await;
    let page = node.page("a", Query { limit: 100_000, ..ALL }).await;
    assert!(page.publications.iter().map(|it| it.offset().0).eq(1..=page.top.0));
    for it in &page.publications {
        let number: u64 = std::str::from_utf8(it.payload.as_bytes()).unwrap().parse().unwrap();
        assert!(!refused.contains(&number), "{number} was refused");
        assert!(placed.iter().all(|(its, position)| Some(*position) != it.position || *its == number));
    }
    let there: HashSet<_> =
        page.publications.iter().filter_map(|it| it.position).map(|it| (it.epoch, it.offset.0)).collect();
    let gone: Vec<_> = placed.iter().filter(|(_, it)| !there.contains(&(it.epoch, it.offset.0))).collect();
    // None, unless this process got no CPU for 50 ms. Where nodes follow only when the new primary is named it is more than half.
    assert!(gone.len() < placed.len() / 3, "{} of {} are gone: {:?}", gone.len(), placed.len(), gone.first());
}

#[tokio::test]
async fn one_sentinel_of_three_is_enough_and_none_at_all_is_no_loss() {
    let mut redis = Watched::start().await;
    redis.servers.sentinels_mut()[0].stop().await;
    redis.servers.sentinels_mut()[1].stop().await;
    let mut node = redis.join().await;
    node.watch("a").await;
    redis.servers.sentinels_mut()[2].stop().await;
    node.hears_again("a").await;
    let stranger = redis.nodes.join_with(&redis.options());
    assert!(matches!(stranger.publish("a", 1).await, Err(BrokerError::Unavailable(_))));
    assert_eq!((node.broker.link(), stranger.broker.link()), (Link::Up, Link::Down));
    assert_eq!(node.broker.losses(), 0);
}

#[tokio::test]
async fn sentinels_may_ask_for_credentials() {
    let redis = Watched::start().await;
    for server in redis.servers.sentinels().iter().chain(redis.servers.servers()) {
        let () = server
            .query(cmd("ACL").arg("SETUSER").arg("gateway").arg(&["on", ">s3cr3t", "~*", "&*", "+@all"]))
            .await;
    }
    for sentinel in redis.servers.sentinels() {
        let mut connection = sentinel.connect().await; // It stays what it is; those that come later have to say who they are.
        let () = cmd("ACL")
            .arg("SETUSER")
            .arg("default")
            .arg("resetpass")
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    let url = |sentinel: &RedisServer| format!("redis://gateway:s3cr3t@127.0.0.1:{}", sentinel.port());
    let urls = redis.servers.sentinels().iter().map(url).collect();
    let mut node = redis.nodes.join_with(&RedisOptions { urls, ..redis.options() });
    node.is_up().await;
    node.watch("a").await;
    node.hears_again("a").await;
}
