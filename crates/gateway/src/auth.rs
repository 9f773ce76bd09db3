//! Who is this? Tokens are found in requests, verified with the keys that are configured, and become grants.
//!
//! ```text
//!  request ──► presented: where is a token? ──► jwt: is the signature good? ──► protocol::grant::claims: what does it say?
//!  Effect::Authenticate ──────────────────────────►     │ keys                        └─► Grant, or TokenFault
//! ```
//!
//! **Invariants.** No token, and no part of one, is logged, counted or told: what is said of a token is a [`TokenFault`],
//! whose texts are constants. A key is used with the algorithms that it was made for and no others, so what a header says
//! of its algorithm can never turn a public key into a secret. What is not verified is not looked into, but for the header.

use std::sync::Arc;

use ::http::HeaderMap;
use fanfare_metrics::{Metrics, TokenRefusal};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::{Grant, Token, TokenFault, Visitor};
use fanfare_protocol::time::UnixMicros;

use crate::config::{self, TokenPlaces};

pub(crate) mod jwt;
pub(crate) mod keys;
mod presented;

pub(crate) use presented::is_bearer;

/// What a node knows of tokens. Swapped whole with the rest of its settings.
#[derive(Debug)]
pub(crate) struct Auth {
    verifier: Option<jwt::Verifier>,
    /// Whether who has no token may come in.
    is_anonymous_welcome: bool,
    places: TokenPlaces,
}

/// Why a request with a token is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwelcome {
    #[error("{0}")]
    Token(#[from] TokenFault),
    /// Any page can make a browser send a cookie, so who sent it has to be known.
    #[error("a token in a cookie takes an Origin that may connect: see origin.allow")]
    CookieWithoutOrigin,
}

impl Auth {
    pub(crate) fn of(config: &config::Auth) -> Self {
        Self {
            verifier: config.jwt.as_deref().map(jwt::Verifier::new),
            is_anonymous_welcome: config.anonymous,
            places: config.places.clone(),
        }
    }

    /// Who sends a request, by the first token that it carries. Its `Origin`, if it has one, has been found to be allowed.
    pub(crate) fn visitor(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: UnixMicros,
        metrics: &Metrics,
    ) -> Result<Visitor, Unwelcome> {
        let presented =
            self.verifier.as_ref().and_then(|it| Some((it, presented::find(&self.places, headers, query)?)));
        let Some((verifier, presented)) = presented else {
            return Ok(if self.is_anonymous_welcome { Visitor::Anonymous } else { Visitor::Unknown });
        };
        if presented.needs_origin && !headers.contains_key(::http::header::ORIGIN) {
            return Err(Unwelcome::CookieWithoutOrigin);
        }
        Ok(Visitor::Known(judge(verifier, &presented.token, now, metrics)?))
    }

    /// What a token says that was presented in a conversation.
    pub(crate) fn verify(
        &self,
        token: &Token,
        now: UnixMicros,
        metrics: &Metrics,
    ) -> Result<Arc<Grant>, Failure> {
        let refused = |text: &str| Failure::new(ErrorCode::Unauthorized, text);
        let Some(verifier) = &self.verifier else {
            return Err(refused("this node takes no tokens: see auth.jwt"));
        };
        judge(verifier, token, now, metrics).map_err(|fault| refused(&fault.to_string()))
    }
}

fn judge(
    verifier: &jwt::Verifier,
    token: &Token,
    now: UnixMicros,
    metrics: &Metrics,
) -> Result<Arc<Grant>, TokenFault> {
    match verifier.verify(token, now) {
        Ok(grant) => {
            metrics.token_accepted();
            Ok(Arc::new(grant))
        }
        Err(fault) => {
            metrics.token_refused(label(fault));
            Err(fault)
        }
    }
}

fn label(fault: TokenFault) -> TokenRefusal {
    match fault {
        TokenFault::TooLong | TokenFault::Malformed => TokenRefusal::Malformed,
        TokenFault::Algorithm => TokenRefusal::Algorithm,
        TokenFault::Signature => TokenRefusal::Signature,
        TokenFault::Expired => TokenRefusal::Expired,
        TokenFault::NotYetValid => TokenRefusal::NotYetValid,
        TokenFault::Issuer => TokenRefusal::Issuer,
        TokenFault::Audience => TokenRefusal::Audience,
        TokenFault::Claims(_) => TokenRefusal::Claims,
    }
}
