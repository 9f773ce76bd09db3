//! This dialect's flavour of the server API: `/apps/<id>/…`, each request signed.
//!
//! A request becomes a [`Plan`]: the neutral calls that it comes to, and what is made of their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::encode::local;
use super::names::{self, Access, Kind};
use super::rules::LAST;
use super::{admission, text};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::error::{ErrorCode, Failure};
use crate::grant::Pattern;
use crate::id::SessionId;
use crate::publication::{LABEL_BYTES_MAX, Label, Payload, Publication};
use crate::realm::Realm;
use crate::server_api::{ApiCall, ApiReply, Whom};
use crate::time::UnixMicros;

/// The most channels of one event.
pub const CHANNELS_MAX: usize = 100;

/// The most events of one batch.
pub const BATCH_MAX: usize = 10;

/// How far the time of a request may be from ours, in seconds.
const CLOCKS_APART: u64 = 600;

/// One request, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The whole path.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: &'a str,
    /// The body, perhaps empty.
    pub body: &'a [u8],
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// To be made, begun in this order, so that a channel hears the events of a batch in theirs.
    pub calls: Vec<ApiCall>,
    answer: Answer,
}

/// What is made of the answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing but that it was done.
    Done,
    /// What is wanted of the channel of each event; of those of which something is, the answers follow those of the events.
    Published {
        wanted: Vec<Wanted>,
        is_batch: bool,
    },
    Channel {
        wanted: Wanted,
    },
    Channels {
        wanted: Wanted,
    },
    Users,
}

/// What is to be told of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted(u8);

impl Wanted {
    const USERS: u8 = 1;
    const SUBSCRIPTIONS: u8 = 2;
    const CACHE: u8 = 4;

    fn parse(text: &str) -> Self {
        let bit = |word: &str| match word.trim() {
            "user_count" => Self::USERS,
            "subscription_count" => Self::SUBSCRIPTIONS,
            "cache" => Self::CACHE,
            _ => 0,
        };
        Self(text.split(',').map(bit).fold(0, |all, one| all | one))
    }

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    const fn is_any(self) -> bool {
        self.0 != 0
    }
}

/// The application that a path speaks of.
pub fn application(path: &str) -> Option<&str> {
    path.strip_prefix("/apps/")?.split('/').next().filter(|id| !id.is_empty())
}

/// Whether the application has made the request, and just now.
///
/// # Errors
/// 4401, with what is wrong.
pub fn verify(realm: &Realm, asked: Asked<'_>, now: UnixMicros) -> Result<(), Failure> {
    let unauthorised = |text: &str| Failure::new(ErrorCode::Unauthorized, text);
    let parameters = parameters(asked.query);
    let find = |name: &str| parameters.get(name).map(String::as_str);
    if find("auth_key") != Some(realm.credentials.key()) {
        return Err(unauthorised("auth_key must be the key of this application"));
    }
    if find("auth_version") != Some("1.0") {
        return Err(unauthorised("auth_version must be 1.0"));
    }
    let seconds = now.0 / 1_000_000;
    let is_now = |stamp: u64| stamp.abs_diff(seconds) <= CLOCKS_APART;
    if !find("auth_timestamp").and_then(|stamp| stamp.parse().ok()).is_some_and(is_now) {
        let text = format!("auth_timestamp must be within {CLOCKS_APART} s of the server's time, {seconds}");
        return Err(unauthorised(&text));
    }
    let digest = HEXLOWER.encode(&*md5::compute(asked.body));
    let named = find("body_md5");
    if named.is_some_and(|named| !named.eq_ignore_ascii_case(&digest))
        || named.is_none() && !asked.body.is_empty()
    {
        return Err(unauthorised("body_md5 must be the MD5 of the body, in hexadecimal"));
    }
    let signed: Vec<_> = parameters
        .iter()
        .filter(|(name, _)| *name != "auth_signature")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let signature = find("auth_signature").unwrap_or_default();
    // Libraries differ in whether they sign a path as it is sent.
    let path = unescaped(asked.path);
    let is_signed = [asked.path, &path].into_iter().any(|path| {
        let text = format!("{}\n{path}\n{}", asked.method, signed.join("&"));
        realm.credentials.signed(signature, &[&text])
    });
    if is_signed {
        return Ok(());
    }
    let text =
        "auth_signature must be the HMAC-SHA256 of the method, the path and the sorted query, a line each";
    Err(unauthorised(text))
}

/// What a request that is verified comes to.
///
/// # Errors
/// 4404 for what is not there, 4400 and 4413 for what is wrong with it.
pub fn plan(realm: &Realm, asked: Asked<'_>) -> Result<Plan, Failure> {
    let path = unescaped(asked.path);
    let rest = path.strip_prefix("/apps/").and_then(|rest| rest.split_once('/')).map_or("", |(_, rest)| rest);
    let parameters = parameters(asked.query);
    let wanted = parameters.get("info").map_or(Wanted::default(), |text| Wanted::parse(text));
    let parts: Vec<_> = rest.split('/').collect();
    match (asked.method, &parts[..]) {
        ("POST", ["events"]) => {
            let event: Event = read(asked.body)?;
            published(realm, [event], false)
        }
        ("POST", ["batch_events"]) => {
            let Batch { batch } = read(asked.body)?;
            if batch.is_empty() || batch.len() > BATCH_MAX {
                return Err(bad(format!(
                    "`batch` has 1 to {BATCH_MAX} events, this one has {}",
                    batch.len()
                )));
            }
            published(realm, batch, true)
        }
        ("GET", ["channels"]) => {
            let prefix = parameters.get("filter_by_prefix").map_or("", String::as_str);
            let is_presence = Kind::of(prefix).access == Access::Presence;
            if wanted.has(Wanted::USERS) && !is_presence {
                return Err(bad("user_count is known of presence channels: add filter_by_prefix=presence-"));
            }
            let within = Pattern::parse(&format!("{}:{prefix}*", realm.namespace));
            let within = within.filter(|_| !prefix.contains('*'));
            let within =
                within.ok_or_else(|| bad("filter_by_prefix must be the beginning of a channel's name"))?;
            Ok(Plan { calls: vec![ApiCall::Channels { within }], answer: Answer::Channels { wanted } })
        }
        ("GET", ["channels", name]) => {
            if wanted.has(Wanted::USERS) && Kind::of(name).access != Access::Presence {
                return Err(bad("user_count is known of presence channels alone"));
            }
            let channel = channel(realm, name)?;
            let mut calls = vec![ApiCall::Presence { channel: channel.clone(), members: false }];
            if wanted.has(Wanted::CACHE) && Kind::of(name).is_cache {
                calls.push(ApiCall::History { channel, since: None, limit: 1, reverse: true });
            }
            Ok(Plan { calls, answer: Answer::Channel { wanted } })
        }
        ("GET", ["channels", name, "users"]) => {
            if Kind::of(name).access != Access::Presence {
                return Err(bad("users are known of presence channels alone"));
            }
            let call = ApiCall::Presence { channel: channel(realm, name)?, members: true };
            Ok(Plan { calls: vec![call], answer: Answer::Users })
        }
        ("POST", ["users", user, "terminate_connections"]) => {
            let call =
                ApiCall::Disconnect { whom: Whom::User(realm.user(user)), reason: CloseReason::Forbidden };
            Ok(Plan { calls: vec![call], answer: Answer::Done })
        }
        ("POST", ["users", user, "events"]) => {
            let Told { name, data } = read(asked.body)?;
            let channel = admission::personal(realm, user).ok_or_else(|| bad("no user can have this id"))?;
            let payload = text::to_payload(&data).labelled(Some(label(&name)?));
            let call = ApiCall::Publish { channel, payload, key: None, exclude: None };
            Ok(Plan { calls: vec![call], answer: Answer::Done })
        }
        _ => Err(Failure::new(ErrorCode::NotFound, format!("there is no {} {rest:.64} here", asked.method))),
    }
}

#[derive(Deserialize)]
struct Event {
    name: String,
    data: String,
    channels: Option<Vec<String>>,
    channel: Option<String>,
    socket_id: Option<String>,
    info: Option<String>,
}

#[derive(Deserialize)]
struct Batch {
    batch: Vec<Event>,
}

/// What is said to one user.
#[derive(Deserialize)]
struct Told {
    name: String,
    data: String,
}

fn published(
    realm: &Realm,
    events: impl IntoIterator<Item = Event>,
    is_batch: bool,
) -> Result<Plan, Failure> {
    let (mut calls, mut counts, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        let label = label(&event.name)?;
        let payload = text::to_payload(&event.data).labelled(Some(label));
        let exclude = event.socket_id.as_deref().filter(|id| !id.is_empty()).map(socket).transpose()?;
        let of_event = event.info.as_deref().map_or(Wanted::default(), Wanted::parse);
        let names: Vec<_> = event.channels.into_iter().flatten().chain(event.channel).collect();
        if names.is_empty() || names.len() > CHANNELS_MAX {
            return Err(bad(format!(
                "an event goes to 1 to {CHANNELS_MAX} channels, this one to {}",
                names.len()
            )));
        }
        for name in names {
            let channel = channel(realm, &name)?;
            if of_event.is_any() {
                counts.push(ApiCall::Presence { channel: channel.clone(), members: false });
            }
            wanted.push(of_event);
            calls.push(ApiCall::Publish { channel, payload: payload.clone(), key: None, exclude });
        }
    }
    calls.extend(counts);
    Ok(Plan { calls, answer: Answer::Published { wanted, is_batch } })
}

fn socket(id: &str) -> Result<SessionId, Failure> {
    names::session(id)
        .ok_or_else(|| bad("`socket_id` must be as the client was told it: two numbers with a dot between"))
}

fn label(name: &str) -> Result<Label, Failure> {
    Label::parse(name).ok_or_else(|| bad(format!("`name` has 1 to {LABEL_BYTES_MAX} bytes")))
}

fn channel(realm: &Realm, name: &str) -> Result<Channel, Failure> {
    names::check(name).map_err(|error| bad(error.to_string()))?;
    realm.channel(name).ok_or_else(|| bad("this is not the name of a channel"))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(bad("the body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| bad(format!("the body is not what is taken here: {error}")))
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

#[derive(Default, Serialize)]
struct About<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    occupied: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache<'a>>,
}

#[derive(Serialize)]
struct Cache<'a> {
    data: &'a RawValue,
    /// For how many seconds it is kept yet.
    ttl: u64,
}

#[derive(Serialize)]
struct OfChannels<'a> {
    channels: BTreeMap<&'a str, About<'a>>,
}

#[derive(Serialize)]
struct OfBatch<'a> {
    batch: Vec<About<'a>>,
}

#[derive(Serialize)]
struct OfUsers<'a> {
    users: Vec<User<'a>>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct User<'a> {
    id: &'a str,
}

impl Plan {
    /// Whether the request fails with this call. What is only asked beside an event does not: it has been published by then.
    pub fn needs(&self, call: usize) -> bool {
        !matches!(&self.answer, Answer::Published { wanted, .. } if call >= wanted.len())
    }

    /// Spells the answers to the calls, given in their order, as things are now.
    pub fn encode(&self, replies: &[ApiReply], now: UnixMicros) -> Vec<u8> {
        match &self.answer {
            Answer::Done => b"{}".to_vec(),
            Answer::Published { wanted, .. } if !wanted.iter().any(|of_event| of_event.is_any()) => {
                b"{}".to_vec()
            }
            Answer::Published { wanted, is_batch } => {
                let mut counts = replies.get(wanted.len()..).unwrap_or_default().iter();
                let told = wanted.iter().map(|of_event| {
                    let count = of_event.is_any().then(|| counts.next()).flatten();
                    count.and_then(|reply| about(reply, *of_event))
                });
                if *is_batch {
                    let batch = told.map(|it| it.map(|(_, about)| about).unwrap_or_default());
                    json(&OfBatch { batch: batch.collect() })
                } else {
                    json(&OfChannels { channels: told.flatten().collect() })
                }
            }
            Answer::Channels { wanted } => {
                let listed = replies.iter().filter_map(|reply| match reply {
                    ApiReply::Channels { channels } => Some(channels),
                    _ => None,
                });
                let channels = listed.flatten().map(|(channel, counts)| {
                    (local(channel), of_counts(counts.users, counts.connections, *wanted))
                });
                json(&OfChannels { channels: channels.collect() })
            }
            Answer::Channel { wanted } => {
                let mut told = replies
                    .first()
                    .and_then(|reply| about(reply, *wanted))
                    .map(|it| it.1)
                    .unwrap_or_default();
                let occupied =
                    |it: &ApiReply| matches!(it, ApiReply::Present { crowd, .. } if crowd.connections > 0);
                told.occupied = Some(replies.iter().any(occupied));
                let kept = replies.iter().find_map(|reply| match reply {
                    ApiReply::Past { page, .. } => page.publications.first(),
                    _ => None,
                });
                let kept = kept.map(|publication| (quoted(&publication.payload), left(publication, now)));
                told.cache = kept.as_ref().map(|(data, ttl)| Cache { data, ttl: *ttl });
                json(&told)
            }
            Answer::Users => {
                let crowds = replies.iter().filter_map(|reply| match reply {
                    ApiReply::Present { crowd, .. } => crowd.members.as_ref(),
                    _ => None,
                });
                let named = crowds.flatten().filter_map(|member| member.user.as_ref());
                let mut users: Vec<_> = named.map(|user| User { id: user.as_str() }).collect();
                users.sort_unstable();
                users.dedup();
                json(&OfUsers { users })
            }
        }
    }
}

fn about(reply: &ApiReply, wanted: Wanted) -> Option<(&str, About<'_>)> {
    match reply {
        ApiReply::Present { channel, crowd } => {
            Some((local(channel), of_counts(crowd.users, crowd.connections, wanted)))
        }
        _ => None,
    }
}

fn of_counts(users: u64, connections: u64, wanted: Wanted) -> About<'static> {
    About {
        occupied: None,
        user_count: wanted.has(Wanted::USERS).then_some(users),
        subscription_count: wanted.has(Wanted::SUBSCRIPTIONS).then_some(connections),
        ..About::default()
    }
}

/// For how many seconds what a cache channel keeps is kept yet, by the clock of the node that took it.
fn left(publication: &Publication, now: UnixMicros) -> u64 {
    let age = Duration::from_micros(now.0.saturating_sub(publication.received.0));
    LAST.ttl.saturating_sub(age).as_secs()
}

/// Data as a string in JSON.
pub(super) fn quoted(payload: &Payload) -> Box<RawValue> {
    let mut out = Vec::new();
    text::write(&mut out, payload);
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    RawValue::from_string(text).expect("a string is JSON")
}

fn json(fields: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(fields).expect("these fields have string keys")
}

/// The parameters of a query: names in lower case, sorted, values unescaped.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (unescaped(name).to_ascii_lowercase(), unescaped(value))).collect()
}

/// Percent-encoding undone; what is none is left as it is.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.split_at_checked(2)).flatten();
        let decoded = escaped.and_then(|(digits, behind)| {
            let value = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
            Some((value, behind))
        });
        let (byte, behind) = decoded.unwrap_or((byte, after));
        out.push(byte);
        rest = behind;
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
