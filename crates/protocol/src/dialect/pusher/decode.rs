//! From JSON text to commands.
//!
//! A message is one object, `{event, channel?, data?}`, whose `data` is an object or a string that holds one. Names come
//! without the application they belong to: the session knows which that is.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::names::{self, Access, Kind};
use super::{SUBSCRIBING, text};
use crate::channel::Channel;
use crate::command::{Command, Decoded, Rejection, Request, Start, Wording};
use crate::depth;
use crate::error::{ErrorCode, Failure};
use crate::grant::{Proof, Signed, Token};
use crate::id::RequestId;
use crate::publication::{LABEL_BYTES_MAX, Label};

/// How the events begin that clients may publish.
const CLIENT_PREFIX: &str = "client-";

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subscribe {
    channel: String,
    auth: Option<String>,
    channel_data: Option<String>,
}

#[derive(Deserialize)]
struct Unsubscribe {
    channel: String,
}

#[derive(Deserialize)]
struct SignIn {
    auth: String,
    user_data: String,
}

/// Reads the command of one message.
pub(super) fn command(json: &str) -> Decoded {
    // To serde an array is a struct without its field names; to us it is a mistake.
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Rejection::unnamed(bad("a message is a JSON object with `event`")));
    }
    let message: Message<'_> = serde_json::from_str(json)
        .map_err(|error| Rejection::unnamed(bad(format!("not a message of this protocol: {error}"))))?;
    match &*message.event {
        "pusher:ping" => Ok(unnamed(Command::Ping)),
        "pusher:pong" => Ok(unnamed(Command::Pong)),
        "pusher:subscribe" => subscribe(&message),
        "pusher:unsubscribe" => {
            let Unsubscribe { channel } = message.object("{\"channel\": string}")?;
            Ok(unnamed(Command::Unsubscribe { channel: named(&channel)? }))
        }
        "pusher:signin" => {
            let SignIn { auth, user_data } = message.object("{\"auth\": string, \"user_data\": string}")?;
            let token = Token::new(super::admission::sealed(&auth, &user_data));
            // The answer is to repeat what was said.
            Ok(Request {
                id: Some(RequestId::Text(user_data.into())),
                command: Command::Authenticate { token },
            })
        }
        event if event.starts_with(CLIENT_PREFIX) => publish(&message),
        event => {
            let short: String = event.chars().take(32).collect();
            let text = format!("no event {short:?} is taken from clients: theirs begin with {CLIENT_PREFIX}");
            Err(Rejection::unnamed(Failure::new(ErrorCode::NotFound, text)))
        }
    }
}

/// Whether the data of a message is a string that holds deeper JSON than that. Brackets are written alike in a string and outside, so
/// one without many of them is not looked into.
pub(super) fn data_exceeds(json: &str, levels: usize) -> bool {
    let brackets = json.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if brackets <= levels {
        return false;
    }
    let message = serde_json::from_str::<Message<'_>>(json).ok();
    let inner = message.and_then(|it| serde_json::from_str::<String>(it.data?.get()).ok());
    inner.is_some_and(|inner| depth::json_exceeds(inner.as_bytes(), levels))
}

fn subscribe(message: &Message<'_>) -> Decoded {
    let id = Some(RequestId::Number(SUBSCRIBING));
    let Subscribe { channel, auth, channel_data } = message
        .object("{\"channel\": string, \"auth\": string where the channel takes one}")
        .map_err(|rejection| Rejection { id: id.clone(), ..rejection })?;
    let kind = Kind::of(&channel);
    let channel = named(&channel).map_err(|rejection| Rejection { id: id.clone(), ..rejection })?;
    let signed = |auth: String| {
        Proof::Signed(Signed {
            token: Token::new(auth),
            statement: channel_data.filter(|_| kind.access == Access::Presence).map(Into::into),
        })
    };
    let is_signed = matches!(kind.access, Access::Private | Access::Encrypted | Access::Presence);
    let command = Command::Subscribe {
        channel,
        start: if kind.is_cache { Start::Rewind(1) } else { Start::Live },
        presence: kind.access == Access::Presence,
        wording: Wording::Whole,
        filter: None,
        proof: auth.filter(|_| is_signed).map(signed),
    };
    Ok(Request { id, command })
}

fn publish(message: &Message<'_>) -> Decoded {
    let channel = message.channel.as_deref().ok_or_else(|| {
        Rejection::unnamed(bad(
            "`channel` is missing: a client's event is for those who are subscribed to one",
        ))
    })?;
    let channel = named(channel)?;
    let label = Label::parse(&message.event).ok_or_else(|| {
        let failure = bad(format!("the name of an event has at most {LABEL_BYTES_MAX} bytes"));
        Rejection { channel: Some(channel.clone()), ..Rejection::unnamed(failure) }
    })?;
    let payload = text::raw_to_payload(message.data.unwrap_or(RawValue::NULL));
    let payload = payload.labelled(Some(label));
    Ok(unnamed(Command::Publish { channel, payload, echo: false, key: None }))
}

impl Message<'_> {
    /// What `data` holds.
    fn object<T: DeserializeOwned>(&self, expected: &str) -> Result<T, Rejection> {
        let wrong = || Rejection::unnamed(bad(format!("`data` of {} must be {expected}", self.event)));
        let raw = self.data.map(RawValue::get).ok_or_else(wrong)?;
        let inner = if raw.starts_with('"') { serde_json::from_str::<String>(raw).ok() } else { None };
        let object = inner.as_deref().unwrap_or(raw);
        let object = Some(object).filter(|object| object.trim_ascii_start().starts_with('{'));
        object.and_then(|object| serde_json::from_str(object).ok()).ok_or_else(wrong)
    }
}

fn named(name: &str) -> Result<Channel, Rejection> {
    let refused = |text: String| Rejection::unnamed(bad(text));
    names::check(name).map_err(|error| refused(error.to_string()))?;
    Channel::parse(name).map_err(|error| refused(error.to_string()))
}

fn unnamed(command: Command) -> Request {
    Request { id: None, command }
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Command {
        command(json).unwrap_or_else(|rejection| panic!("{json}: {rejection:?}")).command
    }

    #[test]
    fn data_is_an_object_or_a_string_that_holds_one() {
        for json in [
            r#"{"event":"pusher:unsubscribe","data":{"channel":"a"}}"#,
            r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"a\"}"}"#,
            r#"{"data":{"channel":"a","more":1},"event":"pusher:unsubscribe","more":2}"#,
        ] {
            assert_eq!(read(json), Command::Unsubscribe { channel: Channel::parse("a").unwrap() }, "{json}");
        }
    }

    /// What the name alone says of how a channel is subscribed to.
    #[test]
    fn a_channel_is_subscribed_to_as_its_name_says() {
        for (name, start, wanted, is_signed, has_statement) in [
            ("news", Start::Live, false, false, false),
            ("cache-news", Start::Rewind(1), false, false, false),
            ("private-a", Start::Live, false, true, false),
            ("private-encrypted-cache-a", Start::Rewind(1), false, true, false),
            ("presence-a", Start::Live, true, true, true),
            ("#server-to-user-1", Start::Live, false, false, false),
        ] {
            let json = format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}","auth":"k:s","channel_data":"{{}}"}}}}"#
            );
            let Command::Subscribe { channel, start: from, presence, proof, .. } = read(&json) else {
                panic!()
            };
            assert_eq!((channel.as_str(), from, presence), (name, start, wanted));
            let Some(Proof::Signed(signed)) = proof else {
                assert!(!is_signed, "{name}");
                continue;
            };
            assert_eq!((is_signed, signed.statement.is_some()), (true, has_statement), "{name}");
        }
    }

    #[test]
    fn a_clients_event_is_published_under_its_name_to_the_others() {
        let json = r#"{"event":"client-typing","channel":"private-a","data":{"by":"ann"}}"#;
        let Command::Publish { channel, payload, echo: false, key: None } = read(json) else { panic!() };
        assert_eq!((channel.as_str(), payload.as_bytes()), ("private-a", &br#"{"by":"ann"}"#[..]));
        assert_eq!(payload.label().map(Label::as_str), Some("client-typing"));
        let Command::Publish { payload, .. } = read(r#"{"event":"client-x","channel":"private-a"}"#) else {
            panic!()
        };
        assert_eq!(payload.as_bytes(), b"null");
    }

    #[test]
    fn depth_is_found_in_a_string_too() {
        let deep = "[".repeat(10) + &"]".repeat(10);
        for (data, levels, exceeds) in [
            (format!("\"{deep}\""), 10, false),
            (format!("\"{deep}\""), 9, true),
            ("\"[[[[[[[[[[[[[[[[[[\"".into(), 9, true),
            ("\"{}[]{}[]{}[]{}[]{}[]\"".into(), 9, false),
            ("7".into(), 9, false),
        ] {
            let json = format!(r#"{{"event":"client-a","channel":"private-a","data":{data}}}"#);
            assert_eq!(data_exceeds(&json, levels), exceeds, "{data}");
        }
    }

    #[test]
    fn a_bad_message_says_what_would_be_right() {
        for (json, code, part) in [
            ("", ErrorCode::BadRequest, "a JSON object"),
            ("[\"pusher:ping\"]", ErrorCode::BadRequest, "a JSON object"),
            ("{", ErrorCode::BadRequest, "not a message"),
            (r#"{"data":1}"#, ErrorCode::BadRequest, "missing field `event`"),
            (r#"{"event":"hello"}"#, ErrorCode::NotFound, "begin with client-"),
            (r#"{"event":"pusher:subscribe"}"#, ErrorCode::BadRequest, "`data` of pusher:subscribe"),
            (r#"{"event":"pusher:subscribe","data":["a"]}"#, ErrorCode::BadRequest, "must be {\"channel\""),
            (r#"{"event":"pusher:subscribe","data":{"channel":"a b"}}"#, ErrorCode::BadRequest, "characters"),
            (r#"{"event":"pusher:subscribe","data":{"channel":"a:b"}}"#, ErrorCode::BadRequest, "characters"),
            (r#"{"event":"pusher:signin","data":{"auth":"a"}}"#, ErrorCode::BadRequest, "user_data"),
            (r#"{"event":"client-a","data":1}"#, ErrorCode::BadRequest, "`channel` is missing"),
        ] {
            let rejection = command(json).unwrap_err();
            assert_eq!(rejection.failure.code, code, "{json}");
            assert!(
                rejection.failure.explanation.contains(part),
                "{json}: {}",
                rejection.failure.explanation
            );
        }
        let long = format!(r#"{{"event":"client-{}","channel":"private-a"}}"#, "x".repeat(200));
        assert_eq!(command(&long).unwrap_err().channel.unwrap().as_str(), "private-a");
    }
}
