//! Clients that hear by a response speak by `POST /publish`, as the conversation whose ticket they have.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

use std::net::SocketAddr;

use ::http::Request;
use fanfare_testbed::http::{self, Response};
use fanfare_testbed::{Client, EventStream, Http2, LineStream, eventually};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::auth::{now, token};
use crate::support::node;

const SUBSCRIBERS: &str =
    "[namespaces.room]\npublish = \"subscribers\"\n[namespaces.room.history]\nsize = 9\n";

async fn post(address: SocketAddr, ticket: &str, body: &Value) -> Response {
    let header = format!("Authorization: Ticket {ticket}");
    http::post(address, "/publish", &[&header], &body.to_string()).await
}

fn message(channel: &str) -> Value {
    json!({"channel": channel, "data": "hello"})
}

/// A stream that has heard `welcome` and `subscribed`, and its ticket.
async fn listen(address: SocketAddr, headers: &[&str]) -> (LineStream, String) {
    let mut lines = LineStream::open(address, "/stream?channel=room:1", headers).await.unwrap();
    let welcome = lines.json().await.unwrap();
    assert_eq!(lines.json().await.unwrap()["type"], "subscribed");
    let ticket = welcome["ticket"].as_str().unwrap().to_owned();
    assert!(ticket.starts_with(&format!("{}.", welcome["node"].as_str().unwrap())), "{welcome}");
    assert!(!ticket.contains(welcome["session"].as_str().unwrap()), "others may know the session");
    (lines, ticket)
}

#[tokio::test]
async fn a_listener_publishes_on_the_channels_that_it_hears() {
    let node = node(SUBSCRIBERS).await;
    let address = node.public_addr();
    let mut events = EventStream::open(address, "/sse?channel=room:1", "").await.unwrap();
    let ticket = events.next().await.unwrap()["ticket"].as_str().unwrap().to_owned();
    assert_eq!(events.next().await.unwrap()["type"], "subscribed");
    let answer = post(address, &ticket, &message("room:1")).await;
    assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(1)), "{}", answer.json());
    assert_eq!(events.next().await.unwrap()["data"], "hello");
    for (name, answer) in [
        ("another channel", post(address, &ticket, &message("room:2")).await),
        ("nobody", http::post(address, "/publish", &[], &message("room:1").to_string()).await),
    ] {
        assert_eq!((answer.status, &answer.json()["code"]), (403, &json!(4403)), "{name}");
    }
}

/// Its own name is on what it says, without another token, and it can ask not to hear itself.
#[tokio::test]
async fn what_a_listener_says_is_said_by_its_client() {
    let node = node(&format!("[auth.jwt]\nhmac_secret = \"{SECRET}\"\n{SUBSCRIBERS}")).await;
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "ann"})));
    let (mut ann, ticket) = listen(node.public_addr(), &[&bearer]).await;
    let (mut other, _) = listen(node.public_addr(), &[&bearer]).await;
    let mut quiet = message("room:1");
    quiet["echo"] = json!(false);
    assert_eq!(post(node.public_addr(), &ticket, &quiet).await.status, 200);
    assert_eq!(post(node.public_addr(), &ticket, &message("room:1")).await.status, 200);
    for offset in [1, 2] {
        let event = other.json().await.unwrap();
        assert_eq!((&event["from"]["user"], &event["offset"]), (&json!("ann"), &json!(offset)));
    }
    assert_eq!(ann.json().await.unwrap()["offset"], 2, "it asked not to hear the first");
}

const SECRET: &str = "a secret of thirty-two bytes and a few more";

#[tokio::test]
async fn a_ticket_is_good_for_its_conversation_alone_and_as_long_as_that_lasts() {
    let node = node("[limits]\nmessages_per_second = 0").await;
    let address = node.public_addr();
    let (lines, ticket) = listen(address, &[]).await;
    let guess = format!("{}0", &ticket[..ticket.len() - 1]);
    let elsewhere = ticket.replace('.', "x.");
    for (ticket, status) in [
        ("", 400),
        ("a.b", 400),
        (&ticket[1..], 404),
        (if guess == ticket { "n.00000000000000000000000000000000" } else { &guess }, 404),
        (&elsewhere, 404),
        (&ticket, 200),
    ] {
        let answer = post(address, ticket, &message("room:1")).await;
        assert_eq!(answer.status, status, "{ticket}: {}", answer.json());
    }
    drop(lines);
    let mut last = 0;
    eventually("the ticket ends with the stream", async || {
        last = post(address, &ticket, &message("room:1")).await.status;
        last != 200
    })
    .await;
    assert_eq!(last, 404);
    // Whoever speaks in the conversation needs none, and a poll is none.
    assert_eq!(Client::connect(address).await.welcome().get("ticket"), None);
    assert!(!http::get(address, "/poll?channel=a").await.text().contains("ticket"));
}

/// However many sockets carry it, and whoever else uses those.
#[tokio::test]
async fn the_rate_is_that_of_the_conversation() {
    let node = node("[limits]\nmessages_per_second = 2\n[namespaces.room]\npublish = \"subscribers\"").await;
    let (_lines, ticket) = listen(node.public_addr(), &[]).await;
    for status in [200, 200, 429] {
        let answer = post(node.public_addr(), &ticket, &message("room:1")).await;
        assert_eq!(answer.status, status, "{}", answer.json());
    }
    let (_lines, other) = listen(node.public_addr(), &[]).await;
    assert_eq!(post(node.public_addr(), &other, &message("room:1")).await.status, 200);
}

/// A body that is not read is not polled, and so its session does not see the time pass.
#[tokio::test]
async fn a_ticket_is_worth_nothing_once_the_token_is_over() {
    let node = node(&format!(
        "[auth.jwt]\nhmac_secret = \"{SECRET}\"\nleeway_seconds = 0\n[limits]\nqueue_bytes = 16777216"
    ))
    .await;
    let bearer = format!("Bearer {}", token(&json!({"sub": "ann", "exp": now() + 2})));
    let mut http2 = Http2::connect(node.public_addr()).await;
    let request = Request::get(format!("http://{}/stream?channel=room:1", node.public_addr()));
    let (_, mut stream) =
        http2.open(request.header("authorization", bearer).body(()).unwrap()).await.unwrap();
    let mut welcome = Vec::new();
    while welcome.last() != Some(&b'\n') {
        welcome.push(stream.read_u8().await.unwrap());
    }
    let welcome: Value = serde_json::from_slice(&welcome).unwrap();
    let ticket = welcome["ticket"].as_str().unwrap();
    let filling = json!({"channel": "room:1", "data": "x".repeat(50_000)});
    for _ in 0..20 {
        let body = filling.to_string();
        assert_eq!(http::post(node.internal_addr(), "/api/publish", &[], &body).await.status, 200);
    }
    let mut status = 200;
    eventually("the token is over", async || {
        status = post(node.public_addr(), ticket, &message("room:1")).await.status;
        !matches!(status, 200 | 429)
    })
    .await;
    assert_eq!(status, 401);
}
