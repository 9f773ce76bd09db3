//! Servers of Redis for who is no broker: reached as the broker reaches its own, wherever they are at the time.
//!
//! ```text
//!  RedisServers ─► RedisWay, to the server that has a key ─► RedisLine, for as long as that server has it
//! ```
//!
//! **Invariants.** All that is asked on a line is asked of one server: it ends when another has taken over, and when the server
//! refuses to work. Where a server says that a key is another's by now, the next line of the way leads there, as soon as it
//! is known where that is.

use std::sync::Arc;

use fanfare_metrics::Metrics;
use redis::{Pipeline, Value};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::broker::BrokerError;
use crate::broker::redis::keys;
use crate::broker::redis::line::{Connected, Line, Lines, Open, Switchboard};
use crate::broker::redis::route::Map;
use crate::broker::redis::{RedisOptions, RedisOptionsError, Shared};

/// See the [module's essay](self).
#[derive(Debug)]
pub struct RedisServers {
    shared: Arc<Shared>,
    purpose: &'static str,
    /// Ends the tasks that follow the servers.
    _following: DropGuard,
}

/// The way to the server that has a key.
#[derive(Debug)]
pub struct RedisWay {
    servers: Arc<RedisServers>,
    switchboard: Switchboard,
    slot: u16,
}

/// A connection to a server. Dropped, it is kept for the next of its way.
#[derive(Debug)]
pub struct RedisLine {
    line: Arc<Line>,
    open: Open,
}

impl RedisServers {
    /// Opens nothing yet, but for asking where servers are. The purpose is how CLIENT LIST shows the connections. Their tasks end
    /// when this, its ways and their lines have been dropped.
    ///
    /// # Errors
    /// [`RedisOptionsError`] for options that can never work.
    pub fn find(
        options: &RedisOptions,
        purpose: &'static str,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, RedisOptionsError> {
        let (shared, following) = Shared::of(options, metrics, tasks, CancellationToken::new())?;
        Ok(Arc::new(Self { shared, purpose, _following: following.drop_guard() }))
    }

    /// The way to a key without braces, and to all that have its name in braces. Each way has connections of its own.
    /// Independent servers are not asked which of them has a key: it is taken to be the first.
    #[must_use]
    pub fn way(self: &Arc<Self>, key: &str) -> RedisWay {
        let switchboard = Switchboard::new(&self.shared, self.purpose);
        RedisWay { servers: self.clone(), switchboard, slot: keys::slot_of(key) }
    }
}

impl RedisWay {
    /// A line to the server that has the key now.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`]: there is no such server, or it cannot be asked now.
    pub async fn line(&self) -> Result<RedisLine, BrokerError> {
        let mut lines = self.switchboard.now();
        let at = loop {
            if let Some(at) = self.at(&lines) {
                break at;
            }
            self.servers.shared.topology.nudge();
            if !self.switchboard.is_other_than(&lines).await {
                return Err(BrokerError::Unavailable("no server of the cluster has it".into()));
            }
            lines = self.switchboard.now();
        };
        let line = lines.all()[at].clone();
        let open = line.connected().await?.into_open();
        Ok(RedisLine { line, open })
    }

    fn at(&self, lines: &Lines) -> Option<usize> {
        lines.slots().map_or(Some(0), |slots| slots[usize::from(self.slot)].map(usize::from))
    }
}

impl RedisLine {
    /// Asks, and returns one answer per command; an error of one command is a [`Value::ServerError`] in its place.
    ///
    /// # Errors
    /// [`BrokerError::Timeout`] when there was no answer: the line has ended, and nobody knows what was done.
    pub async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        Connected::of(&self.line, self.open.clone()).ask(pipeline).await
    }
}

impl RedisOptions {
    /// Whether these may work.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn check(&self) -> Result<(), RedisOptionsError> {
        keys::Keys::new(&self.prefix).ok_or(RedisOptionsError::Prefix)?;
        Map::of(&self.mode, &self.urls, self.tls.as_ref()).map(drop)
    }
}
