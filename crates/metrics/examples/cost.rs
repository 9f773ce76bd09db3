//! What counting one socket write costs: `cargo run --release -p fanfare-metrics --example cost`.
//!
//! Each row is one fact, or the pair that every write states, told in a tight loop by one thread and by two that share the
//! metrics. The loop does nothing else, so two threads contend far harder here than between two system calls: it is the
//! worst case. The best of five rounds is printed, since the machine may be busy.
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

const CALLS: u32 = 2_000_000;
const ROUNDS: u32 = 5;

type Fact = fn(&Metrics, Duration);

fn main() {
    let metrics = Metrics::new();
    let facts: [(&str, Fact); 5] = [
        ("written", |metrics, _| metrics.written(black_box(3), black_box(420))),
        ("read", |metrics, _| metrics.read(black_box(1), black_box(140))),
        ("publish_to_write", |metrics, age| metrics.publish_to_write(age)),
        ("outbox_queued", |metrics, _| metrics.outbox_queued(black_box(140))),
        ("written + publish_to_write", |metrics, age| {
            metrics.written(black_box(3), black_box(420));
            metrics.publish_to_write(age);
        }),
    ];
    println!("{:<28} {:>12} {:>12}", "ns per call", "one thread", "two threads");
    for (name, fact) in facts {
        let (one, two) = (best(&metrics, 1, fact), best(&metrics, 2, fact));
        println!("{name:<28} {one:>12.1} {two:>12.1}");
    }
}

/// Nanoseconds per call as each of the threads sees them, in the quietest round.
fn best(metrics: &Metrics, threads: usize, fact: Fact) -> f64 {
    (0..ROUNDS).map(|_| round(metrics, threads, fact)).fold(f64::INFINITY, f64::min)
}

fn round(metrics: &Metrics, threads: usize, fact: Fact) -> f64 {
    let start = Barrier::new(threads);
    let slowest = thread::scope(|scope| {
        let tell = || {
            start.wait();
            let begun = Instant::now();
            for call in 0..CALLS {
                // Ages of 0 to 8 ms: they visit several buckets.
                fact(metrics, Duration::from_nanos(u64::from(call) * 7_919 % 8_000_000));
            }
            begun.elapsed()
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(tell)).collect();
        running.into_iter().map(|it| it.join().expect("counting does not panic")).max()
    });
    slowest.unwrap_or_default().as_secs_f64() * 1e9 / f64::from(CALLS)
}
