//! One of several applications that share a cluster: the part of the channels that is its own, and what shows that it stands
//! behind a request.
//!
//! **Invariant.** Whatever a client of a realm names is within its namespace, so two realms never meet, whatever they call their
//! channels and users.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac_sha256::HMAC;

use crate::channel::Channel;
use crate::id::UserId;

/// An application whose clients know nothing of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// Where its channels lie.
    pub namespace: Box<str>,
    /// What it signs with.
    pub credentials: Credentials,
}

impl Realm {
    /// The channel that the realm's clients call so; `None` where the whole name is too long, or none.
    pub fn channel(&self, name: &str) -> Option<Channel> {
        Channel::parse(&format!("{}:{name}", self.namespace)).ok()
    }

    /// A user of the realm, as others than its own clients know it.
    pub fn user(&self, id: &str) -> UserId {
        UserId::new(&format!("{}:{id}", self.namespace))
    }
}

/// The key that names an application, and the secret that it signs with: HMAC-SHA256, in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    key: Box<str>,
    secret: Box<str>,
}

impl Credentials {
    /// Hides `secret` from now on.
    pub fn new(key: &str, secret: &str) -> Self {
        Self { key: key.into(), secret: secret.into() }
    }

    /// The public half.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Signs these parts, with a colon between each two.
    pub fn sign(&self, parts: &[&str]) -> String {
        HEXLOWER.encode(&self.mac(parts))
    }

    /// Whether `auth`, which is `<key>:<signature>`, was made with this secret for these parts.
    pub fn admit(&self, auth: &str, parts: &[&str]) -> bool {
        auth.split_once(':')
            .is_some_and(|(key, signature)| *key == *self.key && self.signed(signature, parts))
    }

    /// Whether this is the signature of these parts.
    pub fn signed(&self, signature: &str, parts: &[&str]) -> bool {
        let presented = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()).unwrap_or_default();
        let expected = self.mac(parts);
        // All of it is compared, wherever it differs.
        let difference = presented.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b));
        presented.len() == expected.len() && difference == 0
    }

    fn mac(&self, parts: &[&str]) -> [u8; 32] {
        let mut mac = HMAC::new(self.secret.as_bytes());
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                mac.update(b":");
            }
            mac.update(part.as_bytes());
        }
        mac.finalize()
    }
}

/// Shows which they are, and not the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented() -> Credentials {
        Credentials::new("278d425bdf160c739803", "7ad3773142a6692b25b8")
    }

    /// The examples of the protocol's documentation.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let private = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert_eq!(documented().sign(&["1234.1234", "private-foobar"]), private);
        let user = r#"{"id":"12345"}"#;
        let signed = documented().sign(&["1234.1234", "", "user", "", user]);
        assert_eq!(signed, "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
    }

    #[test]
    fn nothing_but_the_right_key_and_signature_admits() {
        let parts = ["1234.1234", "private-foobar"];
        let good = documented().sign(&parts);
        let auth = |key: &str, signature: &str| documented().admit(&format!("{key}:{signature}"), &parts);
        assert!(auth("278d425bdf160c739803", &good));
        assert!(auth("278d425bdf160c739803", &good.to_uppercase()));
        for (key, signature) in [
            ("278d425bdf160c739804", good.as_str()),
            ("", &good),
            ("278d425bdf160c739803", &good[..62]),
            ("278d425bdf160c739803", &good.replace('5', "6")),
            ("278d425bdf160c739803", &format!("{good}00")),
            ("278d425bdf160c739803", "not hexadecimal"),
            ("278d425bdf160c739803", ""),
        ] {
            assert!(!auth(key, signature), "{key}:{signature}");
        }
        assert!(!documented().admit(&good, &parts), "without a key");
        assert!(!documented().signed(&good, &["1234.1235", "private-foobar"]), "another socket's");
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert!(!format!("{:?}", documented()).contains("7ad3"));
    }
}
