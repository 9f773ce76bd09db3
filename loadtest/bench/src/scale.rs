//! As many connections as fit into one machine: what they cost at rest, how long a publication takes to reach all of
//! them, and what it takes to come back after a node has died.
//!
//! ```text
//!   this process ── server API ──► node 1 ─┬─ Redis         node 1 … n: 15,000 connections each
//!        │                                 └─ node n        crowd 1 … m: 18,000 connections each,
//!        └── orders, by pipe ──► crowd 1 … crowd m ─────►               from an address of its own
//! ```
//!
//! A process may open some files and no more, so nodes and [`crowd`]s are many. Every connection hears one channel that all
//! share, on which this process alone publishes, numbered; and a room of ten, on which nothing is said. Both keep history.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_testbed::{Gateway, RedisServer, http};
use futures_util::future::try_join_all;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::args::Scale;
use crate::process;
use crate::report::{micros, progress};
use crate::scale::crowd::{Order, Record, Told};
use crate::scale::findings::{Findings, Memory, Recovery, Rest, Spread};
use crate::scenario::idle::settled;
use crate::stamp::Stamp;

mod crowd;
mod findings;
mod link;

pub(crate) use crowd::hold;

/// Connections of one node, in the mean: room is left for those of a node that dies.
const NODE_CONNECTIONS: usize = 15_000;
const NODES_MIN: usize = 3;
/// Connections of one process of the crowd.
const CROWD_CONNECTIONS: usize = 18_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two publications while a node is gone.
const MISSED_EVERY: Duration = Duration::from_millis(100);

/// One process of the crowd.
struct Crowd {
    /// Killed when dropped.
    _child: Child,
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

/// Everything that runs.
struct Stage {
    redis: RedisServer,
    redis_pid: u32,
    nodes: Vec<Gateway>,
    crowds: Vec<Crowd>,
    /// What was published last.
    published: u64,
    payload_bytes: usize,
}

/// What was spent so far.
struct Cpu {
    gateways: process::Spent,
    redis: process::Spent,
}

/// Does all of it.
pub(crate) async fn run(arguments: &Scale) -> Result<Findings> {
    ensure!(arguments.connections > 0 && arguments.missed > 0 && arguments.broadcasts > 0, "nothing to do");
    let nodes =
        arguments.nodes.unwrap_or_else(|| arguments.connections.div_ceil(NODE_CONNECTIONS)).max(NODES_MIN);
    let mut stage = Stage::set(arguments, nodes).await?;
    let (before, cpu, began) = (stage.memory().await?, stage.cpu()?, Instant::now());
    progress(&format!("{} connections come to {nodes} nodes", arguments.connections));
    stage.open(arguments).await?;
    let opened = began.elapsed();
    let handshakes = stage.cpu()?.gateways.since(cpu.gateways).total();
    let memory = stage.memory().await?.since(&before);

    progress(&format!("all are subscribed after {opened:.1?}, and left alone for {:?}", arguments.rest));
    let rest = stage.rest(arguments).await?;
    progress(&format!("{} publications to all", arguments.broadcasts));
    let mut broadcasts = Vec::new();
    for _ in 0..arguments.broadcasts {
        broadcasts.push(stage.broadcast().await?);
    }
    progress("a node is killed");
    let recovery = stage.kill_one(arguments.missed).await?;
    let broadcast_after = stage.broadcast().await?;
    let mut record = stage.record().await?;
    let connections = arguments.connections;
    let back = Spread::of(record.back_millis.drain(..).map(f64::from).collect());
    let mut failures = record.failures(connections);
    if back.count as u64 != recovery.clients {
        failures
            .push(format!("{} connections ended, of {} on the killed node", back.count, recovery.clients));
    }
    Ok(Findings {
        connections,
        nodes,
        processes: stage.crowds.len(),
        presence: arguments.presence,
        opened_seconds: opened.as_secs_f64(),
        cpu_micros_per_handshake: micros(handshakes) / connections as f64,
        memory,
        rest,
        broadcasts,
        recovery,
        back,
        broadcast_after,
        failures,
        record,
    })
}

impl Stage {
    /// Starts Redis and the nodes.
    async fn set(arguments: &Scale, nodes: usize) -> Result<Self> {
        let program = &arguments.binary;
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        let redis = RedisServer::start().await;
        let info: String = redis.query(redis::cmd("INFO").arg("server")).await;
        let redis_pid = field(&info, "process_id").context("Redis does not tell its process")?;
        let settings = settings(arguments, &redis);
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let mut started = Vec::new();
        for node in 0..nodes {
            let name = format!("node.name=node-{}", node + 1);
            started.push(Gateway::start(&program, &[&settings[..], &[name.as_str()]].concat()).await);
        }
        let (nodes, payload_bytes) = (started, arguments.payload);
        Ok(Self {
            redis,
            redis_pid: redis_pid as u32,
            nodes,
            crowds: Vec::new(),
            published: 0,
            payload_bytes,
        })
    }

    /// Starts the crowd, and waits until all of it is subscribed.
    async fn open(&mut self, arguments: &Scale) -> Result<()> {
        let crowds = arguments.connections.div_ceil(CROWD_CONNECTIONS).max(2);
        let share = arguments.connections.div_ceil(crowds);
        for index in 0..crowds {
            let first = index * share;
            let count = share.min(arguments.connections.saturating_sub(first));
            let network = u8::try_from(index).context("too many connections")?;
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("hold").args(["--first", &first.to_string(), "--count", &count.to_string()]);
            command.args([
                "--network",
                &network.to_string(),
                "--jitter-ms",
                &arguments.jitter_ms.to_string(),
            ]);
            command.args(self.nodes.iter().map(|node| format!("--node={}", node.public())));
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
            let orders = child.stdin.take().expect("it was asked for");
            let told = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
            self.crowds.push(Crowd { _child: child, orders, told });
        }
        for told in self.hear_all().await? {
            ensure!(matches!(told, Told::Opened), "the crowd says {told:?}");
        }
        Ok(())
    }

    /// What one word from each process of the crowd is.
    async fn hear_all(&mut self) -> Result<Vec<Told>> {
        try_join_all(self.crowds.iter_mut().map(|crowd| async {
            let line = timeout(PATIENCE, crowd.told.next_line()).await.context("the crowd is silent")??;
            Ok(serde_json::from_str(&line.context("a process of the crowd has ended")?)?)
        }))
        .await
    }

    async fn order_all(&mut self, order: &Order) -> Result<Vec<Told>> {
        let line = serde_json::to_string(order)? + "\n";
        for crowd in &mut self.crowds {
            crowd.orders.write_all(line.as_bytes()).await?;
        }
        self.hear_all().await
    }

    /// Announces so many publications to everybody.
    async fn announce(&mut self, count: u64) -> Result<()> {
        for told in self.order_all(&Order::Expect(self.published + count)).await? {
            ensure!(matches!(told, Told::Ready), "the crowd says {told:?}");
        }
        Ok(())
    }

    /// Publishes the next, by the first node.
    async fn publish(&mut self) -> Result<()> {
        self.published += 1;
        let stamp = Stamp { stream: 0, sequence: self.published, sent_nanos: crowd::unix_nanos() };
        let mut data = String::new();
        stamp.write(self.payload_bytes, &mut data);
        let body = format!(r#"{{"channel":"{}","data":{data}}}"#, link::NEWS);
        let answer = http::post(self.nodes[0].internal(), "/api/publish", &[], &body).await;
        ensure!(answer.status == 200, "publish is answered {}: {}", answer.status, answer.text());
        let offset = answer.json()["offset"].as_u64();
        ensure!(offset == Some(self.published), "publication {} is placed at {offset:?}", self.published);
        Ok(())
    }

    /// Waits until everybody has heard what was announced.
    async fn heard_by_all(&mut self) -> Result<Spread> {
        let mut all = Vec::new();
        for told in self.hear_all().await? {
            let Told::Done { latencies_micros } = told else { bail!("the crowd says {told:?}") };
            all.extend(latencies_micros.into_iter().map(|micros| f64::from(micros) / 1_000.0));
        }
        Ok(Spread::of(all))
    }

    async fn broadcast(&mut self) -> Result<Spread> {
        self.announce(1).await?;
        self.publish().await?;
        self.heard_by_all().await
    }

    /// Leaves everybody alone.
    async fn rest(&self, arguments: &Scale) -> Result<Rest> {
        let (pings, before, began) = (self.pings().await?, self.cpu()?, Instant::now());
        sleep(arguments.rest).await;
        let (after, seconds) = (self.cpu()?, began.elapsed().as_secs_f64());
        let pings = self.pings().await? - pings;
        let cores = |after: process::Spent, before| after.since(before).total().as_secs_f64() / seconds;
        Ok(Rest {
            seconds,
            heartbeat_seconds: arguments.heartbeat,
            pings,
            gateway_cores: cores(after.gateways, before.gateways),
            redis_cores: cores(after.redis, before.redis),
        })
    }

    /// Kills the last node, and publishes while its clients are on their way to the others.
    async fn kill_one(&mut self, missed: u64) -> Result<Recovery> {
        let node = self.nodes.pop().context("there are several nodes")?;
        let status = http::get(node.public(), "/status").await.json();
        let clients = status["connections"].as_u64().context("a node tells no count of connections")?;
        let () = self.redis.query(redis::cmd("CONFIG").arg("RESETSTAT")).await;
        self.announce(missed).await?;
        let cpu = self.cpu()?;
        let killed = Instant::now();
        node.kill().await;
        for _ in 0..missed {
            self.publish().await?;
            sleep(MISSED_EVERY).await;
        }
        let _ = self.heard_by_all().await?;
        let all_recovered_seconds = killed.elapsed().as_secs_f64();
        let spent = self.cpu()?;
        let commands = commands(&self.redis.query::<String>(redis::cmd("INFO").arg("commandstats")).await);
        let seconds = |spent: process::Spent| spent.total().as_secs_f64();
        Ok(Recovery {
            clients,
            published_meanwhile: missed,
            all_recovered_seconds,
            gateway_cpu_seconds: seconds(spent.gateways.since(cpu.gateways)),
            redis_cpu_seconds: seconds(spent.redis.since(cpu.redis)),
            redis_commands: commands,
        })
    }

    async fn record(&mut self) -> Result<Record> {
        let mut all = Record::default();
        for told in self.order_all(&Order::Report).await? {
            let Told::Report(record) = told else { bail!("the crowd says {told:?}") };
            all.add(record);
        }
        Ok(all)
    }

    fn gateways(&self) -> Vec<u32> {
        self.nodes.iter().map(Gateway::id).collect()
    }

    fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu { gateways: process::cpu(&self.gateways())?, redis: process::cpu(&[self.redis_pid])? })
    }

    async fn memory(&self) -> Result<Memory> {
        let gateway_bytes = settled(&self.gateways()).await?;
        let redis_bytes = process::resident_bytes(&[self.redis_pid])?;
        Ok(Memory { gateway_bytes, redis_bytes, kernel_bytes: process::kernel_bytes()? })
    }

    /// How many pings the nodes have sent.
    async fn pings(&self) -> Result<u64> {
        let mut sum = 0;
        for node in &self.nodes {
            let metrics = http::get(node.internal(), "/metrics").await;
            let line =
                metrics.text().lines().find_map(|it| it.strip_prefix("fanfare_heartbeats_sent_total "));
            sum += line.and_then(|it| it.parse::<u64>().ok()).context("no count of heartbeats")?;
        }
        Ok(sum)
    }
}

fn settings(arguments: &Scale, redis: &RedisServer) -> Vec<String> {
    vec![
        "broker.kind=redis".into(),
        format!("redis.urls={}", redis.url()),
        format!("heartbeat.interval_seconds={}", arguments.heartbeat),
        "namespaces.news.publish=none".into(),
        "namespaces.news.subscribe=anyone".into(),
        "namespaces.news.history.size=100".into(),
        "namespaces.news.history.ttl_seconds=3600".into(),
        "namespaces.room.publish=anyone".into(),
        "namespaces.room.subscribe=anyone".into(),
        "namespaces.room.history.size=100".into(),
        "namespaces.room.history.ttl_seconds=3600".into(),
        format!("namespaces.room.presence={}", arguments.presence),
    ]
}

/// A number of Redis' INFO.
fn field(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

/// How often Redis ran each command.
fn commands(stats: &str) -> BTreeMap<String, u64> {
    let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    let counts =
        lines.filter_map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?)));
    counts.filter(|(name, _)| !matches!(name.as_str(), "info" | "config|resetstat")).collect()
}
