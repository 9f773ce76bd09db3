//! `fanfare serve`: configure, build, serve, wait for a signal, drain.

use std::io::IsTerminal;
use std::thread::available_parallelism;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Log, LogFormat};
use crate::node::Node;

/// Serves until a signal says to stop.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    start_logging(&config.log)?;
    raise_open_files(config);
    info!("{}", config.summary());
    runtime(config)?.block_on(serve(config))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = Node::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = node.drain() => {}
        _ = terminate.recv() => warn!("told twice: stopping at once"),
        _ = interrupt.recv() => warn!("told twice: stopping at once"),
    }
    Ok(())
}

fn runtime(config: &Config) -> anyhow::Result<Runtime> {
    let workers =
        config.node.workers.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().context("the runtime")
}

fn start_logging(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).with_context(|| format!("log.level = {:?}", log.level))?;
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.init(),
    }
    Ok(())
}

/// A connection is a file to the system, and the usual soft limit is 1024. Raises it to the hard one and says when even
/// that is too low.
fn raise_open_files(config: &Config) {
    let wanted = config.limits.connections.get() as u64 + 1024;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => warn!(
            limit,
            wanted, "the limit of open files is below limits.connections: raise it (ulimit -n) or lower that"
        ),
        Err(error) => warn!(%error, "the limit of open files cannot be read"),
    }
}
