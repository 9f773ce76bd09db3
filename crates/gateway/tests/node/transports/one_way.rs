//! What is of the transports alone that carry nothing but events, and of `POST /publish` beside them.

use std::time::Duration;

use fanfare_testbed::{Client, EventStream, LineStream, Samples, eventually, http};
use serde_json::json;

use super::ROOM;
use super::ear::{Ear, Row};
use crate::auth::{now, token};
use crate::support::{configured, counted, node, start};

#[tokio::test]
async fn a_silent_stream_carries_heartbeats_and_ends_with_its_client() {
    let mut config = configured("");
    config.heartbeat.interval = Duration::from_millis(100);
    let node = start(&config).await;
    let mut events = EventStream::open(node.public_addr(), "/sse?channel=a", "").await.unwrap();
    let mut lines = LineStream::open(node.public_addr(), "/stream?channel=a", &[]).await.unwrap();
    for _ in 0..2 {
        events.next().await.unwrap();
        lines.json().await.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(lines.line().await.unwrap(), "");
    }
    counted(&node, "fanfare_connections", 2.0).await;
    Row::Poll.publish(node.public_addr(), "a", json!(1)).await;
    events.next().await.unwrap();
    assert!(events.comments() > 1, "{} comments", events.comments());
    drop((events, lines));
    for gauge in ["fanfare_connections", "fanfare_subscriptions", "fanfare_outbox_bytes"] {
        counted(&node, gauge, 0.0).await;
    }
    let samples = Samples::of(node.internal_addr()).await;
    for (transport, count) in [("websocket", 0.0), ("sse", 1.0), ("stream", 1.0), ("poll", 0.0)] {
        let series = format!("fanfare_transport_connections_total{{transport=\"{transport}\"}}");
        assert!((samples.value(&series) - count).abs() < f64::EPSILON, "{series}");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_a_poll_leaves_nothing_behind() {
    let node = node("").await;
    let mut ear = Ear::open(Row::Poll, node.public_addr(), &["a"]).await.unwrap();
    ear.hear().await;
    let held = tokio::time::timeout(Duration::from_millis(50), ear.hear()).await;
    assert!(held.is_err(), "nothing is to be said");
    counted(&node, "fanfare_connections", 0.0).await;
    counted(&node, "fanfare_subscriptions", 0.0).await;
}

#[tokio::test]
async fn a_poll_that_waits_in_vain_is_answered_with_where_it_was() {
    let node = node("").await;
    let first = http::get(node.public_addr(), "/poll?channel=a&channel=b").await.json();
    let since = first["since"].as_str().unwrap();
    assert_eq!(first["events"].as_array().unwrap().len(), 2, "{first}");
    let path = format!("/poll?channel=a&channel=b&since={since}&wait=0");
    let second = http::get(node.public_addr(), &path).await.json();
    assert_eq!(second["since"], since);
    let rewound = http::get(node.public_addr(), "/poll?channel=a&rewind=3").await.json();
    assert_eq!(rewound["events"].as_array().unwrap().len(), 1, "{rewound}");
}

/// What was missed on many channels is far more than one answer holds: several bring it, each channel's whole and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_of_many_channels_gets_what_it_missed_in_several_answers() {
    const CHANNELS: usize = 60;
    let node = node("[limits]\nmessages_per_second = 0\nqueue_bytes = 262144").await;
    let channels: String = (0..CHANNELS).map(|it| format!("channel={it}&")).collect();
    let poll = async |since: &str| {
        let answer = http::get(node.public_addr(), &format!("/poll?{channels}{since}&wait=0")).await;
        assert!(answer.body.len() < 1024 * 1024, "{} bytes in one answer", answer.body.len());
        answer.json()
    };
    let mut since = poll("").await["since"].as_str().unwrap().to_owned();
    let mut publisher = Client::connect(node.public_addr()).await;
    let filling = "x".repeat(24 * 1024);
    for channel in 0..CHANNELS {
        for number in 0..5 {
            publisher.publish(&channel.to_string(), json!([number, filling])).await;
        }
    }
    let mut heard = vec![Vec::new(); CHANNELS];
    let mut answers = 0;
    while heard.iter().any(|it| it.len() < 5) {
        let answer = poll(&format!("since={since}")).await;
        for event in answer["events"].as_array().unwrap() {
            let channel: usize = event["channel"].as_str().unwrap().parse().unwrap();
            if event["type"] == "message" {
                heard[channel].push(event["data"][0].as_u64().unwrap());
            } else {
                assert_eq!(event["recovered"], true, "{event}");
            }
        }
        answer["since"].as_str().unwrap().clone_into(&mut since);
        answers += 1;
        assert!(answers < 5 * CHANNELS, "every answer brings something: {heard:?}");
    }
    assert!(answers > 3, "{answers} answers");
    assert!(heard.iter().all(|it| *it == [0, 1, 2, 3, 4]), "{heard:?}");
}

#[tokio::test]
async fn those_who_come_and_go_are_told_to_whoever_asked_for_it() {
    let node = node("").await;
    let mut events = EventStream::open(node.public_addr(), "/sse?channel=a&presence=true", "").await.unwrap();
    for _ in 0..2 {
        events.next().await.unwrap();
    }
    let other = LineStream::open(node.public_addr(), "/stream?channel=a", &[]).await.unwrap();
    assert_eq!(events.next().await.unwrap()["type"], "joined");
    drop(other);
    assert_eq!(events.next().await.unwrap()["type"], "left");
}

#[tokio::test]
async fn what_was_rewound_comes_again_until_it_has_arrived() {
    let node = node("").await;
    for number in 1..=4 {
        Row::Poll.publish(node.public_addr(), "a", json!(number)).await;
    }
    let mut id = String::new();
    for (first, recovered) in [(3, true), (4, true)] {
        let path = "/sse?channel=a&rewind=2";
        let mut events = EventStream::open(node.public_addr(), path, &id).await.unwrap();
        events.next().await.unwrap();
        assert_eq!(events.next().await.unwrap()["recovered"], recovered);
        assert_eq!(events.last_event_id(), id, "nothing of it has arrived");
        assert_eq!(events.next().await.unwrap()["data"], first);
        events.last_event_id().clone_into(&mut id);
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_neither_hear_nor_speak() {
    let node = node("[origin]\nallow = [\"https://app.example.com\"]").await;
    let ask = async |method: &str, path: &str, origin: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        http::exchange(node.public_addr(), request.as_bytes()).await.unwrap()
    };
    for path in ["/sse?channel=a", "/stream?channel=a", "/poll?channel=a", "/publish"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let refused = ask(method, path, "https://evil.example").await;
            assert_eq!(refused.status, 403, "{method} {path}");
            assert_eq!(refused.header("Access-Control-Allow-Origin"), None);
        }
        let preflight = ask("OPTIONS", path, "https://app.example.com").await;
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("Access-Control-Allow-Origin"), Some("https://app.example.com"));
        let methods = preflight.header("Access-Control-Allow-Methods").unwrap();
        assert_eq!(methods.contains("POST"), path == "/publish", "{methods}");
        let other =
            ask(if path == "/publish" { "GET" } else { "POST" }, path, "https://app.example.com").await;
        assert_eq!((other.status, other.header("Allow")), (405, Some(methods)));
    }
    let heard = ask("GET", "/poll?channel=a", "https://app.example.com").await;
    assert_eq!((heard.status, heard.header("Vary")), (200, Some("Origin")));
    assert_eq!(heard.header("Access-Control-Allow-Origin"), Some("https://app.example.com"));
    let bad = ask("POST", "/publish", "https://app.example.com").await;
    assert_eq!(bad.status, 400);
    assert_eq!(bad.header("Access-Control-Allow-Origin"), Some("https://app.example.com"), "it may read why");
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_so_before_the_stream() {
    let node = node("").await;
    for path in ["/sse", "/stream?channel=a+b", "/poll?channel=a&since=7", "/sse?channel=a&presence=maybe"] {
        let answer = http::get(node.public_addr(), path).await;
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (400, Some(4400)), "{path}");
    }
    let big = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(65_536));
    let answer = http::post(node.public_addr(), "/publish", &[], &big).await;
    assert_eq!((answer.status, answer.json()["code"].as_u64()), (413, Some(4413)));
    let head = "HEAD /sse?channel=a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let head = http::exchange(node.public_addr(), head.as_bytes()).await.unwrap();
    assert_eq!((head.status, head.header("X-Accel-Buffering")), (200, Some("no")));
    counted(&node, "fanfare_connections_accepted_total", 0.0).await;
    eventually("refusals are counted", async || {
        Samples::of(node.internal_addr())
            .await
            .value("fanfare_handshakes_refused_total{reason=\"bad_request\"}")
            >= 4.0
    })
    .await;
}

/// The same token, the same permissions; what is published carries who did it.
#[tokio::test]
async fn a_token_opens_to_its_holder_what_it_opens_on_a_websocket() {
    let node = node(
        "[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n\
         [namespaces.room]\nsubscribe = \"token\"\npublish = \"none\"\n[namespaces.user]\nsubscribe = \"token\"\n",
    )
    .await;
    let address = node.public_addr();
    let body = r#"{"channel":"room:1","data":1}"#;
    for path in ["/sse?channel=room:1", "/stream?channel=room:1", "/poll?channel=room:1"] {
        let answer = http::get(address, path).await;
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (401, Some(4401)), "{path}");
        assert!(answer.header("WWW-Authenticate").is_some());
    }
    assert_eq!(http::post(address, "/publish", &[], body).await.status, 401);
    let bad = http::post(address, "/publish", &["Authorization: Bearer a.b.c"], body).await;
    assert_eq!(bad.status, 401);

    let allow = json!([{"channels": ["room:1"], "can": ["subscribe", "publish"]}]);
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "ann", "allow": allow})));
    let mut ear =
        LineStream::open(address, "/stream?channel=room:1&channel=user:ann", &[&bearer]).await.unwrap();
    let welcome = ear.json().await.unwrap();
    assert_eq!((&welcome["user"], &welcome["channels"]), (&json!("ann"), &json!([])));
    for channel in ["room:1", "user:ann"] {
        let event = ear.json().await.unwrap();
        assert_eq!((&event["type"], &event["channel"]), (&json!("subscribed"), &json!(channel)));
    }
    assert_eq!(http::post(address, "/publish", &[&bearer], body).await.status, 200);
    assert_eq!(ear.json().await.unwrap()["from"]["user"], "ann");
    let refused = LineStream::open(address, "/stream?channel=room:2", &[&bearer]).await.unwrap_err();
    assert_eq!((refused.status, refused.json()["code"].as_u64()), (403, Some(4403)));
    let refused = http::post(address, "/publish", &[&bearer], r#"{"channel":"room:2","data":1}"#).await;
    assert_eq!(refused.status, 403);
}

/// A token that ends ends what it had opened.
#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let node =
        node("[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\nleeway_seconds = 0")
            .await;
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "ann", "exp": now() + 2})));
    let mut ear = LineStream::open(node.public_addr(), "/stream?channel=a", &[&bearer]).await.unwrap();
    for _ in 0..2 {
        ear.json().await.unwrap();
    }
    let closing = ear.json().await.unwrap();
    assert_eq!((&closing["type"], &closing["code"]), (&json!("closing"), &json!(4401)));
    assert_eq!(ear.json().await, Err(fanfare_testbed::End::Complete));
}

#[tokio::test]
async fn a_namespace_that_is_withdrawn_ends_the_stream() {
    let node = node(ROOM).await;
    let mut events = EventStream::open(node.public_addr(), "/sse?channel=room:1", "").await.unwrap();
    for _ in 0..2 {
        events.next().await.unwrap();
    }
    node.reload(&configured("[namespaces.other]\n")).await;
    let unsubscribed = events.next().await.unwrap();
    assert_eq!((&unsubscribed["type"], &unsubscribed["code"]), (&json!("unsubscribed"), &json!(4404)));
    assert_eq!(events.next().await, Err(fanfare_testbed::End::Complete));
    assert_eq!(
        events.into_lines().then_get("/sse?channel=room:1").await.status,
        404,
        "on a socket that lives"
    );
    counted(&node, &crate::support::closed_with(1000), 1.0).await;
}
