//! JSON Web Tokens in compact form (RFC 7519, RFC 7515): is the signature by a key that is trusted here?
//!
//! The order is that of trust: form, algorithm, signature, and only then the claims. The signature covers the bytes as they
//! came, so nothing is parsed twice in two ways. Where there are several issuers, `iss` is read before the signature to
//! choose whose keys it is held against, and held against that issuer's name after it: whoever lies gets the wrong keys.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use fanfare_protocol::grant::claims;
use fanfare_protocol::grant::{Grant, TOKEN_BYTES_MAX, Token, TokenFault};
use fanfare_protocol::time::UnixMicros;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Means;
use super::issuer::{Doubt, Issuer};
use super::keys::{self, Algorithm};
use crate::config::{self, Secret};

/// Knows the issuers whose tokens are taken.
#[derive(Debug)]
pub(crate) struct Verifier {
    issuers: Vec<Issuer>,
}

/// What is read of a token's header. The rest, `typ` among it, decides nothing.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    /// Names a key of a key server.
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    /// Extensions that whoever does not know them must refuse (RFC 7515 section 4.1.11). None is known.
    crit: Option<IgnoredAny>,
}

/// What is read of claims that nobody has vouched for yet.
#[derive(Default, Deserialize)]
struct Unverified<'a> {
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
}

/// A token taken apart.
pub(super) struct Parts<'a> {
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<Box<str>>,
    claims: Vec<u8>,
}

impl Verifier {
    /// That of a configuration. Key servers that `before` knows already go on as they are.
    pub(crate) fn new(config: &config::Jwt, before: Option<&Self>, means: &Means<'_>) -> Self {
        let before = before.map_or(&[][..], |it| &it.issuers);
        Self { issuers: config.issuers.iter().map(|it| Issuer::new(it, config, before, means)).collect() }
    }

    /// Waits until every key server has been asked once.
    pub(crate) async fn tried(&self) {
        for server in self.issuers.iter().filter_map(Issuer::server) {
            server.tried().await;
        }
    }

    /// Whether keys come from anywhere.
    pub(crate) fn has_servers(&self) -> bool {
        self.issuers.iter().any(|issuer| issuer.server().is_some())
    }

    /// Has the key fetched that a token names, if it is not at hand. To be awaited before the token is [judged](Self::verify).
    pub(crate) async fn prepare(&self, token: &Token) {
        if !self.has_servers() {
            return;
        }
        let Ok(parts) = Parts::of(token.expose()) else { return };
        if let Some(server) = self.issuer(&parts).and_then(|issuer| issuer.lacks(&parts)) {
            server.ask(parts.kid.as_deref()).await;
        }
    }

    /// What a token says, if it is good.
    pub(crate) fn verify(&self, token: &Token, now: UnixMicros) -> Result<Grant, Doubt> {
        let parts = Parts::of(token.expose())?;
        let issuer = self.issuer(&parts).ok_or(TokenFault::Issuer)?;
        issuer.check(&parts)?;
        Ok(claims::read(&parts.claims, issuer.expected(), now)?)
    }

    /// Whose keys a token is held against: those of the one it names, or of the one that has no name.
    fn issuer(&self, parts: &Parts<'_>) -> Option<&Issuer> {
        if let [only] = &*self.issuers {
            return Some(only);
        }
        let unverified: Unverified<'_> = serde_json::from_slice(&parts.claims).unwrap_or_default();
        let named = |issuer: &&Issuer| issuer.name().is_some() && issuer.name() == unverified.iss.as_deref();
        self.issuers.iter().find(named).or_else(|| self.issuers.iter().find(|issuer| issuer.name().is_none()))
    }
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, TokenFault> {
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
        let kid = header.kid.as_deref().map(Into::into);
        Ok(Self { signed: signed.as_bytes(), signature, algorithm, kid, claims })
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
