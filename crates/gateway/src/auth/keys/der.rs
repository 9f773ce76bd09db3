//! Public keys out of their DER: a few nested fields in a fixed order, for which a parser of ASN.1 would be much.

use super::PublicKey;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The object identifiers of RFC 3279, RFC 5480 and RFC 8410, without tag and length.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC_CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A SubjectPublicKeyInfo (RFC 5280 section 4.1).
pub(super) fn subject_public_key(der: &[u8]) -> Option<PublicKey> {
    let mut info = whole(der, SEQUENCE)?;
    let mut algorithm = take(&mut info, SEQUENCE)?;
    let kind = take(&mut algorithm, OBJECT_IDENTIFIER)?;
    let bits = take(&mut info, BIT_STRING)?;
    let [0, key @ ..] = bits else { return None }; // No bits of the last byte are unused.
    let point = |length: usize| (info.is_empty() && key.len() == length).then(|| key.into());
    match kind {
        RSA => rsa_public_key(key),
        ED25519 => point(32).map(PublicKey::Ed25519),
        ELLIPTIC_CURVE => match take(&mut algorithm, OBJECT_IDENTIFIER)? {
            P256 => point(65).map(PublicKey::P256),
            P384 => point(97).map(PublicKey::P384),
            P521 => point(133).map(PublicKey::P521),
            _ => None,
        },
        _ => None,
    }
}

/// An RSAPublicKey (RFC 8017 appendix A.1.1).
pub(super) fn rsa_public_key(der: &[u8]) -> Option<PublicKey> {
    let mut key = whole(der, SEQUENCE)?;
    let (n, e) = (number(&mut key)?, number(&mut key)?);
    key.is_empty().then_some(PublicKey::Rsa { n, e })
}

/// A positive integer, without the zero that keeps it so.
fn number(der: &mut &[u8]) -> Option<Box<[u8]>> {
    let bytes = take(der, INTEGER)?;
    let magnitude = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    (!magnitude.is_empty()).then(|| magnitude.into())
}

/// The contents of the one field that `der` is.
fn whole(mut der: &[u8], tag: u8) -> Option<&[u8]> {
    let contents = take(&mut der, tag)?;
    der.is_empty().then_some(contents)
}

/// The contents of the first field, which is taken away.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (&length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(length)), rest)
        }
        _ => return None, // No key has 64 KiB.
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    *der = rest;
    (found == tag).then_some(contents)
}
