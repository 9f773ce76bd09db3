//! TLS on a listener: what its handshakes are made with, and how they go.
//!
//! A handshake is a task of its own, so a slow peer holds up nobody but itself, and it has one deadline from the first byte
//! to the last. Whoever comes back with a ticket is spared the expensive part of it; tickets are encrypted with keys that
//! change every six hours and are good for twelve, so nothing is kept per client.
//!
//! **Invariant.** A ticket is no way round: it is good only where the same authorities vouch for clients as when it was
//! issued. A new certificate alone keeps the tickets, or its renewal would cost every client a full handshake.
//!
//! **Deliberately absent:** early data, which an attacker could send twice; a cache of sessions, which tickets replace.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fanfare_metrics::TlsHandshake;
use rustls::crypto::ring::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::config::{self, Identity, TlsVersion, provider};

/// The first byte of a TLS handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// What HTTP/2 is called when a handshake agrees on it (RFC 7301).
pub(crate) const HTTP2: &[u8] = b"h2";

/// What the TLS layer may hold for a peer that does not read: a record, where its own default is four of them. Whatever
/// else waits is in the outbox, where policy sees it.
const UNSENT_BYTES: usize = 16 * 1024;

/// The answer to who speaks HTTP where TLS is spoken, which is easily done in a URL.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
    \r\nthis port speaks TLS: say https:// or wss:// instead of http or ws\n";

/// TLS as one listener speaks it.
#[derive(Clone)]
pub(crate) struct Tls {
    server: Arc<ServerConfig>,
    identity: Arc<Identity>,
    handshake_timeout: Duration,
}

impl Tls {
    /// With an identity; who did business with `before` may resume it, if the same clients are trusted.
    pub(crate) fn new(identity: &Arc<Identity>, options: &config::Tls, before: Option<&Self>) -> Self {
        let versions: &[&SupportedProtocolVersion] = match options.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let before = before.filter(|before| before.identity.trusts_like(identity));
        let ticketer: Arc<dyn ProducesTickets> = match before {
            Some(before) => before.server.ticketer.clone(),
            None => Ticketer::new().expect("the system has random numbers"),
        };
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the backend has ciphers for both versions")
            .with_client_cert_verifier(
                identity.clients().unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            )
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
        server.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        server.ticketer = ticketer;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let handshake_timeout = options.handshake_timeout;
        Self { server: Arc::new(server), identity: identity.clone(), handshake_timeout }
    }

    /// Who the listener is.
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Shakes hands within the time there is for it. None if nothing came of it; how it ended is counted by the caller.
    pub(crate) async fn accept(&self, socket: TcpStream) -> (TlsHandshake, Option<TlsStream<TcpStream>>) {
        match timeout(self.handshake_timeout, self.shake_hands(socket)).await {
            Ok(Ok(stream)) => {
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                (if resumed { TlsHandshake::Resumed } else { TlsHandshake::Full }, Some(stream))
            }
            Ok(Err(outcome)) => (outcome, None),
            Err(_) => (TlsHandshake::Timeout, None),
        }
    }

    async fn shake_hands(&self, mut socket: TcpStream) -> Result<TlsStream<TcpStream>, TlsHandshake> {
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(1..) if first[0] == HANDSHAKE_RECORD => {}
            Ok(1..) => {
                explain(&mut socket, first[0]).await;
                return Err(TlsHandshake::NotTls);
            }
            Ok(0) | Err(_) => return Err(TlsHandshake::Gone),
        }
        let acceptor = TlsAcceptor::from(self.server.clone());
        let accepted = acceptor.accept_with(socket, |session| session.set_buffer_limit(Some(UNSENT_BYTES)));
        accepted.await.map_err(|error| {
            debug!(%error, "a TLS handshake failed");
            // What is wrong with the peer's TLS comes as invalid data; the rest is the socket's.
            if error.kind() == io::ErrorKind::InvalidData {
                TlsHandshake::Refused
            } else {
                TlsHandshake::Gone
            }
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Tells a peer whose first byte begins a word what is spoken here. What it sent is read and forgotten: hung up on with
/// bytes unread, it would see a reset before the answer.
async fn explain(socket: &mut TcpStream, first: u8) {
    if !first.is_ascii_uppercase() {
        return;
    }
    let mut request = [0; 1024];
    let _ = socket.try_read(&mut request);
    if socket.write_all(NOT_TLS).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}
