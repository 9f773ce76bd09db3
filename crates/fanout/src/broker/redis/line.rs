//! A connection of its own for questions that may take long: whoever asks waits, and nobody else.
//!
//! It is opened by the first question and again by the first one after it was lost, with waits in between that grow while
//! that does not succeed: until the next attempt is due a question fails at once.

use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::Channel;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, ToRedisArgs, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::BrokerError;
use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::keys::Keys;
use crate::broker::redis::route::{Layout, Map};
use crate::broker::redis::server::{Lost, Server};
use crate::broker::redis::{RedisOptions, RedisOptionsError};

/// A line to each of the servers that the options name.
#[derive(Debug)]
pub(crate) struct Lines {
    layout: Arc<Layout>,
    keys: Keys,
    /// In the order of the route's indices.
    lines: Vec<Line>,
}

impl Lines {
    /// Opens nothing yet. The tasks of a line end when it is dropped or `shutdown` is cancelled.
    pub(crate) fn new(
        options: &RedisOptions,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, RedisOptionsError> {
        // Nobody asks who is where: a server that Sentinels name is away to a line, and a Redis Cluster has none.
        let layout = Map::of(&options.mode, &options.urls)?.topology.layout();
        let keys = Keys::new(&options.prefix).ok_or(RedisOptionsError::Prefix)?;
        let lines = layout
            .places()
            .iter()
            .cloned()
            .map(|it| Line::new(it.server, options.timeout, tasks, shutdown.clone()));
        let lines = lines.collect();
        Ok(Self { layout, keys, lines })
    }

    /// The place of a channel's line among [`Lines::all`].
    pub(crate) fn of(&self, channel: &Channel) -> usize {
        self.layout.of(channel).expect("configuration refuses presence where places move")
    }

    /// The pub/sub channel of Redis that carries a channel of ours.
    pub(crate) fn pubsub_channel<'a>(&'a self, channel: &'a Channel) -> impl ToRedisArgs + 'a {
        self.keys.of(channel)
    }

    /// One for each server.
    pub(crate) fn all(&self) -> &[Line] {
        &self.lines
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Line {
    server: Server,
    timeout: Duration,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: Option<Open>,
    backoff: Backoff,
    next_attempt: Instant,
    /// Counts the connections.
    opened: u64,
}

#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    number: u64,
    /// Cancelled when the connection is known to be lost.
    lost: CancellationToken,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open({})", self.number)
    }
}

impl Line {
    fn new(server: Server, timeout: Duration, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        let state = State { open: None, backoff: Backoff::new(), next_attempt: Instant::now(), opened: 0 };
        Self { server, timeout, tasks: tasks.clone(), shutdown, state: Mutex::new(state) }
    }

    /// Asks, and returns one answer per command; an error of one command is a [`Value::ServerError`] in its place.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when nothing was asked, [`BrokerError::Timeout`] when there was no answer.
    pub(crate) async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let Open { mut connection, number, .. } = self.open().await?;
        let asked = Instant::now();
        match connection.send_packed_commands(pipeline, 0, pipeline.len()).await {
            Ok(values) => {
                if values.iter().any(is_refusal) {
                    self.lose(number).await; // Another attempt may find another server, or this one recovered.
                }
                Ok(values)
            }
            Err(error) => {
                self.lose(number).await;
                Err(BrokerError::Timeout(if error.is_timeout() { self.timeout } else { asked.elapsed() }))
            }
        }
    }

    async fn open(&self) -> Result<Open, BrokerError> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| !open.lost.is_cancelled()) {
            return Ok(open.clone());
        }
        if Instant::now() < state.next_attempt {
            return Err(BrokerError::Unavailable("redis is away".into()));
        }
        match timeout(self.timeout, self.connect()).await.unwrap_or(Err(Lost::Silent(self.timeout))) {
            Ok((connection, lost)) => {
                state.backoff.reset();
                state.opened += 1;
                let open = Open { connection, number: state.opened, lost };
                state.open = Some(open.clone());
                Ok(open)
            }
            Err(lost) => {
                state.next_attempt = Instant::now() + state.backoff.next();
                let reason: Arc<str> = lost.to_string().into();
                Err(BrokerError::Unavailable(reason))
            }
        }
    }

    async fn lose(&self, number: u64) {
        let mut state = self.state.lock().await;
        state.open.take_if(|open| open.number == number);
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, CancellationToken), Lost> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.timeout));
        let socket = self.server.open(self.timeout).await?;
        let made = MultiplexedConnection::new_with_config(self.server.settings(), socket, config);
        // The driver has to run for the connection to be made; it ends with the last clone of the connection.
        let (connection, driver) = made.await.map_err(Lost::Failed)?;
        let lost = CancellationToken::new();
        let end = lost.clone().drop_guard();
        self.tasks.spawn(self.shutdown.clone().run_until_cancelled_owned(async move {
            driver.await;
            drop(end);
        }));
        Ok((connection, lost))
    }
}

/// Whether this server, as it is now, does not do its work.
fn is_refusal(value: &Value) -> bool {
    use redis::ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    let Value::ServerError(error) = value else { return false };
    matches!(error.kind(), Some(BusyLoading | ClusterDown | MasterDown | ReadOnly))
}
