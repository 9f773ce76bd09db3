//! Whether new clients should be sent here, and if not, why. Degraded is not dead: whoever is connected stays.
//!
//! ```text
//!  every second: probe ─► cluster::send ─► broker ─► errands' ear ─► heard        the lag of what is published
//!  every 100 ms: am I late?                                                       stalls of the runtime
//!  hub: can it be asked where streams stand?                                      checks of positions
//! ```
//!
//! A probe goes the way of every publication, and back to this node alone. The lag is the age of the first that has not come back, or
//! else the time that the last one took; one that is lost is forgotten when a later one comes. A stall is remembered for
//! [`STALL_MEMORY`], since while it lasts there is nobody to tell of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfare_fanout::broker::Link;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::errands;
use crate::node::Services;

/// How often a probe is sent.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The most probes that are waited for. Only the first matters.
const PROBES_MAX: usize = 16;

/// How often the runtime is asked to be on time.
const STALL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a stall is remembered.
const STALL_MEMORY: Duration = Duration::from_secs(5);

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    draining: AtomicBool,
    probes: Mutex<Probes>,
    stalls: Mutex<Stalls>,
}

#[derive(Debug, Default)]
struct Probes {
    /// Those that have not come back, by their numbers.
    away: VecDeque<(u64, Instant)>,
    /// What the last took that did.
    last: Duration,
}

#[derive(Debug, Default)]
struct Stalls {
    /// When the runtime was last on time, or late.
    tick: Option<Instant>,
    /// The longest stall of late, and when it ended.
    worst: Option<(Instant, Duration)>,
}

/// What was found, check by check.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    node: Box<str>,
    /// The checks that have failed.
    pub(crate) failing: Vec<&'static str>,
    /// What does not work, and is nothing to clients.
    degraded: Vec<&'static str>,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct Checks {
    draining: Plain,
    broker: Plain,
    lag: Measured,
    positions: Measured,
    stall: Measured,
}

#[derive(Debug, Serialize)]
struct Plain {
    ok: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    ok: bool,
    ms: u64,
    /// 0: whatever it is.
    max_ms: u64,
}

impl Measured {
    fn of(found: Duration, most: Option<Duration>) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ok = most.is_none_or(|most| found <= most);
        Self { ok, ms: ms(found), max_ms: most.map_or(0, ms) }
    }
}

impl Readiness {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A probe has come back; one of another life of this node is none.
    pub(crate) fn heard(&self, number: u64) {
        let mut probes = self.probes.lock();
        if let Some(at) = probes.away.iter().position(|(it, _)| *it == number) {
            probes.last = probes.away[at].1.elapsed();
            probes.away.drain(..=at);
        }
    }

    fn sends(&self, number: u64) {
        let mut probes = self.probes.lock();
        if probes.away.len() == PROBES_MAX {
            probes.away.pop_back(); // The newest: the first says how long it has been.
        }
        probes.away.push_back((number, Instant::now()));
    }

    /// How late publications come.
    pub(crate) fn lag(&self) -> Duration {
        let probes = self.probes.lock();
        let away = probes.away.front().map_or(Duration::ZERO, |(_, sent)| sent.elapsed());
        away.max(probes.last)
    }

    fn ticks(&self) {
        let now = Instant::now();
        let late = self.late(now);
        let mut stalls = self.stalls.lock();
        stalls.tick = Some(now);
        if stalls.worst.is_none_or(|(ended, worst)| late >= worst || now - ended > STALL_MEMORY) {
            stalls.worst = Some((now, late));
        }
    }

    fn late(&self, now: Instant) -> Duration {
        let tick = self.stalls.lock().tick;
        tick.map_or(Duration::ZERO, |tick| (now - tick).saturating_sub(STALL_INTERVAL))
    }

    /// The longest that the runtime has stood still of late, or has now.
    pub(crate) fn stall(&self) -> Duration {
        let now = Instant::now();
        let worst = self.stalls.lock().worst.filter(|(ended, _)| now - *ended <= STALL_MEMORY);
        worst.map_or(Duration::ZERO, |(_, worst)| worst).max(self.late(now))
    }

    /// Looks at all of it.
    pub(crate) fn report(&self, services: &Services) -> Report {
        let settings = services.settings();
        let config::Readiness { lag, positions, stall } = settings.readiness;
        let checks = Checks {
            draining: Plain { ok: !self.is_draining() },
            broker: Plain { ok: services.hub.link() == Link::Up },
            lag: Measured::of(self.lag(), lag),
            positions: Measured::of(services.hub.checks_failing_for(), positions),
            stall: Measured::of(self.stall(), stall),
        };
        let outcomes = [
            ("draining", checks.draining.ok),
            ("broker", checks.broker.ok),
            ("lag", checks.lag.ok),
            ("positions", checks.positions.ok),
            ("stall", checks.stall.ok),
        ];
        let failing: Vec<_> = outcomes.into_iter().filter(|(_, ok)| !ok).map(|(name, _)| name).collect();
        let degraded = if services.consumers.are_down() { vec!["consumers"] } else { Vec::new() };
        Report { ready: failing.is_empty(), node: settings.policy.node.clone(), failing, degraded, checks }
    }
}

/// Probes the broker and the runtime until told to stop.
pub(crate) async fn watch(services: Arc<Services>, stop: CancellationToken) {
    let readiness = &services.readiness;
    let on_time = async {
        let mut tick = interval(STALL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            readiness.ticks();
        }
    };
    let probing = async {
        services.errands.listening().await;
        let mut tick = interval(PROBE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in fastrand::u64(..u64::MAX / 2).. {
            tick.tick().await;
            readiness.sends(number);
            errands::probe(&services, number).await;
        }
    };
    stop.run_until_cancelled(async { tokio::join!(on_time, probing) }).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_the_first_probe_that_is_away() {
        let readiness = Readiness::default();
        assert_eq!(readiness.lag(), Duration::ZERO);
        for number in 0..40 {
            readiness.sends(number);
            advance(SECOND).await;
        }
        assert_eq!(readiness.lag(), SECOND * 40, "however many are sent after it");
        readiness.heard(0);
        assert_eq!(readiness.lag(), SECOND * 40, "it took as long as that");
        readiness.heard(39);
        assert_eq!(readiness.lag(), SECOND, "those before it are lost");
        readiness.heard(7);
        assert_eq!(readiness.lag(), SECOND, "and not waited for any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_told_while_it_lasts_and_remembered_for_a_while() {
        let readiness = Readiness::default();
        readiness.ticks();
        advance(SECOND * 3).await;
        assert_eq!(readiness.stall(), SECOND * 3 - STALL_INTERVAL);
        readiness.ticks();
        for _ in 0..49 {
            advance(STALL_INTERVAL).await;
            readiness.ticks();
        }
        assert_eq!(readiness.stall(), SECOND * 3 - STALL_INTERVAL);
        advance(STALL_INTERVAL * 2).await;
        readiness.ticks();
        assert_eq!(readiness.stall(), STALL_INTERVAL);
    }
}
