//! Layers of checked values, the last one winning.

use std::collections::{BTreeMap, BTreeSet};

use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};

use super::check::{Kind, Raw, is_name};
use super::keys::{self, Default};
use super::layer::{self, Entry};
use super::mistake::{Mistakes, Place};
use super::suggest::nearest;

/// What all layers together say. Every value in it has the type that the table declares.
#[derive(Clone)]
pub(super) struct Merged {
    root: Value,
    /// What was set by a layer over the defaults, and where: the highest layer comes last.
    set: Vec<(String, Place)>,
    /// What exists in the tables whose entries the operator names, with or without a key of its own.
    names: Names,
}

/// Names by table.
type Names = BTreeMap<&'static str, BTreeSet<String>>;

/// Checks every entry of every layer and lays the sound ones over the defaults.
pub(super) fn merge(layers: [Vec<Entry>; 3], mistakes: &mut Mistakes) -> Merged {
    let mut builder = Config::builder().add_source(defaults());
    let mut set = Vec::new();
    let mut names = Names::new();
    for entries in layers {
        let mut layer = Layer::default();
        for entry in entries {
            if let Some(value) = check(&entry, mistakes) {
                layer.0.insert(entry.path.clone(), value);
            }
            if let Some((table, name)) = keys::named(&entry.path)
                && !mistakes.touch(&entry.path)
            {
                names.entry(table).or_default().insert(name.to_owned());
            }
            set.push((entry.path, entry.place));
        }
        builder = builder.add_source(layer);
    }
    let merged = builder.build().expect("layers in memory cannot fail to be read");
    Merged { root: merged.cache, set, names }
}

/// The value of a sound entry; a mistake is written down instead.
fn check(entry: &Entry, mistakes: &mut Mistakes) -> Option<Value> {
    let Entry { path, raw, shown, place } = entry;
    if let Some((table, name)) = keys::named(path)
        && !is_name(name, 64, "_-")
    {
        let whose = match table {
            "namespaces" => "a namespace",
            "auth.issuers" => "an issuer",
            "pusher.webhooks" => "a place for webhooks",
            _ => "an application",
        };
        let text = format!("{path}: the name of {whose} is 1 to 64 letters, digits and any of \"_-\"");
        mistakes.at(path, text, place);
        return None;
    }
    let Some(key) = keys::find(path) else {
        refuse_name(entry, mistakes);
        return None;
    };
    let Some(kind) = key.kind.check(raw) else {
        let shown = if key.kind.is_secret() { "(secret)" } else { shown };
        let mut text = format!("{path} = {shown}: {} is expected", key.kind);
        if matches!(raw, Raw::Table { .. }) {
            text = format!("{path}: {} is expected, not a table", key.kind);
        }
        mistakes.at(path, text, place);
        return None;
    };
    Some(Value::new(Some(&place.to_string()), kind))
}

/// An entry whose path is no key.
fn refuse_name(Entry { path, raw, place, .. }: &Entry, mistakes: &mut Mistakes) {
    if keys::is_table(path) {
        // `[limits]` with nothing in it says nothing, and `[namespaces.room]` says that there is a room.
        if !matches!(raw, Raw::Table { empty: true }) {
            // The value is not shown: it may be a key of the API that was put a step too high.
            mistakes.at(path, format!("{path}: a table of keys is expected"), place);
        }
        return;
    }
    let advice = match nearest(path) {
        Some(near) => format!("did you mean {near}?"),
        None => "`fanfare default-config` prints all keys".into(),
    };
    mistakes.at(path, format!("{path}: no such key; {advice}"), place);
}

/// The table's defaults as the lowest layer.
fn defaults() -> Layer {
    let values = keys::all().filter_map(|key| {
        let value = default_of(key.kind, key.default)?;
        Some((key.path.to_owned(), Value::new(None, value)))
    });
    // A default of all namespaces is no namespace: it is looked up when one is read.
    Layer(values.filter(|(path, _)| !path.contains(keys::ANY)).collect())
}

fn default_of(kind: Kind, default: Default) -> Option<ValueKind> {
    match default {
        Default::Value(literal) => {
            let raw = layer::literal(literal).expect("defaults are TOML");
            Some(kind.check(&raw).expect("defaults are within their own bounds"))
        }
        Default::Unset { .. } => None,
    }
}

impl Merged {
    /// What the operator has named in this table.
    pub(super) fn names(&self, table: &str) -> impl Iterator<Item = &String> {
        self.names.get(table).into_iter().flatten()
    }

    /// The value of a key, its default if no layer sets it, None if it has no default.
    fn value(&self, path: &str) -> Option<ValueKind> {
        let mut value = Some(&self.root);
        for segment in path.split('.') {
            value = match value.map(|it| &it.kind) {
                Some(ValueKind::Table(table)) => table.get(segment),
                _ => None,
            };
        }
        let key = keys::find(path).expect("only keys of the table are read");
        value.map(|it| it.kind.clone()).or_else(|| default_of(key.kind, key.default))
    }

    /// A whole number; None if it is not set and has no default.
    pub(super) fn whole(&self, path: &str) -> Option<u64> {
        self.value(path).map(|it| match it {
            ValueKind::U64(number) => number,
            other => unreachable!("{path} was checked to be a whole number and is {other:?}"),
        })
    }

    /// A switch; None if it is not set and has no default.
    pub(super) fn switch(&self, path: &str) -> Option<bool> {
        self.value(path).map(|it| matches!(it, ValueKind::Boolean(true)))
    }

    /// A text; None if it is not set and has no default.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.value(path).map(|it| it.to_string())
    }

    /// The items of a list; none if it is not set.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(ValueKind::Array(items)) => items.iter().map(|it| it.kind.to_string()).collect(),
            _ => Vec::new(),
        }
    }

    /// The keys that have another value in `other`, in the order of the table. What only one of the two has a name for is
    /// named itself, not its keys.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let none = BTreeSet::new();
        let (mut both, mut one) = (Names::new(), Vec::new());
        for table in self.names.keys().chain(other.names.keys()).collect::<BTreeSet<_>>() {
            let ours = self.names.get(table).unwrap_or(&none);
            let theirs = other.names.get(table).unwrap_or(&none);
            both.insert(table, ours.intersection(theirs).cloned().collect());
            one.extend(ours.symmetric_difference(theirs).map(|name| format!("{table}.{name}")));
        }
        paths(&both).filter(|path| self.value(path) != other.value(path)).chain(one).collect()
    }

    /// The reloadable keys of `new`, and the others as they are here, which have no place in what was read last.
    pub(super) fn reloaded(&self, new: &Self) -> Self {
        let mut layer = Layer::default();
        for path in paths(&new.names) {
            let from = if keys::needs_restart(&path) { self } else { new };
            if let Some(kind) = from.value(&path) {
                layer.0.insert(path, Value::new(None, kind));
            }
        }
        let merged =
            Config::builder().add_source(layer).build().expect("a layer in memory cannot fail to be read");
        let set = new.set.iter().filter(|(path, _)| !keys::needs_restart(path)).cloned().collect();
        Self { root: merged.cache, set, names: new.names.clone() }
    }

    /// The place that decides the value of a key: the highest layer that sets it.
    pub(super) fn place(&self, path: &str) -> Option<&Place> {
        self.set.iter().rev().find(|(it, _)| it == path).map(|(_, place)| place)
    }

    /// The place of a table, or of the first key in it that is set.
    pub(super) fn place_under(&self, table: &str) -> Option<&Place> {
        let is_under =
            |path: &str| path.strip_prefix(table).is_some_and(|it| it.is_empty() || it.starts_with('.'));
        self.set.iter().find(|(path, _)| is_under(path)).map(|(_, place)| place)
    }
}

/// Every key, those of a table whose entries are named once for each of its `names`.
fn paths(names: &Names) -> impl Iterator<Item = String> {
    keys::all().flat_map(move |key| -> Vec<String> {
        let Some(table) = key.named_table() else { return vec![key.path.to_owned()] };
        let names = names.get(table).into_iter().flatten();
        names.map(|name| key.path.replace(keys::ANY, name)).collect()
    })
}

/// One layer for the `config` crate: paths, and values that have their type already.
#[derive(Clone, Debug, std::default::Default)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}
