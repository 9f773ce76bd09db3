//! What a run found: a table for people, JSON for machines, an exit code for scripts.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::histogram::Histogram;

/// A run's findings.
pub(crate) trait Report: Serialize {
    /// One line that says what was run.
    fn title(&self) -> String;
    /// Name and value, in the order of reading.
    fn rows(&self) -> Vec<(&'static str, String)>;
    /// Why the run has failed; empty when it has not.
    fn failures(&self) -> &[String];
}

/// Prints the report to standard output, writes the JSON where asked, and gives the exit code: 1 on failures.
pub(crate) fn publish(report: &impl Report, json: Option<&Path>) -> Result<ExitCode> {
    let mut text = format!("\n{}\n", report.title());
    for (name, value) in report.rows() {
        text += &format!("  {name:<34} {value:>16}\n");
    }
    for failure in report.failures() {
        text += &format!("FAILED: {failure}\n");
    }
    if report.failures().is_empty() {
        text += "ok\n";
    }
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = json {
        let json = serde_json::to_vec_pretty(report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Tells whoever watches how far the run is.
pub(crate) fn progress(what: &str) {
    // A closed standard error is no reason to end a run.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// The quantiles of a histogram, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Quantiles {
    /// Reads them off.
    pub(crate) fn of(histogram: &Histogram) -> Self {
        let at = |fraction| micros(histogram.quantile(fraction));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: micros(histogram.max()) }
    }

    /// The 99th percentile, for people.
    pub(crate) fn p99_milliseconds(&self) -> String {
        milliseconds(self.p99)
    }

    /// As rows of a report.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("latency p50, ms", milliseconds(self.p50)),
            ("latency p90, ms", milliseconds(self.p90)),
            ("latency p99, ms", milliseconds(self.p99)),
            ("latency p99.9, ms", milliseconds(self.p999)),
            ("latency max, ms", milliseconds(self.max)),
        ]
    }
}

/// Microseconds as milliseconds, for people.
fn milliseconds(micros: f64) -> String {
    format!("{:.3}", micros / 1000.0)
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

/// A whole number in groups of three digits.
pub(crate) fn grouped(number: impl Into<f64>) -> String {
    let digits = format!("{:.0}", number.into());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, text) in [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (1_234_567.4, "1,234,567")] {
            assert_eq!(super::grouped(number), text);
        }
    }
}
