//! The extended CONNECT that opens a WebSocket: who is let in, and who is told why not.

use fanfare_testbed::{Client, Http2};
use http::{HeaderValue, Method, Request};

use crate::nodes::{counted, node};

type Change = fn(&mut Request<()>);

#[tokio::test]
async fn an_extended_connect_opens_a_websocket_and_is_counted_as_one() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let (headers, stream) = http2.open(http2.handshake()).await.unwrap();
    assert_eq!(headers.get("sec-websocket-protocol").unwrap(), "fanfare.v1.json");
    let theirs: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    assert!(!theirs.contains(&"sec-websocket-accept"), "there is no key to answer: {theirs:?}");
    Client::speak(stream).await.unwrap().assert_silence().await;
    Client::connect(node.public_addr()).await.assert_silence().await;
    counted(&node, "fanfare_websockets_accepted_total{http=\"2\"}", 1.0).await;
    counted(&node, "fanfare_websockets_accepted_total{http=\"1.1\"}", 1.0).await;
    counted(&node, "fanfare_connections_accepted_total", 2.0).await;
}

#[tokio::test]
async fn a_bad_handshake_is_refused_with_the_status_that_says_why() {
    let node =
        node("[origin]\nallow = [\"https://app.example.com\"]\n[websocket]\nstrict_subprotocol = true").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let refused: [(u16, &str, Change); 8] = [
        // Without `:protocol` a CONNECT has no path to be served at.
        (404, "no protocol", |it| drop(it.extensions_mut().remove::<h2::ext::Protocol>())),
        (400, "another protocol", |it| {
            it.extensions_mut().insert(h2::ext::Protocol::from_static("connect-ip"));
        }),
        (400, "unknown subprotocols alone", |it| {
            it.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
        }),
        (403, "a page of another site", |it| {
            it.headers_mut().insert("origin", HeaderValue::from_static("https://evil.example.com"));
        }),
        (404, "another path", |it| {
            *it.uri_mut() = it.uri().to_string().replace("/ws", "/sw").parse().unwrap()
        }),
        (426, "no version", |it| drop(it.headers_mut().remove("sec-websocket-version"))),
        (426, "another version", |it| {
            it.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("8"));
        }),
        (400, "no CONNECT", |it| {
            *it.method_mut() = Method::GET;
            it.extensions_mut().remove::<h2::ext::Protocol>();
        }),
    ];
    for (status, what, change) in refused {
        let mut handshake = http2.handshake();
        change(&mut handshake);
        let Err(answer) = http2.open(handshake).await else { panic!("{what}: is let in") };
        assert_eq!(answer.status(), status, "{what}");
        assert!(!answer.body().is_empty(), "{what}");
        let version = answer.headers().get("sec-websocket-version").map(HeaderValue::as_bytes);
        assert_eq!(version, (status == 426).then_some(&b"13"[..]), "{what}");
    }
    let mut allowed = http2.handshake();
    allowed.headers_mut().insert("origin", HeaderValue::from_static("https://app.example.com"));
    assert!(http2.open(allowed).await.is_ok(), "and after all that the socket still serves");
}

/// Where no origin is named a page is compared with `:authority`, which is what Host is in HTTP/1.1.
#[tokio::test]
async fn a_page_of_the_same_host_is_let_in() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    for (origin, is_let_in) in [("http://127.0.0.1:3000", true), ("http://evil.example.com", false)] {
        let mut handshake = http2.handshake();
        handshake.headers_mut().insert("origin", HeaderValue::from_static(origin));
        assert_eq!(http2.open(handshake).await.is_ok(), is_let_in, "{origin}");
    }
}
