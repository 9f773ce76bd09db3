//! New certificates for a running node: taken without dropping anybody, refused without a trace.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fanfare_gateway::node::Node;
use fanfare_testbed::authority::{Certificate, GOOD, quoted};
use fanfare_testbed::{Authority, Client, Gateway, eventually};
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::process::Command;

use crate::nodes::{configured, counted, start};
use crate::support::{client, connect};

/// The certificate that a client is shown which has no ticket.
async fn shown(address: std::net::SocketAddr, authority: &Authority) -> CertificateDer<'static> {
    let stream = connect(address, &Arc::new(authority.client(&[], None))).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn on_disk(files: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.cert).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_the_next_and_the_others_stay_connected() {
    let authority = Authority::new();
    let files = authority.issue("node", GOOD);
    let text = format!("{}[limits]\nmessages_per_second = 0\n", files.settings("tls"));
    let node = start(&configured(&text)).await;
    let config = Arc::new(authority.client(&[], None));
    let mut subscriber = client(node.public_addr(), &config).await;
    subscriber.subscribe("room:1").await;
    let mut publisher = client(node.public_addr(), &config).await;
    let mut expected = Vec::new();
    for round in 0..5 {
        assert_eq!(shown(node.public_addr(), &authority).await, on_disk(&files), "{round}");
        for number in 0..20 {
            let data = json!([round, number]);
            publisher.send(json!({"type": "publish", "channel": "room:1", "data": data})).await;
            expected.push(data);
        }
        authority.renew(&files, "node", GOOD);
        node.reload(&configured(&text)).await;
    }
    publisher.subscribe("room:1").await;
    assert_eq!(subscriber.messages("room:1", 100).await, expected);
    counted(&node, "fanfare_connections_accepted_total", 2.0).await;
    counted(&node, "fanfare_connections", 2.0).await;
}

async fn kind(node: &Node, config: &Arc<rustls::ClientConfig>) -> HandshakeKind {
    let stream = connect(node.public_addr(), config).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    Client::on(stream, node.public_addr()).await.unwrap().assert_silence().await;
    kind
}

/// A renewal costs no client a full handshake; other authorities for clients cost everybody one, or a ticket would be a
/// way round them.
#[tokio::test]
async fn tickets_outlive_a_certificate_but_not_the_trust_in_clients() {
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let files = servers.issue("node", GOOD);
    let text = |authority: &Authority| {
        format!("{}client_ca = {}\n", files.settings("tls"), quoted(&authority.file()))
    };
    let node = start(&configured(&text(&clients))).await;
    let certificate = clients.issue("client", GOOD);
    let config = Arc::new(servers.client(&[], Some(&certificate)));
    assert_eq!(kind(&node, &config).await, HandshakeKind::Full);
    servers.renew(&files, "node", GOOD);
    node.reload(&configured(&text(&clients))).await;
    assert_eq!(kind(&node, &config).await, HandshakeKind::Resumed);
    node.reload(&configured(&text(&others))).await;
    let stream = connect(node.public_addr(), &config).await;
    let let_in = match stream {
        Ok(stream) => Client::on(stream, node.public_addr()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!let_in, "a ticket of a client that is not trusted any more");
}

/// A node in a process of its own, which looks at its files every second.
async fn watching(files: &Certificate) -> Gateway {
    let setting = |key, path: &Path| format!("tls.{key}={}", path.display());
    let settings =
        [setting("cert", &files.cert), setting("key", &files.key), "tls.watch_seconds=1".to_owned()];
    let settings = settings.each_ref().map(String::as_str);
    Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await
}

fn lines(gateway: &Gateway, text: &str) -> usize {
    gateway.log().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn files_that_change_are_taken_and_files_that_do_not_fit_are_refused_once() {
    const REFUSED: &str = "the certificates are not renewed: those in force stay";
    let authority = Authority::new();
    let files = authority.issue("node", GOOD);
    let gateway = watching(&files).await;
    let config = Arc::new(authority.client(&[], None));
    let mut client = client(gateway.public(), &config).await;
    let old = on_disk(&files);
    // Only the certificate has been replaced: the key is that of the old one.
    let other = authority.issue("other", GOOD);
    fs::copy(&other.cert, &files.cert).unwrap();
    eventually(REFUSED, async || lines(&gateway, REFUSED) > 0).await;
    assert!(gateway.log().contains("it is not the key of the certificate in"), "{}", gateway.log());
    assert_eq!(shown(gateway.public(), &authority).await, old);
    fs::copy(&other.key, &files.key).unwrap();
    eventually("the new certificate", async || shown(gateway.public(), &authority).await == on_disk(&other))
        .await;
    assert_eq!(lines(&gateway, REFUSED), 1, "{}", gateway.log());
    assert_eq!(lines(&gateway, "certificate in force"), 2, "{}", gateway.log());
    client.assert_silence().await;
}

#[tokio::test]
async fn a_signal_takes_new_files_and_says_when_they_are_no_good() {
    const REFUSED: &str = "the configuration is not reloaded: the one in force stays";
    let authority = Authority::new();
    let files = authority.issue("node", GOOD);
    let setting = |key, path: &Path| format!("tls.{key}={}", path.display());
    let settings =
        [setting("cert", &files.cert), setting("key", &files.key), "tls.watch_seconds=0".to_owned()];
    let settings = settings.each_ref().map(String::as_str);
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await;
    let hang_up = async || {
        let sent =
            Command::new("sh").args(["-c", &format!("kill -HUP {}", gateway.id())]).status().await.unwrap();
        assert!(sent.success());
    };
    let old = on_disk(&files);
    fs::write(&files.cert, "nonsense").unwrap();
    hang_up().await;
    eventually(REFUSED, async || lines(&gateway, REFUSED) == 1).await;
    assert_eq!(shown(gateway.public(), &authority).await, old);
    authority.renew(&files, "node", GOOD);
    hang_up().await;
    eventually("the new certificate", async || shown(gateway.public(), &authority).await == on_disk(&files))
        .await;
    assert!(old != on_disk(&files));
}
