//! What a backend was asked about clients, and what it said.

use prometheus::IntCounter;

use crate::Metrics;
use crate::catalog::{By, Catalog, fact};
use crate::labels::{Hook, HookOutcome};

#[derive(Debug)]
pub(crate) struct Hooks {
    asked: By<(Hook, HookOutcome), IntCounter>,
}

impl Hooks {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        Self {
            asked: catalog.counters(
                fact(
                    "fanfare_hooks_total",
                    "Questions to the backend about clients, by what came of them; how long it takes to answer, and whether it is \
                     left alone, fanfare_outgoing_request_seconds and fanfare_outgoing_breakers_open tell for the purpose `hook`.",
                )
                .query("sum(rate(fanfare_hooks_total{outcome!~\"allowed|refused\"}[5m])) by (hook, outcome)"),
            ),
        }
    }
}

impl Metrics {
    /// A question to the backend came to an end.
    pub fn hook_ended(&self, hook: Hook, outcome: HookOutcome) {
        self.hooks.asked.of((hook, outcome)).inc();
    }
}
