//! Who should hear what, and what they did hear.
//!
//! A run has rooms (channels), each with its subscribers and its streams (one per publisher). Every
//! publication is followed until each subscriber of its room has it: that is what bounds a closed loop
//! (`in_flight`), and what shows at the end that nothing was lost. Faults and troubles count from the first
//! publication to the last; the [`Tally`] of speed can be taken and started anew, so that a measured window
//! leaves out warming up.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::{Connection, Ended, Heard, Scratch};
use crate::histogram::Histogram;
use crate::ledger::{Entry, Ledger};
use crate::stamp::Stamp;

/// One run: the clock, the buffers and the audience, shared by all tasks of the thread.
#[derive(Debug)]
pub(crate) struct Run {
    started: Instant,
    pub(crate) scratch: Scratch,
    pub(crate) audience: RefCell<Audience>,
    /// Notified when a publication has reached everyone, and when publishing is to stop.
    pub(crate) progressed: Notify,
    stopped: Cell<bool>,
}

impl Run {
    /// A run of `rooms` rooms with `room_size` subscribers and `publishers_per_room` streams each.
    pub(crate) fn new(rooms: usize, room_size: usize, publishers_per_room: usize) -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            scratch: Scratch::default(),
            audience: RefCell::new(Audience::new(rooms, room_size, publishers_per_room)),
            progressed: Notify::new(),
            stopped: Cell::new(false),
        })
    }

    /// Asks the publisher to end once what it has numbered is sent.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        self.progressed.notify_one();
    }

    /// Lets the next publisher go on.
    pub(crate) fn resume(&self) {
        self.stopped.set(false);
    }

    /// Whether [`Run::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a run is shorter than five centuries")
    }

    /// Reads a connection to its end, as the given subscriber or, for a publisher, as none.
    pub(crate) async fn listen(self: Rc<Self>, mut connection: Connection, subscriber: Option<usize>) {
        let ended = loop {
            if let Err(ended) = self.listen_once(&mut connection, subscriber).await {
                break ended;
            }
        };
        self.audience.borrow_mut().trouble(format!("connection ended: {ended}"));
    }

    async fn listen_once(&self, connection: &mut Connection, subscriber: Option<usize>) -> Result<(), Ended> {
        // One look at the clock serves all that one read brought.
        let (mut now_nanos, mut count) = (None, 0_u64);
        let result = connection
            .read(&self.scratch, |heard| match heard {
                Heard::Publication(stamp) => {
                    count += 1;
                    let now_nanos = *now_nanos.get_or_insert_with(|| self.now_nanos());
                    if self.audience.borrow_mut().heard(subscriber, stamp, now_nanos) {
                        self.progressed.notify_one();
                    }
                }
                Heard::Trouble(what) => self.audience.borrow_mut().trouble(what),
            })
            .await;
        self.audience.borrow_mut().tally.reads += u64::from(count > 0);
        result
    }
}

/// The state of everyone who publishes and listens.
#[derive(Debug)]
pub(crate) struct Audience {
    publishers_per_room: usize,
    room_size: usize,
    /// Stamps count streams from here: what is heard with a lower one belongs to an earlier piece of work.
    first_stream: usize,
    /// Those of room 0 first, then those of room 1, ….
    streams: Vec<Stream>,
    subscribers: Vec<Subscriber>,
    /// Publications that have not reached everyone yet.
    pub(crate) in_flight: usize,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
    /// Closed connections and refused commands, by what was said.
    pub(crate) troubles: BTreeMap<String, u64>,
}

/// What speed is computed from.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Publications sent.
    pub(crate) published: u64,
    /// Publications heard by one subscriber, doubles apart.
    pub(crate) delivered: u64,
    /// Reads that brought at least one.
    pub(crate) reads: u64,
    /// From sending to hearing.
    pub(crate) latency: Histogram,
    /// How far behind its timetable the publisher was.
    pub(crate) lag: Histogram,
}

/// What must be zero.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
pub(crate) struct Faults {
    /// Never heard, over all subscribers.
    pub(crate) lost: u64,
    /// Heard again.
    pub(crate) doubled: u64,
    /// Heard after a later one of the same publisher.
    pub(crate) reordered: u64,
    /// Heard by somebody who did not subscribe to it, or never published.
    pub(crate) stray: u64,
    /// Rooms whose subscribers did not hear the publishers interleaved in one order.
    pub(crate) disagreeing_rooms: u64,
}

#[derive(Debug)]
struct Subscriber {
    room: usize,
    ledgers: Vec<Ledger>,
    /// A hash chain over all that was heard, in the order in which it was.
    order: u64,
}

#[derive(Debug, Default)]
struct Stream {
    published: u64,
    /// How many subscribers lack each of the last publications, oldest first; complete ones leave the front.
    lacking: VecDeque<usize>,
}

impl Audience {
    fn new(rooms: usize, room_size: usize, publishers_per_room: usize) -> Self {
        let subscriber = |index: usize| Subscriber {
            room: index / room_size,
            ledgers: vec![Ledger::default(); publishers_per_room],
            order: 0,
        };
        Self {
            publishers_per_room,
            room_size,
            first_stream: 0,
            streams: (0..rooms * publishers_per_room).map(|_| Stream::default()).collect(),
            subscribers: (0..rooms * room_size).map(subscriber).collect(),
            in_flight: 0,
            tally: Tally::default(),
            faults: Faults::default(),
            troubles: BTreeMap::new(),
        }
    }

    /// Forgets what was published and heard, for another piece of work with the same rooms and subscribers.
    pub(crate) fn renew(&mut self) {
        let rooms = self.subscribers.len() / self.room_size;
        let first_stream = self.first_stream + self.streams.len();
        let troubles = std::mem::take(&mut self.troubles);
        *self = Self { first_stream, troubles, ..Self::new(rooms, self.room_size, self.publishers_per_room) };
    }

    /// Number of streams in all rooms.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The room that a stream belongs to.
    pub(crate) fn room_of(&self, stream: usize) -> usize {
        stream / self.publishers_per_room
    }

    /// Numbers the stream's next publication.
    pub(crate) fn publish(&mut self, stream: usize, sent_nanos: u64) -> Stamp {
        let it = &mut self.streams[stream];
        it.published += 1;
        it.lacking.push_back(self.room_size);
        self.in_flight += 1;
        self.tally.published += 1;
        let stream = u32::try_from(self.first_stream + stream).expect("far fewer streams than that");
        Stamp { stream, sequence: it.published, sent_nanos }
    }

    /// Counts something that should not have happened.
    pub(crate) fn trouble(&mut self, what: String) {
        *self.troubles.entry(what).or_default() += 1;
    }

    /// Enters a publication that was heard. True when it has now reached everyone.
    fn heard(&mut self, subscriber: Option<usize>, stamp: Stamp, now_nanos: u64) -> bool {
        let Some(stream_index) = (stamp.stream as usize).checked_sub(self.first_stream) else { return false };
        let subscriber = subscriber.map(|index| &mut self.subscribers[index]);
        let entered = subscriber.and_then(|it| {
            let ledger = it.ledgers.get_mut(stream_index.checked_sub(it.room * self.publishers_per_room)?)?;
            let stream = self.streams.get_mut(stream_index)?;
            (1..=stream.published)
                .contains(&stamp.sequence)
                .then(|| (ledger.enter(stamp.sequence), stream, &mut it.order))
        });
        let Some((entry, stream, order)) = entered else {
            self.faults.stray += 1;
            return false;
        };
        match entry {
            Entry::Next | Entry::Ahead => {}
            Entry::Late => self.faults.reordered += 1,
            Entry::Doubled => {
                self.faults.doubled += 1;
                return false;
            }
        }
        *order = chain(*order, stamp);
        self.tally.delivered += 1;
        self.tally.latency.record(now_nanos.saturating_sub(stamp.sent_nanos));
        let complete = stream.delivered(stamp.sequence);
        self.in_flight -= usize::from(complete);
        complete
    }

    /// The faults of the whole run, once nothing more is expected.
    pub(crate) fn verdict(&self) -> Faults {
        let lost = |subscriber: &Subscriber| -> u64 {
            let first = subscriber.room * self.publishers_per_room;
            let ledgers = subscriber.ledgers.iter().zip(&self.streams[first..]);
            ledgers.map(|(ledger, stream)| ledger.lost(stream.published)).sum()
        };
        let rooms = self.subscribers.chunks(self.room_size);
        let disagreeing = rooms.filter(|room| room.iter().any(|it| it.order != room[0].order)).count();
        Faults {
            lost: self.subscribers.iter().map(lost).sum(),
            disagreeing_rooms: disagreeing as u64,
            ..self.faults
        }
    }
}

impl Stream {
    /// One more subscriber has this publication. True when it was the last.
    fn delivered(&mut self, sequence: u64) -> bool {
        let first = self.published + 1 - self.lacking.len() as u64;
        let lacking = sequence.checked_sub(first).and_then(|index| self.lacking.get_mut(index as usize));
        let lacking = lacking.expect("a complete publication can only be heard again, which is a double");
        *lacking -= 1;
        let complete = *lacking == 0;
        while self.lacking.front() == Some(&0) {
            self.lacking.pop_front();
        }
        complete
    }
}

fn chain(order: u64, stamp: Stamp) -> u64 {
    let step = stamp.sequence << 24 ^ u64::from(stamp.stream);
    (order.rotate_left(5) ^ step).wrapping_mul(0x517c_c1b7_2722_0a95)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two subscribers, two publishers, one room; `heard` are (subscriber, stream, sequence).
    fn verdict(heard: &[(usize, u32, u64)]) -> Faults {
        let mut audience = Audience::new(1, 2, 2);
        for stream in [0, 1, 0] {
            audience.publish(stream, 0);
        }
        for &(subscriber, stream, sequence) in heard {
            audience.heard(Some(subscriber), Stamp { stream, sequence, sent_nanos: 0 }, 5);
        }
        audience.verdict()
    }

    #[test]
    fn a_room_agrees_on_one_order() {
        let first = [(0, 0, 1), (0, 1, 1), (0, 0, 2)];
        let same = verdict(&[first.as_slice(), &[(1, 0, 1), (1, 1, 1), (1, 0, 2)]].concat());
        assert_eq!((same.lost, same.reordered, same.disagreeing_rooms), (0, 0, 0));
        let other = verdict(&[first.as_slice(), &[(1, 1, 1), (1, 0, 1), (1, 0, 2)]].concat());
        assert_eq!((other.lost, other.reordered, other.disagreeing_rooms), (0, 0, 1));
    }

    #[test]
    fn what_was_never_published_or_subscribed_to_is_stray() {
        assert_eq!(verdict(&[(0, 0, 3), (0, 7, 1), (0, 0, 0)]).stray, 3);
        let mut audience = Audience::new(2, 1, 1);
        audience.publish(1, 0);
        audience.heard(Some(0), Stamp { stream: 1, sequence: 1, sent_nanos: 0 }, 5);
        audience.heard(None, Stamp { stream: 1, sequence: 1, sent_nanos: 0 }, 5);
        assert_eq!((audience.verdict().stray, audience.verdict().lost), (2, 1));
    }

    #[test]
    fn a_publication_is_complete_when_its_last_subscriber_has_it() {
        let mut audience = Audience::new(1, 2, 1);
        let stamps = [audience.publish(0, 0), audience.publish(0, 0)];
        assert!(!audience.heard(Some(0), stamps[0], 5));
        assert!(!audience.heard(Some(0), stamps[1], 5));
        assert!(!audience.heard(Some(0), stamps[1], 5));
        assert!(audience.heard(Some(1), stamps[1], 5), "out of order, but everyone has it");
        assert_eq!(audience.in_flight, 1);
        assert!(audience.heard(Some(1), stamps[0], 5));
        assert_eq!((audience.in_flight, audience.tally.delivered), (0, 4));
    }
}
