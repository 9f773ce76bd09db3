//! How numbers are spread: counted in buckets that are 3 % wide, so that any quantile can be told afterwards.

/// Each power of two has as many buckets.
const PARTS: u64 = 32;
const PARTS_BITS: u32 = PARTS.ilog2();

/// The last bucket is for everything beyond 2³⁶: in microseconds, 19 hours.
const BUCKETS: usize = 1024;

/// Counts of numbers.
#[derive(Debug)]
pub(super) struct Spread {
    buckets: Box<[u64; BUCKETS]>,
    max: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), max: 0 }
    }
}

impl Spread {
    /// Counts a number.
    pub(super) fn add(&mut self, number: u64) {
        self.buckets[bucket(number)] += 1;
        self.max = self.max.max(number);
    }

    /// Both together.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.buckets.iter_mut().zip(other.buckets.iter()).for_each(|(count, more)| *count += more);
        self.max = self.max.max(other.max);
        self
    }

    /// The largest.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// A number that this share of all are no larger than, 3 % too large at most; 0 when there are none.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let count: u64 = self.buckets.iter().sum();
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, |at| top(at).min(self.max))
    }
}

fn bucket(number: u64) -> usize {
    let at = if number < PARTS {
        number
    } else {
        let shift = number.ilog2() - PARTS_BITS;
        u64::from(shift) * PARTS + (number >> shift)
    };
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The largest number of a bucket.
fn top(at: usize) -> u64 {
    let at = at as u64;
    if at < 2 * PARTS {
        return at;
    }
    let shift = at / PARTS - 1;
    ((at % PARTS + PARTS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_in_a_bucket_whose_top_is_near_it(number in 0u64..1 << 36) {
            let top = top(bucket(number));
            prop_assert!(top >= number && top - number <= number / PARTS, "{number}: {top}");
        }

        #[test]
        fn a_quantile_is_that_of_the_sorted_numbers(
            mut numbers in prop::collection::vec(0u64..1_000_000, 1..300),
            share in 0.0f64..=1.0,
        ) {
            let (mut one, mut other) = (Spread::default(), Spread::default());
            for (at, number) in numbers.iter().enumerate() {
                if at % 2 == 0 { one.add(*number) } else { other.add(*number) }
            }
            numbers.sort_unstable();
            let rank = ((numbers.len() as f64 * share).ceil() as usize).max(1);
            let (exact, told) = (numbers[rank - 1], one.and(&other).quantile(share));
            prop_assert!(told >= exact && told - exact <= exact / PARTS, "{exact}: {told}");
        }
    }

    #[test]
    fn nothing_has_no_quantiles_and_what_is_beyond_all_bounds_is_counted() {
        let mut spread = Spread::default();
        assert_eq!((spread.quantile(0.5), spread.max()), (0, 0));
        spread.add(u64::MAX);
        assert_eq!(spread.max(), u64::MAX);
        assert!(spread.quantile(1.0) > 1 << 35);
    }
}
