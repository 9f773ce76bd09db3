//! Publishing faster than the broker places: so many of a connection's publications are on their way at once, then it is read
//! no more until they are answered. Whatever becomes of the broker, each has one answer, in the order of asking.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fanfare_testbed::raw_peer::{HANDSHAKE, frame, opcode};
use fanfare_testbed::{Client, Gateway, RawPeer, RedisServer, Samples, eventually, http};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, join, sink};
use tokio::net::TcpSocket;

use crate::support::weight;

const CHANNEL: &str = "room:1";

/// What one connection may have on its way to the broker.
const PLACING_MAX: usize = 64;

/// Who publishes without waiting.
const FLOODERS: usize = 2;

/// The publications of one message: all are decided at once, so what is not held back is on its way at once.
const BATCH: usize = 300;

/// The messages of one of them: several times what the kernel takes in for a node that does not read.
const BATCHES: usize = 12;

/// Of each publication, so that a batch is just below what a message may have.
const FILLING: usize = 120;

/// A node with one thread, so that whoever is answered by it finds done what was counted before; and its broker.
async fn start(redis: &RedisServer, timeout: Duration) -> Gateway {
    let settings = [
        "broker.kind=redis",
        &format!("redis.urls={}", redis.url()),
        &format!("redis.timeout_ms={}", timeout.as_millis()),
        "node.workers=1",
        "namespaces.room.publish=anyone",
        "limits.messages_per_second=0",
        "limits.batch=1000",
        "limits.queue_bytes=16777216",
        "heartbeat.interval_seconds=600",
    ];
    let node = Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await;
    eventually("the broker is there", async || http::get(node.public(), "/ready").await.status == 200).await;
    node
}

/// Publishes batch after batch without waiting for anything, and reads what is answered. `sent` tells how many the node, or
/// its kernel, has taken. Returns the types of the answers, one for each publication and in their order.
async fn flood(node: SocketAddr, by: usize, sent: &Cell<usize>) -> Vec<String> {
    let socket = TcpSocket::new_v4().expect("a socket can be had");
    socket.set_send_buffer_size(16 * 1024).expect("it may be small");
    let mut socket = socket.connect(node).await.expect("the node listens");
    socket.write_all(HANDSHAKE.as_bytes()).await.expect("it reads");
    let mut unread = Vec::new();
    assert_eq!(http::read_head(&mut socket, &mut unread).await.expect("it answers").status, 101);
    let (reading, mut writing) = socket.split();
    let mut peer = RawPeer::over(join(unread.as_slice().chain(reading), sink())).await;
    let sending = async {
        let filling = "x".repeat(FILLING);
        for batch in 0..BATCHES {
            let publish = |number: usize| json!({"type": "publish", "id": number, "channel": CHANNEL, "data": [by, number, filling]});
            let batch: Value = (batch * BATCH..(batch + 1) * BATCH).map(publish).collect();
            let text = batch.to_string();
            assert!(text.len() < 65_536, "{} bytes", text.len());
            writing.write_all(&frame(0x80 | opcode::TEXT, text.as_bytes())).await.expect("it is open");
            sent.set(sent.get() + 1);
        }
        let ping = frame(0x80 | opcode::TEXT, br#"{"type":"ping","id":"last"}"#);
        writing.write_all(&ping).await.expect("it is open");
    };
    let hearing = async {
        let mut kinds = Vec::new();
        loop {
            let (_, text) = peer.frame().await.expect("it is open");
            let answer: Value = serde_json::from_slice(&text).expect("answers are JSON");
            let kind = answer["type"].as_str().expect("of some type").to_owned();
            if answer["id"] == "last" {
                assert_eq!(kind, "pong");
                return kinds;
            }
            assert_eq!(answer["id"], kinds.len(), "one answer each, and in order: {answer}");
            assert!(kind == "published" || answer["code"] == 4503, "{answer}");
            kinds.push(kind);
        }
    };
    tokio::join!(sending, hearing).1
}

/// What a listener has heard of each flooder: numbers, in the order in which they came.
type Heard = [Vec<usize>; FLOODERS];

/// Takes note of a flooder's publication.
fn note(heard: &mut Heard, data: &Value) {
    let number = |value: &Value| value.as_u64().and_then(|it| usize::try_from(it).ok()).expect("a number");
    heard[number(&data[0])].push(number(&data[1]));
}

async fn publications(node: &Gateway) -> f64 {
    Samples::of(node.internal()).await.value("fanfare_commands_total{command=\"publish\"}")
}

/// The broker stands still. Two publish as if it did not. Whoever publishes one thing meanwhile waits behind what these may have
/// on the way, and whoever wants something else does not wait at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_faster_than_the_broker_places_is_held_back_and_nobody_else() {
    let redis = RedisServer::start().await;
    let node = start(&redis, Duration::from_secs(60)).await;
    let (mut listener, mut modest) =
        (Client::connect(node.public()).await, Client::connect(node.public()).await);
    listener.subscribe(CHANNEL).await;
    modest.publish(CHANNEL, json!("before")).await;
    assert_eq!(listener.message(CHANNEL).await, "before");
    let (before, weighed) = (publications(&node).await, weight(&node, "VmRSS"));
    redis.freeze().await;

    let sent: [Cell<usize>; FLOODERS] = Default::default();
    let flooding = join_all(sent.iter().enumerate().map(|(by, sent)| flood(node.public(), by, sent)));
    let others = async {
        let decided = before + (FLOODERS * BATCH) as f64;
        eventually("a batch of each is decided", async || publications(&node).await >= decided).await;
        modest.send(json!({"type": "publish", "id": "modest", "channel": CHANNEL, "data": "modest"})).await;
        eventually("so is one more", async || publications(&node).await > decided).await;

        let mut other = Client::connect(node.public()).await;
        other.subscribe(CHANNEL).await;
        other.assert_silence().await;
        listener.assert_silence().await;
        assert_eq!(http::get(node.public(), "/health").await.status, 200);
        assert!(publications(&node).await < decided + 1.5, "nothing more is read");
        assert!(sent.iter().all(|sent| sent.get() < BATCHES), "they are held back: {sent:?}");
        let peak = weight(&node, "VmHWM");
        assert!(peak < weighed + (16 << 20), "{} MiB, {} before", peak >> 20, weighed >> 20);
        drop(other);

        redis.thaw().await;
        let mut heard = Heard::default();
        while heard.iter().any(|of_one| of_one.len() < BATCHES * BATCH) {
            let data = listener.message(CHANNEL).await;
            if data != "modest" {
                note(&mut heard, &data);
                continue;
            }
            let ahead = heard.each_ref().map(Vec::len);
            assert!(ahead.iter().all(|count| *count <= PLACING_MAX), "{ahead:?} were on the way before it");
        }
        heard
    };
    let (answers, heard) = tokio::join!(flooding, others);

    assert!(answers.iter().flatten().all(|kind| kind == "published"), "the broker was slow, and never away");
    for (answers, heard) in answers.iter().zip(&heard) {
        assert_eq!(answers.len(), BATCHES * BATCH);
        assert!(heard.iter().copied().eq(0..BATCHES * BATCH), "each was heard once, and in order");
    }
    assert_eq!(modest.event().await["type"], "published");
    modest.publish(CHANNEL, json!("last")).await;
    assert_eq!(listener.message(CHANNEL).await, "last", "nothing was heard twice");
}

/// The broker stands still for longer than a call may take: those on the way are told that nobody knows, those after them that
/// nothing was done, and no publication is answered twice or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_publication_has_one_answer_whatever_becomes_of_the_broker() {
    let redis = RedisServer::start().await;
    let node = start(&redis, Duration::from_millis(500)).await;
    redis.freeze().await;
    let sent: [Cell<usize>; FLOODERS] = Default::default();
    let flooding = join_all(sent.iter().enumerate().map(|(by, sent)| flood(node.public(), by, sent)));
    let standstill = async {
        let failed = "fanfare_broker_call_errors_total{call=\"publish\",outcome=\"timeout\"}";
        eventually("a call has failed", async || Samples::of(node.internal()).await.value(failed) > 0.0)
            .await;
        redis.thaw().await;
    };
    let (answers, ()) = tokio::join!(flooding, standstill);
    assert!(answers.iter().all(|answers| answers.len() == BATCHES * BATCH));
    assert!(answers.iter().flatten().any(|kind| kind == "error"), "a call has failed");
    let mut client = Client::connect(node.public()).await;
    let publish = json!({"type": "publish", "channel": CHANNEL, "data": "last"});
    eventually("it places again", async || client.ask(publish.clone()).await["type"] == "published").await;
}
