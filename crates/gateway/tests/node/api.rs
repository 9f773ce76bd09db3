//! The server API on the internal listener.

use std::time::Duration;

use fanfare_testbed::{Client, eventually, http};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{cluster, configured, counted, node, start};

const GOOD: &str = r#"{"channel":"room:1","data":{"n":1}}"#;

#[tokio::test]
async fn what_is_published_is_heard() {
    let node = node("").await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    let answer =
        http::post(node.internal_addr(), "/api/publish", &["Content-Type: application/json"], GOOD).await;
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    let (published, epoch) = (answer.json(), answer.json()["epoch"].clone());
    assert!(epoch.is_string(), "the channel has history where no namespace is configured");
    assert_eq!(published, json!({"type": "published", "channel": "room:1", "epoch": epoch, "offset": 1}));
    assert_eq!(client.message("room:1").await, json!({"n": 1}));
    counted(&node, "fanfare_api_requests_total{method=\"publish\",status=\"2xx\"}", 1.0).await;
}

#[tokio::test]
async fn channels_are_those_that_anybody_hears_on_any_node() {
    let [one, two] = cluster().await;
    let (mut ann, mut bob) =
        (Client::connect(one.public_addr()).await, Client::connect(two.public_addr()).await);
    for channel in ["room:1", "lobby"] {
        ann.subscribe(channel).await;
    }
    for channel in ["room:1", "room:2"] {
        bob.subscribe(channel).await;
    }
    let listed = async |body: &str| {
        let answer = http::post(one.internal_addr(), "/api/channels", &[], body).await.json();
        assert_eq!(answer["type"], "channels", "{answer}");
        let mut listed: Vec<_> = answer["channels"].as_array().unwrap().clone();
        listed.sort_by_key(|it| it["channel"].as_str().map(str::to_owned));
        listed
    };
    let named = |name: &str, count: u64| json!({"channel": name, "users": count, "connections": count});
    let rooms = [named("room:1", 2), named("room:2", 1)];
    eventually("both nodes know", async || listed(r#"{"pattern":"room:*"}"#).await == rooms).await;
    assert_eq!(listed("{}").await.len(), 3);
    drop(bob);
    let rest = [named("room:1", 1)];
    eventually("who has gone counts no more", async || listed(r#"{"pattern":"room:*"}"#).await == rest).await;
}

#[tokio::test]
async fn who_is_limited_to_channels_is_told_of_no_others() {
    let node = node(
        "[namespaces.room]\npresence = true\n[api.callers.shop]\nkeys = [\"limited\"]\nscopes = [\"read\"]\n\
         channels = [\"room:1\"]\n[api.callers.all]\nkeys = [\"whole\"]\nscopes = [\"read\"]\n",
    )
    .await;
    let mut client = Client::connect(node.public_addr()).await;
    for channel in ["room:1", "room:2"] {
        client.subscribe(channel).await;
    }
    let listed = async |key: &str| {
        let key = format!("Authorization: Bearer {key}");
        let answer = http::post(node.internal_addr(), "/api/channels", &[&key], "{}").await.json();
        let channels = answer["channels"].as_array().expect("a list").iter();
        let mut names: Vec<_> = channels.map(|it| it["channel"].as_str().map(str::to_owned)).collect();
        names.sort();
        names.into_iter().flatten().collect::<Vec<_>>()
    };
    eventually("both are known", async || listed("whole").await == ["room:1", "room:2"]).await;
    assert_eq!(listed("limited").await, ["room:1"]);
}

#[tokio::test]
async fn a_bad_call_is_answered_with_the_error_object() {
    let node = node("[namespaces.room]\nmax_bytes = 16").await;
    let long = format!(r#"{{"channel":"room:1","data":"{}"}}"#, "x".repeat(20));
    for (status, path, body, code) in [
        (400, "/api/publish", "", 4400),
        (400, "/api/publish", "{", 4400),
        (400, "/api/publish", "[]", 4400),
        (400, "/api/publish", r#"{"channel":"room:1"}"#, 4400),
        (400, "/api/publish", r#"{"channel":"room 1","data":1}"#, 4400),
        (400, "/api/publish", "{\"channel\":\"room:1\",\"data\":\"\u{1}\"}", 4400),
        (404, "/api/publish", r#"{"channel":"elsewhere:1","data":1}"#, 4404),
        (404, "/api/shout", GOOD, 4404),
        (404, "/api/", GOOD, 4404),
        (413, "/api/publish", &long, 4413),
    ] {
        let answer = http::post(node.internal_addr(), path, &[], body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        let error = answer.json();
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &code.into()), "{error}");
    }
    counted(&node, "fanfare_api_requests_total{method=\"publish\",status=\"4xx\"}", 8.0).await;
    counted(&node, "fanfare_api_requests_total{method=\"other\",status=\"4xx\"}", 2.0).await;
}

#[tokio::test]
async fn other_methods_are_told_which_one_is_served() {
    let node = node("").await;
    for (address, path, allow) in [
        (node.internal_addr(), "/api/publish", "POST"),
        (node.internal_addr(), "/metrics", "GET, HEAD"),
        (node.internal_addr(), "/status", "GET, HEAD"),
        (node.public_addr(), "/health", "GET, HEAD"),
        (node.public_addr(), "/", "GET, HEAD"),
    ] {
        let request = format!("DELETE {path} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n\r\n");
        let answer = http::exchange(address, request.as_bytes()).await.unwrap();
        assert_eq!((answer.status, answer.header("Allow")), (405, Some(allow)), "{path}");
    }
}

#[tokio::test]
async fn with_keys_only_their_holders_may_call() {
    let node = node("[api]\nkeys = [\"first-key\", \"second-key\"]").await;
    for (status, header) in [
        (200, "Authorization: Bearer first-key"),
        (200, "authorization: bearer second-key"),
        (401, "Authorization: Bearer third-key"),
        (401, "Authorization: Bearer first-keys"),
        (401, "Authorization: Basic first-key"),
        (401, "Authorization: first-key"),
        (401, "Authorization: Bearer"),
    ] {
        let answer = http::post(node.internal_addr(), "/api/publish", &[header], GOOD).await;
        let challenge = (status == 401).then_some("Bearer");
        assert_eq!((answer.status, answer.header("WWW-Authenticate")), (status, challenge), "{header}");
    }
    // Who presents a key in Centrifugo's way is held against the same ones.
    for (status, header) in [
        (200, "X-API-Key: first-key"),
        (200, "Authorization: apikey second-key"),
        (401, "X-API-Key: third-key"),
        (401, "X-API-Key:"),
        (401, "Authorization: apikey third-key"),
    ] {
        let answer = http::post(node.internal_addr(), "/api/publish", &[header], GOOD).await;
        assert_eq!(answer.status, status, "{header}");
    }
    // Counting and health are for machines that hold no key.
    assert_eq!(http::get(node.internal_addr(), "/metrics").await.status, 200);
    assert_eq!(http::get(node.internal_addr(), "/ready").await.status, 200);
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_in_time() {
    let mut config = configured("[limits]\nmessage_bytes = 1024");
    config.limits.header_timeout = Duration::from_millis(300);
    let node = start(&config).await;
    let address = node.internal_addr();
    let publish = |bytes| format!(r#"{{"channel":"room:1","data":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(http::post(address, "/api/publish", &[], &publish(1024 - 2)).await.status, 200);
    assert_eq!(http::post(address, "/api/publish", &[], &publish(6 * 1024)).await.status, 413);

    // Declared and never sent.
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/publish HTTP/1.1\r\nHost: fanfare\r\nContent-Length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = http::read_response(&mut socket).await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("in time"), "{}", answer.text());
}

/// There is no path from the listener for clients to what operators and backends use.
#[tokio::test]
async fn the_public_listener_serves_nothing_internal() {
    let node = node("").await;
    for path in
        ["/metrics", "/api/publish", "/api/", "//metrics", "/metrics/", "/ws/../metrics", "/%6detrics"]
    {
        assert_eq!(http::get(node.public_addr(), path).await.status, 404, "{path}");
        assert_eq!(http::post(node.public_addr(), path, &[], GOOD).await.status, 404, "{path}");
    }
    for path in ["/", "/health", "/ready", "/status"] {
        assert_eq!(http::get(node.public_addr(), path).await.status, 200, "{path}");
    }
    for path in ["/sse", "/stream", "/poll", "/connection/websocket", "/app/key"] {
        assert_eq!(
            http::get(node.internal_addr(), path).await.status,
            404,
            "clients come in by their own door: {path}"
        );
    }
}
