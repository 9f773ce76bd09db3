//! The native flavour of the server API: a JSON body each way, the method in the path.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::decode::{self, Fields};
use super::encode;
use crate::close::CloseReason;
use crate::command::{Command, Decoded, Rejection};
use crate::error::{ErrorCode, Failure};
use crate::event::Event;
use crate::grant::claims::ID_BYTES_MAX;
use crate::grant::{Pass, Pattern};
use crate::id::{SessionId, UserId};
use crate::server_api::{ApiCall, ApiReply, CONNECTIONS_MAX, Filter, NodeFacts, Whom};

mod amending;
mod many;

pub use many::{Call, MANY_MAX, Shape, decode_all, encode_all};

/// Reads a call.
///
/// # Errors
/// 4404 when there is no such method, 4400 when the body is not what it takes.
pub fn decode(method: &str, body: &[u8]) -> Result<ApiCall, Failure> {
    let read = || Fields::of_body(method, body);
    match method {
        "publish" => {
            let fields = read()?;
            Ok(ApiCall::Publish {
                channel: fields.channel(method)?,
                payload: fields.payload()?,
                key: fields.key()?,
                exclude: None,
            })
        }
        "history" => {
            let fields = read()?;
            Ok(ApiCall::History {
                channel: fields.channel(method)?,
                since: fields.since()?,
                limit: fields.limit()?,
                reverse: fields.reverse()?,
            })
        }
        "presence" => {
            let fields = read()?;
            Ok(ApiCall::Presence { channel: fields.channel(method)?, members: fields.members()? })
        }
        "channels" => {
            let Listing { pattern } = serde_json::from_slice(body)
                .ok()
                .filter(|_| body.trim_ascii_start().starts_with(b"{"))
                .ok_or_else(|| bad("channels takes a JSON object, and `pattern` is a string"))?;
            let within = Pattern::parse(pattern.as_deref().unwrap_or("*")).ok_or_else(|| {
                bad("`pattern` is a channel's name, in which * stands for any characters: room:*")
            })?;
            Ok(ApiCall::Channels { within })
        }
        "disconnect" => {
            let target = Target::of_body(method, body)?;
            Ok(ApiCall::Disconnect { whom: target.whom(["user", "session"])?, reason: target.reason()? })
        }
        "revoke" => {
            let target = Target::of_body(method, body)?;
            Ok(ApiCall::Revoke { whom: target.whom(["user", "token"])?, ttl: target.ttl()? })
        }
        "refresh" => {
            let whom = Target::of_body(method, body)?.whom(["user", "session"])?;
            Ok(ApiCall::Refresh { whom, amendment: amending::read(body)? })
        }
        "subscribe" => {
            let (fields, whom) = (read()?, Target::of_body(method, body)?.whom(["user", "session"])?);
            let pass = Pass::default();
            Ok(ApiCall::Subscribe { whom, channel: fields.channel(method)?, start: fields.start()?, pass })
        }
        "unsubscribe" => {
            let whom = Target::of_body(method, body)?.whom(["user", "session"])?;
            Ok(ApiCall::Unsubscribe { whom, channel: read()?.channel(method)? })
        }
        "connections" => connections(body),
        "nodes" => read().map(|_| ApiCall::Nodes),
        "history/remove" => Ok(ApiCall::RemoveHistory { channel: read()?.channel(method)? }),
        other => Err(Failure::new(ErrorCode::NotFound, format!("the server API has no method {other:?}"))),
    }
}

fn connections(body: &[u8]) -> Result<ApiCall, Failure> {
    let method = "connections";
    let target = Target::of_body(method, body)?;
    let fields = Fields::of_body(method, body)?;
    let filter = Filter {
        slowest: target.slowest.unwrap_or(false),
        channel: fields.has_channel().then(|| fields.channel(method)).transpose()?,
        ..target.filter()?
    };
    let limit @ 1..=CONNECTIONS_MAX = fields.limit()? else {
        return Err(bad(format!("`limit` must be a number from 1 to {CONNECTIONS_MAX}")));
    };
    if filter.slowest && target.after.is_some() {
        return Err(bad("with `slowest` there is one page: leave `after` out"));
    }
    Ok(ApiCall::Connections { filter, after: target.after.map(Into::into), limit })
}

/// How long a revocation holds where the caller does not say: most tokens live for less.
const REVOCATION_TTL: Duration = Duration::from_secs(24 * 3600);

/// The longest that one may hold.
const REVOCATION_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The fields of a call that asks which channels there are.
#[derive(Deserialize)]
struct Listing {
    #[serde(default, deserialize_with = "given")]
    pattern: Option<String>,
}

/// A field that is there: `null` is no value of it.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A channel that somebody is subscribed to.
#[derive(Serialize)]
struct Listed<'a> {
    channel: &'a str,
    users: u64,
    connections: u64,
}

fn given_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    decode::whole(deserializer).map(Some)
}

/// The fields of a call that speaks of somebody.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Target {
    #[serde(deserialize_with = "given")]
    user: Option<String>,
    #[serde(deserialize_with = "given")]
    session: Option<String>,
    #[serde(deserialize_with = "given")]
    token: Option<String>,
    #[serde(deserialize_with = "given_number")]
    code: Option<u64>,
    #[serde(deserialize_with = "given_number")]
    ttl_seconds: Option<u64>,
    #[serde(deserialize_with = "given")]
    after: Option<String>,
    #[serde(deserialize_with = "given")]
    slowest: Option<bool>,
}

impl Target {
    fn of_body(method: &str, body: &[u8]) -> Result<Self, Failure> {
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(bad(format!("{method} takes a JSON object")));
        }
        // The parser's own text would repeat what it met, and that may be a token that was meant to be named.
        serde_json::from_slice(body).map_err(|_| {
            bad("`user`, `session`, `token` and `after` are strings, `code` and `ttl_seconds` whole numbers, `slowest` true or false, each once")
        })
    }

    /// Whose connections are listed: all, or those of one.
    fn filter(&self) -> Result<Filter, Failure> {
        let mut filter = Filter::default();
        if self.user.is_some() || self.session.is_some() {
            match self.whom(["user", "session"])? {
                Whom::User(user) => filter.user = Some(user),
                Whom::Session(session) => filter.session = Some(session),
                Whom::Token(_) | Whom::Among(_) => {}
            }
        }
        Ok(filter)
    }

    /// The one of two that it names.
    fn whom(&self, kinds: [&str; 2]) -> Result<Whom, Failure> {
        let given = [("user", &self.user), ("session", &self.session), ("token", &self.token)];
        let mut given = given.into_iter().filter_map(|(kind, text)| Some((kind, text.as_deref()?)));
        let wrong = || bad(format!("name one: `{}` or `{}`", kinds[0], kinds[1]));
        let (Some((kind, text)), None) = (given.next(), given.next()) else { return Err(wrong()) };
        if !kinds.contains(&kind) {
            return Err(wrong());
        }
        if !(1..=ID_BYTES_MAX).contains(&text.len()) {
            return Err(bad(format!("`{kind}` has 1 to {ID_BYTES_MAX} bytes")));
        }
        match kind {
            "user" => Ok(Whom::User(UserId::new(text))),
            "token" => Ok(Whom::Token(text.into())),
            _ => SessionId::parse(text)
                .map(Whom::Session)
                .ok_or_else(|| bad("`session` is what `welcome` and members have: 32 hexadecimal digits")),
        }
    }

    /// Those that make sense to be sent by a backend; 4403 is for good.
    fn reason(&self) -> Result<CloseReason, Failure> {
        const REASONS: [CloseReason; 5] = [
            CloseReason::Forbidden,
            CloseReason::Normal,
            CloseReason::GoingAway,
            CloseReason::TryAgainLater,
            CloseReason::Unauthorized,
        ];
        let code = self.code.unwrap_or(CloseReason::Forbidden.number().into());
        REASONS
            .into_iter()
            .find(|reason| u64::from(reason.number()) == code)
            .ok_or_else(|| bad("`code` is one of 4403, 1000, 1001, 1013 and 4401"))
    }

    fn ttl(&self) -> Result<Duration, Failure> {
        let ttl = self.ttl_seconds.map_or(REVOCATION_TTL, Duration::from_secs);
        if ttl.is_zero() || ttl > REVOCATION_TTL_MAX {
            return Err(bad(format!("`ttl_seconds` is from 1 to {}", REVOCATION_TTL_MAX.as_secs())));
        }
        Ok(ttl)
    }
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

/// Reads the `publish` of a client that posts it: the same object as on the socket, whose `type` may be left out.
///
/// # Errors
/// What is wrong with it; another command than `publish` is 4404.
pub fn decode_publish(body: &[u8]) -> Decoded {
    let fields = Fields::of_body("publish", body);
    let fields = fields.map_err(Rejection::unnamed)?;
    let request = decode::request_of(&fields, Some("publish"))?;
    match request.command {
        Command::Publish { .. } => Ok(request),
        _ => {
            let text = "only a command of type \"publish\" can be posted here";
            let failure = Failure::new(ErrorCode::NotFound, text);
            Err(Rejection { id: request.id, ..Rejection::unnamed(failure) })
        }
    }
}

/// Spells the result of a call that succeeded.
pub fn encode_reply(reply: &ApiReply) -> Vec<u8> {
    match reply {
        ApiReply::Published { channel, position } => {
            encode_fields(&encode::at("published", channel.as_str(), *position))
        }
        ApiReply::Past { channel, page } => encode_fields(&encode::past(channel, page)),
        ApiReply::Present { channel, crowd } => encode_fields(&encode::present(channel, crowd)),
        ApiReply::Channels { channels } => {
            let listed = channels.iter().map(|(channel, crowd)| Listed {
                channel: channel.as_str(),
                users: crowd.users,
                connections: crowd.connections,
            });
            let listed: Vec<_> = listed.collect();
            serde_json::to_vec(&json!({"type": "channels", "channels": listed}))
                .expect("names and numbers can be written")
        }
        ApiReply::Connections(roll) => typed("connections", roll),
        ApiReply::Nodes(nodes) => typed("nodes", &Nodes { nodes }),
        ApiReply::Returned { payload } => {
            encode_fields(&encode::fields(&Event::Returned { payload: payload.clone() }))
        }
        ApiReply::Done => b"{}".to_vec(),
    }
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: &'a [NodeFacts],
}

/// An answer that says its type and then itself.
fn typed(kind: &'static str, answer: impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Typed<A> {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(flatten)]
        answer: A,
    }
    serde_json::to_vec(&Typed { kind, answer }).expect("names and numbers can be written")
}

/// Spells why a call failed.
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    encode_fields(&encode::failure_fields(failure))
}

fn encode_fields(fields: &encode::Fields<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode::write_json(&mut out, fields);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::channel::Channel;
    use crate::event::Crowd;
    use crate::history::Page;
    use crate::id::RequestId;
    use crate::publication::{Epoch, Offset, Position};
    use crate::server_api::{Particulars, Roll};

    #[test]
    fn publish_reads_a_channel_and_any_json() {
        let call = decode("publish", br#"{"data": null, "channel": "room:1", "more": 1}"#).unwrap();
        let ApiCall::Publish { channel, payload, key: None, exclude: None } = call else {
            panic!("{call:?}")
        };
        assert_eq!((channel.as_str(), payload.as_bytes()), ("room:1", &b"null"[..]));
    }

    #[test]
    fn a_posted_publish_is_that_of_the_socket() {
        for body in
            [r#"{"channel":"a","data":1,"id":7}"#, r#"{"type":"publish","id":7,"channel":"a","data":1}"#]
        {
            let request = decode_publish(body.as_bytes()).unwrap();
            assert_eq!(request.id, Some(RequestId::Number(7)));
            let Command::Publish { channel, payload, echo: true, key: None } = request.command else {
                panic!("{request:?}")
            };
            assert_eq!((channel.as_str(), payload.as_bytes()), ("a", &b"1"[..]));
        }
        for (body, code, id) in [
            (r#"{"type":"ping","id":7}"#, ErrorCode::NotFound, Some(RequestId::Number(7))),
            (r#"{"type":"shout","id":7}"#, ErrorCode::NotFound, Some(RequestId::Number(7))),
            (r#"{"id":7,"channel":"a"}"#, ErrorCode::BadRequest, Some(RequestId::Number(7))),
            (r#"[{"channel":"a","data":1}]"#, ErrorCode::BadRequest, None),
            ("", ErrorCode::BadRequest, None),
        ] {
            let rejection = decode_publish(body.as_bytes()).unwrap_err();
            assert_eq!((rejection.failure.code, rejection.id), (code, id), "{body}");
        }
    }

    #[test]
    fn a_bad_call_says_what_would_be_right() {
        for (method, body, code, part) in [
            ("publish", "", ErrorCode::BadRequest, "publish takes a JSON object"),
            ("publish", "[\"a\",1]", ErrorCode::BadRequest, "not an array"),
            ("publish", "{\"channel\":\"a\"}", ErrorCode::BadRequest, "`data` is missing"),
            ("publish", "{\"channel\":1,\"data\":1}", ErrorCode::BadRequest, "`channel` must be a string"),
            ("publish", "{\"channel\":\"a b\",\"data\":1}", ErrorCode::BadRequest, "0x20"),
            (
                "publish",
                "{\"channel\":\"a\",\"data\":1,\"key\":\"\"}",
                ErrorCode::BadRequest,
                "`key` must be",
            ),
            ("history", "{}", ErrorCode::BadRequest, "`channel` is missing: history needs one"),
            ("history", "{\"channel\":\"a\",\"limit\":1001}", ErrorCode::BadRequest, "from 0 to 1000"),
            ("history", "{\"channel\":\"a\",\"limit\":1.5}", ErrorCode::BadRequest, "from 0 to 1000"),
            ("history", "{\"channel\":\"a\",\"limit\":-1}", ErrorCode::BadRequest, "from 0 to 1000"),
            ("history", "{\"channel\":\"a\",\"since\":7}", ErrorCode::BadRequest, "`since` must be"),
            ("history/remove", "[]", ErrorCode::BadRequest, "history/remove takes a JSON object"),
            ("disconnect", "{}", ErrorCode::BadRequest, "name one: `user` or `session`"),
            ("disconnect", "{\"token\":\"t\"}", ErrorCode::BadRequest, "name one: `user` or `session`"),
            ("disconnect", "{\"user\":\"a\",\"session\":\"b\"}", ErrorCode::BadRequest, "name one"),
            ("disconnect", "{\"session\":\"b\"}", ErrorCode::BadRequest, "32 hexadecimal digits"),
            ("disconnect", "{\"user\":\"\"}", ErrorCode::BadRequest, "1 to 255 bytes"),
            ("disconnect", "{\"user\":7}", ErrorCode::BadRequest, "are strings"),
            ("disconnect", "{\"user\":\"a\",\"code\":4408}", ErrorCode::BadRequest, "`code` is one of"),
            ("revoke", "[]", ErrorCode::BadRequest, "revoke takes a JSON object"),
            ("revoke", "{\"session\":\"b\"}", ErrorCode::BadRequest, "name one: `user` or `token`"),
            ("revoke", "{\"user\":\"a\",\"ttl_seconds\":0}", ErrorCode::BadRequest, "from 1 to 2592000"),
            ("refresh", "[]", ErrorCode::BadRequest, "refresh takes a JSON object"),
            ("refresh", "{\"expires\":null}", ErrorCode::BadRequest, "name one: `user` or `session`"),
            ("refresh", "{\"user\":\"a\"}", ErrorCode::BadRequest, "`expires` is missing"),
            ("refresh", "{\"user\":\"a\",\"expires\":-1}", ErrorCode::BadRequest, "whole Unix seconds"),
            ("channels", "[]", ErrorCode::BadRequest, "channels takes a JSON object"),
            ("channels", "{\"pattern\":7}", ErrorCode::BadRequest, "`pattern` is a string"),
            ("channels", "{\"pattern\":\"a b\"}", ErrorCode::BadRequest, "`pattern` is a channel's name"),
            ("subscribe", "{\"user\":\"a\"}", ErrorCode::BadRequest, "`channel` is missing"),
            ("subscribe", "{\"channel\":\"a\"}", ErrorCode::BadRequest, "name one: `user` or `session`"),
            (
                "subscribe",
                "{\"channel\":\"a\",\"user\":\"u\",\"rewind\":-1}",
                ErrorCode::BadRequest,
                "`rewind` must be",
            ),
            ("unsubscribe", "{\"channel\":\"a\"}", ErrorCode::BadRequest, "name one: `user` or `session`"),
            ("connections", "[]", ErrorCode::BadRequest, "connections takes a JSON object"),
            ("connections", "{\"user\":null}", ErrorCode::BadRequest, "are strings"),
            ("connections", "{\"limit\":0}", ErrorCode::BadRequest, "from 1 to 1000"),
            ("connections", "{\"channel\":7}", ErrorCode::BadRequest, "`channel` must be a string"),
            ("connections", "{\"user\":\"a\",\"session\":\"b\"}", ErrorCode::BadRequest, "name one"),
            ("nodes", "[]", ErrorCode::BadRequest, "nodes takes a JSON object"),
            ("shout", "{}", ErrorCode::NotFound, "no method \"shout\""),
        ] {
            let failure = decode(method, body.as_bytes()).unwrap_err();
            assert_eq!(failure.code, code);
            assert!(failure.explanation.contains(part), "{}", failure.explanation);
        }
    }

    #[test]
    fn the_past_is_asked_for_and_told_as_on_the_socket() {
        let room = || Channel::parse("room:1").unwrap();
        let epoch = Epoch::parse("9f3c1a7b5e0d4520").unwrap();
        let body = br#"{"channel":"room:1","since":{"epoch":"9f3c1a7b5e0d4520","offset":1},"reverse":true}"#;
        let since = Some(Position { epoch, offset: Offset(1) });
        assert_eq!(
            decode("history", body),
            Ok(ApiCall::History { channel: room(), since, limit: 100, reverse: true })
        );
        let body = br#"{"channel":"room:1","since":{"epoch":"9f3c1a7b5e0d4520","offset":1.0},"limit":1e2,"reverse":true}"#;
        assert_eq!(
            decode("history", body),
            Ok(ApiCall::History { channel: room(), since, limit: 100, reverse: true }),
            "a whole number is one however it is written"
        );
        let page = Page { epoch, top: Offset(1), publications: Vec::new() };
        assert_eq!(
            String::from_utf8(encode_reply(&ApiReply::Past { channel: room(), page })).unwrap(),
            r#"{"type":"history","channel":"room:1","epoch":"9f3c1a7b5e0d4520","offset":1,"messages":[]}"#
        );

        let call = decode("history/remove", br#"{"channel":"room:1"}"#);
        assert_eq!(call, Ok(ApiCall::RemoveHistory { channel: room() }));
        assert_eq!(encode_reply(&ApiReply::Done), b"{}");
    }

    #[test]
    fn connections_are_asked_for_and_told_page_by_page() {
        let call =
            decode("connections", br#"{"user":"ann","channel":"room:1","limit":7,"after":"x"}"#).unwrap();
        let ApiCall::Connections { filter, after: Some(after), limit: 7 } = call else { panic!("{call:?}") };
        assert_eq!((filter.user, &*after), (Some(UserId::new("ann")), "x"));
        assert_eq!((filter.channel, filter.session), (Channel::parse("room:1").ok(), None));
        let all = decode("connections", b"{}");
        assert_eq!(all, Ok(ApiCall::Connections { filter: Filter::default(), after: None, limit: 100 }));
        let one = Particulars {
            session: "6b1e".into(),
            user: None,
            node: "n".into(),
            address: [127, 0, 0, 1].into(),
            transport: "sse".into(),
            protocol: "p".into(),
            connected: 1,
            queued_bytes: 2,
            channels: None,
        };
        let roll = Roll { connections: vec![one], next: Some("n~1~2".into()), unanswered: vec!["m".into()] };
        assert_eq!(
            String::from_utf8(encode_reply(&ApiReply::Connections(roll))).unwrap(),
            r#"{"type":"connections","connections":[{"session":"6b1e","user":null,"node":"n","address":"127.0.0.1","transport":"sse","protocol":"p","connected":1,"queued_bytes":2}],"next":"n~1~2","unanswered":["m"]}"#
        );
    }

    #[test]
    fn channels_are_listed_by_a_pattern() {
        let within = |text| Pattern::parse(text).unwrap();
        assert_eq!(decode("channels", b"{}"), Ok(ApiCall::Channels { within: within("*") }));
        let some = decode("channels", br#"{"pattern":"room:*"}"#);
        assert_eq!(some, Ok(ApiCall::Channels { within: within("room:*") }));
        let crowd = Arc::new(Crowd { users: 2, connections: 3, members: None });
        let channels = vec![(Channel::parse("room:1").unwrap(), crowd)];
        let said: serde_json::Value =
            serde_json::from_slice(&encode_reply(&ApiReply::Channels { channels })).unwrap();
        let listed = json!([{"channel": "room:1", "users": 2, "connections": 3}]);
        assert_eq!(said, json!({"type": "channels", "channels": listed}));
    }

    #[test]
    fn a_failure_is_the_error_object_of_the_socket() {
        let failure = Failure::retry(ErrorCode::Unavailable, "later", Duration::from_millis(1500));
        let text = String::from_utf8(encode_failure(&failure)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"error","code":4503,"reason":"unavailable","message":"later","retry_after":1500}"#
        );
    }
}
