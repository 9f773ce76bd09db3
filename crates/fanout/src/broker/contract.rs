//! The [contract](super) as tests: one property per clause, run against every broker.
//!
//! A [`Cluster`] is what the nodes of one broker have in common, a [`Node`] one of them with the other end of its lanes.
//! Properties speak of nodes and channels only; what is peculiar to Redis is tested beside it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::publication::{Draft, Payload};
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Channel, Publication};
use fanfare_testbed::{PATIENCE, eventually};
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::memory::{Bus, MemoryBroker};
use super::{Broker, BrokerError, Lanes, Link};

/// Shallow, so that the properties also meet full lanes.
const LANE_DEPTH: usize = 64;

/// The longest that any call of a broker under test may take: its own deadline and some slack for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// What nodes have in common.
pub(crate) trait Cluster: Sized {
    async fn start() -> Self;

    /// A node more, whose link is up.
    async fn join(&self) -> Node;

    /// Makes the broker go away, if it can: `false` when it is part of the process and cannot.
    async fn take_away(&mut self) -> bool;

    /// Undoes that.
    async fn bring_back(&mut self);

    /// Breaks what carries publications to the broker, if anything does, while what carries them back goes on.
    async fn cut_publishers_off(&self);
}

/// A broker, and what comes out of its one lane.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn Broker>,
    heard: mpsc::Receiver<Arc<Publication>>,
}

impl Node {
    pub(crate) fn new(make: impl FnOnce(Lanes) -> Arc<dyn Broker>) -> Self {
        let (lanes, mut ends) = Lanes::new(1, LANE_DEPTH);
        Self { broker: make(lanes), heard: ends.0.remove(0) }
    }

    pub(crate) async fn watch(&self, name: &str) {
        self.broker.watch(&channel(name)).await.unwrap();
    }

    pub(crate) async fn publish(&self, name: &str, number: u64) -> Result<(), BrokerError> {
        timeout(DEADLINE, self.broker.publish(draft(name, number)))
            .await
            .expect("a call ends in time")
            .map(|_| ())
    }

    /// The next publication: its channel and number.
    pub(crate) async fn next(&mut self) -> (String, u64) {
        let heard = self.next_whole().await;
        let number = std::str::from_utf8(heard.payload.as_bytes()).unwrap().trim().parse().unwrap();
        (heard.channel.to_string(), number)
    }

    /// The next publication, whatever it says.
    pub(crate) async fn next_whole(&mut self) -> Arc<Publication> {
        timeout(PATIENCE, self.heard.recv()).await.expect("something is heard").expect("the broker lives")
    }

    pub(crate) async fn next_of(&mut self, count: usize) -> Vec<(String, u64)> {
        let mut heard = Vec::with_capacity(count);
        while heard.len() < count {
            heard.push(self.next().await);
        }
        heard
    }

    pub(crate) async fn is_up(&self) {
        eventually("the link is up", async || self.broker.link() == Link::Up).await;
    }

    pub(crate) async fn is_down(&self) {
        eventually("the link is down", async || self.broker.link() == Link::Down).await;
    }

    /// Publishes until this very node hears it, which it must. Returns with nothing left in the lane.
    pub(crate) async fn hears_again(&mut self, name: &str) {
        self.publish(name, u64::MAX).await.unwrap();
        while self.next().await != (name.to_owned(), u64::MAX) {}
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(crate) fn draft(name: &str, number: u64) -> Draft {
    Draft {
        channel: channel(name),
        payload: Payload::parse(&number.to_string()).unwrap(),
        sender: None,
        exclude: None,
        received: UnixMicros(number),
        retention: None,
        key: None,
    }
}

fn numbers(heard: &[(String, u64)], name: &str) -> Vec<u64> {
    heard.iter().filter(|(channel, _)| channel == name).map(|&(_, number)| number).collect()
}

/// Clause 1.
async fn what_is_placed_after_watch_has_answered_is_heard<C: Cluster>() {
    let cluster = C::start().await;
    let (mut node, other) = (cluster.join().await, cluster.join().await);
    for round in 0..50 {
        let name = format!("room:{round}");
        node.watch(&name).await;
        other.publish(&name, 1).await.unwrap();
        node.publish(&name, 2).await.unwrap();
        assert_eq!(node.next_of(2).await, [(name.clone(), 1), (name, 2)]);
    }
    let name = "room:0";
    node.broker.unwatch(&channel(name)).await;
    node.watch(name).await;
    other.publish(name, 3).await.unwrap();
    assert_eq!(node.next().await, (name.to_owned(), 3), "a channel can be watched again");
}

/// Clause 2.
async fn all_nodes_hear_one_order_and_nothing_twice<C: Cluster>() {
    const PUBLISHERS: u64 = 4;
    const EACH: u64 = 500;
    const CHANNELS: [&str; 2] = ["a", "b"];
    let cluster = C::start().await;
    let (mut one, mut two) = (cluster.join().await, cluster.join().await);
    for node in [&one, &two] {
        join_all(CHANNELS.map(|name| node.watch(name))).await;
    }
    let brokers = [one.broker.clone(), two.broker.clone()];
    let publishing = join_all((0..PUBLISHERS).map(|publisher| {
        let broker = &brokers[usize::try_from(publisher % 2).unwrap()];
        async move {
            for number in 0..EACH {
                for name in CHANNELS {
                    broker.publish(draft(name, publisher * EACH + number)).await.unwrap();
                }
            }
        }
    }));
    let all = usize::try_from(PUBLISHERS * EACH).unwrap() * CHANNELS.len();
    let (_, here, there) = tokio::join!(publishing, one.next_of(all), two.next_of(all));
    for name in CHANNELS {
        let (here, there) = (numbers(&here, name), numbers(&there, name));
        let differ = here.iter().zip(&there).position(|(here, there)| here != there);
        assert_eq!(differ, None, "{name}: one order");
        let mut sorted = here;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..PUBLISHERS * EACH), "{name}: each once");
    }
}

/// Clause 3.
async fn drafts_of_one_node_keep_the_order_of_their_first_poll<C: Cluster>() {
    const COUNT: u64 = 10_000;
    let cluster = C::start().await;
    let (mut one, mut two) = (cluster.join().await, cluster.join().await);
    for node in [&one, &two] {
        node.watch("a").await;
    }
    let broker = one.broker.clone();
    let publishing = async {
        let mut under_way = FuturesUnordered::new();
        for number in 0..COUNT {
            let mut call = broker.publish(draft("a", number));
            match futures_util::poll!(&mut call) {
                std::task::Poll::Ready(placed) => assert!(placed.is_ok(), "{placed:?}"),
                std::task::Poll::Pending => under_way.push(call),
            }
            if number % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        while let Some(placed) = under_way.next().await {
            placed.unwrap();
        }
    };
    let count = usize::try_from(COUNT).unwrap();
    let ((), here, there) = tokio::join!(publishing, one.next_of(count), two.next_of(count));
    for heard in [here, there] {
        let numbers = numbers(&heard, "a");
        let astray = numbers.iter().zip(0..).find(|&(&heard, expected)| heard != expected);
        assert_eq!(astray, None, "the first that is out of order, and what belongs in its place");
    }
}

/// Clause 4.
async fn what_is_answered_is_the_truth_even_when_publishers_are_cut_off<C: Cluster>() {
    const COUNT: u64 = 4_000;
    let cluster = C::start().await;
    let (mut node, other) = (cluster.join().await, cluster.join().await);
    node.watch("a").await;
    let broker = other.broker.clone();
    let publishing = async {
        let (mut placed, mut refused) = (HashSet::new(), HashSet::new());
        let mut under_way = FuturesUnordered::new();
        for number in 0..COUNT {
            under_way.push(broker.publish(draft("a", number)).map(move |answer| (number, answer)));
            let cut_off = number % 500 == 250;
            if cut_off {
                cluster.cut_publishers_off().await;
            }
            while under_way.len() > 100 || (cut_off && !under_way.is_empty()) {
                match under_way.next().await.expect("some are under way") {
                    (number, Ok(_)) => placed.insert(number),
                    (number, Err(BrokerError::Unavailable(_) | BrokerError::Busy(_))) => {
                        refused.insert(number)
                    }
                    (_, Err(BrokerError::Timeout(_))) => false, // Nobody knows.
                };
            }
            if cut_off {
                other.is_up().await;
            }
        }
        drop(under_way);
        other.publish("a", u64::MAX).await.unwrap();
        (placed, refused)
    };
    let hearing = async {
        let mut heard = HashSet::new();
        loop {
            match node.next().await.1 {
                u64::MAX => return heard,
                number => assert!(heard.insert(number), "{number} is heard twice"),
            }
        }
    };
    let ((placed, refused), heard) = tokio::join!(publishing, hearing);
    assert!(placed.len() > 1_000, "most are placed: {}", placed.len());
    assert_eq!(placed.difference(&heard).count(), 0, "whatever was acknowledged is heard");
    assert_eq!(refused.intersection(&heard).count(), 0, "whatever was refused is not");
}

/// Clause 5.
async fn an_absent_broker_is_admitted_and_a_returned_one_is_heard<C: Cluster>() {
    let mut cluster = C::start().await;
    let (mut one, mut two) = (cluster.join().await, cluster.join().await);
    let rooms: Vec<_> = (0..50).map(|it| format!("room:{it}")).collect();
    for node in [&one, &two] {
        join_all(rooms.iter().map(|room| node.watch(room))).await;
    }
    if !cluster.take_away().await {
        return;
    }
    for node in [&one, &two] {
        node.is_down().await;
        let failed = node.publish("room:0", 1).await.unwrap_err();
        assert!(matches!(failed, BrokerError::Unavailable(_)), "{failed:?}");
        let watched =
            timeout(DEADLINE, node.broker.watch(&channel("late"))).await.expect("a call ends in time");
        assert!(matches!(watched, Err(BrokerError::Unavailable(_))), "{watched:?}");
        timeout(DEADLINE, node.broker.unwatch(&channel("room:49"))).await.expect("a call ends in time");
    }
    cluster.bring_back().await;
    for node in [&one, &two] {
        node.is_up().await;
    }
    for name in ["late", "room:49"] {
        one.publish(name, 2).await.unwrap(); // Neither is watched, and so neither is heard below.
    }
    for room in &rooms[..49] {
        one.publish(room, 3).await.unwrap();
    }
    let all: Vec<_> = rooms[..49].iter().map(|room| (room.clone(), 3)).collect();
    assert_eq!(one.next_of(49).await, all);
    assert_eq!(two.next_of(49).await, all);
}

/// Clause 6.
async fn what_is_not_watched_is_not_delivered<C: Cluster>() {
    let cluster = C::start().await;
    let (mut node, other) = (cluster.join().await, cluster.join().await);
    for name in ["here", "left"] {
        node.watch(name).await;
    }
    node.broker.unwatch(&channel("left")).await;
    for name in ["left", "never", "here:not", "her", "here"] {
        other.publish(name, 1).await.unwrap();
    }
    assert_eq!(node.next().await, ("here".to_owned(), 1));
    node.hears_again("here").await;
}

/// All clauses for one kind of cluster.
macro_rules! contract {
    ($name:ident, $cluster:ty) => {
        mod $name {
            contract!(@each $cluster:
                what_is_placed_after_watch_has_answered_is_heard
                all_nodes_hear_one_order_and_nothing_twice
                drafts_of_one_node_keep_the_order_of_their_first_poll
                what_is_answered_is_the_truth_even_when_publishers_are_cut_off
                an_absent_broker_is_admitted_and_a_returned_one_is_heard
                what_is_not_watched_is_not_delivered
            );
        }
    };
    (@each $cluster:ty: $($property:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $property() {
                super::$property::<$cluster>().await;
            }
        )+
    };
}

/// Several nodes on one bus.
struct OneProcess(Bus);

impl Cluster for OneProcess {
    async fn start() -> Self {
        Self(Bus::default())
    }

    async fn join(&self) -> Node {
        Node::new(|lanes| Arc::new(MemoryBroker::new(&self.0, lanes)))
    }

    async fn take_away(&mut self) -> bool {
        false
    }

    async fn bring_back(&mut self) {}

    async fn cut_publishers_off(&self) {}
}

contract!(memory, super::OneProcess);
contract!(redis, crate::broker::redis::tests::RealRedis);
