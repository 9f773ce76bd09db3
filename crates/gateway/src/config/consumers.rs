//! What is fetched to be published.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::merge::Merged;
use super::secret::Secret;

/// The longest name of a table: what belongs to it is called the same and some more, within the 63 bytes of PostgreSQL.
pub(super) const TABLE_BYTES_MAX: usize = 40;

/// One that fetches publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The server.
    pub url: Secret,
    /// The most entries at once.
    pub batch: NonZeroUsize,
    /// Whether what nobody could publish is put aside.
    pub dead_letters: bool,
    /// Where the entries are.
    pub store: Store,
}

/// Where entries are: the URL of the server says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A Redis Stream, or several.
    Streams(RedisStreams),
    /// A table of PostgreSQL.
    Table(OutboxTable),
}

/// A Redis Stream, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStreams {
    /// The stream's name, or what those of several begin with.
    pub stream: String,
    /// How many there are.
    pub partitions: NonZeroUsize,
    /// The consumer group.
    pub group: String,
    /// What becomes of entries that have been published.
    pub published: Published,
}

/// What becomes of an entry that has been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is deleted.
    Deleted,
    /// It stays in the stream, for others.
    Kept,
}

/// A table of PostgreSQL, and those that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxTable {
    /// Its name.
    pub table: String,
    /// How often it is looked at without a notification.
    pub poll: Duration,
}

impl Consumer {
    pub(super) fn of(merged: &Merged, name: &str) -> Self {
        let path = |key: &str| format!("consumers.{name}.{key}");
        let whole = |key: &str| merged.whole(&path(key)).expect("the key has a default");
        let text = |key: &str| merged.text(&path(key)).expect("the key has a default");
        let switch = |key: &str| merged.switch(&path(key)).expect("the key has a default");
        let positive = |key: &str| {
            let number = usize::try_from(whole(key)).unwrap_or(usize::MAX);
            NonZeroUsize::new(number).expect("bounded from below by 1")
        };
        let url = merged.text(&path("url")).unwrap_or_default();
        let store = if is_postgres(&url) {
            let poll = Duration::from_millis(whole("poll_ms"));
            Store::Table(OutboxTable { table: text("table"), poll })
        } else {
            Store::Streams(RedisStreams {
                stream: text("stream"),
                partitions: positive("partitions"),
                group: text("group"),
                published: if switch("keep") { Published::Kept } else { Published::Deleted },
            })
        };
        Self { url: Secret::new(url), batch: positive("batch"), dead_letters: switch("dead_letters"), store }
    }

    /// Whether the URL is one of a server that can be asked.
    pub(super) fn has_good_url(&self) -> bool {
        match &self.store {
            Store::Streams(_) => redis::Client::open(self.url.expose()).is_ok(),
            Store::Table(_) => {
                let config = self.url.expose().parse::<tokio_postgres::Config>();
                config.is_ok_and(|config| !config.get_hosts().is_empty())
            }
        }
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgresql://") || url.starts_with("postgres://")
}

/// Whether a table may be called so: PostgreSQL knows such a name by itself with quotes and without.
pub(crate) fn is_table(name: &str) -> bool {
    let is_letter = |it: char| it.is_ascii_lowercase() || it == '_';
    name.starts_with(is_letter)
        && name.len() <= TABLE_BYTES_MAX
        && name.chars().all(|it| is_letter(it) || it.is_ascii_digit())
}
