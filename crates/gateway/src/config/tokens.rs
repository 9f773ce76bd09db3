//! What tokens are held against: who may make them, and with which keys, read from the configuration, from the files that it
//! names, or from where it says.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::merge::Merged;
use super::mistake::Mistakes;
use super::secret::Secret;
use crate::auth::keys::PublicKey;

/// The shortest secret that a node takes which others than this machine can reach (RFC 7518 section 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// Whose tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// At least one: that of `auth.jwt` first, then those of `auth.issuers` by name.
    pub issuers: Vec<Issuer>,
    /// What clocks may disagree by.
    pub leeway: Duration,
    /// How keys are fetched.
    pub fetching: KeyFetching,
}

/// Whoever makes tokens: those that one of these keys has signed, and that say what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The table of the configuration.
    pub table: String,
    /// Secrets that tokens are signed with, the one in force first.
    pub hmac_secrets: Vec<Secret>,
    /// Keys of which somebody else has the private half.
    pub(crate) public_keys: Vec<PublicKey>,
    /// Where further keys are.
    pub jwks_url: Option<Uri>,
    /// What it calls itself. None: anybody with such a key.
    pub name: Option<String>,
    /// For whom it makes tokens. None: for anybody.
    pub audience: Option<String>,
}

/// How keys are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFetching {
    /// How old keys may grow, at most.
    pub max_age: Duration,
    /// The least time between two fetches that tokens are the reason of.
    pub cool_down: Duration,
}

impl Jwt {
    /// Whether a secret is so short that it could be guessed.
    #[must_use]
    pub fn has_short_secret(&self) -> bool {
        let mut secrets = self.issuers.iter().flat_map(|issuer| &issuer.hmac_secrets);
        secrets.any(|secret| secret.expose().len() < SECRET_BYTES_MIN)
    }

    /// The first issuer that signs with a secret, and the one in force.
    #[must_use]
    pub fn secret(&self) -> Option<(&Issuer, &Secret)> {
        self.issuers.iter().find_map(|issuer| Some((issuer, issuer.hmac_secrets.first()?)))
    }
}

impl Issuer {
    fn has_keys(&self) -> bool {
        !self.hmac_secrets.is_empty() || !self.public_keys.is_empty() || self.jwks_url.is_some()
    }
}

/// What `auth.jwt` and `auth.issuers` say; None where they name no key to verify with.
pub(super) fn read(merged: &Merged, mistakes: &mut Mistakes) -> Option<Arc<Jwt>> {
    let seconds = |path| Duration::from_secs(merged.whole(path).expect("the key has a default"));
    let mut issuers = vec![issuer("auth.jwt".into(), merged, mistakes)];
    issuers.retain(Issuer::has_keys);
    for name in merged.names("auth.issuers") {
        let issuer = issuer(format!("auth.issuers.{name}"), merged, mistakes);
        if complete(&issuer, &issuers, merged, mistakes) {
            issuers.push(issuer);
        }
    }
    for issuer in &issuers {
        guarded(issuer, merged, mistakes);
    }
    if issuers.is_empty() {
        return None;
    }
    Some(Arc::new(Jwt {
        issuers,
        leeway: seconds("auth.jwt.leeway_seconds"),
        fetching: KeyFetching {
            max_age: seconds("auth.jwt.jwks_max_age_seconds"),
            cool_down: seconds("auth.jwt.jwks_cooldown_seconds"),
        },
    }))
}

/// What the keys of one table say.
fn issuer(table: String, merged: &Merged, mistakes: &mut Mistakes) -> Issuer {
    let text = |key: &str| merged.text(&format!("{table}.{key}"));
    let mut public_keys = Vec::new();
    for key in ["public_key", "previous_public_key"] {
        match text(key).map(|text| public_key(&text)).transpose() {
            Ok(key) => public_keys.extend(key),
            Err(wrong) => blame(&format!("{table}.{key}"), &wrong, merged, mistakes),
        }
    }
    let secrets = ["hmac_secret", "previous_hmac_secret"];
    Issuer {
        hmac_secrets: secrets.into_iter().filter_map(text).map(Secret::new).collect(),
        public_keys,
        jwks_url: text("jwks_url").map(|url| url.parse().expect("checked to be a URL")),
        name: text("issuer"),
        audience: text("audience"),
        table,
    }
}

/// Whether an issuer beside others can be told from them and has keys.
fn complete(issuer: &Issuer, others: &[Issuer], merged: &Merged, mistakes: &mut Mistakes) -> bool {
    let table = &issuer.table;
    let path = |key: &str| format!("{table}.{key}");
    let keys = ["issuer", "audience", "jwks_url", "public_key", "previous_public_key", "hmac_secret"];
    if mistakes.touch(table) || keys.into_iter().any(|key| mistakes.touch(&path(key))) {
        return false; // Told already.
    }
    let Some(name) = &issuer.name else {
        let text =
            "an issuer beside others is told from them by what its tokens have as `iss`: write it here";
        blame(&path("issuer"), text, merged, mistakes);
        return false;
    };
    if let Some(other) = others.iter().find(|other| other.name.as_ref() == Some(name)) {
        blame(&path("issuer"), &format!("{} has this name already", other.table), merged, mistakes);
        return false;
    }
    if !issuer.has_keys() {
        let text = "an issuer takes one of public_key, jwks_url and hmac_secret";
        blame(&path("public_key"), text, merged, mistakes);
        return false;
    }
    true
}

/// Keys that come in clear could be anybody's.
fn guarded(issuer: &Issuer, merged: &Merged, mistakes: &mut Mistakes) {
    let Some(url) = &issuer.jwks_url else { return };
    let in_clear = merged.switch("auth.jwt.jwks_in_clear").expect("the key has a default");
    if url.scheme_str() == Some("http") && !is_this_machine(url) && !in_clear {
        let text = "over http:// whoever is on the way could put keys of their own in the place of these: use https://; or if \
                    the way is safe, write jwks_in_clear = true under [auth.jwt]";
        blame(&format!("{}.jwks_url", issuer.table), text, merged, mistakes);
    }
}

fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn blame(path: &str, text: &str, merged: &Merged, mistakes: &mut Mistakes) {
    let text = format!("{path}: {text}");
    let table = path.rsplit_once('.').map_or(path, |(table, _)| table);
    match merged.place(path).or_else(|| merged.place_under(table)) {
        Some(place) => mistakes.at(path, text, place),
        None => mistakes.add(text),
    }
}

/// A key as PEM, or the path of a file that holds one.
fn public_key(text: &str) -> Result<PublicKey, String> {
    if text.trim_start().starts_with("-----BEGIN ") {
        return PublicKey::from_pem(text).map_err(|error| error.to_string());
    }
    let pem =
        fs::read_to_string(text).map_err(|error| format!("the file {text:?} cannot be read: {error}"))?;
    PublicKey::from_pem(&pem).map_err(|error| format!("the file {text:?}: {error}"))
}
