//! Its flavour of the server API: a JSON body each way, the method in the path, and errors that are answers too.
//!
//! A `broadcast` or a `batch` is several calls, and its answer is put together from theirs: so [`decode`] makes a flat list
//! of calls and a [`Shape`], and [`encode`] takes the answers in the same order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::codes;
use super::encode::{history, member, presence_stats};
use super::sink::{Field, Json, Sink};
use super::wire::{self, Data};
use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::grant::Pattern;
use crate::history::PAGE_MAX;
use crate::publication::{IdempotencyKey, Payload};
use crate::server_api::{ApiCall, ApiReply};
use crate::tags::{TAGS_BYTES_MAX, TAGS_MAX, Tags};

mod cluster;
mod people;

/// The most channels of a broadcast, and the most commands of a batch.
const MANY_MAX: usize = 1000;

/// What the answer of a request is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape(Kind);

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    One,
    Broadcast(usize),
    Batch(Vec<(&'static str, Self)>),
}

impl Shape {
    /// Whether a call may depend on those before it.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        !matches!(self.0, Kind::Broadcast(_))
    }
}

/// A call, or why it is none.
pub type Call = Result<ApiCall, Failure>;

/// Reads a request: its calls in order, and what is to be made of their answers.
pub fn decode(method: &str, body: &[u8]) -> (Vec<Call>, Shape) {
    let mut calls = Vec::new();
    let kind = match str::from_utf8(body) {
        Ok(body) => read(method, body, &mut calls),
        Err(_) => refused(bad("the body is JSON"), &mut calls),
    };
    (calls, Shape(kind))
}

/// The answer of a request, and the HTTP status for callers that go by that.
///
/// # Panics
/// When there are not as many answers as there were calls.
pub fn encode(shape: &Shape, answers: &[Result<ApiReply, Failure>]) -> (Vec<u8>, u16) {
    let status = match answers {
        [answer] if shape.0 == Kind::One => failure(answer).map_or(200, |failure| status(failure.code)),
        _ => 200,
    };
    let (mut out, mut answers) = (Vec::new(), answers.iter());
    Json::write(&mut out, |sink| write(sink, &shape.0, &mut answers));
    (out, status)
}

/// Says of a request as such why it is not answered: without a key, too large.
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    encode(&Shape(Kind::One), &[Err(failure.clone())]).0
}

/// Why there is no answer. There is none that tells of a part of the connections only, and does not say so.
fn failure(answer: &Result<ApiReply, Failure>) -> Option<Cow<'_, Failure>> {
    match answer {
        Err(failure) => Some(Cow::Borrowed(failure)),
        Ok(ApiReply::Connections(roll)) => cluster::incomplete(roll).map(Cow::Owned),
        Ok(_) => None,
    }
}

const fn status(code: ErrorCode) -> u16 {
    match codes::error(code).0 {
        102 | 104 => 404,
        107 | 108 => 400,
        112 => 416,
        100 => 500,
        _ => code.http_status(),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "as it comes")]
struct Fields<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    channels: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Cow<'a, str>,
    #[serde(borrow)]
    idempotency_key: Cow<'a, str>,
    skip_history: bool,
    #[serde(borrow)]
    tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    limit: i32,
    #[serde(borrow)]
    since: Option<wire::Since<'a>>,
    reverse: bool,
    #[serde(borrow)]
    pattern: Cow<'a, str>,
    #[serde(borrow)]
    commands: Vec<&'a RawValue>,
}

/// The methods that are served, as a batch names them.
const METHODS: [&str; 15] = [
    "publish",
    "broadcast",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "subscribe",
    "unsubscribe",
    "refresh",
    "disconnect",
    "connections",
    "channels",
    "info",
    "rpc",
    "batch",
];

fn read(method: &str, body: &str, calls: &mut Vec<Call>) -> Kind {
    if !METHODS.contains(&method) {
        let text = format!("{:?} is not served here", method.chars().take(32).collect::<String>());
        return refused(Failure::new(ErrorCode::NotOffered, text), calls);
    }
    let call = match method {
        "subscribe" | "unsubscribe" | "refresh" | "disconnect" => {
            object(method, body).and_then(|it: people::Fields<'_>| it.call(method))
        }
        "connections" | "info" | "rpc" => {
            object(method, body).and_then(|it: cluster::Fields<'_>| it.call(method))
        }
        _ => return of_channels(method, body, calls),
    };
    calls.push(call);
    Kind::One
}

/// Reads an object. To serde an array is a struct without its field names.
fn object<'a, T: Deserialize<'a>>(method: &str, body: &'a str) -> Result<T, Failure> {
    let wrong = |error: String| bad(format!("{method} takes a JSON object: {error}"));
    let body = Some(body).filter(|body| body.trim_start().starts_with('{'));
    let body = body.ok_or_else(|| wrong("not an object".to_owned()))?;
    serde_json::from_str(body).map_err(|error| wrong(error.to_string()))
}

fn of_channels(method: &str, body: &str, calls: &mut Vec<Call>) -> Kind {
    let fields: Fields<'_> = match object(method, body) {
        Ok(fields) => fields,
        Err(failure) => return refused(failure, calls),
    };
    match method {
        "batch" => batch(&fields, calls),
        "broadcast" => {
            let count = fields.channels.len();
            if !(1..=MANY_MAX).contains(&count) {
                return refused(bad(format!("`channels` holds 1 to {MANY_MAX} names")), calls);
            }
            calls.extend(fields.channels.iter().map(|channel| fields.publish(channel)));
            Kind::Broadcast(count)
        }
        method => {
            calls.push(fields.call(method));
            Kind::One
        }
    }
}

fn batch(fields: &Fields<'_>, calls: &mut Vec<Call>) -> Kind {
    if !(1..=MANY_MAX).contains(&fields.commands.len()) {
        return refused(bad(format!("`commands` holds 1 to {MANY_MAX} commands")), calls);
    }
    let mut kinds = Vec::with_capacity(fields.commands.len());
    for command in &fields.commands {
        let named: Option<BTreeMap<Cow<'_, str>, &RawValue>> = serde_json::from_str(command.get()).ok();
        let named = named.and_then(|it| it.into_iter().next());
        let known = named.and_then(|(name, body)| {
            // A batch within a batch could be as deep as its body is long.
            let method = METHODS.into_iter().find(|it| *it == name && *it != "batch")?;
            Some((method, body))
        });
        kinds.push(match known {
            Some((method, body)) if calls.len() < MANY_MAX => (method, read(method, body.get(), calls)),
            Some((method, _)) => (method, refused(bad("the batch has too many calls"), calls)),
            None => ("", refused(bad("a command is {\"<method>\": {…}}, of a method that is served"), calls)),
        });
    }
    Kind::Batch(kinds)
}

fn refused(failure: Failure, calls: &mut Vec<Call>) -> Kind {
    calls.push(Err(failure));
    Kind::One
}

impl Fields<'_> {
    fn call(&self, method: &str) -> Call {
        match method {
            "publish" => self.publish(&self.channel),
            "channels" => {
                let pattern = if self.pattern.is_empty() { "*" } else { &self.pattern };
                let within = Pattern::parse(pattern);
                let within =
                    within.ok_or_else(|| bad("`pattern` is a channel's name, with * for any characters"))?;
                Ok(ApiCall::Channels { within })
            }
            method => {
                let channel = named(&self.channel)?;
                Ok(match method {
                    "presence" => ApiCall::Presence { channel, members: true },
                    "presence_stats" => ApiCall::Presence { channel, members: false },
                    "history_remove" => ApiCall::RemoveHistory { channel },
                    _ => ApiCall::History {
                        channel,
                        since: self.since.as_ref().map(wire::Since::position),
                        limit: usize::try_from(self.limit).map_or(PAGE_MAX, |limit| limit.min(PAGE_MAX)),
                        reverse: self.reverse,
                    },
                })
            }
        }
    }

    fn publish(&self, channel: &str) -> Call {
        if self.skip_history {
            let text = "whether history is kept is the namespace's matter: leave `skip_history` out";
            return Err(Failure::new(ErrorCode::NotOffered, text));
        }
        let payload = match self.data {
            Some(json) => Payload::from_raw(json),
            None if !self.b64data.is_empty() => {
                let bytes = BASE64.decode(self.b64data.as_bytes());
                Data::Bytes(&bytes.map_err(|_| bad("`b64data` is base64 with its padding"))?).payload()
            }
            None => return Err(bad("`data` is missing")),
        };
        let tags = Tags::parse(self.tags.iter().map(|(key, value)| (&**key, &**value)));
        let tags = tags.ok_or_else(|| {
            bad(format!("`tags` are {TAGS_MAX} at most, of {TAGS_BYTES_MAX} bytes of keys and values"))
        })?;
        let payload = payload.tagged(tags);
        let key = match &*self.idempotency_key {
            "" => None,
            key => Some(IdempotencyKey::parse(key).ok_or_else(|| bad("`idempotency_key` is too long"))?),
        };
        Ok(ApiCall::Publish { channel: named(channel)?, payload, key, exclude: None })
    }
}

fn named(name: &str) -> Result<Channel, Failure> {
    Channel::parse(name).map_err(|error| bad(format!("`channel` is not a channel name: {error}")))
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

const RESULT: Field = Field::new("result", 2);

/// Writes the answer of one command; takes as many answers as it had calls.
fn write(sink: &mut Json, kind: &Kind, answers: &mut dyn Iterator<Item = &Result<ApiReply, Failure>>) {
    match kind {
        Kind::One => {
            let answer = answers.next().expect("each call has an answer");
            match (failure(answer), answer) {
                (None, Ok(reply)) => sink.message(RESULT, |sink| result(sink, reply)),
                (None, Err(_)) => unreachable!("an error is a failure"),
                (Some(failure), _) => error(sink, &failure),
            }
        }
        Kind::Broadcast(count) => sink.message(RESULT, |sink| {
            let responses: Vec<_> = answers.take(*count).collect();
            sink.list(Field::always("responses", 1), responses, |sink, answer| {
                write(sink, &Kind::One, &mut std::iter::once(answer));
            });
        }),
        Kind::Batch(kinds) => {
            let mut replies = Vec::with_capacity(kinds.len());
            for (method, kind) in kinds {
                let mut out = Vec::new();
                Json::write(&mut out, |sink| write(sink, kind, answers));
                replies.push((*method, out));
            }
            sink.list(Field::always("replies", 1), replies, |sink, (method, answer)| {
                sink.whole(method, &answer)
            });
        }
    }
}

fn error(sink: &mut Json, failure: &Failure) {
    sink.message(Field::new("error", 1), |sink| {
        let (code, words, _) = codes::error(failure.code);
        sink.number(Field::new("code", 1), code.into());
        sink.text(Field::new("message", 2), &format!("{words}: {}", failure.explanation));
    });
}

fn result(sink: &mut Json, reply: &ApiReply) {
    match reply {
        ApiReply::Published { position: Some(position), .. } => {
            sink.number(Field::new("offset", 1), position.offset.0);
            sink.text(Field::new("epoch", 2), &position.epoch.to_string());
        }
        ApiReply::Past { page, .. } => history(sink, page),
        ApiReply::Present { crowd, .. } => match &crowd.members {
            Some(members) => {
                let members = members.iter().map(|it| (it.session.to_string(), it));
                sink.map(Field::always("presence", 1), members, member);
            }
            None => presence_stats(sink, crowd),
        },
        ApiReply::Channels { channels } => {
            let channels = channels.iter().map(|(channel, crowd)| (channel.as_str().to_owned(), crowd));
            sink.map(Field::always("channels", 1), channels, |sink, crowd| {
                sink.number(Field::always("num_clients", 1), crowd.connections);
            });
        }
        ApiReply::Connections(roll) => cluster::connections(sink, roll),
        ApiReply::Nodes(nodes) => cluster::nodes(sink, nodes),
        ApiReply::Returned { payload } => sink.data(Field::new("data", 1), payload),
        ApiReply::Published { position: None, .. } | ApiReply::Done => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::close::CloseReason;
    use crate::event::Crowd;
    use crate::id::UserId;
    use crate::publication::{Epoch, Offset, Position};
    use crate::server_api::Whom;

    fn channel() -> Channel {
        Channel::parse("a").unwrap()
    }

    /// What a request answers when every call that it makes is granted.
    fn answered(method: &str, body: &str) -> (Vec<Call>, String, u16) {
        let (calls, shape) = decode(method, body.as_bytes());
        let position = Some(Position { epoch: Epoch(0xab), offset: Offset(7) });
        let granted = |call: &Call| {
            call.clone().map(|call| match call {
                ApiCall::Publish { channel, .. } => ApiReply::Published { channel, position },
                ApiCall::Channels { .. } => {
                    let crowd = Arc::new(Crowd { users: 2, connections: 3, members: None });
                    ApiReply::Channels { channels: vec![(channel(), crowd)] }
                }
                _ => ApiReply::Done,
            })
        };
        let answers: Vec<_> = calls.iter().map(granted).collect();
        let (text, status) = encode(&shape, &answers);
        (calls, String::from_utf8(text).unwrap(), status)
    }

    #[test]
    fn calls_are_read_and_answered_in_one_shape() {
        let result = r#"{"result":{"offset":7,"epoch":"00000000000000ab"}}"#;
        for (method, body, count, text) in [
            ("publish", r#"{"channel":"a","data":{},"idempotency_key":"k"}"#, 1, result.to_owned()),
            ("publish", r#"{"channel":"a","b64data":"AP8="}"#, 1, result.to_owned()),
            ("channels", "{}", 1, r#"{"result":{"channels":{"a":{"num_clients":3}}}}"#.to_owned()),
            ("history_remove", r#"{"channel":"a"}"#, 1, r#"{"result":{}}"#.to_owned()),
            (
                "broadcast",
                r#"{"channels":["a","b c"],"data":1}"#,
                2,
                format!(
                    r#"{{"result":{{"responses":[{result},{{"error":{{"code":107,"message":"bad request: {}"}}}}]}}}}"#,
                    "`channel` is not a channel name: a channel name is printable ASCII without spaces, this one holds the byte 0x20"
                ),
            ),
            (
                "batch",
                r#"{"commands":[{"publish":{"channel":"a","data":1}},{"disconnect":{"user":"u"}},{"broadcast":{"channels":["a"],"data":1}}]}"#,
                3,
                format!(
                    r#"{{"replies":[{{"publish":{result}}},{{"disconnect":{{"result":{{}}}}}},{{"broadcast":{{"result":{{"responses":[{result}]}}}}}}]}}"#
                ),
            ),
        ] {
            let (calls, said, status) = answered(method, body);
            assert_eq!((calls.len(), said, status), (count, text, 200), "{method} {body}");
        }
    }

    #[test]
    fn a_bad_call_is_an_answer_too() {
        for (method, body, code, http) in [
            ("publish", "[]", 107, 400),
            ("publish", r#"{"channel":"a"}"#, 107, 400),
            ("publish", r#"{"channel":"a","data":1,"skip_history":true}"#, 108, 400),
            ("publish", r#"{"channel":"a","b64data":"?"}"#, 107, 400),
            ("disconnect", "{}", 107, 400),
            ("disconnect", r#"{"client":"x"}"#, 107, 400),
            ("broadcast", "{}", 107, 400),
            ("batch", r#"{"commands":[]}"#, 107, 400),
            ("channels", r#"{"pattern":"a b"}"#, 107, 400),
            ("rpc", "{}", 107, 400),
            ("map_publish", "{}", 108, 400),
            ("shout", "{}", 108, 400),
        ] {
            let (_, said, status) = answered(method, body);
            assert!(said.starts_with(&format!(r#"{{"error":{{"code":{code},"#)), "{method} {body}: {said}");
            assert_eq!(status, http, "{method} {body}");
        }
        let nested = r#"{"commands":[{"batch":{"commands":[]}},7]}"#;
        let (calls, said, _) = answered("batch", nested);
        assert_eq!((calls.len(), said.matches(r#""code":107"#).count()), (2, 2), "{said}");
    }

    #[test]
    fn whom_a_backend_sends_away_comes_back_where_the_code_says_so() {
        for (code, reason) in [
            ("", CloseReason::Forbidden),
            (r#","disconnect":{"code":3011}"#, CloseReason::GoingAway),
            (r#","disconnect":{"code":4000}"#, CloseReason::GoingAway),
            (r#","disconnect":{"code":4500}"#, CloseReason::Forbidden),
            (r#","disconnect":{"code":3503}"#, CloseReason::Forbidden),
        ] {
            let (calls, _) = decode("disconnect", format!(r#"{{"user":"u"{code}}}"#).as_bytes());
            let whom = Whom::User(UserId::new("u"));
            assert_eq!(calls, [Ok(ApiCall::Disconnect { whom, reason })], "{code}");
        }
        let (calls, _) = decode(
            "history",
            br#"{"channel":"a","limit":2,"since":{"offset":1,"epoch":"00000000000000ab"}}"#,
        );
        let since = Some(Position { epoch: Epoch(0xab), offset: Offset(1) });
        assert_eq!(calls, [Ok(ApiCall::History { channel: channel(), since, limit: 2, reverse: false })]);
    }
}
