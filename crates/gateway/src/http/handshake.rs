//! The opening handshake of RFC 6455, section 4.2, and what comes before it: may this client connect at all?

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use bytes::Bytes;
use fanfare_metrics::Refusal;
use fanfare_protocol::dialect::{Negotiated, negotiate};
use fanfare_protocol::grant::Visitor;
use hyper::body::Incoming;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::debug;
use tungstenite::handshake::derive_accept_key;

use super::{Answer, text, with_type};
use crate::admission::Place;
use crate::auth::{Unwelcome, is_bearer};
use crate::connection::Connection;
use crate::node::Services;
use crate::transport::echo::Echo;

/// When a client that was turned away may try again: draining and full nodes recover in seconds, not in milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a WebSocket is opened for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A conversation in one of the dialects.
    Session,
    /// Hearing oneself: [`Echo`].
    Echo,
}

/// Why a handshake was refused.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    reason: Refusal,
    explanation: Cow<'static, str>,
}

/// A handshake that may go on.
#[derive(Debug)]
struct Accepted {
    key: String,
    negotiated: Negotiated,
    visitor: Visitor,
    place: Place,
}

/// Answers an upgrade request; when it is accepted the connection starts once the answer has left.
pub(super) fn upgrade(mut request: Request<Incoming>, purpose: Purpose, services: &Arc<Services>) -> Answer {
    let accepted = match examine(&request, services) {
        Ok(accepted) => accepted,
        Err(refused) => {
            services.metrics.handshake_refused(refused.reason);
            return refusal(refused);
        }
    };
    let Accepted { key, negotiated, visitor, place } = accepted;
    let upgraded = hyper::upgrade::on(&mut request);
    let theirs = services.clone();
    services.tasks.spawn(async move {
        match upgraded.await {
            Ok(upgraded) => start(upgraded, purpose, negotiated, visitor, place, &theirs),
            Err(error) => debug!(%error, "the peer left during the handshake"),
        }
    });
    switching_protocols(&key, negotiated)
}

/// Takes the stream back out of the HTTP machinery and lets the connection live in a small task of its own, so that
/// nothing of the handshake stays in memory.
fn start(
    upgraded: Upgraded,
    purpose: Purpose,
    negotiated: Negotiated,
    visitor: Visitor,
    place: Place,
    services: &Arc<Services>,
) {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => start_on(parts, purpose, negotiated, visitor, place, services),
        Err(upgraded) => match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
            Ok(parts) => start_on(parts, purpose, negotiated, visitor, place, services),
            Err(_) => unreachable!("the listener hands out nothing else"),
        },
    }
}

fn start_on<S>(
    parts: Parts<TokioIo<S>>,
    purpose: Purpose,
    negotiated: Negotiated,
    visitor: Visitor,
    place: Place,
    services: &Arc<Services>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Even when it is empty, what hyper read shares the whole of its buffer.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    let socket = parts.io.into_inner();
    let services = services.clone();
    match purpose {
        Purpose::Session => {
            let encoding = negotiated.encoding();
            let connection = Connection::open(socket, early, encoding, visitor, place, services.clone());
            services.spawn_guarded(connection.run());
        }
        Purpose::Echo => {
            services.spawn_guarded(Echo::open(socket, early, place, services.clone()).run());
        }
    }
}

fn examine(request: &Request<Incoming>, services: &Services) -> Result<Accepted, Refused> {
    let headers = request.headers();
    let bad = |explanation: &'static str| Refused {
        status: StatusCode::BAD_REQUEST,
        reason: Refusal::BadRequest,
        explanation: explanation.into(),
    };
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(bad("a WebSocket handshake is a GET request of HTTP/1.1\n"));
    }
    if !lists_token(headers, &header::CONNECTION, "upgrade")
        || !lists_token(headers, &header::UPGRADE, "websocket")
    {
        return Err(bad("this path speaks WebSocket: send Connection: Upgrade and Upgrade: websocket\n"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refused {
            status: StatusCode::UPGRADE_REQUIRED,
            reason: Refusal::BadVersion,
            explanation: "Sec-WebSocket-Version must be 13\n".into(),
        });
    }
    let key =
        headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).filter(|key| is_key(key));
    let key = key.ok_or_else(|| bad("Sec-WebSocket-Key must be 16 bytes in base64\n"))?.to_owned();
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.ok_or_else(|| bad("a request of HTTP/1.1 names its Host\n"))?;
    let settings = services.settings();
    if !settings.origins.allow(origin, host) {
        return Err(Refused {
            status: StatusCode::FORBIDDEN,
            reason: Refusal::ForbiddenOrigin,
            explanation: "pages of this origin may not connect: see origin.allow\n".into(),
        });
    }
    let negotiated = negotiate(offered(headers));
    if settings.websocket.strict_subprotocol && negotiated == (Negotiated::Default { offered_unknown: true })
    {
        return Err(bad("none of the subprotocols offered is spoken here: offer fanfare.v1.json, or none\n"));
    }
    if services.readiness.is_draining() {
        return Err(unavailable(Refusal::Draining, "this node is shutting down: connect again\n"));
    }
    let place = services.admission.connection(settings.connections_max);
    let place =
        place.ok_or_else(|| unavailable(Refusal::AtCapacity, "this node is full: connect again later\n"))?;
    // Last, since it is what costs most.
    let visitor = settings.auth.visitor(headers, request.uri().query(), services).map_err(unwelcome)?;
    Ok(Accepted { key, negotiated, visitor, place })
}

fn unwelcome(why: Unwelcome) -> Refused {
    let (status, reason) = match why {
        Unwelcome::Token(_) => (StatusCode::UNAUTHORIZED, Refusal::Unauthorized),
        Unwelcome::NotYet => (StatusCode::SERVICE_UNAVAILABLE, Refusal::NotReady),
        Unwelcome::CookieWithoutOrigin => (StatusCode::FORBIDDEN, Refusal::ForbiddenOrigin),
    };
    Refused { status, reason, explanation: format!("{why}\n").into() }
}

fn unavailable(reason: Refusal, explanation: &'static str) -> Refused {
    Refused { status: StatusCode::SERVICE_UNAVAILABLE, reason, explanation: explanation.into() }
}

fn refusal(refused: Refused) -> Answer {
    let mut answer = text(refused.status, refused.explanation);
    let headers = answer.headers_mut();
    match refused.status {
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        StatusCode::UNAUTHORIZED => {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        _ => {}
    }
    answer
}

fn switching_protocols(key: &str, negotiated: Negotiated) -> Answer {
    let mut answer = with_type(StatusCode::SWITCHING_PROTOCOLS, "", Bytes::new());
    let headers = answer.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = derive_accept_key(key.as_bytes());
    headers.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        HeaderValue::try_from(accept).expect("base64 is a header value"),
    );
    if let Negotiated::Chosen(encoding) = negotiated {
        let name = HeaderValue::from_static(encoding.subprotocol());
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    answer
}

/// Whether one of the comma-separated tokens of a header, in however many lines, is `token` (RFC 9110 section 5.6.1).
fn lists_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|listed| listed.eq_ignore_ascii_case(token))
}

/// The subprotocols that the client offers, in its order of preference. What is a token in disguise is none.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).filter(|name| !is_bearer(name))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Sixteen bytes in base64 are 22 digits and two signs of padding (RFC 6455 section 4.1).
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    digits.len() == 22
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
