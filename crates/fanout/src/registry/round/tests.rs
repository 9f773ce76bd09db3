use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use fanfare_protocol::command::{Start, Wording};
use fanfare_protocol::publication::{Draft, Payload};
use fanfare_protocol::session::Terms;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding};
use parking_lot::Mutex;

use super::*;
use crate::outbox::{Batch, Outbox, Socket};
use crate::registry::chain::tests::chained;
use crate::registry::{Left, Registry, SMALL};
use crate::wakes::Wakes;

/// A socket whose peer hears everything that it takes, which is not always all.
#[derive(Debug, Default)]
struct Pipe {
    heard: Mutex<Vec<u8>>,
    /// How much it takes before it is full.
    room: AtomicUsize,
}

impl Socket for Pipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room.load(Ordering::Relaxed));
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.fetch_sub(taken, Ordering::Relaxed);
        self.heard.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
}

/// A subscriber whose connection writes to a pipe.
struct Client {
    outbox: Arc<Outbox>,
    pipe: Arc<Pipe>,
    unsent: Batch,
    /// The first publication that it is to hear.
    from: usize,
}

impl Client {
    fn new(number: u8) -> Self {
        let pipe = Arc::new(Pipe { room: AtomicUsize::new(usize::MAX), ..Pipe::default() });
        let session = SessionId::from_random([number; 16]);
        // One in three has no socket that could be claimed.
        let outbox = Outbox::new(session, Encoding::NativeJson, usize::MAX);
        if !number.is_multiple_of(3) {
            outbox.lend(pipe.clone());
        }
        Self { outbox, pipe, unsent: Batch::default(), from: 0 }
    }

    /// Does what its connection's task does when it is woken.
    fn write(&mut self) {
        let cx = Context::from_waker(Waker::noop());
        loop {
            while !self.unsent.is_empty() {
                match self.pipe.try_write(&self.unsent.frames[0]) {
                    Ok(written) => drop(self.unsent.advance(written)),
                    Err(_) => {
                        assert!(self.outbox.poll_order(&cx).is_pending());
                        return;
                    }
                }
            }
            assert!(self.outbox.poll_order(&cx).is_pending());
            let Poll::Ready(_) = self.outbox.poll_take(&cx, &mut self.unsent) else { return };
        }
    }

    fn numbers(&self) -> Vec<usize> {
        let heard = self.pipe.heard.lock();
        let text = String::from_utf8_lossy(&heard);
        let parts = text.split(r#""data":"#).skip(1);
        // The last one may have come in part.
        parts.map_while(|part| Some(part[..part.find('}')?].parse().unwrap())).collect()
    }
}

fn publication(channel: &Channel, number: usize) -> Arc<Publication> {
    let draft = Draft {
        channel: channel.clone(),
        payload: Payload::parse(&number.to_string()).unwrap(),
        sender: None,
        exclude: None,
        received: UnixMicros(0),
        retention: None,
        key: None,
        trace: None,
    };
    Arc::new(Publication::new(draft, None))
}

/// A crowd, what was published to it, and the lane that walks round it.
struct Scene {
    registry: Registry,
    room: Channel,
    clients: Vec<Client>,
    published: usize,
    walk: Option<Walk>,
    /// What has been taken up in steps and is not written yet, as by hands of their own.
    held: Vec<Slice>,
    metrics: Metrics,
}

impl Scene {
    fn of(crowd: usize) -> Self {
        let mut scene = Self {
            registry: Registry::new(),
            room: Channel::parse("room").unwrap(),
            clients: Vec::new(),
            published: 0,
            walk: None,
            held: Vec::new(),
            metrics: Metrics::new(),
        };
        (0..crowd).for_each(|_| scene.join());
        scene
    }

    fn join(&mut self) {
        let mut client = Client::new(u8::try_from(self.clients.len() % 256).unwrap());
        client.from = self.published;
        self.registry.join(&self.room, &client.outbox, Terms::default());
        self.registry.enter(&self.room, client.outbox.id(), Start::Live, false);
        self.clients.push(client);
    }

    fn go_live(&self, index: usize) {
        let reply = Frame::text(r#"{"type":"subscribed"}"#);
        self.registry
            .go_live(&self.room, self.clients[index].outbox.id(), reply)
            .unwrap()
            .count(&self.metrics);
    }

    fn publish(&mut self, count: usize) {
        let new: Vec<_> = (0..count).map(|more| publication(&self.room, self.published + more)).collect();
        self.published += count;
        let delivered = self.registry.deliver(&self.room, &new, &mut Wakes::default());
        if delivered.walk.is_some() {
            self.walk = delivered.walk;
        }
    }

    fn step(&mut self) -> bool {
        let goes_on = self.take_up();
        if let Some(mut slice) = self.held.pop() {
            slice.perform(&self.metrics, || UnixMicros(0));
        }
        goes_on
    }

    /// The first half of a step; the other is to write what is held.
    fn take_up(&mut self) -> bool {
        let Some(walk) = &mut self.walk else { return false };
        let mut slice = Slice::default();
        let goes_on = walk.step(&mut slice);
        assert!(slice.claims.len() + slice.wakers.len() <= MEMBERS, "a step is a short one");
        self.held.push(slice);
        if !goes_on {
            self.walk = None;
        }
        goes_on
    }

    /// Another hand writes what it has taken up, sooner or later.
    fn write_held(&mut self, index: usize) {
        self.held.swap_remove(index).perform(&self.metrics, || UnixMicros(0));
    }

    fn walk_on(&mut self) {
        while self.step() {}
        while !self.held.is_empty() {
            self.write_held(0);
        }
    }

    /// Leaves; and hears nothing that is queued after that.
    fn leave(&mut self, index: usize) {
        let client = self.clients.swap_remove(index);
        assert_ne!(self.registry.leave(&self.room, client.outbox.id()), Left::WasNotThere);
        let heard = client.numbers();
        let until = client.from + heard.len();
        assert_eq!(heard, (client.from..until).collect::<Vec<_>>(), "in order, and none is missing");
        assert!(until <= self.published);
    }
}

/// While publications go round: some come, some leave, some go live only now, sockets take little or nothing, and more is
/// published. Everybody who stays hears everything since it entered, once and in order.
#[test]
fn whoever_stays_hears_everything_once_however_the_crowd_changes() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut scene = Scene::of(SMALL + 1 + random.usize(..200));
        let mut waiting: Vec<_> = (0..scene.clients.len()).collect();
        for index in waiting.drain(..) {
            scene.go_live(index);
            scene.clients[index].write();
        }
        for _ in 0..random.usize(100..800) {
            match random.u8(..100) {
                0..5 => scene.publish(random.usize(1..4)),
                5..15 => {
                    scene.join();
                    scene.go_live(scene.clients.len() - 1);
                }
                15..18 => {
                    // The publications between its entrance and its reply wait for the reply.
                    scene.join();
                    scene.publish(1);
                    scene.step();
                    scene.go_live(scene.clients.len() - 1);
                }
                18..28 => scene.leave(random.usize(..scene.clients.len())),
                28..38 => {
                    let room = if random.bool() { usize::MAX } else { random.usize(..400) };
                    random.choice(&scene.clients).unwrap().pipe.room.store(room, Ordering::Relaxed);
                }
                38..60 => {
                    let index = random.usize(..scene.clients.len());
                    scene.clients[index].write();
                }
                60..80 if scene.held.len() < 3 => drop(scene.take_up()),
                60..80 => scene.write_held(random.usize(..scene.held.len())),
                _ => drop(scene.step()),
            }
        }
        scene.walk_on();
        let published = scene.published;
        for client in &mut scene.clients {
            client.pipe.room.store(usize::MAX, Ordering::Relaxed);
            client.write();
            assert_eq!(client.numbers(), (client.from..published).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

/// What is published while something goes round goes along, and whoever has its turn then is written both at once.
#[test]
fn what_comes_meanwhile_goes_along_in_the_same_write() {
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);
    impl Socket for Counting {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(bytes.len())
        }
    }
    let mut scene = Scene::of(SMALL + MEMBERS);
    let sockets: Vec<_> = (0..MEMBERS).map(|_| Arc::<Counting>::default()).collect();
    for (client, socket) in scene.clients.iter_mut().rev().zip(&sockets) {
        let id = client.outbox.id();
        scene.registry.leave(&scene.room, id);
        let session = SessionId::from_random([9; 16]);
        client.outbox = Outbox::new(session, Encoding::NativeJson, usize::MAX);
        client.outbox.lend(socket.clone());
        scene.registry.join(&scene.room, &client.outbox, Terms::default());
        scene.registry.enter(&scene.room, client.outbox.id(), Start::Live, false);
    }
    for index in 0..scene.clients.len() {
        scene.go_live(index);
        scene.clients[index].write();
    }
    scene.publish(1);
    scene.step();
    scene.publish(2);
    scene.walk_on();
    let writes: Vec<_> = sockets.iter().map(|socket| socket.0.load(Ordering::Relaxed)).collect();
    assert_eq!(writes, [1; MEMBERS], "those at the end of the crowd had their turn after all had come");
    scene.clients[0].write();
    assert_eq!(scene.clients[0].numbers(), [0, 1, 2]);
}

/// Where many have left, what came before them has turns to spare, and what came after has not.
#[test]
fn a_round_ends_when_all_have_heard_though_many_have_left() {
    let mut scene = Scene::of(SMALL + 200);
    (0..scene.clients.len()).for_each(|index| scene.go_live(index));
    scene.publish(1);
    scene.step();
    (0..150).for_each(|_| scene.leave(scene.clients.len() - 1));
    scene.publish(1);
    let most = scene.clients.len().div_ceil(MEMBERS) + 1;
    let steps = (0..most).take_while(|_| scene.step()).count();
    assert!(steps < most, "{steps} steps and no end");
    for client in &mut scene.clients {
        client.write();
        assert_eq!(client.numbers(), [0, 1]);
    }
}

/// A very large crowd is given hands, as many as it needs and no more than there are, and each until nothing is on its way.
#[test]
fn a_very_large_crowd_is_given_hands() {
    let hired = |crowd, most| {
        let mut scene = Scene::of(crowd);
        (0..scene.clients.len()).for_each(|index| scene.go_live(index));
        scene.publish(1);
        let walk = scene.walk.as_ref().unwrap();
        let hands = walk.hire(most);
        assert!(walk.hire(most).is_empty(), "they are there already");
        scene.walk_on();
        let count = hands.len();
        for mut hand in hands {
            assert!(!hand.step(&mut Slice::default()), "nothing is left to do");
        }
        scene.publish(1);
        assert_eq!(
            scene.walk.as_ref().unwrap().hire(most).len(),
            count,
            "they have gone and are hired again"
        );
        count
    };
    assert_eq!(hired(2 * HAND - 1, 7), 0);
    assert_eq!(hired(2 * HAND, 7), 1);
    assert_eq!(hired(4 * HAND, 7), 3);
    assert_eq!(hired(4 * HAND, 2), 2);
    assert_eq!(hired(4 * HAND, 0), 0);
}

/// A crowd that has dispersed while something goes round leaves nothing to walk for.
#[test]
fn a_walk_ends_with_its_crowd() {
    let mut scene = Scene::of(SMALL + 1);
    (0..scene.clients.len()).for_each(|index| scene.go_live(index));
    scene.publish(1);
    while !scene.clients.is_empty() {
        scene.leave(0);
    }
    assert!(!scene.step());
    assert_eq!(scene.registry.channels(), 0);
}

/// What would tell differences goes with the last who is told them, though what it is from is still on its way.
#[test]
fn nothing_is_kept_for_differences_that_nobody_is_told() {
    let mut scene = Scene::of(SMALL + 1);
    (0..scene.clients.len()).for_each(|index| scene.go_live(index));
    let links = |scene: &Scene| {
        let subscribers = scene.registry.find(&scene.room).unwrap();
        let crowd = subscribers.0.lock();
        crowd.round.as_ref().map(|round| (round.links.len(), round.publications.len()))
    };
    let one = Outbox::new(SessionId::from_random([255; 16]), chained()[0], usize::MAX);
    let terms = Terms { wording: Wording::Differences, ..Terms::default() };
    scene.registry.join(&scene.room, &one, terms);
    scene.publish(2);
    assert_eq!(links(&scene), Some((2, 2)));
    scene.registry.leave(&scene.room, one.id());
    assert_eq!(links(&scene), Some((0, 2)));
    scene.publish(1);
    assert_eq!(links(&scene), Some((0, 3)));
    scene.walk_on();
}
