//! One declaration per metric: it names, explains, registers, and later documents it.

use std::marker::PhantomData;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::labels::Labels;

/// What a metric is called and means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) query: Option<&'static str>,
}

/// A metric's name and its explanation, one sentence.
pub(crate) const fn fact(name: &'static str, help: &'static str) -> Fact {
    Fact { name, help, query: None }
}

impl Fact {
    /// A PromQL expression worth copying.
    pub(crate) const fn query(self, query: &'static str) -> Self {
        Self { query: Some(query), ..self }
    }
}

/// The label names and possible values of a family.
pub(crate) type Columns = &'static [(&'static str, &'static [&'static str])];

/// What was declared, kept for the documentation and for the tests.
#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) fact: Fact,
    pub(crate) kind: &'static str,
    pub(crate) columns: Columns,
}

/// The registry, and beside it what was declared in it, in order.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) registry: Registry,
    pub(crate) declarations: Vec<Declaration>,
}

impl Catalog {
    pub(crate) fn counter(&mut self, fact: Fact) -> IntCounter {
        let counter = IntCounter::new(fact.name, fact.help).expect("declared names are valid");
        self.declare(fact, "counter", &[], counter)
    }

    pub(crate) fn gauge(&mut self, fact: Fact) -> IntGauge {
        let gauge = IntGauge::new(fact.name, fact.help).expect("declared names are valid");
        self.declare(fact, "gauge", &[], gauge)
    }

    pub(crate) fn histogram(&mut self, fact: Fact, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(fact.name, fact.help).buckets(buckets.to_vec());
        let histogram = Histogram::with_opts(options).expect("declared buckets rise");
        self.declare(fact, "histogram", &[], histogram)
    }

    pub(crate) fn counters<L: Labels>(&mut self, fact: Fact) -> By<L, IntCounter> {
        let names: Vec<_> = L::COLUMNS.iter().map(|(name, _)| *name).collect();
        let family =
            IntCounterVec::new(Opts::new(fact.name, fact.help), &names).expect("declared names are valid");
        let family = self.declare(fact, "counter", L::COLUMNS, family);
        By::new(|values| family.with_label_values(values))
    }

    pub(crate) fn gauges<L: Labels>(&mut self, fact: Fact) -> By<L, IntGauge> {
        let names: Vec<_> = L::COLUMNS.iter().map(|(name, _)| *name).collect();
        let family =
            IntGaugeVec::new(Opts::new(fact.name, fact.help), &names).expect("declared names are valid");
        let family = self.declare(fact, "gauge", L::COLUMNS, family);
        By::new(|values| family.with_label_values(values))
    }

    pub(crate) fn histograms<L: Labels>(&mut self, fact: Fact, buckets: &[f64]) -> By<L, Histogram> {
        let names: Vec<_> = L::COLUMNS.iter().map(|(name, _)| *name).collect();
        let options = HistogramOpts::new(fact.name, fact.help).buckets(buckets.to_vec());
        let family = HistogramVec::new(options, &names).expect("declared buckets rise");
        let family = self.declare(fact, "histogram", L::COLUMNS, family);
        By::new(|values| family.with_label_values(values))
    }

    fn declare<C: Collector + Clone + 'static>(
        &mut self,
        fact: Fact,
        kind: &'static str,
        columns: Columns,
        collector: C,
    ) -> C {
        self.registry.register(Box::new(collector.clone())).expect("no two metrics share a name");
        self.declarations.push(Declaration { fact, kind, columns });
        collector
    }
}

/// One metric for each combination of labels, all made when the family is declared: counting never looks one up, and
/// every series exists from the start, so that `rate()` sees the first event too.
#[derive(Debug)]
pub(crate) struct By<L, M> {
    handles: Box<[M]>,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels, M> By<L, M> {
    fn new(make: impl Fn(&[&str]) -> M) -> Self {
        let mut combinations = vec![Vec::new()];
        for (_, values) in L::COLUMNS {
            combinations = combinations
                .iter()
                .flat_map(|head| {
                    values.iter().map(move |value| head.iter().copied().chain([*value]).collect::<Vec<_>>())
                })
                .collect();
        }
        Self { handles: combinations.iter().map(|values| make(values)).collect(), labels: PhantomData }
    }

    pub(crate) fn of(&self, labels: L) -> &M {
        &self.handles[labels.index()]
    }
}
