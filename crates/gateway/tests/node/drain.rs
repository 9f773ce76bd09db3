//! Leaving: readiness first, then the clients, paced; then every socket and task.

use std::time::Duration;

use fanfare_testbed::raw_peer::HANDSHAKE;
use fanfare_testbed::{Client, Goodbye, PATIENCE, RawPeer, eventually, http};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::{configured, start};

const WINDOW: Duration = Duration::from_secs(3);
/// Not a whole number to each step.
const CLIENTS: usize = 100;

#[tokio::test]
async fn a_draining_node_lets_its_clients_go_one_after_the_other() {
    let mut config = configured("");
    config.node.drain = WINDOW;
    let node = start(&config).await;
    let (public, internal) = (node.public_addr(), node.internal_addr());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(public).await);
    }
    assert_eq!(http::get(public, "/ready").await.status, 200);

    let began = Instant::now();
    let leaving = join_all(clients.iter_mut().map(async |client| (client.goodbye().await, began.elapsed())));
    let watching = async {
        eventually("readiness fails", async || http::get(public, "/ready").await.status == 503).await;
        let status = http::get(internal, "/status").await.json();
        assert_eq!(status["draining"], true);
        let connected = status["connections"].as_u64().unwrap();
        assert!(connected > 0, "readiness fails while clients are still connected");
        assert_eq!(http::get(public, "/health").await.status, 200, "alive all the same");
        let refusal = http::exchange(public, HANDSHAKE.as_bytes()).await.unwrap();
        assert_eq!((refusal.status, refusal.header("Retry-After")), (503, Some("5")));
    };
    let ((), goodbyes, ()) = tokio::join!(node.drain(), leaving, watching);

    let mut waits: Vec<u64> = goodbyes.iter().map(|(goodbye, _)| wait_of(goodbye)).collect();
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > CLIENTS / 2, "clients come back at times of their own: {waits:?}");
    let mut times: Vec<_> = goodbyes.iter().map(|(_, at)| *at).collect();
    times.sort_unstable();
    assert!(times[CLIENTS - 1] > WINDOW * 3 / 4, "the last one stays to the end: {times:?}");
    assert!(times[CLIENTS - 1] - times[0] > WINDOW / 3, "the first need not wait for the others: {times:?}");

    assert!(TcpStream::connect(public).await.is_err(), "nothing listens any more");
    assert!(TcpStream::connect(internal).await.is_err());
}

/// The time a drained client was told to wait.
fn wait_of(goodbye: &Goodbye) -> u64 {
    let Goodbye { code, reason, closing } = goodbye;
    assert_eq!((*code, reason.as_str()), (Some(1001), "going_away"), "{goodbye:?}");
    let closing = closing.as_ref().expect("told before the Close");
    assert_eq!(closing["reconnect"], true);
    closing["after"].as_u64().expect("milliseconds")
}

/// A client that ignores the Close holds its socket for the close timeout, and the drain no longer than that: its own side stays open.
#[tokio::test]
async fn a_client_that_does_not_go_is_left_behind() {
    let mut config = configured("");
    config.node.drain = Duration::ZERO;
    config.limits.close_timeout = Duration::from_secs(1);
    let node = start(&config).await;
    let mut stubborn = RawPeer::connect(node.public_addr()).await;
    let began = Instant::now();
    let drained = timeout(PATIENCE, node.drain());
    let (drained, (_, code)) = tokio::join!(drained, stubborn.until_close());
    assert_eq!(code, Some(1001));
    assert!(began.elapsed() >= Duration::from_secs(1), "it was given its time: {:?}", began.elapsed());
    drained.expect("but no more");
    assert!(stubborn.ends().await);
}

/// Requests that keep a socket open, and peers that never made one, do not keep a node alive.
#[tokio::test]
async fn idle_sockets_do_not_hold_the_drain() {
    let mut config = configured("[node]\ndrain_seconds = 0");
    // So long that nobody waits for it by chance.
    config.limits.header_timeout = Duration::from_secs(3600);
    let node = start(&config).await;
    let _silent = TcpStream::connect(node.public_addr()).await.unwrap();
    let mut kept_alive = TcpStream::connect(node.public_addr()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut kept_alive, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(http::read_response(&mut kept_alive).await.unwrap().status, 200);
    timeout(PATIENCE, node.drain()).await.expect("it does not wait for them");
}
