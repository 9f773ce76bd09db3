//! Bounds on who may come in, and places that are free again.

use fanfare_testbed::raw_peer::HANDSHAKE;
use fanfare_testbed::{Client, eventually, http};

use crate::support::{counted, exceeded, node};

#[tokio::test]
async fn a_full_node_turns_clients_away_and_takes_them_when_others_have_left() {
    let node = node("[limits]\nconnections = 2").await;
    let address = node.public_addr();
    let (first, second) = (Client::connect(address).await, Client::connect(address).await);

    let refusal = http::exchange(address, HANDSHAKE.as_bytes()).await.unwrap();
    assert_eq!(refusal.status, 503);
    assert_eq!(refusal.header("Retry-After"), Some("5"));
    assert!(refusal.text().contains("full"), "{}", refusal.text());
    counted(&node, "fanfare_handshakes_refused_total{reason=\"at_capacity\"}", 1.0).await;
    counted(&node, &exceeded("connections", "refused"), 1.0).await;

    // Everything but clients still comes in.
    assert_eq!(http::get(address, "/health").await.status, 200);
    assert_eq!(http::get(address, "/ready").await.status, 200);

    // One leaves in good order, the other hangs up.
    first.close().await;
    drop(second);
    let mut clients = Vec::new();
    eventually("both places are free", async || {
        clients.extend(Client::try_connect(address).await.ok());
        clients.len() == 2
    })
    .await;
    assert_eq!(Client::try_connect(address).await.unwrap_err(), Some(503));
}

/// A handshake that is refused, or whose client leaves before the answer, holds no place.
#[tokio::test]
async fn a_handshake_that_comes_to_nothing_holds_no_place() {
    let node = node("[limits]\nconnections = 1\n[origin]\nallow = [\"https://good.example\"]").await;
    let address = node.public_addr();
    let foreign = HANDSHAKE.replace("Host: fanfare\r\n", "Host: fanfare\r\nOrigin: https://bad.example\r\n");
    for _ in 0..3 {
        assert_eq!(http::exchange(address, foreign.as_bytes()).await.unwrap().status, 403);
    }
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, HANDSHAKE.as_bytes()).await.unwrap();
        drop(socket);
    }
    eventually("the place is free", async || Client::try_connect(address).await.is_ok()).await;
}
