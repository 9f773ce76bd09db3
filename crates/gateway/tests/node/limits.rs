//! Who may come in, by address, by user and by speed: to the unit, over every transport, and given back however it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fanfare_gateway::node::Node;
use fanfare_testbed::authority::GOOD;
use fanfare_testbed::http::{self, Response};
use fanfare_testbed::raw_peer::HANDSHAKE;
use fanfare_testbed::{Authority, Client, EventStream, Http2, LineStream, RawPeer, Samples, eventually};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::auth::token;
use crate::support::{configured, counted, exceeded, node, socket_from};
use crate::tls;

const KEY: &str =
    "[auth]\nanonymous = true\n[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n";

/// Where another client is.
const ELSEWHERE: &str = "127.0.0.9";

/// The answer to a handshake, whatever it is.
async fn knock(address: SocketAddr) -> Response {
    http::exchange(address, HANDSHAKE.as_bytes()).await.expect("there is an answer")
}

fn is_too_many(answer: &Response, why: &str) {
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert_eq!(answer.header("Retry-After"), Some("5"), "{}", answer.head);
    assert!(answer.text().contains(why), "{}", answer.text());
}

fn refused(reason: &str) -> String {
    format!("fanfare_handshakes_refused_total{{reason=\"{reason}\"}}")
}

/// Waits until there is one more place for this address, and takes it: there is no second one.
async fn the_only_place(address: SocketAddr) -> Client {
    let mut first = None;
    eventually("a place is free", async || {
        first = Client::try_connect(address).await.ok();
        first.is_some()
    })
    .await;
    assert_eq!(knock(address).await.status, 429, "and no second one");
    first.expect("it was let in")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections_whatever_carries_them_and_they_are_given_back_however_they_end() {
    let node = node("[limits]\nconnections_per_ip = 7").await;
    let address = node.public_addr();
    let mut http2 = Http2::connect(address).await;
    let (stream, other_stream) = (http2.websocket().await, http2.websocket().await);
    let (polite, rude) = (Client::connect(address).await, Client::connect(address).await);
    let events = EventStream::open(address, "/sse?channel=a", "").await.unwrap();
    let lines = LineStream::open(address, "/stream?channel=a", &[]).await.unwrap();
    let answer = http::get(address, "/poll?channel=a").await.json();
    let since = answer["since"].as_str().expect("it says where it is");
    let mut poll = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /poll?channel=a&since={since} HTTP/1.1\r\nHost: a\r\n\r\n");
    poll.write_all(request.as_bytes()).await.unwrap();
    counted(&node, "fanfare_connections", 7.0).await;

    // One more is one too many, by whatever way it comes.
    is_too_many(&knock(address).await, "your address");
    let answer = http2.open(http2.handshake()).await.unwrap_err();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"5".parse().unwrap()));
    for path in ["/sse?channel=a", "/stream?channel=a", "/poll?channel=a"] {
        is_too_many(&http::get(address, path).await, "your address");
    }
    counted(&node, &refused("too_many_from_address"), 5.0).await;
    counted(&node, &exceeded("connections_per_ip", "refused"), 5.0).await;
    // Whoever asks for nothing that lasts is answered, and others are let in.
    assert_eq!(http::get(address, "/health").await.status, 200);
    let elsewhere = Client::on(socket_from(ELSEWHERE, address).await, address).await.unwrap();

    polite.close().await;
    let mut others = vec![the_only_place(address).await];
    drop(rude);
    others.push(the_only_place(address).await);
    stream.into_stream().reset();
    others.push(the_only_place(address).await);
    drop(events);
    others.push(the_only_place(address).await);
    drop(lines);
    others.push(the_only_place(address).await);
    drop(poll);
    others.push(the_only_place(address).await);
    drop((http2, other_stream)); // The socket, and the stream with it.
    others.push(the_only_place(address).await);
    drop((others, elsewhere));
    counted(&node, "fanfare_connections", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_to_nothing_holds_no_place_of_its_address() {
    let node = node(&format!("{KEY}[limits]\nconnections_per_ip = 1")).await;
    let address = node.public_addr();
    for _ in 0..20 {
        let mut gone = TcpStream::connect(address).await.unwrap();
        gone.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    }
    eventually("the place is free", async || Client::try_connect(address).await.is_ok()).await;
    eventually("a bad token takes no place", async || {
        Client::with_token(address, "no.token.atall").await.unwrap_err() == Some(401)
    })
    .await;
    eventually("nor keeps it", async || Client::try_connect(address).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_however_the_token_comes() {
    let node = node(&format!("{KEY}[limits]\nconnections_per_user = 2")).await;
    let address = node.public_addr();
    let (ann, bob) = (token(&json!({"sub": "ann"})), token(&json!({"sub": "bob"})));
    let first = Client::with_token(address, &ann).await.unwrap();
    let second = EventStream::open(address, "/sse?channel=a", "").await.unwrap(); // Anonymous: nobody's.
    let mut third = Client::connect(address).await;
    assert_eq!(third.ask(json!({"type": "auth", "token": ann})).await["user"], "ann");

    // In the request, by whatever way it comes.
    let bearer = format!("Authorization: Bearer {ann}\r\n\r\n");
    let request = HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{bearer}"));
    is_too_many(&http::exchange(address, request.as_bytes()).await.unwrap(), "this user");
    let request = format!("GET /sse?channel=a HTTP/1.1\r\nHost: a\r\n{bearer}");
    let answer = http::exchange(address, request.as_bytes()).await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!(4422)), "{}", answer.head);
    // An anonymous conversation goes on as it was.
    let mut late = Client::connect(address).await;
    let answer = late.ask(json!({"type": "auth", "token": ann})).await;
    assert_eq!((&answer["code"], &answer["reason"]), (&json!(4422), &json!("limit_reached")), "{answer}");
    assert!(answer["retry_after"].as_u64().unwrap() >= 40_000, "{answer}");
    assert_eq!(late.ask(json!({"type": "auth", "token": bob})).await["user"], "bob");
    counted(&node, &exceeded("connections_per_user", "refused"), 3.0).await;
    assert!(Client::with_token(address, &bob).await.is_ok());

    // A fresh token is no other connection; a place is given back with the connection.
    assert_eq!(third.ask(json!({"type": "auth", "token": ann})).await["type"], "refreshed");
    drop(third);
    eventually("ann has a place", async || Client::with_token(address, &ann).await.is_ok()).await;
    drop((first, second));
}

/// Told so, with the time after which the dead ones among the user's connections have been found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_for_a_user_with_too_many_connections_ends_it_with_advice_to_wait() {
    let strict = KEY.replace("anonymous = true", "anonymous = false");
    let node = node(&format!("{strict}[limits]\nconnections_per_user = 1")).await;
    let address = node.public_addr();
    let ann = token(&json!({"sub": "ann"}));
    let _first = Client::with_token(address, &ann).await.unwrap();
    let mut second = Client::knock(address, "/ws", &[]).await.unwrap();
    second.send(json!({"type": "auth", "token": ann})).await;
    let (events, goodbye) = second.until_closed().await;
    assert_eq!(events[0]["code"], 4422, "{events:?}");
    assert_eq!((goodbye.code, goodbye.reason.as_str()), (Some(4422), "limit_reached"));
    let closing = goodbye.closing.expect("it is said");
    assert_eq!(closing["reconnect"], true, "{closing}");
    assert!((40_000..=80_000).contains(&closing["after"].as_u64().unwrap()), "{closing}");
}

/// Answers come until there were as many as are told, then none: what is sent to a socket that is hung up on is lost.
async fn outcomes(node: &Node, source: &str, attempts: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..attempts {
        let mut socket = socket_from(source, node.public_addr()).await;
        let _ = socket.write_all(HANDSHAKE.as_bytes()).await;
        match http::read_head(&mut socket, &mut Vec::new()).await {
            Ok(answer) if answer.status == 101 => counts[0] += 1,
            Ok(answer) => {
                assert!(answer.header("Retry-After").is_some_and(|it| it != "0"), "{}", answer.head);
                counts[1] += 1;
            }
            Err(_) => counts[2] += 1,
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_connects_too_often_is_told_and_then_hung_up_on() {
    let node = node("[limits]\nhandshakes_per_second_per_ip = 1\nhandshakes_burst_per_ip = 30").await;
    let began = Instant::now();
    let [welcome, told, untold] = outcomes(&node, "127.0.0.1", 200).await;
    // One a second may have come on top while the test was at it.
    let more = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((30..=30 + more).contains(&welcome), "{welcome} let in");
    assert!((30..=30 + more).contains(&told), "{told} told");
    assert_eq!(welcome + told + untold, 200);
    let samples = Samples::of(node.internal_addr()).await;
    assert_eq!(samples.value(&refused("too_many_from_address")), (told + untold) as f64);
    assert_eq!(samples.value(&exceeded("handshakes_per_second_per_ip", "refused")), (told + untold) as f64);
    // Others are not concerned.
    assert_eq!(outcomes(&node, ELSEWHERE, 5).await, [5, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lets_in_so_many_at_once_and_says_when_to_come_back() {
    let node = node("[limits]\nhandshakes_per_second = 1\nhandshakes_burst = 20").await;
    let mut sum = [0; 3];
    for source in 1..=10 {
        let counts = outcomes(&node, &format!("127.0.1.{source}"), 10).await;
        (0..3).for_each(|it| sum[it] += counts[it]);
    }
    assert!((20..40).contains(&sum[0]) && (20..40).contains(&sum[1]) && sum[2] > 20, "{sum:?}");
    let samples = Samples::of(node.internal_addr()).await;
    assert_eq!(samples.value(&refused("too_many_at_once")), (sum[1] + sum[2]) as f64);
    assert_eq!(samples.value(&exceeded("handshakes_per_second", "refused")), (sum[1] + sum[2]) as f64);
}

/// What an attacker would like a node to do is to shake hands: that has its bound as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_who_goes_on_is_hung_up_on_before_the_handshake() {
    let authority = Authority::new();
    let rate = "[limits]\nhandshakes_per_second_per_ip = 1\nhandshakes_burst_per_ip = 10\n";
    let node = node(&format!("{rate}{}", authority.issue("node", GOOD).settings("tls"))).await;
    let config = Arc::new(authority.client(&["http/1.1"], None));
    let began = Instant::now();
    let [mut welcome, mut told, mut untold] = [0; 3];
    for _ in 0..100 {
        let socket = TcpStream::connect(node.public_addr()).await.unwrap();
        let Ok(stream) = tls::connect_over(socket, &config).await else {
            untold += 1;
            continue;
        };
        match Client::on(stream, node.public_addr()).await {
            Ok(_) => welcome += 1,
            Err(status) => {
                assert_eq!(status, Some(429));
                told += 1;
            }
        }
    }
    let more = began.elapsed().as_secs() + 1;
    assert!((10..=10 + more).contains(&welcome), "{welcome} let in");
    assert!((10..=10 + more).contains(&told), "{told} told");
    assert_eq!(welcome + told + untold, 100);
    let shaken = Samples::of(node.internal_addr()).await.sum("fanfare_tls_handshakes_total");
    assert!((shaken - (welcome + told) as f64).abs() < 0.5, "{shaken} for {welcome} and {told}");
}

/// Further connections on one socket are handshakes as well: streams of HTTP/2, and polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_is_no_way_around_the_rate() {
    let node = node("[limits]\nhandshakes_per_second_per_ip = 1\nhandshakes_burst_per_ip = 5").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let (mut let_in, mut told) = (Vec::new(), 0);
    for _ in 0..50 {
        match http2.open(http2.handshake()).await {
            Ok(stream) => let_in.push(stream),
            Err(answer) => {
                assert_eq!(answer.status(), 429);
                told += 1;
            }
        }
    }
    assert!((5..25).contains(&let_in.len()) && told >= 25, "{} let in, {told} told", let_in.len());
}

/// A kept table is a target: addresses without end, and the node remembers no more than it has room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_addresses_are_let_in_each_and_leave_no_trace() {
    let node = node("[limits]\nconnections_per_ip = 1\nhandshakes_per_second_per_ip = 1").await;
    for it in 0..1_000_u32 {
        let source = format!("127.1.{}.{}", it / 250, it % 250 + 1);
        assert_eq!(outcomes(&node, &source, 1).await, [1, 0, 0], "{source}");
    }
    counted(&node, "fanfare_connections", 0.0).await;
    assert_eq!(outcomes(&node, "127.2.0.1", 2).await, [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_tried_is_counted_and_refuses_nobody() {
    let text = format!(
        "{KEY}[limits]\nconnections = 1\nconnections_per_ip = 1\nconnections_per_user = 1\nhandshakes_per_second = 1\n\
         handshakes_per_second_per_ip = 1\nmessages_per_second = 2\nchannels = 1\nbatch = 2\njson_depth = 3\n\
         dry_run = [\"all\"]\n[namespaces.room]\npublish = \"anyone\"\nrate = 1\n"
    );
    let node = node(&text).await;
    let address = node.public_addr();
    let ann = token(&json!({"sub": "ann"}));
    let _first = Client::with_token(address, &ann).await.unwrap();
    let mut client = Client::with_token(address, &ann).await.unwrap();
    client.send((0..9).map(|id| json!({"type": "ping", "id": id})).collect()).await;
    for id in 0..9 {
        assert_eq!(client.event().await["id"], id);
    }
    for channel in ["room:a", "room:b"] {
        client.subscribe(channel).await;
    }
    for data in [json!([[[[1]]]]), json!(2)] {
        client.publish("room:a", data.clone()).await;
        assert_eq!(client.message("room:a").await, data);
        let body = json!({"channel": "room:b", "data": data}).to_string();
        assert_eq!(http::post(address, "/publish", &[], &body).await.status, 200);
        assert_eq!(client.message("room:b").await, data);
    }
    let samples = Samples::of(node.internal_addr()).await;
    for limit in [
        "connections",
        "connections_per_ip",
        "connections_per_user",
        "handshakes_per_second",
        "handshakes_per_second_per_ip",
        "messages_per_second",
        "channels",
        "batch",
        "json_depth",
        "rate",
    ] {
        assert!(samples.value(&exceeded(limit, "would_refuse")) > 0.0, "{limit}");
        assert!(samples.value(&exceeded(limit, "refused")).abs() < 0.5, "{limit}");
    }
    assert!(samples.sum("fanfare_handshakes_refused_total").abs() < 0.5);
    assert!(samples.sum("fanfare_command_errors_total").abs() < 0.5);
}

/// The limits of a running node, changed while clients are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_brings_new_limits_and_drops_nobody() {
    let node = node("").await;
    let address = node.public_addr();
    let mut clients = [Client::connect(address).await, Client::connect(address).await];
    node.reload(&configured("[limits]\nconnections_per_ip = 2")).await;
    assert_eq!(knock(address).await.status, 429, "those from before count");
    for client in &mut clients {
        client.assert_silence().await;
    }
    node.reload(&configured("[limits]\nhandshakes_per_second_per_ip = 1")).await;
    let counts = outcomes(&node, "127.0.0.1", 4).await;
    assert!(counts[0] < 4 && counts[1] > 0, "{counts:?}");
    node.reload(&configured("")).await;
    assert_eq!(outcomes(&node, "127.0.0.1", 4).await, [4, 0, 0]);
}

/// A publisher's rate in one namespace, to the unit; the answer says when there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_publishes_as_fast_as_its_namespace_takes_it() {
    let node =
        node("[namespaces.room]\npublish = \"anyone\"\nrate = 3\n[namespaces.free]\npublish = \"anyone\"")
            .await;
    let address = node.public_addr();
    let mut client = Client::connect(address).await;
    let publish = |channel: &str| json!({"type": "publish", "channel": channel, "data": 1});
    let batch = ["room:a", "room:b", "room:a", "room:b", "free:a"].map(publish);
    let batch: Vec<_> = batch
        .into_iter()
        .zip(1..)
        .map(|(mut it, id)| {
            it["id"] = json!(id);
            it
        })
        .collect();
    client.send(json!(batch)).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(client.event().await);
    }
    answers.sort_by_key(|answer| answer["id"].as_u64());
    for (answer, expected) in
        answers.iter().zip(["published", "published", "published", "error", "published"])
    {
        assert_eq!(answer["type"], expected, "{answer}");
    }
    let refusal = &answers[3];
    assert_eq!((&refusal["code"], &refusal["channel"]), (&json!(4429), &json!("room:b")), "{refusal}");
    let wait = Duration::from_millis(refusal["retry_after"].as_u64().expect("it says when"));
    assert!(wait <= Duration::from_millis(334), "{refusal}");
    // Another client has a rate of its own.
    Client::connect(address).await.publish("room:a", json!(2)).await;
    counted(&node, &exceeded("rate", "refused"), 1.0).await;
    let mut again = publish("room:b");
    eventually("there is room again", async || {
        again = client.ask(publish("room:b")).await;
        again["type"] == "published"
    })
    .await;
}

/// Each post is a conversation of its own, and often a socket of its own; its rate is the user's, or the address's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_are_no_way_around_the_rate_of_a_namespace() {
    let node = node(&format!("{KEY}[namespaces.room]\npublish = \"anyone\"\nrate = 2\n")).await;
    let address = node.public_addr();
    let bearer = |user: &str| format!("Authorization: Bearer {}", token(&json!({"sub": user})));
    let post = async |headers: &[&str]| {
        http::post(address, "/publish", headers, r#"{"channel":"room:a","data":1}"#).await
    };
    for headers in [vec![], vec![bearer("ann")], vec![bearer("bob")]] {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let began = Instant::now();
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(post(&headers).await.status);
        }
        let most = 2 + 2 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1);
        let taken = statuses.iter().filter(|&&status| status == 200).count();
        assert!((2..=most).contains(&taken), "{statuses:?}");
        assert!(most >= 8 || statuses.contains(&429), "{statuses:?}");
        assert_eq!(statuses[..2], [200, 200], "{headers:?} has a rate of its own");
    }
}

/// An unauthenticated peer is hung up on at the deadline, and holds a place of its address until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_who_it_is_counts_for_its_address_until_the_deadline() {
    let strict = KEY.replace("anonymous = true", "anonymous = false\ntimeout_seconds = 1");
    let node = node(&format!("{strict}[limits]\nconnections_per_ip = 3")).await;
    let address = node.public_addr();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Client::knock(address, "/ws", &[]).await.unwrap());
    }
    assert_eq!(knock(address).await.status, 429);
    for client in &mut silent {
        assert_eq!(client.goodbye().await.code, Some(4401));
    }
    eventually("the places are free", async || {
        Client::with_token(address, &token(&json!({"sub": "ann"}))).await.is_ok()
    })
    .await;
}

/// Deep data is refused before it is parsed, whatever it costs the client to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_as_deep_as_configured_and_deeper_ones_cost_nothing() {
    let node = node("[limits]\njson_depth = 10\nmessage_bytes = 4000000\nqueue_bytes = 8000000").await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (depth, expected) in [(8, "published"), (9, "published"), (10, "error"), (1_000_000, "error")] {
        let command = format!(r#"{{"type":"publish","id":1,"channel":"a","data":{}}}"#, nested(depth));
        // In a batch the command may be as deep as it may be alone.
        for text in [command.clone(), format!("[{command}]")] {
            peer.send_text(&text).await;
            let (_, answer) = peer.frame().await.expect("it is answered");
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["type"], expected, "{depth}: {answer}");
            assert!(expected != "error" || answer["code"] == 4400, "{answer}");
        }
        let body = format!(r#"{{"channel":"a","data":{}}}"#, nested(depth));
        let status = if expected == "error" { 400 } else { 200 };
        assert_eq!(http::post(node.public_addr(), "/publish", &[], &body).await.status, status, "{depth}");
        assert_eq!(http::post(node.internal_addr(), "/api/publish", &[], &body).await.status, status);
    }
    counted(&node, &exceeded("json_depth", "refused"), 8.0).await;
}

/// A body that is announced to be too long is refused before any of it has come.
#[tokio::test]
async fn a_body_over_the_bound_is_refused_before_it_is_read() {
    let node = node("[limits]\nmessage_bytes = 1000").await;
    for (door, path, bound) in
        [(node.public_addr(), "/publish", 1000), (node.internal_addr(), "/api/publish", 1000 + 4096)]
    {
        let post = async |length: usize, body: &str| {
            let request =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
            http::exchange(door, request.as_bytes()).await.unwrap().status
        };
        let body = |length: usize| {
            let (head, tail) = (r#"{"channel":"a","data":""#, "\"}");
            format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()))
        };
        assert_eq!(post(bound - 1, &body(bound - 1)).await, 200);
        assert_eq!(post(bound, &body(bound)).await, 200);
        assert_eq!(post(bound + 1, "").await, 413, "with nothing behind the head");
        // Where the length is not announced, what has come decides.
        let chunk = format!("{:x}\r\n{}\r\n", bound + 1, body(bound + 1));
        let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(http::exchange(door, request.as_bytes()).await.unwrap().status, 413);
    }
}
