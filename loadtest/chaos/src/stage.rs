//! The cluster under test: Redis, three nodes, nginx, and links between them that can be faulted.
//!
//! ```text
//!   clients ── nginx ──┬── client link ── node 1 ── Redis link ──┬── Redis
//!                      ├── client link ── node 2 ── Redis link ──┤
//!                      └── client link ── node 3 ── Redis link ──┘
//! ```
//!
//! A link keeps its address while the node behind it comes and goes on other ports, as an address of a service does.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fanfare_testbed::{Gateway, Nginx};

use crate::args::Arguments;
use crate::link::Link;
use crate::store::Store;

/// Nodes of the gateway.
pub(crate) const NODES: usize = 3;

/// A history that is longer than any run: whatever is lost, Redis or the gateway has lost it.
const HISTORY_SIZE: usize = 100_000;

/// The longest that a node may be silent before its members have left.
pub(crate) const PRESENCE_HEARTBEAT: Duration = Duration::from_secs(2);

/// How long one that has gone may take to come back.
pub(crate) const PRESENCE_GRACE: Duration = Duration::from_secs(1);

/// Where clients and backends find the cluster. What changes while a run lasts is shared.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// nginx.
    pub(crate) proxy: SocketAddr,
    /// The server API of each node; none while it is down.
    pub(crate) internal: Rc<RefCell<Vec<Option<SocketAddr>>>>,
}

/// How clients reach the nodes, and the nodes Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Through links, so that they can be cut off from each other.
    Links,
    /// Straight: links cost the harness two descriptors a client, and a busy harness is a slow Redis.
    Straight,
}

/// The running cluster; all of it is gone when dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) redis: Store,
    /// None where the servers tell the nodes their addresses themselves.
    pub(crate) redis_links: Vec<Link>,
    pub(crate) client_links: Vec<Link>,
    pub(crate) nginx: Nginx,
    pub(crate) addresses: Addresses,
    nodes: Vec<Option<Gateway>>,
    starts: usize,
    program: PathBuf,
    logs: PathBuf,
    drain: u64,
}

impl Stage {
    /// Starts everything and waits until it serves.
    pub(crate) async fn set(arguments: &Arguments, logs: &Path, wiring: Wiring) -> Result<Self> {
        let Arguments { binary: program, drain, topology, .. } = arguments;
        let drain = *drain;
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        ensure!(drain > 0, "a drain takes at least a second");
        let redis = Store::start(*topology).await;
        let linked = redis.address().filter(|_| wiring == Wiring::Links);
        let redis_links = linked.map_or_else(|| Ok(Vec::new()), |redis| links(&[redis; NODES]))?;
        let mut nodes = Vec::new();
        for node in 0..NODES {
            let settings = redis.settings(redis_links.get(node));
            nodes.push(Some(start(&program, logs, node, 0, settings, drain).await));
        }
        let public: Vec<_> = nodes.iter().flatten().map(Gateway::public).collect();
        let client_links = if wiring == Wiring::Links { links(&public)? } else { Vec::new() };
        let upstreams = match wiring {
            Wiring::Links => client_links.iter().map(Link::address).collect(),
            Wiring::Straight => public,
        };
        let nginx = Nginx::start(&upstreams).await;
        let internal = nodes.iter().map(|node| node.as_ref().map(Gateway::internal)).collect();
        let addresses = Addresses { proxy: nginx.address(), internal: Rc::new(RefCell::new(internal)) };
        let logs = logs.to_owned();
        Ok(Self {
            redis,
            redis_links,
            client_links,
            nginx,
            addresses,
            nodes,
            starts: 0,
            program,
            logs,
            drain,
        })
    }

    /// SIGKILL of a node.
    pub(crate) async fn kill(&mut self, node: usize) {
        if let Some(gateway) = self.take_down(node) {
            gateway.kill().await;
        }
    }

    /// SIGTERM of a node, until it has ended.
    pub(crate) async fn drain(&mut self, node: usize) -> Result<()> {
        let Some(mut gateway) = self.take_down(node) else { return Ok(()) };
        gateway.terminate().await;
        let status = gateway.ended().await;
        ensure!(status.success(), "{} ended with {status} after SIGTERM", name(node));
        Ok(())
    }

    /// Starts a node that is down.
    pub(crate) async fn start(&mut self, node: usize) {
        self.starts += 1;
        let settings = self.redis.settings(self.redis_links.get(node));
        let gateway = start(&self.program, &self.logs, node, self.starts, settings, self.drain).await;
        if let Some(link) = self.client_links.get(node) {
            link.lead_to(gateway.public());
        }
        self.addresses.internal.borrow_mut()[node] = Some(gateway.internal());
        self.nodes[node] = Some(gateway);
    }

    /// A node that is up.
    pub(crate) fn node(&self, node: usize) -> Option<&Gateway> {
        self.nodes[node].as_ref()
    }

    /// Resident memory of each node that is up, in bytes.
    pub(crate) fn resident_bytes(&self) -> Vec<(String, u32, u64)> {
        let up = self.nodes.iter().enumerate().filter_map(|(node, gateway)| Some((node, gateway.as_ref()?)));
        up.filter_map(|(node, gateway)| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((name(node), gateway.id(), kibibytes * 1024))
        })
        .collect()
    }

    /// Copies to the other logs what lies in directories that are deleted.
    pub(crate) fn keep_logs(&self) -> Result<()> {
        std::fs::write(self.logs.join("nginx.log"), self.nginx.log())?;
        std::fs::write(self.logs.join("redis.log"), self.redis.log())?;
        Ok(())
    }

    fn take_down(&mut self, node: usize) -> Option<Gateway> {
        self.addresses.internal.borrow_mut()[node] = None;
        self.nodes[node].take()
    }
}

/// What a node is called.
pub(crate) fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn links(targets: &[SocketAddr]) -> Result<Vec<Link>> {
    targets.iter().map(|target| Link::new(*target).context("a link cannot listen")).collect()
}

async fn start(
    program: &Path,
    logs: &Path,
    node: usize,
    nth: usize,
    mut settings: Vec<String>,
    drain: u64,
) -> Gateway {
    settings.extend([
        format!("node.name={}", name(node)),
        format!("node.drain_seconds={drain}"),
        "broker.kind=redis".into(),
        "redis.timeout_ms=2000".into(),
        format!("presence.heartbeat_seconds={}", PRESENCE_HEARTBEAT.as_secs()),
        format!("presence.grace_seconds={}", PRESENCE_GRACE.as_secs()),
        "heartbeat.interval_seconds=2".into(),
        "heartbeat.timeout_seconds=2".into(),
        "namespaces.kept.publish=anyone".into(),
        "namespaces.kept.subscribe=anyone".into(),
        format!("namespaces.kept.history.size={HISTORY_SIZE}"),
        "namespaces.kept.history.ttl_seconds=86400".into(),
        "namespaces.kept.history.idempotency_ttl_seconds=3600".into(),
        "namespaces.kept.presence=true".into(),
        "namespaces.plain.publish=anyone".into(),
        "namespaces.plain.subscribe=anyone".into(),
        "limits.messages_per_second=0".into(),
        "log.level=info,fanfare=debug".into(),
    ]);
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let log = logs.join(format!("{}.{nth}.log", name(node)));
    Gateway::start_logging(program, &settings, &log).await
}
