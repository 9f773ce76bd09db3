//! What is counted for every read and every write.

use std::hint::black_box;
use std::time::Duration;

use fanfare_metrics::{Command, Metrics};

use crate::{Case, Operation};

pub(crate) const CASES: &[Case] = &[
    Case { name: "metrics/of-a-read", prepare: read },
    Case { name: "metrics/of-a-write", prepare: write },
    Case { name: "metrics/of-a-run", prepare: run },
];

fn read() -> Operation {
    let metrics = Metrics::new();
    Box::new(move || {
        metrics.command_received(black_box(Command::Publish));
        metrics.read(black_box(1), black_box(210));
    })
}

fn write() -> Operation {
    let metrics = Metrics::new();
    Box::new(move || {
        metrics.outbox_queued(black_box(-420));
        metrics.written(black_box(3), black_box(420));
        metrics.publish_to_write(black_box(Duration::from_micros(700)));
    })
}

/// A run of publications was offered to the subscribers of a channel.
fn run() -> Operation {
    let metrics = Metrics::new();
    Box::new(move || {
        metrics.publications_received(black_box(8));
        metrics.outbox_queued(black_box(420_000));
        metrics.fanned_out(black_box(8), black_box(1_000), black_box(Duration::from_micros(90)));
    })
}
