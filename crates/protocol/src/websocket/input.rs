//! The bytes of one read, and whatever they completed.

use std::fmt;
use std::ops::Range;

use super::Violation;
use super::assembly::{Body, SplitControl};
use super::deflate::{Inflater, Window};

/// A cursor over bytes just read from a socket, which the decoder unmasks in place.
///
/// Ask [`Decoder::next`](super::Decoder::next) until it answers `None` before dropping an input: bytes not consumed
/// are lost to the decoder. A message completed by these bytes but begun by earlier ones is kept here while its event
/// is looked at, and freed by the next call or with the input.
pub struct Input<'b> {
    bytes: &'b mut [u8],
    at: usize,
    pub(super) finished: Option<Finished>,
    inflation: Option<Inflation<'b>>,
}

/// What it takes to inflate.
struct Inflation<'b> {
    inflater: &'b mut Inflater,
    window: Option<&'b mut Window>,
    saved_bytes: usize,
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
        Self { bytes, at: 0, finished: None, inflation: None }
    }

    /// The same on a connection that has agreed on compression; with a window where messages refer to each other.
    pub fn inflating(
        bytes: &'b mut [u8],
        inflater: &'b mut Inflater,
        window: Option<&'b mut Window>,
    ) -> Self {
        Self { inflation: Some(Inflation { inflater, window, saved_bytes: 0 }), ..Self::new(bytes) }
    }

    /// By how many bytes the messages so far were shorter than what they came to.
    #[must_use]
    pub fn saved_bytes(&self) -> usize {
        self.inflation.as_ref().map_or(0, |inflation| inflation.saved_bytes)
    }

    /// Whether every byte has been consumed. An event may still be due: [`Decoder::next`](super::Decoder::next) knows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What has not been consumed: for who stops before [`Decoder::next`](super::Decoder::next) answers `None`, the beginning
    /// of the next input.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
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

    /// Inflates a whole message: the one in this range, or the one that was assembled. What it comes to is in
    /// [`Input::inflated`].
    pub(super) fn inflate(&mut self, range: Option<Range<usize>>, bytes_max: usize) -> Result<(), Violation> {
        let deflated = match (range, &self.finished) {
            (Some(range), _) => &self.bytes[range],
            (None, Some(Finished::Body(Body::Compressed(_, bytes)))) => bytes,
            (None, _) => unreachable!("something compressed has been finished"),
        };
        let inflation =
            self.inflation.as_mut().expect("compression is agreed on with an input that inflates");
        let window = inflation.window.as_deref_mut();
        let inflated = inflation.inflater.inflate(deflated, window, bytes_max)?;
        inflation.saved_bytes += inflated.len().saturating_sub(deflated.len());
        self.finished = None;
        Ok(())
    }

    /// The message that was inflated last.
    pub(super) fn inflated(&self) -> &[u8] {
        self.inflation.as_ref().map_or(&[], |inflation| inflation.inflater.inflated())
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
