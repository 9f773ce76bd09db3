use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use fanfare_metrics::Metrics;
use fanfare_protocol::command::Wording;
use fanfare_protocol::publication::{Draft, Epoch, Offset, Position};
use fanfare_protocol::session::Terms;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Form, SessionId};
use parking_lot::Mutex;

use super::super::{Entering, Registry, SMALL, Slice, Walk};
use super::*;
use crate::outbox::{Batch, Socket};

/// A socket that takes everything, or nothing while it is full.
#[derive(Debug, Default)]
struct Pipe {
    heard: Mutex<Vec<u8>>,
    is_full: AtomicBool,
}

impl Socket for Pipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.heard.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

/// A subscriber, and what it ought to hear: by their numbers, among all that is published.
struct Client {
    outbox: Arc<Outbox>,
    pipe: Arc<Pipe>,
    wording: Wording,
    expected: Vec<usize>,
}

impl Client {
    fn new(number: u8, encoding: Encoding, wording: Wording) -> Self {
        let pipe = Arc::new(Pipe::default());
        let outbox = Outbox::new(SessionId::from_random([number; 16]), encoding, usize::MAX);
        outbox.lend(pipe.clone());
        Self { outbox, pipe, wording, expected: Vec::new() }
    }

    /// What its connection's task does when it is woken.
    fn write(&self) {
        let cx = Context::from_waker(Waker::noop());
        let mut batch = Batch::default();
        assert!(self.outbox.poll_order(&cx).is_pending());
        while !self.pipe.is_full.load(Ordering::Relaxed)
            && let Poll::Ready(_) = self.outbox.poll_take(&cx, &mut batch)
        {
            batch.frames.drain(..).for_each(|frame| self.pipe.heard.lock().extend_from_slice(&frame));
        }
    }

    /// Reads what it has heard: each frame is a publication whole, or a difference from the one that it read before. Returns the
    /// numbers, and how many were differences.
    fn read(&self, published: &[Arc<Publication>]) -> (Vec<usize>, usize) {
        let form = Form::from(self.outbox.encoding());
        let heard = self.pipe.heard.lock();
        let (mut rest, mut numbers, mut differences) = (&heard[..], Vec::<usize>::new(), 0);
        while !rest.is_empty() {
            let begins_with = |it: &Arc<Publication>| rest.starts_with(it.encoded(form).bytes());
            let next = numbers.last().map_or(0, |last| last + 1);
            // The next one first: a difference takes a while.
            let find = |is: &dyn Fn(&Arc<Publication>) -> bool| {
                (next..published.len()).chain(0..next).find(|number| is(&published[*number]))
            };
            let whole = find(&|it| match self.wording {
                Wording::Whole => begins_with(it),
                Wording::Differences => begins_with(&it.whole(form.encoding())),
            });
            let difference = || {
                let before = &published[*numbers.last()?].payload;
                find(&|it| begins_with(&it.after(before, form.encoding())))
            };
            let number = whole.or_else(difference).expect("it can be made out of what it knows");
            differences += usize::from(whole.is_none());
            let length = match rest[1] {
                126 => 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]])),
                short => 2 + usize::from(short),
            };
            rest = &rest[length..];
            numbers.push(number);
        }
        (numbers, differences)
    }
}

struct Scene {
    registry: Registry,
    room: Channel,
    clients: Vec<Client>,
    /// Who makes the crowd a large one, and is not looked at.
    others: Vec<Arc<Outbox>>,
    published: Vec<Arc<Publication>>,
    walk: Option<Walk>,
    metrics: Metrics,
}

impl Scene {
    fn of(crowd: usize) -> Self {
        let mut scene = Self {
            registry: Registry::new(),
            room: Channel::parse("room").unwrap(),
            clients: Vec::new(),
            others: Vec::new(),
            published: Vec::new(),
            walk: None,
            metrics: Metrics::new(),
        };
        for _ in 0..crowd {
            let other = Outbox::new(SessionId::from_random([255; 16]), Encoding::NativeJson, usize::MAX);
            scene.enter(&other, Wording::Whole);
            scene.registry.go_live(&scene.room, other.id(), None::<Frame>).unwrap().count(&scene.metrics);
            scene.others.push(other);
        }
        scene
    }

    fn enter(&self, outbox: &Arc<Outbox>, wording: Wording) {
        self.registry.join(&self.room, outbox, Terms { wording, ..Terms::default() });
        let entering = self.registry.enter(&self.room, outbox.id(), Terms::default().start, false);
        assert!(matches!(entering, Entering::Entered(None)));
    }

    fn join(&mut self, encoding: Encoding, wording: Wording) {
        let number = u8::try_from(self.clients.len() % 200).unwrap();
        let client = Client::new(number, encoding, wording);
        self.enter(&client.outbox, wording);
        self.clients.push(client);
    }

    fn go_live(&self, index: usize) {
        let outbox = &self.clients[index].outbox;
        self.registry.go_live(&self.room, outbox.id(), None::<Frame>).unwrap().count(&self.metrics);
    }

    /// Publishes so many in one run; each may be not for one of the clients.
    fn publish(&mut self, count: usize, exclude: Option<usize>) {
        let exclude = exclude.map(|index| self.clients[index].outbox.session());
        let begin = self.published.len();
        for number in begin..begin + count {
            self.published.push(publication(&self.room, number, exclude.filter(|_| number == begin)));
        }
        let run = &self.published[begin..];
        for client in &mut self.clients {
            let session = Some(client.outbox.session());
            client
                .expected
                .extend((begin..begin + count).filter(|it| self.published[*it].exclude != session));
        }
        let mut wakes = Wakes::default();
        let delivered = self.registry.deliver(&self.room, run, &mut wakes);
        delivered.queued.count(&self.metrics);
        wakes.delivered(delivered.receivers * count as u64);
        while !wakes.is_empty() {
            wakes.go_on(&self.metrics, || UnixMicros(0));
        }
        if delivered.walk.is_some() {
            self.walk = delivered.walk;
        }
    }

    fn step(&mut self) -> bool {
        let Some(walk) = &mut self.walk else { return false };
        let mut slice = Slice::default();
        let goes_on = walk.step(&mut slice);
        slice.perform(&self.metrics, || UnixMicros(0));
        if !goes_on {
            self.walk = None;
        }
        goes_on
    }

    fn walk_on(&mut self) {
        while self.step() {}
    }

    /// Has everybody write what waits, and looks whether that is what they ought to have heard; how many were differences.
    fn check(&mut self, what: &str) -> usize {
        self.walk_on();
        let mut all = 0;
        for client in &self.clients {
            client.pipe.is_full.store(false, Ordering::Relaxed);
            client.write();
            let (numbers, differences) = client.read(&self.published);
            assert_eq!(numbers, client.expected, "{what}, {:?}", client.outbox.encoding());
            all += differences;
        }
        all
    }
}

/// Long enough that a difference is shorter, and never twice the same.
fn publication(room: &Channel, number: usize, exclude: Option<SessionId>) -> Arc<Publication> {
    let json = format!(
        r#"{{"text":"what is the same in all of them, and is not worth to be said again","n":{number}}}"#
    );
    let draft = Draft {
        channel: room.clone(),
        payload: Payload::parse(&json).unwrap(),
        sender: None,
        exclude,
        received: UnixMicros(0),
        retention: None,
        key: None,
        trace: None,
    };
    let position = Position { epoch: Epoch(1), offset: Offset(number as u64 + 1) };
    Arc::new(Publication::new(draft, Some(position)))
}

/// The encodings that have a word for differences, a text and a binary one.
pub(in crate::registry) fn chained() -> [Encoding; 2] {
    let room = Channel::parse("room").unwrap();
    let [first, second] = [0, 1].map(|number| publication(&room, number, None));
    let has_one = |it: &Encoding| it.dialect().encode_chained(&second, Some(&first.payload)).is_some();
    let chained: Vec<_> = Encoding::ALL.into_iter().filter(has_one).collect();
    chained.try_into().expect("two of them")
}

#[test]
fn the_first_is_whole_and_those_after_it_are_differences_shared_by_all() {
    // Those of a large crowd go round together, or one after the other.
    for (crowd, is_walked) in [(0, false), (SMALL + 1, false), (SMALL + 1, true)] {
        let mut scene = Scene::of(crowd);
        for encoding in chained() {
            scene.join(encoding, Wording::Differences);
            scene.join(encoding, Wording::Whole);
        }
        (0..4).for_each(|index| scene.go_live(index));
        scene.clients.iter().for_each(Client::write); // From now on they are idle, and written to past their tasks.
        let publish = |scene: &mut Scene, count| {
            scene.publish(count, None);
            if is_walked {
                scene.walk_on();
            }
        };
        publish(&mut scene, 1);
        publish(&mut scene, 2);
        scene.join(chained()[0], Wording::Differences);
        scene.go_live(4);
        publish(&mut scene, 1);
        publish(&mut scene, 1);
        let differences = 2 * 4 + 1;
        assert_eq!(scene.check("all of them"), differences, "in a crowd of {crowd} others, {is_walked}");
    }
}

#[test]
fn what_a_member_was_not_told_nothing_is_a_difference_from() {
    for crowd in [0, SMALL + 1] {
        let mut scene = Scene::of(crowd);
        scene.join(chained()[0], Wording::Differences);
        scene.join(chained()[0], Wording::Differences);
        (0..2).for_each(|index| scene.go_live(index));
        scene.publish(1, None);
        scene.check("before");
        scene.publish(1, Some(1));
        scene.publish(1, None);
        assert_eq!(scene.check("after"), 2, "the other one in a crowd of {crowd} hears two differences");
    }
}

#[test]
fn nothing_is_kept_when_the_last_who_is_told_differences_has_left() {
    let mut scene = Scene::of(SMALL + 1);
    scene.join(chained()[0], Wording::Differences);
    scene.go_live(0);
    scene.publish(1, None);
    scene.publish(1, None);
    let left = scene.clients.remove(0);
    scene.registry.leave(&scene.room, left.outbox.id());
    let subscribers = scene.registry.find(&scene.room).unwrap();
    assert!(subscribers.0.lock().chain.is_none());
    scene.join(chained()[1], Wording::Differences);
    scene.go_live(0);
    scene.publish(2, None);
    assert_eq!(scene.check("the next one"), 1);
}

/// Clients of both encodings come, go live later, are told their place once more and leave, their sockets are full and take
/// again, some publications are not for some of them, and the walk round a large crowd is at any place.
#[test]
fn each_can_make_everything_out_of_what_it_was_told_however_the_crowd_changes() {
    let (mut differences, encodings) = (0, chained());
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let others = if random.bool() { SMALL - random.usize(..3) } else { 0 };
        let mut scene = Scene::of(others);
        let mut waiting = Vec::new();
        for _ in 0..120 {
            match random.u8(..13) {
                0 | 1 => {
                    let encoding = encodings[random.usize(..2)];
                    let wording = if random.u8(..4) > 0 { Wording::Differences } else { Wording::Whole };
                    scene.join(encoding, wording);
                    waiting.push(scene.clients.len() - 1);
                }
                2 if !waiting.is_empty() => scene.go_live(waiting.remove(random.usize(..waiting.len()))),
                3 if !scene.clients.is_empty() => {
                    let pipe = &scene.clients[random.usize(..scene.clients.len())].pipe;
                    pipe.is_full.fetch_xor(true, Ordering::Relaxed);
                }
                4 if scene.clients.len() > 6 && waiting.is_empty() => {
                    let left = scene.clients.swap_remove(random.usize(..scene.clients.len()));
                    scene.registry.leave(&scene.room, left.outbox.id());
                }
                5..=7 => scene.clients.iter().for_each(Client::write),
                8 | 9 => {
                    scene.step();
                }
                10 if !scene.clients.is_empty() => scene.go_live(random.usize(..scene.clients.len())),
                _ => {
                    let is_for_all = scene.clients.is_empty() || random.u8(..4) > 0;
                    let exclude = if is_for_all { None } else { Some(random.usize(..scene.clients.len())) };
                    scene.publish(1 + random.usize(..3), exclude);
                }
            }
        }
        waiting.drain(..).for_each(|index| scene.go_live(index));
        differences += scene.check(&format!("seed {seed}"));
    }
    assert!(differences > 1000, "hardly any were told, {differences}");
}
