//! Who is alive, and what is asked of all who are: the nodes of the cluster, and the connections that they hold.
//!
//! ```text
//!  every 2 s: Alive ──► cluster::muster ──► (every node) hear ──► nodes
//!             facts ──► cluster::report ──► operators' consoles, where there are any
//!  connections ─► Asked ──► cluster::muster ──► (those that are meant) examine
//!        Part ◄── errands' ear ◄── cluster::send ◄──────────────┘
//! ```
//!
//! Nodes are told apart by name and *life*, a number drawn at each start: a list that one of them has broken off goes on at
//! another in the same order, whoever has come or gone.
//!
//! **Invariants.** What is asked costs each node a bounded walk over its own connections, and everybody a bounded answer; it ends
//! within [`PATIENCE`], and names those that have not answered. A page that was cut short says where to go on, and nobody is on two
//! pages. Nothing here decides anything: it is for people and their tools.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::cluster::{self, Ear, Told};
use fanfare_metrics::Latencies;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::publication::Payload;
use fanfare_protocol::server_api::{Filter, NodeFacts, Roll};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::errands::{self, Waiting};
use crate::node::Services;
use crate::orders;
use crate::trace::{self, Wish};

mod examination;

pub(crate) use examination::{Part, name as transport};
use examination::{Question, examine, slowest_first};

/// How often a node says that it is alive.
const BEAT: Duration = Duration::from_secs(2);

/// How long after its last word a node is taken for dead.
const SILENCE: Duration = Duration::from_secs(7);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most nodes that are known at a time.
const NODES_MAX: usize = 10_000;

/// The most questions that a node asks, and the most that it answers, at a time.
const SURVEYS_MAX: usize = 64;

/// What is said to all.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    /// This node is alive; one that is new wants to hear the same of the others.
    Alive { life: u64, is_new: bool, facts: NodeFacts },
    /// This node goes.
    Gone { life: u64 },
    /// Those of these lives are to answer the node `from`.
    Asked { id: u64, from: Box<str>, lives: Vec<u64>, question: Question },
    /// Somebody looks on.
    LookOn(Wish),
    /// No longer.
    LookAway { id: u64 },
}

/// A node that has been heard.
#[derive(Debug)]
struct Seen {
    facts: NodeFacts,
    heard: Instant,
}

/// A node, in the order in which they are listed.
type Key = (Box<str>, u64);

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Census {
    life: u64,
    others: Mutex<BTreeMap<Key, Seen>>,
    surveys: Waiting<mpsc::Sender<(u64, Part)>>,
    pace: Mutex<Pace>,
    /// Somebody is new, and wants to hear that this node is alive.
    is_wanted: Notify,
}

/// The totals of the last beat, and what they came to since the one before.
#[derive(Debug)]
struct Pace {
    at: Instant,
    received: u64,
    sent: u64,
    taken: Latencies,
    /// Messages in and out.
    per_second: (f64, f64),
    /// The ages of what sockets took: the half, and 99 in a hundred.
    ages: (Option<f64>, Option<f64>),
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            received: 0,
            sent: 0,
            taken: Latencies::default(),
            per_second: (0.0, 0.0),
            ages: (None, None),
        }
    }
}

impl Default for Census {
    fn default() -> Self {
        Self {
            life: fastrand::u64(..),
            others: Mutex::default(),
            surveys: Waiting::new(SURVEYS_MAX),
            pace: Mutex::default(),
            is_wanted: Notify::new(),
        }
    }
}

impl Census {
    /// An answer has come to a question of this node's, which may have been given up.
    pub(crate) fn answered(&self, id: u64, life: u64, part: Part) {
        self.surveys.with(id, |survey| {
            let _ = survey.try_send((life, part)); // There is room for one answer of each.
        });
    }

    fn hear_alive(&self, life: u64, is_new: bool, facts: NodeFacts) {
        if life == self.life {
            return;
        }
        if is_new {
            self.is_wanted.notify_one();
        }
        let mut others = self.others.lock();
        others.retain(|_, seen| seen.heard.elapsed() < SILENCE);
        let key = (facts.node.clone(), life);
        if others.len() < NODES_MAX || others.contains_key(&key) {
            others.insert(key, Seen { facts, heard: Instant::now() });
        }
    }

    fn alive(&self) -> BTreeMap<Key, NodeFacts> {
        let others = self.others.lock();
        let alive = others.iter().filter(|(_, seen)| seen.heard.elapsed() < SILENCE);
        alive.map(|(key, seen)| (key.clone(), seen.facts.clone())).collect()
    }

    /// Takes the totals of now, and says what they come to a second.
    fn beat(&self, services: &Services) {
        let (received, sent) = (services.metrics.messages_received(), services.metrics.messages_sent());
        let mut pace = self.pace.lock();
        let seconds = pace.at.elapsed().as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let per_second = (rate(received, pace.received), rate(sent, pace.sent));
        let taken = services.metrics.latencies();
        let age = |share| taken.quantile_since(&pace.taken, share);
        let ages = (age(0.5), age(0.99));
        *pace = Pace { at: Instant::now(), received, sent, taken, per_second, ages };
    }
}

/// What this node says of itself.
fn facts(services: &Services) -> NodeFacts {
    let Services { metrics, readiness, clock, roster, census, .. } = services;
    let ((received, sent), (half, most)) = {
        let pace = census.pace.lock();
        (pace.per_second, pace.ages)
    };
    let (cpu_seconds, memory_bytes) = metrics.process();
    let (settings, report) = (services.settings(), readiness.report(services));
    NodeFacts {
        node: settings.policy.node.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_seconds: clock.moment().since_start().as_secs(),
        ready: report.ready,
        failing: report.failing.iter().map(|check| (*check).into()).collect(),
        draining: readiness.is_draining(),
        connections: metrics.connections(),
        connections_max: settings.limits.connections.get() as u64,
        users: roster.users() as u64,
        subscriptions: metrics.subscriptions(),
        channels: metrics.channels(),
        messages_received: metrics.messages_received(),
        messages_sent: metrics.messages_sent(),
        messages_received_per_second: received,
        messages_sent_per_second: sent,
        publish_to_write_p50_ms: half,
        publish_to_write_p99_ms: most,
        lag_ms: u64::try_from(readiness.lag().as_millis()).unwrap_or(u64::MAX),
        queued_bytes: metrics.queued_bytes(),
        memory_bytes,
        cpu_seconds,
    }
}

/// The nodes that are alive, this one as it is now.
pub(crate) fn nodes(services: &Services) -> Vec<NodeFacts> {
    let mut alive = services.census.alive();
    let own = facts(services);
    alive.insert((own.node.clone(), services.census.life), own);
    alive.into_values().collect()
}

/// A page of the connections of all nodes.
///
/// # Errors
/// `after` is not where a page has ended; too much is asked at once.
pub(crate) async fn connections(
    services: &Services,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Roll, Failure> {
    let after = after.map(|text| {
        Cursor::parse(text).ok_or_else(|| Failure::new(ErrorCode::BadRequest, "`after` is what `next` was"))
    });
    let after = after.transpose()?;
    let mut left: Vec<Key> = services.census.alive().into_keys().collect();
    left.push((services.settings().policy.node.clone(), services.census.life));
    left.sort_unstable();
    left.retain(|key| after.as_ref().is_none_or(|after| *key >= after.node));
    let is_rare = filter.user.is_some() || filter.session.is_some() || filter.slowest;
    let deadline = Instant::now() + PATIENCE;
    let (mut roll, mut wave) = (Roll::default(), if is_rare { left.len() } else { 1 });
    let mut left = left.into_iter();
    let mut slowest = Vec::new();
    while roll.next.is_none() {
        // Where a few nodes have enough for a page the others are not asked.
        let asked: Vec<Key> = left.by_ref().take(wave).collect();
        if asked.is_empty() {
            break;
        }
        wave *= 2;
        let question = Question::new(filter, after.as_ref().map(|it| (it.node.1, it.number)), limit);
        let mut parts = ask(services, &asked, question, deadline).await?;
        for key in asked {
            if roll.next.is_some() {
                break;
            }
            match parts.remove(&key.1) {
                Some(part) if filter.slowest => slowest.extend(part.found),
                Some(part) => roll.next = add(&mut roll, &key, part, limit),
                None => roll.unanswered.push(key.0),
            }
        }
        if roll.next.is_none() && roll.connections.len() >= limit && left.len() > 0 {
            let next = left.next().map(|node| Cursor { node, number: 0 });
            roll.next = next.map(|cursor| cursor.to_string().into());
        }
    }
    slowest_first(&mut slowest);
    roll.connections.extend(slowest.into_iter().map(|(_, connection)| connection).take(limit));
    Ok(roll)
}

/// Adds what a node has answered; says where to go on if that was too much, or not all.
fn add(roll: &mut Roll, key: &Key, part: Part, limit: usize) -> Option<Box<str>> {
    let mut last = None;
    let at = |number| Some(Cursor { node: key.clone(), number }.to_string().into());
    for (number, connection) in part.found {
        if roll.connections.len() == limit {
            // None of this node fits any more: it is begun with.
            return at(last.unwrap_or(0));
        }
        roll.connections.push(connection);
        last = Some(number);
    }
    part.broken_off.and_then(at)
}

/// Where a page ends: a node, and the number of one of its connections, after which the next begins.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    node: Key,
    number: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let [name, life, number] = text.split('~').collect::<Vec<_>>().try_into().ok()?;
        let is_hex = |text: &str| text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        let read = |text: &str| is_hex(text).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        Some(Self { node: (name.into(), read(life)?), number: read(number)? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}~{:x}~{:x}", self.node.0, self.node.1, self.number)
    }
}

/// What these nodes answer before the deadline, by their lives.
async fn ask(
    services: &Services,
    asked: &[Key],
    question: Question,
    deadline: Instant,
) -> Result<HashMap<u64, Part>, Failure> {
    let census = &services.census;
    let lives: Vec<u64> = asked.iter().map(|key| key.1).filter(|life| *life != census.life).collect();
    let (tell, mut told) = mpsc::channel(lives.len().max(1));
    let survey = census.surveys.begin(tell).ok_or_else(|| {
        let text = "too many questions to all nodes at once: try again";
        Failure::retry(ErrorCode::Unavailable, text, Duration::from_secs(1))
    })?;
    let mut parts = HashMap::new();
    if !lives.is_empty() {
        let from = services.settings().policy.node.clone();
        let call = Call::Asked { id: survey.id, from, lives: lives.clone(), question: question.clone() };
        if let Err(error) = say(services, &call).await {
            debug!(%error, "the other nodes cannot be asked");
        }
    }
    if asked.iter().any(|key| key.1 == census.life) {
        parts.insert(census.life, examine(services, &question, census.life).await);
    }
    let all = asked.len();
    while parts.len() < all {
        let Ok(Some((life, part))) = timeout_at(deadline, told.recv()).await else { break };
        if lives.contains(&life) {
            parts.insert(life, part);
        }
    }
    Ok(parts)
}

async fn say(services: &Services, call: &Call) -> Result<(), BrokerError> {
    cluster::muster(&services.hub, spelt(call), services.clock.unix()).await
}

fn spelt(told: &impl Serialize) -> Payload {
    let line = serde_json::to_string(told).expect("plain fields are JSON");
    Payload::parse(&line).expect("it was just written")
}

/// The names of the nodes that are alive, this one among them.
pub(crate) fn names(services: &Services) -> Vec<Box<str>> {
    let mut names: Vec<_> = services.census.alive().into_keys().map(|(name, _)| name).collect();
    names.push(services.settings().policy.node.clone());
    names.sort_unstable();
    names.dedup();
    names
}

/// Has every node look on, for a while.
pub(crate) async fn look_on(services: &Services, wish: Wish) {
    if let Err(error) = say(services, &Call::LookOn(wish)).await {
        debug!(%error, "the other nodes cannot be asked to look on");
    }
}

/// Has them look away.
pub(crate) async fn look_away(services: &Services, id: u64) {
    if let Err(error) = say(services, &Call::LookAway { id }).await {
        debug!(%error, "the other nodes will look away by themselves");
    }
}

/// Tells the others that this node goes, so that nobody waits for its answer.
pub(crate) async fn leave(services: &Services) {
    if let Err(error) = say(services, &Call::Gone { life: services.census.life }).await {
        debug!(%error, "the others will notice by themselves that this node has gone");
    }
}

/// Tells and hears until told to stop.
pub(crate) async fn share(services: Arc<Services>, stop: CancellationToken) {
    stop.run_until_cancelled(async { tokio::join!(tell(&services), hear(&services)) }).await;
}

async fn tell(services: &Services) {
    let census = &services.census;
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => census.beat(services),
            // All are asked at once: not all of them answer at once.
            () = census.is_wanted.notified() => sleep(BEAT.mul_f64(fastrand::f64() / 8.0)).await,
        }
        let facts = facts(services);
        let figures = spelt(&facts);
        let alive = Call::Alive { life: census.life, is_new: false, facts };
        let reported = cluster::report(&services.hub, figures, services.clock.unix());
        let (told, reported) = tokio::join!(say(services, &alive), reported);
        if let Err(error) = told.and(reported) {
            debug!(%error, "the other nodes cannot be told that this one is alive");
        }
    }
}

async fn hear(services: &Arc<Services>) {
    let answering = Arc::new(Semaphore::new(SURVEYS_MAX));
    loop {
        match Ear::of_census(&services.hub, &services.metrics).await {
            Ok(ear) => {
                let hello = Call::Alive { life: services.census.life, is_new: true, facts: facts(services) };
                if let Err(error) = say(services, &hello).await {
                    debug!(%error, "the other nodes cannot be asked who they are");
                }
                while let Told::Said(events) = ear.next().await {
                    for event in events {
                        match orders::read(&event) {
                            Some(call) => take(services, call, &answering),
                            None => warn!("a node cannot be understood: is it of another version?"),
                        }
                    }
                }
            }
            Err(error) => debug!(%error, "other nodes cannot be heard yet"),
        }
        sleep(orders::RETRY).await;
    }
}

fn take(services: &Arc<Services>, call: Call, answering: &Arc<Semaphore>) {
    let census = &services.census;
    match call {
        Call::Alive { life, is_new, facts } => census.hear_alive(life, is_new, facts),
        Call::Gone { life } => census.others.lock().retain(|key, _| key.1 != life),
        Call::Asked { id, from, lives, question } if lives.contains(&census.life) => {
            // Who asks more than that is told that this node has not answered.
            let Ok(room) = answering.clone().try_acquire_owned() else { return };
            let services = services.clone();
            services.clone().spawn_guarded(async move {
                let life = services.census.life;
                let part = examine(&services, &question, life).await;
                errands::told(&services, &from, id, life, part).await;
                drop(room);
            });
        }
        Call::Asked { .. } => {}
        Call::LookOn(wish) => trace::begin(services, wish),
        Call::LookAway { id } => trace::end(services, id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor { node: ("node-a.1_b".into(), u64::MAX), number: 7 };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        for text in ["", "a", "a~1", "a~1~x", "a~1~2~3", "a~-1~2", "a~+1~2", "a~1~A"] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }
}
