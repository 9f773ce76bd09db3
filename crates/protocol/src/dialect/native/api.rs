//! The native flavour of the server API: a JSON body each way, the method in the path.

use super::decode::{self, Fields};
use super::encode;
use crate::command::{Command, Decoded, Rejection};
use crate::error::{ErrorCode, Failure};
use crate::server_api::{ApiCall, ApiReply};

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
        "history/remove" => Ok(ApiCall::RemoveHistory { channel: read()?.channel(method)? }),
        other => Err(Failure::new(ErrorCode::NotFound, format!("the server API has no method {other:?}"))),
    }
}

/// Reads the `publish` of a client that posts it: the same object as on the socket, whose `type` may be left out.
///
/// # Errors
/// What is wrong with it; another command than `publish` is 4404.
pub fn decode_publish(body: &[u8]) -> Decoded {
    let fields = Fields::of_body("publish", body);
    let fields = fields.map_err(|failure| Rejection { id: None, channel: None, failure })?;
    let request = decode::request_of(&fields, Some("publish"))?;
    match request.command {
        Command::Publish { .. } => Ok(request),
        _ => {
            let text = "only a command of type \"publish\" can be posted here";
            let failure = Failure::new(ErrorCode::NotFound, text);
            Err(Rejection { id: request.id, channel: None, failure })
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
        ApiReply::Done => b"{}".to_vec(),
    }
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
    use super::*;
    use crate::channel::Channel;
    use crate::history::Page;
    use crate::id::RequestId;
    use crate::publication::{Epoch, Offset, Position};

    #[test]
    fn publish_reads_a_channel_and_any_json() {
        let call = decode("publish", br#"{"data": null, "channel": "room:1", "more": 1}"#).unwrap();
        let ApiCall::Publish { channel, payload, key: None } = call else { panic!("{call:?}") };
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
            ("history", "{\"channel\":\"a\",\"since\":7}", ErrorCode::BadRequest, "`since` must be"),
            ("history/remove", "[]", ErrorCode::BadRequest, "history/remove takes a JSON object"),
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
    fn a_failure_is_the_error_object_of_the_socket() {
        let failure = Failure::retry(ErrorCode::Unavailable, "later", std::time::Duration::from_millis(1500));
        let text = String::from_utf8(encode_failure(&failure)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"error","code":4503,"reason":"unavailable","message":"later","retry_after":1500}"#
        );
    }
}
