//! What an entry says: where it comes from does not matter here.

use fanfare_protocol::Channel;
use fanfare_protocol::command::Rejection;
use fanfare_protocol::depth;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::publication::{
    IDEMPOTENCY_KEY_BYTES_MAX, IdempotencyKey, LABEL_BYTES_MAX, Label, Payload,
};
use fanfare_protocol::session::Policy;

/// The fields of an entry, as they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// What tells it from all others of its consumer, for all time.
    pub(super) id: Box<str>,
    pub(super) channel: Option<Vec<u8>>,
    /// JSON.
    pub(super) data: Option<Vec<u8>>,
    /// Instead of that.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) label: Option<Vec<u8>>,
    /// It was left at its source, being larger than anything that can be published.
    pub(super) is_too_large: bool,
}

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: Box<str>,
    pub(super) channel: Channel,
    pub(super) payload: Payload,
    pub(super) key: Option<IdempotencyKey>,
}

impl Entry {
    /// Reads the fields.
    ///
    /// # Errors
    /// Which of them is not what it should be.
    pub(super) fn read(self, policy: &Policy) -> Result<Wanted, Failure> {
        let Self { id, channel, data, bytes, key, label, is_too_large } = self;
        let limits = &policy.limits;
        if is_too_large {
            let text = format!("the data is over limits.message_bytes, {}", limits.message_bytes);
            return Err(Failure::new(ErrorCode::TooLarge, text));
        }
        let channel = text("channel", channel)?.ok_or_else(|| bad("`channel` is missing".to_owned()))?;
        let channel =
            Channel::parse(&channel).map_err(|error| bad(format!("`channel` is no name: {error}")))?;
        let payload = match (data, bytes) {
            (Some(data), None) if depth::json_exceeds(&data, limits.depth) => {
                return Err(Rejection::too_deep(limits.depth).failure);
            }
            (Some(data), None) => {
                let json = text("data", Some(data))?.unwrap_or_default();
                Payload::parse(&json).map_err(|error| bad(format!("`data` is not JSON: {error}")))?
            }
            (None, Some(bytes)) => Payload::binary(&bytes),
            (None, None) => return Err(bad("`data` is missing, or `bytes` instead of it".to_owned())),
            (Some(_), Some(_)) => return Err(bad("`data` and `bytes` are two publications".to_owned())),
        };
        let key = text("key", key)?.map(|key| {
            let wrong = || bad(format!("`key` has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"));
            IdempotencyKey::parse(&key).ok_or_else(wrong)
        });
        let label = text("label", label)?.map(|label| {
            Label::parse(&label).ok_or_else(|| bad(format!("`label` has 1 to {LABEL_BYTES_MAX} bytes")))
        });
        Ok(Wanted { id, channel, payload: payload.labelled(label.transpose()?), key: key.transpose()? })
    }
}

fn text(name: &str, field: Option<Vec<u8>>) -> Result<Option<String>, Failure> {
    let text = field.map(String::from_utf8).transpose();
    text.map_err(|_| bad(format!("`{name}` is not UTF-8")))
}

fn bad(explanation: String) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let of =
            |name: &str| fields.iter().find(|(it, _)| *it == name).map(|(_, text)| text.as_bytes().to_vec());
        Entry {
            id: "1-0".into(),
            channel: of("channel"),
            data: of("data"),
            bytes: of("bytes"),
            key: of("key"),
            label: of("label"),
            is_too_large: false,
        }
    }

    #[test]
    fn an_entry_is_what_publish_takes() {
        let policy = Policy::default();
        let full = [("channel", "room:1"), ("data", "{\"a\": 1}"), ("key", "k"), ("label", "l")];
        let wanted = entry(&full).read(&policy).unwrap();
        assert_eq!((wanted.channel.as_str(), wanted.payload.as_bytes()), ("room:1", &b"{\"a\": 1}"[..]));
        assert_eq!(wanted.payload.label(), Label::parse("l").as_ref());
        assert_eq!(wanted.key, IdempotencyKey::parse("k"));
        let bytes = entry(&[("channel", "a"), ("bytes", "\u{1}\u{2}")]).read(&policy).unwrap();
        assert_eq!((bytes.payload.as_binary(), bytes.key), (Some(&[1, 2][..]), None));
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_told() {
        let policy = Policy::default();
        let (long, deep) = ("x".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1), "[".repeat(policy.limits.depth + 1));
        for (fields, part) in [
            (&[("data", "1")][..], "`channel` is missing"),
            (&[("channel", "a b"), ("data", "1")], "0x20"),
            (&[("channel", "a")], "`data` is missing"),
            (&[("channel", "a"), ("data", "{")], "not JSON"),
            (&[("channel", "a"), ("data", &deep)], "deep"),
            (&[("channel", "a"), ("data", "1"), ("bytes", "1")], "two publications"),
            (&[("channel", "a"), ("data", "1"), ("key", "")], "`key` has 1 to"),
            (&[("channel", "a"), ("data", "1"), ("key", &long)], "`key` has 1 to"),
            (&[("channel", "a"), ("data", "1"), ("label", "")], "`label` has 1 to"),
        ] {
            let failure = entry(fields).read(&policy).unwrap_err();
            assert!(failure.explanation.contains(part), "{fields:?}: {}", failure.explanation);
        }
        let binary = Entry { channel: Some(vec![0xff]), ..Entry::default() };
        assert!(binary.read(&policy).unwrap_err().explanation.contains("UTF-8"));
        let large = Entry { is_too_large: true, ..Entry::default() };
        assert_eq!(large.read(&policy).unwrap_err().code, ErrorCode::TooLarge);
    }
}
