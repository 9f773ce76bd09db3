//! Subscribers of a whole node, while the server is replaced by one that has its data: nothing is lost, and they are told so.

use std::task::{Context, Poll, Waker};

use fanfare_protocol::command::Start;
use fanfare_protocol::event::Entry;
use fanfare_protocol::publication::Offset;
use fanfare_protocol::session::Terms;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Encoding, SessionId};

use super::sentinel::Watched;
use super::*;
use crate::broker::contract::{KEPT, kept};
use crate::outbox::{Batch, Order, Outbox};
use crate::{Hub, HubOptions};

/// A node's hub, and its subscribers.
struct Gateway {
    hub: Arc<Hub>,
    subscribers: Vec<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    outbox: Arc<Outbox>,
    seen: Position,
    is_lost: bool,
}

impl Gateway {
    async fn start(redis: &RealRedis, options: &RedisOptions, subscribers: usize) -> Self {
        let (lanes, ends) = Lanes::new(1, 1024);
        let (metrics, shutdown) = (redis.metrics.clone(), redis.shutdown.clone());
        let broker = RedisBroker::connect(options, &lanes, metrics, &redis.tasks, shutdown).unwrap();
        let options = HubOptions {
            broker_timeout: DEADLINE,
            check_interval: Duration::from_secs(1),
            now: || fanfare_protocol::time::UnixMicros(0),
        };
        let hub = Hub::start(Arc::new(broker), ends, Arc::default(), &redis.tasks, options);
        eventually("the link is up", async || hub.link() == Link::Up).await;
        let mut gateway = Self { hub, subscribers: Vec::new() };
        for number in 0..subscribers {
            let session = SessionId::from_random([u8::try_from(number).unwrap(); 16]);
            let outbox = Outbox::new(session, Encoding::NativeJson, 1 << 20);
            let entry = gateway.subscribe(&outbox, Start::Live).await;
            gateway.subscribers.push(Subscriber { outbox, seen: entry.position, is_lost: false });
        }
        gateway
    }

    async fn subscribe(&self, outbox: &Arc<Outbox>, start: Start) -> Entry {
        let terms = Terms { start, history: true, ..Terms::default() };
        let entry = self.hub.subscribe(&channel("a"), outbox, terms).await.unwrap().unwrap();
        self.hub.go_live(&channel("a"), outbox, Frame::text("reply"));
        entry
    }

    async fn publish(&self, numbers: std::ops::RangeInclusive<u64>) -> Position {
        let mut last = None;
        for number in numbers {
            last = self.hub.publish(kept("a", number, KEPT)).await.unwrap();
        }
        last.expect("it is kept")
    }

    /// Every subscriber hears all up to there, and what was published in each place.
    async fn hear_up_to(&mut self, offset: u64) {
        for subscriber in &mut self.subscribers {
            eventually("all is heard", async || {
                subscriber.read();
                subscriber.seen.offset >= Offset(offset)
            })
            .await;
            assert!(!subscriber.is_lost);
        }
    }

    /// Every subscriber is told that its place is lost, and comes back since what it has heard.
    async fn are_told_and_come_back(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for number in 0..self.subscribers.len() {
            let subscriber = &mut self.subscribers[number];
            eventually("it is told", async || {
                subscriber.read();
                subscriber.is_lost
            })
            .await;
            self.hub.unsubscribe(&channel("a"), &subscriber.outbox);
            let (outbox, since) = (subscriber.outbox.clone(), subscriber.seen);
            let entry = self.subscribe(&outbox, Start::Since(since)).await;
            let subscriber = &mut self.subscribers[number];
            (subscriber.is_lost, subscriber.seen.epoch) = (false, entry.position.epoch);
            entries.push(entry);
        }
        entries
    }
}

impl Subscriber {
    fn read(&mut self) {
        let cx = &Context::from_waker(Waker::noop());
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            assert_eq!(order, Order::Lost { channel: channel("a") });
            self.is_lost = true;
        }
        let mut batch = Batch::default();
        while self.outbox.poll_take(cx, &mut batch).is_ready() {
            for frame in std::mem::take(&mut batch).frames {
                let text = String::from_utf8_lossy(&frame).into_owned();
                let Some((_, rest)) = text.split_once("\"offset\":") else { continue };
                self.seen.offset.0 += 1;
                let expected = self.seen.offset.0;
                assert!(rest.starts_with(&format!("{expected},")), "in order: {text}");
                assert!(rest.contains(&format!("\"data\":{expected}")), "what was published there: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_restart_from_disk_costs_nobody_a_message() {
    let mut redis = RealRedis::on(RedisServer::start_durable().await);
    let mut gateway = Gateway::start(&redis, &redis.options(), 3).await;
    let before = gateway.publish(1..=20).await;
    gateway.hear_up_to(20).await;
    for round in 1..=2 {
        redis.server.stop().await;
        eventually("the link is down", async || gateway.hub.link() == Link::Down).await;
        redis.server.start_again().await;
        eventually("the link is up", async || gateway.hub.link() == Link::Up).await;
        let last = gateway.publish(20 + round..=20 + round).await;
        assert_ne!(last.epoch, before.epoch);
        let entries = gateway.are_told_and_come_back().await;
        assert!(entries.iter().all(|it| it.recovered && it.position.epoch == last.epoch), "{entries:?}");
        gateway.hear_up_to(20 + round).await;
    }
    let fresh = Outbox::new(SessionId::from_random([9; 16]), Encoding::NativeJson, 1 << 20);
    let entry = gateway.subscribe(&fresh, Start::Since(Position { offset: Offset(3), ..before })).await;
    assert!(entry.recovered, "whoever was away for both");
    let of_no_stream = Position { offset: Offset(21), ..before };
    gateway.hub.unsubscribe(&channel("a"), &fresh);
    let entry = gateway.subscribe(&fresh, Start::Since(of_no_stream)).await;
    assert!(!entry.recovered, "21 was published under another epoch: this one would be lost");
}

#[tokio::test]
async fn a_failover_costs_nobody_a_message_that_the_replica_has() {
    let mut watched = Watched::start().await;
    let mut gateway = Gateway::start(watched.nodes(), &watched.options(), 3).await;
    watched.servers().are_ready().await;
    gateway.publish(1..=20).await;
    gateway.hear_up_to(20).await;
    watched.servers().servers()[0].is_copied().await;
    watched.servers_mut().servers_mut()[0].stop().await;
    eventually("the link is down", async || gateway.hub.link() == Link::Down).await;
    eventually("the link is up", async || gateway.hub.link() == Link::Up).await;
    gateway.publish(21..=25).await;
    let entries = gateway.are_told_and_come_back().await;
    assert!(entries.iter().all(|it| it.recovered), "{entries:?}");
    gateway.hear_up_to(25).await;
}

/// They share the node's reads, so that Redis does not notice how many there are.
#[tokio::test]
async fn a_thousand_who_come_back_at_once_cost_redis_a_few_commands() {
    let redis = RealRedis::on(RedisServer::start().await);
    let top = Gateway::start(&redis, &redis.options(), 0).await.publish(1..=100).await;
    let gateway = Gateway::start(&redis, &redis.options(), 0).await; // Which knows nothing of the channel.
    let before = (redis.server.calls("xrange").await, redis.server.calls("evalsha").await);
    let coming_back = (0..1_000_u64).map(async |number| {
        let session = SessionId::from_random(u128::from(number).to_be_bytes());
        let outbox = Outbox::new(session, Encoding::NativeJson, 1 << 20);
        let since = Position { offset: Offset(number % 100), ..top };
        let entry = gateway.subscribe(&outbox, Start::Since(since)).await;
        assert_eq!(entry, Entry { position: top, recovered: true });
        let mut subscriber = Subscriber { outbox, seen: since, is_lost: false };
        subscriber.read();
        assert_eq!(subscriber.seen, top, "all that was missed, in order");
        subscriber
    });
    let subscribers = join_all(coming_back).await;
    let (reads, scripts) =
        (redis.server.calls("xrange").await - before.0, redis.server.calls("evalsha").await - before.1);
    assert!((1..=3).contains(&reads), "{reads} reads for {}", subscribers.len());
    assert!(scripts <= 10, "{scripts} scripts");
}
