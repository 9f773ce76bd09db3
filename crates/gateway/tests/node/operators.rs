//! What operators have of a node: their console, what their key lets them do, and hearing channels with it.

use data_encoding::BASE64URL_NOPAD;
use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, http};
use serde_json::{Value, json};

use crate::support::{configured, node};

/// A namespace that is closed to clients, pages that may connect elsewhere, and callers of all kinds.
const GUARDED: &str = "[auth]\nanonymous = true\n[origin]\nallow = [\"https://app.example.com\"]\n\
    [namespaces.room]\nsubscribe = \"token\"\npublish = \"none\"\n\
    [namespaces.shop]\nsubscribe = \"token\"\n\
    [api]\nkeys = [\"root-key/+=\"]\n\
    [api.callers.eye]\nkeys = [\"eye\"]\nscopes = [\"read\"]\n\
    [api.callers.near]\nkeys = [\"near\"]\nscopes = [\"read\"]\nchannels = [\"room:*\"]\n\
    [api.callers.mouth]\nkeys = [\"mouth\"]\nscopes = [\"publish\"]\n";

#[tokio::test]
async fn each_listener_has_a_page_of_its_own() {
    let node = node("").await;
    for (address, own, other) in [
        (node.internal_addr(), "/console/main.js", "/console/console.js"),
        (node.public_addr(), "/console/console.js", "/console/main.js"),
    ] {
        let page = http::get(address, "/").await;
        assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.header("Content-Security-Policy").unwrap().starts_with("default-src 'none'"), "{own}");
        assert_eq!(http::get(address, own).await.status, 200, "{own}");
        assert_eq!(http::get(address, other).await.status, 404, "{other}");
    }
}

#[tokio::test]
async fn a_page_that_is_not_wanted_is_not_served() {
    let node = node("[console]\ninternal = false\nenabled = false").await;
    for path in ["/", "/console/main.js", "/console"] {
        for address in [node.internal_addr(), node.public_addr()] {
            assert_eq!(http::get(address, path).await.status, 404, "{path}");
        }
    }
    assert_eq!(http::get(node.public_addr(), "/status").await.json()["console"], Value::Null);
}

#[tokio::test]
async fn the_way_to_the_console_is_told_on_the_same_machine_alone() {
    let node = node("").await;
    let told = async |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        http::exchange(node.public_addr(), request.as_bytes()).await.unwrap()
    };
    let place = format!("http://{}/", node.internal_addr());
    let answer = told("/console", "localhost:8000").await;
    assert_eq!((answer.status, answer.header("Location")), (307, Some(&*place)));
    assert_eq!(told("/status", "127.0.0.1").await.json()["console"], place);
    assert_eq!(told("/console", "fanfare.example").await.status, 404);
    assert_eq!(told("/status", "fanfare.example").await.json()["console"], Value::Null);
}

#[tokio::test]
async fn a_caller_is_told_what_its_key_opens() {
    let node = node(GUARDED).await;
    let rights = async |key: &str| {
        let request = format!(
            "GET /api/rights HTTP/1.1\r\nHost: fanfare\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        );
        let answer = http::exchange(node.internal_addr(), request.as_bytes()).await.unwrap();
        (answer.status, answer.json())
    };
    let told = |caller: Value, scope: &str, channels: Value| {
        (200, json!({"type": "rights", "caller": caller, "scopes": [scope], "channels": channels}))
    };
    assert_eq!(rights("root-key/+=").await, told(Value::Null, "admin", Value::Null));
    assert_eq!(rights("eye").await, told("eye".into(), "read", Value::Null));
    assert_eq!(rights("near").await, told("near".into(), "read", json!(["room:*"])));
    assert_eq!(rights("none").await.0, 401);
}

#[tokio::test]
async fn a_key_hears_the_channels_that_it_may_read_and_no_other_does() {
    let node = node(GUARDED).await;
    let address = node.internal_addr();
    let host = format!("http://{address}");
    let opened = async |name: &'static str, value: &str| {
        let mut client = Client::knock(address, "/ws", &[(name, value), ("Origin", &host)]).await?;
        client.greeted().await.map(|()| client)
    };
    let by_header = async |key: &str| opened("Authorization", &format!("Bearer {key}")).await;
    for key in ["mouth", "none", ""] {
        let status = by_header(key).await.err();
        assert_eq!(status, Some(Some(if key == "mouth" { 403 } else { 401 })), "{key}");
    }
    let root = format!("fanfare.v1.json, bearer.{}", BASE64URL_NOPAD.encode(b"root-key/+="));
    let mut root = opened("Sec-WebSocket-Protocol", &root).await.expect("a key may come as a subprotocol");
    let (mut eye, mut near) = (by_header("eye").await.unwrap(), by_header("near").await.unwrap());
    for client in [&mut root, &mut eye, &mut near] {
        client.subscribe("room:1").await;
    }
    root.publish("room:1", json!("from the console")).await;
    for client in [&mut root, &mut eye, &mut near] {
        assert_eq!(client.message("room:1").await, json!("from the console"));
    }
    let refused = near.ask(json!({"type": "subscribe", "channel": "shop:1"})).await;
    assert_eq!((&refused["type"], &refused["code"]), (&"error".into(), &4403.into()), "{refused}");
    let refused = eye.ask(json!({"type": "publish", "channel": "room:1", "data": 1})).await;
    assert_eq!((&refused["type"], &refused["code"]), (&"error".into(), &4403.into()), "{refused}");
    assert!(root.welcome()["expires"].is_u64(), "a key is looked at again: {}", root.welcome());
}

/// Figures come by themselves: nobody asks, and a key that is limited to some channels, or a client, does not hear them.
#[tokio::test]
async fn a_key_of_the_cluster_hears_what_every_node_says_of_itself() {
    let bus = Bus::default();
    let named = |name: &str| configured(&format!("[node]\nname = \"{name}\"\n{GUARDED}"));
    let node = Node::start_on(&named("node-a"), &bus).await.unwrap();
    let _other = Node::start_on(&named("node-b"), &bus).await.unwrap();
    let address = node.internal_addr();
    let figures = json!({"type": "subscribe", "channel": "$fanfare:figures"});
    let opened = async |key: &str| {
        let key = format!("Bearer {key}");
        let mut client = Client::knock(address, "/ws", &[("Authorization", &key)]).await.unwrap();
        client.greeted().await.unwrap();
        client
    };
    let mut eye = opened("eye").await;
    assert_eq!(eye.ask(figures.clone()).await["type"], "subscribed");
    let mut heard = std::collections::BTreeSet::new();
    while heard.len() < 2 {
        let facts = eye.message("$fanfare:figures").await;
        assert!(facts["connections"].is_u64() && facts["messages_sent_per_second"].is_number(), "{facts}");
        heard.insert(facts["node"].as_str().unwrap().to_owned());
    }
    for mut other in [opened("near").await, Client::connect(node.public_addr()).await] {
        assert_eq!(other.ask(figures.clone()).await["code"], 4404);
    }
    let refused = eye.ask(json!({"type": "publish", "channel": "$fanfare:figures", "data": 1})).await;
    assert_eq!(refused["type"], "error", "{refused}");
}

/// A page can have a browser on this machine send it anything, and hopes that nobody asks for a key.
#[tokio::test]
async fn without_keys_pages_of_others_are_refused() {
    let node = node("").await;
    let address = node.internal_addr();
    let body = r#"{"channel":"room:1","data":1}"#;
    let posted = async |host: &str, origin: &str| {
        let request = format!(
            "POST /api/publish HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: \
             close\r\n\r\n{body}",
            body.len()
        );
        http::exchange(address, request.as_bytes()).await.unwrap().status
    };
    let (own, rebound) =
        (format!("Origin: http://{address}\r\n"), format!("evil.example:{}", address.port()));
    assert_eq!(posted(&address.to_string(), "").await, 200, "a program sends no Origin");
    assert_eq!(posted(&address.to_string(), &own).await, 200);
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(posted(&address.to_string(), &format!("Origin: {origin}\r\n")).await, 403, "{origin}");
    }
    assert_eq!(
        posted(&rebound, &format!("Origin: http://{rebound}\r\n")).await,
        403,
        "a name that leads here"
    );
    let origin = ("Origin", "https://evil.example");
    assert_eq!(Client::knock(address, "/ws", &[origin]).await.err(), Some(Some(403)));
}

/// With keys a page of another origin has none, and is not heard either.
#[tokio::test]
async fn with_keys_pages_of_others_open_no_conversation() {
    let node = node(GUARDED).await;
    for origin in ["https://app.example.com", "https://evil.example"] {
        let headers = [("Authorization", "Bearer eye"), ("Origin", origin)];
        assert_eq!(
            Client::knock(node.internal_addr(), "/ws", &headers).await.err(),
            Some(Some(403)),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn nodes_say_how_full_they_are_and_what_fails() {
    let node = node("[limits]\nconnections = 77").await;
    let nodes = http::post(node.internal_addr(), "/api/nodes", &[], "{}").await.json();
    let facts = &nodes["nodes"][0];
    assert_eq!((&facts["connections_max"], &facts["failing"]), (&json!(77), &json!([])), "{facts}");
    assert!(facts["lag_ms"].is_u64() && facts["publish_to_write_p99_ms"].is_null(), "{facts}");
}
