//! TLS as a filter between frames and a socket, so that a connection over it is read and written like any other.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio_rustls::TlsConnector;

/// What makes handshakes with servers that this authority vouches for, each of them a full one: what a server saves by
/// tickets depends on who comes back.
pub(crate) fn connector(authority: &Path) -> Result<TlsConnector> {
    let certificate = CertificateDer::from_pem_file(authority)
        .with_context(|| format!("no certificate in PEM: {}", authority.display()))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).with_context(|| format!("no authority: {}", authority.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config).into())
}

/// One connection's keys, once it has made its handshake.
#[derive(Debug)]
pub(crate) struct Tls(RefCell<ClientConnection>);

impl Tls {
    /// Takes over from the handshake, and appends what came behind it to `after`.
    pub(crate) fn new(session: ClientConnection, after: &mut Vec<u8>) -> io::Result<Self> {
        let tls = Self(RefCell::new(session));
        tls.open(&[], after)?;
        Ok(tls)
    }

    /// Appends what `plain` is on the wire.
    pub(crate) fn seal(&self, plain: &[u8], wire: &mut Vec<u8>) -> io::Result<()> {
        let mut session = self.0.borrow_mut();
        session.set_buffer_limit(None);
        session.writer().write_all(plain)?;
        while session.wants_write() {
            session.write_tls(wire)?;
        }
        Ok(())
    }

    /// Appends what has become whole of what came over the wire; that may be nothing.
    pub(crate) fn open(&self, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        let mut session = self.0.borrow_mut();
        loop {
            let state = session.process_new_packets().map_err(io::Error::other)?;
            let (start, ready) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(start + ready, 0);
            session.reader().read_exact(&mut plain[start..])?;
            if wire.is_empty() {
                return Ok(());
            }
            session.read_tls(&mut wire)?;
        }
    }
}
