//! A backend that is told what has happened: what it hears, how often, and what becomes of what it does not take.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::config::Config;
use fanfare_gateway::node::Node;
use fanfare_testbed::backend::{Asked, Backend};
use fanfare_testbed::{Client, eventually};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::{configured, counted};

type Answer = ::http::Response<Full<Bytes>>;

fn says(status: u16) -> Answer {
    ::http::Response::builder().status(status).body(Full::default()).expect("an answer")
}

/// A backend that answers each report like this, the first being report 0.
async fn listening(answer: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Backend {
    let count = AtomicUsize::new(0);
    Backend::start(move |_| {
        let status = answer(count.fetch_add(1, Ordering::Relaxed));
        async move { says(status) }
    })
    .await
}

/// Of nodes that tell this backend at once.
fn telling(url: &str, more: &str) -> Config {
    let text = format!(
        "[events]\nurl = \"{url}\"\ndelay_ms = 0\n{more}\n[namespaces.room]\nevents = true\n[namespaces.quiet]\n"
    );
    let mut config = configured(&text);
    (config.presence.grace, config.node.drain) = (Duration::ZERO, Duration::ZERO);
    config
}

async fn on_bus(config: &Config, bus: &Bus) -> Node {
    Node::start_on(config, bus).await.expect("a node starts")
}

fn reports(backend: &Backend) -> Vec<Value> {
    let asked = backend.asked();
    asked.iter().map(|(_, body)| serde_json::from_slice(body).expect("a report is JSON")).collect()
}

/// What it has heard, in order, as `occupied room:1`.
fn heard(backend: &Backend) -> Vec<String> {
    let word = |event: &Value| {
        let about = event["channel"].as_str().or(event["user"].as_str()).unwrap_or("nobody");
        format!("{} {about}", event["type"].as_str().expect("each has a type"))
    };
    let reports = reports(backend);
    let events = reports.iter().flat_map(|report| report["events"].as_array().expect("a list"));
    events.map(word).collect()
}

async fn hears(backend: &Backend, expected: &[&str]) {
    eventually(format_args!("{expected:?} is told"), async || heard(backend).len() >= expected.len()).await;
    assert_eq!(heard(backend), expected);
}

/// Whichever nodes a channel is on, one of them tells when the first comes and when the last has gone.
#[tokio::test]
async fn a_channel_is_told_of_by_one_node_when_the_first_comes_and_the_last_goes() {
    let backend = listening(|_| 200).await;
    let config = telling(&backend.url("/events"), "kinds = [\"occupied\", \"vacated\"]");
    let bus = Bus::default();
    let (one, two) = (on_bus(&config, &bus).await, on_bus(&config, &bus).await);
    let (mut ann, mut bob) =
        (Client::connect(one.public_addr()).await, Client::connect(two.public_addr()).await);
    ann.subscribe("quiet:1").await;
    ann.subscribe("room:1").await;
    hears(&backend, &["occupied room:1"]).await;
    bob.subscribe("room:1").await;
    bob.subscribe("room:2").await;
    hears(&backend, &["occupied room:1", "occupied room:2"]).await;
    drop(ann);
    bob.ask(json!({"type": "unsubscribe", "channel": "room:2"})).await;
    hears(&backend, &["occupied room:1", "occupied room:2", "vacated room:2"]).await;
    drop(bob);
    let all = ["occupied room:1", "occupied room:2", "vacated room:2", "vacated room:1"];
    hears(&backend, &all).await;
}

/// Clients may not ask who is there because a backend is told.
#[tokio::test]
async fn what_a_backend_is_told_clients_may_still_not_ask() {
    let backend = listening(|_| 200).await;
    let node = on_bus(&telling(&backend.url("/"), ""), &Bus::default()).await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    let answer = client.ask(json!({"type": "presence", "channel": "room:1"})).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(4404)));
}

/// Both ends of a conversation, with who it was and how it ended.
#[tokio::test]
async fn connections_are_told_of_when_they_open_and_when_they_end() {
    let backend = listening(|_| 200).await;
    let node = on_bus(&telling(&backend.url("/"), ""), &Bus::default()).await;
    let client = Client::connect(node.public_addr()).await;
    hears(&backend, &["connected nobody"]).await;
    let welcome = client.welcome().clone();
    client.close().await;
    hears(&backend, &["connected nobody", "disconnected nobody"]).await;
    let reports = reports(&backend);
    let [opened, closed] = [&reports[0]["events"][0], &reports[1]["events"][0]];
    let session = &welcome["session"];
    assert_eq!((&opened["session"], &closed["session"], &closed["code"]), (session, session, &json!(1000)));
    assert_eq!(reports[0]["node"], welcome["node"]);
}

/// Signed by both keys over the time and the body, and by the time of each attempt.
#[tokio::test]
async fn a_report_is_signed_by_each_key_together_with_its_time() {
    let kept = Arc::new(Mutex::new(Vec::<Asked>::new()));
    let keeps = kept.clone();
    let backend = Backend::start(move |asked: Asked| {
        keeps.lock().push(asked);
        async { says(204) }
    })
    .await;
    let keys = "secret = \"the new one\"\nsecret_before = \"the old one\"";
    let node = on_bus(&telling(&backend.url("/"), keys), &Bus::default()).await;
    let _client = Client::connect(node.public_addr()).await;
    eventually("it is told", async || !kept.lock().is_empty()).await;
    let asked = kept.lock().remove(0);
    let header = |name: &str| asked.headers()[name].to_str().expect("text").to_owned();
    let sent = header("fanfare-timestamp");
    let text = [sent.as_bytes(), b".", asked.body()].concat();
    let by =
        |key: &str| format!("sha256={}", HEXLOWER.encode(&hmac_sha256::HMAC::mac(&text, key.as_bytes())));
    assert_eq!(header("fanfare-signature"), format!("{},{}", by("the new one"), by("the old one")));
    assert!(crate::auth::now().abs_diff(sent.parse().expect("seconds")) < 60, "{sent}");
}

/// The same report comes until it is taken, and nothing overtakes it.
#[tokio::test]
async fn a_report_that_is_not_taken_comes_again_before_the_next() {
    let backend = listening(|report| if report < 2 { 503 } else { 200 }).await;
    let node =
        on_bus(&telling(&backend.url("/"), "kinds = [\"occupied\", \"vacated\"]"), &Bus::default()).await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    eventually("it was sent", async || backend.requests() > 0).await;
    client.subscribe("room:2").await;
    hears(&backend, &["occupied room:1", "occupied room:1", "occupied room:1", "occupied room:2"]).await;
    let ids: Vec<_> = reports(&backend).iter().map(|report| report["id"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    counted(&node, "fanfare_event_retries_total", 2.0).await;
    counted(&node, "fanfare_events_total{outcome=\"delivered\"}", 2.0).await;
    counted(&node, "fanfare_events_waiting", 0.0).await;
}

/// While it takes nothing, a channel that flickers makes one word, and none if that is what it was told last.
#[tokio::test]
async fn a_channel_that_flickers_while_nobody_listens_is_told_of_once() {
    let open = Arc::new(Semaphore::new(0));
    let gate = open.clone();
    let backend = Backend::start(move |_| {
        let gate = gate.clone();
        async move {
            let _turn = gate.acquire().await;
            says(200)
        }
    })
    .await;
    let node =
        on_bus(&telling(&backend.url("/"), "kinds = [\"occupied\", \"vacated\"]"), &Bus::default()).await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    eventually("it is being told", async || backend.requests() > 0).await;
    for _ in 0..10 {
        client.subscribe("room:2").await;
        client.ask(json!({"type": "unsubscribe", "channel": "room:2"})).await;
        client.ask(json!({"type": "unsubscribe", "channel": "room:1"})).await;
        client.subscribe("room:1").await;
    }
    client.subscribe("room:3").await;
    counted(&node, "fanfare_presence_members", 2.0).await;
    open.add_permits(10);
    eventually("it is told", async || heard(&backend).iter().any(|it| it == "occupied room:3")).await;
    client.subscribe("room:4").await;
    eventually("it is told", async || heard(&backend).iter().any(|it| it == "occupied room:4")).await;
    assert_eq!(heard(&backend), ["occupied room:1", "occupied room:3", "occupied room:4"]);
}

/// What is never taken is given up; what comes on top of the queue is not kept. Both are counted, and the rest goes on.
#[tokio::test]
async fn what_cannot_be_told_is_counted_and_the_rest_goes_on() {
    let backend = listening(|report| if report == 0 { 500 } else { 200 }).await;
    let node = on_bus(&telling(&backend.url("/"), "retry_seconds = 0"), &Bus::default()).await;
    let _lost = Client::connect(node.public_addr()).await;
    counted(&node, "fanfare_events_total{outcome=\"given_up\"}", 1.0).await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    counted(&node, "fanfare_events_total{outcome=\"delivered\"}", 2.0).await;

    let silent = Backend::start(|_| std::future::pending()).await;
    let node = on_bus(&telling(&silent.url("/"), "queue = 3"), &Bus::default()).await;
    let _first = Client::connect(node.public_addr()).await;
    eventually("it is being told", async || silent.requests() > 0).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::connect(node.public_addr()).await);
    }
    counted(&node, "fanfare_events_total{outcome=\"overflowed\"}", 2.0).await;
    counted(&node, "fanfare_events_waiting", 4.0).await;
}

/// A node that stops tells what it still can.
#[tokio::test]
async fn a_node_that_drains_tells_of_those_who_leave_by_it() {
    let backend = listening(|_| 200).await;
    let mut config = telling(&backend.url("/"), "");
    config.events.delay = Duration::from_secs(3600);
    let node = on_bus(&config, &Bus::default()).await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    tokio::join!(node.drain(), client.until_closed());
    let heard = heard(&backend);
    for expected in ["connected nobody", "disconnected nobody"] {
        assert!(heard.iter().any(|it| it == expected), "{expected} is not among {heard:?}");
    }
}

/// New settings are in force without a restart, also for what the old ones could not be told.
#[tokio::test]
async fn another_backend_is_told_after_a_reload() {
    let (one, two) = (listening(|_| 503).await, listening(|_| 200).await);
    let node = on_bus(&telling(&one.url("/"), ""), &Bus::default()).await;
    let _client = Client::connect(node.public_addr()).await;
    eventually("the first is told", async || one.requests() > 0).await;
    node.reload(&telling(&two.url("/"), "")).await;
    let _other = Client::connect(node.public_addr()).await;
    hears(&two, &["connected nobody", "connected nobody"]).await;
}

/// A program of the page, and what it prints.
struct Program {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Program {
    /// The code that stands in a fence of this language, run by this interpreter.
    async fn start(language: &str, interpreter: &str, flags: &[&str]) -> Self {
        let page = include_str!("../../../../docs/events.md");
        let (_, code) = page.split_once(&format!("```{language}\n")).expect("the page has an example");
        let (code, _) = code.split_once("```").expect("it ends");
        let command = &mut Command::new(interpreter);
        let piped = command.args(flags).args(["-", "0"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.kill_on_drop(true).spawn().expect("the interpreter is installed");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(code.as_bytes()).await.expect("it reads its program");
        drop(stdin);
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut program = Self { _child: child, lines, url: String::new() };
        program.url = format!("http://127.0.0.1:{}/", program.prints().await);
        program
    }

    async fn prints(&mut self) -> String {
        let line = timeout(Duration::from_secs(60), self.lines.next_line()).await;
        line.expect("it prints in time").expect("its output is text").expect("it goes on")
    }
}

/// Both believe a node, whichever of two keys they know, and nobody else.
#[tokio::test]
async fn the_programs_of_the_page_take_what_is_genuine_and_nothing_else() {
    let node = ("js", "node", &["--input-type=module"][..]);
    for (language, interpreter, flags) in [("python", "python3", &[][..]), node] {
        let mut program = Program::start(language, interpreter, flags).await;
        let telling = |keys| telling(&program.url, &format!("kinds = [\"occupied\"]\n{keys}"));
        let configs =
            ["secret = \"of both\"", "secret = \"a new one\"\nsecret_before = \"of both\""].map(telling);
        let forged = telling("secret = \"another\"\nretry_seconds = 0");
        for config in configs {
            let node = on_bus(&config, &Bus::default()).await;
            let mut client = Client::connect(node.public_addr()).await;
            client.subscribe("room:1").await;
            assert_eq!(program.prints().await, "occupied room:1", "{language}");
        }
        let node = on_bus(&forged, &Bus::default()).await;
        let mut client = Client::connect(node.public_addr()).await;
        client.subscribe("room:1").await;
        counted(&node, "fanfare_events_total{outcome=\"given_up\"}", 1.0).await;
    }
}
