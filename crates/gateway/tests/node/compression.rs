//! permessage-deflate on the wire: what is agreed is done, for whoever it was agreed with, and nothing grows.
//!
//! The peers inflate and deflate with `miniz_oxide`, which the gateway does not; those of HTTP/2 are of the `h2` crate. Chromium
//! and the `ws` of npm are asked in tests/browser, the Autobahn suite by scripts/autobahn.

use std::io::Write;

use ::http::HeaderValue;
use fanfare_gateway::node::Node;
use fanfare_testbed::raw_peer::{HANDSHAKE, frame, opcode};
use fanfare_testbed::{Client, Http2, RawPeer, Samples, http, http2};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::support::{closed_with, counted, node};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// A handshake with an offer.
fn offering(offer: &str) -> String {
    HANDSHAKE.replace("Host: fanfare\r\n", &format!("Host: fanfare\r\nSec-WebSocket-Extensions: {offer}\r\n"))
}

async fn answer(node: &Node, offer: &str) -> (u16, Option<String>) {
    let answer =
        http::exchange(node.public_addr(), offering(offer).as_bytes()).await.expect("there is an answer");
    (answer.status, answer.header("Sec-WebSocket-Extensions").map(str::to_owned))
}

/// A peer that has agreed on compression, and has heard `welcome`.
async fn connect(node: &Node) -> RawPeer {
    let socket = TcpStream::connect(node.public_addr()).await.expect("the gateway listens");
    RawPeer::shake_hands(socket, offering("permessage-deflate").as_bytes()).await
}

/// The same on a stream of HTTP/2, and what it was answered.
async fn connect_over(http2: &mut Http2) -> (RawPeer<http2::Stream>, String) {
    let mut handshake = http2.handshake();
    let offer = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
    handshake.headers_mut().insert("sec-websocket-extensions", offer);
    let (headers, stream) = http2.open(handshake).await.expect("the gateway lets the client in");
    let answer = headers.get("sec-websocket-extensions").expect("the extension is agreed on");
    (RawPeer::over(stream).await, answer.to_str().expect("it is text").to_owned())
}

/// A message as a stream that has ended, which RFC 7692 (7.2.3.4) allows.
fn deflated(message: &[u8]) -> Vec<u8> {
    [&compress_to_vec(message, 6)[..], b"\x00"].concat()
}

/// A whole compressed text message.
fn compressed(message: &[u8]) -> Vec<u8> {
    frame(FIN | RSV1 | opcode::TEXT, &deflated(message))
}

fn inflated(payload: &[u8]) -> Value {
    let whole = [payload, b"\x00\x00\xff\xff\x03\x00"].concat();
    serde_json::from_slice(&decompress_to_vec(&whole).expect("it is DEFLATE")).expect("it is JSON")
}

/// The next message, which must be compressed: what it says, and its bytes on the wire.
async fn hear_compressed<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut RawPeer<S>) -> (Value, usize) {
    let (first, payload) = peer.frame_as_it_is().await.expect("something is said");
    assert_eq!(first, FIN | RSV1 | opcode::TEXT);
    (inflated(&payload), payload.len())
}

/// A value of about so many bytes that resembles what people send.
fn sample(bytes: usize) -> Value {
    let each = json!({"user": "user-17", "price": 12.5, "text": "the quick brown fox", "active": true});
    let count = (bytes / each.to_string().len()).max(1);
    (0..count)
        .map(|id| {
            let mut it = each.clone();
            it["id"] = json!(id * 7919);
            it
        })
        .collect()
}

#[tokio::test]
async fn an_offer_is_answered_as_configured() {
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let plain = node("").await;
    for (offer, expected) in [
        ("permessage-deflate", (101, Some(both))),
        ("permessage-deflate; client_max_window_bits", (101, Some(both))),
        ("x-webkit-deflate-frame, permessage-deflate", (101, Some(both))),
        ("permessage-deflate; server_max_window_bits=8", (101, None)),
        ("x-webkit-deflate-frame", (101, None)),
        ("permessage-deflate; =", (400, None)),
    ] {
        let (status, extensions) = answer(&plain, offer).await;
        assert_eq!((status, extensions.as_deref()), expected, "{offer}");
    }
    let own = node("[compression]\ncontext_takeover = true\nwindow_bits = 12").await;
    let expected = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
    let answered = answer(&own, "permessage-deflate; client_max_window_bits").await;
    assert_eq!(answered, (101, Some(expected.to_owned())));
    let off = node("[compression]\nenabled = false").await;
    assert_eq!(answer(&off, "permessage-deflate").await, (101, None));
}

/// Whoever agreed to it and whoever did not hear the same, from both.
#[tokio::test]
async fn compressed_and_plain_subscribers_hear_the_same() {
    let node = node("").await;
    let mut plain = Client::connect(node.public_addr()).await;
    let mut other = connect(&node).await;
    plain.subscribe("room:1").await;
    other.send_bytes(&compressed(br#"{"type":"subscribe","id":1,"channel":"room:1"}"#)).await;
    other.frame().await.expect("too short to be compressed");

    let data = sample(2000);
    plain.publish("room:1", data.clone()).await;
    assert_eq!(plain.message("room:1").await, data);
    let (event, bytes) = hear_compressed(&mut other).await;
    assert_eq!((&event["type"], &event["data"]), (&json!("message"), &data));
    assert!(bytes < data.to_string().len() / 2, "{bytes}");

    let command = json!({"type": "publish", "id": 2, "channel": "room:1", "data": data});
    other.send_bytes(&compressed(command.to_string().as_bytes())).await;
    assert_eq!(plain.message("room:1").await, data);

    // A reply of the session's is compressed as well: both of the last messages, in a page of history.
    let (mut echo, mut published) = (0, 0);
    while echo + published < 2 {
        let (first, payload) = other.frame_as_it_is().await.expect("the publication and the answer");
        if first & RSV1 == 0 {
            published += 1
        } else {
            echo += usize::from(inflated(&payload)["data"] == data)
        }
    }
    assert_eq!((echo, published), (1, 1));
    other.send_text(r#"{"type":"history","id":3,"channel":"room:1"}"#).await;
    let (page, _) = hear_compressed(&mut other).await;
    assert_eq!((&page["id"], &page["messages"][1]["data"]), (&json!(3), &data));

    let samples = Samples::of(node.internal_addr()).await;
    let least = data.to_string().len() as f64;
    for series in ["fanfare_sent_saved_bytes_total", "fanfare_received_saved_bytes_total"] {
        assert!(samples.value(series) > least / 2.0, "{series} = {}", samples.value(series));
    }
}

#[tokio::test]
async fn messages_below_the_threshold_and_those_that_do_not_shrink_go_as_they_are() {
    let node = node("[compression]\nthreshold_bytes = 300").await;
    let mut publisher = Client::connect(node.public_addr()).await;
    let mut peer = connect(&node).await;
    peer.send_text(r#"{"type":"subscribe","id":1,"channel":"a"}"#).await;
    peer.frame().await.expect("subscribed");
    let envelope = r#"{"type":"message","channel":"a","data":"","offset":1}"#.len();
    for (bytes, first) in [(299, FIN | opcode::TEXT), (300, FIN | RSV1 | opcode::TEXT)] {
        publisher.publish("a", json!("a".repeat(bytes - envelope))).await;
        assert_eq!(peer.frame_as_it_is().await.expect("it comes").0, first, "{bytes} bytes");
    }
    // Random digits in hexadecimal still shrink by half; all of Unicode does not.
    let noise: String = (0..2000).map(|_| fastrand::char('\u{4e00}'..'\u{9fff}')).collect();
    publisher.publish("a", json!(noise)).await;
    let (first, payload) = peer.frame_as_it_is().await.expect("it comes");
    let plain = noise.len() + envelope;
    assert!(payload.len() <= plain + 2, "{} of {plain} bytes, {first:x}", payload.len());
}

/// The bound is on what comes out, not on what comes in; and a bomb costs the bound at most.
#[tokio::test]
async fn the_bound_holds_for_what_comes_out() {
    let node = node("[limits]\nmessage_bytes = 4096").await;
    let ping = |bytes: usize| {
        let command = r#"{"type":"ping","id":1}"#;
        format!("{command}{}", " ".repeat(bytes - command.len()))
    };
    for (bytes, is_heard) in [(4095, true), (4096, true), (4097, false), (3_000_000, false)] {
        let payload = deflated(ping(bytes).as_bytes());
        assert!(payload.len() < 4096, "the frame itself is within the bound: {}", payload.len());
        let (head, tail) = payload.split_at(payload.len() / 2);
        for stream in [
            frame(FIN | RSV1 | opcode::TEXT, &payload),
            [frame(RSV1 | opcode::TEXT, head), frame(FIN, tail)].concat(),
        ] {
            let mut peer = connect(&node).await;
            peer.send_bytes(&stream).await;
            if is_heard {
                let (_, pong) = peer.frame().await.expect("a pong");
                assert!(pong.starts_with(br#"{"type":"pong","id":1"#), "{bytes}");
            } else {
                assert_eq!(peer.until_close().await.1, Some(1009), "{bytes}");
            }
        }
    }
    counted(&node, &closed_with(1009), 4.0).await;
}

#[tokio::test]
async fn what_breaks_the_extension_is_a_protocol_error() {
    let node = node("").await;
    for (what, stream) in [
        ("what is no DEFLATE", frame(FIN | RSV1 | opcode::TEXT, b"\xff\xff\xff")),
        ("half a stream", frame(FIN | RSV1 | opcode::TEXT, &compress_to_vec(&[b'x'; 500], 6)[..4])),
        ("a compressed ping", frame(FIN | RSV1 | opcode::PING, b"")),
        ("another reserved bit", frame(FIN | RSV1 | 0x20 | opcode::TEXT, &deflated(b"{}"))),
        ("a compressed continuation", [frame(opcode::TEXT, b"{"), frame(FIN | RSV1, b"}")].concat()),
    ] {
        let mut peer = connect(&node).await;
        peer.send_bytes(&stream).await;
        assert_eq!(peer.until_close().await.1, Some(1002), "{what}");
    }
    let mut peer = RawPeer::connect(node.public_addr()).await;
    peer.send_bytes(&compressed(b"{}")).await;
    assert_eq!(peer.until_close().await.1, Some(1002), "who has not agreed may not compress");
}

/// With context takeover the second of two like messages is a fraction of the first, and a peer that keeps its state reads
/// both, whatever comes between them.
#[tokio::test]
async fn messages_refer_to_each_other_where_that_was_agreed() {
    let node = node("[compression]\ncontext_takeover = true").await;
    let mut publisher = Client::connect(node.public_addr()).await;
    let mut peer = connect(&node).await;
    peer.send_text(r#"{"type":"subscribe","id":1,"channel":"a"}"#).await;
    peer.frame().await.expect("subscribed");
    let data = sample(1500);
    let mut state = InflateState::new(DataFormat::Raw);
    let mut sizes = Vec::new();
    for round in 0..20 {
        publisher.publish("a", data.clone()).await;
        peer.send(opcode::PING, &[round]).await;
        loop {
            let (first, payload) = peer.frame_as_it_is().await.expect("it comes");
            if first & RSV1 == 0 {
                continue; // The pong.
            }
            let mut out = vec![0; 65_536];
            let whole = [&payload[..], b"\x00\x00\xff\xff"].concat();
            let result = inflate(&mut state, &whole, &mut out, MZFlush::Sync);
            assert!(result.status.is_ok(), "{result:?}");
            let event: Value = serde_json::from_slice(&out[..result.bytes_written]).expect("it is JSON");
            assert_eq!(event["data"], data);
            sizes.push(payload.len());
            break;
        }
    }
    assert!(sizes[1] * 5 < sizes[0], "{sizes:?}");
}

/// Over HTTP/2 (RFC 8441) the extension is the same: agreed on, done in both directions, and the very bytes of a publication are
/// those of everybody else. A stream that breaks it takes none of its neighbours along.
#[tokio::test]
async fn compression_over_http2_is_that_over_http1() {
    let node = node("[limits]\nmessage_bytes = 4096\nqueue_bytes = 65536").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let ((mut near, answer), (mut bomber, _)) =
        (connect_over(&mut http2).await, connect_over(&mut http2).await);
    assert_eq!(answer, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
    let mut far = connect(&node).await;
    let subscribe = compressed(br#"{"type":"subscribe","id":1,"channel":"room:1"}"#);
    near.send_bytes(&subscribe).await;
    far.send_bytes(&subscribe).await;
    for subscribed in [near.frame().await, far.frame().await] {
        assert!(subscribed.unwrap().1.starts_with(br#"{"type":"subscribed""#), "too short to be compressed");
    }
    let data = sample(2000);
    let publish = json!({"type": "publish", "channel": "room:1", "data": data, "echo": true}).to_string();
    near.send_bytes(&compressed(publish.as_bytes())).await;
    let (here, there) = (near.frame_as_it_is().await.unwrap(), far.frame_as_it_is().await.unwrap());
    assert_eq!(here, there, "compressed once for all");
    assert_eq!((here.0, &inflated(&here.1)["data"]), (FIN | RSV1 | opcode::TEXT, &data));

    bomber.send_bytes(&compressed(&vec![b' '; 3_000_000])).await;
    assert_eq!(bomber.until_close().await.1, Some(1009));
    far.send_bytes(&compressed(publish.as_bytes())).await;
    assert_eq!(hear_compressed(&mut near).await.0["data"], data);
}

#[tokio::test]
async fn messages_of_a_stream_refer_to_each_other_where_that_was_agreed() {
    let node = node("[compression]\ncontext_takeover = true\nwindow_bits = 11").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let (mut peer, answer) = connect_over(&mut http2).await;
    assert_eq!(answer, "permessage-deflate; server_max_window_bits=11; client_max_window_bits=11");
    peer.send_text(r#"{"type":"subscribe","id":1,"channel":"a"}"#).await;
    peer.frame().await.expect("subscribed");
    let data = sample(1000);
    let body = json!({"channel": "a", "data": data}).to_string();
    let (mut state, mut sizes) = (InflateState::new(DataFormat::Raw), Vec::new());
    for _ in 0..3 {
        assert_eq!(http::post(node.internal_addr(), "/api/publish", &[], &body).await.status, 200);
        let (first, payload) = peer.frame_as_it_is().await.expect("it comes");
        assert_eq!(first, FIN | RSV1 | opcode::TEXT);
        let mut out = vec![0; 4096];
        let whole = [&payload[..], b"\x00\x00\xff\xff"].concat();
        let result = inflate(&mut state, &whole, &mut out, MZFlush::Sync);
        let event: Value = serde_json::from_slice(&out[..result.bytes_written]).expect("it is JSON");
        assert_eq!(event["data"], data);
        sizes.push(payload.len());
    }
    assert!(sizes[1] * 4 < sizes[0] && sizes[2] * 4 < sizes[0], "{sizes:?}");
}

/// Fragments that come byte by byte, compressed, a ping inside.
#[tokio::test]
async fn compressed_fragments_may_arrive_byte_by_byte() {
    let node = node("").await;
    let mut peer = connect(&node).await;
    let payload = deflated(format!("{:<1000}", r#"{"type":"ping","id":1}"#).as_bytes());
    let mut stream = Vec::new();
    stream.write_all(&frame(RSV1 | opcode::TEXT, &payload[..5])).expect("memory");
    stream.write_all(&frame(FIN | opcode::PING, b"?")).expect("memory");
    stream.write_all(&frame(FIN, &payload[5..])).expect("memory");
    for byte in stream {
        peer.send_bytes(&[byte]).await;
    }
    assert_eq!(peer.frame().await, Some((opcode::PONG, b"?".to_vec())));
    assert!(peer.frame().await.is_some_and(|(_, it)| it.starts_with(br#"{"type":"pong""#)));
}
