//! `/ready` says which check has failed, while `/health` goes on saying that the process is alive; on started nodes, with real faults.

use std::path::Path;
use std::time::Duration;

use fanfare_testbed::{Client, Gateway, RedisServer, eventually, http};
use serde_json::{Value, json};
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanfare");

async fn ready(node: &Gateway) -> (u16, Value) {
    let answer = http::get(node.public(), "/ready").await;
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    (answer.status, answer.json())
}

/// Waits until these checks have failed, and perhaps others.
async fn fails(node: &Gateway, checks: &[&str]) {
    let mut last = Value::Null;
    eventually(format_args!("{checks:?} fail"), async || {
        let (status, report) = ready(node).await;
        let failing: Vec<_> =
            report["failing"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert_eq!(status == 200, failing.is_empty(), "{report}");
        assert_eq!(report["ready"], failing.is_empty(), "{report}");
        let has_failed =
            checks.iter().all(|check| failing.contains(check) && report["checks"][check]["ok"] == false);
        last = report;
        has_failed
    })
    .await;
}

async fn becomes_ready(node: &Gateway) {
    eventually("it is ready", async || ready(node).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_told_by_each_check_that_it_fails_and_is_no_death() {
    let redis = RedisServer::start().await;
    let url = format!("redis.urls={}", redis.url());
    let settings = ["broker.kind=redis", &url, "readiness.lag_ms=1500", "readiness.positions_ms=1000"];
    let node = Gateway::start(Path::new(PROGRAM), &settings).await;
    becomes_ready(&node).await;
    let mut client = Client::connect(node.public()).await;
    client.subscribe("room:1").await;
    redis.freeze().await;
    fails(&node, &["broker", "lag", "positions"]).await;
    assert_eq!(http::get(node.public(), "/health").await.status, 200);
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong", "who is connected stays");
    redis.thaw().await;
    becomes_ready(&node).await;
    client.publish("room:1", json!("and goes on")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_says_so_for_a_while() {
    let node = Gateway::start(Path::new(PROGRAM), &["readiness.stall_ms=1000", "readiness.lag_ms=0"]).await;
    becomes_ready(&node).await;
    node.freeze().await;
    let frozen = Instant::now();
    eventually("it has stood still for long", async || frozen.elapsed() > Duration::from_millis(1500)).await;
    node.thaw().await;
    fails(&node, &["stall"]).await;
    assert_eq!(http::get(node.public(), "/health").await.status, 200);
    becomes_ready(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_to_be_looked_at_fails_nothing() {
    let node = Gateway::start(Path::new(PROGRAM), &["readiness.stall_ms=0", "readiness.lag_ms=0"]).await;
    becomes_ready(&node).await;
    node.freeze().await;
    let frozen = Instant::now();
    eventually("it has stood still for long", async || frozen.elapsed() > Duration::from_millis(1500)).await;
    node.thaw().await;
    let (status, report) = ready(&node).await;
    assert_eq!((status, &report["failing"]), (200, &json!([])), "{report}");
    assert!(
        report["checks"]["stall"]["ms"].as_u64().unwrap() > 1000,
        "it is measured all the same: {report}"
    );
}
