//! From events to JSON text.
//!
//! What the server says has its data as a string, but for errors, whose data is an object. A channel is named without the
//! application that it belongs to: everyone who hears it in this dialect is of that one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::names::{self, Access, Kind};
use super::{SUBSCRIBING, close, text};
use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::event::{Crowd, Event, Member, Reply, Welcome};
use crate::id::{RequestId, UserId};
use crate::publication::{Label, Payload, Publication};
use crate::websocket::{Frame, FrameKind};

/// What an event is called whose publisher has given it no name.
const UNNAMED: &str = "message";

/// What a client is told that has signed in with a watchlist which is too long.
const WATCHLIST_TOO_LONG: u16 = 4302;

pub(super) fn reply(reply: &Reply) -> Option<Frame> {
    let spelt = match &reply.event {
        Event::Welcome(welcome) => established(welcome),
        Event::Subscribed { channel, crowd, .. } => {
            let data = match crowd {
                Some(crowd) => json(&Subscribed { presence: Some(presence(crowd)) }),
                None => json(&Subscribed { presence: None }),
            };
            spell("pusher_internal:subscription_succeeded", Some(channel), &data)
        }
        Event::NothingKept { channel } => spell("pusher:cache_miss", Some(channel), "{}"),
        Event::Joined { channel, member } => {
            let user_id = user(member);
            let data = json(&Added { user_id: &user_id, user_info: raw(member.shown()) });
            spell("pusher_internal:member_added", Some(channel), &data)
        }
        Event::Left { channel, member } => {
            spell("pusher_internal:member_removed", Some(channel), &json(&Removed { user_id: &user(member) }))
        }
        Event::Recognised => {
            let Some(RequestId::Text(user_data)) = &reply.id else { return None };
            spell("pusher:signin_success", None, &json(&SignedIn { user_data }))
        }
        Event::Sighted { there, gone } => spell(
            "pusher_internal:watchlist_events",
            None,
            &json(&Watchlist { events: sighted(there, gone) }),
        ),
        Event::Acquainted { with } => {
            let ids: Vec<_> = with.iter().map(id).collect();
            let text =
                format!("a watchlist has at most {} users: these were taken: {}", ids.len(), ids.join(", "));
            error(Some(WATCHLIST_TOO_LONG), &text)
        }
        Event::Counted { channel, connections } => {
            let data = json(&Counted { subscription_count: *connections });
            spell("pusher_internal:subscription_count", Some(channel), &data)
        }
        Event::Pong { .. } => spell("pusher:pong", None, "{}"),
        Event::Unsubscribed { channel, cause: Some(cause) } => {
            refused(channel, *cause, "no longer allowed on this channel")
        }
        Event::Refused { failure, channel: Some(channel) } if is_subscribing(reply) => {
            refused(channel, failure.code, &failure.explanation)
        }
        Event::Refused { failure, .. } => error(code(failure), &failure.explanation),
        Event::Closing { reason, .. } => match close(*reason) {
            (code @ 4000.., words) => error(Some(code), words),
            _ => return None,
        },
        // What nobody asks for who speaks this dialect, and what has no answer in it.
        _ => return None,
    };
    Some(spelt)
}

pub(super) fn ping() -> Frame {
    spell("pusher:ping", None, "{}")
}

/// The hot path.
pub(super) fn publication(publication: &Publication) -> Frame {
    let name = local(&publication.channel);
    let room = publication.payload.as_bytes().len() * 5 / 4 + name.len() + 64;
    Frame::build(FrameKind::Text, room, |out| {
        out.extend_from_slice(br#"{"event":"#);
        text::write_string(out, publication.payload.label().map_or(UNNAMED, Label::as_str));
        out.extend_from_slice(br#","channel":"#);
        text::write_string(out, name);
        if let Some((user, _)) = publication.author()
            && Kind::of(name).access == Access::Presence
        {
            out.extend_from_slice(br#","user_id":"#);
            text::write_string(out, user.as_str());
        }
        out.extend_from_slice(br#","data":"#);
        text::write(out, &publication.payload);
        out.push(b'}');
    })
}

#[derive(Serialize)]
struct Established<'a> {
    socket_id: &'a str,
    activity_timeout: u64,
}

#[derive(Serialize)]
struct Subscribed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<PresenceFields<'a>>,
}

#[derive(Serialize)]
struct PresenceFields<'a> {
    count: usize,
    ids: Vec<String>,
    hash: BTreeMap<String, Option<&'a RawValue>>,
}

#[derive(Serialize)]
struct Added<'a> {
    user_id: &'a str,
    user_info: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Removed<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct SignedIn<'a> {
    user_data: &'a str,
}

#[derive(Serialize)]
struct Watchlist<'a> {
    events: Vec<OfWatchlist<'a>>,
}

#[derive(Serialize)]
struct OfWatchlist<'a> {
    name: &'static str,
    user_ids: Vec<&'a str>,
}

#[derive(Serialize)]
struct Counted {
    subscription_count: u64,
}

#[derive(Serialize)]
struct Refused<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: &'a str,
    status: u16,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: Option<u16>,
    message: &'a str,
}

fn established(welcome: &Welcome) -> Frame {
    // The server asks twice as often as a client would: so it is the client's turn only when the server has gone silent.
    let activity_timeout = 2 * welcome.heartbeat.as_secs().max(1);
    let socket_id = names::socket_id(welcome.session);
    spell(
        "pusher:connection_established",
        None,
        &json(&Established { socket_id: &socket_id, activity_timeout }),
    )
}

/// Each user once, by the connection that came first.
fn presence(crowd: &Crowd) -> PresenceFields<'_> {
    let mut hash = BTreeMap::new();
    for member in crowd.members.iter().flatten() {
        hash.entry(user(member)).or_insert_with(|| raw(member.shown()));
    }
    PresenceFields { count: hash.len(), ids: hash.keys().cloned().collect(), hash }
}

/// One event for those who are there, one for those who are not.
fn sighted<'a>(there: &'a [UserId], gone: &'a [UserId]) -> Vec<OfWatchlist<'a>> {
    let of =
        |(name, users): (_, &'a [UserId])| OfWatchlist { name, user_ids: users.iter().map(id).collect() };
    let both = [("online", there), ("offline", gone)];
    both.into_iter().filter(|(_, users)| !users.is_empty()).map(of).collect()
}

/// What a user of an application is called within it.
fn id(user: &UserId) -> &str {
    let name = user.as_str();
    name.split_once(':').map_or(name, |(_, id)| id)
}

/// A member without a name is called by its connection.
fn user(member: &Member) -> String {
    member.user.as_ref().map_or_else(|| names::socket_id(member.session), |user| user.as_str().to_owned())
}

/// JSON inside JSON; what is not JSON but MessagePack is not shown.
fn raw(payload: Option<&Payload>) -> Option<&RawValue> {
    payload.and_then(|payload| serde_json::from_slice(payload.as_bytes()).ok())
}

/// A refusal to be subscribed, on the channel that it is about.
fn refused(channel: &Channel, code: ErrorCode, explanation: &str) -> Frame {
    let kind = match code {
        ErrorCode::Unauthorized | ErrorCode::Forbidden => "AuthError",
        ErrorCode::LimitReached | ErrorCode::TooLarge => "LimitReached",
        _ => "Error",
    };
    // A signature that is missing is as bad as a wrong one.
    let status = if kind == "AuthError" { 401 } else { code.http_status() };
    spell("pusher:subscription_error", Some(channel), &json(&Refused { kind, error: explanation, status }))
}

fn error(code: Option<u16>, message: &str) -> Frame {
    let data = json(&ErrorFields { code, message });
    Frame::build(FrameKind::Text, data.len() + 64, |out| {
        out.extend_from_slice(br#"{"event":"pusher:error","data":"#);
        out.extend_from_slice(data.as_bytes());
        out.push(b'}');
    })
}

/// The number of a refusal, where the protocol has one.
fn code(failure: &Failure) -> Option<u16> {
    match failure.code {
        ErrorCode::Unauthorized | ErrorCode::Forbidden => Some(4009),
        ErrorCode::RateLimited => Some(4301),
        _ => None,
    }
}

fn is_subscribing(reply: &Reply) -> bool {
    reply.id == Some(RequestId::Number(SUBSCRIBING))
}

/// An event whose data is this text.
fn spell(event: &str, channel: Option<&Channel>, data: &str) -> Frame {
    Frame::build(FrameKind::Text, data.len() + 128, |out| {
        out.extend_from_slice(br#"{"event":"#);
        text::write_string(out, event);
        if let Some(channel) = channel {
            out.extend_from_slice(br#","channel":"#);
            text::write_string(out, local(channel));
        }
        out.extend_from_slice(br#","data":"#);
        text::write_string(out, data);
        out.push(b'}');
    })
}

/// The name of a channel within its application.
pub(super) fn local(channel: &Channel) -> &str {
    channel.as_str().split_once(':').map_or(channel.as_str(), |(_, name)| name)
}

fn json(fields: &impl Serialize) -> String {
    serde_json::to_string(fields).expect("these fields have string keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publication::{Draft, Payload, Sender};
    use crate::time::UnixMicros;

    #[test]
    fn who_published_is_told_on_presence_channels_alone() {
        for (name, is_told) in [
            ("news", false),
            ("cache-news", false),
            ("private-a", false),
            ("private-encrypted-a", false),
            ("#server-to-user-7", false),
            ("presence-a", true),
            ("presence-cache-a", true),
        ] {
            let sender = Sender { user: Some(UserId::new("ann")), ..Sender::default() };
            let draft = Draft {
                channel: Channel::parse(&format!("shop:{name}")).unwrap(),
                payload: Payload::parse("1").unwrap().labelled(Label::parse("client-e")),
                sender: Some(sender.into()),
                exclude: None,
                received: UnixMicros(0),
                retention: None,
                key: None,
                trace: None,
            };
            let frame = publication(&Publication::new(draft, None));
            let user = if is_told { r#""user_id":"ann","# } else { "" };
            let expected = format!(r#"{{"event":"client-e","channel":"{name}",{user}"data":"1"}}"#);
            assert_eq!(str::from_utf8(frame.payload()), Ok(&*expected));
        }
    }
}
