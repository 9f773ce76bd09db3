//! Publishers that number what they publish, and try again until it is acknowledged.
//!
//! On a channel with history a publication that was not acknowledged is tried again under the same key, at whichever node
//! answers, before the next one is begun. On a channel without history nothing is tried twice: what was not acknowledged
//! may have been published, or may yet be.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fanfare_testbed::http;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::follow::{Offence, Position};
use crate::record::Record;
use crate::socket::{Event, Socket, backoff, position};
use crate::stage::Addresses;
use crate::stamp::Stamp;

/// How long a publisher waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Tries until a publication is given up on a channel with history, which is an offence: at most three seconds apart.
const TRIES_MAX: u32 = 60;

/// By what a publisher publishes.
#[derive(Debug)]
pub(crate) enum Means {
    /// The server API of this node, or of the next one when that does not answer.
    Api(usize),
    /// A WebSocket through nginx.
    Socket(Option<Box<Socket>>),
}

/// What came of a try.
#[derive(Debug)]
enum Outcome {
    /// Accepted, on a channel with history at a place.
    Acknowledged(Option<Position>),
    /// Refused, or there was no answer: it may have been published or may yet be.
    Unknown(String),
}

/// One publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Its number, from 1.
    pub(crate) number: u32,
    /// By what it publishes.
    pub(crate) means: Means,
    /// Where nginx is, and the nodes' server APIs.
    pub(crate) addresses: Addresses,
    /// Where it enters what it does.
    pub(crate) record: Rc<Record>,
    /// Its chances.
    pub(crate) random: fastrand::Rng,
}

impl Publisher {
    /// Publishes at a steady rate, on all channels in turn, until the run stops.
    pub(crate) async fn run(mut self, per_second: u32) {
        let mut channels = self.record.channels(true);
        channels.extend(self.record.channels(false));
        self.random.shuffle(&mut channels);
        let kept = self.record.channels(true);
        let mut numbers: HashMap<usize, u64> = HashMap::new();
        let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for &channel in channels.iter().cycle() {
            pace.tick().await;
            if self.record.is_stopped() {
                return;
            }
            let number = numbers.entry(channel).or_default();
            *number += 1;
            let name = self.record.name(channel);
            let stamp = Stamp::new(&name, self.number, *number);
            self.record.counts.borrow_mut().published += 1;
            self.publish(channel, &name, &stamp, kept.contains(&channel)).await;
        }
    }

    async fn publish(&mut self, channel: usize, name: &str, stamp: &Stamp, kept: bool) {
        let begun = Instant::now();
        let mut command = json!({"channel": name, "data": stamp});
        if kept {
            command["key"] = json!(stamp.key());
        }
        for failures in 0..TRIES_MAX {
            match self.attempt(&mut command).await {
                Outcome::Acknowledged(position) => {
                    return self.record.acknowledged(channel, stamp, begun, position.as_ref());
                }
                Outcome::Unknown(why) => {
                    self.record.note(&format!("publisher {}: {}: {why}", self.number, stamp.key()));
                    sleep(backoff(&mut self.random, failures)).await;
                }
            }
            if !kept {
                // Late or never: either is at most once.
                return;
            }
            self.record.counts.borrow_mut().retried += 1;
        }
        let what = format!("{name}: {} was not acknowledged in {:?}", stamp.key(), begun.elapsed());
        self.record.offend(Offence::Stuck, 1, &what);
    }

    async fn attempt(&mut self, command: &mut Value) -> Outcome {
        match &mut self.means {
            Means::Api(node) => {
                let address = self.addresses.internal.borrow()[*node];
                let outcome = match timeout(ANSWER_WITHIN, call(address, "publish", command)).await {
                    Ok(Ok(answer)) => Outcome::Acknowledged(place(&answer)),
                    Ok(Err(why)) => Outcome::Unknown(why),
                    Err(_) => Outcome::Unknown("no answer".into()),
                };
                if matches!(outcome, Outcome::Unknown(_)) {
                    *node = (*node + 1) % self.addresses.internal.borrow().len();
                }
                outcome
            }
            Means::Socket(socket) => {
                let outcome = timeout(ANSWER_WITHIN, say(socket, self.addresses.proxy, command)).await;
                match outcome {
                    Ok(Ok(position)) => Outcome::Acknowledged(position),
                    Ok(Err(why)) => Outcome::Unknown(why),
                    Err(_) => {
                        *socket = None;
                        Outcome::Unknown("no answer".into())
                    }
                }
            }
        }
    }
}

/// One call of a node's server API.
pub(crate) async fn call(address: Option<SocketAddr>, method: &str, body: &Value) -> Result<Value, String> {
    let address = address.ok_or("the node is down")?;
    let body = body.to_string();
    let request = format!(
        "POST /api/{method} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = http::exchange(address, request.as_bytes()).await.map_err(|error| error.to_string())?;
    match serde_json::from_slice(&response.body) {
        Ok(answer) if response.status == 200 => Ok(answer),
        _ => Err(format!("status {}: {}", response.status, String::from_utf8_lossy(&response.body))),
    }
}

/// One publication over the socket, opened where there is none. Only a refusal leaves it open.
async fn say(
    slot: &mut Option<Box<Socket>>,
    proxy: SocketAddr,
    command: &mut Value,
) -> Result<Option<Position>, String> {
    let mut socket = match slot.take() {
        Some(socket) => socket,
        None => Box::new(Socket::open(proxy).await.map_err(|gone| gone.how)?),
    };
    let id = command["id"].as_u64().unwrap_or(0) + 1;
    command["id"] = json!(id);
    command["type"] = json!("publish");
    socket.say(command).await.map_err(|gone| gone.how)?;
    loop {
        match socket.hear().await.map_err(|gone| gone.how)? {
            Event::Published { id: Some(answered), epoch, offset } if answered == id => {
                *slot = Some(socket);
                return Ok(position(epoch, offset));
            }
            Event::Error { id: Some(answered), code, .. } if answered == id => {
                *slot = Some(socket);
                return Err(format!("error {code}"));
            }
            _ => {}
        }
    }
}

fn place(answer: &Value) -> Option<Position> {
    position(answer["epoch"].as_str().map(ToOwned::to_owned), answer["offset"].as_u64())
}
