//! Leaving without a storm: clients are told to go a few at a time, spread evenly over the drain window, each with a wait
//! of its own before it comes back. So few that there is less than one to a step do not take the whole window.

use std::time::Duration;

use fanfare_fanout::Order;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::Services;

/// How often the next few are told.
const STEP: Duration = Duration::from_millis(50);

/// The longest wait that a client is given: enough to spread a step's clients, too short for a person to mind.
const AFTER_MAX: Duration = Duration::from_secs(2);

/// Fails readiness, closes all connections over the drain window, and returns when they are gone or have had the time to.
pub(super) async fn run(services: &Services) {
    let settings = services.settings();
    let window = settings.drain_window;
    services.readiness.drain();
    services.metrics.draining(true);
    let began = Instant::now();
    let leaving = services.roster.all();
    info!(connections = leaving.len(), seconds = window.as_secs(), "draining");

    let steps = usize::try_from(window.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX).max(1);
    let mut told = 0;
    for step in 1.. {
        let number = step as usize;
        let due = (leaving.len() * number).div_ceil(steps).max(number).min(leaving.len());
        for outbox in &leaving[told..due] {
            let after = Duration::from_millis(fastrand::u64(0..=millis(AFTER_MAX)));
            outbox.order(Order::Drain { after });
        }
        told = due;
        services.metrics.drain_untold(leaving.len() - told);
        if told == leaving.len() {
            break;
        }
        sleep_until(began + STEP * step).await;
    }
    // Those whose handshake was under way when the drain began have come in since.
    for outbox in services.roster.all() {
        outbox.order(Order::Drain { after: AFTER_MAX });
    }

    let deadline = Instant::now() + settings.policy.limits.close_timeout + STEP * 10;
    while services.roster.len() > 0 && Instant::now() < deadline {
        sleep(STEP).await;
    }
    if services.roster.len() > 0 {
        warn!(connections = services.roster.len(), "some clients have not left in time");
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
