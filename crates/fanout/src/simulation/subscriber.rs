//! A simulated client: it comes, reads, checks every offset, and comes back with the last one that it has seen.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fanfare_protocol::command::Start;
use fanfare_protocol::event::Entry;
use fanfare_protocol::publication::{Offset, Position};
use fanfare_protocol::session::Terms;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, SessionId};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::{Node, Tally, World};
use crate::outbox::{Batch, Order, Outbox, signed};

#[derive(Clone)]
pub(super) struct Subscriber(Arc<Mutex<Mind>>);

/// What a subscriber knows.
struct Mind {
    number: usize,
    channel: Channel,
    /// The last position that it has seen.
    seen: Option<Position>,
    /// What it has been replayed of the last publications that it asked for.
    rewound: Option<Rewound>,
    /// How often streams had gone back before it came.
    regressions: u64,
    /// What it has heard since it was last told that it might have missed something.
    heard: Vec<(Position, u64)>,
    stage: Stage,
    tally: Tally,
    /// For whoever has to find out what went wrong.
    story: Vec<String>,
}

/// A rewind: a wish, not a promise. Of what it asks for the newest come that fit into the queue.
#[derive(Debug)]
struct Rewound {
    /// Nothing comes from here or before.
    floor: u64,
    /// The last that was replayed.
    last: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has told it that it is subscribed.
    Away,
    Live,
    /// Asked to leave for good.
    Leaving,
}

/// One subscription of one connection.
struct Visit {
    node: Node,
    outbox: Arc<Outbox>,
    /// Where it was told that it enters.
    entry: Entry,
    is_slow: bool,
}

impl Subscriber {
    pub(super) fn new(number: usize, channel: Channel) -> Self {
        Self(Arc::new(Mutex::new(Mind {
            number,
            channel,
            seen: None,
            rewound: None,
            regressions: 0,
            heard: Vec::new(),
            stage: Stage::Away,
            tally: Tally::default(),
            story: Vec::new(),
        })))
    }

    pub(super) fn channel(&self) -> Channel {
        self.0.lock().channel.clone()
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.0.lock().seen
    }

    pub(super) fn is_live(&self) -> bool {
        self.0.lock().stage == Stage::Live
    }

    pub(super) fn heard(&self) -> Vec<(Position, u64)> {
        self.0.lock().heard.clone()
    }

    pub(super) fn story(&self) -> Vec<String> {
        let mind = self.0.lock();
        let mut story = mind.story.clone();
        story.push(format!("subscriber {} of {}: seen {:?}", mind.number, mind.channel, mind.seen));
        story
    }

    pub(super) fn count(&self, tally: &mut Tally) {
        tally.add(&self.0.lock().tally);
    }

    /// To be followed by waiting for the end of its life.
    pub(super) fn leave(&self) {
        self.0.lock().stage = Stage::Leaving;
    }

    fn is_leaving(&self) -> bool {
        self.0.lock().stage == Stage::Leaving
    }

    fn note(&self, what: &str) {
        let mut mind = self.0.lock();
        mind.story.push(format!("{:?}: {what}", tokio::time::Instant::now()));
    }

    /// Comes and goes until it is asked to leave.
    pub(super) async fn live(self, world: Arc<World>, mut random: fastrand::Rng) {
        while !self.is_leaving() {
            sleep(Duration::from_millis(random.u64(1..100))).await;
            let Some(visit) = self.come(&world, &mut random).await else { continue };
            let stay = if world.cluster.is_calm() { 60_000 } else { random.u64(10..2_000) };
            self.stay(visit, Duration::from_millis(stay), &world).await;
        }
    }

    async fn come(&self, world: &World, random: &mut fastrand::Rng) -> Option<Visit> {
        let node = world.node(random.usize(..super::NODES));
        let is_slow = !world.cluster.is_calm() && random.u8(..5) == 0;
        let channel = self.channel();
        let mut session = [0; 16];
        session[8..].copy_from_slice(&random.u64(..).to_be_bytes());
        let queue_bytes = if is_slow { 350 } else { 1 << 20 };
        let outbox = Outbox::new(SessionId::from_random(session), Encoding::NativeJson, queue_bytes);
        let start = self.start(world, random);
        let was_shown = matches!(start, Start::Since(since) if world.cluster.shows(&channel, since));
        let terms = Terms { start, history: true, ..Terms::default() };
        let patience = Duration::from_millis(if random.u8(..10) == 0 { random.u64(..50) } else { 20_000 });
        let outcome = match timeout(patience, node.hub.subscribe(&channel, &outbox, terms)).await {
            Ok(Ok(entry)) => Ok(entry.expect("a channel with history is entered somewhere")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("gave up".to_owned()),
        };
        self.note(&format!("{start:?} on {:p}: {outcome:?}", Arc::as_ptr(&node.link)));
        let Ok(entry) = outcome else {
            node.hub.unsubscribe(&channel, &outbox);
            return None;
        };
        if random.u8(..4) == 0 {
            sleep(Duration::from_millis(random.u64(..100))).await; // The session has something else to do first.
        }
        node.hub.go_live(&channel, &outbox, Frame::text("subscribed"));
        self.enter(start, entry, world);
        if let Start::Since(since) = start
            && !entry.recovered
        {
            assert!(
                is_slow || !was_shown || !world.cluster.shows(&channel, since) || self.saw_regressions(world),
                "{since:?} could be recovered: {:#?}",
                self.story()
            );
        }
        Some(Visit { node, outbox, entry, is_slow })
    }

    /// A client that comes back asks for what it has missed, unless what it has seen last has been taken back since: that
    /// is the broker's loss, and no node can tell.
    fn start(&self, world: &World, random: &mut fastrand::Rng) -> Start {
        let mut mind = self.0.lock();
        let since = mind.seen.filter(|_| mind.is_not_taken_back(world));
        mind.regressions = world.cluster.regressions();
        match since {
            Some(since) if random.u8(..10) > 0 => Start::Since(since),
            _ => {
                mind.heard.clear();
                mind.seen = None;
                if random.bool() { Start::Live } else { Start::Rewind(random.u32(..6)) }
            }
        }
    }

    /// Whether streams have gone back since it came.
    fn saw_regressions(&self, world: &World) -> bool {
        self.0.lock().regressions != world.cluster.regressions()
    }

    fn enter(&self, start: Start, entry: Entry, world: &World) {
        let mut mind = self.0.lock();
        mind.rewound = None;
        match start {
            Start::Since(since) if entry.recovered => {
                mind.tally.recovered += 1;
                mind.tally.outlived += usize::from(since.epoch != entry.position.epoch);
                if !mind.is_not_taken_back(world) {
                    mind.heard.clear(); // Taken back while it was on its way.
                }
                // What it has heard is of the stream that goes on, under the epoch that it is told now.
                let epoch = entry.position.epoch;
                mind.seen = Some(Position { epoch, ..since });
                mind.heard.iter_mut().for_each(|(position, _)| position.epoch = epoch);
                let contradicted = mind.heard.iter().find(|(position, content)| {
                    world.cluster.contradicts(&mind.channel, *position, *content)
                });
                let is_certain = mind.regressions == world.cluster.regressions();
                assert!(!is_certain || contradicted.is_none(), "{contradicted:?} is lost: {:#?}", mind.story);
            }
            Start::Rewind(count) => {
                let floor = entry.position.offset.0.saturating_sub(count.into());
                mind.rewound = Some(Rewound { floor, last: None });
                mind.seen = Some(entry.position);
            }
            Start::Since(_) | Start::Live => {
                mind.tally.unrecovered += usize::from(start != Start::Live);
                mind.heard.clear();
                mind.seen = Some(entry.position);
            }
        }
    }

    /// Reads until it has had enough, or is told to go, or the node is gone.
    async fn stay(&self, visit: Visit, most: Duration, world: &World) {
        let channel = self.channel();
        let until = tokio::time::Instant::now() + most;
        while tokio::time::Instant::now() < until && !self.is_leaving() && !visit.node.link.is_dead() {
            if visit.is_slow && !world.cluster.is_calm() {
                sleep(Duration::from_millis(150)).await;
            }
            match timeout(Duration::from_millis(100), next(&visit)).await {
                Ok(Came::Frames(batch)) => self.read(&visit, batch),
                Ok(Came::Order(Order::Lost { .. })) => {
                    // What was queued before comes before.
                    while let Some(batch) = take(&visit) {
                        self.read(&visit, batch);
                    }
                    self.note("lost");
                    let mut mind = self.0.lock();
                    mind.tally.lost += 1;
                    break;
                }
                Ok(Came::Order(Order::Overflowed)) => {
                    self.note("overflowed");
                    self.0.lock().tally.overflowed += 1;
                    break;
                }
                Ok(Came::Order(order)) => panic!("nobody orders {order:?}"),
                Err(_) => {}
            }
        }
        self.0.lock().come_to(Stage::Away);
        visit.node.hub.unsubscribe(&channel, &visit.outbox);
        visit.node.metrics.outbox_queued(-signed(visit.outbox.discard()));
    }

    fn read(&self, visit: &Visit, batch: Batch) {
        visit.node.metrics.outbox_queued(-signed(batch.bytes));
        for frame in batch.frames {
            let text = String::from_utf8_lossy(&frame).into_owned();
            if text.contains("subscribed") {
                self.0.lock().come_to(Stage::Live);
                continue;
            }
            self.hear(visit, &text);
        }
    }

    fn hear(&self, visit: &Visit, text: &str) {
        let number = |key: &str| {
            let (_, rest) = text.split_once(key)?;
            rest.split(|it: char| !it.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let (offset, content) =
            (number("\"offset\":").expect("its place"), number("\"data\":").expect("its content"));
        let mut mind = self.0.lock();
        assert_ne!(mind.stage, Stage::Away, "a publication comes before the reply");
        let entered = visit.entry.position;
        let epoch = entered.epoch;
        let seen = mind.seen.expect("it was told where it enters");
        let is_replayed = text.contains("\"recovered\":true");
        assert_eq!(is_replayed, offset <= entered.offset.0, "replayed up to the entry, and live from there");
        let next = match &mut mind.rewound {
            // The newest that fit, up to the entry; how many of them that are depends on the queue.
            Some(rewound) if is_replayed => {
                assert!(offset > rewound.floor, "further back than it asked");
                rewound.last.replace(offset).map_or(offset, |last| last + 1)
            }
            Some(Rewound { last: Some(last), .. }) if seen == entered => {
                assert_eq!(*last, entered.offset.0, "the replay ends at the entry");
                seen.offset.0 + 1
            }
            _ => seen.offset.0 + 1,
        };
        assert_eq!((epoch, offset), (seen.epoch, next), "in order and without a gap: {:#?}", mind.story);
        mind.tally.replayed += usize::from(is_replayed);
        mind.tally.heard += 1;
        let position = Position { epoch, offset: Offset(offset) };
        mind.seen = Some(if mind.rewound.is_some() && is_replayed { entered } else { position });
        mind.heard.push((position, content));
    }
}

impl Mind {
    fn come_to(&mut self, stage: Stage) {
        if self.stage != Stage::Leaving {
            self.stage = stage;
        }
    }

    /// Whether what was seen last was not taken back, as far as the subscriber can know what that was.
    fn is_not_taken_back(&self, world: &World) -> bool {
        match self.heard.last() {
            Some(&(position, content)) if self.seen == Some(position) => {
                !world.cluster.has_taken_back(content)
            }
            _ => self.regressions == world.cluster.regressions(),
        }
    }
}

enum Came {
    Frames(Batch),
    Order(Order),
}

async fn next(visit: &Visit) -> Came {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(order) = visit.outbox.poll_order(cx) {
            return Poll::Ready(Came::Order(order));
        }
        let mut batch = Batch::default();
        visit.outbox.poll_take(cx, &mut batch).map(|_| Came::Frames(batch))
    })
    .await
}

fn take(visit: &Visit) -> Option<Batch> {
    let mut batch = Batch::default();
    let cx = &std::task::Context::from_waker(std::task::Waker::noop());
    visit.outbox.poll_take(cx, &mut batch).is_ready().then_some(batch)
}
