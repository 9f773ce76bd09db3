//! The terms on which a backend has clients hear a channel, as they travel.

use data_encoding::BASE64;
use fanfare_protocol::grant::Pass;
use fanfare_protocol::publication::{Format, Payload};
use fanfare_protocol::time::UnixMicros;
use serde::{Deserialize, Serialize};

/// A [`Pass`] that says nothing of who the client is. What is JSON travels as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Terms {
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    greeting: Option<Said>,
    /// Microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    notices: bool,
}

/// A payload, in the format it was given in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Json(String),
    /// In base64.
    MessagePack(String),
}

impl Terms {
    pub(super) fn of(pass: &Pass) -> Self {
        let text = |payload: &Payload| String::from_utf8_lossy(&payload.json()).into_owned();
        Self {
            info: pass.profile.as_ref().map(text),
            greeting: pass.greeting.as_ref().map(|it| match it.format() {
                Format::Json => Said::Json(text(it)),
                Format::MessagePack => Said::MessagePack(BASE64.encode(it.as_bytes())),
            }),
            until: pass.expires.map(|expires| expires.0),
            notices: pass.notices,
        }
    }

    pub(super) fn are_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The same again; none where it cannot be understood.
    pub(super) fn pass(&self) -> Option<Pass> {
        let json = |text: &String| Payload::parse(text).ok();
        let greeting = self.greeting.as_ref().map(|said| match said {
            Said::Json(text) => json(text),
            Said::MessagePack(text) => Payload::parse_msgpack(&BASE64.decode(text.as_bytes()).ok()?).ok(),
        });
        Some(Pass {
            user: None,
            profile: self.info.as_ref().map(json).map_or(Some(None), |it| it.map(Some))?,
            expires: self.until.map(UnixMicros),
            greeting: greeting.map_or(Some(None), |it| it.map(Some))?,
            notices: self.notices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_arrive_as_they_were_given() {
        let payload = |json| Some(Payload::parse(json).unwrap());
        let plain = Pass::default();
        for pass in [
            plain.clone(),
            Pass { profile: payload(r#"{"seat":"\u00e9"}"#), notices: true, ..plain.clone() },
            Pass { greeting: payload("[1,2]"), expires: Some(UnixMicros(7)), ..plain.clone() },
            Pass { greeting: Some(Payload::binary(b"\0\xff")), ..plain },
        ] {
            let text = serde_json::to_string(&Terms::of(&pass)).unwrap();
            let terms: Terms = serde_json::from_str(&text).unwrap();
            assert_eq!(terms.pass(), Some(pass), "{text}");
        }
        for broken in
            [r#"{"info":"{"}"#, r#"{"greeting":{"json":""}}"#, r#"{"greeting":{"message_pack":"?"}}"#]
        {
            let terms: Terms = serde_json::from_str(broken).unwrap();
            assert_eq!(terms.pass(), None, "{broken}");
        }
    }
}
