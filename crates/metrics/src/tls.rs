//! TLS on the listeners: handshakes, and how long the certificates are good.

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{Listener, TlsHandshake};

#[derive(Debug)]
pub(crate) struct Tls {
    handshakes: By<TlsHandshake, IntCounter>,
    expiry: By<Listener, IntGauge>,
}

impl Tls {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            handshakes: catalog.counters(
                fact("fanfare_tls_handshakes_total", "TLS handshakes on both listeners, by how they ended.")
                    .query("sum(rate(fanfare_tls_handshakes_total[5m])) by (outcome)"),
            ),
            expiry: catalog.gauges(
                fact(
                    "fanfare_tls_certificate_expiry_timestamp_seconds",
                    "When a listener's certificate expires, in seconds since the Unix epoch; 0 while it serves in clear.",
                )
                .query("min((fanfare_tls_certificate_expiry_timestamp_seconds > 0) - time()) / 86400"),
            ),
        }
    }
}

impl Metrics {
    /// A TLS handshake came to an end.
    pub fn tls_handshake(&self, outcome: TlsHandshake) {
        self.tls.handshakes.of(outcome).inc();
    }

    /// A listener has taken a certificate that is good until then, in seconds since the Unix epoch; none to serve in clear.
    pub fn certificate_until(&self, listener: Listener, until: Option<i64>) {
        self.tls.expiry.of(listener).set(until.unwrap_or(0));
    }
}
