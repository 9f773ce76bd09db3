//! What is true of the book in Redis alone: its cost in commands, and what becomes of it when Redis is lost.

use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::broker::redis::{RedisBroker, RedisMode};
use fanfare_fanout::broker::{BrokerError, Lanes};
use fanfare_fanout::presence::redis::RedisPresence;
use fanfare_fanout::presence::{After, Change, Presence, Seat, Step, Writer};
use fanfare_metrics::Metrics;
use fanfare_testbed::{RedisServer, eventually};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::{Cluster, HEARTBEAT, channel, member, options};

/// A storm of ten thousand is a handful of commands, and at rest a node costs a few per heartbeat whatever it holds.
#[tokio::test]
async fn ten_thousand_members_cost_redis_a_bounded_number_of_commands() {
    let mut cluster = Cluster::on_redis().await;
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    two.becomes((0, 0)).await;
    let scripts = cluster.redis().calls("evalsha").await;
    for session in 1..=10_000 {
        one.enter("", session);
    }
    two.becomes((10_000, 10_000)).await;
    let storm = cluster.redis().calls("evalsha").await - scripts;
    assert!(storm <= 100, "{storm} scripts");

    let commands = cluster.redis().commands().await;
    sleep_until(Instant::now() + 2 * HEARTBEAT).await;
    let rest = cluster.redis().commands().await - commands;
    assert!(rest <= 300, "{rest} commands of two nodes in two intervals");
    assert_eq!(two.counts().await, (10_000, 10_000));
}

/// A Redis that comes back empty is told who is there, and nobody else is told anything.
#[tokio::test]
async fn a_redis_that_comes_back_empty_is_written_again_in_silence() {
    let mut cluster = Cluster::on_redis().await;
    cluster.grace = Duration::from_millis(200);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    one.enter("bob", 2);
    eve.hears(&["joined ann/1", "joined bob/2"]).await;
    cluster.redis().stop().await;
    one.leave(2);
    cluster.redis().start_again().await;
    eve.hears(&["left bob/2"]).await;
    two.becomes((2, 2)).await;
    sleep_until(Instant::now() + 2 * HEARTBEAT).await;
    assert!(eve.heard().is_empty());
    assert_eq!(two.names().await, ["ann/1", "eve/9"]);
    one.enter("carol", 3);
    eve.hears(&["joined carol/3"]).await;
}

/// A book without a desk, and the broker that it is beside.
fn book_on(server: &RedisServer) -> (RedisPresence, RedisBroker) {
    let (lanes, _) = Lanes::new(1, 64);
    let options = options(RedisMode::Single, vec![server.url()], "one");
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let broker = RedisBroker::connect(&options, &lanes, Arc::new(Metrics::new()), &tasks, shutdown).unwrap();
    (RedisPresence::beside(&broker), broker)
}

#[tokio::test]
async fn a_replica_is_neither_read_nor_written() {
    let primary = RedisServer::start().await;
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let (book, _broker) = book_on(&replica);
    let answer = book.crowd(channel(), true).await;
    let Err(BrokerError::Unavailable(reason)) = answer else { panic!("it answers: {answer:?}") };
    assert!(reason.contains("replica"), "{reason}");
}

/// When Redis is back all seats may be cold: nobody may judge them before it has noticed.
#[tokio::test]
async fn whoever_has_no_seat_in_this_life_clears_none() {
    let mut server = RedisServer::start_durable().await;
    let (book, _broker) = book_on(&server);
    let (dead, mine, next) = (Seat::new("dead"), Seat::new("mine"), Seat::new("next"));
    book.beat(dead.clone(), Duration::from_millis(1), true).await.unwrap();
    let change = Change { channel: channel(), step: Step::Enter(Arc::new(member("ann", 1))) };
    book.write(Writer { seat: dead, before: None }, vec![change]).await.unwrap();
    book.beat(mine.clone(), Duration::from_secs(60), true).await.unwrap();
    server.stop().await;
    server.start_again().await;
    let is_back = async || book.crowd(channel(), false).await.is_ok();
    eventually("redis is back", is_back).await;
    assert!(matches!(book.sweep().await, Ok(false)));
    assert!(!book.beat(mine, Duration::from_secs(60), false).await.unwrap().is_warm);
    book.beat(next, Duration::from_secs(60), true).await.unwrap();
    assert!(matches!(book.sweep().await, Ok(true)));
}

/// A write that was on its way while its seat was cleared comes too late, and its node hears so.
#[tokio::test]
async fn nothing_is_written_under_a_seat_that_has_been_cleared() {
    let server = RedisServer::start().await;
    let (book, _broker) = book_on(&server);
    let dead = Writer { seat: Seat::new("dead"), before: None };
    let enters =
        |user, session| Change { channel: channel(), step: Step::Enter(Arc::new(member(user, session))) };
    book.beat(dead.seat.clone(), Duration::from_millis(1), true).await.unwrap();
    book.write(dead.clone(), vec![enters("ann", 1)]).await.unwrap();
    let is_cleared =
        async || !book.sweep().await.unwrap() && book.crowd(channel(), true).await.unwrap().users == 0;
    eventually("the dead are gone", is_cleared).await;
    let answer = book.write(dead, vec![enters("bob", 2)]).await.unwrap();
    assert_eq!(answer, [After::Cleared]);
    assert_eq!(book.crowd(channel(), true).await.unwrap().connections, 0);
}
