//! The opening handshake of RFC 6455, section 4.2, and what comes before it: may this client connect at all?
//!
//! Over HTTP/2 it is an extended CONNECT (RFC 8441): without `Upgrade`, without a key, answered by 200; the rest is the same.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use bytes::Bytes;
use fanfare_metrics::{HttpVersion, Refusal};
use fanfare_protocol::dialect::{Negotiated, Offer};
use fanfare_protocol::grant::Visitor;
use fanfare_protocol::websocket::{Agreement, Malformed, agree};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::debug;
use tungstenite::handshake::derive_accept_key;

use super::{Answer, Peer, host, seconds, text, with_type};
use crate::admission::NoRoom;
use crate::auth::{Unwelcome, is_bearer};
use crate::connection::{Connection, Guest, Membership, new_session_id};
use crate::node::Services;
use crate::transport::echo::Echo;
use crate::transport::http2::Http2Stream;
use crate::transport::websocket::Agreed;
use crate::transport::{ByteStream, Reread, Tcp};

/// What a WebSocket is opened for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A conversation in a dialect.
    Session(&'static Offer),
    /// Hearing oneself: [`Echo`].
    Echo,
}

/// Why a handshake was refused.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    reason: Refusal,
    explanation: Cow<'static, str>,
    /// When it may be otherwise.
    retry_after: Option<Duration>,
}

/// How WebSocket was asked for.
#[derive(Debug)]
enum Asked {
    /// By an upgrade of HTTP/1.1, with a key to answer.
    ToUpgrade { key: String },
    /// By an extended CONNECT of HTTP/2.
    ToConnect,
}

/// A handshake that may go on.
#[derive(Debug)]
struct Accepted {
    asked: Asked,
    negotiated: Negotiated,
    compression: Option<Agreement>,
    guest: Guest,
}

/// Answers an upgrade request; when it is accepted the connection starts once the answer has left.
pub(super) fn upgrade(
    peer: &Peer,
    mut request: Request<Incoming>,
    purpose: Purpose,
    membership: Membership,
    services: &Arc<Services>,
) -> Answer {
    let offer = match purpose {
        Purpose::Session(offer) => offer,
        Purpose::Echo => &Offer::NATIVE,
    };
    let accepted = match examine(peer, &request, offer, membership, services) {
        Ok(accepted) => accepted,
        Err(refused) => {
            services.metrics.handshake_refused(refused.reason);
            return refusal(refused);
        }
    };
    let Accepted { asked, negotiated, compression, guest } = accepted;
    let agreed = Agreed { encoding: negotiated.encoding(), compression };
    services.metrics.websocket_accepted(match asked {
        Asked::ToUpgrade { .. } => HttpVersion::Http1,
        Asked::ToConnect => HttpVersion::Http2,
    });
    let upgraded = hyper::upgrade::on(&mut request);
    let theirs = services.clone();
    services.tasks.spawn(async move {
        match upgraded.await {
            Ok(upgraded) => start(upgraded, purpose, agreed, guest, &theirs),
            Err(error) => debug!(%error, "the peer left during the handshake"),
        }
    });
    match asked {
        Asked::ToUpgrade { key } => switching_protocols(&key, negotiated, compression),
        Asked::ToConnect => connected(negotiated, compression),
    }
}

/// Takes the stream back out of the HTTP machinery and lets the connection live in a small task of its own, so that
/// nothing of the handshake stays in memory.
fn start(upgraded: Upgraded, purpose: Purpose, agreed: Agreed, guest: Guest, services: &Arc<Services>) {
    let upgraded = match upgraded.downcast::<TokioIo<Reread<TcpStream>>>() {
        Ok(Parts { io, read_buf, .. }) => {
            let (socket, unread) = io.into_inner().into_parts();
            // Even when it is empty, what hyper read shares the whole of its buffer.
            let early = [read_buf, unread].concat().into();
            return open(Tcp::new(socket), early, purpose, agreed, guest, services);
        }
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(Parts { io, read_buf, .. }) => {
            let early = Bytes::copy_from_slice(&read_buf);
            open(io.into_inner(), early, purpose, agreed, guest, services);
        }
        // What has no socket of its own is a stream of HTTP/2.
        Err(upgraded) => open(Http2Stream::new(upgraded), Bytes::new(), purpose, agreed, guest, services),
    }
}

fn open<S>(stream: S, early: Bytes, purpose: Purpose, agreed: Agreed, guest: Guest, services: &Arc<Services>)
where
    S: ByteStream + 'static,
{
    let services = services.clone();
    match purpose {
        Purpose::Session(_) => {
            let connection = Connection::open(stream, early, agreed, guest, services.clone());
            services.spawn_guarded(connection.run());
        }
        Purpose::Echo => {
            services.spawn_guarded(Echo::open(stream, early, agreed, guest.place, services.clone()).run());
        }
    }
}

fn examine(
    peer: &Peer,
    request: &Request<Incoming>,
    offer: &Offer,
    membership: Membership,
    services: &Services,
) -> Result<Accepted, Refused> {
    let headers = request.headers();
    let is_http2 = request.version() == Version::HTTP_2;
    if is_http2 {
        is_connect(request)?;
    } else {
        is_upgrade(request)?;
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refused {
            status: StatusCode::UPGRADE_REQUIRED,
            reason: Refusal::BadVersion,
            explanation: "Sec-WebSocket-Version must be 13\n".into(),
            retry_after: None,
        });
    }
    let asked = if is_http2 { Asked::ToConnect } else { Asked::ToUpgrade { key: key(headers)? } };
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
    let host = host::of(request).unwrap_or_default();
    let settings = services.settings();
    let is_allowed = match membership {
        Membership::Operating(_) => host::is_of_no_other_page(request),
        _ => settings.origins.allow(origin, host),
    };
    if !is_allowed {
        return Err(Refused {
            status: StatusCode::FORBIDDEN,
            reason: Refusal::ForbiddenOrigin,
            explanation: "pages of this origin may not connect: see origin.allow\n".into(),
            retry_after: None,
        });
    }
    let negotiated = offer.negotiate(offered(headers), request.uri().query());
    if settings.websocket.strict_subprotocol
        && let Negotiated::Default { offered_unknown: true, .. } = negotiated
    {
        let name = offer.default.subprotocol();
        let text = format!("none of the subprotocols offered is spoken here: offer {name}, or none\n");
        return Err(Refused { explanation: text.into(), ..bad("") });
    }
    let compression = agree(lines(headers, &header::SEC_WEBSOCKET_EXTENSIONS), settings.compression.as_ref())
        .map_err(|Malformed| bad("Sec-WebSocket-Extensions is no list of extensions and parameters\n"))?;
    let mut place = peer.enter(headers, services).map_err(full)?;
    // Last, since it is what costs most.
    let visitor = match &membership {
        Membership::Common => {
            let visitor =
                settings.auth.visitor(headers, request.uri().query(), services).map_err(unwelcome)?;
            settings.hooks.presume(visitor, settings.auth.takes_tokens())
        }
        Membership::Operating(grant) => Visitor::Known(grant.clone()),
        // Who it is only its application knows.
        Membership::Of(_) => Visitor::Anonymous,
        // So it is not greeted.
        Membership::Refused(_) => Visitor::Unknown,
    };
    services.belong(&mut place, &visitor).map_err(full)?;
    let caller = settings.hooks.caller(|| peer.client_again(headers, services), "websocket", headers);
    let address = peer.client_again(headers, services);
    let guest = Guest { visitor, place, session: new_session_id(), address, caller, membership };
    Ok(Accepted { asked, negotiated, compression, guest })
}

fn unwelcome(why: Unwelcome) -> Refused {
    let (status, reason) = match why {
        Unwelcome::Token(_) => (StatusCode::UNAUTHORIZED, Refusal::Unauthorized),
        Unwelcome::NotYet | Unwelcome::KeysAway(_) => (StatusCode::SERVICE_UNAVAILABLE, Refusal::NotReady),
        Unwelcome::CookieWithoutOrigin => (StatusCode::FORBIDDEN, Refusal::ForbiddenOrigin),
    };
    Refused { status, reason, explanation: format!("{why}\n").into(), retry_after: why.retry_after() }
}

fn full(why: NoRoom) -> Refused {
    Refused {
        status: why.status(),
        reason: why.refusal(),
        explanation: format!("{}\n", why.explanation()).into(),
        retry_after: Some(why.retry_after()),
    }
}

/// An upgrade of HTTP/1.1, as RFC 6455 has it.
fn is_upgrade(request: &Request<Incoming>) -> Result<(), Refused> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(bad("a WebSocket handshake is a GET request of HTTP/1.1\n"));
    }
    let headers = request.headers();
    if !lists_token(headers, &header::CONNECTION, "upgrade")
        || !lists_token(headers, &header::UPGRADE, "websocket")
    {
        return Err(bad("this path speaks WebSocket: send Connection: Upgrade and Upgrade: websocket\n"));
    }
    Ok(())
}

/// An extended CONNECT of HTTP/2, as RFC 8441 has it.
fn is_connect(request: &Request<Incoming>) -> Result<(), Refused> {
    let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
    if request.method() != Method::CONNECT || protocol != Some("websocket") {
        return Err(bad("this path speaks WebSocket: send CONNECT with :protocol websocket\n"));
    }
    Ok(())
}

fn bad(explanation: &'static str) -> Refused {
    let (status, reason) = (StatusCode::BAD_REQUEST, Refusal::BadRequest);
    Refused { status, reason, explanation: explanation.into(), retry_after: None }
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
        _ => {}
    }
    if let Some(wait) = refused.retry_after {
        headers.insert(header::RETRY_AFTER, seconds(wait));
    }
    answer
}

fn switching_protocols(key: &str, negotiated: Negotiated, compression: Option<Agreement>) -> Answer {
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
    name_agreed(&mut answer, negotiated, compression);
    answer
}

/// The answer to an extended CONNECT: there is no key to prove anything with, since HTTP/2 has framed the request.
fn connected(negotiated: Negotiated, compression: Option<Agreement>) -> Answer {
    let mut answer = with_type(StatusCode::OK, "", Bytes::new());
    answer.headers_mut().clear();
    name_agreed(&mut answer, negotiated, compression);
    answer
}

/// The subprotocol and the extension.
fn name_agreed(answer: &mut Answer, negotiated: Negotiated, compression: Option<Agreement>) {
    if let Negotiated::Chosen(encoding) = negotiated {
        let name = HeaderValue::from_static(encoding.subprotocol());
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    if let Some(agreement) = compression {
        let terms = HeaderValue::try_from(agreement.answer()).expect("tokens are a header value");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, terms);
    }
}

/// Whether one of the comma-separated tokens of a header, in however many lines, is `token` (RFC 9110 section 5.6.1).
fn lists_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|listed| listed.eq_ignore_ascii_case(token))
}

/// The subprotocols that the client offers, in its order of preference. What is a token in disguise is none.
pub(super) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).filter(|name| !is_bearer(name))
}

pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    lines(headers, name).flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok())
}

/// The key that the answer has to prove it has seen.
fn key(headers: &HeaderMap) -> Result<String, Refused> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let key = key.filter(|key| is_key(key));
    key.map(str::to_owned).ok_or_else(|| bad("Sec-WebSocket-Key must be 16 bytes in base64\n"))
}

/// Sixteen bytes in base64 are 22 digits and two signs of padding (RFC 6455 section 4.1).
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    digits.len() == 22
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
