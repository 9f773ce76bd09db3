//! Somebody else on the same server: a small channel with a generator of its own, in a process of its own, since
//! one that also reads ten thousand others would measure itself.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use super::plan::Row;
use super::results::Measurement;
use super::server::Server;
use super::{PAYLOAD_BYTES, WARM_UP};
use crate::args::Common;

const SUBSCRIBERS: usize = 10;
const PUBLICATIONS_PER_SECOND: u32 = 100;
const GLANCE_INTERVAL: Duration = Duration::from_millis(20);

/// A `fanfare-loadtest fanout` under way.
#[derive(Debug)]
pub(super) struct Neighbour {
    child: Child,
    report: PathBuf,
    _directory: TempDir,
}

impl Neighbour {
    /// Starts it on the server.
    pub(super) fn start(common: &Common, server: &Server, window: Duration) -> Result<Self> {
        let directory = TempDir::with_prefix("fanfare-bench-")?;
        let report = directory.path().join("neighbour.json");
        let protocol = common.protocol.to_possible_value().context("every protocol has a name")?;
        // Ourselves, even when a build has put another program in our place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.args(["fanout", "--url", &server.urls[0], "--api", &server.http]);
        command.args(["--protocol", protocol.get_name(), "--prefix", &common.prefix]);
        if let Some(authority) = &common.authority {
            command.arg("--authority").arg(authority);
        }
        command.args(["--subscribers", &SUBSCRIBERS.to_string()]);
        command.args(["--rate", &PUBLICATIONS_PER_SECOND.to_string()]);
        command.args(["--payload", &PAYLOAD_BYTES.to_string()]);
        command.args(["--seconds", &window.as_secs_f64().to_string()]);
        command.args(["--warm-up", &WARM_UP.as_secs_f64().to_string(), "--json"]).arg(&report);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn()?, report, _directory: directory })
    }

    /// Waits for its end, and reads what it found.
    pub(super) async fn measurement(mut self, row: &Row) -> Result<Measurement> {
        while self.child.try_wait()?.is_none() {
            sleep(GLANCE_INTERVAL).await;
        }
        let json = std::fs::read(&self.report).context("the neighbour could not measure")?;
        let report: Value = serde_json::from_slice(&json)?;
        let latency = |name: &str| report["latency_micros"][name].as_f64().map(|micros| micros / 1000.0);
        let figures = [
            ("p50_ms", latency("p50")),
            ("p99_ms", latency("p99")),
            ("p999_ms", latency("p999")),
            ("delivered_per_second", report["delivered_per_second"].as_f64()),
        ];
        let failures = report["failures"].as_array().into_iter().flatten();
        Ok(Measurement {
            row: row.name.into(),
            figures: figures.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect(),
            failures: failures.filter_map(Value::as_str).map(str::to_owned).collect(),
            ..Measurement::default()
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It has ended by itself, unless the row was given up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
