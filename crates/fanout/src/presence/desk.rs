//! One node's part: gathers changes, keeps the seat warm, clears cold ones, passes notices on.
//!
//! Five tasks, none of which waits for another: the *writer* writes what the table has queued, one batch at a time, so that
//! batches grow by themselves with load; the *keeper* beats; the *sweeper* looks for cold seats; the *crier* passes notices on, and
//! *who counts* how many there are, now and then.

use std::sync::Arc;
use std::time::Duration;

use fanfare_metrics::{BrokerCall, Metrics, Outcome};
use fanfare_protocol::event::{Crowd, Member};
use fanfare_protocol::grant::{Acquaintance, Pattern};
use fanfare_protocol::{Channel, SessionId};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::BrokerError;
use crate::hub::Hub;
use crate::outbox::Outbox;
use crate::presence::audience::{Audience, Telling};
use crate::presence::counts::Counts;
use crate::presence::crowds::Crowds;
use crate::presence::lookout::{self, Lookout};
use crate::presence::table::{Batch, Table};
use crate::presence::{After, Debt, Notice, Presence, Seat};

/// The most changes in one batch: a storm of 10,000 takes ten.
const BATCH_MAX: usize = 1024;

/// How long changes wait for more of their kind.
const GATHER: Duration = Duration::from_millis(3);

/// How long to wait before what was refused is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// The most crowds that are read at the same time for one list of channels.
const CROWDS_AT_ONCE: usize = 32;

/// The longest that a reader waits for what this node has yet to write.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Beats and looks for cold seats per interval: a seat goes cold within one, is found within a third of another, and there is time
/// left to clear it before two are over.
const BEATS: u32 = 3;

/// How presence behaves.
#[derive(Clone, Debug)]
pub struct PresenceOptions {
    /// The node's name, part of its seats' names.
    pub node: String,
    /// The longest that a node may be silent before its members count as gone. Within twice that everyone has been told.
    pub heartbeat: Duration,
    /// How long a user who has left counts as there, and may come back without anybody noticing.
    pub grace: Duration,
    /// The longest that any call may take.
    pub timeout: Duration,
}

/// The node's door to the book. See the [module's essay](super). Dropped without [`Desk::close`] it falls silent as if the
/// node had crashed.
#[derive(Debug)]
pub struct Desk {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Inner {
    book: Arc<dyn Presence>,
    metrics: Arc<Metrics>,
    options: PresenceOptions,
    table: Mutex<Table>,
    /// Something was queued, or there is a seat.
    work: Notify,
    /// The seat was given up.
    seatless: Notify,
    /// The number of the last queued change that the book has been asked for.
    written: watch::Sender<u64>,
    audience: Audience,
    counts: Counts,
    lookout: Arc<Lookout>,
    crowds: Crowds,
}

/// What who enters is told of the others.
#[derive(Clone, Copy, Debug)]
pub enum Listening<'a> {
    /// Nothing.
    None,
    /// Who joins and leaves from now on, itself excepted.
    Turns(&'a Arc<Outbox>),
    /// How many there are.
    Count(&'a Arc<Outbox>),
}

impl Desk {
    /// Starts the desk's tasks on a book. `notices` is what [`crate::broker::LaneEnds::notices`] gave.
    pub fn start(
        book: Arc<dyn Presence>,
        notices: mpsc::Receiver<Notice>,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        options: PresenceOptions,
    ) -> Arc<Self> {
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            book,
            metrics,
            options,
            table: Mutex::default(),
            work: Notify::new(),
            seatless: Notify::new(),
            written: watch::Sender::new(0),
            audience: Audience::default(),
            counts: Counts::default(),
            lookout: Arc::default(),
            crowds: Crowds::default(),
        });
        tasks.spawn(stop.clone().run_until_cancelled_owned(write(inner.clone())));
        tasks.spawn(stop.clone().run_until_cancelled_owned(keep(inner.clone())));
        tasks.spawn(stop.clone().run_until_cancelled_owned(sweep(inner.clone())));
        tasks.spawn(stop.clone().run_until_cancelled_owned(cry(inner.clone(), notices)));
        tasks.spawn(stop.clone().run_until_cancelled_owned(count(inner.clone())));
        Arc::new(Self { inner, stop })
    }

    /// From now on clients can be told of users whether they are there: a hub has the node overhear them.
    pub fn look_around(self: &Arc<Self>, hub: &Arc<Hub>, tasks: &TaskTracker) {
        let Inner { lookout, metrics, .. } = &*self.inner;
        let survey = lookout::survey(lookout.clone(), Arc::downgrade(self), Arc::downgrade(hub));
        tasks.spawn(self.stop.clone().run_until_cancelled_owned(survey));
        let tell = lookout::tell(lookout.clone(), metrics.clone());
        tasks.spawn(self.stop.clone().run_until_cancelled_owned(tell));
    }

    /// Tells this client of these users, and of no others any more, whether they are there; now and whenever that changes. Takes
    /// [`Desk::look_around`].
    pub fn look_out(&self, outbox: &Arc<Outbox>, acquaintances: Vec<Acquaintance>) {
        self.inner.lookout.look_out(outbox, acquaintances);
    }

    /// This client is told of nobody any more. Does no harm where it was not.
    pub fn look_away(&self, session: SessionId) {
        self.inner.lookout.look_away(session);
    }

    /// How long a node may be silent before its members count as gone.
    pub(super) fn heartbeat(&self) -> Duration {
        self.inner.options.heartbeat
    }

    /// A subscription has gone live on a channel with presence. Never waits.
    pub fn enter(&self, channel: &Channel, member: Member, listening: Listening<'_>) {
        let listener = match listening {
            Listening::None => None,
            Listening::Turns(outbox) => Some((outbox, Telling::AtOnce)),
            Listening::Count(outbox) => Some((outbox, Telling::Count)),
        };
        if let Some((outbox, telling)) = listener {
            self.inner.audience.add(channel, member.session, outbox.clone(), telling);
        }
        self.inner.change(|table| table.enter(channel, member));
    }

    /// The same for who is told first who is there: nobody who joins or leaves meanwhile is missed, and [`Desk::heed`] tells of
    /// them.
    pub fn enter_unaware(&self, channel: &Channel, member: Member, listener: &Arc<Outbox>) {
        self.inner.audience.add(channel, member.session, listener.clone(), Telling::Later);
        self.inner.change(|table| table.enter(channel, member));
    }

    /// Who has entered unaware has been told that this is the crowd.
    pub fn heed(&self, channel: &Channel, session: SessionId, crowd: &Crowd) {
        self.inner.audience.heed(channel, session, crowd, &self.inner.metrics);
    }

    /// The channels that this pattern names and that anybody is on, each with its crowd, of which nobody is named; on all
    /// nodes, and with everything that was told to this desk before.
    ///
    /// # Errors
    /// [`BrokerError`], within a few times the deadline.
    pub async fn channels(&self, within: &Pattern) -> Result<Vec<(Channel, Arc<Crowd>)>, BrokerError> {
        let inner = &*self.inner;
        inner.catch_up().await;
        let mut channels = inner.call(inner.book.channels()).await?;
        channels.retain(|channel| within.matches(channel));
        channels.sort_unstable();
        let counted = stream::iter(channels).map(|channel| async move {
            let read = || inner.call(inner.book.crowd(channel.clone(), false));
            let crowd = inner.crowds.ask(&channel, false, read).await?;
            Ok((channel, crowd))
        });
        let counted: Vec<_> = counted.buffered(CROWDS_AT_ONCE).try_collect().await?;
        Ok(counted.into_iter().filter(|(_, crowd)| crowd.connections > 0).collect())
    }

    /// A subscription has ended, however that came. Never waits, and does no harm where [`Desk::enter`] was not called. From
    /// the return on the listener is told nothing of this channel.
    pub fn leave(&self, channel: &Channel, session: SessionId) {
        self.inner.audience.remove(channel, session);
        let grace = self.inner.options.grace;
        self.inner.change(|table| table.leave(channel, session, grace, Instant::now()));
    }

    /// Who is there, on all nodes; with everything that was told to this desk before, unless the crowd is large or the book is
    /// behind.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline.
    pub async fn crowd(&self, channel: &Channel, members: bool) -> Result<Arc<Crowd>, BrokerError> {
        let inner = &*self.inner;
        inner.catch_up().await;
        let read = || inner.call(inner.book.crowd(channel.clone(), members));
        inner.crowds.ask(channel, members, read).await
    }

    /// Takes note of what the backend was told, and answers what it is to be told now: [`Presence::settle`].
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline.
    pub async fn settle(&self, told: Vec<(Debt, Option<u64>)>) -> Result<Vec<Option<u64>>, BrokerError> {
        self.inner.call(self.inner.book.settle(told)).await
    }

    /// Writes what is still to be written, as far as that succeeds in time, and leaves the seat to go cold when the grace is over:
    /// the other nodes then tell of those who have not come back.
    pub async fn close(&self) {
        self.inner.catch_up().await;
        self.stop.cancel();
        let Some(seat) = self.inner.table.lock().seat().cloned() else { return };
        let grace = self.inner.options.grace.max(Duration::from_millis(1));
        // If this fails the seat goes cold within a heartbeat, as if the node had crashed.
        let _ = self.inner.call(self.inner.book.beat(seat.clone(), grace, false)).await;
    }
}

impl Inner {
    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = self.table.lock();
        let before = table.members();
        change(&mut table);
        let after = table.members();
        let is_behind = table.is_behind();
        drop(table);
        self.metrics.presence_members(signed(after) - signed(before));
        if is_behind {
            self.work.notify_one();
        }
    }

    /// Waits until the book has been asked for all that is queued now.
    async fn catch_up(&self) {
        let queued = self.table.lock().queued();
        let mut written = self.written.subscribe();
        // Too late or too slow: whoever reads is told what the book says, and the next read will say more.
        let _ = timeout(CATCH_UP, written.wait_for(|written| *written >= queued)).await;
    }

    /// Waits for an answer of the book, but not for ever, and counts how that ended.
    async fn call<T>(&self, answer: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
        let asked = Instant::now();
        let deadline = self.options.timeout;
        let answer = timeout(deadline, answer).await.unwrap_or(Err(BrokerError::Timeout(deadline)));
        let outcome = match &answer {
            Ok(_) => Outcome::Ok,
            Err(BrokerError::Timeout(_)) => Outcome::Timeout,
            Err(BrokerError::Unavailable(_) | BrokerError::Busy(_)) => Outcome::Unavailable,
        };
        self.metrics.broker_call(BrokerCall::Presence, outcome, asked.elapsed());
        answer
    }

    fn give_up(&self, seat: &Seat) {
        self.change(|table| table.stand(seat));
        self.seatless.notify_one();
    }

    /// Whether this node may judge others: its own seat has been warm for a whole interval. If not, the book may have been
    /// away from all of them.
    fn is_witness(&self) -> bool {
        let sitting = self.table.lock().sitting_for(Instant::now());
        sitting.is_some_and(|sitting| sitting >= self.options.heartbeat)
    }

    async fn ask_to_write(&self, batch: &Batch) -> Result<Vec<After>, BrokerError> {
        if batch.changes.is_empty() {
            return Ok(Vec::new()); // Whoever was queued has changed its mind.
        }
        let answer = self.book.write(batch.writer.clone(), batch.changes.clone());
        self.call(answer).await
    }

    /// Writes one batch; `false` when it has to be tried again later. Where a part of it was refused, others can be written.
    async fn write_batch(&self, batch: Batch) -> bool {
        let (seat, through) = (batch.writer.seat.clone(), batch.through);
        let done = match self.ask_to_write(&batch).await {
            Ok(answers) => {
                self.change(|table| table.written(batch, &answers));
                if answers.contains(&After::Cleared) {
                    self.give_up(&seat);
                }
                answers.is_empty() || answers.iter().any(|it| *it != After::Refused)
            }
            Err(BrokerError::Unavailable(_) | BrokerError::Busy(_)) => {
                self.change(|table| table.not_written(batch));
                false
            }
            Err(BrokerError::Timeout(_)) => {
                self.give_up(&seat);
                false
            }
        };
        self.written.send_if_modified(|last| std::mem::replace(last, through.max(*last)) < through);
        done
    }
}

/// The writer.
async fn write(inner: Arc<Inner>) {
    loop {
        let deadline = inner.table.lock().deadline();
        let grace_is_over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.work.notified() => sleep(GATHER).await,
            () = grace_is_over => {}
        }
        loop {
            inner.change(|table| table.end_grace(Instant::now()));
            let Some(batch) = inner.table.lock().take(BATCH_MAX) else { break };
            if !inner.write_batch(batch).await {
                sleep(RETRY).await;
            }
        }
    }
}

/// The keeper.
async fn keep(inner: Arc<Inner>) {
    let ttl = inner.options.heartbeat;
    let between = ttl / BEATS;
    loop {
        let sitting = inner.table.lock().seat().cloned();
        let (seat, new) =
            sitting.map_or_else(|| (Seat::new(&inner.options.node), true), |seat| (seat, false));
        let wait = match inner.call(inner.book.beat(seat.clone(), ttl, new)).await {
            Ok(beat) if beat.is_warm => {
                if new {
                    inner.change(|table| table.sit(seat, beat.life, Instant::now()));
                }
                between
            }
            Ok(_) => {
                inner.give_up(&seat);
                continue;
            }
            Err(_) => between.min(RETRY),
        };
        inner.crowds.forget();
        tokio::select! {
            () = sleep(wait) => {}
            () = inner.seatless.notified() => {}
        }
    }
}

/// The sweeper.
async fn sweep(inner: Arc<Inner>) {
    loop {
        // Jittered, so that nodes take turns at being first.
        let between = inner.options.heartbeat / BEATS;
        sleep(between.mul_f64(0.75 + fastrand::f64() / 4.0)).await;
        while inner.is_witness()
            && let Ok(true) = inner.call(inner.book.sweep()).await
        {}
    }
}

/// The crier.
async fn cry(inner: Arc<Inner>, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        inner.lookout.noticed(&notice);
        if let Some(connections) = notice.connections {
            inner.counts.note(&notice.channel, connections, Instant::now());
        }
        inner.audience.tell(&notice, &inner.metrics).await;
    }
}

/// The one who counts.
async fn count(inner: Arc<Inner>) {
    loop {
        for (channel, connections) in inner.counts.next().await {
            inner.audience.tell_count(&channel, connections, &inner.metrics);
            yield_now().await;
        }
    }
}

fn signed(members: usize) -> i64 {
    i64::try_from(members).expect("fewer than 2^63 members")
}
