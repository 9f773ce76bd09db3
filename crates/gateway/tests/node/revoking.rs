//! What backends order of all nodes: to disconnect somebody, and to take somebody's tokens no longer, used or not.

use std::net::SocketAddr;

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, eventually, http};
use serde_json::{Value, json};

use super::auth::{now, token};
use crate::support::{closed_with, configured, counted};

const CONFIG: &str = "[auth]\nanonymous = true\n\
    [auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n";

async fn pair() -> ([Node; 2], Bus) {
    let bus = Bus::default();
    let start = async || Node::start_on(&configured(CONFIG), &bus).await.expect("a node starts");
    ([start().await, start().await], bus)
}

async fn order(node: &Node, method: &str, body: Value) {
    let answer = http::post(node.internal_addr(), &format!("/api/{method}"), &[], &body.to_string()).await;
    assert_eq!((answer.status, answer.text()), (200, "{}"), "{method} {body}");
}

/// Connects, once the node has heard the orders that were given before it started.
async fn connect(address: SocketAddr, token: &str) -> Client {
    let mut client = None;
    eventually("a token is taken", async || {
        client = Client::with_token(address, token).await.ok();
        client.is_some()
    })
    .await;
    client.expect("it was waited for")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_user_goes_on_every_node_and_its_old_tokens_open_none() {
    let ([a, b], _bus) = pair().await;
    let of = |user: &str, issued: u64| token(&json!({"sub": user, "iat": issued, "exp": now() + 3600}));
    let (old, unused) = (of("ann", now() - 10), of("ann", now() - 5));
    let mut here = connect(a.public_addr(), &old).await;
    let mut there = connect(b.public_addr(), &old).await;
    let mut other = connect(b.public_addr(), &of("bob", now() - 10)).await;
    order(&a, "revoke", json!({"user": "ann"})).await;
    for client in [&mut here, &mut there] {
        assert_eq!(client.goodbye().await.code, Some(4401));
    }
    for node in [&a, &b] {
        for token in [&old, &unused] {
            assert_eq!(Client::with_token(node.public_addr(), token).await.err(), Some(Some(401)));
        }
    }
    // In the first message as in the request.
    let mut late = Client::connect(b.public_addr()).await;
    let refused = late.ask(json!({"type": "auth", "token": unused})).await;
    assert_eq!((&refused["code"], &refused["message"]), (&json!(4401), &json!("the token has been revoked")));
    other.publish("room:1", json!("still here")).await;
    connect(b.public_addr(), &of("ann", now() + 2)).await;
    counted(&b, "fanfare_tokens_refused_total{reason=\"revoked\"}", 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_is_revoked_by_its_name_and_a_connection_that_renewed_it_stays() {
    let ([a, b], _bus) = pair().await;
    let named = |name: &str| token(&json!({"sub": "ann", "jti": name}));
    let mut first = connect(a.public_addr(), &named("t1")).await;
    let mut beside = connect(b.public_addr(), &named("t1")).await;
    let mut second = connect(b.public_addr(), &named("t2")).await;
    let mut renewed = connect(b.public_addr(), &named("t1")).await;
    let refreshed = renewed.ask(json!({"type": "auth", "token": named("t3")})).await;
    assert_eq!(refreshed["type"], "refreshed", "{refreshed}");
    order(&b, "revoke", json!({"token": "t1"})).await;
    for client in [&mut first, &mut beside] {
        assert_eq!(client.goodbye().await.code, Some(4401));
    }
    second.publish("room:1", json!(1)).await;
    renewed.publish("room:1", json!(1)).await;
    let refused = second.ask(json!({"type": "auth", "token": named("t1")})).await;
    assert_eq!(refused["code"], 4401, "nor can it be gone back to: {refused}");
    order(&b, "revoke", json!({"token": "t3"})).await;
    assert_eq!(renewed.goodbye().await.code, Some(4401));
}

/// A node that starts later hears what was ordered before it takes any token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_later_knows_what_was_revoked() {
    let ([a, _b], bus) = pair().await;
    let (revoked, good) = (token(&json!({"sub": "ann", "jti": "t1"})), token(&json!({"sub": "bob"})));
    order(&a, "revoke", json!({"token": "t1", "ttl_seconds": 60})).await;
    order(&a, "disconnect", json!({"user": "bob"})).await;
    let late = Node::start_on(&configured(CONFIG), &bus).await.expect("a node starts");
    for _ in 0..3 {
        let status = Client::with_token(late.public_addr(), &revoked).await.err();
        assert!(matches!(status, Some(Some(401 | 503))), "{status:?}");
    }
    let mut client = connect(late.public_addr(), &good).await;
    assert_eq!(Client::with_token(late.public_addr(), &revoked).await.err(), Some(Some(401)));
    client.publish("room:1", json!("an order to disconnect is not for those who come later")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_disconnects_a_user_or_a_session_wherever_it_is() {
    let ([a, b], _bus) = pair().await;
    let ann = token(&json!({"sub": "ann"}));
    let mut here = connect(a.public_addr(), &ann).await;
    let mut there = connect(b.public_addr(), &ann).await;
    let mut guest = Client::connect(b.public_addr()).await;
    let mut stays = Client::connect(b.public_addr()).await;
    order(&a, "disconnect", json!({"session": guest.welcome()["session"]})).await;
    let goodbye = guest.goodbye().await;
    assert_eq!(goodbye.code, Some(4403));
    assert_eq!(goodbye.closing.expect("it is told")["reconnect"], false);
    order(&b, "disconnect", json!({"user": "ann", "code": 1001})).await;
    for client in [&mut here, &mut there] {
        let goodbye = client.goodbye().await;
        assert_eq!(goodbye.code, Some(1001));
        assert_eq!(goodbye.closing.expect("it is told")["reconnect"], true);
    }
    stays.publish("room:1", json!(1)).await;
    connect(a.public_addr(), &ann).await;
    counted(&b, &closed_with(4403), 1.0).await;
}

/// Orders travel on a channel that is nobody's: a client could order others away, or see who is.
#[tokio::test]
async fn nobody_else_hears_or_gives_orders() {
    let ([a, _b], _bus) = pair().await;
    let mut client = Client::connect(a.public_addr()).await;
    let mut victim = Client::connect(a.public_addr()).await;
    let channel = "$fanfare:orders";
    let order =
        json!({"at": 0, "do": "disconnect", "whom": {"session": victim.welcome()["session"]}, "code": 4403});
    for command in [
        json!({"type": "subscribe", "channel": channel}),
        json!({"type": "history", "channel": channel}),
        json!({"type": "presence", "channel": channel}),
        json!({"type": "publish", "channel": channel, "data": order}),
    ] {
        let refused = client.ask(command).await;
        assert_eq!(refused["code"], 4404, "{refused}");
    }
    let body = json!({"channel": channel, "data": order}).to_string();
    assert_eq!(http::post(a.internal_addr(), "/api/publish", &[], &body).await.status, 404);
    victim.publish("room:1", json!("still here")).await;
}
