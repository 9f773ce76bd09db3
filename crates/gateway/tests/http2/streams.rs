//! Streams are counted and bounded one by one, and one that stands still holds up no other.

use fanfare_testbed::{Client, Http2, Samples, http};
use serde_json::json;

use crate::nodes::{closed_with, counted, node};

#[tokio::test]
async fn every_websocket_takes_a_place_whoever_carries_it() {
    let node = node("[limits]\nconnections = 3").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut clients = vec![http2.websocket().await, http2.websocket().await];
    let other = Client::connect(node.public_addr()).await;
    let refused = http2.open(http2.handshake()).await.expect_err("the node is full");
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
    assert_eq!(http2.get("/health").await.status(), 200, "which takes no place");
    clients.pop().unwrap().close().await;
    counted(&node, "fanfare_connections", 2.0).await;
    clients.push(http2.websocket().await);
    other.close().await;
    counted(&node, "fanfare_connections", 2.0).await;
    clients.push(http2.websocket().await);
}

/// The one that does not read runs into its window, then into its queue's bound; the others hear everything meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_is_closed_and_holds_up_no_other() {
    let node = node("[limits]\nmessages_per_second = 0\nqueue_bytes = 131072").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut slow = http2.websocket().await;
    slow.subscribe("room:1").await;
    let mut brisk = http2.websocket().await;
    brisk.subscribe("room:1").await;
    let data = json!("x".repeat(8_000));
    let body = json!({"channel": "room:1", "data": data}).to_string();
    let mut published = 0;
    while Samples::of(node.internal_addr()).await.value("fanfare_outbox_overflows_total") < 1.0 {
        assert_eq!(http::post(node.internal_addr(), "/api/publish", &[], &body).await.status, 200);
        assert_eq!(brisk.message("room:1").await, data);
        published += 1;
        // Unlike a socket, a stream has no megabytes of the kernel's to hide in: its window, what it has handed over, and
        // its queue are all there is.
        assert!(published < 64, "{published} messages wait somewhere");
    }
    let waiting = Samples::of(node.internal_addr()).await.value("fanfare_outbox_bytes");
    assert!(waiting < 4096.0, "{waiting}");
    let (heard, goodbye) = slow.until_closed().await;
    assert_eq!(goodbye.code, Some(4508));
    assert!(heard.len() < published);
    counted(&node, &closed_with(4508), 1.0).await;
    brisk.assert_silence().await;
}
