//! What a publication costs this process on its way to Redis and back: `cargo run --release --example redis_cost`.
//!
//! Starts a redis-server, publishes from a child process, and reads this process's CPU time from /proc: the figures are
//! micro-seconds of CPU, user and kernel, per publication. The `redis` crate's own push path is measured beside ours.
#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::broker::redis::{RedisBroker, RedisMode, RedisOptions};
use fanfare_fanout::broker::{Broker, Lanes, Link};
use fanfare_fanout::{Hub, HubOptions};
use fanfare_metrics::Metrics;
use fanfare_protocol::Channel;
use fanfare_protocol::publication::{Draft, IdempotencyKey, Payload, Retention};
use fanfare_protocol::time::UnixMicros;
use fanfare_testbed::{RedisServer, eventually};
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const RECEIVED: u64 = 1_000_000;
const PAYLOAD_BYTES: usize = 128;
const PUBLISHERS: usize = 256;
const PUBLISH_TIME: Duration = Duration::from_secs(3);

fn main() {
    match std::env::args().nth(1) {
        Some(port) => flood_from_here(&port),
        None => tokio::runtime::Runtime::new().expect("a runtime can be had").block_on(measure()),
    }
}

async fn measure() {
    let server = RedisServer::start().await;
    let tasks = TaskTracker::new();
    let metrics = Arc::new(Metrics::new());
    let options = RedisOptions {
        mode: RedisMode::Single,
        urls: vec![server.url()],
        tls: None,
        prefix: "fanfare".into(),
        timeout: Duration::from_secs(2),
        ping_interval: Duration::from_secs(2),
        node: "bench".into(),
    };
    let (lanes, ends) = Lanes::new(4, 1024);
    let broker = RedisBroker::connect(&options, &lanes, metrics.clone(), &tasks, CancellationToken::new());
    let broker: Arc<dyn Broker> = Arc::new(broker.expect("the options are sound"));
    let hub = Hub::start(
        broker.clone(),
        ends,
        metrics.clone(),
        &tasks,
        HubOptions {
            broker_timeout: Duration::from_secs(5),
            check_interval: Duration::from_secs(5),
            now: || UnixMicros(0),
        },
    );
    eventually("redis is connected", async || broker.link() == Link::Up).await;

    let envelope = crate_push_path(&server, &broker).await;
    receive(&server, &broker, &metrics, &envelope).await;
    for (what, draft) in [
        ("publish, 256 at once", draft()),
        ("the same with history of 100", kept()),
        ("with a key too", keyed()),
    ] {
        publish(&server, &broker, &tasks, what, &draft).await;
    }
    idle_round_trip(&broker, "publish alone", &draft()).await;
    idle_round_trip(&broker, "the same with history", &kept()).await;
    drop(hub);
}

/// The push path of the `redis` crate, values and callback, doing no more than counting. Returns a real envelope.
async fn crate_push_path(server: &RedisServer, broker: &Arc<dyn Broker>) -> Vec<u8> {
    let (first, mut envelope) = mpsc::channel(1);
    let counted = Arc::new(AtomicU64::new(0));
    let counter = counted.clone();
    let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Message {
            counter.fetch_add(1, Ordering::Relaxed);
            if let Some(Value::BulkString(bytes)) = push.data.into_iter().nth(1) {
                let _ = first.try_send(bytes);
            }
        }
        Ok::<_, redis::aio::SendError>(())
    });
    let client = Client::open(format!("{}/?protocol=resp3", server.url())).expect("the URL is sound");
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&config).await.expect("redis is there");
    connection.subscribe("fanfare:c:{bench}").await.expect("redis is there");
    broker.publish(draft()).await.expect("redis is there");
    let envelope = envelope.recv().await.expect("it was published");
    let measured = Measured::start();
    flood(server, &envelope);
    eventually("all is counted", async || counted.load(Ordering::Relaxed) > RECEIVED).await;
    measured.report("redis crate's push path, counting only", RECEIVED);
    envelope
}

/// From the socket through the lanes to a hub without subscribers.
async fn receive(server: &RedisServer, broker: &Arc<dyn Broker>, metrics: &Metrics, envelope: &[u8]) {
    broker.watch(&channel()).await.expect("redis is there");
    let received = || {
        let text = metrics.render();
        let line =
            text.lines().find_map(|line| line.strip_prefix("fanfare_broker_publications_received_total "));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default()
    };
    let measured = Measured::start();
    flood(server, envelope);
    eventually("all is received", async || received() >= RECEIVED).await;
    measured.report("receive, to the hub", RECEIVED);
    broker.unwatch(&channel()).await;
}

/// Many publishers at once, each waiting for its answer.
async fn publish(
    server: &RedisServer,
    broker: &Arc<dyn Broker>,
    tasks: &TaskTracker,
    what: &str,
    draft: &Draft,
) {
    let (measured, redis) = (Measured::start(), redis_cpu(server).await);
    let end = Instant::now() + PUBLISH_TIME;
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (broker, draft) = (broker.clone(), draft.clone());
            tasks.spawn(async move {
                let mut count = 0;
                while Instant::now() < end {
                    let key = draft.key.as_ref().and(IdempotencyKey::parse(&format!("{publisher} {count}")));
                    broker.publish(Draft { key, ..draft.clone() }).await.expect("redis is there");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for publisher in publishers {
        count += publisher.await.expect("a publisher does not panic");
    }
    measured.report(what, count);
    let redis = redis_cpu(server).await - redis;
    println!("    redis: {:.2} µs of CPU each", redis.as_secs_f64() * 1e6 / count as f64);
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

/// One publisher, one draft at a time: the latency that a quiet node shows.
async fn idle_round_trip(broker: &Arc<dyn Broker>, what: &str, draft: &Draft) {
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let asked = Instant::now();
        broker.publish(draft.clone()).await.expect("redis is there");
        times.push(asked.elapsed());
        sleep(Duration::from_micros(100)).await;
    }
    times.sort_unstable();
    println!("{what}: median {:?}, 99 % within {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

/// Another process publishes: this program again, with a port as its argument.
fn flood(server: &RedisServer, envelope: &[u8]) {
    let mut child = Command::new(std::env::current_exe().expect("this is a program"))
        .arg(server.port().to_string())
        .stdin(Stdio::piped())
        .spawn()
        .expect("what runs can be run");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(envelope).expect("it reads its input");
    drop(input);
    let ended = tokio::task::block_in_place(|| child.wait());
    assert!(ended.is_ok_and(|status| status.success()), "the child has published");
}

/// The child: publishes what it reads from its input, so many commands at a time.
fn flood_from_here(port: &str) {
    const AT_ONCE: usize = 100;
    let mut envelope = Vec::new();
    std::io::stdin().read_to_end(&mut envelope).expect("the parent writes");
    let command = redis::cmd("PUBLISH").arg("fanfare:c:{bench}").arg(envelope).get_packed_command();
    let commands = command.repeat(AT_ONCE);
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).expect("redis is there");
    for _ in 0..RECEIVED / AT_ONCE as u64 {
        socket.write_all(&commands).expect("redis reads");
        let mut answers = [0; AT_ONCE * b":1\r\n".len()];
        socket.read_exact(&mut answers).expect("redis answers, and there is one subscriber");
    }
}

struct Measured {
    wall: Instant,
    cpu: Duration,
}

impl Measured {
    fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }

    fn report(&self, what: &str, count: u64) {
        let (wall, cpu) = (self.wall.elapsed(), cpu() - self.cpu);
        let (rate, cost) = (count as f64 / wall.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count as f64);
        println!("{what}: {rate:.0}/s, {cost:.2} µs of CPU each");
    }
}

/// User and kernel time of this process, in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|it| it.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn channel() -> Channel {
    Channel::parse("bench").expect("the name is sound")
}

fn draft() -> Draft {
    let payload = Payload::parse(&format!("\"{}\"", "x".repeat(PAYLOAD_BYTES - 2))).expect("it is JSON");
    Draft {
        channel: channel(),
        payload,
        sender: None,
        exclude: None,
        received: UnixMicros(1),
        retention: None,
        key: None,
        trace: None,
    }
}

fn kept() -> Draft {
    Draft { retention: Some(Retention::SHORT), ..draft() }
}

/// With an idempotency key, which publishers replace by one of their own each time.
fn keyed() -> Draft {
    Draft { key: IdempotencyKey::parse("key"), ..kept() }
}
