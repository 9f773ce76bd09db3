//! One conversation, over every transport: what is heard does not depend on what carries it.
//!
//! A new transport is a row in [`ear`], and is held to all of this.

use std::time::Duration;

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Client, EventStream, Nginx, Samples, eventually, http};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{configured, counted, node, start};

mod ear;
mod one_way;

use ear::{Ear, Refused, Row};

const ROOM: &str = "[node]\ndrain_seconds = 0\n[limits]\nmessages_per_second = 0\nqueue_bytes = 65536\n\
                    [namespaces.room]\npublish = \"anyone\"\n[namespaces.room.history]\nsize = 5\n\
                    [namespaces.secret]\nsubscribe = \"token\"\npublish = \"none\"\n";

/// What differs between two runs is taken out: the name of the stream, the jitter, and whether a message was under way
/// or in history when the client asked, which for one that polls is a matter of chance.
fn plain(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        fields.entry("epoch").and_modify(|epoch| *epoch = json!("E"));
        fields.entry("after").and_modify(|after| *after = json!(after.is_u64()));
        if fields["type"] == "message" {
            fields.remove("recovered");
        }
    }
    event
}

/// What is published: some of it again and again, so that it is shorter when compressed.
fn data(number: u64) -> Value {
    json!({"n": number, "text": "again and again ".repeat(8)})
}

fn message(offset: u64) -> Value {
    json!({"type": "message", "channel": "room:1", "offset": offset, "data": data(offset)})
}

fn subscribed(offset: u64, recovered: bool) -> Value {
    json!({"type": "subscribed", "channel": "room:1", "epoch": "E", "offset": offset, "recovered": recovered})
}

async fn say(row: Row, node: &Node, offset: u64) {
    let answer = plain(row.publish(node.public_addr(), "room:1", data(offset)).await);
    let expected = json!({"type": "published", "channel": "room:1", "epoch": "E", "offset": offset});
    assert_eq!(answer, expected, "{row:?}");
}

/// Subscribes, hears, is cut and recovers, is away for too long and is told so, and is drained.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_the_same_over_every_transport() {
    for row in Row::ALL {
        let node = row.node(ROOM).await;
        let address = node.public_addr();
        for offset in 1..=2 {
            say(row, &node, offset).await;
        }
        let mut ear = Ear::open(row, address, &["room:1"]).await.unwrap();
        let mut heard = vec![ear.hear().await];
        for offset in 3..=4 {
            say(row, &node, offset).await;
            heard.push(ear.hear().await);
        }
        ear.cut();
        for offset in 5..=7 {
            say(row, &node, offset).await;
        }
        ear.come_back(address).await;
        for _ in 0..4 {
            heard.push(ear.hear().await);
        }
        say(row, &node, 8).await;
        heard.push(ear.hear().await);
        ear.cut();
        for offset in 9..=20 {
            say(row, &node, offset).await;
        }
        ear.come_back(address).await;
        heard.push(ear.hear().await);
        say(row, &node, 21).await;
        heard.push(ear.hear().await);
        let compressed = ear.compressed();
        assert!(compressed.is_none_or(|count| count > 0), "what was agreed on is done");
        assert_eq!(compressed.is_some(), row == Row::Deflated);
        let internal = node.internal_addr();
        let draining = async {
            // One that polls is there only while it does.
            let connected = async || Samples::of(internal).await.value("fanfare_connections") > 0.0;
            eventually("the client is there", connected).await;
            node.drain().await;
        };
        let (ending, ()) = tokio::join!(async { [ear.hear().await, ear.hear().await] }, draining);
        heard.extend(ending);

        let expected = [
            subscribed(2, false),
            message(3),
            message(4),
            subscribed(7, true),
            message(5),
            message(6),
            message(7),
            message(8),
            subscribed(20, false),
            message(21),
            json!({"type": "closing", "code": 1001, "reason": "going_away", "message": "this node is shutting down",
                   "reconnect": true, "after": true}),
            Value::Null,
        ];
        assert_eq!(heard.into_iter().map(plain).collect::<Vec<_>>(), expected, "{row:?}");
    }
}

/// A proxy hands on every byte as it comes, and what is posted with it; and it finds another node for who comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_goes_through_nginx() {
    // nginx speaks HTTP/1.1 with the nodes.
    for row in Row::ALL.into_iter().filter(|row| row.is_http1()) {
        let (config, bus) = (configured(&row.settings(ROOM)), Bus::default());
        let [first, second] =
            [Node::start_on(&config, &bus).await.unwrap(), Node::start_on(&config, &bus).await.unwrap()];
        let nginx = Nginx::start(&[first.public_addr(), second.public_addr()]).await;
        let mut ear = Ear::open(row, nginx.address(), &["room:1"]).await.unwrap();
        assert_eq!(plain(ear.hear().await), subscribed(0, false), "{row:?}");
        for offset in 1..=3 {
            row.publish(nginx.address(), "room:1", data(offset)).await;
            assert_eq!(plain(ear.hear().await), message(offset), "{row:?}");
        }
        assert!(ear.compressed().is_none_or(|count| count > 0), "nginx hands the agreement on");
        ear.cut();
        row.publish(nginx.address(), "room:1", data(4)).await;
        first.drain().await;
        ear.come_back(nginx.address()).await;
        assert_eq!(plain(ear.hear().await), subscribed(4, true), "{row:?}");
        assert_eq!(plain(ear.hear().await), message(4), "{row:?}");
        if row == Row::Events {
            let head =
                EventStream::open(nginx.address(), "/sse?channel=room:1", "").await.unwrap().into_lines();
            assert_eq!(head.head().header("Cache-Control"), Some("no-store, no-transform"));
        }
    }
}

/// Two channels that both speak all the time, and a client that is cut after every few events and comes back to the other
/// node: it hears each message of each channel once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_client_is_cut_it_misses_nothing_and_hears_nothing_twice() {
    const MESSAGES: u64 = 150;
    // All of them are kept: the publisher does not wait for whoever is away.
    const KEPT: &str = "[limits]\nmessages_per_second = 0\n[namespaces.default]\npublish = \"anyone\"\n\
                        [namespaces.default.history]\nsize = 150\n";
    for (row, seed) in Row::ALL.into_iter().zip(1..) {
        let (config, bus) = (configured(&row.settings(KEPT)), Bus::default());
        let nodes =
            [Node::start_on(&config, &bus).await.unwrap(), Node::start_on(&config, &bus).await.unwrap()];
        let channels = ["a", "b"];
        let mut ear = Ear::open(row, nodes[0].public_addr(), &channels).await.unwrap();
        for channel in channels {
            assert_eq!(ear.hear().await["channel"], channel);
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let mut heard = [Vec::new(), Vec::new()];
        let publishing = async {
            for number in 0..MESSAGES {
                for channel in channels {
                    publish(&nodes[1], channel, json!(number)).await;
                }
            }
        };
        let hearing = async {
            let (mut cuts, mut until_cut) = (0, 3);
            while heard.iter().any(|it: &Vec<u64>| it.len() < MESSAGES as usize) {
                if until_cut == 0 {
                    ear.cut();
                    cuts += 1;
                    ear.come_back(nodes[cuts % 2].public_addr()).await;
                    until_cut = random.usize(1..12);
                }
                until_cut -= 1;
                let event = ear.hear().await;
                let index = usize::from(event["channel"] == "b");
                match event["type"].as_str() {
                    Some("message") => heard[index].push(event["data"].as_u64().unwrap()),
                    Some("subscribed") => assert_eq!(event["recovered"], true, "{row:?}: {event}"),
                    _ => panic!("{row:?}: {event}"),
                }
            }
            cuts
        };
        let ((), cuts) = tokio::join!(publishing, hearing);
        assert!(cuts > 10, "{row:?} was cut {cuts} times");
        for heard in &heard {
            assert_eq!(*heard, (0..MESSAGES).collect::<Vec<_>>(), "{row:?}, seed {seed}");
        }
    }
}

/// The queue is bounded and given up as a whole: what is heard is a beginning without a gap, then why, then nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_over_every_transport_that_lasts() {
    for row in Row::lasting() {
        let node = row.node(ROOM).await;
        let mut slow = Ear::narrow(row, node.public_addr(), &["room:1"]).await;
        let published = overflow(&node).await;
        assert_eq!(slow.hear().await["type"], "subscribed");
        let mut numbers = Vec::new();
        let closing = loop {
            let event = slow.hear().await;
            match event["type"].as_str() {
                Some("message") => numbers.push(event["data"][0].as_u64().unwrap()),
                _ => break event,
            }
        };
        assert_eq!(
            (&closing["code"], &closing["reconnect"]),
            (&json!(4508), &json!(true)),
            "{row:?}: {closing}"
        );
        assert_eq!(slow.hear().await, Value::Null);
        assert_eq!(
            numbers,
            (0..numbers.len() as u64).collect::<Vec<_>>(),
            "{row:?}: a beginning without a gap"
        );
        assert!((numbers.len() as u64) < published);
        slow.come_back(node.public_addr()).await;
        assert_eq!(slow.hear().await["recovered"], false, "{row:?} is told that some are gone");
        drop(slow);
        counted(&node, "fanfare_connections", 0.0).await;
        counted(&node, "fanfare_outbox_bytes", 0.0).await;
        counted(&node, "fanfare_outbox_overflows_total", 1.0).await;
    }
}

/// Nothing waits for a client that polls; one that comes back to more than it may be sent at once is told so.
#[tokio::test]
async fn a_poll_after_more_than_half_of_the_queue_reports_the_loss() {
    let node = node(ROOM).await;
    let mut ear = Ear::open(Row::Poll, node.public_addr(), &["room:1"]).await.unwrap();
    assert_eq!(plain(ear.hear().await), subscribed(0, false));
    let filling = "x".repeat(8 * 1024);
    for number in 0..5 {
        Row::Poll.publish(node.public_addr(), "room:1", json!([number, filling])).await;
    }
    assert_eq!(plain(ear.hear().await), subscribed(5, false));
    Row::Poll.publish(node.public_addr(), "room:1", json!("small")).await;
    assert_eq!(ear.hear().await["data"], "small");
    counted(&node, "fanfare_connections", 0.0).await;
}

/// Publishes as a backend does, so however clients come.
async fn publish(node: &Node, channel: &str, data: Value) {
    let body = json!({"channel": channel, "data": data}).to_string();
    let answer = http::post(node.internal_addr(), "/api/publish", &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Publishes until the one client that does not read has been given up, and returns how many that was.
async fn overflow(node: &Node) -> u64 {
    /// 16 MB, or three quarters of it compressed: more than any kernel takes for one client.
    const KERNEL_TAKES: u64 = 2000;
    let (mut published, mut has_waited) = (0, false);
    loop {
        let filling: String = (0..8 * 1024).map(|_| fastrand::alphanumeric()).collect();
        publish(node, "room:1", json!([published, filling])).await;
        published += 1;
        let samples = Samples::of(node.internal_addr()).await;
        let waiting = samples.value("fanfare_outbox_bytes");
        has_waited |= waiting > 32_768.0;
        // A busy node may fill and empty the queue between two looks; then it shows by what can be nowhere.
        let is_given_up = waiting < 4096.0 && (has_waited || published > KERNEL_TAKES);
        if is_given_up || samples.value("fanfare_connections") < 1.0 {
            return published;
        }
        assert!(published < 10_000, "80 MB wait somewhere: {waiting} bytes in the queue");
    }
}

/// A reader that takes nothing at all is not waited for: the kernel gives it up, whatever carries it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_given_up_in_the_time_of_a_heartbeat() {
    let give_up = async |row: Row| {
        let mut config = configured(&row.settings(ROOM));
        config.heartbeat.interval = Duration::from_secs(2);
        config.heartbeat.timeout = Duration::from_secs(1);
        let node = start(&config).await;
        let _stuck = Ear::narrow(row, node.public_addr(), &["room:1"]).await;
        overflow(&node).await;
        counted(&node, "fanfare_connections", 0.0).await;
        counted(&node, "fanfare_subscriptions", 0.0).await;
    };
    join_all(Row::lasting().map(give_up)).await;
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_alike() {
    for row in Row::ALL {
        let one = row.node("[limits]\nconnections = 1").await;
        // One that polls is there only while it does.
        let first = if row == Row::Poll { Row::WebSocket } else { row };
        let _first = Ear::open(first, one.public_addr(), &["a"]).await.unwrap();
        let refused = Ear::open(row, one.public_addr(), &["a"]).await.err();
        assert_eq!(refused, Some(Refused::Status(503)), "{row:?}");

        let room = row.node(ROOM).await;
        for (channels, code) in
            [(&["nowhere:1"][..], 4404), (&["secret:1"], 4403), (&["secret:1", "nowhere:1"], 4403)]
        {
            let refused = Ear::open(row, room.public_addr(), channels).await.err();
            assert_eq!(refused, Some(Refused::Code(code)), "{row:?} {channels:?}");
        }
        for (channel, code) in [("nowhere:1", 4404), ("secret:1", 4403), ("a b", 4400)] {
            let answer = row.publish(room.public_addr(), channel, json!(1)).await;
            assert_eq!(answer["code"], code, "{row:?} {answer}");
        }
        counted(&room, "fanfare_subscriptions", 0.0).await;

        let node = row.node("[limits]\nchannels = 2").await;
        for (channels, refused) in
            [(&["a"][..], None), (&["a", "b"], None), (&["a", "b", "c"], Some(Refused::Code(4422)))]
        {
            assert_eq!(
                Ear::open(row, node.public_addr(), channels).await.err(),
                refused,
                "{row:?} {channels:?}"
            );
        }
    }
}

/// The same message, one byte under the bound, at it and over it: by a WebSocket, whose message is what its dialect makes of it and what comes
/// out when it is inflated, and by a post.
#[tokio::test]
async fn a_message_over_the_bound_is_refused_over_every_transport() {
    const BOUND: usize = 2000;
    for row in Row::ALL {
        let node = row.node(&format!("[limits]\nmessage_bytes = {BOUND}")).await;
        let say = async |bytes| row.publish_bytes(node.public_addr(), "a", json!(1), bytes).await;
        for bytes in [BOUND - 1, BOUND] {
            assert_eq!(say(bytes).await.expect("it is taken")["type"], "published", "{row:?}, {bytes} bytes");
        }
        let over = say(BOUND + 1).await.map(|answer| answer["code"].clone());
        let refused = if row.is_websocket() { Err(1009) } else { Ok(json!(4413)) };
        assert_eq!(over, refused, "{row:?}");
    }
}

#[tokio::test]
async fn a_socket_may_post_as_often_as_a_connection_may_send() {
    let node = node("[limits]\nmessages_per_second = 2").await;
    let mut socket = Client::connect(node.public_addr()).await;
    let mut posts = TcpStream::connect(node.public_addr()).await.unwrap();
    let body = r#"{"channel":"a","data":1,"id":7}"#;
    let request =
        format!("POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for attempt in 0..3 {
        let answer = socket.ask(json!({"type": "publish", "channel": "a", "data": 1})).await;
        posts.write_all(request.as_bytes()).await.unwrap();
        let posted = http::read_response(&mut posts).await.unwrap();
        assert_eq!(posted.json()["type"], answer["type"], "{attempt}");
        if attempt == 2 {
            assert_eq!((posted.status, posted.json()["code"].as_u64()), (429, Some(4429)));
            assert_eq!(answer["code"], 4429);
            assert_eq!(posted.header("Retry-After"), Some("1"));
        } else {
            assert_eq!(posted.json()["id"], 7);
        }
    }
}

/// Each says which test shows what of it, by letters that are explained.
#[test]
fn every_transport_has_its_line_in_the_documentation() {
    const PAGE: &str = include_str!("../../../../docs/conformance.md");
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim);
    let lines = || PAGE.lines().filter(|line| line.starts_with("| "));
    for row in Row::ALL {
        let mut line = lines().map(cells).filter(|cells| cells.clone().next() == Some(row.name()));
        let line = line.next().unwrap_or_else(|| panic!("{row:?} is not in the table"));
        assert_eq!(line.clone().count(), 7, "{row:?}");
        for cell in line.skip(1) {
            assert!(!cell.is_empty(), "{row:?} lacks a test");
            for letter in cell.split(' ') {
                let mut explained = lines().map(cells).map(|mut it| (it.next(), it.next()));
                let test = explained.find(|(name, _)| *name == Some(letter)).and_then(|(_, test)| test);
                assert!(test.is_some_and(|it| it.starts_with('`')), "{row:?}: what is {letter}?");
            }
        }
    }
}
