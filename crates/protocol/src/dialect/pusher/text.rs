//! Data as this dialect has it, and as everyone else does.
//!
//! Here the data of an event is a string, which most often holds JSON; elsewhere it is a JSON value. So a string that holds
//! JSON is that value to the others, and any other string is itself; and back again. A string that holds a JSON string is
//! taken for itself, so that what was sent is what arrives, quotation marks included.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::publication::Payload;

/// The value that an event's data is to others.
pub(super) fn to_payload(data: &str) -> Payload {
    let is_string = data.trim_start().starts_with('"');
    let value = if is_string { None } else { Payload::parse(data).ok() };
    value.unwrap_or_else(|| Payload::from_trusted(quote(data).into()))
}

/// The same for data as a client sent it: as a string, or against the rule as a bare value.
pub(super) fn raw_to_payload(data: &RawValue) -> Payload {
    match serde_json::from_str::<Cow<'_, str>>(data.get()) {
        Ok(text) => to_payload(&text),
        Err(_) => Payload::from_raw(data),
    }
}

/// Appends the value as an event's data: a string in JSON.
pub(super) fn write(out: &mut Vec<u8>, payload: &Payload) {
    let json = payload.json();
    if json.trim_ascii_start().starts_with(b"\"") {
        return out.extend_from_slice(&json);
    }
    write_string(out, str::from_utf8(&json).expect("JSON is UTF-8"));
}

/// Appends a string in JSON.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON and a vector takes every byte");
}

fn quote(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(payload: &Payload) -> String {
        let mut out = Vec::new();
        write(&mut out, payload);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_holds_json_is_that_to_others_and_what_does_not_is_text() {
        for (data, value) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            ("[1,2]", "[1,2]"),
            ("7", "7"),
            ("null", "null"),
            ("hello", r#""hello""#),
            ("", r#""""#),
            (r#""quoted""#, r#""\"quoted\"""#),
            ("{", r#""{""#),
            ("é\n", r#""é\n""#),
        ] {
            let payload = to_payload(data);
            assert_eq!(payload.as_bytes(), value.as_bytes(), "{data}");
            assert_eq!(written(&payload), data);
        }
    }

    #[test]
    fn a_bare_value_is_taken_for_what_it_is() {
        let raw = |json| serde_json::from_str::<&RawValue>(json).unwrap();
        assert_eq!(raw_to_payload(raw(r#"{"a":1}"#)).as_bytes(), br#"{"a":1}"#);
        assert_eq!(raw_to_payload(raw(r#""{\"a\":1}""#)).as_bytes(), br#"{"a":1}"#);
        assert_eq!(raw_to_payload(raw(r#""hello""#)).as_bytes(), br#""hello""#);
    }

    proptest! {
        /// Line breaks between the tokens of JSON are no part of what it says, nor are blanks around it.
        #[test]
        fn what_was_sent_is_what_arrives(data in "[^\r\n]{0,40}") {
            let data = data.trim_matches([' ', '\t']);
            prop_assert_eq!(written(&to_payload(data)), data);
        }
    }
}
