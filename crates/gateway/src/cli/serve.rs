//! `fanfare serve`: configure, build, serve, reload when told to, wait for a signal to stop, drain.

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::Origin;
use crate::config::{Changes, Config, Jwt, Loaded};
use crate::logging;
use crate::node::Node;

/// What is served beside what the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    None,
    /// `/echo`, which costs whoever can reach it nothing and the node a message's size each.
    Echo,
}

/// Serves until a signal says to stop.
pub(super) fn run(origin: &Origin, extra: Extra) -> anyhow::Result<()> {
    let loaded = Loaded::of(&origin.read()?)?;
    let public = loaded.config().listen.public;
    anyhow::ensure!(
        extra == Extra::None || public.ip().is_loopback(),
        "`fanfare echo` serves tests of this machine: listen.public = \"{public}\" is no loopback address"
    );
    let config = loaded.config();
    logging::start(&config.log)?;
    raise_open_files(config);
    runtime(config)?.block_on(serve(origin, loaded, extra))
}

async fn serve(origin: &Origin, mut loaded: Loaded, extra: Extra) -> anyhow::Result<()> {
    let mut signals = Signals::new()?; // Before anything is said: whoever reads the log may signal.
    info!("{}", loaded.config().summary());
    if loaded.config().auth.jwt.as_deref().is_some_and(Jwt::has_short_secret) {
        warn!(
            "auth.jwt.hmac_secret is so short that it could be guessed: good enough to try things on this machine"
        );
    }
    let config = Config { echo: extra == Extra::Echo, ..loaded.config().clone() };
    let node = Node::start(&config).await?;
    let mut complaint = String::new();
    loop {
        match signals.next(loaded.config().tls.watch).await {
            Wish::Stop => break,
            Wish::Reload => reload(origin, &mut loaded, &node).await,
            Wish::Renew => renew(&mut loaded, &node, &mut complaint).await,
        }
    }
    tokio::select! {
        () = node.drain() => {}
        () = signals.stop() => warn!("told twice: stopping at once"),
    }
    Ok(())
}

/// What the operator asks of a running node.
#[derive(Debug)]
enum Wish {
    Stop,
    Reload,
    /// To look whether there are new certificates; asked by the clock.
    Renew,
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal; a look at the certificates where none comes for as long as `watch`.
    async fn next(&mut self, watch: Option<Duration>) -> Wish {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
            () = sleep(watch.unwrap_or_default()), if watch.is_some() => Wish::Renew,
        }
    }

    /// Waits for a signal to stop; who stops reads no configuration any more.
    async fn stop(&mut self) {
        while let Wish::Reload = self.next(None).await {}
    }
}

/// Reads the configuration again and takes what a running node can take; says what it cannot, by name alone, since values
/// may be secret. With a mistake anywhere nothing changes.
async fn reload(origin: &Origin, loaded: &mut Loaded, node: &Node) {
    let read = origin.read().and_then(|source| loaded.reload(&source));
    let (next, Changes { applied, waiting }) = match read {
        Ok(reloaded) => reloaded,
        Err(mistakes) => {
            let mistakes = mistakes.iter().collect::<Vec<_>>().join("; ");
            return error!(mistakes, "the configuration is not reloaded: the one in force stays");
        }
    };
    let changed = |path: &str| applied.iter().any(|it| it == path);
    if changed("log.level")
        && let Err(error) = logging::configure(&next.config().log.level)
    {
        error!(%error, "the log keeps its level");
    }
    if changed("limits.connections") {
        raise_open_files(next.config());
    }
    node.reload(next.config()).await;
    *loaded = next;
    let (applied, waiting) = (applied.join(", "), waiting.join(", "));
    if waiting.is_empty() {
        info!(applied, "configuration reloaded");
    } else {
        warn!(applied, needs_restart = waiting, "configuration reloaded, but for keys that need a restart");
    }
}

/// Takes the certificates anew if their files have changed. Files that do not fit each other, as when one of two has been
/// replaced, change nothing; that is said once, not at every look.
async fn renew(loaded: &mut Loaded, node: &Node, complaint: &mut String) {
    match loaded.renewed() {
        Ok(None) => complaint.clear(),
        Ok(Some(next)) => {
            complaint.clear();
            node.reload(next.config()).await;
            *loaded = next;
        }
        Err(mistakes) => {
            let mistakes = mistakes.iter().collect::<Vec<_>>().join("; ");
            if mistakes != *complaint {
                error!(mistakes, "the certificates are not renewed: those in force stay");
                *complaint = mistakes;
            }
        }
    }
}

fn runtime(config: &Config) -> anyhow::Result<Runtime> {
    let workers =
        config.node.workers.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().context("the runtime")
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
