//! Fault tests on real processes: what the gateway promises, held against what three nodes, Redis and nginx do while they
//! are killed, frozen, drained and cut off from each other.
//!
//! One thread runs all clients and all links, so that one record serves them without locks.

mod args;
mod campaign;
mod fault;
mod follow;
mod link;
mod presence;
mod publisher;
mod record;
mod report;
mod socket;
mod stage;
mod stamp;
mod store;
mod storm;
mod subscriber;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Arguments, Topology};

const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    outcome.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::from(COULD_NOT_RUN)
    })
}

async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.storm && arguments.topology == Topology::Cluster {
        bail!("the storm counts what one Redis does: it cannot be had with --topology cluster");
    }
    // As far as the hard limit goes; a lack shows as a failed connection.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let logs = logs(arguments, seed)?;
    say(&format!("seed {seed}, logs in {}", logs.display()));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Whatever ends the run, the processes that it has started end with it: they die with the values dropped here.
    let passed = tokio::select! {
        passed = perform(arguments, seed, &logs) => passed,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }?;
    if !passed {
        say(&format!("seed {seed}, logs in {}", logs.display()));
        return Ok(ExitCode::from(1));
    }
    if arguments.logs.is_none() {
        std::fs::remove_dir_all(&logs).context("the logs cannot be deleted")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn perform(arguments: &Arguments, seed: u64, logs: &Path) -> Result<bool> {
    if arguments.storm {
        report::publish(&storm::run(arguments, logs).await?, arguments.json.as_deref())
    } else {
        report::publish(&campaign::run(arguments, seed, logs).await?, arguments.json.as_deref())
    }
}

/// The directory for the logs of a run, which outlives a panic.
fn logs(arguments: &Arguments, seed: u64) -> Result<PathBuf> {
    let directory = match &arguments.logs {
        Some(directory) => directory.clone(),
        None => tempfile::Builder::new().prefix(&format!("fanfare-chaos-{seed}-")).tempdir()?.keep(),
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    Ok(directory.canonicalize()?)
}

/// Tells whoever watches.
pub(crate) fn say(what: &str) {
    // A closed standard error is no reason to end a run.
    let _ = writeln!(std::io::stderr(), "{what}");
}
