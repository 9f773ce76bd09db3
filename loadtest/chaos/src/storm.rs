//! The recovery storm: thousands of clients that have missed the same messages come back in the same moment.
//!
//! What it would cost is a read of history for each of them; what it may cost is a small number of reads for each channel
//! on each node. Meanwhile others, who missed nothing, go on hearing each other: how much later is measured.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use fanfare_testbed::RedisServer;
use futures_util::future::{join_all, try_join_all};
use redis::cmd;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::args::Arguments;
use crate::follow::{Entered, Entry, Follow};
use crate::publisher::call;
use crate::report::{Report, Spread};
use crate::say;
use crate::socket::{Event, Gone, Socket, position};
use crate::stage::{Addresses, NODES, Stage, Wiring};
use crate::stamp::Stamp;

/// Channels that the clients share.
const CHANNELS: usize = 50;
/// What each client has missed.
const MISSED: u64 = 100;
/// Reads of history that one channel may cost one node: one for the first who asks, one for those who asked while that
/// was under way, and one to spare.
const READS_EACH_MAX: u64 = 3;
/// Clients that connect in peace at any time.
const AT_ONCE: usize = 128;
/// Clients that listen without having missed anything.
const BYSTANDERS: usize = 20;
/// The channel that they hear.
const LIVE: &str = "kept:live";
/// How often something is published there.
const LIVE_EVERY: Duration = Duration::from_millis(20);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    clients: usize,
    channels: usize,
    missed_each: u64,
    /// Clients that heard everything, once and in order, and were told that they would.
    recovered: usize,
    /// What was wrong with the others.
    faults: BTreeMap<String, u64>,
    /// From the beginning of the storm until the last client was whole.
    total_ms: u64,
    /// The same for each client.
    whole: Spread,
    /// Tries after which a client had to come again: not let in, or its subscription refused.
    refused: u64,
    /// Commands that Redis ran in the storm.
    commands: BTreeMap<String, u64>,
    history_reads: u64,
    history_reads_allowed: u64,
    /// From publication to hearing it, for those who missed nothing: before the storm and in it.
    latency_before: Spread,
    latency_during: Spread,
}

impl Report for Findings {
    fn text(&self) -> String {
        let mut text = format!(
            "\n{} clients come back at once to {} channels and recover {} messages each\n\n",
            self.clients, self.channels, self.missed_each
        );
        let spread = |it: &Spread| format!("{} / {} / {}", it.p50_ms, it.p99_ms, it.max_ms);
        for (name, value) in [
            ("recovered, exactly once in order", self.recovered.to_string()),
            ("all of them after, ms", self.total_ms.to_string()),
            ("one of them, ms, p50 / p99 / max", spread(&self.whole)),
            ("tries that were refused", self.refused.to_string()),
            (
                "reads of history (allowed)",
                format!("{} ({})", self.history_reads, self.history_reads_allowed),
            ),
            ("latency before, ms, p50 / p99 / max", spread(&self.latency_before)),
            ("latency meanwhile", spread(&self.latency_during)),
        ] {
            text += &format!("  {name:<38} {value:>20}\n");
        }
        let commands: Vec<_> = self.commands.iter().map(|(name, calls)| format!("{name} {calls}")).collect();
        text + &format!("\n  Redis ran: {}\n\n", commands.join(", "))
    }

    fn failures(&self) -> Vec<String> {
        let mut failures: Vec<_> =
            self.faults.iter().map(|(what, times)| format!("{times} clients: {what}")).collect();
        if self.recovered != self.clients {
            failures.push(format!("{} of {} clients recovered", self.recovered, self.clients));
        }
        if self.latency_before.count == 0 || self.latency_during.count == 0 {
            failures.push("the bystanders heard nothing".into());
        }
        if self.history_reads > self.history_reads_allowed {
            failures.push(format!("{} reads of history", self.history_reads));
        }
        failures
    }
}

/// Lets them all come.
pub(crate) async fn run(arguments: &Arguments, logs: &Path) -> Result<Findings> {
    let stage = Stage::set(arguments, logs, Wiring::Straight).await?;
    let addresses = &stage.addresses;
    publish_all(addresses, 1..=1).await?;
    say(&format!("{} clients come in", arguments.storm_clients));
    let clients = come_in(addresses, arguments.storm_clients).await?;
    let api = addresses.internal.borrow()[0];
    let bystanders = Bystanders::begin(addresses.proxy, api)?;
    sleep(Duration::from_secs(3)).await;
    let latency_before = bystanders.take();
    say(&format!("they leave, and {MISSED} messages are published on each of {CHANNELS} channels"));
    let follows: Vec<Follow> = clients.into_iter().map(|(_, follow)| follow).collect();
    publish_all(addresses, 2..=MISSED + 1).await?;
    let () = stage.redis.primary().await.query(cmd("CONFIG").arg("RESETSTAT")).await;
    bystanders.take();

    say("they come back");
    let began = Instant::now();
    let returning = follows
        .into_iter()
        .enumerate()
        .map(|(number, follow)| spawn_local(come_back(addresses.proxy, number % CHANNELS, follow)));
    let returned = join_all(returning.collect::<Vec<_>>()).await;
    let total = began.elapsed();
    let latency_during = bystanders.take();
    let commands = commands(stage.redis.primary().await).await;
    let (mut faults, mut whole, mut refused) = (BTreeMap::new(), Vec::new(), 0);
    for outcome in returned {
        match outcome? {
            Ok((took, tries)) => {
                whole.push(took);
                refused += tries;
            }
            Err(fault) => *faults.entry(fault).or_default() += 1,
        }
    }
    stage.keep_logs()?;
    let reads = |name: &str| commands.get(name).copied().unwrap_or(0);
    Ok(Findings {
        clients: arguments.storm_clients,
        channels: CHANNELS,
        missed_each: MISSED,
        recovered: whole.len(),
        faults,
        total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX),
        whole: Spread::of(whole),
        refused,
        history_reads: reads("xrange") + reads("xrevrange"),
        history_reads_allowed: (CHANNELS * NODES) as u64 * READS_EACH_MAX,
        commands,
        latency_before,
        latency_during,
    })
}

fn channel(number: usize) -> String {
    format!("kept:{number}")
}

/// The same numbers on every channel, each in order.
async fn publish_all(addresses: &Addresses, numbers: std::ops::RangeInclusive<u64>) -> Result<()> {
    let publish = async |number: usize| {
        let (name, address) = (channel(number), addresses.internal.borrow()[number % NODES]);
        for number in numbers.clone() {
            let body = json!({"channel": name, "data": Stamp::new(&name, 1, number)});
            call(address, "publish", &body).await.map_err(|why| anyhow!("{name}: {why}"))?;
        }
        Ok(())
    };
    try_join_all((0..CHANNELS).map(publish)).await.map(drop)
}

/// Clients that connect and subscribe, a few at a time.
async fn come_in(addresses: &Addresses, count: usize) -> Result<Vec<(Socket, Follow)>> {
    let turns = Semaphore::new(AT_ONCE);
    let enter = async |number: usize| {
        let _turn = turns.acquire().await?;
        let mut follow = Follow::default();
        let socket = enter(addresses.proxy, &channel(number % CHANNELS), &mut follow).await;
        let (socket, entered) =
            socket.map_err(|gone| anyhow!("client {number} is not let in: {}", gone.how))?;
        ensure!(entered == Entered::Fresh, "client {number}: {entered:?}");
        Ok((socket, follow))
    };
    try_join_all((0..count).map(enter)).await
}

/// Connects and subscribes after the place of `follow`, if it has one.
async fn enter(proxy: SocketAddr, name: &str, follow: &mut Follow) -> Result<(Socket, Entered), Gone> {
    let mut socket = Socket::open(proxy).await?;
    let mut command = json!({"type": "subscribe", "channel": name});
    if let Some(position) = follow.position() {
        command["since"] = json!(position);
    }
    socket.say(&command).await?;
    loop {
        match socket.hear().await? {
            Event::Subscribed { epoch, offset, recovered, .. } => {
                let how = || Gone { how: "no position".into(), after: None };
                let position = position(epoch, offset).ok_or_else(how)?;
                return Ok((socket, follow.enter(Entry { position, recovered })));
            }
            Event::Error { code, retry_after, .. } => {
                return Err(Gone {
                    how: format!("refused {code}"),
                    after: retry_after.map(Duration::from_millis),
                });
            }
            _ => {}
        }
    }
}

/// Until the client has heard everything it missed: how long that took, and how many tries were refused.
async fn come_back(proxy: SocketAddr, number: usize, mut follow: Follow) -> Result<(Duration, u64), String> {
    let began = Instant::now();
    let name = channel(number);
    let mut refused = 0;
    // What it waits for: to be let in and subscribed at first, then the message with this number.
    let awaited = Cell::new(1);
    let recovered = timeout(PATIENCE, async {
        let mut socket = loop {
            match enter(proxy, &name, &mut follow).await {
                Ok((socket, Entered::Recovered)) => break socket,
                Ok((_, other)) => return Err(format!("{other:?}")),
                Err(gone) => {
                    refused += 1;
                    sleep(gone.after.unwrap_or(Duration::from_millis(500))).await;
                }
            }
        };
        let mut expected = 2;
        awaited.set(expected);
        while expected <= MISSED + 1 {
            if let Event::Message { data, offset, .. } = socket.hear().await.map_err(|gone| gone.how)? {
                follow.hear(offset.unwrap_or(0)).map_err(|(offence, _)| format!("{offence:?}"))?;
                if data.number != expected || !data.is_sound(&name) {
                    return Err(format!("heard {} for {expected}", data.number));
                }
                expected += 1;
                awaited.set(expected);
            }
        }
        Ok(socket)
    });
    match recovered.await {
        Ok(Ok(_socket)) => Ok((began.elapsed(), refused)),
        Ok(Err(fault)) => Err(fault),
        Err(_) if awaited.get() == 1 => Err(format!("{name}: not subscribed in time")),
        Err(_) => Err(format!("{name}: waits in vain for message {}", awaited.get())),
    }
}

/// Clients that missed nothing, one publisher, and how late they hear it. They have a thread of their own: what keeps the
/// test busy with thousands of clients is not to be taken for the gateway's doing.
struct Bystanders {
    latencies: Arc<Mutex<Vec<Duration>>>,
    /// They leave when this is dropped.
    _stay: oneshot::Sender<()>,
}

impl Bystanders {
    /// Begins to publish and to listen.
    fn begin(proxy: SocketAddr, api: Option<SocketAddr>) -> Result<Self> {
        let latencies = Arc::default();
        let (stay, left) = oneshot::channel();
        let heard = Arc::clone(&latencies);
        let runtime = move || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        thread::Builder::new().name("bystanders".into()).spawn(move || {
            let runtime = runtime().expect("one runtime is there already");
            runtime.block_on(async {
                tokio::select! {
                    () = stand_by(proxy, api, heard) => {}
                    _ = left => {}
                }
            });
        })?;
        Ok(Self { latencies, _stay: stay })
    }

    /// What was measured since it was last taken.
    fn take(&self) -> Spread {
        let mut latencies = self.latencies.lock().expect("nobody panics while measuring");
        Spread::of(std::mem::take(&mut *latencies))
    }
}

async fn stand_by(proxy: SocketAddr, api: Option<SocketAddr>, latencies: Arc<Mutex<Vec<Duration>>>) {
    let began = Instant::now();
    let listen = join_all((0..BYSTANDERS).map(|_| overhear(proxy, began, &latencies)));
    let publish = async {
        let mut pace = interval(LIVE_EVERY);
        loop {
            pace.tick().await;
            // Its number is when it was made. A late answer is a late message: the bystanders see it.
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let body = json!({"channel": LIVE, "data": Stamp::new(LIVE, 1, micros)});
            let _: Result<Value, String> = call(api, "publish", &body).await;
        }
    };
    tokio::join!(listen, publish).1
}

async fn overhear(proxy: SocketAddr, began: Instant, latencies: &Mutex<Vec<Duration>>) {
    let Ok((mut socket, _)) = enter(proxy, LIVE, &mut Follow::default()).await else { return };
    while let Ok(event) = socket.hear().await {
        if let Event::Message { data, .. } = event {
            let latency = began.elapsed().saturating_sub(Duration::from_micros(data.number));
            latencies.lock().expect("nobody panics while measuring").push(latency);
        }
    }
}

/// How often Redis ran each command.
async fn commands(redis: &RedisServer) -> BTreeMap<String, u64> {
    let stats: String = redis.query(cmd("INFO").arg("commandstats")).await;
    let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    let counts =
        lines.filter_map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?)));
    counts.filter(|(name, _)| !matches!(name.as_str(), "info" | "config|resetstat")).collect()
}
