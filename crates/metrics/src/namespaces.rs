//! What is published, delivered and heard in each namespace: of those that the operator has named, and no others.
//!
//! A namespace is a label that grows with the configuration, not with what clients send. Still there is a bound: the first
//! [`NAMESPACES_MAX`] have series of their own, and everybody else's are counted together as `other`.
//!
//! Each run of publications is counted here, so whoever counts takes no lock: names come to stay, one place after the other.

use std::fmt;
use std::iter;
use std::sync::{Mutex, OnceLock, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::Metrics;
use crate::catalog::{Catalog, Fact, fact};

/// The most namespaces that have series of their own.
pub(crate) const NAMESPACES_MAX: usize = 64;

/// The label of all others.
const OTHER: &str = "other";

pub(crate) struct Namespaces {
    published: IntCounterVec,
    deliveries: IntCounterVec,
    dropped: IntCounterVec,
    subscriptions: IntGaugeVec,
    /// Each after the one before.
    known: Box<[OnceLock<Series>]>,
    naming: Mutex<()>,
    other: Series,
}

/// Those of one namespace.
#[derive(Debug)]
struct Series {
    name: Box<str>,
    published: IntCounter,
    deliveries: IntCounter,
    dropped: IntCounter,
    subscriptions: IntGauge,
}

impl Namespaces {
    pub(crate) fn declare(catalog: &mut Catalog) -> Self {
        let mut counters = |fact: Fact| catalog.of_namespaces(fact, IntCounterVec::new);
        let published = counters(
            fact(
                "fanfare_namespace_published_total",
                "Publications that the broker has taken from this node, by namespace.",
            )
            .query("sum(rate(fanfare_namespace_published_total[5m])) by (namespace)"),
        );
        let deliveries = counters(
            fact(
                "fanfare_namespace_deliveries_total",
                "Publications handed to subscribers of this node, one for each, by namespace; those that go round a large crowd when they begin.",
            )
            .query("sum(rate(fanfare_namespace_deliveries_total[5m])) by (namespace)"),
        );
        let dropped = counters(
            fact("fanfare_namespace_dropped_total", "Publications that slow clients were not sent, by namespace; without those of channels with more than 256 subscribers here.")
                .query("sum(rate(fanfare_namespace_dropped_total[5m])) by (namespace)"),
        );
        let subscriptions = catalog.of_namespaces(
            fact(
                "fanfare_namespace_subscriptions",
                "Subscriptions of this node's connections, by namespace.",
            )
            .query("sum(fanfare_namespace_subscriptions) by (namespace)"),
            IntGaugeVec::new,
        );
        let other = Series::of(OTHER, (&published, &deliveries, &dropped, &subscriptions));
        let known = iter::repeat_with(OnceLock::new).take(NAMESPACES_MAX).collect();
        Self { published, deliveries, dropped, subscriptions, known, naming: Mutex::default(), other }
    }

    fn name(&self, name: &str) {
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if name == OTHER || self.find(name).is_some() {
            return;
        }
        if let Some(place) = self.known.iter().find(|place| place.get().is_none()) {
            let families = (&self.published, &self.deliveries, &self.dropped, &self.subscriptions);
            place.get_or_init(|| Series::of(name, families));
        }
    }

    /// Looks at one after the other: they are few, and most differ in length.
    fn find(&self, name: &str) -> Option<&Series> {
        self.known.iter().map_while(OnceLock::get).find(|series| *series.name == *name)
    }

    fn of(&self, name: &str) -> &Series {
        self.find(name).unwrap_or(&self.other)
    }
}

type Families<'a> = (&'a IntCounterVec, &'a IntCounterVec, &'a IntCounterVec, &'a IntGaugeVec);

impl Series {
    fn of(name: &str, (published, deliveries, dropped, subscriptions): Families<'_>) -> Self {
        let label = &[name];
        Self {
            name: name.into(),
            published: published.with_label_values(label),
            deliveries: deliveries.with_label_values(label),
            dropped: dropped.with_label_values(label),
            subscriptions: subscriptions.with_label_values(label),
        }
    }
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespaces").finish_non_exhaustive()
    }
}

impl Metrics {
    /// These have series of their own from now on, as far as there is room. A name that was has them for good.
    pub fn namespaces<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        names.into_iter().for_each(|name| self.namespaces.name(name));
    }

    /// The broker has taken a publication of a namespace.
    pub fn namespace_published(&self, namespace: &str) {
        self.namespaces.of(namespace).published.inc();
    }

    /// Publications were handed to so many subscribers altogether, and so many gave way.
    pub fn namespace_delivered(&self, namespace: &str, deliveries: u64, dropped: u64) {
        let series = self.namespaces.of(namespace);
        series.deliveries.inc_by(deliveries);
        if dropped > 0 {
            series.dropped.inc_by(dropped);
        }
    }

    /// The subscriptions have become so many more, or fewer.
    pub fn namespace_subscriptions(&self, namespace: &str, change: i64) {
        self.namespaces.of(namespace).subscriptions.add(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(metrics: &Metrics) -> usize {
        metrics.render().lines().filter(|line| line.starts_with("fanfare_namespace_")).count()
    }

    #[test]
    fn a_namespace_that_nobody_has_named_makes_no_series_and_no_name_makes_too_many() {
        let metrics = Metrics::new();
        let before = lines(&metrics);
        (0..1_000).for_each(|number| metrics.namespace_published(&format!("guess{number}")));
        assert_eq!(lines(&metrics), before);
        assert!(metrics.render().contains("fanfare_namespace_published_total{namespace=\"other\"} 1000\n"));
        let names: Vec<_> = (0..1_000).map(|number| format!("room{number}")).collect();
        metrics.namespaces(names.iter().map(String::as_str).chain(["other"]));
        metrics.namespaces(["later"]);
        assert_eq!(lines(&metrics), before * (NAMESPACES_MAX + 1));
        metrics.namespace_delivered("room3", 5, 2);
        metrics.namespace_delivered("room999", 7, 0);
        let text = metrics.render();
        for line in [
            "fanfare_namespace_deliveries_total{namespace=\"room3\"} 5\n",
            "fanfare_namespace_dropped_total{namespace=\"room3\"} 2\n",
            "fanfare_namespace_deliveries_total{namespace=\"other\"} 7\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
