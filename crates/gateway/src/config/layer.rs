//! From text to entries: each layer flattened into paths, values as they were written, and places.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::check::Raw;
use super::mistake::{Mistakes, Place};
use super::source::{File, PREFIX, Source};

/// How much of a value a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// One value of one layer.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) raw: Raw,
    /// As it was written, cut to what a message can hold.
    pub(super) shown: String,
    pub(super) place: Place,
}

/// The layers over the defaults, lowest first.
pub(super) fn read(source: &Source, mistakes: &mut Mistakes) -> [Vec<Entry>; 3] {
    let file = source.file.as_ref().map(|it| read_file(it, mistakes)).unwrap_or_default();
    let environment = source
        .environment
        .iter()
        // An empty variable is how compose files spell "not set".
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
            Some(untyped(path, value, Place::Variable(name.clone())))
        })
        .collect();
    let flags = source
        .flags
        .iter()
        .map(|flag| untyped(flag.path.clone(), &flag.value, Place::Flag(flag.name.clone())))
        .collect();
    [file, environment, flags]
}

fn untyped(path: String, value: &str, place: Place) -> Entry {
    Entry { path, raw: Raw::Untyped(value.into()), shown: cut(&format!("{value:?}")), place }
}

/// A list in a variable or flag: TOML's spelling, or items with commas between them.
pub(super) fn list(text: &str) -> Option<Vec<Raw>> {
    if !text.trim_start().starts_with('[') {
        return Some(text.split(',').map(|item| Raw::Text(item.trim().into())).collect());
    }
    match raw(DeValue::parse(text.trim()).ok()?.get_ref()) {
        Raw::List(items) => Some(items),
        _ => None,
    }
}

/// A value in TOML's spelling, as the table of keys has its defaults.
pub(super) fn literal(text: &str) -> Option<Raw> {
    DeValue::parse(text).ok().map(|it| raw(it.get_ref()))
}

fn read_file(file: &File, mistakes: &mut Mistakes) -> Vec<Entry> {
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    let lines = Lines { file };
    for error in &errors {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        mistakes.add(format!("not TOML: {} ({place})", error.message()));
    }
    let mut entries = Vec::new();
    // What a broken file seems to say would only add mistakes that nobody made.
    if errors.is_empty() {
        lines.walk("", table.get_ref(), &mut entries);
        // TOML's tables have no order; messages keep the file's.
        entries.sort_by(|a, b| a.place.cmp(&b.place));
    }
    entries
}

/// Turns offsets of a file into lines.
struct Lines<'a> {
    file: &'a File,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = &self.file.text.as_bytes()[..offset.min(self.file.text.len())];
        let line = 1 + before.iter().filter(|it| **it == b'\n').count();
        Place::Line { file: self.file.path.clone(), line }
    }

    /// Every value below `table`, and every table that holds none: it may be a namespace, or an unknown section.
    fn walk(&self, above: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
        for (key, value) in table.iter() {
            let name = key.get_ref();
            let path = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
            let shown = cut(self.file.text.get(value.span()).unwrap_or_default());
            let place = self.place(key.span().start);
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() && super::keys::find(&path).is_none() => {
                    self.walk(&path, inner, entries);
                }
                other => entries.push(Entry { path, raw: raw(other), shown, place }),
            }
        }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => Raw::Whole(i128::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::Array(items) => Raw::List(raws(items)),
        DeValue::Table(table) => Raw::Table { empty: table.is_empty() },
        DeValue::Float(_) | DeValue::Datetime(_) => Raw::Other,
    }
}

fn raws(items: &DeArray<'_>) -> Vec<Raw> {
    items.iter().map(Spanned::get_ref).map(raw).collect()
}

/// The first line of a value, at most [`SHOWN_CHARS_MAX`] characters of it.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
