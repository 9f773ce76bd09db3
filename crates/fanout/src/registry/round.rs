//! Publications on their way round a large crowd, a slice of it at a time.
//!
//! ```text
//!            ┌──► publications that come join here ──┐
//!   members: ████████████████████▒▒▒▒░░░░░░░░░░░░░░░░░░     one that joined at █ is done when the turn is there again
//!            had their turn      now   have it yet
//! ```
//!
//! The crowd is a ring, and the turn goes round it. In each step the next few members hear all that is on its way and that
//! they have not heard; a publication that comes goes along from there, and is done when it has been all the way round. So
//! however many are on their way, a member has its turn once a round, and one write for all of them: the busier the
//! channel, the bigger the write. And what a member's turn takes of memory is fetched once, not to walk first and, ten
//! thousand members later, once more to write.
//!
//! Most members are idle: their writer sleeps, because nothing waits. Those are claimed, under the crowd's lock, and
//! written to after it has been let go: the bytes are the same for all of them. For the rest publications are queued as in
//! a small crowd, and their writers woken.
//!
//! Publications are numbered, and a member knows the last one that it has heard. So it does not matter who stands where:
//! nobody hears anything twice, and a member that changes its place need only never go from those who have their turn yet
//! to those who had it.
//!
//! One hand walks round a crowd, that of its lane's task. Where a node has more workers than two, a very large crowd is
//! given more hands, up to half of the workers: each takes the next few members whose turn it is. Two may have the same
//! member one after the other, as it comes round again: what the second has for it is queued behind the first one's claim.
//!
//! **Invariants.**
//! - A publication leaves the round when all who had entered before it have heard it, or have left.
//! - A step holds the crowd's lock for no more than [`MEMBERS`] members, and writes to no more.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use fanfare_metrics::Metrics;
use fanfare_protocol::rules::Overflow;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Form, Publication, SessionId};
use tokio::time::Instant;

use super::{Crowd, Filters, Gate, Link, Member, Members, Run, Subscribers, Told, apart, look_on};
use crate::outbox::{Claim, Queued, Sheaf, taken};
use crate::tap::Tap;

/// The members that have their turn in a step: some 300 µs of writing, for which everybody else on this worker waits.
pub(crate) const MEMBERS: usize = 32;

/// The members of a crowd for each hand that walks round it.
const HAND: usize = 1024;

/// The bytes written in a step after which it takes no further member.
const BYTES: usize = 512 * 1024;

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What is on its way, as it came.
    publications: VecDeque<Arc<Publication>>,
    /// How the last of them, or all, are told to those who have agreed to differences; of none while nobody has.
    links: VecDeque<Link>,
    /// How far each of them is.
    legs: VecDeque<Leg>,
    /// Where in the crowd it is whose turn.
    turn: usize,
    /// The number of the newest publication; they count up from 1.
    newest: u64,
    /// Those who walk beside the lane's task.
    hands: usize,
}

#[derive(Debug)]
struct Leg {
    /// The turns before it is done, at most a few too many: where the crowd has become smaller. No fewer than those of what
    /// came before it.
    left: usize,
    receivers: u64,
    began: Instant,
}

impl Round {
    /// Sends publications on their way, in this order.
    pub(super) fn begin(&mut self, publications: &[Arc<Publication>], links: Vec<Link>, members: usize) {
        let began = Instant::now();
        self.newest += publications.len() as u64;
        // Nobody needs more than a whole round; so the newest is the last to be done.
        self.legs.iter_mut().for_each(|leg| leg.left = leg.left.min(members));
        self.publications.extend(publications.iter().cloned());
        self.links.extend(links);
        self.legs.extend(publications.iter().map(|_| Leg { left: members, receivers: 0, began }));
    }

    /// Nobody is told differences any more.
    pub(super) fn forget_links(&mut self) {
        self.links = VecDeque::new();
    }

    /// Whether nothing is on its way.
    pub(super) fn is_done(&self) -> bool {
        self.legs.is_empty()
    }

    /// The number of the newest publication.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// The crowd has one more at its end.
    pub(super) fn has_grown(&mut self) {
        self.legs.iter_mut().for_each(|leg| leg.left += 1);
    }

    /// Gives a member that is to be taken out by [`indexmap::IndexMap::swap_remove_index`] a place in which the one that
    /// comes there from the end has its turn yet, and says which.
    pub(super) fn make_last_before_turn(&mut self, members: &mut Members, index: usize) -> usize {
        if self.is_done() || index >= self.turn {
            return index;
        }
        // Who had its turn last may stand where anybody had it. The turn goes back by one place.
        self.turn -= 1;
        self.has_grown();
        members.swap_indices(index, self.turn);
        self.turn
    }

    /// Queues for a member what is on its way to it.
    pub(super) fn catch_up(&mut self, member: &mut Member, filters: &Filters) -> Queued {
        let from = unheard(member, self.newest, self.publications.len());
        match &mut member.gate {
            Gate::Live if member.told == Told::Alike => {
                member.outbox.offer(&self.publications.make_contiguous()[from..], member.overflow)
            }
            Gate::Live if from == self.publications.len() => Queued::default(),
            Gate::Live => {
                let (publications, links) =
                    (self.publications.make_contiguous(), self.links.make_contiguous());
                let told = apart(member, filters, Run { publications, links }.after(from));
                member.outbox.offer(&told, member.overflow)
            }
            Gate::Entered(entered) => {
                entered.since.extend(self.publications.range(from..).cloned());
                Queued::default()
            }
            Gate::Joining | Gate::Lost => Queued::default(),
        }
    }

    fn step(&mut self, members: &mut Members, filters: &Filters, slice: &mut Slice) {
        let publications = &*self.publications.make_contiguous();
        let run = Run { publications, links: self.links.make_contiguous() };
        slice.excluded.extend(publications.iter().filter_map(|publication| publication.exclude));
        let most = self.legs.back().map_or(0, |leg| leg.left.min(members.len()).min(MEMBERS));
        let (mut turns, mut heard_from) = (0, (0, 0));
        while turns < most && slice.bytes < BYTES {
            if self.turn >= members.len() {
                self.turn = 0;
            }
            let (_, member) = members.get_index_mut(self.turn).expect("the crowd is as large as that");
            self.turn += 1;
            turns += 1;
            let from = unheard(member, self.newest, publications.len());
            match &mut member.gate {
                Gate::Live => {
                    if heard_from.0 != from {
                        count(&mut self.legs, heard_from);
                        heard_from = (from, 0);
                    }
                    heard_from.1 += 1;
                    slice.take(member, filters, &run, from);
                }
                Gate::Entered(entered) => entered.since.extend_from_slice(&publications[from..]),
                Gate::Joining | Gate::Lost => {}
            }
        }
        count(&mut self.legs, heard_from);
        self.legs.iter_mut().for_each(|leg| leg.left = leg.left.saturating_sub(turns));
        while members.is_empty() || self.legs.front().is_some_and(|leg| leg.left == 0) {
            let Some(leg) = self.legs.pop_front() else { break };
            debug_assert!(self.all_have_heard_first(members), "it has been all the way round");
            self.publications.pop_front();
            if self.links.len() > self.publications.len() {
                self.links.pop_front();
            }
            slice.done.push((leg.receivers, leg.began.elapsed()));
        }
    }

    fn all_have_heard_first(&self, members: &Members) -> bool {
        let first = self.newest + 1 - self.publications.len() as u64;
        members.values().all(|member| match member.gate {
            Gate::Live | Gate::Entered(_) => member.heard >= first,
            Gate::Joining | Gate::Lost => true,
        })
    }
}

/// From where on among so many, of which the last has this number, a member has not heard them; now it has.
fn unheard(member: &mut Member, newest: u64, publications: usize) -> usize {
    let missed = newest - mem::replace(&mut member.heard, newest);
    publications.saturating_sub(usize::try_from(missed).unwrap_or(usize::MAX))
}

/// Counts receivers of what comes from a place on.
fn count(legs: &mut VecDeque<Leg>, (from, receivers): (usize, u64)) {
    if receivers > 0 {
        legs.range_mut(from..).for_each(|leg| leg.receivers += receivers);
    }
}

/// The right, and the duty, to walk round a crowd until nothing is on its way.
#[derive(Debug)]
pub(crate) struct Walk {
    subscribers: Arc<Subscribers>,
    members: usize,
    on_their_way: usize,
    /// Whether it is beside the lane's task, as one of [`Round::hands`].
    is_hand: bool,
}

/// Whether they are round the same crowd.
impl PartialEq for Walk {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subscribers, &other.subscribers)
    }
}

impl Eq for Walk {}

impl Walk {
    pub(super) fn new(subscribers: &Arc<Subscribers>, members: usize, round: &Round) -> Self {
        let on_their_way = round.publications.len();
        Self { subscribers: subscribers.clone(), members, on_their_way, is_hand: false }
    }

    /// Takes on more hands, if the crowd is large enough: as many as it needs, and `most` in all. Each is to walk too, until
    /// nothing is on its way.
    pub(crate) fn hire(&self, most: usize) -> Vec<Self> {
        let wanted = most.min((self.members / HAND).saturating_sub(1));
        if wanted == 0 {
            return Vec::new();
        }
        let mut crowd = self.subscribers.0.lock();
        let Some(round) = crowd.round.as_mut().filter(|round| !round.is_done()) else { return Vec::new() };
        let new = wanted.saturating_sub(round.hands);
        round.hands += new;
        let hand = || Self { subscribers: self.subscribers.clone(), is_hand: true, ..*self };
        std::iter::repeat_with(hand).take(new).collect()
    }

    /// How many there are in the crowd.
    pub(crate) fn members(&self) -> usize {
        self.members
    }

    /// How many publications are on their way, as far as is known without a look.
    pub(crate) fn on_their_way(&self) -> usize {
        self.on_their_way
    }

    /// Gives the next members their turn; what is to be written to them is in `slice` then. Whether anything is on its way
    /// still.
    pub(crate) fn step(&mut self, slice: &mut Slice) -> bool {
        let mut crowd = self.subscribers.0.lock();
        if let Crowd { members, round: Some(round), filters, .. } = &mut *crowd {
            round.step(members, filters, slice);
            self.on_their_way = round.publications.len();
            if self.is_hand && self.on_their_way == 0 {
                round.hands -= 1;
            }
        }
        self.on_their_way > 0
    }
}

/// What a step has to write, and what it came to.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    /// The sessions that something on its way is not for.
    excluded: Vec<SessionId>,
    /// What is written, by whom it is for; nothing where it is better queued.
    sheaves: Vec<(Audience, Option<Sheaf>)>,
    claims: Vec<(Claim, usize)>,
    wakers: Vec<Waker>,
    queued: Queued,
    bytes: usize,
    /// The publications that have been all the way round: how many heard them, and how long it took.
    done: Vec<(u64, Duration)>,
    /// Who looks on.
    tap: Option<Arc<Tap>>,
}

/// What members have in common who are written the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Audience {
    form: Form,
    /// Where what is for them begins among what is on its way.
    from: usize,
    /// How the first of it is told.
    told: Told,
}

impl Slice {
    /// Has somebody look on at the next step, or nobody.
    pub(crate) fn show(&mut self, tap: Option<&Arc<Tap>>) {
        self.tap = tap.cloned();
    }

    fn take(&mut self, member: &mut Member, filters: &Filters, run: &Run<'_>, from: usize) {
        if from == run.publications.len() {
            return;
        }
        let outbox = &member.outbox;
        look_on(self.tap.as_ref(), &run.publications[from..], outbox);
        // A conflating channel's are counted for each receiver.
        let is_same_for_all =
            member.overflow != Overflow::Conflate && !self.excluded.contains(&outbox.session());
        if is_same_for_all
            && let Some(index) = self.sheaf(run, outbox.form(), from, member.told)
            && let Some(claim) = outbox.claim()
        {
            self.bytes += self.sheaves[index].1.as_ref().map_or(0, |sheaf| sheaf.bytes().len());
            self.claims.push((claim, index));
            if member.told == Told::Whole {
                member.told = Told::Difference;
            }
            return;
        }
        let (queued, waker) = match member.told {
            Told::Alike => outbox.offer_asleep(&run.publications[from..], member.overflow),
            _ => offer_apart(member, filters, run.after(from)),
        };
        self.queued += queued;
        self.wakers.extend(waker);
    }

    /// Which sheaf it is that members of this form are written, who are told so from there on; none where its frames are better
    /// queued.
    fn sheaf(&mut self, run: &Run<'_>, form: Form, from: usize, told: Told) -> Option<usize> {
        let audience = Audience { form, from, told };
        let known = self.sheaves.iter().rposition(|(of, _)| *of == audience);
        let index = known.unwrap_or_else(|| {
            let sheaf = match told {
                Told::Alike => Sheaf::of(&run.publications[from..], form),
                Told::Filtered => None, // Each of them has its own.
                Told::Whole | Told::Difference => {
                    Sheaf::of(&run.after(from).told(form.encoding(), told), form)
                }
            };
            self.sheaves.push((audience, sheaf));
            self.sheaves.len() - 1
        });
        self.sheaves[index].1.is_some().then_some(index)
    }

    /// Writes, wakes and counts.
    pub(crate) fn perform(&mut self, metrics: &Metrics, now: fn() -> UnixMicros) {
        let mut writes = 0;
        let mut claims = self.claims.drain(..).peekable();
        while let Some((claim, index)) = claims.next() {
            let sheaf = self.sheaves[index].1.as_ref().expect("who was claimed for it");
            let whole = sheaf.bytes().len();
            let bytes = claim.write(sheaf);
            if bytes == whole {
                writes += 1;
            } else if bytes > 0 {
                metrics.written(sheaf.frames_in(bytes), bytes as u64);
                taken(metrics, 1, sheaf.oldest(), now());
            }
            if claims.peek().is_none_or(|(_, next)| *next != index) && writes > 0 {
                metrics.written_to_many(writes, sheaf.len() as u64, whole as u64);
                if sheaf.saved_bytes() > 0 {
                    metrics.written_saved(writes * sheaf.saved_bytes() as u64);
                }
                taken(metrics, writes, sheaf.oldest(), now());
                writes = 0;
            }
        }
        drop(claims);
        self.wakers.drain(..).for_each(Waker::wake);
        mem::take(&mut self.queued).count(metrics);
        for (receivers, elapsed) in self.done.drain(..) {
            metrics.fanned_out(1, receivers, elapsed);
        }
        self.excluded.clear();
        self.sheaves.clear();
        self.bytes = 0;
    }
}

/// Queues what is told otherwise than everybody is.
#[cold]
fn offer_apart(member: &mut Member, filters: &Filters, run: Run<'_>) -> (Queued, Option<Waker>) {
    let told = apart(member, filters, run);
    member.outbox.offer_asleep(&told, member.overflow)
}

#[cfg(test)]
mod tests;
