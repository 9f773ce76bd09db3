//! `POST /publish`: what a client that hears by a one-way transport says.
//!
//! The body is the native `publish`, and the answer what a WebSocket would hear: a session that lives for one command
//! judges it. Its client is who the token of the request says, which stands where that of a handshake may; or, with
//! `Authorization: Ticket`, the one of the conversation that the ticket is for, be it on this node or on another.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use fanfare_metrics::Command as Kind;
use fanfare_protocol::command::{Command, Decoded, Rejection, Request as Wish};
use fanfare_protocol::depth;
use fanfare_protocol::dialect::{Encoding, native};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::grant::Visitor;
use fanfare_protocol::limits::Bound;
use fanfare_protocol::session::{Effect, Input, Policy, Session};
use fanfare_protocol::{Channel, RequestId, SessionId, Ticket, UserId};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cors::{Page, sender};
use super::{Answer, Body, Peer, count_command, failure, json, use_instead};
use crate::api;
use crate::connection::{Speaker, agreed, exceeded, new_session_id};
use crate::errands;
use crate::hooks::Caller;
use crate::node::Services;
use crate::trace::{self, By};

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
    let answer = match read(peer, request, services).await {
        Ok((Speaks::Here(voice), body)) => {
            spell(&counted(perform(decode(&body, services), client, voice, services).await, services))
        }
        Ok((Speaks::Elsewhere(ticket), body)) => hand_on(&ticket, client, &body, services).await,
        Err(failure) => spell(&counted(refused(failure), services)),
    };
    page.answered(answer)
}

/// Says a command for whoever holds a ticket of this node, and answers with the event that comes of it: the request has come to another.
pub(crate) async fn say(
    ticket: &Ticket,
    client: IpAddr,
    command: &[u8],
    services: &Services,
) -> Box<RawValue> {
    let voice = services.speakers.of(ticket).and_then(|speaker| Voice::of(speaker, services));
    let reply = match voice {
        Ok(voice) => perform(decode(command, services), client, voice, services).await,
        Err(failure) => refused(failure),
    };
    RawValue::from_string(text(&counted(reply, services))).expect("an event is JSON")
}

/// What the holder of a ticket is told whose message was handed on, and taken or not.
pub(crate) fn taken(outcome: Result<(), Failure>, services: &Services) -> Box<RawValue> {
    let event = match outcome {
        Ok(()) => "{}".to_owned(),
        Err(failure) => text(&counted(refused(failure), services)),
    };
    RawValue::from_string(event).expect("an event is JSON")
}

/// Has the node of a ticket say it. What is no command is found out here.
async fn hand_on(ticket: &Ticket, client: IpAddr, body: &[u8], services: &Services) -> Answer {
    if let Err(rejection) = decode(body, services) {
        services.metrics.command_received(Kind::Unknown);
        return spell(&counted(rejected(rejection), services));
    }
    let command = serde_json::from_slice(body).expect("it has been read as JSON");
    match errands::ask(services, ticket, client, command).await {
        Ok(event) => handed_back(event.get()),
        Err(failure) => spell(&counted(refused(failure), services)),
    }
}

fn refused(failure: Failure) -> Reply {
    Reply::unasked(Event::Refused { failure, channel: None })
}

fn rejected(Rejection { id, channel, failure, .. }: Rejection) -> Reply {
    Reply { id, event: Event::Refused { failure, channel } }
}

fn counted(reply: Reply, services: &Services) -> Reply {
    if let Event::Refused { failure, .. } = &reply.event {
        services.metrics.command_refused(failure.code.number());
    }
    reply
}

/// Where something is said.
enum Speaks {
    Here(Voice),
    /// By the node of this ticket.
    Elsewhere(Ticket),
}

/// As whom something is said.
struct Voice {
    session: SessionId,
    visitor: Visitor,
    /// The conversation that is spoken for, where it is one.
    speaker: Option<Arc<Speaker>>,
    /// What a backend is told of it, where one is asked.
    caller: Option<Arc<Caller>>,
}

impl Speaks {
    /// Who sends a request that the rate allows: that of the conversation for which it speaks, else that of its socket, which
    /// a proxy may share among many.
    async fn of<B>(peer: &Peer, request: &Request<B>, services: &Services) -> Result<Self, Failure> {
        let policy = services.settings().policy.clone();
        let Some(ticket) = ticket(request.headers()) else {
            peer.within_rate(&policy.limits, services)?;
            let session = new_session_id();
            let (visitor, caller) = sender(peer, request, session, "publish", services).await?;
            return Ok(Self::Here(Voice { session, visitor, speaker: None, caller }));
        };
        let ticket = ticket.ok_or_else(|| {
            let text = "this is no ticket: send Authorization: Ticket with that of welcome";
            Failure::new(ErrorCode::BadRequest, text)
        })?;
        if *ticket.node() != *policy.node {
            // Whether it is a ticket at all is known elsewhere.
            return peer.within_rate(&policy.limits, services).map(|()| Self::Elsewhere(ticket));
        }
        let speaker = services.speakers.of(&ticket);
        let speaker =
            speaker.or_else(|unknown| peer.within_rate(&policy.limits, services).and(Err(unknown)))?;
        Voice::of(speaker, services).map(Self::Here)
    }
}

impl Voice {
    /// That of a conversation on this node, at its rate.
    fn of(speaker: Arc<Speaker>, services: &Services) -> Result<Self, Failure> {
        count_command(&speaker.rate, &services.settings().policy.limits, services)?;
        let visitor = speaker.visitor(services)?;
        let caller = speaker.caller.clone();
        Ok(Self { session: speaker.session(), visitor, speaker: Some(speaker), caller })
    }
}

/// The ticket of a request, if it has one; nothing in it if it is none.
fn ticket(headers: &HeaderMap) -> Option<Option<Ticket>> {
    let credentials = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, ticket) = credentials.split_once(' ').unwrap_or((credentials, ""));
    scheme.eq_ignore_ascii_case("ticket").then(|| Ticket::parse(ticket.trim()))
}

/// The body of a command, and who says it where.
async fn read(
    peer: &Peer,
    request: Request<Incoming>,
    services: &Services,
) -> Result<(Speaks, Bytes), Failure> {
    let settings = services.settings();
    let speaks = Speaks::of(peer, &request, services).await?;
    let body =
        api::read(request.into_body(), settings.policy.limits.message_bytes, settings.header_timeout).await?;
    Ok((speaks, body))
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

async fn perform(decoded: Decoded, client: IpAddr, voice: Voice, services: &Services) -> Reply {
    let wish = match decoded {
        Ok(wish) => wish,
        Err(rejection) => {
            services.metrics.command_received(Kind::Unknown);
            return rejected(rejection);
        }
    };
    services.metrics.command_received(Kind::Publish);
    let (now, mut effects) = (services.clock.now(), Vec::new());
    let policy = services.settings().policy.clone();
    let Voice { session: id_of_session, visitor, speaker, caller } = voice;
    let heard = match (&wish.command, speaker) {
        (Command::Publish { channel, .. }, Some(speaker)) if services.hub.hears(channel, &speaker.outbox) => {
            Some(channel.clone())
        }
        _ => None,
    };
    let user = match &visitor {
        Visitor::Known(grant) => grant.user.clone(),
        Visitor::Anonymous | Visitor::Presumed(_) | Visitor::Unknown => None,
    };
    let mut session = Session::for_one_command(id_of_session, policy.clone(), visitor, heard, now);
    let id = wish.id;
    // To a command without an id success is not told, and here it is the answer.
    let named = Wish { id: Some(RequestId::Number(0)), command: wish.command };
    session.handle(now, Input::Opening(named), &mut effects);
    if let Some(Effect::Publish { draft, consent, .. }) =
        effects.pop_if(|it| matches!(it, Effect::Publish { .. }))
    {
        let channel = draft.channel.clone();
        let outcome = match within_rate(&channel, &policy, client, user.as_ref(), services) {
            Ok(()) => agreed(&session, draft, consent, caller.as_deref(), services).await,
            Err(failure) => Err(failure),
        };
        let outcome = match outcome {
            Ok(draft) => trace::publish(services, draft, By::Client(id_of_session)).await,
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
    let refusal = match &reply.event {
        Event::Refused { failure, .. } => Some(failure),
        _ => None,
    };
    dress(text(reply), refusal)
}

/// The answer of another node.
fn handed_back(event: &str) -> Answer {
    dress(event.to_owned(), refusal(event).as_ref())
}

/// What another node says of a refusal, as far as HTTP has words for it.
pub(super) fn refusal(event: &str) -> Option<Failure> {
    #[derive(Deserialize)]
    struct Outcome {
        code: Option<u16>,
        /// Milliseconds.
        retry_after: Option<u64>,
        #[serde(default)]
        message: String,
    }
    let Outcome { code, retry_after, message } = serde_json::from_str(event).ok()?;
    let code = ErrorCode::ALL.into_iter().find(|it| Some(it.number()) == code)?;
    let retry_after = retry_after.map(Duration::from_millis);
    Some(Failure { retry_after, ..Failure::new(code, message) })
}

fn text(reply: &Reply) -> String {
    let text = Encoding::NativeJson.dialect().encode(reply).expect("it has a word for it").payload().to_vec();
    String::from_utf8(text).expect("JSON is text")
}

/// An event as an answer, under the status of what it refuses.
fn dress(text: String, refusal: Option<&Failure>) -> Answer {
    let Some(refusal) = refusal else { return json(StatusCode::OK, text.into_bytes()) };
    let mut answer = failure(refusal);
    *answer.body_mut() = Body::from(Bytes::from(text));
    answer
}
