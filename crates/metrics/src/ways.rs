//! The way of publications: how long its parts take, what waits at the end of it, and what came of those that had missed some.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{Queue, QueueBytes, Recovery, Stage};

/// A power of two: some 16,000 publications a second are told apart for a second, of a sixteenth of all.
const HEARD: usize = 1024;

const STAGE_SECONDS: &[f64] =
    &[5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(crate) struct Ways {
    stages: By<Stage, Histogram>,
    heard: Heard,
    recoveries: By<Recovery, IntCounter>,
    queues: By<Queue, IntGauge>,
    queues_by_bytes: By<QueueBytes, IntGauge>,
}

/// When publications were heard, the last of those that fall on a place: they are told apart by when they were received.
#[derive(Debug)]
struct Heard(Box<[[AtomicU64; 2]]>);

impl Default for Heard {
    fn default() -> Self {
        Self((0..HEARD).map(|_| Default::default()).collect())
    }
}

impl Heard {
    fn place(&self, received: u64) -> &[AtomicU64; 2] {
        // By a multiplication, since they come at multiples of something.
        let at = received.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HEARD.trailing_zeros());
        &self.0[usize::try_from(at).expect("less than the places")]
    }

    /// Whoever looks while this is written finds none: a measure is lost, and none is wrong.
    fn note(&self, received: u64, now: u64) {
        let [of, heard] = self.place(received);
        of.store(0, Release);
        heard.store(now, Release);
        of.store(received, Release);
    }

    fn of(&self, received: u64) -> Option<u64> {
        let [of, heard] = self.place(received);
        let is_it = || of.load(Acquire) == received;
        let found = is_it().then(|| heard.load(Acquire))?;
        is_it().then_some(found)
    }
}

impl Ways {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            stages: catalog.histograms(
                fact(
                    "fanfare_stage_seconds",
                    "The way of a sixteenth of all publications, part by part, each by the clock of one node: from receiving to the broker's `accepted`, \
                     from receiving to `heard` by its own node, and from hearing on any node to `written` to a socket.",
                )
                .query("histogram_quantile(0.99, sum(rate(fanfare_stage_seconds_bucket[5m])) by (le, stage))"),
                STAGE_SECONDS,
            ),
            heard: Heard::default(),
            recoveries: catalog.counters(
                fact(
                    "fanfare_recoveries_total",
                    "Clients that came back to a channel for what they had missed, by whether all of it was there; and subscribers who were told \
                     with 4410 that their place is lost (`gap`).",
                )
                .query("sum(rate(fanfare_recoveries_total[5m])) by (outcome)"),
            ),
            queues: catalog.gauges(
                fact(
                    "fanfare_queues",
                    "Connections by how many messages wait for them: looked at every five seconds.",
                )
                .query("sum(fanfare_queues) by (messages)"),
            ),
            queues_by_bytes: catalog.gauges(
                fact(
                    "fanfare_queues_by_bytes",
                    "Connections by how many bytes wait for them: looked at every five seconds.",
                )
                .query("sum(fanfare_queues_by_bytes) by (bytes)"),
            ),
        }
    }
}

impl Metrics {
    /// A client came back, or has lost its place.
    pub fn recovery(&self, outcome: Recovery) {
        self.ways.recoveries.of(outcome).inc();
    }

    /// What waits for connections now: how many messages, and how many bytes, for each of them.
    pub fn queues(&self, all: impl IntoIterator<Item = (usize, usize)>) {
        let (mut by_messages, mut by_bytes) = ([0_i64; 5], [0_i64; 5]);
        for (messages, bytes) in all {
            by_messages[[1, 10, 100, 1000].partition_point(|bound| *bound <= messages)] += 1;
            by_bytes[[1, 1 << 10, 16 << 10, 256 << 10].partition_point(|bound| *bound <= bytes)] += 1;
        }
        let messages = [Queue::Empty, Queue::Few, Queue::Tens, Queue::Hundreds, Queue::Thousands];
        let bytes =
            [QueueBytes::Empty, QueueBytes::Bytes, QueueBytes::Little, QueueBytes::Some, QueueBytes::Much];
        messages.into_iter().zip(by_messages).for_each(|(it, count)| self.ways.queues.of(it).set(count));
        bytes.into_iter().zip(by_bytes).for_each(|(it, count)| self.ways.queues_by_bytes.of(it).set(count));
    }

    /// A publication that was received at this microsecond, by whatever clock, was heard at that one, by ours.
    pub fn heard(&self, received: u64, now: u64) {
        self.ways.heard.note(received, now);
    }

    /// A socket has taken at this microsecond what was received at that one: how long that is after it was heard is counted, as far as
    /// that is still known.
    pub fn written_after(&self, received: u64, now: u64) {
        if let Some(heard) = self.ways.heard.of(received) {
            self.stage(Stage::Written, Duration::from_micros(now.saturating_sub(heard)));
        }
    }

    /// A publication took so long for a part of its way.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.ways.stages.of(stage).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_in_one_class_of_each_sort() {
        let metrics = Metrics::new();
        metrics.queues([
            (0, 0),
            (1, 1),
            (9, 1023),
            (10, 1024),
            (999, 262_143),
            (1000, 262_144),
            (7000, 1 << 30),
        ]);
        let text = metrics.render();
        for line in [
            "fanfare_queues{messages=\"0\"} 1\n",
            "fanfare_queues{messages=\"1-9\"} 2\n",
            "fanfare_queues{messages=\"10-99\"} 1\n",
            "fanfare_queues{messages=\"100-999\"} 1\n",
            "fanfare_queues{messages=\"1000+\"} 2\n",
            "fanfare_queues_by_bytes{bytes=\"<1KiB\"} 2\n",
            "fanfare_queues_by_bytes{bytes=\"<256KiB\"} 1\n",
            "fanfare_queues_by_bytes{bytes=\"256KiB+\"} 2\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        metrics.queues([]);
        assert!(metrics.render().contains("fanfare_queues{messages=\"1-9\"} 0\n"));
    }

    #[test]
    fn when_something_was_heard_is_known_until_others_take_its_place() {
        let heard = Heard::default();
        assert_eq!(heard.of(16), None);
        (1..=4_000).for_each(|number| heard.note(number * 16, number));
        let known = (1..=4_000).filter(|number| heard.of(number * 16) == Some(*number)).count();
        assert!((HEARD / 2..=HEARD).contains(&known), "{known}");
        assert!(
            (1..=4_000).all(|number| heard.of(number * 16).is_none_or(|it| it == number)),
            "nobody else's"
        );
    }
}
