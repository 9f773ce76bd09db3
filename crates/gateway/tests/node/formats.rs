//! Clients of JSON and of MessagePack on one channel, on several nodes.

use fanfare_testbed::{Client, MsgpackClient, http};
use rmpv::Value as Packed;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{cluster, node};

const CHANNEL: &str = "room:1";

fn map<const N: usize>(fields: [(&str, Packed); N]) -> Packed {
    Packed::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn subscribe() -> Packed {
    map([("type", "subscribe".into()), ("channel", CHANNEL.into())])
}

fn publish(data: Packed) -> Packed {
    map([("type", "publish".into()), ("id", 1.into()), ("channel", CHANNEL.into()), ("data", data)])
}

/// What is published in either format, on whichever node, everybody hears at the same offset, each in his own format.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_formats_share_a_channel() {
    let [a, b] = cluster().await;
    let (mut json_here, mut json_there) =
        (Client::connect(a.public_addr()).await, Client::connect(b.public_addr()).await);
    let mut packed_here = MsgpackClient::connect(a.public_addr()).await;
    let mut packed_there = MsgpackClient::connect(b.public_addr()).await;
    for client in [&mut json_here, &mut json_there] {
        client.subscribe(CHANNEL).await;
    }
    for client in [&mut packed_here, &mut packed_there] {
        client.ask(&subscribe(), "subscribed").await;
    }
    let cases = [
        (Packed::Binary(vec![0, 0xff, b'\n']), json!({"$binary": "AP8K"})),
        (Packed::Array(vec![Packed::F32(0.5), Packed::Nil, u64::MAX.into()]), json!([0.5, null, u64::MAX])),
        (Packed::Ext(5, vec![1, 2]), json!({"$ext": [5, "AQI="]})),
        (Packed::Ext(-1, vec![0x69, 0x55, 0xb9, 0]), json!("2026-01-01T00:00:00Z")),
        (Packed::Map(vec![(7.into(), "seven".into())]), json!({"7": "seven"})),
    ];
    let mut publisher = MsgpackClient::connect(b.public_addr()).await;
    for (offset, (packed, json)) in (1..).zip(&cases) {
        publisher.ask(&publish(packed.clone()), "published").await;
        for client in [&mut json_here, &mut json_there] {
            let event = client.event().await;
            assert_eq!((&event["data"], &event["offset"]), (json, &json!(offset)));
        }
        for client in [&mut packed_here, &mut packed_there] {
            let event = client.event().await;
            assert_eq!((&event["data"], event["offset"].as_u64()), (packed, Some(offset)));
        }
    }
    let translated = Packed::Array(vec![1.into(), Packed::F64(1.5), "ü".into(), map([("a", Packed::Nil)])]);
    let body = json!({"channel": CHANNEL, "data": [1, 1.5, "ü", {"a": null}]}).to_string();
    assert_eq!(http::post(a.internal_addr(), "/api/publish", &[], &body).await.status, 200);
    for client in [&mut packed_here, &mut packed_there] {
        assert_eq!(client.event().await["data"], translated);
    }
    assert_eq!(json_there.message(CHANNEL).await, json!([1, 1.5, "ü", {"a": null}]));
}

/// What was missed is replayed, and history is read, in the format of whoever asks.
#[tokio::test]
async fn the_past_is_told_in_the_format_of_whoever_asks() {
    let [a, b] = cluster().await;
    let mut publisher = MsgpackClient::connect(a.public_addr()).await;
    let bytes = Packed::Binary(vec![1, 2, 3]);
    publisher.ask(&publish(bytes.clone()), "published").await;
    http::post(a.internal_addr(), "/api/publish", &[], r#"{"channel":"room:1","data":{"n": 2}}"#).await;

    let mut packed = MsgpackClient::connect(b.public_addr()).await;
    let rewind = map([("type", "subscribe".into()), ("channel", CHANNEL.into()), ("rewind", 9.into())]);
    packed.ask(&rewind, "subscribed").await;
    for data in [&bytes, &map([("n", 2.into())])] {
        let event = packed.event().await;
        assert_eq!((&event["data"], event["recovered"].as_bool()), (data, Some(true)));
    }
    let history = map([("type", "history".into()), ("channel", CHANNEL.into())]);
    let page = packed.ask(&history, "history").await;
    let messages = page["messages"].as_array().unwrap();
    assert_eq!((&messages[0]["data"], messages[1]["offset"].as_u64()), (&bytes, Some(2)));

    let expected = json!([{"offset": 1, "data": {"$binary": "AQID"}}, {"offset": 2, "data": {"n": 2}}]);
    let mut json = Client::connect(b.public_addr()).await;
    let page = json.ask(json!({"type": "history", "channel": CHANNEL})).await;
    assert_eq!(page["messages"], expected);
    let response = http::post(b.internal_addr(), "/api/history", &[], r#"{"channel":"room:1"}"#).await;
    assert_eq!(serde_json::from_str::<Value>(response.text()).unwrap()["messages"], expected);
}

/// A message in the wrong kind of frame ends the connection; bytes that are no MessagePack do not.
#[tokio::test]
async fn text_is_refused_and_noise_is_answered() {
    let node = node("").await;
    let mut client = MsgpackClient::connect(node.public_addr()).await;
    client.send_frame(Message::binary(vec![0xdd, 0xff, 0xff, 0xff, 0xff])).await;
    assert_eq!(client.event().await["code"].as_u64(), Some(4400));
    client.send_frame(Message::text(r#"{"type":"ping"}"#)).await;
    let closing = client.event().await;
    assert_eq!((closing["type"].as_str(), closing["code"].as_u64()), (Some("closing"), Some(1003)));
    let Message::Close(Some(close)) = client.frame().await else { panic!("the end is a Close") };
    assert_eq!(u16::from(close.code), 1003);
}

/// What is short in MessagePack may be long in JSON: it is refused, rather than every subscriber of it dropped.
#[tokio::test]
async fn what_would_fill_the_queue_of_a_subscriber_alone_is_refused() {
    let node = node("[limits]\nqueue_bytes = 65536\nmessages_per_second = 0").await;
    let mut subscriber = Client::connect(node.public_addr()).await;
    subscriber.subscribe(CHANNEL).await;
    let mut publisher = MsgpackClient::connect(node.public_addr()).await;
    for (count, is_taken) in [(3000, true), (5000, false)] {
        let bins = Packed::Array(vec![Packed::Binary(Vec::new()); count]);
        let answer = publisher.ask(&publish(bins), if is_taken { "published" } else { "error" }).await;
        if is_taken {
            assert_eq!(subscriber.message(CHANNEL).await.as_array().unwrap().len(), count);
        } else {
            assert_eq!(answer["code"].as_u64(), Some(4413));
            assert!(answer["message"].as_str().unwrap().contains("at most 65536 wait"), "{answer}");
        }
    }
    // A backend's bytes as well: three become four.
    let bytes = "A".repeat(4 * 16_000); // 48,000 bytes.
    let body = json!({"channel": CHANNEL, "data_base64": bytes}).to_string();
    let answer = http::post(node.internal_addr(), "/api/publish", &[], &body).await;
    assert_eq!(answer.status, 200, "64,000 characters fit");
    assert_eq!(subscriber.message(CHANNEL).await["$binary"], bytes);
    let body = json!({"channel": CHANNEL, "data_base64": "A".repeat(65_600)}).to_string();
    let answer = http::post(node.internal_addr(), "/api/publish", &[], &body).await;
    assert_eq!((answer.status, answer.json()["code"].as_u64()), (413, Some(4413)));
    subscriber.assert_silence().await;
}
