use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use fanfare_protocol::publication::{Draft, Epoch, Offset, Payload};
use fanfare_protocol::tags::{Tags, Test};
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Encoding, SessionId};

use super::*;
use crate::keyed::names_that_collide_in_one_are_spread_in_another;
use crate::outbox::Queued;
use crate::outbox::{Batch, signed};

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn outbox() -> Arc<Outbox> {
    Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, usize::MAX)
}

fn draft(channel: &Channel, number: usize, exclude: Option<SessionId>) -> Draft {
    Draft {
        channel: channel.clone(),
        payload: Payload::parse(&number.to_string()).unwrap(),
        sender: None,
        exclude,
        received: UnixMicros(0),
        retention: None,
        key: None,
        trace: None,
    }
}

fn publication(channel: &Channel, number: usize, exclude: Option<SessionId>) -> Arc<Publication> {
    Arc::new(Publication::new(draft(channel, number, exclude), None))
}

/// Joins a channel without history, and enters it.
fn join(registry: &Registry, channel: &Channel, outbox: &Arc<Outbox>) -> Joined {
    let joined = registry.join(channel, outbox, Terms::default());
    let entering = registry.enter(channel, outbox.id(), Start::Live, false);
    assert!(matches!(entering, Entering::Entered(None)), "{entering:?}");
    joined
}

fn reply() -> Frame {
    Frame::text("subscribed")
}

/// All that waits in an outbox: the reply as `None`, a publication as its number.
fn heard(outbox: &Outbox) -> Vec<Option<usize>> {
    let mut heard = Vec::new();
    let mut batch = Batch::default();
    while outbox.poll_take(&Context::from_waker(Waker::noop()), &mut batch).is_ready() {
        for frame in mem::take(&mut batch).frames {
            let text = std::str::from_utf8(&frame[2..]).unwrap().to_owned();
            let number = text.rsplit_once(":").and_then(|(_, end)| end.strip_suffix('}'));
            heard.push(number.map(|number| number.parse().unwrap()));
        }
    }
    heard
}

impl Registry {
    /// How many channels it holds, those without subscribers included, if there ever were any.
    pub(crate) fn channels(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Delivers, and wakes whoever has something to write at once.
    fn hear(&self, channel: &Channel, publications: &[Arc<Publication>]) -> Delivered {
        self.deliver(channel, publications, &mut Wakes::default())
    }
}

#[test]
fn the_first_in_and_the_last_out_are_told_apart() {
    let registry = Registry::new();
    let (room, one, two) = (channel("room:1"), outbox(), outbox());
    assert_eq!(registry.leave(&room, one.id()), Left::WasNotThere);
    assert_eq!(join(&registry, &room, &one), Joined::First);
    assert_eq!(join(&registry, &room, &one), Joined::Already);
    assert_eq!(join(&registry, &room, &two), Joined::Another);
    assert_eq!(join(&registry, &channel("room:2"), &two), Joined::First);
    assert_eq!(registry.channels(), 2);
    assert_eq!(registry.leave(&room, one.id()), Left::Another);
    assert_eq!(registry.leave(&room, one.id()), Left::WasNotThere);
    assert_eq!(registry.leave(&room, two.id()), Left::Last);
    assert_eq!(registry.leave(&channel("room:2"), two.id()), Left::Last);
    assert_eq!(registry.channels(), 0, "a channel without subscribers is not there");
    assert_eq!(join(&registry, &room, &one), Joined::First, "and can come back");
}

#[test]
fn nothing_is_delivered_before_the_reply() {
    let registry = Registry::new();
    let (room, one) = (channel("room:1"), outbox());
    let number = |number| [publication(&room, number, None)];
    registry.join(&room, &one, Terms::default());
    assert_eq!(registry.hear(&room, &number(1)), Delivered::default(), "nobody has entered");
    join(&registry, &room, &one);
    assert_eq!(registry.hear(&room, &number(2)), Delivered::default());
    assert_eq!(heard(&one), [], "what comes before the reply waits for it");
    let bytes = |number| signed(publication(&room, number, None).encoded(Encoding::NativeJson).len());
    let queued = registry.go_live(&room, one.id(), reply());
    assert_eq!(queued.map(|it| it.grown_bytes), Some(signed(reply().len()) + bytes(2)));
    let three_and_four = [publication(&room, 3, None), publication(&room, 4, None)];
    let delivered = registry.hear(&room, &three_and_four);
    assert_eq!(
        delivered,
        Delivered {
            receivers: 1,
            queued: Queued { grown_bytes: bytes(3) + bytes(4), ..Queued::default() },
            ..Delivered::default()
        }
    );
    registry.leave(&room, one.id());
    assert_eq!(registry.hear(&room, &number(5)), Delivered::default());
    assert_eq!(heard(&one), [None, Some(2), Some(3), Some(4)]);
}

#[test]
fn who_has_left_does_not_go_live() {
    let registry = Registry::new();
    let (room, one, two) = (channel("room:1"), outbox(), outbox());
    assert_eq!(registry.go_live(&room, one.id(), reply()), None);
    join(&registry, &room, &one);
    join(&registry, &room, &two);
    registry.leave(&room, one.id());
    assert_eq!(registry.go_live(&room, one.id(), reply()), None);
    assert_eq!(heard(&one), []);
}

#[test]
fn subscribers_hear_their_channels_and_no_others() {
    let registry = Registry::new();
    let rooms: Vec<_> = (0..200).map(|number| channel(&format!("room:{number}"))).collect();
    let outboxes: Vec<_> = rooms.iter().map(|_| outbox()).collect();
    for (room, outbox) in rooms.iter().zip(&outboxes) {
        join(&registry, room, outbox);
        registry.go_live(room, outbox.id(), reply());
    }
    for (number, room) in rooms.iter().enumerate() {
        registry.hear(room, &[publication(room, number, None)]);
    }
    for (number, outbox) in outboxes.iter().enumerate() {
        assert_eq!(heard(outbox), [None, Some(number)]);
    }
}

#[test]
fn a_publisher_without_echo_counts_as_a_receiver_but_hears_nothing() {
    let registry = Registry::new();
    let (room, us) = (channel("room:1"), SessionId::from_random([1; 16]));
    let them = Outbox::new(SessionId::from_random([2; 16]), Encoding::NativeJson, usize::MAX);
    let ours = outbox();
    for outbox in [&ours, &them] {
        join(&registry, &room, outbox);
        registry.go_live(&room, outbox.id(), reply());
    }
    assert_eq!(registry.hear(&room, &[publication(&room, 1, Some(us))]).receivers, 2);
    assert_eq!((heard(&ours), heard(&them)), (vec![None], vec![None, Some(1)]));
}

#[test]
fn a_crowd_that_has_dispersed_gives_its_memory_back() {
    let registry = Registry::new();
    let room = channel("room:1");
    let outboxes: Vec<_> = (0..10_000).map(|_| outbox()).collect();
    outboxes.iter().for_each(|outbox| assert_ne!(join(&registry, &room, outbox), Joined::Already));
    outboxes[1..].iter().for_each(|outbox| assert_eq!(registry.leave(&room, outbox.id()), Left::Another));
    let crowd = registry.find(&room).unwrap();
    let capacity = crowd.0.lock().members.capacity();
    assert!(capacity <= 64, "room for {capacity} is kept for one");
}

/// A publication of a channel with history whose content is its offset.
fn placed(channel: &Channel, offset: usize) -> Arc<Publication> {
    let position = Position { epoch: Epoch(1), offset: Offset(offset as u64) };
    Arc::new(Publication::new(draft(channel, offset, None), Some(position)))
}

fn page(channel: &Channel, offsets: RangeInclusive<usize>) -> Page {
    let top = Offset(*offsets.end() as u64);
    Page { epoch: Epoch(1), top, publications: offsets.map(|offset| placed(channel, offset)).collect() }
}

fn since(offset: u64) -> Terms {
    let position = Position { epoch: Epoch(1), offset: Offset(offset) };
    Terms { start: Start::Since(position), history: true, ..Terms::default() }
}

/// Joins and enters a channel with history that stands at 3; returns who reads it.
fn stand_at_three(registry: &Registry, room: &Channel, outbox: &Arc<Outbox>) -> Reader {
    registry.join(room, outbox, since(1));
    let Entering::Wait { mut answer, start_reading } =
        registry.enter(room, outbox.id(), since(1).start, false)
    else {
        panic!("nothing is known of the stream yet")
    };
    let reader = start_reading.expect("nobody else reads");
    let reading = reader.next().expect("it was asked for");
    assert!(answer.try_recv().is_err(), "nothing has been read");
    reader.learn(reading, page(room, 1..=3), None);
    assert!(answer.try_recv().expect("it is told").is_ok());
    let entering = registry.enter(room, outbox.id(), since(1).start, true);
    assert!(matches!(entering, Entering::Entered(Some(entry)) if entry.recovered), "{entering:?}");
    assert_eq!(reader.next(), None, "nothing more is wanted");
    reader
}

fn orders(outbox: &Outbox) -> Vec<Order> {
    let mut orders = Vec::new();
    while let Poll::Ready(order) = outbox.poll_order(&Context::from_waker(Waker::noop())) {
        orders.push(order);
    }
    orders
}

#[test]
fn the_reply_comes_then_what_was_missed_then_what_has_come_since() {
    let registry = Registry::new();
    let (room, one) = (channel("room:1"), outbox());
    stand_at_three(&registry, &room, &one);
    registry.hear(&room, &[placed(&room, 3), placed(&room, 4)]);
    assert_eq!(heard(&one), []);
    let _ = registry.go_live(&room, one.id(), reply()).unwrap();
    registry.hear(&room, &[placed(&room, 4), placed(&room, 5)]);
    assert_eq!(heard(&one), [None, Some(2), Some(3), Some(4), Some(5)]);
}

/// Whoever is lost is told once, and not before it has been told that it is subscribed.
#[test]
fn everyone_is_told_of_a_gap_once() {
    let registry = Registry::new();
    let (room, live, entered) = (channel("room:1"), outbox(), outbox());
    stand_at_three(&registry, &room, &live);
    let _ = registry.go_live(&room, live.id(), reply()).unwrap();
    registry.join(&room, &entered, since(3));
    registry.enter(&room, entered.id(), since(3).start, false);
    let reader = registry.hear(&room, &[placed(&room, 7)]).start_reading.expect("there is a gap");
    let reading = reader.next().expect("it is to be closed");
    reader.learn(reading, page(&room, 6..=8), None);
    let lost = [Order::Lost { channel: room.clone() }];
    assert_eq!((orders(&live), orders(&entered)), (lost.to_vec(), vec![]));
    let _ = registry.go_live(&room, entered.id(), reply()).unwrap();
    assert_eq!(orders(&entered), lost);
    assert_eq!(registry.hear(&room, &[placed(&room, 9)]).receivers, 0, "nothing follows");
    assert_eq!((heard(&live), heard(&entered)), (vec![None, Some(2), Some(3)], vec![None]));
}

/// The connection has not taken the order yet when its client has left and come back.
#[test]
fn a_loss_is_not_told_of_the_subscription_after_it() {
    let registry = Registry::new();
    let (room, other, one) = (channel("room:1"), channel("room:2"), outbox());
    stand_at_three(&registry, &other, &one);
    stand_at_three(&registry, &room, &one);
    for name in [&room, &other] {
        let _ = registry.go_live(name, one.id(), reply()).unwrap();
        let reader = registry.hear(name, &[placed(name, 7)]).start_reading.expect("there is a gap");
        let reading = reader.next().expect("it is to be closed");
        reader.learn(reading, page(name, 6..=8), None);
    }
    registry.leave(&room, one.id());
    stand_at_three(&registry, &room, &one);
    let _ = registry.go_live(&room, one.id(), reply()).unwrap();
    assert_eq!(orders(&one), [Order::Lost { channel: other }], "of the one that it has not left");
    assert_eq!(registry.hear(&room, &[placed(&room, 4)]).receivers, 1, "and it hears the other again");
}

#[test]
fn whoever_joins_twice_goes_on_hearing() {
    let registry = Registry::new();
    let (room, one) = (channel("room:1"), outbox());
    stand_at_three(&registry, &room, &one);
    let _ = registry.go_live(&room, one.id(), reply()).unwrap();
    assert_eq!(registry.join(&room, &one, since(1)), Joined::Already);
    let entering = registry.enter(&room, one.id(), since(2).start, false);
    assert!(matches!(entering, Entering::Entered(Some(_))), "{entering:?}");
    registry.hear(&room, &[placed(&room, 4)]);
    let _ = registry.go_live(&room, one.id(), reply()).unwrap();
    registry.hear(&room, &[placed(&room, 5)]);
    assert_eq!(heard(&one), [None, Some(2), Some(3), Some(4), None, Some(5)]);
}

/// A page that was asked for before a subscriber came says nothing about what it asks for.
#[test]
fn whoever_comes_during_a_read_waits_for_the_next() {
    let registry = Registry::new();
    let (room, one, two) = (channel("room:1"), outbox(), outbox());
    let reader = stand_at_three(&registry, &room, &one);
    registry.hear(&room, &[placed(&room, 5)]);
    let reading = reader.next().expect("a gap is to be closed");
    registry.join(&room, &two, since(6));
    let Entering::Wait { mut answer, start_reading: None } =
        registry.enter(&room, two.id(), since(6).start, false)
    else {
        panic!("it is ahead of the node, and somebody reads already")
    };
    reader.learn(reading, page(&room, 4..=5), None);
    assert!(answer.try_recv().is_err());
    let reading = reader.next().expect("it is read once more");
    reader.learn(reading, page(&room, 6..=7), None);
    assert!(answer.try_recv().expect("it is told").is_ok());
    let entering = registry.enter(&room, two.id(), since(6).start, true);
    assert!(matches!(entering, Entering::Entered(Some(entry)) if entry.recovered), "{entering:?}");
}

#[test]
fn whoever_waits_is_told_that_a_read_has_failed() {
    let registry = Registry::new();
    let (room, one) = (channel("room:1"), outbox());
    registry.join(&room, &one, since(1));
    let Entering::Wait { mut answer, start_reading } = registry.enter(&room, one.id(), since(1).start, false)
    else {
        panic!("nothing is known of the stream yet")
    };
    let reader = start_reading.expect("nobody else reads");
    let reading = reader.next().expect("it was asked for");
    assert!(reader.failed(reading, &BrokerError::Busy(1)), "somebody is there still");
    assert!(answer.try_recv().expect("it is told").is_err());
    assert_eq!(reader.next(), Some(reading), "the stream needs it still");
    registry.leave(&room, one.id());
    assert!(!reader.failed(reading, &BrokerError::Busy(1)), "nobody is there");
}

/// A channel is left by the last and entered again while its history is read: the page is not for the new stream.
#[test]
fn a_page_is_not_shown_to_a_stream_that_has_taken_the_name() {
    let registry = Registry::new();
    let (room, one) = (channel("room:1"), outbox());
    let old = stand_at_three(&registry, &room, &one);
    registry.hear(&room, &[placed(&room, 5)]);
    let reading = old.next().expect("a gap is to be closed");
    registry.leave(&room, one.id());
    registry.join(&room, &one, since(3));
    let Entering::Wait { mut answer, start_reading } = registry.enter(&room, one.id(), since(3).start, false)
    else {
        panic!("nothing is known of the new stream yet")
    };
    let new = start_reading.expect("the old reader does not count");
    assert_ne!(old, new);
    old.learn(reading, page(&room, 4..=5), None);
    assert!(answer.try_recv().is_err());
    assert_eq!(old.next(), None, "its duty is over");
    assert!(new.next().is_some());
}

/// Looks, at the moment when the writer is woken by the reply, whether anybody could deliver just then.
struct Bystander {
    registry: Arc<Registry>,
    room: Channel,
    was_locked: AtomicBool,
}

impl Wake for Bystander {
    fn wake(self: Arc<Self>) {
        let crowd = self.registry.find(&self.room).unwrap();
        self.was_locked.store(crowd.0.is_locked(), Ordering::SeqCst);
    }
}

/// The reply is queued and the gate opened under one lock: no thread can deliver between the two.
#[test]
fn going_live_is_one_step() {
    let (registry, room, outbox) = (Arc::new(Registry::new()), channel("room:1"), outbox());
    join(&registry, &room, &outbox);
    let bystander = Arc::new(Bystander {
        registry: registry.clone(),
        room: room.clone(),
        was_locked: AtomicBool::new(false),
    });
    let waker = Waker::from(bystander.clone());
    let mut batch = Batch::default();
    assert!(outbox.poll_take(&Context::from_waker(&waker), &mut batch).is_pending());
    let _ = registry.go_live(&room, outbox.id(), reply()).unwrap();
    assert!(bystander.was_locked.load(Ordering::SeqCst), "a publication could have overtaken the reply");
}

/// One thread delivers without a pause while others join: each hears its reply, then every publication from some point
/// on, in order and without a hole.
#[test]
fn the_reply_comes_first_and_nothing_falls_in_between() {
    const JOINERS: usize = 3;
    for _ in 0..30 {
        let registry = Registry::new();
        let (room, number) = (channel("room:1"), AtomicUsize::new(0));
        let all_joined = AtomicUsize::new(0);
        let outboxes: Vec<_> = (0..JOINERS).map(|_| outbox()).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut after = 0;
                while after < 20 {
                    let next = number.fetch_add(1, Ordering::SeqCst);
                    registry.hear(&room, &[publication(&room, next, None)]);
                    after += usize::from(all_joined.load(Ordering::SeqCst) == JOINERS);
                }
            });
            for outbox in &outboxes {
                scope.spawn(|| {
                    join(&registry, &room, outbox);
                    let _ = registry.go_live(&room, outbox.id(), reply()).unwrap();
                    all_joined.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        let end = number.load(Ordering::SeqCst);
        for outbox in &outboxes {
            let heard = heard(outbox);
            assert_eq!(heard[0], None, "the reply is first");
            let start = heard[1].unwrap();
            assert_eq!(heard[1..], (start..end).map(Some).collect::<Vec<_>>());
        }
    }
}

/// Threads join and leave one channel as fast as they can, so that the last one out meets the next one in. Whoever has
/// gone live is really heard of: nobody is left in a crowd that the registry has forgotten.
#[test]
fn whoever_joins_as_the_last_one_leaves_is_not_forgotten() {
    const ROUNDS: usize = 20_000;
    let registry = Registry::new();
    let room = channel("room:1");
    let (firsts, lasts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (barrier, failed) = (Barrier::new(3), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let outbox = outbox();
                let ours = [publication(&room, 7, None)];
                barrier.wait();
                for _ in 0..ROUNDS {
                    match join(&registry, &room, &outbox) {
                        Joined::First => firsts.fetch_add(1, Ordering::SeqCst),
                        Joined::Another => 0,
                        Joined::Already => panic!("nobody joins twice"),
                    };
                    let went_live = registry.go_live(&room, outbox.id(), reply());
                    let receivers = registry.hear(&room, &ours).receivers;
                    if went_live.is_none() || receivers == 0 {
                        failed.store(true, Ordering::SeqCst);
                    }
                    match registry.leave(&room, outbox.id()) {
                        Left::Last => lasts.fetch_add(1, Ordering::SeqCst),
                        Left::Another => 0,
                        Left::WasNotThere => {
                            failed.store(true, Ordering::SeqCst);
                            0
                        }
                    };
                    heard(&outbox);
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst), "somebody joined a channel that the registry had forgotten");
    assert_eq!(registry.channels(), 0);
    let (firsts, lasts) = (firsts.into_inner(), lasts.into_inner());
    assert_eq!(firsts, lasts, "every opening has its closing");
    assert!(firsts > 1, "the race was not tried");
}

#[test]
fn channels_are_spread_over_the_shards() {
    let registry = Registry::new();
    let outbox = outbox();
    for number in 0..1_000 {
        join(&registry, &channel(&format!("room:{number}")), &outbox);
    }
    let sizes: HashSet<_> = registry.shards.iter().map(|shard| shard.lock().len()).collect();
    assert!(sizes.iter().all(|&channels| channels < 60), "{sizes:?}");
}

#[test]
fn names_that_collide_in_one_registry_are_spread_in_another() {
    names_that_collide_in_one_are_spread_in_another(|| Registry::new().hasher);
    names_that_collide_in_one_are_spread_in_another(|| Registry::new().shards[0].lock().hasher().clone());
}

/// A replay never disconnects whoever asked for it: beyond half of the queue it is refused, or for a rewind cut short.
#[test]
fn a_replay_that_is_too_long_to_wait_is_not_begun() {
    let room = channel("room:1");
    let missed: Vec<_> = (10..20).map(|number| publication(&room, number, None)).collect();
    let bytes = missed[0].replayed(Encoding::NativeJson).len();
    let position = Position { epoch: Epoch(1), offset: Offset(19) };
    for (room_for, is_too_long) in [(10, false), (9, true), (0, true)] {
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 2 * room_for * bytes);
        let enter = |start| fitting(&outbox, start, Entry { position, recovered: true }, missed.clone());

        let (entry, replay) = enter(Start::Since(Position { epoch: Epoch(1), offset: Offset(9) }));
        assert_eq!((entry.position, entry.recovered), (position, !is_too_long), "{room_for}");
        assert_eq!(replay, if is_too_long { &[] } else { &missed[..] }, "{room_for}: all or nothing");

        let (entry, replay) = enter(Start::Rewind(10));
        assert_eq!((entry.position, entry.recovered), (position, true));
        assert_eq!(replay, missed[10 - room_for..], "{room_for}: the newest");
        assert!(outbox.replay(&replay).is_ok(), "{room_for}");
    }
}

/// What a subscriber hears whose filter lets through what is marked `even`, beside one that hears everything.
#[test]
fn a_filter_lets_through_what_it_says_live_and_replayed_in_crowds_of_every_size() {
    let even = Filter::Tag { key: "even".into(), test: Test::Present };
    let marked = |room: &Channel, offset: usize| {
        let tags = if offset.is_multiple_of(2) { Tags::parse([("even", "")]).unwrap() } else { Tags::NONE };
        let draft = draft(room, offset, None);
        let payload = draft.payload.clone().tagged(tags);
        let position = Position { epoch: Epoch(1), offset: Offset(offset as u64) };
        Arc::new(Publication::new(Draft { payload, ..draft }, Some(position)))
    };
    for others in [0, SMALL + 1] {
        let (registry, room) = (Registry::new(), channel("room:1"));
        let crowd: Vec<_> = (0..others).map(|_| outbox()).collect();
        for other in &crowd {
            join(&registry, &room, other);
            let _ = registry.go_live(&room, other.id(), reply());
        }
        let (all, some) = (outbox(), outbox());
        join(&registry, &room, &all);
        let terms = Terms { filter: Some(Arc::new(even.clone())), ..Terms::default() };
        registry.join(&room, &some, terms);
        assert!(matches!(registry.enter(&room, some.id(), Start::Live, false), Entering::Entered(None)));
        let hear = |offsets: RangeInclusive<usize>| {
            let run: Vec<_> = offsets.map(|offset| marked(&room, offset)).collect();
            let mut walk = registry.hear(&room, &run).walk;
            while let Some(round) = &mut walk
                && round.step(&mut Slice::default())
            {}
        };
        hear(1..=3);
        for outbox in [&all, &some] {
            let _ = registry.go_live(&room, outbox.id(), reply());
        }
        hear(4..=4);
        hear(5..=7);
        let expected = |is: fn(&usize) -> bool| -> Vec<_> {
            std::iter::once(None).chain((1..=7).filter(is).map(Some)).collect()
        };
        assert_eq!(heard(&all), expected(|_| true), "among {others}");
        assert_eq!(heard(&some), expected(|offset| offset.is_multiple_of(2)), "among {others}");
        registry.leave(&room, some.id());
        assert!(registry.find(&room).unwrap().0.lock().filters.is_none());
    }
    let (registry, room, one) = (Registry::new(), channel("room:1"), outbox());
    let filter = Some(Arc::new(even));
    registry.join(&room, &one, Terms { filter, ..since(1) });
    let Entering::Wait { start_reading: Some(reader), .. } =
        registry.enter(&room, one.id(), since(1).start, false)
    else {
        panic!("it waits for a read")
    };
    let reading = reader.next().expect("a read is wanted");
    let publications = (1..=5).map(|offset| marked(&room, offset)).collect();
    let page = Page { epoch: Epoch(1), top: Offset(5), publications };
    assert_eq!(reader.learn(reading, page, None).receivers, 0);
    let entering = registry.enter(&room, one.id(), since(1).start, true);
    assert!(matches!(entering, Entering::Entered(Some(Entry { recovered: true, .. }))), "{entering:?}");
    let _ = registry.go_live(&room, one.id(), reply());
    assert_eq!(heard(&one), [None, Some(2), Some(4)]);
}
