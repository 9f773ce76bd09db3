//! A Redis Cluster whose primaries die, whose slots move, and which grows.

use std::collections::HashSet;

use fanfare_testbed::{RedisCluster, SHARDS};

use super::*;
use crate::broker::contract::{KEPT, kept};
use crate::broker::redis::keys::slot;
use crate::broker::redis::pipe::PROBATION;

const ALL: Query = Query { since: None, limit: 100_000, reverse: false };

/// The nodes of [`RealRedis`], whose own server is not used, on another set of servers.
pub(in crate::broker) struct Clustered {
    servers: RedisCluster,
    nodes: RealRedis,
}

impl Clustered {
    fn on(servers: RedisCluster) -> Self {
        Self { servers, nodes: RealRedis::on(RedisServer::reserve()) }
    }

    fn options(&self) -> RedisOptions {
        RedisOptions { mode: RedisMode::Cluster, urls: self.servers.urls(), ..self.nodes.options() }
    }

    fn servers(&self) -> &[RedisServer] {
        self.servers.servers()
    }

    /// So many channels of a shard, each in another slot, the first in the shard's first slots.
    fn rooms(shard: usize, count: usize) -> Vec<String> {
        let slots = RedisCluster::first_slot(shard)..RedisCluster::first_slot(shard + 1);
        let mut seen = HashSet::new();
        let names = (0..).map(|it| format!("room:{it}"));
        let here = |name: &String| slots.contains(&usize::from(slot(&channel(name))));
        names.filter(here).filter(|name| seen.insert(slot(&channel(name)))).take(count).collect()
    }

    /// How many shard channels are subscribed to at a server.
    async fn subscribed_at(&self, server: usize) -> usize {
        let channels: Vec<String> = self.servers()[server].query(cmd("PUBSUB").arg("SHARDCHANNELS")).await;
        channels.len()
    }

    async fn is_primary(&self, server: &RedisServer) -> bool {
        let section: String = server.query(cmd("INFO").arg("replication")).await;
        section.contains("role:master")
    }
}

fn slot_of(name: &str) -> usize {
    usize::from(slot(&channel(name)))
}

impl Cluster for Clustered {
    async fn start() -> Self {
        Self::on(RedisCluster::start_without_replicas().await)
    }

    async fn join(&self) -> Node {
        let node = self.nodes.join_with(&self.options());
        node.is_up().await;
        node
    }

    async fn take_away(&mut self) -> bool {
        for server in self.servers.servers_mut() {
            server.stop().await;
        }
        true
    }

    async fn bring_back(&mut self) {
        for server in self.servers.servers_mut() {
            server.start_again().await;
        }
        self.servers.is_ready().await;
    }

    async fn forget(&self) -> bool {
        for server in self.servers() {
            let () = server.query(&cmd("FLUSHALL")).await;
        }
        true
    }

    async fn cut_publishers_off(&self) {
        for server in self.servers() {
            let _: u64 = server.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
        }
    }
}

/// One SSUBSCRIBE of channels in several slots is refused as a whole, and a client that does not look hears nothing again.
#[tokio::test]
async fn cut_subscriptions_in_many_slots_are_made_anew() {
    let redis = Clustered::start().await;
    let mut node = redis.join().await;
    let rooms: Vec<_> = (0..SHARDS).flat_map(|shard| Clustered::rooms(shard, 200)).collect();
    join_all(rooms.iter().map(|room| node.watch(room))).await;
    let watched = || redis.nodes.counted("fanfare_broker_watched_channels");
    assert_eq!(watched(), rooms.len() as u64);
    for round in 1..=3 {
        for server in redis.servers() {
            assert_eq!(server.kill_pubsub().await, 1);
        }
        eventually("all three are lost and back", async || node.broker.losses() == 3 * round).await;
        node.is_up().await;
        for server in 0..SHARDS {
            assert_eq!(redis.subscribed_at(server).await, 200);
        }
        for room in &rooms {
            node.publish(room, round).await.unwrap();
            assert_eq!(node.next().await, (room.clone(), round));
        }
    }
    join_all(rooms.iter().map(async |room| node.broker.unwatch(&channel(room)).await)).await;
    for server in 0..SHARDS {
        assert_eq!(redis.subscribed_at(server).await, 0);
    }
    assert_eq!(watched(), 0);
}

/// A publication goes to the shard of its channel and to no other.
#[tokio::test]
async fn each_shard_carries_its_own_channels() {
    let redis = Clustered::start().await;
    let mut node = redis.join().await;
    for shard in 0..SHARDS {
        for room in Clustered::rooms(shard, 5) {
            node.watch(&room).await;
            node.place(kept(&room, 1, KEPT)).await;
            assert_eq!(node.next().await, (room.clone(), 1));
            node.publish(&room, 2).await.unwrap();
            assert_eq!(node.next().await, (room, 2));
        }
    }
    for (shard, server) in redis.servers().iter().enumerate() {
        let mut streams: Vec<String> = server.query(cmd("KEYS").arg("test:s:*")).await;
        let mut its: Vec<_> =
            Clustered::rooms(shard, 5).iter().map(|room| format!("test:s:{{{room}}}")).collect();
        streams.sort();
        its.sort();
        assert_eq!(streams, its);
        assert_eq!((server.calls("publish").await, server.calls("spublish").await), (0, 10));
    }
}

/// Whichever shard fails over, what was acknowledged is still there, and all is heard again.
#[tokio::test]
async fn a_replica_takes_over_and_all_is_heard_again() {
    let mut redis = Clustered::on(RedisCluster::start().await);
    let (mut node, other) = (redis.join().await, redis.join().await);
    let rooms: Vec<_> = (0..SHARDS).flat_map(|shard| Clustered::rooms(shard, 3)).collect();
    for room in &rooms {
        node.watch(room).await;
        for number in 1..=20 {
            other.place(kept(room, number, KEPT)).await;
            assert_eq!(node.next().await, (room.clone(), number));
        }
    }
    let before = node.position(&rooms[0]).await.unwrap();
    redis.servers.replicas_are_level().await;
    let old = redis.servers.fail_over(0).await;
    eventually("everything is heard again", async || node.broker.losses() > 0).await;
    for it in [&node, &other] {
        it.is_up().await;
    }
    for room in &rooms {
        let page = node.page(room, ALL).await;
        assert!(page.publications.iter().map(|it| it.offset().0).eq(1..=20), "{room}");
        let placed = other.place(kept(room, 21, KEPT)).await;
        assert_eq!((placed.epoch, placed.offset.0), (page.epoch, 21));
        assert_eq!(node.next_whole().await.position, Some(placed));
    }
    let after = node.position(&rooms[0]).await.unwrap();
    assert_ne!(after.epoch, before.epoch, "another server may lack the end of what its predecessor had");
    // The old primary comes back as a replica, and nobody goes back to it.
    redis.servers.servers_mut()[old].start_again().await;
    redis.servers.is_ready().await;
    assert!(!redis.is_primary(&redis.servers()[old]).await);
    for room in &rooms {
        node.hears_again(room).await;
    }
}

#[tokio::test]
async fn an_ordered_failover_under_traffic_tells_no_lie() {
    let redis = Clustered::on(RedisCluster::start().await);
    let (node, publisher) = (redis.join().await, redis.join().await);
    let room = &Clustered::rooms(1, 1)[0];
    let (published, ()) = tokio::join!(published(&publisher, room), redis.servers.fail_over_in_order(1));
    let Published { placed, refused } = published;
    let page = node.page(room, ALL).await;
    let found: Vec<(u64, _)> = page
        .publications
        .iter()
        .map(|it| (std::str::from_utf8(it.payload.as_bytes()).unwrap().parse().unwrap(), it.offset().0))
        .collect();
    assert!(found.iter().map(|(_, offset)| *offset).eq(1..=page.top.0));
    for (number, position) in &placed {
        assert!(found.contains(&(*number, position.offset.0)), "{number} was acknowledged");
    }
    assert!(found.iter().all(|(number, _)| !refused.contains(number)), "what was refused is not there");
}

/// What a publisher that never gives up has placed.
#[derive(Default)]
struct Placed(Mutex<Vec<(u64, Position)>>);

impl Placed {
    async fn publish(&self, node: &Node, draft: impl Fn(u64) -> Draft, stop: &CancellationToken) {
        for number in 0.. {
            match node.broker.publish(draft(number)).await {
                Ok(position) => self.0.lock().push((number, position.unwrap())),
                Err(BrokerError::Unavailable(_)) => {}
                Err(error) => panic!("no connection was lost: {error}"),
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until so many more have been placed.
    async fn more(&self, count: usize) {
        let before = self.0.lock().len();
        eventually("more is placed", async || self.0.lock().len() >= before + count).await;
    }
}

#[tokio::test]
async fn a_slot_moves_under_traffic_and_nothing_is_lost_doubled_or_reordered() {
    let redis = Clustered::start().await;
    let (mut ear, publisher) = (redis.join().await, redis.join().await);
    let room = &Clustered::rooms(0, 1)[0];
    ear.watch(room).await;
    let (stop, placed) = (CancellationToken::new(), Placed::default());
    let broker = ear.broker.clone();
    let moving = async {
        for to in [1, 2, 0, 1] {
            let losses = broker.losses();
            redis.servers.move_slot(slot_of(room), to).await;
            eventually("it is subscribed to where it is now", async || {
                let owner = &redis.servers()[to];
                let (_, subscribers): (String, u64) =
                    owner.query(cmd("PUBSUB").arg("SHARDNUMSUB").arg(format!("test:c:{{{room}}}"))).await;
                subscribers == 1
            })
            .await;
            eventually("that was a loss", async || broker.losses() > losses).await;
            placed.more(50).await;
        }
        stop.cancel();
    };
    let hearing = async |node: &mut Node| {
        let mut heard = Vec::new();
        loop {
            let it = node.next_whole().await;
            match std::str::from_utf8(it.payload.as_bytes()).unwrap().parse().unwrap() {
                u64::MAX => return heard,
                number => heard.push((number, it.position.unwrap())),
            }
        }
    };
    let first = publisher.place(kept(room, 0, KEPT)).await;
    placed.0.lock().push((0, first));
    let publishing = async {
        placed.publish(&publisher, |number| kept(room, 1 + number, KEPT), &stop).await;
        publisher.place(kept(room, u64::MAX, KEPT)).await;
    };
    let ((), (), heard) = tokio::join!(publishing, moving, hearing(&mut ear));
    let placed = placed.0.into_inner();
    assert!(placed.is_sorted_by_key(|(_, position)| position.offset));
    assert!(heard.is_sorted_by(|a, b| a.0 < b.0 && a.1.offset < b.1.offset), "in order, and none twice");
    let epochs: HashSet<_> = placed.iter().map(|(_, position)| position.epoch).collect();
    assert_eq!(epochs.len(), 5, "every server begins an epoch");
    let page = publisher.page(room, ALL).await;
    let kept: HashSet<_> = page.publications.iter().map(|it| it.offset()).collect();
    assert!(
        placed.iter().all(|(_, position)| kept.contains(&position.offset)),
        "whatever was acknowledged is there"
    );
    // At every server, from the first publication heard there on, all are.
    let heard: HashSet<_> = heard.into_iter().map(|(_, it)| (it.epoch, it.offset.0)).collect();
    for epoch in epochs {
        let there = placed.iter().map(|(_, it)| (it.epoch, it.offset.0)).filter(|it| it.0 == epoch);
        let deaf: Vec<_> =
            there.skip_while(|it| !heard.contains(it)).filter(|it| !heard.contains(it)).collect();
        assert_eq!(deaf, []);
    }
    assert!(heard.iter().any(|it| it.0 == placed.last().unwrap().1.epoch), "also at the last");
    assert_eq!(ear.broker.link(), Link::Up);
    ear.hears_again(room).await;
}

/// A primary that was frozen may have been replaced, and does not know when it wakes.
#[tokio::test]
async fn a_primary_that_was_silent_is_tried_before_it_is_believed() {
    let redis = Clustered::start().await;
    let (node, room) = (redis.join().await, &Clustered::rooms(0, 1)[0]);
    redis.servers()[0].freeze().await;
    assert!(matches!(node.publish(room, 1).await, Err(BrokerError::Timeout(_))));
    node.is_down().await;
    let woken = Instant::now();
    redis.servers()[0].thaw().await;
    eventually("it is believed", async || node.publish(room, 2).await.is_ok()).await;
    assert!(woken.elapsed() >= PROBATION, "after {:?}", woken.elapsed());
}

/// Once the others have given a primary up its replica may lead at any moment: it is nobody, whether it wakes or not.
#[tokio::test]
async fn a_primary_that_the_others_have_given_up_is_nobody() {
    let redis = Clustered::on(RedisCluster::start().await);
    let never = Duration::from_secs(3600);
    let node =
        redis.nodes.join_with(&RedisOptions { timeout: never, ping_interval: never, ..redis.options() });
    node.is_up().await;
    let room = &Clustered::rooms(0, 1)[0];
    redis.servers.forbid_failover(0).await;
    node.publish(room, 1).await.unwrap();
    let old = &redis.servers()[0];
    old.freeze().await;
    let asked = node.publish(room, 2).await;
    assert!(
        matches!(asked, Err(BrokerError::Timeout(_))),
        "answered for as unknown while it sleeps: {asked:?}"
    );
    node.is_down().await;
    old.thaw().await;
    eventually("it is believed again", async || node.publish(room, 3).await.is_ok()).await;
    for other in &redis.servers()[1..] {
        let nodes: String = other.query(cmd("CLUSTER").arg("NODES")).await;
        assert!(!nodes.contains("master,fail "), "the others have taken their word back first:\n{nodes}");
    }
}

/// A server that does not know yet that a slot is another's takes what it was sent before: nothing may come before that.
#[tokio::test]
async fn no_draft_overtakes_another_on_its_way_to_the_new_server() {
    let redis = Clustered::start().await;
    let options = RedisOptions { timeout: 3 * TIMEOUT, ..redis.options() };
    let node = redis.nodes.join_with(&options);
    node.is_up().await;
    let room = &Clustered::rooms(0, 1)[0];
    redis.servers.begin_to_move_slot(slot_of(room), 1).await;
    let numbered = |number| node.broker.publish(draft(room, number)).map(move |answer| (number, answer));
    redis.servers()[0].freeze().await;
    let mut under_way = FuturesUnordered::new();
    under_way.push(numbered(0));
    assert!(futures_util::poll!(under_way.next()).is_pending());
    let id: String = redis.servers()[1].query(cmd("CLUSTER").arg("MYID")).await;
    for server in &redis.servers()[1..] {
        let () = server.query(cmd("CLUSTER").arg("SETSLOT").arg(slot_of(room)).arg("NODE").arg(&id)).await;
    }
    let mut next = 1;
    let (number, answer) = loop {
        match tokio::time::timeout(Duration::from_millis(10), under_way.next()).await {
            Ok(answered) => break answered.unwrap(),
            Err(_) => {
                under_way.push(numbered(next));
                next += 1;
            }
        }
    };
    redis.servers()[0].thaw().await;
    assert!(
        number == 0 || matches!(answer, Err(BrokerError::Unavailable(_))),
        "{number} is {answer:?} before 0"
    );
    let mut answers: Vec<_> = under_way.collect().await;
    answers.push((number, answer));
    answers.sort_by_key(|(number, _)| *number);
    let placed = answers.iter().map(|(_, answer)| answer.is_ok());
    assert!(
        placed.is_sorted_by(|before, after| before >= after),
        "none after one that was refused: {answers:?}"
    );
    eventually("it goes on", async || node.publish(room, next).await.is_ok()).await;
}

/// A place whose lane is full lets nothing go until there is room: time enough to lose interest.
#[tokio::test]
async fn nobody_takes_over_what_was_unwatched_on_its_way() {
    const MANY: usize = 300;
    let redis = Clustered::start().await;
    let (mut node, other) = (redis.join().await, redis.join().await);
    let rooms = Clustered::rooms(0, 3);
    let [left, stays, loud] = [&rooms[0], &rooms[1], &rooms[2]];
    for room in &rooms {
        node.watch(room).await;
    }
    for number in 0..MANY as u64 {
        other.publish(loud, number).await.unwrap();
    }
    eventually("the lane is full", async || node.is_full()).await;
    for room in [left, stays] {
        redis.servers.move_slot(slot_of(room), 1).await;
    }
    eventually("the new route is taken", async || {
        let _ = node.publish(left, 0).await;
        redis.servers()[1].calls("spublish").await > 0
    })
    .await;
    node.broker.unwatch(&channel(left)).await;
    assert_eq!(node.next_of(MANY).await.len(), MANY);
    eventually("the other is taken over", async || redis.subscribed_at(1).await == 1).await;
    node.hears_again(stays).await;
    // Once more: whatever was on its way has arrived when this has.
    redis.servers.move_slot(slot_of(loud), 1).await;
    eventually("it follows", async || redis.subscribed_at(1).await == 2).await;
    let there: Vec<String> = redis.servers()[1].query(cmd("PUBSUB").arg("SHARDCHANNELS")).await;
    assert!(!there.contains(&format!("test:c:{{{left}}}")), "{there:?}");
}

/// Whoever publishes at the wrong server hears so. Whoever reads or watches there is sent on.
#[tokio::test]
async fn what_was_not_carried_out_is_not_acknowledged() {
    let redis = Clustered::start().await;
    // Who is where is asked because something was not where it should be, and for no other reason.
    let options = RedisOptions { ping_interval: Duration::from_secs(60), ..redis.options() };
    let mut node = redis.nodes.join_with(&options);
    node.is_up().await;
    let rooms = Clustered::rooms(0, 2);
    node.place(kept(&rooms[0], 1, KEPT)).await;
    let slot = slot_of(&rooms[0]);
    redis.servers.begin_to_move_slot(slot, 1).await;
    let placed = node.place(kept(&rooms[0], 2, KEPT)).await;
    assert_eq!(placed.offset.0, 2, "its keys have not moved yet");
    redis.servers.move_keys(slot, 0, 1).await;
    let refused = node.broker.publish(kept(&rooms[0], 3, KEPT)).await.unwrap_err();
    assert!(matches!(&refused, BrokerError::Unavailable(why) if why.starts_with("ASK")), "{refused:?}");
    redis.servers.end_of_move(slot, 1).await;
    assert_eq!(node.page(&rooms[0], ALL).await.top.0, 2);
    node.watch(&rooms[0]).await;
    assert_eq!(redis.subscribed_at(1).await, 1);
    node.hears_again(&rooms[0]).await;
    assert_eq!(node.page(&rooms[0], ALL).await.publications.len(), 2, "what was refused is not there");
    // A watch is the first to notice.
    let slot = slot_of(&rooms[1]);
    redis.servers.move_slot(slot, 2).await;
    node.watch(&rooms[1]).await;
    assert_eq!(redis.subscribed_at(2).await, 1);
    node.hears_again(&rooms[1]).await;
    assert_eq!(node.broker.link(), Link::Up);
}

/// Waits until publications on these channels are not refused any more because their slots are moving.
async fn takes(node: &Node, rooms: &[String]) {
    for room in rooms {
        eventually("the channel has come to rest", async || node.publish(room, 0).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_cluster_may_grow_and_shrink() {
    let mut redis = Clustered::start().await;
    let mut node = redis.join().await;
    let rooms: Vec<_> = (0..SHARDS).flat_map(|shard| Clustered::rooms(shard, 3)).collect();
    for room in &rooms {
        node.watch(room).await;
    }
    redis.servers.grow().await;
    for room in &rooms {
        redis.servers.move_slot(slot_of(room), SHARDS).await;
    }
    eventually("the new server is subscribed to", async || redis.subscribed_at(SHARDS).await == rooms.len())
        .await;
    node.is_up().await;
    takes(&node, &rooms).await;
    for room in &rooms {
        node.hears_again(room).await;
    }
    let losses = node.broker.losses();
    for room in &rooms {
        redis.servers.move_slot(slot_of(room), 0).await;
    }
    eventually("they have moved on", async || redis.subscribed_at(0).await == rooms.len()).await;
    takes(&node, &rooms).await;
    for room in &rooms {
        node.hears_again(room).await;
    }
    assert!(node.broker.losses() > losses, "losses count up, whatever comes and goes");
    // A server without slots is nobody's place: it may go.
    eventually("nobody is connected to it", async || {
        let clients: String = redis.servers()[SHARDS].query(cmd("CLIENT").arg("LIST")).await;
        !clients.contains("name=fanfare:")
    })
    .await;
    // One that dies is missed until others have its slots.
    redis.servers.move_slot(slot_of(&rooms[0]), SHARDS).await;
    eventually("it is back", async || redis.subscribed_at(SHARDS).await == 1).await;
    node.is_up().await;
    redis.servers.servers_mut()[SHARDS].stop().await;
    node.is_down().await;
    redis.servers.seize_slot(slot_of(&rooms[0]), 1).await;
    node.is_up().await;
    takes(&node, &rooms).await;
    for room in &rooms {
        node.hears_again(room).await;
    }
}

/// A server that gives a slot away and gets it back unsubscribes its clients all the same.
#[tokio::test]
async fn an_unsolicited_unsubscription_is_undone_where_it_was() {
    let redis = Clustered::start().await;
    let mut node = redis.join().await;
    let rooms = Clustered::rooms(0, 2);
    for room in &rooms {
        node.watch(room).await;
    }
    let mut servers = Vec::new();
    for server in redis.servers() {
        let id: String = server.query(cmd("CLUSTER").arg("MYID")).await;
        servers.push((server.connect().await, id));
    }
    let own = servers[0].1.clone();
    let other = servers[1].1.clone();
    let is = |id: &str| {
        let mut command = cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot_of(&rooms[0])).arg("NODE").arg(id);
        command
    };
    // The first server alone believes for a moment that the slot is another's.
    let mut pipeline = redis::pipe();
    pipeline.add_command(is(&other)).add_command(is(&own));
    let () = pipeline.query_async(&mut servers[0].0).await.unwrap();
    eventually("it is asked for again", async || node.broker.losses() == 1).await;
    for room in &rooms {
        node.hears_again(room).await;
    }
    assert_eq!(redis.nodes.counted("fanfare_broker_reconnects_total"), 0);
}

#[tokio::test]
async fn one_url_is_enough_and_none_needs_to_stay() {
    let mut redis = Clustered::on(RedisCluster::start().await);
    let urls = redis.servers.urls();
    let nowhere = RedisServer::reserve().url();
    let with = |urls: &[&String]| {
        let urls = urls.iter().map(|&url| url.clone()).collect();
        redis.nodes.join_with(&RedisOptions { urls, ..redis.options() })
    };
    // A replica knows as much as a primary.
    let mut node = with(&[&nowhere, &urls[SHARDS]]);
    node.is_up().await;
    let rooms: Vec<_> = (0..SHARDS).map(|shard| Clustered::rooms(shard, 1).remove(0)).collect();
    for room in &rooms {
        node.watch(room).await;
        node.hears_again(room).await;
    }
    let stranger = with(&[&nowhere]);
    assert!(matches!(stranger.publish("a", 1).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(stranger.broker.watch(&channel("a")).await, Err(BrokerError::Unavailable(_))));
    assert_eq!((node.broker.link(), stranger.broker.link()), (Link::Up, Link::Down));
    redis.servers.servers_mut()[SHARDS].stop().await;
    redis.servers.fail_over(1).await;
    eventually("what was lost is back", async || node.broker.losses() > 0).await;
    node.is_up().await;
    for room in &rooms {
        node.hears_again(room).await;
    }
}

#[tokio::test]
async fn a_cluster_has_no_databases() {
    let (lanes, _ends) = Lanes::new(1, 1);
    let redis = RealRedis::on(RedisServer::reserve());
    let urls = vec!["redis://127.0.0.1:1".to_owned(), "redis://127.0.0.1:2/3".to_owned()];
    let connect = |urls| {
        let options = RedisOptions { mode: RedisMode::Cluster, urls, ..redis.options() };
        let shutdown = CancellationToken::new();
        RedisBroker::connect(&options, &lanes, Arc::default(), &TaskTracker::new(), shutdown).unwrap_err()
    };
    assert_eq!(connect(urls), RedisOptionsError::Database);
    assert_eq!(connect(Vec::new()), RedisOptionsError::NoUrl);
}

#[tokio::test]
async fn its_tasks_end_with_the_broker() {
    let redis = Clustered::start().await;
    redis.nodes.tasks.close();
    let node = redis.join().await;
    node.watch("a").await;
    drop(node);
    tokio::time::timeout(DEADLINE, redis.nodes.tasks.wait())
        .await
        .expect("tasks end when the broker is dropped");
}
