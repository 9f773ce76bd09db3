//! Who a listener is: certificate and key, read from the files that the configuration names and checked as one.
//!
//! What stands in the files is part of the configuration and held to its rule: with a mistake nothing is in force, so
//! no node serves a certificate that nobody could accept. An expired one is no mistake: there are clients that do not
//! mind, and a node that refuses to start for it helps nobody. The shell warns of it.

use std::fmt;
use std::fs;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore};

use super::choice::ClientCertificates;
use super::merge::Merged;
use super::mistake::Mistakes;

mod validity;

pub use validity::{Standing, Validity};

/// The one backend of cryptography, named wherever it is used so that no default of the process decides.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The backend that identities are made for.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Who a listener is, and whom of its clients it asks for a certificate. Two are equal when their files say the same.
pub struct Identity {
    certified: Arc<CertifiedKey>,
    validity: Validity,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// The key as it was read, to compare with.
    key: PrivateKeyDer<'static>,
    trust: Trust,
}

/// Whose certificates clients may present, and whether they have to.
#[derive(Debug, PartialEq, Eq)]
struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    asked: ClientCertificates,
}

impl Identity {
    /// The chain and the key.
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// From when until when the certificate is good.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Who judges the certificates of clients. None: they are not asked for one.
    #[must_use]
    pub fn clients(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.clients.clone()
    }

    /// Whether the same clients are let in as by `other`. If not, nobody may resume here what he began there.
    #[must_use]
    pub fn trusts_like(&self, other: &Self) -> bool {
        self.trust == other.trust
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert && self.key == other.key && self.trusts_like(other)
    }
}

impl Eq for Identity {}

// The key is a secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// What is wrong with a file: the key that names it, and the text.
type Fault = (&'static str, String);

/// The identity that the keys under `section` name; None if they name none, or one that is no good.
pub(super) fn read(section: &str, merged: &Merged, mistakes: &mut Mistakes) -> Option<Arc<Identity>> {
    let path = |key: &str| format!("{section}.{key}");
    let file = |key: &str| merged.text(&path(key));
    let mut blame = |(key, text): Fault| {
        let path = path(key);
        // A file that an environment without it overrides is still named by some layer.
        match merged.place(&path) {
            Some(place) => mistakes.at(&path, text, place),
            None => mistakes.add(text),
        }
    };
    let takes =
        |key, other, what: &str| (key, format!("{section}.{key}: it takes {section}.{other}, {what}"));
    match (file("cert"), file("key"), file("client_ca")) {
        (Some(cert), Some(key), client_ca) => {
            let asked = merged.text(&path("client_certificates")).expect("the key has a default");
            let files = Files { section, cert, key, client_ca, asked: ClientCertificates::of(&asked) };
            match files.read() {
                Ok(identity) => return Some(Arc::new(identity)),
                Err(faults) => faults.into_iter().for_each(blame),
            }
        }
        (Some(_), None, _) => blame(takes("cert", "key", "the certificate's private key")),
        (None, Some(_), _) => blame(takes("key", "cert", "the key's certificate")),
        (None, None, Some(_)) => blame(takes("client_ca", "cert", "since only TLS asks for certificates")),
        (None, None, None) => {}
    }
    None
}

/// The files of one identity.
struct Files<'a> {
    section: &'a str,
    cert: String,
    key: String,
    client_ca: Option<String>,
    asked: ClientCertificates,
}

impl Files<'_> {
    fn read(&self) -> Result<Identity, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut fault = |key, file: &str, text| {
            faults.push((key, format!("{}.{key} = {file:?}: {text}", self.section)));
        };
        let chain = certificates(&self.cert).and_then(|chain| {
            let validity = Validity::of(&chain[0]).ok_or("its first certificate is not X.509")?;
            Ok((chain, validity))
        });
        let chain = chain.map_err(|text| fault("cert", &self.cert, text)).ok();
        let key = private_key(&self.key).map_err(|text| fault("key", &self.key, text)).ok();
        let authorities = self.client_ca.as_ref().map_or(Ok((Vec::new(), None)), |file| {
            certificates(file).and_then(|roots| {
                let clients = verifier(&roots, self.asked)?;
                Ok((roots, Some(clients)))
            })
        });
        let file = self.client_ca.as_deref().unwrap_or_default();
        let authorities = authorities.map_err(|text| fault("client_ca", file, text)).ok();
        if let (Some((chain, validity)), Some(key), Some((authorities, clients))) = (chain, key, authorities)
        {
            match CertifiedKey::from_der(chain, key.clone_key(), &provider()) {
                Ok(certified) => {
                    let trust = Trust { authorities, asked: self.asked };
                    return Ok(Identity { certified: Arc::new(certified), validity, clients, key, trust });
                }
                Err(error) => fault("key", &self.key, self.misfit(&error)),
            }
        }
        Err(faults)
    }

    fn misfit(&self, error: &TlsError) -> String {
        match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("it is not the key of the certificate in {:?}", self.cert)
            }
            other => format!("it is of no use with the certificate in {:?}: {other}", self.cert),
        }
    }
}

/// All certificates in a file of PEM, which has at least one.
pub(super) fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = contents(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(some) if !some.is_empty() => Ok(some),
        Ok(_) => {
            Err("there is no certificate in it, which would begin with -----BEGIN CERTIFICATE-----".into())
        }
        Err(error) => Err(format!("it is not PEM: {error}")),
    }
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    let text = contents(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound if text.windows(9).any(|it| it == b"ENCRYPTED") => {
            "the key in it is encrypted, and nobody is here to type the password: decrypt it".into()
        }
        PemError::NoItemsFound => {
            "there is no private key in it, which would begin with -----BEGIN PRIVATE KEY-----".into()
        }
        other => format!("it is not PEM: {other}"),
    })
}

fn contents(file: &str) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("the file cannot be read: {error}"))
}

fn verifier(
    roots: &[CertificateDer<'static>],
    asked: ClientCertificates,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| format!("a certificate in it is of no use: {error}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
    let builder = match asked {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| format!("it is of no use: {error}"))
}
