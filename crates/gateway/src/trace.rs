//! Looking on while one channel, or one user, is served by the whole cluster.
//!
//! ```text
//!  GET /api/trace ─► lead ── every 2 s: Wish ──► census ──► (every node) Tracer ◄── connections, hub, hooks: what happens
//!     body ◄── lead ◄── errands' ear ◄── cluster::send ◄── every 100 ms ──┘
//! ```
//!
//! The node that is asked tells all of them what is wished, again and again: a node that is new hears of it, and one that hears of it no
//! more ends by itself, whoever has died. Each keeps what it sees and sends it by the word, a tenth of a second's at a time.
//!
//! **Invariants.** Where nobody looks on, it costs a load of a flag where something is told, and nothing else. A trace tells at most
//! [`RATE`] events a second of a node, and holds at most [`WAITING_MAX`]; what is over that is counted, and the count told. A node takes part in
//! [`TRACES_MAX`] traces at most. What is told goes nowhere but to who has asked, and says nothing of what was published but where that
//! is asked for. Nothing is made to wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::SubscriberId;
use fanfare_fanout::tap::{Fate, Receiver, Witness};
use fanfare_protocol::publication::{Payload, Position};
use fanfare_protocol::rules::Overflow;
use fanfare_protocol::server_api::Whom;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::trace::{SpanId, TraceContext, TraceId};
use fanfare_protocol::{Channel, Publication, SessionId, UserId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::errands;
use crate::node::Services;
use crate::spans::{Kind, Spans, Value as Fact};

mod lead;
mod sights;

pub(crate) use lead::{SECONDS_MAX, Tail, answer};
pub(crate) use sights::{By, asked, connected, disconnected, publish, refused, subscribed, unsubscribed};

/// The most traces that a node takes part in.
const TRACES_MAX: usize = 8;

/// The most events that a trace tells of a node in a second.
const RATE: u32 = 500;

/// The most events that wait to be told.
const WAITING_MAX: usize = 2000;

/// How often they are.
const PACE: Duration = Duration::from_millis(100);

/// How long a node goes on that hears no more of a trace.
const LEASE: Duration = Duration::from_secs(7);

/// The most lines of one word.
const LINES_MAX: usize = 256;

/// The most bytes of a payload that are told.
const PAYLOAD_BYTES: usize = 1024;

/// What somebody wants to look at, as nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    id: u64,
    /// The node that is told.
    asker: Box<str>,
    #[serde(flatten)]
    of: Of,
    /// Whether what is published is told.
    payload: bool,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    Channel(Box<str>),
    User(Box<str>),
}

/// What a node sees of the traces that it takes part in. See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Tracer {
    node: Box<str>,
    clock: Clock,
    followed: Mutex<Followed>,
    /// A trace has begun here.
    has_begun: Notify,
    /// Where it is told what is recorded.
    spans: Arc<Spans>,
    /// Those who have asked this node, by their traces.
    askers: Mutex<HashMap<u64, mpsc::Sender<Lines>>>,
}

/// What nodes have seen, an object each.
pub(crate) type Lines = (Box<str>, Vec<Box<RawValue>>);

#[derive(Debug, Default)]
struct Followed {
    traces: Vec<Trace>,
    /// The connections of users who are looked at.
    people: HashMap<SubscriberId, UserId>,
}

#[derive(Debug)]
struct Trace {
    wish: Wish,
    ends: Instant,
    budget: Budget,
    waiting: VecDeque<Seen>,
    left_out: u64,
}

/// What was seen and is not told yet.
#[derive(Debug)]
struct Seen {
    line: Map<String, Value>,
    /// Whose user is looked up before it is told.
    receiver: Option<SubscriberId>,
}

#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

/// About what an event is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject<'a> {
    channels: &'a [&'a Channel],
    session: Option<SessionId>,
    receiver: Option<SubscriberId>,
    user: Option<&'a UserId>,
}

impl Tracer {
    pub(crate) fn new(node: &str, clock: Clock, spans: Arc<Spans>) -> Self {
        Self {
            node: node.into(),
            clock,
            spans,
            followed: Mutex::default(),
            has_begun: Notify::new(),
            askers: Mutex::default(),
        }
    }

    /// Lines have come from a node for who has asked this one.
    pub(crate) fn told(&self, id: u64, lines: Lines) {
        if let Some(asker) = self.askers.lock().get(&id) {
            let _ = asker.try_send(lines); // Who reads too slowly is told so by `lead`.
        }
    }

    /// A connection's client has become known.
    pub(crate) fn know(&self, id: SubscriberId, user: &UserId) {
        let mut followed = self.followed.lock();
        if followed.traces.iter().any(|trace| trace.is_of(user)) {
            followed.people.insert(id, user.clone());
        }
    }

    /// Has every trace that an event is about hear of it.
    fn tell(&self, kind: &str, subject: Subject<'_>, payload: Option<&Payload>, more: Value) {
        let mut followed = self.followed.lock();
        let Followed { traces, people } = &mut *followed;
        let by = subject.receiver.and_then(|id| people.get(&id));
        let user = subject.user.or(by);
        let is_about = |of: &Of| match of {
            Of::Channel(name) => subject.channels.iter().any(|channel| channel.as_str() == &**name),
            Of::User(name) => [subject.user, by].into_iter().flatten().any(|user| user.as_str() == &**name),
        };
        let mut meant = traces.iter_mut().filter(|trace| is_about(&trace.wish.of)).peekable();
        if meant.peek().is_none() {
            return;
        }
        let mut line = self.line(kind);
        if let Some(session) = subject.session {
            line.insert("session".into(), session.to_string().into());
            line.insert("user".into(), user.map_or(Value::Null, |user| user.as_str().into()));
        } else if let Some(user) = user {
            line.insert("user".into(), user.as_str().into());
        }
        if let [channel] = subject.channels {
            line.insert("channel".into(), channel.as_str().into());
        }
        if let Value::Object(more) = more {
            line.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
        }
        // Of a receiver who is nobody's here it is known in a moment who it is.
        let receiver = subject.receiver.filter(|_| user.is_none());
        for trace in meant {
            let mut line = line.clone();
            if let Some(payload) = payload.filter(|_| trace.wish.payload) {
                tell_payload(&mut line, payload);
            }
            trace.see(Seen { line, receiver });
        }
    }

    /// The beginning of a line.
    fn line(&self, kind: &str) -> Map<String, Value> {
        let at = millis(self.clock.unix());
        [("type", kind.into()), ("at", at), ("node", (*self.node).into())]
            .map(|(name, value): (_, Value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }
}

/// A time as it is told: milliseconds, and what is left of them.
fn millis(at: UnixMicros) -> Value {
    json!(at.0 as f64 / 1000.0)
}

/// As much of a payload as is told. What is cut is a text, whatever it was.
fn tell_payload(line: &mut Map<String, Value>, payload: &Payload) {
    let json = payload.json();
    let told = match json.len() {
        0..=PAYLOAD_BYTES => serde_json::from_slice(&json).ok(),
        _ => None,
    };
    let whole = told.is_some();
    let cut = || String::from_utf8_lossy(&json[..json.len().min(PAYLOAD_BYTES)]).into_owned().into();
    line.insert("payload".into(), told.unwrap_or_else(cut));
    if !whole {
        line.insert("truncated".into(), true.into());
    }
}

impl Trace {
    fn is_of(&self, user: &UserId) -> bool {
        matches!(&self.wish.of, Of::User(name) if **name == *user.as_str())
    }

    fn see(&mut self, seen: Seen) {
        if self.waiting.len() < WAITING_MAX && self.budget.take(1) {
            self.waiting.push_back(seen);
        } else {
            self.left_out += 1;
        }
    }
}

impl Budget {
    fn new() -> Self {
        Self { left: RATE, since: Instant::now() }
    }

    fn has(&mut self, count: u32) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        self.left >= count
    }

    fn take(&mut self, count: u32) -> bool {
        let has = self.has(count);
        self.left -= if has { count } else { 0 };
        has
    }
}

impl Witness for Tracer {
    fn follows(&self, channel: &Channel, receiver: SubscriberId) -> bool {
        let mut followed = self.followed.lock();
        let Followed { traces, people } = &mut *followed;
        let user = people.get(&receiver);
        let mut follows = false;
        for trace in traces {
            let is_meant = match &trace.wish.of {
                Of::Channel(name) => **name == *channel.as_str(),
                Of::User(name) => user.is_some_and(|user| user.as_str() == &**name),
            };
            if is_meant && trace.budget.has(2) {
                follows = true;
            } else if is_meant {
                trace.left_out += 1; // It goes the short way.
            }
        }
        follows
    }

    fn heard(&self, run: &[Arc<Publication>]) {
        for it in run {
            let user = it.sender.as_ref().and_then(|sender| sender.user.as_ref());
            let subject = Subject { channels: &[&it.channel], user, ..Subject::default() };
            let mut more = place(it.position.as_ref(), it.trace());
            more["ms"] = since(self.clock.unix(), it.received);
            self.tell("heard", subject, Some(&it.payload), more);
        }
    }

    fn fanned_out(&self, run: &[Arc<Publication>], receivers: u64) {
        let Some(first) = run.first() else { return };
        let user = first.sender.as_ref().and_then(|sender| sender.user.as_ref());
        let subject = Subject { channels: &[&first.channel], user, ..Subject::default() };
        let more = json!({ "count": run.len(), "receivers": receivers });
        self.tell("fanned_out", subject, None, more);
    }

    fn handed_on(&self, publication: &Publication, heard: UnixMicros, receivers: u64) {
        let Some(begun) = self.spans.begin(publication.trace(), heard) else { return };
        let mut facts = vec![
            ("fanfare.channel", Fact::text(publication.channel.as_str())),
            ("fanfare.receivers", Fact::number(receivers)),
        ];
        facts.extend(publication.position.map(|it| ("fanfare.offset", Fact::number(it.offset.0))));
        self.spans.end(begun, (Kind::Consumer, "fan out"), self.clock.unix(), facts, None);
    }

    fn met(&self, receiver: Receiver, publication: &Publication, fate: Fate) {
        let Publication { channel, position, received, .. } = publication;
        let (session, receiver) = (Some(receiver.session), Some(receiver.id));
        let subject = Subject { channels: &[channel], session, receiver, user: None };
        let mut more = place(position.as_ref(), publication.trace());
        let kind = match fate {
            Fate::Queued { bytes, is_replayed } => {
                more["waiting_bytes"] = bytes.into();
                more["replayed"] = if is_replayed { true.into() } else { Value::Null };
                "queued"
            }
            Fate::Written => {
                more["ms"] = since(self.clock.unix(), *received);
                "written"
            }
            Fate::Dropped { policy, count } => {
                more["count"] = count.into();
                more["policy"] = match policy {
                    Overflow::Disconnect => "disconnect",
                    Overflow::DropOldest => "drop_oldest",
                    Overflow::Conflate => "conflate",
                }
                .into();
                "dropped"
            }
        };
        self.tell(kind, subject, None, more);
    }
}

/// How long after something else, in milliseconds.
fn since(now: UnixMicros, earlier: UnixMicros) -> Value {
    json!(now.since(earlier).as_micros() as f64 / 1000.0)
}

/// Where in a stream and in which trace.
fn place(position: Option<&Position>, trace: Option<&TraceContext>) -> Value {
    json!({
        "epoch": position.map(|it| it.epoch.to_string()),
        "offset": position.map(|it| it.offset.0),
        "trace": trace.map(|it| it.trace.to_string()),
    })
}

/// A trace that begins here.
pub(crate) fn new_trace(is_sampled: bool) -> TraceContext {
    let (trace, span) = (fastrand::u128(1..), fastrand::u64(1..));
    TraceContext {
        trace: TraceId::new(trace).expect("it is not zero"),
        span: SpanId::new(span).expect("it is not zero"),
        is_sampled,
    }
}

/// Takes part in a trace, or goes on doing so.
pub(crate) fn begin(services: &Services, wish: Wish) {
    let Services { tracer, hub, roster, .. } = services;
    let ends = Instant::now() + LEASE;
    let mut followed = tracer.followed.lock();
    if let Some(known) = followed.traces.iter_mut().find(|trace| trace.wish.id == wish.id) {
        known.ends = ends;
        return;
    }
    if followed.traces.len() >= TRACES_MAX {
        return; // Who asked hears nothing of this node, and knows.
    }
    let user = match &wish.of {
        Of::User(user) => Some(UserId::new(user)),
        Of::Channel(_) => None,
    };
    let mut trace = Trace { wish, ends, budget: Budget::new(), waiting: VecDeque::new(), left_out: 0 };
    trace.see(Seen { line: tracer.line("watching"), receiver: None });
    followed.traces.push(trace);
    services.metrics.traces(followed.traces.len());
    drop(followed);
    hub.tap().switch(true);
    // Who becomes known from now on is found by itself.
    if let Some(user) = user {
        let known = roster.of(&Whom::User(user.clone()));
        let mut followed = tracer.followed.lock();
        followed.people.extend(known.iter().map(|entry| (entry.outbox.id(), user.clone())));
    }
    tracer.has_begun.notify_one();
}

/// Takes part in it no longer.
pub(crate) fn end(services: &Services, id: u64) {
    let mut followed = services.tracer.followed.lock();
    followed.traces.retain(|trace| trace.wish.id != id);
    followed.forget(services);
}

impl Followed {
    /// Forgets what nobody looks at any more.
    fn forget(&mut self, services: &Services) {
        let Self { traces, people } = self;
        people.retain(|_, user| traces.iter().any(|trace| trace.is_of(user)));
        services.metrics.traces(traces.len());
        if traces.is_empty() {
            services.hub.tap().switch(false);
        }
    }

    /// What is to be told now: to whom, of which trace.
    fn take(&mut self) -> Vec<(Box<str>, u64, Vec<Seen>, u64)> {
        let traces = self.traces.iter_mut();
        let due = traces.filter(|trace| !trace.waiting.is_empty() || trace.left_out > 0);
        due.map(|trace| {
            let (waiting, left_out) =
                (std::mem::take(&mut trace.waiting), std::mem::take(&mut trace.left_out));
            (trace.wish.asker.clone(), trace.wish.id, waiting.into(), left_out)
        })
        .collect()
    }
}

/// Tells what was seen, until told to stop.
pub(crate) async fn share(services: Arc<Services>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            services.tracer.has_begun.notified().await;
            while services.hub.tap().is_on() {
                sleep(PACE).await;
                flush(&services).await;
            }
        }
    })
    .await;
}

async fn flush(services: &Services) {
    let tracer = &services.tracer;
    let due = {
        let mut followed = tracer.followed.lock();
        let (now, before) = (Instant::now(), followed.traces.len());
        let due = followed.take();
        followed.traces.retain(|trace| trace.ends > now);
        if followed.traces.len() < before {
            followed.forget(services);
        }
        due
    };
    for (asker, id, waiting, left_out) in due {
        let mut lines: Vec<_> = waiting.into_iter().map(|seen| spelt(seen, services)).collect();
        if left_out > 0 {
            services.metrics.trace_left_out(left_out);
            let mut line = tracer.line("left_out");
            line.insert("count".into(), left_out.into());
            lines.push(raw(&line));
        }
        while !lines.is_empty() {
            let rest = lines.split_off(lines.len().min(LINES_MAX));
            let told = std::mem::replace(&mut lines, rest);
            if *asker == *tracer.node {
                tracer.told(id, (tracer.node.clone(), told));
            } else {
                errands::traced(services, &asker, id, (tracer.node.clone(), told)).await;
            }
        }
    }
}

fn spelt(mut seen: Seen, services: &Services) -> Box<RawValue> {
    let line = seen.receiver.and_then(|id| services.roster.find(id));
    if let Some(user) = line.and_then(|line| line.grant?.user.clone()) {
        seen.line.insert("user".into(), user.as_str().into());
    }
    raw(&seen.line)
}

fn raw(line: &Map<String, Value>) -> Box<RawValue> {
    to_raw_value(line).expect("a map of values is JSON")
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn trace() -> Trace {
        let wish = Wish { id: 1, asker: "a".into(), of: Of::Channel("room:1".into()), payload: false };
        let (ends, budget) = (Instant::now() + LEASE, Budget::new());
        Trace { wish, ends, budget, waiting: VecDeque::new(), left_out: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_the_rate_or_finds_no_room_is_counted() {
        let mut trace = trace();
        let see = |trace: &mut Trace, count: u32| {
            (0..count).for_each(|_| trace.see(Seen { line: Map::new(), receiver: None }));
        };
        see(&mut trace, RATE + 100);
        assert_eq!((trace.waiting.len(), trace.left_out), (RATE as usize, 100));
        let seconds = u32::try_from(WAITING_MAX).unwrap() / RATE + 3;
        for _ in 1..seconds {
            advance(Duration::from_secs(1)).await;
            see(&mut trace, RATE);
        }
        assert_eq!(trace.waiting.len(), WAITING_MAX, "nobody takes it");
        assert_eq!(trace.waiting.len() as u64 + trace.left_out, u64::from(RATE * seconds + 100));
    }

    #[test]
    fn as_much_of_a_payload_is_told_as_may_be() {
        let told = |json: &str| {
            let mut line = Map::new();
            tell_payload(&mut line, &Payload::parse(json).unwrap());
            Value::Object(line)
        };
        assert_eq!(told(r#"{"a":[1]}"#), json!({"payload": {"a": [1]}}));
        let long = told(&format!("{:?}", "é".repeat(1000)));
        assert_eq!(
            (long["payload"].as_str().unwrap().chars().next(), &long["truncated"]),
            (Some('"'), &json!(true))
        );
    }

    #[test]
    fn wishes_are_read_as_they_were_written() {
        let wish = Wish { id: u64::MAX, asker: "a".into(), of: Of::User("ann".into()), payload: true };
        let text = serde_json::to_string(&wish).unwrap();
        assert_eq!(serde_json::from_str::<Wish>(&text).unwrap(), wish, "{text}");
    }
}
