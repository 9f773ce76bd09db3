//! What a backend was told, and what it could not be told.

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::EventOutcome;

#[derive(Debug)]
pub(crate) struct Events {
    ended: By<EventOutcome, IntCounter>,
    waiting: IntGauge,
    retries: IntCounter,
}

impl Events {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            ended: catalog.counters(
                fact(
                    "fanfare_events_total",
                    "Events for a backend, by what became of them; how long it takes to answer fanfare_outgoing_request_seconds \
                     tells for the purpose `webhook`.",
                )
                .query("sum(rate(fanfare_events_total{outcome!=\"delivered\"}[5m])) by (outcome)"),
            ),
            waiting: catalog.gauge(
                fact("fanfare_events_waiting", "Events that wait to be told, or for the answer that they were taken.")
                    .query("sum(fanfare_events_waiting)"),
            ),
            retries: catalog.counter(
                fact("fanfare_event_retries_total", "Reports that were sent again, since the backend had not taken them.")
                    .query("sum(rate(fanfare_event_retries_total[5m]))"),
            ),
        }
    }
}

impl Metrics {
    /// So many events have come to their end.
    pub fn events_ended(&self, outcome: EventOutcome, count: usize) {
        self.events.ended.of(outcome).inc_by(count as u64);
    }

    /// The events that wait have become so many more, or fewer.
    pub fn events_waiting(&self, change: i64) {
        self.events.waiting.add(change);
    }

    /// A report is sent again.
    pub fn event_report_retried(&self) {
        self.events.retries.inc();
    }
}
