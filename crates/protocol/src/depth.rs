//! How deeply a message is nested, found out before anything parses it.
//!
//! Nothing here or behind it recurses, so depth is no danger to a node; it is one to the clients that a publication goes to,
//! most of whose parsers do. The answer costs next to nothing: a message without many brackets cannot be deep, and counting
//! them takes a fraction of the time that parsing does.

use crate::msgpack;

/// Whether JSON has more than so many arrays and objects within each other. What is no JSON is judged by its brackets.
pub fn json_exceeds(text: &[u8], levels: usize) -> bool {
    if text.len() <= levels || count(text, |byte| matches!(byte, b'[' | b'{')) <= levels {
        return false;
    }
    let (mut depth, mut bytes) = (0_usize, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while bytes
                    .next()
                    .is_some_and(|&byte| byte != b'"' && (byte != b'\\' || bytes.next().is_some()))
                {
                }
            }
            _ => {}
        }
    }
    false
}

/// Whether a value of MessagePack has more than so many arrays and maps within each other, as far as it can be read.
pub fn msgpack_exceeds(value: &[u8], levels: usize) -> bool {
    let begins = |byte: u8| matches!(byte, 0x80..=0x9f | 0xdc..=0xdf);
    value.len() > levels && count(value, begins) > levels && msgpack::exceeds(value, levels)
}

/// Without an early end, which is what makes it fast.
fn count(bytes: &[u8], is_one: impl Fn(u8) -> bool) -> usize {
    bytes.iter().filter(|&&byte| is_one(byte)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_are_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (text, depth) in [
            (String::new(), 0),
            ("1".into(), 0),
            (nested(1), 1),
            (nested(7), 7),
            ("[[],[[]],{}]".into(), 3),
            (r#"{"a":{"b":[1,{"c":null}]}}"#.into(), 4),
            (r#"["[[[[[[","{{{{{{"]"#.into(), 1),
            (r#"["\"[[[[","\\",[[]]]"#.into(), 3),
            (r#"["\\\"[[[[[["]"#.into(), 1),
            ("[".repeat(9), 9),
            ("]]]]]]]][[[[".into(), 4),
            (r#""[[[["#.into(), 0),
            (r#""[[[[\"#.into(), 0),
        ] {
            for levels in 0..12 {
                assert_eq!(json_exceeds(text.as_bytes(), levels), depth > levels, "{text} {levels}");
            }
        }
    }

    #[test]
    fn maps_and_arrays_of_messagepack_are_levels() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        for (value, depth) in [
            (vec![0xc0], 0),
            (nested(3), 3),
            (vec![0x81, 0xa1, b'a', 0x91, 0x80], 3),
            // Bytes that look like arrays are bytes.
            (vec![0xc4, 5, 0x91, 0x91, 0x91, 0x91, 0x91], 0),
            (vec![0x92, 0x90, 0x91, 0x90], 3),
            // Cut off, and the last one announces what is not there.
            (vec![0x91; 7], 6),
        ] {
            for levels in 0..8 {
                assert_eq!(msgpack_exceeds(&value, levels), depth > levels, "{value:?} {levels}");
            }
        }
    }

    fn depth(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = r#"[\[\]{}"\\a]{0,6}"#.prop_map(serde_json::Value::from);
        leaf.prop_recursive(8, 64, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
                prop::collection::hash_map(r#"[\[{"]{0,3}"#, inner, 0..3)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_parser_agrees(value in any_json(), levels in 0..10_usize) {
            let text = value.to_string();
            prop_assert_eq!(json_exceeds(text.as_bytes(), levels), depth(&value) > levels);
            let mut packed = Vec::new();
            prop_assert!(msgpack::from_json(text.as_bytes(), &mut packed).is_some());
            prop_assert_eq!(msgpack_exceeds(&packed, levels), depth(&value) > levels);
        }
    }
}
