//! Requests that are several calls: a publication on many channels, and a batch.
//!
//! What is wrong with one call is the answer to that one: the others are performed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Fields, bad, encode_failure, encode_reply};
use crate::channel::Channel;
use crate::error::Failure;
use crate::server_api::{ApiCall, ApiReply};

/// The most channels of a broadcast, and the most commands of a batch.
pub const MANY_MAX: usize = 1000;

/// A call, or why it is none.
pub type Call = Result<ApiCall, Failure>;

/// What the answer of a request is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The one answer.
    One,
    /// Those of a broadcast, in the order of its channels.
    Broadcast,
    /// Those of a batch, in the order of its commands.
    Batch {
        /// Whether they may be performed at the same time.
        parallel: bool,
    },
}

impl Shape {
    /// Whether a call may depend on those before it.
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Batch { parallel: false })
    }
}

#[derive(Deserialize)]
struct Broadcast<'a> {
    #[serde(borrow)]
    channels: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    commands: Vec<&'a RawValue>,
    #[serde(default)]
    parallel: bool,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
}

/// Reads a request: its calls in order, and what is to be made of their answers.
///
/// # Errors
/// Those of [`super::decode()`], and those of what holds the calls.
pub fn decode_all(method: &str, body: &[u8]) -> Result<(Vec<Call>, Shape), Failure> {
    match method {
        "broadcast" => broadcast(body),
        "batch" => batch(body),
        method => Ok((vec![Ok(super::decode(method, body)?)], Shape::One)),
    }
}

fn broadcast(body: &[u8]) -> Result<(Vec<Call>, Shape), Failure> {
    let fields = Fields::of_body("broadcast", body)?;
    let (payload, key) = (fields.payload()?, fields.key()?);
    let wrong = || bad(format!("`channels` is an array of 1 to {MANY_MAX} channel names"));
    let Broadcast { channels } = serde_json::from_slice(body).map_err(|_| wrong())?;
    if !(1..=MANY_MAX).contains(&channels.len()) {
        return Err(wrong());
    }
    let publish = |name: &Cow<'_, str>| {
        let channel = Channel::parse(name).map_err(|error| {
            bad(format!("{:?} is not a channel name: {error}", name.chars().take(32).collect::<String>()))
        })?;
        Ok(ApiCall::Publish { channel, payload: payload.clone(), key: key.clone(), exclude: None })
    };
    Ok((channels.iter().map(publish).collect(), Shape::Broadcast))
}

fn batch(body: &[u8]) -> Result<(Vec<Call>, Shape), Failure> {
    let object = Some(body).filter(|body| body.trim_ascii_start().starts_with(b"{"));
    let batch: Option<Batch<'_>> = object.and_then(|body| serde_json::from_slice(body).ok());
    let batch = batch.filter(|batch| (1..=MANY_MAX).contains(&batch.commands.len()));
    let Some(Batch { commands, parallel }) = batch else {
        let text =
            "batch takes a JSON object: `commands`, an array of 1 to 1000 objects; `parallel`, true or false";
        return Err(bad(text));
    };
    let calls = commands.into_iter().map(|command| {
        let named: Option<Named<'_>> = serde_json::from_str(command.get()).ok();
        let named = named.filter(|_| command.get().starts_with('{'));
        match named.as_ref().map(|it| &*it.method) {
            // A batch within a batch could be as deep as its body is long.
            Some("batch" | "broadcast") => Err(bad("a batch holds neither batches nor broadcasts")),
            Some(method) => super::decode(method, command.get().as_bytes()),
            None => Err(bad("a command is an object with its `method`, a string, and the fields of that")),
        }
    });
    Ok((calls.collect(), Shape::Batch { parallel }))
}

/// Spells the answers of a request whose calls these are the answers of.
///
/// # Errors
/// The one call has failed.
///
/// # Panics
/// When one answer is called for and there is another number of them.
pub fn encode_all(shape: Shape, answers: Vec<Result<ApiReply, Failure>>) -> Result<Vec<u8>, Failure> {
    let kind = match shape {
        Shape::One => {
            let [answer] = <[_; 1]>::try_from(answers).expect("one call has one answer");
            return Ok(encode_reply(&answer?));
        }
        Shape::Broadcast => "broadcast",
        Shape::Batch { .. } => "batch",
    };
    let mut out = format!(r#"{{"type":"{kind}","responses":["#).into_bytes();
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend(match answer {
            Ok(reply) => encode_reply(reply),
            Err(failure) => encode_failure(failure),
        });
    }
    out.extend(b"]}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    /// What a request answers when every call that it makes is granted.
    fn answered(method: &str, body: &str) -> Result<(usize, String), Failure> {
        let (calls, shape) = decode_all(method, body.as_bytes())?;
        let count = calls.len();
        let granted = |call: Call| {
            call.map(|call| match call {
                ApiCall::Publish { channel, .. } => ApiReply::Published { channel, position: None },
                _ => ApiReply::Done,
            })
        };
        let said = encode_all(shape, calls.into_iter().map(granted).collect())?;
        Ok((count, String::from_utf8(said).unwrap()))
    }

    #[test]
    fn each_call_has_its_answer_in_its_place() {
        let published = |channel| format!(r#"{{"type":"published","channel":"{channel}"}}"#);
        let said = answered("broadcast", r#"{"channels":["a","b"],"data":null}"#).unwrap();
        let expected =
            format!(r#"{{"type":"broadcast","responses":[{},{}]}}"#, published("a"), published("b"));
        assert_eq!(said, (2, expected));
        let commands = r#"{"commands":[{"method":"publish","channel":"a","data":1},{"method":"disconnect","user":"u"}]}"#;
        let expected = format!(r#"{{"type":"batch","responses":[{},{{}}]}}"#, published("a"));
        assert_eq!(answered("batch", commands).unwrap(), (2, expected));
        assert_eq!(answered("publish", r#"{"channel":"a","data":1}"#).unwrap(), (1, published("a")));
    }

    #[test]
    fn one_bad_call_is_told_alone() {
        let (_, said) = answered("broadcast", r#"{"channels":["a b","b"],"data":1}"#).unwrap();
        assert_eq!(
            (said.matches(r#""code":4400"#).count(), said.matches("published").count()),
            (1, 1),
            "{said}"
        );
        let bad = r#"{"commands":[7,{},{"method":7},["publish"],{"method":"batch","commands":[]},{"method":"shout"},
            {"method":"broadcast"},{"method":"publish","channel":"a"},{"method":"publish","channel":"a","data":1}]}"#;
        let (count, said) = answered("batch", bad).unwrap();
        let of = |text: &str| said.matches(text).count();
        assert_eq!(
            (count, of(r#""code":4400"#), of(r#""code":4404"#), of("published")),
            (9, 7, 1, 1),
            "{said}"
        );
    }

    #[test]
    fn what_holds_no_calls_is_refused_whole() {
        for (method, body) in [
            ("broadcast", "{}"),
            ("broadcast", r#"{"data":1}"#),
            ("broadcast", r#"{"channels":[],"data":1}"#),
            ("broadcast", r#"{"channels":"a","data":1}"#),
            ("broadcast", r#"{"channels":["a"]}"#),
            ("batch", "[]"),
            ("batch", r#"{"commands":[]}"#),
            ("batch", r#"{"commands":{}}"#),
            ("batch", r#"{"commands":[{}],"parallel":1}"#),
        ] {
            assert_eq!(answered(method, body).unwrap_err().code, ErrorCode::BadRequest, "{method} {body}");
        }
        let many = vec![r#"{"method":"nodes"}"#; MANY_MAX + 1].join(",");
        assert!(answered("batch", &format!(r#"{{"commands":[{many}]}}"#)).is_err());
    }

    #[test]
    fn only_a_batch_waits_for_each_call() {
        let is_ordered = |method, body: &str| decode_all(method, body.as_bytes()).unwrap().1.is_ordered();
        assert!(is_ordered("batch", r#"{"commands":[{}]}"#));
        assert!(!is_ordered("batch", r#"{"commands":[{}],"parallel":true}"#));
        assert!(!is_ordered("broadcast", r#"{"channels":["a"],"data":1}"#));
    }
}
