//! What was fetched for publication, and what waits to be.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{Consumed, Source};

#[derive(Debug)]
pub(crate) struct Consumers {
    consumed: By<(Source, Consumed), IntCounter>,
    redelivered: By<Source, IntCounter>,
    down: By<Source, IntGauge>,
    waiting: By<Source, IntGauge>,
    lag: By<Source, IntGauge>,
}

impl Consumers {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            consumed: catalog.counters(
                fact("fanfare_consumed_total", "Entries that consumers have read, by what became of them.")
                    .query("sum(rate(fanfare_consumed_total{outcome!=\"accepted\"}[5m])) by (source, outcome)"),
            ),
            redelivered: catalog.counters(
                fact(
                    "fanfare_consumer_redelivered_total",
                    "Entries that were read again: a node was gone, or the broker away, before they were taken out of their source.",
                )
                .query("sum(rate(fanfare_consumer_redelivered_total[5m])) by (source)"),
            ),
            down: catalog.gauges(
                fact("fanfare_consumers_down", "Sources of consumers that this node cannot read now.")
                    .query("sum(fanfare_consumers_down) by (source)"),
            ),
            waiting: catalog.gauges(
                fact("fanfare_consumer_waiting", "Entries that wait at the sources, as every node with a consumer sees them.")
                    .query("max(fanfare_consumer_waiting) by (source)"),
            ),
            lag: catalog.gauges(
                fact("fanfare_consumer_lag_seconds", "For how long the first of the entries that wait has done so.")
                    .query("max(fanfare_consumer_lag_seconds) by (source)"),
            ),
        }
    }
}

impl Metrics {
    /// So many entries have been read, and this has become of them.
    pub fn consumed(&self, source: Source, outcome: Consumed, entries: usize) {
        self.consumers.consumed.of((source, outcome)).inc_by(entries as u64);
    }

    /// So many entries are read that had been read before.
    pub fn consumer_redelivered(&self, source: Source, entries: usize) {
        self.consumers.redelivered.of(source).inc_by(entries as u64);
    }

    /// How the sources of one kind are.
    pub fn consumers_measured(&self, source: Source, down: usize, waiting: u64, oldest: Duration) {
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.consumers.down.of(source).set(whole(down as u64));
        self.consumers.waiting.of(source).set(whole(waiting));
        self.consumers.lag.of(source).set(whole(oldest.as_secs()));
    }
}
