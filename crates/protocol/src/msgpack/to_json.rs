//! From MessagePack to JSON text, as `docs/protocol.md` has it.

use data_encoding::BASE64;

use super::walk::{Place, Step, walk};
use super::{Reader, Token};

/// The ext type of timestamps, which MessagePack reserves.
const TIMESTAMP: i8 = -1;

/// Appends a value that has been checked, as JSON on one line.
pub(crate) fn to_json(value: &[u8], out: &mut Vec<u8>) {
    let walked = walk(&mut Reader::new(value), |step| match step {
        Step::Token(place, token) => {
            match place {
                Place::Item { is_first: false } | Place::Key { is_first: false } => out.push(b','),
                Place::Value => out.push(b':'),
                Place::Root | Place::Item { is_first: true } | Place::Key { is_first: true } => {}
            }
            match place {
                Place::Key { .. } => key_to_json(token, out),
                Place::Root | Place::Item { .. } | Place::Value => write_token(token, out),
            }
        }
        Step::EndOfArray => out.push(b']'),
        Step::EndOfMap => out.push(b'}'),
    });
    walked.expect("a payload was checked when it was taken");
}

/// Appends what may be a key, as the string that JSON wants there.
pub(crate) fn key_to_json(token: Token<'_>, out: &mut Vec<u8>) {
    match token {
        Token::Str(_) => write_token(token, out),
        Token::Bin(bytes) => write_base64(bytes, out),
        // None of these has anything to escape.
        _ => {
            out.push(b'"');
            write_token(token, out);
            out.push(b'"');
        }
    }
}

fn write_token(token: Token<'_>, out: &mut Vec<u8>) {
    match token {
        Token::Nil => out.extend_from_slice(b"null"),
        Token::Bool(it) => out.extend_from_slice(if it { b"true" } else { b"false" }),
        Token::Unsigned(number) => write(&number, out),
        Token::Negative(number) => write(&number, out),
        Token::Float(number) => write(&number, out), // What is not finite is null.
        Token::Str(text) => write(text, out),
        Token::Bin(bytes) => {
            out.extend_from_slice(br#"{"$binary":"#);
            write_base64(bytes, out);
            out.push(b'}');
        }
        Token::Ext(TIMESTAMP, bytes) if write_timestamp(bytes, out).is_some() => {}
        Token::Ext(kind, bytes) => {
            out.extend_from_slice(br#"{"$ext":["#);
            write(&kind, out);
            out.push(b',');
            write_base64(bytes, out);
            out.extend_from_slice(b"]}");
        }
        Token::Array(_) => out.push(b'['),
        Token::Map(_) => out.push(b'{'),
    }
}

fn write<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a number or a text is JSON, and a vector takes every byte");
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + BASE64.encode_len(bytes.len()), 0);
    BASE64.encode_mut(bytes, &mut out[start..]);
    out.push(b'"');
}

/// Appends a timestamp as RFC 3339 has it, in UTC, with as many digits after the point as it needs; `None` for what is no
/// timestamp, or is of a year that has not four digits.
fn write_timestamp(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    const DAY: i64 = 24 * 60 * 60;
    let (seconds, nanos) = timestamp(bytes)?;
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(day)?;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos > 0 {
        text.push_str(format!(".{nanos:09}").trim_end_matches('0'));
    }
    text.push_str("Z\"");
    out.extend_from_slice(text.as_bytes());
    Some(())
}

/// The seconds since 1970 and the nanoseconds after that, in one of the three forms that there are.
fn timestamp(bytes: &[u8]) -> Option<(i64, u32)> {
    let (seconds, nanos) = match bytes.len() {
        4 => (u32::from_be_bytes(bytes.try_into().ok()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(bytes.try_into().ok()?);
            (i64::try_from(both & 0x3_ffff_ffff).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanos, seconds) = bytes.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    (nanos < 1_000_000_000).then_some((seconds, nanos))
}

/// The date of a day counted from 1970-01-01, by the Gregorian calendar, from year 0 to 9999.
///
/// After Hinnant's `civil_from_days`: years begin in March, so that the odd day of leap years is their last.
fn date(day: i64) -> Option<(i64, i64, i64)> {
    const DAYS_FROM_0000_03_01: i64 = 719_468;
    const ERA: i64 = 146_097; // The days of 400 years.
    if !(-DAYS_FROM_0000_03_01 - 60..2_932_897).contains(&day) {
        return None;
    }
    let day = day + DAYS_FROM_0000_03_01;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    Some((400 * era + year + i64::from(month <= 2), month, day))
}
