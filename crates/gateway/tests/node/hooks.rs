//! A backend that is asked who clients are and what they may do: what it hears, and what its answers come to.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use fanfare_gateway::node::Node;
use fanfare_testbed::backend::{Asked, Backend};
use fanfare_testbed::{Client, LineStream, http};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::auth::{now, token};
use crate::support::{configured, counted, node, start};

mod failing;
mod lasting;
mod saying;
mod weighing;

pub(crate) type Answer = ::http::Response<Full<Bytes>>;

/// What an application says: a status and a body.
pub(crate) fn says(status: u16, body: impl Into<Bytes>) -> Answer {
    ::http::Response::builder().status(status).body(Full::new(body.into())).expect("an answer")
}

/// An application that answers each question, given as JSON, like this.
async fn application(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Backend {
    let answer = Arc::new(answer);
    Backend::start(move |asked: Asked| {
        let question = serde_json::from_slice(asked.body()).expect("a question is JSON");
        let answer = says(200, answer(&question).to_string());
        async move { answer }
    })
    .await
}

/// The questions so far, as JSON.
fn questions(backend: &Backend) -> Vec<Value> {
    let asked = backend.asked();
    asked.iter().map(|(_, body)| serde_json::from_slice(body).expect("a question is JSON")).collect()
}

/// A node that asks this backend who clients are.
async fn introducing(backend: &Backend, more: &str) -> Node {
    node(&format!("[hooks]\nconnect = \"{}\"\n{more}", backend.url("/connect"))).await
}

fn outcome(hook: &str, outcome: &str) -> String {
    format!("fanfare_hooks_total{{hook=\"{hook}\",outcome=\"{outcome}\"}}")
}

/// The question names the client, is signed, and comes with the headers on the list and no others; the answer is what a token
/// would have said.
#[tokio::test]
async fn the_backend_hears_about_a_client_and_says_who_it_is() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = heard.clone();
    let backend = Backend::start(move |asked: Asked| {
        kept.lock().push(asked);
        async {
            let body = r#"{"user":"ann","info":{"name":"Ann"},"channels":["news"],
                "allow":[{"channels":["closed:*"],"can":["publish"]}]}"#;
            says(200, body)
        }
    })
    .await;
    let more = "secret = \"of both\"\nheaders = [\"Cookie\", \"x-tenant\"]\n[proxy]\ntrusted = [\"127.0.0.1\"]\n\
        [namespaces.default]\nsubscribe = \"token\"\n[namespaces.closed]\npublish = \"none\"\npresence = true\n";
    let node = introducing(&backend, more).await;
    let headers = [
        ("Cookie", "sid=1"),
        ("X-Tenant", "acme"),
        ("X-Secret", "not on the list"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("Authorization", "Basic bm8="),
    ];
    let mut client =
        Client::knock(node.public_addr(), "/ws", &headers).await.expect("the upgrade comes first");
    client.greeted().await.expect("it is welcome");
    assert_eq!((&client.welcome()["user"], &client.welcome()["channels"]), (&json!("ann"), &json!(["news"])));
    client.subscribe("closed:1").await;
    client.publish("closed:1", json!(1)).await;
    let members = client.ask(json!({"type": "presence", "channel": "closed:1"})).await;
    assert_eq!(members["members"][0]["info"], json!({"name": "Ann"}), "{members}");

    let heard = std::mem::take(&mut *heard.lock());
    let [asked] = &heard[..] else { panic!("one connection is one question") };
    assert_eq!((asked.method().as_str(), asked.uri().path()), ("POST", "/connect"));
    let header = |name: &str| asked.headers().get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((header("cookie"), header("x-tenant")), (Some("sid=1"), Some("acme")));
    assert_eq!((header("x-secret"), header("authorization"), header("x-forwarded-for")), (None, None, None));
    let expected = HEXLOWER.encode(&hmac_sha256::HMAC::mac(asked.body(), b"of both"));
    assert_eq!(header("fanfare-signature"), Some(format!("sha256={expected}").as_str()));
    let question: Value = serde_json::from_slice(asked.body()).expect("JSON");
    assert_eq!(question["type"], "connect");
    assert_eq!((&question["address"], &question["transport"]), (&json!("192.0.2.7"), &json!("websocket")));
    assert_eq!((&question["user"], &question["node"]), (&Value::Null, &client.welcome()["node"]));
    assert_eq!(question["session"], client.welcome()["session"]);
    counted(&node, &outcome("connect", "allowed"), 1.0).await;
}

/// A refusal says why in the application's words, in the conversation or, where there is none yet, in the answer.
#[tokio::test]
async fn whom_the_backend_refuses_is_told_why() {
    let backend = application(|question| match question["transport"].as_str() {
        Some("sse") => json!({"error": {"reason": "unauthorized", "message": "sign in"}}),
        Some("poll") => json!({"error": {"reason": "rate_limited", "retry_after": 2500}}),
        _ => json!({"error": {"reason": "forbidden", "message": "banned until Monday", "code": 4901}}),
    })
    .await;
    let node = introducing(&backend, "").await;
    let mut client = Client::knock(node.public_addr(), "/ws", &[]).await.expect("the upgrade comes first");
    let (events, goodbye) = client.until_closed().await;
    let told =
        json!({"type": "error", "code": 4901, "reason": "forbidden", "message": "banned until Monday"});
    assert_eq!(events, [told]);
    assert_eq!((goodbye.code, goodbye.reason.as_str()), (Some(4403), "forbidden"));
    assert_eq!(goodbye.closing.expect("it is told beforehand")["reconnect"], false);

    let sse = http::get(node.public_addr(), "/sse?channel=news").await;
    assert_eq!((sse.status, &sse.json()["message"]), (401, &json!("sign in")), "{}", sse.text());
    let poll = http::get(node.public_addr(), "/poll?channel=news").await;
    assert_eq!((poll.status, poll.header("Retry-After")), (429, Some("3")), "{}", poll.text());
    let stream = http::get(node.public_addr(), "/stream?channel=news").await;
    assert_eq!((stream.status, &stream.json()["code"]), (403, &json!(4901)), "{}", stream.text());
    let publish = r#"{"channel":"news","data":1}"#;
    let publish = http::post(node.public_addr(), "/publish", &[], publish).await;
    assert_eq!((publish.status, &publish.json()["code"]), (403, &json!(4901)), "{}", publish.text());
    counted(&node, &outcome("connect", "refused"), 5.0).await;
}

/// A client of each transport is who the backend says, and what was asked of its request is asked of all of them.
#[tokio::test]
async fn every_transport_asks_alike() {
    let backend = application(|question| json!({"user": question["transport"]})).await;
    let node = introducing(&backend, "headers = [\"x-tenant\"]\n").await;
    let address = node.public_addr();
    let mut hearer = Client::knock(address, "/ws", &[]).await.expect("the upgrade comes first");
    hearer.greeted().await.expect("it is welcome");
    assert_eq!(hearer.welcome()["user"], "websocket");
    hearer.subscribe("news").await;
    let mut lines = LineStream::open(address, "/stream?channel=news", &[]).await.expect("a stream");
    let welcome = lines.json().await.expect("a welcome");
    assert_eq!(welcome["user"], "stream", "{welcome}");
    let posted = http::post(address, "/publish", &[], r#"{"channel":"news","data":1}"#).await;
    assert_eq!(posted.status, 200, "{}", posted.text());
    let mut event = hearer.event().await;
    if event["channel"] == "user:websocket" {
        event = hearer.event().await;
    }
    assert_eq!(event["from"]["user"], "publish", "{event}");
    let events = http::get(address, "/poll?channel=news&wait=0").await;
    assert_eq!(events.status, 200, "{}", events.text());
    let transports: Vec<_> = questions(&backend).iter().map(|it| it["transport"].clone()).collect();
    assert_eq!(transports, ["websocket", "stream", "publish", "poll"]);
}

/// The token comes first, in the request or in the conversation, and the backend has the last word on who it is of.
#[tokio::test]
async fn a_token_is_judged_before_the_backend_is_asked() {
    let backend = application(|question| match question["user"].as_str() {
        Some("mallory") => json!({"error": {"message": "not here"}}),
        _ => json!({"info": "from the backend"}),
    })
    .await;
    let jwt = "[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n";
    let node = introducing(&backend, jwt).await;
    let address = node.public_addr();
    let claims = json!({"sub": "ann", "info": "from the token", "exp": now() + 60});
    let ann = Client::with_token(address, &token(&claims)).await.expect("it is welcome");
    assert_eq!((&ann.welcome()["user"], &ann.welcome()["expires"]), (&claims["sub"], &claims["exp"]));
    assert_eq!(Client::with_token(address, "a.b.c").await.err(), Some(Some(401)));
    assert_eq!(backend.requests(), 1, "of a bad token nobody is asked");
    assert_eq!(questions(&backend)[0]["info"], "from the token");
    assert_eq!(questions(&backend)[0]["expires"], claims["exp"]);

    for (user, code) in [("bob", None), ("mallory", Some(4403))] {
        let mut client = Client::knock(address, "/ws", &[]).await.expect("it may say who it is");
        // What is said behind the token is held until it is known who says it.
        let batch = json!([{"type": "auth", "token": token(&json!({"sub": user}))}, {"type": "subscribe", "channel": "a"}]);
        client.send(batch).await;
        match code {
            None => {
                client.greeted().await.expect("it is welcome");
                assert_eq!(client.welcome()["user"], user);
                assert_eq!(client.event().await["channel"], format!("user:{user}"));
                assert_eq!(client.event().await["channel"], "a");
            }
            Some(_) => assert_eq!(client.goodbye().await.code, code),
        }
    }
}

/// With nobody but the backend to say who clients are, whom it gives no user is nobody, and comes in where that is written.
#[tokio::test]
async fn whom_the_backend_does_not_know_comes_in_only_where_anonymous_clients_may() {
    let backend = application(|_| json!({})).await;
    let strict = introducing(&backend, "").await;
    let mut client = Client::knock(strict.public_addr(), "/ws", &[]).await.expect("the upgrade comes first");
    assert_eq!(client.goodbye().await.code, Some(4401));
    let open = introducing(&backend, "[auth]\nanonymous = true\n").await;
    let client = Client::connect(open.public_addr()).await;
    assert_eq!(client.welcome()["user"], Value::Null);
}

/// Subscribing takes the backend's word where the namespace says so, unless it has named the channel already; what was said
/// after that is answered after it.
#[tokio::test]
async fn a_subscription_takes_consent_and_keeps_its_place_in_the_row() {
    let backend = application(|question| match (question["type"].as_str(), question["channel"].as_str()) {
        (Some("connect"), _) => json!({"user": "ann", "channels": ["room:known"]}),
        (_, Some("room:closed")) => json!({"error": {"message": "members only", "code": 4700}}),
        _ => json!({}),
    })
    .await;
    let url = backend.url("/subscribe");
    let namespace = format!("[namespaces.room.hooks]\nsubscribe = \"{url}\"\n[namespaces.open]\n");
    let node = introducing(&backend, &namespace).await;
    let mut client = Client::connect(node.public_addr()).await;
    assert_eq!(client.event().await["channel"], "room:known");
    let subscribe = |id, channel| json!({"type": "subscribe", "id": id, "channel": channel});
    let batch = json!([
        subscribe(1, "room:1"), subscribe(2, "room:closed"), {"type": "publish", "id": 3, "channel": "room:1", "data": 7},
        subscribe(4, "open:1"), {"type": "unsubscribe", "id": 5, "channel": "room:1"}, subscribe(6, "room:1"), {"type": "ping", "id": 7},
    ]);
    client.send(batch).await;
    let mut answers = Vec::new();
    while answers.len() < 7 {
        let event = client.event().await;
        if event["id"].is_number() {
            answers.push((event["id"].clone(), event["type"].clone(), event["code"].clone()));
        }
    }
    let row = |id: u8, kind: &str, code: Value| (json!(id), json!(kind), code);
    let none = || Value::Null;
    let expected = [
        row(1, "subscribed", none()),
        row(2, "error", json!(4700)),
        row(3, "published", none()),
        row(4, "subscribed", none()),
        row(5, "unsubscribed", none()),
        row(6, "subscribed", none()),
        row(7, "pong", none()),
    ];
    assert_eq!(answers, expected);
    let asked: Vec<_> = questions(&backend).iter().skip(1).map(|it| it["channel"].clone()).collect();
    assert_eq!(asked, ["room:1", "room:closed", "room:1"]);

    let refused = http::get(node.public_addr(), "/sse?channel=room:closed").await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!(4700)), "{}", refused.text());
}

/// Publications are said as the backend has them said, one after the other, and those that it refuses are not said.
#[tokio::test]
async fn a_publication_is_what_the_backend_makes_of_it() {
    let backend = application(|question| match question["data"].as_str() {
        Some("bad") => json!({"error": {"message": "mind your words"}}),
        Some("long") => json!({"data": "x".repeat(200)}),
        Some(word) if word.starts_with('*') => json!({"data": {"was": word}}),
        _ => json!({}),
    })
    .await;
    let url = backend.url("/publish");
    let node = node(&format!(
        "[namespaces.room]\nmax_bytes = 100\nhistory.size = 10\n[namespaces.room.hooks]\npublish = \"{url}\"\n"
    ))
    .await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    let words = ["one", "*two", "bad", "three", "long", "*four"];
    let publish = |(id, word)| json!({"type": "publish", "id": id, "channel": "room:1", "data": word});
    client.send(words.iter().enumerate().map(publish).collect()).await;
    let (mut answers, mut heard) = (Vec::new(), Vec::new());
    while answers.len() < words.len() || heard.len() < 4 {
        let event = client.event().await;
        match event["type"].as_str() {
            Some("message") => heard.push(event["data"].clone()),
            _ => answers.push((event["id"].clone(), event["code"].clone())),
        }
    }
    assert_eq!(heard, [json!("one"), json!({"was": "*two"}), json!("three"), json!({"was": "*four"})]);
    let codes: Vec<_> = answers.iter().map(|(_, code)| code.clone()).collect();
    assert_eq!(codes, [Value::Null, Value::Null, json!(4403), Value::Null, json!(4413), Value::Null]);
    let body = r#"{"channel":"room:1","data":"*posted"}"#;
    let publish = http::post(node.public_addr(), "/publish", &[], body).await;
    assert_eq!(publish.status, 403, "{}", publish.text());
    let asked: Vec<_> = questions(&backend).iter().map(|it| it["data"].clone()).collect();
    assert_eq!(asked, words, "only subscribers may publish here, so the last was not asked about");
}

/// A call goes to the backend and what it says comes back; without one there is nothing to call.
#[tokio::test]
async fn a_call_is_answered_by_the_backend() {
    let backend = application(|question| match question["method"].as_str() {
        Some("double") => json!({"data": question["data"].as_i64().map(|it| 2 * it)}),
        _ => json!({"error": {"reason": "not_found", "message": "no such method"}}),
    })
    .await;
    let mut config = configured("");
    config.hooks.call = Some(backend.url("/call"));
    let node = start(&config).await;
    let mut client = Client::connect(node.public_addr()).await;
    let answer = client.ask(json!({"type": "call", "method": "double", "data": 21})).await;
    assert_eq!((&answer["type"], &answer["data"]), (&json!("result"), &json!(42)));
    let answer = client.ask(json!({"type": "call", "method": "halve", "data": 21})).await;
    assert_eq!((&answer["code"], &answer["message"]), (&json!(4404), &json!("no such method")));
    let alone = crate::support::node("").await;
    let mut client = Client::connect(alone.public_addr()).await;
    let answer = client.ask(json!({"type": "call", "method": "double", "data": 21})).await;
    assert_eq!(answer["code"], 4404);
}

/// The example of the documentation, run as it is written.
#[tokio::test]
async fn the_example_in_the_documentation_works() {
    let page = include_str!("../../../../docs/hooks.md");
    let (_, program) = page.split_once("```python\n").expect("there is an example");
    let (program, _) = program.split_once("```").expect("it ends");
    let mut python = Command::new("python3")
        .args(["-c", program, "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 is here");
    let mut lines = BufReader::new(python.stdout.take().expect("it is piped")).lines();
    let port = timeout(Duration::from_secs(30), lines.next_line()).await.expect("it starts");
    let port = port.expect("it says where").expect("it says where");
    let url = format!("http://127.0.0.1:{port}/");
    let node = node(&format!(
        "[hooks]\nconnect = \"{url}\"\ncall = \"{url}\"\nsecret = \"of both\"\nheaders = [\"cookie\"]\n\
         [namespaces.room]\n[namespaces.room.hooks]\nsubscribe = \"{url}\"\npublish = \"{url}\"\n"
    ))
    .await;
    let mut stranger = Client::knock(node.public_addr(), "/ws", &[]).await.expect("the upgrade comes first");
    assert_eq!(stranger.goodbye().await.code, Some(4401));
    let cookie = [("Cookie", "sid=1")];
    let mut ann = Client::knock(node.public_addr(), "/ws", &cookie).await.expect("the upgrade comes first");
    ann.greeted().await.expect("it is welcome");
    assert_eq!(ann.welcome()["user"], "ann");
    let staff = ann.ask(json!({"type": "subscribe", "channel": "room:staff"})).await;
    assert_eq!((&staff["code"], &staff["message"]), (&json!(4403), &json!("for the staff")));
    ann.subscribe("room:1").await;
    ann.publish("room:1", json!("damn")).await;
    assert_eq!(ann.message("room:1").await, json!({"text": "d***"}));
    let answer = ann.ask(json!({"type": "call", "method": "who", "data": null})).await;
    assert_eq!(answer["data"], json!({"method": "who", "by": "ann"}));
    // Whoever does not share the secret is nobody to it.
    let other = self::node(&format!("[hooks]\nconnect = \"{url}\"\nsecret = \"another\"\n")).await;
    let mut refused =
        Client::knock(other.public_addr(), "/ws", &cookie).await.expect("the upgrade comes first");
    assert_eq!(refused.goodbye().await.code, Some(4401));
}
