//! What counting one socket write costs: `cargo run --release -p fanfare-metrics --example cost`.
//!
//! Each row is one fact, or the pair that every write states, told in a tight loop by one thread and by two that share the
//! metrics; the last row is that pair on plain atomics shared by all threads, which is why ours are striped. The loop does
//! nothing else, so two threads contend far harder here than between two system calls: it is the worst case. Of many
//! short rounds the quickest is printed, since the machine may be busy.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use fanfare_metrics::Metrics;
use prometheus::{Histogram, HistogramOpts, IntCounter};

const CALLS: u32 = 100_000;
const ROUNDS: u32 = 200;

fn main() {
    let metrics = Metrics::new();
    println!("{:<44} {:>12} {:>12}", "ns per call", "one thread", "two threads");
    row("written", |_| metrics.written(black_box(3), black_box(420)));
    row("read", |_| metrics.read(black_box(1), black_box(140)));
    row("outbox_queued", |_| metrics.outbox_queued(black_box(140)));
    row("publish_to_write", |age| metrics.publish_to_write(age));
    row("written + publish_to_write", |age| {
        metrics.written(black_box(3), black_box(420));
        metrics.publish_to_write(age);
    });
    let shared = Shared::new();
    row("written + publish_to_write, shared atomics", |age| shared.written_and_publish_to_write(age));
}

/// The same facts on the plain types of the `prometheus` crate.
struct Shared {
    sent: IntCounter,
    sent_bytes: IntCounter,
    writes: IntCounter,
    latency: Histogram,
}

impl Shared {
    fn new() -> Self {
        let counter = |name| IntCounter::new(name, "help").expect("a valid name");
        let bounds = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
        let options = HistogramOpts::new("latency", "help").buckets(bounds.to_vec());
        Self {
            sent: counter("sent"),
            sent_bytes: counter("sent_bytes"),
            writes: counter("writes"),
            latency: Histogram::with_opts(options).expect("buckets that rise"),
        }
    }

    fn written_and_publish_to_write(&self, age: Duration) {
        self.sent.inc_by(black_box(3));
        self.sent_bytes.inc_by(black_box(420));
        self.writes.inc();
        self.latency.observe(age.as_secs_f64());
    }
}

fn row(name: &str, fact: impl Fn(Duration) + Sync) {
    let best = |threads| (0..ROUNDS).map(|_| round(threads, &fact)).fold(f64::INFINITY, f64::min);
    println!("{name:<44} {:>12.1} {:>12.1}", best(1), best(2));
}

/// Nanoseconds per call of each thread, from the first one's start to the last one's end.
fn round(threads: usize, fact: &(impl Fn(Duration) + Sync)) -> f64 {
    let start = Barrier::new(threads);
    let tell = || {
        start.wait();
        let begun = Instant::now();
        for call in 0..CALLS {
            // Ages of 0 to 8 ms: they visit several buckets.
            fact(Duration::from_nanos(u64::from(call) * 7_919 % 8_000_000));
        }
        (begun, Instant::now())
    };
    let spans: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(tell)).collect();
        running.into_iter().map(|it| it.join().expect("counting does not panic")).collect()
    });
    let begun = spans.iter().map(|(begun, _)| *begun).min();
    let ended = spans.iter().map(|(_, ended)| *ended).max();
    let elapsed = begun.zip(ended).map_or(Duration::ZERO, |(begun, ended)| ended - begun);
    elapsed.as_secs_f64() * 1e9 / f64::from(CALLS)
}
