//! What a node wants the book to say of its members, what the book says as far as is known, and the steps from one to the
//! other. No I/O, no clock.
//!
//! ```text
//!   wanted                      written
//!   Here ── leave ─► Lingering ── grace over ─► Gone          No ── asked ─► Asked ── answered ─► Here | Lingering | No
//!    ▲─────── enter ────┘                                     ▲                    the seat is given up ─► Adrift
//! ```
//!
//! **Invariants.**
//! - A place is in the queue if the book has to hear of it and has not been asked; once it is, at most one step of it is
//!   under way, and what it comes to decides about the next. So however often a client comes and goes, it costs the book
//!   one step per round trip, and the last word is what gets written.
//! - A member that has come and gone before the book heard of it is forgotten without a word.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::event::Member;
use fanfare_protocol::{Channel, SessionId};
use tokio::time::Instant;

use crate::presence::{After, Change, Seat, Step, Writer};

/// The node's members on all channels.
#[derive(Debug, Default)]
pub(super) struct Table {
    seat: Option<Seat>,
    /// When it was taken.
    sitting_since: Option<Instant>,
    /// The life of the book that the last seat was taken in.
    life: u64,
    /// The last seat that something was written under and that was given up.
    before: Option<Seat>,
    rolls: HashMap<Channel, HashMap<SessionId, Place>>,
    queue: VecDeque<Queued>,
    /// Those whose grace runs, by its end.
    lingering: VecDeque<(Instant, Channel, SessionId)>,
    /// How often something was queued.
    queued: u64,
    members: usize,
}

#[derive(Debug)]
struct Place {
    member: Arc<Member>,
    wanted: Wanted,
    written: Written,
    is_queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Here,
    Lingering { until: Instant },
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    No,
    /// Under a seat that was given up.
    Adrift(Trace),
    /// A step is under way.
    Asked(Trace),
    Here,
    Lingering,
}

/// What is known of one whose steps were not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// Perhaps it was never written.
    Unsure,
    /// It was, in this life of the book.
    Sure,
    /// It was, in another one.
    Lost,
}

#[derive(Debug)]
struct Queued {
    number: u64,
    channel: Channel,
    session: SessionId,
}

/// Steps for the book.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) writer: Writer,
    pub(super) changes: Vec<Change>,
    /// The number of the last of those that were queued and are in the batch.
    pub(super) through: u64,
    marks: Vec<(SessionId, Written)>,
}

impl Written {
    fn trace(self) -> Trace {
        match self {
            Self::No => Trace::Unsure,
            Self::Adrift(trace) | Self::Asked(trace) => trace,
            Self::Here | Self::Lingering => Trace::Sure,
        }
    }
}

impl Place {
    /// What the book has to hear next; `None` also for a place that is done with.
    fn step(&self) -> Option<Step> {
        let session = self.member.session;
        match (self.wanted, self.written) {
            (_, Written::Adrift(Trace::Lost)) => Some(Step::Restore(self.member.clone())),
            (Wanted::Here, Written::No | Written::Adrift(_) | Written::Lingering) => {
                Some(Step::Enter(self.member.clone()))
            }
            (Wanted::Lingering { .. }, Written::Here) => Some(Step::Depart(session)),
            (Wanted::Gone, Written::Here | Written::Lingering) => Some(Step::Leave(session)),
            (_, Written::Asked(_))
            | (Wanted::Here, Written::Here)
            | (Wanted::Lingering { .. }, Written::No | Written::Adrift(_) | Written::Lingering)
            | (Wanted::Gone, Written::No | Written::Adrift(_)) => None,
        }
    }

    /// Whether the book need not hear of it any more. Of one that is adrift whoever clears its seat tells, unless the book
    /// lives another life: that is known when the next seat is taken.
    fn is_over(&self, is_seated: bool) -> bool {
        match self.written {
            Written::No => self.wanted != Wanted::Here,
            Written::Adrift(Trace::Unsure | Trace::Sure) => self.wanted != Wanted::Here && is_seated,
            Written::Adrift(Trace::Lost) | Written::Asked(_) | Written::Here | Written::Lingering => false,
        }
    }
}

impl Table {
    /// How many places there are.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// The number of the last that was queued.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    pub(super) fn enter(&mut self, channel: &Channel, member: Member) {
        let session = member.session;
        let member = Arc::new(member);
        match self.rolls.entry(channel.clone()).or_default().entry(session) {
            Entry::Occupied(place) => {
                let place = place.into_mut();
                place.wanted = Wanted::Here;
                place.member = member;
            }
            Entry::Vacant(place) => {
                self.members += 1;
                place.insert(Place { member, wanted: Wanted::Here, written: Written::No, is_queued: false });
            }
        }
        self.settle(channel, session);
    }

    pub(super) fn leave(&mut self, channel: &Channel, session: SessionId, grace: Duration, now: Instant) {
        let Some(place) = self.place(channel, session).filter(|place| place.wanted == Wanted::Here) else {
            return;
        };
        if grace.is_zero() {
            place.wanted = Wanted::Gone;
        } else {
            let until = now + grace;
            place.wanted = Wanted::Lingering { until };
            self.lingering.push_back((until, channel.clone(), session));
        }
        self.settle(channel, session);
    }

    /// When the next grace is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lingering.front().map(|(until, ..)| *until)
    }

    /// Takes those for gone whose grace is over.
    pub(super) fn end_grace(&mut self, now: Instant) {
        while let Some((until, channel, session)) = self.lingering.pop_front_if(|(until, ..)| *until <= now) {
            if let Some(place) = self.place(&channel, session)
                && place.wanted == (Wanted::Lingering { until })
            {
                place.wanted = Wanted::Gone;
                self.settle(&channel, session);
            }
        }
    }

    /// Takes steps out of the queue, at most `count`, while there is a seat.
    pub(super) fn take(&mut self, count: usize) -> Option<Batch> {
        let writer = Writer { seat: self.seat.clone()?, before: self.before.clone() };
        let mut batch = Batch { writer, changes: Vec::new(), marks: Vec::new(), through: 0 };
        while batch.changes.len() < count
            && let Some(Queued { number, channel, session }) = self.queue.pop_front()
        {
            batch.through = number;
            let Some(place) = self.place(&channel, session) else { continue };
            place.is_queued = false;
            if let Some(step) = place.step() {
                batch.marks.push((session, place.written));
                place.written = Written::Asked(place.written.trace());
                batch.changes.push(Change { channel, step });
            }
        }
        (batch.through > 0).then_some(batch)
    }

    /// Takes note of what a batch has come to; what was refused waits again.
    pub(super) fn written(&mut self, batch: Batch, answers: &[After]) {
        if self.seat.as_ref() != Some(&batch.writer.seat) {
            return; // The seat was given up meanwhile, and with it everything that was written under it.
        }
        debug_assert_eq!(batch.changes.len(), answers.len());
        for ((change, (session, was)), after) in batch.changes.into_iter().zip(batch.marks).zip(answers) {
            let Some(place) = self.place(&change.channel, session) else { continue };
            place.written = match after {
                After::Present => Written::Here,
                After::Lingering => Written::Lingering,
                After::Absent => Written::No,
                After::Refused | After::Cleared => was,
            };
            self.settle(&change.channel, session);
        }
    }

    /// A batch was certainly not written: all of it waits again.
    pub(super) fn not_written(&mut self, batch: Batch) {
        let answers = vec![After::Refused; batch.changes.len()];
        self.written(batch, &answers);
    }

    /// Whether the writer has something to do, now or when a grace is over.
    pub(super) fn is_behind(&self) -> bool {
        !self.queue.is_empty() || !self.lingering.is_empty()
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// For how long there has been this seat.
    pub(super) fn sitting_for(&self, now: Instant) -> Option<Duration> {
        self.sitting_since.map(|since| now.duration_since(since))
    }

    /// Takes a seat in a life of the book. When that is not the life of the seat before, nobody knows what it has kept.
    pub(super) fn sit(&mut self, seat: Seat, life: u64, now: Instant) {
        debug_assert!(self.seat.is_none(), "one seat at a time");
        (self.seat, self.sitting_since) = (Some(seat), Some(now));
        let is_lost = std::mem::replace(&mut self.life, life) != life;
        let mut adrift = Vec::new();
        for (channel, roll) in &mut self.rolls {
            for (session, place) in roll {
                let Written::Adrift(trace) = place.written else { continue };
                // One of whom perhaps nobody has been told enters like anybody else.
                if is_lost && (trace == Trace::Sure || place.wanted != Wanted::Here) {
                    place.written = Written::Adrift(Trace::Lost);
                }
                adrift.push((channel.clone(), *session));
            }
        }
        for (channel, session) in adrift {
            self.settle(&channel, session);
        }
    }

    /// Gives up a seat, if it is still this one: it has gone cold, or nobody knows what was written under it. Everybody has to
    /// be written again.
    pub(super) fn stand(&mut self, seat: &Seat) {
        if self.seat.as_ref() != Some(seat) {
            return;
        }
        self.before = self.seat.take();
        self.sitting_since = None;
        let mut again = Vec::new();
        for (channel, roll) in &mut self.rolls {
            for (session, place) in roll {
                place.written = match place.written {
                    Written::No => Written::No,
                    was => Written::Adrift(was.trace()),
                };
                again.push((channel.clone(), *session));
            }
        }
        for (channel, session) in again {
            self.settle(&channel, session);
        }
    }

    fn place(&mut self, channel: &Channel, session: SessionId) -> Option<&mut Place> {
        self.rolls.get_mut(channel)?.get_mut(&session)
    }

    /// Queues a place that the book has to hear of, and forgets one that is done with.
    fn settle(&mut self, channel: &Channel, session: SessionId) {
        let Some(roll) = self.rolls.get_mut(channel) else { return };
        let Some(place) = roll.get_mut(&session) else { return };
        if place.is_over(self.seat.is_some()) {
            self.members -= 1;
            roll.remove(&session);
            if roll.is_empty() {
                self.rolls.remove(channel);
            }
        } else if !place.is_queued && place.step().is_some() {
            place.is_queued = true;
            self.queued += 1;
            self.queue.push_back(Queued { number: self.queued, channel: channel.clone(), session });
        }
    }
}
