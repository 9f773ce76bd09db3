//! What a cluster fetches for publication: from real sources, which are faulted, by nodes that die.

use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, eventually, http};
use serde_json::{Value, json};

mod postgres;
mod redis_stream;

/// Of every test: publications are kept, so that they are heard once and in order.
const ROOM: &str = "[namespaces.room]\n[namespaces.room.history]\nsize = 10000\nttl_seconds = 600\n\
    [namespaces.plain]\n[limits]\nmessages_per_second = 0\n";

/// A client that hears a channel.
async fn subscriber(node: &Node, channel: &str) -> Client {
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe(channel).await;
    client
}

/// The numbers from 0 up, once and in order, as the data of so many messages.
async fn hears_all(client: &mut Client, channel: &str, count: usize) {
    let expected: Vec<Value> = (0..count).map(|number| json!(number)).collect();
    assert_eq!(client.messages(channel, count).await, expected, "{channel}");
}

/// The data of what is kept of a channel, as soon as the node's calls for it reach the broker.
async fn kept(node: &Node, channel: &str) -> Vec<Value> {
    let (mut kept, body) = (Vec::new(), json!({"channel": channel}).to_string());
    eventually("history is answered", async || {
        let answer = http::post(node.internal_addr(), "/api/history", &[], &body).await;
        let page = (answer.status == 200).then(|| answer.json());
        if let Some(publications) = page.as_ref().and_then(|page| page["messages"].as_array()) {
            kept = publications.iter().map(|it| it["data"].clone()).collect();
        }
        page.is_some()
    })
    .await;
    kept
}

/// Waits until a node says whether something of it is degraded.
async fn degraded(node: &Node, what: &Value) {
    eventually(format_args!("degraded is {what}"), async || {
        let report = http::get(node.public_addr(), "/ready").await;
        // Clients may come all the same.
        report.status == 200 && report.json()["degraded"] == *what
    })
    .await;
}
