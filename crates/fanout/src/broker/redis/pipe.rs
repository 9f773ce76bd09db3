//! Places drafts: a bounded queue, and one task that sends everything waiting as one pipeline.
//!
//! ```text
//!  publish ─► queue ─► task ─► pipeline ─► redis      up to PIPELINES_MAX under way,
//!     ▲        bounded   └──── each answer on its own ┘  each of up to PIPELINE_MAX commands
//! ```
//!
//! The busier the node, the longer the pipelines and the fewer the writes; an idle one sends a draft at once.
//!
//! **Invariants.**
//! - A draft takes its place in the queue the first time its `publish` is polled, and everything behind the queue is
//!   first in, first out: that is the order in which Redis sees the drafts of this node.
//! - While the connection is away nothing is queued. What waited when it was lost was not sent: it is answered
//!   [`BrokerError::Unavailable`]. What had been sent and not been answered may have been placed: the contract has one
//!   word for that, [`BrokerError::Timeout`], however short the time was.
//! - A pipeline that is not answered in time ends the connection. Nothing on it waits longer than that, so no draft needs
//!   a timer of its own.
//! - What a draft's command is, and how its answer reads, is in [`Job`] alone.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use fanfare_protocol::publication::{Draft, Position};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, ServerError, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::BrokerError;
use crate::broker::redis::Shared;
use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::envelope::{ENVELOPE_BYTES_MAX, Envelope};
use crate::broker::redis::keys::Keys;
use crate::broker::redis::link::Half;
use crate::broker::redis::server::{Lost, Server};

/// The most drafts that wait to be sent.
pub(super) const QUEUE_MAX: usize = 16_384;

/// The most bytes of drafts that wait to be sent or are under way.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most commands in one pipeline.
const PIPELINE_MAX: usize = 512;

/// The most pipelines under way.
const PIPELINES_MAX: usize = 4;

type Answer = oneshot::Sender<Result<Option<Position>, BrokerError>>;

/// A draft as a command, and who wants to know what becomes of it.
#[derive(Debug)]
struct Job {
    command: Cmd,
    answer: Answer,
    weight: Weight,
}

/// A draft's part of [`QUEUE_BYTES_MAX`], given back when dropped.
#[derive(Debug)]
struct Weight {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Weight {
    /// `None` when that would be too much.
    fn put(bytes: usize, total: &Arc<AtomicUsize>) -> Option<Self> {
        let weight = Self { bytes, total: total.clone() };
        let before = total.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= QUEUE_BYTES_MAX).then_some(weight)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The near end of the queue.
#[derive(Debug)]
pub(super) struct Publisher {
    shared: Arc<Shared>,
    half: Arc<Half>,
    jobs: mpsc::Sender<Job>,
    bytes: Arc<AtomicUsize>,
}

impl Publisher {
    /// Starts the task that keeps a server's connection for publishing.
    pub(super) fn start(shared: &Arc<Shared>, server: Server, half: Arc<Half>) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let publisher = Self { shared: shared.clone(), half: half.clone(), jobs, bytes: Arc::default() };
        let task = Task { shared: shared.clone(), server, half, queue };
        shared
            .tasks
            .spawn(async move { task.shared.shutdown.clone().run_until_cancelled_owned(task.run()).await });
        publisher
    }

    /// Queues a draft before the first await, and waits for its answer.
    pub(super) async fn publish(&self, draft: &Draft) -> Result<Option<Position>, BrokerError> {
        if !self.half.is_up() {
            return Err(BrokerError::Unavailable("redis is away".into()));
        }
        let busy = || BrokerError::Busy(self.jobs.max_capacity() - self.jobs.capacity());
        let envelope = Envelope { draft, position: None };
        if envelope.len() > ENVELOPE_BYTES_MAX {
            let reason = format!("a publication of {} bytes is too large for it", envelope.len());
            return Err(BrokerError::Unavailable(reason.into()));
        }
        let weight = Weight::put(envelope.len(), &self.bytes).ok_or_else(busy)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { command: Job::command(&self.shared.keys, envelope), answer, weight };
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => busy(),
            mpsc::error::TrySendError::Closed(_) => shutting_down(),
        })?;
        answered.await.unwrap_or_else(|_| Err(shutting_down()))
    }
}

impl Job {
    fn command(keys: &Keys, envelope: Envelope<'_>) -> Cmd {
        const NAME: &str = "PUBLISH";
        let key = keys.of(&envelope.draft.channel);
        let mut command = Cmd::with_capacity(3, NAME.len() + key.len() + envelope.len());
        command.arg(NAME).arg(key).arg(envelope);
        command
    }

    /// What the server's answer to the command means.
    fn read(value: Value) -> Result<Option<Position>, BrokerError> {
        match value {
            Value::Int(_receivers) => Ok(None),
            Value::ServerError(error) => Err(BrokerError::Unavailable(words(&error).into())),
            _ => Err(BrokerError::Unavailable("redis is not understood".into())),
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    server: Server,
    half: Arc<Half>,
    queue: mpsc::Receiver<Job>,
}

/// Moves the bytes of a connection, and ends when it is lost.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let connecting = connect(self.server.clone(), self.shared.clone());
            let lost = match self.while_away(connecting).await {
                Some(Ok((connection, driver))) => {
                    backoff.reset();
                    self.half.rise();
                    self.serve(connection, driver).await
                }
                Some(Err(lost)) => lost,
                None => return,
            };
            if matches!(lost, Lost::ShuttingDown) {
                return;
            }
            self.half.fall(&lost);
            if self.while_away(sleep(backoff.next())).await.is_none() {
                return;
            }
        }
    }

    /// Waits for something, and turns away whatever is in the queue or comes into it meanwhile. `None` when the broker
    /// is gone.
    async fn while_away<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        let mut something = std::pin::pin!(something);
        loop {
            tokio::select! {
                biased; // The queue first: whatever waited when the connection was lost is turned away before the next.
                job = self.queue.recv() => {
                    let _ = job?.answer.send(Err(BrokerError::Unavailable("redis is away".into())));
                }
                outcome = &mut something => return Some(outcome),
            }
        }
    }

    async fn serve(&mut self, connection: MultiplexedConnection, mut driver: Driver) -> Lost {
        let mut flights = FuturesUnordered::new();
        let mut jobs = Vec::new();
        let ping = sleep(self.shared.ping_interval);
        tokio::pin!(ping);
        let lost = loop {
            let taken = tokio::select! {
                biased; // Answers before questions: what is under way is bounded, and so is what waits for it.
                () = &mut driver => break Lost::Closed,
                Some(landed) = flights.next() => match landed {
                    Ok(()) => continue,
                    Err(lost) => break lost,
                },
                taken = self.queue.recv_many(&mut jobs, PIPELINE_MAX), if flights.len() < PIPELINES_MAX => taken,
                () = &mut ping => {
                    ping.as_mut().reset(Instant::now() + self.shared.ping_interval);
                    if !flights.is_empty() {
                        continue; // They have a deadline, which is as good as a PING.
                    }
                    usize::MAX
                }
            };
            if taken == 0 {
                break Lost::ShuttingDown;
            }
            let flight = fly(connection.clone(), mem::take(&mut jobs), self.shared.timeout);
            // The first poll puts a pipeline into the connection's queue, which has room for all that may be under way.
            // Tokio's budget must not defer it: a later pipeline would overtake it.
            let mut flight = Box::pin(unconstrained(flight));
            match futures_util::poll!(&mut flight) {
                Poll::Pending => flights.push(flight),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => break lost,
            }
        };
        // Without the driver whatever is still under way fails at once, and says so to those who wait.
        drop(driver);
        drop(connection);
        while flights.next().await.is_some() {}
        lost
    }
}

/// Sends one pipeline, a PING when there are no jobs, and gives every job its answer.
async fn fly(mut connection: MultiplexedConnection, jobs: Vec<Job>, deadline: Duration) -> Result<(), Lost> {
    let asked = Instant::now();
    let mut pipeline = Pipeline::with_capacity(jobs.len().max(1));
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        // Nobody waits for a draft whose deadline has passed: it is not sent.
        if !job.answer.is_closed() {
            pipeline.add_command(job.command);
            answers.push((job.answer, job.weight));
        }
    }
    if answers.is_empty() {
        pipeline.cmd("PING");
    }
    match connection.send_packed_commands(&pipeline, 0, pipeline.len()).await {
        Ok(values) => {
            let refused = values.iter().find_map(refusal);
            for ((answer, _), value) in answers.into_iter().zip(values) {
                let _ = answer.send(Job::read(value)); // Whoever has gone does not want to know.
            }
            refused.map_or(Ok(()), Err)
        }
        Err(error) => {
            let silent = error.is_timeout();
            let waited = if silent { deadline } else { asked.elapsed() };
            for (answer, _) in answers {
                let _ = answer.send(Err(BrokerError::Timeout(waited)));
            }
            Err(if silent { Lost::Silent(deadline) } else { Lost::Failed(error) })
        }
    }
}

/// Whether an answer means that this server, as it is now, will take no publication from us: another attempt may lead to
/// another server, or find this one recovered. Other errors concern one command.
fn refusal(value: &Value) -> Option<Lost> {
    let Value::ServerError(error) = value else { return None };
    match error.kind()? {
        ServerErrorKind::BusyLoading
        | ServerErrorKind::ClusterDown
        | ServerErrorKind::MasterDown
        | ServerErrorKind::ReadOnly => Some(Lost::Refused(words(error))),
        _ => None,
    }
}

/// Opens a connection that has proved to work.
async fn connect(server: Server, shared: Arc<Shared>) -> Result<(MultiplexedConnection, Driver), Lost> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(shared.timeout))
        .set_pipeline_buffer_size(2 * PIPELINES_MAX);
    let socket = server.open(shared.timeout).await?;
    let name = shared.client_name("publish");
    let greeting = async {
        let made = MultiplexedConnection::new_with_config(server.settings(), socket, config).await;
        let (mut connection, driver) = made.map_err(Lost::Failed)?;
        let mut driver: Driver = Box::pin(driver);
        tokio::select! {
            () = &mut driver => Err(Lost::Closed),
            outcome = introduce(&mut connection, &name) => outcome,
        }?;
        Ok((connection, driver))
    };
    timeout(shared.timeout, greeting).await.unwrap_or(Err(Lost::Silent(shared.timeout)))
}

/// Gives the connection a name, if that is allowed, and makes sure that the server works.
async fn introduce(connection: &mut MultiplexedConnection, name: &str) -> Result<(), Lost> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("CLIENT").arg("SETNAME").arg(name).cmd("PING");
    let values = connection.send_packed_commands(&pipeline, 0, 2).await.map_err(Lost::Failed)?;
    match values.last() {
        Some(Value::ServerError(error)) => Err(Lost::Refused(words(error))),
        _ => Ok(()),
    }
}

/// An error as the server worded it.
fn words(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn shutting_down() -> BrokerError {
    BrokerError::Unavailable("the node is shutting down".into())
}
