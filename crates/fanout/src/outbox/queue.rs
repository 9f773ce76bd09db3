//! What waits in an outbox, and what gives way when it is too much.
//!
//! One queue holds everything, so that a client reads everything in one order. What may be lost is a matter of each
//! publication's channel ([`Overflow`]); the session's frames, replayed publications and those of `disconnect` channels
//! wait until they are written.
//!
//! - **drop_oldest**: whatever wants in when there is no room, the oldest waiting publications of such channels give way
//!   to it. If not even all of them would make room, none gives way: then a publication of such a channel is dropped
//!   itself, and anything else is an overflow.
//! - **conflate**: at most one publication of such a channel waits. A newer one takes its place in the queue, whose
//!   writer is told how many it stands for, so a channel that speaks often does not lose its turn to quieter ones. Where
//!   something that never gives way was queued behind that place, the newer one goes to the end instead: no publication
//!   overtakes a frame of the session (`unsubscribed`, `subscribed`) or a replayed publication that was queued before
//!   it. The newest value is never dropped: without room for it the queue overflows, as it does for `disconnect`.
//!
//! A conflated publication is spelt when it is taken, since its count differs per receiver and changes while it waits.
//! Until then it counts as many bytes as its shared frame has.
//!
//! **Cost.** While there is room, a publication of a `disconnect` or `drop_oldest` channel is appended and nothing else.
//! A conflating one has to find its predecessor: a short queue is searched, a longer one gets an [`Index`], built by one
//! walk and kept until the queue is empty. The index also finds what may be dropped. Everything it does is O(1) on
//! average: an entry that gives way leaves a hole, and holes are filled in once they are half of the queue.
//!
//! **Invariants.**
//! - `bytes` is the sum of the entries' bytes, and at most `bytes_max`, but for last words.
//! - The first entry is no hole: a queue without bytes has no entries and no index.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::ops::AddAssign;
use std::sync::Arc;

use bytes::Bytes;
use fanfare_protocol::publication::Delivery;
use fanfare_protocol::rules::Overflow;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Form, Publication};

/// The slots an empty queue may keep while its channels are spoken on: a batch of them, so that nothing is allocated for
/// what is delivered.
pub(super) const SLOTS_KEPT: usize = 64;

/// The slots an empty queue may keep for good, so that one publication now and then allocates nothing.
pub(super) const SLOTS_AT_REST: usize = 4;

/// The longest queue that is searched entry by entry.
pub(super) const SEARCHED_MAX: usize = 16;

/// See the [module's essay](self).
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    form: Form,
    index: Option<Box<Index>>,
}

#[derive(Debug)]
enum Entry {
    /// The session's, and by how many bytes it is shorter for being compressed.
    Frame(Bytes, u32),
    Publication(Arc<Publication>, Manner),
    /// What was here gave way.
    Hole,
}

/// What was taken out of a queue.
#[derive(Debug)]
pub(super) struct Popped {
    /// As they go to the socket.
    pub(super) bytes: Bytes,
    /// What they spell, where that is a publication.
    pub(super) publication: Option<Arc<Publication>>,
    /// By how many bytes it is shorter for being compressed.
    pub(super) saved_bytes: usize,
}

/// How a publication waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Until it is written, like a frame.
    Firm,
    /// The same, out of history.
    Replayed,
    /// Until its room is needed.
    Droppable,
    /// Until a newer one of its channel comes. It stands for so many older ones already.
    Conflating { skipped: u64 },
}

/// Where things are in a long queue, or in one that is full. Places are numbers that count up with every entry, and an
/// entry keeps its own.
#[derive(Debug)]
struct Index {
    /// The place of the first entry.
    front: u64,
    /// The place after the last entry that must not be overtaken.
    barrier: u64,
    /// No entry before this place is droppable.
    droppable_from: u64,
    droppable_bytes: usize,
    holes: usize,
    /// The place of each channel's conflating publication.
    conflating: HashMap<Channel, u64>,
}

/// There is no room, and nothing that could make enough of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// How many publications were lost to make room, or to newer ones.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Losses {
    /// Of `drop_oldest` channels.
    pub(super) dropped: u64,
    /// Of `conflate` channels.
    pub(super) conflated: u64,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.dropped += other.dropped;
        self.conflated += other.conflated;
    }
}

impl Queue {
    pub(super) fn new(form: impl Into<Form>, bytes_max: usize) -> Self {
        let form = form.into();
        Self { entries: VecDeque::new(), bytes: 0, bytes_max, form, index: None }
    }

    /// The bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entries that wait, at most twice as many as messages do.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether at most a quarter of what may wait does.
    pub(super) fn has_ample_room(&self) -> bool {
        self.bytes <= self.bytes_max / 4
    }

    /// Throws everything away, and returns how many bytes that was.
    pub(super) fn clear(&mut self) -> usize {
        self.entries = VecDeque::new();
        self.index = None;
        mem::take(&mut self.bytes)
    }

    /// Gives back what a burst has left, if nothing waits.
    pub(super) fn rest(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > SLOTS_AT_REST {
            self.entries = VecDeque::new();
        }
    }

    /// Appends a frame of the session's, which is so many bytes shorter for being compressed.
    pub(super) fn push(&mut self, frame: Frame, saved_bytes: u32) -> Result<Losses, NoRoom> {
        let dropped = self.make_room(frame.len())?;
        self.append(Entry::Frame(frame.into(), saved_bytes));
        self.tidy();
        Ok(Losses { dropped, conflated: 0 })
    }

    /// The same for a frame that is queued whatever the bound says.
    pub(super) fn push_last(&mut self, frame: Frame) {
        self.append(Entry::Frame(frame.into(), 0));
        self.tidy();
    }

    /// How many of the newest of these have at most half of the bytes that may wait.
    pub(super) fn replayable(&self, publications: &[Arc<Publication>]) -> usize {
        let mut bytes = 0;
        let fitting = publications.iter().rev().take_while(|publication| {
            bytes += publication.replayed(self.form).len();
            bytes <= self.bytes_max / 2
        });
        fitting.count()
    }

    /// Appends publications out of history: all of them, or none.
    pub(super) fn replay(&mut self, publications: &[Arc<Publication>]) -> Result<Losses, NoRoom> {
        let bytes = publications.iter().map(|publication| publication.replayed(self.form).len()).sum();
        let dropped = self.make_room(bytes)?;
        for publication in publications {
            self.append(Entry::Publication(publication.clone(), Manner::Replayed));
        }
        self.tidy();
        Ok(Losses { dropped, conflated: 0 })
    }

    /// Queues a publication in the way of its channel.
    pub(super) fn offer(
        &mut self,
        publication: &Arc<Publication>,
        overflow: Overflow,
    ) -> Result<Losses, NoRoom> {
        let bytes = publication.encoded(self.form).len();
        let mut losses = Losses::default();
        match overflow {
            Overflow::Disconnect => {
                losses.dropped = self.make_room(bytes)?;
                self.append(Entry::Publication(publication.clone(), Manner::Firm));
            }
            Overflow::DropOldest => match self.make_room(bytes) {
                Ok(dropped) => {
                    losses.dropped = dropped;
                    self.append(Entry::Publication(publication.clone(), Manner::Droppable));
                }
                Err(NoRoom) => losses.dropped = 1,
            },
            Overflow::Conflate => losses = self.conflate(publication, bytes)?,
        }
        self.tidy();
        Ok(losses)
    }

    /// Whether this is the last to have been queued.
    pub(super) fn ends_with(&self, publication: &Arc<Publication>) -> bool {
        matches!(self.entries.back(), Some(Entry::Publication(last, _)) if Arc::ptr_eq(last, publication))
    }

    /// Takes the first entry out.
    pub(super) fn pop(&mut self) -> Option<Popped> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes(self.form);
        if let Some(index) = &mut self.index {
            index.forget(&entry, self.form);
            index.front += 1;
        }
        self.tidy();
        Some(match entry {
            Entry::Frame(bytes, saved_bytes) => {
                Popped { bytes, publication: None, saved_bytes: saved_bytes as usize }
            }
            Entry::Publication(publication, manner) => {
                let bytes = manner.spell(&publication, self.form);
                let saved_bytes = manner.saved_bytes(&publication, self.form, bytes.len());
                Popped { bytes, publication: Some(publication), saved_bytes }
            }
            Entry::Hole => unreachable!("the first entry is no hole"),
        })
    }

    fn conflate(&mut self, publication: &Arc<Publication>, bytes: usize) -> Result<Losses, NoRoom> {
        if self.entries.len() > SEARCHED_MAX || self.bytes + bytes > self.bytes_max {
            self.index();
        }
        let Some((place, overtakes)) = self.predecessor(&publication.channel) else {
            let dropped = self.make_room(bytes)?;
            self.append(Entry::Publication(publication.clone(), Manner::Conflating { skipped: 0 }));
            return Ok(Losses { dropped, conflated: 0 });
        };
        let older = self.dig(place);
        let Entry::Publication(_, Manner::Conflating { skipped }) = older else {
            unreachable!("the predecessor conflates")
        };
        let entry = Entry::Publication(
            publication.clone(),
            Manner::Conflating { skipped: skipped.saturating_add(1) },
        );
        let dropped = self.make_room(bytes)?;
        if overtakes {
            self.append(entry);
        } else {
            self.fill(place, entry);
        }
        Ok(Losses { dropped, conflated: 1 })
    }

    /// Where a channel's conflating publication waits, and whether one in its place would overtake what it must not.
    fn predecessor(&self, channel: &Channel) -> Option<(u64, bool)> {
        if let Some(index) = &self.index {
            return index.conflating.get(channel).map(|&place| (place, place < index.barrier));
        }
        let place = self.entries.iter().position(|entry| entry.conflating() == Some(channel))?;
        Some((place as u64, self.entries.range(place..).any(Entry::is_barrier)))
    }

    /// Makes room for `bytes`, and returns how many publications gave way; none when it is not to be had.
    fn make_room(&mut self, bytes: usize) -> Result<u64, NoRoom> {
        if self.bytes.saturating_add(bytes) <= self.bytes_max {
            return Ok(0);
        }
        if (self.bytes - self.index().droppable_bytes).saturating_add(bytes) > self.bytes_max {
            return Err(NoRoom);
        }
        let mut dropped = 0;
        while self.bytes + bytes > self.bytes_max {
            let place = self.oldest_droppable().expect("droppable bytes belong to an entry");
            self.dig(place);
            dropped += 1;
        }
        Ok(dropped)
    }

    fn oldest_droppable(&mut self) -> Option<u64> {
        let index = self.index.as_mut()?;
        let from = slot(index.droppable_from.saturating_sub(index.front));
        let skipped = self.entries.range(from..).position(Entry::is_droppable)?;
        index.droppable_from = index.front + (from + skipped) as u64;
        Some(index.droppable_from)
    }

    fn append(&mut self, entry: Entry) {
        self.bytes += entry.bytes(self.form);
        if let Some(index) = &mut self.index {
            index.learn(self.entries.len(), &entry, self.form);
        }
        self.entries.push_back(entry);
    }

    /// Takes an entry out and leaves a hole.
    fn dig(&mut self, place: u64) -> Entry {
        let slot = slot(place - self.index.as_ref().map_or(0, |index| index.front));
        let entry = mem::replace(&mut self.entries[slot], Entry::Hole);
        self.bytes -= entry.bytes(self.form);
        if let Some(index) = &mut self.index {
            index.forget(&entry, self.form);
            index.holes += 1;
        }
        entry
    }

    /// Puts an entry into a hole that was just dug.
    fn fill(&mut self, place: u64, entry: Entry) {
        let slot = slot(place - self.index.as_ref().map_or(0, |index| index.front));
        self.bytes += entry.bytes(self.form);
        if let Some(index) = &mut self.index {
            index.holes -= 1;
            index.learn(slot, &entry, self.form);
        }
        self.entries[slot] = entry;
    }

    /// The index, which is built where there is none.
    fn index(&mut self) -> &mut Index {
        self.index.get_or_insert_with(|| Box::new(Index::of(&self.entries, self.form)))
    }

    /// Sees to it that the first entry is no hole and that holes are not most of the queue, and that an empty queue
    /// keeps no more than a batch takes.
    fn tidy(&mut self) {
        while let Some(Entry::Hole) = self.entries.front() {
            self.entries.pop_front();
            if let Some(index) = &mut self.index {
                index.front += 1;
                index.holes -= 1;
            }
        }
        if self.entries.is_empty() {
            self.index = None;
            if self.entries.capacity() > SLOTS_KEPT {
                self.entries = VecDeque::new();
            }
        } else if self.index.as_ref().is_some_and(|index| index.holes > self.entries.len() / 2) {
            self.entries.retain(|entry| !matches!(entry, Entry::Hole));
            self.index = Some(Box::new(Index::of(&self.entries, self.form)));
        }
    }
}

impl Entry {
    /// The bytes that it counts while it waits.
    fn bytes(&self, form: Form) -> usize {
        match self {
            Self::Frame(bytes, _) => bytes.len(),
            Self::Publication(publication, Manner::Replayed) => publication.replayed(form).len(),
            Self::Publication(publication, _) => publication.encoded(form).len(),
            Self::Hole => 0,
        }
    }

    fn is_barrier(&self) -> bool {
        matches!(self, Self::Frame(..) | Self::Publication(_, Manner::Replayed))
    }

    fn is_droppable(&self) -> bool {
        matches!(self, Self::Publication(_, Manner::Droppable))
    }

    /// The channel that it conflates.
    fn conflating(&self) -> Option<&Channel> {
        match self {
            Self::Publication(publication, Manner::Conflating { .. }) => Some(&publication.channel),
            _ => None,
        }
    }
}

impl Manner {
    /// By how many bytes what has become `bytes` is shorter for being compressed. A conflated one is taken to be as long
    /// uncompressed as one that is not.
    fn saved_bytes(self, publication: &Publication, form: Form, bytes: usize) -> usize {
        if form.shape().is_none() {
            return 0;
        }
        let plain = match self {
            Self::Replayed => publication.replayed(form.encoding()),
            Self::Firm | Self::Droppable | Self::Conflating { .. } => publication.encoded(form.encoding()),
        };
        plain.len().saturating_sub(bytes)
    }

    fn spell(self, publication: &Publication, form: Form) -> Bytes {
        match self {
            Self::Firm | Self::Droppable | Self::Conflating { skipped: 0 } => {
                publication.encoded(form).bytes().clone()
            }
            Self::Replayed => publication.replayed(form).bytes().clone(),
            Self::Conflating { skipped } => {
                let frame =
                    form.encoding().dialect().encode_publication(publication, Delivery::Conflated(skipped));
                let deflated = form.shape().and_then(|shape| frame.deflated(shape));
                deflated.unwrap_or(frame).into()
            }
        }
    }
}

impl Index {
    fn of(entries: &VecDeque<Entry>, form: Form) -> Self {
        let mut index = Self {
            front: 0,
            barrier: 0,
            droppable_from: 0,
            droppable_bytes: 0,
            holes: 0,
            conflating: HashMap::new(),
        };
        for (slot, entry) in entries.iter().enumerate() {
            index.holes += usize::from(matches!(entry, Entry::Hole));
            index.learn(slot, entry, form);
        }
        index
    }

    /// Takes note of an entry that comes into a slot.
    fn learn(&mut self, slot: usize, entry: &Entry, form: Form) {
        let place = self.front + slot as u64;
        if entry.is_barrier() {
            self.barrier = place + 1;
        } else if entry.is_droppable() {
            self.droppable_bytes += entry.bytes(form);
        } else if let Some(channel) = entry.conflating() {
            self.conflating.insert(channel.clone(), place);
        }
    }

    /// Forgets an entry that goes.
    fn forget(&mut self, entry: &Entry, form: Form) {
        if entry.is_droppable() {
            self.droppable_bytes -= entry.bytes(form);
        } else if let Some(channel) = entry.conflating() {
            self.conflating.remove(channel);
        }
    }
}

fn slot(distance: u64) -> usize {
    usize::try_from(distance).expect("a place is within the queue")
}

#[cfg(test)]
mod tests;
