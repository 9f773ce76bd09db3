use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{DEPTH_MAX, Malformed, Reader, from_json, growth_at_most, to_json};
use crate::publication::Payload;

fn json_of(value: &[u8]) -> String {
    Reader::check(value).unwrap();
    let mut out = Vec::new();
    to_json(value, &mut out);
    String::from_utf8(out).unwrap()
}

fn msgpack_of(json: &str) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let outcome = from_json(json.as_bytes(), &mut out);
    assert!(out.starts_with(b"before"));
    assert!(outcome.is_some() || out.len() == 6, "what fails appends nothing");
    outcome.map(|()| out.split_off(6))
}

#[test]
fn every_value_of_messagepack_has_a_spelling_in_json() {
    for (value, json) in [
        (&[0xc0][..], "null"),
        (&[0xc2], "false"),
        (&[0xc3], "true"),
        (&[0x7f], "127"),
        (&[0xe0], "-32"),
        (&[0xcc, 0xff], "255"),
        (&[0xcd, 0xff, 0xff], "65535"),
        (&[0xce, 0xff, 0xff, 0xff, 0xff], "4294967295"),
        (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "18446744073709551615"),
        (&[0xd0, 0x80], "-128"),
        (&[0xd0, 0x05], "5"),
        (&[0xd1, 0x80, 0], "-32768"),
        (&[0xd2, 0x80, 0, 0, 0], "-2147483648"),
        (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
        (&[0xca, 0x3f, 0xc0, 0, 0], "1.5"),
        (&[0xca, 0x3d, 0xcc, 0xcc, 0xcd], "0.10000000149011612"),
        (&[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], "1.0"),
        (&[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0], "-0.0"),
        (&[0xca, 0x7f, 0xc0, 0, 0], "null"), // NaN
        (&[0xca, 0x7f, 0x80, 0, 0], "null"), // infinity
        (&[0xcb, 0xff, 0xf0, 0, 0, 0, 0, 0, 0], "null"),
        (b"\xa3a\"\n", r#""a\"\n""#),
        (b"\xd9\x02hi", r#""hi""#),
        (b"\xda\x00\x02hi", r#""hi""#),
        (b"\xdb\x00\x00\x00\x02hi", r#""hi""#),
        (b"\xc4\x00", r#"{"$binary":""}"#),
        (b"\xc4\x02\xff\x00", r#"{"$binary":"/wA="}"#),
        (b"\xc5\x00\x01\xff", r#"{"$binary":"/w=="}"#),
        (b"\xc6\x00\x00\x00\x03\xff\xff\xff", r#"{"$binary":"////"}"#),
        (b"\xd4\x05\xff", r#"{"$ext":[5,"/w=="]}"#),
        (b"\xc7\x00\x80", r#"{"$ext":[-128,""]}"#),
        (b"\xc8\x00\x01\x05\xff", r#"{"$ext":[5,"/w=="]}"#),
        (b"\xc9\x00\x00\x00\x01\x05\xff", r#"{"$ext":[5,"/w=="]}"#),
        (b"\x90", "[]"),
        (b"\x80", "{}"),
        (b"\x93\x01\x92\x02\x03\x90", "[1,[2,3],[]]"),
        (b"\xdc\x00\x01\x81\xa1a\x81\xa1b\xc0", r#"[{"a":{"b":null}}]"#),
        (b"\xde\x00\x02\xa1a\x01\xa1a\x02", r#"{"a":1,"a":2}"#),
        (b"\xdf\x00\x00\x00\x01\xa1a\xdd\x00\x00\x00\x00", r#"{"a":[]}"#),
        (
            b"\x85\x01\x02\xff\x03\xc0\x04\xc3\x05\xc4\x01\xff\x06",
            r#"{"1":2,"-1":3,"null":4,"true":5,"/w==":6}"#,
        ),
        (b"\x81\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\x00", r#"{"1.5":0}"#),
    ] {
        assert_eq!(json_of(value), json, "{value:02x?}");
    }
}

#[test]
fn a_timestamp_is_told_as_in_rfc_3339_where_it_has_a_year_for_it() {
    let long = |seconds: i64, nanos: u32| {
        [&[0xc7, 12, 0xff][..], &nanos.to_be_bytes(), &seconds.to_be_bytes()].concat()
    };
    let middle =
        |seconds: u64, nanos: u64| [&[0xd7, 0xff][..], &(nanos << 34 | seconds).to_be_bytes()].concat();
    for (value, json) in [
        (vec![0xd6, 0xff, 0, 0, 0, 0], r#""1970-01-01T00:00:00Z""#),
        (vec![0xd6, 0xff, 0xff, 0xff, 0xff, 0xff], r#""2106-02-07T06:28:15Z""#),
        (middle(1_767_225_599, 500_000_000), r#""2025-12-31T23:59:59.5Z""#),
        (middle((1 << 34) - 1, 1), r#""2514-05-30T01:53:03.000000001Z""#),
        (long(951_782_400, 0), r#""2000-02-29T00:00:00Z""#),
        (long(-1, 999_999_999), r#""1969-12-31T23:59:59.999999999Z""#),
        (long(-62_167_219_200, 0), r#""0000-01-01T00:00:00Z""#),
        (long(253_402_300_799, 0), r#""9999-12-31T23:59:59Z""#),
        (long(-62_167_219_201, 0), r#"{"$ext":[-1,"AAAAAP////GGi4P/"]}"#),
        (long(253_402_300_800, 0), r#"{"$ext":[-1,"AAAAAAAAADr/9EGA"]}"#),
        (long(i64::MIN, 0), r#"{"$ext":[-1,"AAAAAIAAAAAAAAAA"]}"#),
        (long(0, 1_000_000_000), r#"{"$ext":[-1,"O5rKAAAAAAAAAAAA"]}"#),
        (vec![0xd4, 0xff, 0], r#"{"$ext":[-1,"AA=="]}"#),
    ] {
        assert_eq!(json_of(&value), json);
    }
}

#[test]
fn every_value_of_json_has_a_spelling_in_messagepack() {
    let float = |number: f64| [&[0xcb][..], &number.to_be_bytes()].concat();
    for (json, value) in [
        (" null ", vec![0xc0]),
        ("[true, false]", vec![0x92, 0xc3, 0xc2]),
        ("0", vec![0]),
        ("128", vec![0xcc, 0x80]),
        ("-33", vec![0xd0, 0xdf]),
        ("18446744073709551615", vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("18446744073709551616", float(18_446_744_073_709_551_616.0)),
        ("-9223372036854775809", float(-9_223_372_036_854_775_809.0)),
        ("-0", float(-0.0)),
        ("1.0", float(1.0)),
        ("1e2", float(100.0)),
        ("1E400", float(f64::INFINITY)),
        (r#""""#, vec![0xa0]),
        (r#""\"\\\/\b\f\n\r\t\u00e9""#, b"\xaa\"\\/\x08\x0c\n\r\t\xc3\xa9".to_vec()),
        (r#""\\\\u0041""#, b"\xa7\\\\u0041".to_vec()),
        (r#""\ud83d\ude00\uD83D\uDE00x""#, "\u{a9}😀😀x".replace('\u{a9}', "").as_bytes().to_vec()),
        (r#"{"a" : [ ] , "b":{},"a":[[],{}]}"#, b"\x83\xa1a\x90\xa1b\x80\xa1a\x92\x90\x80".to_vec()),
    ] {
        let value = if json.contains("ud83d") { [&[0xa9][..], &value].concat() } else { value };
        assert_eq!(msgpack_of(json), Some(value), "{json}");
    }
    let lone = |json| json_of(&msgpack_of(json).unwrap());
    assert_eq!(
        lone(r#"["\ud83d","\ud83dx","\ude00","\ud83d\ud83d\ude00","\ud83d\n"]"#),
        r#"["�","�x","�","�😀","�\n"]"#
    );
    let many = format!("[{}1]", "1,".repeat(70_000));
    assert_eq!(json_of(&msgpack_of(&many).unwrap()), many);
}

#[test]
fn what_is_no_json_is_translated_to_nothing() {
    for noise in [
        "",
        " ",
        "[",
        "]",
        "[}",
        "{]",
        "1 2",
        "{\"a\"}",
        "\"",
        "\"\\",
        "nul",
        "x",
        "[1",
        "-",
        "1e",
        "\"\\u12\"",
        "\"\\x\"",
    ] {
        assert_eq!(msgpack_of(noise), None, "{noise:?}");
    }
}

#[test]
fn what_is_not_whole_or_not_right_is_refused() {
    let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    for (value, expected) in [
        (vec![], Err(Malformed::Truncated)),
        (vec![0xc1], Err(Malformed::Reserved)),
        (vec![0xc0, 0xc0, 0xc0], Err(Malformed::Trailing)),
        (vec![0x92, 0xc0], Err(Malformed::Truncated)),
        (vec![0x81, 0xc0], Err(Malformed::Truncated)),
        (vec![0xcf, 0, 0, 0], Err(Malformed::Truncated)),
        (vec![0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0], Err(Malformed::Truncated)),
        (vec![0xdf, 0x80, 0, 0, 0, 0xc0], Err(Malformed::Truncated)),
        (vec![0xc6, 0xff, 0xff, 0xff, 0xff, 0xc0], Err(Malformed::Truncated)),
        (vec![0xd8, 1, 0, 0], Err(Malformed::Truncated)),
        (vec![0xa1, 0xff], Err(Malformed::NotUtf8)),
        (vec![0x81, 0x90, 0xc0], Err(Malformed::Key)),
        (vec![0x81, 0x80, 0xc0], Err(Malformed::Key)),
        (vec![0x81, 0xd4, 1, 0, 0xc0], Err(Malformed::Key)),
        (nested(DEPTH_MAX), Ok(())),
        (nested(DEPTH_MAX + 1), Err(Malformed::TooDeep)),
        (vec![0x91; 10_000_000], Err(Malformed::TooDeep)),
    ] {
        assert_eq!(Reader::check(&value), expected, "{:02x?}", &value[..value.len().min(20)]);
    }
}

/// JSON from another client may be as deep as it likes: to translate it takes no stack.
#[test]
fn deep_json_is_translated_like_any_other() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(msgpack_of(&deep).unwrap(), [vec![0x91; 99_999], vec![0x90]].concat());
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-70_000..70_000_i64).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has these alone", |it| it.is_finite()).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[a-z]{250,260}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::vec((".{0,9}", inner), 0..20)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever JSON a publisher sends, a client of MessagePack that sends it on has changed nothing.
    #[test]
    fn json_survives_messagepack(value in values()) {
        let json = value.to_string();
        let translated = msgpack_of(&json).unwrap();
        prop_assert!(translated.len() <= json.len() + growth_at_most(json.as_bytes()));
        prop_assert_eq!(json_of(&translated), json);
    }

    #[test]
    fn hostile_bytes_are_refused_or_translated(
        noise in proptest::collection::vec(any::<u8>(), 0..300), value in values(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut near = msgpack_of(&value.to_string()).unwrap();
        for (at, with) in changes {
            let at = at.index(near.len());
            near[at] = with;
        }
        let cut = &near[..cut.index(near.len())];
        for bytes in [&noise[..], &near, cut] {
            let Ok(payload) = Payload::parse_msgpack(bytes) else { continue };
            let json = payload.json();
            prop_assert!(json.len() <= payload.bytes_at_most());
            prop_assert!(json.len() <= 8 * bytes.len(), "{bytes:02x?}");
            prop_assert!(serde_json::from_slice::<&RawValue>(&json).is_ok());
            prop_assert!(Reader::check(&msgpack_of(str::from_utf8(&json).unwrap()).unwrap()).is_ok());
        }
    }

    /// What comes out of Redis may be anything.
    #[test]
    fn what_is_no_json_after_all_is_a_value_all_the_same(noise in "[\\[\\]{}\",:0-9a-z\\\\. -]{0,30}") {
        let mut out = Vec::new();
        Payload::from_trusted(noise.into()).write_msgpack(&mut out);
        prop_assert!(Reader::check(&out).is_ok());
    }
}

#[test]
fn growth_is_bounded_where_it_is_worst() {
    for json in ["-0", "1.0", "[-0,-0]", "[1e9,1E9]", &json!("x".repeat(70_000)).to_string()] {
        assert!(msgpack_of(json).unwrap().len() <= json.len() + growth_at_most(json.as_bytes()), "{json}");
    }
}
