//! `docs/metrics.md`, written from the declarations.

use std::fmt::Write as _;

use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricType;

use crate::Metrics;
use crate::catalog::Declaration;
use crate::namespaces::NAMESPACES_MAX;

const HEAD: &str = "\
# Metrics

Every node serves these on the internal listener at `/metrics`, in Prometheus' text format. Labels take the values listed
here and no others; every series exists from the start.

This page is generated from `crates/metrics`: `FANFARE_WRITE_DOCS=1 cargo test -p fanfare-metrics` rewrites it, and a
test fails while it is stale.
";

/// The text of `docs/metrics.md`.
#[must_use]
pub fn document() -> String {
    let metrics = Metrics::new();
    let mut text = String::from(HEAD);
    text.push_str("\n## The gateway\n\n| name | type | labels | what it says |\n| --- | --- | --- | --- |\n");
    for declaration in &metrics.catalog.declarations {
        row(&mut text, declaration);
    }
    text.push_str("\n## The process\n\n| name | type | what it says |\n| --- | --- | --- |\n");
    for family in ProcessCollector::for_self().collect() {
        let kind = if family.get_field_type() == MetricType::COUNTER { "counter" } else { "gauge" };
        write_line(&mut text, format_args!("| `{}` | {kind} | {} |", family.name(), family.help()));
    }
    text.push_str("\n## Queries worth copying\n\n| about | PromQL |\n| --- | --- |\n");
    for declaration in &metrics.catalog.declarations {
        if let Some(query) = declaration.fact.query {
            write_line(&mut text, format_args!("| `{}` | `{query}` |", declaration.fact.name));
        }
    }
    text
}

fn row(text: &mut String, Declaration { fact, kind, columns }: &Declaration) {
    let labels: Vec<_> = columns
        .iter()
        .map(|(name, values)| {
            // The version changes with each release; the page does not.
            let values = match *name {
                "version" => "the release".into(),
                "namespace" => format!("the first {NAMESPACES_MAX} that are configured, and `other`"),
                _ => format!("`{}`", values.join("` `")),
            };
            format!("`{name}`: {values}")
        })
        .collect();
    write_line(text, format_args!("| `{}` | {kind} | {} | {} |", fact.name, labels.join("; "), fact.help));
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all that is written to it");
}
