//! Who may use the transports that are plain HTTP: pages whose origin may open a WebSocket, and whoever has the token it takes.
//!
//! A WebSocket handshake is not subject to the browser's rules, so the gateway judges the `Origin` itself; here it does the
//! same, and also tells the browser that the page may read the answer. Credentials are not allowed: a page
//! of another origin presents its token in `Authorization`.

use std::sync::Arc;

use ::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use fanfare_metrics::Refusal;
use fanfare_protocol::SessionId;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::Visitor;

use super::{Answer, Peer, failure, host, with_type};
use crate::auth::Unwelcome;
use crate::hooks::Caller;
use crate::node::{Services, Settings};

/// How long a browser may remember what [`Page::preflight`] has said, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What a page may send along.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, last-event-id");

/// A page that may come in, or a client that is none.
#[derive(Debug, Clone)]
pub(super) struct Page(Option<HeaderValue>);

impl Page {
    /// Judges a request.
    ///
    /// # Errors
    /// The refusal, when the page's origin may not connect.
    pub(super) fn of<B>(request: &Request<B>, services: &Services) -> Result<Self, Failure> {
        let origin = request.headers().get(header::ORIGIN);
        if is_allowed(request, services) {
            return Ok(Self(origin.cloned()));
        }
        services.metrics.handshake_refused(Refusal::ForbiddenOrigin);
        let text = "pages of this origin may not connect: see origin.allow";
        Err(Failure::new(ErrorCode::Forbidden, text))
    }

    /// The answer to one that may not come in, which its page may not read either.
    pub(super) fn turned_away(refusal: &Failure) -> Answer {
        Self(None).answered(failure(refusal))
    }

    /// An answer that the page may read.
    pub(super) fn answered(&self, mut answer: Answer) -> Answer {
        let headers = answer.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = &self.0 {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let exposed = HeaderValue::from_static("retry-after");
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        answer
    }

    /// The answer to a browser that asks beforehand.
    pub(super) fn preflight(&self, methods: &'static str) -> Answer {
        let mut answer = with_type(StatusCode::NO_CONTENT, "", Bytes::new());
        let headers = answer.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        self.answered(answer)
    }
}

/// Who sends a request that is answered whole, and what is kept of it for questions to a backend: there is no later moment in
/// which it could present a token, or the backend say who it is.
///
/// # Errors
/// Its token is not taken, or it has none and needs one; the backend does not let it in, or does not answer.
pub(super) async fn sender<B>(
    peer: &Peer,
    request: &Request<B>,
    session: SessionId,
    transport: &'static str,
    services: &Services,
) -> Result<(Visitor, Option<Arc<Caller>>), Failure> {
    let settings = services.settings();
    let headers = request.headers();
    let caller = settings.hooks.caller(|| peer.client_again(headers, services), transport, headers);
    let visitor = match claimed(request, &settings, services)? {
        Visitor::Unknown => {
            let text = "this takes a token: send Authorization: Bearer with one";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        Visitor::Presumed(presumed) => {
            let asked = settings.hooks.introduce(session, caller.as_deref(), presumed, None, services);
            Visitor::Known(asked.await?)
        }
        visitor => visitor,
    };
    Ok((visitor, caller))
}

/// Who sends a request, as far as that alone shows it.
///
/// # Errors
/// Its token is not taken.
pub(super) fn claimed<B>(
    request: &Request<B>,
    settings: &Settings,
    services: &Services,
) -> Result<Visitor, Failure> {
    let auth = &settings.auth;
    let (headers, query) = (request.headers(), request.uri().query());
    let visitor = auth.visitor(headers, query, services);
    match visitor.map(|visitor| settings.hooks.presume(visitor, auth.takes_tokens())) {
        Ok(visitor) => Ok(visitor),
        Err(why) => {
            let text = why.to_string();
            Err(match (why, why.retry_after()) {
                (_, Some(after)) => Failure::retry(ErrorCode::Unavailable, text, after),
                (Unwelcome::CookieWithoutOrigin, None) => Failure::new(ErrorCode::Forbidden, text),
                (_, None) => Failure::new(ErrorCode::Unauthorized, text),
            })
        }
    }
}

fn is_allowed<B>(request: &Request<B>, services: &Services) -> bool {
    let origin = request.headers().get(header::ORIGIN).map(|it| it.to_str().unwrap_or("null"));
    services.settings().origins.allow(origin, host::of(request).unwrap_or_default())
}
