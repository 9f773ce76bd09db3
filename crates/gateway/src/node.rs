//! A node: builds everything, serves, and drains. The wiring diagram, in code.
//!
//! ```text
//!  Config ─► metrics, clock ─► lanes ─► broker ─► hub ─┐
//!                    └────────► wheel, roster, admission ─► Services ─► listeners: public, internal
//! ```
//!
//! Stopping is the same road backwards: readiness fails first, so that load balancers look elsewhere; then the clients are
//! told to go, paced over the drain window; then the listeners stop; then every task is waited for, until a deadline.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use fanfare_fanout::broker::memory::{Bus, MemoryBroker};
use fanfare_fanout::broker::redis::{RedisBroker, RedisMode, RedisOptions};
use fanfare_fanout::broker::{Broker, LaneEnds, Lanes};
use fanfare_fanout::presence::memory::MemoryPresence;
use fanfare_fanout::presence::redis::RedisPresence;
use fanfare_fanout::presence::{Desk, Presence, PresenceOptions};
use fanfare_fanout::{Hub, HubOptions, Order};
use fanfare_metrics::Metrics;
use fanfare_protocol::grant::{Grant, Visitor};
use futures_util::FutureExt;
use parking_lot::RwLock;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admission::{Admission, NoRoom, Place};
use crate::auth::{Means, Revoked};
use crate::census::{self, Census};
use crate::clock::Clock;
use crate::config::{self, BrokerKind, Config};
use crate::connection::{self, Roster, Speakers, Talks, Wheel};
use crate::consumers::{self, Consumers};
use crate::errands::{self, Errands};
use crate::events::{self, Events};
use crate::hooks::Renewals;
use crate::http::Door;
use crate::logging;
use crate::orders::{self, Bids};
use crate::outgoing::Dialer;
use crate::readiness::{self, Readiness};
use crate::spans::{self, Spans};
use crate::trace::{self, Tracer};
use crate::users;

mod certificates;
mod drain;
mod listener;
mod settings;

pub(crate) use settings::Settings;

/// The publications that may wait in one lane before a broker is made to wait.
const LANE_DEPTH: usize = 4096;

/// The longest that any call of the memory broker may take: it waits for nothing but a full lane.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked which channels are quiet, so that some of them are compared with what the broker says of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a connection to Redis may be idle before a sign of life is asked for.
const REDIS_PING_INTERVAL: Duration = Duration::from_secs(3);

/// The connections told of new settings before others run.
const RUN: usize = 1024;

/// How long the first clients wait for what was ordered before, and for other nodes to be heard.
const NODES_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the first clients wait for the keys that their tokens are held against.
const KEYS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long after the drain window the last tasks may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection and every request of a node shares.
#[derive(Debug)]
pub(crate) struct Services {
    settings: RwLock<Arc<Settings>>,
    pub(crate) hub: Arc<Hub>,
    /// Who is subscribed, in namespaces with presence.
    pub(crate) desk: Arc<Desk>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) wheel: Wheel,
    pub(crate) roster: Roster,
    pub(crate) speakers: Speakers,
    /// What clients that hear by a response have said, until it is taken up.
    pub(crate) talks: Talks,
    pub(crate) errands: Errands,
    pub(crate) census: Census,
    pub(crate) bids: Bids,
    pub(crate) revoked: Revoked,
    pub(crate) admission: Admission,
    pub(crate) readiness: Readiness,
    /// Who looks on.
    pub(crate) tracer: Arc<Tracer>,
    /// What a collector of OpenTelemetry is told.
    pub(crate) spans: Arc<Spans>,
    /// The listeners stop.
    pub(crate) stopping: CancellationToken,
    /// For requests of the node's own.
    pub(crate) dialer: Dialer,
    /// How what is fetched for publication is.
    pub(crate) consumers: Consumers,
    /// What backends are told.
    pub(crate) events: Arc<Events>,
    /// Those about whom the backend is to be asked again.
    pub(crate) renewals: Renewals,
    /// Whether `/echo` is served.
    pub(crate) echo: bool,
    /// Where the internal listener is, once it is bound.
    pub(crate) internal: OnceLock<SocketAddr>,
    pub(crate) tasks: TaskTracker,
}

impl Services {
    /// What is in force now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Counts a connection as one of its client's, once that is known.
    ///
    /// # Errors
    /// The user has too many.
    pub(crate) fn belong(&self, place: &mut Place, visitor: &Visitor) -> Result<(), NoRoom> {
        match visitor {
            Visitor::Known(grant) => self.belong_to(place, grant),
            Visitor::Anonymous | Visitor::Presumed(_) | Visitor::Unknown => Ok(()),
        }
    }

    /// The same for one whose client has become known.
    ///
    /// # Errors
    /// The user has too many.
    pub(crate) fn belong_to(&self, place: &mut Place, grant: &Grant) -> Result<(), NoRoom> {
        let Some(user) = &grant.user else { return Ok(()) };
        self.admission.belong(place, user, &self.settings().limits, &self.metrics)
    }

    /// Runs a connection's task so that a bug in it ends that connection and nothing else.
    ///
    /// No `async` block: it would hold the task twice, once as what it captured and once as what it awaits.
    pub(crate) fn spawn_guarded(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let services = self.clone();
        let guarded = std::panic::AssertUnwindSafe(task).catch_unwind().map(move |outcome| {
            if outcome.is_err() {
                services.metrics.panicked(); // The panic hook has logged it.
            }
        });
        self.tasks.spawn(guarded);
    }
}

/// A serving node.
#[derive(Debug)]
pub struct Node {
    services: Arc<Services>,
    public: SocketAddr,
    internal: SocketAddr,
    /// Stops the listeners, the wheel and the broker.
    stop: CancellationToken,
    /// The tasks that tell backends, and what stops them: before the broker, which they need.
    tellers: (TaskTracker, CancellationToken),
    /// The tasks that fetch publications, and what stops them: before everything else.
    fetchers: (TaskTracker, CancellationToken),
}

impl Node {
    /// Builds a node and starts serving.
    ///
    /// # Errors
    /// An address cannot be bound, or the broker's configuration makes no sense to its client.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        Self::start_on(config, &Bus::default()).await
    }

    /// The same, on a memory bus that other nodes of this process share. A node whose broker is Redis ignores it.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_on(config: &Config, bus: &Bus) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let metrics = Arc::new(Metrics::new());
        let workers = config.node.workers.or_else(|| std::thread::available_parallelism().ok());
        let (lanes, ends) = Lanes::new(workers.map_or(1, usize::from), LANE_DEPTH);
        let events = Arc::new(Events::new(metrics.clone(), Clock::start()));
        let placing = broker(config, bus, lanes, &events, &metrics, &tasks, &stop)?;
        let services = Arc::new(services(config, placing, ends, events, metrics, tasks.clone(), &stop));

        let public = listener::bind(config.listen.public).await.context("listen.public")?;
        let internal = listener::bind(config.listen.internal).await.context("listen.internal")?;
        let _ = services.internal.set(internal.local_addr()?);
        let node = Self {
            public: public.local_addr()?,
            internal: internal.local_addr()?,
            services: services.clone(),
            stop: stop.clone(),
            tellers: (TaskTracker::new(), CancellationToken::new()),
            fetchers: (TaskTracker::new(), CancellationToken::new()),
        };
        node.tell(config);
        consumers::start(config, &services, &node.fetchers.0, &node.fetchers.1);
        tasks.spawn(orders::follow(services.clone(), stop.clone()));
        tasks.spawn(users::share(services.clone(), config.presence.heartbeat, stop.clone()));
        tasks.spawn(errands::follow(services.clone(), stop.clone()));
        tasks.spawn(orders::follow_bids(services.clone(), stop.clone()));
        tasks.spawn(census::share(services.clone(), stop.clone()));
        tasks.spawn(connection::measure(services.clone(), stop.clone()));
        tasks.spawn(spans::share(services.clone(), stop.clone()));
        tasks.spawn(trace::share(services.clone(), stop.clone()));
        tasks.spawn(readiness::watch(services.clone(), stop.clone()));
        tasks.spawn(logging::watch(stop.clone()));
        // Without what was revoked no token is taken, and a ticket that was given before this node hears others is worth little;
        // but with the broker away clients are let wait elsewhere than in the backlog.
        let Services { revoked, errands, bids, .. } = &*services;
        let nodes = async { tokio::join!(revoked.completed(), errands.listening(), bids.heard()) };
        let _ = timeout(NODES_TIMEOUT, nodes).await;
        let _ = timeout(KEYS_TIMEOUT, services.settings().auth.tried()).await;
        tasks.spawn(listener::serve(Door::Public, public, services.clone(), stop.clone()));
        tasks.spawn(listener::serve(Door::Internal, internal, services.clone(), stop.clone()));
        let wheel_stop = stop.clone();
        tasks.spawn(async move { services.wheel.turn(wheel_stop).await });
        info!(public = %node.public, internal = %node.internal, node = config.node.name, "serving");
        Ok(node)
    }

    /// Where clients connect: the address that was bound, so the real port where port 0 was asked for.
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where metrics and the server API are.
    pub fn internal_addr(&self) -> SocketAddr {
        self.internal
    }

    /// Has backends told what this configuration says.
    fn tell(&self, config: &Config) {
        let (tellers, stop) = &self.tellers;
        for lane in self.services.events.configure(config, &self.services.dialer) {
            tellers.spawn(events::run(lane, self.services.clone(), stop.clone()));
        }
    }

    /// Takes from `config` what a running node can take; nobody is disconnected. The rest of it must be what the node was
    /// started with.
    ///
    /// New connections find the new settings at once; those that are open are told a few at a time, and all have been
    /// when this returns.
    pub async fn reload(&self, config: &Config) {
        let Services { settings, roster, metrics, clock, dialer, tasks, .. } = &*self.services;
        let before = self.services.settings();
        let means = Means { dialer, tasks, metrics, stop: &self.stop };
        let mut new = Settings::of(config, Some(&before), &means);
        let is_known = before.decides_as(&new);
        if is_known {
            new.policy = before.policy.clone();
        }
        certificates::announce(&new, Some(&before), metrics, clock);
        metrics.namespaces(config.namespaces.keys().map(String::as_str));
        metrics.connections_limit(new.limits.connections.get());
        *settings.write() = Arc::new(new);
        self.services.spans.configure(config, dialer, self.services.hub.tap());
        self.tell(config);
        if is_known {
            return;
        }
        for run in roster.all().chunks(RUN) {
            run.iter().for_each(|outbox| outbox.order(Order::Reloaded));
            tokio::task::yield_now().await;
        }
    }

    /// Tells every client to go, paced over the drain window, and returns when all tasks have ended, or when they
    /// should have.
    pub async fn drain(self) {
        let Self { services, stop, tellers: (tellers, telling), fetchers: (fetchers, fetching), .. } = self;
        fetching.cancel();
        fetchers.close();
        tokio::join!(drain::run(&services), fetchers.wait());
        tokio::join!(services.desk.close(), census::leave(&services));
        telling.cancel();
        tellers.close();
        tellers.wait().await; // They have a deadline of their own.
        stop.cancel();
        let tasks = services.tasks.clone();
        drop(services); // The lanes' tasks end with the last holder of the hub.
        tasks.close();
        if timeout(JOIN_TIMEOUT, tasks.wait()).await.is_err() {
            warn!(tasks = tasks.len(), "some tasks have not ended in time");
        }
        info!("stopped");
    }
}

fn broker(
    config: &Config,
    bus: &Bus,
    lanes: Lanes,
    events: &Arc<Events>,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<(Arc<dyn Broker>, Arc<dyn Presence>)> {
    if config.broker == BrokerKind::Memory {
        metrics.broker_connected(true);
        let book = MemoryPresence::new(bus).telling(events.clone());
        return Ok((Arc::new(MemoryBroker::new(bus, lanes)), Arc::new(book)));
    }
    let mode = match config.redis.mode {
        config::RedisMode::Sharded => RedisMode::Sharded,
        config::RedisMode::Sentinel => RedisMode::Sentinel { primary: config.redis.primary.clone() },
        config::RedisMode::Cluster => RedisMode::Cluster,
        config::RedisMode::Single => RedisMode::Single,
    };
    let urls: Vec<_> = config.redis.urls.iter().map(|url| url.expose().to_owned()).collect();
    let options = RedisOptions {
        mode,
        tls: config.authorities.of_redis(&urls),
        urls,
        prefix: config.redis.prefix.clone(),
        timeout: config.redis.timeout,
        ping_interval: REDIS_PING_INTERVAL,
        node: config.node.name.clone(),
    };
    let broker = RedisBroker::connect(&options, &lanes, metrics.clone(), tasks, stop.clone());
    let broker = broker.context("redis.urls")?;
    let book = RedisPresence::beside(&broker).telling(events.clone());
    Ok((Arc::new(broker), Arc::new(book)))
}

fn services(
    config: &Config,
    (broker, book): (Arc<dyn Broker>, Arc<dyn Presence>),
    mut lanes: LaneEnds,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: &CancellationToken,
) -> Services {
    let clock = Clock::start();
    let broker_timeout = match config.broker {
        BrokerKind::Memory => MEMORY_TIMEOUT,
        BrokerKind::Redis => config.redis.timeout,
    };
    let notices = lanes.notices().expect("nobody else takes them");
    let presence = PresenceOptions {
        node: config.node.name.clone(),
        heartbeat: config.presence.heartbeat,
        grace: config.presence.grace,
        timeout: broker_timeout,
    };
    let desk = Desk::start(book, notices, metrics.clone(), &tasks, presence);
    let hub = Hub::start(
        broker,
        lanes,
        metrics.clone(),
        &tasks,
        HubOptions { broker_timeout, check_interval: CHECK_INTERVAL, now: Clock::wall },
    );
    desk.look_around(&hub, &tasks);
    let spans = Arc::new(Spans::new(metrics.clone()));
    let tracer = Arc::new(Tracer::new(&config.node.name, clock, spans.clone()));
    hub.tap().show(tracer.clone());
    let dialer = Dialer::new(&config.authorities, tasks.clone(), metrics.clone());
    spans.configure(config, &dialer, hub.tap());
    let means = Means { dialer: &dialer, tasks: &tasks, metrics: &metrics, stop };
    let settings = Settings::of(config, None, &means);
    certificates::announce(&settings, None, &metrics, &clock);
    metrics.namespaces(config.namespaces.keys().map(String::as_str));
    metrics.connections_limit(config.limits.connections.get());
    Services {
        settings: RwLock::new(Arc::new(settings)),
        hub,
        desk,
        dialer,
        events,
        consumers: Consumers::default(),
        renewals: Renewals::default(),
        metrics,
        clock,
        wheel: Wheel::new(clock),
        roster: Roster::default(),
        speakers: Speakers::default(),
        talks: Talks::default(),
        errands: Errands::default(),
        census: Census::default(),
        bids: Bids::default(),
        revoked: Revoked::default(),
        admission: Admission::default(),
        readiness: Readiness::default(),
        tracer,
        spans,
        stopping: stop.clone(),
        echo: config.echo,
        internal: OnceLock::new(),
        tasks,
    }
}
