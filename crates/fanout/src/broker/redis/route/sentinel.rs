//! Where the primary is, as the Sentinels have it.
//!
//! One task asks all Sentinels, again and again; those that answer name the primary and how many elections they know of.
//! The latest election wins, so a Sentinel that was cut off does not lead anybody back. Connections follow by themselves:
//! each ends when the primary is another server, and every attempt to connect goes to the one that was named last. A
//! server that has become a replica without being named refuses to work, which [`pipe`](super::super::pipe) takes for a
//! loss.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{ConnectionInfo, Pipeline, RedisConnectionInfo, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::broker::redis::server::{Address, Server};
use crate::broker::redis::{RedisOptionsError, Shared};

/// How often the Sentinels are asked. In a fail-over by order an old primary may go on taking publications that its replica
/// never gets; the sooner this node asks, the fewer of its own can be among them.
const LOOK: Duration = Duration::from_millis(500);

/// The primary that Sentinels watch under a name.
#[derive(Debug)]
pub(in crate::broker::redis) struct Sentinels {
    all: Vec<Server>,
    primary: String,
    found: watch::Sender<Option<Address>>,
}

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    election: u64,
    address: Address,
}

impl Sentinels {
    /// The Sentinels at these addresses, and the primary as the one server to connect to. Credentials and the database in
    /// the first URL are the primary's; a Sentinel gets its URL's credentials if it asks for any.
    pub(super) fn new(infos: &[ConnectionInfo], primary: &str) -> Result<(Self, Server), RedisOptionsError> {
        let all = infos.iter().map(Server::new).collect::<Result<Vec<_>, _>>()?;
        let first = all.first().ok_or(RedisOptionsError::NoUrl)?;
        let (found, address) = watch::channel(None);
        let server = Server::elected(primary, address, first.settings().clone());
        Ok((Self { all, primary: primary.to_owned(), found }, server))
    }

    /// Asks until the broker has gone.
    pub(in crate::broker::redis) async fn follow(self, shared: Arc<Shared>) {
        let asking = async {
            loop {
                let words = join_all(self.all.iter().map(|sentinel| self.ask(sentinel, &shared))).await;
                if let Some(word) = words.into_iter().flatten().max_by_key(|word| word.election) {
                    self.found.send_if_modified(|found| {
                        let is_new = found.as_ref() != Some(&word.address);
                        *found = Some(word.address);
                        is_new
                    });
                }
                sleep(shared.ping_interval.min(LOOK)).await;
            }
        };
        tokio::select! {
            () = asking => {}
            () = self.found.closed() => {} // No connection is left to be led anywhere.
        }
    }

    async fn ask(&self, sentinel: &Server, shared: &Shared) -> Option<Word> {
        let mut question = Pipeline::with_capacity(1);
        question.cmd("SENTINEL").arg("MASTER").arg(&self.primary);
        let ask = async |settings: RedisConnectionInfo| {
            sentinel
                .ask_once(&settings, &question, shared.timeout)
                .await
                .ok()
                .and_then(|mut answers| answers.pop())
        };
        let asking = async {
            match ask(RedisConnectionInfo::default()).await {
                Some(Value::ServerError(error)) if error.code() == "NOAUTH" => {
                    ask(sentinel.settings().clone().set_db(0)).await
                }
                answer => answer,
            }
        };
        Word::read(timeout(shared.timeout, asking).await.ok()??)
    }
}

impl Word {
    /// Names and values in turn, or a map.
    fn read(answer: Value) -> Option<Self> {
        let fields: Vec<(String, String)> = redis::from_redis_value(answer).ok()?;
        let field = |name: &str| fields.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str());
        let address = Address { host: field("ip")?.to_owned(), port: field("port")?.parse().ok()? };
        Some(Self { election: field("config-epoch")?.parse().ok()?, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_the_primary_and_its_election() {
        let answer = |fields: &[&str]| {
            let texts = fields.iter().map(|it| Value::BulkString(it.as_bytes().to_vec()));
            Value::Array(texts.collect())
        };
        let good = ["name", "p", "ip", "10.0.0.1", "port", "6379", "flags", "master", "config-epoch", "7"];
        let address = Address { host: "10.0.0.1".into(), port: 6379 };
        assert_eq!(Word::read(answer(&good)), Some(Word { election: 7, address }));
        for bad in [&good[..6], &["ip", "a", "port", "x", "config-epoch", "1"], &[]] {
            assert_eq!(Word::read(answer(bad)), None, "{bad:?}");
        }
    }
}
