//! What Redis says of streams, in RESP3, taken apart.

use redis::Value;

use super::entry::Entry;

/// An entry as it was read: its id, and its fields; none of one that is in the stream no more.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) entry: Option<Entry>,
    /// The fields as they are, to be kept with the reason why nobody can publish them.
    pub(super) fields: Vec<Vec<u8>>,
}

/// The entries of the one stream that an answer of XREADGROUP is about.
pub(super) fn found(stream: &str, reply: &Value) -> Vec<Found> {
    let Value::Map(streams) = reply else { return Vec::new() }; // Nil: nothing has come.
    let Some((_, Value::Array(entries))) = streams.first() else { return Vec::new() };
    entries.iter().filter_map(|entry| one(stream, entry)).collect()
}

fn one(stream: &str, entry: &Value) -> Option<Found> {
    let Value::Array(parts) = entry else { return None };
    let id = text(parts.first()?)?;
    let Some(Value::Array(values)) = parts.get(1) else {
        return Some(Found { id, entry: None, fields: Vec::new() });
    };
    let fields: Vec<Vec<u8>> = values.iter().filter_map(bytes).collect();
    let of = |name: &str| {
        let pair = fields.chunks_exact(2).find(|pair| pair[0] == name.as_bytes());
        pair.map(|pair| pair[1].clone())
    };
    let entry = Entry {
        id: format!("{stream}:{id}").into(),
        channel: of("channel"),
        data: of("data"),
        bytes: of("bytes"),
        key: of("key"),
        label: of("label"),
        is_too_large: false,
    };
    Some(Found { id, entry: Some(entry), fields })
}

/// The milliseconds since 1970 that the id of an entry begins with.
pub(super) fn millis(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

/// How far a group has come: the id of the last entry that was handed out, and how many it has not seen, where Redis knows.
pub(super) fn progress(group: &str, reply: &Value) -> Option<(String, Option<u64>)> {
    let Value::Array(groups) = reply else { return None };
    groups.iter().find_map(|fields| {
        let Value::Map(fields) = fields else { return None };
        let of = |name: &str| {
            let mut fields = fields.iter();
            fields.find(|(its, _)| text(its).as_deref() == Some(name)).map(|(_, value)| value)
        };
        if text(of("name")?)? != group {
            return None;
        }
        let lag = match of("lag") {
            Some(Value::Int(lag)) => u64::try_from(*lag).ok(),
            _ => None,
        };
        Some((text(of("last-delivered-id")?)?, lag))
    })
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        Value::SimpleString(text) => Some(text.clone().into_bytes()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn array(items: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(items.into_iter().collect())
    }

    #[test]
    fn entries_are_found_with_their_fields_and_those_that_are_gone_without() {
        let fields = array(["channel", "room:1", "data", "1", "more", "x"].map(bulk));
        let entries = array([
            array([bulk("7-0"), fields]),
            array([bulk("8-0"), Value::Nil]),
            array([bulk("9-1"), array([bulk("odd")])]),
        ]);
        let found = found("s", &Value::Map(vec![(bulk("s"), entries)]));
        let ids: Vec<_> =
            found.iter().map(|it| (it.id.as_str(), it.entry.is_some(), it.fields.len())).collect();
        assert_eq!(ids, [("7-0", true, 6), ("8-0", false, 0), ("9-1", true, 1)]);
        let first = found[0].entry.as_ref().unwrap();
        assert_eq!((&*first.id, first.channel.as_deref()), ("s:7-0", Some(&b"room:1"[..])));
        assert_eq!((first.data.as_deref(), first.key.as_deref()), (Some(&b"1"[..]), None));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        for reply in [
            Value::Nil,
            Value::Okay,
            array([]),
            Value::Map(vec![]),
            Value::Map(vec![(bulk("s"), Value::Nil)]),
        ] {
            assert_eq!(found("s", &reply), [], "{reply:?}");
        }
    }

    #[test]
    fn progress_is_that_of_the_one_group() {
        let group = |name: &str, last: &str, lag: Value| {
            let fields = [("name", bulk(name)), ("last-delivered-id", bulk(last)), ("lag", lag)];
            Value::Map(fields.map(|(its, value)| (bulk(its), value)).into())
        };
        let reply = array([group("a", "1-0", Value::Int(3)), group("b", "2-0", Value::Nil)]);
        assert_eq!(progress("a", &reply), Some(("1-0".into(), Some(3))));
        assert_eq!(progress("b", &reply), Some(("2-0".into(), None)));
        assert_eq!(progress("c", &reply), None);
        assert_eq!(
            (millis("1796000000000-3"), millis("x"), millis("x-1")),
            (Some(1_796_000_000_000), None, None)
        );
    }
}
