//! How often clients do something: a token bucket for each of many keys, in a table that never grows.
//!
//! A bucket that has been full for a while says nothing, so its place is free for another. A key belongs to one set of
//! [`WAYS`] places; when all of them are taken, the one that owes least gives way. So whoever comes from more addresses at once
//! than the table holds makes it forget, and some of them get a burst that is not theirs: that is what the rate of the whole
//! node is for. The table is made when the first rate is configured.

use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::Duration;

use fanfare_protocol::session::Bucket;
use fanfare_protocol::time::Moment;
use parking_lot::Mutex;

use crate::config::Pace;

/// Sets of places: with [`WAYS`] they hold 32,768 keys in 0.8 MiB.
const SETS: usize = 4096;

/// Places of one set.
const WAYS: usize = 8;

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(super) struct Paces(OnceLock<Box<[Mutex<[Place; WAYS]>]>>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// None for one that was never used.
    key: Option<NonZeroU64>,
    bucket: Bucket,
}

impl Paces {
    /// Takes one of what a key may do.
    ///
    /// # Errors
    /// How long until one more may be taken.
    pub(super) fn take(&self, key: NonZeroU64, pace: Pace, now: Moment) -> Result<(), Duration> {
        let sets = self.0.get_or_init(|| (0..SETS).map(|_| Mutex::default()).collect());
        let mut set = sets[key.get() as usize % SETS].lock();
        let mine = set.iter().position(|place| place.key == Some(key)).unwrap_or_else(|| {
            let (least, _) = set.iter().enumerate().min_by_key(|(_, it)| it.bucket.full_at()).expect("ways");
            set[least] = Place { key: Some(key), bucket: Bucket::default() };
            least
        });
        set[mine].bucket.take(pace.per_second, pace.burst, now)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const PACE: Pace = Pace { per_second: NonZeroU32::new(1).unwrap(), burst: NonZeroU32::new(2).unwrap() };

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn key(key: u64) -> NonZeroU64 {
        NonZeroU64::new(key).unwrap()
    }

    #[test]
    fn keys_have_a_bucket_each() {
        let paces = Paces::default();
        assert_eq!([paces.take(key(1), PACE, at(9)), paces.take(key(1), PACE, at(9))], [Ok(()), Ok(())]);
        assert_eq!(paces.take(key(1), PACE, at(9)), Err(Duration::from_secs(1)));
        assert_eq!(paces.take(key(2), PACE, at(9)), Ok(()));
        assert_eq!(paces.take(key(1), PACE, at(10)), Ok(()));
        assert_eq!(paces.take(key(1), PACE, at(10)), Err(Duration::from_secs(1)));
    }

    /// What owes most is remembered longest, and the number of keys changes nothing about the size.
    #[test]
    fn a_million_keys_take_no_more_room_than_one_and_push_out_no_debtor() {
        let paces = Paces::default();
        let debtor = key(7);
        while paces.take(debtor, PACE, at(9)).is_ok() {}
        for other in 0..1_000_000 {
            let other = key(1_000 + other);
            assert_eq!(paces.take(other, PACE, at(9)), Ok(()));
        }
        assert!(paces.take(debtor, PACE, at(9)).is_err(), "it owes two, the others one");
        assert_eq!(paces.0.get().unwrap().len() * WAYS, 32_768);
        assert!(size_of::<Mutex<[Place; WAYS]>>() * SETS <= 800 * 1024);
    }
}
