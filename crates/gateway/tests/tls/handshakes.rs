//! Handshakes: who is let in, who is not, and what a slow one costs the others.

use std::sync::Arc;
use std::time::Duration;

use fanfare_gateway::node::Node;
use fanfare_testbed::authority::{Certificate, GOOD, quoted};
use fanfare_testbed::{Authority, Client, PATIENCE, http};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::nodes::{configured, counted, node, start};
use crate::support::{client, connect, connect_over, handshakes};

/// The beginning of a ClientHello: a handshake record of 512 bytes is announced, and some of them come.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

async fn tls_node(authority: &Authority, more: &str) -> Node {
    let certificate = authority.issue("node", GOOD);
    node(&format!("{}{more}", certificate.settings("tls"))).await
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_older_one_can_be_refused() {
    let authority = Authority::new();
    let either = tls_node(&authority, "").await;
    let newest = tls_node(&authority, "min_version = \"1.3\"").await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = Arc::new(authority.client_of(&[version], &[], None));
        let stream = connect(either.public_addr(), &config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        Client::on(stream, either.public_addr()).await.unwrap().assert_silence().await;
        let answer = connect(newest.public_addr(), &config).await;
        assert_eq!(answer.is_ok(), expected == ProtocolVersion::TLSv1_3, "{answer:?}");
    }
    counted(&either, &handshakes("full"), 2.0).await;
    counted(&newest, &handshakes("refused"), 1.0).await;
}

/// A peer that stops in the middle is hung up on, and meanwhile nobody waits for it.
#[tokio::test]
async fn half_a_handshake_holds_up_nobody_and_ends_in_time() {
    let authority = Authority::new();
    let mut config = configured(&authority.issue("node", GOOD).settings("tls"));
    config.tls.handshake_timeout = Duration::from_millis(500);
    let node = start(&config).await;
    let mut halves = Vec::new();
    for sent in [&b""[..], &HALF_HELLO[..1], HALF_HELLO] {
        for _ in 0..20 {
            let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
            socket.write_all(sent).await.unwrap();
            halves.push(socket);
        }
    }
    let config = Arc::new(authority.client(&[], None));
    client(node.public_addr(), &config).await.assert_silence().await;
    for mut socket in halves {
        let ended = timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "a peer that says nothing is hung up on");
    }
    counted(&node, &handshakes("timeout"), 60.0).await;
    // The places of those who were hung up on are free again, and the one client lives.
    counted(&node, "fanfare_connections", 0.0).await;
}

/// One byte at a time is slow, but it is a handshake.
#[tokio::test]
async fn a_slow_handshake_succeeds() {
    let authority = Authority::new();
    let node = tls_node(&authority, "").await;
    let address = node.public_addr();
    let (near, mut far) = duplex(1);
    let mut socket = TcpStream::connect(address).await.unwrap();
    let config = Arc::new(authority.client(&[], None));
    let served = async {
        let stream = connect_over(near, &config).await.unwrap();
        Client::on(stream, address).await.unwrap().assert_silence().await;
    };
    tokio::select! {
        () = served => {}
        end = copy_bidirectional(&mut far, &mut socket) => panic!("the gateway ends it: {end:?}"),
    }
}

#[tokio::test]
async fn who_leaves_or_speaks_nonsense_is_counted_and_forgotten() {
    let authority = Authority::new();
    let node = tls_node(&authority, "").await;
    let mut gone = TcpStream::connect(node.public_addr()).await.unwrap();
    gone.write_all(HALF_HELLO).await.unwrap();
    gone.shutdown().await.unwrap();
    counted(&node, &handshakes("gone"), 1.0).await;
    for (nonsense, outcome) in [(&b"\0\0\0\0"[..], "not_tls"), (b"\x16\x03\x01\x00\x04\x99\0\0\0", "refused")]
    {
        let mut socket = TcpStream::connect(node.public_addr()).await.unwrap();
        socket.write_all(nonsense).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("it is hung up on");
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        counted(&node, &handshakes(outcome), 1.0).await;
    }
}

#[tokio::test]
async fn who_speaks_http_where_tls_is_spoken_is_told_so() {
    let authority = Authority::new();
    let node = tls_node(&authority, "").await;
    let answer = http::get(node.public_addr(), "/health").await;
    assert_eq!((answer.status, answer.text().contains("https://")), (400, true), "{}", answer.text());
    assert_eq!(Client::try_connect(node.public_addr()).await.unwrap_err(), Some(400));
    counted(&node, &handshakes("not_tls"), 2.0).await;
    // The other listener has no certificate, and serves in clear: the counters above came from there.
    assert_eq!(http::get(node.internal_addr(), "/health").await.status, 200);
}

#[tokio::test]
async fn the_internal_listener_can_have_a_certificate_of_its_own() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let certificate = theirs.issue("internal", GOOD);
    let node = tls_node(&ours, &certificate.settings("tls.internal")).await;
    let knows_both = |authority: &Authority| Arc::new(authority.client(&[], None));
    connect(node.public_addr(), &knows_both(&ours)).await.unwrap();
    let mut stream = connect(node.internal_addr(), &knows_both(&theirs)).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    // 2100-01-01, by either.
    for listener in ["public", "internal"] {
        let gauge = format!(
            "fanfare_tls_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}} 4102444800\n"
        );
        assert!(answer.contains(&gauge), "{answer}");
    }
    assert!(connect(node.public_addr(), &knows_both(&theirs)).await.is_err());
    assert!(connect(node.internal_addr(), &knows_both(&ours)).await.is_err());
}

/// What a reconnect storm costs depends on it.
#[tokio::test]
async fn who_comes_back_resumes() {
    let authority = Authority::new();
    let node = tls_node(&authority, "").await;
    for version in [&TLS13, &TLS12] {
        let config = Arc::new(authority.client_of(&[version], &[], None));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let stream = connect(node.public_addr(), &config).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
            // Tickets of TLS 1.3 come after the handshake; whoever has heard something has them.
            Client::on(stream, node.public_addr()).await.unwrap().assert_silence().await;
        }
    }
    counted(&node, &handshakes("full"), 2.0).await;
    counted(&node, &handshakes("resumed"), 4.0).await;
}

async fn is_let_in(node: &Node, config: ClientConfig) -> bool {
    // In TLS 1.3 a client has finished before its certificate is judged; it hears of the verdict when it reads.
    match connect(node.public_addr(), &Arc::new(config)).await {
        Ok(stream) => Client::on(stream, node.public_addr()).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn clients_present_certificates_where_they_are_asked_to() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let ca = format!("client_ca = {}\n", quoted(&clients.file()));
    let required = tls_node(&servers, &ca).await;
    let optional = tls_node(&servers, &format!("{ca}client_certificates = \"optional\"")).await;
    let known = clients.issue("client", GOOD);
    let expired = clients.issue("expired", (2001, 2002));
    let stranger = strangers.issue("client", GOOD);
    for (certificate, by_required, by_optional) in [
        (Some(&known), true, true),
        (None, false, true),
        (Some(&expired), false, false),
        (Some(&stranger), false, false),
    ] {
        for version in [&TLS12, &TLS13] {
            let config = || servers.client_of(&[version], &[], certificate);
            let shown = certificate.map(|Certificate { cert, .. }| cert);
            assert_eq!(is_let_in(&required, config()).await, by_required, "{shown:?} {version:?}");
            assert_eq!(is_let_in(&optional, config()).await, by_optional, "{shown:?} {version:?}");
        }
    }
    counted(&required, &handshakes("refused"), 6.0).await;
    counted(&optional, &handshakes("refused"), 4.0).await;
}

#[tokio::test]
async fn a_protocol_is_agreed_on_or_the_handshake_refused() {
    let authority = Authority::new();
    let node = tls_node(&authority, "").await;
    for (offered, agreed) in [
        (&[][..], Some(None)),
        (&["http/1.1"], Some(Some("http/1.1"))),
        (&["spdy/1", "http/1.1"], Some(Some("http/1.1"))),
        (&["spdy/1"], None),
    ] {
        let stream = connect(node.public_addr(), &Arc::new(authority.client(offered, None))).await;
        let theirs = stream.ok().map(|stream| {
            stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap())
        });
        assert_eq!(theirs, agreed.map(|name| name.map(str::to_owned)), "{offered:?}");
    }
}
