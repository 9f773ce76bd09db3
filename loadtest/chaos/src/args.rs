//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};

use crate::fault::Kind;

const EXAMPLES: &str = "\
Examples:
  Ten minutes of every kind of fault.
    fanfare-chaos --minutes 10 --seed 7
  One kind, over and over.
    fanfare-chaos --minutes 2 --kinds node-freeze
  Five thousand clients come back at once and recover a hundred messages each.
    fanfare-chaos --storm

Exit codes: 0 the guarantees held; 1 one of them did not; 2 the run could not be done.";

/// Fault tests on real processes: three nodes, Redis, nginx; publishers that number, subscribers that check.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/debug/fanfare")]
    pub(crate) binary: PathBuf,
    /// For how long faults are injected
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    pub(crate) minutes: f64,
    /// What the schedule of faults is drawn from; one is picked, and printed, when none is given
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Only these kinds of faults, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    pub(crate) kinds: Vec<Kind>,
    /// How Redis is arranged
    #[arg(long, value_enum, default_value_t = Topology::Single)]
    pub(crate) topology: Topology,
    /// Clients that listen, all through nginx
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) subscribers: usize,
    /// Publications that each publisher attempts in a second
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) rate: u32,
    /// The time over which a node that is asked to stop sends its clients away; they wait up to two seconds more
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    pub(crate) drain: u64,
    /// Instead of faults: all clients come back at once and recover
    #[arg(long)]
    pub(crate) storm: bool,
    /// How many come back at once in the storm
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub(crate) storm_clients: usize,
    /// Also write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Keep the logs of all processes here, whatever comes of it (a failed run always keeps them)
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) logs: Option<PathBuf>,
}

impl Arguments {
    /// For how long faults are injected.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes.max(0.0) * 60.0)
    }

    /// The kinds asked for; all that the topology can have when none was named.
    pub(crate) fn chosen_kinds(&self) -> Result<Vec<Kind>> {
        let fits = |kind: &Kind| kind.fits(self.topology);
        if self.kinds.is_empty() {
            return Ok(Kind::value_variants().iter().copied().filter(fits).collect());
        }
        let stray = self.kinds.iter().find(|kind| !fits(kind));
        stray.map_or(Ok(self.kinds.clone()), |kind| Err(anyhow!("{kind} cannot be had with this --topology")))
    }
}

/// How Redis is arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// One server.
    Single,
    /// A primary, two replicas, and three sentinels.
    Sentinel,
    /// A Redis Cluster: three shards, each a primary and a replica.
    Cluster,
}
