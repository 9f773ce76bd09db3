//! What `refresh` changes of what is known of a client.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{bad, decode};
use crate::error::Failure;
use crate::grant::{Amendment, TOKEN_BYTES_MAX};
use crate::publication::Payload;

#[derive(Deserialize)]
struct Refresh<'a> {
    #[serde(borrow, default, deserialize_with = "decode::present")]
    expires: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "decode::present")]
    info: Option<&'a RawValue>,
}

/// Reads it from the body of a call that is known to be an object.
pub(super) fn read(body: &[u8]) -> Result<Amendment, Failure> {
    let refresh = serde_json::from_slice(body);
    let Refresh { expires, info } = refresh.map_err(|_| bad("give `expires` and `info` once"))?;
    let expires = expires.ok_or_else(|| {
        bad("`expires` is missing: say when they expire, in Unix seconds, or null for never")
    })?;
    let expires = match expires.get() {
        "null" => None,
        _ => Some(
            decode::number(expires)
                .ok_or_else(|| bad("`expires` must be a number of whole Unix seconds, or null for never"))?,
        ),
    };
    // As much as a token could have brought.
    if info.is_some_and(|info| info.get().len() > TOKEN_BYTES_MAX) {
        return Err(bad(format!("`info` has at most {TOKEN_BYTES_MAX} bytes")));
    }
    Ok(Amendment { expires, profile: info.map(Payload::from_raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_it_ends_is_a_number_or_never_and_what_is_shown_is_any_json() {
        for (body, expires, info) in [
            (r#"{"expires":1796000000}"#, Some(1_796_000_000), None),
            (r#"{"expires":1.796e9,"info":null}"#, Some(1_796_000_000), Some("null")),
            (r#"{"info":{"a":[1]},"expires":null}"#, None, Some(r#"{"a":[1]}"#)),
            (r#"{"expires":0}"#, Some(0), None),
        ] {
            let profile = info.map(|json| Payload::parse(json).unwrap());
            assert_eq!(read(body.as_bytes()), Ok(Amendment { expires, profile }), "{body}");
        }
        let most = |bytes: usize| format!(r#"{{"expires":null,"info":"{}"}}"#, "x".repeat(bytes - 2));
        assert!(read(most(TOKEN_BYTES_MAX).as_bytes()).is_ok());
        for body in [
            r#"{"expires":1.5}"#,
            r#"{"expires":"1796000000"}"#,
            r#"{"expires":1e300}"#,
            r#"{"expires":1,"expires":2}"#,
            &most(TOKEN_BYTES_MAX + 1),
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body:.40}");
        }
    }
}
