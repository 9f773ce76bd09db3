//! The routing tables of both listeners: path → transport and dialect, or server API, or admin.
//!
//! The public listener serves clients and nothing that could hurt them; what operators and backends need is on the
//! internal one, and there is no path from the first to the second.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use bytes::Bytes;
use fanfare_metrics::Refusal;
use fanfare_protocol::dialect::{Offer, native};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::limits::Limits;
use fanfare_protocol::session::{Rate, Verdict};
use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;

use crate::admission::{Drawn, NoRoom, Place};
use crate::connection::{Membership, Streaming, Talking};
use crate::node::Services;
use crate::proxy::Unreadable;
use crate::trace::Tail;
use crate::transport::lines::Form;
use crate::{admin, api};

mod centrifugo;
mod cors;
mod handshake;
pub(crate) mod host;
pub(crate) mod operators;
mod publish;
mod pusher;
mod query;
mod streams;

pub(crate) use centrifugo::{names, offer};
use handshake::Purpose;
pub(crate) use publish::{say, taken};
pub(crate) use pusher::{counting, destinations, is_counted, realms};
pub(crate) use query::pairs as parameters;
pub(crate) use streams::head as stream_head;

/// What every route answers with.
pub(crate) type Answer = Response<Body>;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// Small, and known from the start.
    Whole(Full<Bytes>),
    /// A connection, as long as it lives.
    Stream(Box<Streaming>),
    /// One whose client also speaks.
    Talk(Box<Talking>),
    /// What is seen of what is looked at.
    Trace(Box<Tail>),
}

impl From<Bytes> for Body {
    fn from(whole: Bytes) -> Self {
        Self::Whole(Full::new(whole))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Talk(body) => Pin::new(body).poll_frame(cx),
            Self::Trace(body) => body.poll_frame(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(_) | Self::Talk(_) | Self::Trace(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(_) | Self::Talk(_) | Self::Trace(_) => SizeHint::default(),
        }
    }
}

/// Who is at the other end of a socket.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// What the first connection of the socket has drawn already.
    drawn: Mutex<Option<Drawn>>,
    /// What it has asked for of late, where that counts as a command.
    rate: Mutex<Rate>,
}

impl Peer {
    pub(crate) fn new(address: IpAddr, drawn: Option<Drawn>, services: &Services) -> Self {
        let rate = Mutex::new(Rate::new(services.clock.moment()));
        Self { address, drawn: Mutex::new(drawn), rate }
    }

    /// Whose a request is, as far as trusted proxies say.
    fn client(&self, headers: &HeaderMap, services: &Services) -> IpAddr {
        self.said(headers, services).unwrap_or_else(|Unreadable| {
            services.metrics.forwarded_malformed();
            self.address
        })
    }

    /// The same for a request that has been counted.
    fn client_again(&self, headers: &HeaderMap, services: &Services) -> IpAddr {
        self.said(headers, services).unwrap_or(self.address)
    }

    fn said(&self, headers: &HeaderMap, services: &Services) -> Result<IpAddr, Unreadable> {
        services.settings().proxies.client(self.address, headers)
    }

    /// A place for a connection that is asked for by a request.
    fn enter(&self, headers: &HeaderMap, services: &Services) -> Result<Place, NoRoom> {
        let Services { admission, metrics, clock, readiness, .. } = services;
        if readiness.is_draining() {
            return Err(NoRoom::Draining);
        }
        let client = self.client(headers, services);
        let settings = services.settings();
        let drawn = self.drawn.lock().take();
        let drawn =
            drawn.unwrap_or_else(|| admission.draw(client, &settings.limits, metrics, clock.moment()));
        match drawn {
            Drawn::Welcome => admission.connection(client, &settings.limits, metrics),
            Drawn::Told(why) | Drawn::Untold(why) => Err(why),
        }
    }

    /// Counts a request as a command. A socket may bring as many as a connection may send.
    fn within_rate(&self, limits: &Limits, services: &Services) -> Result<(), Failure> {
        count_command(&self.rate, limits, services)
    }
}

fn count_command(rate: &Mutex<Rate>, limits: &Limits, services: &Services) -> Result<(), Failure> {
    let text = || format!("at most {} requests a second", limits.messages_per_second);
    match rate.lock().take(limits, services.clock.moment()) {
        Verdict::Allowed => Ok(()),
        Verdict::Refused { retry_after } => Err(Failure::retry(ErrorCode::RateLimited, text(), retry_after)),
        Verdict::GraceIsOver => Err(Failure::new(ErrorCode::RateLimited, text())),
    }
}

/// Which of the node's two listeners a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// For clients.
    Public,
    /// For metrics and the server API.
    Internal,
}

/// Answers one request.
pub(crate) async fn answer(
    door: Door,
    peer: &Peer,
    request: Request<Incoming>,
    services: &Arc<Services>,
) -> Answer {
    if let Err(why) = host::check(&request) {
        return unclear(door, why, &request, services);
    }
    let path = request.uri().path();
    if door == Door::Public {
        services.settings().auth.prepare_request(&request).await;
    }
    match (door, path) {
        (Door::Public, "/ws") => {
            handshake::upgrade(peer, request, Purpose::Session(&Offer::NATIVE), Membership::Common, services)
        }
        (Door::Public, _) if centrifugo::serves(path, services) => {
            centrifugo::answer(peer, request, services).await
        }
        (Door::Public, "/echo") if services.echo => {
            handshake::upgrade(peer, request, Purpose::Echo, Membership::Common, services)
        }
        (Door::Public, _) if path.starts_with("/app/") => pusher::upgrade(peer, request, services),
        (Door::Public, "/sse") => streams::answer(Form::Events, peer, request, services).await,
        (Door::Public, "/stream") => streams::answer(Form::Lines, peer, request, services).await,
        (Door::Public, "/poll") => streams::answer(Form::Answer, peer, request, services).await,
        (Door::Public, "/publish") => publish::answer(peer, request, services).await,
        (Door::Internal, _) if path.starts_with("/api/") => {
            api::answer(peer.address, request, services).await
        }
        (Door::Internal, _) if path.starts_with("/apps/") => pusher::answer(request, services).await,
        (Door::Internal, "/ws") => operators::upgrade(peer, request, services),
        (Door::Internal, "/metrics") => only_get(request.method(), || admin::metrics(services)),
        (_, "/health") => only_get(request.method(), admin::health),
        (_, "/ready") => only_get(request.method(), || admin::ready(services)),
        (_, "/status") => only_get(request.method(), || admin::status(&request, services)),
        (Door::Public, "/console") => only_get(request.method(), || operators::lead(&request, services)),
        _ => match admin::page(door, path, services) {
            Some(asset) => only_get(request.method(), || admin::serve(&asset, request.headers())),
            None => not_found(path),
        },
    }
}

/// The answer to a request of which it is not clear for whom it is. Nothing else that comes on its socket is believed.
fn unclear(door: Door, why: &'static str, request: &Request<Incoming>, services: &Services) -> Answer {
    if door == Door::Public {
        services.metrics.handshake_refused(Refusal::BadRequest);
    }
    let mut answer = failure(&Failure::new(ErrorCode::BadRequest, why));
    if request.version() != Version::HTTP_2 {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

pub(crate) fn only_get(method: &Method, answer: impl FnOnce() -> Answer) -> Answer {
    if matches!(*method, Method::GET | Method::HEAD) {
        return answer();
    }
    use_instead("GET, HEAD")
}

/// The answer to a method that the path does not have.
pub(crate) fn use_instead(methods: &'static str) -> Answer {
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "this method is not served here: see Allow\n");
    refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    refused
}

pub(crate) fn not_found(path: &str) -> Answer {
    let shown: String = path.chars().take(64).collect();
    failure(&Failure::new(ErrorCode::NotFound, format!("nothing is served at {shown:?}")))
}

/// The error object, under the HTTP status that means the same.
pub(crate) fn failure(failure: &Failure) -> Answer {
    let status = StatusCode::from_u16(failure.code.http_status()).expect("the table holds HTTP statuses");
    let mut answer = json(status, native::api::encode_failure(failure));
    let headers = answer.headers_mut();
    if let Some(after) = failure.retry_after {
        headers.insert(header::RETRY_AFTER, seconds(after));
    }
    if failure.code.http_status() == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// A time as `Retry-After` spells it: whole seconds, never none.
fn seconds(after: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
}

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    with_type(status, "application/json", Bytes::from(body))
}

/// A line for people.
pub(crate) fn text(status: StatusCode, body: impl Into<Cow<'static, str>>) -> Answer {
    let body = match body.into() {
        Cow::Borrowed(body) => Bytes::from_static(body.as_bytes()),
        Cow::Owned(body) => body.into(),
    };
    with_type(status, "text/plain; charset=utf-8", body)
}

/// Any body; never cached, since everything here speaks of now.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // There is what clients have said in it, and it is what its type says and nothing else.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
