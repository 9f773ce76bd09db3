//! Attacks by the frames of a connection.

use std::net::SocketAddr;

use fanfare_testbed::raw_peer::{HANDSHAKE, frame, opcode};
use fanfare_testbed::{PATIENCE, RawPeer, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::scene::Scene;
use crate::support::closed_with;

const FIN: u8 = 0x80;

/// Sends the same bytes until it is hung up on, and reads meanwhile.
async fn without_end(address: SocketAddr, beginning: &[u8], bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
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
    let mut peer = RawPeer::connect(address).await;
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

/// Asks for more than it ever reads.
pub(super) async fn nothing_is_read(address: SocketAddr) {
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    socket.write_all(HANDSHAKE.as_bytes()).await.expect("it reads");
    let pings = frame(FIN | opcode::PING, &[7; 125]).repeat(1000);
    // Until the node stops reading, or hangs up.
    let sending = async { while socket.write_all(&pings).await.is_ok() {} };
    assert!(timeout(PATIENCE, sending).await.is_ok(), "the gateway hangs up on it");
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
