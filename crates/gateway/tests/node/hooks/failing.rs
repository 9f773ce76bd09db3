//! A backend that is slow, down, flooded or mad: who asked is told to try again, and nobody else notices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanfare_testbed::backend::{Asked, Backend};
use fanfare_testbed::{Client, Samples, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{application, introducing, outcome, says};
use crate::support::{configured, counted, start};

/// An application that answers when it is let, and knows how many wait for it and how many ever did at once.
struct Slow {
    backend: Backend,
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Slow {
    async fn start(answer: Value) -> Self {
        let (gate, waiting, most) = (Arc::new(Semaphore::new(0)), Arc::default(), Arc::default());
        let theirs: (Arc<Semaphore>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
            (gate.clone(), Arc::clone(&waiting), Arc::clone(&most));
        let backend = Backend::start(move |_: Asked| {
            let ((gate, waiting, most), answer) = (theirs.clone(), answer.to_string());
            async move {
                let _here = Here::new(&waiting, &most);
                gate.acquire().await.expect("it is never closed").forget();
                says(200, answer)
            }
        })
        .await;
        Self { backend, gate, waiting, most }
    }

    async fn is_asked_by(&self, count: usize) {
        eventually(format_args!("{count} questions wait"), async || {
            self.waiting.load(Ordering::SeqCst) == count
        })
        .await;
    }
}

/// One who waits, until it is dropped: also when whoever asked has hung up.
struct Here(Arc<AtomicUsize>);

impl Here {
    fn new(waiting: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        let now = waiting.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        Self(waiting.clone())
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn knock(address: std::net::SocketAddr) -> Client {
    Client::knock(address, "/ws", &[]).await.expect("the upgrade comes first")
}

/// The milliseconds after which a client that was put off may come back.
async fn put_off(client: &mut Client) -> u64 {
    let (events, goodbye) = client.until_closed().await;
    assert_eq!(events[0]["code"], 4503, "{events:?}");
    assert_eq!((goodbye.code, goodbye.reason.as_str()), (Some(1013), "try_again_later"));
    let closing = goodbye.closing.expect("it is told beforehand");
    assert_eq!(closing["reconnect"], true);
    closing["after"].as_u64().expect("a time to wait")
}

/// While one waits for the backend it is pinged and answers, others do as always, and what it says is done in order afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_backend_stops_neither_heartbeats_nor_anybody_else() {
    let slow = Slow::start(json!({})).await;
    let url = slow.backend.url("/subscribe");
    let mut config = configured(&format!(
        "[hooks]\ntimeout_ms = 60000\n[namespaces.open]\n[namespaces.room.hooks]\nsubscribe = \"{url}\"\n"
    ));
    config.heartbeat.interval = Duration::from_secs(2);
    config.heartbeat.timeout = Duration::from_secs(2);
    let node = start(&config).await;
    let mut waiting = Client::connect(node.public_addr()).await;
    let mut other = Client::connect(node.public_addr()).await;
    waiting.subscribe("open:1").await;
    waiting.send(json!({"type": "subscribe", "id": 100, "channel": "room:1"})).await;
    slow.is_asked_by(1).await;
    waiting.send(json!({"type": "ping", "id": 101})).await;
    other.subscribe("open:1").await;
    // Each of these is heard between two heartbeats of the one that waits: a test that took its pongs for silence would end it.
    for number in 0..20 {
        other.publish("open:1", json!(number)).await;
        assert_eq!(waiting.message("open:1").await, number, "it hears what it has subscribed to");
        assert_eq!(other.message("open:1").await, number);
        let beats = |samples: Samples| samples.value("fanfare_heartbeats_sent_total");
        let before = beats(Samples::of(node.internal_addr()).await);
        if number % 10 == 0 {
            let mut both = Box::pin(async {
                eventually("another heartbeat", async || {
                    beats(Samples::of(node.internal_addr()).await) > before + 1.0
                })
                .await;
            });
            // Listening is what answers pings.
            tokio::select! {
                () = &mut both => {}
                event = waiting.event() => panic!("nothing was to be heard: {event}"),
                event = other.event() => panic!("nothing was to be heard: {event}"),
            }
        }
    }
    slow.gate.add_permits(1);
    assert_eq!(waiting.event().await["id"], 100);
    assert_eq!(waiting.event().await["id"], 101);
}

/// Whoever goes while it is asked about frees the place of its question, for the next.
#[tokio::test]
async fn a_client_that_goes_takes_its_question_along() {
    let slow = Slow::start(json!({"user": "ann"})).await;
    let node = introducing(&slow.backend, "timeout_ms = 60000\nconcurrency = 1\n").await;
    let first = knock(node.public_addr()).await;
    slow.is_asked_by(1).await;
    drop(first);
    counted(&node, &outcome("connect", "abandoned"), 1.0).await;
    let mut second = knock(node.public_addr()).await;
    slow.is_asked_by(1).await;
    slow.gate.add_permits(2);
    second.greeted().await.expect("it is asked about in its turn");
    let mut third = Client::connect(node.public_addr()).await;
    third.subscribe("a").await;
}

/// A backend that takes too long is a temporary failure; the wait before coming back differs from client to client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_vain_is_to_come_back_each_at_a_time_of_its_own() {
    let slow = Slow::start(json!({})).await;
    let node = introducing(&slow.backend, "timeout_ms = 100\n").await;
    let waits: BTreeSet<_> =
        join_all((0..8).map(|_| async { put_off(&mut knock(node.public_addr()).await).await }))
            .await
            .into_iter()
            .collect();
    assert!(waits.len() >= 7, "they would come back together: {waits:?}");
    assert!(waits.iter().all(|wait| (1_000..=16_000).contains(wait)), "{waits:?}");
    assert!(waits.last() > Some(&3_000), "spread over seconds: {waits:?}");
}

/// However many come at once, so many are asked about at once, so many wait, and the rest is put off without a question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_asked_about_a_few_at_a_time() {
    let slow = Slow::start(json!({"user": "ann"})).await;
    let node = introducing(&slow.backend, "timeout_ms = 60000\nconcurrency = 4\nqueue = 40\n").await;
    let clients = join_all((0..100).map(|_| knock(node.public_addr()))).await;
    // Those that find no place in the queue are told at once, so nothing is waited for here but them.
    counted(&node, &outcome("connect", "not_asked"), 56.0).await;
    slow.is_asked_by(4).await;
    slow.gate.add_permits(44);
    let greeted = join_all(clients.into_iter().map(|mut client| async move {
        match client.hear().await {
            fanfare_testbed::Heard::Event(event) => event["type"] == "welcome",
            fanfare_testbed::Heard::End(goodbye) => panic!("nothing is said: {goodbye:?}"),
        }
    }))
    .await;
    assert_eq!(greeted.iter().filter(|it| **it).count(), 44);
    assert_eq!(slow.most.load(Ordering::SeqCst), 4, "questions at once");
    counted(&node, &outcome("connect", "allowed"), 44.0).await;
}

/// A backend that is gone is not asked for a while, and whoever comes meanwhile is put off beyond that. Those who may come in without
/// it do where that is written down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_down_is_left_alone() {
    let gone = application(|_| json!({})).await.url("/connect");
    let config =
        |more: &str| configured(&format!("[hooks]\nconnect = \"{gone}\"\n{more}[auth]\nanonymous = true\n"));
    let node = start(&config("")).await;
    // One after the other: as many as it takes for the breaker, and no more.
    for _ in 0..10 {
        put_off(&mut knock(node.public_addr()).await).await;
    }
    counted(&node, &outcome("connect", "failed"), 10.0).await;
    let waits =
        join_all((0..20).map(|_| async { put_off(&mut knock(node.public_addr()).await).await })).await;
    counted(&node, &outcome("connect", "not_asked"), 20.0).await;
    let distinct: BTreeSet<_> = waits.iter().collect();
    assert!(distinct.len() > 15, "they would come back together: {waits:?}");

    let lenient = start(&config("on_failure = \"allow\"\n")).await;
    let client = Client::connect(lenient.public_addr()).await;
    assert_eq!(client.welcome()["user"], Value::Null);
}

/// The same holds of what those do who are in: so many questions at once, so many behind them, an answer in time, and none after
/// ten that were asked in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_do_is_asked_about_within_the_same_bounds() {
    for (hook, command) in [
        ("subscribe", json!({"type": "subscribe", "channel": "room:1"})),
        ("publish", json!({"type": "publish", "channel": "room:1", "data": 1})),
    ] {
        let slow = Slow::start(json!({})).await;
        let configuration = |bounds: &str| {
            let url = slow.backend.url("/");
            configured(&format!(
                "[hooks]\n{bounds}\n[namespaces.room]\npublish = \"anyone\"\n[namespaces.room.hooks]\n{hook} = \"{url}\"\n"
            ))
        };
        let node = start(&configuration("timeout_ms = 60000\nconcurrency = 2\nqueue = 1")).await;
        let mut clients = join_all((0..6).map(|_| Client::connect(node.public_addr()))).await;
        let asking = join_all(clients.iter_mut().map(|client| client.ask(command.clone())));
        let answering = async {
            counted(&node, &outcome(hook, "not_asked"), 3.0).await;
            slow.is_asked_by(2).await;
            slow.gate.add_permits(3);
        };
        let (answers, ()) = tokio::join!(asking, answering);
        let refused = answers.iter().filter(|answer| answer["code"] == 4503).count();
        assert_eq!((refused, slow.most.load(Ordering::SeqCst)), (3, 2), "{answers:?}");

        let node = start(&configuration("timeout_ms = 50")).await;
        let mut client = Client::connect(node.public_addr()).await;
        for _ in 0..11 {
            assert_eq!(client.ask(command.clone()).await["code"], 4503);
        }
        counted(&node, &outcome(hook, "failed"), 10.0).await;
        counted(&node, &outcome(hook, "not_asked"), 1.0).await;
    }
}

/// What is no answer is a failure, whatever it looks like; a status that says no is a no.
#[tokio::test]
async fn an_answer_that_makes_no_sense_lets_nobody_in() {
    let number = AtomicUsize::new(0);
    let answers: [(u16, String); 8] = [
        (200, "<html>it works</html>".into()),
        (200, r#"{"user":"ann","error":{}}"#.into()),
        (200, r#"{"user":7}"#.into()),
        (200, format!("{{\"info\":\"{}\"}}", "x".repeat(300_000))),
        (500, r#"{"user":"ann"}"#.into()),
        (302, r#"{"user":"ann"}"#.into()),
        (403, "no".into()),
        (401, r#"{"user":"ann"}"#.into()),
    ];
    let expected = [1013, 1013, 1013, 1013, 1013, 1013, 4403, 4401];
    let backend = Backend::start(move |_: Asked| {
        let (status, body) = answers[number.fetch_add(1, Ordering::SeqCst)].clone();
        async move { says(status, body) }
    })
    .await;
    let node = introducing(&backend, "").await;
    for code in expected {
        let goodbye = knock(node.public_addr()).await.goodbye().await;
        assert_eq!(goodbye.code, Some(code));
    }
    counted(&node, &outcome("connect", "unreadable"), 3.0).await;
    counted(&node, &outcome("connect", "failed"), 3.0).await;
    counted(&node, &outcome("connect", "refused"), 2.0).await;
}
