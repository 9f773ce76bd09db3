//! A client that does not read is closed before it costs memory, or misses what its channels let it miss, and costs the
//! others nothing.

use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, Samples};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{closed_with, counted, node};

/// A client for which the kernel takes little.
async fn narrow(node: &Node) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket can be had");
    socket.set_recv_buffer_size(4096).expect("it may be small");
    let socket = socket.connect(node.public_addr()).await.expect("the node listens");
    Client::on(socket, node.public_addr()).await.expect("it is let in")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_and_no_other_loses_anything() {
    let node = node("[limits]\nmessages_per_second = 0\nqueue_bytes = 65536").await;
    let mut slow = narrow(&node).await;
    let mut brisk = Client::connect(node.public_addr()).await;
    for client in [&mut slow, &mut brisk] {
        client.subscribe("news").await;
    }
    let mut publisher = Client::connect(node.public_addr()).await;

    // Half a megabyte is less than the kernel would buffer for the slow one before its queue grew at all.
    let filling = "x".repeat(8 * 1024);
    let overflowed =
        async || Samples::of(node.internal_addr()).await.value("fanfare_outbox_overflows_total") > 0.0;
    let mut published = 0;
    while !overflowed().await {
        for _ in 0..4 {
            publisher.publish("news", json!([published, filling])).await;
            assert_eq!(brisk.message("news").await[0], published);
            published += 1;
        }
        assert!(published < 64, "half a megabyte waits where no bound is");
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

/// All that a client has missed on many channels, asked for at once: far more than its queue and the kernel hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_recovers_many_channels_in_one_batch_is_not_closed() {
    const CHANNELS: usize = 100;
    const EACH: u64 = 5;
    let node = node("[limits]\nmessages_per_second = 0\nqueue_bytes = 262144").await;
    let mut publisher = Client::connect(node.public_addr()).await;
    let filling = "x".repeat(24 * 1024);
    let mut batch = Vec::new();
    for channel in 0..CHANNELS {
        let first = json!({"type": "subscribe", "channel": format!("{channel}")});
        let subscribed = publisher.ask(first).await;
        let since = json!({"epoch": subscribed["epoch"], "offset": subscribed["offset"]});
        batch.push(json!({"type": "subscribe", "channel": format!("{channel}"), "since": since}));
        batch.push(json!({"type": "history", "channel": format!("{channel}")}));
    }
    for channel in 0..CHANNELS {
        for number in 0..EACH {
            let data = json!([number, filling]);
            publisher.publish(&format!("{channel}"), data).await;
            publisher.message(&format!("{channel}")).await;
        }
    }
    let mut client = narrow(&node).await;
    for commands in batch.chunks(100) {
        client.send(Value::from(commands)).await;
    }
    for channel in 0..CHANNELS {
        let subscribed = client.event().await;
        assert_eq!((&subscribed["type"], &subscribed["recovered"]), (&json!("subscribed"), &json!(true)));
        for number in 0..EACH {
            let event = client.event().await;
            assert_eq!(event["channel"], format!("{channel}"));
            assert_eq!(number_of(&event), number);
        }
        assert_eq!(client.event().await["messages"].as_array().expect("a page").len(), 5);
    }
    counted(&node, "fanfare_outbox_overflows_total", 0.0).await;
}

/// A client that stopped reading and then its process: nothing of it stays.
#[tokio::test]
async fn a_slow_client_that_vanishes_leaves_nothing_behind() {
    let node = node("[limits]\nmessages_per_second = 0").await;
    let mut slow = narrow(&node).await;
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

/// Publishes on a channel of that policy until a client that does not read has missed some hundred, while another hears
/// everything; then the slow one reads. Returns what that heard, and how many there were.
async fn starve(policy: &str) -> (Vec<Value>, u64) {
    let node = node(&format!(
        "[limits]\nmessages_per_second = 0\nqueue_bytes = 65536\n\
         [namespaces.news]\npublish = \"anyone\"\noverflow = \"{policy}\""
    ))
    .await;
    let (mut slow, mut brisk) = (narrow(&node).await, Client::connect(node.public_addr()).await);
    for client in [&mut slow, &mut brisk] {
        client.subscribe("news:1").await;
    }
    let mut publisher = Client::connect(node.public_addr()).await;
    let filling = "x".repeat(8 * 1024);
    let missed = format!("fanfare_outbox_dropped_total{{policy=\"{policy}\"}}");
    let mut published = 0;
    while Samples::of(node.internal_addr()).await.value(&missed) < 100.0 {
        for _ in 0..50 {
            publisher.publish("news:1", json!([published, filling])).await;
            assert_eq!(brisk.message("news:1").await[0], published);
            published += 1;
        }
        assert!(published < 10_000, "80 MB wait somewhere");
    }
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| number_of(last) + 1 < published) {
        heard.push(slow.event().await);
    }
    assert!(heard.is_sorted_by(|one, next| number_of(one) < number_of(next)), "in order, none twice");
    counted(&node, &missed, (published - heard.len() as u64) as f64).await;
    counted(&node, "fanfare_outbox_overflows_total", 0.0).await;
    (heard, published)
}

/// It stays, hears the newest, and the oldest of what waited has given way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_oldest_is_dropped_a_slow_client_stays_and_hears_the_newest() {
    let (heard, published) = starve("drop_oldest").await;
    let newest = heard.iter().rev().zip((0..published).rev());
    let unbroken = newest.take_while(|(event, number)| number_of(event) == *number).count();
    assert!(unbroken >= 4, "only the last {unbroken} are the newest");
    assert!(heard.iter().all(|event| event.get("conflated").is_none()));
}

/// One publication of the channel waits, and says for how many it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_publications_conflate_each_says_how_many_it_stands_for() {
    let (heard, published) = starve("conflate").await;
    let mut next = 0;
    for event in &heard {
        let skipped = event.get("conflated").map_or(0, |it| it.as_u64().expect("a number"));
        assert_eq!(number_of(event), next + skipped, "it stands for all since the one before");
        next = number_of(event) + 1;
    }
    assert_eq!(next, published);
}

fn number_of(event: &Value) -> u64 {
    event["data"][0].as_u64().expect("a numbered message")
}
