//! Requests that two readers could read differently, each with another hidden behind its end: what a proxy takes for a body and
//! the node for a request would be said in somebody else's name.

use std::net::SocketAddr;

use fanfare_testbed::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::scene::Scene;

const HIDDEN: &str = "GET /status HTTP/1.1\r\nHost: a\r\n\r\n";

/// Heads of which no two readers need to agree where the request ends.
const AMBIGUOUS: [&str; 12] = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "Content-Length: 24\r\nContent-Length: 5\r\n\r\n{\"channel\":\"a\",\"data\":1}",
    "Content-Length: 24, 5\r\n\r\n{\"channel\":\"a\",\"data\":1}",
    "Content-Length: +24\r\n\r\n{\"channel\":\"a\",\"data\":1}",
    "Content-Length : 24\r\n\r\n{\"channel\":\"a\",\"data\":1}",
    "X-A: b\r\n Content-Length: 24\r\n\r\n{\"channel\":\"a\",\"data\":1}",
    "X-A: b\0c\r\nContent-Length: 24\r\n\r\n{\"channel\":\"a\",\"data\":1}",
    "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
];

/// The statuses of the answers up to the end of the connection.
async fn answers(address: SocketAddr, rest: &str) -> Vec<String> {
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    let request = format!("POST /publish HTTP/1.1\r\nHost: a\r\n{rest}{HIDDEN}");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut heard = Vec::new();
    // It may hang up before it has read all of it, which is a reset.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("it hangs up");
    let heard = String::from_utf8_lossy(&heard).into_owned();
    heard.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

/// All of them, one after the other.
pub(super) async fn ambiguous(address: SocketAddr) {
    for rest in AMBIGUOUS {
        assert_eq!(answers(address, rest).await, ["400"], "{}", rest.escape_debug());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_end_differently_for_different_readers_are_refused_and_hung_up_on() {
    let mut scene = Scene::start(&[]).await;
    scene.withstands(ambiguous).await;
}
