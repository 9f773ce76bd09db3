//! A hub and its broker for one client: it answers at once, and keeps what a namespace says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::command::{Start, Wording};
use crate::error::{ErrorCode, Failure};
use crate::event::{Crowd, Entry, Member};
use crate::grant::Acquaintance;
use crate::history::{Page, Query};
use crate::id::{SessionId, UserId};
use crate::publication::{Draft, Epoch, IdempotencyKey, Offset, Payload, Position, Publication};
use crate::session::{Terms, Told};

use super::SESSION;

/// Every stream of a broker's first life has this epoch; in its next life, the next.
const FIRST_EPOCH: u64 = 0x9f3c_1a7b_5e0d_4520;

#[derive(Default)]
pub(super) struct Hub {
    pub(super) is_away: bool,
    /// How often the broker has lost everything.
    flushes: u64,
    streams: HashMap<Channel, Stream>,
    /// Joined, but not live; with what is to be replayed.
    entered: HashMap<Channel, Vec<Arc<Publication>>>,
    live: HashSet<Channel>,
    /// Where the client is told differences, and what it was told there last.
    chains: HashMap<Channel, Option<Payload>>,
    /// Who is known to be where, in the order of coming.
    crowds: HashMap<Channel, Vec<Member>>,
    /// Where the client wants to be told who joins and leaves.
    told: HashSet<Channel>,
    /// Where it is told how many there are.
    counted: HashSet<Channel>,
    /// Of whom it is told whether they are there.
    acquaintances: Vec<Acquaintance>,
}

#[derive(Default)]
struct Stream {
    top: Offset,
    kept: VecDeque<Arc<Publication>>,
    keys: HashMap<IdempotencyKey, Position>,
}

impl Hub {
    /// Another client connects; the past stays.
    pub(super) fn forget_client(&mut self) {
        self.entered.clear();
        self.live.clear();
        self.chains.clear();
        self.told.clear();
        self.counted.clear();
        self.acquaintances.clear();
        self.crowds.values_mut().for_each(|crowd| crowd.retain(|member| member.session != SESSION));
    }

    /// The broker loses everything.
    pub(super) fn flush(&mut self) {
        self.flushes += 1;
        self.streams.clear();
    }

    /// Another server takes over, which has got all but the last publication of each stream.
    pub(super) fn fail_over(&mut self) {
        self.flushes += 1;
        for stream in self.streams.values_mut() {
            stream.top.0 -= u64::from(stream.kept.pop_back().is_some());
        }
    }

    /// What was published on a channel is too old to be kept.
    pub(super) fn expire(&mut self, channel: &Channel) {
        self.streams.get_mut(channel).expect("something was published").kept.clear();
    }

    /// Places a draft; with what is to be delivered, unless it was placed before.
    pub(super) fn publish(
        &mut self,
        draft: Draft,
    ) -> Result<(Option<Position>, Option<Publication>), Failure> {
        self.reach()?;
        let Some(retention) = draft.retention else {
            return Ok((None, Some(Publication::new(draft, None))));
        };
        let epoch = self.epoch();
        let stream = self.streams.entry(draft.channel.clone()).or_default();
        if let Some(position) = draft.key.as_ref().and_then(|key| stream.keys.get(key)) {
            return Ok((Some(*position), None));
        }
        stream.top.0 += 1;
        let position = Position { epoch, offset: stream.top };
        if let Some(key) = draft.key.clone() {
            stream.keys.insert(key, position);
        }
        stream.kept.push_back(Arc::new(Publication::new(draft.clone(), Some(position))));
        if stream.kept.len() > retention.size.get() as usize {
            stream.kept.pop_front();
        }
        Ok((Some(position), Some(Publication::new(draft, Some(position)))))
    }

    pub(super) fn join(&mut self, channel: &Channel, terms: &Terms) -> Result<Option<Entry>, Failure> {
        self.reach()?;
        assert!(!self.live.contains(channel), "joined twice");
        let (entry, replay) = if terms.history {
            let (entry, replay) = self.enter(channel, terms.start);
            (Some(entry), replay)
        } else {
            (None, Vec::new())
        };
        assert!(self.entered.insert(channel.clone(), replay).is_none(), "joined twice");
        if terms.wording == Wording::Differences {
            self.chains.insert(channel.clone(), None);
        }
        Ok(entry)
    }

    fn enter(&self, channel: &Channel, start: Start) -> (Entry, Vec<Arc<Publication>>) {
        let query = Query { since: None, limit: usize::MAX, reverse: false };
        let page = self.page(channel, query);
        let position = page.position();
        let after = match start {
            Start::Since(since) if since.epoch == page.epoch || since.is_shown_by(&page.publications) => {
                Some(since.offset)
            }
            Start::Rewind(count) => Some(Offset(page.top.0.saturating_sub(count.into()))),
            Start::Since(_) | Start::Live => None,
        };
        let missed = |after: Offset| page.publications.into_iter().filter(move |it| it.offset() > after);
        let replay: Vec<_> = after.map(|after| missed(after).collect()).unwrap_or_default();
        let recovered = match start {
            Start::Live => false,
            Start::Rewind(_) => true,
            Start::Since(_) => after.is_some_and(|after| after.0 + replay.len() as u64 == position.offset.0),
        };
        (Entry { position, recovered }, if recovered { replay } else { Vec::new() })
    }

    /// Opens the gate; with what is replayed first.
    pub(super) fn go_live(&mut self, channel: &Channel) -> Vec<Arc<Publication>> {
        assert!(self.live.insert(channel.clone()), "live twice");
        self.entered.remove(channel).expect("joined before it is live")
    }

    pub(super) fn leave(&mut self, channel: &Channel) {
        self.entered.remove(channel);
        self.live.remove(channel); // Not there if the broker refused the join.
        self.chains.remove(channel);
        self.told.remove(channel);
        self.counted.remove(channel);
        self.depart(channel, SESSION);
    }

    /// A member has come; as one of the client's connection it may want to be told of others.
    pub(super) fn attend(&mut self, channel: &Channel, member: Member, told: Told) {
        match told {
            Told::Nothing => false,
            Told::Turns => self.told.insert(channel.clone()),
            Told::Count => self.counted.insert(channel.clone()),
        };
        self.crowds.entry(channel.clone()).or_default().push(member);
    }

    pub(super) fn is_counted(&self, channel: &Channel) -> bool {
        self.counted.contains(channel)
    }

    /// The client is told of these whether they are there.
    pub(super) fn look_out(&mut self, acquaintances: Vec<Acquaintance>) {
        self.acquaintances = acquaintances;
    }

    /// Those of the users of whom the client is told.
    pub(super) fn looked_out_for(&self, users: impl Iterator<Item = UserId>) -> Vec<UserId> {
        users.filter(|user| self.acquaintances.iter().any(|it| it.user == *user)).collect()
    }

    /// From now on the client is told of others.
    pub(super) fn heed(&mut self, channel: &Channel) {
        self.told.insert(channel.clone());
    }

    pub(super) fn depart(&mut self, channel: &Channel, session: SessionId) {
        if let Some(crowd) = self.crowds.get_mut(channel) {
            crowd.retain(|member| member.session != session);
        }
    }

    pub(super) fn is_told(&self, channel: &Channel) -> bool {
        self.told.contains(channel)
    }

    pub(super) fn crowd(&self, channel: &Channel, members: bool) -> Result<Arc<Crowd>, Failure> {
        self.reach()?;
        let crowd = self.crowds.get(channel).map_or(&[][..], Vec::as_slice);
        let users: HashSet<_> = crowd
            .iter()
            .map(|it| it.user.clone().map_or_else(|| it.session.to_string(), |it| it.as_str().into()))
            .collect();
        Ok(Arc::new(Crowd {
            users: users.len() as u64,
            connections: crowd.len() as u64,
            members: members.then(|| crowd.to_vec()),
        }))
    }

    /// Where differences are told on a channel, what was told last.
    pub(super) fn chain(&mut self, channel: &Channel) -> Option<&mut Option<Payload>> {
        self.chains.get_mut(channel)
    }

    pub(super) fn is_live(&self, channel: &Channel) -> bool {
        self.live.contains(channel)
    }

    pub(super) fn history(&self, channel: &Channel, query: Query) -> Result<Page, Failure> {
        self.reach()?;
        Ok(self.page(channel, query))
    }

    fn page(&self, channel: &Channel, query: Query) -> Page {
        let Query { since, limit, reverse } = query;
        let Some(stream) = self.streams.get(channel) else {
            return Page { epoch: self.epoch(), top: Offset(0), publications: Vec::new() };
        };
        let kept = stream.kept.iter().cloned();
        let publications = if reverse {
            kept.rev().filter(|it| since.is_none_or(|since| it.offset() < since)).take(limit).collect()
        } else {
            kept.filter(|it| since.is_none_or(|since| it.offset() > since)).take(limit).collect()
        };
        Page { epoch: self.epoch(), top: stream.top, publications }
    }

    fn epoch(&self) -> Epoch {
        Epoch(FIRST_EPOCH + self.flushes)
    }

    fn reach(&self) -> Result<(), Failure> {
        let text = "the broker is away: nothing was done, try again";
        match self.is_away {
            true => Err(Failure::retry(ErrorCode::Unavailable, text, Duration::from_secs(1))),
            false => Ok(()),
        }
    }
}
