//! What a node counts is what happened.

use fanfare_testbed::{Client, Samples, http};
use serde_json::json;

use crate::support::{closed_with, counted, node};

#[tokio::test]
async fn the_counters_tell_what_happened() {
    let node = node("[node]\nname = \"counted\"").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(node.public_addr()).await);
    }
    for client in &mut clients {
        client.subscribe("room:1").await;
        client.subscribe("room:2").await;
    }
    for number in 0..5 {
        clients[0].publish("room:1", json!(number)).await;
    }
    for client in &mut clients {
        client.messages("room:1", 5).await;
    }
    clients[1].ask(json!({"type": "subscribe", "channel": "room:1"})).await;
    clients[1].ask(json!({"type": "dance"})).await;

    let samples = Samples::of(node.internal_addr()).await;
    for (series, value) in [
        ("fanfare_connections", 3.0),
        ("fanfare_connections_accepted_total", 3.0),
        ("fanfare_subscriptions", 6.0),
        ("fanfare_channels", 2.0),
        ("fanfare_broker_watched_channels", 2.0),
        ("fanfare_broker_connected", 1.0),
        ("fanfare_commands_total{command=\"subscribe\"}", 7.0),
        ("fanfare_commands_total{command=\"publish\"}", 5.0),
        ("fanfare_commands_total{command=\"unknown\"}", 1.0),
        ("fanfare_command_errors_total{code=\"4409\"}", 1.0),
        ("fanfare_command_errors_total{code=\"4404\"}", 1.0),
        ("fanfare_messages_received_total", 13.0),
        // Three times `welcome`, two `subscribed` and five messages; five `published`, two errors.
        ("fanfare_messages_sent_total", 31.0),
        ("fanfare_fanout_publications_total", 5.0),
        ("fanfare_fanout_receivers_sum", 15.0),
        ("fanfare_outbox_bytes", 0.0),
        ("fanfare_panics_total", 0.0),
        ("fanfare_draining", 0.0),
    ] {
        assert!(
            (samples.value(series) - value).abs() < f64::EPSILON,
            "{series} is {}",
            samples.value(series)
        );
    }
    assert!(samples.value("fanfare_publish_to_write_seconds_count") >= 3.0);
    assert!(samples.value("fanfare_received_bytes_total") > 300.0);
    assert!(samples.value("fanfare_sent_bytes_total") > 1_000.0);
    assert!(samples.value("process_open_fds") > 0.0);

    let status = http::get(node.public_addr(), "/status").await.json();
    for (field, value) in [
        ("node", json!("counted")),
        ("connections", json!(3)),
        ("subscriptions", json!(6)),
        ("channels", json!(2)),
        ("broker", json!({"kind": "memory", "connected": true})),
        ("draining", json!(false)),
    ] {
        assert_eq!(status[field], value, "{status}");
    }

    for client in clients {
        client.close().await;
    }
    counted(&node, "fanfare_connections", 0.0).await;
    counted(&node, &closed_with(1000), 3.0).await;
    counted(&node, "fanfare_subscriptions", 0.0).await;
    counted(&node, "fanfare_channels", 0.0).await;
    counted(&node, "fanfare_broker_watched_channels", 0.0).await;
}

/// A label takes the values that are documented: whatever clients send, no series appears.
#[tokio::test]
async fn no_client_can_make_a_series() {
    let node = node("").await;
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let before = http::get(node.internal_addr(), "/metrics").await;
    let mut client = Client::connect(node.public_addr()).await;
    for word in ["a", "b", "c"] {
        client.ask(json!({"type": word, "channel": word})).await;
        client.subscribe(word).await;
        http::post(node.internal_addr(), &format!("/api/{word}"), &[], "{}").await;
        http::get(node.public_addr(), &format!("/{word}")).await;
    }
    let after = http::get(node.internal_addr(), "/metrics").await;
    assert_eq!(names(before.text()), names(after.text()));
}
