//! What a backend is told afterwards: that clients have come and gone, and what became of channels.
//!
//! ```text
//!  connections ─► connected, disconnected, published, nothing kept ─► notice ─┐
//!                                                                             ├─► Lane ─► report ─► POST, again and again ─► taken
//!  the book of presence ─► owe: a topic, not what there is to say of it ──────┘    │                                          │
//!                            ▲                                                     └ settle: what is to be told now           │
//!                            └──────────────────────────── settle: this was told ◄────────────────────────────────────────────┘
//! ```
//!
//! A [`Lane`] leads to one backend: the one at `events.url`, and those that applications have for their own channels, of which none
//! waits for another. Two sorts of things
//! go along it. What happened to a connection happened on this node and is known here alone: it waits in a bounded queue, and is lost
//! with the node. What is true of a channel is true of the cluster: the book says which node [owes](fanfare_fanout::presence::Teller)
//! word of it, and what there is to say is asked when it is said. However often it changes meanwhile, one word waits.
//!
//! **Invariants.** A lane has one report under way, so what it tells of anything is told in its order. A report is sent again as it
//! was, but for its time and its signature, until it is taken or its time is over; only then is the next one put together. Nothing
//! here makes a client wait.
//!
//! **Deliberately absent:** a memory of what was told that outlives a node, for what is no channel's.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use bytes::Bytes;
use fanfare_fanout::presence::{Abouts, Debt, Recipient, Teller, Wants};
use fanfare_metrics::{Metrics, Purpose};
use fanfare_protocol::Channel;
use fanfare_protocol::happening::{Happening, Kinds, Noticed, Report};
use fanfare_protocol::rules::RESERVED_NAMESPACE;
use fanfare_protocol::time::UnixMicros;
use parking_lot::RwLock;

use crate::clock::Clock;
use crate::config::{Config, EventKind, Told};
use crate::http;
use crate::outgoing::{Dialer, Outgoing, Policy};

mod lane;
mod native;

pub(crate) use lane::run;

use lane::Lane;

/// The longest answer of a backend that is read: nothing of it matters.
const ANSWER_BYTES: usize = 64 * 1024;

/// All ways to tell. See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Events {
    ways: RwLock<Ways>,
    /// Whether there are any: what asks for each publication takes no lock where there are none.
    has_ways: AtomicBool,
    metrics: Arc<Metrics>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Ways {
    /// For what no application has for its own.
    common: Lanes,
    /// The namespaces of whose channels that is told; none for all of them.
    namespaces: Option<HashSet<Box<str>>>,
    /// By the namespace of the application.
    applications: HashMap<Box<str>, Lanes>,
    /// The namespaces on whose channels subscribers are told how many they are.
    counting: HashSet<Box<str>>,
}

/// Those along which the same is told, each as far as its backend wants it.
type Lanes = Vec<(Recipient, Arc<Lane>)>;

/// Where a lane leads, and what goes along it.
pub(crate) struct Terms {
    pub(crate) kinds: Kinds,
    pub(crate) kinds_of: Box<KindsOf>,
    pub(crate) url: Uri,
    pub(crate) spell: Box<Spell>,
    pub(crate) outgoing: Outgoing,
    pub(crate) batch_events: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) delay: Duration,
    pub(crate) queue: NonZeroUsize,
    pub(crate) retry: Duration,
}

/// Makes of a report what is posted at this time.
pub(crate) type Spell = dyn Fn(&Report<'_>, UnixMicros) -> (HeaderMap, Bytes) + Send + Sync;

/// Which kinds are told of a channel.
pub(crate) type KindsOf = dyn Fn(&Channel) -> Kinds + Send + Sync;

/// Where a backend is told, what, and how that is spelt.
pub(crate) struct Destination {
    pub(crate) url: String,
    pub(crate) kinds: Kinds,
    pub(crate) kinds_of: Box<KindsOf>,
    pub(crate) spell: Box<Spell>,
}

impl Events {
    pub(crate) fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { ways: RwLock::default(), has_ways: AtomicBool::new(false), metrics, clock }
    }

    /// Takes what a configuration says. Answers the lanes that are new, for [`run`].
    pub(crate) fn configure(&self, config: &Config, dialer: &Dialer) -> Vec<Arc<Lane>> {
        let mut new = Vec::new();
        let mut ways = self.ways.write();
        let mut lane = |lanes: Option<&Lanes>, to: Recipient, destination: Destination| {
            let terms = Arc::new(terms(config, destination, dialer));
            let lane = lanes.into_iter().flatten().find(|(its, _)| *its == to);
            if let Some((_, lane)) = lane {
                lane.take_terms(Some(terms));
                return (to, lane.clone());
            }
            let lane = Arc::new(Lane::new(terms, self.metrics.clone()));
            new.push(lane.clone());
            (to, lane)
        };
        let common = native::destination(config);
        let common: Lanes =
            common.into_iter().map(|it| lane(Some(&ways.common), Recipient::default(), it)).collect();
        let mut applications: HashMap<Box<str>, Lanes> = HashMap::new();
        for (namespace, to, destination) in http::destinations(config) {
            let lane = lane(ways.applications.get(&namespace), to, destination);
            applications.entry(namespace).or_default().push(lane);
        }
        self.has_ways.store(!common.is_empty() || !applications.is_empty(), Ordering::Relaxed);
        let told = config
            .namespaces
            .iter()
            .filter(|(_, it)| it.events == Told::Backend)
            .map(|(name, _)| name.as_str().into());
        let namespaces = (!config.namespaces.is_empty()).then(|| told.collect());
        let counting = http::counting(config).collect();
        let before = std::mem::replace(&mut *ways, Ways { common, namespaces, applications, counting });
        let goes_on = |lane: &Arc<Lane>| ways.all().any(|its| Arc::ptr_eq(its, lane));
        before.all().filter(|lane| !goes_on(lane)).for_each(|lane| lane.take_terms(None));
        new
    }

    /// A conversation has been opened, or is over.
    pub(crate) fn of_connection(&self, happening: impl FnOnce() -> Happening) {
        if let Some((_, lane)) = self.ways.read().common.first() {
            self.notice(lane, happening());
        }
    }

    /// Whether it is to be told of this channel that such a thing happened.
    pub(crate) fn wants(&self, channel: &Channel, kind: Kinds) -> bool {
        self.has_ways.load(Ordering::Relaxed)
            && self.ways.read().of(channel).iter().any(|(_, lane)| lane.kinds(channel).has_any(kind))
    }

    /// Something that is no matter of the book has happened on a channel.
    pub(crate) fn of_channel(&self, channel: &Channel, happening: &Happening) {
        for (_, lane) in self.ways.read().of(channel) {
            if lane.kinds(channel).has_any(happening.kind()) {
                self.notice(lane, happening.clone());
            }
        }
    }

    fn notice(&self, lane: &Lane, happening: Happening) {
        lane.notice(Noticed { at: self.clock.unix(), happening });
    }
}

impl Ways {
    /// All of them.
    fn all(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.applications.values().chain([&self.common]).flatten().map(|(_, lane)| lane)
    }

    /// Where it is told what happens on a channel.
    fn of(&self, channel: &Channel) -> &[(Recipient, Arc<Lane>)] {
        let namespace = namespace(channel);
        if let Some(lanes) = self.applications.get(namespace) {
            return lanes;
        }
        let is_told = match &self.namespaces {
            Some(namespaces) => namespaces.contains(namespace),
            None => namespace != RESERVED_NAMESPACE,
        };
        if is_told { &self.common } else { &[] }
    }
}

fn namespace(channel: &Channel) -> &str {
    channel.as_str().split_once(':').map_or("default", |(namespace, _)| namespace)
}

impl Teller for Events {
    fn wants(&self, channel: &Channel) -> Wants {
        let ways = self.ways.read();
        let of_lane = |(to, lane): &(Recipient, Arc<Lane>)| (to.clone(), abouts(lane.kinds(channel)));
        Wants {
            backends: ways.of(channel).iter().map(of_lane).collect(),
            counts: ways.counting.contains(namespace(channel)) && http::is_counted(channel),
        }
    }

    fn owe(&self, debt: Debt) {
        let ways = self.ways.read();
        let lane = ways.of(&debt.topic.channel).iter().find(|(to, _)| *to == debt.topic.word.to);
        if let Some((_, lane)) = lane {
            lane.owe(debt);
        }
    }
}

/// What the book has to keep for these to be told.
fn abouts(kinds: Kinds) -> Abouts {
    [
        (Kinds::OCCUPIED.and(Kinds::VACATED), Abouts::OCCUPANCY),
        (Kinds::JOINED.and(Kinds::LEFT), Abouts::USERS),
        (Kinds::COUNTED, Abouts::CONNECTIONS),
    ]
    .into_iter()
    .filter(|(kind, _)| kinds.has_any(*kind))
    .fold(Abouts::NONE, |all, (_, about)| all.and(about))
}

/// The kinds that a configuration names.
fn kinds(kinds: &[EventKind]) -> Kinds {
    let kind = |kind: &EventKind| match kind {
        EventKind::Connected => Kinds::CONNECTED,
        EventKind::Disconnected => Kinds::DISCONNECTED,
        EventKind::Occupied => Kinds::OCCUPIED,
        EventKind::Vacated => Kinds::VACATED,
    };
    kinds.iter().map(kind).collect()
}

fn terms(config: &Config, destination: Destination, dialer: &Dialer) -> Terms {
    let events = &config.events;
    let policy = Policy {
        timeout: events.timeout,
        answer_bytes: ANSWER_BYTES,
        concurrent: 1,
        waiting: 0,
        // Reports are tried again at distances of their own.
        failures: u32::MAX,
        cool_down: Duration::ZERO,
    };
    let Destination { url, kinds, kinds_of, spell } = destination;
    Terms {
        kinds,
        kinds_of,
        spell,
        url: url.parse().expect("checked to be a URL"),
        outgoing: dialer.outgoing(Purpose::Webhook, policy),
        batch_events: events.batch_events.get(),
        batch_bytes: events.batch_bytes,
        delay: events.delay,
        queue: events.queue,
        retry: events.retry,
    }
}

/// Shows no secret.
impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}
