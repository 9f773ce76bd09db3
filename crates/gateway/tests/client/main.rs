//! The Rust client against real nodes that die, drain, fall silent and refuse.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod examples;
mod fallback;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_client::{
    Cause, Client, Ending, Error, Event, Options, Position, Subscribe, Subscription, Token,
};
use fanfare_testbed::{Authority, Gateway, Nginx, PATIENCE, RedisServer, eventually, http};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanfare");
const SECRET: &str = "a secret of thirty-two bytes and a few more";

async fn gateway(settings: &[&str]) -> Gateway {
    let fast = [&["limits.messages_per_second=0"], settings].concat();
    Gateway::start(Path::new(PROGRAM), &fast).await
}

fn url(node: &Gateway) -> String {
    format!("ws://{}/ws", node.public())
}

fn client(url: impl Into<String>) -> Client {
    Client::start(Options { timeout: PATIENCE, ..Options::new(url) }).unwrap()
}

async fn next(subscription: &mut Subscription) -> Event {
    timeout(PATIENCE, subscription.next()).await.expect("there is more to come").expect("it has not ended")
}

/// What is heard until this number has come: the numbers, and what was told besides.
async fn until(subscription: &mut Subscription, last: u64) -> (Vec<u64>, Vec<Event>) {
    let (mut numbers, mut told) = (Vec::new(), Vec::new());
    while numbers.last() != Some(&last) {
        match next(subscription).await {
            Event::Message(message) => numbers.push(message.json().unwrap()),
            other => told.push(other),
        }
    }
    (numbers, told)
}

const HISTORY: &str = "namespaces.room.history.size=1000";
const PUBLISH: &str = "namespaces.room.publish=anyone";

/// Three nodes on one Redis, and nginx before them.
struct Cluster {
    nodes: Vec<Option<Gateway>>,
    nginx: Nginx,
    _redis: RedisServer,
}

impl Cluster {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let mut nodes = Vec::new();
        for name in ["node.name=node-0", "node.name=node-1", "node.name=node-2"] {
            let urls = format!("redis.urls={}", redis.url());
            nodes.push(Some(
                gateway(&["broker.kind=redis", "node.drain_seconds=1", HISTORY, PUBLISH, &urls, name]).await,
            ));
        }
        let addresses: Vec<_> = nodes.iter().flatten().map(Gateway::public).collect();
        let nginx = Nginx::start(&addresses).await;
        for node in nodes.iter().flatten() {
            let ready = async || http::get(node.public(), "/ready").await.status == 200;
            eventually("every node is ready", ready).await;
        }
        Self { nodes, nginx, _redis: redis }
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.nginx.address())
    }

    /// Takes the node that serves a client.
    async fn server_of(&mut self, client: &Client) -> Gateway {
        let mut node = client.node();
        let name = node.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let number: usize = name.strip_prefix("node-").unwrap().parse().unwrap();
        self.nodes[number].take().expect("it has not been taken before")
    }
}

/// Publishes numbers one after the other, each once.
#[expect(clippy::disallowed_methods, reason = "the test waits for it by hand")]
fn speaks(client: &Client, numbers: RangeInclusive<u64>) -> JoinHandle<()> {
    let client = client.clone();
    tokio::spawn(async move {
        for number in numbers {
            client.publish_once("room:1", &number).await.unwrap();
        }
    })
}

/// Once by SIGKILL, once by a drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_node_dies_hears_everything_once_and_in_order() {
    let mut cluster = Cluster::start().await;
    let (hears, speaker) = (client(cluster.url()), client(cluster.url()));
    let mut room = hears.subscribe("room:1", Subscribe::default()).await.unwrap();
    let (mut numbers, mut told) = (Vec::new(), Vec::new());
    let mut hear = async |last| {
        let (more, events) = until(&mut room, last).await;
        numbers.extend(more);
        told.extend(events);
        told.iter().filter(|it| matches!(it, Event::Subscribed { recovered: Some(true), .. })).count()
    };
    let speaking = speaks(&speaker, 1..=100);
    hear(50).await;
    cluster.server_of(&hears).await.kill().await;
    speaking.await.unwrap();
    let speaking = speaks(&speaker, 101..=200);
    assert_eq!(hear(200).await, 1, "it has come back");
    speaking.await.unwrap();
    let speaking = speaks(&speaker, 201..=400);
    hear(250).await;
    let draining = cluster.server_of(&hears).await;
    draining.terminate().await;
    hear(400).await;
    speaking.await.unwrap();
    let mut last = 400;
    // The drain may take longer than the rest of what was said.
    let again = async || {
        last += 1;
        speaks(&speaker, last..=last).await.unwrap();
        hear(last).await == 2
    };
    eventually("it has come back from the drain too", again).await;
    assert!(numbers.into_iter().eq(1..=last), "everything, once, in order");
    let silences = told.iter().filter(|it| matches!(it, Event::Interrupted(Cause::Connection)));
    assert_eq!((silences.count(), told.len()), (2, 5), "live, and twice silent and live: {told:?}");
    let page = speaker.history("room:1", None, 1000, false).await.unwrap();
    let kept = page.messages.iter().map(|it| it.json::<u64>().unwrap());
    assert!(kept.eq(1..=last), "published once, whoever died");
}

/// A frozen node has taken it and will never answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_nobody_answered_for_is_sent_again_under_its_key() {
    let mut cluster = Cluster::start().await;
    let speaker = client(cluster.url());
    speaker.publish_once("room:1", &1).await.unwrap();
    let frozen = cluster.server_of(&speaker).await;
    let reader = client(url(cluster.nodes.iter().flatten().next().unwrap()));
    frozen.freeze().await;
    let speaking = speaks(&speaker, 2..=3);
    let reached = async || reader.history("room:1", None, 10, false).await.is_ok();
    eventually("somebody else is served meanwhile", reached).await;
    frozen.kill().await;
    speaking.await.unwrap();
    let page = reader.history("room:1", None, 10, false).await.unwrap();
    assert!(page.messages.iter().map(|it| it.json::<u64>().unwrap()).eq(1..=3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_makes_no_other_wait_and_misses_nothing() {
    let node = gateway(&[]).await;
    let options = Options { queue: 4, ..Options::new(url(&node)) };
    let client = Client::start(options).unwrap();
    let mut slow = client.subscribe("slow", Subscribe::default()).await.unwrap();
    let mut quick = client.subscribe("quick", Subscribe::default()).await.unwrap();
    for number in 1..=90_u64 {
        client.publish("slow", &number).await.unwrap();
        client.publish("quick", &number).await.unwrap();
        assert_eq!(until(&mut quick, number).await.0, [number]);
    }
    let (numbers, told) = until(&mut slow, 90).await;
    assert!(numbers.into_iter().eq(1..=90));
    assert!(told.iter().any(|it| matches!(it, Event::Interrupted(Cause::Lagged))), "{told:?}");
    assert!(
        !told.iter().any(|it| matches!(it, Event::Subscribed { recovered: Some(false), .. })),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recovered_is_told() {
    let settings = ["namespaces.default.history.size=3", "namespaces.default.publish=anyone"];
    let node = gateway(&settings).await;
    let client = client(url(&node));
    for number in 1..=9_u64 {
        client.publish("a", &number).await.unwrap();
    }
    let top = client.history("a", None, 0, false).await.unwrap().top;
    let since =
        |offset| Subscribe { since: Some(Position { offset, ..top.clone() }), ..Subscribe::default() };
    for (offset, recovers, last, hears) in [(6, true, 10, vec![7, 8, 9, 10]), (2, false, 11, vec![11])] {
        let mut a = client.subscribe("a", since(offset)).await.unwrap();
        let first = next(&mut a).await;
        assert!(
            matches!(first, Event::Subscribed { recovered: Some(it), .. } if it == recovers),
            "{first:?}"
        );
        client.publish("a", &last).await.unwrap();
        assert_eq!(until(&mut a, last).await.0, hears);
    }
    let mut newest =
        client.subscribe("a", Subscribe { rewind: Some(2), ..Subscribe::default() }).await.unwrap();
    assert_eq!(until(&mut newest, 11).await.0, [10, 11]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_end_what_they_concern() {
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let node = gateway(&[&secret, "auth.anonymous=true", "namespaces.open.presence=true"]).await;
    let anonymous = client(url(&node));
    let refused = anonymous.subscribe("closed:1", Subscribe::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { code: 4404, .. }), "{refused:?}");
    let refused = anonymous.history("open:1", None, 1, false).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { code: 4404, .. }), "{refused:?}");
    let mut open =
        anonymous.subscribe("open:1", Subscribe { presence: true, ..Subscribe::default() }).await.unwrap();
    assert!(matches!(next(&mut open).await, Event::Subscribed { recovered: None, position: None }));
    let twice = anonymous.subscribe("open:1", Subscribe::default()).await.unwrap_err();
    assert_eq!(twice, Error::Subscribed("open:1".into()));
    let huge = anonymous.publish("open:1", &"x".repeat(70_000)).await.unwrap_err();
    assert!(matches!(huge, Error::TooLarge { bytes_max: 65_536, .. }), "{huge:?}");

    let forged = Options::new(url(&node)).token(Token::Fixed("a.b.c".into()));
    let ended = Client::start(forged).unwrap().subscribe("open:1", Subscribe::default()).await.unwrap_err();
    assert!(matches!(&ended, Error::Ended(Ending { code: Some(401), .. })), "{ended:?}");

    let other = client(url(&node));
    let theirs = other.subscribe("open:1", Subscribe::default()).await.unwrap();
    assert!(matches!(next(&mut open).await, Event::Joined(member) if member.user.is_none()));
    assert_eq!(anonymous.presence("open:1", true).await.unwrap().members.unwrap().len(), 2);
    drop(theirs);
    let left = async || anonymous.presence("open:1", false).await.unwrap().connections == 1;
    eventually("dropping a subscription unsubscribes", left).await;
    other.stop().await;
    anonymous.stop().await;
    loop {
        match open.next().await {
            Some(Event::Ended(Error::Ended(ending))) => break assert_eq!(ending.code, None),
            Some(_) => {}
            None => panic!("the end is told"),
        }
    }
    assert!(open.next().await.is_none());
}

/// Tokens of ann by the command, and how many there have been: two that last for three seconds, and then for an hour.
fn fresh_tokens(secret: String) -> (Token, Arc<AtomicU64>) {
    let made = Arc::new(AtomicU64::new(0));
    let count = made.clone();
    let token = Token::fresh(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let secret = secret.clone();
        async move {
            let mut command = tokio::process::Command::new(PROGRAM);
            let lasts = if number < 2 { "3" } else { "3600" };
            command.args(["token", "--user", "ann", "--ttl", lasts, "--set", &secret]).env_clear();
            let output = command.output().await?;
            assert!(output.status.success(), "{output:?}");
            Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
        }
    });
    (token, made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_token_keeps_the_connection() {
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let node =
        gateway(&[&secret, "auth.jwt.leeway_seconds=0", "namespaces.default.subscribe=authenticated"]).await;
    let (token, made) = fresh_tokens(secret);
    let client = Client::start(Options::new(url(&node)).token(token)).unwrap();
    let mut a = client.subscribe("a", Subscribe::default()).await.unwrap();
    assert!(matches!(next(&mut a).await, Event::Subscribed { .. }));
    let mut changes = client.node();
    changes.mark_unchanged();
    eventually("two tokens have ended", async || made.load(Ordering::Relaxed) == 3).await;
    http::post(node.internal(), "/api/publish", &[], &json!({"channel": "a", "data": 1}).to_string()).await;
    assert!(matches!(next(&mut a).await, Event::Message(_)), "nothing was interrupted");
    assert!(!changes.has_changed().unwrap(), "it is the same connection");
}

/// A frozen node answers nothing, and its kernel goes on taking connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_left() {
    let [first, second] = ["node.name=first", "node.name=second"];
    let redis = RedisServer::start().await;
    let urls = format!("redis.urls={}", redis.url());
    let [interval, patience] = ["heartbeat.interval_seconds=2", "heartbeat.timeout_seconds=1"];
    let frozen = gateway(&["broker.kind=redis", &urls, interval, patience, first]).await;
    let well = gateway(&["broker.kind=redis", &urls, interval, patience, second]).await;
    let nginx = Nginx::start(&[frozen.public(), well.public()]).await;
    let mut clients = Vec::new();
    let client = loop {
        let client = client(format!("ws://{}/ws", nginx.address()));
        let name = client.node().wait_for(Option::is_some).await.unwrap().clone();
        if name.as_deref() == Some("first") {
            break client;
        }
        clients.push(client);
    };
    frozen.freeze().await;
    let mut node = client.node();
    let elsewhere = node.wait_for(|name| name.as_deref() == Some("second"));
    timeout(2 * PATIENCE, elsewhere).await.expect("it goes to the other node").unwrap();
    frozen.thaw().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_over_tls_trusts_whom_it_is_told_to() {
    let authority = Authority::new();
    let certificate = authority.issue("localhost", (2020, 2100));
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    let node = gateway(&[&format!("tls.cert={cert}"), &format!("tls.key={key}")]).await;
    let url = format!("wss://localhost:{}/ws", node.public().port());
    let trusting = Options { tls: Some(Arc::new(authority.client(&[], None))), ..Options::new(&url) };
    let client = Client::start(trusting).unwrap();
    assert!(client.publish("a", &1).await.unwrap().is_some());
    let doubting = Client::start(Options { timeout: Duration::from_secs(2), ..Options::new(url) }).unwrap();
    assert_eq!(doubting.publish("a", &1).await.unwrap_err(), Error::Timeout, "a stranger's certificate");
}
