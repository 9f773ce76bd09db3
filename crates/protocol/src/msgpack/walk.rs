//! Walks through one value, however deep, without the stack.

use super::{DEPTH_MAX, Malformed, Reader, Token};

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the value that the walk is about.
    Root,
    /// In an array.
    Item {
        /// Whether nothing stands before it.
        is_first: bool,
    },
    /// In a map, in front of a value.
    Key {
        /// Whether nothing stands before it.
        is_first: bool,
    },
    /// In a map, behind its key.
    Value,
}

/// What is met on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step<'a> {
    Token(Place, Token<'a>),
    EndOfArray,
    EndOfMap,
}

/// An array or a map that is not complete.
struct Level {
    is_map: bool,
    /// How many values it has, those that are keys included.
    whole: u64,
    /// How many of them have not been read.
    left: u64,
}

impl Level {
    /// Takes the place of the next value.
    fn next(&mut self) -> Place {
        let is_key = self.is_map && self.left.is_multiple_of(2);
        let is_first = self.left == self.whole;
        self.left -= 1;
        match (self.is_map, is_key) {
            (false, _) => Place::Item { is_first },
            (true, true) => Place::Key { is_first },
            (true, false) => Place::Value,
        }
    }
}

/// Reads one value to its end.
pub(super) fn walk<'a>(reader: &mut Reader<'a>, visit: impl FnMut(Step<'a>)) -> Result<(), Malformed> {
    walk_within(reader, DEPTH_MAX, visit)
}

/// The same with so many levels at most.
pub(super) fn walk_within<'a>(
    reader: &mut Reader<'a>,
    levels: usize,
    mut visit: impl FnMut(Step<'a>),
) -> Result<(), Malformed> {
    let mut open: Vec<Level> = Vec::new();
    loop {
        let token = reader.token()?;
        let place = open.last_mut().map_or(Place::Root, Level::next);
        let contents = match token {
            Token::Array(count) => Some((false, u64::from(count))),
            Token::Map(count) => Some((true, 2 * u64::from(count))),
            _ => None,
        };
        if let Place::Key { .. } = place
            && (contents.is_some() || matches!(token, Token::Ext(..)))
        {
            return Err(Malformed::Key);
        }
        visit(Step::Token(place, token));
        if let Some((is_map, whole)) = contents {
            if open.len() == levels {
                return Err(Malformed::TooDeep);
            }
            open.push(Level { is_map, whole, left: whole });
        }
        while let Some(level) = open.pop_if(|level| level.left == 0) {
            visit(if level.is_map { Step::EndOfMap } else { Step::EndOfArray });
        }
        if open.is_empty() {
            return Ok(());
        }
    }
}
