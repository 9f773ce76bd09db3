//! The tables of all keys: one line makes a key parsed, bounded, suggested, printed and documented.

use super::check::Kind;

mod auth;
mod backends;
mod dialects;
mod limits;
mod listeners;
mod namespaces;
mod node;

/// What stands for a name of the operator's choice in the path of a key.
pub(super) const ANY: &str = "*";

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// `section.name`; a segment [`ANY`] stands for a name of the operator's choice.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    pub(super) reload: bool,
    /// A sentence or two.
    pub(super) help: &'static str,
}

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// A value, in TOML's spelling.
    Value(&'static str),
    /// Nothing, which means something of its own; and a value to show as an example.
    Unset { meaning: &'static str, example: &'static str },
}

/// A section: the first segment of its keys' paths.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) keys: &'static [Key],
}

const fn key(path: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { path, kind, default: Default::Value(default), reload: false, help }
}

const fn unset(
    path: &'static str,
    kind: Kind,
    meaning: &'static str,
    example: &'static str,
    help: &'static str,
) -> Key {
    Key { path, kind, default: Default::Unset { meaning, example }, reload: false, help }
}

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max }
}

impl Key {
    /// A running node can take a new value.
    const fn reloadable(self) -> Self {
        Self { reload: true, ..self }
    }

    /// Whether this is the key of `path`.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut ours = self.path.split('.');
        let mut theirs = path.split('.');
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a == ANY || a == b => {}
                _ => return false,
            }
        }
    }

    /// The path as it is written under the heading of its section, or of its namespace.
    pub(super) fn below_heading(&self) -> &'static str {
        let (_, below) = self.path.split_once('.').expect("every key has a section");
        below.split_once("*.").map_or(below, |(_, below)| below)
    }

    /// The table whose entries the operator names, if this key is in one.
    pub(super) fn named_table(&self) -> Option<&'static str> {
        self.path.split_once(".*.").map(|(table, _)| table)
    }

    /// The last segment of the path.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

const NAME: Kind = Kind::Text { max: 64, also: "._-" };

/// In the order in which they are printed and documented.
pub(super) const SECTIONS: &[Section] = &[
    listeners::LISTEN,
    listeners::TLS,
    listeners::PROXY,
    node::NODE,
    node::BROKER,
    node::REDIS,
    auth::AUTH,
    auth::AUTH_ISSUERS,
    listeners::ORIGIN,
    listeners::WEBSOCKET,
    listeners::COMPRESSION,
    limits::LIMITS,
    node::HEARTBEAT,
    node::PRESENCE,
    node::READINESS,
    backends::API,
    backends::API_CALLERS,
    backends::HOOKS,
    backends::EVENTS,
    backends::CONSUMERS,
    dialects::PUSHER_APPS,
    dialects::PUSHER_WEBHOOKS,
    dialects::CENTRIFUGO,
    node::OUTGOING,
    node::CONSOLE,
    node::TRACING,
    node::LOG,
    namespaces::NAMESPACES,
];

/// All keys, in the order of the table.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of `path`, `namespaces.room.publish` among them.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.matches(path))
}

/// The table in which the operator names an entry by this path, and the name.
pub(super) fn named(path: &str) -> Option<(&'static str, &str)> {
    all().filter_map(Key::named_table).find_map(|table| {
        let name = path.strip_prefix(table)?.strip_prefix('.')?.split('.').next()?;
        Some((table, name))
    })
}

/// Whether a running node can take a new value of this key. False for a path that is no key.
#[must_use]
pub fn reloadable(path: &str) -> bool {
    find(path).is_some_and(|key| key.reload)
}

/// Whether `path` is a key that only a start reads.
pub(super) fn needs_restart(path: &str) -> bool {
    find(path).is_some_and(|key| !key.reload)
}

/// Whether `path` is above keys: a section, or one namespace.
pub(super) fn is_table(path: &str) -> bool {
    all().any(|key| {
        let mut theirs = path.split('.');
        let mut ours = key.path.split('.');
        theirs.all(|it| ours.next().is_some_and(|our| our == ANY || our == it)) && ours.next().is_some()
    })
}
