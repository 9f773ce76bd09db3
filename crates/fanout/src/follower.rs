//! Where a node stands in one channel's stream, and what it still has to read to get on.
//!
//! ```text
//!   lane ──► admit ──► in order: deliver          beyond a gap: hold, and ask for a read
//!   read ──► learn ──► what was missing: deliver, then what was held       gap cannot be closed: lost
//!   subscriber ──► enter ──► replay from what is at hand, or ask for a read
//! ```
//!
//! A follower is pure: publications and pages go in, what to deliver comes out, and the registry, which owns it under the
//! channel's lock, does the rest. One follower serves all the channel's subscribers on the node, so a gap is refilled
//! once for all of them, and a thousand clients that recover at the same time share a read.
//!
//! A stream may go on under another epoch, after a fail-over or a restart of the broker. Then everyone who is subscribed is
//! lost, for what they hear next has positions that they cannot know; but what is at hand is still of the stream when its
//! newest publication is still in its place, and lets in those who come back. Positions of an epoch that is over are worth
//! what [`Position::is_shown_by`] says of them.
//!
//! **Invariants.**
//! - What it says to deliver has consecutive offsets within an epoch, from the position it first stood at, whatever is
//!   lost, doubled or reordered on the way.
//! - `recent` is consecutive and ends at the position; everything the broker still keeps after `asked_after` is in it.
//! - While anything is held or doubted, a read is wanted: it never waits for something that nobody will bring.
//! - A read settles only what was so when it began: a page that was asked for before the last doubt or removal is refused, and whoever
//!   waits for a read waits for one that began after it asked.
//! - It holds at most [`HELD_MAX`] publications; what it lets go of is in the broker's history, since a publication is
//!   appended before it is published, and comes with the read.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::sync::Arc;

use fanfare_protocol::Publication;
use fanfare_protocol::command::Start;
use fanfare_protocol::event::Entry;
use fanfare_protocol::history::Page;
use fanfare_protocol::publication::{Epoch, Offset, Position};

/// The most publications held beyond a gap.
const HELD_MAX: usize = 1024;

/// The publications kept at hand of a channel that is spoken on, for those who come back after a moment.
const RECENT_KEPT: usize = 64;

/// A stream on which nothing came for no more than so many looks is compared at each of them: who spoke a moment ago may
/// have been cut off.
const LOOKS_CLOSE: u32 = 2;

/// One that has been quiet for longer is compared at one look of so many. A lost last publication is found within as many.
pub(crate) const LOOKS_APART: u32 = 6;

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// What has been delivered last; unknown until the first read.
    at: Option<Position>,
    recent: VecDeque<Arc<Publication>>,
    /// Everything the broker keeps after this is in `recent`.
    asked_after: Offset,
    /// What came from the lane and cannot be delivered yet.
    held: Vec<Arc<Publication>>,
    /// What to read next.
    wanted: Option<Read>,
    /// A mark of the publication at `at` when `recent` has let go of it, to be compared after a doubt.
    mark: Option<u64>,
    /// How often the stream that is behind the link may have become another one under the same name.
    doubts: u64,
    /// How many of these doubts a read has settled that began after them.
    settled: u64,
    /// How often history was removed, so that a page that was asked for before does not bring it back.
    removals: u64,
    /// How many of `recent` to keep: more for a while after a read, for those who come back together.
    keep: usize,
    /// Something has come since [`Follower::take_quiet`] was asked last.
    heard: bool,
    /// At how many looks in a row nothing had come.
    quiet: u32,
    /// How often it is compared when it is quiet.
    looks: Looks,
}

/// How often a quiet stream is compared with what the broker says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Looks {
    /// At one look of so many, when it has been quiet for a while.
    #[default]
    InTurns,
    /// At each.
    Every,
}

/// What to read of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Where the stream stands, and its newest publication.
    Newest,
    /// All that is kept after this offset.
    After(Offset),
}

impl Read {
    /// One read that serves both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Newest, it) | (it, Self::Newest) => it,
            (Self::After(one), Self::After(other)) => Self::After(one.min(other)),
        }
    }
}

/// A read that somebody is making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What to read.
    pub(crate) read: Read,
    doubts: u64,
    removals: u64,
}

/// What is to be done with what came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    /// The promise to those who are subscribed is broken: tell them, before anything is delivered.
    pub(crate) lost: bool,
    /// To everyone who is subscribed (and was not just lost), in this order.
    pub(crate) deliver: Cow<'a, [Arc<Publication>]>,
}

/// How a subscriber enters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Here; and these it has missed.
    Open {
        /// What the subscriber is told.
        entry: Entry,
        /// What it is sent first.
        replay: Vec<Arc<Publication>>,
    },
    /// Not before the read that is now wanted.
    Read,
}

impl Follower {
    /// Takes publications from the lane, in the order they came.
    pub(crate) fn admit<'a>(&mut self, publications: &'a [Arc<Publication>]) -> Step<'a> {
        self.heard = true;
        if !self.in_doubt() && self.held.is_empty() && self.follows(publications) {
            publications.iter().for_each(|publication| self.advance(publication.clone()));
            self.forget_oldest();
            return Step { lost: false, deliver: Cow::Borrowed(publications) };
        }
        // What has no place in the stream comes from a node that was told of no history here, and waits for nothing.
        let (placed, loose): (Vec<_>, Vec<_>) =
            publications.iter().cloned().partition(|publication| publication.position.is_some());
        if placed.iter().any(|publication| self.is_suspicious(publication)) {
            self.doubt();
        }
        self.held.extend(placed);
        let mut deliver = self.release();
        deliver.extend(loose);
        if self.held.len() > HELD_MAX {
            self.held.truncate(HELD_MAX);
            self.want(Read::Newest); // A read that is under way may not bring what was let go of.
        }
        self.forget_oldest();
        Step { lost: false, deliver: Cow::Owned(deliver) }
    }

    /// Takes what a read brought: all that the broker kept from there on, up to the page's top. `None` when the read has
    /// to be made again.
    pub(crate) fn learn(&mut self, reading: Reading, page: Page) -> Option<Step<'static>> {
        let Reading { read, doubts, removals } = reading;
        if doubts != self.doubts || removals != self.removals {
            self.want(read);
            return None;
        }
        let lost = self.at.is_some_and(|at| page.epoch != at.epoch || !self.continues(at, &page));
        let mut deliver = Vec::new();
        self.keep = self.keep.max(page.publications.len() * 2);
        match self.at {
            Some(at) if !lost || self.is_renamed(at, &page) => {
                self.backfill(at, read, &page);
                self.at = Some(Position { epoch: page.epoch, ..at });
                for publication in page.publications.into_iter().filter(|it| it.offset() > at.offset) {
                    if !lost {
                        deliver.push(publication.clone());
                    }
                    self.advance(publication);
                }
            }
            _ => self.begin(read, &page),
        }
        self.settled = self.doubts;
        // What is of another epoch still is left over from a stream that is no more.
        self.held.retain(|publication| publication.position.is_some_and(|it| it.epoch == page.epoch));
        deliver.extend(self.release());
        Some(Step { lost, deliver: Cow::Owned(deliver) })
    }

    /// Lets a subscriber in, or asks for the read that it takes. `asked` says that a read has been made since it came.
    pub(crate) fn enter(&mut self, start: Start, asked: bool) -> Entrance {
        let Some(at) = self.at.filter(|_| !self.in_doubt()) else {
            self.want(self.read_for(start));
            return Entrance::Read;
        };
        let open = |recovered, replay| Entrance::Open { entry: Entry { position: at, recovered }, replay };
        let after = match start {
            Start::Live => return open(false, Vec::new()),
            Start::Since(since) if since.epoch != at.epoch || since.offset > at.offset => {
                if self.shows(since) {
                    return open(true, self.since(since.offset));
                }
                // It has heard from another node what has not come to this one yet; or what it has heard is gone.
                let is_at_hand = self.asked_after.0 < since.offset.0.max(1);
                if since.epoch == Epoch::NEVER || asked && (is_at_hand || since.offset > at.offset) {
                    return open(false, Vec::new());
                }
                self.want(self.read_for(start));
                return Entrance::Read;
            }
            Start::Since(since) => since.offset,
            Start::Rewind(count) => Offset(at.offset.0.saturating_sub(count.into())),
        };
        let is_at_hand = at.offset.0 - after.0 <= self.recent.len() as u64;
        match start {
            _ if is_at_hand => open(true, self.since(after)),
            _ if self.asked_after > after => {
                self.want(Read::After(after));
                Entrance::Read
            }
            // The broker keeps no more than what is at hand.
            Start::Rewind(_) => open(true, self.since(after)),
            Start::Live | Start::Since(_) => open(false, Vec::new()),
        }
    }

    /// The stream may be another one than before: nothing is delivered until a read has shown that it goes on. Called when
    /// the link was lost and is back.
    pub(crate) fn doubt(&mut self) {
        self.doubts += 1;
        self.held = Vec::new(); // Perhaps of the stream as it was; the read brings what counts.
        if self.at.is_some() {
            self.want(Read::Newest);
        }
    }

    /// Compares with where the broker says the stream stands; whoever lags behind wants a read.
    pub(crate) fn check(&mut self, position: Position) {
        if let Some(at) = self.at
            && (position.epoch != at.epoch || position.offset > at.offset)
        {
            self.want(Read::Newest);
        }
    }

    /// Whether nothing has come since this was asked last. Of a channel that quiet nothing is kept at hand.
    pub(crate) fn take_quiet(&mut self) -> bool {
        let quiet = !mem::take(&mut self.heard);
        self.keep = RECENT_KEPT;
        if quiet {
            self.let_go();
        }
        quiet
    }

    /// Looks whether anything has come since the last look, and says whether the broker is to be asked where the stream
    /// stands. Streams of different phases take turns.
    pub(crate) fn is_due(&mut self, phase: u32) -> bool {
        if !self.take_quiet() {
            self.quiet = 0;
            return false;
        }
        self.quiet = self.quiet.wrapping_add(1);
        self.looks == Looks::Every
            || self.quiet <= LOOKS_CLOSE
            || self.quiet.wrapping_add(phase).is_multiple_of(LOOKS_APART)
    }

    /// From now on it is compared at every look, however long it is quiet.
    pub(crate) fn look_closely(&mut self) {
        self.looks = Looks::Every;
    }

    /// The broker has not answered: it is asked again at the next look.
    pub(crate) fn stays_due(&mut self) {
        self.quiet = 0;
    }

    /// What was published so far was removed from history: it is delivered where it is awaited, and replayed to nobody.
    pub(crate) fn forget(&mut self) {
        self.removals += 1;
        self.let_go();
    }

    /// Keeps nothing at hand but what it takes to know the newest again.
    fn let_go(&mut self) {
        let Some(at) = self.at else { return };
        self.mark = self.recent.back().map(|newest| mark(newest)).or(self.mark);
        self.recent = VecDeque::new();
        self.asked_after = at.offset;
    }

    /// The read that is wanted, if any. Whoever takes it makes it, and brings it by [`Follower::learn`] or gives it back by
    /// [`Follower::want`].
    pub(crate) fn take_read(&mut self) -> Option<Reading> {
        let mut read = self.wanted.take()?;
        if let Some(at) = self.at {
            // Without a gap to where we stand; and the newest that we know once more, to be compared.
            read = read.and(Read::After(Offset(at.offset.0.saturating_sub(1))));
        }
        Some(Reading { read, doubts: self.doubts, removals: self.removals })
    }

    /// Asks for a read, together with what is asked for already.
    pub(crate) fn want(&mut self, read: Read) {
        self.wanted = Some(self.wanted.map_or(read, |wanted| wanted.and(read)));
    }

    /// Whether anything waits for a read.
    pub(crate) fn wants_read(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether these are the next ones, each after the other.
    fn follows(&self, publications: &[Arc<Publication>]) -> bool {
        let Some(mut at) = self.at else { return false };
        publications.iter().all(|publication| {
            at.offset.0 += 1;
            publication.position == Some(at)
        })
    }

    fn in_doubt(&self) -> bool {
        self.at.is_some() && self.settled != self.doubts
    }

    /// Whether a publication cannot be of the stream that we follow, as far as that is news.
    fn is_suspicious(&self, publication: &Arc<Publication>) -> bool {
        let (Some(at), Some(position)) = (self.at, publication.position) else { return false };
        let is_of = |other: &Arc<Publication>| other.position.is_some_and(|it| it.epoch == position.epoch);
        if position.epoch != at.epoch {
            return !self.held.iter().any(is_of);
        }
        let ours = at.offset.0.checked_sub(position.offset.0).and_then(|back| {
            let back = usize::try_from(back).ok()?;
            self.recent.get(self.recent.len().checked_sub(back + 1)?)
        });
        !self.in_doubt() && ours.is_some_and(|ours| ours != publication)
    }

    /// Takes the next publication. Its epoch may be an earlier one than that of the stream by now.
    fn advance(&mut self, publication: Arc<Publication>) {
        let at = self.at.as_mut().expect("what has a successor is known");
        at.offset = publication.offset();
        self.recent.push_back(publication);
    }

    /// Delivers what is held and in order, and asks for what is missing before the rest.
    fn release(&mut self) -> Vec<Arc<Publication>> {
        let Some(mut at) = self.at else {
            self.want(Read::Newest);
            return Vec::new();
        };
        if self.in_doubt() {
            return Vec::new();
        }
        let mut deliver = Vec::new();
        self.held.sort_by_key(|publication| publication.offset());
        for publication in mem::take(&mut self.held) {
            if publication.offset().0 == at.offset.0 + 1 {
                at.offset = publication.offset();
                deliver.push(publication.clone());
                self.advance(publication);
            } else if publication.offset() > at.offset {
                self.held.push(publication);
            }
        }
        if !self.held.is_empty() {
            self.want(Read::After(at.offset));
        }
        deliver
    }

    /// Whether a page goes on from where we stand, with all that follows, as far as its epoch lets anybody know.
    fn continues(&self, at: Position, page: &Page) -> bool {
        // A page may be older than what the lane has brought since; in doubt, nothing has been taken from the lane since.
        let is_as_long = page.top >= at.offset || !self.in_doubt();
        let theirs = page.publications.iter().find(|it| it.offset() == at.offset);
        let same_last = match (theirs, self.recent.back(), self.mark) {
            (Some(theirs), Some(ours), _) => ours == theirs,
            (Some(theirs), None, Some(ours)) => ours == mark(theirs),
            (Some(_), None, None) => !self.in_doubt(), // We have never seen it, and cannot say.
            (None, ..) => true,                        // Too old for the broker: there is nothing to compare.
        };
        let mut next = at.offset.0;
        let gapless = page.publications.iter().filter(|it| it.offset() > at.offset).all(|it| {
            next += 1;
            it.offset().0 == next
        });
        is_as_long && same_last && gapless && next == page.top.max(at.offset).0
    }

    /// Whether a page of another epoch shows that nothing up to where we stand has been lost: the newest publication is
    /// where it was.
    fn is_renamed(&self, at: Position, page: &Page) -> bool {
        let is_ours = |theirs: &Arc<Publication>| Some(theirs) == self.recent.back();
        page.epoch != at.epoch && page.publications.iter().any(is_ours) && self.continues(at, page)
    }

    /// Whether what is at hand proves that nothing up to a position of another epoch has been lost, and is all that
    /// followed.
    fn shows(&self, since: Position) -> bool {
        let missed = self.at.and_then(|at| at.offset.0.checked_sub(since.offset.0));
        missed.is_some_and(|missed| missed <= self.recent.len() as u64) && since.is_shown_by(&self.recent)
    }

    /// Takes the older part of a page that joins what is at hand.
    fn backfill(&mut self, at: Position, read: Read, page: &Page) {
        let mut first = self.recent.front().map_or(at.offset.0 + 1, |first| first.offset().0);
        if page.top.0 + 1 < first {
            return; // What lies between has come and gone since the read began.
        }
        for publication in page.publications.iter().rev() {
            if publication.offset().0 + 1 == first {
                first = publication.offset().0;
                self.recent.push_front(publication.clone());
            }
        }
        let after = match read {
            Read::After(after) => after,
            Read::Newest => Offset(first - 1),
        };
        self.asked_after = self.asked_after.min(after);
    }

    /// Stands where the page says, for the first time or after a loss.
    fn begin(&mut self, read: Read, page: &Page) {
        let at = page.position();
        self.at = Some(at);
        self.recent = VecDeque::new();
        self.mark = None;
        self.asked_after = at.offset;
        self.backfill(at, read, page);
    }

    fn read_for(&self, start: Start) -> Read {
        match start {
            Start::Live | Start::Rewind(0) => Read::Newest,
            // With the one before, so that the newest is at hand and can be compared after a doubt.
            Start::Since(since) => Read::After(Offset(since.offset.0.saturating_sub(1))),
            // How far back that is shows when the position is known; what is kept is bounded.
            Start::Rewind(_) => Read::After(Offset(0)),
        }
    }

    fn since(&self, after: Offset) -> Vec<Arc<Publication>> {
        self.recent.iter().filter(|publication| publication.offset() > after).cloned().collect()
    }

    fn forget_oldest(&mut self) {
        let most = self.keep.max(RECENT_KEPT);
        if self.recent.len() > most {
            self.recent.drain(..self.recent.len() - most);
            self.asked_after =
                self.recent.front().map_or(self.asked_after, |first| Offset(first.offset().0 - 1));
        }
    }
}

/// What is kept of a publication to know it by when it is gone.
fn mark(publication: &Publication) -> u64 {
    let mut hasher = DefaultHasher::new();
    publication.payload.as_bytes().hash(&mut hasher);
    publication.received.0.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
