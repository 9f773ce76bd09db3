//! What is half received: a message in pieces, or a control frame cut by a read.

use super::header::{Control, Kind, Packing};
use super::utf8::{NotUtf8, Tail};
use super::{CONTROL_BYTES_MAX, Violation};

/// How many fragments of one message may carry nothing. They cost a sender six bytes and bring a message no nearer to
/// its end, so only their number bounds them; every other fragment is bounded by the size of the message.
pub(super) const EMPTY_FRAGMENTS_MAX: u16 = 1024;

/// A message of which some payload or a whole fragment, perhaps empty, has been received.
///
/// Text is kept as a `String` and a tail of at most three bytes, so that every byte is validated once, on arrival.
#[derive(Debug)]
pub(super) struct Assembly {
    body: Body,
    /// Always empty in a binary or compressed message.
    tail: Tail,
    empty_fragments: u16,
}

/// The payload of a message.
#[derive(Debug)]
pub(super) enum Body {
    Text(String),
    Binary(Vec<u8>),
    /// As it came: what it is will be seen when it is inflated.
    Compressed(Kind, Vec<u8>),
}

impl Assembly {
    /// A message with nothing in it.
    pub(super) fn new(kind: Kind, packing: Packing) -> Self {
        let body = match (kind, packing) {
            (kind, Packing::Deflated) => Body::Compressed(kind, Vec::new()),
            (Kind::Text, Packing::Plain) => Body::Text(String::new()),
            (Kind::Binary, Packing::Plain) => Body::Binary(Vec::new()),
        };
        Self { body, tail: Tail::default(), empty_fragments: 0 }
    }

    /// How much has been received, in bytes.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len() + self.tail.len(),
            Body::Binary(bytes) | Body::Compressed(_, bytes) => bytes.len(),
        }
    }

    /// Whether it has to be inflated.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.body, Body::Compressed(..))
    }

    /// Appends a piece of payload. The message as a whole may come to `bytes_max` bytes, as far as is known now.
    pub(super) fn push(&mut self, piece: &[u8], bytes_max: usize) -> Result<(), Violation> {
        let len = self.len() + piece.len();
        debug_assert!(len <= bytes_max, "the bound was checked when the frame was announced");
        match &mut self.body {
            Body::Text(text) => {
                if len > text.capacity() {
                    text.reserve_exact(capacity_for(len, bytes_max) - text.len());
                }
                self.tail.push(text, piece).map_err(|NotUtf8| Violation::text_not_utf8(text.len()))
            }
            Body::Binary(bytes) | Body::Compressed(_, bytes) => {
                if len > bytes.capacity() {
                    bytes.reserve_exact(capacity_for(len, bytes_max) - bytes.len());
                }
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The memory held for the message, in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.capacity(),
            Body::Binary(bytes) | Body::Compressed(_, bytes) => bytes.capacity(),
        }
    }

    /// Counts a fragment that carried nothing and was not the last.
    pub(super) fn count_empty_fragment(&mut self) -> Result<(), Violation> {
        if self.empty_fragments == EMPTY_FRAGMENTS_MAX {
            return Err(Violation::TooManyEmptyFragments);
        }
        self.empty_fragments += 1;
        Ok(())
    }

    /// The whole message, when its last byte has been received.
    pub(super) fn finish(self) -> Result<Body, Violation> {
        match &self.body {
            Body::Text(text) if self.tail.len() > 0 => Err(Violation::text_not_utf8(text.len())),
            Body::Text(_) | Body::Binary(_) | Body::Compressed(..) => Ok(self.body),
        }
    }
}

/// Room for `len` bytes and as many again, so that growing costs a constant per byte, but no more than can come.
fn capacity_for(len: usize, bytes_max: usize) -> usize {
    len.saturating_mul(2).min(bytes_max).max(len)
}

/// A Ping, Pong or Close of which only a part came with one read.
#[derive(Debug)]
pub(super) struct SplitControl {
    pub(super) op: Control,
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl SplitControl {
    pub(super) fn new(op: Control) -> Self {
        Self { op, bytes: [0; CONTROL_BYTES_MAX], len: 0 }
    }

    /// Appends a piece of payload; all pieces together are at most [`CONTROL_BYTES_MAX`] bytes.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let start = usize::from(self.len);
        let end = start + piece.len();
        self.bytes[start..end].copy_from_slice(piece);
        self.len = u8::try_from(end).expect("at most 125, or the line above would not have fitted");
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
