//! The node itself: what it is, whether it is leaving, what its backends and other nodes ask, and its own bugs.

use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{ApiMethod, Errand, Label, SpanOutcome, StatusClass};

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
    traces: IntGauge,
    trace_left_out: IntCounter,
    spans: By<SpanOutcome, IntCounter>,
    panics: IntCounter,
    draining: IntGauge,
    drain_left: IntGauge,
    ready: IntGauge,
    lag: Gauge,
    stall: Gauge,
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
            traces: catalog.gauge(
                fact("fanfare_traces", "Traces of a channel or a user that this node takes part in.")
                    .query("max(fanfare_traces)"),
            ),
            trace_left_out: catalog.counter(
                fact(
                    "fanfare_trace_events_left_out_total",
                    "Events that those who looked on were not told, since they were over the rate of a trace.",
                )
                .query("sum(rate(fanfare_trace_events_left_out_total[5m]))"),
            ),
            spans: catalog.counters(
                fact("fanfare_spans_total", "Spans for a collector of OpenTelemetry, by what became of them.")
                    .query("sum(rate(fanfare_spans_total{outcome!=\"exported\"}[5m])) by (outcome)"),
            ),
            panics: catalog.counter(
                fact("fanfare_panics_total", "Panics: each ended one connection and is a bug of ours.")
                    .query("increase(fanfare_panics_total[1h]) > 0"),
            ),
            draining: catalog
                .gauge(fact("fanfare_draining", "1 from the moment the node was told to stop, 0 before.")),
            drain_left: catalog.gauge(
                fact("fanfare_drain_untold", "Connections that a node which drains has not told yet to go; 0 before.")
                    .query("sum(fanfare_drain_untold) by (instance)"),
            ),
            ready: catalog.gauge(
                fact("fanfare_ready", "1 while the node wants new clients: what `/ready` says.")
                    .query("count(fanfare_ready == 0)"),
            ),
            lag: catalog.real_gauge(
                fact(
                    "fanfare_probe_lag_seconds",
                    "Time from publishing to hearing, by a probe that the node sends itself every second; the age of the first that has \
                     not come back.",
                )
                .query("max(fanfare_probe_lag_seconds) by (instance)"),
            ),
            stall: catalog.real_gauge(
                fact(
                    "fanfare_runtime_stall_seconds",
                    "The longest that the runtime stood still within the last five seconds.",
                )
                .query("max_over_time(fanfare_runtime_stall_seconds[5m])"),
            ),
        }
    }
}

impl Metrics {
    /// A post was handed on to the node of its ticket.
    pub fn errand(&self, outcome: Errand) {
        self.node.errands.of(outcome).inc();
    }

    /// So many traces are looked at.
    pub fn traces(&self, count: usize) {
        self.node.traces.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many events are not told.
    pub fn trace_left_out(&self, count: u64) {
        self.node.trace_left_out.inc_by(count);
    }

    /// So many spans have come to their end.
    pub fn spans_ended(&self, outcome: SpanOutcome, count: usize) {
        self.node.spans.of(outcome).inc_by(count as u64);
    }

    /// A request of a backend was answered with this HTTP status.
    pub fn api_request(&self, method: ApiMethod, status: u16) {
        self.node.api.of((method, StatusClass::of(status))).inc();
    }

    /// What the process has had of the cores, in seconds, and holds of the memory, in bytes; zeros where the system does not say.
    #[must_use]
    pub fn process(&self) -> (f64, u64) {
        let families = ProcessCollector::for_self().collect();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name)?;
            let metric = family.get_metric().first()?;
            Some(metric.get_counter().get_value() + metric.get_gauge().get_value())
        };
        let memory = value("process_resident_memory_bytes").unwrap_or(0.0);
        (value("process_cpu_seconds_total").unwrap_or(0.0), memory as u64)
    }

    /// A task panicked.
    pub fn panicked(&self) {
        self.node.panics.inc();
    }

    /// Whether the node wants new clients; how late publications come, and how long the runtime stood still of late.
    pub fn readiness(&self, is_ready: bool, lag: Duration, stall: Duration) {
        self.node.ready.set(is_ready.into());
        self.node.lag.set(lag.as_secs_f64());
        self.node.stall.set(stall.as_secs_f64());
    }

    /// So many connections are still to be told to go.
    pub fn drain_untold(&self, connections: usize) {
        self.node.drain_left.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Whether the node is letting go of its clients.
    pub fn draining(&self, draining: bool) {
        self.node.draining.set(draining.into());
    }
}
