//! What is fetched to be published.

use std::num::NonZeroUsize;
use std::time::Duration;

use fanfare_fanout::broker::redis::{RedisMode, RedisOptions};

use super::authorities::Authorities;
use super::choice::SourceMode;
use super::merge::Merged;
use super::secret::Secret;

/// The longest that Redis waits for a new entry before it answers that there is none.
pub(crate) const BLOCK: Duration = Duration::from_secs(1);

/// How long Redis may take to answer or to be connected to, that time aside.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it is not asked where servers are, where nothing gives reason to.
const LOOK: Duration = Duration::from_secs(3);

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
    /// How the servers are arranged.
    pub mode: SourceMode,
    /// What the Sentinels call the primary, for [`SourceMode::Sentinel`].
    pub primary: String,
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
                mode: SourceMode::of(&text("mode")),
                primary: text("primary"),
                stream: text("stream"),
                partitions: positive("partitions"),
                group: text("group"),
                published: if switch("keep") { Published::Kept } else { Published::Deleted },
            })
        };
        Self { url: Secret::new(url), batch: positive("batch"), dead_letters: switch("dead_letters"), store }
    }

    /// What is wrong with the URL, if anything is; it is not quoted, since it may hold a password.
    pub(super) fn fault_of_url(&self) -> Option<String> {
        let wanted = "a consumer takes the URL of its server, such as redis://127.0.0.1:6379 or \
                      postgresql://user:password@127.0.0.1/database";
        match &self.store {
            Store::Streams(_) if !is_redis(self.url.expose()) => Some(wanted.to_owned()),
            Store::Streams(streams) => {
                let options = streams.servers(&self.url, &Authorities::default(), "");
                options.check().err().map(|error| error.to_string())
            }
            Store::Table(_) => {
                let config = self.url.expose().parse::<tokio_postgres::Config>();
                let is_good = config.is_ok_and(|config| !config.get_hosts().is_empty());
                (!is_good).then(|| wanted.to_owned())
            }
        }
    }
}

impl RedisStreams {
    /// How its servers are reached.
    pub(crate) fn servers(&self, url: &Secret, authorities: &Authorities, node: &str) -> RedisOptions {
        let urls = each_host(url.expose());
        RedisOptions {
            mode: match self.mode {
                SourceMode::Single => RedisMode::Single,
                SourceMode::Sentinel => RedisMode::Sentinel { primary: self.primary.clone() },
                SourceMode::Cluster => RedisMode::Cluster,
            },
            tls: authorities.of_redis(&urls),
            urls,
            prefix: "fanfare".to_owned(), // Of the broker's keys: there are none here.
            timeout: PATIENCE + BLOCK,
            ping_interval: LOOK,
            node: node.to_owned(),
        }
    }
}

/// A URL may name several hosts, as PostgreSQL's do: what stands before them and behind is the same for each.
fn each_host(url: &str) -> Vec<String> {
    let hosts = url.find("://").map_or(0, |at| at + 3);
    let end = url[hosts..].find('/').map_or(url.len(), |at| hosts + at);
    let hosts = url[hosts..end].rfind('@').map_or(hosts, |at| hosts + at + 1);
    let (before, after) = (&url[..hosts], &url[end..]);
    url[hosts..end].split(',').map(|host| format!("{before}{host}{after}")).collect()
}

fn is_redis(url: &str) -> bool {
    url.starts_with("redis://") || url.starts_with("rediss://")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_of_a_url_has_what_stands_around_them() {
        for (url, each) in [
            ("redis://a", &["redis://a"][..]),
            ("redis://a:1,b", &["redis://a:1", "redis://b"]),
            ("rediss://u:p,@w@a:1,b:2/3", &["rediss://u:p,@w@a:1/3", "rediss://u:p,@w@b:2/3"]),
            ("redis://[::1]:1,[::2]", &["redis://[::1]:1", "redis://[::2]"]),
            ("redis://", &["redis://"]),
            ("a,b", &["a", "b"]),
        ] {
            assert_eq!(each_host(url), each, "{url}");
        }
    }
}
