//! What is fetched to be published.

use std::num::NonZeroUsize;

use super::merge::Merged;
use super::secret::Secret;

/// One that fetches publications, from a Redis Stream or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The server.
    pub url: Secret,
    /// The most entries at once.
    pub batch: NonZeroUsize,
    /// Whether what nobody could publish is put aside.
    pub dead_letters: bool,
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

impl Consumer {
    pub(super) fn of(merged: &Merged, name: &str) -> Self {
        let path = |key: &str| format!("consumers.{name}.{key}");
        let text = |key: &str| merged.text(&path(key)).expect("the key has a default");
        let switch = |key: &str| merged.switch(&path(key)).expect("the key has a default");
        let positive = |key: &str| {
            let number = merged.whole(&path(key)).expect("the key has a default");
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            NonZeroUsize::new(number).expect("bounded from below by 1")
        };
        Self {
            url: Secret::new(merged.text(&path("url")).unwrap_or_default()),
            batch: positive("batch"),
            dead_letters: switch("dead_letters"),
            stream: text("stream"),
            partitions: positive("partitions"),
            group: text("group"),
            published: if switch("keep") { Published::Kept } else { Published::Deleted },
        }
    }

    /// Whether the URL is one of a server of Redis.
    pub(super) fn has_good_url(&self) -> bool {
        redis::Client::open(self.url.expose()).is_ok()
    }
}
