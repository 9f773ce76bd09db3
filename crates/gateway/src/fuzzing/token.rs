//! Tokens in compact form: what a client presents, and what it would be to whoever holds a key.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use fanfare_metrics::Metrics;
use fanfare_protocol::grant::claims::{self, Expected};
use fanfare_protocol::grant::{TOKEN_BYTES_MAX, Token};
use fanfare_protocol::time::UnixMicros;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Means;
use crate::auth::jwt::Verifier;
use crate::auth::keys::{self, PublicKey};
use crate::config::{self, Secret};
use crate::outgoing::Dialer;

const SECRET: &str = "a secret of thirty-two bytes, and a few more";
const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);
const LEEWAY: Duration = Duration::from_secs(30);

/// One issuer that signs with the secret, and whose public keys are of every kind.
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let vectors: Value =
        serde_json::from_str(include_str!("../auth/jwt/vectors.json")).expect("the vectors are JSON");
    let trusted = vectors["trusted"].as_object().expect("a key to each algorithm");
    let pem = trusted.values().filter_map(Value::as_str).filter(|key| key.starts_with("-----BEGIN"));
    let issuer = config::Issuer {
        table: "auth.jwt".into(),
        hmac_secrets: vec![Secret::new(SECRET)],
        public_keys: pem.map(|key| PublicKey::from_pem(key).expect("a key")).collect(),
        jwks_url: None,
        name: None,
        audience: None,
    };
    let fetching = config::KeyFetching { max_age: Duration::ZERO, cool_down: Duration::ZERO };
    let jwt = config::Jwt { issuers: vec![issuer], leeway: LEEWAY, fetching };
    let (tasks, metrics) = (TaskTracker::new(), Arc::new(Metrics::new()));
    let dialer = Dialer::new(&config::Authorities::default(), tasks.clone(), metrics.clone());
    let means = Means { dialer: &dialer, tasks: &tasks, metrics: &metrics, stop: &CancellationToken::new() };
    Verifier::new(&jwt, None, &means)
});

/// Whatever a client presents: it is taken if its signature is that of the secret, and never else. And what the input would be with a
/// good signature, the first line being the header and the rest claims: it is taken if and only if the header names that algorithm and
/// nothing that must be understood, and the claims are good; and no longer with any other byte in the place of one of its own.
pub fn token(bytes: &[u8]) {
    if let Ok(presented) = str::from_utf8(bytes)
        && takes(presented)
    {
        let (signed, signature) = presented.rsplit_once('.').expect("three parts");
        assert_eq!(signature, signature_of(signed), "nobody else has signed that");
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, json) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(json));
    let presented = format!("{signed}.{}", signature_of(&signed));
    let expected = Expected { issuer: None, audience: None, leeway: LEEWAY };
    let is_good = presented.len() <= TOKEN_BYTES_MAX
        && is_understood(header)
        && claims::read(json, &expected, NOW).is_ok();
    assert_eq!(takes(&presented), is_good, "{presented}");
    if is_good {
        // Which byte, and which other one, the input says.
        let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % presented.len();
        let other = if presented.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut changed = presented;
        changed.replace_range(at..=at, other);
        assert!(!takes(&changed), "{changed}");
    }
}

fn takes(token: &str) -> bool {
    VERIFIER.verify(&Token::new(token), NOW).is_ok()
}

fn signature_of(signed: &str) -> String {
    BASE64URL_NOPAD.encode(&keys::sign(SECRET.as_bytes(), signed.as_bytes()))
}

/// A header that names the algorithm, and nothing that whoever does not know it must refuse.
fn is_understood(header: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        #[serde(rename = "kid")]
        _kid: Option<String>,
        crit: Option<IgnoredAny>,
    }
    let header = Some(header).filter(|json| json.starts_with(b"{"));
    let header: Option<Header> = header.and_then(|json| serde_json::from_slice(json).ok());
    header.is_some_and(|it| it.alg == "HS256" && it.crit.is_none())
}
