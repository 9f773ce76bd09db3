//! The bytes of one read, and whatever they completed.

use std::fmt;
use std::ops::Range;

use super::assembly::{Body, SplitControl};

/// A cursor over bytes just read from a socket, which the decoder unmasks in place.
///
/// Ask [`Decoder::next`](super::Decoder::next) until it answers `None` before dropping an input: bytes not consumed
/// are lost to the decoder. A message completed by these bytes but begun by earlier ones is kept here while its event
/// is looked at, and freed by the next call or with the input.
pub struct Input<'b> {
    bytes: &'b mut [u8],
    at: usize,
    pub(super) finished: Option<Finished>,
}

/// What the decoder assembled and has let go of.
#[derive(Debug)]
pub(super) enum Finished {
    Body(Body),
    Control(Box<SplitControl>),
}

impl<'b> Input<'b> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, at: 0, finished: None }
    }

    /// Whether every byte has been consumed. An event may still be due: [`Decoder::next`](super::Decoder::next) knows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What has not been consumed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Consumes up to `bytes_max` bytes and says where they are.
    pub(super) fn take(&mut self, bytes_max: usize) -> Range<usize> {
        let start = self.at;
        self.at += bytes_max.min(self.bytes.len() - start);
        start..self.at
    }

    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    pub(super) fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("bytes", &self.bytes.len())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
