//! `POST /publish`: what a client that hears by a one-way transport says.
//!
//! The body is the native `publish`, and the answer what a WebSocket would hear: a session that lives for one command
//! judges it. Its client is who the token of the request says, which stands where that of a handshake may.

use std::net::IpAddr;
use std::sync::Arc;

use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use fanfare_metrics::Command as Kind;
use fanfare_protocol::command::{Decoded, Rejection, Request as Wish};
use fanfare_protocol::depth;
use fanfare_protocol::dialect::{Encoding, native};
use fanfare_protocol::error::Failure;
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::grant::Visitor;
use fanfare_protocol::limits::Bound;
use fanfare_protocol::session::{Effect, Input, Policy, Session};
use fanfare_protocol::{Channel, RequestId, UserId};
use hyper::body::Incoming;

use super::cors::{Page, sender};
use super::{Answer, Body, Peer, failure, json, use_instead};
use crate::api;
use crate::connection::{broker_failure, exceeded, new_session_id};
use crate::node::Services;

const METHODS: &str = "POST, OPTIONS";

/// Answers one publication.
pub(super) async fn answer(peer: &Peer, request: Request<Incoming>, services: &Arc<Services>) -> Answer {
    let page = match Page::of(&request, services) {
        Ok(page) => page,
        Err(refusal) => return Page::turned_away(&refusal),
    };
    match *request.method() {
        Method::POST => {}
        Method::OPTIONS => return page.preflight(METHODS),
        _ => return page.answered(use_instead(METHODS)),
    }
    let client = peer.client(request.headers(), services);
    let reply = match read(peer, request, services).await {
        Ok((visitor, body)) => perform(decode(&body, services), client, visitor, services).await,
        Err(failure) => Reply::unasked(Event::Refused { failure, channel: None }),
    };
    if let Event::Refused { failure, .. } = &reply.event {
        services.metrics.command_refused(failure.code.number());
    }
    page.answered(spell(&reply))
}

/// The body of a command that the rate allows, and who sends it.
async fn read(
    peer: &Peer,
    request: Request<Incoming>,
    services: &Services,
) -> Result<(Visitor, Bytes), Failure> {
    let settings = services.settings();
    let limits = &settings.policy.limits;
    peer.within_rate(limits, services)?;
    let visitor = sender(&request, services)?;
    let body = api::read(request.into_body(), limits.message_bytes, settings.header_timeout).await?;
    Ok((visitor, body))
}

/// The command in a body, judged by its depth before it is parsed.
fn decode(body: &[u8], services: &Services) -> Decoded {
    let limits = &services.settings().policy.limits;
    if depth::json_exceeds(body, limits.depth) {
        exceeded(&services.metrics, limits, Bound::Depth);
        if !limits.trial.covers(Bound::Depth) {
            return Err(Rejection::too_deep(limits.depth));
        }
    }
    native::api::decode_publish(body)
}

async fn perform(decoded: Decoded, client: IpAddr, visitor: Visitor, services: &Services) -> Reply {
    let wish = match decoded {
        Ok(wish) => wish,
        Err(rejection) => {
            services.metrics.command_received(Kind::Unknown);
            let event = Event::Refused { failure: rejection.failure, channel: rejection.channel };
            return Reply { id: rejection.id, event };
        }
    };
    services.metrics.command_received(Kind::Publish);
    let (now, mut effects) = (services.clock.now(), Vec::new());
    let policy = services.settings().policy.clone();
    let user = match &visitor {
        Visitor::Known(grant) => grant.user.clone(),
        Visitor::Anonymous | Visitor::Unknown => None,
    };
    let mut session = Session::open_one_way(new_session_id(), policy.clone(), visitor, now, &mut effects);
    effects.clear(); // Nobody is to be greeted.
    let id = wish.id;
    // To a command without an id success is not told, and here it is the answer.
    let named = Wish { id: Some(RequestId::Number(0)), command: wish.command };
    session.handle(now, Input::Opening(named), &mut effects);
    if let Some(Effect::Publish { draft, .. }) = effects.pop_if(|it| matches!(it, Effect::Publish { .. })) {
        let channel = draft.channel.clone();
        let outcome = match within_rate(&channel, &policy, client, user.as_ref(), services) {
            Ok(()) => services.hub.publish(draft).await.map_err(|error| broker_failure(&error)),
            Err(failure) => Err(failure),
        };
        let placed = Input::Placed { id: Some(RequestId::Number(0)), channel, outcome };
        session.handle(services.clock.now(), placed, &mut effects);
    }
    for effect in &effects {
        if let Effect::Exceeded(bound) = effect {
            exceeded(&services.metrics, &policy.limits, *bound);
        }
    }
    match effects.pop() {
        Some(Effect::Send(reply)) => Reply { id, ..reply },
        other => unreachable!("a publication is answered, not {other:?}"),
    }
}

/// Counts a publication against the rate of its namespace. A session that lives for one command cannot, so what somebody posts
/// is counted by user, or else by address.
fn within_rate(
    channel: &Channel,
    policy: &Policy,
    client: IpAddr,
    user: Option<&UserId>,
    services: &Services,
) -> Result<(), Failure> {
    let Ok(Some(rate)) = policy.rules.rule(channel).map(|rule| rule.rate) else { return Ok(()) };
    let settings = services.settings();
    let posted =
        services.admission.post(client, user, channel, rate, &settings.limits, services.clock.moment());
    let Err(wait) = posted else { return Ok(()) };
    exceeded(&services.metrics, &policy.limits, Bound::Publications);
    match policy.limits.trial.covers(Bound::Publications) {
        true => Ok(()),
        false => Err(Failure::too_many_publications(rate, wait)),
    }
}

fn spell(reply: &Reply) -> Answer {
    let text = Encoding::NativeJson.dialect().encode(reply).payload().to_vec();
    let Event::Refused { failure: reason, .. } = &reply.event else { return json(StatusCode::OK, text) };
    let mut refusal = failure(reason);
    *refusal.body_mut() = Body::from(Bytes::from(text));
    refusal
}
