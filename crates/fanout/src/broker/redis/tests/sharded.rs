//! Several servers that know nothing of each other.

use super::*;
use crate::broker::contract::{KEPT, kept};
use crate::broker::redis::route::Route;

const SERVERS: usize = 3;

/// The nodes of [`RealRedis`], on several servers.
pub(in crate::broker) struct Shards {
    servers: Vec<RedisServer>,
    /// Joins nodes; its own server is the first.
    first: RealRedis,
}

impl Shards {
    fn options(&self) -> RedisOptions {
        let urls = self.all().map(RedisServer::url).collect();
        RedisOptions { mode: RedisMode::Sharded, urls, ..self.first.options() }
    }

    fn all(&self) -> impl Iterator<Item = &RedisServer> {
        std::iter::once(&self.first.server).chain(&self.servers)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut RedisServer> {
        std::iter::once(&mut self.first.server).chain(&mut self.servers)
    }

    /// As many channels of each server as that, by server.
    fn channels(count: usize) -> Vec<Vec<String>> {
        let route = &Route::Sharded(SERVERS);
        let of = |server| {
            let names = (0..).map(|it| format!("room:{it}"));
            names.filter(move |name| route.of(&channel(name)) == Some(server)).take(count).collect()
        };
        (0..SERVERS).map(of).collect()
    }
}

impl Cluster for Shards {
    async fn start() -> Self {
        let first = RealRedis::start().await;
        Self { servers: join_all((1..SERVERS).map(|_| RedisServer::start())).await, first }
    }

    async fn join(&self) -> Node {
        let node = self.first.join_with(&self.options());
        node.is_up().await;
        node
    }

    async fn take_away(&mut self) -> bool {
        join_all(self.all_mut().map(RedisServer::stop)).await;
        true
    }

    async fn bring_back(&mut self) {
        join_all(self.all_mut().map(RedisServer::start_again)).await;
    }

    async fn forget(&self) -> bool {
        for server in self.all() {
            let () = server.query(&cmd("FLUSHALL")).await;
        }
        true
    }

    async fn cut_publishers_off(&self) {
        for server in self.all() {
            let _: u64 = server.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
        }
    }
}

#[tokio::test]
async fn one_dead_server_takes_its_own_channels_along_and_no_others() {
    let mut shards = Shards::start().await;
    let mut node = shards.join().await;
    let rooms = Shards::channels(5);
    for room in rooms.iter().flatten() {
        node.watch(room).await;
        node.place(kept(room, 1, KEPT)).await;
        assert_eq!(node.next().await, (room.clone(), 1));
    }
    for (server, its) in shards.all().zip(&rooms) {
        let streams: Vec<String> = server.query(cmd("KEYS").arg("test:s:*")).await;
        assert_eq!(streams.len(), its.len(), "each server has its own channels");
    }
    shards.servers[0].stop().await;
    node.is_down().await;
    for room in &rooms[1] {
        for answer in
            [node.broker.publish(kept(room, 2, KEPT)).await, node.broker.publish(draft(room, 2)).await]
        {
            assert!(matches!(answer, Err(BrokerError::Unavailable(_))), "{answer:?}");
        }
    }
    let all: Vec<_> = rooms.iter().flatten().map(|room| channel(room)).collect();
    let answers = node.broker.positions(all).await;
    let answered: Vec<_> = answers.into_iter().map(|it| it.is_ok_and(|at| at.is_some())).collect();
    let expected: Vec<_> = (0..).zip(&rooms).flat_map(|(at, its)| its.iter().map(move |_| at != 1)).collect();
    assert_eq!(answered, expected, "whose server is there");
    for room in rooms[0].iter().chain(&rooms[2]) {
        assert_eq!(node.place(kept(room, 2, KEPT)).await.offset.0, 2);
        assert_eq!(node.next().await, (room.clone(), 2));
        node.broker.unwatch(&channel(room)).await;
        node.watch(room).await;
    }
    assert_eq!(node.broker.losses(), 0, "none is back yet");
    shards.servers[0].start_again().await;
    node.is_up().await;
    assert_eq!(node.broker.losses(), 1);
    for room in rooms.iter().flatten() {
        node.hears_again(room).await;
    }
}
