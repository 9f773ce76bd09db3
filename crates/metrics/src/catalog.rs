//! One declaration per metric: it names, explains, registers, and later documents it.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
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

    pub(crate) fn real_gauge(&mut self, fact: Fact) -> Gauge {
        let gauge = Gauge::new(fact.name, fact.help).expect("declared names are valid");
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

    /// A family whose only label is a namespace, of which the operator makes as many as he likes.
    pub(crate) fn of_namespaces<V: Collector + Clone + 'static>(
        &mut self,
        fact: Fact,
        make: impl FnOnce(Opts, &[&str]) -> prometheus::Result<V>,
    ) -> V {
        let family = make(Opts::new(fact.name, fact.help), &["namespace"]).expect("declared names are valid");
        let kind = if fact.name.ends_with("_total") { "counter" } else { "gauge" };
        self.declare(fact, kind, &[("namespace", &[])], family)
    }

    /// A counter that is read from elsewhere.
    pub(crate) fn counter_of(&mut self, fact: Fact, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.read_out(fact, "counter", MetricType::COUNTER, move |metric| {
            let mut counter = proto::Counter::default();
            counter.set_value(read() as f64);
            metric.set_counter(counter);
        });
    }

    /// A gauge that is read from elsewhere, a sum of additions and subtractions modulo 2⁶⁴.
    pub(crate) fn gauge_of(&mut self, fact: Fact, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.read_out(fact, "gauge", MetricType::GAUGE, move |metric| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(read().cast_signed() as f64);
            metric.set_gauge(gauge);
        });
    }

    /// A histogram in seconds that is read from elsewhere: the sum in nanoseconds, and the count of each of the buckets with
    /// these upper bounds in nanoseconds, and of the one above them.
    pub(crate) fn histogram_of(
        &mut self,
        fact: Fact,
        bounds: &'static [u64],
        read: impl Fn() -> (u64, Vec<u64>) + Send + Sync + 'static,
    ) {
        self.read_out(fact, "histogram", MetricType::HISTOGRAM, move |metric| {
            let (nanos, counts) = read();
            let mut cumulative = 0;
            let mut buckets = Vec::with_capacity(bounds.len());
            for (bound, count) in bounds.iter().zip(&counts) {
                cumulative += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(*bound as f64 / 1e9);
                bucket.set_cumulative_count(cumulative);
                buckets.push(bucket);
            }
            let mut histogram = proto::Histogram::default();
            histogram.set_bucket(buckets);
            histogram.set_sample_count(counts.iter().sum());
            histogram.set_sample_sum(nanos as f64 / 1e9);
            metric.set_histogram(histogram);
        });
    }

    fn read_out(
        &mut self,
        fact: Fact,
        kind: &'static str,
        field_type: MetricType,
        fill: impl Fn(&mut proto::Metric) + Send + Sync + 'static,
    ) {
        let desc = Desc::new(fact.name.into(), fact.help.into(), Vec::new(), HashMap::new())
            .expect("declared names are valid");
        self.declare(fact, kind, &[], ReadOut { desc, field_type, fill: Arc::new(fill) });
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

/// A metric without labels that is computed when it is asked for.
#[derive(Clone)]
struct ReadOut {
    desc: Desc,
    field_type: MetricType,
    fill: Arc<dyn Fn(&mut proto::Metric) + Send + Sync>,
}

impl fmt::Debug for ReadOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadOut").field(&self.desc.fq_name).finish()
    }
}

impl Collector for ReadOut {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = proto::Metric::default();
        (self.fill)(&mut metric);
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.field_type);
        family.set_metric(vec![metric]);
        vec![family]
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
