//! A WebSocket that is one of many streams is a WebSocket like any other.

use fanfare_testbed::{Client, Heard, Http2};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::nodes::{closed_with, counted, node};

#[tokio::test]
async fn many_websockets_share_a_socket_and_each_hears_everything_once() {
    let node = node("[limits]\nmessages_per_second = 0").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut clients = Vec::new();
    for _ in 0..90 {
        let mut client = http2.websocket().await;
        client.subscribe("room:1").await;
        clients.push(client);
    }
    let mut other = Client::connect(node.public_addr()).await;
    other.subscribe("room:1").await;
    counted(&node, "fanfare_connections", 91.0).await;
    let mut expected = Vec::new();
    for number in 0..50 {
        let data = json!([number, "x".repeat(number * 100)]);
        let publisher = if number % 2 == 0 { &mut clients[number] } else { &mut clients[0] };
        publisher.publish("room:1", data.clone()).await;
        expected.push(data);
    }
    let heard = join_all(clients.iter_mut().map(|client| client.messages("room:1", 50))).await;
    assert!(heard.iter().all(|heard| *heard == expected));
    assert_eq!(other.messages("room:1", 50).await, expected);
    // One that leaves takes nobody along.
    let leaving = clients.pop().unwrap();
    assert_eq!(leaving.close().await.code, Some(1000));
    counted(&node, "fanfare_connections", 90.0).await;
    clients[0].assert_silence().await;
}

#[tokio::test]
async fn long_messages_cross_both_ways() {
    let node = node("[limits]\nmessage_bytes = 1048576").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut client = http2.websocket().await;
    client.subscribe("room:1").await;
    // Longer than the window of a stream in either direction.
    let long = json!("x".repeat(900_000));
    client.publish("room:1", long.clone()).await;
    assert_eq!(client.message("room:1").await, long);
    let too_long = "x".repeat(1_100_000);
    let _ = client.send_frame(Message::text(too_long)).await;
    assert_eq!(client.goodbye().await.code, Some(1009));
}

/// The end of the conversation is the end of the stream, and of nothing else.
#[tokio::test]
async fn the_close_frame_is_followed_by_the_end_of_the_stream() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let (_, mut stream) = http2.open(http2.handshake()).await.unwrap();
    let mut welcome = vec![0; 2];
    stream.read_exact(&mut welcome).await.unwrap();
    // A Close of code 1000, masked by zeros.
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("END_STREAM, and no reset");
    assert!(rest.ends_with(&[0x88, 0x02, 0x03, 0xe8]), "{rest:?}");
    stream.shutdown().await.unwrap();
    counted(&node, &closed_with(1000), 1.0).await;
    assert_eq!(http2.get("/health").await.status(), 200);
}

#[tokio::test]
async fn a_reset_stream_and_a_half_closed_one_are_closed() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let (reset, mut half) = (http2.websocket().await, http2.websocket().await.into_stream());
    counted(&node, "fanfare_connections", 2.0).await;
    reset.into_stream().reset();
    counted(&node, &closed_with(1006), 1.0).await;
    half.shutdown().await.unwrap();
    counted(&node, &closed_with(1006), 2.0).await;
    counted(&node, "fanfare_connections", 0.0).await;
    assert_eq!(http2.get("/health").await.status(), 200);
}

#[tokio::test]
async fn a_socket_that_is_gone_takes_its_websockets_along() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = http2.websocket().await;
        client.subscribe(&format!("room:{number}")).await;
        clients.push(client);
    }
    counted(&node, "fanfare_channels", 20.0).await;
    drop(http2);
    counted(&node, "fanfare_connections", 0.0).await;
    counted(&node, "fanfare_channels", 0.0).await;
}

/// Each is told, and only then the socket.
#[tokio::test]
async fn a_draining_node_tells_every_websocket_and_then_the_socket() {
    let node = node("[node]\ndrain_seconds = 0").await;
    let address = node.public_addr();
    let mut http2 = Http2::connect(address).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(http2.websocket().await);
    }
    let goodbyes = async {
        let mut goodbyes = Vec::new();
        for client in &mut clients {
            goodbyes.push(client.goodbye().await);
        }
        goodbyes
    };
    let ((), goodbyes, end) = tokio::join!(node.drain(), goodbyes, http2.ended());
    for goodbye in goodbyes {
        assert_eq!(goodbye.code, Some(1001));
        assert_eq!(goodbye.closing.unwrap()["reconnect"], true);
    }
    assert!(end.is_ok(), "GOAWAY without an error: {end:?}");
}

#[tokio::test]
async fn a_handshake_during_the_drain_is_refused_and_told_when_to_come_back() {
    let node = node("[node]\ndrain_seconds = 1").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut told = http2.websocket().await;
    let refused = async {
        assert!(matches!(told.hear().await, Heard::End(goodbye) if goodbye.code == Some(1001)));
        http2.open(http2.handshake()).await.err().map(|answer| answer.into_parts().0)
    };
    let ((), refused) = tokio::join!(node.drain(), refused);
    let head = refused.expect("nobody is let in any more");
    assert_eq!((head.status.as_u16(), head.headers["retry-after"].as_bytes()), (503, &b"5"[..]));
}
