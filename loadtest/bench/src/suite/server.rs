//! Peers as processes: started on free ports, stopped with all their children when dropped.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_testbed::Authority;
use fanfare_testbed::authority::GOOD;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::plan::{Peer, Wire};
use crate::process;

/// Below the range from which Linux takes ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const GLANCE_INTERVAL: Duration = Duration::from_millis(20);
/// From listening to having forked what it forks.
const SETTLING: Duration = Duration::from_millis(300);

/// Where peers come from.
#[derive(Debug)]
pub(super) struct Workshop {
    /// The folders of the peers.
    pub(super) peers: PathBuf,
    /// What they have downloaded.
    pub(super) cache: PathBuf,
    /// Our own builds.
    pub(super) programs: PathBuf,
}

impl Workshop {
    fn command(&self, peer: &Peer, what: &str) -> Command {
        let mut command = Command::new(self.peers.join(peer.folder).join("peer"));
        command.arg(what).env("BENCH_CACHE", &self.cache).env("FANFARE_BIN", &self.programs);
        command.envs(peer.environment.iter().copied()).stdin(Stdio::null());
        command
    }

    /// Where the servers of a peer write what they have to say, one run over the other.
    fn log(&self, name: &str) -> Result<Stdio> {
        let path = self.cache.join(format!("{name}.log"));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(file.into())
    }

    /// What the peer says it is; an error where it is not installed.
    pub(super) fn version(&self, peer: &Peer) -> Result<String> {
        let output = self.command(peer, "version").output().context("cannot be run")?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success() && !version.is_empty(), "not installed");
        Ok(version)
    }
}

/// One peer, running: one node or several that share a Redis.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) urls: Vec<String>,
    /// The first node's, for those who publish by HTTP.
    pub(super) http: String,
    /// All processes, children and Redis included.
    pub(super) pids: Vec<u32>,
    /// Who vouches for it, where it speaks TLS.
    pub(super) authority: Option<Authority>,
    processes: Vec<Family>,
    _scratch: Vec<TempDir>,
}

impl Server {
    /// Starts `nodes` nodes, and a Redis when there are several; waits until they listen.
    pub(super) async fn start(workshop: &Workshop, peer: &Peer, nodes: usize) -> Result<Self> {
        let (mut processes, mut scratch, mut urls) = (Vec::new(), Vec::new(), Vec::new());
        let redis = free_port()?;
        if nodes > 1 {
            let mut command = Command::new("redis-server");
            command.args(["--port", &redis.to_string(), "--save", "", "--appendonly", "no"]);
            command.stderr(workshop.log("redis")?);
            processes.push(Family::start(command, redis).await.context("redis-server")?);
        }
        let authority = (peer.wire == Wire::Tls).then(Authority::new);
        let certificate = authority.as_ref().map(|authority| authority.issue("server", GOOD));
        let scheme = if authority.is_some() { "wss" } else { "ws" };
        for node in 1..=nodes {
            let (port, internal) = (free_port()?, free_port()?);
            let directory = TempDir::with_prefix("fanfare-bench-")?;
            let mut command = workshop.command(peer, "serve");
            command.env("PORT", port.to_string()).env("INTERNAL_PORT", internal.to_string());
            command.env("SCRATCH", directory.path());
            if let Some(certificate) = &certificate {
                command.env("TLS_CERT", &certificate.cert).env("TLS_KEY", &certificate.key);
            }
            if nodes > 1 {
                command.env("REDIS_PORT", redis.to_string());
            }
            let log = format!("{}-{node}", peer.name);
            command.stderr(workshop.log(&log)?);
            let start = Family::start(command, port).await;
            processes.push(start.with_context(|| format!("{log}.log in --cache may say why"))?);
            scratch.push(directory);
            urls.push(format!("{scheme}://127.0.0.1:{port}/ws"));
        }
        sleep(SETTLING).await;
        let mut pids = Vec::new();
        for family in &mut processes {
            family.pids = process::family(family.child.id())?;
            pids.extend_from_slice(&family.pids);
        }
        let http = urls[0].replacen("ws", "http", 1).replace("/ws", "");
        Ok(Self { urls, http, pids, authority, processes, _scratch: scratch })
    }

    /// Asks every node to end, waits for it, and ends what does not.
    pub(super) async fn stop(mut self) {
        for family in &self.processes {
            signal("TERM", &[family.child.id()]);
        }
        let start = Instant::now();
        for family in &mut self.processes {
            while start.elapsed() < STOP_TIMEOUT && matches!(family.child.try_wait(), Ok(None)) {
                sleep(GLANCE_INTERVAL).await;
            }
        }
    }
}

fn free_port() -> Result<u16> {
    let free = |&port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..100).map(|_| fastrand::u16(PORTS)).find(free).context("no free port")
}

/// A process and those that it has started.
#[derive(Debug)]
struct Family {
    child: Child,
    pids: Vec<u32>,
}

impl Family {
    async fn start(mut command: Command, port: u16) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("cannot be started")?;
        let mut family = Self { pids: vec![child.id()], child };
        let start = Instant::now();
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.is_err() {
            if let Some(status) = family.child.try_wait()? {
                bail!("it ended before it listened: {status}");
            }
            ensure!(start.elapsed() < START_TIMEOUT, "it does not listen after {START_TIMEOUT:?}");
            sleep(GLANCE_INTERVAL).await;
        }
        Ok(family)
    }
}

impl Drop for Family {
    /// Ends what is left of it.
    fn drop(&mut self) {
        signal("KILL", &self.pids);
        // It was asked for by its id just before, and is waited for so that no zombie stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The system's own `kill`: the standard library has no signals, and unsafe code is forbidden here.
fn signal(name: &str, pids: &[u32]) {
    // What has ended by itself cannot be signalled, and need not.
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status();
}
