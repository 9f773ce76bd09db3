//! Publications that backends leave where they are fetched from: in a Redis Stream, or in a table of PostgreSQL.
//!
//! ```text
//!  stream ─► entries ─► placed: a channel's one after the other, channels beside each other ─► settled at the source
//!  table  ─► rows   ─┘         │ the broker refuses: left where it is, and read again after a pause
//!                              │ nobody could ever publish it: put aside with the reason
//! ```
//!
//! **Invariants.** An entry is taken from its source after the broker has accepted it, so each is published at least once; where
//! the channel keeps history it is published under a key, its own or one made of its id, so that nobody hears it twice. Entries
//! of a channel are published in the order in which the source has them: while one has not been accepted, none behind it is tried.
//! Memory holds one batch for each source.
//!
//! Deliberately absent: other calls of the server API. What is fetched is meant for everybody who hears a channel, and can be
//! done again; an order to disconnect somebody should not be done again an hour late.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::broker::redis::RedisServers;
use fanfare_metrics::{Consumed, Source};
use fanfare_protocol::Channel;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::publication::IdempotencyKey;
use fanfare_protocol::server_api::ApiCall;
use fanfare_protocol::session::Policy;
use futures_util::{StreamExt, stream};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api;
use crate::config::{Config, Store};
use crate::node::Services;

mod entry;
mod lease;
mod redis_stream;
mod reply;
mod table;

pub(crate) use table::schema;

use entry::{Entry, Wanted};

/// The channels of a batch that are published on at the same time.
const CHANNELS_AT_ONCE: usize = 64;

/// How long a batch is handed to the broker before the rest of it is left for later: sources wait only so long.
const PLACING_MAX: Duration = Duration::from_secs(20);

/// The pauses after which a source, or a broker that has refused, is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often it is looked how much waits at a source.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// The most entries that are kept aside at a source.
const DEAD_MAX: u32 = 10_000;

/// How the node's consumers are.
#[derive(Debug, Default)]
pub(crate) struct Consumers(Mutex<BTreeMap<(Box<str>, usize), State>>);

#[derive(Debug)]
struct State {
    source: Source,
    is_down: bool,
    waiting: u64,
    oldest: Duration,
}

impl Consumers {
    /// Whether one cannot reach its source.
    pub(crate) fn are_down(&self) -> bool {
        self.0.lock().values().any(|state| state.is_down)
    }
}

/// Fetches what this configuration names, until told to stop.
pub(crate) fn start(
    config: &Config,
    services: &Arc<Services>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for (name, consumer) in &config.consumers {
        let feed = |source, part| Feed {
            name: name.as_str().into(),
            part,
            source,
            batch: consumer.batch.get(),
            is_kept_aside: consumer.dead_letters,
            services: services.clone(),
            stop: stop.clone(),
        };
        match &consumer.store {
            Store::Streams(streams) => {
                let share = Arc::new(lease::Share::new(streams.partitions.get(), services.clone()));
                let options = streams.servers(&consumer.url, &config.authorities, &config.node.name);
                let servers = RedisServers::find(&options, "consumer", services.metrics.clone(), tasks);
                let servers = servers.expect("checked when the configuration was read");
                for part in 0..streams.partitions.get() {
                    let stream = redis_stream::Stream::of(streams, part, &servers, &config.node.name);
                    tasks.spawn(redis_stream::run(feed(Source::RedisStream, part), stream, share.clone()));
                }
            }
            Store::Table(table) => {
                let table = table::Table::of(table, &consumer.url, &config.authorities);
                tasks.spawn(table::run(feed(Source::Postgres, 0), table));
            }
        }
    }
}

/// One of the sources of a consumer, and what becomes of its entries.
#[derive(Debug)]
struct Feed {
    /// The consumer's name.
    name: Box<str>,
    /// Which of its sources this is.
    part: usize,
    source: Source,
    /// The most entries that are read at once.
    batch: usize,
    /// Whether entries that nobody could publish are kept at the source.
    is_kept_aside: bool,
    services: Arc<Services>,
    stop: CancellationToken,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Accepted,
    /// The broker has not taken it, or nobody knows whether it has.
    Deferred,
    /// Nobody could ever publish it.
    Refused(Failure),
}

impl Feed {
    /// Hands a batch to the broker, and says what became of each entry, in their order.
    async fn place(&self, entries: Vec<Entry>) -> Vec<Outcome> {
        let settings = self.services.settings();
        let policy = &*settings.policy;
        let mut outcomes = vec![Outcome::Deferred; entries.len()];
        let mut runs: IndexMap<Channel, Vec<(usize, Wanted)>> = IndexMap::new();
        for (at, entry) in entries.into_iter().enumerate() {
            match entry.read(policy) {
                Ok(wanted) => runs.entry(wanted.channel.clone()).or_default().push((at, wanted)),
                Err(failure) => outcomes[at] = Outcome::Refused(failure),
            }
        }
        let deadline = Instant::now() + PLACING_MAX;
        let placed = stream::iter(runs.into_values())
            .map(|run| self.place_run(run, policy, deadline))
            .buffer_unordered(CHANNELS_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        for (at, outcome) in placed.into_iter().flatten() {
            outcomes[at] = outcome;
        }
        self.count(&outcomes);
        outcomes
    }

    /// Publishes what there is for one channel, up to the first that the broker does not take.
    async fn place_run(
        &self,
        run: Vec<(usize, Wanted)>,
        policy: &Policy,
        deadline: Instant,
    ) -> Vec<(usize, Outcome)> {
        let mut placed = Vec::with_capacity(run.len());
        for (at, wanted) in run {
            if self.stop.is_cancelled() || Instant::now() >= deadline {
                break;
            }
            let outcome = self.publish(wanted, policy).await;
            let is_deferred = outcome == Outcome::Deferred;
            placed.push((at, outcome));
            if is_deferred {
                break;
            }
        }
        placed
    }

    async fn publish(&self, wanted: Wanted, policy: &Policy) -> Outcome {
        let Wanted { channel, payload, key, id } = wanted;
        // What a channel does not keep it cannot recognise.
        let is_kept = policy.rules.rule(&channel).is_ok_and(|rule| rule.keeps_history().is_ok());
        let made = || IdempotencyKey::parse(&format!("{}:{id}", self.name));
        let key = key.or_else(|| is_kept.then(made).flatten());
        let call = ApiCall::Publish { channel, payload, key, exclude: None };
        match api::perform(call, policy, &self.services).await {
            Ok(_) => Outcome::Accepted,
            Err(failure) if failure.code == ErrorCode::Unavailable => Outcome::Deferred,
            Err(failure) => Outcome::Refused(failure),
        }
    }

    fn count(&self, outcomes: &[Outcome]) {
        let metrics = &self.services.metrics;
        let mut refused = outcomes.iter().filter_map(|it| match it {
            Outcome::Refused(failure) => Some(failure),
            Outcome::Accepted | Outcome::Deferred => None,
        });
        if let Some(first) = refused.next() {
            let (consumer, entries, reason) = (&self.name, 1 + refused.count(), &first.explanation);
            warn!(%consumer, entries, %reason, "entries of a consumer cannot be published");
            metrics.consumed(self.source, Consumed::Refused, entries);
        }
        let of = |wanted: &Outcome| outcomes.iter().filter(|it| *it == wanted).count();
        metrics.consumed(self.source, Consumed::Accepted, of(&Outcome::Accepted));
        metrics.consumed(self.source, Consumed::Deferred, of(&Outcome::Deferred));
    }

    /// So many entries are read that had been read before.
    fn read_again(&self, entries: usize) {
        self.services.metrics.consumer_redelivered(self.source, entries);
    }

    /// The source answers.
    fn is_up(&self) {
        if self.note(|state| std::mem::replace(&mut state.is_down, false)) {
            info!(consumer = %self.name, part = self.part, "a consumer reaches its source again");
        }
    }

    /// The source does not answer, or not as it should.
    fn is_down(&self, error: &dyn Display) {
        if !self.note(|state| std::mem::replace(&mut state.is_down, true)) {
            warn!(consumer = %self.name, part = self.part, %error, "a consumer cannot read its source: it tries again");
        }
    }

    /// So much waits at the source, and the first of it for so long.
    fn measured(&self, waiting: u64, oldest: Duration) {
        self.note(|state| (state.waiting, state.oldest) = (waiting, oldest));
    }

    /// Changes what is known of this source, and has it counted.
    fn note<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let Services { consumers, metrics, .. } = &*self.services;
        let mut states = consumers.0.lock();
        let unknown = || State { source: self.source, is_down: false, waiting: 0, oldest: Duration::ZERO };
        let before = change(states.entry((self.name.clone(), self.part)).or_insert_with(unknown));
        let of_kind = || states.values().filter(|state| state.source == self.source);
        let down = of_kind().filter(|state| state.is_down).count();
        let oldest = of_kind().map(|state| state.oldest).max().unwrap_or_default();
        metrics.consumers_measured(self.source, down, of_kind().map(|state| state.waiting).sum(), oldest);
        before
    }

    /// Waits, unless told to stop.
    async fn rest(&self, pause: Duration) {
        let _ = self.stop.run_until_cancelled(sleep(pause)).await;
    }
}

/// How long to wait before something is tried again: longer each time, and never as long as others wait.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE_FIRST)
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        pause
    }
}
