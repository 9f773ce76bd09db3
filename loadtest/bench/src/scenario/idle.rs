//! `idle`: what a connection costs that is open, subscribed and silent.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::{Place, blame, open_all, run_name};
use crate::args::Idle;
use crate::audience::Run;
use crate::process;
use crate::report::{Report, grouped, micros, progress};

const SETTLED_AFTER_READINGS: usize = 6;
const READING_INTERVAL: Duration = Duration::from_millis(500);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Readings closer than this are equal: the grain of an allocator, spread over thousands of connections.
const SETTLED_WITHIN_BYTES: u64 = 64 << 10;

/// The findings of `idle`.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    connections: usize,
    seconds: f64,
    handshakes_per_second: f64,
    resident_bytes_before: Option<u64>,
    resident_bytes_after: Option<u64>,
    bytes_per_connection: Option<f64>,
    cpu_micros_per_handshake: Option<f64>,
    generator_cpu_micros_per_handshake: f64,
    failures: Vec<String>,
}

/// Opens the connections, waits for the memory to settle, reports.
pub(crate) async fn run(arguments: &Idle) -> Result<Findings> {
    let (common, pids) = (&arguments.common, &arguments.common.pid);
    let run = Run::new(0, 1, 0);
    let name = run_name();
    let before = settled(pids).await?;
    let (cpu_before, own_before) = (process::cpu(pids)?, process::cpu_own()?);
    let channels: Vec<String> = match &arguments.channel {
        Some(channel) => vec![channel.clone()],
        None => (0..arguments.connections).map(|it| format!("{}{name}-{it}", common.prefix)).collect(),
    };
    let place = |index: usize| Place { url: index, channel: &channels[index % channels.len()] };
    let elapsed = open_all(common, arguments.connections, &run.scratch, place, |_, connection| {
        drop(spawn_local(run.clone().listen(connection, None)));
    })
    .await?;
    let cpu = process::cpu(pids)?.since(cpu_before).total();
    let own = process::cpu_own()? - own_before;
    let after = settled(pids).await?;
    sleep(arguments.hold).await;

    let per_connection = |value: f64| value / arguments.connections.max(1) as f64;
    let measured = !pids.is_empty();
    let bytes = per_connection(after as f64 - before as f64);
    let mut failures = Vec::new();
    if let Some(bytes_max) = arguments.max_bytes_per_connection {
        match measured {
            false => failures.push("--max-bytes-per-connection needs --pid".to_owned()),
            true if bytes > bytes_max as f64 => {
                failures.push(format!("{bytes:.0} bytes a connection, {bytes_max} allowed"));
            }
            true => {}
        }
    }
    blame(&run.audience.borrow().troubles, &mut failures);
    Ok(Findings {
        connections: arguments.connections,
        seconds: elapsed.as_secs_f64(),
        handshakes_per_second: arguments.connections as f64 / elapsed.as_secs_f64(),
        resident_bytes_before: measured.then_some(before),
        resident_bytes_after: measured.then_some(after),
        bytes_per_connection: measured.then_some(bytes),
        cpu_micros_per_handshake: measured.then(|| per_connection(micros(cpu))),
        generator_cpu_micros_per_handshake: per_connection(micros(own)),
        failures,
    })
}

/// Resident memory once it has stopped moving, or after a while anyway.
pub(crate) async fn settled(pids: &[u32]) -> Result<u64> {
    if pids.is_empty() {
        return Ok(0);
    }
    let start = Instant::now();
    let mut readings = vec![process::resident_bytes(pids)?];
    let settling = async {
        loop {
            sleep(READING_INTERVAL).await;
            readings.push(process::resident_bytes(pids)?);
            let recent = &readings[readings.len().saturating_sub(SETTLED_AFTER_READINGS)..];
            let spread = recent.iter().max().zip(recent.iter().min()).map_or(0, |(max, min)| max - min);
            if recent.len() == SETTLED_AFTER_READINGS && spread <= SETTLED_WITHIN_BYTES {
                return anyhow::Ok(());
            }
        }
    };
    match timeout(SETTLE_TIMEOUT, settling).await {
        Ok(result) => result?,
        Err(_) => progress(&format!("memory still moves after {:?}, going on", start.elapsed())),
    }
    Ok(*readings.last().expect("the first is always taken"))
}

impl Report for Findings {
    fn title(&self) -> String {
        format!("{} idle connections, each subscribed", grouped(self.connections as f64))
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("handshakes per second", grouped(self.handshakes_per_second))];
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let measured =
            self.resident_bytes_before.zip(self.resident_bytes_after).zip(self.bytes_per_connection);
        if let Some(((before, after), bytes)) = measured {
            rows.push(("resident before, MiB", mib(before)));
            rows.push(("resident after, MiB", mib(after)));
            rows.push(("bytes per connection", grouped(bytes)));
        }
        if let Some(cpu) = self.cpu_micros_per_handshake {
            rows.push(("CPU per handshake+subscribe, µs", format!("{cpu:.1}")));
        }
        rows.push(("generator's own, µs", format!("{:.1}", self.generator_cpu_micros_per_handshake)));
        rows
    }

    fn failures(&self) -> &[String] {
        &self.failures
    }
}
