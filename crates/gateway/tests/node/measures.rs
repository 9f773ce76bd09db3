//! What operators are shown of the way of publications: how long each part takes, in which namespace, and what waits.

use fanfare_testbed::{Client, Samples, eventually, http};
use serde_json::json;

use crate::support::{cluster, counted, node};

fn stage(name: &str) -> String {
    format!("fanfare_stage_seconds_count{{stage=\"{name}\"}}")
}

/// Part by part, on the nodes where each can be measured by one clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_publications_is_measured_part_by_part() {
    let [one, two] = cluster().await;
    let (mut near, mut far) =
        (Client::connect(one.public_addr()).await, Client::connect(two.public_addr()).await);
    for client in [&mut near, &mut far] {
        client.subscribe("room:1").await;
    }
    let mut number = 0;
    let measured = async || {
        // A sixteenth of them is: by the microsecond at which they come.
        near.publish("room:1", json!(number)).await;
        assert_eq!(
            (near.message("room:1").await, far.message("room:1").await),
            (json!(number), json!(number))
        );
        number += 1;
        let (here, there) = (Samples::of(one.internal_addr()).await, Samples::of(two.internal_addr()).await);
        let all = [(&here, "accepted"), (&here, "heard"), (&here, "written"), (&there, "written")];
        all.iter().all(|(samples, name)| samples.value(&stage(name)) > 0.0)
    };
    eventually("each part has been measured", measured).await;
    let there = Samples::of(two.internal_addr()).await;
    assert_eq!(
        (there.value(&stage("accepted")), there.value(&stage("heard"))),
        (0.0, 0.0),
        "nothing is its own"
    );
}

#[tokio::test]
async fn namespaces_that_are_configured_are_told_apart() {
    let node = node("[namespaces.room]\n[namespaces.news]\npublish = \"anyone\"").await;
    let mut clients = [Client::connect(node.public_addr()).await, Client::connect(node.public_addr()).await];
    for client in &mut clients {
        client.subscribe("room:1").await;
    }
    clients[0].subscribe("news:1").await;
    for number in 0..3 {
        clients[0].publish("room:1", json!(number)).await;
        clients[1].message("room:1").await;
    }
    clients[0].publish("news:7", json!("nobody hears it")).await;
    let of = |name: &str, namespace: &str| format!("fanfare_namespace_{name}{{namespace=\"{namespace}\"}}");
    for (name, namespace, value) in [
        ("published_total", "room", 3.0),
        ("published_total", "news", 1.0),
        ("published_total", "other", 0.0),
        ("deliveries_total", "room", 6.0),
        ("deliveries_total", "news", 0.0),
        ("subscriptions", "room", 2.0),
        ("subscriptions", "news", 1.0),
        ("dropped_total", "room", 0.0),
    ] {
        counted(&node, &of(name, namespace), value).await;
    }
    let [first, _second] = clients;
    first.close().await;
    counted(&node, &of("subscriptions", "room"), 1.0).await;
    counted(&node, &of("subscriptions", "news"), 0.0).await;
}

#[tokio::test]
async fn it_is_counted_what_came_of_recoveries() {
    let node = node("[namespaces.room.history]\nsize = 2\nttl_seconds = 60").await;
    let mut client = Client::connect(node.public_addr()).await;
    let entry = client.ask(json!({"type": "subscribe", "channel": "room:1"})).await;
    for number in 0..3 {
        let body = json!({"channel": "room:1", "data": number}).to_string();
        http::post(node.internal_addr(), "/api/publish", &[], &body).await;
    }
    client.messages("room:1", 3).await;
    let mut back = async |offset: u64| {
        client.ask(json!({"type": "unsubscribe", "channel": "room:1"})).await;
        let since = json!({"epoch": entry["epoch"], "offset": offset});
        client.ask(json!({"type": "subscribe", "channel": "room:1", "since": since})).await["recovered"]
            .clone()
    };
    assert_eq!((back(1).await, back(0).await), (json!(true), json!(false)));
    for (outcome, value) in [("recovered", 1.0), ("lost", 1.0), ("gap", 0.0)] {
        counted(&node, &format!("fanfare_recoveries_total{{outcome=\"{outcome}\"}}"), value).await;
    }
}

/// Every open connection is in one class by messages, and in one by bytes.
#[tokio::test]
async fn it_is_counted_for_how_many_connections_how_much_waits() {
    let node = node("").await;
    let clients = [Client::connect(node.public_addr()).await, Client::connect(node.public_addr()).await];
    counted(&node, "fanfare_queues{messages=\"0\"}", 2.0).await;
    counted(&node, "fanfare_queues_by_bytes{bytes=\"0\"}", 2.0).await;
    let samples = Samples::of(node.internal_addr()).await;
    assert_eq!((samples.sum("fanfare_queues"), samples.sum("fanfare_queues_by_bytes")), (2.0, 2.0));
    drop(clients);
}
