//! Whom the node believes when it is the client: the authorities that vouch for other people's servers.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::identity::{certificates, provider};
use super::merge::Merged;
use super::mistake::Mistakes;

/// Those that browsers trust, as this version of the gateway was built with them, and the operator's own.
#[derive(Clone, Default)]
pub struct Authorities {
    own: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// The operator's own are these, beside the public ones.
    ///
    /// # Errors
    /// What is wrong with the first that is of no use.
    pub fn new(own: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut trial = RootCertStore::empty();
        own.iter().try_for_each(|root| trial.add(root.clone()))?;
        Ok(Self { own })
    }

    /// All of them.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        for root in &self.own {
            roots.add(root.clone()).expect("tried when it was read");
        }
        Arc::new(roots)
    }

    /// The same where a server of Redis is reached that way: making it costs memory.
    pub(crate) fn of_redis(&self, urls: &[impl AsRef<str>]) -> Option<Arc<ClientConfig>> {
        urls.iter().any(|url| url.as_ref().starts_with("rediss://")).then(|| self.tls())
    }

    /// TLS with whom they vouch for, by a client without a certificate of its own.
    #[must_use]
    pub fn tls(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the backend has ciphers for both versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("own", &self.own.len()).finish()
    }
}

/// Those that `outgoing.ca` names.
pub(super) fn read(merged: &Merged, mistakes: &mut Mistakes) -> Authorities {
    const PATH: &str = "outgoing.ca";
    let Some(file) = merged.text(PATH) else { return Authorities::default() };
    let authorities = certificates(&file).and_then(|own| {
        Authorities::new(own).map_err(|error| format!("a certificate in it is of no use: {error}"))
    });
    authorities.unwrap_or_else(|text| {
        let text = format!("{PATH} = {file:?}: {text}");
        match merged.place(PATH) {
            Some(place) => mistakes.at(PATH, text, place),
            None => mistakes.add(text),
        }
        Authorities::default()
    })
}
