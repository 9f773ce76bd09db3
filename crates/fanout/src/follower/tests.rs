use fanfare_protocol::Channel;
use fanfare_protocol::publication::{Draft, Payload};
use fanfare_protocol::time::UnixMicros;
use proptest::prelude::*;

use super::*;

const EPOCH: Epoch = Epoch(1);

fn publication(epoch: Epoch, offset: u64, content: u64) -> Arc<Publication> {
    let draft = Draft {
        channel: Channel::parse("room:1").unwrap(),
        payload: Payload::parse(&content.to_string()).unwrap(),
        sender: None,
        exclude: None,
        received: UnixMicros(0),
        retention: None,
        key: None,
        trace: None,
    };
    Arc::new(Publication::new(draft, Some(Position { epoch, offset: Offset(offset) })))
}

/// Publications of the first epoch, whose contents are their offsets.
fn run(offsets: impl IntoIterator<Item = u64>) -> Vec<Arc<Publication>> {
    offsets.into_iter().map(|offset| publication(EPOCH, offset, offset)).collect()
}

fn page(epoch: Epoch, top: u64, publications: Vec<Arc<Publication>>) -> Page {
    Page { epoch, top: Offset(top), publications }
}

fn since(offset: u64) -> Start {
    Start::Since(Position { epoch: EPOCH, offset: Offset(offset) })
}

fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.offset().0).collect()
}

/// A follower that has read the position, and then heard up to there.
fn standing_at(offset: u64) -> Follower {
    let mut follower = Follower::default();
    assert_eq!(follower.enter(Start::Live, false), Entrance::Read);
    let reading = follower.take_read().unwrap();
    assert_eq!(reading.read, Read::Newest);
    follower.learn(reading, page(EPOCH, offset, run(offset..=offset))).unwrap();
    assert!(!follower.wants_read());
    follower
}

fn delivered(step: &Step<'_>) -> Vec<u64> {
    assert!(!step.lost);
    offsets(&step.deliver)
}

#[test]
fn what_comes_twice_or_late_is_delivered_once_and_in_order() {
    for (what, heard, expected) in [
        ("in order", vec![6, 7, 8], vec![6, 7, 8]),
        ("doubled", vec![6, 6, 7, 7], vec![6, 7]),
        ("old news", vec![4, 5, 6, 5], vec![6]),
        ("reordered", vec![8, 7, 6], vec![6, 7, 8]),
        ("beyond a gap", vec![6, 8, 9], vec![6]),
    ] {
        let mut at_once = standing_at(5);
        assert_eq!(delivered(&at_once.admit(&run(heard.clone()))), expected, "{what}, at once");
        let mut one_by_one = standing_at(5);
        let singly: Vec<_> =
            heard.iter().flat_map(|&offset| delivered(&one_by_one.admit(&run([offset])))).collect();
        assert_eq!(singly, expected, "{what}, one by one");
    }
}

#[test]
fn a_gap_is_closed_by_one_read_from_where_it_begins() {
    let mut follower = standing_at(5);
    assert_eq!(delivered(&follower.admit(&run([8]))), [0; 0]);
    assert_eq!(delivered(&follower.admit(&run([10]))), [0; 0]);
    let reading = follower.take_read().unwrap();
    assert_eq!(reading.read, Read::After(Offset(4)), "the newest is read again, to be compared");
    let step = follower.learn(reading, page(EPOCH, 9, run(5..=9))).unwrap();
    assert_eq!(delivered(&step), [6, 7, 8, 9, 10]);
    assert!(!follower.wants_read());
}

/// The link was lost and is back, which nobody has noticed yet; but the refill came over the new one.
#[test]
fn a_refill_from_a_stream_that_went_back_is_told() {
    let mut follower = standing_at(5);
    follower.check(Position { epoch: EPOCH, offset: Offset(6) });
    let reading = follower.take_read().unwrap();
    let page = page(EPOCH, 6, (5..=6).map(|offset| publication(EPOCH, offset, 100 + offset)).collect());
    assert!(follower.learn(reading, page).unwrap().lost);
}

#[test]
fn a_gap_that_history_no_longer_has_is_told() {
    let mut follower = standing_at(5);
    follower.admit(&run([8]));
    let reading = follower.take_read().unwrap();
    let step = follower.learn(reading, page(EPOCH, 9, run(8..=9))).unwrap();
    assert_eq!(step, Step { lost: true, deliver: Cow::Owned(Vec::new()) });
    assert_eq!(
        delivered(&follower.admit(&run([10]))),
        [10],
        "and the stream goes on for those who come back"
    );
}

/// The last publication is not heard, and no other follows it.
#[test]
fn a_check_finds_what_no_jump_would_show() {
    let mut follower = standing_at(5);
    follower.check(Position { epoch: EPOCH, offset: Offset(5) });
    assert!(!follower.wants_read());
    follower.check(Position { epoch: EPOCH, offset: Offset(6) });
    let reading = follower.take_read().unwrap();
    assert_eq!(delivered(&follower.learn(reading, page(EPOCH, 6, run(6..=6))).unwrap()), [6]);
}

#[test]
fn a_read_that_began_before_the_doubt_settles_nothing() {
    let mut follower = standing_at(5);
    follower.admit(&run([7]));
    let stale = follower.take_read().unwrap();
    follower.doubt();
    assert_eq!(follower.learn(stale, page(EPOCH, 7, run(5..=7))), None);
    assert_eq!(delivered(&follower.admit(&run([6]))), [0; 0], "nothing is taken on trust");
    let reading = follower.take_read().unwrap();
    assert_eq!(reading.read, Read::After(Offset(4)), "the newest is read again, to be compared");
    assert_eq!(delivered(&follower.learn(reading, page(EPOCH, 7, run(5..=7))).unwrap()), [6, 7]);
}

/// The very first read is under way when the link is lost: where it says the stream stands, it may stand no more.
#[test]
fn a_first_read_that_began_before_the_doubt_is_made_again() {
    let mut follower = Follower::default();
    follower.enter(Start::Live, false);
    let stale = follower.take_read().unwrap();
    follower.doubt();
    assert_eq!(follower.learn(stale, page(EPOCH, 5, run([5]))), None);
    assert!(follower.wants_read());
}

/// Publications that the broker acknowledged and lost, and others in their places.
#[test]
fn a_stream_that_went_back_is_told_from_one_that_goes_on() {
    let other = |offset| publication(EPOCH, offset, 100 + offset);
    for quiet in [false, true] {
        for (what, top, kept, lost) in [
            ("it goes on", 6, run(5..=6), false),
            ("it stands", 5, run([5]), false),
            ("it went back", 4, vec![], true),
            ("it went back and came as far", 5, vec![other(5)], true),
            ("it went back and came further", 6, vec![other(5), other(6)], true),
            ("it has lost what comes next", 9, run(8..=9), true),
        ] {
            let mut follower = standing_at(4);
            follower.admit(&run([5]));
            if quiet {
                follower.take_quiet();
                assert!(follower.take_quiet());
            }
            follower.doubt();
            let reading = follower.take_read().unwrap();
            let step = follower.learn(reading, page(EPOCH, top, kept)).unwrap();
            assert_eq!(step.lost, lost, "{what}, quiet: {quiet}");
        }
    }
}

/// Nothing was to be replayed to the one who came first: even so the follower knows the publication that it came after.
#[test]
fn whoever_has_seen_all_is_told_when_that_is_taken_back() {
    let mut follower = Follower::default();
    assert_eq!(follower.enter(since(5), false), Entrance::Read);
    let reading = follower.take_read().unwrap();
    let Read::After(after) = reading.read else { panic!("{reading:?}") };
    follower.learn(reading, page(EPOCH, 5, run(after.0 + 1..=5))).unwrap();
    assert!(matches!(follower.enter(since(5), true), Entrance::Open { replay, .. } if replay.is_empty()));
    follower.doubt();
    let reading = follower.take_read().unwrap();
    let page = page(EPOCH, 6, (5..=6).map(|offset| publication(EPOCH, offset, 100 + offset)).collect());
    assert!(follower.learn(reading, page).unwrap().lost);
}

/// What was held when the link was lost may be of the stream as it was.
#[test]
fn what_was_held_before_the_doubt_is_not_delivered_after_it() {
    let mut follower = standing_at(5);
    follower.admit(&run([7]));
    follower.doubt();
    let reading = follower.take_read().unwrap();
    let page = page(EPOCH, 6, run(5..=6));
    assert_eq!(delivered(&follower.learn(reading, page).unwrap()), [6]);
    let after: Vec<_> = [publication(EPOCH, 7, 107)].into();
    assert_eq!(follower.admit(&after).deliver, after);
}

/// No loss of the link was seen, and yet another publication has a place that was taken.
#[test]
fn a_contradiction_puts_the_stream_in_doubt() {
    let mut follower = standing_at(5);
    follower.admit(&run(6..=7));
    let step = follower.admit(&[publication(EPOCH, 6, 106)]).deliver.into_owned();
    assert_eq!(step, []);
    let reading = follower.take_read().unwrap();
    assert!(follower.learn(reading, page(EPOCH, 6, vec![publication(EPOCH, 6, 106)])).unwrap().lost);
}

#[test]
fn what_is_left_over_of_an_old_epoch_breaks_no_promise() {
    let old = Epoch(9);
    let mut follower = standing_at(5);
    assert_eq!(delivered(&follower.admit(&[publication(old, 70, 70)])), [0; 0]);
    let reading = follower.take_read().unwrap();
    assert_eq!(delivered(&follower.learn(reading, page(EPOCH, 6, run(5..=6))).unwrap()), [6]);
    assert_eq!(delivered(&follower.admit(&run([7]))), [7]);
    assert!(!follower.wants_read(), "nothing of it is left");
}

#[test]
fn a_new_epoch_is_told_and_heard_from_there() {
    let new = Epoch(9);
    let mut follower = standing_at(5);
    assert_eq!(delivered(&follower.admit(&[publication(new, 2, 2)])), [0; 0]);
    let reading = follower.take_read().unwrap();
    let step = follower.learn(reading, page(new, 1, vec![publication(new, 1, 1)])).unwrap();
    assert!(step.lost);
    assert_eq!(offsets(&step.deliver), [2], "for those who come back");
}

/// The node has heard up to 5 when another server takes over, on which the stream goes on under another epoch. Whoever
/// comes back since `E` has heard so much of the first epoch.
#[test]
fn a_position_of_an_epoch_that_is_over_is_worth_what_history_shows() {
    const NEXT: Epoch = Epoch(2);
    let old = |offsets: std::ops::RangeInclusive<u64>| run(offsets);
    let new = |offsets: std::ops::RangeInclusive<u64>| offsets.map(|it| publication(NEXT, it, 100 + it));
    let both =
        |last_old, last_new| old(1..=last_old).into_iter().chain(new(last_old + 1..=last_new)).collect();
    for (what, kept, top, since_offset, replay) in [
        ("nothing lost", both(5, 5), 5, 5, Some(vec![])),
        ("nothing lost, behind", both(5, 5), 5, 2, Some(vec![3, 4, 5])),
        ("nothing lost, and more", both(5, 7), 7, 5, Some(vec![6, 7])),
        ("more than this node has heard", both(6, 7), 7, 6, Some(vec![7])),
        ("its last is lost", both(4, 4), 4, 5, None),
        ("its last is lost and another is there", both(4, 6), 6, 5, None),
        ("what it has heard is older than what is lost", both(4, 6), 6, 4, Some(vec![5, 6])),
        ("the next is kept", old(4..=5), 5, 3, Some(vec![4, 5])),
        ("the next is gone", old(4..=5), 5, 2, None),
        ("nothing is kept that shows it", new(6..=7).collect(), 7, 5, None),
        ("nothing is kept", vec![], 5, 5, None),
        ("a stream of its own", new(1..=9).collect(), 9, 5, None),
    ] {
        for quiet in [false, true] {
            let mut follower = standing_at(4);
            follower.admit(&run([5]));
            if quiet {
                follower.take_quiet();
                follower.take_quiet();
            }
            follower.doubt();
            let mut entrance = follower.enter(since(since_offset), false);
            let mut lost = false;
            while entrance == Entrance::Read {
                let reading = follower.take_read().expect("a read is wanted");
                let Read::After(after) = reading.read else { panic!("{reading:?}") };
                let found = kept.iter().filter(|it| it.offset() > after).cloned().collect();
                lost |= follower.learn(reading, page(NEXT, top, found)).unwrap().lost;
                entrance = follower.enter(since(since_offset), true);
            }
            assert!(lost, "{what}: who is subscribed does not know the epoch");
            let Entrance::Open { entry, replay: got } = entrance else { unreachable!() };
            let position = Position { epoch: NEXT, offset: Offset(top) };
            assert_eq!(entry, Entry { position, recovered: replay.is_some() }, "{what}, quiet: {quiet}");
            assert_eq!(offsets(&got), replay.clone().unwrap_or_default(), "{what}, quiet: {quiet}");
        }
    }
}

/// After a fail-over that has lost nothing what the node has at hand serves those who come back, without another read.
#[test]
fn what_is_at_hand_outlives_an_epoch() {
    let next = Epoch(2);
    let mut follower = standing_at(3);
    follower.admit(&run(4..=9));
    follower.doubt();
    let reading = follower.take_read().unwrap();
    assert_eq!(reading.read, Read::After(Offset(8)));
    let found = [run([9]), vec![publication(next, 10, 10)]].concat();
    let step = follower.learn(reading, page(next, 10, found)).unwrap();
    assert_eq!(step, Step { lost: true, deliver: Cow::Owned(Vec::new()) });
    for (start, missed) in [(since(5), 6..=10), (since(9), 10..=10)] {
        let Entrance::Open { entry, replay } = follower.enter(start, false) else { panic!("{start:?}") };
        assert_eq!(entry.position, Position { epoch: next, offset: Offset(10) });
        assert!(entry.recovered && offsets(&replay).into_iter().eq(missed), "{start:?}");
    }
    assert_eq!(delivered(&follower.admit(&[publication(next, 11, 11)])), [11], "and the stream goes on");
    assert_eq!(follower.enter(since(11), false), Entrance::Read, "this one may be lost: it has to be asked");
}

/// A node that lags behind knows the old epoch alone: whoever has heard of the new one is not told old news.
#[test]
fn a_lagging_follower_reads_before_it_lets_in_who_knows_better() {
    let next = Epoch(2);
    let mut follower = standing_at(3);
    follower.admit(&run(4..=6));
    for offset in [4, 5, 6, 7] {
        let start = Start::Since(Position { epoch: next, offset: Offset(offset) });
        assert_eq!(follower.enter(start, false), Entrance::Read, "{offset}");
    }
    let reading = follower.take_read().unwrap();
    let found = [run([4]), vec![publication(next, 5, 105)]].concat();
    assert!(follower.learn(reading, page(next, 5, found)).unwrap().lost);
    let start = Start::Since(Position { epoch: next, offset: Offset(4) });
    let Entrance::Open { entry, replay } = follower.enter(start, true) else { panic!("{start:?}") };
    assert!(entry.recovered);
    assert_eq!(replay, [publication(next, 5, 105)], "and not the one that was lost");
}

/// A read was wanted for the position alone; by the time it is made, some of what it must bring is known.
#[test]
fn a_read_leaves_no_gap_to_where_the_follower_stands() {
    for wish in [Read::Newest, Read::After(Offset(3)), Read::After(Offset(50))] {
        let mut follower = standing_at(5);
        follower.want(wish);
        let Read::After(after) = follower.take_read().unwrap().read else { panic!("{wish:?}") };
        assert!(after <= Offset(5), "{wish:?}");
    }
}

#[test]
fn an_entrance_promises_what_history_has() {
    // The follower stands at 10 and has 8, 9 and 10 at hand; the broker keeps from 4 on.
    for (what, start, read, recovered, replay) in [
        ("live", Start::Live, false, false, vec![]),
        ("nothing missed", since(10), false, true, vec![]),
        ("at hand", since(7), false, true, vec![8, 9, 10]),
        ("kept", since(3), true, true, (4..=10).collect()),
        ("gone", since(2), true, false, vec![]),
        ("ahead of this node", since(11), true, false, vec![]),
        ("a rewind at hand", Start::Rewind(2), false, true, vec![9, 10]),
        ("a rewind to what is kept", Start::Rewind(5), true, true, (6..=10).collect()),
        ("a rewind beyond", Start::Rewind(50), true, true, (4..=10).collect()),
        (
            "no epoch of ours",
            Start::Since(Position { epoch: Epoch(7), offset: Offset(3) }),
            true,
            false,
            vec![],
        ),
        (
            "no epoch at all",
            Start::Since(Position { epoch: Epoch::NEVER, offset: Offset(3) }),
            false,
            false,
            vec![],
        ),
    ] {
        let mut follower = standing_at(8);
        follower.admit(&run(9..=10));
        let mut entrance = follower.enter(start, false);
        assert_eq!(entrance == Entrance::Read, read, "{what}");
        if let Some(reading) = follower.take_read() {
            let Read::After(after) = reading.read else { panic!("{what}: {reading:?}") };
            follower.learn(reading, page(EPOCH, 10, run(after.0.max(3) + 1..=10))).unwrap();
            entrance = follower.enter(start, true);
        }
        let Entrance::Open { entry, replay: got } = entrance else { panic!("{what}: {entrance:?}") };
        let position = Position { epoch: EPOCH, offset: Offset(10) };
        assert_eq!((entry, offsets(&got)), (Entry { position, recovered }, replay), "{what}");
    }
}

/// What is at hand when it is removed, and what a page brings that was asked for before.
#[test]
fn what_was_removed_is_replayed_to_nobody_and_the_stream_goes_on() {
    let mut follower = standing_at(3);
    follower.admit(&run(4..=6));
    follower.want(Read::After(Offset(0)));
    let stale = follower.take_read().unwrap();
    follower.forget();
    assert_eq!(follower.learn(stale, page(EPOCH, 6, run(1..=6))), None);
    assert_eq!(follower.enter(since(5), false), Entrance::Read);
    assert!(matches!(follower.enter(since(6), false), Entrance::Open { entry, .. } if entry.recovered));
    let reading = follower.take_read().unwrap();
    assert_eq!(delivered(&follower.learn(reading, page(EPOCH, 6, vec![])).unwrap()), [0; 0]);
    let Entrance::Open { entry, replay } = follower.enter(since(5), true) else { panic!("it was read") };
    assert_eq!((entry.recovered, replay), (false, vec![]));
    assert_eq!(delivered(&follower.admit(&run([7]))), [7]);
    assert!(
        matches!(follower.enter(since(6), false), Entrance::Open { replay, .. } if offsets(&replay) == [7])
    );
}

/// Between its read and its entrance what was read has been let go of: it is read again, not taken for gone.
#[test]
fn what_is_not_at_hand_is_not_taken_for_gone() {
    let mut follower = standing_at(10);
    assert_eq!(follower.enter(since(3), false), Entrance::Read);
    let reading = follower.take_read().unwrap();
    follower.learn(reading, page(EPOCH, 10, run(4..=10))).unwrap();
    follower.take_quiet();
    assert_eq!(follower.enter(since(3), true), Entrance::Read);
    assert_eq!(follower.take_read().unwrap().read, Read::After(Offset(3)));
}

/// While a page is read the channel speaks, and is then quiet for so long that nothing of it is kept at hand.
#[test]
fn a_page_that_does_not_join_what_is_at_hand_is_no_proof() {
    let mut follower = standing_at(2);
    assert_eq!(follower.enter(since(0), false), Entrance::Read);
    let reading = follower.take_read().unwrap();
    follower.admit(&run([3]));
    follower.take_quiet();
    follower.take_quiet();
    follower.learn(reading, page(EPOCH, 2, run(1..=2))).unwrap();
    assert_eq!(follower.enter(since(0), true), Entrance::Read);
}

#[test]
fn what_is_at_hand_and_held_is_bounded() {
    let mut follower = standing_at(5);
    for offset in 6..10_000 {
        follower.admit(&run([offset]));
        assert!(follower.recent.len() <= RECENT_KEPT);
    }
    for offset in (20_000..40_000).rev() {
        follower.admit(&run([offset]));
        assert!(follower.held.len() <= HELD_MAX);
    }
    assert_eq!(follower.held[0].offset(), Offset(20_000), "the oldest are the next to be delivered");
    let reading = follower.take_read().unwrap();
    follower.admit(&run([40_000]));
    follower.learn(reading, page(EPOCH, 39_999, run(10_000..=39_999))).unwrap();
    assert!(follower.wants_read(), "what was let go of is read");
    follower.take_quiet();
    assert!(follower.take_quiet());
    assert_eq!(follower.recent.capacity(), 0, "a quiet channel costs next to nothing");
}

/// The broker's stream, the lane, the read under way and the subscribers: all that a follower meets.
struct World {
    follower: Follower,
    epoch: Epoch,
    /// The epoch and the content of all that was placed, as far as it was not lost.
    stream: Vec<(Epoch, u64)>,
    /// How many of the newest the broker keeps.
    size: usize,
    trimmed: usize,
    went_back: bool,
    contents: u64,
    lane: Vec<Arc<Publication>>,
    reading: Option<(Reading, Page)>,
    position: Position,
    waiting: Vec<Newcomer>,
    riding: Vec<Newcomer>,
    subscribers: Vec<Subscriber>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Newcomer {
    start: Start,
    /// Where it was last was in the stream when it came.
    is_honest: bool,
}

struct Subscriber {
    /// After this it hears everything.
    entered: Position,
    /// Where it was told that it enters.
    told: Position,
    heard: Vec<Arc<Publication>>,
    lost: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Publish(u64),
    /// Delivers so many from the lane's beginning as one run.
    Hear(usize),
    Drop(prop::sample::Index),
    Double(prop::sample::Index),
    Delay(prop::sample::Index),
    BeginRead,
    EndRead,
    FailRead,
    AskPosition,
    Check,
    Quiet,
    /// The broker comes back empty; whether the link was lost meanwhile.
    Restart(bool),
    /// The stream loses the last few, and its epoch stays.
    GoBack(usize),
    /// The same, and the stream goes on under another epoch; whether the link was lost meanwhile.
    FailOver(usize, bool),
    /// The link is lost, and with it all that is in the lane.
    LoseLink,
    Remove,
    EnterLive,
    EnterRewind(u32),
    /// So far behind the broker, or beyond it.
    EnterSince(u64, bool),
    /// With a position of the epoch before, so far behind.
    EnterForeign(u64),
    /// With the position under which a publication was placed, so far behind.
    EnterAsPlaced(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => (1..4_u64).prop_map(Event::Publish),
        10 => (1..4_usize).prop_map(Event::Hear),
        2 => index().prop_map(Event::Drop),
        2 => index().prop_map(Event::Double),
        2 => index().prop_map(Event::Delay),
        8 => Just(Event::BeginRead),
        8 => Just(Event::EndRead),
        1 => Just(Event::FailRead),
        2 => Just(Event::AskPosition),
        2 => Just(Event::Check),
        2 => Just(Event::Quiet),
        1 => any::<bool>().prop_map(Event::Restart),
        2 => (0..4_usize).prop_map(Event::GoBack),
        3 => (0..4_usize, any::<bool>()).prop_map(|(lost, link_lost)| Event::FailOver(lost, link_lost)),
        1 => Just(Event::LoseLink),
        1 => Just(Event::Remove),
        3 => Just(Event::EnterLive),
        2 => (0..8_u32).prop_map(Event::EnterRewind),
        6 => (0..8_u64, any::<bool>()).prop_map(|(back, beyond)| Event::EnterSince(back, beyond)),
        2 => (0..8_u64).prop_map(Event::EnterForeign),
        3 => (0..8_u64).prop_map(Event::EnterAsPlaced),
    ]
}

impl World {
    fn new(size: usize) -> Self {
        Self {
            follower: Follower::default(),
            epoch: EPOCH,
            stream: Vec::new(),
            size,
            trimmed: 0,
            went_back: false,
            contents: 0,
            lane: Vec::new(),
            reading: None,
            position: Position { epoch: EPOCH, offset: Offset(0) },
            waiting: Vec::new(),
            riding: Vec::new(),
            subscribers: Vec::new(),
        }
    }

    fn top(&self) -> u64 {
        self.stream.len() as u64
    }

    fn at(&self, offset: u64) -> Arc<Publication> {
        let (epoch, content) = self.stream[usize::try_from(offset).unwrap() - 1];
        publication(epoch, offset, content)
    }

    /// What the broker has let go of: everything up to this offset.
    fn gone(&self) -> u64 {
        self.trimmed.max(self.stream.len().saturating_sub(self.size)) as u64
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Publish(count) => (0..*count).for_each(|_| self.publish()),
            Event::Hear(count) => self.hear(*count),
            Event::Drop(index) if !self.lane.is_empty() => {
                self.lane.remove(index.index(self.lane.len()));
            }
            Event::Double(index) if !self.lane.is_empty() => {
                self.lane.push(index.get(&self.lane).clone());
            }
            Event::Delay(index) if !self.lane.is_empty() => {
                let late = self.lane.remove(index.index(self.lane.len()));
                self.lane.push(late);
            }
            Event::Drop(_) | Event::Double(_) | Event::Delay(_) => {}
            Event::BeginRead => self.begin_read(),
            Event::EndRead => self.end_read(),
            Event::FailRead => {
                if let Some((reading, _)) = self.reading.take() {
                    self.follower.want(reading.read);
                    self.riding.clear(); // They were told.
                }
            }
            Event::AskPosition => {
                self.position = Position { epoch: self.epoch, offset: Offset(self.top()) };
            }
            Event::Check => self.follower.check(self.position),
            Event::Quiet => {
                self.follower.take_quiet();
            }
            Event::Restart(link_lost) => {
                self.epoch.0 += 1;
                self.stream.clear();
                self.trimmed = 0;
                self.went_back = false;
                if *link_lost {
                    self.follower.doubt();
                }
            }
            Event::GoBack(count) => self.go_back(*count),
            Event::FailOver(count, link_lost) => self.fail_over(*count, *link_lost),
            Event::LoseLink => {
                self.lane.clear();
                self.follower.doubt();
            }
            Event::Remove if !self.went_back => {
                self.trimmed = self.stream.len();
                self.follower.forget();
                self.doubt_newcomers();
            }
            Event::Remove => {}
            Event::EnterLive => self.come(Start::Live),
            Event::EnterRewind(count) => self.come(Start::Rewind(*count)),
            Event::EnterSince(by, beyond) => {
                let offset = if *beyond { self.top() + by } else { self.top().saturating_sub(*by) };
                let position = Position { epoch: self.epoch, offset: Offset(offset) };
                self.come(Start::Since(position));
            }
            Event::EnterForeign(by) => {
                let epoch = Epoch(self.epoch.0 - 1);
                let offset = Offset(self.top().saturating_sub(*by));
                self.come(Start::Since(Position { epoch, offset }));
            }
            Event::EnterAsPlaced(by) => {
                let offset = self.top().saturating_sub(*by);
                let placed = (offset > 0).then(|| self.at(offset).position).flatten();
                self.come(placed.map_or(Start::Live, Start::Since));
            }
        }
        self.is_sound();
    }

    fn publish(&mut self) {
        self.contents += 1;
        self.stream.push((self.epoch, self.contents));
        self.lane.push(self.at(self.top()));
        self.trimmed = usize::try_from(self.gone()).unwrap();
    }

    fn hear(&mut self, count: usize) {
        let run: Vec<_> = self.lane.drain(..count.min(self.lane.len())).collect();
        if !run.is_empty() {
            let Step { lost, deliver } = self.follower.admit(&run);
            let deliver = deliver.into_owned();
            self.perform(lost, &deliver);
        }
    }

    /// A stream goes back only where all of it is kept: otherwise nothing might be left to know it by.
    fn go_back(&mut self, count: usize) {
        if self.size == usize::MAX && self.trimmed == 0 {
            self.went_back = true;
            self.stream.truncate(self.stream.len().saturating_sub(count));
        }
        // Whoever was further than that has been where nobody will be again.
        self.doubt_newcomers();
        self.lane.clear();
        self.follower.doubt();
    }

    fn fail_over(&mut self, count: usize, link_lost: bool) {
        self.epoch.0 += 1;
        self.stream.truncate(self.stream.len().saturating_sub(count).max(self.trimmed));
        self.doubt_newcomers();
        if link_lost {
            self.lane.clear();
            self.follower.doubt();
        }
    }

    fn doubt_newcomers(&mut self) {
        let (mut waiting, mut riding) = (mem::take(&mut self.waiting), mem::take(&mut self.riding));
        waiting.iter_mut().chain(&mut riding).for_each(|it| it.is_honest &= self.is_kept(it.start));
        (self.waiting, self.riding) = (waiting, riding);
    }

    fn begin_read(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let Some(reading) = self.follower.take_read() else { return };
        let after = match reading.read {
            Read::Newest => self.top().saturating_sub(1),
            Read::After(after) => after.0,
        };
        let publications = (after.max(self.gone()) + 1..=self.top()).map(|offset| self.at(offset)).collect();
        self.reading = Some((reading, page(self.epoch, self.top(), publications)));
        self.riding.append(&mut self.waiting);
    }

    fn end_read(&mut self) {
        let Some((reading, page)) = self.reading.take() else { return };
        let Some(Step { lost, deliver }) = self.follower.learn(reading, page) else {
            self.waiting.append(&mut self.riding);
            return;
        };
        self.perform(lost, &deliver);
        for newcomer in mem::take(&mut self.riding) {
            self.enter(newcomer, true);
        }
    }

    fn perform(&mut self, lost: bool, deliver: &[Arc<Publication>]) {
        for subscriber in &mut self.subscribers {
            subscriber.lost |= lost;
            if !subscriber.lost {
                subscriber.heard.extend_from_slice(deliver);
            }
        }
    }

    /// Whether a subscriber that was last there can be given all that it has missed.
    fn is_kept(&self, start: Start) -> bool {
        let Start::Since(since) = start else { return false };
        let is_followed = (self.gone()..=self.top()).contains(&since.offset.0);
        let kept = (self.gone().max(since.offset.0.saturating_sub(1)) + 1..=self.top()).map(|it| self.at(it));
        is_followed && (since.epoch == self.epoch || since.is_shown_by(&kept.collect::<Vec<_>>()))
    }

    fn come(&mut self, start: Start) {
        self.enter(Newcomer { start, is_honest: self.is_kept(start) }, false);
    }

    fn enter(&mut self, newcomer: Newcomer, asked: bool) {
        let start = newcomer.start;
        let (entry, replay) = match self.follower.enter(start, asked) {
            Entrance::Read => return self.waiting.push(newcomer),
            Entrance::Open { entry, replay } => (entry, replay),
        };
        let first = replay.first().map_or(entry.position.offset.0 + 1, |first| first.offset().0);
        if let Start::Since(since) = start {
            if entry.recovered {
                assert_eq!(since.offset.0 + 1, first, "all that it missed");
                assert!(since.epoch.0 <= entry.position.epoch.0, "epochs count up here");
            } else {
                assert_eq!(replay, []);
                let could_be = newcomer.is_honest && self.is_kept(start);
                assert!(!could_be, "{since:?} could be recovered, up to {}", self.top());
            }
        }
        let entered = Position { epoch: entry.position.epoch, offset: Offset(first - 1) };
        assert_eq!(first + replay.len() as u64, entry.position.offset.0 + 1, "the replay leads to the entry");
        self.subscribers.push(Subscriber { entered, told: entry.position, heard: replay, lost: false });
    }

    /// What holds at any moment.
    fn is_sound(&self) {
        for subscriber in &self.subscribers {
            for (index, heard) in subscriber.heard.iter().enumerate() {
                let offset = Offset(subscriber.entered.offset.0 + index as u64 + 1);
                assert_eq!(heard.offset(), offset, "each once, in order");
                let is_live = offset > subscriber.told.offset;
                let epoch = heard.position.unwrap().epoch;
                assert!(
                    !is_live || epoch == subscriber.told.epoch,
                    "what is live is of the epoch that was told"
                );
            }
        }
        let is_read = self.reading.is_some() || self.follower.wants_read();
        let is_needed =
            self.follower.in_doubt() || !self.follower.held.is_empty() || !self.waiting.is_empty();
        assert!(is_read || !is_needed, "nothing waits for what nobody brings");
        assert!(self.riding.is_empty() || self.reading.is_some());
        assert!(self.follower.held.len() <= HELD_MAX);
        assert!(self.follower.recent.len() <= self.follower.keep.max(RECENT_KEPT) * 2);
    }

    /// All goes well from now on.
    fn heals(&mut self) {
        self.play(&Event::Hear(usize::MAX));
        self.play(&Event::AskPosition);
        for _ in 0..2 {
            self.play(&Event::Check);
            for _ in 0..4 {
                self.play(&Event::EndRead);
                self.play(&Event::BeginRead);
            }
        }
        assert!(self.reading.is_none() && !self.follower.wants_read(), "it comes to rest");
        assert_eq!(self.waiting, []);
        for subscriber in self.subscribers.iter().filter(|subscriber| !subscriber.lost) {
            assert_eq!(subscriber.entered.epoch, self.epoch);
            let expected: Vec<_> =
                (subscriber.entered.offset.0 + 1..=self.top()).map(|offset| self.at(offset)).collect();
            assert_eq!(subscriber.heard, expected, "what the broker has, all of it and nothing else");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost, doubled, delayed or taken back, and whenever subscribers come: each hears every offset once and in
    /// order from where it was told that it enters, until it is told that the promise is broken; and what it has heard in
    /// the end is what the broker has.
    #[test]
    fn a_stream_is_heard_whole_or_told_lost(
        events in proptest::collection::vec(event(), 0..100),
        size in prop_oneof![Just(usize::MAX), 1..6_usize],
    ) {
        let mut world = World::new(size);
        for event in &events {
            world.play(event);
        }
        world.heals();
    }
}
