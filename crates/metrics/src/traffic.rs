//! What is read, delivered, queued and written: the metrics of the hot path.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{Catalog, fact};

const RECEIVERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];
const FANOUT_SECONDS: &[f64] = &[1e-6, 5e-6, 2.5e-5, 1e-4, 5e-4, 2.5e-3, 0.01, 0.05, 0.25, 1.0];
const LATENCY_SECONDS: &[f64] =
    &[5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(crate) struct Traffic {
    received: IntCounter,
    received_bytes: IntCounter,
    sent: IntCounter,
    sent_bytes: IntCounter,
    writes: IntCounter,
    publications: IntCounter,
    receivers: Histogram,
    fanout: Histogram,
    publish_to_write: Histogram,
    outbox_bytes: IntGauge,
    overflows: IntCounter,
}

impl Traffic {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            received: catalog.counter(
                fact("fanfare_messages_received_total", "WebSocket messages received from clients.")
                    .query("sum(rate(fanfare_messages_received_total[1m]))"),
            ),
            received_bytes: catalog
                .counter(fact("fanfare_received_bytes_total", "Bytes read from clients' sockets after the upgrade.")),
            sent: catalog.counter(
                fact("fanfare_messages_sent_total", "WebSocket messages written to clients.")
                    .query("sum(rate(fanfare_messages_sent_total[1m])) by (instance)"),
            ),
            sent_bytes: catalog
                .counter(fact("fanfare_sent_bytes_total", "Bytes written to clients' sockets after the upgrade.")),
            writes: catalog.counter(
                fact("fanfare_writes_total", "Writes to clients' sockets; each carries one or more messages.")
                    .query("rate(fanfare_messages_sent_total[1m]) / rate(fanfare_writes_total[1m])"),
            ),
            publications: catalog
                .counter(fact("fanfare_fanout_publications_total", "Publications handed to this node's subscribers.")),
            receivers: catalog.histogram(
                fact("fanfare_fanout_receivers", "Subscribers of this node that a batch of publications was offered to."),
                RECEIVERS,
            ),
            fanout: catalog.histogram(
                fact(
                    "fanfare_fanout_duration_seconds",
                    "Time to put one batch of publications into the outboxes of all its subscribers.",
                )
                .query("histogram_quantile(0.99, sum(rate(fanfare_fanout_duration_seconds_bucket[5m])) by (le))"),
                FANOUT_SECONDS,
            ),
            publish_to_write: catalog.histogram(
                fact(
                    "fanfare_publish_to_write_seconds",
                    "Time from the publisher's node taking a publication in to a subscriber's socket taking it.",
                )
                .query("histogram_quantile(0.99, sum(rate(fanfare_publish_to_write_seconds_bucket[5m])) by (le))"),
                LATENCY_SECONDS,
            ),
            outbox_bytes: catalog.gauge(
                fact("fanfare_outbox_bytes", "Bytes queued for clients and not yet taken by their sockets.")
                    .query("fanfare_outbox_bytes / fanfare_connections"),
            ),
            overflows: catalog.counter(
                fact("fanfare_outbox_overflows_total", "Connections closed with 4508 because their queue was full.")
                    .query("sum(rate(fanfare_outbox_overflows_total[5m]))"),
            ),
        }
    }
}

impl Metrics {
    /// `messages` whole messages came out of `bytes` bytes read.
    pub fn read(&self, messages: u64, bytes: u64) {
        self.traffic.received.inc_by(messages);
        self.traffic.received_bytes.inc_by(bytes);
    }

    /// One write to a socket took `bytes` bytes, and with them the last byte of `messages` messages.
    pub fn written(&self, messages: u64, bytes: u64) {
        self.traffic.sent.inc_by(messages);
        self.traffic.sent_bytes.inc_by(bytes);
        self.traffic.writes.inc();
    }

    /// A batch of `publications` of one channel was offered to `receivers` subscribers of this node.
    pub fn fanned_out(&self, publications: u64, receivers: u64, elapsed: Duration) {
        self.traffic.publications.inc_by(publications);
        self.traffic.receivers.observe(receivers as f64);
        self.traffic.fanout.observe(elapsed.as_secs_f64());
    }

    /// A publication of this age was taken by a subscriber's socket. Once per write will do: the oldest of the batch.
    pub fn publish_to_write(&self, age: Duration) {
        self.traffic.publish_to_write.observe(age.as_secs_f64());
    }

    /// The outboxes together grew by `bytes`, or shrank when it is negative.
    pub fn outbox_queued(&self, bytes: i64) {
        self.traffic.outbox_bytes.add(bytes);
    }

    /// A queue went over its bound and the connection is closed with 4508.
    pub fn outbox_overflowed(&self) {
        self.traffic.overflows.inc();
    }

    /// WebSocket messages received since the start.
    #[must_use]
    pub fn messages_received(&self) -> u64 {
        self.traffic.received.get()
    }

    /// WebSocket messages written since the start.
    #[must_use]
    pub fn messages_sent(&self) -> u64 {
        self.traffic.sent.get()
    }
}
