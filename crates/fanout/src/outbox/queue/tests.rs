use std::slice;

use proptest::prelude::*;

use super::super::tests::{frame, publication_of};
use super::*;
use crate::keyed::names_that_collide_in_one_are_spread_in_another;
use fanfare_protocol::publication::Payload;
use fanfare_protocol::websocket::Shape;
use fanfare_protocol::{Draft, Encoding};

const FORM: Form = Form::new(Encoding::NativeJson, None);

impl Queue {
    /// What it owns beyond itself: the slots, and whether there is an index.
    pub(in crate::outbox) fn heap(&self) -> (usize, bool) {
        (self.entries.capacity(), self.index.is_some())
    }

    /// Whether everything that is kept beside the entries is what the entries say.
    fn check(&self) {
        let bytes: usize = self.entries.iter().map(|entry| entry.bytes(FORM)).sum();
        assert_eq!(self.bytes, bytes);
        assert_eq!(self.entries.is_empty(), bytes == 0);
        assert!(!matches!(self.entries.front(), Some(Entry::Hole)));
        let Some(index) = &self.index else { return };
        assert!(!self.entries.is_empty());
        let fresh = Index::of(&self.entries, FORM);
        assert_eq!((index.holes, index.droppable_bytes), (fresh.holes, fresh.droppable_bytes));
        assert_eq!(index.barrier.saturating_sub(index.front), fresh.barrier);
        let places = |it: &Index| -> HashMap<_, _> {
            it.conflating.iter().map(|(channel, place)| (channel.clone(), place - it.front)).collect()
        };
        assert_eq!(places(index), places(&fresh));
        let passed = slot(index.droppable_from.saturating_sub(index.front));
        assert!(!self.entries.range(..passed).any(Entry::is_droppable));
    }

    /// Takes everything, and says what a client reads.
    fn read(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.pop()).map(|popped| Heard::of(&popped.bytes)).collect()
    }

    #[track_caller]
    fn tell(&mut self, channel: &str, number: usize, overflow: Overflow) -> Result<Losses, NoRoom> {
        let outcome = self.offer(&publication_of(channel, number, None), overflow);
        if outcome.is_ok() {
            self.check();
        }
        outcome
    }
}

/// What a client makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Frame(usize),
    Publication { channel: String, number: usize, manner: &'static str, conflated: u64 },
}

impl Heard {
    fn of(bytes: &Bytes) -> Self {
        let Some(start) = bytes.iter().take(5).position(|&byte| byte == b'{') else {
            return Self::Frame(bytes.len());
        };
        let text = str::from_utf8(&bytes[start..]).unwrap();
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
            Some(rest.split([',', '}']).next().unwrap().trim_matches('"'))
        };
        Self::Publication {
            channel: field("channel").unwrap().into(),
            number: field("data").unwrap().parse().unwrap(),
            manner: if field("recovered").is_some() { "replayed" } else { "live" },
            conflated: field("conflated").map_or(0, |count| count.parse().unwrap()),
        }
    }
}

fn heard(channel: &str, number: usize) -> Heard {
    conflated(channel, number, 0)
}

fn conflated(channel: &str, number: usize, conflated: u64) -> Heard {
    Heard::Publication { channel: channel.into(), number, manner: "live", conflated }
}

fn replayed(channel: &str, number: usize) -> Heard {
    Heard::Publication { channel: channel.into(), number, manner: "replayed", conflated: 0 }
}

const fn lost(dropped: u64, conflated: u64) -> Losses {
    Losses { dropped, conflated }
}

/// The bytes of a publication whose channel's name and number have one character each.
fn each() -> usize {
    publication_of("a", 1, None).encoded(FORM).len()
}

#[test]
fn the_oldest_gives_way_to_the_byte() {
    let mut queue = Queue::new(FORM, 3 * each());
    for number in 1..=3 {
        assert_eq!(queue.tell("a", number, Overflow::DropOldest), Ok(lost(0, 0)), "exactly full is not over");
    }
    assert_eq!(queue.tell("b", 4, Overflow::DropOldest), Ok(lost(1, 0)), "whatever channel it is of");
    assert_eq!(queue.tell("a", 55, Overflow::DropOldest), Ok(lost(2, 0)), "a byte more takes a second one");
    assert_eq!(queue.read(), [heard("b", 4), heard("a", 55)]);
}

#[test]
fn what_cannot_fit_is_dropped_itself_and_nothing_else() {
    let mut queue = Queue::new(FORM, 12 + each() + 5);
    queue.push(frame(12), 0).unwrap();
    queue.tell("a", 1, Overflow::DropOldest).unwrap();
    for number in [1_234_567, usize::MAX] {
        assert_eq!(queue.tell("a", number, Overflow::DropOldest), Ok(lost(1, 0)), "a byte too long");
        assert_eq!(queue.bytes(), 12 + each());
    }
    assert_eq!(queue.tell("a", 123_456, Overflow::DropOldest), Ok(lost(1, 0)));
    assert_eq!(queue.read(), [Heard::Frame(12), heard("a", 123_456)]);
}

#[test]
fn droppable_publications_give_way_to_all_that_must_not_be_lost() {
    for case in 0..4 {
        let mut queue = Queue::new(FORM, 4 * each());
        queue.tell("a", 0, Overflow::Disconnect).unwrap();
        for number in 1..=3 {
            queue.tell("b", number, Overflow::DropOldest).unwrap();
        }
        let publication = publication_of("c", 7, None);
        let last = match case {
            0 => (queue.push(frame(each()), 0), Heard::Frame(each())),
            1 => (queue.offer(&publication, Overflow::Disconnect), heard("c", 7)),
            2 => (queue.offer(&publication, Overflow::Conflate), heard("c", 7)),
            _ => (queue.replay(slice::from_ref(&publication)), replayed("c", 7)),
        };
        queue.check();
        let dropped = if case == 3 { 2 } else { 1 }; // Replayed ones say so, which takes more room.
        assert_eq!(last.0, Ok(lost(dropped, 0)), "case {case}");
        let mut expected = vec![heard("a", 0)];
        expected.extend((1 + dropped as usize..=3).map(|number| heard("b", number)));
        expected.push(last.1);
        assert_eq!(queue.read(), expected, "case {case}");
    }
}

#[test]
fn there_is_no_room_when_droppable_publications_would_not_make_enough() {
    for overflow in [Overflow::Disconnect, Overflow::Conflate] {
        let mut queue = Queue::new(FORM, 3 * each());
        queue.tell("a", 1, Overflow::Conflate).unwrap();
        queue.tell("b", 2, Overflow::Disconnect).unwrap();
        queue.tell("c", 3, Overflow::DropOldest).unwrap();
        assert_eq!(queue.tell("d", 4, overflow), Ok(lost(1, 0)));
        assert_eq!(queue.tell("e", 5, overflow), Err(NoRoom));
        assert_eq!(queue.push(frame(2), 0), Err(NoRoom));
        assert_eq!(queue.clear(), 3 * each());
        queue.check();
    }
}

#[test]
fn only_the_newest_waits_and_tells_how_many_it_stands_for() {
    let mut queue = Queue::new(FORM, 10 * each());
    for number in 1..=5 {
        assert_eq!(queue.tell("a", number, Overflow::Conflate), Ok(lost(0, u64::from(number > 1))));
        assert_eq!(queue.bytes(), each());
    }
    assert_eq!(queue.read(), [conflated("a", 5, 4)]);
    queue.tell("a", 6, Overflow::Conflate).unwrap();
    assert_eq!(queue.read(), [heard("a", 6)], "what the writer has taken is not counted again");
}

#[test]
fn a_channel_that_speaks_often_keeps_its_turn() {
    for others in [1, 2 * SEARCHED_MAX] {
        let mut queue = Queue::new(FORM, usize::MAX);
        for other in 0..others {
            queue.tell("before", other, Overflow::Disconnect).unwrap();
        }
        for number in 1..=3 {
            queue.tell("often", number, Overflow::Conflate).unwrap();
            queue.tell("seldom", number, Overflow::Conflate).unwrap();
        }
        let expected = [conflated("often", 3, 2), conflated("seldom", 3, 2)];
        assert_eq!(queue.read()[others..], expected, "behind {others}");
    }
}

#[test]
fn a_newer_one_overtakes_neither_a_frame_nor_what_is_replayed() {
    for others in [0, 2 * SEARCHED_MAX] {
        for barrier in [Heard::Frame(9), replayed("a", 2)] {
            let mut queue = Queue::new(FORM, usize::MAX);
            for other in 0..others {
                queue.tell("before", other, Overflow::Disconnect).unwrap();
            }
            queue.tell("a", 1, Overflow::Conflate).unwrap();
            match barrier {
                Heard::Frame(bytes) => queue.push(frame(bytes), 0).unwrap(),
                Heard::Publication { .. } => queue.replay(&[publication_of("a", 2, None)]).unwrap(),
            };
            queue.tell("b", 3, Overflow::Conflate).unwrap();
            queue.tell("a", 4, Overflow::Conflate).unwrap();
            queue.tell("b", 5, Overflow::Conflate).unwrap();
            let expected = [barrier.clone(), conflated("b", 5, 1), conflated("a", 4, 1)];
            assert_eq!(queue.read()[others..], expected, "behind {others}");
        }
    }
}

#[test]
fn a_newer_one_needs_room_only_for_what_it_is_longer() {
    let mut queue = Queue::new(FORM, 2 * each() + 1);
    queue.tell("b", 1, Overflow::Disconnect).unwrap();
    queue.tell("a", 1, Overflow::Conflate).unwrap();
    assert_eq!(queue.tell("a", 22, Overflow::Conflate), Ok(lost(0, 1)));
    assert_eq!(queue.bytes(), 2 * each() + 1);
    assert_eq!(
        queue.tell("a", 333, Overflow::Conflate),
        Err(NoRoom),
        "a value that is out of date is no value"
    );
}

#[test]
fn history_is_replayed_whole_or_not_at_all() {
    let run: Vec<_> = (1..=3).map(|number| publication_of("a", number, None)).collect();
    let bytes = 3 * run[0].replayed(FORM).len();
    let mut queue = Queue::new(FORM, bytes);
    assert_eq!(queue.replay(&run), Ok(lost(0, 0)), "exactly full is not over");
    assert_eq!(queue.bytes(), bytes);
    assert_eq!(queue.read(), [replayed("a", 1), replayed("a", 2), replayed("a", 3)]);
    let mut queue = Queue::new(FORM, bytes - 1);
    assert_eq!(queue.replay(&run), Err(NoRoom));
    assert!(queue.is_empty());
    queue.replay(&[]).unwrap();
    queue.check();
}

/// Its memory is what it may hold, and not what it was offered.
#[test]
fn a_stalled_client_costs_what_it_may_hold() {
    let waiting = 100;
    for barriers in [false, true] {
        let mut queue = Queue::new(FORM, 50 + waiting * (each() + 3));
        queue.push(frame(20), 0).unwrap(); // What its socket has not taken holds up all the rest.
        for round in 0..20_000 {
            queue.offer(&publication_of("a", 1_000 + round % 1_000, None), Overflow::DropOldest).unwrap();
            let channel = ["b", "c", "d"][round % 3];
            queue.offer(&publication_of(channel, round % 10, None), Overflow::Conflate).unwrap();
            if barriers && round % 2_000 == 0 {
                queue.push(frame(2), 0).unwrap();
            }
            assert!(queue.bytes() <= queue.bytes_max);
            assert!(queue.entries.len() <= 2 * waiting + 30, "{} slots", queue.entries.len());
        }
        queue.check();
        let read = queue.read();
        assert!(read.len() >= waiting - 10);
        assert!(queue.heap().0 <= SLOTS_KEPT && !queue.heap().1);
    }
}

#[test]
fn a_client_that_keeps_up_hears_everything_and_costs_nothing_more() {
    let mut queue = Queue::new(FORM, 2 * each());
    for number in 0..10 {
        for (channel, overflow) in
            [("a", Overflow::Disconnect), ("b", Overflow::DropOldest), ("c", Overflow::Conflate)]
        {
            assert_eq!(queue.tell(channel, number, overflow), Ok(lost(0, 0)));
            assert!(!queue.heap().1, "no index");
            assert_eq!(queue.read(), [heard(channel, number)]);
            assert!(queue.heap().0 <= SLOTS_KEPT);
        }
    }
}

/// An entry is no larger than the bytes of a frame and what tells them from a publication.
#[cfg(target_pointer_width = "64")]
#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry>(), size_of::<Bytes>() + 8);
}

/// The policies in the plainest words there are: a list that is searched from end to end.
struct Plain {
    waiting: Vec<Waiting>,
    bytes_max: usize,
}

#[derive(Clone)]
struct Waiting {
    heard: Heard,
    bytes: usize,
    /// Of a live publication.
    overflow: Option<Overflow>,
}

impl Waiting {
    fn channel(&self) -> Option<&str> {
        match &self.heard {
            Heard::Frame(_) => None,
            Heard::Publication { channel, .. } => Some(channel),
        }
    }
}

impl Plain {
    fn bytes(&self) -> usize {
        self.waiting.iter().map(|it| it.bytes).sum()
    }

    fn make_room(&mut self, bytes: usize) -> Result<u64, NoRoom> {
        let mut left = self.waiting.clone();
        let mut dropped = 0;
        while left.iter().map(|it| it.bytes).sum::<usize>() + bytes > self.bytes_max {
            let oldest =
                left.iter().position(|it| it.overflow == Some(Overflow::DropOldest)).ok_or(NoRoom)?;
            left.remove(oldest);
            dropped += 1;
        }
        self.waiting = left;
        Ok(dropped)
    }

    fn push(&mut self, waiting: Waiting) -> Result<Losses, NoRoom> {
        let outcome = self.make_room(waiting.bytes);
        if outcome.is_err() && waiting.overflow == Some(Overflow::DropOldest) {
            return Ok(lost(1, 0));
        }
        let dropped = outcome?;
        self.waiting.push(waiting);
        Ok(lost(dropped, 0))
    }

    fn conflate(&mut self, mut waiting: Waiting) -> Result<Losses, NoRoom> {
        let same = |it: &Waiting| it.overflow == waiting.overflow && it.channel() == waiting.channel();
        let Some(place) = self.waiting.iter().position(same) else { return self.push(waiting) };
        let skipped = match &self.waiting[place].heard {
            Heard::Publication { conflated, .. } => conflated + 1,
            Heard::Frame(_) => unreachable!(),
        };
        if let Heard::Publication { conflated, .. } = &mut waiting.heard {
            *conflated = skipped;
        }
        if self.waiting[place..].iter().any(|it| it.overflow.is_none()) {
            self.waiting.remove(place);
            return Ok(lost(self.push(waiting)?.dropped, 1));
        }
        self.waiting[place] = Waiting { bytes: 0, ..waiting.clone() };
        let dropped = self.make_room(waiting.bytes)?;
        let same = |it: &Waiting| it.overflow == waiting.overflow && it.channel() == waiting.channel();
        let place = self.waiting.iter().position(same).unwrap();
        self.waiting[place] = waiting;
        Ok(lost(dropped, 1))
    }
}

/// The channels of the model.
const CHANNELS: [(&str, Overflow); 6] = [
    ("firm:1", Overflow::Disconnect),
    ("firm:2", Overflow::Disconnect),
    ("drop:1", Overflow::DropOldest),
    ("drop:2", Overflow::DropOldest),
    ("newest:1", Overflow::Conflate),
    ("newest:2", Overflow::Conflate),
];

#[derive(Clone, Debug)]
enum Op {
    Offer(usize),
    Replay(usize),
    Push(usize),
    Pop(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => (2..CHANNELS.len()).prop_map(Op::Offer),
        4 => (0..CHANNELS.len()).prop_map(Op::Offer),
        1 => (0..CHANNELS.len()).prop_map(Op::Replay),
        1 => (2..60_usize).prop_map(Op::Push),
        4 => (1..6_usize).prop_map(Op::Pop),
    ]
}

/// What became of one channel's publications.
#[derive(Default)]
struct Tally {
    offered: u64,
    delivered: u64,
    conflated: u64,
    newest_heard: Option<usize>,
}

impl Tally {
    fn hear(&mut self, number: usize, conflated: u64) {
        assert!(self.newest_heard.is_none_or(|newest| newest < number), "in order, and once");
        self.newest_heard = Some(number);
        self.delivered += 1;
        self.conflated += conflated;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is offered and taken in whatever order, the queue does what the plain one does; each channel's
    /// publications are heard in order; and each is heard, waits, or is counted as lost.
    #[test]
    fn nothing_is_reordered_or_lost_without_being_counted(
        ops in proptest::collection::vec(op(), 1..200),
        bytes_max in 100..3_000_usize,
    ) {
        let mut queue = Queue::new(FORM, bytes_max);
        let mut plain = Plain { waiting: Vec::new(), bytes_max };
        let mut tallies: [Tally; CHANNELS.len()] = Default::default();
        let mut losses = Losses::default();
        for (number, op) in ops.into_iter().enumerate() {
            let outcomes = match op {
                Op::Offer(channel) => {
                    let (name, overflow) = CHANNELS[channel];
                    let publication = publication_of(name, number, None);
                    let bytes = publication.encoded(FORM).len();
                    let waiting = Waiting { heard: heard(name, number), bytes, overflow: Some(overflow) };
                    tallies[channel].offered += 1;
                    let outcome = queue.offer(&publication, overflow);
                    let conflates = overflow == Overflow::Conflate;
                    (outcome, if conflates { plain.conflate(waiting) } else { plain.push(waiting) })
                }
                Op::Replay(channel) => {
                    let (name, _) = CHANNELS[channel];
                    let publication = publication_of(name, number, None);
                    let bytes = publication.replayed(FORM).len();
                    let waiting = Waiting { heard: replayed(name, number), bytes, overflow: None };
                    tallies[channel].offered += 1;
                    (queue.replay(slice::from_ref(&publication)), plain.push(waiting))
                }
                Op::Push(bytes) => {
                    let waiting = Waiting { heard: Heard::Frame(bytes), bytes, overflow: None };
                    (queue.push(frame(bytes), 0), plain.push(waiting))
                }
                Op::Pop(count) => {
                    for _ in 0..count.min(plain.waiting.len()) {
                        let heard = Heard::of(&queue.pop().unwrap().bytes);
                        prop_assert_eq!(&heard, &plain.waiting.remove(0).heard);
                        if let Heard::Publication { channel, number, conflated, .. } = heard {
                            let index = CHANNELS.iter().position(|(name, _)| *name == channel).unwrap();
                            tallies[index].hear(number, conflated);
                        }
                    }
                    (Ok(lost(0, 0)), Ok(lost(0, 0)))
                }
            };
            prop_assert_eq!(outcomes.0, outcomes.1);
            let Ok(more) = outcomes.0 else { break };
            losses += more;
            queue.check();
            prop_assert_eq!(queue.bytes(), plain.bytes());
            prop_assert!(queue.bytes() <= bytes_max, "the bound");
            let mut unaccounted = lost(0, 0);
            for ((name, overflow), tally) in CHANNELS.iter().zip(&tallies) {
                let waiting = plain.waiting.iter().filter(|it| it.channel() == Some(*name));
                let (count, skipped) = waiting.fold((0, 0), |(count, skipped), it| match it.heard {
                    Heard::Publication { conflated, .. } => (count + 1, skipped + conflated),
                    Heard::Frame(_) => unreachable!(),
                });
                let missing = tally.offered - tally.delivered - tally.conflated - count - skipped;
                match overflow {
                    Overflow::Disconnect | Overflow::Conflate => prop_assert_eq!(missing, 0, "{}", name),
                    Overflow::DropOldest => unaccounted.dropped += missing,
                }
                unaccounted.conflated += tally.conflated + skipped;
            }
            prop_assert_eq!(unaccounted, losses);
        }
    }
}

/// Who agreed on compression is sent compressed frames, pays for their bytes, and is told what it saves.
#[test]
fn a_compressed_form_counts_and_takes_compressed_bytes() {
    let shape = Shape { window_bits: 15, level: 1, threshold_bytes: 10 };
    let form = Form::new(FORM.encoding(), Some(shape));
    let publication = publication_of("a", 1, None);
    let long = Draft {
        payload: Payload::parse(&format!("\"{}\"", "ab".repeat(500))).unwrap(),
        ..draft(&publication)
    };
    let long = Arc::new(Publication::new(long, None));
    let (plain, deflated) = (long.encoded(FORM).len(), long.encoded(form).len());
    assert!(deflated < plain / 2);
    let mut queue = Queue::new(form, plain);
    for overflow in [Overflow::Disconnect, Overflow::DropOldest] {
        queue.offer(&long, overflow).unwrap();
    }
    assert_eq!(queue.bytes(), 2 * deflated, "both fit, where one would have");
    for _ in 0..2 {
        let popped = queue.pop().unwrap();
        assert_eq!(
            (popped.bytes, popped.saved_bytes),
            (long.encoded(form).bytes().clone(), plain - deflated)
        );
    }
    // A conflated publication is spelt for its receiver, and compressed like the rest.
    queue.offer(&long, Overflow::Conflate).unwrap();
    queue.offer(&long, Overflow::Conflate).unwrap();
    let bytes = queue.pop().unwrap().bytes;
    assert_eq!(bytes[0] & 0x40, 0x40, "compressed");
    assert_ne!(bytes, *long.encoded(form).bytes());
}

/// A draft like the one that became this publication.
fn draft(publication: &Publication) -> Draft {
    Draft {
        channel: publication.channel.clone(),
        payload: publication.payload.clone(),
        sender: None,
        exclude: None,
        received: publication.received,
        retention: None,
        key: None,
        trace: None,
    }
}

#[test]
fn names_that_collide_in_one_queue_are_spread_in_another() {
    let index = || Index::of(&VecDeque::new(), FORM);
    names_that_collide_in_one_are_spread_in_another(|| index().conflating.hasher().clone());
}
