use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use fanfare_protocol::publication::{Offset, Payload, Retention};
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Encoding, SessionId};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::broker::Lanes;
use crate::broker::memory::{Bus, MemoryBroker};
use crate::outbox::{Batch, signed};

mod checks;
mod crowds;

const CHANNELS: usize = 3;
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
const OPTIONS: HubOptions = HubOptions {
    broker_timeout: BROKER_TIMEOUT,
    check_interval: Duration::from_secs(5),
    now: || UnixMicros(0),
};

/// A memory broker that takes its time, fails now and then, and notes what its contract forbids to ask.
#[derive(Debug)]
struct Moody {
    broker: MemoryBroker,
    random: Mutex<fastrand::Rng>,
    watched: Mutex<HashSet<Channel>>,
    in_flight: Mutex<HashSet<Channel>>,
    /// A watch of these was dropped before it had answered.
    dropped: Mutex<HashSet<Channel>>,
    /// A panic in a task of the hub would be lost.
    offences: Mutex<Vec<String>>,
}

impl Moody {
    fn new(bus: &Bus, lanes: Lanes, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            broker: MemoryBroker::new(bus, lanes),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            watched: Mutex::default(),
            in_flight: Mutex::default(),
            dropped: Mutex::default(),
            offences: Mutex::default(),
        })
    }

    /// Mostly at once, sometimes in a while, seldom after everyone has given up.
    async fn dawdle(&self) {
        let wait = {
            let mut random = self.random.lock();
            match random.u8(..) {
                0..128 => 0,
                128..250 => random.u64(1..50),
                250.. => 7_000,
            }
        };
        sleep(Duration::from_millis(wait)).await;
    }

    fn begin(&self, channel: &Channel, is_watch: bool) {
        if !self.in_flight.lock().insert(channel.clone()) {
            self.offences.lock().push(format!("calls for {channel} cross"));
        }
        let was_dropped = self.dropped.lock().remove(channel);
        let is_so_already = self.watched.lock().contains(channel) == is_watch;
        let is_wrong = if was_dropped { is_watch } else { is_so_already };
        if is_wrong {
            self.offences.lock().push(format!("{channel}: asked for what is so already"));
        }
    }
}

/// A watch under way.
struct Asking<'a> {
    broker: &'a Moody,
    channel: Channel,
    is_over: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.broker.in_flight.lock().remove(&self.channel);
            self.broker.dropped.lock().insert(self.channel.clone());
        }
    }
}

impl Broker for Moody {
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        async move {
            if self.random.lock().u8(..) < 8 {
                return Err(BrokerError::Unavailable("moody".into()));
            }
            let wait = self.random.lock().u64(..20);
            sleep(Duration::from_millis(wait)).await;
            self.broker.publish(draft).await
        }
        .boxed()
    }

    fn history(&self, channel: &Channel, query: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        self.broker.history(channel, query)
    }

    fn positions(&self, channels: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        self.broker.positions(channels)
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.broker.remove_history(channel)
    }

    fn losses(&self) -> u64 {
        self.broker.losses()
    }

    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        let channel = channel.clone();
        async move {
            self.begin(&channel, true);
            let mut asking = Asking { broker: self, channel: channel.clone(), is_over: false };
            self.dawdle().await;
            let fails = self.random.lock().u8(..) < 32;
            if !fails {
                self.broker.watch(&channel).await?;
                self.watched.lock().insert(channel.clone());
            }
            self.dawdle().await;
            asking.is_over = true;
            self.in_flight.lock().remove(&channel);
            if fails { Err(BrokerError::Unavailable("moody".into())) } else { Ok(()) }
        }
        .boxed()
    }

    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()> {
        let channel = channel.clone();
        async move {
            self.begin(&channel, false);
            self.dawdle().await;
            self.broker.unwatch(&channel).await;
            self.watched.lock().remove(&channel);
            self.in_flight.lock().remove(&channel);
        }
        .boxed()
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn kind(&self) -> &'static str {
        "moody"
    }
}

impl Hub {
    /// How many channels the registry holds.
    pub(crate) fn channels(&self) -> usize {
        self.registry.channels()
    }
}

/// One node of a test.
#[derive(Clone)]
struct Node {
    hub: Arc<Hub>,
    broker: Arc<Moody>,
    metrics: Arc<Metrics>,
}

impl Node {
    fn start(bus: &Bus, tasks: &TaskTracker, seed: u64) -> Self {
        let (lanes, ends) = Lanes::new(2, 4);
        let broker = Moody::new(bus, lanes, seed);
        let metrics = Arc::new(Metrics::new());
        let hub = Hub::start(broker.clone(), ends, metrics.clone(), tasks, OPTIONS);
        Self { hub, broker, metrics }
    }

    /// Waits until nothing is watched, then checks that nothing at all is left of the clients that were.
    async fn comes_to_rest(&self) {
        let rest = async {
            while self.hub.channels_watched() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), rest).await.expect("what nobody hears is watched no more");
        assert_eq!(self.hub.registry.channels(), 0);
        assert_eq!(*self.broker.watched.lock(), HashSet::new());
        assert_eq!(*self.broker.in_flight.lock(), HashSet::new());
        assert_eq!(*self.broker.offences.lock(), [""; 0]);
        let text = self.metrics.render();
        for gauge in ["fanfare_channels 0", "fanfare_subscriptions 0", "fanfare_outbox_bytes 0"] {
            assert!(text.lines().any(|line| line == gauge), "{gauge}\n{text}");
        }
    }
}

/// A client's shell, without a socket.
struct Client {
    node: Node,
    number: u8,
    outbox: Arc<Outbox>,
    published: u32,
    live: HashSet<usize>,
    /// What came of each channel, one list for each time it was live.
    heard: [Vec<Vec<String>>; CHANNELS],
}

fn channel(number: usize) -> Channel {
    Channel::parse(&format!("room:{number}")).unwrap()
}

fn draft(number: usize, json: &str, exclude: Option<SessionId>) -> Draft {
    let payload = Payload::parse(json).unwrap();
    Draft {
        channel: channel(number),
        payload,
        sender: None,
        exclude,
        received: UnixMicros(0),
        retention: None,
        key: None,
        trace: None,
    }
}

impl Client {
    fn new(node: &Node, number: u8) -> Self {
        let session = SessionId::from_random([number; 16]);
        let outbox = Outbox::new(session, Encoding::NativeJson, 1 << 20);
        let (node, live, heard) = (node.clone(), HashSet::new(), Default::default());
        Self { node, number, outbox, published: 0, live, heard }
    }

    async fn subscribe(&mut self, number: usize) -> Result<(), BrokerError> {
        let channel = channel(number);
        self.node.hub.subscribe(&channel, &self.outbox, Terms::default()).await?;
        self.node.hub.go_live(&channel, &self.outbox, Frame::text(&format!("room:{number}")));
        self.live.insert(number);
        Ok(())
    }

    fn unsubscribe(&mut self, number: usize) {
        self.node.hub.unsubscribe(&channel(number), &self.outbox);
        self.live.remove(&number);
    }

    /// Publishes `<number>.<count>.<whether we hear it>`.
    async fn publish(&mut self, number: usize, echo: bool) {
        self.published += 1;
        let text = format!("\"{}.{}.{echo}\"", self.number, self.published);
        let exclude = (!echo).then_some(SessionId::from_random([self.number; 16]));
        match self.node.hub.publish(draft(number, &text, exclude)).await {
            Ok(None) | Err(BrokerError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Reads all that waits, as a writer would.
    fn read(&mut self) {
        let mut batch = Batch::default();
        while let Poll::Ready(bytes) = self.outbox.poll_take(&Context::from_waker(Waker::noop()), &mut batch)
        {
            self.node.metrics.outbox_queued(-signed(bytes));
            for frame in std::mem::take(&mut batch).frames {
                let text = std::str::from_utf8(&frame[2..]).unwrap();
                let at = text.find("room:").unwrap() + "room:".len();
                let heard = &mut self.heard[text[at..=at].parse::<usize>().unwrap()];
                match text.split_once("\"data\":\"") {
                    None => heard.push(Vec::new()),
                    Some((_, data)) => {
                        heard
                            .last_mut()
                            .expect("the reply is first")
                            .push(data.trim_end_matches("\"}").into());
                    }
                }
            }
        }
    }

    /// Lives a random life and leaves nothing behind.
    async fn live(mut self, mut random: fastrand::Rng) -> Self {
        for _ in 0..80 {
            let number = random.usize(..CHANNELS);
            match random.u8(..10) {
                0..4 if !self.live.contains(&number) => {
                    // Some clients are gone before they are in.
                    let patience = Duration::from_millis(random.u64(1..200));
                    let _ = timeout(patience, self.subscribe(number)).await;
                }
                0..4 => self.unsubscribe(number),
                4..8 => self.publish(number, random.bool()).await,
                8 => sleep(Duration::from_millis(random.u64(..100))).await,
                _ => self.read(),
            }
        }
        self.leave();
        self
    }

    fn leave(&mut self) {
        self.read();
        for number in 0..CHANNELS {
            self.unsubscribe(number);
        }
        self.node.metrics.outbox_queued(-signed(self.outbox.discard()));
    }

    /// Each time that a channel was live this client heard exactly what a witness did, from some point to another,
    /// but for what it asked not to hear.
    fn agrees_with(&self, witness: &Self) {
        let unheard = |text: &str| text.starts_with(&format!("{}.", self.number)) && text.ends_with("false");
        for (spans, [all]) in self.heard.iter().zip(
            witness
                .heard
                .each_ref()
                .map(|spans| <&[Vec<String>; 1]>::try_from(&spans[..]).expect("the witness never leaves")),
        ) {
            let all: Vec<_> = all.iter().filter(|text| !unheard(text)).collect();
            for span in spans.iter().filter(|span| !span.is_empty()) {
                let start =
                    all.iter().position(|text| **text == span[0]).expect("the witness hears everything");
                assert!(all[start..].iter().take(span.len()).copied().eq(span), "{span:?}\n{all:?}");
            }
        }
    }
}

/// Clients of two nodes come, go and talk at random while the broker dawdles and fails. Everyone hears the same order
/// without holes, and when all have gone nothing of them is left.
#[tokio::test(start_paused = true)]
async fn a_random_crowd_hears_one_order_and_leaves_nothing_behind() {
    for seed in 0..20 {
        println_seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let (bus, tasks) = (Bus::default(), TaskTracker::new());
        let nodes = [Node::start(&bus, &tasks, random.u64(..)), Node::start(&bus, &tasks, random.u64(..))];
        let mut witness = Client::new(&nodes[0], 99);
        for number in 0..CHANNELS {
            while witness.subscribe(number).await.is_err() {}
        }
        let mut lives = JoinSet::new();
        for number in 0..8 {
            let client = Client::new(&nodes[usize::from(number % 2)], number);
            lives.spawn(client.live(random.fork()));
        }
        let clients = lives.join_all().await;
        // What was placed is delivered before the lanes of a node that is at rest are empty.
        sleep(Duration::from_secs(1)).await;
        witness.leave();
        for client in &clients {
            client.agrees_with(&witness);
        }
        let heard: usize =
            clients.iter().flat_map(|client| client.heard.iter().flatten()).map(Vec::len).sum();
        assert!(heard > 100, "seed {seed}: only {heard} publications were heard");
        for node in &nodes {
            node.comes_to_rest().await;
        }
    }
}

/// The harness shows this only when the test fails.
#[expect(clippy::print_stdout, reason = "a failure is repeated by its seed")]
fn println_seed(seed: u64) {
    println!("seed {seed}");
}

/// A broker of which nothing is heard again.
#[derive(Debug)]
struct Mute;

impl Broker for Mute {
    fn publish(&self, _: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        std::future::pending().boxed()
    }

    fn history(&self, _: &Channel, _: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        std::future::pending().boxed()
    }

    fn positions(&self, _: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        std::future::pending().boxed()
    }

    fn remove_history(&self, _: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        std::future::pending().boxed()
    }

    fn losses(&self) -> u64 {
        0
    }

    fn watch(&self, _: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        std::future::pending().boxed()
    }

    fn unwatch(&self, _: &Channel) -> BoxFuture<'_, ()> {
        std::future::pending().boxed()
    }

    fn link(&self) -> Link {
        Link::Down
    }

    fn kind(&self) -> &'static str {
        "mute"
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_waited_for_until_the_deadline() {
    let (_lanes, ends) = Lanes::new(1, 1);
    let hub = Hub::start(Arc::new(Mute), ends, Arc::default(), &TaskTracker::new(), OPTIONS);
    let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 100);
    let asked = Instant::now();
    let room = channel(0);
    let (published, subscribed) =
        tokio::join!(hub.publish(draft(0, "1", None)), hub.subscribe(&room, &outbox, Terms::default()));
    assert!(matches!(published, Err(BrokerError::Timeout(BROKER_TIMEOUT))));
    assert!(matches!(subscribed, Err(BrokerError::Timeout(BROKER_TIMEOUT))));
    assert_eq!(asked.elapsed(), BROKER_TIMEOUT);
    assert_eq!(hub.registry.channels(), 0, "who was not told so has not joined");
}

/// The publications that wait in a lane are taken together, but not for ever: the writers get their turn in between.
#[tokio::test(start_paused = true)]
async fn a_busy_lane_lets_others_run() {
    let (lanes, ends) = Lanes::new(1, 4 * RUN_MAX);
    let metrics = Arc::new(Metrics::new());
    let _hub = Hub::start(Arc::new(Mute), ends, metrics.clone(), &TaskTracker::new(), OPTIONS);
    for _ in 0..3 * RUN_MAX {
        let publication = Arc::new(Publication::new(draft(0, "1", None), None));
        lanes.lane(&channel(0)).try_send(Heard::Publication(publication)).unwrap();
    }
    let fanned_out = || {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("fanfare_fanout_publications_total ")).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()
    };
    for turn in 1..=3 {
        tokio::task::yield_now().await;
        assert_eq!(fanned_out(), turn * RUN_MAX);
    }
}

/// Whether or not anybody here subscribes: who waits for late news is not counted, how late it came is.
#[tokio::test(start_paused = true)]
async fn it_is_counted_how_late_a_batch_is_heard() {
    let (lanes, ends) = Lanes::new(1, RUN_MAX);
    let metrics = Arc::new(Metrics::new());
    let options = HubOptions { now: || UnixMicros(5_000_000), ..OPTIONS };
    let _hub = Hub::start(Arc::new(Mute), ends, metrics.clone(), &TaskTracker::new(), options);
    for _ in 0..3 {
        let draft = Draft { received: UnixMicros(2_000_000), ..draft(0, "1", None) };
        let publication = Arc::new(Publication::new(draft, None));
        lanes.lane(&channel(0)).try_send(Heard::Publication(publication)).unwrap();
    }
    tokio::task::yield_now().await;
    let text = metrics.render();
    for line in ["fanfare_publish_to_heard_seconds_count 1", "fanfare_publish_to_heard_seconds_sum 3"] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
}

/// Takes what waits in an outbox; whether that was anything.
fn hears(outbox: &Outbox) -> bool {
    outbox.poll_take(&Context::from_waker(Waker::noop()), &mut Batch::default()).is_ready()
}

#[tokio::test(start_paused = true)]
async fn whoever_subscribes_twice_counts_once() {
    let (bus, tasks) = (Bus::default(), TaskTracker::new());
    let node = Node::start(&bus, &tasks, 1);
    let mut client = Client::new(&node, 1);
    for _ in 0..2 {
        while client.subscribe(0).await.is_err() {}
    }
    client.leave();
    client.leave();
    node.comes_to_rest().await;
}

/// Dropped at any point, a subscription has not happened.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_given_up_has_not_happened() {
    for polls in 0..4 {
        let (bus, tasks) = (Bus::default(), TaskTracker::new());
        let node = Node::start(&bus, &tasks, 3);
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 100);
        {
            let room = channel(0);
            let mut subscribing = pin!(node.hub.subscribe(&room, &outbox, Terms::default()));
            for _ in 0..polls {
                assert!(subscribing.as_mut().now_or_never().is_none(), "the broker has not answered");
            }
        }
        node.comes_to_rest().await;
    }
}

/// A memory broker whose history takes its time, or is away, and is counted.
#[derive(Debug)]
struct Counting {
    broker: MemoryBroker,
    reads: AtomicUsize,
    /// The channels whose positions were asked for, call by call.
    asked: Mutex<Vec<Vec<Channel>>>,
    is_away: AtomicBool,
}

impl Broker for Counting {
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        self.broker.publish(draft)
    }

    fn history(&self, channel: &Channel, query: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let channel = channel.clone();
        async move {
            sleep(Duration::from_millis(5)).await;
            if self.is_away.load(Ordering::SeqCst) {
                return Err(BrokerError::Unavailable("away".into()));
            }
            self.broker.history(&channel, query).await
        }
        .boxed()
    }

    fn positions(&self, channels: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        self.asked.lock().push(channels.clone());
        if self.is_away.load(Ordering::SeqCst) {
            let away = |_| Err(BrokerError::Unavailable("away".into()));
            return ready(channels.into_iter().map(away).collect()).boxed();
        }
        self.broker.positions(channels)
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.broker.remove_history(channel)
    }

    fn losses(&self) -> u64 {
        self.broker.losses()
    }

    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.broker.watch(channel)
    }

    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()> {
        self.broker.unwatch(channel)
    }

    fn link(&self) -> Link {
        self.broker.link()
    }

    fn kind(&self) -> &'static str {
        "counting"
    }
}

fn counting() -> (Arc<Counting>, Arc<Hub>) {
    let (lanes, ends) = Lanes::new(1, 64);
    let broker = Arc::new(Counting {
        broker: MemoryBroker::new(&Bus::default(), lanes),
        reads: AtomicUsize::new(0),
        asked: Mutex::default(),
        is_away: AtomicBool::new(false),
    });
    let hub = Hub::start(broker.clone(), ends, Arc::default(), &TaskTracker::new(), OPTIONS);
    (broker, hub)
}

/// Publishes on a channel with history and returns where.
async fn place(hub: &Hub) -> Position {
    let draft = Draft { retention: Some(Retention::SHORT), ..draft(0, "1", None) };
    hub.publish(draft).await.unwrap().expect("a place in the stream")
}

fn terms(start: Start) -> Terms {
    Terms { start, history: true, ..Terms::default() }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_come_back_share_a_read() {
    let (broker, hub) = counting();
    let mut top = place(&hub).await;
    for _ in 1..100 {
        top = place(&hub).await;
    }
    let storm = async |name: &str| {
        broker.reads.store(0, Ordering::SeqCst);
        let recovering = (0..1_000_u64).map(async |number| {
            sleep(Duration::from_millis(number % 20)).await;
            let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1 << 20);
            let since = Position { epoch: top.epoch, offset: Offset(number % 100) };
            let entry = hub.subscribe(&channel(0), &outbox, terms(Start::Since(since))).await.unwrap();
            assert_eq!(entry, Some(Entry { position: top, recovered: true }));
            hub.go_live(&channel(0), &outbox, Frame::text("reply"));
            let mut frames = 0;
            let mut batch = Batch::default();
            while outbox.poll_take(&Context::from_waker(Waker::noop()), &mut batch).is_ready() {
                frames += std::mem::take(&mut batch).frames.len() as u64;
            }
            assert_eq!(frames, 1 + 100 - since.offset.0, "the reply, and all that was missed");
            outbox
        });
        let outboxes = futures_util::future::join_all(recovering).await;
        let reads = broker.reads.load(Ordering::SeqCst);
        assert!((1..=3).contains(&reads), "{name}: {reads} reads");
        outboxes
    };
    let first = storm("on a node that knows nothing of the channel").await;
    for outbox in &first[1..] {
        hub.unsubscribe(&channel(0), outbox);
    }
    sleep(OPTIONS.check_interval * 3).await;
    storm("on a node where the channel has been quiet").await;
}

#[tokio::test(start_paused = true)]
async fn whoever_needs_a_read_that_fails_is_told_at_once() {
    let (broker, hub) = counting();
    broker.is_away.store(true, Ordering::SeqCst);
    let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 100);
    let asked = Instant::now();
    let failed = hub.subscribe(&channel(0), &outbox, terms(Start::Live)).await;
    assert!(matches!(failed, Err(BrokerError::Unavailable(_))), "{failed:?}");
    assert!(asked.elapsed() < BROKER_TIMEOUT, "it has waited {:?}", asked.elapsed());
    assert_eq!(hub.channels(), 0, "who was not let in has not joined");
    broker.is_away.store(false, Ordering::SeqCst);
    assert!(hub.subscribe(&channel(0), &outbox, terms(Start::Live)).await.is_ok());
}

/// Removed history is at hand on every node that has delivered it.
#[tokio::test(start_paused = true)]
async fn removed_history_is_shown_to_nobody_on_any_node() {
    let (bus, tasks) = (Bus::default(), TaskTracker::new());
    let nodes: Vec<_> = (0..2)
        .map(|_| {
            let (lanes, ends) = Lanes::new(2, 4);
            let broker = Arc::new(MemoryBroker::new(&bus, lanes));
            Hub::start(broker, ends, Arc::default(), &tasks, OPTIONS)
        })
        .collect();
    let outbox = |number| Outbox::new(SessionId::from_random([number; 16]), Encoding::NativeJson, 1_000);
    let come = async |hub: &Hub, outbox: &Arc<Outbox>, start| {
        let entry = hub.subscribe(&channel(0), outbox, terms(start)).await.unwrap().unwrap();
        hub.go_live(&channel(0), outbox, Frame::text("reply"));
        entry
    };
    let (stayer, comer) = (outbox(1), outbox(2));
    let begin = come(&nodes[1], &stayer, Start::Live).await.position;
    come(&nodes[0], &outbox(3), Start::Live).await;
    for _ in 0..3 {
        place(&nodes[0]).await;
    }
    sleep(Duration::from_millis(1)).await; // Everything is delivered, and no check has come yet.
    assert!(come(&nodes[1], &comer, Start::Since(begin)).await.recovered);
    nodes[0].remove_history(&channel(0)).await.unwrap();
    assert!(!come(&nodes[0], &outbox(4), Start::Since(begin)).await.recovered, "at once where it was asked");
    sleep(Duration::from_millis(1)).await;
    assert!(!come(&nodes[1], &outbox(5), Start::Since(begin)).await.recovered, "and soon elsewhere");
    place(&nodes[0]).await;
    sleep(Duration::from_millis(1)).await;
    assert!(stayer.poll_order(&Context::from_waker(Waker::noop())).is_pending(), "who is there stays");
    let mut batch = Batch::default();
    assert!(stayer.poll_take(&Context::from_waker(Waker::noop()), &mut batch).is_ready());
    assert_eq!(batch.frames.len(), 1 + 4, "the reply, and every publication");
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_everything_leaves_nothing_behind() {
    let (bus, tasks) = (Bus::default(), TaskTracker::new());
    let (lanes, ends) = Lanes::new(2, 4);
    let broker = Arc::new(MemoryBroker::new(&bus, lanes));
    let hub = Hub::start(broker, ends, Arc::default(), &tasks, OPTIONS);
    let outboxes =
        [1, 2].map(|it| Outbox::new(SessionId::from_random([it; 16]), Encoding::NativeJson, 1_000));
    for number in 0..CHANNELS {
        for outbox in &outboxes {
            hub.subscribe(&channel(number), outbox, Terms::default()).await.unwrap();
        }
    }
    assert_eq!(hub.unsubscribe_all(&outboxes[0]).len(), CHANNELS);
    assert_eq!(hub.channels(), CHANNELS, "the other stays");
    assert_eq!(hub.unsubscribe_all(&outboxes[0]), []);
    assert_eq!(hub.unsubscribe_all(&outboxes[1]).len(), CHANNELS);
    sleep(Duration::from_millis(1)).await;
    assert_eq!((hub.channels(), hub.channels_watched()), (0, 0));
}
