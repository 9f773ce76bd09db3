//! JSON Web Tokens in compact form (RFC 7519, RFC 7515): is the signature by a key that is trusted here?
//!
//! The order is that of trust: form, algorithm, signature, and only then the claims. The signature covers the bytes as they
//! came, so nothing is parsed twice in two ways.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use fanfare_protocol::grant::claims::{self, Expected};
use fanfare_protocol::grant::{Grant, TOKEN_BYTES_MAX, Token, TokenFault};
use fanfare_protocol::time::UnixMicros;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::keys::{self, Algorithm, Key};
use crate::config::{self, Secret};

/// Knows the keys, and what tokens must say.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// Those in force, and those before them.
    keys: Vec<Key>,
    expected: Expected,
}

/// What is read of a token's header. The rest, `typ` and `kid` among it, decides nothing.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    /// Extensions that whoever does not know them must refuse (RFC 7515 section 4.1.11). None is known.
    crit: Option<IgnoredAny>,
}

impl Verifier {
    pub(crate) fn new(config: &config::Jwt) -> Self {
        let secrets = config.hmac_secrets.iter().map(|secret| Key::Hmac(secret.expose().as_bytes().into()));
        let public = config.public_keys.iter().cloned().map(Key::Public);
        let expected = Expected {
            issuer: config.issuer.as_deref().map(Into::into),
            audience: config.audience.as_deref().map(Into::into),
            leeway: config.leeway,
        };
        Self { keys: secrets.chain(public).collect(), expected }
    }

    /// What a token says, if it is good.
    pub(crate) fn verify(&self, token: &Token, now: UnixMicros) -> Result<Grant, TokenFault> {
        let token = token.expose();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        // To serde an array is a struct without its field names.
        let header = Some(&*header).filter(|json| json.starts_with(b"{"));
        let header: Option<Header<'_>> = header.and_then(|json| serde_json::from_slice(json).ok());
        let header = header.filter(|it| it.crit.is_none()).ok_or(TokenFault::Malformed)?;
        let algorithm = Algorithm::parse(&header.alg).ok_or(TokenFault::Algorithm)?;
        let mut fitting = self.keys.iter().filter(|key| key.is_for(algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(TokenFault::Algorithm);
        }
        if !fitting.any(|key| key.has_signed(algorithm, signed.as_bytes(), &signature)) {
            return Err(TokenFault::Signature);
        }
        claims::read(&claims, &self.expected, now)
    }
}

/// A token with these claims, signed with HS256.
pub(crate) fn sign(secret: &Secret, claims: &[u8]) -> String {
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims));
    let signature = keys::sign(secret.expose().as_bytes(), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A part of a token: base64url without padding, to the letter.
fn decode(part: &str) -> Result<Vec<u8>, TokenFault> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenFault::Malformed)
}

#[cfg(test)]
mod tests;
