//! From JSON text to commands.
//!
//! Decoding has two steps, so that a command that is wrong in one field can still be answered under its id: the first
//! finds the fields and checks the JSON, leaving each value as text; the second reads the values that the command
//! needs, and says which one is wrong and what would be right.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::command::{Command, Decoded, Rejection, Request};
use crate::error::{ErrorCode, Failure};
use crate::id::{REQUEST_ID_BYTES_MAX, RequestId};
use crate::publication::Payload;

/// The fields of any command. Those that the dialect does not know are skipped.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "a JSON object")]
struct Fields<'a> {
    #[serde(borrow, rename = "type", deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    echo: Option<&'a RawValue>,
}

/// A field that is there, `null` included: `"data": null` is data.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the commands of one message, in order.
pub(super) fn commands(text: &str, batch_max: usize, on_command: &mut dyn FnMut(Decoded)) {
    if !text.trim_start().starts_with('[') {
        return on_command(command(text));
    }
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Err(error) => on_command(Err(not_understood(&error))),
        Ok(batch) if batch.is_empty() => on_command(Err(unnamed("an empty batch: put commands in it"))),
        Ok(batch) if batch.len() > batch_max => on_command(Err(unnamed(format!(
            "a batch holds at most {batch_max} commands, this one has {}: send several",
            batch.len()
        )))),
        Ok(batch) => batch.into_iter().for_each(|raw| on_command(command(raw.get()))),
    }
}

fn command(text: &str) -> Decoded {
    if text.trim_start().starts_with('[') {
        return Err(unnamed("a command is a JSON object, and a batch holds no batches"));
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| not_understood(&error))?;
    let id = fields.id.map(request_id).transpose().map_err(unnamed)?;
    match meaning(&fields) {
        Ok(command) => Ok(Request { id, command }),
        Err(failure) => Err(Rejection { id, channel: readable_channel(&fields), failure }),
    }
}

/// Reads what the command needs.
fn meaning(fields: &Fields<'_>) -> Result<Command, Failure> {
    let kind = fields.kind.ok_or_else(|| bad("`type` is missing: say which command this is"))?;
    let kind = text(kind).ok_or_else(|| bad("`type` must be a string"))?;
    let channel = || channel_of(fields.channel, &kind);
    match &*kind {
        "subscribe" => Ok(Command::Subscribe { channel: channel()? }),
        "unsubscribe" => Ok(Command::Unsubscribe { channel: channel()? }),
        "publish" => {
            let channel = channel()?;
            let data =
                fields.data.ok_or_else(|| bad("`data` is missing: publish needs it, `null` will do"))?;
            let echo = match fields.echo.map(RawValue::get) {
                None | Some("true") => true,
                Some("false") => false,
                Some(_) => return Err(bad("`echo` must be true or false")),
            };
            Ok(Command::Publish { channel, payload: Payload::from_raw(data), echo })
        }
        "ping" => Ok(Command::Ping),
        other => {
            Err(Failure::new(ErrorCode::NotFound, format!("there is no command of type {}", quoted(other))))
        }
    }
}

fn channel_of(field: Option<&RawValue>, kind: &str) -> Result<Channel, Failure> {
    let raw = field.ok_or_else(|| bad(format!("`channel` is missing: {kind} needs one")))?;
    let name = text(raw).ok_or_else(|| bad("`channel` must be a string"))?;
    Channel::parse(&name).map_err(|error| bad(format!("`channel` is not a channel name: {error}")))
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

fn unnamed(explanation: impl Into<Box<str>>) -> Rejection {
    Rejection { id: None, channel: None, failure: bad(explanation) }
}

fn not_understood(error: &serde_json::Error) -> Rejection {
    let hint = match error.classify() {
        serde_json::error::Category::Data => "a command is a JSON object with each field once",
        _ => "not JSON",
    };
    unnamed(format!("{hint}: {error}"))
}
