//! A crowd so large that it is written to past its connections' tasks, over real sockets.

use std::collections::HashMap;
use std::sync::Arc;

use fanfare_testbed::{Client, Samples};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::node;

/// Over the 256 that are walked in one go.
const CROWD: usize = 300;

const PUBLICATIONS: u64 = 200;

/// Everybody speaks while it listens: replies and publications reach one socket by two ways, and come whole, once and in
/// order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_crowd_hears_everything_once_and_in_order_while_it_speaks() {
    let node = node("[limits]\nmessages_per_second = 0").await;
    let address = node.public_addr();
    let all_here = Arc::new(Barrier::new(CROWD + 1));
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        let all_here = all_here.clone();
        crowd.spawn(async move {
            let mut client = Client::connect(address).await;
            client.subscribe("news").await;
            all_here.wait().await;
            let (mut heard, mut pongs) = (0, 0);
            while heard < PUBLICATIONS || pongs < heard {
                let event = client.event().await;
                match event["type"].as_str() {
                    Some("message") => {
                        assert_eq!(event["data"], json!([heard, "x"]), "client {number}");
                        heard += 1;
                        client.send(json!({"type": "ping"})).await;
                    }
                    Some("pong") => pongs += 1,
                    _ => panic!("{event}"),
                }
            }
            client.close().await;
        });
    }
    let mut publisher = Client::connect(address).await;
    all_here.wait().await;
    for number in 0..PUBLICATIONS {
        publisher.send(json!({"type": "publish", "channel": "news", "data": [number, "x"]})).await;
    }
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    let samples = Samples::of(node.internal_addr()).await;
    let deliveries = PUBLICATIONS as f64 * CROWD as f64;
    let sent = samples.value("fanfare_messages_sent_total");
    assert!(sent >= 2.0 * deliveries, "publications and pongs are counted, whoever wrote them: {sent}");
    assert_eq!(samples.value("fanfare_outbox_bytes"), 0.0);
}

/// One of the crowd stops reading until its socket is full, and goes on later: it has missed nothing either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_of_a_large_crowd_pauses_misses_nothing() {
    let node = node("[limits]\nmessages_per_second = 0\nqueue_bytes = 4194304").await;
    let address = node.public_addr();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = Client::on(socket.connect(address).await.unwrap(), address).await.unwrap();
    slow.subscribe("news").await;
    slow.subscribe("filling").await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut client = Client::connect(address).await;
        client.subscribe("news").await;
        crowd.push(client);
    }
    let mut publisher = Client::connect(address).await;
    let filling = "x".repeat(60 * 1024);
    let is_full = async || Samples::of(node.internal_addr()).await.value("fanfare_outbox_bytes") > 0.0;
    for _ in 0..2 {
        let mut published = 0_u64;
        // News reaches it in each state of its socket: empty, filling up, full.
        while !is_full().await {
            publisher.publish("filling", json!([published, filling])).await;
            publisher.publish("news", json!([published, ""])).await;
            for client in &mut crowd {
                assert_eq!(client.message("news").await[0], published);
            }
            published += 1;
        }
        let mut heard = HashMap::new();
        for _ in 0..2 * published {
            let event = slow.event().await;
            let next = heard.entry(event["channel"].to_string()).or_insert(0);
            assert_eq!(event["data"][0], *next, "{}", event["channel"]);
            *next += 1;
        }
    }
}
