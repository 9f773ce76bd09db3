//! A started gateway, those who chat on it while it is attacked, and what it weighs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fanfare_testbed::{Client, Gateway, Samples, eventually};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval};

use crate::support::{socket_from, weight};

/// Where those are who chat: the attacker's address is another.
const BYSTANDERS: &str = "127.0.0.20";

/// What is said at least while an attack is on.
const MESSAGES_MIN: u64 = 20;

/// Between two messages: well below the rate.
const PAUSE: Duration = Duration::from_millis(25);

/// What an attack may add to the process while it lasts, and what may be left of it when it is over: what the allocator
/// keeps, and tables at the size that they had.
const PEAK_BYTES: u64 = 32 << 20;
const REST_BYTES: u64 = 16 << 20;

/// A stream of bytes, in clear or in TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type Bystander = Client<Box<dyn Stream>>;

pub(super) struct Scene {
    gateway: Gateway,
    speaker: Bystander,
    listeners: Vec<Bystander>,
    /// Messages that were said and heard by all.
    said: u64,
}

impl Scene {
    /// Starts a gateway with settings over its defaults; two chat on it.
    pub(super) async fn start(settings: &[&str]) -> Self {
        Self::of(gateway(settings).await, async |gateway| {
            let socket = socket_from(BYSTANDERS, gateway.public()).await;
            Client::on(Box::new(socket) as Box<dyn Stream>, gateway.public()).await.expect("it is let in")
        })
        .await
    }

    /// The same with clients that come in by another way.
    pub(super) async fn of(gateway: Gateway, enter: impl AsyncFn(&Gateway) -> Bystander) -> Self {
        let (speaker, mut listener) = (enter(&gateway).await, enter(&gateway).await);
        listener.subscribe("chat").await;
        Self { gateway, speaker, listeners: vec![listener], said: 0 }
    }

    /// So many more listen.
    pub(super) async fn fill(&mut self, count: usize) {
        let public = self.public();
        for number in 0..count {
            // Few from one address, as it is with clients.
            let source = format!("127.0.1.{}", number % 200 + 1);
            let socket = Box::new(socket_from(&source, public).await) as Box<dyn Stream>;
            let mut listener = Client::on(socket, public).await.expect("it is let in");
            listener.subscribe("chat").await;
            self.listeners.push(listener);
            // Whoever never listens answers no ping, and on a busy machine all this takes its time.
            if number % 25 == 0 {
                self.chat().await;
            }
        }
    }

    pub(super) fn public(&self) -> SocketAddr {
        self.gateway.public()
    }

    pub(super) async fn samples(&self) -> Samples {
        Samples::of(self.gateway.internal()).await
    }

    /// Mounts an attack, and holds that it harms nobody.
    pub(super) async fn withstands(&mut self, attack: impl AsyncFnOnce(SocketAddr)) {
        let public = self.public();
        for _ in 0..MESSAGES_MIN {
            self.chat().await; // What the first messages cost once is no attack's.
        }
        let connections = self.samples().await.value("fanfare_connections");
        let before = weight(&self.gateway, "VmRSS");
        let is_over = Cell::new(false);
        let attack = async {
            attack(public).await;
            is_over.set(true);
        };
        let chat = async {
            let mut pace = interval(PAUSE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let until = self.said + MESSAGES_MIN;
            while !is_over.get() || self.said < until {
                pace.tick().await;
                self.chat().await;
            }
        };
        tokio::join!(attack, chat);
        let peak = weight(&self.gateway, "VmHWM");
        assert!(peak < before + PEAK_BYTES, "{} MiB at the peak, {} before", peak >> 20, before >> 20);
        let mut rest = 0;
        eventually("the memory is back", async || {
            rest = weight(&self.gateway, "VmRSS");
            rest < before + REST_BYTES
        })
        .await;
        eventually("nobody is left of it", async || {
            (self.samples().await.value("fanfare_connections") - connections).abs() < 0.5
        })
        .await;
        assert!(self.samples().await.value("fanfare_panics_total").abs() < 0.5);
    }

    /// One says something, and everybody else hears it next.
    async fn chat(&mut self) {
        self.speaker.publish("chat", json!(self.said)).await;
        let heard = join_all(self.listeners.iter_mut().map(|it| it.message("chat"))).await;
        assert!(heard.iter().all(|data| *data == self.said), "message {}", self.said);
        self.said += 1;
    }
}

/// A started gateway.
pub(super) async fn gateway(settings: &[&str]) -> Gateway {
    Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), settings).await
}
