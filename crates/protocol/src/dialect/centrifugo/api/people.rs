//! Calls about clients: what they are to hear, for how long they may stay, who is to go.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::emulation;
use super::super::wire::{Data, Since};
use super::{Call, bad, named};
use crate::close::CloseReason;
use crate::command::Start;
use crate::error::Failure;
use crate::grant::claims::Overrides;
use crate::grant::{Amendment, Pass, TOKEN_BYTES_MAX};
use crate::id::{SessionId, UserId};
use crate::publication::Payload;
use crate::server_api::{Among, ApiCall, Whom};
use crate::time::UnixMicros;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Cow<'a, str>,
    #[serde(borrow)]
    recover_since: Option<Since<'a>>,
    /// Unix seconds; not above 0: never.
    expire_at: i64,
    expired: bool,
    r#override: Overrides,
    disconnect: Disconnect,
    #[serde(borrow)]
    whitelist: Vec<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Disconnect {
    code: u16,
}

impl Fields<'_> {
    pub(super) fn call(&self, method: &str) -> Call {
        let whom = self.whom()?;
        match method {
            "subscribe" => {
                let channel = named(&self.channel)?;
                let start = self.recover_since.as_ref().map_or(Start::Live, |it| Start::Since(it.position()));
                Ok(ApiCall::Subscribe { whom, channel, start, pass: self.pass()? })
            }
            "unsubscribe" => Ok(ApiCall::Unsubscribe { whom, channel: named(&self.channel)? }),
            "refresh" => {
                // What ended long ago ends at once.
                let expires = if self.expired { Some(0) } else { self.expires() };
                Ok(ApiCall::Refresh { whom, amendment: Amendment { expires, profile: self.shown()? } })
            }
            _ => {
                let comes_back = matches!(self.disconnect.code, 3000..=3499 | 4000..=4499);
                let reason = if comes_back { CloseReason::GoingAway } else { CloseReason::Forbidden };
                Ok(ApiCall::Disconnect { whom, reason })
            }
        }
    }

    fn whom(&self) -> Result<Whom, Failure> {
        let user = Some(&*self.user).filter(|user| !user.is_empty()).map(UserId::new);
        let session = Some(&*self.client).filter(|id| !id.is_empty()).map(client).transpose()?;
        let wrong = || bad("`session` is what `connect` answers where there is no WebSocket");
        let secret = Some(&*self.session).filter(|it| !it.is_empty());
        let secret = secret.map(|it| emulation::secret(it).ok_or_else(wrong)).transpose()?;
        let except = self.whitelist.iter().map(|id| client(id)).collect::<Result<Vec<_>, _>>()?;
        match (user, session, secret) {
            (None, None, None) => Err(bad("`user` is missing")),
            (Some(user), None, None) if except.is_empty() => Ok(Whom::User(user)),
            (None, Some(session), None) if except.is_empty() => Ok(Whom::Session(session)),
            (user, session, secret) => Ok(Whom::Among(Box::new(Among { user, session, secret, except }))),
        }
    }

    /// On which terms a channel is heard.
    fn pass(&self) -> Result<Pass, Failure> {
        let greeting = match self.data {
            None if !self.b64data.is_empty() => {
                Some(Data::Bytes(&decoded("b64data", &self.b64data)?).payload())
            }
            data => data.map(Payload::from_raw),
        };
        Ok(Pass {
            user: None,
            profile: self.shown()?,
            expires: self.expires().map(|seconds| UnixMicros(seconds.saturating_mul(1_000_000))),
            greeting,
            notices: self.r#override.notices(),
        })
    }

    /// What others are shown: JSON, whatever it is.
    fn shown(&self) -> Result<Option<Payload>, Failure> {
        let shown = if self.info.is_some() || self.b64info.is_empty() {
            self.info.map(Payload::from_raw)
        } else {
            let said = Data::Bytes(&decoded("b64info", &self.b64info)?).payload();
            Some(Payload::from_trusted(said.json().into_owned().into()))
        };
        // As much as a token could have brought.
        match shown.as_ref().is_some_and(|shown| shown.as_bytes().len() > TOKEN_BYTES_MAX) {
            true => Err(bad(format!("`info` has at most {TOKEN_BYTES_MAX} bytes"))),
            false => Ok(shown),
        }
    }

    fn expires(&self) -> Option<u64> {
        u64::try_from(self.expire_at).ok().filter(|seconds| *seconds > 0)
    }
}

fn client(id: &str) -> Result<SessionId, Failure> {
    SessionId::parse(id).ok_or_else(|| bad("`client` is what `connect` answers: 32 hexadecimal digits"))
}

fn decoded(name: &str, encoded: &str) -> Result<Vec<u8>, Failure> {
    let bytes = BASE64.decode(encoded.as_bytes());
    bytes.map_err(|_| bad(format!("`{name}` is base64 with its padding")))
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use crate::channel::Channel;
    use crate::publication::{Epoch, Offset, Position};

    fn read(method: &str, body: &str) -> Call {
        let (mut calls, _) = decode(method, body.as_bytes());
        assert_eq!(calls.len(), 1, "{method} {body}");
        calls.pop().unwrap()
    }

    const CLIENT: &str = "6b1e4f0a92d78938c1a552e37d9004bf";

    #[test]
    fn a_call_means_those_of_whom_all_is_so_that_it_names() {
        let session = SessionId::parse(CLIENT);
        let user = || Some(UserId::new("ann"));
        let among = |among| Whom::Among(Box::new(among));
        let kept = vec![session.unwrap()];
        for (body, whom) in [
            (r#""user":"ann""#.to_owned(), Whom::User(UserId::new("ann"))),
            (format!(r#""client":"{CLIENT}""#), Whom::Session(session.unwrap())),
            (
                format!(r#""user":"ann","client":"{CLIENT}""#),
                among(Among { user: user(), session, ..Among::default() }),
            ),
            (
                format!(r#""user":"ann","session":"{:032x}""#, 7),
                among(Among { user: user(), secret: Some(7), ..Among::default() }),
            ),
            (
                format!(r#""user":"ann","whitelist":["{CLIENT}"]"#),
                among(Among { user: user(), except: kept, ..Among::default() }),
            ),
        ] {
            let reason = CloseReason::Forbidden;
            assert_eq!(
                read("disconnect", &format!("{{{body}}}")),
                Ok(ApiCall::Disconnect { whom: whom.clone(), reason }),
                "{body}"
            );
            let channel = Channel::parse("a").unwrap();
            let said = read("unsubscribe", &format!(r#"{{{body},"channel":"a"}}"#));
            assert_eq!(said, Ok(ApiCall::Unsubscribe { whom, channel }), "{body}");
        }
        for wrong in
            ["", r#""client":"x""#, r#""user":"ann","session":"x""#, r#""user":"ann","whitelist":["x"]"#]
        {
            assert!(read("disconnect", &format!("{{{wrong}}}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_backend_says_for_how_long_a_client_may_stay() {
        let payload = |json| Some(Payload::parse(json).unwrap());
        for (fields, expires, profile) in [
            (r#","expire_at":1796000000"#, Some(1_796_000_000), None),
            (r#","expire_at":0,"info":{"a":1}"#, None, payload(r#"{"a":1}"#)),
            (r#","b64info":"NQ==""#, None, payload("5")),
            (r#","expired":true,"expire_at":1796000000"#, Some(0), None),
        ] {
            let said = read("refresh", &format!(r#"{{"user":"ann"{fields}}}"#));
            let whom = Whom::User(UserId::new("ann"));
            assert_eq!(
                said,
                Ok(ApiCall::Refresh { whom, amendment: Amendment { expires, profile } }),
                "{fields}"
            );
        }
        let long = format!(r#"{{"user":"ann","info":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX));
        assert!(read("refresh", &long).is_err());
    }

    #[test]
    fn a_backend_says_on_which_terms_a_channel_is_heard() {
        let payload = |json| Some(Payload::parse(json).unwrap());
        let position = Position { epoch: Epoch(0xab), offset: Offset(7) };
        for (fields, start, pass) in [
            ("", Start::Live, Pass::default()),
            (r#","expire_at":0,"override":{}"#, Start::Live, Pass::default()),
            (
                r#","info":{"seat":1},"data":"hello","expire_at":9,"override":{"force_push_join_leave":{"value":true}}"#,
                Start::Live,
                Pass {
                    user: None,
                    profile: payload(r#"{"seat":1}"#),
                    greeting: payload(r#""hello""#),
                    expires: Some(UnixMicros(9_000_000)),
                    notices: true,
                },
            ),
            (
                r#","b64info":"NQ==","b64data":"AP8=","recover_since":{"offset":7,"epoch":"00000000000000ab"}"#,
                Start::Since(position),
                Pass { profile: payload("5"), greeting: Some(Payload::binary(b"\0\xff")), ..Pass::default() },
            ),
        ] {
            let said = read("subscribe", &format!(r#"{{"user":"ann","channel":"a"{fields}}}"#));
            let (whom, channel) = (Whom::User(UserId::new("ann")), Channel::parse("a").unwrap());
            assert_eq!(said, Ok(ApiCall::Subscribe { whom, channel, start, pass }), "{fields}");
        }
        for wrong in [r#","b64data":"?""#, r#","b64info":"?""#, r#","expire_at":"soon""#] {
            let said = read("subscribe", &format!(r#"{{"user":"ann","channel":"a"{wrong}}}"#));
            assert!(said.is_err(), "{wrong}");
        }
        assert!(read("subscribe", r#"{"user":"ann"}"#).is_err(), "a channel has a name");
    }
}
