//! Many publications in one request, a line each.

use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, RedisServer, eventually, http};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::node;

async fn ingest(node: &Node, headers: &[&str], body: &str) -> (u16, Value) {
    let answer = http::post(node.internal_addr(), "/api/ingest", headers, body).await;
    (answer.status, answer.json())
}

fn line(channel: &str, data: impl Into<Value>) -> String {
    json!({"channel": channel, "data": data.into()}).to_string() + "\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_heard_once_and_in_order() {
    let node = node("[limits]\nqueue_bytes = 8388608").await;
    let mut client = Client::connect(node.public_addr()).await;
    for channel in ["room:1", "room:2"] {
        client.subscribe(channel).await;
    }
    let body: String = (0..3000).map(|n| line(["room:1", "room:2"][n % 2], n)).collect();
    let (status, summary) = ingest(&node, &[], &body).await;
    let expected = json!({"type": "ingested", "lines": 3000, "published": 3000, "failed": 0, "failures": []});
    assert_eq!((status, summary), (200, expected));
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..3000 {
        let event = client.event().await;
        let of = if event["channel"] == "room:1" { &mut one } else { &mut two };
        of.push(event["data"].as_u64().unwrap());
    }
    assert_eq!(one, (0..3000).step_by(2).collect::<Vec<_>>());
    assert_eq!(two, (1..3000).step_by(2).collect::<Vec<_>>());
    client.assert_silence().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_line_is_told_by_its_number_and_the_others_are_published() {
    let node = node("[limits]\nmessage_bytes = 1024\n[namespaces.room]\n").await;
    let body = [
        line("room:1", 1),
        "\r\n".into(),
        "not json\n".into(),
        line("elsewhere:1", 2),
        line("room:1", "x".repeat(20_000)),
        "[]\n".into(),
        line("room:1", 3).trim_end().into(),
    ]
    .concat();
    let (status, summary) = ingest(&node, &["Content-Type: application/x-ndjson"], &body).await;
    let told: Vec<_> = summary["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["line"].as_u64(), it["code"].as_u64()))
        .collect();
    let expected = [(3, 4400), (4, 4404), (5, 4413), (6, 4400)].map(|(line, code)| (Some(line), Some(code)));
    assert_eq!(told, expected, "{summary}");
    assert_eq!((status, &summary["published"], &summary["failed"]), (200, &json!(2), &json!(4)), "{summary}");
}

#[tokio::test]
async fn who_sends_nothing_that_can_be_read_is_not_listened_to_for_ever() {
    let node = node("").await;
    let (status, summary) = ingest(&node, &[], &"nonsense\n".repeat(20_000)).await;
    assert_eq!((status, summary["failures"].as_array().unwrap().len()), (400, 1000));
    assert!(summary["lines"].as_u64().unwrap() < 2000, "{}", summary["lines"]);
    let (status, error) = ingest(&node, &["Content-Encoding: gzip"], &line("a", 1)).await;
    assert_eq!((status, &error["code"]), (400, &json!(4400)));
}

/// What has come whole before the caller went is published; the half of a line is not.
#[tokio::test]
async fn a_caller_that_goes_away_takes_no_line_with_it() {
    let node = node("").await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    let mut socket = TcpStream::connect(node.internal_addr()).await.unwrap();
    let body = line("room:1", 1) + &line("room:1", 2) + line("room:1", 3).trim_end();
    let head = "POST /api/ingest HTTP/1.1\r\nHost: fanfare\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = format!("{head}{:x}\r\n{body}\r\n", body.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(client.messages("room:1", 2).await, [1, 2], "lines are published as they come");
    drop(socket);
    let (status, _) = ingest(&node, &[], &line("room:1", 4)).await;
    assert_eq!((status, client.message("room:1").await), (200, json!(4)));
}

#[tokio::test]
async fn a_key_opens_what_it_is_for_line_by_line() {
    let config = "[api.callers.shop]\nkeys = [\"shop-key\"]\nscopes = [\"publish\"]\nchannels = [\"order:*\"]\n\
        [api.callers.eye]\nkeys = [\"eye-key\"]\nscopes = [\"read\"]\n";
    let node = node(config).await;
    let body = line("order:1", 1) + &line("room:1", 1);
    let (_, summary) = ingest(&node, &["Authorization: Bearer shop-key"], &body).await;
    assert_eq!((&summary["published"], &summary["failures"][0]["line"]), (&json!(1), &json!(2)), "{summary}");
    let (_, summary) = ingest(&node, &["Authorization: Bearer eye-key"], &body).await;
    assert_eq!(
        (&summary["published"], &summary["failures"][0]["code"]),
        (&json!(0), &json!(4403)),
        "{summary}"
    );
    assert_eq!(ingest(&node, &[], &body).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_says_how_far_it_came() {
    let node = node("[node]\ndrain_seconds = 1").await;
    let mut client = Client::connect(node.public_addr()).await;
    client.subscribe("room:1").await;
    let mut socket = TcpStream::connect(node.internal_addr()).await.unwrap();
    let head = "POST /api/ingest HTTP/1.1\r\nHost: fanfare\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |n: u64| {
        let line = line("room:1", n);
        format!("{:x}\r\n{line}\r\n", line.len())
    };
    socket.write_all(format!("{head}{}", chunk(1)).as_bytes()).await.unwrap();
    assert_eq!(client.message("room:1").await, 1);
    let public = node.public_addr();
    let told = async {
        eventually("it drains", async || http::get(public, "/ready").await.status == 503).await;
        socket.write_all(chunk(2).as_bytes()).await.unwrap();
        let answer = http::read_response(&mut socket).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.json()["stopped"].as_str().unwrap().contains("draining"), "{}", answer.text());
    };
    tokio::join!(node.drain(), told);
}

/// What failed and what was not looked at is sent again, under the same keys: then it is all there, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_stops_the_reading_and_says_so() {
    let mut redis = RedisServer::start().await;
    let config = format!(
        "[broker]\nkind = \"redis\"\n[redis]\nurls = [\"{}\"]\n\
         [namespaces.room.history]\nsize = 1000\nttl_seconds = 600\n",
        redis.url()
    );
    let node = node(&config).await;
    let lines: String = (0..500)
        .map(|n| json!({"channel": "room:1", "data": n, "key": format!("k{n}")}).to_string() + "\n")
        .collect();
    redis.stop().await;
    eventually("the broker is away", async || http::get(node.public_addr(), "/ready").await.status == 503)
        .await;
    let (status, summary) = ingest(&node, &[], &lines).await;
    assert_eq!((status, &summary["published"]), (503, &json!(0)), "{summary}");
    assert!(summary["stopped"].as_str().is_some_and(|why| why.contains("broker is away")), "{summary}");
    // No more was begun than may be under way.
    assert!(summary["lines"].as_u64().is_some_and(|lines| (1..=256).contains(&lines)), "{summary}");
    assert_eq!((&summary["failed"], &summary["failures"][0]["code"]), (&summary["lines"], &json!(4503)));

    redis.start_again().await;
    let is_ready = async || http::get(node.public_addr(), "/ready").await.status == 200;
    eventually("every connection to the broker is back", is_ready).await;
    for _ in 0..2 {
        let mut summary = Value::Null;
        eventually("it is taken", async || {
            summary = ingest(&node, &[], &lines).await.1;
            summary["failed"] == 0
        })
        .await;
        assert_eq!(summary["published"], 500, "{summary}");
    }
    let (mut kept, all) = (Vec::new(), r#"{"channel": "room:1", "limit": 1000}"#);
    eventually("history is answered", async || {
        let page = http::post(node.internal_addr(), "/api/history", &[], all).await.json();
        let messages = page["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        kept = messages.iter().filter_map(|it| it["data"].as_u64()).collect();
        !kept.is_empty()
    })
    .await;
    kept.sort_unstable();
    assert_eq!(kept, (0..500).collect::<Vec<_>>(), "each once");
}
