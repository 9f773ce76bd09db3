//! The native flavour of the server API: a JSON body each way, the method in the path.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode;
use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::publication::Payload;
use crate::server_api::{ApiCall, ApiReply};

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Publish<'a> {
    channel: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads a call.
///
/// # Errors
/// 4404 when there is no such method, 4400 when the body is not what it takes.
pub fn decode(method: &str, body: &[u8]) -> Result<ApiCall, Failure> {
    match method {
        "publish" => publish(body),
        other => Err(Failure::new(ErrorCode::NotFound, format!("the server API has no method {other:?}"))),
    }
}

fn publish(body: &[u8]) -> Result<ApiCall, Failure> {
    let bad = |explanation: String| Failure::new(ErrorCode::BadRequest, explanation);
    // To serde an array is a struct without its field names; to us it is a mistake.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(bad("publish takes {\"channel\": …, \"data\": …}, not an array".into()));
    }
    let fields: Publish<'_> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("publish takes {{\"channel\": …, \"data\": …}}: {error}")))?;
    let name: String =
        serde_json::from_str(fields.channel.get()).map_err(|_| bad("`channel` must be a string".into()))?;
    let channel =
        Channel::parse(&name).map_err(|error| bad(format!("`channel` is not a channel name: {error}")))?;
    Ok(ApiCall::Publish { channel, payload: Payload::from_raw(fields.data) })
}

/// Spells the result of a call that succeeded.
pub fn encode_reply(reply: &ApiReply) -> Vec<u8> {
    match reply {
        ApiReply::Published { channel, position } => {
            encode_fields(&encode::at("published", channel.as_str(), position.as_ref()))
        }
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

    #[test]
    fn publish_reads_a_channel_and_any_json() {
        let call = decode("publish", br#"{"data": null, "channel": "room:1", "more": 1}"#).unwrap();
        let ApiCall::Publish { channel, payload } = call;
        assert_eq!((channel.as_str(), payload.as_bytes()), ("room:1", &b"null"[..]));
    }

    #[test]
    fn a_bad_call_says_what_would_be_right() {
        for (method, body, code, part) in [
            ("publish", "", ErrorCode::BadRequest, "publish takes {\"channel\": …, \"data\": …}"),
            ("publish", "[\"a\",1]", ErrorCode::BadRequest, "not an array"),
            ("publish", "{\"channel\":\"a\"}", ErrorCode::BadRequest, "missing field `data`"),
            ("publish", "{\"channel\":1,\"data\":1}", ErrorCode::BadRequest, "`channel` must be a string"),
            ("publish", "{\"channel\":\"a b\",\"data\":1}", ErrorCode::BadRequest, "0x20"),
            ("shout", "{}", ErrorCode::NotFound, "no method \"shout\""),
        ] {
            let failure = decode(method, body.as_bytes()).unwrap_err();
            assert_eq!(failure.code, code);
            assert!(failure.explanation.contains(part), "{}", failure.explanation);
        }
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
