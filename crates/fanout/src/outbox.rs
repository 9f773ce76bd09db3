//! The bounded queue from the hub, and from the session, to one connection's writer.
//!
//! Everything that is to leave through one socket goes through its outbox, so nothing interleaves: publications as
//! shared references, the session's own frames as bytes. The writer takes all that waits and makes one gathered write
//! of it; while it is busy nothing wakes it, so batches grow by themselves with load. Beside frames an outbox carries
//! [`Order`]s: the few things that other tasks have to tell the connection's task.
//!
//! **Invariants.**
//! - No more than `bytes_max` wait, plus what the writer has taken ([`Batch`] bounds that). The frame that would pass
//!   the bound empties the queue, and [`Order::Overflowed`] tells the connection, whose session closes with 4508: a
//!   reconnect can recover what was missed, a silent gap cannot.
//! - After [`Outbox::conclude`] nothing is accepted: the Close frame is the last.
//! - An outbox with nothing in it owns no heap memory beyond itself, save for the few slots in which the next
//!   publication will wait.
//!
//! The lock is held for a few instructions and never across an await; the hub's walk and the writer are the only two
//! that contend for it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, Publication, SessionId};
use parking_lot::{Mutex, MutexGuard};

/// The most frames in one gathered write. Past some thirty a frame costs next to nothing more, and Linux takes 1024.
const BATCH_FRAMES: usize = 64;

/// The bytes after which a batch takes no further frame.
const BATCH_BYTES: usize = 128 * 1024;

/// The slots an empty queue may keep, so that a connection that gets one publication at a time allocates nothing.
const SLOTS_KEPT: usize = 4;

/// Names an outbox within its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(u64);

impl SubscriberId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What another task has to tell a connection's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The deadline that the connection asked for has come.
    Tick,
    /// The queue passed its bound and was emptied.
    Overflowed,
    /// The hub can no longer keep its promise for this channel.
    Lost {
        /// Which.
        channel: Channel,
    },
    /// The node is draining: close, and tell the client to wait this long before it comes back.
    Drain {
        /// The wait.
        after: Duration,
    },
}

/// The frame did not fit, or comes after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The bytes that the queue held and holds no more.
    pub discarded: usize,
}

/// See the [module's essay](self).
#[derive(Debug)]
pub struct Outbox {
    id: SubscriberId,
    session: SessionId,
    encoding: Encoding,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    phase: Phase,
    orders: Vec<Order>,
    waker: Option<Waker>,
    /// What the sleeping writer waits for: a writer whose socket is full has no use for more frames.
    wants: Wants,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Over the bound: nothing is taken but the last words of [`Outbox::conclude`].
    Overflowed,
    Concluded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// Orders, and frames too.
    Frames,
    /// Orders alone.
    Orders,
}

#[derive(Debug)]
enum Outgoing {
    Publication(Arc<Publication>),
    Frame(Frame),
}

/// What a writer has taken from an outbox and not yet written.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whole frames, but for the first, which may have been written in part.
    pub frames: VecDeque<Bytes>,
    /// The sum of their lengths.
    pub bytes: usize,
    /// When the oldest publication of the batch entered the gateway.
    pub oldest: Option<UnixMicros>,
}

impl Batch {
    /// Whether all of it has been written.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets the first `written` bytes and returns how many frames they completed.
    pub fn advance(&mut self, mut written: usize) -> u64 {
        let mut completed = 0;
        self.bytes -= written;
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                let _ = first.split_to(written);
                break;
            }
            written -= first.len();
            self.frames.pop_front();
            completed += 1;
        }
        completed
    }
}

impl Outbox {
    /// An empty outbox for one connection, which may hold `bytes_max` bytes.
    pub fn new(session: SessionId, encoding: Encoding, bytes_max: usize) -> Arc<Self> {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            phase: Phase::Open,
            orders: Vec::new(),
            waker: None,
            wants: Wants::Frames,
        };
        Arc::new(Self { id: SubscriberId::next(), session, encoding, bytes_max, state: Mutex::new(state) })
    }

    /// The name the registry knows it by.
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// The encoding its connection speaks.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Queues publications of one channel, in order; returns by how many bytes the queue grew, which is negative when it
    /// overflowed and was emptied. Those that the session asked not to hear are left out.
    pub(crate) fn offer(
        &self,
        publications: &[Arc<Publication>],
        _overflow: fanfare_protocol::rules::Overflow,
    ) -> i64 {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return 0;
        }
        let before = state.bytes;
        for publication in publications {
            if publication.exclude == Some(self.session) {
                continue;
            }
            let bytes = publication.encoded(self.encoding).bytes().len();
            if state.push(Outgoing::Publication(publication.clone()), bytes, self.bytes_max).is_err() {
                break;
            }
        }
        let grown = signed(state.bytes) - signed(before);
        if grown != 0 || state.phase == Phase::Overflowed {
            wake(state, Wants::Frames);
        }
        grown
    }

    /// Queues publications as replayed; returns by how many bytes the queue grew, which is negative when it overflowed and
    /// was emptied.
    pub(crate) fn replay(&self, publications: &[Arc<Publication>]) -> i64 {
        let mut grown = 0;
        for publication in publications {
            match self.push(publication.replayed(self.encoding).clone()) {
                Ok(bytes) => grown += signed(bytes),
                Err(full) => return grown - signed(full.discarded),
            }
        }
        grown
    }

    /// Queues a frame of the session's own; returns by how many bytes the queue grew.
    ///
    /// # Errors
    /// [`Full`] when it did not fit, which has also emptied the queue and ordered [`Order::Overflowed`], or when the
    /// outbox has concluded. It holds by how many bytes the queue shrank.
    pub fn push(&self, frame: Frame) -> Result<usize, Full> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(Full { discarded: 0 });
        }
        let (before, bytes) = (state.bytes, frame.bytes().len());
        let outcome = state.push(Outgoing::Frame(frame), bytes, self.bytes_max);
        wake(state, Wants::Frames);
        outcome.map(|()| bytes).map_err(|Overflow| Full { discarded: before })
    }

    /// Queues the last frames, whatever the bound says, and takes nothing after them; returns by how many bytes the
    /// queue grew.
    pub fn conclude(&self, last: impl IntoIterator<Item = Frame>) -> usize {
        let mut state = self.state.lock();
        if state.phase == Phase::Concluded {
            return 0;
        }
        let before = state.bytes;
        for frame in last {
            state.bytes += frame.bytes().len();
            state.queue.push_back(Outgoing::Frame(frame));
        }
        state.phase = Phase::Concluded;
        let grown = state.bytes - before;
        wake(state, Wants::Frames);
        grown
    }

    /// Throws everything away and takes nothing more: the connection is gone. Returns the bytes that waited.
    pub fn discard(&self) -> usize {
        let mut state = self.state.lock();
        state.phase = Phase::Concluded;
        state.queue = VecDeque::new();
        mem::take(&mut state.bytes)
    }

    /// Tells the connection's task something.
    pub fn order(&self, order: Order) {
        let mut state = self.state.lock();
        state.orders.push(order);
        wake(state, Wants::Orders);
    }

    /// The next order; until there is one, only an order wakes the task.
    pub fn poll_order(&self, cx: &Context<'_>) -> Poll<Order> {
        let mut state = self.state.lock();
        match state.next_order() {
            Some(order) => Poll::Ready(order),
            None => state.sleep(cx, Wants::Orders),
        }
    }

    /// Moves what waits into an empty `batch`, up to its bounds; until something waits, a frame or an order wakes the
    /// task. Returns by how many bytes the queue shrank.
    pub fn poll_take(&self, cx: &Context<'_>, batch: &mut Batch) -> Poll<usize> {
        debug_assert!(batch.is_empty(), "what was taken is written before more is");
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            return state.sleep(cx, Wants::Frames);
        }
        batch.oldest = None;
        while batch.frames.len() < BATCH_FRAMES && batch.bytes < BATCH_BYTES {
            let Some(outgoing) = state.queue.pop_front() else { break };
            let frame = match outgoing {
                Outgoing::Frame(frame) => frame.bytes().clone(),
                Outgoing::Publication(publication) => {
                    batch.oldest.get_or_insert(publication.received);
                    publication.encoded(self.encoding).bytes().clone()
                }
            };
            batch.bytes += frame.len();
            batch.frames.push_back(frame);
        }
        state.bytes -= batch.bytes;
        if state.queue.is_empty() && state.queue.capacity() > SLOTS_KEPT {
            state.queue = VecDeque::new();
        }
        Poll::Ready(batch.bytes)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }
}

#[derive(Debug)]
struct Overflow;

impl State {
    fn push(&mut self, outgoing: Outgoing, bytes: usize, bytes_max: usize) -> Result<(), Overflow> {
        if self.bytes + bytes > bytes_max {
            self.queue = VecDeque::new();
            self.bytes = 0;
            self.phase = Phase::Overflowed;
            self.orders.push(Order::Overflowed);
            return Err(Overflow);
        }
        self.bytes += bytes;
        self.queue.push_back(outgoing);
        Ok(())
    }

    fn next_order(&mut self) -> Option<Order> {
        if self.orders.is_empty() {
            return None;
        }
        let order = self.orders.remove(0);
        if self.orders.is_empty() {
            self.orders = Vec::new();
        }
        Some(order)
    }

    fn sleep<T>(&mut self, cx: &Context<'_>, wants: Wants) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        self.wants = wants;
        Poll::Pending
    }
}

/// Wakes the connection's task, outside the lock, if it sleeps and what came is what it wants.
fn wake(mut state: MutexGuard<'_, State>, came: Wants) {
    let wanted = came == Wants::Orders || state.wants == Wants::Frames || !state.orders.is_empty();
    let waker = if wanted { state.waker.take() } else { None };
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

pub(crate) fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("a queue is shorter than 2^63 bytes")
}

#[cfg(test)]
mod tests;
