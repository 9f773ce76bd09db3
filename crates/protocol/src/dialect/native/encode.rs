//! From events to JSON text.
//!
//! Every event is one object on one line. Publications are written by hand, since that is the hot path and their data
//! most often is JSON already; the rest goes through `serde_json`.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::close::{CloseReason, Reconnect};
use crate::error::Failure;
use crate::event::{Crowd, Event, Member, Reply, Welcome};
use crate::history::Page;
use crate::id::{RequestId, Ticket};
use crate::publication::{Delivery, Label, Payload, Position, Publication};
use crate::websocket::{Frame, FrameKind};

/// The fields of any event, in the order they are written; what does not apply is left out.
#[derive(Default, Serialize)]
pub(super) struct Fields<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Id<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    welcome: Option<WelcomeFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<MemberFields<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<MemberFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<PastFields<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Id<'a> {
    Number(i64),
    Text(&'a str),
}

#[derive(Serialize)]
struct WelcomeFields<'a> {
    session: String,
    node: &'a str,
    user: Option<&'a str>,
    expires: Option<u64>,
    heartbeat: u64,
    limits: LimitFields,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    channels: Vec<&'a str>,
}

#[derive(Serialize)]
struct MemberFields<'a> {
    user: Option<&'a str>,
    session: String,
    info: Option<Cow<'a, RawValue>>,
}

/// A message of the past: what a live one has, less what the page says once for all.
#[derive(Serialize)]
struct PastFields<'a> {
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SenderFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    data: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct SenderFields<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Cow<'a, RawValue>>,
}

#[derive(Serialize)]
struct LimitFields {
    message_bytes: usize,
    channels: usize,
    messages_per_second: u32,
}

pub(super) fn reply(reply: &Reply) -> Frame {
    Frame::build(FrameKind::Text, 256, |out| {
        write_json(out, &with_id(fields(&reply.event), reply.id.as_ref()))
    })
}

pub(super) fn with_id<'a>(fields: Fields<'a>, id: Option<&'a RequestId>) -> Fields<'a> {
    let id = id.map(|id| match id {
        RequestId::Number(number) => Id::Number(*number),
        RequestId::Text(text) => Id::Text(text),
    });
    Fields { id, ..fields }
}

pub(super) fn fields(event: &Event) -> Fields<'_> {
    match event {
        Event::Welcome(welcome) => {
            Fields { kind: "welcome", welcome: Some(welcome_fields(welcome)), ..Fields::default() }
        }
        Event::Refreshed { expires, .. } => {
            Fields { kind: "refreshed", expires: Some(*expires), ..Fields::default() }
        }
        Event::Subscribed { channel, entry, .. } => Fields {
            recovered: entry.map(|entry| entry.recovered),
            ..at("subscribed", channel.as_str(), entry.map(|entry| entry.position))
        },
        Event::NothingKept { channel } => at("nothing_kept", channel.as_str(), None),
        Event::Recognised => Fields { kind: "recognised", ..Fields::default() },
        Event::Sighted { .. } => Fields { kind: "sighted", ..Fields::default() },
        Event::Acquainted { .. } => Fields { kind: "acquainted", ..Fields::default() },
        Event::Counted { channel, .. } => at("counted", channel.as_str(), None),
        // Nobody who speaks this dialect has a proof to renew.
        Event::Renewed { channel, .. } => at("renewed", channel.as_str(), None),
        Event::Unsubscribed { channel, cause } => Fields {
            code: cause.map(|code| code.number()),
            reason: cause.map(|code| code.slug()),
            ..at("unsubscribed", channel.as_str(), None)
        },
        Event::Published { channel, position } => at("published", channel.as_str(), *position),
        Event::Past { channel, page } => past(channel, page),
        Event::Present { channel, crowd } => present(channel, crowd),
        Event::Joined { channel, member } => {
            Fields { member: Some(member_fields(member)), ..at("joined", channel.as_str(), None) }
        }
        Event::Left { channel, member } => {
            Fields { member: Some(member_fields(member)), ..at("left", channel.as_str(), None) }
        }
        Event::Returned { payload } => {
            Fields { kind: "result", data: Some(raw(payload)), ..Fields::default() }
        }
        Event::Pong { time } => Fields { kind: "pong", time: Some(time.millis()), ..Fields::default() },
        Event::Refused { failure, channel } => Fields {
            kind: "error",
            channel: channel.as_ref().map(|channel| channel.as_str()),
            ..failure_fields(failure)
        },
        Event::Closing { reason, after } => closing(*reason, *after),
    }
}

fn welcome_fields(welcome: &Welcome) -> WelcomeFields<'_> {
    WelcomeFields {
        session: welcome.session.to_string(),
        node: &welcome.node,
        user: welcome.user.as_ref().map(|user| user.as_str()),
        expires: welcome.expires,
        heartbeat: welcome.heartbeat.as_secs(),
        limits: LimitFields {
            message_bytes: welcome.message_bytes,
            channels: welcome.channels,
            messages_per_second: welcome.messages_per_second,
        },
        ticket: welcome.ticket.as_ref().map(Ticket::to_string),
        channels: welcome.subscribed.iter().map(|channel| channel.as_str()).collect(),
    }
}

fn member_fields(member: &Member) -> MemberFields<'_> {
    MemberFields {
        user: member.user.as_ref().map(|user| user.as_str()),
        session: member.session.to_string(),
        info: member.shown().map(raw),
    }
}

/// Who is there, for WebSocket clients and callers of the server API alike.
pub(super) fn present<'a>(channel: &'a Channel, crowd: &'a Crowd) -> Fields<'a> {
    Fields {
        users: Some(crowd.users),
        connections: Some(crowd.connections),
        members: crowd.members.as_ref().map(|members| members.iter().map(member_fields).collect()),
        ..at("presence", channel.as_str(), None)
    }
}

/// A page of history, for WebSocket clients and callers of the server API alike.
pub(super) fn past<'a>(channel: &'a Channel, page: &'a Page) -> Fields<'a> {
    Fields {
        messages: Some(page.publications.iter().map(|publication| past_fields(publication)).collect()),
        ..at("history", channel.as_str(), Some(page.position()))
    }
}

fn past_fields(publication: &Publication) -> PastFields<'_> {
    let author = publication.author();
    PastFields {
        offset: publication.offset().0,
        from: author.map(|(user, profile)| SenderFields { user: user.as_str(), info: profile.map(raw) }),
        label: publication.payload.label().map(Label::as_str),
        data: raw(&publication.payload),
    }
}

/// JSON inside JSON. It was checked when it came in; checking it again is the price of asking for the past.
fn raw(payload: &Payload) -> Cow<'_, RawValue> {
    match payload.json() {
        Cow::Borrowed(json) => Cow::Borrowed(serde_json::from_slice(json).expect("a payload is JSON")),
        Cow::Owned(json) => Cow::Owned(serde_json::from_slice(&json).expect("a translation is JSON")),
    }
}

/// An event that speaks of a channel and perhaps of a place in its stream.
pub(super) fn at<'a>(kind: &'static str, channel: &'a str, position: Option<Position>) -> Fields<'a> {
    Fields {
        kind,
        channel: Some(channel),
        epoch: position.map(|position| position.epoch.to_string()),
        offset: position.map(|position| position.offset.0),
        ..Fields::default()
    }
}

/// The error object that WebSocket clients and callers of the server API get alike.
pub(super) fn failure_fields(failure: &Failure) -> Fields<'_> {
    Fields {
        kind: "error",
        code: Some(failure.number()),
        reason: Some(failure.code.slug()),
        message: Some(&failure.explanation),
        retry_after: failure.retry_after.map(millis_rounded_up),
        ..Fields::default()
    }
}

fn closing(reason: CloseReason, after: Duration) -> Fields<'static> {
    Fields {
        kind: "closing",
        code: Some(reason.number()),
        reason: Some(reason.slug()),
        message: Some(reason.explanation()),
        reconnect: Some(reason.reconnect() == Reconnect::Yes),
        after: Some(millis_rounded_up(after)),
        ..Fields::default()
    }
}

/// Whole milliseconds to wait. Rounded up: whoever waits as told must not come too early.
fn millis_rounded_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

pub(super) fn write_json(out: &mut Vec<u8>, fields: &Fields<'_>) {
    serde_json::to_writer(out, fields).expect("these fields have string keys and a vector takes every byte");
}

pub(super) fn publication(publication: &Publication, delivery: Delivery) -> Frame {
    let room = publication.payload.as_bytes().len() + publication.channel.as_str().len() + 64;
    Frame::build(FrameKind::Text, room, |out| {
        out.extend_from_slice(br#"{"type":"message","channel":"#);
        write_string(out, publication.channel.as_str());
        if let Some(position) = &publication.position {
            out.extend_from_slice(br#","offset":"#);
            out.extend_from_slice(position.offset.0.to_string().as_bytes());
        }
        if let Some((user, profile)) = publication.author() {
            out.extend_from_slice(br#","from":{"user":"#);
            write_string(out, user.as_str());
            if let Some(profile) = profile {
                out.extend_from_slice(br#","info":"#);
                profile.write_json(out);
            }
            out.push(b'}');
        }
        match delivery {
            Delivery::Live => {}
            Delivery::Replayed => out.extend_from_slice(br#","recovered":true"#),
            Delivery::Conflated(dropped) => {
                out.extend_from_slice(br#","conflated":"#);
                out.extend_from_slice(dropped.to_string().as_bytes());
            }
        }
        if let Some(label) = publication.payload.label() {
            out.extend_from_slice(br#","label":"#);
            write_string(out, label.as_str());
        }
        out.extend_from_slice(br#","data":"#);
        publication.payload.write_json(out);
        out.push(b'}');
    })
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON and a vector takes every byte");
}
