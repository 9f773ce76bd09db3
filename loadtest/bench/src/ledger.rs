//! What one subscriber has heard of one stream: proves that nothing is lost, doubled or out of order.
//!
//! A stream's publications are numbered 1, 2, 3, …. The ledger keeps the next number it expects and, as
//! ranges, those below it that it has not heard. Anything heard is then exactly one of four things, see
//! [`Entry`]; what is still missing when the run is over is lost.

use std::ops::Range;

/// How a sequence number relates to those heard before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The one expected.
    Next,
    /// Further on than expected: those in between are missing, for now.
    Ahead,
    /// One that was missing: it came, but after a later one.
    Late,
    /// Heard before.
    Doubled,
}

/// One subscriber's record of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    next: u64,
    /// Ascending, disjoint, none empty, all below `next`.
    missing: Vec<Range<u64>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { next: 1, missing: Vec::new() }
    }
}

impl Ledger {
    /// Enters a publication that was heard.
    #[inline]
    pub(crate) fn enter(&mut self, sequence: u64) -> Entry {
        if sequence == self.next {
            self.next += 1;
            return Entry::Next;
        }
        if sequence > self.next {
            self.missing.push(self.next..sequence);
            self.next = sequence + 1;
            return Entry::Ahead;
        }
        self.fill(sequence)
    }

    /// How many of the stream's first `published` publications were never heard.
    pub(crate) fn lost(&self, published: u64) -> u64 {
        let within: u64 = self.missing.iter().map(|range| range.end - range.start).sum();
        within + (published + 1).saturating_sub(self.next)
    }

    #[cold]
    fn fill(&mut self, sequence: u64) -> Entry {
        let Some(at) = self.missing.iter().position(|range| range.contains(&sequence)) else {
            return Entry::Doubled;
        };
        let range = self.missing[at].clone();
        let rest = [range.start..sequence, sequence + 1..range.end];
        self.missing.splice(at..=at, rest.into_iter().filter(|range| !range.is_empty()));
        Entry::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enters `heard`; returns the number late, doubled, and lost of five published.
    fn verdict(heard: &[u64]) -> (usize, usize, u64) {
        let mut ledger = Ledger::default();
        let entries: Vec<_> = heard.iter().map(|&sequence| ledger.enter(sequence)).collect();
        let count = |wanted| entries.iter().filter(|&&entry| entry == wanted).count();
        (count(Entry::Late), count(Entry::Doubled), ledger.lost(5))
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        for (heard, expected) in [
            (&[1, 2, 3, 4, 5][..], (0, 0, 0)),
            (&[], (0, 0, 5)),
            (&[1, 2, 3], (0, 0, 2)),
            (&[1, 2, 4, 5], (0, 0, 1)),
            (&[5], (0, 0, 4)),
            (&[1, 2, 2, 3, 4, 5], (0, 1, 0)),
            (&[1, 2, 3, 4, 5, 1], (0, 1, 0)),
            (&[1, 3, 2, 4, 5], (1, 0, 0)),
            (&[5, 4, 3, 2, 1], (4, 0, 0)),
            (&[5, 3, 3, 1], (2, 1, 2)),
        ] {
            assert_eq!(verdict(heard), expected, "{heard:?}");
        }
    }

    /// Whatever is dropped, repeated and swapped, the ledger's counts are those of the plain definition.
    #[test]
    fn the_ledger_agrees_with_a_set() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let published = 60;
            let mut heard: Vec<u64> = (1..=published).filter(|_| random.u8(..) > 40).collect();
            for _ in 0..random.usize(..10) {
                let (from, to) = (random.usize(..heard.len()), random.usize(..heard.len()));
                heard.insert(to, heard[from]);
                let (one, other) = (random.usize(..heard.len()), random.usize(..heard.len()));
                heard.swap(one, other);
            }
            let mut ledger = Ledger::default();
            let mut seen = std::collections::BTreeSet::new();
            for &sequence in &heard {
                let highest = seen.last().copied().unwrap_or(0);
                let expected = match (seen.insert(sequence), sequence) {
                    (false, _) => Entry::Doubled,
                    (true, it) if it < highest => Entry::Late,
                    (true, it) if it == highest + 1 => Entry::Next,
                    (true, _) => Entry::Ahead,
                };
                assert_eq!(ledger.enter(sequence), expected, "seed {seed}");
            }
            assert_eq!(ledger.lost(published), published - seen.len() as u64, "seed {seed}");
        }
    }
}
