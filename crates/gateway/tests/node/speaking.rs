//! Clients that hear by a response speak by `POST /publish`, as the conversation whose ticket they have.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

use std::net::SocketAddr;

use ::http::Request;
use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::http::{self, Response};
use fanfare_testbed::{Client, EventStream, Http2, LineStream, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::{now, token};
use crate::support::{configured, counted, node, socket_from};

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
    let (known, last) = ticket.split_at(ticket.len() - 1);
    let guess = format!("{known}{}", if last == "0" { "1" } else { "0" });
    for (ticket, status) in [("", 400), ("a.b", 400), (known, 400), (&guess, 404), (&ticket, 200)] {
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

/// Two nodes of one cluster, each with a name of its own.
async fn pair(text: &str) -> [Node; 2] {
    let (mut config, bus) = (configured(text), Bus::default());
    let first = Node::start_on(&config, &bus).await.unwrap();
    config.node.name = "another-node".into();
    [first, Node::start_on(&config, &bus).await.unwrap()]
}

const ERRANDS: &str = "fanfare_errands_total";

/// Whatever holds for a ticket on its own node holds for it on another.
#[tokio::test]
async fn a_listener_speaks_through_whichever_node_its_posts_come_to() {
    let [here, there] = pair(&format!("[auth.jwt]\nhmac_secret = \"{SECRET}\"\n{SUBSCRIBERS}")).await;
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "ann"})));
    let (mut ann, ticket) = listen(here.public_addr(), &[&bearer]).await;
    let (mut other, _) = listen(there.public_addr(), &[&bearer]).await;
    let mut quiet = message("room:1");
    quiet["echo"] = json!(false);
    quiet["id"] = json!("mine");
    let answer = post(there.public_addr(), &ticket, &quiet).await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("mine")), "{}", answer.text());
    assert_eq!(answer.json()["offset"], 1);
    assert_eq!(post(there.public_addr(), &ticket, &message("room:1")).await.json()["offset"], 2);
    for offset in [1, 2] {
        let event = other.json().await.unwrap();
        assert_eq!((&event["from"]["user"], &event["offset"]), (&json!("ann"), &json!(offset)));
    }
    assert_eq!(ann.json().await.unwrap()["offset"], 2, "it asked not to hear the first");
    // What it does not hear it may not speak on; what is no command does not go anywhere.
    let elsewhere = post(there.public_addr(), &ticket, &message("room:2")).await;
    assert_eq!((elsewhere.status, &elsewhere.json()["channel"]), (403, &json!("room:2")));
    assert_eq!(post(there.public_addr(), &ticket, &json!({"channel": "room:1"})).await.status, 400);
    counted(&there, &format!("{ERRANDS}{{outcome=\"answered\"}}"), 3.0).await;
    drop(ann);
    let mut answer = None;
    eventually("the ticket ends with the stream", async || {
        answer = Some(post(there.public_addr(), &ticket, &message("room:1")).await);
        answer.as_ref().is_some_and(|it| it.status != 200)
    })
    .await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!(4404)), "{}", answer.text());
}

/// Each node knows all that was said with a ticket, since it is said on one of them.
#[tokio::test]
async fn the_rate_is_that_of_the_conversation_on_all_nodes_together() {
    let [here, there] =
        pair("[limits]\nmessages_per_second = 4\n[namespaces.room]\npublish = \"subscribers\"").await;
    let (_lines, ticket) = listen(here.public_addr(), &[]).await;
    let mut last = None;
    for (node, status) in [(&here, 200), (&there, 200), (&here, 200), (&there, 200), (&there, 429)] {
        let answer = post(node.public_addr(), &ticket, &message("room:1")).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        last = Some(answer);
    }
    let last = last.unwrap();
    assert!(last.json()["retry_after"].as_u64().is_some_and(|it| it > 0), "{}", last.text());
    assert_eq!(last.header("Retry-After"), Some("1"));
}

/// Anybody can make up the name of a node that never answers. Whoever does has only so many of such posts wait, and nobody
/// of another address waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_of_nodes_that_are_not_there_hold_up_nobody_else() {
    /// `ERRANDS_MAX`.
    const MOST: usize = 128;
    let [here, there] = pair(SUBSCRIBERS).await;
    let address = there.public_addr();
    let (_lines, ticket) = listen(here.public_addr(), &[]).await;
    let inventing = join_all((0..=MOST).map(async |number| {
        post(address, &format!("node-{number}.{number:032x}"), &message("room:1")).await
    }));
    let meanwhile = async {
        // One of them has found no room: the others wait.
        counted(&there, &format!("{ERRANDS}{{outcome=\"no_room\"}}"), 1.0).await;
        assert_eq!(post(address, &ticket, &message("room:1")).await.status, 503, "nor has its address");
        let mut other = socket_from("127.0.0.9", address).await;
        let body = message("room:1").to_string();
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: a\r\nAuthorization: Ticket {ticket}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        other.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(http::read_response(&mut other).await.unwrap().status, 200);
    };
    for answer in tokio::join!(inventing, meanwhile).0 {
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!(4503)), "{}", answer.text());
        assert_eq!(answer.header("Retry-After"), Some("1"));
    }
    assert_eq!(post(address, &ticket, &message("room:1")).await.status, 200, "there is room again");
}
