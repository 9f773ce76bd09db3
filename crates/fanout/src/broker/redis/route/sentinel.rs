//! Where the primary is, as the Sentinels have it.
//!
//! Each Sentinel is asked again and again, on a connection that is kept, and at once when it announces a step of a fail-over.
//! Those that answer name the primary and how many elections they know of. The latest election wins, so a Sentinel that was
//! cut off does not lead anybody back; neither do the others when the one that knows most falls silent, which is believed for
//! [`MEMORY`] longer. Connections follow by themselves: each ends when the primary is no longer the server that
//! it leads to, and every attempt to connect goes to the one that was named last. A server that has become a replica without being
//! named refuses to work, which [`pipe`](super::super::pipe) takes for a loss.
//!
//! ```text
//!  a Sentinel    is elected ─ picks a replica ─ orders it to lead ─ sees it lead ─ has the others follow ─ ends
//!  its word    P            │ nobody                             │ R, by a later election
//! ```
//!
//! **From the choice of a replica until it leads, nobody is the primary.** The old one, replaced by order or for its silence, may
//! be well, and goes on acknowledging publications that the new one never gets: they would be lost, with a promise given. So
//! all connections to it end first, and what was under way on them is answered for as unknown. There is time for that: a Sentinel
//! announces its choice, and takes no other step for at least 50 ms. If it gives up, the old primary is the primary again;
//! attempts that come to nothing before there is a choice disturb nobody.
//!
//! What is beyond this: a primary that dies before it has sent on what it has acknowledged; and one that is cut off from
//! Sentinels and replicas together with this node, which `min-replicas-to-write` in its own configuration is for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::server::{Address, Lost, Server};
use crate::broker::redis::{RedisOptionsError, Shared};

/// How often a Sentinel is asked without a reason, and the longest until that is tried again after it was lost.
const LOOK: Duration = Duration::from_millis(500);

/// How long the last word of a Sentinel that does not answer counts. It may be the one that led the fail-over, and the others
/// hear of the outcome from it alone, every two seconds. Afterwards they have the word, whichever election they know of: theirs may
/// have been set up anew.
const MEMORY: Duration = Duration::from_secs(10);

/// What a Sentinel publishes when it has chosen the replica that will lead:
/// `slave <name> <host> <port> @ <the primary's name> <host> <port>`.
const CHOSEN: &str = "+selected-slave";

/// What it publishes of the other steps of a fail-over: `-failover-abort-slave-timeout`, `+promoted-slave`, ….
const STEPS: [&str; 3] = ["*failover*", "+promoted-slave", "+switch-master"];

/// The primary that Sentinels watch under a name.
#[derive(Debug)]
pub(in crate::broker::redis) struct Sentinels {
    all: Vec<Server>,
    primary: String,
    council: Arc<Council>,
}

/// What all of them say together.
#[derive(Debug)]
struct Council {
    /// What each has said last.
    words: Mutex<Vec<Option<Said>>>,
    found: watch::Sender<Option<Address>>,
}

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    election: u64,
    leader: Leader,
}

/// A word, and when the Sentinel that said it was lost.
#[derive(Clone, Debug)]
struct Said {
    word: Word,
    lost: Option<Instant>,
}

/// Who it says is the primary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leader {
    /// This one.
    Is(Address),
    /// It is about to replace the one that was, or has just done so, and nobody is.
    Nobody,
    /// This one in the middle of a fail-over, though other Sentinels do not know yet.
    Becomes(Address),
}

impl Sentinels {
    /// These Sentinels, and the primary as the one server to connect to. Credentials and the database in
    /// the first URL are the primary's; a Sentinel gets its URL's credentials if it asks for any.
    pub(super) fn new(all: Vec<Server>, primary: &str) -> Result<(Self, Server), RedisOptionsError> {
        let first = all.first().ok_or(RedisOptionsError::NoUrl)?;
        let (found, address) = watch::channel(None);
        let server = Server::elected(primary, address, first.access().clone());
        let council = Council { words: Mutex::new(vec![None; all.len()]), found };
        Ok((Self { all, primary: primary.to_owned(), council: Arc::new(council) }, server))
    }

    /// Asks until the broker has gone.
    pub(in crate::broker::redis) async fn follow(self, shared: Arc<Shared>) {
        let asking = join_all((0..self.all.len()).map(|at| self.keep_asking(at, &shared)));
        tokio::select! {
            _ = asking => {}
            () = self.council.found.closed() => {} // No connection is left to be led anywhere.
        }
    }

    async fn keep_asking(&self, at: usize, shared: &Shared) -> Infallible {
        let mut backoff = Backoff::new();
        loop {
            let Err(lost) = self.ask(at, shared, &mut backoff).await;
            tracing::debug!(sentinel = %self.all[at], %lost, "a sentinel does not answer");
            self.council.lost(at);
            // What it announces meanwhile is not heard.
            sleep(backoff.next().min(look(shared))).await;
        }
    }

    /// Asks one for as long as it answers.
    async fn ask(&self, at: usize, shared: &Shared, backoff: &mut Backoff) -> Result<Infallible, Lost> {
        let step = Arc::new(Notify::new());
        // Those that ask for no credentials may refuse some.
        let stranger = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let (mut connection, driver) = match self.meet(at, &stranger, &step, shared).await {
            Err(Lost::Failed(error)) if error.code() == Some("NOAUTH") => {
                let settings = self.all[at].settings().clone().set_db(0);
                Box::pin(self.meet(at, &settings, &step, shared)).await?
            }
            met => met?,
        };
        let talking = async {
            let _ = connection.subscribe(CHOSEN).await;
            for steps in STEPS {
                // Where that is not allowed, it is asked all the same.
                let _ = connection.psubscribe(steps).await;
            }
            let mut question = Pipeline::with_capacity(2);
            question.cmd("SENTINEL").arg("MASTER").arg(&self.primary);
            question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
            loop {
                let answers = connection.send_packed_commands(&question, 0, 2).await.map_err(Lost::Failed)?;
                match Word::read(answers) {
                    Some(word) => self.council.heard(at, word),
                    None => self.council.lost(at),
                }
                backoff.reset();
                tokio::select! {
                    () = step.notified() => {}
                    () = sleep(look(shared)) => {}
                }
            }
        };
        tokio::select! {
            () = driver => Err(Lost::Closed),
            lost = talking => lost,
        }
    }

    /// A connection to a Sentinel, that tells of the steps it announces.
    async fn meet(
        &self,
        at: usize,
        settings: &RedisConnectionInfo,
        step: &Arc<Notify>,
        shared: &Shared,
    ) -> Result<(MultiplexedConnection, BoxFuture<'static, ()>), Lost> {
        let (step, council, primary) = (step.clone(), self.council.clone(), self.primary.clone());
        let announced = move |push: PushInfo| {
            // There is no time to ask what that means.
            if is_chosen(&push, &primary) {
                council.chosen(at);
            }
            step.notify_one();
            Ok::<(), Infallible>(())
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(shared.timeout));
        self.all[at].meet(settings, config.set_push_sender(announced), shared.timeout).await
    }
}

impl Council {
    /// A Sentinel has chosen who will lead.
    fn chosen(&self, at: usize) {
        let mut words = self.words.lock();
        if let Some(said) = &mut words[at] {
            said.word.leader = Leader::Nobody;
        }
        self.tell(&words);
    }

    /// A Sentinel has answered.
    fn heard(&self, at: usize, word: Word) {
        let mut words = self.words.lock();
        words[at] = Some(Said { word, lost: None });
        self.tell(&words);
    }

    /// A Sentinel does not answer. That nobody leads is not remembered: one that was about to change it will not.
    fn lost(&self, at: usize) {
        let mut words = self.words.lock();
        let now = Instant::now();
        for said in words.iter_mut() {
            said.take_if(|said| said.lost.is_some_and(|lost| lost + MEMORY <= now));
        }
        if let Some(said) = &mut words[at] {
            said.lost.get_or_insert(now);
        }
        words[at].take_if(|said| said.word.leader == Leader::Nobody);
        self.tell(&words);
    }

    /// Tells the connections what all say together; under the lock, so that verdicts follow one another as words do.
    fn tell(&self, words: &[Option<Said>]) {
        let Some(leader) = verdict(words.iter().flatten().map(|said| &said.word)) else { return };
        self.found.send_if_modified(|found| {
            let is_new = *found != leader;
            *found = leader;
            is_new
        });
    }
}

/// The primary, or nobody; `None` when no Sentinel says anything, so that nothing is new.
fn verdict<'a>(words: impl Iterator<Item = &'a Word>) -> Option<Option<Address>> {
    let latest = words.max_by_key(|word| (word.election, &word.leader))?;
    Some(match &latest.leader {
        Leader::Is(address) | Leader::Becomes(address) => Some(address.clone()),
        Leader::Nobody => None,
    })
}

/// Whether an announcement is that somebody was chosen to lead instead of the primary.
fn is_chosen(push: &PushInfo, primary: &str) -> bool {
    let [Value::BulkString(channel), Value::BulkString(text)] = &push.data[..] else { return false };
    let text = String::from_utf8_lossy(text);
    let of = text.split_once(" @ ").and_then(|(_, of)| of.split(' ').next());
    channel == CHOSEN.as_bytes() && of == Some(primary)
}

fn look(shared: &Shared) -> Duration {
    shared.ping_interval.min(LOOK)
}

impl Word {
    /// What SENTINEL MASTER says, names and values in turn or a map, and SENTINEL GET-MASTER-ADDR-BY-NAME: in a fail-over the
    /// first is about the old primary until all is done, and the second about the new one as soon as it leads.
    fn read(answers: Vec<Value>) -> Option<Self> {
        let [facts, address] = <[Value; 2]>::try_from(answers).ok()?;
        let facts: Vec<(String, String)> = redis::from_redis_value(facts).ok()?;
        let fact = |name: &str| facts.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str());
        let known = Address { host: fact("ip")?.to_owned(), port: fact("port")?.parse().ok()? };
        let (host, port): (String, u16) = redis::from_redis_value(address).ok()?;
        let leads = Address { host, port };
        let leader = match fact("failover-state") {
            None | Some("none" | "wait_start" | "select_slave") => Leader::Is(leads),
            Some(_) if leads == known => Leader::Nobody,
            Some(_) => Leader::Becomes(leads),
        };
        Some(Self { election: fact("config-epoch")?.parse().ok()?, leader })
    }
}

#[cfg(test)]
mod tests {
    use redis::PushKind;

    use super::*;

    fn address(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|it| Value::BulkString(it.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_word_names_the_primary_and_its_election() {
        let good = ["name", "p", "ip", "10.0.0.1", "port", "6379", "flags", "master", "config-epoch", "7"];
        let read = |facts: &[&str], leads: &[&str]| Word::read(vec![texts(facts), texts(leads)]);
        let word = |leader| Some(Word { election: 7, leader });
        assert_eq!(read(&good, &["10.0.0.1", "6379"]), word(Leader::Is(address(6379))));
        for (state, leads, leader) in [
            ("wait_start", "6379", Leader::Is(address(6379))),
            ("select_slave", "6379", Leader::Is(address(6379))),
            ("send_slaveof_noone", "6379", Leader::Nobody),
            ("wait_promotion", "6379", Leader::Nobody),
            ("reconf_slaves", "6380", Leader::Becomes(address(6380))),
            ("update_config", "6380", Leader::Becomes(address(6380))),
        ] {
            let failing_over = [&good[..], &["failover-state", state]].concat();
            assert_eq!(read(&failing_over, &["10.0.0.1", leads]), word(leader), "{state}");
        }
        for bad in [&good[..6], &["ip", "a", "port", "x", "config-epoch", "1"], &[]] {
            assert_eq!(read(bad, &["10.0.0.1", "6379"]), None, "{bad:?}");
        }
        assert_eq!(Word::read(vec![texts(&good), Value::Nil]), None);
        assert_eq!(Word::read(vec![texts(&good)]), None);
    }

    #[test]
    fn an_announcement_is_about_one_primary() {
        let push = |channel: &str, text: &str| PushInfo {
            kind: PushKind::Message,
            data: [channel, text].map(|it| Value::BulkString(it.as_bytes().to_vec())).into(),
        };
        let text = "slave 10.0.0.1:6380 10.0.0.1 6380 @ p 10.0.0.1 6379";
        assert!(is_chosen(&push("+selected-slave", text), "p"));
        assert!(!is_chosen(&push("+selected-slave", text), "q"));
        assert!(!is_chosen(&push("+promoted-slave", text), "p"));
        assert!(!is_chosen(&push("+selected-slave", "p"), "p"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_knows_most_is_believed_for_a_while_after_it_was_lost() {
        let (found, seen) = watch::channel(None);
        let council = Council { words: Mutex::new(vec![None, None]), found };
        let word = |election, leader| Word { election, leader };
        let now = || seen.borrow().clone();
        council.heard(0, word(3, Leader::Is(address(1))));
        council.heard(1, word(4, Leader::Becomes(address(2))));
        council.lost(1);
        assert_eq!(now(), Some(address(2)));
        council.heard(0, word(3, Leader::Is(address(1))));
        assert_eq!(now(), Some(address(2)), "nobody is led back");
        sleep(MEMORY / 2).await;
        council.lost(1);
        council.heard(0, word(3, Leader::Is(address(1))));
        assert_eq!(now(), Some(address(2)));
        sleep(MEMORY / 2).await;
        council.lost(1);
        assert_eq!(now(), Some(address(1)), "who answers has the word");
        council.heard(0, word(3, Leader::Is(address(1))));
        council.chosen(0);
        assert_eq!(now(), None);
        council.heard(1, word(3, Leader::Is(address(1))));
        assert_eq!(now(), None, "it is about to replace it");
        council.lost(0);
        assert_eq!(now(), Some(address(1)), "who is lost replaces nobody");
    }

    #[test]
    fn the_latest_election_wins_and_in_it_who_knows_most() {
        let word = |election, leader| Word { election, leader };
        let (old, new) = (|| Leader::Is(address(1)), || Leader::Becomes(address(2)));
        assert_eq!(verdict([].iter()), None);
        for (words, expected) in [
            (vec![word(3, old()), word(3, old())], Some(address(1))),
            (vec![word(3, old()), word(3, Leader::Nobody)], None),
            (vec![word(3, new()), word(3, old()), word(3, Leader::Nobody)], Some(address(2))),
            (vec![word(3, old()), word(4, Leader::Is(address(2)))], Some(address(2))),
            (vec![word(4, Leader::Is(address(2))), word(3, Leader::Nobody)], Some(address(2))),
        ] {
            assert_eq!(verdict(words.iter()), Some(expected), "{words:?}");
        }
    }
}
