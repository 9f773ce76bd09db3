//! From JSON text to MessagePack.
//!
//! An array of MessagePack begins with its length, which JSON tells at the end. So the text is read twice: first to count,
//! then to write.

use rmp::encode as write;

/// Appends the value of a JSON text, each number and length in its shortest form; `None`, with nothing appended, for
/// what is no JSON.
///
/// Whole numbers that 64 bits can hold are integers, all others are floats of 64 bits, as near as there is one. A
/// surrogate without its other half becomes U+FFFD.
pub(crate) fn from_json(json: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let sizes = sizes(json)?;
    let start = out.len();
    let written = append(json, &sizes, out);
    if written.is_none() {
        out.truncate(start);
    }
    written
}

/// At most so many bytes more does a JSON text have as MessagePack.
///
/// What grows are short numbers that are floats, to nine bytes, and the length in front of a long text alone.
pub(crate) fn growth_at_most(json: &[u8]) -> usize {
    const OF_FLOAT: usize = 7;
    const OF_LONG_TEXT: usize = 3;
    let may_be_float = |pair: &&[u8]| matches!(pair, [b'0'..=b'9', b'.' | b'e' | b'E'] | [b'-', b'0']);
    let floats = json.windows(2).filter(may_be_float).count();
    OF_FLOAT * floats + if json.len() > 256 { OF_LONG_TEXT } else { 0 }
}

fn append(json: &[u8], sizes: &[u32], out: &mut Vec<u8>) -> Option<()> {
    let mut sizes = sizes.iter().copied();
    for token in tokens(json) {
        // Writing into memory does not fail; that `rmp` cannot know is no reason for a second kind of outcome here.
        match token? {
            Token::Array => _ = write::write_array_len(out, sizes.next()?).ok()?,
            Token::Object => _ = write::write_map_len(out, sizes.next()? / 2).ok()?,
            Token::EndOfArray | Token::EndOfObject => {}
            Token::Text(raw) => match unescape(raw) {
                None => write::write_str(out, raw).ok()?,
                Some(text) => write::write_str(out, &text?).ok()?,
            },
            Token::Number(digits) => number(digits, out)?,
            Token::Null => write::write_nil(out).ok()?,
            Token::Bool(it) => write::write_bool(out, it).ok()?,
        }
    }
    Some(())
}

fn number(digits: &str, out: &mut Vec<u8>) -> Option<()> {
    // Minus zero is a float: there is no such integer.
    if digits != "-0" {
        if let Ok(number) = digits.parse::<u64>() {
            return write::write_uint(out, number).ok().map(drop);
        }
        if let Ok(number) = digits.parse::<i64>() {
            return write::write_sint(out, number).ok().map(drop);
        }
    }
    write::write_f64(out, digits.parse().ok()?).ok()
}

/// How many values each array and object has, keys included, in the order in which they begin; `None` where they are not
/// one whole value.
fn sizes(json: &[u8]) -> Option<Vec<u32>> {
    let (mut sizes, mut open) = (Vec::new(), Vec::new());
    let mut roots = 0;
    for token in tokens(json) {
        let token = token?;
        if let Token::EndOfArray | Token::EndOfObject = token {
            let (is_object, at): (bool, usize) = open.pop()?;
            if is_object != (token == Token::EndOfObject) || (is_object && sizes[at] % 2 == 1) {
                return None;
            }
            continue;
        }
        *open.last().map_or(&mut roots, |&(_, at)| &mut sizes[at]) += 1;
        if let Token::Array | Token::Object = token {
            open.push((token == Token::Object, sizes.len()));
            sizes.push(0);
        }
    }
    (open.is_empty() && roots == 1).then_some(sizes)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Array,
    Object,
    EndOfArray,
    EndOfObject,
    /// What stands between the quotation marks.
    Text(&'a str),
    Number(&'a str),
    Bool(bool),
    Null,
}

/// The tokens of a JSON text; `None` for one that is none. That commas and colons are where they belong is taken on trust.
fn tokens(json: &[u8]) -> impl Iterator<Item = Option<Token<'_>>> {
    let mut rest = json;
    std::iter::from_fn(move || {
        let start =
            rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':'))?;
        rest = &rest[start..];
        let (token, length) = match token(rest) {
            Some((token, length)) => (Some(token), length),
            None => (None, rest.len()),
        };
        rest = &rest[length..];
        Some(token)
    })
}

/// The token that the text begins with, and its length.
fn token(text: &[u8]) -> Option<(Token<'_>, usize)> {
    Some(match text.first()? {
        b'[' => (Token::Array, 1),
        b']' => (Token::EndOfArray, 1),
        b'{' => (Token::Object, 1),
        b'}' => (Token::EndOfObject, 1),
        b'"' => {
            let length = text_length(&text[1..])?;
            (Token::Text(str::from_utf8(&text[1..=length]).ok()?), length + 2)
        }
        _ if text.starts_with(b"null") => (Token::Null, 4),
        _ if text.starts_with(b"true") => (Token::Bool(true), 4),
        _ if text.starts_with(b"false") => (Token::Bool(false), 5),
        _ => {
            let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
            let length = text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len());
            if length == 0 {
                return None;
            }
            (Token::Number(str::from_utf8(&text[..length]).ok()?), length)
        }
    })
}

/// How far it is to the quotation mark that ends a text.
fn text_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2; // What is escaped ends nothing.
    }
}

/// The text that a JSON string with escapes means; `None` when it has none, and inside that when one is no escape.
fn unescape(raw: &str) -> Option<Option<String>> {
    raw.contains('\\').then(|| {
        let mut text = String::with_capacity(raw.len());
        let mut parts = raw.split('\\');
        text.push_str(parts.next()?);
        let mut high = None;
        while let Some(part) = parts.next() {
            if let Some(hex) = part.strip_prefix('u') {
                let unit = u16::from_str_radix(hex.get(..4)?, 16).ok()?;
                push_unit(&mut text, &mut high, unit);
                if hex.len() > 4 {
                    flush(&mut text, &mut high);
                    text.push_str(&hex[4..]);
                }
                continue;
            }
            flush(&mut text, &mut high);
            // Two backslashes leave an empty part between them: the second one is the escaped character.
            let Some(escaped) = part.chars().next() else {
                text.push('\\');
                text.push_str(parts.next()?);
                continue;
            };
            text.push(match escaped {
                '"' | '/' => escaped,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                _ => return None,
            });
            text.push_str(&part[1..]);
        }
        flush(&mut text, &mut high);
        Some(text)
    })
}

/// Takes the next unit of UTF-16; the first half of a pair waits in `high`.
fn push_unit(text: &mut String, high: &mut Option<u16>, unit: u16) {
    if let Some(first) = *high
        && (0xdc00..0xe000).contains(&unit)
    {
        *high = None;
        text.extend(char::decode_utf16([first, unit]).flatten());
        return;
    }
    flush(text, high);
    match unit {
        0xd800..0xdc00 => *high = Some(unit),
        _ => text.push(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

/// A first half that nothing has followed is no character.
fn flush(text: &mut String, high: &mut Option<u16>) {
    if high.take().is_some() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
}
