//! Dead peers are found, living ones are left alone.

use std::time::Duration;

use fanfare_gateway::config::{Config, Heartbeat};
use fanfare_testbed::RawPeer;
use fanfare_testbed::raw_peer::opcode;

use crate::support::{closed_with, configured, counted, start};

/// Pings more often than a file may say, and is as patient.
fn pinging_every(interval: Duration) -> Config {
    Config { heartbeat: Heartbeat { interval, timeout: interval }, ..configured("") }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed() {
    let node = start(&pinging_every(Duration::from_millis(300))).await;
    let mut peer = RawPeer::connect(node.public_addr()).await;

    assert_eq!(peer.frame().await, Some((opcode::PING, Vec::new())));
    let (before, code) = peer.until_close().await;
    assert_eq!(code, Some(4408));
    let [(opcode::TEXT, closing)] = &before[..] else { panic!("heard {before:?}") };
    let closing: serde_json::Value = serde_json::from_slice(closing).unwrap();
    assert_eq!(closing["type"], "closing");
    assert_eq!(closing["code"], 4408);
    assert_eq!(closing["reconnect"], true);

    drop(peer);
    counted(&node, "fanfare_heartbeat_timeouts_total", 1.0).await;
    counted(&node, &closed_with(4408), 1.0).await;
    counted(&node, "fanfare_connections", 0.0).await;
}

/// A pong, or any other byte, is a sign of life.
#[tokio::test]
async fn a_peer_that_answers_stays() {
    let node = start(&pinging_every(Duration::from_secs(3))).await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    assert_eq!(peer.frame().await, Some((opcode::PING, Vec::new())));
    peer.send(opcode::PONG, b"").await;
    assert_eq!(peer.frame().await, Some((opcode::PING, Vec::new())));
    peer.send_text(r#"{"type":"ping"}"#).await;
    let (_, pong) = peer.frame().await.unwrap();
    assert!(pong.starts_with(br#"{"type":"pong""#), "{}", String::from_utf8_lossy(&pong));
    assert_eq!(peer.frame().await, Some((opcode::PING, Vec::new())), "it is still there to be asked");
    counted(&node, "fanfare_heartbeats_sent_total", 3.0).await;
    counted(&node, "fanfare_heartbeat_timeouts_total", 0.0).await;
    counted(&node, "fanfare_connections", 1.0).await;
}
