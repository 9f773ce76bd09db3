//! What the process writes to standard error, and how much of it while it runs.

use std::fmt;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;

use crate::config::{Log, LogFormat};

/// The filter of the log, to be exchanged while the process runs.
pub(super) struct Filter(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

/// Starts logging; nothing is logged before.
pub(super) fn start(log: &Log) -> anyhow::Result<Filter> {
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .with_env_filter(filter(log)?);
    Ok(match log.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Filter(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Filter(Box::new(move |filter| handle.reload(filter)))
        }
    })
}

impl Filter {
    /// Logs at the level of `log` from now on.
    pub(super) fn exchange(&self, log: &Log) -> anyhow::Result<()> {
        (self.0)(filter(log)?).context("log.level")
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

fn filter(log: &Log) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&log.level).with_context(|| format!("log.level = {:?}", log.level))
}
