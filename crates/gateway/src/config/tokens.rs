//! What tokens are held against: secrets and public keys, read from the configuration or from the files that it names.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::merge::Merged;
use super::mistake::Mistakes;
use super::secret::Secret;
use crate::auth::keys::PublicKey;

/// The shortest secret that a node takes which others than this machine can reach (RFC 7518 section 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// Which tokens are good: those that one of these keys has signed, and that say what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Secrets that tokens are signed with, the one in force first.
    pub hmac_secrets: Vec<Secret>,
    /// Keys of which somebody else has the private half.
    pub(crate) public_keys: Vec<PublicKey>,
    /// Who has made them. None: anybody with such a key.
    pub issuer: Option<String>,
    /// For whom they are made. None: for anybody.
    pub audience: Option<String>,
    /// What clocks may disagree by.
    pub leeway: Duration,
}

impl Jwt {
    /// Whether a secret is so short that it could be guessed.
    #[must_use]
    pub fn has_short_secret(&self) -> bool {
        self.hmac_secrets.iter().any(|secret| secret.expose().len() < SECRET_BYTES_MIN)
    }
}

/// What the keys under `auth.jwt` say; None where they name no key to verify with.
pub(super) fn read(merged: &Merged, mistakes: &mut Mistakes) -> Option<Arc<Jwt>> {
    let secrets = ["auth.jwt.hmac_secret", "auth.jwt.previous_hmac_secret"];
    let publics = ["auth.jwt.public_key", "auth.jwt.previous_public_key"];
    let hmac_secrets: Vec<_> = secrets.iter().filter_map(|path| merged.text(path)).map(Secret::new).collect();
    let mut public_keys = Vec::new();
    for path in publics {
        match merged.text(path).map(|text| public_key(&text)).transpose() {
            Ok(key) => public_keys.extend(key),
            Err(text) => {
                let text = format!("{path}: {text}");
                match merged.place(path) {
                    Some(place) => mistakes.at(path, text, place),
                    None => mistakes.add(text),
                }
            }
        }
    }
    if hmac_secrets.is_empty() && public_keys.is_empty() {
        return None;
    }
    Some(Arc::new(Jwt {
        hmac_secrets,
        public_keys,
        issuer: merged.text("auth.jwt.issuer"),
        audience: merged.text("auth.jwt.audience"),
        leeway: Duration::from_secs(merged.whole("auth.jwt.leeway_seconds").expect("the key has a default")),
    }))
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
