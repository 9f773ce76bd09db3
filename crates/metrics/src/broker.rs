//! How the broker between the nodes is doing.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{BrokerCall, Failure, Outcome};

/// Of calls to the broker, and of publications on their way through it.
const SECONDS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(crate) struct Broker {
    calls: By<BrokerCall, Histogram>,
    errors: By<(BrokerCall, Failure), IntCounter>,
    connected: IntGauge,
    reconnects: IntCounter,
    received: IntCounter,
    age: Histogram,
    dropped: IntCounter,
    watched: IntGauge,
    present: IntGauge,
}

impl Broker {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            calls: catalog.histograms(
                fact("fanfare_broker_call_seconds", "Round trip of a call to the broker, whatever its outcome.").query(
                    "histogram_quantile(0.99, sum(rate(fanfare_broker_call_seconds_bucket[5m])) by (le, call))",
                ),
                SECONDS,
            ),
            errors: catalog.counters(
                fact("fanfare_broker_call_errors_total", "Calls to the broker that failed, by how they failed.")
                    .query("sum(rate(fanfare_broker_call_errors_total[5m])) by (call, outcome)"),
            ),
            connected: catalog.gauge(
                fact("fanfare_broker_connected", "1 while the broker is reachable, 0 while it is not.")
                    .query("min(fanfare_broker_connected) == 0"),
            ),
            reconnects: catalog
                .counter(fact("fanfare_broker_reconnects_total", "Connections to the broker made anew after a loss.")),
            received: catalog.counter(fact(
                "fanfare_broker_publications_received_total",
                "Publications heard from the broker, this node's own among them.",
            )),
            age: catalog.histogram(
                fact(
                    "fanfare_publish_to_heard_seconds",
                    "Time from the publisher's node taking a publication in to this node's hub hearing it from the broker; one of each batch.",
                )
                .query("histogram_quantile(0.99, sum(rate(fanfare_publish_to_heard_seconds_bucket[5m])) by (le, instance))"),
                SECONDS,
            ),
            dropped: catalog.counter(
                fact(
                    "fanfare_broker_publications_dropped_total",
                    "Publications heard and thrown away: not decodable, or over the bound of the lane.",
                )
                .query("sum(rate(fanfare_broker_publications_dropped_total[5m]))"),
            ),
            watched: catalog.gauge(fact("fanfare_broker_watched_channels", "Channels this node hears from the broker.")),
            present: catalog.gauge(fact(
                "fanfare_presence_members",
                "Members that this node answers for in presence, over all channels; those in their grace among them.",
            )),
        }
    }
}

impl Metrics {
    /// A call to the broker ended after `elapsed`.
    pub fn broker_call(&self, call: BrokerCall, outcome: Outcome, elapsed: Duration) {
        self.broker.calls.of(call).observe(elapsed.as_secs_f64());
        if let Some(failure) = outcome.failure() {
            self.broker.errors.of((call, failure)).inc();
        }
    }

    /// Whether the broker is reachable now.
    pub fn broker_connected(&self, connected: bool) {
        self.broker.connected.set(connected.into());
    }

    /// A lost connection to the broker was made anew.
    pub fn broker_reconnected(&self) {
        self.broker.reconnects.inc();
    }

    /// `count` publications were heard from the broker.
    pub fn publications_received(&self, count: u64) {
        self.broker.received.inc_by(count);
    }

    /// A batch of publications was heard whose first is of this age.
    pub fn publication_heard(&self, age: Duration) {
        self.broker.age.observe(age.as_secs_f64());
    }

    /// `count` publications were heard and thrown away.
    pub fn publications_dropped(&self, count: u64) {
        self.broker.dropped.inc_by(count);
    }

    /// How many channels the broker was asked to be heard on.
    pub fn channels_watched(&self, count: u64) {
        self.broker.watched.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The members that this node answers for have become so many more, or fewer.
    pub fn presence_members(&self, change: i64) {
        self.broker.present.add(change);
    }
}
