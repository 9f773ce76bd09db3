//! What clients and backends asked, and how long it took, as spans for a collector of OpenTelemetry.
//!
//! ```text
//!  traceparent ─► connection, API: a Span ─► queue, bounded ─► a batch ─► OTLP over HTTP, protobuf ─► collector
//!                     └── its context goes with the publication ─► every node: one more span, under it
//! ```
//!
//! Whether something is recorded is decided once, where it comes in: by its publisher's `traceparent`, where there is one, else by
//! `tracing.one_in`. A publication that is recorded carries its context to all nodes, which add how they handed it on.
//!
//! **Invariants.** Nobody waits for a collector: a span that finds no room in the queue, and a batch that is not taken after
//! [`TRIES`], are lost and counted. Where there is no collector configured, a span costs a load of a flag. No payload, token or header is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Uri};
use fanfare_fanout::tap::Tap;
use fanfare_metrics::{Metrics, Purpose, SpanOutcome};
use fanfare_protocol::error::Failure;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::trace::{SpanId, TraceContext};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::{self, Config};
use crate::node::Services;
use crate::outgoing::{Dialer, Outgoing, Policy};
use crate::trace::new_trace;

mod wire;

/// The most spans of a batch.
const BATCH: usize = 512;

/// How long the first of them waits for others.
const DELAY: Duration = Duration::from_secs(1);

/// How often a batch is sent that is not taken, and the wait before the second time.
const TRIES: u32 = 3;
const RETRY: Duration = Duration::from_millis(500);

/// The longest answer of a collector that is read.
const ANSWER_BYTES: usize = 64 * 1024;

/// How long the last spans may take when the node stops.
const FLUSH: Duration = Duration::from_secs(2);

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Spans {
    is_on: AtomicBool,
    way: RwLock<Option<Arc<Way>>>,
    waiting: Mutex<VecDeque<Span>>,
    has_some: Notify,
    metrics: Arc<Metrics>,
}

/// Where spans go, and which.
#[derive(Debug)]
struct Way {
    url: Uri,
    headers: HeaderMap,
    one_in: u32,
    queue: usize,
    outgoing: Outgoing,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    context: TraceContext,
    parent: Option<SpanId>,
    name: &'static str,
    kind: Kind,
    began: UnixMicros,
    ended: UnixMicros,
    facts: Vec<(&'static str, Value)>,
    /// Why it failed.
    error: Option<Box<str>>,
}

/// Whose part it is, as OpenTelemetry numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It answers somebody.
    Server = 2,
    /// It hands on what somebody has published.
    Consumer = 5,
}

/// Of a fact.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(Box<str>),
    Number(i64),
}

/// Something that is recorded, and not over yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<SpanId>,
    pub(crate) began: UnixMicros,
}

impl Value {
    pub(crate) fn text(text: &(impl ToString + ?Sized)) -> Self {
        Self::Text(text.to_string().into())
    }

    pub(crate) fn number(number: impl TryInto<i64>) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }
}

impl Spans {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            way: RwLock::default(),
            waiting: Mutex::default(),
            has_some: Notify::new(),
            metrics,
        }
    }

    /// Takes what a configuration says.
    pub(crate) fn configure(&self, config: &Config, dialer: &Dialer, tap: &Tap) {
        let way = config.tracing.url.as_ref().map(|url| Arc::new(way(url, &config.tracing, dialer)));
        self.is_on.store(way.is_some(), Ordering::Relaxed);
        tap.record(way.is_some());
        *self.way.write() = way;
    }

    /// Whether anything is recorded.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Begins a span, if this one is to be recorded: whoever comes with a context has decided that.
    pub(crate) fn begin(&self, from: Option<&TraceContext>, now: UnixMicros) -> Option<Begun> {
        if !self.is_on() {
            return None;
        }
        match from {
            Some(from) if from.is_sampled => {
                let span = SpanId::new(fastrand::u64(1..)).expect("it is not zero");
                Some(Begun { context: from.under(span), parent: Some(from.span), began: now })
            }
            Some(_) => None,
            None => {
                let one_in = self.way.read().as_ref()?.one_in;
                (fastrand::u32(..one_in) == 0).then(|| Begun {
                    context: new_trace(true),
                    parent: None,
                    began: now,
                })
            }
        }
    }

    /// Has one told that is over.
    pub(crate) fn end(
        &self,
        Begun { context, parent, began }: Begun,
        (kind, name): (Kind, &'static str),
        ended: UnixMicros,
        facts: Vec<(&'static str, Value)>,
        failure: Option<&Failure>,
    ) {
        let error =
            failure.map(|it| format!("{} {}: {}", it.number(), it.code.slug(), it.explanation).into());
        self.queue(Span { context, parent, name, kind, began, ended, facts, error });
    }

    /// Has a span told, if there is room for it.
    fn queue(&self, span: Span) {
        let room = self.way.read().as_ref().map_or(0, |way| way.queue);
        let mut waiting = self.waiting.lock();
        if waiting.len() >= room {
            drop(waiting);
            return self.metrics.spans_ended(SpanOutcome::Dropped, 1);
        }
        waiting.push_back(span);
        drop(waiting);
        self.has_some.notify_one();
    }

    fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }

    fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

fn way(url: &str, tracing: &config::Tracing, dialer: &Dialer) -> Way {
    let policy = Policy {
        timeout: tracing.timeout,
        answer_bytes: ANSWER_BYTES,
        concurrent: 1,
        waiting: 0,
        // A batch is tried a few times, and then lost.
        failures: u32::MAX,
        cool_down: Duration::ZERO,
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if let Some(authorization) = &tracing.authorization
        && let Ok(mut value) = HeaderValue::from_str(authorization.expose())
    {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Way {
        url: url.parse().expect("checked to be a URL"),
        headers,
        one_in: tracing.one_in.get(),
        queue: tracing.queue,
        outgoing: dialer.outgoing(Purpose::Spans, policy),
    }
}

/// Tells the collector, until told to stop; then what is left, within a bound.
pub(crate) async fn share(services: Arc<Services>, stop: CancellationToken) {
    let spans = &services.spans;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = spans.has_some.notified() => {}
        }
        while spans.len() > 0 {
            if spans.len() < BATCH {
                let _ = timeout(DELAY, stop.cancelled()).await;
            }
            if stop.run_until_cancelled(send(&services, spans.take())).await.is_none() {
                break;
            }
        }
    }
    let _ = timeout(FLUSH, async {
        while spans.len() > 0 {
            send(&services, spans.take()).await;
        }
    })
    .await;
}

async fn send(services: &Services, batch: Vec<Span>) {
    let Some(way) = services.spans.way.read().clone() else { return };
    let node = services.settings().policy.node.clone();
    let body = bytes::Bytes::from(wire::request(&node, &batch));
    let mut wait = RETRY;
    for tried in 1..=TRIES {
        let outcome = way.outgoing.post(&way.url, way.headers.clone(), body.clone()).await;
        match outcome {
            Ok(_) => return services.metrics.spans_ended(SpanOutcome::Exported, batch.len()),
            Err(error) => debug!(%error, tried, spans = batch.len(), "a collector has not taken spans"),
        }
        if tried < TRIES {
            sleep(wait).await;
            wait *= 2;
        }
    }
    services.metrics.spans_ended(SpanOutcome::Failed, batch.len());
}
