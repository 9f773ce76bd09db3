//! Says which certificates have come into force, and warns of those that clients will not accept.

use fanfare_metrics::{Listener, Metrics};
use tracing::{info, warn};

use super::Settings;
use crate::clock::Clock;
use crate::config::Standing;
use crate::http::Door;

/// Counts what is in force from now on; logs what was not `before`.
pub(super) fn announce(settings: &Settings, before: Option<&Settings>, metrics: &Metrics, clock: &Clock) {
    let now = i64::try_from(clock.unix().0 / 1_000_000).unwrap_or(i64::MAX);
    for (door, listener) in [(Door::Public, Listener::Public), (Door::Internal, Listener::Internal)] {
        let identity = |settings: &Settings| settings.tls(door).map(|tls| tls.identity().clone());
        let new = identity(settings);
        let validity = new.as_ref().map(|identity| identity.validity());
        metrics.certificate_until(listener, validity.map(|validity| validity.until));
        let Some(validity) = validity.filter(|_| before.and_then(identity) != new) else { continue };
        let (listener, from, until) = (listener.as_str(), validity.from, validity.until);
        match validity.at(now) {
            Standing::Valid => info!(listener, until, "certificate in force"),
            Standing::Expired => {
                warn!(listener, until, "the certificate has expired: clients that check will not connect");
            }
            Standing::NotYetValid => {
                warn!(
                    listener,
                    from, "the certificate is not valid yet: clients that check will not connect"
                );
            }
        }
    }
}
