//! Publications told as differences, to the members of a crowd who have agreed to that.
//!
//! ```text
//!   delivered:            p1      p2      p3      p4
//!   who was there:       p1  ─► p2−p1 ─► p3−p2 ─► p4−p3        one frame each, shared by all of an encoding
//!   who came after p2:                    p3   ─► p4−p3        the first one whole, then the same frames
//! ```
//!
//! A difference is from the publication that was delivered to this crowd before it, and is told only to whom that one was the
//! last it was told. So each member knows whether it may be told one ([`Told`]), and that is all that is kept of it. What is
//! missed, replayed, or refilled by a read does not matter: it is told in the order in which it is delivered, or whole.
//!
//! In a crowd in which nobody has agreed to differences there is no chain, and nothing is kept or computed.

use std::mem;
use std::sync::Arc;

use fanfare_protocol::publication::Payload;
use fanfare_protocol::{Encoding, Publication};

use super::Member;
use crate::outbox::{Asleep, Outbox, Queued, Sheaves};
use crate::wakes::Wakes;

const ENCODINGS: usize = Encoding::ALL.len();

/// How the next publication is told to a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    /// As to everybody: it has not agreed to differences.
    #[default]
    Alike,
    /// Whole: it does not know the one before.
    Whole,
    /// As a difference from the one before.
    Difference,
    /// As to everybody, if its filter lets it through.
    Filtered,
}

/// What a crowd keeps while some of it have agreed to differences.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// How many have, of each encoding.
    members: [usize; ENCODINGS],
    /// What was delivered last.
    last: Option<Payload>,
}

/// A publication as it is told to those who know the one before it, in each encoding in which somebody is.
#[derive(Debug, Default)]
pub(super) struct Link(Vec<(Encoding, Arc<Publication>)>);

impl Chain {
    pub(super) fn join(&mut self, encoding: Encoding) {
        self.members[encoding as usize] += 1;
    }

    /// Whether anybody is left.
    pub(super) fn leave(&mut self, encoding: Encoding) -> bool {
        self.members[encoding as usize] -= 1;
        self.members.iter().any(|members| *members > 0)
    }

    /// Adds publications that are about to be delivered, in this order.
    pub(super) fn extend(&mut self, publications: &[Arc<Publication>]) -> Vec<Link> {
        publications.iter().map(|publication| self.push(publication)).collect()
    }

    fn push(&mut self, publication: &Arc<Publication>) -> Link {
        let Some(before) = self.last.replace(publication.payload.clone()) else { return Link::default() };
        let encodings = Encoding::ALL.into_iter().filter(|it| self.members[*it as usize] > 0);
        Link(encodings.map(|encoding| (encoding, publication.after(&before, encoding))).collect())
    }
}

impl Link {
    fn get(&self, encoding: Encoding) -> Option<&Arc<Publication>> {
        self.0.iter().find(|(of, _)| *of == encoding).map(|(_, publication)| publication)
    }
}

/// A run of publications on its way to a crowd, and the links of the last of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) publications: &'a [Arc<Publication>],
    pub(super) links: &'a [Link],
}

impl Run<'_> {
    /// What comes from a place on.
    pub(super) fn after(self, place: usize) -> Self {
        let unlinked = self.unlinked();
        let links = self.links.get(place.saturating_sub(unlinked)..).unwrap_or_default();
        Self { publications: &self.publications[place..], links }
    }

    /// As it is told to those of an encoding who hear all of it, and to whom the first is told so.
    pub(super) fn told(self, encoding: Encoding, first: Told) -> Vec<Arc<Publication>> {
        let unlinked = self.unlinked();
        let links = (0..self.publications.len()).map(|place| self.links.get(place.checked_sub(unlinked)?));
        let spell = |(place, (publication, link)): (usize, (&Arc<Publication>, Option<&Link>))| {
            let link = link.filter(|_| place > 0 || first == Told::Difference);
            let difference = link.and_then(|link| link.get(encoding)).cloned();
            difference.unwrap_or_else(|| publication.whole(encoding))
        };
        self.publications.iter().zip(links).enumerate().map(spell).collect()
    }

    /// As it is told to a member, who knows the last of it then.
    pub(super) fn tell(self, member: &mut Member) -> Vec<Arc<Publication>> {
        let Member { outbox, told, .. } = member;
        let (encoding, session) = (outbox.encoding(), Some(outbox.session()));
        let hears_all = self.publications.iter().all(|publication| publication.exclude != session);
        let first = mem::replace(told, after(self.publications, outbox));
        if hears_all { self.told(encoding, first) } else { whole(self.publications, encoding) }
    }

    /// How many of the first have no links.
    fn unlinked(self) -> usize {
        self.publications.len().saturating_sub(self.links.len())
    }
}

/// The same where nothing is known of what they heard before.
pub(super) fn whole(publications: &[Arc<Publication>], encoding: Encoding) -> Vec<Arc<Publication>> {
    publications.iter().map(|publication| publication.whole(encoding)).collect()
}

/// How the next publication is told to whom all of these are told that it may hear.
pub(super) fn after(publications: &[Arc<Publication>], outbox: &Outbox) -> Told {
    match publications.last() {
        Some(last) if last.exclude != Some(outbox.session()) => Told::Difference,
        _ => Told::Whole,
    }
}

/// A run on its way round a small crowd, as it is told to those who have agreed to differences: put together for the first of
/// each encoding.
#[derive(Debug)]
pub(super) struct Chained<'a> {
    run: Run<'a>,
    made: Vec<(Encoding, Told, Sheaves<'static>)>,
}

impl<'a> Chained<'a> {
    pub(super) fn of(run: Run<'a>) -> Self {
        Self { run, made: Vec::new() }
    }

    /// Claims a member's outbox, to be written to when its turn comes, or queues what it is told.
    pub(super) fn tell(&mut self, member: &mut Member, wakes: &mut Wakes) -> Queued {
        let first = member.told;
        let sheaves = self.sheaves(member.outbox.encoding(), first);
        if let Some(asleep) = sheaves.claim(&member.outbox, member.overflow) {
            wakes.add(asleep);
            member.told = Told::Difference;
            return Queued::default();
        }
        let told = self.run.tell(member);
        let (queued, waker) = member.outbox.offer_asleep(&told, member.overflow);
        waker.into_iter().for_each(|waker| wakes.add(Asleep::Task(waker)));
        queued
    }

    fn sheaves(&mut self, encoding: Encoding, first: Told) -> &mut Sheaves<'static> {
        let known = self.made.iter().position(|(of, told, _)| (*of, *told) == (encoding, first));
        let index = known.unwrap_or_else(|| {
            self.made.push((encoding, first, Sheaves::of(self.run.told(encoding, first))));
            self.made.len() - 1
        });
        &mut self.made[index].2
    }
}

#[cfg(test)]
pub(super) mod tests;
