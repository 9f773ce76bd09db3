//! What is read, delivered, queued and written: the metrics of the hot path.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::Sacrifice;
use crate::stripes::Stripes;

const RECEIVERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];
const FANOUT_SECONDS: &[f64] = &[1e-6, 5e-6, 2.5e-5, 1e-4, 5e-4, 2.5e-3, 0.01, 0.05, 0.25, 1.0];

/// Upper bounds of the latency buckets in nanoseconds, 50 µs to 10 s; one more bucket holds the rest.
const LATENCY_NANOS: [u64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// An age over this is counted as this: the sum of nanoseconds must not overflow in the life of a node.
const LATENCY_NANOS_MAX: u64 = 3_600_000_000_000;

// The slots of the striped counters. What one fact adds to lies together.
const SENT: usize = 0;
const SENT_BYTES: usize = 1;
const WRITES: usize = 2;
const OUTBOX_BYTES: usize = 3;
const RECEIVED: usize = 4;
const RECEIVED_BYTES: usize = 5;
const LATENCY_SUM: usize = 6;
const SENT_SAVED_BYTES: usize = 7;
const RECEIVED_SAVED_BYTES: usize = 8;
const LATENCY: usize = 9;
const SLOTS: usize = LATENCY + LATENCY_NANOS.len() + 1;

/// How old publications were when subscribers' sockets took them: how many of them, bucket by bucket, since the start.
#[derive(Clone, Debug, Default)]
pub struct Latencies([u64; LATENCY_NANOS.len() + 1]);

impl Latencies {
    /// The age, in milliseconds, that this share of what was taken since `before` does not exceed, as exactly as the buckets say; none where
    /// nothing was taken. Beyond the last bound nothing is known but that it was passed.
    #[must_use]
    pub fn quantile_since(&self, before: &Self, share: f64) -> Option<f64> {
        let taken: Vec<u64> =
            self.0.iter().zip(before.0).map(|(now, then)| now.saturating_sub(then)).collect();
        let wanted = taken.iter().sum::<u64>() as f64 * share;
        let mut passed = 0.0;
        for (bucket, count) in taken.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let count = count as f64;
            if passed + count >= wanted {
                let from = bucket.checked_sub(1).map_or(0, |below| LATENCY_NANOS[below]) as f64;
                let to = LATENCY_NANOS.get(bucket).map_or(from, |bound| *bound as f64);
                return Some((from + (to - from) * (wanted - passed).max(0.0) / count) / 1e6);
            }
            passed += count;
        }
        None
    }
}

#[derive(Debug)]
pub(crate) struct Traffic {
    /// Whatever is counted once per read, push or write.
    hot: Arc<Stripes<SLOTS>>,
    publications: IntCounter,
    receivers: Histogram,
    fanout: Histogram,
    overflows: IntCounter,
    dropped: By<Sacrifice, IntCounter>,
}

impl Traffic {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        let hot = Arc::new(Stripes::new());
        declare_hot(catalog, &hot);
        Self {
            hot,
            publications: catalog.counter(fact(
                "fanfare_fanout_publications_total",
                "Publications handed to this node's subscribers.",
            )),
            receivers: catalog.histogram(
                fact(
                    "fanfare_fanout_receivers",
                    "Subscribers of this node that a batch of publications was offered to.",
                ),
                RECEIVERS,
            ),
            fanout: catalog.histogram(
                fact(
                    "fanfare_fanout_duration_seconds",
                    "Time to put one batch of publications into the outboxes of all its subscribers.",
                )
                .query(
                    "histogram_quantile(0.99, sum(rate(fanfare_fanout_duration_seconds_bucket[5m])) by (le))",
                ),
                FANOUT_SECONDS,
            ),
            overflows: catalog.counter(
                fact(
                    "fanfare_outbox_overflows_total",
                    "Connections closed with 4508 because their queue was full.",
                )
                .query("sum(rate(fanfare_outbox_overflows_total[5m]))"),
            ),
            dropped: catalog.counters(
                fact(
                    "fanfare_outbox_dropped_total",
                    "Publications that a slow client was not sent, by the policy of their channels.",
                )
                .query("sum(rate(fanfare_outbox_dropped_total[5m])) by (policy)"),
            ),
        }
    }
}

/// Declares the metrics that are sums over stripes.
fn declare_hot(catalog: &mut Catalog, hot: &Arc<Stripes<SLOTS>>) {
    let sum = |slot| {
        let hot = Arc::clone(hot);
        move || hot.sum(slot)
    };
    catalog.counter_of(
        fact("fanfare_messages_received_total", "WebSocket messages received from clients.")
            .query("sum(rate(fanfare_messages_received_total[1m]))"),
        sum(RECEIVED),
    );
    catalog.counter_of(
        fact("fanfare_received_bytes_total", "Bytes read from clients' sockets after the upgrade."),
        sum(RECEIVED_BYTES),
    );
    catalog.counter_of(
        fact("fanfare_messages_sent_total", "WebSocket messages written to clients.")
            .query("sum(rate(fanfare_messages_sent_total[1m])) by (instance)"),
        sum(SENT),
    );
    catalog.counter_of(
        fact("fanfare_sent_bytes_total", "Bytes written to clients' sockets after the upgrade."),
        sum(SENT_BYTES),
    );
    catalog.counter_of(
        fact(
            "fanfare_sent_saved_bytes_total",
            "Bytes that clients were not sent because messages were compressed.",
        )
        .query(
            "rate(fanfare_sent_saved_bytes_total[5m]) / (rate(fanfare_sent_saved_bytes_total[5m]) + rate(fanfare_sent_bytes_total[5m]))",
        ),
        sum(SENT_SAVED_BYTES),
    );
    catalog.counter_of(
        fact(
            "fanfare_received_saved_bytes_total",
            "Bytes that clients did not send because they compressed their messages.",
        ),
        sum(RECEIVED_SAVED_BYTES),
    );
    catalog.counter_of(
        fact("fanfare_writes_total", "Writes to clients' sockets; each carries one or more messages.")
            .query("rate(fanfare_messages_sent_total[1m]) / rate(fanfare_writes_total[1m])"),
        sum(WRITES),
    );
    catalog.gauge_of(
        fact("fanfare_outbox_bytes", "Bytes queued for clients and not yet taken by their sockets.")
            .query("fanfare_outbox_bytes / fanfare_connections"),
        sum(OUTBOX_BYTES),
    );
    let hot = Arc::clone(hot);
    catalog.histogram_of(
        fact(
            "fanfare_publish_to_write_seconds",
            "Time from the publisher's node taking a publication in to a subscriber's socket taking it.",
        )
        .query("histogram_quantile(0.99, sum(rate(fanfare_publish_to_write_seconds_bucket[5m])) by (le))"),
        &LATENCY_NANOS,
        move || (hot.sum(LATENCY_SUM), (LATENCY..SLOTS).map(|slot| hot.sum(slot)).collect()),
    );
}

impl Metrics {
    /// `messages` whole messages came out of `bytes` bytes read.
    #[inline]
    pub fn read(&self, messages: u64, bytes: u64) {
        let cells = self.traffic.hot.mine();
        cells[RECEIVED].fetch_add(messages, Relaxed);
        cells[RECEIVED_BYTES].fetch_add(bytes, Relaxed);
    }

    /// One write to a socket took `bytes` bytes, and with them the last byte of `messages` messages.
    #[inline]
    pub fn written(&self, messages: u64, bytes: u64) {
        self.written_to_many(1, messages, bytes);
    }

    /// The same in so many writes, with so many messages and bytes in each.
    #[inline]
    pub fn written_to_many(&self, writes: u64, messages: u64, bytes: u64) {
        let cells = self.traffic.hot.mine();
        cells[SENT].fetch_add(writes * messages, Relaxed);
        cells[SENT_BYTES].fetch_add(writes * bytes, Relaxed);
        cells[WRITES].fetch_add(writes, Relaxed);
    }

    /// What was read is so many bytes shorter for being compressed.
    #[inline]
    pub fn read_saved(&self, bytes: u64) {
        self.traffic.hot.mine()[RECEIVED_SAVED_BYTES].fetch_add(bytes, Relaxed);
    }

    /// What was written is so many bytes shorter for being compressed.
    #[inline]
    pub fn written_saved(&self, bytes: u64) {
        self.traffic.hot.mine()[SENT_SAVED_BYTES].fetch_add(bytes, Relaxed);
    }

    /// A publication of this age was taken by a subscriber's socket. Once per write will do: the oldest of the batch. An age
    /// of more than an hour is counted as an hour.
    #[inline]
    pub fn publish_to_write(&self, age: Duration) {
        self.publish_to_write_of_many(1, age);
    }

    /// The same of so many subscribers' sockets.
    #[inline]
    pub fn publish_to_write_of_many(&self, sockets: u64, age: Duration) {
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX).min(LATENCY_NANOS_MAX);
        let bucket = LATENCY_NANOS.partition_point(|bound| *bound < nanos);
        let cells = self.traffic.hot.mine();
        cells[LATENCY + bucket].fetch_add(sockets, Relaxed);
        cells[LATENCY_SUM].fetch_add(sockets * nanos, Relaxed);
    }

    /// The outboxes together grew by `bytes`, or shrank when it is negative.
    #[inline]
    pub fn outbox_queued(&self, bytes: i64) {
        self.traffic.hot.mine()[OUTBOX_BYTES].fetch_add(bytes.cast_unsigned(), Relaxed);
    }

    /// A batch of `publications` of one channel was offered to `receivers` subscribers of this node.
    pub fn fanned_out(&self, publications: u64, receivers: u64, elapsed: Duration) {
        self.traffic.publications.inc_by(publications);
        self.traffic.receivers.observe(receivers as f64);
        self.traffic.fanout.observe(elapsed.as_secs_f64());
    }

    /// A queue went over its bound and the connection is closed with 4508.
    pub fn outbox_overflowed(&self) {
        self.traffic.overflows.inc();
    }

    /// Publications that waited for one client were lost, as the policy of their channels has it.
    pub fn outbox_dropped(&self, policy: Sacrifice, publications: u64) {
        self.traffic.dropped.of(policy).inc_by(publications);
    }

    /// Bytes that wait in all outboxes.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        u64::try_from(self.traffic.hot.sum(OUTBOX_BYTES).cast_signed()).unwrap_or(0)
    }

    /// How old publications were that subscribers' sockets have taken since the start.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        Latencies(std::array::from_fn(|bucket| self.traffic.hot.sum(LATENCY + bucket)))
    }

    /// WebSocket messages received since the start.
    #[must_use]
    pub fn messages_received(&self) -> u64 {
        self.traffic.hot.sum(RECEIVED)
    }

    /// WebSocket messages written since the start.
    #[must_use]
    pub fn messages_sent(&self) -> u64 {
        self.traffic.hot.sum(SENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_of_what_was_taken_since_and_lies_in_its_bucket() {
        let metrics = Metrics::new();
        metrics.publish_to_write_of_many(1_000, Duration::from_secs(3)); // Before what is asked for.
        let before = metrics.latencies();
        assert_eq!(metrics.latencies().quantile_since(&before, 0.5), None);
        metrics.publish_to_write_of_many(90, Duration::from_micros(80));
        metrics.publish_to_write_of_many(10, Duration::from_millis(7));
        let taken = metrics.latencies();
        let within = |share, from, to| {
            let found = taken.quantile_since(&before, share).expect("something was taken");
            assert!((from..=to).contains(&found), "{share}: {found} ms");
        };
        within(0.0, 0.05, 0.1);
        within(0.5, 0.05, 0.1);
        within(0.9, 0.05, 0.1);
        within(0.99, 5.0, 10.0);
        within(1.0, 5.0, 10.0);
        metrics.publish_to_write_of_many(1_000_000, Duration::from_secs(99));
        assert_eq!(metrics.latencies().quantile_since(&before, 0.99), Some(10_000.0), "and more");
    }
}
