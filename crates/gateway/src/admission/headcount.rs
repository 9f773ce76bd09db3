//! How many connections each user has: exact for those of this node, and for the others' as these have told it.
//!
//! ```text
//!  here: enter, leave ─► changed ─► shares ─► (every node) elsewhere ◄─ bound of a user
//! ```
//!
//! A node tells what has changed a few times a second, and at each beat one shard of all it has, so that whatever was lost on the
//! way is mended in [`SHARDS`] beats. A node that falls silent is forgotten with all its users. In between the sum is off by
//! what is on its way: a user who connects to several nodes within the same moment may get a place on each.
//!
//! **Invariants.** Counts are told as they are, never as differences: a share may be lost, doubled or late and does no lasting
//! harm. What a node keeps of the others is as long as what they have open.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::tally::{ByKey, Counts, SHARDS, Tally};

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(crate) struct Headcount {
    here: Tally,
    /// Whose count here is another than was told.
    changed: Mutex<HashSet<NonZeroU64, ByKey>>,
    /// Whether changes are noted, since others are told of them.
    is_noted: AtomicBool,
    elsewhere: RwLock<HashMap<u64, Node>>,
}

/// Another node.
#[derive(Debug)]
struct Node {
    life: u64,
    heard: Instant,
    counts: Counts,
}

/// What a node tells the others.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Share {
    /// The node, by a number that it has drawn.
    pub(crate) from: u64,
    /// Another number each time the node may have missed what others told: all is told anew, by it and to it.
    pub(crate) life: u64,
    /// All users of this shard follow. None: those that have changed.
    pub(crate) shard: Option<u8>,
    /// Users, and how many connections they have there now.
    pub(crate) counts: Vec<(NonZeroU64, u32)>,
}

impl Headcount {
    /// One more connection of a user, unless there are `most`.
    pub(super) fn enter(&self, user: NonZeroU64, most: u32) -> Result<(), u32> {
        let elsewhere = self.elsewhere(user);
        let entered = self.here.enter(user, most.saturating_sub(elsewhere));
        entered.map(|_| self.note(user)).map_err(|here| here.saturating_add(elsewhere))
    }

    /// One less.
    pub(super) fn leave(&self, user: NonZeroU64) {
        self.here.leave(user);
        self.note(user);
    }

    fn elsewhere(&self, user: NonZeroU64) -> u32 {
        let nodes = self.elsewhere.read();
        nodes
            .values()
            .filter_map(|node| node.counts.get(&user))
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn note(&self, user: NonZeroU64) {
        if self.is_noted.load(Ordering::Relaxed) {
            self.changed.lock().insert(user);
        }
    }

    /// From here on changes are noted, or no more.
    pub(crate) fn note_changes(&self, is_noted: bool) {
        self.is_noted.store(is_noted, Ordering::Relaxed);
        if !is_noted {
            *self.changed.lock() = HashSet::default();
        }
    }

    /// What has changed since this was last asked.
    pub(crate) fn changes(&self) -> Vec<(NonZeroU64, u32)> {
        let changed = std::mem::take(&mut *self.changed.lock());
        changed.into_iter().map(|user| (user, self.here.count(user))).collect()
    }

    /// All users of a shard.
    pub(crate) fn shard(&self, shard: u8) -> Vec<(NonZeroU64, u32)> {
        self.here.counts(shard)
    }

    /// Takes what another node tells. Whether that node is new here, and so knows nothing of this one.
    pub(crate) fn hear(&self, share: Share, now: Instant) -> bool {
        let Share { from, life, shard, counts } = share;
        let mut nodes = self.elsewhere.write();
        let is_new = nodes.get(&from).is_none_or(|node| node.life != life);
        if is_new {
            nodes.insert(from, Node { life, heard: now, counts: HashMap::default() });
        }
        let node = nodes.get_mut(&from).expect("it is there now");
        node.heard = now;
        if let Some(shard) = shard {
            node.counts.retain(|user, _| Tally::shard_of(*user) != usize::from(shard));
        }
        for (user, count) in counts {
            match count {
                0 => drop(node.counts.remove(&user)),
                some => drop(node.counts.insert(user, some)),
            }
        }
        is_new
    }

    /// Forgets the nodes that have been silent since then.
    pub(crate) fn forget(&self, since: Instant) {
        self.elsewhere.write().retain(|_, node| node.heard > since);
    }
}

/// The shards, to be told one after another.
pub(crate) fn shards() -> impl Iterator<Item = u8> + Clone {
    (0..u8::MAX).take(SHARDS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).unwrap()
    }

    fn share(life: u64, shard: Option<u8>, counts: &[(u64, u32)]) -> Share {
        let counts = counts.iter().map(|(user, count)| (key(*user), *count)).collect();
        Share { from: 7, life, shard, counts }
    }

    #[test]
    fn what_others_tell_counts_against_the_bound_until_they_tell_otherwise() {
        let (headcount, now) = (Headcount::default(), Instant::now());
        headcount.enter(key(1), 2).unwrap();
        assert!(headcount.hear(share(1, None, &[(1, 1), (2, 5)]), now));
        assert_eq!(headcount.enter(key(1), 2), Err(2));
        assert_eq!(headcount.enter(key(2), 2), Err(5));
        // Doubled, it changes nothing.
        assert!(!headcount.hear(share(1, None, &[(1, 1)]), now));
        assert_eq!(headcount.enter(key(1), 3), Ok(()));
        headcount.leave(key(1));
        assert!(!headcount.hear(share(1, None, &[(1, 0)]), now));
        assert_eq!(headcount.enter(key(1), 2), Ok(()));
    }

    /// A share of changes was lost: the next of the whole shard mends it.
    #[test]
    fn a_shard_takes_away_whoever_is_not_in_it() {
        let (headcount, now) = (Headcount::default(), Instant::now());
        let other = (1_u64 << 32) + 1; // Of another shard.
        headcount.hear(share(1, None, &[(1, 1), (2, 1), (other, 1)]), now);
        headcount.hear(share(1, Some(0), &[(2, 1)]), now);
        let elsewhere = [1, 2, other].map(|user| headcount.elsewhere(key(user)));
        assert_eq!(elsewhere, [0, 1, 1]);
    }

    #[test]
    fn who_falls_silent_or_begins_anew_is_forgotten() {
        let (headcount, now) = (Headcount::default(), Instant::now());
        headcount.hear(share(1, None, &[(1, 1)]), now);
        headcount.forget(now - Duration::from_secs(1));
        assert_eq!(headcount.elsewhere(key(1)), 1);
        assert!(headcount.hear(share(2, None, &[(2, 1)]), now), "it knows nothing of us");
        assert_eq!((headcount.elsewhere(key(1)), headcount.elsewhere(key(2))), (0, 1));
        headcount.forget(now);
        assert_eq!(headcount.elsewhere(key(2)), 0);
    }

    #[test]
    fn changes_are_told_once_and_as_they_are() {
        let headcount = Headcount::default();
        headcount.enter(key(1), 9).unwrap();
        assert_eq!(headcount.changes(), [], "nobody is told");
        headcount.note_changes(true);
        headcount.enter(key(1), 9).unwrap();
        headcount.enter(key(2), 9).unwrap();
        headcount.leave(key(2));
        let mut changes = headcount.changes();
        changes.sort_unstable();
        assert_eq!(changes, [(key(1), 2), (key(2), 0)]);
        assert_eq!(headcount.changes(), []);
        assert_eq!(headcount.shard(0), [(key(1), 2)]);
        headcount.leave(key(1));
        headcount.note_changes(false);
        assert_eq!(headcount.changes(), []);
    }
}
