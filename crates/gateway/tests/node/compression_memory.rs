//! What a connection that has agreed on compression holds while it is idle, after it has said and heard much: no compressor and
//! no inflater, which are hundreds of kilobytes, and no more of what was said than was agreed.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

use std::path::Path;

use fanfare_testbed::raw_peer::{HANDSHAKE, frame, opcode};
use fanfare_testbed::{Gateway, RawPeer, http};
use miniz_oxide::deflate::compress_to_vec;
use serde_json::json;
use tokio::net::TcpStream;

/// Enough that what belongs to the process does not show.
const CONNECTIONS: usize = 300;

/// Of `data`, of which each connection says one message and hears two: more than any window.
const MESSAGE: usize = 40_000;

/// With less than this neither a compressor nor an inflater is among what is held: the smaller has 40 KiB.
const NEITHER: usize = 24 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_compressed_connection_holds_no_compressor() {
    for (takeover, windows) in [(false, 0), (true, 2 * 32 * 1024)] {
        let takeover = format!("compression.context_takeover={takeover}");
        let settings = [&*takeover, "limits.messages_per_second=0"];
        let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await;
        // The first ones are for what threads keep.
        let _before = [crowd(&gateway, true, 16).await, crowd(&gateway, false, 16).await];
        let start = resident_bytes(&gateway);
        let _plain = crowd(&gateway, false, CONNECTIONS).await;
        let between = resident_bytes(&gateway);
        let _compressed = crowd(&gateway, true, CONNECTIONS).await;
        let end = resident_bytes(&gateway);
        let each = |from: usize, to: usize| to.saturating_sub(from) / CONNECTIONS;
        let (plain, compressed) = (each(start, between), each(between, end));
        assert!(plain < NEITHER, "{plain} bytes without compression");
        assert!(
            compressed < windows + NEITHER,
            "{compressed} bytes, {plain} without compression: {takeover}"
        );
    }
}

/// So many connections, each of which has said something long, and heard it and something else.
async fn crowd(gateway: &Gateway, is_compressed: bool, count: usize) -> Vec<RawPeer> {
    let offer = "Host: fanfare\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let handshake =
        if is_compressed { HANDSHAKE.replace("Host: fanfare\r\n", offer) } else { HANDSHAKE.to_owned() };
    let mut peers = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = TcpStream::connect(gateway.public()).await.unwrap();
        let mut peer = RawPeer::shake_hands(socket, handshake.as_bytes()).await;
        let channel = format!("{}", fastrand::u64(..));
        peer.send_text(&json!({"type": "subscribe", "id": 1, "channel": channel}).to_string()).await;
        peer.frame().await.unwrap();
        let publish = json!({"type": "publish", "channel": channel, "data": noise()}).to_string();
        peer.send_bytes(&message(&publish, is_compressed)).await;
        peer.frame_as_it_is().await.unwrap();
        let body = json!({"channel": channel, "data": noise()}).to_string();
        let answer = http::post(gateway.internal(), "/api/publish", &[], &body).await;
        assert_eq!(answer.status, 200);
        let (first, heard) = peer.frame_as_it_is().await.unwrap();
        assert_eq!((first & 0x40 != 0, heard.len() < MESSAGE), (is_compressed, is_compressed));
        peer.send_text(&json!({"type": "unsubscribe", "id": 2, "channel": channel}).to_string()).await;
        peer.frame().await.unwrap();
        let remove = json!({"channel": channel}).to_string();
        assert_eq!(http::post(gateway.internal(), "/api/history/remove", &[], &remove).await.status, 200);
        peers.push(peer);
    }
    peers
}

/// Text that shrinks to half, and in which nothing repeats that a window could do without.
fn noise() -> String {
    (0..MESSAGE).map(|_| char::from(b"0123456789abcdef"[fastrand::usize(..16)])).collect()
}

fn message(text: &str, is_compressed: bool) -> Vec<u8> {
    if !is_compressed {
        return frame(0x80 | opcode::TEXT, text.as_bytes());
    }
    frame(0xc0 | opcode::TEXT, &[&compress_to_vec(text.as_bytes(), 6)[..], b"\x00"].concat())
}

fn resident_bytes(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}
