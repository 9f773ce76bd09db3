//! The end of a connection: the closing handshake from either side, and ends without one.

use std::time::Duration;

use fanfare_testbed::raw_peer::{frame, opcode};
use fanfare_testbed::{Client, RawPeer};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{closed_with, configured, counted, node, start};

#[tokio::test]
async fn a_close_is_answered_with_its_own_code_and_the_end() {
    let node = node("").await;
    for (payload, answer) in [
        (&b""[..], None),
        (&[0x03, 0xe8], Some(1000)),
        (&[0x03, 0xe8, b'o', b'k'], Some(1000)),
        (&[0x0f, 0xa0], Some(4000)),
    ] {
        let mut peer = RawPeer::connect(node.public_addr()).await;
        peer.send(opcode::CLOSE, payload).await;
        let (before, code) = peer.until_close().await;
        assert_eq!((before, code), (Vec::new(), answer), "{payload:?}");
        assert!(peer.ends().await, "{payload:?}");
    }
    counted(&node, &closed_with(1000), 3.0).await;
    counted(&node, "fanfare_connections_closed_total{code=\"other\"}", 1.0).await;
}

/// What was asked before the Close is done and answered; what comes after it is not even read.
#[tokio::test]
async fn the_close_is_the_last_thing_heard() {
    let node = node("").await;
    let mut witness = Client::connect(node.public_addr()).await;
    witness.subscribe("room:1").await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    let publish = |data| {
        frame(
            0x80 | opcode::TEXT,
            format!(r#"{{"type":"publish","channel":"room:1","data":{data}}}"#).as_bytes(),
        )
    };
    let close = frame(0x80 | opcode::CLOSE, &1000_u16.to_be_bytes());
    peer.send_bytes(&[publish(1), close, publish(2)].concat()).await;
    assert_eq!(peer.until_close().await, (Vec::new(), Some(1000)));
    assert!(peer.ends().await);
    assert_eq!(witness.message("room:1").await, 1);
    witness.publish("room:1", json!(3)).await;
    assert_eq!(witness.message("room:1").await, 3);
}

/// A client that closes hears what was queued for it before, then the answer.
#[tokio::test]
async fn what_was_queued_before_the_close_is_delivered() {
    let node = node("[limits]\nmessages_per_second = 0").await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    for number in 0..100 {
        client.send(json!({"type": "publish", "channel": "room:1", "data": number})).await;
    }
    counted(&node, "fanfare_fanout_publications_total", 100.0).await;
    client.send_frame(Message::Close(None)).await.unwrap();
    let (events, goodbye) = client.until_closed().await;
    let numbers: Vec<_> = events.iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!((goodbye.code, goodbye.closing), (None, None));
}

/// The end of the stream without a Close is the end: a WebSocket has no use for half a socket.
#[tokio::test]
async fn a_half_closed_socket_is_closed() {
    let node = node("").await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    peer.send_text(r#"{"type":"subscribe","id":1,"channel":"room:1"}"#).await;
    peer.frame().await.unwrap();
    peer.shut_down().await;
    assert!(peer.ends().await);
    counted(&node, &closed_with(1006), 1.0).await;
    counted(&node, "fanfare_subscriptions", 0.0).await;
    counted(&node, "fanfare_channels", 0.0).await;
}

/// A reset, in the middle of a frame.
#[tokio::test]
async fn a_reset_socket_is_closed() {
    let node = node("").await;
    let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
    let handshake = fanfare_testbed::raw_peer::HANDSHAKE.as_bytes();
    socket.write_all(&[handshake, &[0x81, 0xfe]].concat()).await.unwrap();
    counted(&node, "fanfare_connections", 1.0).await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    counted(&node, &closed_with(1006), 1.0).await;
    counted(&node, "fanfare_connections", 0.0).await;
}

/// Whoever has closed may shut down its side at once, and hears the answer all the same.
#[tokio::test]
async fn a_socket_half_closed_behind_its_close_gets_the_answer() {
    let node = node("").await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    peer.send_text(r#"{"type":"ping","id":1}"#).await;
    peer.send(opcode::CLOSE, &1000_u16.to_be_bytes()).await;
    peer.shut_down().await;
    let (before, code) = peer.until_close().await;
    assert_eq!((before.len(), code), (1, Some(1000)));
    assert!(peer.ends().await);
    counted(&node, &closed_with(1000), 1.0).await;
}

/// The end of the stream in the middle of a header, a frame, or a message is the end, and nothing of it is served.
#[tokio::test]
async fn a_socket_half_closed_inside_a_message_is_closed() {
    let node = node("").await;
    let whole = frame(0x80 | opcode::TEXT, br#"{"type":"ping","id":1}"#);
    let unfinished = frame(opcode::TEXT, br#"{"type":"ping","id":1}"#);
    let ends = [&whole[..1], &whole[..whole.len() - 1], &unfinished];
    for bytes in ends {
        let mut peer = RawPeer::connect(node.public_addr()).await;
        peer.send_bytes(bytes).await;
        peer.shut_down().await;
        assert!(peer.ends().await, "{bytes:?}");
    }
    counted(&node, &closed_with(1006), 3.0).await;
    counted(&node, "fanfare_connections", 0.0).await;
}

/// Our Close is answered within `limits.close_seconds`, or the socket is hung up on; so it is when the answer comes, or the Close was the
/// peer's own, and the peer then holds its side open.
#[tokio::test]
async fn the_closing_handshake_has_a_deadline() {
    let mut config = configured("");
    config.limits.close_timeout = Duration::from_millis(300);
    let node = start(&config).await;
    let mut silent = RawPeer::connect(node.public_addr()).await;
    let mut talking = RawPeer::connect(node.public_addr()).await;
    let mut holding = RawPeer::connect(node.public_addr()).await;
    let mut leaving = RawPeer::connect(node.public_addr()).await;
    leaving.send(opcode::CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(leaving.until_close().await.1, Some(1000), "its own Close is answered");
    for peer in [&mut silent, &mut talking, &mut holding] {
        peer.send(opcode::BINARY, b"no").await;
        assert_eq!(peer.until_close().await.1, Some(1003));
    }
    talking.send_text(r#"{"type":"ping","id":1}"#).await;
    holding.send(opcode::CLOSE, &1003_u16.to_be_bytes()).await;
    for peer in [&mut silent, &mut talking, &mut holding, &mut leaving] {
        assert!(peer.ends().await, "nothing is said after the Close, and the socket ends");
    }
    // The peers hold their sockets open all the while.
    counted(&node, "fanfare_connections", 0.0).await;
    counted(&node, &closed_with(1003), 3.0).await;
    counted(&node, &closed_with(1000), 1.0).await;
}

/// Hanging up with bytes unread would be a reset, which can overtake the Close on its way to whoever has sent them.
#[tokio::test]
async fn whoever_is_closed_while_it_speaks_hears_why_and_is_not_reset() {
    let mut config = configured("");
    // So long that it is not up by chance.
    config.limits.close_timeout = Duration::from_secs(3600);
    let node = start(&config).await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    // Over the bound by its header, and then all of it: far more than kernels hold.
    let message = frame(0x80 | opcode::TEXT, &vec![b' '; 16_000_000]);
    peer.try_send_bytes(&message).await.expect("it is heard out");
    assert_eq!(peer.until_close().await.1, Some(1009));
    assert!(peer.ends().await);
}
