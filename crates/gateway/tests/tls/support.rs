//! Streams over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fanfare_testbed::{Client, PATIENCE};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Shakes hands over a socket of its own.
pub(crate) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    connect_over(socket, config).await
}

/// Shakes hands over any stream.
pub(crate) async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from("localhost").expect("a good name");
    let handshake = TlsConnector::from(config.clone()).connect(name, stream);
    timeout(PATIENCE, handshake).await.expect("the gateway answers")
}

/// A client that has heard `welcome` over TLS.
pub(crate) async fn client(address: SocketAddr, config: &Arc<ClientConfig>) -> Client<TlsStream<TcpStream>> {
    let stream = connect(address, config).await.expect("the hands are shaken");
    Client::on(stream, address).await.expect("the gateway lets the client in")
}

/// The counter of handshakes that ended so.
pub(crate) fn handshakes(outcome: &str) -> String {
    format!("fanfare_tls_handshakes_total{{outcome=\"{outcome}\"}}")
}
