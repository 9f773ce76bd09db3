//! Who is on a channel is known on every node, and told once, whatever becomes of nodes and connections.

use std::net::SocketAddr;
use std::time::Duration;

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, eventually, http};
use serde_json::{Value, json};

use crate::auth::{SECRET, token};
use crate::support::{configured, start};

const CHANNEL: &str = "room:1";

/// A grace that a test can wait for.
const GRACE: Duration = Duration::from_millis(200);

/// Longer than any test takes. A process that stands still for a whole heartbeat has crashed as far as anybody can tell: its
/// members have left, and join again when it goes on.
const NEVER: Duration = Duration::from_secs(600);

/// Two nodes on one bus, where anonymous clients are let in, and those with tokens.
async fn pair(heartbeat: Duration, grace: Duration) -> [Node; 2] {
    let mut config =
        configured(&format!("[auth]\nanonymous = true\n[auth.jwt]\nhmac_secret = \"{SECRET}\"\n"));
    config.presence.grace = grace;
    config.presence.heartbeat = heartbeat;
    let bus = Bus::default();
    let start = async || Node::start_on(&config, &bus).await.expect("a node starts");
    [start().await, start().await]
}

/// A client that is told who joins and leaves.
async fn listener(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    let told = client.ask(json!({"type": "subscribe", "channel": CHANNEL, "presence": true})).await;
    assert_eq!(told["type"], "subscribed", "{told}");
    client
}

async fn present(client: &mut Client, members: bool) -> Value {
    client.ask(json!({"type": "presence", "channel": CHANNEL, "members": members})).await
}

/// Waits until so many users with so many connections are there, as a client is told.
async fn counts(client: &mut Client, users: u64, connections: u64) {
    eventually(format_args!("{users} users and {connections} connections"), async || {
        let told = present(client, false).await;
        (told["users"].as_u64(), told["connections"].as_u64()) == (Some(users), Some(connections))
    })
    .await;
}

/// A subscriber with a name.
async fn known(address: SocketAddr, user: &str) -> Client {
    let token = token(&json!({"sub": user}));
    let mut client = Client::with_token(address, &token).await.expect("the token is good");
    client.subscribe(CHANNEL).await;
    client
}

fn session(client: &Client) -> Value {
    client.welcome()["session"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_is_told_on_every_node() {
    let [a, b] = pair(NEVER, GRACE).await;
    let mut listening = [listener(a.public_addr()).await];
    counts(&mut listening[0], 1, 1).await; // Else the guest could be written down first.
    let mut guest = Client::connect(b.public_addr()).await;
    guest.subscribe(CHANNEL).await;
    let member = json!({"user": null, "session": session(&guest), "info": null});
    for client in &mut listening {
        let joined = client.event().await;
        assert_eq!(joined, json!({"type": "joined", "channel": CHANNEL, "member": member}));
    }

    let told = present(&mut guest, true).await;
    assert_eq!((&told["users"], &told["connections"]), (&json!(2), &json!(2)), "{told}");
    let members = told["members"].as_array().expect("they are named");
    assert!(members.contains(&member), "{told}");
    let counted = present(&mut listening[0], false).await;
    assert_eq!(counted.get("members"), None, "{counted}");
    let body = json!({"channel": CHANNEL, "members": false}).to_string();
    let answer = http::post(b.internal_addr(), "/api/presence", &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["users"], 2, "{}", answer.text());

    guest.close().await;
    for client in &mut listening {
        let left = client.event().await;
        assert_eq!(left, json!({"type": "left", "channel": CHANNEL, "member": member}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_of_a_drained_node_have_left_when_their_grace_is_over() {
    let [a, b] = pair(Duration::from_secs(1), GRACE).await;
    let mut stays = listener(a.public_addr()).await;
    let mut goes = Client::connect(b.public_addr()).await;
    goes.subscribe(CHANNEL).await;
    let gone = session(&goes);
    assert_eq!(stays.event().await["member"]["session"], gone);
    let (_, _) = tokio::join!(b.drain(), async {
        goes.goodbye().await;
        drop(goes);
    });
    // On a busy machine the node may have been missed for a moment before.
    let left = loop {
        let event = stays.event().await;
        if event["type"] == "left" {
            break event;
        }
    };
    assert_eq!(left["member"]["session"], gone, "{left}");
    counts(&mut stays, 1, 1).await;
}

/// However many connections a user has, on whatever nodes, and however often they are made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_comes_back_within_the_grace_is_one_user_and_has_never_left() {
    let [a, b] = pair(NEVER, NEVER).await;
    let mut listener = listener(a.public_addr()).await;
    let mut ann = known(b.public_addr(), "ann").await;
    let joined = listener.event().await;
    assert_eq!((&joined["type"], &joined["member"]["user"]), (&json!("joined"), &json!("ann")), "{joined}");
    for node in [&a, &b, &b, &a] {
        ann.close().await;
        ann = known(node.public_addr(), "ann").await;
        counts(&mut listener, 2, 2).await;
    }
    let _other = known(a.public_addr(), "ann").await;
    counts(&mut ann, 2, 3).await;
    let _bob = known(b.public_addr(), "bob").await;
    let joined = listener.event().await;
    assert_eq!((&joined["type"], &joined["member"]["user"]), (&json!("joined"), &json!("bob")), "{joined}");
    counts(&mut listener, 3, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_presence_is_off_nobody_is_counted_and_subscribing_works() {
    let config =
        configured("[namespaces.room]\npublish = \"anyone\"\nsubscribe = \"anyone\"\npresence = false");
    let node = start(&config).await;
    let mut client = listener(node.public_addr()).await;
    let refused = present(&mut client, true).await;
    assert_eq!((&refused["code"], &refused["message"]), (&json!(4404), &json!("presence is off here")));
    let mut other = listener(node.public_addr()).await;
    other.publish(CHANNEL, json!(1)).await;
    assert_eq!(client.message(CHANNEL).await, 1, "and nothing came before it");
    let body = json!({"channel": CHANNEL}).to_string();
    assert_eq!(http::post(node.internal_addr(), "/api/presence", &[], &body).await.status, 404);
}

/// A crowd that would overflow the queue of whoever asks is refused, and the connection lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_too_large_for_the_queue_is_refused() {
    let mut config = configured("");
    config.limits.queue_bytes = 2048.try_into().expect("not 0");
    let node = start(&config).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(node.public_addr()).await;
        client.subscribe(CHANNEL).await;
        crowd.push(client);
    }
    let asking = &mut crowd[0];
    eventually("all are counted", async || present(asking, false).await["connections"] == 20).await;
    let refused = present(asking, true).await;
    assert_eq!((&refused["code"], &refused["reason"]), (&json!(4413), &json!("too_large")), "{refused}");
}
