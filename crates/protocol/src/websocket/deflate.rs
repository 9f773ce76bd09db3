//! permessage-deflate (RFC 7692): messages through DEFLATE, with memory that belongs to threads and not to connections.
//!
//! A compressor's state is some 300 KB and an inflater's 40, so no connection owns either. A message is compressed, or
//! inflated, whole and in one call, by a state that the thread keeps for everybody and that is reset before each.
//!
//! - **Without context takeover**, which is what is agreed unless configured otherwise, that is all: the compressed bytes
//!   of a publication do not depend on who gets them, so one compression serves every connection of the same [`Shape`].
//! - **With context takeover** a message may refer to those before it. What a peer remembers of them is the end of
//!   their text, at most a [`Window`]; it is given to the thread's state as a dictionary. So such a connection costs a
//!   window each way, from its first compressed message on, instead of a compressor and an inflater.
//!
//! # Invariants
//!
//! 1. **Nothing is inflated beyond the bound on messages**, however little was sent: a bomb costs the bound, once, in
//!    the thread's scratch.
//! 2. **What is inflated ends where its message ends**, at the boundary of a block; a stream cut short is a violation.
//! 3. **A compressed frame is smaller than the plain one**; what does not shrink is sent as it is.

use std::cell::RefCell;
use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Frame, Violation};

/// The least bits of a window, as an exponent of 2. RFC 7692 also knows 8, which no DEFLATE library here can compress
/// with: whoever insists on it is answered without compression.
pub const WINDOW_BITS_MIN: u8 = 9;

/// The most bits of a window.
pub const WINDOW_BITS_MAX: u8 = 15;

/// How many windows there are to agree on.
pub(crate) const WINDOWS: usize = (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize;

/// What a flush leaves at the end of a message, which is not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The same, and an empty last block: a whole message is followed by the end of the stream.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

/// How many blocks of one message may claim to be the last. RFC 7692 (7.2.3.4) allows it to who cannot flush otherwise, and
/// each costs a reset.
const LAST_BLOCKS_MAX: usize = 8;

/// What an inflater's scratch may keep from one message to the next, in bytes.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

/// How messages are compressed for everybody who agreed to the same: see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The window, as an exponent of 2, from [`WINDOW_BITS_MIN`] to [`WINDOW_BITS_MAX`].
    pub window_bits: u8,
    /// The effort, from 1 to 9.
    pub level: u8,
    /// Payloads of fewer bytes are not compressed.
    pub threshold_bytes: u32,
}

impl Shape {
    /// The place of its window among [`WINDOWS`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.window_bits - WINDOW_BITS_MIN)
    }

    /// Whether a message is long enough for it.
    pub(crate) fn is_for(self, frame: &Frame) -> bool {
        frame.payload().len() >= self.threshold_bytes as usize
    }
}

thread_local! {
    /// Scratch, and nothing else: what comes out depends on the arguments alone.
    static DEFLATERS: RefCell<[Option<Deflater>; WINDOWS]> = const { RefCell::new([const { None }; WINDOWS]) };
}

/// A compressor, reset before each message.
struct Deflater {
    zlib: Compress,
    level: u8,
}

/// The frame of a message, compressed; `None` when it stays as it is: a control frame, compressed already, below the
/// threshold, or no smaller. With a window it refers to the messages before it, and joins them.
pub(super) fn deflate(frame: &Frame, shape: Shape, window: Option<&mut Window>) -> Option<Frame> {
    let plain = frame.payload();
    if !frame.is_plain_message() || !shape.is_for(frame) {
        return None;
    }
    let deflated = DEFLATERS.with_borrow_mut(|deflaters| {
        let place = &mut deflaters[shape.index()];
        let deflater = match place {
            Some(deflater) if deflater.level == shape.level => deflater,
            _ => place.insert(Deflater::new(shape)),
        };
        frame.deflated_by(|out| deflater.deflate(plain, window.as_deref(), out))
    });
    if deflated.len() >= frame.len() {
        return None;
    }
    if let Some(window) = window {
        window.push(plain);
    }
    Some(deflated)
}

impl Deflater {
    fn new(shape: Shape) -> Self {
        let level = Compression::new(u32::from(shape.level));
        Self { zlib: Compress::new_with_window_bits(level, false, shape.window_bits), level: shape.level }
    }

    /// Appends `plain`, compressed, without what a flush leaves at the end.
    fn deflate(&mut self, plain: &[u8], window: Option<&Window>, out: &mut Vec<u8>) {
        self.zlib.reset();
        if let Some(Window { bytes, .. }) = window
            && !bytes.is_empty()
        {
            self.zlib.set_dictionary(bytes).expect("a raw stream takes a dictionary at its start");
        }
        let mut rest = plain;
        loop {
            let before = self.zlib.total_in();
            self.zlib.compress_vec(rest, out, FlushCompress::Sync).expect("memory is all it needs");
            rest = &rest[taken(before, self.zlib.total_in())..];
            // A flush is complete when it has left room.
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(plain.len() / 4 + 64);
        }
        debug_assert!(out.ends_with(&TAIL), "a flush ends so");
        out.truncate(out.len() - TAIL.len());
    }
}

/// The end of what one side has said in compressed messages, as far as the other remembers it.
///
/// It holds as much as has been said, and at most what was agreed on; at first nothing.
pub struct Window {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Window {
    /// An empty window of 2 to the power of `bits` bytes.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        Self { bytes: Vec::new(), bytes_max: 1 << bits.min(WINDOW_BITS_MAX) }
    }

    /// The memory held, in bytes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn push(&mut self, said: &[u8]) {
        let said = &said[said.len().saturating_sub(self.bytes_max)..];
        let forgotten = (self.bytes.len() + said.len()).saturating_sub(self.bytes_max);
        self.bytes.drain(..forgotten);
        if self.bytes.capacity() < self.bytes.len() + said.len() {
            let capacity = (2 * (self.bytes.len() + said.len())).min(self.bytes_max);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(said);
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Inflates messages, one at a time, whoever they are from. A thread needs one.
pub struct Inflater {
    zlib: Decompress,
    out: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { zlib: Decompress::new(false), out: Vec::new() }
    }
}

impl Inflater {
    /// Inflates a message of up to `bytes_max` bytes, which stays here until the next. With a window it may refer to the
    /// messages before it, and joins them.
    pub(super) fn inflate(
        &mut self,
        deflated: &[u8],
        mut window: Option<&mut Window>,
        bytes_max: usize,
    ) -> Result<&[u8], Violation> {
        self.out.clear();
        self.out.shrink_to(SCRATCH_BYTES_KEPT);
        self.begin(window.as_deref());
        let mut last_blocks = 0;
        let mut rest = self.inflate_piece(deflated, bytes_max)?;
        while let Some(behind) = rest {
            // A block said that it is the last, and is not: what follows goes on where it ended.
            last_blocks += 1;
            if last_blocks > LAST_BLOCKS_MAX || behind.is_empty() {
                return Err(Violation::NotDeflate);
            }
            let mut said = Window::new(WINDOW_BITS_MAX);
            said.push(window.as_deref().map_or(&[], |window| &window.bytes));
            said.push(&self.out);
            self.begin(Some(&said));
            rest = self.inflate_piece(behind, bytes_max)?;
        }
        let said = self.out.len();
        match self.inflate_piece(&END, bytes_max) {
            Ok(Some([])) if self.out.len() == said => {}
            _ => return Err(Violation::NotDeflate),
        }
        if let Some(window) = &mut window {
            window.push(&self.out);
        }
        Ok(&self.out)
    }

    /// The text of the message that was inflated last.
    pub(super) fn inflated(&self) -> &[u8] {
        &self.out
    }

    /// The memory held for what is inflated, in bytes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.out.capacity()
    }

    fn begin(&mut self, window: Option<&Window>) {
        self.zlib.reset(false);
        if let Some(Window { bytes, .. }) = window
            && !bytes.is_empty()
        {
            self.zlib.set_dictionary(bytes).expect("a raw stream takes a dictionary at any time");
        }
    }

    /// Appends what a piece of the stream comes to. What is behind the last block, when that was in it.
    fn inflate_piece<'a>(
        &mut self,
        mut piece: &'a [u8],
        bytes_max: usize,
    ) -> Result<Option<&'a [u8]>, Violation> {
        loop {
            let too_big =
                Violation::InflatedTooBig { bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX) };
            if self.out.len() == self.out.capacity() {
                if self.out.len() > bytes_max {
                    return Err(too_big);
                }
                // One byte over the bound is room enough to see that it is passed.
                let more = self.out.len().max(4 * piece.len()).max(256);
                self.out.reserve_exact(more.min(bytes_max + 1 - self.out.len()));
            }
            let before = self.zlib.total_in();
            let status = self.zlib.decompress_vec(piece, &mut self.out, FlushDecompress::Sync);
            piece = &piece[taken(before, self.zlib.total_in())..];
            if self.out.len() > bytes_max {
                return Err(too_big);
            }
            match status {
                Ok(Status::StreamEnd) => return Ok(Some(piece)),
                // All is taken, and there was room for more than came of it.
                Ok(_) if piece.is_empty() && self.out.len() < self.out.capacity() => return Ok(None),
                Ok(Status::BufError) if self.out.len() < self.out.capacity() => {
                    return Err(Violation::NotDeflate);
                }
                Ok(_) => {}
                Err(_) => return Err(Violation::NotDeflate),
            }
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

fn taken(before: u64, after: u64) -> usize {
    usize::try_from(after - before).expect("no more than a slice has")
}

/// The most bytes that a message of `bytes_max` bytes may have compressed. A compressor that finds nothing to save adds some
/// bytes to each block of at least a few hundred; one that makes it an eighth longer is not at work.
pub(super) fn deflated_bytes_max(bytes_max: u32) -> u64 {
    u64::from(bytes_max) + u64::from(bytes_max) / 8 + 64
}
