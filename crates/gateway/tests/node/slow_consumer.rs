//! A client that does not read is closed before it costs memory, and costs the others nothing.

use fanfare_testbed::{Client, Samples};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{closed_with, counted, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_and_no_other_loses_anything() {
    let node = node("[limits]\nmessages_per_second = 0\nqueue_bytes = 65536").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(node.public_addr()).await.unwrap();
    let mut slow = Client::on(socket, node.public_addr()).await.unwrap();
    let mut brisk = Client::connect(node.public_addr()).await;
    for client in [&mut slow, &mut brisk] {
        client.subscribe("news").await;
    }
    let mut publisher = Client::connect(node.public_addr()).await;

    // The kernel buffers megabytes for the slow one before its queue grows at all.
    let filling = "x".repeat(8 * 1024);
    let overflowed =
        async || Samples::of(node.internal_addr()).await.value("fanfare_outbox_overflows_total") > 0.0;
    let mut published = 0;
    while !overflowed().await {
        for _ in 0..50 {
            publisher.publish("news", json!([published, filling])).await;
            assert_eq!(brisk.message("news").await[0], published);
            published += 1;
        }
        assert!(published < 10_000, "80 MB wait somewhere");
    }

    // What waits is bounded: the queue has been emptied, and the writer holds no more than a batch.
    let waiting = Samples::of(node.internal_addr()).await.value("fanfare_outbox_bytes");
    assert!((0.0..4096.0).contains(&waiting), "{waiting} bytes wait");

    let (heard, goodbye) = slow.until_closed().await;
    assert_eq!(goodbye.code, Some(4508), "{goodbye:?}");
    assert_eq!(goodbye.closing.unwrap()["reconnect"], true);
    let numbers: Vec<u64> = heard.iter().map(number_of).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "a beginning without a gap");
    assert!((numbers.len() as u64) < published);

    counted(&node, &closed_with(4508), 1.0).await;
    counted(&node, "fanfare_outbox_bytes", 0.0).await;
    publisher.publish("news", json!("last")).await;
    assert_eq!(brisk.message("news").await, "last");
}

/// A client that stopped reading and then its process: nothing of it stays.
#[tokio::test]
async fn a_slow_client_that_vanishes_leaves_nothing_behind() {
    let node = node("[limits]\nmessages_per_second = 0").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(node.public_addr()).await.unwrap();
    let mut slow = Client::on(socket, node.public_addr()).await.unwrap();
    slow.subscribe("news").await;
    let mut publisher = Client::connect(node.public_addr()).await;
    let filling = "x".repeat(32 * 1024);
    while Samples::of(node.internal_addr()).await.value("fanfare_outbox_bytes") < 300_000.0 {
        for _ in 0..8 {
            publisher.publish("news", json!(filling)).await;
        }
    }
    drop(slow);
    counted(&node, &closed_with(1006), 1.0).await;
    counted(&node, "fanfare_outbox_bytes", 0.0).await;
    counted(&node, "fanfare_subscriptions", 0.0).await;
}

fn number_of(event: &Value) -> u64 {
    event["data"][0].as_u64().expect("a numbered message")
}
