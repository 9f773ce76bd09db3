//! Whatever comes and goes, and however it goes, nothing of it stays.

use std::time::Duration;

use fanfare_testbed::raw_peer::{HANDSHAKE, opcode};
use fanfare_testbed::{Client, PATIENCE, RawPeer, Samples};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{closed_with, configured, counted, start};

const ROUNDS: usize = 25;
const AT_ONCE: usize = 40;

/// One short life, of one of five kinds.
async fn live(address: std::net::SocketAddr, number: usize) {
    let shared = format!("shared:{}", number % 7);
    match number % 5 {
        0 => {
            let mut client = Client::connect(address).await;
            client.subscribe(&shared).await;
            client.subscribe(&format!("own:{number}")).await;
            client.publish(&shared, json!(number)).await;
            client.close().await;
        }
        1 => {
            let mut client = Client::connect(address).await;
            client.subscribe(&shared).await;
            client.ask(json!({"type": "unsubscribe", "channel": shared})).await;
            client.subscribe(&shared).await; // Then the socket just ends.
        }
        2 => {
            // Gone while the hub is still being asked.
            let mut client = Client::connect(address).await;
            let batch =
                (0..20).map(|it| json!({"type": "subscribe", "channel": format!("own:{number}:{it}")}));
            client.send(batch.collect()).await;
        }
        3 => {
            let mut peer = RawPeer::connect(address).await;
            peer.send_text(&format!(r#"{{"type":"subscribe","channel":"{shared}"}}"#)).await;
            peer.send(opcode::BINARY, b"no").await;
            peer.until_close().await; // Its Close is not answered: the socket ends.
        }
        _ => {
            // Gone before the handshake is answered, with a reset.
            let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
            socket.write_all(HANDSHAKE.as_bytes()).await.expect("it reads");
            socket.set_zero_linger().expect("a socket option");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lives_leave_nothing_behind() {
    let mut config = configured("");
    // So long that nobody waits for it by chance.
    config.limits.close_timeout = Duration::from_secs(3600);
    let node = start(&config).await;
    for round in 0..ROUNDS {
        join_all((0..AT_ONCE).map(|it| live(node.public_addr(), round * AT_ONCE + it))).await;
    }
    for gauge in [
        "fanfare_connections",
        "fanfare_subscriptions",
        "fanfare_channels",
        "fanfare_broker_watched_channels",
        "fanfare_outbox_bytes",
    ] {
        counted(&node, gauge, 0.0).await;
    }
    let samples = Samples::of(node.internal_addr()).await;
    let accepted = samples.value("fanfare_connections_accepted_total");
    assert!(accepted >= 800.0, "{accepted} were accepted");
    let closed = samples.sum("fanfare_connections_closed_total");
    assert!((closed - accepted).abs() < f64::EPSILON, "{accepted} came, {closed} went");
    for (code, least) in [(1000, 200.0), (1003, 200.0), (1006, 400.0)] {
        assert!(samples.value(&closed_with(code)) >= least, "{code}: {}", samples.value(&closed_with(code)));
    }
    assert!(samples.value("fanfare_panics_total").abs() < f64::EPSILON);

    // The roster is empty as well: nobody is left to be told to go, so the drain has nothing to wait for.
    timeout(PATIENCE, node.drain()).await.expect("nobody is waited for");
}
