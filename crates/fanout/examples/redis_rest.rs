//! What nodes on which nothing happens cost Redis and themselves: `cargo run --release --example redis_rest`.
//!
//! Starts a redis-server and two nodes in this process, each with a subscriber on the same thousand channels with history,
//! waits until all have been quiet for a while, and counts for a minute.
#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::broker::redis::{RedisBroker, RedisMode, RedisOptions};
use fanfare_fanout::broker::{Lanes, Link};
use fanfare_fanout::{Hub, HubOptions, Outbox};
use fanfare_metrics::Metrics;
use fanfare_protocol::session::Terms;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, SessionId};
use fanfare_testbed::{RedisServer, eventually};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NODES: u8 = 2;
const CHANNELS: usize = 1_000;
const SETTLING: Duration = Duration::from_secs(30);
const MEASURED: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = RedisServer::start().await;
    let tasks = TaskTracker::new();
    let mut hubs = Vec::new();
    for number in 0..NODES {
        hubs.push(quiet_node(&server, &tasks, number).await);
    }
    sleep(SETTLING).await;
    let before = (server.commands().await, redis_cpu(&server).await, cpu());
    sleep(MEASURED).await;
    let after = (server.commands().await, redis_cpu(&server).await, cpu());
    let per_second = |total: f64| total / MEASURED.as_secs_f64();
    println!("{NODES} nodes, {CHANNELS} quiet channels, a second:");
    println!("  commands of redis    {:8.1}", per_second((after.0 - before.0) as f64));
    println!("  CPU of redis, ms     {:8.2}", per_second((after.1 - before.1).as_secs_f64() * 1e3));
    println!("  CPU of both nodes, ms{:8.2}", per_second((after.2 - before.2).as_secs_f64() * 1e3));
}

async fn quiet_node(server: &RedisServer, tasks: &TaskTracker, number: u8) -> Arc<Hub> {
    let options = RedisOptions {
        mode: RedisMode::Single,
        urls: vec![server.url()],
        tls: None,
        prefix: "fanfare".into(),
        timeout: Duration::from_secs(2),
        ping_interval: Duration::from_secs(2),
        node: format!("node {number}"),
    };
    let (lanes, ends) = Lanes::new(4, 1024);
    let metrics = Arc::new(Metrics::new());
    let broker = RedisBroker::connect(&options, &lanes, metrics.clone(), tasks, CancellationToken::new());
    let broker = Arc::new(broker.expect("the options are sound"));
    let options = HubOptions {
        broker_timeout: Duration::from_secs(5),
        check_interval: Duration::from_secs(5),
        now: || fanfare_protocol::time::UnixMicros(0),
    };
    let hub = Hub::start(broker, ends, metrics, tasks, options);
    eventually("redis is connected", async || hub.link() == Link::Up).await;
    let outbox = Outbox::new(SessionId::from_random([number; 16]), Encoding::NativeJson, 1 << 20);
    for channel in 0..CHANNELS {
        let channel = Channel::parse(&format!("quiet:{channel}")).expect("the name is sound");
        let terms = Terms { history: true, ..Terms::default() };
        hub.subscribe(&channel, &outbox, terms).await.expect("redis is there");
        hub.go_live(&channel, &outbox, Frame::text("{}"));
    }
    hub
}

/// User and kernel time of the server.
async fn redis_cpu(server: &RedisServer) -> Duration {
    let text: String = server.query(redis::cmd("INFO").arg("cpu")).await;
    let seconds = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.expect("it is there").trim().parse::<f64>().expect("a number")
    };
    Duration::from_secs_f64(seconds("used_cpu_user") + seconds("used_cpu_sys"))
}

/// User and kernel time of this process, in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|it| it.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}
