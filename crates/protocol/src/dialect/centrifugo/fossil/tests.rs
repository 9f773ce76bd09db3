//! Deltas against a reader of the format that shares nothing with their writer. The SDKs' own reads them in `tests/sdk`.

use proptest::prelude::*;

use super::*;

/// Reads a delta as the format's description has it, checking all that can be checked.
fn applied(before: &[u8], mut delta: &[u8]) -> Result<Vec<u8>, String> {
    let length = number(&mut delta)?;
    expect(&mut delta, b'\n')?;
    let mut now = Vec::new();
    loop {
        let count = number(&mut delta)?;
        let (&operator, rest) = delta.split_first().ok_or("it ends")?;
        delta = rest;
        match operator {
            b'@' => {
                let from = number(&mut delta)?;
                expect(&mut delta, b',')?;
                now.extend_from_slice(before.get(from..from + count).ok_or("a copy of what is not there")?);
            }
            b':' => {
                let (literal, rest) = delta.split_at_checked(count).ok_or("a literal is cut off")?;
                now.extend_from_slice(literal);
                delta = rest;
            }
            b';' if !delta.is_empty() => return Err("something follows".into()),
            b';' if now.len() != length => return Err(format!("{} bytes, not {length}", now.len())),
            b';' if sum_of_columns(&now) as usize != count => return Err("the checksum is wrong".into()),
            b';' => return Ok(now),
            other => return Err(format!("an operator {other}")),
        }
    }
}

fn number(delta: &mut &[u8]) -> Result<usize, String> {
    let digits = delta.iter().take_while(|byte| DIGITS.contains(byte)).count();
    if digits == 0 {
        return Err("a number is missing".into());
    }
    let (number, rest) = delta.split_at(digits);
    *delta = rest;
    let value = |byte: &u8| DIGITS.iter().position(|it| it == byte).expect("it is a digit");
    Ok(number.iter().fold(0, |number, byte| number * 64 + value(byte)))
}

fn expect(delta: &mut &[u8], wanted: u8) -> Result<(), String> {
    let (&byte, rest) = delta.split_first().ok_or("it ends")?;
    *delta = rest;
    if byte == wanted { Ok(()) } else { Err(format!("{byte} where {wanted} belongs")) }
}

/// The checksum as readers compute it: each of the four columns of bytes for itself.
fn sum_of_columns(bytes: &[u8]) -> u32 {
    let column =
        |column: usize| bytes.iter().skip(column).step_by(4).map(|byte| u32::from(*byte)).sum::<u32>();
    (0..4).fold(0, |sum: u32, it| sum.wrapping_add(column(it) << (24 - 8 * it)))
}

#[test]
fn what_is_little_changed_is_a_short_delta() {
    let before =
        br#"{"symbol":"FNFR","price":101.25,"volume":1200,"venue":"loopback exchange, second floor"}"#;
    let now = br#"{"symbol":"FNFR","price":101.50,"volume":1310,"venue":"loopback exchange, second floor"}"#;
    let delta = delta(before, now, Kind::Text).unwrap();
    assert_eq!(String::from_utf8_lossy(&delta), "1O\nT@0,F:50,\"volume\":131h@h,2N~MP8;");
}

#[test]
fn what_is_moved_is_found() {
    let part = |seed: u8| (0..100).map(|n: u8| n.wrapping_mul(37) ^ seed).collect::<Vec<_>>();
    let before = [part(1), part(2), part(3)].concat();
    let now = [part(3), b"new".to_vec(), part(1), part(2)].concat();
    let delta = delta(&before, &now, Kind::Bytes).unwrap();
    assert!(delta.len() < 40, "{delta:?}");
    assert_eq!(applied(&before, &delta), Ok(now));
}

#[test]
fn a_delta_that_is_not_shorter_is_none() {
    for (before, now) in [
        (&b""[..], &b""[..]),
        (b"", b"something that was not there before"),
        (b"nothing in common with what comes", b"12345678901234567890"),
        (b"short", b"short"),
    ] {
        assert_eq!(delta(before, now, Kind::Bytes), None, "{before:?} {now:?}");
    }
    let same = "the same as it was before, word for word".as_bytes();
    assert!(delta(same, same, Kind::Text).is_some());
    let huge = vec![b'x'; BYTES_MAX];
    assert_eq!(delta(&huge, same, Kind::Bytes), None, "it would take long");
}

/// Payloads that have much in common, made of few words, some of which begin with the same byte.
fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "é",
        "è",
        "ê",
        "price",
        "\"",
        "{\"a\":",
        "日本",
        "日木",
        "🦀",
        "🦁",
        "0123456789abcdef",
        "\\n",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0x80, 0xbf, 0xff]), 0..400)
}

proptest! {
    #[test]
    fn whatever_is_now_comes_of_its_delta(before in bytes(), middle in bytes(), cut in 0..400_usize) {
        let cut = cut.min(before.len());
        for now in [[&before[..cut], &middle, &before[cut..]].concat(), [&before[cut..], &middle, &before[..cut]].concat()] {
            if let Some(delta) = delta(&before, &now, Kind::Bytes) {
                prop_assert!(delta.len() < now.len());
                prop_assert_eq!(applied(&before, &delta), Ok(now));
            }
        }
    }

    /// Also where a copy could begin or end within a character.
    #[test]
    fn a_delta_of_text_is_text(before in text(), now in text(), tail in text()) {
        let (before, now) = (before + &tail, now + &tail);
        if let Some(delta) = delta(before.as_bytes(), now.as_bytes(), Kind::Text) {
            prop_assert!(str::from_utf8(&delta).is_ok());
            prop_assert_eq!(applied(before.as_bytes(), &delta), Ok(now.into_bytes()));
        }
    }
}
