//! `fanfare bench`: puts a running node or cluster under a load, and says what it made of it.
//!
//! Latency is counted from the moment at which a publication was due, not from the one at which there was room to send it: what
//! waits behind a slow answer counts as late. Lost is what the server has acknowledged and a subscriber has not heard.

use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use fanfare_client::{Client, Event, Subscribe, Subscription};
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered, TryStreamExt};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::print;
use super::remote::Remote;

mod spread;

use spread::Spread;

/// The connections that are opened at the same time.
const CONNECTING_MAX: usize = 64;

/// The publications of one publisher that wait for an answer.
const UNDER_WAY_MAX: usize = 256;

/// How long it is waited for what has not been heard, after the last that was.
const SILENCE: Duration = Duration::from_secs(2);

/// How many subscribers share a tally of latencies.
const STRIPES: usize = 16;

/// What load to make.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare bench                                        100 subscribers in 10 channels, 100 messages a second, 10 seconds
  fanfare bench --connections 2000 --channels 1 --rate 20      one crowd
  fanfare bench --connections 1000 --channels 500 --publishers 20 --rate 2000
  fanfare bench --channel room:bench --url wss://example.com/ws --token \"$(fanfare token --user bench)\"
  fanfare bench --json | jq .latency_ms.p99

A publisher may send as many messages a second as limits.messages_per_second says, 100 unless changed: take several.
It makes real load: not for a cluster whose clients would mind.")]
pub(super) struct Load {
    /// Subscribers, each with a connection of its own.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Channels, over which the subscribers are spread.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    channels: u32,
    /// Connections that publish, on all channels in turn.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    publishers: u32,
    /// Messages a second, of all publishers together.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// For how long they publish.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Bytes of a message, about.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    size: u32,
    /// What the names of the channels begin with: their namespace, and whatever a token allows.
    #[arg(long, value_name = "NAME", default_value = "bench:load")]
    channel: String,
    #[command(flatten)]
    remote: Remote,
}

/// What has been heard and published so far.
#[derive(Debug, Default)]
struct Tally {
    placed: AtomicU64,
    failed: AtomicU64,
    /// What subscribers have to hear of what was placed.
    owed: AtomicU64,
    heard: AtomicU64,
    /// Of that, what came again or behind a later one.
    disordered: AtomicU64,
    interruptions: AtomicU64,
    /// Why the first that failed has.
    failure: Mutex<Option<String>>,
    /// In microseconds.
    latencies: [Mutex<Spread>; STRIPES],
}

/// Makes the load, and prints what came of it.
pub(super) fn run(load: &Load, json: bool) -> anyhow::Result<()> {
    if load.channels > load.connections {
        bail!(
            "--channels {}: there are {} subscribers, and a channel has at least one",
            load.channels,
            load.connections
        );
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX); // Where that is not enough connecting says so.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(load.go())?;
    print(&if json { format!("{report}\n") } else { for_people(&report) })?;
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    if count("published") == 0 || count("failed") + count("lost") + count("disordered") > 0 {
        bail!("not everything was published and heard once: see above");
    }
    Ok(())
}

impl Load {
    async fn go(&self) -> anyhow::Result<Value> {
        let (tally, tasks) = (Arc::<Tally>::default(), TaskTracker::new());
        let connecting = Instant::now();
        let run = format!("{}:{:08x}", self.channel, fastrand::u32(..));
        let channels: Arc<[String]> = (0..self.channels).map(|number| format!("{run}:{number}")).collect();
        let listeners = self.subscribe(&channels).await?;
        let publishers =
            (0..self.publishers).map(|_| self.remote.connect()).collect::<anyhow::Result<Vec<_>>>()?;
        let connected = connecting.elapsed();

        let began = Instant::now();
        let mut kept = Vec::with_capacity(listeners.len());
        for (at, (client, subscription)) in listeners.into_iter().enumerate() {
            tasks.spawn(hear(subscription, began, self.publishers as usize, tally.clone(), at % STRIPES));
            kept.push(client);
        }
        let publishing = TaskTracker::new();
        for (number, client) in (0..).zip(publishers) {
            publishing.spawn(self.publisher(number, began).publish(client, channels.clone(), tally.clone()));
        }
        publishing.close();
        let is_whole = self.watch(&publishing, &tally, began).await;
        let lasted = began.elapsed().min(Duration::from_secs(self.seconds));
        tally.settled().await;
        Ok(self.report(&tally, connected, lasted, is_whole))
    }

    /// The subscribers, once all of them hear.
    async fn subscribe(&self, channels: &[String]) -> anyhow::Result<Vec<(Client, Subscription)>> {
        let names = channels.iter().cycle().take(self.connections as usize);
        let connecting = names.map(|channel| async move {
            let client = self.remote.connect()?;
            let subscription = client.subscribe(channel, Subscribe::default()).await;
            let subscription = subscription.with_context(|| {
                format!("{channel}: is a node running there, and may this client subscribe? (--url, --token, --channel)")
            })?;
            anyhow::Ok((client, subscription))
        });
        stream::iter(connecting).buffer_unordered(CONNECTING_MAX).try_collect().await
    }

    fn publisher(&self, number: u32, began: Instant) -> Publisher {
        let pace = Duration::from_secs(1).mul_f64(f64::from(self.publishers) / f64::from(self.rate));
        Publisher {
            number,
            began,
            first: began + pace.mul_f64(f64::from(number) / f64::from(self.publishers)),
            pace,
            ends: began + Duration::from_secs(self.seconds),
            filler: "x".repeat(self.size as usize),
            subscribers: u64::from(self.connections),
        }
    }

    /// Shows how it goes until all has been published, or ^C; whether it is the former.
    async fn watch(&self, publishing: &TaskTracker, tally: &Tally, began: Instant) -> bool {
        let is_shown = std::io::stderr().is_terminal();
        let mut tick = interval(Duration::from_secs(1));
        let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
        let whole = loop {
            tokio::select! {
                () = publishing.wait() => break true,
                _ = stopped.as_mut() => break false,
                _ = tick.tick(), if is_shown => {
                    let latencies = tally.latencies();
                    let line = format!(
                        "{:>3} of {} s: {} published, {} of {} heard, p50 {:.1} ms, p99 {:.1} ms",
                        began.elapsed().as_secs(), self.seconds, tally.placed.load(Ordering::Relaxed),
                        tally.heard.load(Ordering::Relaxed), tally.owed.load(Ordering::Relaxed),
                        millis(latencies.quantile(0.5)), millis(latencies.quantile(0.99)),
                    );
                    let _ = write!(std::io::stderr(), "\r{line}\u{1b}[K");
                }
            }
        };
        if is_shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
        whole
    }

    fn report(&self, tally: &Tally, connected: Duration, lasted: Duration, is_whole: bool) -> Value {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (placed, owed, heard) = (of(&tally.placed), of(&tally.owed), of(&tally.heard));
        let latencies = tally.latencies();
        let seconds = lasted.as_secs_f64().max(1e-3);
        let quantile = |share| millis(latencies.quantile(share));
        json!({
            "connections": self.connections, "channels": self.channels, "publishers": self.publishers,
            "rate": self.rate, "size": self.size, "seconds": lasted.as_secs_f64(), "interrupted": !is_whole,
            "connected_ms": connected.as_millis() as u64,
            "published": placed, "failed": of(&tally.failed), "failure": *tally.failure.lock(),
            "published_per_second": placed as f64 / seconds, "heard_per_second": heard as f64 / seconds,
            "expected": owed, "heard": heard, "lost": owed.saturating_sub(heard),
            "disordered": of(&tally.disordered), "interruptions": of(&tally.interruptions),
            "latency_ms": {
                "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "p999": quantile(0.999),
                "max": millis(latencies.max()),
            },
        })
    }
}

/// A connection that publishes.
#[derive(Debug)]
struct Publisher {
    number: u32,
    began: Instant,
    /// When its first publication is due.
    first: Instant,
    pace: Duration,
    ends: Instant,
    filler: String,
    /// Of all channels.
    subscribers: u64,
}

impl Publisher {
    async fn publish(self, client: Client, channels: Arc<[String]>, tally: Arc<Tally>) {
        let mut under_way = FuturesUnordered::new();
        for number in 0u32.. {
            let due = self.first + self.pace * number;
            // Each is begun before the next, so they are sent in their order.
            while under_way.len() >= UNDER_WAY_MAX || (Instant::now() < due && due < self.ends) {
                tokio::select! {
                    biased;
                    Some(outcome) = under_way.next() => tally.published(outcome),
                    () = sleep_until(due), if under_way.len() < UNDER_WAY_MAX => {}
                }
            }
            if due >= self.ends {
                break;
            }
            // Each begins elsewhere, or all would publish on the same channel at once.
            let at = (number as usize + self.number as usize) % channels.len();
            let micros = (due - self.began).as_micros();
            let data = (self.number, number, micros as u64, self.filler.clone());
            let hearers = self.hearers(at, channels.len());
            let (client, channels) = (&client, &channels);
            under_way.push(async move {
                let outcome = client.publish(&channels[at], &data).await;
                outcome.map(|_| hearers).map_err(|error| error.to_string())
            });
        }
        while let Some(outcome) = under_way.next().await {
            tally.published(outcome);
        }
        drop(under_way);
        client.stop().await;
    }

    /// How many hear a channel.
    fn hearers(&self, at: usize, channels: usize) -> u64 {
        let (subscribers, channels, at) = (self.subscribers, channels as u64, at as u64);
        subscribers / channels + u64::from(at < subscribers % channels)
    }
}

/// Takes down what a subscriber hears.
async fn hear(
    mut subscription: Subscription,
    began: Instant,
    publishers: usize,
    tally: Arc<Tally>,
    stripe: usize,
) {
    let mut last = vec![None; publishers];
    while let Some(event) = subscription.next().await {
        match event {
            Event::Message(message) => {
                let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let data = message
                    .as_json()
                    .and_then(|json| serde_json::from_str::<(usize, u32, u64, IgnoredAny)>(json).ok());
                let Some((publisher, number, due, _)) = data else { continue };
                let Some(last) = last.get_mut(publisher) else { continue };
                if last.is_some_and(|last| number <= last) {
                    tally.disordered.fetch_add(1, Ordering::Relaxed);
                }
                *last = Some(number);
                tally.latencies[stripe].lock().add(now.saturating_sub(due));
                tally.heard.fetch_add(1, Ordering::Relaxed);
            }
            Event::Interrupted(_) | Event::Ended(_) => {
                tally.interruptions.fetch_add(1, Ordering::Relaxed);
            }
            Event::Subscribed { .. } | Event::Joined(_) | Event::Left(_) => {}
        }
    }
}

impl Tally {
    /// What came of a publication: by how many it is to be heard, or why not.
    fn published(&self, outcome: Result<u64, String>) {
        match outcome {
            Ok(hearers) => {
                self.placed.fetch_add(1, Ordering::Relaxed);
                self.owed.fetch_add(hearers, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.failure.lock().get_or_insert(error);
            }
        }
    }

    /// Waits until everything has been heard, or nothing comes any more.
    async fn settled(&self) {
        let heard = || self.heard.load(Ordering::Relaxed);
        let (mut before, mut since) = (heard(), Instant::now());
        while heard() < self.owed.load(Ordering::Relaxed) && since.elapsed() < SILENCE {
            sleep(Duration::from_millis(20)).await;
            if heard() != before {
                (before, since) = (heard(), Instant::now());
            }
        }
    }

    fn latencies(&self) -> Spread {
        self.latencies.iter().fold(Spread::default(), |all, stripe| all.and(&stripe.lock()))
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn for_people(report: &Value) -> String {
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    let mut text = format!(
        "{} subscribers in {} channels, connected in {:.2} s; {} publishers for {:.1} s\n\
         published  {:>10}   {:.0} a second, of {} that were asked for\n\
         heard      {:>10}   {:.0} a second, of {} that were to be heard\n\
         lost       {:>10}\n\
         disordered {:>10}   heard again, or behind a later one\n\
         latency    p50 {:.1} ms   p90 {:.1} ms   p99 {:.1} ms   p99.9 {:.1} ms   at most {:.1} ms\n",
        report["connections"],
        report["channels"],
        number("/connected_ms") / 1e3,
        report["publishers"],
        number("/seconds"),
        count("published"),
        number("/published_per_second"),
        report["rate"],
        count("heard"),
        number("/heard_per_second"),
        report["expected"],
        count("lost"),
        count("disordered"),
        number("/latency_ms/p50"),
        number("/latency_ms/p90"),
        number("/latency_ms/p99"),
        number("/latency_ms/p999"),
        number("/latency_ms/max"),
    );
    if number("/failed") > 0.0 {
        text +=
            &format!("failed     {:>10}   {}\n", count("failed"), super::caller::cell(&report["failure"]));
    }
    if number("/interruptions") > 0.0 {
        text += &format!(
            "silent     {:>10}   times: connections were lost, or subscribers did not keep up\n",
            count("interruptions")
        );
    }
    text
}
