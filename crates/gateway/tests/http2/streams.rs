//! Streams are counted and bounded one by one, and one that stands still holds up no other.

use fanfare_testbed::{Client, Http2, Samples};
use serde_json::{Value, json};

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

/// Those that do not read run into their windows, then into their queues' bounds; the others of their socket hear everything
/// meanwhile. What has been taken out of a queue and not been read is bounded as well: it is what they hear after all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_cost_what_is_bounded_and_hold_up_no_other() {
    const QUEUE: usize = 131_072;
    /// What the client lets come on one stream before it has read it: HTTP/2's default.
    const WINDOW: usize = 65_535;
    /// A batch that is being written, its last message included.
    const BATCH: usize = 128 * 1024 + MESSAGE;
    /// Writes on their way through the stack: two that it was handed, one that it holds, one that HTTP/2 has buffered, and
    /// the one behind which that stops. None is longer than a frame.
    const STACK: usize = 5 * 16 * 1024;
    const MESSAGE: usize = 8_000 + 64;
    const STALLED: usize = 6;
    /// So many come at once, so that a write could be long.
    const BURST: usize = 14;

    let node =
        node(&format!("[limits]\nmessages_per_second = 0\nqueue_bytes = {QUEUE}\nmessage_bytes = {QUEUE}"))
            .await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = http2.websocket().await;
        client.subscribe("room:1").await;
        stalled.push(client);
    }
    let mut brisk = http2.websocket().await;
    brisk.subscribe("room:1").await;
    let data = json!("x".repeat(8_000));
    let publish = json!({"type": "publish", "channel": "room:1", "data": data});
    let burst: Value = vec![publish; BURST].into();
    let mut publisher = Client::connect(node.public_addr()).await;
    let mut published = 0;
    while Samples::of(node.internal_addr()).await.value("fanfare_outbox_overflows_total") < STALLED as f64 {
        // Unlike a socket, a stream has no megabytes of the kernel's to hide in.
        assert!(published < QUEUE + WINDOW + BATCH + STACK, "{published} bytes wait somewhere");
        publisher.send(burst.clone()).await;
        assert!(brisk.messages("room:1", BURST).await.iter().all(|it| *it == data));
        published += BURST * MESSAGE;
    }
    let waiting = Samples::of(node.internal_addr()).await.value("fanfare_outbox_bytes");
    assert!(waiting < 4096.0 * STALLED as f64, "{waiting}");
    for mut client in stalled {
        let (heard, goodbye) = client.until_closed().await;
        assert_eq!(goodbye.code, Some(4508));
        let bytes = heard.len() * MESSAGE;
        assert!(bytes > WINDOW / 2 && bytes < WINDOW + BATCH + STACK, "{bytes} bytes were out of the queue");
    }
    counted(&node, &closed_with(4508), STALLED as f64).await;
    brisk.assert_silence().await;
}
