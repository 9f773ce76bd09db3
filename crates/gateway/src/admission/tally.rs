//! How many are open under each of many keys: exact, and no larger than what is open.
//!
//! A key is 64 bits of a hash, so that it costs the same for an IPv6 network and for a long name, and nobody can find one
//! that collides with another's. A key that nothing is open under is not there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hasher;
use std::num::NonZeroU64;

use parking_lot::Mutex;

/// Enough that threads which let clients in seldom meet.
pub(super) const SHARDS: usize = 16;

/// A map is shrunk when it could hold so many times what it holds.
const SPARSE: usize = 8;

/// See the [module's note](self).
#[derive(Debug, Default)]
pub(super) struct Tally([Mutex<Counts>; SHARDS]);

pub(super) type Counts = HashMap<NonZeroU64, u32, ByKey>;

impl Tally {
    /// One more under a key, unless there are `most`: then how many there are. Otherwise how many there were.
    pub(super) fn enter(&self, key: NonZeroU64, most: u32) -> Result<u32, u32> {
        match self.shard(key).lock().entry(key) {
            Entry::Occupied(mut open) if *open.get() < most => {
                *open.get_mut() += 1;
                Ok(*open.get() - 1)
            }
            Entry::Occupied(open) => Err(*open.get()),
            Entry::Vacant(_) if most == 0 => Err(0),
            Entry::Vacant(first) => {
                first.insert(1);
                Ok(0)
            }
        }
    }

    /// One less.
    pub(super) fn leave(&self, key: NonZeroU64) {
        let mut counts = self.shard(key).lock();
        let Entry::Occupied(mut open) = counts.entry(key) else { unreachable!("who leaves has entered") };
        *open.get_mut() -= 1;
        if *open.get() == 0 {
            open.remove();
            let (used, room) = (counts.len(), counts.capacity());
            if room > 64 && used < room / SPARSE {
                counts.shrink_to(used * 2);
            }
        }
    }

    /// How many are open under a key.
    pub(super) fn count(&self, key: NonZeroU64) -> u32 {
        self.shard(key).lock().get(&key).copied().unwrap_or(0)
    }

    /// All that is open in one of [`SHARDS`].
    pub(super) fn counts(&self, shard: u8) -> Vec<(NonZeroU64, u32)> {
        self.0[usize::from(shard)].lock().iter().map(|(key, count)| (*key, *count)).collect()
    }

    /// The shard that a key is in.
    pub(super) fn shard_of(key: NonZeroU64) -> usize {
        // The map takes the low bits, and the high seven.
        (key.get() >> 32) as usize % SHARDS
    }

    fn shard(&self, key: NonZeroU64) -> &Mutex<Counts> {
        &self.0[Self::shard_of(key)]
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().capacity()).sum()
    }
}

/// Finds a key where it says.
#[expect(clippy::disallowed_types, reason = "keys are hashes, keyed or of names that somebody has signed")]
pub(super) type ByKey = std::hash::BuildHasherDefault<AsItIs>;

/// A hash that was one already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash};

    use super::*;

    fn key(of: u32) -> NonZeroU64 {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        NonZeroU64::new(hasher.finish()).unwrap()
    }

    #[test]
    fn each_key_is_counted_by_itself_and_to_the_unit() {
        let tally = Tally::default();
        assert_eq!([tally.enter(key(1), 2), tally.enter(key(1), 2)], [Ok(0), Ok(1)]);
        assert_eq!(tally.enter(key(1), 2), Err(2));
        assert_eq!(tally.enter(key(2), 2), Ok(0));
        assert_eq!(tally.enter(key(1), 3), Ok(2), "a raised bound has room");
        tally.leave(key(1));
        assert_eq!(tally.enter(key(1), 2), Err(2), "as many as there may be");
        tally.leave(key(1));
        assert_eq!(tally.enter(key(1), 2), Ok(1));
        assert_eq!(tally.enter(key(3), 0), Err(0));
    }

    #[test]
    fn what_was_open_leaves_nothing_behind() {
        let tally = Tally::default();
        for round in 0..3 {
            (0..50_000).for_each(|it| assert_eq!(tally.enter(key(it), 1), Ok(0), "{round}"));
            assert!(tally.capacity() >= 50_000);
            (0..50_000).for_each(|it| tally.leave(key(it)));
            assert!(tally.capacity() < 5_000, "{}", tally.capacity());
        }
    }
}
