//! Certificates: an authority that signs whatever a test asks for, and clients that believe it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

/// An authority, with its files in a directory of its own.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The two files of one certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain in PEM.
    pub cert: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

/// Years from which until which a certificate is good, each from its first day on.
pub type Years = (i32, i32);

/// Good for long.
pub const GOOD: Years = (2020, 2100);

impl Authority {
    /// An authority that nobody knows yet.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "Fanfare's tests");
        let key = KeyPair::generate().expect("the system has random numbers");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority signs itself");
        let directory =
            TempDir::with_prefix("fanfare-authority-").expect("a temporary directory can be made");
        fs::write(directory.path().join("authority.pem"), issuer.pem()).expect("a file can be written");
        Self { directory, issuer }
    }

    /// Its own certificate, in PEM.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// A file in its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Signs a certificate for this machine, in files called `name`.
    #[must_use]
    pub fn issue(&self, name: &str, years: Years) -> Certificate {
        let files = Certificate {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}-key.pem")),
        };
        self.renew(&files, name, years);
        files
    }

    /// Signs another one in the place of `files`; whoever looks between the two writes sees a key that does not fit.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn renew(&self, files: &Certificate, name: &str, (from, until): Years) {
        let mut params = CertificateParams::new(["localhost", "127.0.0.1"].map(String::from))
            .expect("these are good names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("the system has random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs");
        fs::write(&files.cert, certificate.pem()).expect("a file can be written");
        fs::write(&files.key, key.serialize_pem()).expect("a file can be written");
    }

    /// A client that believes this authority, and presents a certificate if it has one. Each has tickets of its own.
    ///
    /// # Panics
    /// When the files are no good.
    #[must_use]
    pub fn client(&self, alpn: &[&str], certificate: Option<&Certificate>) -> ClientConfig {
        self.client_of(&[&TLS13, &TLS12], alpn, certificate)
    }

    /// The same, of certain versions of TLS.
    ///
    /// # Panics
    /// When the files are no good.
    #[must_use]
    pub fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        certificate: Option<&Certificate>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority is a root");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("both versions have ciphers")
            .with_webpki_verifier(verifier.build().expect("there is a root"));
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(Certificate { cert, key }) => {
                let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
                let key = PrivateKeyDer::from_pem_file(key).expect("a private key in PEM");
                builder.with_client_auth_cert(chain.expect("a chain in PEM"), key).expect("they fit")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// The keys of the configuration that name these files, under `section`.
    #[must_use]
    pub fn settings(&self, section: &str) -> String {
        let Self { cert, key } = self;
        format!("[{section}]\ncert = {}\nkey = {}\n", quoted(cert), quoted(key))
    }
}

/// A path as TOML spells it.
#[must_use]
pub fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("a path of text"))
}
