//! The past of a channel, as clients and backends are told of it on every node, and what becomes of it when it is removed.

use std::net::SocketAddr;

use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, eventually, http};
use serde_json::{Value, json};

use crate::support::cluster;

const CHANNEL: &str = "room:1";

async fn call(node: &Node, method: &str, body: Value) -> Value {
    let answer = http::post(node.internal_addr(), &format!("/api/{method}"), &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{method}: {}", answer.text());
    answer.json()
}

/// The offsets of a page that must be the same for a client of one node and a backend of the other.
async fn page(client: &mut Client, other: &Node, query: Value) -> Vec<u64> {
    let mut command = query.clone();
    command["type"] = json!("history");
    let mut told = client.ask(command).await;
    told.as_object_mut().expect("an object").remove("id");
    assert_eq!(told, call(other, "history", query).await);
    assert_eq!((&told["type"], &told["offset"]), (&json!("history"), &json!(10)), "where the stream stands");
    let messages = told["messages"].as_array().expect("a page");
    messages
        .iter()
        .map(|message| {
            assert_eq!(message["data"], message["offset"]);
            message["offset"].as_u64().expect("a number")
        })
        .collect()
}

/// Each is sent twice, under its key, to one node and then to the other.
async fn publish(nodes: &[Node; 2], client: &mut Client, numbers: std::ops::RangeInclusive<u64>) -> Value {
    let mut last = Value::Null;
    for number in numbers {
        let draft = json!({"channel": CHANNEL, "data": number, "key": format!("key {number}")});
        let mut command = draft.clone();
        command["type"] = json!("publish");
        let first = client.ask(command).await;
        let again = call(&nodes[1], "publish", draft).await;
        assert_eq!((&first["offset"], &again["offset"]), (&json!(number), &json!(number)), "{first} {again}");
        last = json!({"epoch": first["epoch"], "offset": first["offset"]});
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_told_alike_to_clients_and_backends_of_all_nodes() {
    let nodes = cluster::<2>().await;
    let mut client = Client::connect(nodes[0].public_addr()).await;
    let last = publish(&nodes, &mut client, 1..=10).await;
    let since = |offset: u64| json!({"epoch": last["epoch"], "offset": offset});
    for (query, expected) in [
        (json!({}), Vec::from_iter(1..=10)),
        (json!({"limit": 3}), vec![1, 2, 3]),
        (json!({"limit": 0}), vec![]),
        (json!({"since": since(7)}), vec![8, 9, 10]),
        (json!({"since": since(10)}), vec![]),
        (json!({"since": since(2), "limit": 2}), vec![3, 4]),
        (json!({"reverse": true, "limit": 2}), vec![10, 9]),
        (json!({"reverse": true, "since": since(3)}), vec![2, 1]),
    ] {
        let mut query = query;
        query["channel"] = json!(CHANNEL);
        assert_eq!(page(&mut client, &nodes[1], query.clone()).await, expected, "{query}");
    }
}

/// The answer to a `subscribe` that goes on after this position.
async fn come_back(address: SocketAddr, since: &Value) -> Value {
    let mut client = Client::connect(address).await;
    client.ask(json!({"type": "subscribe", "channel": CHANNEL, "since": since})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_is_shown_to_nobody_and_those_who_listen_go_on() {
    let nodes = cluster::<2>().await;
    let mut listeners = Vec::new();
    for node in &nodes {
        let mut client = Client::connect(node.public_addr()).await;
        client.subscribe(CHANNEL).await;
        listeners.push(client);
    }
    let mut publisher = Client::connect(nodes[0].public_addr()).await;
    let third = publish(&nodes, &mut publisher, 1..=3).await;
    let first = json!({"epoch": third["epoch"], "offset": 1});
    for listener in &mut listeners {
        assert_eq!(listener.messages(CHANNEL, 3).await, [1, 2, 3]);
    }
    assert_eq!(come_back(nodes[1].public_addr(), &first).await["recovered"], true);

    assert_eq!(call(&nodes[0], "history/remove", json!({"channel": CHANNEL})).await, json!({}));
    assert_eq!(
        come_back(nodes[0].public_addr(), &first).await["recovered"],
        false,
        "at once where it was asked"
    );
    let elsewhere = async || come_back(nodes[1].public_addr(), &first).await["recovered"] == false;
    eventually("and soon on the other node", elsewhere).await;
    assert_eq!(come_back(nodes[1].public_addr(), &third).await["recovered"], true, "who has missed nothing");
    let page = call(&nodes[1], "history", json!({"channel": CHANNEL})).await;
    assert_eq!((&page["offset"], &page["messages"]), (&json!(3), &json!([])), "{page}");

    publish(&nodes, &mut publisher, 4..=4).await;
    for listener in &mut listeners {
        assert_eq!(listener.message(CHANNEL).await, 4, "and nothing came before it");
    }
}
