//! The claims of a token whose signature is good: read, held against what is expected, and turned into a [`Grant`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Allowance, Grant, Pass, Pattern, TokenFault, Verb};
use crate::channel::Channel;
use crate::id::UserId;
use crate::publication::Payload;
use crate::time::UnixMicros;

/// The longest user id, in bytes, and the longest name of a token.
pub const ID_BYTES_MAX: usize = 255;

/// What tokens must say, whoever holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// `iss`; anyone where it is not set.
    pub issuer: Option<Box<str>>,
    /// What `aud` names among others; anything where it is not set.
    pub audience: Option<Box<str>>,
    /// What the clock of whoever made the token may disagree by.
    pub leeway: Duration,
}

/// Claims that are known. A claim that is there is not null, and is there once.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims<'a> {
    #[serde(borrow, deserialize_with = "present")]
    sub: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "present")]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "present")]
    aud: Option<Audience<'a>>,
    #[serde(borrow, deserialize_with = "present")]
    jti: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "present")]
    exp: Option<f64>,
    #[serde(deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(deserialize_with = "present")]
    iat: Option<f64>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channels: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, deserialize_with = "present")]
    allow: Option<Vec<Allow<'a>>>,
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<Cow<'a, str>>,
    /// When what the token opens ends, where that is not when the token does; 0: never.
    #[serde(deserialize_with = "present")]
    expire_at: Option<f64>,
    /// `info`, where that is no JSON.
    #[serde(borrow, deserialize_with = "present")]
    b64info: Option<Cow<'a, str>>,
    /// The same as `channels`, with terms.
    #[serde(borrow, deserialize_with = "present")]
    subs: Option<BTreeMap<Cow<'a, str>, Option<Terms<'a>>>>,
    /// Terms of the one channel that the token is for, and whatever it likes in one that is for none.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<&'a RawValue>,
    #[serde(borrow)]
    r#override: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

/// What is said of one channel, beyond that the holder may hear it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Terms<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Cow<'a, str>>,
    r#override: Overrides,
}

/// What is otherwise than the channel's namespace has it. The rest of these are not this holder's matter.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Overrides {
    force_push_join_leave: Switch,
}

impl Overrides {
    /// Whether the holder is told who joins and leaves without asking.
    pub(crate) const fn notices(&self) -> bool {
        self.force_push_join_leave.value
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Switch {
    value: bool,
}

/// One audience or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Several(#[serde(borrow)] Vec<Cow<'a, str>>),
}

#[derive(Deserialize)]
struct Allow<'a> {
    #[serde(borrow)]
    channels: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    can: Vec<Cow<'a, str>>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads the claims of a token whose signature is good.
///
/// # Errors
/// The first of these that is so: the JSON is not one of claims; the token is over, or not yet valid, by more than the
/// leeway; it is of another issuer or for another audience; what it grants cannot be understood.
pub fn read(json: &[u8], expected: &Expected, now: UnixMicros) -> Result<Grant, TokenFault> {
    // To serde an array is a struct without its field names; to us it is no set of claims.
    let claims = Some(json).filter(|json| json.trim_ascii_start().starts_with(b"{"));
    // JSON is UTF-8; in a claim that nobody reads the parser would not mind.
    let claims = claims.and_then(|json| str::from_utf8(json).ok());
    let claims: Option<Claims<'_>> = claims.and_then(|json| serde_json::from_str(json).ok());
    let claims = claims.ok_or(TokenFault::Claims(
        "`exp`, `nbf` and `iat` are numbers, `sub`, `iss`, `jti` and `channel` strings, `channels` and `allow` lists",
    ))?;
    let leeway = micros(expected.leeway);
    let ends = claims.exp.map(time).transpose()?.map(|exp| UnixMicros(exp.0.saturating_add(leeway)));
    if ends.is_some_and(|ends| ends <= now) {
        return Err(TokenFault::Expired);
    }
    let until = match claims.expire_at {
        None => claims.exp,
        Some(seconds) => Some(seconds).filter(|seconds| *seconds != 0.0),
    };
    let ends = until.map(time).transpose()?.map(|until| UnixMicros(until.0.saturating_add(leeway)));
    if ends.is_some_and(|ends| ends <= now) {
        return Err(TokenFault::Expired);
    }
    if claims.nbf.map(time).transpose()?.is_some_and(|nbf| nbf.0.saturating_sub(leeway) > now.0) {
        return Err(TokenFault::NotYetValid);
    }
    if expected.issuer.is_some() && expected.issuer.as_deref() != claims.iss.as_deref() {
        return Err(TokenFault::Issuer);
    }
    if expected
        .audience
        .as_ref()
        .is_some_and(|wanted| !claims.aud.as_ref().is_some_and(|aud| aud.names(wanted)))
    {
        return Err(TokenFault::Audience);
    }
    // Some issuers say so that their token is good for permissions alone.
    let sub = claims.sub.as_deref().filter(|sub| !sub.is_empty());
    let user = id(sub, "`sub` has at most 255 bytes")?.map(UserId::new);
    let jti = claims.jti.as_deref();
    let proves = claims.channel.as_deref().map(Channel::parse).transpose();
    let proves = proves.map_err(|_| TokenFault::Claims("`channel` is the name of a channel"))?;
    let passes = passes(&claims, proves.as_ref())?;
    Ok(Grant {
        user,
        token: id(jti, "`jti` has 1 to 255 bytes")?.map(Into::into),
        issued: claims.iat.map(time).transpose()?.map(|iat| iat.0 / 1_000_000),
        profile: profile(claims.info, claims.b64info.as_deref())?,
        expires: until.map(time).transpose()?.map(|until| until.0 / 1_000_000),
        ends,
        is_renewable: false,
        channels: channels(
            claims.channels.into_iter().flatten().chain(claims.subs.into_iter().flatten().map(|it| it.0)),
        )?,
        passes,
        meta: claims.meta.map(|meta| Box::new(Payload::from_raw(meta))),
        proves,
        allowances: claims.allow.iter().flatten().map(allowance).collect::<Result<_, _>>()?,
        acquaintances: Vec::new(),
    })
}

impl Audience<'_> {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(it) => it == wanted,
            Self::Several(them) => them.iter().any(|it| it == wanted),
        }
    }
}

/// A NumericDate, which may have a fraction and may lie before 1970.
fn time(seconds: f64) -> Result<UnixMicros, TokenFault> {
    if !seconds.is_finite() {
        return Err(TokenFault::Claims("`exp` and `nbf` are seconds since 1970"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates"
    )]
    Ok(UnixMicros((seconds * 1e6) as u64))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn id<'a>(text: Option<&'a str>, wrong: &'static str) -> Result<Option<&'a str>, TokenFault> {
    match text {
        Some(text) if !(1..=ID_BYTES_MAX).contains(&text.len()) => Err(TokenFault::Claims(wrong)),
        fitting => Ok(fitting),
    }
}

fn profile(info: Option<&RawValue>, encoded: Option<&str>) -> Result<Option<Payload>, TokenFault> {
    let Some(encoded) = encoded.filter(|_| info.is_none()) else { return Ok(info.map(Payload::from_raw)) };
    // What is shown of a user is JSON, whatever it is.
    let said = decoded(encoded, "`b64info` is base64 with its padding")?;
    Ok(Some(Payload::from_trusted(said.json().into_owned().into())))
}

/// What is said of some channels beyond that the holder may hear them.
fn passes(claims: &Claims<'_>, proves: Option<&Channel>) -> Result<Vec<(Channel, Pass)>, TokenFault> {
    let mut passes = Vec::new();
    for (name, terms) in claims.subs.iter().flatten() {
        let Some(terms) = terms else { continue };
        passes.push((named(name)?, terms.pass()?));
    }
    if let Some(channel) = proves {
        let wrong = |_| TokenFault::Claims("`b64data` is a string, `override` an object");
        let r#override = claims.r#override.map(|it| serde_json::from_str(it.get())).transpose();
        let b64data = claims.b64data.map(|it| serde_json::from_str(it.get())).transpose();
        let terms = Terms {
            data: claims.data,
            b64data: b64data.map_err(wrong)?,
            r#override: r#override.map_err(wrong)?.unwrap_or_default(),
            ..Terms::default()
        };
        passes.push((channel.clone(), terms.pass()?));
    }
    passes.retain(|(_, pass)| *pass != Pass::default());
    Ok(passes)
}

impl Terms<'_> {
    fn pass(&self) -> Result<Pass, TokenFault> {
        let greeting = match (self.data, self.b64data.as_deref()) {
            (None, Some(encoded)) => Some(decoded(encoded, "`b64data` is base64 with its padding")?),
            (data, _) => data.map(Payload::from_raw),
        };
        Ok(Pass {
            profile: profile(self.info, self.b64info.as_deref())?,
            greeting,
            notices: self.r#override.notices(),
            ..Pass::default()
        })
    }
}

/// What is spelt in base64: JSON, or bytes.
fn decoded(encoded: &str, wrong: &'static str) -> Result<Payload, TokenFault> {
    let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| TokenFault::Claims(wrong))?;
    let json = str::from_utf8(&bytes).ok().and_then(|text| Payload::parse(text).ok());
    Ok(json.unwrap_or_else(|| Payload::binary(&bytes)))
}

fn named(name: &str) -> Result<Channel, TokenFault> {
    Channel::parse(name).map_err(|_| TokenFault::Claims("`channels` holds names of channels"))
}

fn channels<'a>(names: impl Iterator<Item = Cow<'a, str>>) -> Result<Vec<Channel>, TokenFault> {
    let mut channels = Vec::new();
    for name in names {
        let channel = named(&name)?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

fn allowance(claim: &Allow<'_>) -> Result<Allowance, TokenFault> {
    let patterns = claim.channels.iter().map(|it| Pattern::parse(it)).collect::<Option<_>>();
    let verbs = claim.can.iter().map(|it| Verb::parse(it)).collect::<Option<_>>();
    Ok(Allowance {
        channels: patterns.ok_or(TokenFault::Claims("`allow` names channels, `*` for any characters"))?,
        verbs: verbs.ok_or(TokenFault::Claims("`can` holds subscribe, publish, presence and history"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);

    fn read_at(json: &str, expected: &Expected) -> Result<Grant, TokenFault> {
        read(json.as_bytes(), expected, NOW)
    }

    fn read_anyhow(json: &str) -> Result<Grant, TokenFault> {
        read_at(json, &Expected::default())
    }

    #[test]
    fn claims_become_a_grant() {
        let json = r#"{"sub":"ann","jti":"t1","exp":1767225601.5,"iat":1,"info":{"a": 1},"channels":["news","news"],
            "allow":[{"channels":["room:*","lobby"],"can":["publish","history"]}],"other":[1]}"#;
        let grant = read_anyhow(json).unwrap();
        let pattern = |text| Pattern::parse(text).unwrap();
        let expected = Grant {
            user: Some(UserId::new("ann")),
            token: Some("t1".into()),
            issued: Some(1),
            profile: Some(Payload::parse("{\"a\": 1}").unwrap()),
            expires: Some(1_767_225_601),
            ends: Some(UnixMicros(1_767_225_601_500_000)),
            is_renewable: false,
            channels: vec![Channel::parse("news").unwrap()],
            passes: Vec::new(),
            meta: None,
            allowances: vec![Allowance {
                channels: vec![pattern("room:*"), pattern("lobby")],
                verbs: vec![Verb::Publish, Verb::History],
            }],
            proves: None,
            acquaintances: Vec::new(),
        };
        assert_eq!(grant, expected);
        assert_eq!(read_anyhow("{}").unwrap(), Grant::default());
        assert_eq!(read_anyhow(r#"{"sub":""}"#).unwrap(), Grant::default(), "nobody, as some issuers say it");
    }

    #[test]
    fn what_a_token_opens_may_end_sooner_or_later_than_it_does() {
        let at = |seconds: u64| (Some(seconds), Some(UnixMicros(seconds * 1_000_000)));
        for (json, until) in [
            (r#"{"exp":1767225601,"expire_at":1767229999}"#, at(1_767_229_999)),
            (r#"{"exp":1767229999,"expire_at":1767225601}"#, at(1_767_225_601)),
            (r#"{"exp":1767225601,"expire_at":0}"#, (None, None)),
            (r#"{"expire_at":1767225601}"#, at(1_767_225_601)),
        ] {
            let grant = read_anyhow(json).unwrap();
            assert_eq!((grant.expires, grant.ends), until, "{json}");
        }
        for over in [r#"{"exp":1767225599,"expire_at":0}"#, r#"{"exp":1767229999,"expire_at":1767225599}"#] {
            assert_eq!(read_anyhow(over), Err(TokenFault::Expired), "{over}");
        }
    }

    #[test]
    fn other_words_for_what_others_see_and_for_channels() {
        let grant = read_anyhow(
            r#"{"b64info":"eyJhIjoxfQ==","subs":{"news":{"info":1},"more":{}},"channels":["news"]}"#,
        );
        let grant = grant.unwrap();
        assert_eq!(grant.profile, Some(Payload::parse(r#"{"a":1}"#).unwrap()));
        let names: Vec<_> = grant.channels.iter().map(Channel::as_str).collect();
        assert_eq!(names, ["news", "more"]);
        let bytes = read_anyhow(r#"{"b64info":"AP8="}"#).unwrap();
        assert_eq!(bytes.profile, Some(Payload::parse(r#"{"$binary":"AP8="}"#).unwrap()));
        let both = read_anyhow(r#"{"info":7,"b64info":"AP8="}"#).unwrap();
        assert_eq!(both.profile, Some(Payload::parse("7").unwrap()));
        assert!(read_anyhow(r#"{"b64info":"?"}"#).is_err());
    }

    #[test]
    fn more_is_said_of_channels_and_some_of_it_to_backends_alone() {
        let json = r#"{"meta":{"plan":"free"},"data":7,"override":true,"subs":{
            "news":{"info":{"seat":7},"data":"hello","override":{"force_push_join_leave":{"value":true},"presence":{"value":true}}},
            "bytes":{"b64info":"NQ==","b64data":"AP8="},"plain":{},"none":null}}"#;
        let grant = read_anyhow(json).unwrap();
        let payload = |json| Some(Payload::parse(json).unwrap());
        assert_eq!(grant.meta.as_deref(), payload(r#"{"plan":"free"}"#).as_ref());
        assert_eq!((grant.channels.len(), grant.passes.len()), (4, 2));
        let pass = |name| grant.pass(&Channel::parse(name).unwrap()).cloned();
        let news = Pass {
            profile: payload(r#"{"seat":7}"#),
            greeting: payload(r#""hello""#),
            notices: true,
            ..Pass::default()
        };
        let bytes =
            Pass { profile: payload("5"), greeting: Some(Payload::binary(b"\0\xff")), ..Pass::default() };
        assert_eq!((pass("news"), pass("bytes"), pass("plain")), (Some(news), Some(bytes), None));
        // One that is for a channel says it of that.
        let proof = read_anyhow(
            r#"{"channel":"vip","info":1,"data":{"a":2},"override":{"force_push_join_leave":{"value":true}}}"#,
        );
        let proof = proof.unwrap();
        let pass = Pass { greeting: payload(r#"{"a":2}"#), notices: true, ..Pass::default() };
        assert_eq!(proof.passes, [(Channel::parse("vip").unwrap(), pass)]);
        assert_eq!(proof.profile, payload("1"));
        for wrong in [
            r#"{"subs":{"a b":{}}}"#,
            r#"{"subs":{"a":1}}"#,
            r#"{"subs":{"a":{"b64data":"?"}}}"#,
            r#"{"channel":"a","override":true}"#,
            r#"{"channel":"a","b64data":7}"#,
        ] {
            assert!(matches!(read_anyhow(wrong), Err(TokenFault::Claims(_))), "{wrong}");
        }
    }

    /// The boundary to the second, on both sides, with and without leeway.
    #[test]
    fn a_token_is_good_from_nbf_to_exp_and_the_leeway_on_both_sides() {
        let leeway = Expected { leeway: Duration::from_secs(30), ..Expected::default() };
        for (claim, expected, outcome) in [
            (r#"{"exp":1767225601}"#, &Expected::default(), Ok(())),
            (r#"{"exp":1767225600}"#, &Expected::default(), Err(TokenFault::Expired)),
            (r#"{"exp":1767225571}"#, &leeway, Ok(())),
            (r#"{"exp":1767225570}"#, &leeway, Err(TokenFault::Expired)),
            (r#"{"exp":0}"#, &leeway, Err(TokenFault::Expired)),
            (r#"{"exp":-5}"#, &leeway, Err(TokenFault::Expired)),
            (r#"{"exp":1e300}"#, &leeway, Ok(())),
            (r#"{"nbf":1767225600}"#, &Expected::default(), Ok(())),
            (r#"{"nbf":1767225601}"#, &Expected::default(), Err(TokenFault::NotYetValid)),
            (r#"{"nbf":1767225630}"#, &leeway, Ok(())),
            (r#"{"nbf":1767225631}"#, &leeway, Err(TokenFault::NotYetValid)),
        ] {
            assert_eq!(read_at(claim, expected).map(drop), outcome, "{claim}");
        }
    }

    #[test]
    fn issuer_and_audience_are_asked_for_where_they_are_configured() {
        let both =
            Expected { issuer: Some("us".into()), audience: Some("here".into()), ..Expected::default() };
        for (claim, outcome) in [
            (r#"{"iss":"us","aud":"here"}"#, Ok(())),
            (r#"{"iss":"us","aud":["there","here"]}"#, Ok(())),
            (r#"{"iss":"us","aud":["there"]}"#, Err(TokenFault::Audience)),
            (r#"{"iss":"us","aud":"her"}"#, Err(TokenFault::Audience)),
            (r#"{"iss":"us","aud":[]}"#, Err(TokenFault::Audience)),
            (r#"{"iss":"us"}"#, Err(TokenFault::Audience)),
            (r#"{"iss":"them","aud":"here"}"#, Err(TokenFault::Issuer)),
            (r#"{"iss":"US","aud":"here"}"#, Err(TokenFault::Issuer)),
            (r#"{"aud":"here"}"#, Err(TokenFault::Issuer)),
        ] {
            assert_eq!(read_at(claim, &both).map(drop), outcome, "{claim}");
        }
        assert!(read_anyhow(r#"{"iss":"them","aud":"there"}"#).is_ok());
    }

    /// Found by the fuzz target `claims`: what is passed over was not looked at.
    #[test]
    fn claims_that_are_no_text_make_the_token_worthless() {
        let fault = read(b"{\"other\":\"\xff\"}", &Expected::default(), NOW).unwrap_err();
        assert!(matches!(fault, TokenFault::Claims(_)), "{fault:?}");
    }

    #[test]
    fn a_claim_that_cannot_be_understood_makes_the_token_worthless() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        for claims in [
            "",
            "[]",
            "1",
            "{",
            r#"{"exp":"1767225601"}"#,
            r#"{"exp":null}"#,
            r#"{"nbf":null}"#,
            r#"{"nbf":true}"#,
            r#"{"sub":7}"#,
            r#"{"sub":null}"#,
            r#"{"channel":""}"#,
            r#"{"jti":""}"#,
            r#"{"exp":1e999}"#,
            r#"{"sub":"ann","sub":"bob"}"#,
            r#"{"exp":1767225601,"exp":9767225601}"#,
            r#"{"aud":1}"#,
            r#"{"channels":"news"}"#,
            r#"{"channels":["a b"]}"#,
            r#"{"allow":{}}"#,
            r#"{"allow":[{"channels":["a"]}]}"#,
            r#"{"allow":[{"channels":["a b"],"can":["publish"]}]}"#,
            r#"{"allow":[{"channels":["a"],"can":["admin"]}]}"#,
            &format!(r#"{{"sub":"{long}"}}"#),
        ] {
            let fault = read_anyhow(claims).unwrap_err();
            assert!(matches!(fault, TokenFault::Claims(_)), "{claims}: {fault:?}");
        }
    }
}
