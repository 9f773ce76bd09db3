//! Somebody who makes tokens: the keys they are held against, and what they have to say.

use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::grant::TokenFault;
use fanfare_protocol::grant::claims::Expected;

use super::Means;
use super::jwt::Parts;
use super::key_server::{KeyServer, Missing};
use super::keys::Key;
use super::keys::jwk::Jwk;
use crate::config;

/// The keys of a key server that a token is held against which names none: whoever has more keys says which.
const UNNAMED_MAX: usize = 8;

/// See the [module's note](self).
#[derive(Debug)]
pub(super) struct Issuer {
    /// Those that are configured: the ones in force, and those before them.
    keys: Vec<Key>,
    server: Option<Arc<KeyServer>>,
    expected: Expected,
}

/// Why a token is not taken, at least not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    Fault(TokenFault),
    /// It may be good: its key is not at hand, and may be after this time.
    NotYet(Duration),
}

impl From<TokenFault> for Doubt {
    fn from(fault: TokenFault) -> Self {
        Self::Fault(fault)
    }
}

impl Issuer {
    pub(super) fn new(
        config: &config::Issuer,
        jwt: &config::Jwt,
        before: &[Self],
        means: &Means<'_>,
    ) -> Self {
        let secrets = config.hmac_secrets.iter().map(|secret| Key::Hmac(secret.expose().as_bytes().into()));
        let public = config.public_keys.iter().cloned().map(Key::Public);
        let server = config.jwks_url.as_ref().map(|url| {
            let mut known = before.iter().filter_map(|issuer| issuer.server.as_ref());
            let known = known.find(|server| server.is_of(url, jwt.fetching)).cloned();
            known.unwrap_or_else(|| Arc::new(KeyServer::start(url, jwt.fetching, means)))
        });
        let expected = Expected {
            issuer: config.name.as_deref().map(Into::into),
            audience: config.audience.as_deref().map(Into::into),
            leeway: jwt.leeway,
        };
        Self { keys: secrets.chain(public).collect(), server, expected }
    }

    /// What it calls itself. None: it does not matter.
    pub(super) fn name(&self) -> Option<&str> {
        self.expected.issuer.as_deref()
    }

    pub(super) fn expected(&self) -> &Expected {
        &self.expected
    }

    pub(super) fn server(&self) -> Option<&KeyServer> {
        self.server.as_deref()
    }

    /// The key server to ask for a key that a token names.
    pub(super) fn lacks(&self, parts: &Parts<'_>) -> Option<&KeyServer> {
        let server = self.server()?;
        let is_lacking =
            parts.algorithm.is_public() && (server.keys().is_empty() || is_unknown(&server.keys(), parts));
        // What a configured key has signed is good without.
        (is_lacking && !self.has_signed(parts)).then_some(server)
    }

    /// Whether a key of this issuer has made the signature.
    pub(super) fn check(&self, parts: &Parts<'_>) -> Result<(), Doubt> {
        if self.has_signed(parts) {
            return Ok(());
        }
        let is_fitting = self.keys.iter().any(|key| key.is_for(parts.algorithm));
        let refused = |is_fitting| if is_fitting { TokenFault::Signature } else { TokenFault::Algorithm };
        let Some(server) = self.server().filter(|_| parts.algorithm.is_public()) else {
            return Err(refused(is_fitting).into());
        };
        let keys = server.keys();
        let mut named = candidates(&keys, parts).peekable();
        let is_fitting = is_fitting || named.peek().is_some();
        if named.any(|it| it.key.has_signed(parts.algorithm, parts.signed, &parts.signature)) {
            return Ok(());
        }
        if !keys.is_empty() && !is_unknown(&keys, parts) {
            return Err(refused(is_fitting).into());
        }
        match server.missing(parts.kid.as_deref()) {
            Missing::Known => Err(TokenFault::UnknownKey.into()),
            Missing::Unknown(wait) => Err(Doubt::NotYet(wait)),
        }
    }

    /// Whether a configured key has.
    fn has_signed(&self, Parts { algorithm, signed, signature, .. }: &Parts<'_>) -> bool {
        let mut fitting = self.keys.iter().filter(|key| key.is_for(*algorithm));
        fitting.any(|key| key.has_signed(*algorithm, signed, signature))
    }
}

/// Whether a token names a key that is not among these.
fn is_unknown(keys: &[Jwk], parts: &Parts<'_>) -> bool {
    parts.kid.is_some() && !keys.iter().any(|key| is_named(key, parts))
}

/// Whether a key may be the one that a token names. One without a name may be anybody's.
fn is_named(key: &Jwk, parts: &Parts<'_>) -> bool {
    key.kid.is_none() || parts.kid.is_none() || key.kid == parts.kid
}

/// The keys that may have signed a token.
fn candidates<'a>(keys: &'a [Jwk], parts: &'a Parts<'_>) -> impl Iterator<Item = &'a Jwk> {
    let fitting = keys.iter().filter(|key| is_named(key, parts) && key.is_for(parts.algorithm));
    fitting.take(UNNAMED_MAX)
}
