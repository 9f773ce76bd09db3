//! What one client publishes, on whichever node, all subscribers hear, on every node.

use std::net::SocketAddr;

use fanfare_testbed::{Client, http};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{cluster, node};

const CHANNEL: &str = "room:1";

/// Publishes `count` numbered messages through the server API of a node.
async fn publish_by_api(internal: SocketAddr, publisher: &str, count: u64) {
    for number in 0..count {
        let body = json!({"channel": CHANNEL, "data": {"by": publisher, "number": number}}).to_string();
        let response = http::post(internal, "/api/publish", &[], &body).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

/// Publishes them from a client of a node, all at once, and waits until the last one is acknowledged.
async fn publish_by_client(public: SocketAddr, publisher: &str, count: u64) {
    let mut client = Client::connect(public).await;
    for number in 0..count - 1 {
        let data = json!({"by": publisher, "number": number});
        client.send(json!({"type": "publish", "channel": CHANNEL, "data": data})).await;
    }
    client.publish(CHANNEL, json!({"by": publisher, "number": count - 1})).await;
    assert_eq!(client.close().await.code, Some(1000));
}

/// The numbers that one publisher's messages have, in the order in which they were heard.
fn numbers_by(publisher: &str, heard: &[Value]) -> Vec<u64> {
    let by_it = heard.iter().filter(|data| data["by"] == publisher);
    by_it.map(|data| data["number"].as_u64().expect("a number")).collect()
}

/// Four publishers on three nodes at once: every subscriber hears each message once, those of a publisher in the order
/// of sending, and all subscribers agree on one order of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_subscriber_hears_every_message_once_and_in_one_order() {
    const COUNT: u64 = 200;
    let [a, b, c] = cluster().await;
    let mut subscribers = Vec::new();
    for node in [&a, &a, &b, &b, &c, &c] {
        let mut subscriber = Client::connect(node.public_addr()).await;
        subscriber.subscribe(CHANNEL).await;
        subscribers.push(subscriber);
    }

    let publishing = async {
        tokio::join!(
            publish_by_client(a.public_addr(), "a", COUNT),
            publish_by_client(b.public_addr(), "b", COUNT),
            publish_by_client(c.public_addr(), "c", COUNT),
            publish_by_api(b.internal_addr(), "api", COUNT),
        )
    };
    let all = usize::try_from(4 * COUNT).unwrap();
    let hearing = join_all(subscribers.iter_mut().map(|it| it.messages(CHANNEL, all)));
    let (_, heard) = tokio::join!(publishing, hearing);

    for publisher in ["a", "b", "c", "api"] {
        assert_eq!(numbers_by(publisher, &heard[0]), (0..COUNT).collect::<Vec<_>>(), "by {publisher}");
    }
    for other in &heard[1..] {
        assert_eq!(other, &heard[0]);
    }
    publish_by_api(c.internal_addr(), "last", 1).await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.message(CHANNEL).await["by"], "last", "nothing came twice");
    }
}

/// Many channels at once, spread over the lanes of two nodes: none loses, doubles or borrows a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn channels_do_not_mix() {
    const CHANNELS: u64 = 40;
    let [a, b] = cluster().await;
    let mut subscriber = Client::connect(a.public_addr()).await;
    let mut publisher = Client::connect(b.public_addr()).await;
    for channel in 0..CHANNELS {
        subscriber.subscribe(&format!("room:{channel}")).await;
    }
    let publishing = async {
        for number in 0..50_u64 {
            let batch: Vec<_> = (0..CHANNELS)
                .map(|it| json!({"type": "publish", "channel": format!("room:{it}"), "data": [it, number]}))
                .collect();
            publisher.send(batch.into()).await;
        }
    };
    let hearing = async {
        let mut next = vec![0; usize::try_from(CHANNELS).unwrap()];
        for _ in 0..CHANNELS * 50 {
            let event = subscriber.event().await;
            let channel = event["data"][0].as_u64().unwrap();
            assert_eq!(event["channel"], format!("room:{channel}"));
            let next = &mut next[usize::try_from(channel).unwrap()];
            assert_eq!(event["data"][1], *next, "in {channel}");
            *next += 1;
        }
    };
    tokio::join!(publishing, hearing);
    for channel in 0..CHANNELS {
        publisher.publish(&format!("room:{channel}"), json!("last")).await;
        assert_eq!(subscriber.message(&format!("room:{channel}")).await, "last", "nothing came twice");
    }
}

/// `echo: false` keeps a message from the publisher's own connection and from no other, on this node or another.
#[tokio::test]
async fn a_publisher_may_ask_not_to_hear_itself() {
    let [a, b] = cluster().await;
    let mut publisher = Client::connect(a.public_addr()).await;
    let mut beside = Client::connect(a.public_addr()).await;
    let mut elsewhere = Client::connect(b.public_addr()).await;
    for client in [&mut publisher, &mut beside, &mut elsewhere] {
        client.subscribe(CHANNEL).await;
    }
    let command = json!({"type": "publish", "channel": CHANNEL, "data": "quiet", "echo": false});
    assert_eq!(publisher.ask(command).await["type"], "published");
    publisher.publish(CHANNEL, json!("loud")).await;

    for client in [&mut beside, &mut elsewhere] {
        assert_eq!(client.messages(CHANNEL, 2).await, ["quiet", "loud"]);
    }
    assert_eq!(publisher.message(CHANNEL).await, "loud", "and nothing before it");
}

/// Once a later message has been heard by one subscriber, an earlier one has been offered to all.
#[tokio::test]
async fn whoever_unsubscribes_hears_nothing_more() {
    let [a, b] = cluster().await;
    let mut leaver = Client::connect(a.public_addr()).await;
    let mut stayer = Client::connect(a.public_addr()).await;
    let mut publisher = Client::connect(b.public_addr()).await;
    for client in [&mut leaver, &mut stayer] {
        client.subscribe(CHANNEL).await;
    }
    publisher.publish(CHANNEL, json!(1)).await;
    assert_eq!(leaver.message(CHANNEL).await, 1);
    assert_eq!(leaver.ask(json!({"type": "unsubscribe", "channel": CHANNEL})).await["type"], "unsubscribed");
    assert_eq!(stayer.message(CHANNEL).await, 1);
    for number in [2, 3] {
        publisher.publish(CHANNEL, json!(number)).await;
        assert_eq!(stayer.message(CHANNEL).await, number);
    }
    leaver.assert_silence().await;

    leaver.subscribe(CHANNEL).await;
    publisher.publish(CHANNEL, json!(4)).await;
    assert_eq!(leaver.message(CHANNEL).await, 4);
}

/// The data of a publication is the publisher's: it arrives as it was written, whitespace inside and all.
#[tokio::test]
async fn data_arrives_as_it_was_written() {
    let node = node("").await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe(CHANNEL).await;
    for data in [json!(null), json!(""), json!("ü€😀\u{0}\n\"\\"), json!([1, [2, {"a": {}}]]), json!(-0.5e-7)]
    {
        client.publish(CHANNEL, data.clone()).await;
        assert_eq!(client.message(CHANNEL).await, data);
    }
}
