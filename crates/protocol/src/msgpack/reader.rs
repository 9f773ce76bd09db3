//! Reads tokens, and whole values, where they lie.

use rmp::Marker;

use super::Malformed;
use super::walk::walk;

/// One value without what it contains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    /// A whole number that is not negative, whichever form it has.
    Unsigned(u64),
    /// A whole number below zero.
    Negative(i64),
    /// Of 32 bits or of 64: every float of 32 bits is one of 64.
    Float(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many pairs of values follow.
    Map(u32),
}

/// What has not been read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// That the bytes are one value and nothing else.
    pub(crate) fn check(bytes: &'a [u8]) -> Result<(), Malformed> {
        let mut reader = Self(bytes);
        reader.value()?;
        reader.end()
    }

    /// That nothing is left.
    pub(crate) const fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    /// The bytes of the next value, which is checked to its end.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], Malformed> {
        let before = self.0;
        walk(self, |_| ())?;
        Ok(&before[..before.len() - self.0.len()])
    }

    /// The next token.
    pub(crate) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let [marker] = self.array()?;
        Ok(match Marker::from_u8(marker) {
            Marker::Null => Token::Nil,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::FixPos(number) => Token::Unsigned(number.into()),
            Marker::U8 => Token::Unsigned(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Token::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Token::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::FixNeg(number) => Token::Negative(number.into()),
            Marker::I8 => signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let length = self.length(marker - 0xd9)?;
                self.text(length)?
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let length = self.length(marker - 0xc4)?;
                Token::Bin(self.take(length)?)
            }
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 | Marker::Ext16 | Marker::Ext32 => {
                let length = self.length(marker - 0xc7)?;
                self.ext(length)?
            }
            Marker::FixArray(count) => Token::Array(self.announced(count.into(), 1)?),
            Marker::Array16 | Marker::Array32 => {
                let count = self.length(marker - 0xdc + 1)?;
                Token::Array(self.announced(count, 1)?)
            }
            Marker::FixMap(count) => Token::Map(self.announced(count.into(), 2)?),
            Marker::Map16 | Marker::Map32 => {
                let count = self.length(marker - 0xde + 1)?;
                Token::Map(self.announced(count, 2)?)
            }
            Marker::Reserved => return Err(Malformed::Reserved),
        })
    }

    fn take(&mut self, count: u32) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count as usize).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A length of 1, 2 or 4 bytes, whose forms have markers that follow each other.
    fn length(&mut self, form: u8) -> Result<u32, Malformed> {
        Ok(match form {
            0 => u8::from_be_bytes(self.array()?).into(),
            1 => u16::from_be_bytes(self.array()?).into(),
            _ => u32::from_be_bytes(self.array()?),
        })
    }

    fn text(&mut self, length: u32) -> Result<Token<'a>, Malformed> {
        str::from_utf8(self.take(length)?).map(Token::Str).map_err(|_| Malformed::NotUtf8)
    }

    fn ext(&mut self, length: u32) -> Result<Token<'a>, Malformed> {
        let [kind] = self.array()?;
        Ok(Token::Ext(i8::from_be_bytes([kind]), self.take(length)?))
    }

    /// A number of items, each of which takes a byte at least: more than there are bytes will not come.
    fn announced(&self, count: u32, values_each: u64) -> Result<u32, Malformed> {
        if u64::from(count) * values_each > self.0.len() as u64 {
            Err(Malformed::Truncated)
        } else {
            Ok(count)
        }
    }
}

fn signed(number: i64) -> Token<'static> {
    u64::try_from(number).map_or(Token::Negative(number), Token::Unsigned)
}
