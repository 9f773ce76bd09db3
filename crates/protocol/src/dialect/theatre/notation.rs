//! MessagePack for readers: each byte in hexadecimal, but what is printable ASCII, two or more in a row, in quotation marks.
//!
//! `82 a4 "type" a7 "publish"` … A number from 32 to 126 beside a text is taken for part of it; that is no loss, since
//! what is rendered is what is compared.

use std::fmt::Write;

/// Spells bytes.
pub(super) fn render(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| is_printable(*a) == is_printable(*b)) {
        if run.len() > 1 && is_printable(run[0]) {
            write!(text, "\"{}\" ", str::from_utf8(run).unwrap()).unwrap();
        } else {
            run.iter().for_each(|byte| write!(text, "{byte:02x} ").unwrap());
        }
    }
    text.trim_end().to_owned()
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"'
}

/// Reads what [`render`] wrote.
pub(super) fn parse(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in text.split('"').enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            bytes.extend(part.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).expect("a byte")));
        }
    }
    bytes
}

#[test]
fn the_notation_is_read_as_it_is_written() {
    let bytes = b"\x82\xa4type\xa2id\x01A\xc4\"\x00";
    assert_eq!(render(bytes), r#"82 a4 "type" a2 "id" 01 41 c4 22 00"#);
    assert_eq!(parse(&render(bytes)), bytes);
}
