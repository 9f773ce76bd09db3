//! Who hears which channel on this node.
//!
//! Channels are spread over shards by hash; a shard's lock is held to find a channel, a channel's lock to walk or change
//! its subscribers. Both are short and synchronous, and the walk does nothing per subscriber but push shared references
//! into its outbox.
//!
//! A subscription is either *recovering*, its gate closed, or *live*. [`Registry::go_live`] queues the reply that tells
//! the client it is subscribed and opens the gate under the channel's lock, so the reply comes before the first
//! publication and nothing falls in between.
//!
//! **Invariants.**
//! - A channel is in the registry if and only if it has a subscriber (recovering ones included).
//! - Publications delivered by one task reach each outbox in the order they were delivered.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;

use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Publication};
use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::outbox::{Full, Outbox, SubscriberId};

/// A power of two well over the number of cores, so that two of them seldom want the same shard.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Registry {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

type Shard = Mutex<HashMap<Channel, Arc<Subscribers>>>;

/// The subscribers of one channel.
#[derive(Debug, Default)]
struct Subscribers(Mutex<Crowd>);

#[derive(Debug, Default)]
struct Crowd {
    /// Dense, so that the walk is one; by id, so that leaving is cheap even for ten thousand at once.
    members: IndexMap<SubscriberId, Member>,
    /// The last member has left and the channel is out of its shard: whoever still holds it looks again.
    deserted: bool,
}

#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    gate: Gate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Joined; nothing is delivered yet.
    Recovering,
    Live,
}

/// What a walk came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// The live subscribers.
    pub(crate) receivers: u64,
    /// By how much their outboxes grew in all, less what was thrown away by those that overflowed.
    pub(crate) grown_bytes: i64,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Adds a subscriber, its gate closed; `false` when it had joined before. Also says whether it is the first.
    pub(crate) fn join(&self, channel: &Channel, outbox: &Arc<Outbox>) -> Joined {
        loop {
            let subscribers = self.shard(channel).lock().entry(channel.clone()).or_default().clone();
            let mut crowd = subscribers.0.lock();
            if crowd.deserted {
                continue;
            }
            let first = crowd.members.is_empty();
            let indexmap::map::Entry::Vacant(place) = crowd.members.entry(outbox.id()) else {
                return Joined::Already;
            };
            place.insert(Member { outbox: outbox.clone(), gate: Gate::Recovering });
            return if first { Joined::First } else { Joined::Another };
        }
    }

    /// Queues `reply` for a subscriber and opens its gate, in one step; `None` when it has left meanwhile.
    pub(crate) fn go_live(
        &self,
        channel: &Channel,
        id: SubscriberId,
        reply: Frame,
    ) -> Option<Result<usize, Full>> {
        let subscribers = self.find(channel)?;
        let mut crowd = subscribers.0.lock();
        let member = crowd.members.get_mut(&id)?;
        let queued = member.outbox.push(reply);
        member.gate = Gate::Live;
        Some(queued)
    }

    /// Removes a subscriber. From the return on nothing of this channel is queued for it.
    pub(crate) fn leave(&self, channel: &Channel, id: SubscriberId) -> Left {
        let Some(subscribers) = self.find(channel) else { return Left::WasNotThere };
        let mut crowd = subscribers.0.lock();
        if crowd.members.swap_remove(&id).is_none() {
            return Left::WasNotThere;
        }
        if !crowd.members.is_empty() {
            crowd.shrink();
            return Left::Another;
        }
        crowd.deserted = true;
        drop(crowd);
        if let Entry::Occupied(entry) = self.shard(channel).lock().entry(channel.clone())
            && Arc::ptr_eq(entry.get(), &subscribers)
        {
            entry.remove();
        }
        Left::Last
    }

    /// Queues publications of one channel, in order, for all its live subscribers.
    pub(crate) fn deliver(&self, channel: &Channel, publications: &[Arc<Publication>]) -> Delivered {
        debug_assert!(publications.iter().all(|publication| publication.channel == *channel));
        let mut delivered = Delivered::default();
        let Some(subscribers) = self.find(channel) else { return delivered };
        for member in subscribers.0.lock().members.values() {
            if member.gate == Gate::Live {
                delivered.receivers += 1;
                delivered.grown_bytes += member.outbox.offer(publications);
            }
        }
        delivered
    }

    fn find(&self, channel: &Channel) -> Option<Arc<Subscribers>> {
        self.shard(channel).lock().get(channel).cloned()
    }

    fn shard(&self, channel: &Channel) -> &Shard {
        let hash =
            usize::try_from(self.hasher.hash_one(channel) % SHARDS as u64).expect("less than the shards");
        &self.shards[hash]
    }
}

impl Crowd {
    /// Gives memory back after a crowd has dispersed.
    fn shrink(&mut self) {
        if self.members.capacity() > 64 && self.members.len() * 4 < self.members.capacity() {
            self.members.shrink_to(self.members.len() * 2);
        }
    }
}

/// What joining came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The channel is new here.
    First,
    /// Others hear it too.
    Another,
    /// This subscriber had joined before.
    Already,
}

/// What leaving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nobody hears the channel here any more.
    Last,
    /// Others still do.
    Another,
    /// It had not joined, or has left before.
    WasNotThere,
}

#[cfg(test)]
mod tests;
