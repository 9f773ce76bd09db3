//! Public keys as a key server publishes them: a set of JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037).
//!
//! A set may hold keys of other kinds, for other uses and for other algorithms: those are passed over, each by itself, so that
//! whatever an issuer adds for others does no harm here. A symmetric key is never taken: whoever can read it can sign.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Algorithm, PublicKey};

/// The most keys of a set that are looked at: two or three are usual.
pub(crate) const KEYS_MAX: usize = 64;

/// The longest `kid`.
pub(crate) const KID_BYTES_MAX: usize = 255;

/// A key with what its owner says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Jwk {
    /// Its name, by which a token's header chooses it.
    pub(crate) kid: Option<Box<str>>,
    /// The one algorithm it is for; any that fits its kind where its owner does not say.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) key: PublicKey,
}

impl Jwk {
    /// Whether its owner means it for this algorithm, and it is of the kind.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.key.is_for(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// Why an answer is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoKeySet {
    #[error("it is not a JSON Web Key Set, an object with a list of `keys`")]
    Malformed,
    #[error("none of its keys is one that signatures are checked with here")]
    Useless,
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What is read of a key. `d` and its like, which would be private, are not looked at.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow, rename = "use")]
    purpose: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_ops: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    n: Option<Cow<'a, str>>,
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    y: Option<Cow<'a, str>>,
}

/// The keys of a set that are of use, at least one.
///
/// # Errors
/// It is not a set, or nothing in it is of use.
pub(crate) fn read_set(json: &[u8]) -> Result<Vec<Jwk>, NoKeySet> {
    // To serde an array is a struct without its field names.
    let is_object = json.trim_ascii_start().starts_with(b"{");
    let set: Option<Set<'_>> = is_object.then(|| serde_json::from_slice(json).ok()).flatten();
    let set = set.ok_or(NoKeySet::Malformed)?;
    let keys: Vec<_> = set.keys.iter().take(KEYS_MAX).filter_map(|key| read(key.get())).collect();
    if keys.is_empty() { Err(NoKeySet::Useless) } else { Ok(keys) }
}

/// A key, if it is of use.
fn read(json: &str) -> Option<Jwk> {
    let fields: Fields<'_> = json.starts_with('{').then(|| serde_json::from_str(json).ok()).flatten()?;
    let checks = fields.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && fields.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|it| it == "verify"));
    let kid = fields.kid.as_deref();
    if !checks || kid.is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return None;
    }
    let key = public_key(&fields)?.checked().ok()?;
    // An algorithm that is not known here, or not of this kind of key, is one for something else.
    let algorithm = match fields.alg.as_deref().map(Algorithm::parse) {
        None => None,
        Some(known) => Some(known.filter(|algorithm| key.is_for(*algorithm))?),
    };
    Some(Jwk { kid: kid.map(Into::into), algorithm, key })
}

fn public_key(fields: &Fields<'_>) -> Option<PublicKey> {
    match (&*fields.kty, fields.crv.as_deref()) {
        ("RSA", _) => Some(PublicKey::Rsa { n: number(&fields.n)?, e: number(&fields.e)? }),
        ("EC", Some("P-256")) => point(fields, 32).map(PublicKey::P256),
        ("EC", Some("P-384")) => point(fields, 48).map(PublicKey::P384),
        ("EC", Some("P-521")) => point(fields, 66).map(PublicKey::P521),
        ("OKP", Some("Ed25519")) => bytes(&fields.x, 32).map(|key| PublicKey::Ed25519(key.into())),
        _ => None,
    }
}

/// A positive integer without leading zeros, which some write all the same.
fn number(field: &Option<Cow<'_, str>>) -> Option<Box<[u8]>> {
    let bytes = BASE64URL_NOPAD.decode(field.as_ref()?.as_bytes()).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].into())
}

/// A point, uncompressed. Whether it is on the curve is asked by whoever checks a signature with it.
fn point(fields: &Fields<'_>, length: usize) -> Option<Box<[u8]>> {
    let coordinates = [&[4], &*bytes(&fields.x, length)?, &*bytes(&fields.y, length)?];
    Some(coordinates.concat().into())
}

/// So many bytes and no others.
fn bytes(field: &Option<Cow<'_, str>>, length: usize) -> Option<Vec<u8>> {
    let bytes = BASE64URL_NOPAD.decode(field.as_ref()?.as_bytes()).ok()?;
    (bytes.len() == length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7517 appendix A.1 and RFC 8037 appendix A.2, and what else a set may hold.
    const RSA: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn rsa(more: &str) -> String {
        format!(r#"{{"kty":"RSA","n":"{RSA}","e":"AQAB"{more}}}"#)
    }

    fn p256(more: &str) -> String {
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"{more}}}"#)
    }

    fn ed25519(more: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}"{more}}}"#)
    }

    fn only(key: &str) -> Result<Jwk, NoKeySet> {
        let keys = read_set(format!(r#"{{"keys":[{key}]}}"#).as_bytes())?;
        assert_eq!(keys.len(), 1);
        Ok(keys[0].clone())
    }

    #[test]
    fn a_key_is_for_the_algorithms_of_its_kind_unless_it_says_for_which() {
        use Algorithm::{EdDsa, Es256, Es384, Es512, Hs256, Ps256, Rs256, Rs512};
        let all = [Hs256, Rs256, Rs512, Ps256, Es256, Es384, Es512, EdDsa];
        for (key, algorithms) in [
            (rsa(""), &[Rs256, Rs512, Ps256][..]),
            (rsa(r#","alg":"RS256""#), &[Rs256]),
            (rsa(r#","alg":"PS256","use":"sig","key_ops":["verify"]"#), &[Ps256]),
            (p256(""), &[Es256]),
            (p256(r#","alg":"ES256""#), &[Es256]),
            (ed25519(r#","kid":"k","alg":"EdDSA""#), &[EdDsa]),
        ] {
            let jwk = only(&key).unwrap();
            let fits: Vec<_> = all.into_iter().filter(|algorithm| jwk.is_for(*algorithm)).collect();
            assert_eq!(fits, algorithms, "{key}");
        }
        assert_eq!(only(&ed25519(r#","kid":"k1""#)).unwrap().kid.as_deref(), Some("k1"));
    }

    #[test]
    fn what_is_for_something_else_is_passed_over() {
        let long = format!(r#","kid":"{}""#, "k".repeat(KID_BYTES_MAX + 1));
        for key in [
            rsa(r#","use":"enc""#),
            rsa(r#","key_ops":["encrypt","wrapKey"]"#),
            rsa(r#","alg":"RSA-OAEP""#),
            rsa(r#","alg":"HS256""#),
            rsa(r#","alg":"ES256""#),
            rsa(r#","alg":"none""#),
            rsa(r#","kty":"RSA""#),
            rsa(&long),
            p256(r#","alg":"ES384""#),
            p256(r#","alg":"RS256""#),
            ed25519(r#","use":7"#),
            r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ","alg":"HS256"}"#.into(),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(),
            r#"{"kty":"RSA","e":"AQAB"}"#.into(),
            format!(r#"{{"kty":"EC","crv":"P-384","x":"{X}","y":"{Y}"}}"#),
            format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{X}","y":"{Y}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}="#) + &format!(r#"","y":"{Y}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{ED}"}}"#),
            format!(r#"["OKP","sig",null,null,null,"Ed25519",null,null,"{ED}",null]"#),
            "7".into(),
            "null".into(),
        ] {
            assert_eq!(only(&key), Err(NoKeySet::Useless), "{key}");
            let keys = read_set(format!(r#"{{"keys":[{key},{}]}}"#, ed25519("")).as_bytes()).unwrap();
            assert_eq!(keys.len(), 1, "what stands beside it counts: {key}");
        }
    }

    #[test]
    fn what_is_no_set_is_none() {
        for text in ["", "{", "[]", "7", "{}", r#"{"keys":7}"#, r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#]
        {
            assert_eq!(read_set(text.as_bytes()), Err(NoKeySet::Malformed), "{text}");
        }
        assert_eq!(read_set(br#"{"keys":[]}"#), Err(NoKeySet::Useless));
    }

    #[test]
    fn a_set_has_a_bound() {
        let many = vec![ed25519(""); KEYS_MAX + 1].join(",");
        assert_eq!(read_set(format!(r#"{{"keys":[{many}]}}"#).as_bytes()).unwrap().len(), KEYS_MAX);
    }

    #[test]
    fn a_number_may_begin_with_zeros() {
        let padded =
            BASE64URL_NOPAD.encode(&[&[0, 0], &*BASE64URL_NOPAD.decode(RSA.as_bytes()).unwrap()].concat());
        let jwk = only(&format!(r#"{{"kty":"RSA","n":"{padded}","e":"AQAB"}}"#)).unwrap();
        assert_eq!(jwk.key, only(&rsa("")).unwrap().key);
    }
}
