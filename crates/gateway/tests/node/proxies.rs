//! For whom a socket speaks: `X-Forwarded-For` and `Forwarded` of trusted proxies, and the PROXY protocol.
//!
//! Whom the node takes a client for is seen by what it counts: with one connection to an address, a second one of the same
//! client is refused.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

use std::sync::Arc;

use fanfare_gateway::node::Node;
use fanfare_testbed::authority::GOOD;
use fanfare_testbed::raw_peer::HANDSHAKE;
use fanfare_testbed::{Authority, Client, Nginx, RawPeer, http};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{counted, node, socket_from};
use crate::tls;

/// Everybody on 127.0.0.1 is a proxy; one connection each.
const TRUSTING: &str =
    "[proxy]\ntrusted = [\"127.0.0.1\", \"10.0.0.0/8\"]\n[limits]\nconnections_per_ip = 1\n";

async fn with(node: &Node, headers: &[(&'static str, &str)]) -> Result<Client, Option<u16>> {
    Client::knock(node.public_addr(), "/ws", headers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_speaks_for_many_and_what_a_client_writes_is_not_believed() {
    let node = node(TRUSTING).await;
    let _first = with(&node, &[("X-Forwarded-For", "203.0.113.1")]).await.unwrap();
    let _other = with(&node, &[("X-Forwarded-For", "203.0.113.2")]).await.unwrap();
    for same in
        ["203.0.113.1", "198.51.100.77, 203.0.113.1", "garbage, 203.0.113.1, 10.9.9.9", "203.0.113.1:99"]
    {
        assert_eq!(with(&node, &[("X-Forwarded-For", same)]).await.unwrap_err(), Some(429), "{same}");
    }
    // The header that the proxies do not set says nothing.
    let forged = [("Forwarded", "for=203.0.113.77"), ("X-Forwarded-For", "203.0.113.1")];
    assert_eq!(with(&node, &forged).await.unwrap_err(), Some(429));
    // What cannot be read makes it the proxy's own.
    let _own = with(&node, &[("X-Forwarded-For", "203.0.113.3, unknown")]).await.unwrap();
    assert_eq!(with(&node, &[("X-Forwarded-For", "")]).await.unwrap_err(), Some(429));
    assert_eq!(with(&node, &[]).await.unwrap_err(), Some(429));
    counted(&node, "fanfare_forwarded_malformed_total", 2.0).await;
    // Who is no proxy is who it is.
    let claim = HANDSHAKE.replace("Host: fanfare\r\n", "Host: fanfare\r\nX-Forwarded-For: 203.0.113.50\r\n");
    let _direct =
        RawPeer::shake_hands(socket_from("127.0.0.7", node.public_addr()).await, claim.as_bytes()).await;
    let mut again = socket_from("127.0.0.7", node.public_addr()).await;
    let another = claim.replace("203.0.113.50", "203.0.113.51");
    again.write_all(another.as_bytes()).await.unwrap();
    assert_eq!(http::read_response(&mut again).await.unwrap().status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_is_believed_where_the_proxies_set_it() {
    let node = node(&TRUSTING.replace("[limits]", "header = \"forwarded\"\n[limits]")).await;
    let _first = with(&node, &[("Forwarded", "for=203.0.113.1;proto=https")]).await.unwrap();
    let same = [("Forwarded", "for=\"203.0.113.1:80\""), ("X-Forwarded-For", "203.0.113.9")];
    assert_eq!(with(&node, &same).await.unwrap_err(), Some(429));
    // IPv6 clients are told apart by network.
    let _six = with(&node, &[("Forwarded", "for=\"[2001:db8::1]\"")]).await.unwrap();
    let neighbour = [("Forwarded", "for=\"[2001:db8::ffff:1]:443\"")];
    assert_eq!(with(&node, &neighbour).await.unwrap_err(), Some(429));
    assert!(with(&node, &[("Forwarded", "for=\"[2001:db8:0:1::1]\"")]).await.is_ok());
}

/// The proxy's own socket is nobody's: the rate is that of the client that it speaks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshakes_behind_a_proxy_are_their_clients() {
    let node = node("[proxy]\ntrusted = [\"127.0.0.1\"]\n[limits]\nhandshakes_per_second_per_ip = 1").await;
    for client in 0..50 {
        let address = format!("203.0.113.{client}");
        assert!(with(&node, &[("X-Forwarded-For", &address)]).await.is_ok(), "{address}");
    }
    let address = [("X-Forwarded-For", "203.0.113.200")];
    let mut refusals = 0;
    for _ in 0..20 {
        refusals += usize::from(with(&node, &address).await.err() == Some(Some(429)));
    }
    assert!(refusals > 0);
}

/// A real nginx in the repository's own configuration, which replaces whatever a client claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_each_client_has_its_own_address() {
    let text = "[proxy]\ntrusted = [\"127.0.0.1\"]\n[limits]\nconnections_per_ip = 2\n\
                [namespaces.room]\npublish = \"anyone\"\nrate = 1\n";
    let node = node(text).await;
    let nginx = Nginx::start(&[node.public_addr()]).await;
    let enter =
        async |source: &str| Client::on(socket_from(source, nginx.address()).await, nginx.address()).await;
    let mut inside = Vec::new();
    for source in ["127.0.0.11", "127.0.0.12", "127.0.0.13"] {
        inside.push(enter(source).await.unwrap());
        inside.push(enter(source).await.unwrap());
        assert_eq!(enter(source).await.unwrap_err(), Some(429), "{source}");
    }
    // Whatever it writes, a client stays who it is: for WebSockets, streams and posts.
    let mut forged = socket_from("127.0.0.11", nginx.address()).await;
    let claim = HANDSHAKE.replace("Host: fanfare\r\n", "Host: fanfare\r\nX-Forwarded-For: 203.0.113.50\r\n");
    forged.write_all(claim.as_bytes()).await.unwrap();
    let answer = http::read_response(&mut forged).await.unwrap();
    assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("5")), "{}", answer.head);
    for path in ["/sse?channel=room:a", "/stream?channel=room:a", "/poll?channel=room:a"] {
        let mut socket = socket_from("127.0.0.12", nginx.address()).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.5\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(http::read_response(&mut socket).await.unwrap().status, 429, "{path}");
    }
    let post = async |source: &str| {
        let mut socket = socket_from(source, nginx.address()).await;
        let body = r#"{"channel":"room:a","data":1}"#;
        let request =
            format!("POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        socket.write_all(request.as_bytes()).await.unwrap();
        http::read_response(&mut socket).await.unwrap().status
    };
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(post("127.0.0.12").await);
    }
    assert!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    assert_eq!(post("127.0.0.13").await, 200);
    // A place is given back through nginx as well.
    inside.truncate(4);
    fanfare_testbed::eventually("a place is free", async || enter("127.0.0.13").await.is_ok()).await;
}

/// What the gateway takes is not refused on the way to it: nginx's own bounds are no narrower, whatever they are for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_refuses_nothing_that_the_gateway_would_take() {
    let node = node(
        "[auth]\nanonymous = true\n[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"",
    )
    .await;
    let nginx = Nginx::start(&[node.public_addr()]).await;
    let body = |length: usize| {
        let (head, tail) = (r#"{"channel":"a","data":""#, "\"}");
        format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()))
    };
    // As long as a message may be, a token, and a list of channels.
    let longest = http::post(nginx.address(), "/publish", &[], &body(65_536)).await;
    assert_eq!(longest.status, 200, "{}", longest.text());
    let token = |length: usize| format!("Authorization: Bearer {}", "t".repeat(length));
    for length in [8_192, 8_193] {
        let refused = http::post(nginx.address(), "/publish", &[&token(length)], &body(100)).await;
        assert_eq!((refused.status, &refused.json()["code"]), (401, &json!(4401)), "{}", refused.text());
        let says_length = refused.text().contains("8192");
        assert_eq!(says_length, length > 8_192, "{}", refused.text());
    }
    let channels: String = (0..128).map(|it| format!("channel={it:0100}&")).collect();
    let answer = http::get(nginx.address(), &format!("/poll?{channels}wait=0")).await;
    assert_eq!(answer.json()["events"].as_array().unwrap().len(), 128);
}

/// What nginx refuses itself it refuses as a node does: in the form that clients read, and where a page of another origin may read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_refuses_is_told_as_the_gateway_tells_it() {
    let node = node("[origin]\nallow = [\"https://app.example.com\"]").await;
    let nginx = Nginx::start(&[node.public_addr()]).await;
    let from = "Origin: https://app.example.com";
    // Its own bound is 64 KiB. What is far beyond it, and what comes in pieces without a length, is no different.
    for length in [65_537, 300_000] {
        let body = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(length - 25));
        assert_eq!(body.len(), length);
        let chunked = format!(
            "POST /publish HTTP/1.1\r\nHost: fanfare\r\n{from}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        );
        let direct = http::post(node.public_addr(), "/publish", &[from], &body).await;
        let answers = [
            http::post(nginx.address(), "/publish", &[from], &body).await,
            http::exchange(nginx.address(), chunked.as_bytes()).await.unwrap(),
        ];
        for answer in answers {
            assert_eq!((answer.status, answer.json()), (413, direct.json()), "{}", answer.head);
            assert_eq!(answer.json()["code"], 4413);
            for header in ["Content-Type", "Access-Control-Allow-Origin"] {
                assert_eq!(answer.header(header), direct.header(header), "{}", answer.head);
            }
        }
    }
    // It goes on as before.
    let taken = http::post(nginx.address(), "/publish", &[from], r#"{"channel":"a","data":1}"#).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    // Nor does HTTP/1.0, which names no host, become a request that a node refuses.
    let old = http::exchange(nginx.address(), b"GET /health HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(old.status, 200, "{}", old.text());
    let elsewhere = http::get(nginx.address(), "/api/publish").await;
    assert_eq!((elsewhere.status, &elsewhere.json()["code"]), (404, &json!(4404)));
    // Faster than a hundred a second from one address is answered by nginx, without a node being asked.
    let post = || http::post(nginx.address(), "/publish", &[], r#"{"channel":"a","data":1}"#);
    let mut refused = None;
    for _ in 0..30 {
        let answers = join_all((0..250).map(|_| post())).await;
        refused =
            answers.into_iter().find(|answer| answer.text().contains("too many requests from this address"));
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("it has a bound");
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!(4429)), "{}", refused.head);
    assert_eq!(refused.header("Retry-After"), Some("1"));
}

const PROTOCOL: &str = "[proxy]\ntrusted = [\"127.0.0.1\", \"10.0.0.0/8\"]\nprotocol = true\n[limits]\nconnections_per_ip = 1\nheader_seconds = 1\n";

fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n").into_bytes()
}

/// Version 2, with something of the proxy's behind the addresses.
fn binary(command: u8, client: [u8; 4]) -> Vec<u8> {
    let rest = [&client[..], &[192, 0, 2, 1, 0x12, 0x67, 1, 0xbb], &[4, 0, 2, 7, 7]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11, 0, 17], &rest].concat()
}

/// The status of a handshake behind these bytes; None if it is hung up on.
async fn status(node: &Node, header: &[u8], handshake: &str) -> (Option<u16>, TcpStream) {
    let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
    let _ = socket.write_all(&[header, handshake.as_bytes()].concat()).await;
    let answer = http::read_head(&mut socket, &mut Vec::new()).await;
    (answer.ok().map(|answer| answer.status), socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_names_the_client_in_both_versions() {
    let node = node(PROTOCOL).await;
    let (first, _first) = status(&node, &line("203.0.113.1"), HANDSHAKE).await;
    let (second, _second) = status(&node, &binary(0x21, [203, 0, 113, 2]), HANDSHAKE).await;
    assert_eq!([first, second], [Some(101), Some(101)]);
    assert_eq!(status(&node, &binary(0x21, [203, 0, 113, 1]), HANDSHAKE).await.0, Some(429));
    assert_eq!(status(&node, &line("203.0.113.2"), HANDSHAKE).await.0, Some(429));
    // A client cannot go on to speak for others; a proxy behind the first can.
    let claim = HANDSHAKE.replace("Host: fanfare\r\n", "Host: fanfare\r\nX-Forwarded-For: 203.0.113.50\r\n");
    assert_eq!(status(&node, &line("203.0.113.1"), &claim).await.0, Some(429));
    let (chained, _chained) = status(&node, &line("10.0.0.7"), &claim).await;
    assert_eq!(chained, Some(101));
    // A check of the proxy's own.
    let health = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(status(&node, &binary(0x20, [0; 4]), health).await.0, Some(200));
    assert_eq!(status(&node, b"PROXY UNKNOWN\r\n", health).await.0, Some(200));
    // Who is no proxy does without, and is who it is.
    let _direct =
        Client::on(socket_from("127.0.0.7", node.public_addr()).await, node.public_addr()).await.unwrap();
    let mut pretender = socket_from("127.0.0.8", node.public_addr()).await;
    pretender.write_all(&[&line("203.0.113.9")[..], HANDSHAKE.as_bytes()].concat()).await.unwrap();
    assert_eq!(http::read_response(&mut pretender).await.unwrap().status, 400, "it speaks no HTTP");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_should_introduce_itself_and_does_not_is_hung_up_on() {
    let node = node(PROTOCOL).await;
    let too_long = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    let wrong = [
        &b""[..], // That is HTTP where a header should be.
        b"PROXY TCP4 nowhere 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 203.0.113.1 192.0.2.1 1\r\n",
        &[b'P'; 200],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0],
        &binary(0x31, [1; 4]),
        &too_long,
    ];
    for header in wrong {
        assert_eq!(status(&node, header, HANDSHAKE).await.0, None, "{}", header.escape_ascii());
    }
    // One that stops in the middle, and one that says nothing, have a deadline.
    for silent in [&b"PROXY TCP4 203.0"[..], b"", &binary(0x21, [1; 4])[..20]] {
        assert_eq!(status(&node, silent, "").await.0, None);
    }
    counted(&node, "fanfare_handshakes_refused_total{reason=\"bad_proxy_header\"}", 10.0).await;
    assert_eq!(status(&node, &line("203.0.113.1"), HANDSHAKE).await.0, Some(101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_comes_before_tls() {
    let authority = Authority::new();
    let node = node(&format!("{PROTOCOL}{}", authority.issue("node", GOOD).settings("tls"))).await;
    let config = Arc::new(authority.client(&["http/1.1"], None));
    let enter = async |header: Vec<u8>| {
        let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
        socket.write_all(&header).await.unwrap();
        let stream = tls::connect_over(socket, &config).await.expect("the hands are shaken");
        Client::on(stream, node.public_addr()).await
    };
    let _first = enter(line("203.0.113.1")).await.unwrap();
    assert_eq!(enter(binary(0x21, [203, 0, 113, 1])).await.unwrap_err(), Some(429));
    assert!(enter(line("203.0.113.2")).await.is_ok());
}
