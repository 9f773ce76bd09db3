//! Tokens: how many were good, and what was wrong with the others.

use prometheus::{IntCounter, IntGauge};

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::TokenRefusal;

#[derive(Debug)]
pub(crate) struct Auth {
    accepted: IntCounter,
    refused: By<TokenRefusal, IntCounter>,
    keys_away: IntCounter,
    servers_failing: IntGauge,
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
            keys_away: catalog.counter(fact(
                "fanfare_tokens_deferred_total",
                "Tokens that could not be judged, since the key that they name was not at hand: who has them is told to come back.",
            )),
            servers_failing: catalog.gauge(
                fact(
                    "fanfare_key_servers_failing",
                    "Key servers whose keys could not be fetched the last time; those at hand stay in force.",
                )
                .query("max(fanfare_key_servers_failing) > 0"),
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

    /// A token may be good, and its key is not here.
    pub fn token_key_away(&self) {
        self.auth.keys_away.inc();
    }

    /// The key servers that fail have become so many more, or fewer.
    pub fn key_server_failing(&self, change: i64) {
        self.auth.servers_failing.add(change);
    }

    /// A token was not.
    pub fn token_refused(&self, reason: TokenRefusal) {
        self.auth.refused.of(reason).inc();
    }
}
