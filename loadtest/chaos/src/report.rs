//! What a run found: tables for people, JSON for machines.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::follow::Offence;
use crate::record::Counts;

/// A run's findings.
pub(crate) trait Report: Serialize {
    /// All of it, to be read.
    fn text(&self) -> String;
    /// Why the run has failed; empty when it has not.
    fn failures(&self) -> Vec<String>;
}

/// Prints the report to standard output and writes the JSON where asked. Returns whether the run has passed.
pub(crate) fn publish(report: &impl Report, json: Option<&Path>) -> Result<bool> {
    let failures = report.failures();
    let mut text = report.text();
    for failure in &failures {
        writeln!(text, "FAILED: {failure}")?;
    }
    if failures.is_empty() {
        text += "ok\n";
    }
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = json {
        let json = serde_json::to_vec_pretty(report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(failures.is_empty())
}

/// Durations of one sort, in milliseconds.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Spread {
    /// How many.
    pub(crate) count: usize,
    /// Half of them took at most this long.
    pub(crate) p50_ms: u64,
    /// Ninety-nine in a hundred took at most this long.
    pub(crate) p99_ms: u64,
    /// None took longer.
    pub(crate) max_ms: u64,
}

impl Spread {
    /// Of these durations.
    pub(crate) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |fraction: f64| {
            let index = (durations.len() as f64 * fraction).ceil() as usize;
            let duration = durations.get(index.saturating_sub(1)).copied().unwrap_or_default();
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
        };
        Self { count: durations.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// What came of one kind of fault.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct OfKind {
    /// How often it was injected.
    pub(crate) times: u64,
    /// Connections that ended, of subscribers, while it was the latest fault.
    pub(crate) cut_off: usize,
    /// From the end of a connection until all its subscriptions are live on another one.
    pub(crate) back: Spread,
    /// From the end of the fault until a subscriber has heard what was published after it, for each of its channels.
    pub(crate) caught_up: Spread,
    /// The words by which gaps were told.
    pub(crate) gaps: BTreeMap<&'static str, u64>,
}

/// The findings of a campaign.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) subscribers: usize,
    pub(crate) faults: u64,
    pub(crate) counts: Counts,
    /// Lives of streams: more than channels when Redis has lost its data.
    pub(crate) lives: usize,
    pub(crate) offences: BTreeMap<Offence, u64>,
    /// Members that the nodes named in the end, over all nodes and channels with history.
    pub(crate) present: u64,
    pub(crate) kinds: BTreeMap<String, OfKind>,
    pub(crate) closes: BTreeMap<String, u64>,
    pub(crate) refusals: BTreeMap<u16, u64>,
    /// The most connections that opened at each node in one second, after the first ones.
    pub(crate) arrivals_peak: BTreeMap<String, u64>,
    /// For each drain the most that came back in a second of those it had sent away, and how many were allowed.
    pub(crate) drain_peaks: Vec<(u64, u64)>,
    /// The most memory that each node was seen to hold.
    pub(crate) resident_bytes_max: BTreeMap<String, u64>,
}

impl Report for Findings {
    fn text(&self) -> String {
        let offence = |kind| self.offences.get(&kind).copied().unwrap_or(0);
        let counts = &self.counts;
        let rows = [
            ("faults", self.faults),
            ("published", counts.published),
            ("tried again", counts.retried),
            ("acknowledged, with history", counts.acknowledged_kept),
            ("acknowledged, without", counts.acknowledged_plain),
            ("delivered, with history", counts.delivered_kept),
            ("  of those replayed", counts.replayed),
            ("delivered, without", counts.delivered_plain),
            ("  missed (at most once)", counts.missed_plain),
            ("subscriptions recovered", counts.recoveries),
            ("lives of streams", self.lives as u64),
            ("lost", offence(Offence::Lost)),
            ("doubled", offence(Offence::Doubled)),
            ("reordered", offence(Offence::Reordered)),
            ("altered", offence(Offence::Altered)),
            ("acknowledged and not there", offence(Offence::FalseAck)),
            ("acknowledged and forgotten", offence(Offence::Forgotten)),
            ("told of a loss that was none", offence(Offence::NeedlessGap)),
            ("stuck", offence(Offence::Stuck)),
            ("present (named by three nodes)", self.present),
            ("  ghosts", offence(Offence::Ghost)),
            ("  missing", offence(Offence::Missing)),
        ];
        let mut text =
            format!("\nseed {}: {} s, {} subscribers\n\n", self.seed, self.seconds, self.subscribers);
        for (name, value) in rows {
            text += &format!("  {name:<34} {value:>12}\n");
        }
        text + &self.table_of_kinds() + &self.lists() + "\n"
    }

    fn failures(&self) -> Vec<String> {
        let offences = self.offences.iter().map(|(offence, times)| format!("{offence:?}: {times}"));
        let mut failures: Vec<_> = offences.collect();
        if self.counts.acknowledged_kept == 0 || self.counts.delivered_kept == 0 {
            failures.push("nothing was delivered: this run shows nothing".into());
        }
        if self.present == 0 {
            failures.push("nobody was named as present: this run shows nothing of it".into());
        }
        failures
    }
}

impl Findings {
    fn table_of_kinds(&self) -> String {
        let mut text = format!(
            "\n  {:<18} {:>5} {:>8} {:>17} {:>17}  gaps told\n",
            "fault", "times", "cut off", "back, ms", "caught up, ms"
        );
        text += &format!("  {:<18} {:>5} {:>8} {:>17} {:>17}\n", "", "", "", "p50 / max", "p50 / max");
        for (name, kind) in &self.kinds {
            let spread = |it: &Spread| {
                if it.count == 0 { "-".into() } else { format!("{} / {}", it.p50_ms, it.max_ms) }
            };
            let (back, caught_up) = (spread(&kind.back), spread(&kind.caught_up));
            let gaps: Vec<_> = kind.gaps.iter().map(|(word, count)| format!("{count} {word}")).collect();
            let (times, cut_off, gaps) = (kind.times, kind.cut_off, gaps.join(", "));
            text +=
                format!("  {name:<18} {times:>5} {cut_off:>8} {back:>17} {caught_up:>17}  {gaps}").trim_end();
            text += "\n";
        }
        text
    }

    fn lists(&self) -> String {
        let drains = self.drain_peaks.iter().map(|(peak, allowed)| (peak, format!("({allowed})")));
        let memory = self.resident_bytes_max.iter().map(|(node, bytes)| (node, bytes / (1024 * 1024)));
        [
            list("connections ended", &self.closes),
            list("commands refused", &self.refusals),
            list("most arrivals in a second", &self.arrivals_peak),
            list("most back in a second after each drain (allowed)", drains),
            list("most memory, MiB", memory),
        ]
        .concat()
    }
}

fn list<K: Display, V: Display>(title: &str, entries: impl IntoIterator<Item = (K, V)>) -> String {
    let entries: Vec<_> = entries.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    format!("\n  {title}: {}\n", if entries.is_empty() { "none".into() } else { entries.join(", ") })
}
