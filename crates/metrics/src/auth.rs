//! Tokens: how many were good, and what was wrong with the others.

use prometheus::IntCounter;

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::TokenRefusal;

#[derive(Debug)]
pub(crate) struct Auth {
    accepted: IntCounter,
    refused: By<TokenRefusal, IntCounter>,
    dismissed: IntCounter,
}

impl Auth {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            accepted: catalog.counter(
                fact(
                    "fanfare_tokens_accepted_total",
                    "Tokens that were good, in requests and in conversations.",
                )
                .query("sum(rate(fanfare_tokens_accepted_total[5m]))"),
            ),
            refused: catalog.counters(
                fact(
                    "fanfare_tokens_refused_total",
                    "Tokens that were not good, by what was wrong with them.",
                )
                .query("sum(rate(fanfare_tokens_refused_total[5m])) by (reason)"),
            ),
            dismissed: catalog.counter(fact(
                "fanfare_connections_dismissed_total",
                "Connections that a backend has ordered away, or whose token it has revoked.",
            )),
        }
    }
}

impl Metrics {
    /// A token was good.
    pub fn token_accepted(&self) {
        self.auth.accepted.inc();
    }

    /// So many connections were told to go, since a backend has ordered it.
    pub fn dismissed(&self, connections: u64) {
        self.auth.dismissed.inc_by(connections);
    }

    /// A token was not.
    pub fn token_refused(&self, reason: TokenRefusal) {
        self.auth.refused.of(reason).inc();
    }
}
