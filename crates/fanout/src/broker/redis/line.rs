//! A connection of its own for questions that may take long: whoever asks waits, and nobody else.
//!
//! It is opened by the first question and again by the first one after it was lost, with waits in between that grow while
//! that does not succeed: until the next attempt is due a question fails at once. A server that has moved is tried at once.
//!
//! **Invariants.**
//! - A connection leads to a primary, and says to which [`Process`]: the answers to questions asked by way of one
//!   [`Connected`] come from the same data. It ends when another server has taken over, or this one refuses to work.
//! - A question is asked once. One without an answer may have been heard.

use std::fmt;
use std::sync::Arc;

use fanfare_protocol::Channel;
use parking_lot::Mutex as SyncMutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::BrokerError;
use crate::broker::redis::Shared;
use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::keys::Keys;
use crate::broker::redis::pipe::{field, is_elsewhere};
pub(crate) use crate::broker::redis::route::PlaceId;
use crate::broker::redis::route::{Layout, Place};
use crate::broker::redis::server::{Address, Lost, Server};

/// Has a line to each server of a broker, whichever they are at the time.
#[derive(Debug)]
pub(crate) struct Switchboard {
    shared: Arc<Shared>,
    purpose: &'static str,
    now: SyncMutex<Arc<Lines>>,
}

/// A line to each server of a broker, at one moment.
#[derive(Debug)]
pub(crate) struct Lines {
    layout: Arc<Layout>,
    /// In the order of the layout's places.
    lines: Vec<Arc<Line>>,
}

impl Switchboard {
    /// Opens nothing yet. The tasks of a line end when it is dropped or the broker shuts down.
    /// The purpose is how CLIENT LIST shows them.
    pub(super) fn new(shared: &Arc<Shared>, purpose: &'static str) -> Self {
        let now = Lines::at(shared, purpose, shared.topology.layout(), &[]);
        Self { shared: shared.clone(), purpose, now: SyncMutex::new(Arc::new(now)) }
    }

    /// The lines to the servers of the moment. Those that stay are the same as before.
    pub(crate) fn now(&self) -> Arc<Lines> {
        let layout = self.shared.topology.layout();
        let mut now = self.now.lock();
        if !Arc::ptr_eq(&now.layout, &layout) {
            *now = Arc::new(Lines::at(&self.shared, self.purpose, layout, &now.lines));
        }
        now.clone()
    }

    /// Returns whether there are other lines than these, as soon as there are, within the deadline.
    pub(crate) async fn is_other_than(&self, lines: &Lines) -> bool {
        let Some(mut layouts) = self.shared.topology.changes() else { return false };
        let other = layouts.wait_for(|layout| !Arc::ptr_eq(layout, &lines.layout));
        timeout(self.shared.timeout, other).await.is_ok_and(|it| it.is_ok())
    }

    /// What things are called there.
    pub(crate) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// The command that publishes.
    pub(crate) fn publish(&self) -> &'static str {
        self.shared.pubsub.publish()
    }
}

impl Lines {
    fn at(shared: &Arc<Shared>, purpose: &'static str, layout: Arc<Layout>, known: &[Arc<Line>]) -> Self {
        let line = |place: &Place| {
            let known = known.iter().find(|line| line.place == place.id).cloned();
            known.unwrap_or_else(|| Arc::new(Line::new(place.clone(), purpose, shared.clone())))
        };
        Self { lines: layout.places().iter().map(line).collect(), layout }
    }

    /// The place of a channel's line among [`Lines::all`], if any server has the channel.
    pub(crate) fn of(&self, channel: &Channel) -> Option<usize> {
        self.layout.of(channel)
    }

    /// For each slot of a Redis Cluster the place of its line, if any server has it. Servers that are none have no slots.
    pub(crate) fn slots(&self) -> Option<&[Option<u16>]> {
        self.layout.slots()
    }

    /// One for each server.
    pub(crate) fn all(&self) -> &[Arc<Line>] {
        &self.lines
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Line {
    place: PlaceId,
    server: Server,
    purpose: &'static str,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: Option<Open>,
    backoff: Backoff,
    /// When to try again where the last attempt has failed.
    next_attempt: Instant,
    /// Where that was.
    tried: Option<Address>,
    /// Counts the connections.
    opened: u64,
}

#[derive(Clone)]
pub(super) struct Open {
    connection: MultiplexedConnection,
    process: Process,
    number: u64,
    /// Cancelled when the connection is known to be lost.
    lost: CancellationToken,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Open({})", self.number)
    }
}

/// Names a server for as long as it has not been started again and has been a primary without a break: whoever finds the
/// same one twice finds everything that it has answered for in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    /// Reads two sections of INFO, `server` and `replication`. Where INFO may not be asked processes cannot be told apart.
    fn read(server: &str, replication: &str) -> Self {
        // `run_id` is new with every start, `master_replid` with every promotion. Both are random.
        let digits = |info, name| {
            let id: &str = field(info, name)?;
            u64::from_str_radix(id.get(..16)?, 16).ok()
        };
        let [run, term] = [digits(server, "run_id"), digits(replication, "master_replid")];
        Self(run.unwrap_or(0) ^ term.unwrap_or(0).rotate_left(1))
    }

    /// A number of its own.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// A line, and a connection that it had when it was asked for one.
#[derive(Debug)]
pub(crate) struct Connected<'a> {
    line: &'a Line,
    open: Open,
}

impl<'a> Connected<'a> {
    /// The line again, by the connection that it had.
    pub(super) fn of(line: &'a Line, open: Open) -> Self {
        Self { line, open }
    }

    /// The connection alone.
    pub(super) fn into_open(self) -> Open {
        self.open
    }

    /// Where it leads.
    pub(crate) fn process(&self) -> Process {
        self.open.process
    }

    /// Asks, and returns one answer per command; an error of one command is a [`Value::ServerError`] in its place.
    ///
    /// # Errors
    /// [`BrokerError::Timeout`] when there was no answer.
    pub(crate) async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let asked = Instant::now();
        let mut connection = self.open.connection.clone();
        match connection.send_packed_commands(pipeline, 0, pipeline.len()).await {
            Ok(values) => {
                if values.iter().any(is_refusal) {
                    self.lose().await; // Another attempt may find another server, or this one recovered.
                }
                if values.iter().any(is_elsewhere) {
                    self.line.shared.topology.nudge();
                }
                Ok(values)
            }
            Err(error) => {
                self.lose().await;
                let waited = if error.is_timeout() { self.line.shared.timeout } else { asked.elapsed() };
                Err(BrokerError::Timeout(waited))
            }
        }
    }

    async fn lose(&self) {
        let mut state = self.line.state.lock().await;
        state.open.take_if(|open| open.number == self.open.number);
        self.line.shared.topology.nudge();
    }
}

impl Line {
    fn new(Place { id, server }: Place, purpose: &'static str, shared: Arc<Shared>) -> Self {
        let state = State {
            open: None,
            backoff: Backoff::new(),
            next_attempt: Instant::now(),
            tried: server.address(),
            opened: 0,
        };
        Self { place: id, server, purpose, shared, state: Mutex::new(state) }
    }

    /// What its server is called, whichever it is.
    pub(crate) fn place(&self) -> PlaceId {
        self.place
    }

    /// The connection, or a new one.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`]: nothing can be asked now.
    pub(crate) async fn connected(&self) -> Result<Connected<'_>, BrokerError> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| !open.lost.is_cancelled()) {
            return Ok(Connected { line: self, open: open.clone() });
        }
        let address = self.server.address();
        if Instant::now() < state.next_attempt && address == state.tried {
            return Err(BrokerError::Unavailable("redis is away".into()));
        }
        let deadline = self.shared.timeout;
        match timeout(deadline, self.connect()).await.unwrap_or(Err(Lost::Silent(deadline))) {
            Ok((connection, process, lost)) => {
                state.backoff.reset();
                state.opened += 1;
                let open = Open { connection, process, number: state.opened, lost };
                state.open = Some(open.clone());
                Ok(Connected { line: self, open })
            }
            Err(lost) => {
                state.next_attempt = Instant::now() + state.backoff.next();
                state.tried = address;
                let reason: Arc<str> = lost.to_string().into();
                Err(BrokerError::Unavailable(reason))
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Process, CancellationToken), Lost> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.shared.timeout));
        let (socket, mut tenure) = self.server.follow(self.shared.timeout).await?;
        let made = MultiplexedConnection::new_with_config(self.server.settings(), socket, config);
        // The driver has to run for the connection to be made; it ends with the last clone of the connection.
        let (mut connection, driver) = made.await.map_err(Lost::Failed)?;
        let lost = CancellationToken::new();
        let end = lost.clone().drop_guard();
        self.shared.tasks.spawn(self.shared.shutdown.clone().run_until_cancelled_owned(async move {
            tokio::select! {
                () = driver => {}
                () = tenure.ended() => {} // Whatever is under way fails at once.
            }
            drop(end);
        }));
        let process = introduce(&mut connection, &self.shared.client_name(self.purpose)).await?;
        Ok((connection, process, lost))
    }
}

/// Gives the connection a name, if that is allowed, and makes sure that it leads to a primary.
async fn introduce(connection: &mut MultiplexedConnection, name: &str) -> Result<Process, Lost> {
    let mut pipeline = Pipeline::with_capacity(3);
    pipeline.cmd("CLIENT").arg("SETNAME").arg(name);
    pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let answers =
        connection.send_packed_commands(&pipeline, 0, pipeline.len()).await.map_err(Lost::Failed)?;
    let sections = answers.into_iter().skip(1).map(|it| redis::from_redis_value(it).unwrap_or_default());
    let [server, replication]: [String; 2] =
        sections.collect::<Vec<_>>().try_into().map_err(|_| Lost::NotUnderstood("INFO"))?;
    if field(&replication, "role").is_some_and(|role| role != "master") {
        return Err(Lost::Refused("READONLY it is a replica".to_owned()));
    }
    Ok(Process::read(&server, &replication))
}

/// Whether this server, as it is now, does not do its work.
fn is_refusal(value: &Value) -> bool {
    use redis::ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    let Value::ServerError(error) = value else { return false };
    matches!(error.kind(), Some(BusyLoading | ClusterDown | MasterDown | ReadOnly))
}
