//! What a run at scale found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::crowd::Record;
use crate::report::{Report, grouped};

/// See the [module](self).
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) connections: usize,
    pub(crate) nodes: usize,
    /// Processes that hold the clients.
    pub(crate) processes: usize,
    pub(crate) presence: bool,
    pub(crate) opened_seconds: f64,
    /// Of the nodes, for a handshake and two subscriptions.
    pub(crate) cpu_micros_per_handshake: f64,
    pub(crate) memory: Memory,
    pub(crate) rest: Rest,
    /// One after the other, each to everybody.
    pub(crate) broadcasts: Vec<Spread>,
    pub(crate) recovery: Recovery,
    /// For each client of the node that was killed: from losing its connection to being subscribed again.
    pub(crate) back: Spread,
    /// One more to everybody, when all are back.
    pub(crate) broadcast_after: Spread,
    pub(crate) record: Record,
    pub(crate) failures: Vec<String>,
}

/// What is held, or what is held more than before.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Resident memory of all nodes.
    pub(crate) gateway_bytes: u64,
    /// Resident memory of Redis.
    pub(crate) redis_bytes: u64,
    /// What the kernel holds for sockets: those of the nodes, and as many of the clients.
    pub(crate) kernel_bytes: u64,
}

impl Memory {
    /// What has been added since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            gateway_bytes: self.gateway_bytes.saturating_sub(earlier.gateway_bytes),
            redis_bytes: self.redis_bytes.saturating_sub(earlier.redis_bytes),
            kernel_bytes: self.kernel_bytes.saturating_sub(earlier.kernel_bytes),
        }
    }
}

/// What is spent while nothing is published.
#[derive(Debug, Serialize)]
pub(crate) struct Rest {
    pub(crate) seconds: f64,
    pub(crate) heartbeat_seconds: u64,
    pub(crate) pings: u64,
    /// CPU time of all nodes by time.
    pub(crate) gateway_cores: f64,
    pub(crate) redis_cores: f64,
}

/// What it took to come back after a node was killed.
#[derive(Debug, Serialize)]
pub(crate) struct Recovery {
    /// Of the node.
    pub(crate) clients: u64,
    pub(crate) published_meanwhile: u64,
    /// From the kill until everybody has heard everything.
    pub(crate) all_recovered_seconds: f64,
    pub(crate) gateway_cpu_seconds: f64,
    pub(crate) redis_cpu_seconds: f64,
    pub(crate) redis_commands: BTreeMap<String, u64>,
}

/// Times, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Spread {
    /// Of these; zeros when there are none.
    pub(crate) fn of(mut millis: Vec<f64>) -> Self {
        millis.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            millis.get((millis.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0.0)
        };
        Self { count: millis.len(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }

    fn text(&self) -> String {
        format!("{:.0} / {:.0} / {:.0}", self.p50_ms, self.p99_ms, self.max_ms)
    }
}

impl Record {
    /// Adds what another process has seen.
    pub(crate) fn add(&mut self, other: Self) {
        self.live += other.live;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.unrecovered += other.unrecovered;
        self.retries += other.retries;
        self.back_millis.extend(other.back_millis);
        for (what, count) in other.troubles {
            *self.troubles.entry(what).or_default() += count;
        }
    }

    /// What must not have been. That connections of the killed node ended is no failure; that others did is.
    pub(crate) fn failures(&self, connections: usize) -> Vec<String> {
        let mut failures = Vec::new();
        if self.live != connections {
            failures.push(format!("{} of {connections} connections are subscribed at the end", self.live));
        }
        for (count, what) in [
            (self.lost, "publications were skipped"),
            (self.repeated, "publications were heard again or out of order"),
            (self.unrecovered, "returns were not answered `recovered: true`"),
        ] {
            if count > 0 {
                failures.push(format!("{count} {what}"));
            }
        }
        failures
    }
}

impl Report for Findings {
    fn title(&self) -> String {
        let Self { connections, nodes, processes, .. } = self;
        format!(
            "{} connections on {nodes} nodes, held by {processes} processes",
            grouped(*connections as f64)
        )
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let per_connection = |bytes: u64| grouped(bytes as f64 / self.connections as f64);
        let worst = self.broadcasts.iter().max_by(|one, other| one.max_ms.total_cmp(&other.max_ms));
        let mut rows = vec![
            ("opened and subscribed in, s", format!("{:.1}", self.opened_seconds)),
            ("CPU per handshake+2 subscribes, µs", format!("{:.0}", self.cpu_micros_per_handshake)),
            ("gateway bytes per connection", per_connection(self.memory.gateway_bytes)),
            ("kernel bytes per connection", per_connection(self.memory.kernel_bytes)),
            ("Redis bytes per connection", per_connection(self.memory.redis_bytes)),
            ("at rest for, s", format!("{:.1}", self.rest.seconds)),
            ("pings per connection", format!("{:.2}", self.rest.pings as f64 / self.connections as f64)),
            ("gateway CPU at rest, cores", format!("{:.3}", self.rest.gateway_cores)),
            ("Redis CPU at rest, cores", format!("{:.3}", self.rest.redis_cores)),
        ];
        if let Some(worst) = worst {
            let median = &mut self.broadcasts.iter().map(|it| it.max_ms).collect::<Vec<_>>();
            median.sort_by(f64::total_cmp);
            rows.push(("broadcast to all, ms, median of max", format!("{:.0}", median[median.len() / 2])));
            rows.push(("worst, ms, p50 / p99 / max", worst.text()));
        }
        rows.extend([
            ("clients of the killed node", grouped(self.back.count as f64)),
            ("back after, ms, p50 / p99 / max", self.back.text()),
            ("all recovered after, s", format!("{:.2}", self.recovery.all_recovered_seconds)),
            ("gateway CPU for it, s", format!("{:.2}", self.recovery.gateway_cpu_seconds)),
            ("Redis commands for it", grouped(self.recovery.redis_commands.values().sum::<u64>() as f64)),
            ("broadcast after it, ms", self.broadcast_after.text()),
        ]);
        rows
    }

    fn failures(&self) -> &[String] {
        &self.failures
    }
}
