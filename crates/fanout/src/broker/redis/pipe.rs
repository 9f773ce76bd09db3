//! Runs commands on one server: a bounded queue, and one task that sends everything waiting as one pipeline.
//!
//! ```text
//!  run ─► queue ─► task ─► pipeline ─► redis      up to PIPELINES_MAX under way,
//!   ▲     bounded   └──── each answer on its own ┘  each of up to PIPELINE_MAX commands
//! ```
//!
//! The busier the node, the longer the pipelines and the fewer the writes; an idle one sends a command at once.
//!
//! **Invariants.**
//! - A command takes its place in the queue when `queue` is called, or the first time its `run` is polled, and everything behind the queue is first
//!   in, first out: that is the order in which Redis sees the commands of this pipe. So nothing is ever sent again by the
//!   pipe itself: it would be overtaken by what came after it.
//! - While the connection is away nothing is queued. What waited when it was lost was not sent: it is answered
//!   [`BrokerError::Unavailable`]. What had been sent and not been answered may have been done: the contract has one
//!   word for that, [`BrokerError::Timeout`], however short the time was.
//! - A pipeline that is not answered in time ends the connection. Nothing on it waits longer than that, so no command
//!   needs a timer of its own.
//! - A connection is used for a primary only, and a script hears which life of the server it runs in. Whoever waits for an answer
//!   for [`DOUBT`] has it asked who leads. A server that may be replaced and was silent is tried for [`PROBATION`] first: frozen,
//!   or cut off from everybody, it may have been replaced, and until it hears of that it acknowledges what its successor
//!   never gets.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, ServerError, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::BrokerError;
use crate::broker::redis::Shared;
use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::link::Half;
use crate::broker::redis::pubsub::Pubsub;
use crate::broker::redis::route::Topology;
use crate::broker::redis::scripts::Script;
use crate::broker::redis::server::{Lost, Server, Tenure};

/// The most commands that wait to be sent.
pub(super) const QUEUE_MAX: usize = 16_384;

/// The most bytes of commands that wait to be sent or are under way.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most commands in one pipeline.
pub(super) const PIPELINE_MAX: usize = 512;

/// The most pipelines under way.
const PIPELINES_MAX: usize = 4;

/// How long a server that was silent has to answer and to be the primary before it is used again. It hears of a successor as
/// soon as it hears anything, and we hear of one, or that there is about to be one, each time that [`route`](super::route)
/// is asked meanwhile.
pub(super) const PROBATION: Duration = Duration::from_secs(2);

/// How long an answer may be due before it is asked who is the primary, and how often then.
const DOUBT: Duration = Duration::from_millis(250);

/// Something for Redis to do.
#[derive(Debug)]
pub(super) struct Command {
    command: Cmd,
    /// About how many bytes it is.
    bytes: usize,
    /// A script wants to know in which life of the server it runs.
    is_script: bool,
}

impl Command {
    /// A command as it is.
    pub(super) fn plain(command: Cmd, bytes: usize) -> Self {
        Self { command, bytes, is_script: false }
    }

    /// A command that [`Script::run`] began and that lacks only the last argument.
    pub(super) fn script(command: Cmd, bytes: usize) -> Self {
        Self { command, bytes, is_script: true }
    }
}

/// A command, and who wants to know what becomes of it.
#[derive(Debug)]
struct Job {
    command: Command,
    answer: oneshot::Sender<Result<Value, BrokerError>>,
    weight: Weight,
}

/// A command's part of [`QUEUE_BYTES_MAX`], given back when dropped.
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

/// What a pipe is for.
#[derive(Debug)]
pub(super) struct Purpose {
    /// A word for CLIENT LIST and the log.
    pub(super) name: &'static str,
    /// What it runs.
    pub(super) scripts: &'static [&'static Script],
}

/// The near end of the queue.
#[derive(Debug)]
pub(super) struct Pipe {
    half: Arc<Half>,
    jobs: mpsc::Sender<Job>,
    bytes: Arc<AtomicUsize>,
    life: Arc<Mutex<Life>>,
}

impl Pipe {
    /// Starts the task that keeps a connection of its own to a server.
    pub(super) fn start(
        shared: &Arc<Shared>,
        server: Server,
        half: Arc<Half>,
        purpose: &'static Purpose,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let life = Arc::new(Mutex::new(UNKNOWN));
        let pipe = Self { half: half.clone(), jobs, bytes: Arc::default(), life: life.clone() };
        let task = Task { shared: shared.clone(), server, half, purpose, queue, life };
        shared
            .tasks
            .spawn(async move { task.shared.shutdown.clone().run_until_cancelled_owned(task.run()).await });
        pipe
    }

    /// Queues a command before the first await, and waits for the answer, which may be [`Value::ServerError`].
    pub(super) async fn run(&self, command: Command) -> Result<Value, BrokerError> {
        self.queue(command)?.wait().await
    }

    /// The life of the server that the connection leads to. Whatever was answered before was answered in this one, or in one
    /// that is over.
    pub(super) fn life(&self) -> Life {
        *self.life.lock()
    }

    /// Queues a command, at once.
    pub(super) fn queue(&self, command: Command) -> Result<Answer, BrokerError> {
        if !self.half.is_up() {
            return Err(BrokerError::Unavailable("redis is away".into()));
        }
        let busy = || BrokerError::Busy(self.jobs.max_capacity() - self.jobs.capacity());
        let weight = Weight::put(command.bytes, &self.bytes).ok_or_else(busy)?;
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job { command, answer, weight }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => busy(),
            mpsc::error::TrySendError::Closed(_) => shutting_down(),
        })?;
        Ok(Answer(answered))
    }
}

/// What is still to be said to a command. Whoever drops it before the command was sent takes it back.
#[derive(Debug)]
pub(super) struct Answer(oneshot::Receiver<Result<Value, BrokerError>>);

impl Answer {
    /// Waits for it; it may be [`Value::ServerError`].
    pub(super) async fn wait(self) -> Result<Value, BrokerError> {
        self.0.await.unwrap_or_else(|_| Err(shutting_down()))
    }
}

struct Task {
    shared: Arc<Shared>,
    server: Server,
    half: Arc<Half>,
    purpose: &'static Purpose,
    queue: mpsc::Receiver<Job>,
    life: Arc<Mutex<Life>>,
}

/// A connection that has proved to work.
struct Connected {
    connection: MultiplexedConnection,
    driver: Driver,
    tenure: Tenure,
    life: Life,
}

/// The first half of the process' `run_id`, by which scripts tell one life of a server from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life([u8; 20]);

/// Where INFO may not be asked, lives cannot be told apart.
const UNKNOWN: Life = Life([b'0'; 20]);

impl Life {
    /// As scripts write it down.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Moves the bytes of a connection, and ends when it is lost.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut was_silent = false;
        loop {
            let (server, tried) = (self.server.clone(), self.server.address());
            let connecting = connect(server.clone(), self.shared.clone(), self.purpose, was_silent);
            let lost = match self.while_away(connecting).await {
                Some(Ok(connected)) => {
                    backoff.reset();
                    was_silent = false;
                    *self.life.lock() = connected.life; // Before anything is answered.
                    self.half.rise();
                    self.serve(connected).await
                }
                Some(Err(lost)) => lost,
                None => return,
            };
            match lost {
                Lost::ShuttingDown => return,
                Lost::Silent(_) => was_silent = true,
                _ => {}
            }
            self.half.fall(&lost);
            self.shared.topology.nudge();
            if self.while_away(server.rest(&mut backoff, tried.as_ref())).await.is_none() {
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

    async fn serve(&mut self, connected: Connected) -> Lost {
        let Connected { connection, mut driver, mut tenure, life } = connected;
        let mut flights = FuturesUnordered::new();
        let mut jobs = Vec::new();
        let mut load = false;
        let ping = sleep(self.shared.ping_interval);
        let doubt = sleep(DOUBT);
        tokio::pin!(ping, doubt);
        let mut owed_since = Instant::now();
        let lost = loop {
            let taken = tokio::select! {
                biased; // Answers before questions: what is under way is bounded, and so is what waits for it.
                () = &mut driver => break Lost::Closed,
                () = tenure.ended() => break Lost::Moved,
                Some(landed) = flights.next() => match landed {
                    Ok(Landed { scripts_unknown }) => {
                        load |= scripts_unknown;
                        owed_since = Instant::now();
                        continue;
                    }
                    Err(lost) => break lost,
                },
                () = &mut doubt, if !flights.is_empty() => {
                    doubt.as_mut().reset(Instant::now() + DOUBT);
                    if owed_since.elapsed() >= DOUBT {
                        self.shared.topology.nudge();
                    }
                    continue;
                }
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
            let scripts = if mem::take(&mut load) { self.purpose.scripts } else { &[] };
            let (jobs, deadline) = (mem::take(&mut jobs), self.shared.timeout);
            let flight = Flight { scripts, jobs, life, deadline, topology: self.shared.topology.clone() };
            let flight = flight.fly(connection.clone());
            // The first poll puts a pipeline into the connection's queue, which has room for all that may be under way.
            // Tokio's budget must not defer it: a later pipeline would overtake it.
            let mut flight = Box::pin(unconstrained(flight));
            if flights.is_empty() {
                owed_since = Instant::now();
            }
            match futures_util::poll!(&mut flight) {
                Poll::Pending => flights.push(flight),
                Poll::Ready(Ok(Landed { scripts_unknown })) => load |= scripts_unknown,
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

/// One pipeline.
struct Flight {
    /// To be loaded first.
    scripts: &'static [&'static Script],
    /// None makes it a PING.
    jobs: Vec<Job>,
    life: Life,
    deadline: Duration,
    topology: Arc<Topology>,
}

/// What a pipeline has come to, besides its answers.
struct Landed {
    scripts_unknown: bool,
}

impl Flight {
    /// Sends it, and gives every job its answer.
    async fn fly(self, mut connection: MultiplexedConnection) -> Result<Landed, Lost> {
        let asked = Instant::now();
        let mut pipeline = Pipeline::with_capacity(self.scripts.len() + self.jobs.len().max(1));
        for script in self.scripts {
            pipeline.add_command(script.load());
        }
        let mut answers = Vec::with_capacity(self.jobs.len());
        for Job { mut command, answer, weight } in self.jobs {
            // Nobody waits for an answer whose deadline has passed: the command is not sent.
            if answer.is_closed() {
                continue;
            }
            if command.is_script {
                command.command.arg(self.life.as_bytes());
            }
            pipeline.add_command(command.command);
            answers.push((answer, weight));
        }
        if answers.is_empty() {
            pipeline.cmd("PING");
        }
        match connection.send_packed_commands(&pipeline, 0, pipeline.len()).await {
            Ok(values) => {
                let refused = values.iter().find_map(refusal);
                let scripts_unknown = values.iter().any(is_unknown_script);
                // Such a command was not carried out, and is answered so: the connection is as good as before, but who is
                // where is not what it was.
                if values.iter().any(is_elsewhere) {
                    self.topology.nudge();
                }
                for ((answer, _), value) in
                    answers.into_iter().zip(values.into_iter().skip(self.scripts.len()))
                {
                    let _ = answer.send(Ok(value)); // Whoever has gone does not want to know.
                }
                refused.map_or(Ok(Landed { scripts_unknown }), Err)
            }
            Err(error) => {
                let silent = error.is_timeout();
                let waited = if silent { self.deadline } else { asked.elapsed() };
                for (answer, _) in answers {
                    let _ = answer.send(Err(BrokerError::Timeout(waited)));
                }
                Err(if silent { Lost::Silent(self.deadline) } else { Lost::Failed(error) })
            }
        }
    }
}

/// Whether Redis has forgotten a script: nothing was done.
pub(super) fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// Whether the slot is another server's, or is becoming one's: nothing was done.
pub(super) fn is_elsewhere(value: &Value) -> bool {
    use ServerErrorKind::{Ask, Moved, TryAgain};
    matches!(value, Value::ServerError(error) if matches!(error.kind(), Some(Ask | Moved | TryAgain)))
}

/// Whether an answer means that this server, as it is now, will take nothing from us: another attempt may lead to
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

/// Opens a connection that has proved to work; to a server that was silent, and may have been replaced, for a while.
async fn connect(
    server: Server,
    shared: Arc<Shared>,
    purpose: &'static Purpose,
    was_silent: bool,
) -> Result<Connected, Lost> {
    let mut connected = greet(server, &shared, purpose).await?;
    if was_silent && connected.tenure.may_end() {
        let asking = async {
            loop {
                shared.topology.nudge();
                sleep(DOUBT).await;
            }
        };
        tokio::select! {
            () = &mut connected.driver => return Err(Lost::Closed),
            () = connected.tenure.ended() => return Err(Lost::Moved),
            _ = timeout(PROBATION, asking) => {}
        }
    }
    Ok(connected)
}

async fn greet(server: Server, shared: &Shared, purpose: &'static Purpose) -> Result<Connected, Lost> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(shared.timeout))
        .set_pipeline_buffer_size(2 * PIPELINES_MAX);
    let (socket, tenure) = server.follow(shared.timeout).await?;
    let name = shared.client_name(purpose.name);
    let greeting = async {
        let made = MultiplexedConnection::new_with_config(server.settings(), socket, config).await;
        let (mut connection, driver) = made.map_err(Lost::Failed)?;
        let mut driver: Driver = Box::pin(driver);
        let life = tokio::select! {
            () = &mut driver => Err(Lost::Closed),
            outcome = introduce(&mut connection, &name, purpose.scripts, shared.pubsub) => outcome,
        }?;
        Ok(Connected { connection, driver, tenure, life })
    };
    timeout(shared.timeout, greeting).await.unwrap_or(Err(Lost::Silent(shared.timeout)))
}

/// Gives the connection a name and loads its scripts, if that is allowed, and makes sure that the server works and is a
/// primary: a replica would take publications, and tell them to nobody. A node of a Redis Cluster that finds the cluster
/// down would refuse them all.
async fn introduce(
    connection: &mut MultiplexedConnection,
    name: &str,
    scripts: &[&Script],
    pubsub: Pubsub,
) -> Result<Life, Lost> {
    let mut pipeline = Pipeline::with_capacity(scripts.len() + 5);
    pipeline.cmd("CLIENT").arg("SETNAME").arg(name);
    for script in scripts {
        pipeline.add_command(script.load());
    }
    if pubsub == Pubsub::Shard {
        pipeline.cmd("CLUSTER").arg("INFO");
    }
    pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication").cmd("PING");
    let values = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await.map_err(Lost::Failed)?;
    let mut last = values.into_iter().rev();
    if let Some(Value::ServerError(error)) = last.next() {
        return Err(Lost::Refused(words(&error)));
    }
    let mut section =
        || last.next().and_then(|it| redis::from_redis_value::<String>(it).ok()).unwrap_or_default();
    if field(&section(), "role").is_some_and(|role| role != "master") {
        return Err(Lost::Refused("READONLY it is a replica".to_owned()));
    }
    let mut life = UNKNOWN;
    for (byte, digit) in life.0.iter_mut().zip(field(&section(), "run_id").unwrap_or_default().bytes()) {
        *byte = digit;
    }
    if pubsub == Pubsub::Shard && field(&section(), "cluster_state").is_some_and(|state| state != "ok") {
        return Err(Lost::Refused("CLUSTERDOWN it finds the cluster incomplete".to_owned()));
    }
    Ok(life)
}

/// A value in what INFO says.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// An error as the server worded it.
pub(super) fn words(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn shutting_down() -> BrokerError {
    BrokerError::Unavailable("the node is shutting down".into())
}
