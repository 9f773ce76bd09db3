//! The node itself: what it is, whether it is leaving, what its backends and other nodes ask, and its own bugs.

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{ApiMethod, Errand, Label, StatusClass};

/// The version that every crate of the workspace shares.
#[derive(Clone, Copy, Debug)]
struct Version;

impl From<Version> for usize {
    fn from(_: Version) -> Self {
        0
    }
}

impl Label for Version {
    const NAME: &'static str = "version";
    const VALUES: &'static [&'static str] = &[env!("CARGO_PKG_VERSION")];
}

#[derive(Debug)]
pub(crate) struct Node {
    api: By<(ApiMethod, StatusClass), IntCounter>,
    errands: By<Errand, IntCounter>,
    panics: IntCounter,
    draining: IntGauge,
}

impl Node {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        catalog
            .gauges::<Version>(
                fact("fanfare_build_info", "Always 1; its label says which version this is.")
                    .query("count(fanfare_build_info) by (version)"),
            )
            .of(Version)
            .set(1);
        Self {
            api: catalog.counters(
                fact(
                    "fanfare_api_requests_total",
                    "Requests to the server API, by method and class of status.",
                )
                .query("sum(rate(fanfare_api_requests_total{status!=\"2xx\"}[5m])) by (method, status)"),
            ),
            errands: catalog.counters(
                fact(
                    "fanfare_errands_total",
                    "Posts that were handed on to the node whose ticket they came with, by what came of it.",
                )
                .query("sum(rate(fanfare_errands_total[5m])) by (outcome)"),
            ),
            panics: catalog.counter(
                fact("fanfare_panics_total", "Panics: each ended one connection and is a bug of ours.")
                    .query("increase(fanfare_panics_total[1h]) > 0"),
            ),
            draining: catalog
                .gauge(fact("fanfare_draining", "1 from the moment the node was told to stop, 0 before.")),
        }
    }
}

impl Metrics {
    /// A post was handed on to the node of its ticket.
    pub fn errand(&self, outcome: Errand) {
        self.node.errands.of(outcome).inc();
    }

    /// A request of a backend was answered with this HTTP status.
    pub fn api_request(&self, method: ApiMethod, status: u16) {
        self.node.api.of((method, StatusClass::of(status))).inc();
    }

    /// A task panicked.
    pub fn panicked(&self) {
        self.node.panics.inc();
    }

    /// Whether the node is letting go of its clients.
    pub fn draining(&self, draining: bool) {
        self.node.draining.set(draining.into());
    }
}
