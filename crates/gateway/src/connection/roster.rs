//! Every connection of the node, to be found by those who must tell all of them something, the drain and new settings, or
//! some of them: who a backend orders away.
//!
//! **Invariant.** A connection whose client is known is found by its user and by its token's name from the moment its session
//! knows them until it ends. Anonymous ones cost nothing here but their line in the list.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{Outbox, SubscriberId};
use fanfare_metrics::Carrier;
use fanfare_protocol::UserId;
use fanfare_protocol::grant::Grant;
use fanfare_protocol::server_api::Whom;
use fanfare_protocol::time::UnixMicros;
use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::node::Services;

/// How often it is looked how much waits for each connection.
const LOOK: Duration = Duration::from_secs(5);

/// How many connections are looked at before others run.
const RUN: usize = 1024;

/// The outboxes of all open connections.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// In the order in which they were opened.
    open: Mutex<BTreeMap<SubscriberId, Line>>,
    known: Mutex<Known>,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) outbox: Arc<Outbox>,
    /// None of one that only echoes.
    pub(crate) origin: Option<Origin>,
    /// What is known of its client.
    pub(crate) grant: Option<Arc<Grant>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    pub(crate) carrier: Carrier,
    pub(crate) since: UnixMicros,
}

#[derive(Debug, Default)]
struct Known {
    users: HashMap<UserId, Vec<Entry>>,
    tokens: HashMap<Box<str>, Vec<Entry>>,
}

/// A connection whose client is known.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) outbox: Arc<Outbox>,
    /// Since when.
    pub(crate) since: UnixMicros,
    /// When its token was issued, in Unix seconds.
    pub(crate) issued: Option<u64>,
}

impl Roster {
    pub(crate) fn enter(&self, outbox: &Arc<Outbox>, origin: Option<Origin>) {
        let line = Line { outbox: outbox.clone(), origin, grant: None };
        self.open.lock().insert(outbox.id(), line);
    }

    pub(crate) fn leave(&self, outbox: &Outbox) {
        self.open.lock().remove(&outbox.id());
    }

    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Those that are open now.
    pub(crate) fn all(&self) -> Vec<Arc<Outbox>> {
        self.open.lock().values().map(|line| line.outbox.clone()).collect()
    }

    /// The one of this place.
    pub(crate) fn find(&self, id: SubscriberId) -> Option<Line> {
        self.open.lock().get(&id).cloned()
    }

    /// What waits for each connection, a run of them at a time, so that no walk keeps others waiting.
    pub(crate) async fn waiting(&self) -> Vec<(usize, usize)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let run = self.run(None, after, RUN);
            after = run.last().map(|line| line.outbox.id());
            all.extend(run.iter().map(|line| line.outbox.waiting()));
            if run.len() < RUN {
                return all;
            }
            yield_now().await;
        }
    }

    /// How many users are known.
    pub(crate) fn users(&self) -> usize {
        self.known.lock().users.len()
    }

    /// The first so many after that one, of all or of somebody's.
    pub(crate) fn run(&self, whom: Option<&Whom>, after: Option<SubscriberId>, count: usize) -> Vec<Line> {
        let Some(whom) = whom else {
            let open = self.open.lock();
            let rest = open.range((after.map_or(Unbounded, Excluded), Unbounded));
            return rest.take(count).map(|(_, line)| line.clone()).collect();
        };
        let mut named: Vec<_> = self.of(whom).iter().map(|entry| entry.outbox.id()).collect();
        named.sort_unstable();
        let open = self.open.lock();
        let rest = named.iter().filter(|id| after.is_none_or(|after| **id > after));
        rest.filter_map(|id| open.get(id).cloned()).take(count).collect()
    }

    /// From now on a connection is found by what its grant says.
    pub(crate) fn know(&self, outbox: &Arc<Outbox>, grant: &Arc<Grant>, now: UnixMicros) {
        if let Some(line) = self.open.lock().get_mut(&outbox.id()) {
            line.grant = Some(grant.clone());
        }
        let entry = Entry { outbox: outbox.clone(), since: now, issued: grant.issued };
        let mut known = self.known.lock();
        if let Some(user) = &grant.user {
            known.users.entry(user.clone()).or_default().push(entry.clone());
        }
        if let Some(token) = &grant.token {
            known.tokens.entry(token.clone()).or_default().push(entry);
        }
    }

    /// It is not any more.
    pub(crate) fn forget(&self, outbox: &Outbox, grant: &Grant) {
        fn remove<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Entry>>, key: &K, id: SubscriberId) {
            if let Some(entries) = map.get_mut(key) {
                entries.retain(|entry| entry.outbox.id() != id);
                if entries.is_empty() {
                    map.remove(key);
                }
            }
        }
        let mut known = self.known.lock();
        if let Some(user) = &grant.user {
            remove(&mut known.users, user, outbox.id());
        }
        if let Some(token) = &grant.token {
            remove(&mut known.tokens, token, outbox.id());
        }
    }

    /// The connections of somebody. One by its session's name is looked for among all.
    pub(crate) fn of(&self, whom: &Whom) -> Vec<Entry> {
        match whom {
            Whom::User(user) => self.known.lock().users.get(user).cloned().unwrap_or_default(),
            Whom::Token(token) => self.known.lock().tokens.get(token).cloned().unwrap_or_default(),
            Whom::Session(id) => {
                let open = self.open.lock();
                let outbox = open.values().map(|line| &line.outbox).find(|it| it.session() == *id).cloned();
                let entry = |outbox| Entry { outbox, since: UnixMicros(0), issued: None };
                outbox.map(entry).into_iter().collect()
            }
            Whom::Among(among) => {
                let mut entries = match (&among.user, among.session) {
                    (Some(user), _) => self.of(&Whom::User(user.clone())),
                    (None, Some(session)) => self.of(&Whom::Session(session)),
                    (None, None) => Vec::new(),
                };
                entries.retain(|entry| among.names(entry.outbox.session()));
                entries
            }
        }
    }
}

/// Counts now and then how much waits for each connection, until told to stop.
pub(crate) async fn measure(services: Arc<Services>, stop: CancellationToken) {
    let looking = async {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            services.metrics.queues(services.roster.waiting().await);
        }
    };
    stop.run_until_cancelled(looking).await;
}
