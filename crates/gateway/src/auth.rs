//! Who is this? Tokens are found in requests, verified with the keys that are configured, and become grants.
//!
//! ```text
//!  request ──► presented: where is a token? ──► jwt: is the signature good? ──► protocol::grant::claims: what does it say?
//!  Effect::Authenticate ──────────────────────────►     │ issuer, keys                └─► Grant, or TokenFault
//!                                                       └─► key_server: keys from afar
//! ```
//!
//! **Invariants.** No token, and no part of one, is logged, counted or told: what is said of a token is a [`TokenFault`],
//! whose texts are constants. A key is used with the algorithms that it was made for and no others, so what a header says
//! of its algorithm can never turn a public key into a secret. What is not verified is not looked into, but for the header. A
//! revoked token is as bad as a forged one; while a node cannot tell whether it is, it takes none.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::Request;
use fanfare_metrics::{Metrics, TokenRefusal};
use fanfare_protocol::Channel;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::{Grant, Pass, Proof, Token, TokenFault, Visitor};
use fanfare_protocol::time::UnixMicros;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, TokenPlaces};
use crate::node::Services;
use crate::outgoing::Dialer;
use issuer::Doubt;

mod issuer;
pub(crate) mod jwt;
mod key_server;
pub(crate) mod keys;
mod presented;
mod revoked;

pub(crate) use presented::is_bearer;
pub(crate) use revoked::{Revocation, Revoked, Standing};

/// What a node knows of tokens. Swapped whole with the rest of its settings.
#[derive(Debug)]
pub(crate) struct Auth {
    verifier: Option<jwt::Verifier>,
    /// Whether who has no token may come in.
    is_anonymous_welcome: bool,
    places: TokenPlaces,
}

/// What key servers are asked with.
pub(crate) struct Means<'a> {
    pub(crate) dialer: &'a Dialer,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) metrics: &'a Arc<Metrics>,
    pub(crate) stop: &'a CancellationToken,
}

/// Why a request with a token is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwelcome {
    #[error("{0}")]
    Token(#[from] TokenFault),
    /// Any page can make a browser send a cookie, so who sent it has to be known.
    #[error(
        "a token in a cookie takes an Origin that may connect, see origin.allow; or Sec-Fetch-Site: same-origin"
    )]
    CookieWithoutOrigin,
    #[error("{NOT_YET}")]
    NotYet,
    /// After this time.
    #[error("{KEYS_AWAY}")]
    KeysAway(Duration),
}

impl Unwelcome {
    /// How long the next attempt waits at least, where there is to be one.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Token(_) | Self::CookieWithoutOrigin => None,
            Self::NotYet => Some(RETRY_AFTER),
            Self::KeysAway(wait) => Some(wait.max(RETRY_AFTER)),
        }
    }
}

/// A node that has just started and has no link to the broker.
const NOT_YET: &str = "this node does not know yet which tokens are revoked: try again";

/// A key server that is away, or was asked a moment ago.
const KEYS_AWAY: &str = "the key that this token names is not at hand: try again";

/// How long the next attempt waits at least.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is known of a token once its signature is good and its time is now.
enum Verdict {
    Taken(Arc<Grant>),
    NotYet,
    KeysAway(Duration),
}

impl Auth {
    /// That of a configuration, in force after `before` if the node runs already.
    pub(crate) fn of(config: &config::Auth, before: Option<&Self>, means: &Means<'_>) -> Self {
        let before = before.and_then(|before| before.verifier.as_ref());
        Self {
            verifier: config.jwt.as_deref().map(|jwt| jwt::Verifier::new(jwt, before, means)),
            is_anonymous_welcome: config.anonymous,
            places: config.places.clone(),
        }
    }

    /// Whether a client can present a token at all.
    pub(crate) fn takes_tokens(&self) -> bool {
        self.verifier.is_some()
    }

    /// Waits until every key server has been asked once, whatever comes of it.
    pub(crate) async fn tried(&self) {
        if let Some(verifier) = &self.verifier {
            verifier.tried().await;
        }
    }

    /// Has the key fetched that the token of a request names, if it is not at hand. To be awaited before [`visitor`](Self::visitor).
    pub(crate) async fn prepare_request<B>(&self, request: &Request<B>) {
        let Some(verifier) = self.verifier.as_ref().filter(|verifier| verifier.has_servers()) else { return };
        if let Some(presented) = presented::find(&self.places, request.headers(), request.uri().query()) {
            verifier.prepare(&presented.token).await;
        }
    }

    /// The same for a token in a conversation, before [`verify`](Self::verify).
    pub(crate) async fn prepare(&self, token: &Token) {
        if let Some(verifier) = &self.verifier {
            verifier.prepare(token).await;
        }
    }

    /// Who sends a request, by the first token that it carries. Its `Origin`, if it has one, has been found to be allowed.
    pub(crate) fn visitor(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        services: &Services,
    ) -> Result<Visitor, Unwelcome> {
        let presented =
            self.verifier.as_ref().and_then(|it| Some((it, presented::find(&self.places, headers, query)?)));
        let Some((verifier, presented)) = presented else {
            return Ok(if self.is_anonymous_welcome { Visitor::Anonymous } else { Visitor::Unknown });
        };
        if presented.needs_origin && !names_its_page(headers) {
            return Err(Unwelcome::CookieWithoutOrigin);
        }
        match judge(verifier, &presented.token, services)? {
            Verdict::Taken(grant) if grant.proves.is_some() => Err(TokenFault::Purpose.into()),
            Verdict::Taken(grant) => Ok(Visitor::Known(grant)),
            Verdict::NotYet => Err(Unwelcome::NotYet),
            Verdict::KeysAway(wait) => Err(Unwelcome::KeysAway(wait)),
        }
    }

    /// What a token says that was presented in a conversation.
    pub(crate) fn verify(&self, token: &Token, services: &Services) -> Result<Arc<Grant>, Failure> {
        let grant = self.judged(token, services)?;
        if grant.proves.is_some() {
            return Err(Failure::new(ErrorCode::Unauthorized, TokenFault::Purpose.to_string()));
        }
        Ok(grant)
    }

    /// What a proof says that was presented for a channel by a client whose token says this.
    pub(crate) fn admit(
        &self,
        proof: &Proof,
        channel: &Channel,
        grant: Option<&Grant>,
        services: &Services,
    ) -> Result<Pass, Failure> {
        let Proof::Token(token) = proof else {
            return Err(Failure::new(ErrorCode::Forbidden, "no signatures are taken here"));
        };
        // Nobody but a client that shows another's token is thrown out for it.
        let proven = self.judged(token, services).map_err(|failure| match failure.code {
            ErrorCode::Unauthorized => Failure { code: ErrorCode::Forbidden, ..failure },
            _ => failure,
        })?;
        let user = grant.and_then(|grant| grant.user.as_ref());
        if proven.proves.as_ref() != Some(channel) || proven.user.as_ref() != user {
            let text = "the token is for another channel, or for another user";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        let expires = proven.expires.map(|expires| UnixMicros(expires.saturating_mul(1_000_000)));
        let pass = proven.pass(channel).cloned().unwrap_or_default();
        Ok(Pass { profile: proven.profile.clone(), expires, ..pass })
    }

    fn judged(&self, token: &Token, services: &Services) -> Result<Arc<Grant>, Failure> {
        let refused = |text: &str| Failure::new(ErrorCode::Unauthorized, text);
        let Some(verifier) = &self.verifier else {
            return Err(refused("this node takes no tokens: see auth.jwt"));
        };
        let code = |fault| match fault {
            TokenFault::Expired => ErrorCode::Expired,
            _ => ErrorCode::Unauthorized,
        };
        match judge(verifier, token, services)
            .map_err(|fault| Failure::new(code(fault), fault.to_string()))?
        {
            Verdict::Taken(grant) => Ok(grant),
            Verdict::NotYet => Err(Failure::retry(ErrorCode::Unavailable, NOT_YET, RETRY_AFTER)),
            Verdict::KeysAway(wait) => {
                Err(Failure::retry(ErrorCode::Unavailable, KEYS_AWAY, wait.max(RETRY_AFTER)))
            }
        }
    }
}

/// Whether a browser has said what page a request comes from: one whose `Origin` has been found to be allowed, or one of this
/// very origin. For the latter a browser sends no `Origin` with a GET, such as an `EventSource` makes; in the header that it
/// sends instead no page has a say (Fetch Metadata).
fn names_its_page(headers: &HeaderMap) -> bool {
    headers.contains_key(::http::header::ORIGIN)
        || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

fn judge(verifier: &jwt::Verifier, token: &Token, services: &Services) -> Result<Verdict, TokenFault> {
    let now = services.clock.unix();
    let judged = match verifier.verify(token, now) {
        Ok(grant) => match services.revoked.standing(&grant, now.0 / 1_000_000) {
            Standing::Good => Ok(Verdict::Taken(Arc::new(grant))),
            Standing::Revoked => Err(TokenFault::Revoked),
            Standing::Unknown => Ok(Verdict::NotYet),
        },
        Err(Doubt::NotYet(wait)) => Ok(Verdict::KeysAway(wait)),
        Err(Doubt::Fault(fault)) => Err(fault),
    };
    match &judged {
        Ok(Verdict::Taken(_)) => services.metrics.token_accepted(),
        Ok(Verdict::NotYet) => {}
        Ok(Verdict::KeysAway(_)) => services.metrics.token_key_away(),
        Err(fault) => services.metrics.token_refused(label(*fault)),
    }
    judged
}

fn label(fault: TokenFault) -> TokenRefusal {
    match fault {
        TokenFault::TooLong | TokenFault::Malformed => TokenRefusal::Malformed,
        TokenFault::Algorithm => TokenRefusal::Algorithm,
        TokenFault::Signature => TokenRefusal::Signature,
        TokenFault::UnknownKey => TokenRefusal::UnknownKey,
        TokenFault::Expired => TokenRefusal::Expired,
        TokenFault::NotYetValid => TokenRefusal::NotYetValid,
        TokenFault::Issuer => TokenRefusal::Issuer,
        TokenFault::Audience => TokenRefusal::Audience,
        TokenFault::Revoked => TokenRefusal::Revoked,
        TokenFault::Claims(_) | TokenFault::Purpose => TokenRefusal::Claims,
    }
}
