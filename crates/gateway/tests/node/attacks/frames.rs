//! Attacks by the frames of a connection.

use std::net::SocketAddr;

use fanfare_testbed::raw_peer::{HANDSHAKE, frame, opcode};
use fanfare_testbed::{PATIENCE, RawPeer, http};
use futures_util::future::join_all;
use miniz_oxide::deflate::compress_to_vec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::scene::Scene;
use crate::support::{closed_with, socket_from};

const FIN: u8 = 0x80;

/// The bit of a frame that says that its message is compressed.
const COMPRESSED: u8 = 0x40;

/// A socket from an address of its own: the rates of others' handshakes are no part of these attacks.
async fn connect(address: SocketAddr) -> TcpStream {
    socket_from("127.0.0.30", address).await
}

/// Sends the same bytes until it is hung up on, and reads meanwhile.
async fn without_end(address: SocketAddr, beginning: &[u8], bytes: &[u8]) {
    let mut socket = connect(address).await;
    socket.write_all(HANDSHAKE.as_bytes()).await.expect("it reads");
    let answer = http::read_head(&mut socket, &mut Vec::new()).await.expect("it answers");
    assert_eq!(answer.status, 101, "{}", answer.head);
    let (mut reading, mut writing) = socket.split();
    let sending = async {
        if writing.write_all(beginning).await.is_ok() {
            while writing.write_all(bytes).await.is_ok() {}
        }
    };
    let hearing = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(1..) = timeout(PATIENCE, reading.read(&mut buffer)).await.expect("it ends") {}
    };
    tokio::join!(sending, hearing);
}

pub(super) async fn pings_without_end(address: SocketAddr) {
    let pings = frame(FIN | opcode::PING, &[7; 100]).repeat(200);
    without_end(address, b"", &pings).await;
}

/// A message in fragments of one byte, and one in fragments of none.
pub(super) async fn fragments_without_end(address: SocketAddr) {
    for fragment in [&b"x"[..], b""] {
        without_end(address, &frame(opcode::TEXT, b"\""), &frame(0, fragment).repeat(500)).await;
    }
}

/// One command again and again, without a pause.
pub(super) async fn commands_without_end(address: SocketAddr, command: &str) {
    let commands = frame(FIN | opcode::TEXT, command.as_bytes()).repeat(100);
    without_end(address, b"", &commands).await;
}

/// Joins and leaves channels that nobody else is on, 128 in a batch; stops by itself.
pub(super) async fn churn(address: SocketAddr, batches: usize) {
    let mut peer = RawPeer::shake_hands(connect(address).await, HANDSHAKE.as_bytes()).await;
    for batch in 0..batches {
        let pair = |it: usize| {
            let channel = format!("churn:{batch}:{it}");
            format!(
                r#"{{"type":"subscribe","channel":"{channel}"}},{{"type":"unsubscribe","channel":"{channel}","id":{it}}}"#
            )
        };
        let commands: Vec<_> = (0..64).map(pair).collect();
        peer.send_text(&format!("[{}]", commands.join(","))).await;
        loop {
            let Some((kind, answer)) = peer.frame().await else { return };
            if kind == opcode::CLOSE {
                return;
            }
            // The last of the batch, whatever came of it.
            if kind == opcode::TEXT && String::from_utf8_lossy(&answer).contains("\"id\":63") {
                break;
            }
        }
    }
}

/// Names that are in one lane with `chat`, on a node with any number of lanes up to 8: the hash that picks them has no keys.
fn beside_the_chat() -> impl Iterator<Item = String> {
    const PERIOD: u64 = 840;
    let place = |name: &str| {
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        (name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) >> 32) % PERIOD
    };
    let names = (0..).map(|number| format!("beside:{number}"));
    names.filter(move |name| place(name) == place("chat"))
}

/// Joins channels whose lane is that of the chat, and says something on each of them again and again.
pub(super) async fn one_lane(address: SocketAddr) {
    let names: Vec<_> = beside_the_chat().take(50).collect();
    let on_each = |command: &str| {
        let each = |name: &String| format!(r#"{{{command},"channel":"{name}"}}"#);
        let batch = names.iter().map(each).collect::<Vec<_>>().join(",");
        frame(FIN | opcode::TEXT, format!("[{batch}]").as_bytes())
    };
    let publish = on_each(r#""type":"publish","data":"as loud as it can""#);
    without_end(address, &on_each(r#""type":"subscribe""#), &publish).await;
}

/// Asks for more than it ever reads.
pub(super) async fn nothing_is_read(address: SocketAddr) {
    let mut socket = connect(address).await;
    socket.write_all(HANDSHAKE.as_bytes()).await.expect("it reads");
    let pings = frame(FIN | opcode::PING, &[7; 125]).repeat(1000);
    // Until the node stops reading, or hangs up.
    let sending = async { while socket.write_all(&pings).await.is_ok() {} };
    assert!(timeout(PATIENCE, sending).await.is_ok(), "the gateway hangs up on it");
}

/// The head of a text of so many bytes.
fn announcement(bytes: u64) -> Vec<u8> {
    [&[FIN | opcode::TEXT, 0x80 | 127][..], &bytes.to_be_bytes(), &[0; 4]].concat()
}

/// Peers that announce a message as long as any may be, send a little of it, and fall silent.
pub(super) async fn announced(address: SocketAddr, count: usize, bytes: u64) -> Vec<RawPeer> {
    let peers = (0..count).map(async |_| {
        let mut peer = RawPeer::shake_hands(connect(address).await, HANDSHAKE.as_bytes()).await;
        peer.send_bytes(&announcement(bytes)).await;
        peer.send_bytes(&[b' '; 100]).await;
        peer
    });
    join_all(peers).await
}

/// What ends a conversation at once, each so many times: a bomb, text that goes bad in its second fragment, a frame that is
/// announced as longer than any memory, brackets without end.
pub(super) async fn violations(address: SocketAddr, rounds: usize) {
    let offer = "Host: fanfare\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let handshake = HANDSHAKE.replace("Host: fanfare\r\n", offer);
    let bomb = frame(FIN | COMPRESSED | opcode::TEXT, &compress_to_vec(&vec![b' '; 8 << 20], 9));
    let torn = [frame(opcode::TEXT, b"\"\xf0\x9f"), frame(FIN, b"\x28\"")].concat();
    let nested = frame(FIN | opcode::TEXT, &[b'['; 4_000]).repeat(40);
    let endless = announcement(u64::MAX >> 1);
    for _ in 0..rounds {
        for (code, frames) in [(1009, &bomb), (1007, &torn), (1009, &endless), (4400, &nested)] {
            let mut peer = RawPeer::shake_hands(connect(address).await, handshake.as_bytes()).await;
            peer.send_bytes(frames).await;
            assert_eq!(peer.until_close().await.1, Some(code));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_conversation_harms_no_other() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| violations(address, 25).await).await;
}

/// Three hundred megabytes are announced. Who cannot answer a ping, since a frame is under way, is closed as silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_announced_and_never_sent_take_no_memory_and_end_with_the_heartbeat() {
    const BYTES: u64 = 1 << 20;
    let settings = [
        &*format!("limits.message_bytes={BYTES}"),
        "heartbeat.interval_seconds=4",
        "heartbeat.timeout_seconds=1",
        "limits.close_seconds=1",
    ];
    let mut scene = Scene::start(&settings).await;
    scene
        .withstands(async |address| {
            let ends = announced(address, 300, BYTES)
                .await
                .into_iter()
                .map(async |mut peer| while peer.frame().await.is_some() {});
            join_all(ends).await;
        })
        .await;
    assert!((scene.samples().await.value(&closed_with(4408)) - 300.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_without_end_are_cut_off() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| pings_without_end(address).await).await;
    // By the rate, or because it could not read the answers as fast.
    let samples = scene.samples().await;
    let cut: f64 = [4429, 4508].map(|code| samples.value(&closed_with(code))).iter().sum();
    assert!((cut - 1.0).abs() < 0.5, "{cut}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end_are_cut_off() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| fragments_without_end(address).await).await;
    assert!((scene.samples().await.value(&closed_with(1009)) - 2.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_without_end_are_cut_off() {
    let mut scene = Scene::start(&[]).await;
    let publish = r#"{"type":"publish","channel":"flood","data":"0123456789012345678901234567890123456789"}"#;
    scene.withstands(async |address| commands_without_end(address, publish).await).await;
    let samples = scene.samples().await;
    assert!((samples.value(&closed_with(4429)) - 1.0).abs() < 0.5);
    // Nobody heard it, so what was fanned out is what was chatted.
    let placed = samples.value("fanfare_fanout_publications_total");
    assert!(placed < 3_000.0, "{placed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_crowds_a_lane_is_cut_off_and_holds_up_nobody_in_it() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| one_lane(address).await).await;
    assert!((scene.samples().await.value(&closed_with(4429)) - 1.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_is_cut_off() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| nothing_is_read(address).await).await;
}

/// A hundred thousand pairs, from a client that no rate holds back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_come_and_go_leave_nothing_behind() {
    // Of a channel with history the memory broker keeps the epoch for an hour.
    let settings = [
        "limits.messages_per_second=0",
        "namespaces.churn.presence=true",
        "namespaces.default.publish=anyone",
    ];
    let mut scene = Scene::start(&settings).await;
    scene.withstands(async |address| churn(address, 1_563).await).await;
    let samples = scene.samples().await;
    let left = [samples.value("fanfare_channels"), samples.value("fanfare_subscriptions")];
    assert_eq!(left, [1.0, 1.0], "those of the chat");
}
