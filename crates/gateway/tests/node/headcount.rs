//! Users have so many connections on all nodes together.

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, eventually};
use serde_json::json;

use super::auth::token;
use crate::support::{configured, node};

const CONFIG: &str = "[auth]\nanonymous = true\n[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n\
    [limits]\nconnections_per_user = 2\n[presence]\nheartbeat_seconds = 1\n";

async fn node_on(bus: &Bus) -> Node {
    Node::start_on(&configured(CONFIG), bus).await.expect("a node starts")
}

/// Waits until a user is refused; whoever is let in before that goes at once.
async fn refused(node: &Node, token: &str) {
    eventually("the user has too many", async || {
        Client::with_token(node.public_addr(), token).await.err() == Some(Some(429))
    })
    .await;
}

/// Waits until a user is let in.
async fn welcome(node: &Node, token: &str) -> Client {
    let mut client = None;
    eventually("the user has a place", async || {
        client = Client::with_token(node.public_addr(), token).await.ok();
        client.is_some()
    })
    .await;
    client.expect("it was waited for")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_on_all_nodes_together() {
    let bus = Bus::default();
    let (a, b) = (node_on(&bus).await, node_on(&bus).await);
    let (ann, bob) = (token(&json!({"sub": "ann"})), token(&json!({"sub": "bob"})));
    let (on_a, on_b) = (welcome(&a, &ann).await, welcome(&b, &ann).await);
    for node in [&a, &b] {
        refused(node, &ann).await;
    }
    let _bob = welcome(&a, &bob).await;
    // One that goes makes room on every node, and one that takes it takes it from every node.
    drop(on_b);
    let second = welcome(&a, &ann).await;
    refused(&b, &ann).await;
    // A node that starts later is told.
    let c = node_on(&bus).await;
    refused(&c, &ann).await;
    // Nobody is counted on a node that has drained.
    drop((on_a, second));
    let (first, second) = (welcome(&b, &ann).await, welcome(&b, &ann).await);
    refused(&c, &ann).await;
    b.drain().await;
    let _kept = (welcome(&c, &ann).await, welcome(&c, &ann).await);
    refused(&a, &ann).await;
    drop((first, second));
}

/// A bound that is set while nodes run holds for those who have come before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_that_is_set_later_counts_who_is_there_already() {
    let bus = Bus::default();
    let unbounded = configured(&CONFIG.replace("connections_per_user = 2", "connections_per_user = 0"));
    let start = async || Node::start_on(&unbounded, &bus).await.expect("a node starts");
    let (a, b) = (start().await, start().await);
    let ann = token(&json!({"sub": "ann"}));
    let _open = (welcome(&a, &ann).await, welcome(&a, &ann).await, welcome(&b, &ann).await);
    for node in [&a, &b] {
        node.reload(&configured(CONFIG)).await;
    }
    for node in [&a, &b] {
        refused(node, &ann).await;
    }
    let alone = node(CONFIG).await;
    welcome(&alone, &ann).await;
}
