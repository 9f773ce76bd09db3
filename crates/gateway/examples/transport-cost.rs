//! What a WebSocket costs a node over each transport: memory while it is idle, CPU to open it.
//!
//! ```sh
//! cargo build --release -p fanfare-gateway --bin fanfare
//! cargo run --release -p fanfare-gateway --example transport-cost -- target/release/fanfare 4000
//! ```
//!
//! Every connection is subscribed to a channel of its own. The memory is the resident set of the node's process, the CPU its
//! user and system time, both from `/proc`, so that of this program is not in it.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it is read by people, and stops where it fails"
)]

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanfare_testbed::authority::{Certificate, GOOD};
use fanfare_testbed::{Authority, Client, Gateway, Http2};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The streams that one HTTP/2 socket carries here.
const STREAMS: usize = 100;

/// The kernel's tick, in which `/proc` counts CPU.
const TICK_MICROS: f64 = 10_000.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = PathBuf::from(arguments.next().expect("the path of the gateway's program"));
    let count: usize = arguments.next().map_or(4000, |count| count.parse().unwrap());
    let authority = Authority::new();
    let certificate = authority.issue("node", GOOD);
    let config = |alpn: &[&str]| Arc::new(authority.client_of(&[&TLS13], alpn, None));
    println!("{count} connections each\n\n| | bytes when idle | µs of CPU to open |\n| --- | --- | --- |");

    let clear = async |address| Client::connect(address).await;
    measure("HTTP/1.1 in clear", &program, None, count, clear).await;

    let full = async |address| Client::on(tls(address, &config(&["http/1.1"])).await, address).await.unwrap();
    measure("HTTP/1.1 over TLS, full handshakes", &program, Some(&certificate), count, full).await;

    let shared = config(&["http/1.1"]);
    let resumed = async |address| Client::on(tls(address, &shared).await, address).await.unwrap();
    measure("HTTP/1.1 over TLS, resumed", &program, Some(&certificate), count, resumed).await;

    let mut sockets = Vec::new();
    let clear = async |address| {
        if sockets.last().is_none_or(|(_, used)| *used == STREAMS) {
            sockets.push((Http2::connect(address).await, 0));
        }
        let (http2, used) = sockets.last_mut().unwrap();
        *used += 1;
        http2.websocket().await
    };
    measure("HTTP/2 in clear, 100 to a socket", &program, None, count, clear).await;
    drop(sockets);

    let (shared, mut sockets) = (config(&["h2"]), Vec::new());
    let single = async |address| {
        let mut http2 = Http2::over(tls(address, &shared).await, address).await;
        let client = http2.websocket().await;
        sockets.push(http2);
        client
    };
    measure("HTTP/2 over TLS, resumed, 1 to a socket", &program, Some(&certificate), count, single).await;
}

async fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(config.clone()).connect(name, socket).await.unwrap()
}

async fn measure<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    what: &str,
    program: &Path,
    certificate: Option<&Certificate>,
    count: usize,
    mut open: impl AsyncFnMut(SocketAddr) -> Client<S>,
) {
    let setting = |key: &str, path: &Path| format!("tls.{key}={}", path.display());
    let files = certificate.map(|it| [setting("cert", &it.cert), setting("key", &it.key)]);
    let settings: Vec<_> = files.iter().flatten().map(String::as_str).collect();
    let gateway = Gateway::start(program, &settings).await;
    let id = gateway.id();
    // The first makes what is made once: the buffers of the threads, the tables of the allocator.
    let mut clients = Vec::with_capacity(count + 200);
    for _ in 0..200 {
        clients.push(open(gateway.public()).await);
    }
    let (memory, cpu) = (settled(id).await, cpu(id));
    for number in 0..count {
        let mut client = open(gateway.public()).await;
        client.subscribe(&format!("{number}")).await;
        clients.push(client);
    }
    let spent = (self::cpu(id) - cpu) * TICK_MICROS / count as f64;
    let bytes = (settled(id).await - memory) / count as f64;
    println!("| {what} | {bytes:.0} | {spent:.0} |");
    drop(clients);
    gateway.kill().await;
}

/// Resident memory in bytes, once it has stopped moving.
fn settled(id: u32) -> impl Future<Output = f64> {
    let resident = move || {
        let pages = fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
        pages.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
    };
    async move {
        let mut last = resident();
        loop {
            sleep(Duration::from_secs(2)).await;
            let now = resident();
            if (now - last).abs() < 65_536.0 {
                return now;
            }
            last = now;
        }
    }
}

/// User and system time in ticks.
fn cpu(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<f64> = after_name.split(' ').skip(11).take(2).map(|it| it.parse().unwrap()).collect();
    fields.iter().sum()
}
