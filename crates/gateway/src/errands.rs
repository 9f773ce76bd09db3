//! What one node asks of another: to say what was posted to it with a ticket that the other has given, or to hand it to the
//! conversation of that ticket.
//!
//! ```text
//!  POST /publish ─► node 2: ask ──► cluster::send ──► broker ──► node 1: Ear ─► publish::say
//!         answer ◄─ node 2: Ear ◄── broker ◄── cluster::send ◄──────────────────────┘
//! ```
//!
//! The conversation's own node judges, places and answers, as if the request had come to it: so the answer is the same
//! wherever a balancer sends it. Nodes need to know nothing of each other but the name, which is in the ticket.
//!
//! **Invariants.** What is asked is heard once or not at all: whoever gets no answer in time is told that nobody knows, and nothing is
//! asked twice. A client can have only so many errands under way, and each counts against the rate of the socket that
//! it came by, so that one request costs the nodes two publications, and no client more requests than it may send
//! anyway. A node runs only so many errands of others at a time; the rest wait in its ear, whose queue is bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::cluster::{self, Ear, Told};
use fanfare_metrics::Errand as Outcome;
use fanfare_protocol::Ticket;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::publication::Payload;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::census::Part;
use crate::connection::broker_failure;
use crate::http;
use crate::node::Services;
use crate::orders;
use crate::trace::Lines;
use crate::transport::posted::Message;

mod waiting;

pub(crate) use waiting::Waiting;

/// How long an answer may take: longer than the broker of the other node may, and shorter than proxies wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most errands that a node has sent out and waits for.
const UNDER_WAY_MAX: usize = 4096;

/// The most that it runs for others at a time.
const RUNNING_MAX: usize = 64;

/// When whoever finds no room may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What nodes say to each other.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Say this command for the holder of the ticket, and tell `from` what came of it.
    Ask { id: u64, from: Box<str>, ticket: Box<str>, client: IpAddr, command: Box<RawValue> },
    /// Hand this message to the conversation of the ticket, and tell `from` whether it was taken.
    Post { id: u64, from: Box<str>, ticket: Box<str>, message: Message },
    /// This came of it: an event, as the client is told it.
    Answer { id: u64, event: Box<RawValue> },
    /// Says nothing: the node that sends it to itself wants to know how long it takes.
    Probe { number: u64 },
    /// What the node of this life has to say to a question of the census.
    Part { id: u64, life: u64, part: Part },
    /// What the node of this name has seen of a trace.
    Seen { id: u64, node: Box<str>, lines: Vec<Box<RawValue>> },
}

/// The errands that this node waits for.
#[derive(Debug)]
pub(crate) struct Errands {
    under_way: Waiting<oneshot::Sender<Box<RawValue>>>,
    /// Whether answers can be heard.
    is_listening: watch::Sender<bool>,
}

impl Default for Errands {
    fn default() -> Self {
        Self { under_way: Waiting::new(UNDER_WAY_MAX), is_listening: watch::Sender::default() }
    }
}

impl Errands {
    /// Waits until answers can be heard.
    pub(crate) async fn listening(&self) {
        let waiting = self.is_listening.subscribe().wait_for(|it| *it).await.map(drop);
        waiting.expect("the sender is this list's own");
    }

    fn answered(&self, id: u64, event: Box<RawValue>) {
        // Whoever asked may have given up, or be the node of this name before it was started again.
        if let Some(asker) = self.under_way.take(id) {
            let _ = asker.send(event);
        }
    }
}

/// Has the node of a ticket say this command for the client who holds it; the answer is the event that the client is told.
///
/// # Errors
/// There is no room for more; the broker is away; or there was no answer, and nobody knows.
pub(crate) async fn ask(
    services: &Services,
    ticket: &Ticket,
    client: IpAddr,
    command: Box<RawValue>,
) -> Result<Box<RawValue>, Failure> {
    let of = ticket.to_string().into();
    let word = |id, from| Word::Ask { id, from, ticket: of, client, command };
    run(services, ticket.node(), client, word).await
}

/// Has the node of a ticket hand this message to its conversation; the answer is the event that the client would be told.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn post(
    services: &Services,
    ticket: &Ticket,
    client: IpAddr,
    message: Message,
) -> Result<Box<RawValue>, Failure> {
    let of = ticket.to_string().into();
    run(services, ticket.node(), client, |id, from| Word::Post { id, from, ticket: of, message }).await
}

async fn run(
    services: &Services,
    node: &str,
    client: IpAddr,
    word: impl FnOnce(u64, Box<str>) -> Word,
) -> Result<Box<RawValue>, Failure> {
    let outcome = try_asking(services, node, client, word).await;
    services.metrics.errand(match &outcome {
        Ok(_) => Outcome::Answered,
        Err(Trouble::NoRoom(_)) => Outcome::NoRoom,
        Err(Trouble::NotSent(_) | Trouble::Unanswered) => Outcome::Unanswered,
    });
    outcome.map_err(|trouble| match trouble {
        Trouble::NoRoom(why) => Failure::retry(ErrorCode::Unavailable, why, RETRY_AFTER),
        Trouble::NotSent(error) => broker_failure(&error),
        Trouble::Unanswered => {
            let text = "the node of this ticket does not answer: it may have been done or not";
            Failure::retry(ErrorCode::Unavailable, text, RETRY_AFTER)
        }
    })
}

enum Trouble {
    NoRoom(&'static str),
    NotSent(BrokerError),
    Unanswered,
}

async fn try_asking(
    services: &Services,
    node: &str,
    client: IpAddr,
    word: impl FnOnce(u64, Box<str>) -> Word,
) -> Result<Box<RawValue>, Trouble> {
    let settings = services.settings();
    let place = services.admission.errand(client, &settings.limits);
    let _place = place.ok_or(Trouble::NoRoom("too much of your address waits for other nodes: try again"))?;
    let (answer, answered) = oneshot::channel();
    let asked = services.errands.under_way.begin(answer);
    let asked = asked.ok_or(Trouble::NoRoom("too much waits for other nodes: try again"))?;
    let word = word(asked.id, settings.policy.node.clone());
    let asking = async {
        send(services, node, &word).await.map_err(Trouble::NotSent)?;
        drop(word);
        answered.await.map_err(|_| Trouble::Unanswered)
    };
    timeout(PATIENCE, asking).await.unwrap_or(Err(Trouble::Unanswered))
}

async fn send(services: &Services, node: &str, word: &Word) -> Result<(), BrokerError> {
    let word = serde_json::to_string(word).expect("plain fields are JSON");
    let word = Payload::parse(&word).expect("it was just written");
    cluster::send(&services.hub, node, word, services.clock.unix()).await
}

/// Sends the node that has asked all of them what this one answers.
pub(crate) async fn told(services: &Services, from: &str, id: u64, life: u64, part: Part) {
    if let Err(error) = send(services, from, &Word::Part { id, life, part }).await {
        debug!(%error, "an answer could not be sent");
    }
}

/// Sends the node that looks on what this one has seen.
pub(crate) async fn traced(services: &Services, to: &str, id: u64, (node, lines): Lines) {
    if let Err(error) = send(services, to, &Word::Seen { id, node, lines }).await {
        debug!(%error, "what was seen could not be told");
    }
}

/// Sends word to this node itself.
pub(crate) async fn probe(services: &Services, number: u64) {
    let node = services.settings().policy.node.clone();
    if let Err(error) = send(services, &node, &Word::Probe { number }).await {
        debug!(%error, "a probe could not be sent");
    }
}

/// Hears what other nodes ask and answer, until told to stop.
pub(crate) async fn follow(services: Arc<Services>, stop: CancellationToken) {
    let node = services.settings().policy.node.clone();
    stop.run_until_cancelled(async {
        loop {
            match Ear::of_node(&services.hub, &services.metrics, &node).await {
                Ok(ear) => {
                    services.errands.is_listening.send_replace(true);
                    listen(&ear, &services).await;
                }
                Err(error) => debug!(%error, "other nodes cannot be heard yet"),
            }
            sleep(orders::RETRY).await;
        }
    })
    .await;
}

/// Until the queue has overflowed: those who asked what was in it get no answer.
async fn listen(ear: &Ear, services: &Arc<Services>) {
    let running = Arc::new(Semaphore::new(RUNNING_MAX));
    while let Told::Said(events) = ear.next().await {
        for event in events {
            match orders::read(&event) {
                Some(Word::Answer { id, event }) => services.errands.answered(id, event),
                Some(Word::Probe { number }) => services.readiness.heard(number),
                Some(Word::Seen { id, node, lines }) => services.tracer.told(id, (node, lines)),
                Some(Word::Part { id, life, part }) => services.census.answered(id, life, part),
                Some(Word::Ask { id, from, ticket, client, command }) => {
                    let Some(ticket) = Ticket::parse(&ticket) else { continue };
                    let theirs = services.clone();
                    let said =
                        async move { http::say(&ticket, client, command.get().as_bytes(), &theirs).await };
                    answer(id, from, said.boxed(), &running, services).await;
                }
                Some(Word::Post { id, from, ticket, message }) => {
                    let Some(ticket) = Ticket::parse(&ticket) else { continue };
                    // Here and not in a task of its own: what was posted in an order arrives in it.
                    let event = http::taken(services.talks.post(&ticket, message), services);
                    answer(id, from, ready(event).boxed(), &running, services).await;
                }
                None => warn!("a node cannot be understood: is it of another version?"),
            }
        }
    }
}

/// Sends what comes of an errand to whoever has asked, in a task of its own as soon as there is room for one.
async fn answer(
    id: u64,
    to: Box<str>,
    outcome: BoxFuture<'static, Box<RawValue>>,
    running: &Arc<Semaphore>,
    services: &Arc<Services>,
) {
    let room = running.clone().acquire_owned().await.expect("it is not closed");
    let theirs = services.clone();
    services.spawn_guarded(async move {
        let answer = Word::Answer { id, event: outcome.await };
        if let Err(error) = send(&theirs, &to, &answer).await {
            debug!(%error, "an answer could not be sent");
        }
        drop(room);
    });
}
