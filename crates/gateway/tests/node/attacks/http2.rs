//! Attacks by frames of HTTP/2. What becomes of them to the letter is in `tests/http2/floods.rs`; here it is shown to harm nobody.

use std::net::SocketAddr;
use std::time::Duration;

use fanfare_testbed::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::scene::Scene;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// `GET http://a/health`, from the static table as far as it goes.
const GET: &[u8] = b"\x82\x86\x04\x07/health\x41\x01a";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends until it is hung up on.
async fn until_cut(address: SocketAddr, mut next: impl FnMut() -> Vec<u8>) {
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    socket.write_all(PREFACE).await.expect("it reads");
    let (mut reading, mut writing) = socket.split();
    let sending = async {
        let mut sent = 0;
        loop {
            let bytes = next();
            if writing.write_all(&bytes).await.is_err() {
                return;
            }
            sent += bytes.len();
            assert!(sent < 256 << 20, "{sent} bytes are taken");
        }
    };
    let mut heard = Vec::new();
    let both = async { tokio::join!(sending, reading.read_to_end(&mut heard)) };
    assert!(timeout(PATIENCE, both).await.is_ok(), "the gateway hangs up");
}

/// CVE-2023-44487.
pub(super) async fn rapid_resets(address: SocketAddr) {
    for _ in 0..20 {
        let mut stream = 1;
        until_cut(address, || {
            let mut flood = Vec::new();
            for _ in 0..500 {
                flood.extend(frame(HEADERS, 5, stream, GET));
                flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            flood
        })
        .await;
    }
}

/// Headers in CONTINUATION frames without end.
pub(super) async fn headers_without_end(address: SocketAddr) {
    for _ in 0..20 {
        let line = [&b"\x10\x01x\x7e"[..], &[b'y'; 126]].concat();
        let mut beginning = Some(frame(HEADERS, 1, 1, GET));
        let more = frame(CONTINUATION, 0, 1, &line.repeat(100));
        until_cut(address, || beginning.take().unwrap_or_else(|| more.clone())).await;
    }
}

/// What takes answers, which nobody reads, for as long as the gateway takes any of it.
pub(super) async fn unread_answers(address: SocketAddr) {
    const STANDSTILL: Duration = Duration::from_secs(1);
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    socket.write_all(PREFACE).await.expect("it reads");
    let flood = [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])].concat().repeat(500);
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(STANDSTILL, socket.write_all(&flood)).await {
        sent += flood.len();
        assert!(sent < 256 << 20, "{sent} bytes are taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_are_cut_off() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| rapid_resets(address).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_cut_off() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| headers_without_end(address).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_no_longer_made() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(async |address| unread_answers(address).await).await;
}
