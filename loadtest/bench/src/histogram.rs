//! Latencies in buckets a sixty-fourth of their value wide, so that a quantile is at most 1.6 % off.
//!
//! Values below 128 have a bucket each; above, each power of two has 64. Recording is an index and an
//! addition; nothing is allocated after the start.

use std::time::Duration;

const SUB_BUCKETS_LOG2: u32 = 6;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKETS_LOG2;

/// A histogram of durations, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], count: 0, max_nanos: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.count += 1;
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// The value that `fraction` (0 to 1) of all values do not exceed; zero when there are none.
    pub(crate) fn quantile(&self, fraction: f64) -> Duration {
        let rank = (self.count as f64 * fraction).ceil().max(1.0) as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_nanos(upper_bound(index).min(self.max_nanos));
            }
        }
        self.max()
    }

    /// The largest value, exactly.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BUCKETS_LOG2 + 1);
    (u64::from(shift) * SUB_BUCKETS + (nanos >> shift)) as usize
}

fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * SUB_BUCKETS {
        return index;
    }
    let shift = index / SUB_BUCKETS - 1;
    let first = (index - shift * SUB_BUCKETS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket() {
        let values = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) + 1, (1 << bit) - 1, 3 << bit]);
        for value in values.chain([u64::MAX, 1_000_000, 999]) {
            let upper = upper_bound(bucket(value));
            assert!(upper >= value && upper - value <= value / SUB_BUCKETS, "{value} is counted as {upper}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        let mut values: Vec<u64> = (0..10_000).map(|index| (index * 7919) % 1_000_003).collect();
        values.iter().for_each(|&value| histogram.record(value));
        values.sort_unstable();
        for fraction in [0.001, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = values[(values.len() as f64 * fraction).ceil() as usize - 1];
            let told = histogram.quantile(fraction).as_nanos() as u64;
            assert!(told >= exact && told - exact <= exact / SUB_BUCKETS, "{fraction}: {told}, not {exact}");
        }
        assert_eq!(histogram.max(), Duration::from_nanos(*values.last().unwrap()));
    }

    #[test]
    fn without_values_everything_is_zero() {
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
    }
}
