//! Requests that the node itself makes of others' HTTP servers.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{Answered, Purpose};

const ANSWER_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(crate) struct Outgoing {
    requests: By<(Purpose, Answered), IntCounter>,
    seconds: By<Purpose, Histogram>,
    in_flight: By<Purpose, IntGauge>,
    open: By<Purpose, IntGauge>,
}

impl Outgoing {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            requests: catalog.counters(
                fact(
                    "fanfare_outgoing_requests_total",
                    "Requests of the node to HTTP servers, those that were not sent among them, by what came of them.",
                )
                .query("sum(rate(fanfare_outgoing_requests_total{outcome!=\"ok\"}[5m])) by (purpose, outcome)"),
            ),
            seconds: catalog.histograms(
                fact(
                    "fanfare_outgoing_request_seconds",
                    "From sending a request to the end of its answer, or to its failure.",
                )
                .query(
                    "histogram_quantile(0.99, sum(rate(fanfare_outgoing_request_seconds_bucket[5m])) by (le, purpose))",
                ),
                ANSWER_SECONDS,
            ),
            in_flight: catalog
                .gauges(fact("fanfare_outgoing_requests", "Requests that are sent and not answered yet.")),
            open: catalog.gauges(
                fact(
                    "fanfare_outgoing_breakers_open",
                    "Servers that are left alone for now, since they have failed too often in a row.",
                )
                .query("max(fanfare_outgoing_breakers_open) by (purpose) > 0"),
            ),
        }
    }
}

impl Metrics {
    /// A request came to an end, or was not made at all.
    pub fn outgoing_ended(&self, purpose: Purpose, outcome: Answered) {
        self.outgoing.requests.of((purpose, outcome)).inc();
    }

    /// One that was sent took so long.
    pub fn outgoing_took(&self, purpose: Purpose, elapsed: Duration) {
        self.outgoing.seconds.of(purpose).observe(elapsed.as_secs_f64());
    }

    /// The requests under way have become so many more, or fewer.
    pub fn outgoing_in_flight(&self, purpose: Purpose, change: i64) {
        self.outgoing.in_flight.of(purpose).add(change);
    }

    /// The servers that are left alone have become so many more, or fewer.
    pub fn outgoing_breakers_open(&self, purpose: Purpose, change: i64) {
        self.outgoing.open.of(purpose).add(change);
    }
}
