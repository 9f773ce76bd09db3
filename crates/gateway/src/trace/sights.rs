//! What is told to a trace by connections, the API and hooks: each a line here, and a flag where nobody looks on.

use std::time::Duration;

use fanfare_fanout::Outbox;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::Entry;
use fanfare_protocol::publication::{Draft, Position};
use fanfare_protocol::{Channel, CloseReason, SessionId, UserId};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Subject, new_trace, place};
use crate::connection::{Line, broker_failure};
use crate::node::Services;
use crate::spans::{Begun, Kind, Value as Fact};

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// A client, by this conversation.
    Client(SessionId),
    /// A backend.
    Api,
}

impl By {
    const fn session(self) -> Option<SessionId> {
        match self {
            Self::Client(session) => Some(session),
            Self::Api => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Api => "api",
        }
    }
}

/// Publishes; and tells whoever looks on, and a collector, what came of it.
///
/// # Errors
/// What the broker cannot do.
pub(crate) async fn publish(
    services: &Services,
    mut draft: Draft,
    by: By,
) -> Result<Option<Position>, Failure> {
    let is_looked_at = services.hub.tap().is_on();
    let begun = services.spans.begin(draft.trace.as_deref(), draft.received);
    if let Some(begun) = &begun {
        draft.trace = Some(Box::new(begun.context));
    } else if is_looked_at {
        draft.trace.get_or_insert_with(|| Box::new(new_trace(false)));
    } else {
        draft.trace = None; // Nobody would look at it.
    }
    let copy = (is_looked_at || begun.is_some()).then(|| (Instant::now(), draft.clone()));
    let outcome = services.hub.publish(draft).await.map_err(|error| broker_failure(&error));
    let Some((asked, copy)) = copy else { return outcome };
    if is_looked_at {
        match &outcome {
            Ok(position) => placed(services, &copy, position.as_ref(), by, asked.elapsed()),
            // What a client is told is seen when it is told.
            Err(failure) if matches!(by, By::Api) => {
                refused(services, (None, None), Some(&copy.channel), failure, Some(by));
            }
            Err(_) => {}
        }
    }
    if let Some(begun) = begun {
        record(services, begun, &copy, by, &outcome);
    }
    outcome
}

fn record(
    services: &Services,
    begun: Begun,
    draft: &Draft,
    by: By,
    outcome: &Result<Option<Position>, Failure>,
) {
    let user = draft.sender.as_ref().and_then(|sender| sender.user.as_ref());
    let mut facts = vec![
        ("fanfare.channel", Fact::text(draft.channel.as_str())),
        ("fanfare.bytes", Fact::number(draft.payload.as_bytes().len())),
        ("fanfare.by", Fact::text(by.word())),
    ];
    facts.extend(by.session().map(|session| ("fanfare.session", Fact::text(&session))));
    facts.extend(user.map(|user| ("enduser.id", Fact::text(user.as_str()))));
    let place = outcome.as_ref().ok().and_then(Option::as_ref);
    facts.extend(place.map(|it| ("fanfare.offset", Fact::number(it.offset.0))));
    let what = (Kind::Server, "publish");
    services.spans.end(begun, what, services.clock.unix(), facts, outcome.as_ref().err());
}

fn placed(services: &Services, draft: &Draft, position: Option<&Position>, by: By, took: Duration) {
    let user = draft.sender.as_ref().and_then(|sender| sender.user.as_ref());
    let subject = Subject { channels: &[&draft.channel], session: by.session(), receiver: None, user };
    let mut more = place(position, draft.trace.as_deref());
    more["by"] = by.word().into();
    more["bytes"] = draft.payload.as_bytes().len().into();
    more["ms"] = json!(took.as_micros() as f64 / 1000.0);
    services.tracer.tell("published", subject, Some(&draft.payload), more);
}

/// A command was refused.
pub(crate) fn refused(
    services: &Services,
    (session, user): (Option<SessionId>, Option<&UserId>),
    channel: Option<&Channel>,
    failure: &Failure,
    by: Option<By>,
) {
    let subject = Subject { channels: channel.as_slice(), session, receiver: None, user };
    let more = json!({
        "by": by.map(By::word),
        "code": failure.number(),
        "reason": failure.code.slug(),
        "message": failure.explanation,
    });
    services.tracer.tell("refused", subject, None, more);
}

/// A conversation has been opened.
pub(crate) fn connected(services: &Services, outbox: &Outbox, user: Option<&UserId>) {
    let (session, receiver) = (Some(outbox.session()), Some(outbox.id()));
    let origin = services.roster.find(outbox.id()).and_then(|Line { origin, .. }| origin);
    let more = json!({
        "address": origin.map(|it| it.address),
        "transport": origin.map(|it| crate::census::transport(it.carrier)),
        "protocol": outbox.encoding().subprotocol(),
    });
    services.tracer.tell("connected", Subject { channels: &[], session, receiver, user }, None, more);
}

/// It is over.
pub(crate) fn disconnected(
    services: &Services,
    outbox: &Outbox,
    user: Option<&UserId>,
    channels: &[&Channel],
    code: u16,
) {
    let (session, receiver) = (Some(outbox.session()), Some(outbox.id()));
    let reason = CloseReason::from_number(code).map(CloseReason::slug);
    let more = json!({ "code": code, "reason": reason });
    services.tracer.tell("disconnected", Subject { channels, session, receiver, user }, None, more);
    services.tracer.followed.lock().people.remove(&outbox.id());
}

/// A client hears a channel from now on.
pub(crate) fn subscribed(
    services: &Services,
    outbox: &Outbox,
    user: Option<&UserId>,
    channel: &Channel,
    (entry, was_asked): (Option<Entry>, bool),
    is_replayed: bool,
) {
    let (session, receiver) = (Some(outbox.session()), Some(outbox.id()));
    let mut more = place(entry.as_ref().map(|entry| &entry.position), None);
    if was_asked {
        more["recovered"] = entry.map_or(Value::Null, |entry| entry.recovered.into());
    }
    more["replayed"] = if is_replayed { true.into() } else { Value::Null };
    services.tracer.tell("subscribed", Subject { channels: &[channel], session, receiver, user }, None, more);
}

/// It hears it no longer.
pub(crate) fn unsubscribed(
    services: &Services,
    outbox: &Outbox,
    user: Option<&UserId>,
    channel: &Channel,
    cause: Option<ErrorCode>,
) {
    let (session, receiver) = (Some(outbox.session()), Some(outbox.id()));
    let more = json!({ "code": cause.map(ErrorCode::number), "reason": cause.map(ErrorCode::slug) });
    services.tracer.tell(
        "unsubscribed",
        Subject { channels: &[channel], session, receiver, user },
        None,
        more,
    );
}

/// The backend was asked about a client.
pub(crate) fn asked(
    services: &Services,
    (hook, outcome): (&str, &str),
    session: Option<SessionId>,
    user: Option<&UserId>,
    channel: Option<&Channel>,
    took: Duration,
) {
    let subject = Subject { channels: channel.as_slice(), session, receiver: None, user };
    let more = json!({ "hook": hook, "outcome": outcome, "ms": took.as_micros() as f64 / 1000.0 });
    services.tracer.tell("hook", subject, None, more);
}
