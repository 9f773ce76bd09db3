//! What is asked while a client is there: about each subscription and publication, of whichever transport, and for whom.

use std::sync::Arc;

use fanfare_testbed::backend::{Asked, Backend};
use fanfare_testbed::{Client, EventStream, LineStream, http};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{application, introducing, outcome, says};
use crate::support::{configured, counted, node, start};

/// What is posted is asked about as what a WebSocket says, by ticket and without: it is refused, changed, and held to the rule.
#[tokio::test]
async fn what_is_posted_is_what_the_backend_makes_of_it() {
    let backend = application(|question| match question["data"].as_str() {
        Some("bad") => json!({"error": {"message": "mind your words"}}),
        Some("long") => json!({"data": "x".repeat(200)}),
        Some("damn") => json!({"data": "d***"}),
        _ => json!({}),
    })
    .await;
    let url = backend.url("/publish");
    let namespace = "[namespaces.room]\npublish = \"anyone\"\nmax_bytes = 100\n";
    let node = node(&format!("{namespace}[namespaces.room.hooks]\npublish = \"{url}\"\n")).await;
    let address = node.public_addr();
    let mut lines = LineStream::open(address, "/stream?channel=room:1", &[]).await.expect("a stream");
    let welcome = lines.json().await.expect("a welcome");
    assert_eq!(lines.json().await.expect("an answer")["type"], "subscribed");
    let ticket = format!("Authorization: Ticket {}", welcome["ticket"].as_str().expect("a ticket"));
    for headers in [&[][..], &[&*ticket]] {
        for (word, status) in [("bad", 403), ("long", 413), ("damn", 200), ("fine", 200)] {
            let body = json!({"channel": "room:1", "data": word}).to_string();
            let answer = http::post(address, "/publish", headers, &body).await;
            assert_eq!(answer.status, status, "{word} {headers:?}: {}", answer.text());
        }
        for word in ["d***", "fine"] {
            assert_eq!(lines.json().await.expect("a message")["data"], word, "{headers:?}");
        }
    }
    assert_eq!(backend.requests(), 8);
    counted(&node, &outcome("publish", "refused"), 2.0).await;
}

/// Each question says who the client is by what is known then, where it is and how it came, with the headers on the list.
#[tokio::test]
async fn every_question_says_of_whom_it_is() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = heard.clone();
    let backend = Backend::start(move |asked: Asked| {
        let question: Value = serde_json::from_slice(asked.body()).expect("JSON");
        let cookie = asked.headers().get("cookie").map(|it| it.to_str().expect("text").to_owned());
        let is_connect = question["type"] == "connect";
        kept.lock().push((question, cookie));
        let answer = if is_connect { r#"{"user":"ann","info":{"team":7}}"# } else { "" };
        async move { says(200, answer) }
    })
    .await;
    let url = backend.url("/");
    let more = format!(
        "headers = [\"cookie\"]\ncall = \"{url}\"\n[proxy]\ntrusted = [\"127.0.0.1\"]\n[namespaces.room]\npublish = \"anyone\"\n\
         [namespaces.room.hooks]\nsubscribe = \"{url}\"\npublish = \"{url}\"\n"
    );
    let node = introducing(&backend, &more).await;
    let address = node.public_addr();
    let headers = [("Cookie", "sid=1"), ("X-Forwarded-For", "192.0.2.7")];
    let mut client = Client::knock(address, "/ws", &headers).await.expect("the upgrade comes first");
    client.greeted().await.expect("it is welcome");
    client.subscribe("room:1").await;
    client.publish("room:1", json!(1)).await;
    client.ask(json!({"type": "call", "method": "who", "data": null})).await;
    let session = client.welcome()["session"].clone();
    let lines = ["Cookie: sid=1", "X-Forwarded-For: 192.0.2.7"];
    let mut stream = LineStream::open(address, "/stream?channel=room:1", &lines).await.expect("a stream");
    let welcome = stream.json().await.expect("a welcome");
    assert_eq!(welcome["user"], "ann");
    let ticket = format!("Authorization: Ticket {}", welcome["ticket"].as_str().expect("a ticket"));
    let posted = http::post(address, "/publish", &[&ticket], r#"{"channel":"room:1","data":1}"#).await;
    assert_eq!(posted.status, 200, "{}", posted.text());

    let heard = std::mem::take(&mut *heard.lock());
    let kinds: Vec<_> =
        heard.iter().map(|(question, _)| question["type"].as_str().expect("a word")).collect();
    assert_eq!(kinds, ["connect", "subscribe", "publish", "call", "connect", "subscribe", "publish"]);
    for (place, (question, cookie)) in heard.iter().enumerate() {
        let (session, transport) =
            if place < 4 { (&session, "websocket") } else { (&welcome["session"], "stream") };
        assert_eq!(cookie.as_deref(), Some("sid=1"), "{question}");
        assert_eq!((&question["address"], &question["transport"]), (&json!("192.0.2.7"), &json!(transport)));
        assert_eq!(&question["session"], session, "{question}");
        if question["type"] != "connect" {
            assert_eq!((&question["user"], &question["info"]["team"]), (&json!("ann"), &json!(7)));
        }
    }
}

/// Where nobody answers nobody subscribes or publishes, and is told when to try again; where that is written down, the rules are
/// enough.
#[tokio::test]
async fn without_an_answer_it_is_no_unless_it_is_written_to_be_yes() {
    let gone = application(|_| json!({})).await.url("/");
    let namespaces = format!(
        "[namespaces.heard]\npublish = \"anyone\"\n[namespaces.heard.hooks]\nsubscribe = \"{gone}\"\n\
         [namespaces.said]\npublish = \"anyone\"\n[namespaces.said.hooks]\npublish = \"{gone}\"\n"
    );
    let strict = node(&namespaces).await;
    let mut client = Client::connect(strict.public_addr()).await;
    let subscribe = json!({"type": "subscribe", "channel": "heard:1"});
    let publish = json!({"type": "publish", "channel": "said:1", "data": 1});
    for command in [&subscribe, &publish] {
        let answer = client.ask(command.clone()).await;
        assert_eq!(answer["code"], 4503, "{answer}");
        assert!((1_000..=3_000).contains(&answer["retry_after"].as_u64().expect("a time")), "{answer}");
    }
    let body = r#"{"channel":"said:1","data":1}"#;
    assert_eq!(http::post(strict.public_addr(), "/publish", &[], body).await.status, 503);
    let refused = EventStream::open(strict.public_addr(), "/sse?channel=heard:1", "").await.err();
    assert_eq!(refused.expect("nobody answers").status, 503);

    let lenient = node(&format!("hooks.on_failure = \"allow\"\n{namespaces}")).await;
    let mut client = Client::connect(lenient.public_addr()).await;
    client.subscribe("heard:1").await;
    client.subscribe("said:1").await;
    client.publish("said:1", json!(1)).await;
    assert_eq!(client.message("said:1").await, 1);
}

/// That failures are let pass is no reason to let a refusal pass.
#[tokio::test]
async fn a_no_is_a_no_where_failures_are_let_pass() {
    let backend = application(|question| match question["user"].as_str() {
        Some(_) => json!({"error": {"message": "not that"}}),
        None if question["transport"] == "websocket" => json!({"user": "ann"}),
        None => json!({"error": {"message": "not you"}}),
    })
    .await;
    let url = backend.url("/");
    let more = format!(
        "on_failure = \"allow\"\n[namespaces.room]\npublish = \"anyone\"\n[namespaces.room.hooks]\nsubscribe = \"{url}\"\npublish = \"{url}\"\n"
    );
    let node = introducing(&backend, &more).await;
    let mut client = Client::connect(node.public_addr()).await;
    for command in [
        json!({"type": "subscribe", "channel": "room:1"}),
        json!({"type": "publish", "channel": "room:1", "data": 1}),
    ] {
        let answer = client.ask(command).await;
        assert_eq!((&answer["code"], &answer["message"]), (&json!(4403), &json!("not that")));
    }
    let body = r#"{"channel":"room:1","data":1}"#;
    assert_eq!(http::post(node.public_addr(), "/publish", &[], body).await.status, 403);
}

/// Whoever the backend says a client is: it takes a place of that user, and goes when that user is revoked.
#[tokio::test]
async fn whom_the_backend_names_is_bounded_and_revoked_like_whom_a_token_names() {
    let backend = application(|_| json!({"user": "ann"})).await;
    let node = introducing(&backend, "[limits]\nconnections_per_user = 1\n").await;
    let mut first = Client::connect(node.public_addr()).await;
    let mut second = Client::knock(node.public_addr(), "/ws", &[]).await.expect("the upgrade comes first");
    let goodbye = second.goodbye().await;
    assert_eq!((goodbye.code, goodbye.reason.as_str()), (Some(4422), "limit_reached"));
    let revoked = http::post(node.internal_addr(), "/api/revoke", &[], r#"{"user":"ann"}"#).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(first.goodbye().await.code, Some(4401));
    counted(&node, "fanfare_connections", 0.0).await;
}

/// A reload has others asked, and of clients that are there already too; who is there stays.
#[tokio::test]
async fn hooks_are_those_of_the_new_file() {
    let (old, new) = (application(|_| json!({})).await, application(|_| json!({"data": "new"})).await);
    let configuration = |backend: &Backend| {
        let url = backend.url("/");
        configured(&format!(
            "[namespaces.room]\npublish = \"anyone\"\n[namespaces.room.hooks]\npublish = \"{url}\"\n"
        ))
    };
    let node = start(&configuration(&old)).await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    client.publish("room:1", json!("as it is")).await;
    assert_eq!(client.message("room:1").await, "as it is");
    node.reload(&configuration(&new)).await;
    client.publish("room:1", json!("as it is")).await;
    assert_eq!(client.message("room:1").await, "new");
    assert_eq!((old.requests(), new.requests()), (1, 1));
}
