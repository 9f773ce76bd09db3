//! How often one place in the code may write to the log.
//!
//! A fault that everybody meets is a line for each of them: the log must neither fill a disk nor slow the node down. So each sort of
//! line, which is each place that writes one, has so many a second. What is over that is counted, and the next line of that
//! sort comes after one that says how many there were.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber, warn};
use tracing_subscriber::layer::{Context, Layer};

/// The target of the lines that say how many are missing: they are not counted.
const TARGET: &str = "fanfare_gateway::logging::rate";

/// See the [module's note](self).
#[derive(Debug)]
pub(super) struct Rate {
    /// 0 for as many as there are.
    per_second: u32,
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// Whether a line is written.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Written,
    /// After one that says that so many were not.
    WrittenAfter(u64),
    LeftOut,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, places: Mutex::default() }
    }

    fn judge(&self, place: Identifier, now: Instant) -> Verdict {
        if self.per_second == 0 {
            return Verdict::Written;
        }
        let mut places = self.places.lock();
        let place = places.entry(place).or_insert(Place { since: now, written: 0, left_out: 0 });
        if now.duration_since(place.since) >= Duration::from_secs(1) {
            (place.since, place.written) = (now, 0);
        }
        if place.written >= self.per_second {
            place.left_out += 1;
            return Verdict::LeftOut;
        }
        place.written += 1;
        match std::mem::take(&mut place.left_out) {
            0 => Verdict::Written,
            left_out => Verdict::WrittenAfter(left_out),
        }
    }
}

impl<S: Subscriber> Layer<S> for Rate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == TARGET {
            return true;
        }
        match self.judge(metadata.callsite(), Instant::now()) {
            Verdict::Written => true,
            Verdict::WrittenAfter(left_out) => {
                let place = format!(
                    "{}:{}",
                    metadata.file().unwrap_or_default(),
                    metadata.line().unwrap_or_default()
                );
                warn!(target: TARGET, left_out, place, "lines of this sort were left out of the log");
                true
            }
            Verdict::LeftOut => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Metadata;
    use tracing::callsite::Callsite;
    use tracing::metadata::Kind;
    use tracing::subscriber::Interest;

    use super::*;

    struct Here;

    impl Callsite for Here {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            static HERE: Here = Here;
            static METADATA: Metadata<'static> = tracing::metadata! {
                name: "here", target: "here", level: tracing::Level::INFO, fields: &[], callsite: &HERE, kind: Kind::EVENT
            };
            &METADATA
        }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_of_a_place_are_written_in_a_second_and_the_rest_is_counted() {
        static HERE: Here = Here;
        let here = Identifier(&HERE);
        let rate = Rate::new(3);
        let judge =
            |count: usize| (0..count).map(|_| rate.judge(here.clone(), Instant::now())).collect::<Vec<_>>();
        let written = |all: &[Verdict]| all.iter().filter(|it| **it != Verdict::LeftOut).count();
        assert_eq!(written(&judge(10)), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        let next = judge(10);
        assert_eq!((&next[0], written(&next)), (&Verdict::WrittenAfter(7), 3));
        let free = Rate::new(0);
        assert!((0..1_000).all(|_| free.judge(here.clone(), Instant::now()) == Verdict::Written));
    }
}
