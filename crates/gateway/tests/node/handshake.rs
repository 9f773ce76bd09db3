//! The opening handshake, to the letter (RFC 6455 section 4.2), and what a peer may do before it.

use std::time::Duration;

use fanfare_testbed::raw_peer::{HANDSHAKE, frame, opcode};
use fanfare_testbed::{PATIENCE, RawPeer, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::support::{configured, counted, node, start};

/// The handshake with one part replaced.
fn handshake_with(part: &str, replacement: &str) -> String {
    assert!(HANDSHAKE.contains(part), "{part:?}");
    HANDSHAKE.replace(part, replacement)
}

/// The handshake with a further header.
fn handshake_and(header: &str) -> String {
    handshake_with("Host: fanfare\r\n", &format!("Host: fanfare\r\n{header}\r\n"))
}

#[tokio::test]
async fn the_answer_is_what_rfc_6455_says_and_nothing_more() {
    let node = node("[compression]\nenabled = false").await;
    let offer = handshake_and("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits");
    let answer = http::exchange(node.public_addr(), offer.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 101);
    let lines = answer.head.lines().map(str::to_ascii_lowercase).filter(|line| !line.starts_with("date:"));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    let expected = [
        "",
        "connection: upgrade",
        "http/1.1 101 switching protocols",
        // The key and its answer are the example of RFC 6455 section 1.3.
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "upgrade: websocket",
    ];
    assert_eq!(lines, expected);
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

/// Tokens are compared without regard to case, and may stand in a list (RFC 9110).
#[tokio::test]
async fn tokens_are_found_in_lists_whatever_their_case() {
    let node = node("").await;
    for request in [
        handshake_with("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        handshake_with("Connection: Upgrade", "Connection: keep-alive\r\nconnection: upgrade"),
        handshake_with("Upgrade: websocket", "Upgrade: WebSocket"),
        handshake_with("GET /ws ", "GET /ws?colour=red "),
    ] {
        let answer = http::exchange(node.public_addr(), request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 101, "{request}");
    }
}

#[tokio::test]
async fn a_bad_handshake_is_refused_with_the_status_that_says_why() {
    let node = node("[origin]\nallow = [\"https://app.example.com\"]").await;
    let refused = [
        (400, handshake_with("GET", "POST")),
        (400, handshake_with("HTTP/1.1", "HTTP/1.0")),
        (400, handshake_with("Upgrade: websocket\r\n", "")),
        (400, handshake_with("Upgrade: websocket", "Upgrade: h2c")),
        (400, handshake_with("Connection: Upgrade\r\n", "")),
        (400, handshake_with("Connection: Upgrade", "Connection: keep-alive")),
        (400, handshake_with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")),
        (400, handshake_with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j")),
        (400, handshake_with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=-")),
        (403, handshake_and("Origin: https://evil.example.com")),
        (403, handshake_and("Origin: null")),
        (404, handshake_with("/ws", "/ws/")),
        (404, handshake_with("/ws", "/elsewhere")),
        (426, handshake_with("Sec-WebSocket-Version: 13\r\n", "")),
        (426, handshake_with("Version: 13", "Version: 8")),
        (426, handshake_with("Version: 13", "Version: 013")),
    ];
    for (status, request) in &refused {
        let answer = http::exchange(node.public_addr(), request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, *status, "{request}");
        assert!(!answer.body.is_empty(), "{request}");
        assert_eq!(answer.header("Sec-WebSocket-Version"), (*status == 426).then_some("13"), "{request}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{request}");
    }
    let accepted = handshake_and("Origin: https://app.example.com");
    assert_eq!(http::exchange(node.public_addr(), accepted.as_bytes()).await.unwrap().status, 101);
    for (reason, count) in [("bad_request", 9.0), ("forbidden_origin", 2.0), ("bad_version", 3.0)] {
        counted(&node, &format!("fanfare_handshakes_refused_total{{reason=\"{reason}\"}}"), count).await;
    }
}

/// RFC 9112 section 3.2, on every path and both listeners: what a proxy before the node takes for the host and what the node does must not
/// differ. A request of HTTP/1.0 may have none.
#[tokio::test]
async fn a_request_names_its_host_once_and_well_or_is_hung_up_on() {
    let node = node("").await;
    let hosts = [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: u@a\r\n",
        "Host: a/b\r\n",
    ];
    for host in hosts {
        for request in [
            "GET /ws HTTP/1.1\r\n",
            "GET /health HTTP/1.1\r\n",
            "POST /publish HTTP/1.1\r\n",
            "GET /sse?channel=a HTTP/1.1\r\n",
        ] {
            let rest = HANDSHAKE.split_once("Host: fanfare\r\n").unwrap().1;
            // What comes behind it on the socket is not answered.
            let request = format!("{request}{host}{rest}{}", "GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
            for address in [node.public_addr(), node.internal_addr()] {
                let mut socket = TcpStream::connect(address).await.unwrap();
                socket.write_all(request.as_bytes()).await.unwrap();
                let mut heard = String::new();
                timeout(PATIENCE, socket.read_to_string(&mut heard)).await.expect("it hangs up").unwrap();
                assert!(
                    heard.starts_with("HTTP/1.1 400 ") && heard.contains(r#""code":4400"#),
                    "{request}{heard}"
                );
                assert!(!heard.contains("HTTP/1.1 200"), "{request}{heard}");
            }
        }
    }
    counted(&node, "fanfare_handshakes_refused_total{reason=\"bad_request\"}", (hosts.len() * 4) as f64)
        .await;
    for good in [
        "GET /health HTTP/1.0\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
    ] {
        let answer = http::exchange(node.public_addr(), good.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{good}");
    }
}

/// The target of a request may be a whole URL, which then counts, and `Host` does not (RFC 9112 section 3.2.2): so a page that is let in by the
/// one is not let in by the other.
#[tokio::test]
async fn a_url_for_a_target_says_which_host_is_meant() {
    let node = node("").await;
    for (target, host, status) in [
        ("http://fanfare/ws", "evil.example", 101),
        ("http://evil.example/ws", "fanfare", 403),
        ("/ws", "fanfare", 101),
        ("/ws", "evil.example", 403),
    ] {
        let request = handshake_and("Origin: http://fanfare").replace("GET /ws ", &format!("GET {target} "));
        let request = request.replace("Host: fanfare\r\n", &format!("Host: {host}\r\n"));
        let answer = http::exchange(node.public_addr(), request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{target} {host}");
    }
}

#[tokio::test]
async fn the_subprotocol_is_chosen_from_the_offer_or_not_at_all() {
    let node = node("").await;
    for (offer, chosen) in [
        ("Sec-WebSocket-Protocol: fanfare.v1.json", Some("fanfare.v1.json")),
        ("Sec-WebSocket-Protocol: graphql-ws,fanfare.v1.json", Some("fanfare.v1.json")),
        ("Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: fanfare.v1.json", Some("fanfare.v1.json")),
        ("Sec-WebSocket-Protocol: mqtt", None),
        ("Sec-WebSocket-Protocol: FANFARE.V1.JSON", None),
        ("X-Nothing: offered", None),
    ] {
        let request = handshake_and(offer);
        let answer = http::exchange(node.public_addr(), request.as_bytes()).await.unwrap();
        assert_eq!((answer.status, answer.header("Sec-WebSocket-Protocol")), (101, chosen), "{offer}");
    }
}

#[tokio::test]
async fn a_strict_node_refuses_whoever_offers_only_strange_subprotocols() {
    let node = node("[websocket]\nstrict_subprotocol = true").await;
    for (offer, status) in [
        ("Sec-WebSocket-Protocol: mqtt", 400),
        ("Sec-WebSocket-Protocol: mqtt, graphql-ws", 400),
        ("Sec-WebSocket-Protocol: mqtt, fanfare.v1.json", 101),
        ("Sec-WebSocket-Protocol: fanfare.v1.json", 101),
        ("X-Nothing: offered", 101),
    ] {
        let answer = http::exchange(node.public_addr(), handshake_and(offer).as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{offer}");
        assert!(status == 101 || answer.text().contains("fanfare.v1.json"), "{}", answer.text());
    }
    counted(&node, "fanfare_handshakes_refused_total{reason=\"bad_request\"}", 2.0).await;
}

/// A client need not wait for the answer before it speaks.
#[tokio::test]
async fn what_comes_in_one_packet_with_the_handshake_is_served() {
    let node = node("[namespaces.room]\n").await;
    let socket = TcpStream::connect(node.public_addr()).await.unwrap();
    let command = frame(0x80 | opcode::TEXT, br#"{"type":"subscribe","id":7,"channel":"room:1"}"#);
    let mut peer = RawPeer::shake_hands(socket, &[HANDSHAKE.as_bytes(), &command].concat()).await;
    let (_, answer) = peer.frame().await.unwrap();
    assert_eq!(answer, br#"{"type":"subscribed","id":7,"channel":"room:1"}"#);
}

/// A request that comes byte by byte, never complete, is hung up on; so is one that never begins.
#[tokio::test]
async fn whoever_dribbles_a_request_is_hung_up_on() {
    let mut config = configured("");
    config.limits.header_timeout = Duration::from_millis(300);
    let node = start(&config).await;
    let mut silent = TcpStream::connect(node.public_addr()).await.unwrap();
    let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();

    let mut pace = interval(Duration::from_millis(20));
    let endless = HANDSHAKE.trim_end().bytes().chain(std::iter::repeat(b'='));
    let mut sent = 0;
    for byte in endless {
        pace.tick().await;
        if socket.write_all(&[byte]).await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 1_000, "nobody minds");
    }
    assert!(sent > 5, "{sent} bytes were taken: time to complete a request is given");
    let mut rest = Vec::new();
    let end =
        timeout(Duration::from_secs(10), silent.read_to_end(&mut rest)).await.expect("silence is not heard");
    assert!(end.is_err() || !rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    counted(&node, "fanfare_handshakes_refused_total{reason=\"header_timeout\"}", 2.0).await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let node = node("").await;
    let request = handshake_and(&format!("Cookie: {}", "c".repeat(20_000)));
    let answer = http::exchange(node.public_addr(), request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 431);
    let request = handshake_and(&format!("Cookie: {}", "c".repeat(8_000)));
    assert_eq!(http::exchange(node.public_addr(), request.as_bytes()).await.unwrap().status, 101);
}
