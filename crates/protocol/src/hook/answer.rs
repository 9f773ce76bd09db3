//! Answers from JSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Instead, Unreadable, Word};
use crate::error::{APPLICATION_NUMBERS, ErrorCode, Failure};
use crate::grant::Grant;
use crate::grant::claims::{Expected, read};
use crate::id::SessionId;
use crate::publication::Payload;
use crate::time::UnixMicros;

/// The longest text for people in a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The longest that a client may be told to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// The fields of any answer. Those that are not known are skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow, deserialize_with = "present")]
    error: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    user: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    info: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    expires: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channels: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    allow: Option<&'a RawValue>,
}

/// A refusal, by the names that clients know.
#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    /// Milliseconds.
    retry_after: Option<u64>,
    code: Option<u16>,
}

#[derive(Deserialize)]
struct Clients<'a> {
    #[serde(borrow)]
    clients: HashMap<Cow<'a, str>, &'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads what `connect` was answered about a client of whom `presumed` was known already. What the answer does not say stays
/// as it was; what it says of its own is good until the time that it names, and then it is asked again.
///
/// # Errors
/// The answer cannot be understood.
pub fn connect(body: &[u8], presumed: Option<&Grant>, now: UnixMicros) -> Word<Grant> {
    let fields = match fields(body)? {
        Ok(fields) => fields,
        Err(failure) => return Ok(Err(failure)),
    };
    fields.has_no(&[(fields.data, "`data` is no part of an answer to connect")])?;
    let said = claims(&fields, now)?;
    if said.ends.is_some_and(|ends| ends <= now) {
        return Err(Unreadable("`expires` is over already"));
    }
    let mut grant = presumed.cloned().unwrap_or_default();
    if fields.user.is_some() {
        grant.user = said.user;
    }
    if fields.info.is_some() {
        grant.profile = said.profile;
    }
    if said.expires.is_some() {
        (grant.expires, grant.ends, grant.is_renewable) = (said.expires, said.ends, true);
    }
    if fields.channels.is_some() {
        grant.channels = said.channels;
    }
    if fields.allow.is_some() {
        grant.allowances = said.allowances;
    }
    if grant != Grant::default() {
        // A backend's word is as young as it can be, so what was revoked before does not concern it.
        grant.issued = grant.issued.or(Some(now.0 / 1_000_000));
    }
    Ok(Ok(grant))
}

/// Reads the answer to a question that takes yes or no.
///
/// # Errors
/// The answer cannot be understood.
pub fn consent(body: &[u8]) -> Word<()> {
    let fields = fields(body)?;
    fields.as_ref().map_or(Ok(()), |it| it.says_nothing_of_clients(None))?;
    Ok(fields.map(drop))
}

/// Reads what is to be published instead.
///
/// # Errors
/// The answer cannot be understood.
pub fn publish(body: &[u8]) -> Word<Instead> {
    let fields = fields(body)?;
    fields.as_ref().map_or(Ok(()), |it| it.says_nothing_of_clients(it.data))?;
    Ok(fields.map(|fields| fields.data.map(Payload::from_raw)))
}

/// Reads what came of a call; null where the backend does not say.
///
/// # Errors
/// The answer cannot be understood.
pub fn call(body: &[u8]) -> Word<Payload> {
    let null = || Payload::parse("null").expect("it is JSON");
    publish(body).map(|word| word.map(|data| data.unwrap_or_else(null)))
}

/// Reads what `refresh` was answered about each client, by its session. Of those that are not in it nothing is said.
///
/// # Errors
/// The answer as a whole cannot be understood; that of a single client may be.
pub fn refresh_answers<'a>(body: &'a [u8]) -> Result<impl Fn(SessionId) -> Option<&'a [u8]>, Unreadable> {
    let answer = object(body).and_then(|json| serde_json::from_str::<Clients<'a>>(json).ok());
    let clients =
        answer.ok_or(Unreadable("an answer to refresh has `clients`, an object by sessions"))?.clients;
    Ok(move |session: SessionId| {
        clients.get(session.to_string().as_str()).map(|answer| answer.get().as_bytes())
    })
}

/// The body if it is text that begins like an object: to serde an array is a struct without its field names.
fn object(body: &[u8]) -> Option<&str> {
    str::from_utf8(body).ok().filter(|text| text.trim_start().starts_with('{'))
}

fn fields(body: &[u8]) -> Word<Fields<'_>> {
    if body.trim_ascii().is_empty() {
        return Ok(Ok(Fields::default()));
    }
    let fields = object(body).and_then(|json| serde_json::from_str::<Fields<'_>>(json).ok());
    let fields = fields.ok_or(Unreadable("an answer is a JSON object with each field once, or empty"))?;
    let Some(error) = fields.error else { return Ok(Ok(fields)) };
    let says = [fields.data, fields.user, fields.info, fields.expires, fields.channels, fields.allow];
    if says.iter().any(Option::is_some) {
        return Err(Unreadable("an answer that refuses says nothing else beside `error`"));
    }
    failure(error).map(Err)
}

fn failure(error: &RawValue) -> Result<Failure, Unreadable> {
    let refusal =
        object(error.get().as_bytes()).and_then(|json| serde_json::from_str::<Refusal<'_>>(json).ok());
    let refusal = refusal.ok_or(Unreadable(
        "`error` is an object: `reason` and `message` are strings, `retry_after` milliseconds, `code` a number",
    ))?;
    let code = match refusal.reason.as_deref() {
        None => Some(ErrorCode::Forbidden),
        Some(reason) => ErrorCode::ALL.into_iter().find(|code| code.slug() == reason),
    };
    // What speaks of a stream's position only a node knows.
    let code = code.filter(|code| *code != ErrorCode::Gap);
    let code = code.ok_or(Unreadable("`reason` is none of the words that clients know for refusals"))?;
    let message = refusal.message.as_deref().unwrap_or("the application has refused this");
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Unreadable("`message` has at most 1024 bytes"));
    }
    let application = match refusal.code {
        Some(number) if number != code.number() => match NonZeroU16::new(number) {
            Some(number) if APPLICATION_NUMBERS.contains(&number.get()) => Some(number),
            _ => return Err(Unreadable("`code` is a number from 4600 to 4999")),
        },
        _ => None,
    };
    let retry_after = refusal.retry_after.map(|millis| Duration::from_millis(millis).min(RETRY_AFTER_MAX));
    Ok(Failure { retry_after, application, ..Failure::new(code, message) })
}

/// What an answer says of a client is what a token would say, and is read like one.
fn claims(fields: &Fields<'_>, now: UnixMicros) -> Result<Grant, Unreadable> {
    let said =
        |field: Option<&RawValue>| field.map(RawValue::get).filter(|json| *json != "null").map(str::to_owned);
    let named = [
        ("sub", said(fields.user)),
        ("exp", said(fields.expires)),
        ("channels", said(fields.channels)),
        ("allow", said(fields.allow)),
        ("info", fields.info.map(|info| info.get().to_owned())),
    ];
    let members = named.into_iter().filter_map(|(name, json)| Some(format!("\"{name}\":{}", json?)));
    let claims = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    read(claims.as_bytes(), &Expected::default(), now).map_err(|_| {
        Unreadable(
            "`user` is a string of at most 255 bytes or null, `expires` a time to come in seconds since 1970, `channels` a list of \
             names, `allow` a list of what may be done on which channels",
        )
    })
}

impl Fields<'_> {
    fn says_nothing_of_clients(&self, data: Option<&RawValue>) -> Result<(), Unreadable> {
        let misplaced = self.data.filter(|_| data.is_none());
        self.has_no(&[
            (misplaced, "`data` is no part of this answer"),
            (self.user, "`user` is part of an answer to connect alone"),
            (self.info, "`info` is part of an answer to connect alone"),
            (self.expires, "`expires` is part of an answer to connect alone"),
            (self.channels, "`channels` is part of an answer to connect alone"),
            (self.allow, "`allow` is part of an answer to connect alone"),
        ])
    }

    fn has_no(&self, fields: &[(Option<&RawValue>, &'static str)]) -> Result<(), Unreadable> {
        fields.iter().find(|(field, _)| field.is_some()).map_or(Ok(()), |(_, text)| Err(Unreadable(text)))
    }
}
