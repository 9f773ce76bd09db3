//! What a connection weighs about which the backend was asked.

use std::path::Path;

use fanfare_testbed::{Backend, Gateway, RawPeer};

use super::says;
use crate::support::weight;

/// Enough that what belongs to the process does not show.
const CONNECTIONS: u64 = 1_000;

/// What may be kept of it: what later questions say of a client, and no question, answer or call.
const KEPT: u64 = 2_048;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_question_about_a_connection_little_is_kept() {
    let backend = Backend::start(|_| async { says(200, r#"{"info":null}"#) }).await;
    let hook = format!("hooks.connect={}", backend.url("/"));
    let plain = each(&[]).await;
    let asked = each(&[&hook, "auth.anonymous=true"]).await;
    assert!(backend.requests() as u64 > CONNECTIONS);
    assert!(asked < plain + KEPT, "{asked} bytes, {plain} where nobody is asked");
}

/// The bytes that a connection adds to a node with these settings.
async fn each(settings: &[&str]) -> u64 {
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), settings).await;
    let crowd = async |count| {
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(RawPeer::connect(gateway.public()).await);
        }
        peers
    };
    // The first ones are for what threads and tables keep.
    let _before = crowd(CONNECTIONS / 4).await;
    let start = weight(&gateway, "VmRSS");
    let _crowd = crowd(CONNECTIONS).await;
    weight(&gateway, "VmRSS").saturating_sub(start) / CONNECTIONS
}
