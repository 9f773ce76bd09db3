//! What a run found, as it is kept: every measurement, and what is needed to read it.

use std::collections::BTreeMap;
use std::fs::read_to_string;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::plan::{Row, Set};

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) machine: Machine,
    /// The build that was measured.
    pub(super) commit: String,
    pub(super) command: String,
    pub(super) rounds: usize,
    /// Length of the measured window of each row.
    pub(super) window_seconds: f64,
    pub(super) peers: Vec<PeerFacts>,
    pub(super) rows: Vec<RowFacts>,
    pub(super) measurements: Vec<Measurement>,
}

/// Where it ran.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_mib: u64,
    pub(super) kernel: String,
}

/// A server that took part, or could not.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PeerFacts {
    pub(super) name: String,
    pub(super) title: String,
    /// None where it was not installed.
    pub(super) version: Option<String>,
}

/// A row that was run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RowFacts {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) connections: usize,
}

/// One peer, one row, one round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Measurement {
    pub(super) round: usize,
    pub(super) peer: String,
    pub(super) row: String,
    pub(super) figures: BTreeMap<String, f64>,
    /// What was lost, out of order, refused, or kept the row from being measured.
    pub(super) failures: Vec<String>,
}

/// The middle one of several rounds, and the ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Machine {
    /// Asks the kernel.
    pub(super) fn read() -> Result<Self> {
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpu = field(&read_to_string("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".into());
        let memory = field(&read_to_string("/proc/meminfo")?, "MemTotal").context("no MemTotal")?;
        let kibibytes: u64 = memory.trim_end_matches(" kB").parse()?;
        Ok(Self {
            cpu,
            cores: std::thread::available_parallelism()?.get(),
            memory_mib: kibibytes / 1024,
            kernel: read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

impl RowFacts {
    /// Of a row as it is run.
    pub(super) fn of(set: &Set, row: &Row) -> Self {
        Self { name: row.name.into(), title: row.title.into(), connections: set.rooms * set.size }
    }
}

impl Measurement {
    /// One of its figures.
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// Whether the gateway, or its floor, was measured.
    pub(super) fn is_ours(&self) -> bool {
        self.peer.starts_with("fanfare") || self.peer.starts_with("floor")
    }

    /// Whether anything was wrong.
    pub(super) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }
}

impl Results {
    /// What the rounds say of one figure; None where no round measured it.
    pub(super) fn spread(&self, row: &str, peer: &str, figure: &str) -> Option<Spread> {
        let of = self.of(row, peer);
        Spread::of(of.filter_map(|it| it.figure(figure)).collect())
    }

    /// All measurements of one row and peer.
    pub(super) fn of<'a>(&'a self, row: &'a str, peer: &'a str) -> impl Iterator<Item = &'a Measurement> {
        self.measurements.iter().filter(move |it| it.row == row && it.peer == peer)
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(spread(&[4.0, 2.0]), Some(Spread { median: 3.0, min: 2.0, max: 4.0 }));
    }
}
