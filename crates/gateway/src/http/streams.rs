//! `/sse`, `/stream` and `/poll`: hearing channels without a WebSocket.
//!
//! What is wrong with a request is said by the status and an error object, before anything else is; so is why no channel
//! let the client in. Afterwards all there is to say is said in events, as on a WebSocket.

use std::sync::Arc;

use ::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use fanfare_metrics::Refusal;
use fanfare_protocol::error::{ErrorCode, Failure};

use super::cors::{Page, sender};
use super::{Answer, Body, Peer, failure, json, query, use_instead, with_type};
use crate::admission::NoRoom;
use crate::connection::{Guest, Membership, Streaming, new_session_id};
use crate::node::Services;
use crate::transport::lines::Form;

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Answers a request for a stream of this form.
pub(super) async fn answer<B>(
    form: Form,
    peer: &Peer,
    request: Request<B>,
    services: &Arc<Services>,
) -> Answer {
    let page = match Page::of(&request, services) {
        Ok(page) => page,
        Err(refusal) => return Page::turned_away(&refusal),
    };
    match *request.method() {
        Method::GET => {}
        Method::HEAD => return page.answered(head(form)),
        Method::OPTIONS => return page.preflight(METHODS),
        _ => return page.answered(use_instead(METHODS)),
    }
    page.answered(open(form, peer, &request, services).await.unwrap_or_else(|refusal| failure(&refusal)))
}

async fn open<B>(
    form: Form,
    peer: &Peer,
    request: &Request<B>,
    services: &Arc<Services>,
) -> Result<Answer, Failure> {
    let policy = services.settings().policy.clone();
    let asked = query::read(request.uri(), request.headers(), policy.limits.channels);
    let asked = asked.inspect_err(|_| services.metrics.handshake_refused(Refusal::BadRequest))?;
    peer.within_rate(&policy.limits, services)?;
    let refused = |why: NoRoom| {
        services.metrics.handshake_refused(why.refusal());
        why.failure()
    };
    let mut place = peer.enter(request.headers(), services).map_err(refused)?;
    // Last, since it is what costs most.
    let (session, transport) = (new_session_id(), name(form));
    let sender = sender(peer, request, session, transport, services).await;
    let (visitor, caller) = sender.inspect_err(|why| services.metrics.handshake_refused(label(why)))?;
    services.belong(&mut place, &visitor).map_err(refused)?;
    let membership = Membership::Common;
    let address = peer.client_again(request.headers(), services);
    let guest = Guest { visitor, place, session, address, caller, membership };
    let mut streaming = Streaming::open(form, asked.listening, guest, services);
    streaming.opened().await?;
    if form == Form::Answer {
        // A connection that says nothing for longer than a heartbeat looks dead to what is in between.
        let hold = asked.wait.map_or(policy.heartbeat.interval, |wait| wait.min(policy.heartbeat.interval));
        return Ok(json(StatusCode::OK, streaming.answer(hold).await));
    }
    let mut answer = head(form);
    *answer.body_mut() = Body::Stream(Box::new(streaming));
    Ok(answer)
}

/// What a backend is told of how the client is connected.
fn name(form: Form) -> &'static str {
    match form {
        Form::Events => "sse",
        Form::Lines | Form::Bare => "stream",
        Form::Answer => "poll",
    }
}

pub(super) fn label(why: &Failure) -> Refusal {
    match why.code {
        ErrorCode::Unavailable => Refusal::NotReady,
        _ => Refusal::Unauthorized,
    }
}

/// The answer to a request for a stream, without the stream.
pub(crate) fn head(form: Form) -> Answer {
    let content_type = match form {
        Form::Events => "text/event-stream",
        Form::Lines => "application/x-ndjson",
        Form::Answer => "application/json",
        Form::Bare => "application/octet-stream",
    };
    let mut answer = with_type(StatusCode::OK, content_type, Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // What nginx and those who follow it take for "hand on each byte as it comes".
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}
