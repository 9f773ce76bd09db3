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
//! **Invariants.**
//! - What it says to deliver has consecutive offsets within an epoch, from the position it first stood at, whatever is
//!   lost, doubled or reordered on the way.
//! - `recent` is consecutive and ends at the position; everything the broker still keeps after `asked_after` is in it.
//! - While anything is held or doubted, a read is wanted: it never waits for something that nobody will bring.
//! - It holds at most [`HELD_MAX`] publications; what it lets go of is in the broker's history, since a publication is
//!   appended before it is published, and comes with the read.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use fanfare_protocol::Publication;
use fanfare_protocol::command::Start;
use fanfare_protocol::event::Entry;
use fanfare_protocol::history::Page;
use fanfare_protocol::publication::{Offset, Position};

/// The most publications held beyond a gap.
const HELD_MAX: usize = 1024;

/// The publications kept at hand of a channel that is spoken on, for those who come back after a moment.
const RECENT_KEPT: usize = 64;

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
    /// The link was lost, and the stream that is behind it now may be another one under the same name.
    in_doubt: bool,
    /// How often that has happened: a read that was made before the last time settles nothing.
    doubts: u32,
    /// How many of `recent` to keep: more for a while after a read, for those who come back together.
    keep: usize,
    /// Something has come since [`Follower::take_quiet`] was asked last.
    heard: bool,
}

/// What to read of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The position alone.
    Position,
    /// All that is kept after this offset.
    After(Offset),
}

impl Read {
    /// One read that serves both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Position, it) | (it, Self::Position) => it,
            (Self::After(one), Self::After(other)) => Self::After(one.min(other)),
        }
    }
}

/// A read that somebody is making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What to read.
    pub(crate) read: Read,
    doubts: u32,
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
        if !self.in_doubt && self.held.is_empty() && self.follows(publications) {
            publications.iter().for_each(|publication| self.advance(publication.clone()));
            self.forget_oldest();
            return Step { lost: false, deliver: Cow::Borrowed(publications) };
        }
        // What has no place in the stream comes from a node that was told of no history here, and waits for nothing.
        let (placed, loose): (Vec<_>, Vec<_>) =
            publications.iter().cloned().partition(|publication| publication.position.is_some());
        self.held.extend(placed);
        let mut step = self.release();
        step.deliver.to_mut().extend(loose);
        self.held.truncate(HELD_MAX);
        self.forget_oldest();
        step
    }

    /// Takes what a read brought: all that the broker kept from there on, up to the page's top.
    pub(crate) fn learn(&mut self, reading: Reading, page: Page) -> Step<'static> {
        let Reading { read, doubts } = reading;
        if doubts != self.doubts {
            self.want(read);
            return Step { lost: false, deliver: Cow::Owned(Vec::new()) };
        }
        let position = page.position();
        let lost = self.at.is_some_and(|at| !self.continues(at, &page));
        let mut deliver = Vec::new();
        match self.at {
            Some(at) if !lost => {
                self.backfill(at, read, &page);
                for publication in page.publications {
                    if self.at.is_some_and(|at| publication.offset() > at.offset) {
                        deliver.push(publication.clone());
                        self.advance(publication);
                    }
                }
            }
            _ => self.begin(position, read, page),
        }
        self.in_doubt = false;
        self.keep = self.keep.max(self.recent.len() * 2);
        let rest = self.release();
        deliver.extend(rest.deliver.into_owned());
        Step { lost: lost || rest.lost, deliver: Cow::Owned(deliver) }
    }

    /// Lets a subscriber in, or asks for the read that it takes. `asked` says that the read was made for it already.
    pub(crate) fn enter(&mut self, start: Start, asked: bool) -> Entrance {
        let Some(at) = self.at.filter(|_| !self.in_doubt) else {
            self.want(self.read_for(start));
            return Entrance::Read;
        };
        let open = |recovered, replay| Entrance::Open { entry: Entry { position: at, recovered }, replay };
        let after = match start {
            Start::Live => return open(false, Vec::new()),
            Start::Since(since) if since.epoch != at.epoch => return open(false, Vec::new()),
            Start::Since(since) if since.offset > at.offset => {
                // It has heard from another node what has not come to this one yet; or the stream has gone back.
                if asked {
                    return open(false, Vec::new());
                }
                self.want(Read::After(at.offset));
                return Entrance::Read;
            }
            Start::Since(since) => since.offset,
            Start::Rewind(count) => Offset(at.offset.0.saturating_sub(count.into())),
        };
        let at_hand = at.offset.0 - after.0 <= self.recent.len() as u64;
        match (at_hand || self.asked_after <= after, start) {
            (false, _) if !asked => {
                self.want(Read::After(after));
                Entrance::Read
            }
            (_, Start::Rewind(_)) => open(true, self.since(after)),
            _ if at_hand => open(true, self.since(after)),
            _ => open(false, Vec::new()),
        }
    }

    /// The link was lost and is back: nothing is delivered before a read has shown that the stream goes on.
    pub(crate) fn doubt(&mut self) {
        if let Some(at) = self.at {
            self.in_doubt = true;
            self.doubts += 1;
            // The last publication is read once more, to be compared.
            self.want(Read::After(Offset(at.offset.0.saturating_sub(1))));
        }
    }

    /// Compares with where the broker says the stream stands; whoever lags behind wants a read.
    pub(crate) fn check(&mut self, position: Position) {
        if let Some(at) = self.at
            && (position.epoch != at.epoch || position.offset > at.offset)
        {
            self.want(Read::After(at.offset));
        }
    }

    /// Whether nothing has come since this was asked last. Of a channel that quiet nothing is kept at hand.
    pub(crate) fn take_quiet(&mut self) -> bool {
        let quiet = !std::mem::take(&mut self.heard);
        self.keep = RECENT_KEPT;
        if quiet && let Some(at) = self.at {
            self.recent = VecDeque::new();
            self.asked_after = at.offset;
        }
        quiet
    }

    /// The read that is wanted, if any. Whoever takes it makes it, and brings it by [`Follower::learn`] or gives it back by
    /// [`Follower::want`].
    pub(crate) fn take_read(&mut self) -> Option<Reading> {
        let read = self.wanted.take()?;
        Some(Reading { read, doubts: self.doubts })
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

    fn advance(&mut self, publication: Arc<Publication>) {
        self.at = publication.position;
        self.recent.push_back(publication);
    }

    /// Delivers what is held and in order, and asks for what is missing before the rest.
    fn release(&mut self) -> Step<'static> {
        let mut step = Step { lost: false, deliver: Cow::Owned(Vec::new()) };
        let Some(mut at) = self.at else {
            self.want(Read::Position);
            return step;
        };
        if self.in_doubt {
            return step;
        }
        if self.held.iter().any(|publication| publication.position.is_none_or(|it| it.epoch != at.epoch)) {
            // Another stream under the same name. The old one is over, and the read begins the new one.
            self.held.retain(|publication| publication.position.is_some_and(|it| it.epoch != at.epoch));
            self.at = None;
            self.recent = VecDeque::new();
            self.want(Read::Position);
            step.lost = true;
            return step;
        }
        self.held.sort_by_key(|publication| publication.offset());
        for publication in std::mem::take(&mut self.held) {
            if publication.offset().0 == at.offset.0 + 1 {
                at.offset = publication.offset();
                step.deliver.to_mut().push(publication.clone());
                self.advance(publication);
            } else if publication.offset() > at.offset {
                self.held.push(publication);
            }
        }
        if !self.held.is_empty() {
            self.want(Read::After(at.offset));
        }
        step
    }

    /// Whether a page shows the same stream, with all that follows where we stand.
    fn continues(&self, at: Position, page: &Page) -> bool {
        // A page may be older than what the lane has brought since; in doubt, nothing has been taken from the lane since.
        let same_stream = page.epoch == at.epoch && (page.top >= at.offset || !self.in_doubt);
        let same_last =
            match (self.recent.back(), page.publications.iter().find(|it| it.offset() == at.offset)) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true, // Too old for one side: there is nothing to compare.
            };
        let mut next = at.offset.0;
        let gapless = page.publications.iter().filter(|it| it.offset() > at.offset).all(|it| {
            next += 1;
            it.offset().0 == next
        });
        same_stream && same_last && gapless && next == page.top.max(at.offset).0
    }

    /// Takes the older part of a page that joins what is at hand.
    fn backfill(&mut self, at: Position, read: Read, page: &Page) {
        let Read::After(after) = read else { return };
        for publication in page.publications.iter().rev() {
            let first = self.recent.front().map_or(at.offset.0 + 1, |first| first.offset().0);
            if publication.offset().0 + 1 == first {
                self.recent.push_front(publication.clone());
            }
        }
        self.asked_after = self.asked_after.min(after);
    }

    /// Stands where the page says, for the first time or after a loss.
    fn begin(&mut self, position: Position, read: Read, page: Page) {
        self.at = Some(position);
        self.recent = VecDeque::new();
        self.asked_after = position.offset;
        self.backfill(position, read, &page);
    }

    fn read_for(&self, start: Start) -> Read {
        match start {
            Start::Live | Start::Rewind(0) => Read::Position,
            Start::Since(since) => Read::After(since.offset),
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

#[cfg(test)]
mod tests;
