//! Everything that is served over HTTP/1.1 is served over HTTP/2 too.

use std::process::Stdio;
use std::sync::Arc;

use fanfare_testbed::authority::GOOD;
use fanfare_testbed::{Authority, Http2, PATIENCE, http as http1};
use http::Request;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::nodes::{counted, node};
use crate::tls::connect;

#[tokio::test]
async fn one_socket_serves_every_route_and_the_listener_both_versions() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    for (path, status) in [("/health", 200), ("/ready", 200), ("/status", 200), ("/", 200), ("/nothing", 404)]
    {
        let answer = http2.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        let http1 = http1::get(node.public_addr(), path).await;
        assert_eq!(http1.status, status, "{path}");
        assert_eq!(
            answer.headers().get("content-type").map(|it| it.to_str().unwrap()),
            http1.header("content-type")
        );
        if path != "/status" {
            assert_eq!(answer.body(), &http1.body, "{path}");
        }
    }
    let post = Request::post(format!("http://{}/health", node.public_addr())).body(()).unwrap();
    assert_eq!(http2.request(post).await.status(), 405);
    let mut internal = Http2::connect(node.internal_addr()).await;
    let metrics = internal.get("/metrics").await;
    assert!(String::from_utf8(metrics.into_body()).unwrap().contains("fanfare_connections 0"));
}

/// Server-Sent Events of ten channels and a WebSocket: browsers have six sockets for a host over HTTP/1.1, and one here.
#[tokio::test]
async fn responses_that_last_share_a_socket_with_websockets() {
    let node = node("").await;
    let mut http2 = Http2::connect(node.public_addr()).await;
    let mut publisher = http2.websocket().await;
    let mut ears = Vec::new();
    for number in 0..10 {
        let uri = format!("http://{}/sse?channel=room:{number}", node.public_addr());
        let (headers, stream) = http2.open(Request::get(uri).body(()).unwrap()).await.unwrap();
        assert_eq!(headers["content-type"], "text/event-stream");
        ears.push(stream);
    }
    counted(&node, "fanfare_subscriptions", 10.0).await;
    for number in 0..10 {
        let channel = format!("room:{number}");
        publisher.subscribe(&channel).await;
        publisher.publish(&channel, json!(format!("to {number}"))).await;
    }
    for (ear, number) in ears.iter_mut().zip(0..) {
        let expected = format!("\"to {number}\"");
        let mut heard = String::new();
        while !heard.contains(&expected) {
            let mut bytes = [0; 1024];
            let length = timeout(PATIENCE, ear.read(&mut bytes)).await.expect("it is told").unwrap();
            assert_ne!(length, 0, "the stream has ended: {heard}");
            heard.push_str(str::from_utf8(&bytes[..length]).unwrap());
        }
    }
    ears.pop().unwrap().reset();
    counted(&node, "fanfare_connections", 10.0).await;
    assert_eq!(http2.get("/health").await.status(), 200);
}

#[tokio::test]
async fn tls_agrees_on_http_2_before_1_1() {
    let authority = Authority::new();
    let node = node(&authority.issue("node", GOOD).settings("tls")).await;
    for (offered, agreed) in [(&["http/1.1", "h2"][..], "h2"), (&["h2"], "h2"), (&["http/1.1"], "http/1.1")] {
        let config = Arc::new(authority.client(offered, None));
        let stream = connect(node.public_addr(), &config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol().unwrap(), agreed.as_bytes(), "{offered:?}");
        if agreed == "h2" {
            let mut http2 = Http2::over(stream, node.public_addr()).await;
            assert_eq!(http2.get("/health").await.body(), b"ok\n");
            http2.websocket().await.assert_silence().await;
        }
    }
    counted(&node, "fanfare_websockets_accepted_total{http=\"2\"}", 2.0).await;
}

/// curl is missing: `apt-get install curl`.
#[tokio::test]
async fn curl_fetches_over_http_2_in_clear_and_over_tls() {
    let authority = Authority::new();
    let tls = node(&authority.issue("node", GOOD).settings("tls")).await;
    let clear = node("").await;
    let secure = ("--http2", format!("https://{}/health", tls.public_addr()));
    for (version, url) in
        [secure, ("--http2-prior-knowledge", format!("http://{}/health", clear.public_addr()))]
    {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            version,
            "--write-out",
            "%{http_version}",
            "--cacert",
        ]);
        curl.arg(authority.file()).arg(&url).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, curl.output()).await.expect("it ends").expect("it is installed");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n2", "{version} {url}: {output:?}");
    }
}
