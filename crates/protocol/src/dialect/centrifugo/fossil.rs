//! The delta format of Fossil: what makes a payload out of the one before it.
//!
//! ```text
//! 1h\n           the length of what comes of it, in digits of base 64
//! 12@4,          so many bytes of what was before, from there on
//! 5:world        so many bytes as they follow
//! 3jhVTs;        a checksum of what comes of it
//! ```
//!
//! What payloads have in common is mostly their beginning and their end, so these are looked at first. In between blocks of 16 bytes
//! of what was before are found by a hash that rolls over what is now, as the format's inventor does it. A publisher may send
//! whatever it likes, so at each place few blocks are tried, and payloads over [`BYTES_MAX`] are not looked at.
//!
//! A delta of text is text: it cuts no character in two. The format does not ask for that, but in JSON a delta is a string.

use std::ops::Range;

/// The longest two payloads that are compared, together, in bytes: a few hundred microseconds.
const BYTES_MAX: usize = 1 << 18;

/// What is looked for at once, in bytes. A copy that is not longer costs as much as it saves.
const BLOCK: usize = 16;

/// The most places that are tried for one block.
const TRIED_MAX: usize = 4;

/// No block.
const NONE: u32 = u32::MAX;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// Where payloads may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Between characters of UTF-8.
    Text,
    /// Between bytes.
    Bytes,
}

/// What makes `now` out of `before`; `None` where that is not shorter than `now`.
pub(super) fn delta(before: &[u8], now: &[u8], kind: Kind) -> Option<Vec<u8>> {
    if before.len() + now.len() > BYTES_MAX {
        return None;
    }
    let mut delta = Delta { before, now, kind, done: 0, out: Vec::with_capacity(64) };
    delta.number(now.len());
    delta.out.push(b'\n');
    let beginning = common(before.iter(), now.iter());
    delta.copy(0, 0..beginning);
    let (rest_before, rest) = (&before[beginning..], &now[beginning..]);
    let end = common(rest_before.iter().rev(), rest.iter().rev());
    delta.middle(now.len() - end);
    delta.copy(before.len() - end, now.len() - end..now.len());
    delta.literal(now.len());
    delta.number(checksum(now) as usize);
    delta.out.push(b';');
    (delta.out.len() < now.len()).then_some(delta.out)
}

/// How many items are the same.
fn common<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}

/// One being written.
struct Delta<'a> {
    before: &'a [u8],
    now: &'a [u8],
    kind: Kind,
    /// How much of what is now has been written.
    done: usize,
    out: Vec<u8>,
}

impl Delta<'_> {
    /// Finds copies of blocks up to a place.
    fn middle(&mut self, end: usize) {
        if end.saturating_sub(self.done) <= BLOCK || self.before.len() < BLOCK {
            return;
        }
        let blocks = Blocks::of(self.before);
        let mut at = self.done;
        let mut hash = None;
        while at + BLOCK <= end {
            let window = &self.now[at..at + BLOCK];
            let rolled: Rolling = hash.take().unwrap_or_else(|| Rolling::of(window));
            match self.longest(&blocks, rolled, at, end) {
                Some((from, range)) if self.copy(from, range.clone()) => at = range.end.max(at + 1),
                _ => {
                    hash = self.now[..end].get(at + BLOCK).map(|&next| rolled.on(window[0], next));
                    at += 1;
                }
            }
        }
    }

    /// The longest of the copies round a place that are tried: from where, and what it makes.
    fn longest(
        &self,
        blocks: &Blocks,
        hash: Rolling,
        at: usize,
        end: usize,
    ) -> Option<(usize, Range<usize>)> {
        let tried = blocks.candidates(hash).map(|from| {
            let behind = common(self.before[from..].iter(), self.now[at..end].iter());
            let ahead = common(self.before[..from].iter().rev(), self.now[self.done..at].iter().rev());
            (from - ahead, at - ahead..at + behind)
        });
        tried.filter(|(_, range)| range.end >= at + BLOCK).max_by_key(|(_, range)| range.len())
    }

    /// Writes a copy, and before it what has not been written up to there; `false` where it would save nothing.
    fn copy(&mut self, mut from: usize, mut range: Range<usize>) -> bool {
        if self.kind == Kind::Text {
            let is_within = |place: usize| self.now.get(place).is_some_and(|byte| byte & 0xc0 == 0x80);
            let whole = range.clone();
            let start = whole.clone().find(|&place| !is_within(place)).unwrap_or(whole.end);
            let end = (start..=whole.end).rev().find(|&place| !is_within(place)).unwrap_or(start);
            from += start - whole.start;
            range = start..end;
        }
        if range.len() <= BLOCK {
            return false;
        }
        self.literal(range.start);
        self.number(range.len());
        self.out.push(b'@');
        self.number(from);
        self.out.push(b',');
        self.done = range.end;
        true
    }

    /// Writes what has not been written up to a place.
    fn literal(&mut self, end: usize) {
        if end > self.done {
            self.number(end - self.done);
            self.out.push(b':');
            self.out.extend_from_slice(&self.now[self.done..end]);
            self.done = end;
        }
    }

    fn number(&mut self, number: usize) {
        let digits = (0..usize::BITS.div_ceil(6)).rev().map(|digit| number >> (6 * digit));
        let digits = digits.skip_while(|rest| *rest == 0).map(|rest| DIGITS[rest % 64]);
        let begin = self.out.len();
        self.out.extend(digits);
        if self.out.len() == begin {
            self.out.push(DIGITS[0]);
        }
    }
}

/// The blocks of what was before, by their hashes.
struct Blocks {
    /// The last block of each slot.
    last: Vec<u32>,
    /// The one before it in the same slot, for each block.
    earlier: Vec<u32>,
}

impl Blocks {
    fn of(before: &[u8]) -> Self {
        let count = before.len() / BLOCK;
        let mut blocks =
            Self { last: vec![NONE; count.next_power_of_two()], earlier: Vec::with_capacity(count) };
        for (block, number) in before.chunks_exact(BLOCK).zip(0..) {
            let slot = blocks.slot(Rolling::of(block));
            blocks.earlier.push(std::mem::replace(&mut blocks.last[slot], number));
        }
        blocks
    }

    fn slot(&self, hash: Rolling) -> usize {
        hash.mixed() as usize & (self.last.len() - 1)
    }

    /// Where some of the blocks begin that may be it.
    fn candidates(&self, hash: Rolling) -> impl Iterator<Item = usize> {
        let next = |block: &u32| Some(self.earlier[*block as usize]).filter(|it| *it != NONE);
        let first = Some(self.last[self.slot(hash)]).filter(|it| *it != NONE);
        std::iter::successors(first, next).take(TRIED_MAX).map(|block| block as usize * BLOCK)
    }
}

/// A hash of a block's bytes that can be moved on by one.
#[derive(Clone, Copy)]
struct Rolling {
    sum: u16,
    weighted: u16,
}

impl Rolling {
    fn of(block: &[u8]) -> Self {
        let start = Self { sum: 0, weighted: 0 };
        block.iter().fold(start, |Self { sum, weighted }, &byte| {
            let sum = sum.wrapping_add(byte.into());
            Self { sum, weighted: weighted.wrapping_add(sum) }
        })
    }

    /// That of the block which begins a byte later.
    fn on(self, first: u8, next: u8) -> Self {
        let sum = self.sum.wrapping_sub(first.into()).wrapping_add(next.into());
        let gone = u16::from(first).wrapping_mul(BLOCK as u16);
        Self { sum, weighted: self.weighted.wrapping_sub(gone).wrapping_add(sum) }
    }

    fn mixed(self) -> u32 {
        let both = u32::from(self.weighted) << 16 | u32::from(self.sum);
        both.wrapping_mul(0x9e37_79b1) >> 7
    }
}

/// The sum of its words of 32 bits, the highest byte first, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(0, |sum, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        sum.wrapping_add(u32::from_be_bytes(word))
    })
}

#[cfg(test)]
mod tests;
