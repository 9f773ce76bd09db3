//! What the process writes to standard error, and how much of it while it runs.
//!
//! The level is that of the configuration, or for a while another one that somebody has asked for. A process has one log, whatever
//! nodes are in it, so this is the one thing here that is global; where nobody has started it, as in tests, there is none to change.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Log, LogFormat};

mod rate;

use rate::Rate;

/// How often it is looked whether a level has lasted for as long as it was asked for.
const LOOK: Duration = Duration::from_secs(1);

static LOG: OnceLock<Filter> = OnceLock::new();

/// The filter of the log, to be exchanged while the process runs.
struct Filter {
    exchange: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    levels: Mutex<Levels>,
}

struct Levels {
    configured: String,
    /// What holds instead, and until when.
    passing: Option<(String, Instant)>,
}

/// What is logged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Directives that `EnvFilter` understands.
    pub(crate) level: String,
    /// For how long; none where it is that of the configuration.
    pub(crate) lasts: Option<Duration>,
}

/// Why the level stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unchanged {
    #[error("`level` is error, warn, info, debug or trace, or directives such as info,fanfare_gateway=debug")]
    Misspelt,
    #[error("this process does not log")]
    Silent,
}

/// Starts logging; nothing is logged before.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let colours = std::io::stderr().is_terminal();
    let filter = read(&log.level).with_context(|| format!("log.level = {:?}", log.level))?;
    let (filter, handle) = reload::Layer::new(filter);
    let text = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    let rate = Rate::new(log.lines_per_second);
    let all = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Json => all.with(text.json().flatten_event(true)).with(rate).init(),
        LogFormat::Text => all.with(text).with(rate).init(),
    }
    let exchange: Box<dyn Fn(_) -> _ + Send + Sync> = Box::new(move |filter| handle.reload(filter));
    let levels = Mutex::new(Levels { configured: log.level.clone(), passing: None });
    let _ = LOG.set(Filter { exchange, levels }); // It is started once, or `init` would have failed.
    Ok(())
}

/// Logs at the configured level from now on, which may be another than before.
pub(crate) fn configure(level: &str) -> anyhow::Result<()> {
    let log = LOG.get().context("there is no log")?;
    (log.exchange)(read(level)?).context("log.level")?;
    *log.levels.lock() = Levels { configured: level.to_owned(), passing: None };
    Ok(())
}

/// What is logged now.
pub(crate) fn level() -> Result<Level, Unchanged> {
    let levels = LOG.get().ok_or(Unchanged::Silent)?.levels.lock();
    Ok(match &levels.passing {
        Some((level, until)) => {
            Level { level: level.clone(), lasts: Some(until.saturating_duration_since(Instant::now())) }
        }
        None => Level { level: levels.configured.clone(), lasts: None },
    })
}

/// Logs at another level for a while.
pub(crate) fn pass(level: &str, time: Duration) -> Result<Level, Unchanged> {
    let filter = read(level).map_err(|_| Unchanged::Misspelt)?;
    let log = LOG.get().ok_or(Unchanged::Silent)?;
    let mut levels = log.levels.lock();
    (log.exchange)(filter).map_err(|_| Unchanged::Silent)?;
    levels.passing = Some((level.to_owned(), Instant::now() + time));
    drop(levels);
    warn!(level, seconds = time.as_secs(), "another log level was asked for");
    Ok(Level { level: level.to_owned(), lasts: Some(time) })
}

/// Goes back to the configured level when another has lasted for as long as it was asked for, until told to stop.
pub(crate) async fn watch(stop: CancellationToken) {
    let Some(log) = LOG.get() else { return };
    let looking = async {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            log.look();
        }
    };
    stop.run_until_cancelled(looking).await;
}

impl Filter {
    fn look(&self) {
        let mut levels = self.levels.lock();
        if levels.passing.as_ref().is_none_or(|(_, until)| *until > Instant::now()) {
            return;
        }
        levels.passing = None;
        let level = levels.configured.clone();
        let outcome = read(&level).map(|filter| (self.exchange)(filter));
        drop(levels);
        if let Ok(Ok(())) = outcome {
            info!(level, "the log has its configured level again");
        }
    }
}

fn read(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(level)
}
