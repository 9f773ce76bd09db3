//! What a backend has clients hear, whatever they asked for; what it is told of the connections and nodes of the cluster.

use std::collections::BTreeSet;

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, LineStream, RedisServer, eventually, http};
use serde_json::{Value, json};

use super::auth::{now, token};
use crate::support::{configured, node};

const CONFIG: &str = "[auth]\nanonymous = true\n\
    [auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n\
    [namespaces.room]\nsubscribe = \"token\"\npublish = \"subscribers\"\n[namespaces.news]\npublish = \"anyone\"\n\
    [namespaces.news.history]\nsize = 10\nttl_seconds = 60\n";

/// Two nodes that know of each other.
async fn pair(config: &str) -> [Node; 2] {
    let bus = Bus::default();
    let start = async |name: &str| {
        let config = configured(&format!("[node]\nname = \"{name}\"\n{config}"));
        Node::start_on(&config, &bus).await.expect("a node starts")
    };
    let nodes = [start("a").await, start("b").await];
    for node in &nodes {
        eventually("all nodes are known", async || names(node).await == ["a", "b"]).await;
    }
    nodes
}

async fn ask(node: &Node, method: &str, body: Value) -> Value {
    let answer = http::post(node.internal_addr(), &format!("/api/{method}"), &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{method} {body}: {}", answer.text());
    answer.json()
}

/// A page of connections that every node has had the time to answer for.
async fn listed(node: &Node, body: Value) -> Value {
    let mut page = Value::Null;
    eventually("all nodes answer", async || {
        page = ask(node, "connections", body.clone()).await;
        page["unanswered"] == json!([])
    })
    .await;
    page
}

async fn names(node: &Node) -> Vec<String> {
    let nodes = ask(node, "nodes", json!({})).await;
    nodes["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["node"].as_str().expect("a name").to_owned())
        .collect()
}

/// A client of this user, and its session.
async fn client(node: &Node, user: &str) -> (Client, String) {
    let token = token(&json!({"sub": user}));
    let client = Client::with_token(node.public_addr(), &token).await.expect("a good token");
    let session = client.welcome()["session"].as_str().expect("a name").to_owned();
    (client, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_has_all_connections_of_a_user_hear_a_channel_and_no_others() {
    let [a, b] = pair(CONFIG).await;
    let ((mut here, _), (mut there, _)) = (client(&a, "ann").await, client(&b, "ann").await);
    let (mut other, _) = client(&b, "bob").await;
    assert_eq!(here.ask(json!({"type": "subscribe", "channel": "room:1"})).await["code"], 4403);
    assert_eq!(ask(&a, "subscribe", json!({"user": "ann", "channel": "room:1"})).await, json!({}));
    for client in [&mut here, &mut there] {
        assert_eq!(client.event().await, json!({"type": "subscribed", "channel": "room:1"}));
    }
    here.publish("room:1", json!("as a subscriber")).await;
    for client in [&mut here, &mut there] {
        assert_eq!(client.message("room:1").await, json!("as a subscriber"));
    }
    ask(&b, "unsubscribe", json!({"user": "ann", "channel": "room:1"})).await;
    for client in [&mut here, &mut there] {
        let gone = client.event().await;
        assert_eq!((&gone["type"], &gone["code"]), (&json!("unsubscribed"), &json!(4403)));
    }
    assert_eq!(here.ask(json!({"type": "subscribe", "channel": "room:1"})).await["code"], 4403, "nor again");
    other.assert_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_can_be_meant_and_hears_what_it_missed() {
    let [a, b] = pair(CONFIG).await;
    let ((mut meant, session), (mut other, _)) = (client(&b, "ann").await, client(&b, "ann").await);
    for n in 1..=3 {
        ask(&a, "publish", json!({"channel": "news:1", "data": n})).await;
    }
    let body = json!({"session": session, "channel": "news:1", "rewind": 2});
    ask(&a, "subscribe", body).await;
    assert_eq!(meant.event().await["type"], "subscribed");
    assert_eq!(meant.messages("news:1", 2).await, [2, 3]);
    ask(&a, "publish", json!({"channel": "news:1", "data": 4})).await;
    assert_eq!(meant.message("news:1").await, 4);
    other.assert_silence().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_to_the_backend() {
    let node = node(CONFIG).await;
    for (status, method, body) in [
        (404, "subscribe", json!({"user": "ann", "channel": "elsewhere:1"})),
        (404, "subscribe", json!({"user": "ann", "channel": "$fanfare:orders"})),
        (400, "subscribe", json!({"channel": "room:1"})),
        (400, "connections", json!({"after": "nowhere"})),
        (200, "subscribe", json!({"user": "nobody", "channel": "room:1"})),
    ] {
        let answer =
            http::post(node.internal_addr(), &format!("/api/{method}"), &[], &body.to_string()).await;
        assert_eq!(answer.status, status, "{method} {body}: {}", answer.text());
    }
}

/// Ten orders at once for each of many connections, and unsubscriptions among them: the last word holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_word_of_a_backend_holds() {
    let [a, b] = pair(CONFIG).await;
    let (mut client, session) = client(&b, "ann").await;
    let commands: Vec<_> = (0..50)
        .flat_map(|_| ["subscribe", "unsubscribe"])
        .chain(["subscribe"])
        .map(|method| json!({"method": method, "session": session, "channel": "room:1"}))
        .collect();
    let answer = ask(&a, "batch", json!({"commands": commands})).await;
    assert_eq!(answer["responses"], json!(vec![json!({}); 101]));
    eventually("it is subscribed in the end", async || {
        let answer = listed(&a, json!({"session": session})).await;
        answer["connections"][0]["channels"] == json!(["room:1"])
    })
    .await;
    client.publish("room:1", json!("heard")).await;
    while client.event().await["data"] != json!("heard") {}
}

#[tokio::test]
async fn a_broadcast_and_a_batch_answer_each_call_in_its_place() {
    let node = node(CONFIG).await;
    let answer = ask(
        &node,
        "broadcast",
        json!({"channels": ["news:1", "elsewhere:1", "news:2"], "data": 1, "key": "k"}),
    )
    .await;
    let codes: Vec<_> = answer["responses"].as_array().unwrap().iter().map(|it| it["code"].clone()).collect();
    assert_eq!(codes, [Value::Null, json!(4404), Value::Null], "{answer}");
    let again = ask(&node, "broadcast", json!({"channels": ["news:1"], "data": 2, "key": "k"})).await;
    assert_eq!(again["responses"][0], answer["responses"][0], "the key holds on each channel");
    let commands = json!([
        {"method": "publish", "channel": "news:3", "data": 1},
        {"method": "history", "channel": "news:3"},
        {"method": "history/remove", "channel": "news:3"},
        {"method": "history", "channel": "news:3"},
        {"method": "shout"},
    ]);
    let answer = ask(&node, "batch", json!({"commands": commands})).await;
    let of = |at: usize| &answer["responses"][at];
    assert_eq!(of(1)["messages"][0]["data"], 1, "in order: {answer}");
    assert_eq!((&of(3)["messages"], &of(4)["code"]), (&json!([]), &json!(4404)));
}

/// Publications and history go to Redis by connections of their own: whoever did not wait in between would read too soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_batch_sees_what_those_before_it_have_done() {
    let redis = RedisServer::start().await;
    let node = node(&format!(
        "[broker]\nkind = \"redis\"\n[redis]\nurls = [\"{}\"]\n[namespaces.news.history]\nsize = 1\nttl_seconds = 60\n",
        redis.url()
    ))
    .await;
    eventually("the broker is there", async || http::get(node.public_addr(), "/ready").await.status == 200)
        .await;
    let pair = |number| {
        let publish = json!({"method": "publish", "channel": "news:1", "data": number});
        [publish, json!({"method": "history", "channel": "news:1", "limit": 1, "reverse": true})]
    };
    let commands: Vec<_> = (0..50).flat_map(pair).collect();
    let answer = ask(&node, "batch", json!({"commands": commands})).await;
    let responses = answer["responses"].as_array().expect("a list");
    for (number, pair) in responses.chunks_exact(2).enumerate() {
        assert_eq!(pair[1]["messages"][0]["data"], json!(number), "{pair:?}");
        assert_eq!(pair[1]["offset"], pair[0]["offset"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_told_with_where_they_come_from() {
    let [a, b] = pair(CONFIG).await;
    let ((mut ann, session), guest) = (client(&b, "ann").await, Client::connect(a.public_addr()).await);
    ann.subscribe("news:1").await;
    let page = listed(&a, json!({"user": "ann"})).await;
    let one = &page["connections"][0];
    assert_eq!(one["session"], json!(session), "{page}");
    for (field, value) in [
        ("user", "ann"),
        ("node", "b"),
        ("address", "127.0.0.1"),
        ("transport", "websocket"),
        ("protocol", "fanfare.v1.json"),
    ] {
        assert_eq!(one[field], value, "{one}");
    }
    assert_eq!(page["connections"].as_array().unwrap().len(), 1);
    let named = listed(&a, json!({"session": session})).await;
    assert_eq!(named["connections"][0]["channels"], json!(["news:1"]), "{named}");
    let hearing = listed(&a, json!({"channel": "news:1"})).await;
    assert_eq!(hearing["connections"][0]["session"], json!(session), "{hearing}");
    let all = listed(&a, json!({})).await;
    let anonymous = all["connections"].as_array().unwrap().iter().find(|it| it["user"].is_null()).unwrap();
    assert_eq!(anonymous["session"], guest.welcome()["session"]);
}

/// Page by page every connection that stays is told once, whatever the size of a page and whoever comes and goes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_tell_of_everybody_once() {
    let [a, b] = pair("").await;
    let (mut stay, mut leave) = (Vec::new(), Vec::new());
    for at in 0..24 {
        let client = Client::connect(if at % 3 == 0 { &a } else { &b }.public_addr()).await;
        if at % 4 == 1 { &mut leave } else { &mut stay }.push(client);
    }
    let session = |client: &Client| client.welcome()["session"].as_str().unwrap().to_owned();
    let expected: BTreeSet<_> = stay.iter().map(session).collect();
    for limit in [1, 5, 7, 100] {
        let (mut heard, mut after, mut pages) = (Vec::new(), Value::Null, 0);
        loop {
            let mut body = json!({"limit": limit});
            if after.is_string() {
                body["after"] = after;
            }
            let page = listed(if pages % 2 == 0 { &a } else { &b }, body).await;
            let found = page["connections"].as_array().unwrap();
            assert!(found.len() <= limit, "{page}");
            heard.extend(found.iter().map(|it| it["session"].as_str().unwrap().to_owned()));
            after = page["next"].clone();
            pages += 1;
            leave.pop();
            if after.is_null() {
                break;
            }
        }
        let once: BTreeSet<_> = heard.iter().cloned().collect();
        assert_eq!(once.len(), heard.len(), "nobody twice, with {limit} to a page");
        assert!(expected.is_subset(&once), "nobody left out, with {limit} to a page");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_those_that_are_alive() {
    let [a, b] = pair("").await;
    let client = Client::connect(b.public_addr()).await;
    eventually("what a node says of itself is told by the other", async || {
        let nodes = ask(&a, "nodes", json!({})).await;
        nodes["nodes"][1]["connections"] == 1
    })
    .await;
    let nodes = ask(&a, "nodes", json!({})).await;
    for node in nodes["nodes"].as_array().unwrap() {
        assert_eq!((&node["ready"], &node["draining"]), (&json!(true), &json!(false)), "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        assert!(node["memory_bytes"].as_u64().unwrap() > 1_000_000, "{node}");
    }
    drop(client);
    b.drain().await;
    assert_eq!(names(&a).await, ["a"], "who drains says goodbye");
    let page = ask(&a, "connections", json!({})).await;
    assert_eq!(page["unanswered"], json!([]), "and is waited for by nobody");
}

/// Who hears by a response has named its channels, and could not recover another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_hears_what_it_was_asked_for_with_and_no_longer_than_it_may() {
    let [a, b] = pair(CONFIG).await;
    let mut lines =
        LineStream::open(a.public_addr(), "/stream?channel=news:1&channel=news:2", &[]).await.unwrap();
    let session = lines.json().await.unwrap()["session"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(lines.json().await.unwrap()["type"], "subscribed");
    }
    ask(&b, "subscribe", json!({"session": session, "channel": "news:3"})).await;
    ask(&b, "unsubscribe", json!({"session": session, "channel": "news:1"})).await;
    let gone = lines.json().await.unwrap();
    assert_eq!((&gone["type"], &gone["channel"]), (&json!("unsubscribed"), &json!("news:1")), "{gone}");
    ask(&b, "broadcast", json!({"channels": ["news:1", "news:3", "news:2"], "data": 1})).await;
    let heard = lines.json().await.unwrap();
    assert_eq!((&heard["type"], &heard["channel"]), (&json!("message"), &json!("news:2")), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_says_how_long_the_connections_of_a_user_last_wherever_they_are() {
    let [a, b] = pair(CONFIG).await;
    let ((mut here, session), (mut there, _)) = (client(&a, "ann").await, client(&b, "ann").await);
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "ann"})));
    let stream = LineStream::open(b.public_addr(), "/stream?channel=news:1", &[&bearer]).await;
    let mut stream = stream.expect("it may listen");
    let ticket = stream.json().await.expect("a welcome")["ticket"].as_str().expect("a ticket").to_owned();
    assert_eq!(stream.json().await.expect("news")["type"], "subscribed");
    let (mut other, _) = client(&b, "bob").await;
    let later = now() + 3600;
    let body = json!({"user": "ann", "expires": later, "info": {"name": "Ann"}});
    assert_eq!(ask(&a, "refresh", body).await, json!({}));
    let refreshed = json!({"type": "refreshed", "expires": later});
    for client in [&mut here, &mut there] {
        assert_eq!(client.event().await, refreshed);
    }
    assert_eq!(stream.json().await.expect("it goes on"), refreshed);

    // What others are shown of it has changed too, also where it speaks by a ticket.
    other.subscribe("news:1").await;
    here.publish("news:1", json!(1)).await;
    let header = format!("Authorization: Ticket {ticket}");
    let posted =
        http::post(b.public_addr(), "/publish", &[&header], r#"{"channel":"news:1","data":2}"#).await;
    assert_eq!(posted.status, 200, "{}", posted.text());
    for data in 1..=2 {
        let message = other.event().await;
        let from = json!({"user": "ann", "info": {"name": "Ann"}});
        assert_eq!((&message["data"], &message["from"]), (&json!(data), &from));
    }

    // One of them alone, and never: what was said first is over then.
    ask(&b, "refresh", json!({"session": session, "expires": null})).await;
    assert_eq!(here.event().await, json!({"type": "refreshed", "expires": null}));
    ask(&b, "refresh", json!({"session": session, "expires": 1})).await;
    assert_eq!(here.goodbye().await.code, Some(4401));
    there.publish("news:1", json!(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_time_a_backend_ends_goes_over_every_way_in_and_nobody_else_does() {
    let [a, b] = pair(CONFIG).await;
    let (mut ann, _) = client(&b, "ann").await;
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "ann"})));
    let stream = LineStream::open(b.public_addr(), "/stream?channel=news:1", &[&bearer]).await;
    let mut stream = stream.expect("it may listen");
    let ((mut bob, _), mut guest) = (client(&b, "bob").await, Client::connect(b.public_addr()).await);
    // Who has shown nothing has nothing that could end.
    ask(&a, "refresh", json!({"session": guest.welcome()["session"], "expires": 1})).await;
    ask(&a, "refresh", json!({"user": "ann", "expires": now() - 1})).await;
    assert_eq!(ann.goodbye().await.code, Some(4401));
    let mut last = None;
    while let Ok(event) = stream.json().await {
        last = Some(event);
    }
    assert_eq!(last.expect("it is told why")["code"], 4401);
    bob.publish("news:1", json!(1)).await;
    guest.publish("news:1", json!(1)).await;
}
