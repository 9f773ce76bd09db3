//! The bounded queue from the hub, and from the session, to one connection's writer.
//!
//! Everything that is to leave through one socket goes through its outbox, so nothing interleaves: publications as
//! shared references, the session's own frames as bytes. The writer takes all that waits and makes one gathered write
//! of it; while it is busy nothing wakes it, so batches grow by themselves with load. Beside frames an outbox carries
//! [`Order`]s: the few things that other tasks have to tell the connection's task.
//!
//! **Invariants.**
//! - No more than `bytes_max` wait, plus what the writer has taken ([`Batch`] bounds that). What would pass the bound
//!   makes publications give way whose channels allow it ([`queue`] tells who, and to whom); where that is not enough it
//!   empties the queue, and [`Order::Overflowed`] tells the connection, whose session closes with 4508: a reconnect can
//!   recover what was missed, a silent gap cannot.
//! - After [`Outbox::conclude`] nothing is accepted: the Close frame is the last.
//! - An outbox with nothing in it owns no heap memory beyond itself, save for the slots in which the next publications
//!   will wait: those of a batch at most, and a few once it has been told to [`Outbox::rest`].
//!
//! The lock is held for a few instructions and never across an await; the hub's walk and the writer are the only two
//! that contend for it.
//!
//! **Past the task.** Where the writer sleeps because nothing waits, and the transport has shown its [`Socket`], the hub need
//! not queue anything nor wake anybody: it *claims* the outbox, writes to the socket itself what it writes to the rest of a
//! crowd, and lets go of it. What comes to the outbox meanwhile is queued behind the claim and neither taken nor woken for,
//! and goes along if the hub takes its time; what the socket did not take waits in front of it, and is the writer's.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use fanfare_metrics::{Metrics, Sacrifice};
use fanfare_protocol::command::Start;
use fanfare_protocol::grant::{Amendment, Pass};
use fanfare_protocol::publication::is_sampled;
use fanfare_protocol::rules::Overflow;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, CloseReason, Encoding, Form, Publication, SessionId};
use parking_lot::{Mutex, MutexGuard};

mod aside;
mod claim;
mod queue;
mod sheaf;

pub(crate) use claim::{Asleep, Claim, Row};
pub(crate) use sheaf::{Sheaf, Sheaves};

use crate::tap::Taken;
use aside::Aside;
use queue::{Losses, NoRoom, Popped, Queue};

/// The most frames in one gathered write. Past some thirty a frame costs next to nothing more, and Linux takes 1024.
const BATCH_FRAMES: usize = 64;

/// The bytes after which a batch takes no further frame.
const BATCH_BYTES: usize = 128 * 1024;

/// The most orders of backends about channels that wait for a connection's task. It takes them between two things that it does, so only
/// a backend that gives them by the thousand meets this.
const ENLISTINGS_MAX: usize = 10_000;

/// Names an outbox within its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(u64);

impl SubscriberId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Its place in the order in which the process has made them.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// That of a place.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
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
    /// A backend wants the client gone, for this reason.
    Dismiss {
        /// Which.
        reason: CloseReason,
    },
    /// A backend has the client hear a channel.
    Enlist {
        /// Which.
        channel: Channel,
        /// From where.
        start: Start,
        /// On which terms.
        pass: Arc<Pass>,
    },
    /// A backend has it hear a channel no longer.
    Expel {
        /// Which.
        channel: Channel,
    },
    /// A backend has what is known of the client end at another time.
    Amend {
        /// What it says.
        amendment: Arc<Amendment>,
    },
    /// The node's settings were swapped: take the new ones.
    Reloaded,
}

impl Order {
    /// Whether a backend gives it, as often as it likes.
    const fn is_of_a_backend(&self) -> bool {
        matches!(self, Self::Enlist { .. } | Self::Expel { .. } | Self::Amend { .. })
    }
}

/// The frame did not fit, or comes after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The bytes that the queue held and holds no more.
    pub discarded: usize,
}

/// What queueing came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a node's gauge of queued bytes would drift"]
pub struct Queued {
    /// By how many bytes the queue grew; negative when more gave way than came, and when it overflowed and was emptied.
    pub grown_bytes: i64,
    /// Publications of `drop_oldest` channels that gave way or found no room themselves.
    pub dropped: u64,
    /// Publications of `conflate` channels that a newer one replaced.
    pub conflated: u64,
}

impl Queued {
    /// Has a node count it.
    pub fn count(self, metrics: &Metrics) {
        metrics.outbox_queued(self.grown_bytes);
        if self.dropped > 0 {
            metrics.outbox_dropped(Sacrifice::DropOldest, self.dropped);
        }
        if self.conflated > 0 {
            metrics.outbox_dropped(Sacrifice::Conflate, self.conflated);
        }
    }

    /// Publications that gave way or found no room.
    pub(crate) const fn lost(&self) -> u64 {
        self.dropped + self.conflated
    }

    fn of(losses: Losses, grown_bytes: i64) -> Self {
        Self { grown_bytes, dropped: losses.dropped, conflated: losses.conflated }
    }
}

impl AddAssign for Queued {
    fn add_assign(&mut self, other: Self) {
        self.grown_bytes += other.grown_bytes;
        self.dropped += other.dropped;
        self.conflated += other.conflated;
    }
}

/// An overflow is a queue that shrank to nothing.
impl From<Full> for Queued {
    fn from(full: Full) -> Self {
        Self { grown_bytes: -signed(full.discarded), ..Self::default() }
    }
}

/// A socket that takes whole frames as they are, and which others than its connection's task may write to, while that
/// task sleeps.
pub trait Socket: fmt::Debug + Send + Sync {
    /// Writes as much as goes without waiting, and says how much that was.
    ///
    /// # Errors
    /// Those of the socket, [`io::ErrorKind::WouldBlock`] among them. The connection's own writer hears of them as well.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// See the [module's essay](self).
#[derive(Debug)]
pub struct Outbox {
    id: SubscriberId,
    session: SessionId,
    form: Form,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    phase: Phase,
    orders: Vec<Order>,
    waker: Option<Waker>,
    /// What the sleeping writer waits for: a writer whose socket is full has no use for more frames.
    wants: Wants,
    /// What may be written to past the connection's task; away while it is claimed.
    socket: Option<Arc<dyn Socket>>,
    /// Somebody else writes to the socket just now.
    claimed: bool,
    /// What few have for long; who has any cannot be claimed.
    aside: Option<Box<Aside>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Over the bound: nothing is taken but the last words of [`Outbox::conclude`].
    Overflowed,
    Concluded,
    /// The connection is gone.
    Discarded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// Orders, and frames too.
    Frames,
    /// Orders alone.
    Orders,
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
    /// By how many bytes it is shorter for being compressed.
    pub saved_bytes: usize,
    /// Of whom it is to be told when all is written.
    pub(crate) watched: Option<Box<Taken>>,
}

impl Batch {
    /// Whether all of it has been written.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    #[expect(clippy::inline_always, reason = "for each frame that is written")]
    #[inline(always)]
    fn add(&mut self, Popped { bytes, publication, saved_bytes }: Popped) {
        self.oldest = self.oldest.or(publication.map(|it| it.received));
        self.bytes += bytes.len();
        self.saved_bytes += saved_bytes;
        self.frames.push_back(bytes);
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
        if self.frames.is_empty()
            && let Some(watched) = self.watched.take()
        {
            watched.written();
        }
        completed
    }
}

impl Outbox {
    /// An empty outbox for one connection, which may hold `bytes_max` bytes.
    pub fn new(session: SessionId, form: impl Into<Form>, bytes_max: usize) -> Arc<Self> {
        let form = form.into();
        let state = State {
            queue: Queue::new(form, bytes_max),
            phase: Phase::Open,
            orders: Vec::new(),
            waker: None,
            wants: Wants::Frames,
            socket: None,
            claimed: false,
            aside: None,
        };
        Arc::new(Self { id: SubscriberId::next(), session, form, state: Mutex::new(state) })
    }

    /// Shows where the connection's frames may be written past its task.
    pub fn lend(&self, socket: Arc<dyn Socket>) {
        self.state.lock().socket = Some(socket);
    }

    /// The name the registry knows it by.
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// The conversation that it belongs to.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The encoding its connection speaks.
    pub fn encoding(&self) -> Encoding {
        self.form.encoding()
    }

    /// The form its connection's publications have.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Queues publications of one channel, in order, in the way that the channel handles slow subscribers, and wakes the
    /// writer. Those that the session asked not to hear are left out.
    pub(crate) fn offer(&self, publications: &[Arc<Publication>], overflow: Overflow) -> Queued {
        let (queued, waker) = self.offer_asleep(publications, overflow);
        waker.into_iter().for_each(Waker::wake);
        queued
    }

    /// The same, but the writer sleeps on: the caller wakes it, soon, if it has to be woken. Until then nobody else does,
    /// whatever comes to the outbox.
    pub(crate) fn offer_asleep(
        &self,
        publications: &[Arc<Publication>],
        overflow: Overflow,
    ) -> (Queued, Option<Waker>) {
        let mut losses = Losses::default();
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return (Queued::default(), None);
        }
        let before = state.queue.bytes();
        for publication in publications {
            if publication.exclude == Some(self.session) {
                continue;
            }
            let outcome = state.queue.offer(publication, overflow);
            if state.tap().is_some() {
                self.tell_of_offer(&state, publication, overflow, outcome);
            }
            match outcome {
                Ok(more) => losses += more,
                Err(NoRoom) => {
                    state.overflow();
                    break;
                }
            }
        }
        let queued = Queued::of(losses, signed(state.queue.bytes()) - signed(before));
        // A task that waits for frames has found the queue empty: whatever came to it since, it is not empty now.
        let is_news = !state.queue.is_empty() || state.phase == Phase::Overflowed;
        (queued, if is_news { state.take_waker(Wants::Frames) } else { None })
    }

    /// Claims the socket for whoever has something to write to it, if nothing waits and the writer sleeps for want of it. What
    /// is written then has its place before all that comes after the claim.
    pub(crate) fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut state = self.state.lock();
        // A task that waits for frames has found the queue empty, and all that it took before is written.
        let is_idle = state.waker.is_some() && state.wants == Wants::Frames && state.phase == Phase::Open;
        if !is_idle || state.claimed || state.aside.is_some() {
            return None;
        }
        debug_assert!(state.queue.is_empty(), "what comes takes the waker");
        let socket = state.socket.take()?;
        state.claimed = true;
        Some(Claim::new(self.clone(), socket))
    }

    /// How many of these, counted from the newest, may be replayed together: half of what may wait.
    pub(crate) fn replayable(&self, publications: &[Arc<Publication>]) -> usize {
        self.state.lock().queue.replayable(publications)
    }

    /// Queues publications out of history, in order, to be spelt as replayed. They wait until they are written, whatever
    /// their channel's way with slow subscribers: all of them are queued, or none.
    ///
    /// # Errors
    /// Those of [`Outbox::push`].
    pub(crate) fn replay(&self, publications: &[Arc<Publication>]) -> Result<Queued, Full> {
        self.queue_firmly(|state| {
            let losses = state.queue.replay(publications)?;
            self.tell_of_replay(state, publications);
            Ok(losses)
        })
    }

    /// Queues a frame of the session's own.
    ///
    /// # Errors
    /// [`Full`] when it did not fit, which has also emptied the queue and ordered [`Order::Overflowed`], or when the
    /// outbox has concluded. It holds by how many bytes the queue shrank.
    pub fn push(&self, frame: Frame) -> Result<Queued, Full> {
        let (frame, saved_bytes) = self.compress(frame);
        self.queue_firmly(|state| state.queue.push(frame, saved_bytes))
    }

    /// A frame of the session's in the form of this outbox, and by how many bytes that is shorter. A long answer takes a
    /// while: not under the lock.
    fn compress(&self, frame: Frame) -> (Frame, u32) {
        match self.form.shape().and_then(|shape| frame.deflated(shape)) {
            Some(deflated) => {
                let saved_bytes = frame.len() - deflated.len();
                (deflated, u32::try_from(saved_bytes).unwrap_or(u32::MAX))
            }
            None => (frame, 0),
        }
    }

    fn queue_firmly(&self, queue: impl FnOnce(&mut State) -> Result<Losses, NoRoom>) -> Result<Queued, Full> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(Full { discarded: 0 });
        }
        let before = state.queue.bytes();
        let outcome = match queue(&mut state) {
            Ok(losses) => Ok(Queued::of(losses, signed(state.queue.bytes()) - signed(before))),
            Err(NoRoom) => {
                state.overflow();
                Err(Full { discarded: before })
            }
        };
        if !state.queue.is_empty() || state.phase == Phase::Overflowed {
            wake(state, Wants::Frames);
        }
        outcome
    }

    /// Queues the last frames, whatever the bound says, and takes nothing after them; returns by how many bytes the
    /// queue grew.
    pub fn conclude(&self, last: impl IntoIterator<Item = Frame>) -> usize {
        let mut state = self.state.lock();
        if let Phase::Concluded | Phase::Discarded = state.phase {
            return 0;
        }
        let before = state.queue.bytes();
        for frame in last {
            state.queue.push_last(frame);
        }
        state.phase = Phase::Concluded;
        let grown = state.queue.bytes() - before;
        wake(state, Wants::Frames);
        grown
    }

    /// Throws everything away and takes nothing more: the connection is gone. Returns the bytes that waited.
    pub fn discard(&self) -> usize {
        let mut state = self.state.lock();
        state.phase = Phase::Discarded;
        (state.socket, state.aside) = (None, None);
        state.queue.clear()
    }

    /// Tells the connection's task something. Where backends order more of it than it takes up, the client is ordered to come
    /// again instead.
    pub fn order(&self, mut order: Order) {
        let mut state = self.state.lock();
        if order.is_of_a_backend() && state.orders.len() >= ENLISTINGS_MAX {
            state.orders.retain(|order| !order.is_of_a_backend());
            order = Order::Dismiss { reason: CloseReason::TryAgainLater };
        }
        state.orders.push(order);
        wake(state, Wants::Orders);
    }

    /// Takes back what the connection's task has not been told yet of the loss of a channel: it has left, and may be about
    /// to come back, which the order must not be taken for.
    pub(crate) fn retract_loss(&self, channel: &Channel) {
        let is_of = |order: &Order| matches!(order, Order::Lost { channel: lost } if lost == channel);
        self.state.lock().orders.retain(|order| !is_of(order));
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
    /// task. Returns by how many bytes the queue shrank, which are fewer than the batch has where conflated publications
    /// tell how many they stand for.
    pub fn poll_take(&self, cx: &Context<'_>, batch: &mut Batch) -> Poll<usize> {
        debug_assert!(batch.is_empty(), "what was taken is written before more is");
        let mut state = self.state.lock();
        if state.aside.is_some() {
            return self.poll_take_aside(state, cx, batch);
        }
        batch.oldest = None;
        state.poll_pop(cx, |popped| batch.add(popped))
    }

    /// The same of one that few are: what was left over comes first, and who looks on is told when what is taken is written.
    #[cold]
    fn poll_take_aside(
        &self,
        mut state: MutexGuard<'_, State>,
        cx: &Context<'_>,
        batch: &mut Batch,
    ) -> Poll<usize> {
        if let Some(left_over) = state.take_left_over() {
            *batch = left_over;
            return Poll::Ready(0);
        }
        batch.oldest = None;
        let mut watched = state.watched(self);
        let taken = state.poll_pop(cx, |popped| {
            if let Some(watched) = &mut watched {
                watched.publications.extend(popped.publication.clone());
            }
            batch.add(popped);
        });
        batch.watched = watched.filter(|it| !it.publications.is_empty());
        taken
    }

    /// The same, one frame after the other, for a transport that has to know which publication it carries.
    pub fn poll_take_each(
        &self,
        cx: &Context<'_>,
        mut take: impl FnMut(Bytes, Option<&Publication>),
    ) -> Poll<usize> {
        let mut state = self.state.lock();
        let mut watched = state.watched(self);
        let taken = state.poll_pop(cx, |popped| {
            take(popped.bytes, popped.publication.as_deref());
            if let Some(watched) = &mut watched {
                watched.publications.extend(popped.publication);
            }
        });
        drop(state);
        watched.into_iter().for_each(|it| it.written());
        taken
    }

    /// Gives back what a burst has left, if nothing waits: to be told now and then, seldom beside how often a busy
    /// connection writes.
    pub fn rest(&self) {
        self.state.lock().queue.rest();
    }

    /// The bytes that wait.
    pub fn queued_bytes(&self) -> usize {
        self.state.lock().queue.bytes()
    }

    /// The messages that wait, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.queue.len(), state.queue.bytes())
    }

    /// Whether nothing waits, and nobody else writes.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.queue.is_empty() && !state.claimed && state.left_over().is_none()
    }

    /// Whether so little waits that a replay of any permitted length fits, with a quarter of the queue to spare.
    pub fn has_ample_room(&self) -> bool {
        self.state.lock().queue.has_ample_room()
    }
}

impl State {
    fn overflow(&mut self) {
        self.queue.clear();
        self.phase = Phase::Overflowed;
        self.orders.push(Order::Overflowed);
    }

    fn poll_pop(&mut self, cx: &Context<'_>, take: impl FnMut(Popped)) -> Poll<usize> {
        if self.queue.is_empty() || self.claimed {
            return self.sleep(cx, Wants::Frames);
        }
        Poll::Ready(self.pop_batch(take))
    }

    /// Takes out a batch of what waits, and returns by how many bytes the queue shrank.
    fn pop_batch(&mut self, mut take: impl FnMut(Popped)) -> usize {
        let before = self.queue.bytes();
        let (mut frames, mut bytes) = (0, 0);
        while frames < BATCH_FRAMES && bytes < BATCH_BYTES {
            let Some(popped) = self.queue.pop() else { break };
            frames += 1;
            bytes += popped.bytes.len();
            take(popped);
        }
        if self.queue.is_empty() && self.aside.is_some() {
            self.put_aside(|aside| aside.tap = None);
        }
        before - self.queue.bytes()
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

    /// What wakes the connection's task, if it sleeps and what came is what it wants.
    fn take_waker(&mut self, came: Wants) -> Option<Waker> {
        // Whoever has claimed the socket looks, when it is done, what has come.
        let wanted = came == Wants::Orders
            || !self.claimed && (self.wants == Wants::Frames || !self.orders.is_empty());
        if wanted { self.waker.take() } else { None }
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
    let waker = state.take_waker(came);
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Counts that so many sockets have taken a publication that was received then.
#[inline]
pub fn taken(metrics: &Metrics, sockets: u64, received: UnixMicros, now: UnixMicros) {
    metrics.publish_to_write_of_many(sockets, now.since(received));
    if is_sampled(received) {
        metrics.written_after(received.0, now.0);
    }
}

pub(crate) fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("a queue is shorter than 2^63 bytes")
}

#[cfg(test)]
mod tests;
