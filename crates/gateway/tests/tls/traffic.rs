//! What crosses over TLS: everything that crosses in clear.

use std::sync::Arc;

use fanfare_testbed::authority::GOOD;
use fanfare_testbed::{Authority, Client, PATIENCE, Samples, http};
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::nodes::{closed_with, counted, node};
use crate::support::{client, connect, connect_over};

#[tokio::test]
async fn publications_cross_between_tls_and_the_internal_listener() {
    let authority = Authority::new();
    let node = node(&authority.issue("node", GOOD).settings("tls")).await;
    let config = Arc::new(authority.client(&["http/1.1"], None));
    let mut first = client(node.public_addr(), &config).await;
    let mut second = client(node.public_addr(), &config).await;
    first.subscribe("room:1").await;
    second.subscribe("room:1").await;
    let long = json!("x".repeat(60_000));
    first.publish("room:1", long.clone()).await;
    assert_eq!(second.message("room:1").await, long);
    let body = json!({"channel": "room:1", "data": 2}).to_string();
    assert_eq!(http::post(node.internal_addr(), "/api/publish", &[], &body).await.status, 200);
    assert_eq!(second.message("room:1").await, 2);
    assert_eq!(first.messages("room:1", 2).await, [long, json!(2)]);
}

/// Megabytes to a reader that takes its time: records, socket buffers and queue fill, and all of it arrives.
#[tokio::test]
async fn a_slow_reader_hears_everything() {
    let authority = Authority::new();
    let settings = "[limits]\nmessages_per_second = 0\nqueue_bytes = 16777216\n";
    let node = node(&format!("{}{settings}", authority.issue("node", GOOD).settings("tls"))).await;
    let config = Arc::new(authority.client(&[], None));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(node.public_addr()).await.unwrap();
    let stream = connect_over(socket, &config).await.unwrap();
    let mut slow = Client::on(stream, node.public_addr()).await.unwrap();
    slow.subscribe("room:1").await;
    let mut publisher = client(node.public_addr(), &config).await;
    publisher.subscribe("room:1").await;
    let data = json!("x".repeat(50_000));
    for _ in 0..100 {
        publisher.publish("room:1", data.clone()).await;
    }
    // The node has tried to send it all, and waits for the slow one.
    counted(&node, "fanfare_fanout_publications_total", 100.0).await;
    publisher.messages("room:1", 100).await;
    assert_eq!(slow.messages("room:1", 100).await, vec![data; 100]);
}

/// A reader that stops is closed for it, as in clear: the TLS layer is no place where a queue could hide.
#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let authority = Authority::new();
    let settings = "[limits]\nmessages_per_second = 0\n";
    let node = node(&format!("{}{settings}", authority.issue("node", GOOD).settings("tls"))).await;
    let config = Arc::new(authority.client(&[], None));
    let mut idle = client(node.public_addr(), &config).await;
    idle.subscribe("room:1").await;
    let mut publisher = client(node.public_addr(), &config).await;
    let data = json!("x".repeat(60_000));
    let mut published = 0;
    let body = json!({"channel": "room:1", "data": data}).to_string();
    while Samples::of(node.internal_addr()).await.value("fanfare_outbox_overflows_total") < 1.0 {
        assert_eq!(http::post(node.internal_addr(), "/api/publish", &[], &body).await.status, 200);
        published += 1;
        assert!(published < 2_000, "nobody minds");
    }
    publisher.assert_silence().await;
    let (heard, goodbye) = idle.until_closed().await;
    assert!(heard.len() < published, "{} of {published}", heard.len());
    assert_eq!(goodbye.code, Some(4508));
}

/// The end of a conversation is the end of the TLS session too: whoever cuts the socket cannot pretend it.
#[tokio::test]
async fn the_close_frame_is_followed_by_the_end_of_tls() {
    let authority = Authority::new();
    let node = node(&authority.issue("node", GOOD).settings("tls")).await;
    let config = Arc::new(authority.client(&[], None));
    let stream = connect(node.public_addr(), &config).await.unwrap();
    let url = format!("ws://{}/ws", node.public_addr());
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Text(_)))));
    futures_util::SinkExt::send(&mut socket, Message::Close(None)).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(None)))));
    let stream = socket.get_mut();
    // An end without close_notify would be an error here.
    let rest = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(rest.unwrap(), 0);
    stream.shutdown().await.unwrap();
    counted(&node, &closed_with(1000), 1.0).await;
}

#[tokio::test]
async fn a_draining_node_tells_its_clients_over_tls() {
    let authority = Authority::new();
    let text = format!("{}[node]\ndrain_seconds = 0\n", authority.issue("node", GOOD).settings("tls"));
    let node = node(&text).await;
    let config = Arc::new(authority.client(&[], None));
    let mut client = client(node.public_addr(), &config).await;
    let ((), goodbye) = tokio::join!(node.drain(), client.goodbye());
    assert_eq!(goodbye.code, Some(1001));
    assert_eq!(goodbye.closing.unwrap()["reconnect"], true);
}
