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

/// RFC 9113 section 8.3.1: a `Host` beside `:authority` says the same, once, or the request is not clear.
#[tokio::test]
async fn a_host_beside_the_authority_names_the_same() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let same = node.public_addr().to_string();
    for (hosts, is_clear) in [
        (vec![], true),
        (vec![&*same], true),
        (vec!["evil.example"], false),
        (vec![&same, &same], false),
        (vec!["a b"], false),
    ] {
        let name = |request: &mut Request<()>| {
            for host in &hosts {
                request.headers_mut().append("host", HeaderValue::from_str(host).unwrap());
            }
        };
        let mut handshake = http2.handshake();
        name(&mut handshake);
        let opened = http2.open(handshake).await;
        assert_eq!(
            opened.as_ref().map_err(|it| it.status().as_u16()).err(),
            (!is_clear).then_some(400),
            "{hosts:?}"
        );
        let mut health = Request::get(format!("http://{same}/health")).body(()).unwrap();
        name(&mut health);
        assert_eq!(http2.request(health).await.status(), if is_clear { 200 } else { 400 }, "{hosts:?}");
    }
    let named = Request::get(format!("http://user@{same}/health")).body(()).unwrap();
    assert_eq!(http2.request(named).await.status(), 400, "nobody's name stands before a host");
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
