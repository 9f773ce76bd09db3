//! What a node counts: named facts with typed labels.
//!
//! Call sites state one fact, `metrics.outbox_overflowed()`, and know neither the metric's name nor its labels. Each
//! module here declares the metrics of one subject and, below the declarations, the facts that move them.
//!
//! **Invariants.** Labels are enums ([`Refusal`], [`Command`], …): a channel, user or address cannot become a series. All
//! handles are resolved when [`Metrics`] is built: counting is one or a few atomic additions, without a lock, a lookup or an
//! allocation. A metric is declared once; registration, `docs/metrics.md` and the tests read that one declaration.
//!
//! **Deliberately absent:** any other crate of Fanfare, a global registry, and timers. Whoever measures a time owns the clock.

mod auth;
mod broker;
mod catalog;
mod connections;
mod consumers;
mod document;
mod events;
mod hooks;
mod labels;
mod namespaces;
mod node;
mod outgoing;
mod stripes;
mod tls;
mod traffic;
mod ways;

use prometheus::TextEncoder;
use prometheus::process_collector::ProcessCollector;

use crate::catalog::Catalog;
pub use crate::document::document;
pub use crate::labels::{
    Answered, ApiMethod, BrokerCall, Carrier, Command, Consumed, Enforcement, Errand, EventOutcome, Hook,
    HookOutcome, HttpVersion, Limit, Listener, Outcome, Purpose, Queue, QueueBytes, Recovery, Refusal,
    Sacrifice, Source, SpanOutcome, Stage, TlsHandshake, TokenRefusal,
};
pub use crate::traffic::Latencies;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All that one node counts. Built once, shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    connections: connections::Connections,
    traffic: traffic::Traffic,
    broker: broker::Broker,
    tls: tls::Tls,
    auth: auth::Auth,
    node: node::Node,
    outgoing: outgoing::Outgoing,
    hooks: hooks::Hooks,
    events: events::Events,
    consumers: consumers::Consumers,
    namespaces: namespaces::Namespaces,
    ways: ways::Ways,
    catalog: Catalog,
}

impl Metrics {
    /// Everything at zero, in a registry of its own: several nodes in one process do not mix.
    #[must_use]
    pub fn new() -> Self {
        let mut catalog = Catalog::default();
        let connections = connections::Connections::declare(&mut catalog);
        let traffic = traffic::Traffic::declare(&mut catalog);
        let broker = broker::Broker::declare(&mut catalog);
        let tls = tls::Tls::declare(&mut catalog);
        let auth = auth::Auth::declare(&mut catalog);
        let outgoing = outgoing::Outgoing::declare(&mut catalog);
        let hooks = hooks::Hooks::declare(&mut catalog);
        let events = events::Events::declare(&mut catalog);
        let consumers = consumers::Consumers::declare(&mut catalog);
        let namespaces = namespaces::Namespaces::declare(&mut catalog);
        let ways = ways::Ways::declare(&mut catalog);
        let node = node::Node::declare(&mut catalog);
        catalog
            .registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("process metrics have a prefix of their own");
        Self {
            connections,
            traffic,
            broker,
            tls,
            auth,
            node,
            outgoing,
            hooks,
            events,
            consumers,
            namespaces,
            ways,
            catalog,
        }
    }

    /// Every metric in Prometheus' text format 0.0.4, sorted by name.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.catalog.registry.gather())
            .expect("every family has a metric")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
