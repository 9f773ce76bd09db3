//! From JSON text to commands.
//!
//! Decoding has two steps, so that a command that is wrong in one field can still be answered under its id: the first
//! finds the fields and checks the JSON, leaving each value as text; the second reads the values that the command
//! needs, and says which one is wrong and what would be right.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::command::{Command, Decoded, METHOD_BYTES_MAX, Rejection, Request, Start, Wording};
use crate::error::{ErrorCode, Failure};
use crate::grant::Token;
use crate::history::PAGE_MAX;
use crate::id::{REQUEST_ID_BYTES_MAX, RequestId};
use crate::limits::Bound;
use crate::publication::{
    Epoch, IDEMPOTENCY_KEY_BYTES_MAX, IdempotencyKey, LABEL_BYTES_MAX, Label, Offset, Payload, Position,
};

/// What a page of history holds when the client does not say.
const PAGE_DEFAULT: usize = 100;

/// The fields of any command. Those that the dialect does not know are skipped.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub(super) struct Fields<'a> {
    #[serde(borrow, rename = "type", deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present_as_json")]
    data: Option<Data<'a>>,
    #[serde(borrow, deserialize_with = "present")]
    data_base64: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    label: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    token: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    echo: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    since: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    rewind: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    presence: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    members: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    limit: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    reverse: Option<&'a RawValue>,
}

/// What is published, in the format of the message that it came in.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    Json(&'a RawValue),
    /// One value, checked.
    MessagePack(&'a [u8]),
}

/// A position as clients spell it.
#[derive(Deserialize)]
struct Since<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    #[serde(deserialize_with = "whole")]
    offset: u64,
}

/// A whole number; `7.0` is one too, and what some languages write.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    number(raw).ok_or_else(|| serde::de::Error::custom("a whole number is expected"))
}

pub(super) fn number(raw: &RawValue) -> Option<u64> {
    /// Up to here every whole number is one of floating point.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let exact = serde_json::from_str(raw.get()).ok();
    exact.or_else(|| {
        let number: f64 = serde_json::from_str(raw.get()).ok()?;
        ((0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0).then_some(number as u64)
    })
}

/// A field that is there, `null` included: `"data": null` is data.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// [`present`], for what stays in its format.
fn present_as_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Data<'de>>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Data::Json).map(Some)
}

/// Reads the commands of one message, in order.
pub(super) fn commands(text: &str, batch_max: usize, on_command: &mut dyn FnMut(Decoded)) {
    if !text.trim_start().starts_with('[') {
        return on_command(command(text));
    }
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Err(error) => on_command(Err(not_understood(&error))),
        Ok(batch) => match check_batch(batch.len(), batch_max) {
            Err(rejection) => on_command(Err(rejection)),
            Ok(()) => batch.into_iter().for_each(|raw| on_command(command(raw.get()))),
        },
    }
}

/// Whether a batch may have so many commands.
pub(super) fn check_batch(commands: usize, batch_max: usize) -> Result<(), Rejection> {
    match commands {
        0 => Err(unnamed("an empty batch: put commands in it")),
        _ if commands > batch_max => {
            let text =
                format!("a batch holds at most {batch_max} commands, this one has {commands}: send several");
            Err(Rejection { over: Some(Bound::Batch), ..unnamed(text) })
        }
        _ => Ok(()),
    }
}

fn command(text: &str) -> Decoded {
    if text.trim_start().starts_with('[') {
        return Err(unnamed("a command is a JSON object, and a batch holds no batches"));
    }
    request(&serde_json::from_str(text).map_err(|error| not_understood(&error))?)
}

/// Reads a command whose fields have been found.
pub(super) fn request(fields: &Fields<'_>) -> Decoded {
    request_of(fields, None)
}

/// The same; one that does not say its type is of this `kind`.
pub(super) fn request_of(fields: &Fields<'_>, kind: Option<&str>) -> Decoded {
    let id = fields.id.map(request_id).transpose().map_err(unnamed)?;
    match meaning(fields, kind) {
        Ok(command) => Ok(Request { id, command }),
        Err(failure) => {
            Err(Rejection { id, channel: readable_channel(fields), ..Rejection::unnamed(failure) })
        }
    }
}

/// Reads what the command needs.
fn meaning(fields: &Fields<'_>, default: Option<&str>) -> Result<Command, Failure> {
    let kind = match (fields.kind, default) {
        (Some(kind), _) => text(kind).ok_or_else(|| bad("`type` must be a string"))?,
        (None, Some(default)) => Cow::Borrowed(default),
        (None, None) => return Err(bad("`type` is missing: say which command this is")),
    };
    let channel = || fields.channel(&kind);
    match &*kind {
        "auth" => Ok(Command::Authenticate { token: fields.token()? }),
        "subscribe" => Ok(Command::Subscribe {
            channel: channel()?,
            start: fields.start()?,
            presence: switch(fields.presence, "presence", false)?,
            wording: Wording::Whole,
            filter: None,
            proof: None,
        }),
        "unsubscribe" => Ok(Command::Unsubscribe { channel: channel()? }),
        "publish" => Ok(Command::Publish {
            channel: channel()?,
            payload: fields.payload()?,
            echo: switch(fields.echo, "echo", true)?,
            key: fields.key()?,
        }),
        "history" => Ok(Command::History {
            channel: channel()?,
            since: fields.since()?,
            limit: fields.limit()?,
            reverse: fields.reverse()?,
        }),
        "presence" => Ok(Command::Presence { channel: channel()?, members: fields.members()? }),
        "call" => Ok(Command::Call { method: fields.method()?, payload: fields.payload_of("call")? }),
        "ping" => Ok(Command::Ping),
        other => {
            Err(Failure::new(ErrorCode::NotFound, format!("there is no command of type {}", quoted(other))))
        }
    }
}

/// Each reads one field, and says what would be right where it is not.
impl<'a> Fields<'a> {
    /// The fields of a call of the server API, which has its command in the path.
    pub(super) fn of_body(method: &str, body: &'a [u8]) -> Result<Self, Failure> {
        // To serde an array is a struct without its field names; to us it is a mistake.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(bad(format!("{method} takes a JSON object, not an array")));
        }
        serde_json::from_slice(body).map_err(|error| bad(format!("{method} takes a JSON object: {error}")))
    }

    /// The fields of a command whose other fields are JSON.
    pub(super) fn with_data(self, data: Option<Data<'a>>) -> Self {
        Self { data, ..self }
    }

    pub(super) fn channel(&self, kind: &str) -> Result<Channel, Failure> {
        let raw = self.channel.ok_or_else(|| bad(format!("`channel` is missing: {kind} needs one")))?;
        let name = text(raw).ok_or_else(|| bad("`channel` must be a string"))?;
        Channel::parse(&name).map_err(|error| bad(format!("`channel` is not a channel name: {error}")))
    }

    /// Whether it names a channel.
    pub(super) fn has_channel(&self) -> bool {
        self.channel.is_some()
    }

    pub(super) fn payload(&self) -> Result<Payload, Failure> {
        Ok(self.value()?.labelled(self.label()?))
    }

    fn label(&self) -> Result<Option<Label>, Failure> {
        let Some(raw) = self.label else { return Ok(None) };
        let label = text(raw).and_then(|label| Label::parse(&label));
        label
            .map(Some)
            .ok_or_else(|| bad(format!("`label` must be a string of 1 to {LABEL_BYTES_MAX} bytes")))
    }

    fn value(&self) -> Result<Payload, Failure> {
        self.payload_of("publish")
    }

    fn payload_of(&self, kind: &str) -> Result<Payload, Failure> {
        match (self.data, self.data_base64) {
            (Some(Data::Json(raw)), None) => Ok(Payload::from_raw(raw)),
            (Some(Data::MessagePack(value)), None) => Ok(Payload::from_checked_msgpack(value)),
            (None, Some(raw)) => {
                let bytes = text(raw).and_then(|text| BASE64.decode(text.as_bytes()).ok());
                let wrong = "`data_base64` must be a string of base64 with its padding (RFC 4648, section 4)";
                bytes.map(|bytes| Payload::binary(&bytes)).ok_or_else(|| bad(wrong))
            }
            (Some(_), Some(_)) => Err(bad("`data` and `data_base64` are two publications: send one")),
            (None, None) => Err(bad(format!("`data` is missing: {kind} needs it, `null` will do"))),
        }
    }

    fn token(&self) -> Result<Token, Failure> {
        let raw = self.token.ok_or_else(|| bad("`token` is missing: auth needs one"))?;
        let token = text(raw).ok_or_else(|| bad("`token` must be a string"))?;
        Ok(Token::new(token))
    }

    fn method(&self) -> Result<Box<str>, Failure> {
        let raw = self.method.ok_or_else(|| bad("`method` is missing: call needs one"))?;
        let method = text(raw).filter(|method| (1..=METHOD_BYTES_MAX).contains(&method.len()));
        let method = method.map(|method| method.into_owned().into_boxed_str());
        method.ok_or_else(|| bad(format!("`method` must be a string of 1 to {METHOD_BYTES_MAX} bytes")))
    }

    pub(super) fn key(&self) -> Result<Option<IdempotencyKey>, Failure> {
        let Some(raw) = self.key else { return Ok(None) };
        let key = text(raw).and_then(|key| IdempotencyKey::parse(&key));
        key.map(Some)
            .ok_or_else(|| bad(format!("`key` must be a string of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")))
    }

    pub(super) fn since(&self) -> Result<Option<Position>, Failure> {
        let Some(raw) = self.since else { return Ok(None) };
        // To serde an array is a struct without its field names; to us it is a mistake.
        let since = Some(raw.get()).filter(|text| text.starts_with('{'));
        let since: Since<'_> = since.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| {
            bad("`since` must be {\"epoch\": string, \"offset\": number} as the server sent them")
        })?;
        let epoch = Epoch::parse(&since.epoch).unwrap_or(Epoch::NEVER);
        Ok(Some(Position { epoch, offset: Offset(since.offset) }))
    }

    pub(super) fn limit(&self) -> Result<usize, Failure> {
        let Some(raw) = self.limit else { return Ok(PAGE_DEFAULT) };
        let limit =
            number(raw).and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit <= PAGE_MAX);
        limit.ok_or_else(|| bad(format!("`limit` must be a number from 0 to {PAGE_MAX}")))
    }

    pub(super) fn reverse(&self) -> Result<bool, Failure> {
        switch(self.reverse, "reverse", false)
    }

    pub(super) fn members(&self) -> Result<bool, Failure> {
        switch(self.members, "members", true)
    }

    pub(super) fn start(&self) -> Result<Start, Failure> {
        match (self.since()?, self.rewind) {
            (None, None) => Ok(Start::Live),
            (Some(since), None) => Ok(Start::Since(since)),
            (None, Some(rewind)) => match number(rewind).and_then(|count| u32::try_from(count).ok()) {
                Some(count) => Ok(Start::Rewind(count)),
                None => Err(bad("`rewind` must be a number of messages")),
            },
            (Some(_), Some(_)) => Err(bad("`since` and `rewind` name two places to start from: send one")),
        }
    }
}

fn switch(field: Option<&RawValue>, name: &str, default: bool) -> Result<bool, Failure> {
    match field.map(RawValue::get) {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(bad(format!("`{name}` must be true or false"))),
    }
}

/// What a rejection says about its channel: the name, where it is one.
fn readable_channel(fields: &Fields<'_>) -> Option<Channel> {
    fields.channel.and_then(text).and_then(|name| Channel::parse(&name).ok())
}

fn request_id(raw: &RawValue) -> Result<RequestId, String> {
    let wrong = || format!("`id` must be an integer or a string of at most {REQUEST_ID_BYTES_MAX} bytes");
    match text(raw) {
        Some(text) if text.len() <= REQUEST_ID_BYTES_MAX => Ok(RequestId::Text(text.into())),
        Some(_) => Err(wrong()),
        None => serde_json::from_str(raw.get()).map(RequestId::Number).map_err(|_| wrong()),
    }
}

/// The text of a JSON string; borrowed unless it holds escapes.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    // What is no string, such as a number as `id`, is seen at once: the parser would first write a complaint.
    if !raw.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<&str>(raw.get())
        .map(Cow::Borrowed)
        .or_else(|_| serde_json::from_str::<String>(raw.get()).map(Cow::Owned))
        .ok()
}

/// Quotes a client's own word back to it, at most 32 characters of it.
fn quoted(word: &str) -> String {
    let short: String = word.chars().take(32).collect();
    format!("{short:?}")
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

pub(super) fn unnamed(explanation: impl Into<Box<str>>) -> Rejection {
    Rejection::unnamed(bad(explanation))
}

fn not_understood(error: &serde_json::Error) -> Rejection {
    let hint = match error.classify() {
        serde_json::error::Category::Data => "a command is a JSON object with each field once",
        _ => "not JSON",
    };
    unnamed(format!("{hint}: {error}"))
}
