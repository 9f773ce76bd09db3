//! The [contract](super) as tests: one property per clause, run against every broker.
//!
//! A [`Cluster`] is what the nodes of one broker have in common, a [`Node`] one of them with the other end of its lanes.
//! Properties speak of nodes and channels only; what is peculiar to Redis is tested beside it.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Epoch, IdempotencyKey, Offset, Payload, Position, Retention};
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Channel, Publication};
use fanfare_testbed::{PATIENCE, eventually};
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::memory::{Bus, MemoryBroker};
use super::{Broker, BrokerError, Heard, Lanes, Link};

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

    /// Makes the broker forget all streams, if it can: `false` when it cannot.
    async fn forget(&self) -> bool;

    /// Breaks what carries publications to the broker, if anything does, while what carries them back goes on.
    async fn cut_publishers_off(&self);
}

/// A broker, and what comes out of its one lane.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn Broker>,
    heard: mpsc::Receiver<Heard>,
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

    /// Publishes on a channel with history, which must succeed.
    pub(crate) async fn place(&self, draft: Draft) -> Position {
        let placed = timeout(DEADLINE, self.broker.publish(draft)).await.expect("a call ends in time");
        placed.unwrap().expect("a channel with history has positions")
    }

    /// Reads history, which must succeed.
    pub(crate) async fn page(&self, name: &str, query: Query) -> Page {
        let page = timeout(DEADLINE, self.broker.history(&channel(name), query)).await;
        page.expect("a call ends in time").unwrap()
    }

    /// Where one channel stands.
    pub(crate) async fn position(&self, name: &str) -> Option<Position> {
        let positions = timeout(DEADLINE, self.broker.positions(vec![channel(name)])).await;
        positions.expect("a call ends in time").swap_remove(0).unwrap()
    }

    /// Whether the lane takes no more.
    pub(crate) fn is_full(&self) -> bool {
        self.heard.len() == LANE_DEPTH
    }

    /// The next publication: its channel and number.
    pub(crate) async fn next(&mut self) -> (String, u64) {
        let heard = self.next_whole().await;
        (heard.channel.to_string(), number(&heard))
    }

    /// The next publication, whatever it says.
    pub(crate) async fn next_whole(&mut self) -> Arc<Publication> {
        match self.next_heard().await {
            Heard::Publication(publication) => publication,
            Heard::Removal(channel) => panic!("nothing was removed from {channel}"),
        }
    }

    async fn next_heard(&mut self) -> Heard {
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
        trace: None,
    }
}

/// Far more and far longer than any property needs.
pub(crate) const KEPT: Retention = Retention {
    size: NonZeroU32::new(100_000).unwrap(),
    ttl: Duration::from_secs(300),
    idempotency_ttl: Duration::from_secs(300),
};

/// A draft for a channel with history.
pub(crate) fn kept(name: &str, number: u64, retention: Retention) -> Draft {
    Draft { retention: Some(retention), ..draft(name, number) }
}

/// The same with an idempotency key.
pub(crate) fn keyed(name: &str, number: u64, key: &str, retention: Retention) -> Draft {
    Draft { key: IdempotencyKey::parse(key), ..kept(name, number, retention) }
}

/// Everything, the oldest first.
const ALL: Query = Query { since: None, limit: 100_000, reverse: false };

fn number(publication: &Publication) -> u64 {
    std::str::from_utf8(publication.payload.as_bytes()).unwrap().trim().parse().unwrap()
}

fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|it| it.offset().0).collect()
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
    let all: HashSet<_> = rooms[..49].iter().map(|room| (room.clone(), 3)).collect();
    for node in [&mut one, &mut two] {
        assert_eq!(node.next_of(49).await.into_iter().collect::<HashSet<_>>(), all);
    }
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

/// Clause 7, and the first half of 8.
async fn offsets_are_consecutive_and_history_is_what_was_heard<C: Cluster>() {
    const PUBLISHERS: u64 = 4;
    const EACH: u64 = 300;
    const CHANNELS: [&str; 2] = ["a", "{b}"];
    let cluster = C::start().await;
    let (mut one, mut two, third) = (cluster.join().await, cluster.join().await, cluster.join().await);
    for node in [&one, &two] {
        join_all(CHANNELS.map(|name| node.watch(name))).await;
    }
    let brokers = [one.broker.clone(), two.broker.clone()];
    let publishing = join_all((0..PUBLISHERS).map(|publisher| {
        let broker = &brokers[usize::try_from(publisher % 2).unwrap()];
        async move {
            let mut placed = Vec::new();
            for number in publisher * EACH..(publisher + 1) * EACH {
                for name in CHANNELS {
                    let position = broker.publish(kept(name, number, KEPT)).await.unwrap().unwrap();
                    placed.push((name, number, position));
                }
            }
            placed
        }
    }));
    let all = usize::try_from(PUBLISHERS * EACH).unwrap() * CHANNELS.len();
    let hearing = async |node: &mut Node, reads: bool| {
        let mut heard = Vec::new();
        while heard.len() < all {
            let it = node.next_whole().await;
            if reads && heard.len() % 20 == 0 {
                let page = third.page(it.channel.as_str(), ALL).await;
                assert_eq!(page.publications.last().map(|it| it.offset()), Some(page.top), "one moment");
                assert!(page.top >= it.offset(), "nobody hears what history does not have");
            }
            heard.push(it);
        }
        heard
    };
    let (placed, here, there) = tokio::join!(publishing, hearing(&mut one, true), hearing(&mut two, false));
    for name in CHANNELS {
        let of = |heard: &[Arc<Publication>]| -> Vec<Arc<Publication>> {
            heard.iter().filter(|it| it.channel.as_str() == name).cloned().collect()
        };
        let (here, there) = (of(&here), of(&there));
        assert!(offsets(&here).into_iter().eq(1..=PUBLISHERS * EACH), "{name}: consecutive, as heard");
        assert!(here == there, "{name}: one order");
        let page = third.page(name, ALL).await;
        assert!(page.publications == here, "{name}: history is what was heard");
        assert!(here.iter().all(|it| it.position.is_some_and(|it| it.epoch == page.epoch)), "one epoch");
        for &(_, of_draft, position) in placed.iter().flatten().filter(|(channel, ..)| *channel == name) {
            let heard = &here[usize::try_from(position.offset.0).unwrap() - 1];
            assert_eq!(
                (heard.position, number(heard)),
                (Some(position), of_draft),
                "{name}: as acknowledged"
            );
        }
        assert_eq!(third.position(name).await, Some(page.position()));
    }
}

/// Clause 7: how much is kept.
async fn history_keeps_the_newest_within_its_size<C: Cluster>() {
    let cluster = C::start().await;
    let node = cluster.join().await;
    let sized = |size| Retention { size: NonZeroU32::new(size).unwrap(), ..KEPT };
    for (size, up_to, left) in
        [(10, 250, 241..=250), (3, 251, 249..=251), (5, 253, 249..=253), (1, 254, 254..=254)]
    {
        for number in *left.end() - (up_to - node.page("a", ALL).await.top.0) + 1..=up_to {
            node.place(kept("a", number, sized(size))).await;
        }
        let page = node.page("a", ALL).await;
        assert_eq!(page.top.0, up_to);
        assert!(
            offsets(&page.publications).into_iter().eq(left),
            "{size}: {:?}",
            offsets(&page.publications)
        );
    }
}

/// Clauses 7 and 8: how long it is kept.
async fn history_expires_and_the_stream_goes_on<C: Cluster>() {
    let cluster = C::start().await;
    let node = cluster.join().await;
    let brief = Retention { ttl: Duration::from_millis(300), ..KEPT };
    let first = node.place(kept("a", 1, brief)).await;
    eventually("history expires", async || node.page("a", ALL).await.publications.is_empty()).await;
    assert_eq!(node.position("a").await, Some(first), "where it stands is known");
    let second = node.place(kept("a", 2, KEPT)).await;
    assert_eq!(second, Position { offset: Offset(2), ..first });
    assert_eq!(offsets(&node.page("a", ALL).await.publications), [2]);
}

/// Clause 8: `remove_history`.
async fn removed_history_is_gone_and_the_stream_goes_on<C: Cluster>() {
    let cluster = C::start().await;
    let node = cluster.join().await;
    node.broker.remove_history(&channel("never")).await.unwrap();
    for number in 1..=3 {
        node.place(kept("a", number, KEPT)).await;
        node.place(kept("b", number, KEPT)).await;
    }
    let before = node.page("a", ALL).await;
    let mut other = cluster.join().await;
    other.watch("a").await;
    node.place(kept("b", 4, KEPT)).await;
    node.broker.remove_history(&channel("b")).await.unwrap(); // The other does not watch it.
    node.place(kept("b", 5, KEPT)).await;
    node.broker.remove_history(&channel("a")).await.unwrap();
    let heard = other.next_heard().await;
    assert!(matches!(&heard, Heard::Removal(name) if name.as_str() == "a"), "{heard:?}");
    assert_eq!(node.page("a", ALL).await, Page { publications: Vec::new(), ..before.clone() });
    assert_eq!(node.page("b", ALL).await.publications.len(), 1, "of that channel alone");
    let next = node.place(kept("a", 4, KEPT)).await;
    assert_eq!(next, Position { epoch: before.epoch, offset: Offset(4) });
    assert_eq!(offsets(&node.page("a", ALL).await.publications), [4]);
    assert_eq!(other.next().await, ("a".to_owned(), 4), "it goes on for those who watch");
}

/// Clause 8: `history`.
async fn a_page_is_what_the_query_asks_for<C: Cluster>() {
    const LAST: u64 = 12;
    let cluster = C::start().await;
    let node = cluster.join().await;
    let retention = Retention { size: NonZeroU32::new(8).unwrap(), ..KEPT };
    for number in 1..=LAST {
        node.place(kept("a", number, retention)).await;
    }
    for since in [None, Some(0), Some(1), Some(4), Some(5), Some(11), Some(12), Some(13), Some(u64::MAX)] {
        for limit in [0, 1, 3, 8, 1_000, usize::MAX] {
            for reverse in [false, true] {
                let query = Query { since: since.map(Offset), limit, reverse };
                let expected: Vec<_> = match reverse {
                    false => {
                        (5..=LAST).filter(|&it| since.is_none_or(|since| it > since)).take(limit).collect()
                    }
                    true => {
                        let kept = (5..=LAST).rev();
                        kept.filter(|&it| since.is_none_or(|since| it < since)).take(limit).collect()
                    }
                };
                let page = node.page("a", query).await;
                assert_eq!((offsets(&page.publications), page.top.0), (expected, LAST), "{query:?}");
                assert!(page.publications.iter().all(|it| number(it) == it.offset().0));
            }
        }
    }
}

/// Clause 8: channels that nobody has published to.
async fn every_channel_has_an_epoch_once_it_was_asked_for<C: Cluster>() {
    let cluster = C::start().await;
    let (node, other) = (cluster.join().await, cluster.join().await);
    assert_eq!(node.position("a").await, None, "asking where it stands begins nothing");
    let page = node.page("a", Query { limit: 0, ..ALL }).await;
    assert_ne!(page.epoch, Epoch::NEVER);
    assert_eq!((page.top, page.publications.len()), (Offset(0), 0));
    assert_eq!(other.page("a", ALL).await, page);
    assert_eq!(other.position("a").await, Some(page.position()));
    let first = other.place(kept("a", 1, KEPT)).await;
    assert_eq!(first, Position { epoch: page.epoch, offset: Offset(1) });
    // Many at once, in the order they were asked for.
    let names: Vec<_> =
        (0..1_300).map(|it| if it % 100 == 7 { "a".into() } else { format!("none:{it}") }).collect();
    let channels = names.iter().map(|name| channel(name)).collect();
    let positions = timeout(DEADLINE, node.broker.positions(channels)).await.unwrap();
    let expected = names.iter().map(|name| (name == "a").then_some(first));
    assert!(positions.into_iter().map(Result::unwrap).eq(expected));
}

/// Clause 8: loss.
async fn a_lost_stream_comes_back_under_another_epoch<C: Cluster>() {
    let cluster = C::start().await;
    let (mut node, other) = (cluster.join().await, cluster.join().await);
    node.watch("a").await;
    let mut epochs = HashSet::new();
    for round in 0..3 {
        for number in 1..=3 {
            let position = other.place(keyed("a", number, &number.to_string(), KEPT)).await;
            assert_eq!(position.offset.0, number);
            epochs.insert(position.epoch);
            assert_eq!(node.next_whole().await.position, Some(position));
        }
        assert_eq!(epochs.len(), round + 1, "each life has its own");
        if !cluster.forget().await {
            return;
        }
        assert_eq!(node.position("a").await, None);
        if round % 2 == 0 {
            let page = node.page("a", ALL).await;
            assert!(epochs.len() == round + 1 && !epochs.contains(&page.epoch), "another epoch");
            assert_eq!((page.top, page.publications.len()), (Offset(0), 0));
        }
    }
}

/// Clause 9.
async fn one_key_is_placed_once_whoever_repeats_it<C: Cluster>() {
    let cluster = C::start().await;
    let (mut one, two) = (cluster.join().await, cluster.join().await);
    one.watch("a").await;
    for round in 1..=20 {
        let key = format!("key {round}");
        let brokers = [&one.broker, &two.broker];
        let repeated = (0..20).map(|it| brokers[it % 2].publish(keyed("a", round, &key, KEPT)));
        let placed = join_all(repeated).await;
        let positions: HashSet<_> =
            placed.into_iter().map(|placed| placed.unwrap().unwrap().offset.0).collect();
        assert_eq!(positions, HashSet::from([round]), "answered alike");
    }
    // A key whose place on the other channel is another one than its own.
    let elsewhere = two.place(keyed("b", 1, "key 7", KEPT)).await;
    assert_eq!(elsewhere.offset, Offset(1), "a key belongs to its channel");
    assert_eq!(offsets(&two.page("b", ALL).await.publications), [1], "and is placed there");
    assert_eq!(one.next_of(20).await, (1..=20).map(|it| ("a".to_owned(), it)).collect::<Vec<_>>());
    one.hears_again("a").await;
    assert_eq!(offsets(&two.page("a", ALL).await.publications).len(), 20, "kept once");
}

/// Clause 9: for how long.
async fn a_forgotten_key_is_placed_again<C: Cluster>() {
    let cluster = C::start().await;
    let node = cluster.join().await;
    let brief = Retention { idempotency_ttl: Duration::from_millis(300), ..KEPT };
    assert_eq!(node.place(keyed("a", 1, "key", brief)).await.offset, Offset(1));
    eventually("the key is forgotten", async || {
        node.place(keyed("a", 1, "key", brief)).await.offset == Offset(2)
    })
    .await;
    assert_eq!(node.place(keyed("a", 1, "key", KEPT)).await.offset, Offset(2));
    let nothing = Retention { ttl: Duration::ZERO, idempotency_ttl: Duration::ZERO, ..KEPT };
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    let forever = Retention { ttl: century, idempotency_ttl: century, ..KEPT };
    for (number, retention) in [(3, nothing), (4, forever)] {
        let position = node.place(keyed("a", number, "another", retention)).await;
        assert_eq!(position.offset.0, number, "{retention:?}");
        eventually("a key that is kept for no time is gone", async || {
            retention == forever || node.page("a", ALL).await.publications.is_empty()
        })
        .await;
    }
}

/// Clause 10.
async fn a_payload_is_carried_and_kept_as_it_was_published<C: Cluster>() {
    let cluster = C::start().await;
    let (mut node, other) = (cluster.join().await, cluster.join().await);
    node.watch("a").await;
    let payloads = [
        Payload::parse("[1, 2]").unwrap(),
        Payload::parse_msgpack(b"\x92\x01\xc4\x04\x00\xff\r\n").unwrap(),
        Payload::parse_msgpack(b"\xa3[1]").unwrap(),
    ];
    for payload in &payloads {
        other.place(Draft { payload: payload.clone(), ..kept("a", 1, KEPT) }).await;
        assert_eq!(&node.next_whole().await.payload, payload);
    }
    let kept = node.page("a", ALL).await.publications;
    assert_eq!(kept.iter().map(|it| it.payload.clone()).collect::<Vec<_>>(), payloads);
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
                offsets_are_consecutive_and_history_is_what_was_heard
                history_keeps_the_newest_within_its_size
                history_expires_and_the_stream_goes_on
                removed_history_is_gone_and_the_stream_goes_on
                a_page_is_what_the_query_asks_for
                every_channel_has_an_epoch_once_it_was_asked_for
                a_lost_stream_comes_back_under_another_epoch
                one_key_is_placed_once_whoever_repeats_it
                a_forgotten_key_is_placed_again
                a_payload_is_carried_and_kept_as_it_was_published
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

    async fn forget(&self) -> bool {
        false
    }

    async fn cut_publishers_off(&self) {}
}

contract!(memory, super::OneProcess);
contract!(redis, crate::broker::redis::tests::RealRedis);
contract!(redis_cluster, crate::broker::redis::tests::cluster::Clustered);
contract!(redis_sentinel, crate::broker::redis::tests::sentinel::Watched);
contract!(redis_sharded, crate::broker::redis::tests::sharded::Shards);
