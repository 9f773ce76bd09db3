//! History while Redis fails: whatever goes wrong, an acknowledged draft is in the stream and was published, a refused one
//! is neither.

use std::collections::{BTreeMap, HashMap};

use fanfare_protocol::Publication;
use fanfare_protocol::publication::{Epoch, Offset};

use super::*;
use crate::broker::contract::{KEPT, kept, keyed};

const ALL: Query = Query { since: None, limit: 1_000_000, reverse: false };

/// What publishers were told of their drafts, by number.
#[derive(Default)]
struct Told {
    placed: HashMap<u64, Position>,
    refused: HashMap<u64, BrokerError>,
    /// Nobody knows.
    unknown: usize,
}

impl Told {
    /// Publishes drafts of these numbers, some at once.
    async fn publish(&mut self, node: &Node, numbers: std::ops::Range<u64>) {
        let asked = numbers.map(|number| {
            let broker = node.broker.clone();
            async move { (number, broker.publish(kept("a", number, KEPT)).await) }
        });
        let mut answers = futures_util::stream::iter(asked).buffered(100);
        while let Some((number, answer)) = answers.next().await {
            match answer {
                Ok(position) => drop(self.placed.insert(number, position.expect("it is kept"))),
                Err(BrokerError::Timeout(_)) => self.unknown += 1,
                Err(error) => drop(self.refused.insert(number, error)),
            }
        }
    }

    /// Compares with the stream and with what a node has heard of it since its beginning.
    async fn is_the_truth(&self, node: &mut Node) {
        let page = node.page("a", ALL).await;
        assert!(page.publications.iter().map(|it| it.offset().0).eq(1..=page.top.0), "consecutive");
        let kept: BTreeMap<u64, Position> =
            page.publications.iter().map(|it| (number(it), it.position.unwrap())).collect();
        assert_eq!(kept.len(), page.publications.len(), "nothing twice");
        for (number, position) in &self.placed {
            assert_eq!(kept.get(number), Some(position), "{number} was acknowledged");
        }
        for (number, error) in &self.refused {
            assert!(!kept.contains_key(number), "{number} was refused: {error}");
        }
        assert!(kept.len() <= self.placed.len() + self.unknown);
        for expected in &page.publications {
            assert_eq!(node.next_whole().await, *expected, "what is kept was heard");
        }
        node.hears_again("a").await;
    }
}

fn number(publication: &Publication) -> u64 {
    std::str::from_utf8(publication.payload.as_bytes()).unwrap().parse().unwrap()
}

async fn set(redis: &RealRedis, name: &str, value: &str) {
    let () = redis.server.query(cmd("CONFIG").arg("SET").arg(name).arg(value)).await;
}

/// The error of a draft that must be refused.
async fn refusal(node: &Node, name: &str, number: u64) -> String {
    let refused = node.broker.publish(keyed(name, number, "key", KEPT)).await;
    let Err(BrokerError::Unavailable(why)) = refused else { panic!("not refused: {refused:?}") };
    why.to_string()
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_told_by_its_cause_and_changes_nothing() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    for name in ["a", "plain"] {
        node.watch(name).await;
    }
    for (round, (setting, bad, good, class)) in
        (1..).zip([("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")])
    {
        let placed = node.place(kept("a", round, KEPT)).await;
        assert_eq!((placed.offset.0, node.next_whole().await.position), (round, Some(placed)));
        set(&redis, setting, bad).await;
        for name in ["a", "never"] {
            let why = refusal(&node, name, 99).await;
            assert!(why.starts_with(class), "{why}");
        }
        let unborn = node.broker.history(&channel("unborn"), ALL).await;
        assert!(
            matches!(&unborn, Err(BrokerError::Unavailable(why)) if why.starts_with(class)),
            "{unborn:?}"
        );
        assert_eq!(node.page("a", ALL).await.position(), placed, "reading goes on");
        node.hears_again("plain").await; // What is not kept needs no memory, and nothing refused is heard before it.
        set(&redis, setting, good).await;
        assert_eq!(node.position("never").await, None);
    }
    assert_eq!(node.place(keyed("a", 3, "key", KEPT)).await.offset, Offset(3), "its key was not remembered");
    assert_eq!(redis.counted("fanfare_broker_reconnects_total"), 0);
}

#[tokio::test]
async fn what_may_not_be_published_was_never_appended() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    let first = node.place(kept("b", 1, KEPT)).await;
    let only = |rule: &str| {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg("default").arg("resetchannels").arg(rule);
        command
    };
    let () = redis.server.query(&only("&test:c:{a}")).await;
    for name in ["b", "c"] {
        let why = refusal(&node, name, 2).await;
        assert!(why.contains("publish"), "{why}"); // Redis 7.0 has no NOPERM inside a script.
    }
    assert_eq!(node.page("b", ALL).await.position(), first);
    assert_eq!(node.page("b", ALL).await.publications.len(), 1);
    node.hears_again("a").await;
    let () = redis.server.query(&only("&*")).await;
    let second = node.place(keyed("b", 2, "key", KEPT)).await;
    assert_eq!(second, Position { offset: Offset(2), ..first }, "and its key was not remembered");
    assert_eq!(node.place(keyed("c", 2, "key", KEPT)).await.offset, Offset(1));
}

#[tokio::test]
async fn a_busy_server_refuses_and_recovers() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    set(&redis, "busy-reply-threshold", "20").await;
    let (mut endless, mut control) = (redis.server.connect().await, redis.server.connect().await);
    let running = redis.tasks.spawn(async move {
        cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut endless).await
    });
    eventually("a draft is refused for that", async || {
        let answer = node.broker.publish(kept("a", 1, KEPT)).await;
        matches!(answer, Err(BrokerError::Unavailable(why)) if why.starts_with("BUSY"))
    })
    .await;
    let () = cmd("SCRIPT").arg("KILL").query_async(&mut control).await.unwrap();
    running.await.unwrap().unwrap_err();
    node.is_up().await;
    let before = node.page("a", ALL).await;
    assert_eq!(node.place(kept("a", 2, KEPT)).await.offset.0, before.top.0 + 1);
}

#[tokio::test]
async fn a_script_flush_tells_no_lie_and_reorders_nothing() {
    const COUNT: u64 = 8_000;
    let redis = RealRedis::start().await;
    let (mut node, publisher, other) = (redis.node().await, redis.node().await, redis.node().await);
    node.watch("a").await;
    let mut told = Told::default();
    let publishing = async {
        for start in (0..COUNT).step_by(1_000) {
            let flush = async {
                let () = redis.server.query(cmd("SCRIPT").arg("FLUSH")).await;
                other.page("a", ALL).await; // Reading is repeated, and so never fails for it.
            };
            tokio::join!(told.publish(&publisher, start..start + 1_000), flush);
        }
    };
    let mut heard = Vec::new();
    let hearing = async {
        loop {
            let it = node.next_whole().await;
            heard.push(number(&it));
        }
    };
    tokio::select! { () = publishing => {} () = hearing => {} }
    assert!(told.placed.len() as u64 > COUNT / 4, "most are placed: {}", told.placed.len());
    assert!(told.refused.values().all(|why| why.to_string().contains("NOSCRIPT")), "{:?}", told.refused);
    let page = node.page("a", ALL).await;
    let kept: Vec<_> = page.publications.iter().map(|it| number(it)).collect();
    assert!(kept.is_sorted(), "none has overtaken another");
    assert_eq!(kept.len(), told.placed.len());
    assert!(kept.iter().all(|number| told.placed.contains_key(number)));
    while heard.len() < kept.len() {
        heard.push(number(&*node.next_whole().await));
    }
    assert_eq!(heard, kept);
}

/// One that waits for its answers is refused once; the pipe has loaded the script by the time it tries again.
#[tokio::test]
async fn after_a_script_flush_the_next_attempt_succeeds() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    for round in 1..=3 {
        let () = redis.server.query(cmd("SCRIPT").arg("FLUSH")).await;
        let why = refusal(&node, "a", round).await;
        assert!(why.starts_with("NOSCRIPT"), "{why}");
        let key = format!("key {round}");
        assert_eq!(
            node.place(keyed("a", round, &key, KEPT)).await.offset.0,
            round,
            "nothing was done before"
        );
        assert_eq!(node.next().await, ("a".to_owned(), round));
    }
}

#[tokio::test]
async fn pauses_freezes_and_cut_connections_are_told_as_they_are() {
    let redis = RealRedis::start().await;
    let (node, publisher) = (redis.node().await, redis.node().await);
    let mut told = Told::default();
    let mut start = 0;
    for round in 0..6 {
        let fault = async {
            match round % 3 {
                0 => redis.server.pause(2 * TIMEOUT).await,
                1 => {
                    redis.server.freeze().await;
                    publisher.is_down().await;
                    redis.server.thaw().await;
                }
                _ => redis.cut_publishers_off().await,
            }
        };
        tokio::join!(told.publish(&publisher, start..start + 300), fault);
        publisher.is_up().await;
        node.is_up().await;
        told.publish(&publisher, start + 300..start + 310).await;
        start += 310;
    }
    assert!(told.placed.len() >= 60, "those between the faults are placed: {}", told.placed.len());
    let page = node.page("a", ALL).await;
    let kept: HashMap<_, _> = page.publications.iter().map(|it| (number(it), it.position.unwrap())).collect();
    assert!(page.publications.iter().map(|it| it.offset().0).eq(1..=page.top.0), "consecutive");
    assert!(told.placed.iter().all(|(number, position)| kept.get(number) == Some(position)));
    assert!(told.refused.keys().all(|number| !kept.contains_key(number)));
    assert!(kept.len() <= told.placed.len() + told.unknown);
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_is_left_and_taken_back() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    node.place(kept("a", 1, KEPT)).await;
    let nowhere = fanfare_testbed::free_port();
    let () = redis.server.query(cmd("REPLICAOF").arg("127.0.0.1").arg(nowhere)).await;
    let why = refusal(&node, "a", 2).await;
    assert!(why.starts_with("READONLY"), "{why}");
    node.is_down().await;
    let attempts = redis.server.calls("script|load").await;
    eventually("it is tried again and again", async || {
        redis.server.calls("script|load").await > attempts + 4
    })
    .await;
    assert_eq!(node.broker.link(), Link::Down);
    assert!(
        matches!(node.publish("plain", 1).await, Err(BrokerError::Unavailable(_))),
        "it would not be heard"
    );
    let () = redis.server.query(cmd("REPLICAOF").arg("NO").arg("ONE")).await;
    node.is_up().await;
    assert_eq!(node.place(keyed("a", 2, "key", KEPT)).await.offset, Offset(2));
    assert_eq!(node.next().await, ("a".to_owned(), 1));
    assert_eq!(node.next().await, ("a".to_owned(), 2));
}

#[tokio::test]
async fn a_restart_without_a_disk_begins_another_epoch() {
    let mut redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    let mut told = Told::default();
    told.publish(&node, 0..50).await;
    let before = node.page("a", ALL).await;
    redis.server.stop().await;
    node.is_down().await;
    assert!(matches!(node.broker.history(&channel("a"), ALL).await, Err(BrokerError::Unavailable(_))));
    let positions = node.broker.positions(vec![channel("a")]).await;
    assert!(matches!(positions[..], [Err(BrokerError::Unavailable(_))]), "{positions:?}");
    redis.server.start_again().await;
    node.is_up().await;
    while node.next().await.1 != 49 {}
    let mut told = Told::default();
    told.publish(&node, 100..150).await;
    told.is_the_truth(&mut node).await;
    assert_ne!(node.page("a", ALL).await.epoch, before.epoch);
}

/// What a failover to a replica, or a restart from an older disk, may have lost, nobody can tell: so the same offset of
/// the same epoch must never come twice.
#[tokio::test]
async fn another_life_of_the_server_is_another_epoch_of_the_same_stream() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    let mut epochs: Vec<Epoch> = Vec::new();
    let meta = "test:m:{a}";
    for number in 1..=6 {
        let () = redis.server.query(cmd("HSET").arg(meta).arg("life").arg("another")).await;
        match number % 3 {
            0 => drop(node.page("a", ALL).await),
            1 => assert_ne!(node.position("a").await.map(|it| it.epoch), epochs.last().copied()),
            _ => {}
        }
        let position = node.place(kept("a", number, KEPT)).await;
        assert_eq!(position.offset.0, number, "offsets go on");
        assert!(!epochs.contains(&position.epoch));
        epochs.push(position.epoch);
        assert_eq!(node.position("a").await, Some(position), "until the next life");
    }
    let page = node.page("a", ALL).await;
    assert_eq!(page.epoch, epochs[5]);
    let kept_epochs = page.publications.iter().map(|it| it.position.unwrap().epoch);
    assert!(kept_epochs.eq(epochs), "an entry keeps the position that it was placed under");
}

#[tokio::test]
async fn where_a_stream_stands_outlives_what_was_published() {
    const DAY: i64 = 24 * 3600 * 1000;
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    let left = async |key: &str| -> i64 { redis.server.query(cmd("PTTL").arg(key)).await };
    let near = |left: i64, ttl: i64| (ttl - 60_000..=ttl).contains(&left);
    node.place(keyed("a", 1, "k}{", KEPT)).await;
    assert!(near(left("test:s:{a}").await, 300_000));
    assert!(near(left("test:i:{a}:k}{").await, 300_000));
    assert!(near(left("test:m:{a}").await, DAY));
    let long = fanfare_protocol::publication::Retention { ttl: Duration::from_secs(3 * 24 * 3600), ..KEPT };
    node.place(kept("a", 2, long)).await;
    assert!(near(left("test:m:{a}").await, 6 * DAY), "twice as long as what was published");
    node.position("a").await;
    assert!(near(left("test:m:{a}").await, 6 * DAY), "long enough");
    let _: i64 = redis.server.query(cmd("PEXPIRE").arg("test:m:{a}").arg(DAY / 3)).await;
    eventually("whoever watches keeps it", async || {
        node.position("a").await;
        near(left("test:m:{a}").await, DAY)
    })
    .await;
    node.page("asked", ALL).await;
    assert!(near(left("test:m:{asked}").await, DAY));
}

#[tokio::test]
async fn a_stream_without_its_meta_is_dropped() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    for reads in [true, false] {
        let before = node.place(kept("a", 1, KEPT)).await;
        let _: i64 = redis.server.query(cmd("DEL").arg("test:m:{a}")).await;
        assert_eq!(node.position("a").await, None);
        if reads {
            assert_eq!(node.page("a", ALL).await.publications.len(), 0);
        }
        let after = node.place(kept("a", 2, KEPT)).await;
        assert!(after.epoch != before.epoch && after.offset == Offset(1));
        assert_eq!(node.page("a", ALL).await.publications.len(), 1);
        let _: i64 = redis.server.query(cmd("DEL").arg("test:m:{a}")).await;
    }
}

#[tokio::test]
async fn losses_are_those_of_the_connection_that_hears() {
    let redis = RealRedis::start().await;
    let mut node = redis.node().await;
    node.watch("a").await;
    assert_eq!(node.broker.losses(), 0);
    for round in 1..=3 {
        redis.server.kill_pubsub().await;
        eventually("the loss is counted", async || node.broker.losses() == round).await;
        node.is_up().await;
        redis.cut_publishers_off().await;
        eventually("it has reconnected", async || {
            redis.counted("fanfare_broker_reconnects_total") >= 2 * round
        })
        .await;
        node.hears_again("a").await;
        assert_eq!(node.broker.losses(), round);
    }
}

#[tokio::test]
async fn what_is_no_envelope_in_a_stream_is_passed_over_and_counted() {
    let redis = RealRedis::start().await;
    let node = redis.node().await;
    node.place(kept("a", 1, KEPT)).await;
    let _: String =
        redis.server.query(cmd("XADD").arg("test:s:{a}").arg("1-1").arg("e").arg("rubbish")).await;
    node.place(kept("a", 2, KEPT)).await;
    let page = node.page("a", ALL).await;
    assert_eq!(page.publications.iter().map(|it| number(it)).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(redis.counted("fanfare_broker_publications_dropped_total"), 1);
}
