//! Writing to an idle connection's socket past its task.

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use fanfare_metrics::Metrics;
use fanfare_protocol::time::UnixMicros;

use super::{Batch, Outbox, Phase, Sheaf, Socket, Wants, signed, taken, wake};

/// The most that is put in a row for one write. More is worth a gathered write, which is the task's.
const ROW_BYTES: usize = 16 * 1024;

/// A writer that sleeps, and has something to write.
#[derive(Debug)]
pub(crate) enum Asleep {
    /// Its task is to be woken.
    Task(Waker),
    /// This is to be written past its task, before what has come since.
    Claimed(Claim, Arc<Sheaf>),
}

impl Asleep {
    /// Sees to it that all is written: now, or by the task.
    pub(crate) fn see_to(self, row: &mut Row, metrics: &Metrics, now: fn() -> UnixMicros) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Claimed(claim, sheaf) => claim.flush(&sheaf, row).count(metrics, now),
        }
    }

    /// Wakes the task, one way or the other.
    pub(crate) fn wake(self) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Claimed(claim, sheaf) => claim.leave(&sheaf),
        }
    }
}

/// The right to write to an idle connection's socket, and the duty to do it, or to leave it to the connection.
#[derive(Debug)]
pub(crate) struct Claim {
    outbox: Arc<Outbox>,
    socket: Arc<dyn Socket>,
}

/// Where frames are put in a row; kept for its memory.
#[derive(Debug, Default)]
pub(crate) struct Row {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
}

/// What came of writing a sheaf and what waited behind it.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    frames: u64,
    bytes: usize,
    /// By how many bytes the queue shrank.
    taken: usize,
    saved_bytes: usize,
    /// When the oldest publication among them entered the gateway; where nothing was written it is not told yet.
    oldest: Option<UnixMicros>,
}

impl Claim {
    pub(super) fn new(outbox: Arc<Outbox>, socket: Arc<dyn Socket>) -> Self {
        Self { outbox, socket }
    }

    /// Writes, and lets go of the socket; returns how many bytes it took. The rest is left to the connection's writer, which
    /// is woken for it as for whatever has come meanwhile.
    pub(crate) fn write(self, sheaf: &Sheaf) -> usize {
        // Whatever is wrong with the socket, its writer will be told.
        let written = self.socket.try_write(sheaf.bytes()).unwrap_or(0);
        self.let_go((written < sheaf.bytes().len()).then(|| sheaf.after(written)));
        written
    }

    /// The same, together with what has come since the claim.
    pub(crate) fn flush(self, sheaf: &Sheaf, row: &mut Row) -> Flushed {
        let (oldest, saved_bytes) = (Some(sheaf.oldest()), sheaf.saved_bytes());
        let mut flushed = Flushed { oldest, saved_bytes, ..Flushed::default() };
        if row.fill(sheaf, &self.outbox, &mut flushed) {
            flushed.bytes = self.socket.try_write(&row.bytes).unwrap_or(0);
            flushed.frames = row.ends.partition_point(|end| *end <= flushed.bytes) as u64;
            let saved_bytes = flushed.saved_bytes;
            let left_over = || row.after(flushed.bytes, sheaf.oldest(), saved_bytes);
            self.let_go((flushed.bytes < row.bytes.len()).then(left_over));
        } else {
            flushed.bytes = self.write(sheaf);
            flushed.frames = sheaf.frames_in(flushed.bytes);
        }
        if flushed.bytes == 0 {
            (flushed.oldest, flushed.saved_bytes) = (None, 0);
        }
        flushed
    }

    /// Leaves all of it to the connection's writer.
    fn leave(self, sheaf: &Sheaf) {
        self.let_go(Some(sheaf.after(0)));
    }

    /// Leaves everything as it was before the claim.
    pub(super) fn give_back(self) {
        self.let_go(None);
    }

    fn let_go(self, left_over: Option<Batch>) {
        let Self { outbox, socket } = self;
        let mut state = outbox.state.lock();
        state.claimed = false;
        if state.phase != Phase::Discarded {
            state.socket = Some(socket);
            if left_over.is_some() {
                state.put_aside(|aside| aside.left_over = left_over);
            }
        }
        if !state.queue.is_empty() || state.left_over().is_some() || state.phase != Phase::Open {
            wake(state, Wants::Frames);
        }
    }
}

impl Row {
    /// Puts a sheaf and what waits behind it in a row; false where that is nothing, or too much.
    fn fill(&mut self, sheaf: &Sheaf, outbox: &Outbox, flushed: &mut Flushed) -> bool {
        let mut state = outbox.state.lock();
        let is_too_much = state.queue.bytes() + sheaf.bytes().len() > ROW_BYTES;
        if state.queue.is_empty() || is_too_much || state.tap().is_some() {
            return false;
        }
        self.bytes.clear();
        self.ends.clear();
        sheaf.frames().iter().for_each(|frame| self.push(frame));
        flushed.taken = state.pop_batch(|popped| {
            flushed.saved_bytes += popped.saved_bytes;
            self.push(&popped.bytes);
        });
        true
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// What is left when so many bytes were written. What is told of the whole is told with the first of them.
    fn after(&self, written: usize, oldest: UnixMicros, saved_bytes: usize) -> Batch {
        let whole = Bytes::copy_from_slice(&self.bytes);
        let mut begin = 0;
        let frames = self.ends.iter().map(|end| whole.slice(mem::replace(&mut begin, *end)..*end));
        let mut batch = Batch {
            frames: frames.collect(),
            bytes: whole.len(),
            oldest: (written == 0).then_some(oldest),
            saved_bytes: if written == 0 { saved_bytes } else { 0 },
            watched: None,
        };
        batch.advance(written);
        batch
    }
}

impl Flushed {
    /// Has a node count it.
    pub(crate) fn count(self, metrics: &Metrics, now: fn() -> UnixMicros) {
        if self.taken > 0 {
            metrics.outbox_queued(-signed(self.taken));
        }
        if self.bytes > 0 {
            metrics.written(self.frames, self.bytes as u64);
        }
        if self.saved_bytes > 0 {
            metrics.written_saved(self.saved_bytes as u64);
        }
        if let Some(received) = self.oldest {
            taken(metrics, 1, received, now());
        }
    }
}
