//! What is Centrifugo's of the routes for clients: `/connection/…` by whatever transport, and `/emulation`, by which those speak
//! whose transport goes one way.

use std::sync::Arc;

use ::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use fanfare_metrics::Refusal;
use fanfare_protocol::Ticket;
use fanfare_protocol::dialect::centrifugo::{self, emulation};
use fanfare_protocol::dialect::{Encoding, Offer};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::rules::NameRules;
use hyper::body::Incoming;

use super::cors::{Page, claimed};
use super::handshake::{self, Purpose};
use super::{Answer, Body, Peer, failure, publish, query, streams, use_instead, with_type};
use crate::admission::NoRoom;
use crate::config::Config;
use crate::connection::{Guest, Membership, Talking, new_session_id};
use crate::node::Services;
use crate::transport::lines::Form;
use crate::transport::posted::Message;
use crate::{api, errands};

const WEBSOCKET: &str = "/connection/websocket";
const EVENTS: &str = "/connection/sse";
const LINES: &str = "/connection/http_stream";
const EMULATION: &str = "/emulation";

/// Where a client of Server-Sent Events, which cannot send a body, says what it says first.
const OPENING: &str = "cf_connect";

/// What a string of JSON may add to what it says, and what is said around it.
const ENVELOPE_BYTES: usize = 1024;

/// What clients are offered, where they are served.
pub(crate) fn offer(config: &Config) -> Option<&'static Offer> {
    config.centrifugo.enabled.then_some(&centrifugo::OFFER)
}

/// What the names of channels say then.
pub(crate) fn names(config: &Config) -> Option<NameRules> {
    config.centrifugo.enabled.then_some(NameRules::DOLLAR_AND_HASH)
}

/// Whether a path is one of these, and these are served.
pub(super) fn serves(path: &str, services: &Services) -> bool {
    matches!(path, WEBSOCKET | EVENTS | LINES | EMULATION) && services.settings().offer.is_some()
}

/// Answers a request for one of the paths.
pub(super) async fn answer(peer: &Peer, request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    let Some(offer) = services.settings().offer else {
        return super::not_found(request.uri().path());
    };
    if request.uri().path() == WEBSOCKET {
        return handshake::upgrade(peer, request, Purpose::Session(offer), Membership::Common, services);
    }
    let page = match Page::of(&request, services) {
        Ok(page) => page,
        Err(refusal) => return Page::turned_away(&refusal),
    };
    let is_events = request.uri().path() == EVENTS;
    let (method, methods) =
        if is_events { (Method::GET, "GET, OPTIONS") } else { (Method::POST, "POST, OPTIONS") };
    if request.method() == Method::OPTIONS {
        return page.preflight(methods);
    }
    if request.method() != method {
        return page.answered(use_instead(methods));
    }
    let answer = match request.uri().path() {
        EMULATION => speak(peer, request, services).await,
        _ if is_events => match opening(&request) {
            Ok(first) => listen(Form::Events, offer.default, first, peer, &request, services),
            Err(refusal) => Err(refusal),
        },
        _ => stream(offer, peer, request, services).await,
    };
    page.answered(answer.unwrap_or_else(|refusal| failure(&refusal)))
}

/// What a client of Server-Sent Events says first.
fn opening<B>(request: &Request<B>) -> Result<Message, Failure> {
    let first = query::value(request.uri(), OPENING).flatten();
    let text = || format!("`{OPENING}` is missing: it has to be the command `connect`, in percent encoding");
    let first = first.ok_or_else(|| Failure::new(ErrorCode::BadRequest, text()))?;
    Ok(Message::Text(first.into_owned()))
}

/// A stream of lines, or of bare messages, whose request says by its body what its client says first.
async fn stream(
    offer: &Offer,
    peer: &Peer,
    request: Request<Incoming>,
    services: &Arc<Services>,
) -> Result<Answer, Failure> {
    let settings = services.settings();
    let limits = &settings.policy.limits;
    let (parts, body) = request.into_parts();
    let first = api::read(body, limits.message_bytes, settings.header_timeout).await?;
    let request = Request::from_parts(parts, ());
    let asked = request.uri().query().and_then(offer.by_query);
    let is_binary = is_binary(request.headers()) || asked.is_some();
    let (form, encoding) =
        if is_binary { (Form::Bare, Encoding::CentrifugoProtobuf) } else { (Form::Lines, offer.default) };
    listen(form, encoding, message(first, is_binary)?, peer, &request, services)
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/octet-stream"))
}

fn message(body: Bytes, is_binary: bool) -> Result<Message, Failure> {
    if is_binary {
        return Ok(Message::Binary(body.into()));
    }
    let text = String::from_utf8(body.into());
    text.map(Message::Text).map_err(|_| Failure::new(ErrorCode::BadRequest, "the body is not UTF-8"))
}

/// Begins a conversation whose answers are the body of the answer.
fn listen<B>(
    form: Form,
    encoding: Encoding,
    first: Message,
    peer: &Peer,
    request: &Request<B>,
    services: &Arc<Services>,
) -> Result<Answer, Failure> {
    let settings = services.settings();
    peer.within_rate(&settings.policy.limits, services)?;
    let refused = |why: NoRoom| {
        services.metrics.handshake_refused(why.refusal());
        why.failure()
    };
    let headers = request.headers();
    let mut place = peer.enter(headers, services).map_err(refused)?;
    let visitor = claimed(request, &settings, services);
    let visitor = visitor.inspect_err(|why| services.metrics.handshake_refused(streams::label(why)))?;
    services.belong(&mut place, &visitor).map_err(refused)?;
    let transport = if form == Form::Events { "sse" } else { "http_stream" };
    let caller = settings.hooks.caller(|| peer.client_again(headers, services), transport, headers);
    let session = new_session_id();
    let address = peer.client_again(headers, services);
    let membership = Membership::Common;
    let guest = Guest { visitor, place, session, address, caller, membership };
    let mut answer = streams::head(form);
    *answer.body_mut() = Body::Talk(Box::new(Talking::open(form, encoding, first, guest, services)));
    Ok(answer)
}

/// Hands what was posted to the conversation that it is for, on whichever node that is held.
async fn speak(peer: &Peer, request: Request<Incoming>, services: &Arc<Services>) -> Result<Answer, Failure> {
    let settings = services.settings();
    let limits = &settings.policy.limits;
    let is_binary = is_binary(request.headers());
    let client = peer.client(request.headers(), services);
    // Quotes take two characters within a string.
    let most = limits.message_bytes.saturating_mul(2).saturating_add(ENVELOPE_BYTES);
    let body = api::read(request.into_body(), most, settings.header_timeout).await?;
    let (ticket, message) =
        posted(&body, is_binary).inspect_err(|_| services.metrics.handshake_refused(Refusal::BadRequest))?;
    if message.len() > limits.message_bytes {
        let text = format!("`data` is over {} bytes: see limits.message_bytes", limits.message_bytes);
        return Err(Failure::new(ErrorCode::TooLarge, text));
    }
    if *ticket.node() == *settings.policy.node {
        let taken = services.talks.post(&ticket, message);
        // What is said costs the session's rate; where there is none, that of whoever tries.
        taken.or_else(|refusal| match refusal.code {
            ErrorCode::NotFound => peer.within_rate(limits, services).and(Err(refusal)),
            _ => Err(refusal),
        })?;
    } else {
        peer.within_rate(limits, services)?;
        let event = errands::post(services, &ticket, client, message).await?;
        publish::refusal(event.get()).map_or(Ok(()), Err)?;
    }
    let mut answer = with_type(StatusCode::NO_CONTENT, "", Bytes::new());
    answer.headers_mut().remove(header::CONTENT_TYPE);
    Ok(answer)
}

fn posted(body: &[u8], is_binary: bool) -> Result<(Ticket, Message), Failure> {
    let read = if is_binary {
        emulation::from_protobuf(body).map(|(ticket, bytes)| (ticket, Message::Binary(bytes.to_vec())))
    } else {
        emulation::from_json(body).map(|(ticket, text)| (ticket, Message::Text(text)))
    };
    read.map_err(|why| Failure::new(ErrorCode::BadRequest, why))
}
