//! Keys, and the algorithms that each of them is for (RFC 7518 section 3.1, RFC 8037 section 3.1).
//!
//! The kind of key decides which algorithms it may be used with; a token's header only chooses among those. The arithmetic
//! is ring's, the backend that TLS stands on too, but for P-521, which it does not have.

use std::fmt;

use data_encoding::BASE64;
use p521::ecdsa::signature::Verifier as _;
use p521::ecdsa::{Signature, VerifyingKey};
use ring::hmac;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

mod der;
pub(crate) mod jwk;

/// How a token is signed. `none` is not among them, so it cannot be spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// All of them.
    #[cfg(any(test, fuzzing))]
    pub(crate) const ALL: [Self; 13] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Reads the `alg` of a header, to the letter.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    /// Whether it takes a key that everybody may know.
    pub(crate) fn is_public(self) -> bool {
        self.hmac().is_none()
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }
}

/// What a signature is checked with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// A secret that whoever signs has too.
    Hmac(Box<[u8]>),
    /// A public key.
    Public(PublicKey),
}

/// A key that checks and cannot sign.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian.
    Rsa { n: Box<[u8]>, e: Box<[u8]> },
    /// A point of P-256, uncompressed.
    P256(Box<[u8]>),
    /// A point of P-384, uncompressed.
    P384(Box<[u8]>),
    /// A point of P-521, uncompressed.
    P521(Box<[u8]>),
    /// 32 bytes.
    Ed25519(Box<[u8]>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hmac(_) => f.write_str("(secret)"),
            Self::Public(key) => key.fmt(f),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::P521(_) => "P-521",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl Key {
    /// Whether this key is for this algorithm.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Hmac(_) => algorithm.hmac().is_some(),
            Self::Public(key) => key.is_for(algorithm),
        }
    }

    /// Whether this key has made the signature in this way; never where it [is not for](Self::is_for) the algorithm.
    pub(crate) fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(secret) => algorithm.hmac().is_some_and(|digest| {
                hmac::verify(&hmac::Key::new(digest, secret), message, signature).is_ok()
            }),
            Self::Public(key) => key.has_signed(algorithm, message, signature),
        }
    }
}

impl PublicKey {
    /// Whether this key is for this algorithm.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.rsa().is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::P521(_) => algorithm == Algorithm::Es512,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    /// Whether this key has made the signature in this way; never where it [is not for](Self::is_for) the algorithm.
    pub(crate) fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let by = |verification: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(verification, key).verify(message, signature).is_ok()
        };
        match self {
            Self::Rsa { n, e } => algorithm.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            Self::P256(point) => by(&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::P384(point) => by(&signature::ECDSA_P384_SHA384_FIXED, point),
            Self::P521(point) => p521_has_signed(point, message, signature),
            Self::Ed25519(key) => by(&signature::ED25519, key),
        }
    }
}

/// ES512 by the one curve that ring does not have.
fn p521_has_signed(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::from_sec1_bytes(point);
    let signature = Signature::from_slice(signature);
    key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
}

/// The signature of HS256.
pub(crate) fn sign(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().into()
}

/// Why text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublicKeyError {
    #[error("it is not PEM, which begins with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    #[error("it is a private key: whoever checks tokens needs the public one alone (openssl pkey -pubout)")]
    Private,
    #[error("it is a certificate: take the public key out of it (openssl x509 -pubkey -noout)")]
    Certificate,
    #[error("there is no public key of RSA, P-256, P-384, P-521 or Ed25519 in it")]
    Unknown,
    #[error("it is an RSA key of {bits} bits: 2048 to 8192 are taken")]
    RsaSize {
        /// How many it has.
        bits: usize,
    },
}

impl PublicKey {
    /// Reads `-----BEGIN PUBLIC KEY-----` (RFC 5280) or `-----BEGIN RSA PUBLIC KEY-----` (RFC 8017). A backslash and an `n` count
    /// as a line break, since that is how variables of the environment are often written.
    pub(crate) fn from_pem(text: &str) -> Result<Self, PublicKeyError> {
        let text = text.replace("\\n", "\n");
        let (_, text) = text.split_once("-----BEGIN ").ok_or(PublicKeyError::NotPem)?;
        let (label, text) = text.split_once("-----").ok_or(PublicKeyError::NotPem)?;
        let (body, _) = text.split_once("-----END ").ok_or(PublicKeyError::NotPem)?;
        let body: String = body.split_ascii_whitespace().collect();
        let bytes = BASE64.decode(body.as_bytes()).map_err(|_| PublicKeyError::NotPem)?;
        let key = match label {
            "PUBLIC KEY" => der::subject_public_key(&bytes),
            "RSA PUBLIC KEY" => der::rsa_public_key(&bytes),
            "CERTIFICATE" => return Err(PublicKeyError::Certificate),
            label if label.ends_with("PRIVATE KEY") => return Err(PublicKeyError::Private),
            _ => None,
        };
        key.ok_or(PublicKeyError::Unknown)?.checked()
    }

    /// The same, if it is of a size that is verified with.
    pub(crate) fn checked(self) -> Result<Self, PublicKeyError> {
        if let Self::Rsa { n, .. } = &self {
            let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
            if !(2048..=8192).contains(&bits) {
                return Err(PublicKeyError::RsaSize { bits });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_public_key_is_named() {
        let pem =
            |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for (text, error) in [
            ("", PublicKeyError::NotPem),
            ("hello", PublicKeyError::NotPem),
            (&pem("PUBLIC KEY", "!"), PublicKeyError::NotPem),
            (&pem("PUBLIC KEY", "AAAA"), PublicKeyError::Unknown),
            (&pem("PRIVATE KEY", "AAAA"), PublicKeyError::Private),
            (&pem("EC PRIVATE KEY", "AAAA"), PublicKeyError::Private),
            (&pem("CERTIFICATE", "AAAA"), PublicKeyError::Certificate),
            (&pem("DH PARAMETERS", "AAAA"), PublicKeyError::Unknown),
        ] {
            assert_eq!(PublicKey::from_pem(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = Key::Hmac((*b"a secret of some length").into());
        assert_eq!(format!("{key:?}"), "(secret)");
    }
}
