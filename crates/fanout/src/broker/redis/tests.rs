//! The broker against a real redis-server that is stopped, paused, frozen and made to cut connections.

use std::collections::HashSet;

use fanfare_testbed::{RedisServer, eventually};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use redis::cmd;
use tokio::time::Instant;

use super::*;
use crate::broker::contract::{Cluster, DEADLINE, KEPT, Node, channel, draft, kept};

pub(in crate::broker) mod cluster;
mod continuity;
mod history;
mod rest;
mod secure;
pub(in crate::broker) mod sentinel;
pub(in crate::broker) mod sharded;

const TIMEOUT: Duration = Duration::from_millis(1000);
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// What a machine that is busy with other tests may add to a bound.
const SLACK: Duration = Duration::from_secs(1);

/// A server, and nodes that connect to it.
pub(in crate::broker) struct RealRedis {
    server: RedisServer,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    metrics: Arc<Metrics>,
}

impl RealRedis {
    fn on(server: RedisServer) -> Self {
        Self {
            server,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            metrics: Arc::default(),
        }
    }

    fn options(&self) -> RedisOptions {
        RedisOptions {
            mode: RedisMode::Single,
            urls: vec![self.server.url()],
            tls: None,
            prefix: "test".into(),
            timeout: TIMEOUT,
            ping_interval: PING_INTERVAL,
            node: "node one".into(),
        }
    }

    fn join_with(&self, options: &RedisOptions) -> Node {
        Node::new(|lanes| {
            let (metrics, shutdown) = (self.metrics.clone(), self.shutdown.clone());
            Arc::new(RedisBroker::connect(options, &lanes, metrics, &self.tasks, shutdown).unwrap())
        })
    }

    async fn node(&self) -> Node {
        let node = self.join_with(&self.options());
        node.is_up().await;
        node
    }

    /// What PUBSUB CHANNELS shows.
    async fn subscribed(&self) -> usize {
        let channels: Vec<String> = self.server.query(cmd("PUBSUB").arg("CHANNELS")).await;
        channels.len()
    }

    /// A counter or gauge of the nodes together.
    fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("the metric exists").parse().expect("it is a whole number")
    }
}

/// What became of publications during a fail-over, by their numbers.
struct Published {
    placed: Vec<(u64, Position)>,
    refused: HashSet<u64>,
}

/// Publishes as fast as it can until a new primary has taken a hundred, under another epoch. No position names two of them.
async fn published(publisher: &Node, room: &str) -> Published {
    let (mut placed, mut refused, mut epochs) = (Vec::new(), HashSet::new(), HashSet::new());
    let publishing = async {
        let mut under_the_second = 0;
        for number in 0.. {
            match publisher.broker.publish(kept(room, number, KEPT)).await {
                Ok(position) => {
                    let position = position.unwrap();
                    epochs.insert(position.epoch);
                    placed.push((number, position));
                    under_the_second += usize::from(epochs.len() == 2);
                }
                Err(BrokerError::Timeout(_)) => {}
                Err(_) => drop(refused.insert(number)),
            }
            if under_the_second == 100 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let published = tokio::time::timeout(fanfare_testbed::PATIENCE, publishing).await;
    published.expect("the new primary takes publications under another epoch");
    let positions: HashSet<_> = placed.iter().map(|(_, it)| (it.epoch, it.offset.0)).collect();
    assert_eq!(positions.len(), placed.len(), "no position names two publications");
    Published { placed, refused }
}

impl Cluster for RealRedis {
    async fn start() -> Self {
        Self::on(RedisServer::start().await)
    }

    async fn join(&self) -> Node {
        self.node().await
    }

    async fn take_away(&mut self) -> bool {
        self.server.stop().await;
        true
    }

    async fn bring_back(&mut self) {
        self.server.start_again().await;
    }

    async fn forget(&self) -> bool {
        let () = self.server.query(&cmd("FLUSHALL")).await;
        true
    }

    async fn cut_publishers_off(&self) {
        let _: u64 = self.server.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
    }
}

#[tokio::test]
async fn a_restart_loses_no_watch_and_tells_no_lie() {
    let mut redis = RealRedis::start().await;
    let mut node = redis.node().await;
    let rooms: Vec<_> = (0..1_200).map(|it| format!("room:{it}")).collect();
    join_all(rooms.iter().map(|room| node.watch(room))).await;
    assert_eq!(redis.counted("fanfare_broker_watched_channels"), 1_200);
    let broker = node.broker.clone();
    let publishing = async {
        // Calls are under way when it stops. All of them end, and none of those made while it is away succeeds.
        let mut under_way: FuturesUnordered<_> =
            (0..200).map(|it| broker.publish(draft("nobody", it))).collect();
        let ended = async { while under_way.next().await.is_some() {} };
        tokio::time::timeout(DEADLINE, ended).await.expect("calls end");
    };
    tokio::join!(publishing, redis.server.stop());
    node.is_down().await;
    assert_eq!(redis.counted("fanfare_broker_connected"), 0);
    for number in 0..100 {
        assert!(matches!(node.publish("room:0", number).await, Err(BrokerError::Unavailable(_))));
    }
    redis.server.start_again().await;
    node.is_up().await;
    assert_eq!(redis.subscribed().await, 1_200, "the link is up only when everything is watched again");
    assert_eq!(redis.server.calls("subscribe").await, 3, "in batches");
    assert_eq!(redis.counted("fanfare_broker_connected"), 1);
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 1);
    for (number, room) in (0..).zip(&rooms).step_by(100) {
        node.publish(room, number).await.unwrap();
        assert_eq!(node.next().await, (room.clone(), number));
    }
}

/// Redis may execute a publication and drop its answer with the connection: that is neither a success nor a refusal.
#[tokio::test]
async fn what_was_sent_and_never_answered_is_admitted_to_be_unknown() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    // Which of the two Redis takes first when it wakes is its own affair, so this may need a few rounds.
    for round in 0..50 {
        let published = publish_while_killed(&redis, &node, round).await;
        node.is_up().await;
        node.publish("a", u64::MAX).await.unwrap();
        let heard = node.next().await.1 == round;
        assert!(!heard || node.next().await.1 == u64::MAX);
        match published {
            Ok(()) => assert!(heard, "it was answered before the freeze"),
            Err(BrokerError::Timeout(_)) if heard => return,
            Err(BrokerError::Timeout(_)) => {}
            Err(error) => panic!("it had been sent, so nobody may claim that it was not placed: {error}"),
        }
    }
    panic!("no publication was executed and cut off from its answer");
}

/// A frozen server finds a publication and the killing of its connection in its sockets when it wakes.
async fn publish_while_killed(redis: &RealRedis, node: &Node, number: u64) -> Result<(), BrokerError> {
    let mut connection = redis.server.connect().await;
    redis.server.freeze().await;
    let mut published = Box::pin(node.publish("a", number));
    let mut kill = cmd("CLIENT");
    let mut kill = Box::pin(kill.arg("KILL").arg("TYPE").arg("normal").query_async::<u64>(&mut connection));
    let first = futures_util::poll!(&mut published);
    let write = async || {
        // One thread: every task that can run does so before this one runs again, until all is written.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    };
    write().await;
    let _ = futures_util::poll!(&mut kill); // Not answered yet, of course.
    write().await;
    redis.server.thaw().await;
    kill.await.unwrap();
    match first {
        std::task::Poll::Ready(published) => published,
        std::task::Poll::Pending => published.await,
    }
}

#[tokio::test]
async fn a_cut_subscription_is_made_anew() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    for round in 1..=5 {
        assert_eq!(redis.server.kill_pubsub().await, 1);
        eventually("it has reconnected", async || redis.counted("fanfare_broker_reconnects_total") == round)
            .await;
        node.hears_again("a").await;
    }
}

#[tokio::test]
async fn an_unsolicited_unsubscription_is_undone() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    for name in ["a", "b"] {
        node.watch(name).await;
    }
    // Redis cuts off a user who may no longer use the channels it subscribed to, which is the nearest to it that a
    // single server does by itself.
    let acl = |rule: &str| {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg("default").arg("resetchannels").arg(rule);
        command
    };
    let () = redis.server.query(&acl("&other:*")).await;
    node.is_down().await;
    // Connecting succeeds all the while, but subscribing does not: that is not up.
    let attempts = redis.server.calls("hello").await;
    eventually("it has tried a few times", async || redis.server.calls("hello").await >= attempts + 4).await;
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 0);
    let () = redis.server.query(&acl("&*")).await;
    node.is_up().await;
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 1);
    for name in ["a", "b"] {
        node.hears_again(name).await;
    }
}

#[tokio::test]
async fn what_may_not_be_watched_or_published_is_refused_alone() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    let () = redis
        .server
        .query(cmd("ACL").arg("SETUSER").arg("default").arg("resetchannels").arg("&test:c:{a}"))
        .await;
    let refused = node.broker.watch(&channel("b")).await.unwrap_err();
    assert!(matches!(&refused, BrokerError::Unavailable(why) if why.contains("NOPERM")), "{refused:?}");
    let refused = node.publish("b", 1).await.unwrap_err();
    assert!(matches!(&refused, BrokerError::Unavailable(why) if why.contains("NOPERM")), "{refused:?}");
    node.hears_again("a").await;
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 0);
}

#[tokio::test]
async fn a_long_pause_is_noticed_and_survived() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    redis.server.pause(2 * TIMEOUT + PING_INTERVAL + SLACK).await;
    let asked = Instant::now();
    let watched = node.broker.watch(&channel("b"));
    let (published, watched) = tokio::join!(node.publish("a", 1), watched);
    assert!(matches!(published, Err(BrokerError::Timeout(_) | BrokerError::Unavailable(_))), "{published:?}");
    assert!(matches!(watched, Err(BrokerError::Unavailable(_))), "{watched:?}");
    assert!(asked.elapsed() < TIMEOUT + PING_INTERVAL + SLACK, "{:?}", asked.elapsed());
    node.is_down().await;
    node.is_up().await;
    node.hears_again("a").await;
}

#[tokio::test]
async fn a_frozen_server_is_noticed_in_time() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    redis.server.freeze().await;
    let frozen = Instant::now();
    node.is_down().await;
    let noticed = frozen.elapsed();
    assert!(noticed < TIMEOUT + PING_INTERVAL + SLACK, "noticed after {noticed:?}");
    redis.server.thaw().await;
    node.is_up().await;
    node.hears_again("a").await;
}

#[tokio::test]
async fn a_node_may_start_before_redis() {
    let mut redis = RealRedis::on(RedisServer::reserve());
    let mut node = redis.join_with(&redis.options());
    assert_eq!(node.broker.link(), Link::Down);
    assert!(matches!(node.publish("a", 1).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(node.broker.watch(&channel("a")).await, Err(BrokerError::Unavailable(_))));
    redis.server.start_again().await;
    node.is_up().await;
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 0, "that was no loss");
    node.watch("a").await;
    node.hears_again("a").await;
}

#[tokio::test]
async fn watches_are_batched_and_only_what_is_watched_is_subscribed() {
    const COUNT: usize = 5_000;
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    let rooms: Vec<_> = (0..COUNT).map(|it| channel(&format!("room:{it}"))).collect();
    // A task each, as `interest` does it.
    let watching = rooms.iter().map(|room| {
        let (broker, room) = (node.broker.clone(), room.clone());
        redis.tasks.spawn(async move { broker.watch(&room).await })
    });
    for watched in join_all(watching).await {
        watched.unwrap().unwrap();
    }
    assert_eq!(redis.subscribed().await, COUNT);
    let calls = redis.server.calls("subscribe").await;
    assert!(calls < 40, "{COUNT} watches took {calls} calls");
    join_all(rooms[1..].iter().map(|room| node.broker.unwatch(room))).await;
    assert_eq!(redis.subscribed().await, 1);
    let (key, subscribers): (String, u64) =
        redis.server.query(cmd("PUBSUB").arg("NUMSUB").arg("test:c:{room:0}")).await;
    assert_eq!((key.as_str(), subscribers), ("test:c:{room:0}", 1));
    assert_eq!(redis.counted("fanfare_broker_watched_channels"), 1);
}

#[tokio::test]
async fn a_watch_that_nobody_waits_for_is_undone() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    let forsaken = channel("forsaken");
    let mut call = node.broker.watch(&forsaken);
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    node.watch("a").await; // Confirmed later than the forsaken one, and so is what follows.
    eventually("only one is left", async || redis.subscribed().await == 1).await;
    node.hears_again("a").await;
}

#[tokio::test]
async fn what_is_no_envelope_is_dropped_and_counted() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    let too_long = vec![b'x'; envelope::ENVELOPE_BYTES_MAX + 1];
    let hostile: [&[u8]; 5] = [b"", b"{}", b"\x01\x00\xff", &[0; 64], &too_long];
    for bytes in hostile {
        let receivers: u64 = redis.server.query(cmd("PUBLISH").arg("test:c:{a}").arg(bytes)).await;
        assert_eq!(receivers, 1);
    }
    node.hears_again("a").await;
    assert_eq!(redis.counted("fanfare_broker_publications_dropped_total"), hostile.len() as u64);
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 0);
}

#[tokio::test]
async fn a_long_publication_passes_and_one_over_the_bound_is_not_sent() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    let long = |bytes: usize| {
        let json = format!("{}7", " ".repeat(bytes - 1)).into();
        Draft { payload: fanfare_protocol::publication::Payload::from_trusted(json), ..draft("a", 0) }
    };
    let refused = node.broker.publish(long(envelope::ENVELOPE_BYTES_MAX)).await;
    assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
    node.broker.publish(long(1024 * 1024)).await.unwrap();
    assert_eq!(node.next_whole().await.payload.as_bytes().len(), 1024 * 1024);
    node.hears_again("a").await;
}

/// Nothing is read while the lane is full: nothing is lost by it, and PONGs that wait unread are no silence of Redis.
#[tokio::test]
async fn a_full_lane_holds_redis_back_without_a_loss() {
    const COUNT: u64 = 5_000;
    let redis = RealRedis::start().await;
    let (mut slow, other) = (redis.node().await, redis.node().await);
    slow.watch("a").await;
    let began = Instant::now();
    join_all((0..COUNT).map(|number| other.publish("a", number))).await.into_iter().for_each(Result::unwrap);
    for number in 0..COUNT {
        assert_eq!(slow.next().await, ("a".to_owned(), number));
        if began.elapsed() < 4 * TIMEOUT {
            tokio::time::sleep(Duration::from_millis(1)).await; // The slow reader itself, not a wait for anything.
        }
    }
    assert_eq!(
        redis.counted("fanfare_broker_reconnects_total"),
        0,
        "the lane was full, but Redis was not away"
    );
}

#[tokio::test]
async fn an_idle_connection_is_asked_for_a_sign_of_life() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    node.watch("a").await;
    let last_command = async |connection: &str| {
        let clients: String = redis.server.query(cmd("CLIENT").arg("LIST")).await;
        let line = clients.lines().find(|line| line.contains(connection)).unwrap_or_default().to_owned();
        line.split_once(" cmd=").map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
    };
    eventually("a PING on the connection that hears", async || {
        last_command("name=fanfare:node_one:watch").await.as_deref() == Some("ping")
    })
    .await;
    node.publish("a", 1).await.unwrap();
    eventually("a PING on the connection that publishes", async || {
        last_command("name=fanfare:node_one:publish").await.as_deref() == Some("ping")
    })
    .await;
    assert_eq!(node.broker.link(), Link::Up);
}

#[tokio::test]
async fn large_publications_are_bounded_by_their_bytes() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    redis.server.freeze().await;
    let json: Vec<u8> = [b"7".as_slice(), &[b' '; 8 * 1024 * 1024]].concat();
    let payload = fanfare_protocol::publication::Payload::from_trusted(json.into());
    let large = || Draft { payload: payload.clone(), ..draft("a", 0) };
    let mut under_way: FuturesUnordered<_> = (0..10).map(|_| node.broker.publish(large())).collect();
    let mut busy = 0;
    while let Some(answer) = under_way.next().await {
        busy += usize::from(matches!(answer, Err(BrokerError::Busy(_))));
    }
    assert_eq!(busy, 3, "seven of a little over 8 MiB fit into 64 MiB");
    redis.server.thaw().await;
}

#[tokio::test]
async fn too_many_publications_at_once_are_told_so() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    redis.server.freeze().await;
    let more = pipe::QUEUE_MAX as u64 + 10_000;
    let mut under_way: FuturesUnordered<_> =
        (0..more).map(|it| node.broker.publish(draft("a", it))).collect();
    let mut busy = 0;
    while let Some(answer) = under_way.next().await {
        match answer {
            Err(BrokerError::Busy(_)) => busy += 1,
            Err(BrokerError::Unavailable(_) | BrokerError::Timeout(_)) => {}
            Ok(_) => panic!("nothing is placed on a frozen server"),
        }
    }
    assert!(busy > 0, "the queue has a bound");
    redis.server.thaw().await;
}

#[tokio::test]
async fn credentials_work_and_are_never_shown() {
    let redis = RealRedis::start().await;
    let rules = ["on", ">s3cr3t", "~*", "&*", "+@all"];
    let () = redis.server.query(cmd("ACL").arg("SETUSER").arg("gateway").arg(&rules)).await;
    let url = |password: &str| format!("redis://gateway:{password}@127.0.0.1:{}/3", redis.server.port());
    let with = |password: &str| RedisOptions { urls: vec![url(password)], ..redis.options() };
    let mut node = redis.join_with(&with("s3cr3t"));
    node.is_up().await;
    node.watch("a").await;
    node.hears_again("a").await;
    let clients: String = redis.server.query(cmd("CLIENT").arg("LIST")).await;
    for name in ["name=fanfare:node_one:watch", "name=fanfare:node_one:publish"] {
        assert!(
            clients.lines().any(|line| line.contains(name) && line.contains("user=gateway")),
            "{clients}"
        );
    }
    assert!(!format!("{:?} {:?}", with("s3cr3t"), node.broker).contains("s3cr3t"));
    let stranger = redis.join_with(&with("wrong"));
    assert!(matches!(stranger.publish("a", 1).await, Err(BrokerError::Unavailable(_))));
    assert_eq!(stranger.broker.link(), Link::Down);
}

#[tokio::test]
async fn impossible_options_are_refused_without_quoting_them() {
    let (lanes, _ends) = Lanes::new(1, 1);
    let connect = |urls: &[&str], prefix: &str| {
        let options = RedisOptions {
            mode: RedisMode::Single,
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            tls: None,
            prefix: prefix.to_owned(),
            timeout: TIMEOUT,
            ping_interval: PING_INTERVAL,
            node: String::new(),
        };
        let shutdown = CancellationToken::new();
        RedisBroker::connect(&options, &lanes, Arc::default(), &TaskTracker::new(), shutdown).unwrap_err()
    };
    let good = "redis://127.0.0.1:1";
    assert_eq!(connect(&[], "p"), RedisOptionsError::NotOneUrl { urls: 0 });
    assert_eq!(connect(&[good, good], "p"), RedisOptionsError::NotOneUrl { urls: 2 });
    for url in ["", "http://a", "redis://:s3cr3t@:x", "rediss://user:s3cr3t@a:1/#insecure", "redis+unix:///a"]
    {
        assert_eq!(connect(&[url], "p"), RedisOptionsError::Url, "{url}");
    }
    assert_eq!(connect(&["rediss://user:s3cr3t@a:1"], "p"), RedisOptionsError::Trust);
    assert_eq!(connect(&[good], ""), RedisOptionsError::Prefix);
}

#[tokio::test]
async fn its_tasks_end_with_the_broker_and_with_the_node() {
    let redis = RealRedis::start().await;
    redis.tasks.close();
    let node = redis.node().await;
    node.watch("a").await;
    drop(node);
    tokio::time::timeout(DEADLINE, redis.tasks.wait()).await.expect("tasks end when the broker is dropped");
    eventually("its connections are gone", async || redis.subscribed().await == 0).await;
    let node = redis.node().await;
    redis.shutdown.cancel();
    tokio::time::timeout(DEADLINE, redis.tasks.wait()).await.expect("tasks end on shutdown");
    assert!(matches!(node.publish("a", 1).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(node.broker.watch(&channel("a")).await, Err(BrokerError::Unavailable(_))));
    node.broker.unwatch(&channel("a")).await;
}
