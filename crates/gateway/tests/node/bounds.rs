//! Bounds hold to the unit: what is just under one, and what is at it, is served; one more is refused, by its own number.

use fanfare_testbed::raw_peer::{frame, opcode};
use fanfare_testbed::{Client, RawPeer, http};
use serde_json::{Value, json};

use crate::support::{counted, exceeded, node};

const FIN: u8 = 0x80;

/// A `ping` of so many bytes.
fn ping(bytes: usize) -> String {
    let command = r#"{"type":"ping","id":1}"#;
    format!("{command}{}", " ".repeat(bytes - command.len()))
}

/// What a new peer hears after it has sent these bytes: the type of the answer, or the code of the Close.
async fn outcome(node: &fanfare_gateway::node::Node, bytes: &[u8]) -> String {
    let mut peer = RawPeer::connect(node.public_addr()).await;
    peer.send_bytes(bytes).await;
    match peer.frame().await.expect("there is an answer") {
        (opcode::PONG, payload) => format!("pong of {}", payload.len()),
        (_, answer) => {
            let answer: Value = serde_json::from_slice(&answer).expect("answers are JSON");
            match answer["type"].as_str().expect("with a type") {
                "closing" => format!("close {}", peer.until_close().await.1.expect("with a code")),
                other => other.to_owned(),
            }
        }
    }
}

/// Around the bound, and around every length at which the header of a frame changes.
#[tokio::test]
async fn a_message_may_have_as_many_bytes_as_welcome_says() {
    for bound in [128_usize, 200, 65_535, 65_536, 70_000] {
        let node = node(&format!("[limits]\nmessage_bytes = {bound}")).await;
        let mut lengths = vec![bound - 1, bound, bound + 1];
        lengths.extend([125, 126, 127, 65_535, 65_536].into_iter().filter(|length| *length < bound - 1));
        let mut refused = 0.0;
        for length in lengths {
            refused += if length > bound { 2.0 } else { 0.0 };
            let text = ping(length);
            let expected = if length > bound { "close 1009" } else { "pong" };
            let whole = frame(FIN | opcode::TEXT, text.as_bytes());
            assert_eq!(outcome(&node, &whole).await, expected, "{length} bytes of {bound}");
            let (head, tail) = text.as_bytes().split_at(length / 2);
            let fragments = [frame(opcode::TEXT, head), frame(0, b""), frame(FIN, tail)].concat();
            assert_eq!(outcome(&node, &fragments).await, expected, "{length} bytes of {bound} in fragments");
        }
        counted(&node, &exceeded("message_bytes", "refused"), refused).await;
    }
}

#[tokio::test]
async fn a_control_frame_carries_125_bytes() {
    let node = node("").await;
    for (length, expected) in [(124, "pong of 124"), (125, "pong of 125"), (126, "close 1002")] {
        let bytes = frame(FIN | opcode::PING, &vec![7; length]);
        assert_eq!(outcome(&node, &bytes).await, expected);
    }
    for (length, answer) in [(122, 4000_u16), (123, 4000), (124, 1002)] {
        let mut peer = RawPeer::connect(node.public_addr()).await;
        let payload = [&4000_u16.to_be_bytes()[..], &vec![b'r'; length]].concat();
        peer.send(opcode::CLOSE, &payload).await;
        assert_eq!(peer.until_close().await.1, Some(answer), "a reason of {length} bytes");
    }
}

#[tokio::test]
async fn a_batch_has_as_many_commands_as_configured() {
    let node = node("[limits]\nbatch = 3").await;
    let mut client = Client::connect(node.public_addr()).await;
    for count in [2_u64, 3] {
        client.send((0..count).map(|id| json!({"type": "ping", "id": id})).collect()).await;
        for id in 0..count {
            let answer = client.event().await;
            assert_eq!((&answer["type"], &answer["id"]), (&json!("pong"), &json!(id)), "{count} commands");
        }
    }
    client.send((0..4).map(|id| json!({"type": "ping", "id": id})).collect()).await;
    let answer = client.event().await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(4400)), "{answer}");
    client.assert_silence().await;
    counted(&node, &exceeded("batch", "refused"), 1.0).await;
}

/// All of a batch is decided at one moment, so a second's worth is exactly that.
#[tokio::test]
async fn a_connection_sends_as_many_commands_a_second_as_welcome_says() {
    for rate in [1_u64, 2, 50] {
        let node = node(&format!("[limits]\nmessages_per_second = {rate}")).await;
        for count in [rate - 1, rate, rate + 1] {
            let mut client = Client::connect(node.public_addr()).await;
            assert_eq!(client.welcome()["limits"]["messages_per_second"], rate);
            if count > 0 {
                client.send((0..count).map(|id| json!({"type": "ping", "id": id})).collect()).await;
            }
            for id in 0..count {
                let answer = client.event().await;
                let code = if id < rate { json!(null) } else { json!(4429) };
                assert_eq!(
                    (&answer["id"], &answer["code"]),
                    (&json!(id), &code),
                    "{count} of {rate}: {answer}"
                );
            }
        }
        counted(&node, &exceeded("messages_per_second", "refused"), 1.0).await;
    }
}

/// Each ping costs an answer, and each pong a look, so they count as commands do: after as many, a command is one too many.
#[tokio::test]
async fn pings_and_pongs_of_websocket_count_against_the_rate() {
    let node = node("[limits]\nmessages_per_second = 2").await;
    for (control, expected) in [(opcode::PING, "error"), (opcode::PONG, "error"), (opcode::TEXT, "pong")] {
        let mut peer = RawPeer::connect(node.public_addr()).await;
        if control != opcode::TEXT {
            peer.send_bytes(&frame(FIN | control, b"").repeat(2)).await;
        }
        peer.send_text(&ping(30)).await;
        let answer = loop {
            match peer.frame().await.expect("there is an answer") {
                (opcode::PONG, _) => {}
                (_, answer) => break answer,
            }
        };
        let answer: Value = serde_json::from_slice(&answer).expect("answers are JSON");
        assert_eq!(answer["type"], expected, "{answer}");
        assert_eq!(answer.get("code"), (expected == "error").then_some(&json!(4429)), "{answer}");
    }
}

/// The answers to one message are queued before any of them is written: so they are what waits, to the byte.
#[tokio::test]
async fn as_many_bytes_wait_for_a_connection_as_configured() {
    const QUEUE_BYTES: usize = 4096;
    let node = node(&format!(
        "[limits]\nqueue_bytes = {QUEUE_BYTES}\nmessage_bytes = {QUEUE_BYTES}\nmessages_per_second = 0"
    ))
    .await;
    // A frame of less than 126 bytes has a header of two.
    let pong =
        |id: &str| 2 + json!({"type": "pong", "id": id, "time": 1_767_225_600_000_u64}).to_string().len();
    let (short, long) = (pong(""), pong(&"i".repeat(64)));
    for (bytes, is_served) in [(QUEUE_BYTES - 1, true), (QUEUE_BYTES, true), (QUEUE_BYTES + 1, false)] {
        let count = bytes / long - 1;
        let rest = bytes - count * long; // Of one to two long ones, which two shorter ones make up.
        let lengths = [(rest / 2) - short, rest.div_ceil(2) - short];
        let ids = (0..count).map(|_| 64).chain(lengths);
        let batch: Value = ids.map(|length| json!({"type": "ping", "id": "i".repeat(length)})).collect();
        let mut client = Client::connect(node.public_addr()).await;
        client.send(batch).await;
        if is_served {
            for _ in 0..count + 2 {
                assert_eq!(client.event().await["type"], "pong", "{bytes} of {QUEUE_BYTES} bytes");
            }
            client.assert_silence().await;
        } else {
            let (heard, goodbye) = client.until_closed().await;
            assert_eq!(goodbye.code, Some(4508), "{bytes} of {QUEUE_BYTES} bytes");
            assert!(heard.is_empty(), "the queue is given up as a whole: {heard:?}");
        }
    }
    counted(&node, &exceeded("queue_bytes", "refused"), 1.0).await;
}

#[tokio::test]
async fn a_connection_subscribes_to_as_many_channels_as_configured() {
    let node = node("[limits]\nchannels = 3").await;
    let mut client = Client::connect(node.public_addr()).await;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await;
    }
    let answer = client.ask(json!({"type": "subscribe", "channel": "d"})).await;
    assert_eq!(answer["code"], 4422, "{answer}");
    client.ask(json!({"type": "unsubscribe", "channel": "a"})).await;
    client.subscribe("d").await;
    counted(&node, &exceeded("channels", "refused"), 1.0).await;
}

#[tokio::test]
async fn a_publication_has_as_many_bytes_as_its_namespace_allows() {
    let node = node("[namespaces.room]\nmax_bytes = 100\npublish = \"anyone\"").await;
    let mut client = Client::connect(node.public_addr()).await;
    for (length, outcome) in [(99, json!(null)), (100, json!(null)), (101, json!(4413))] {
        let data = "x".repeat(length - 2);
        let answer = client.ask(json!({"type": "publish", "channel": "room:1", "data": data})).await;
        assert_eq!(answer["code"], outcome, "{length} bytes: {answer}");
    }
    counted(&node, &exceeded("max_bytes", "refused"), 1.0).await;
}

#[tokio::test]
async fn so_many_bad_requests_are_forgiven() {
    let node = node("[limits]\nmax_errors = 3").await;
    let mut client = Client::connect(node.public_addr()).await;
    for _ in 0..3 {
        client.send(json!("no command")).await;
        assert_eq!(client.event().await["code"], 4400);
    }
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    client.send(json!("no command")).await;
    assert_eq!(client.goodbye().await.code, Some(4400));
}

#[tokio::test]
async fn names_and_ids_are_as_long_as_the_protocol_says() {
    let node = node("").await;
    let mut client = Client::connect(node.public_addr()).await;
    for (length, outcome) in [(254, "subscribed"), (255, "subscribed"), (256, "error")] {
        let answer = client.ask(json!({"type": "subscribe", "channel": "c".repeat(length)})).await;
        assert_eq!(answer["type"], outcome, "a channel of {length} bytes");
    }
    for (length, outcome) in [(63, "pong"), (64, "pong"), (65, "error")] {
        client.send(json!({"type": "ping", "id": "i".repeat(length)})).await;
        assert_eq!(client.event().await["type"], outcome, "an id of {length} bytes");
    }
}

/// The head of a request: the buffer that it has to fit in is the bound.
#[tokio::test]
async fn a_head_has_at_most_16_kib() {
    let node = node("").await;
    let head = |bytes: usize| {
        let begin = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Filling: ";
        format!("{begin}{}\r\n\r\n", "x".repeat(bytes - begin.len() - 4))
    };
    for (bytes, status) in [(16 * 1024 - 1, 200), (16 * 1024 + 1, 431)] {
        let answer = http::exchange(node.public_addr(), head(bytes).as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{bytes} bytes");
    }
}
