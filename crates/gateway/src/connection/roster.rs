//! Every connection of the node, to be found by those who must tell all of them something, the drain and new settings, or
//! some of them: who a backend orders away.
//!
//! **Invariant.** A connection whose client is known is found by its user and by its token's name from the moment its session
//! knows them until it ends. Anonymous ones cost nothing here but their line in the list.

use std::collections::HashMap;
use std::sync::Arc;

use fanfare_fanout::{Outbox, SubscriberId};
use fanfare_protocol::UserId;
use fanfare_protocol::grant::Grant;
use fanfare_protocol::server_api::Whom;
use fanfare_protocol::time::UnixMicros;
use indexmap::IndexMap;
use parking_lot::Mutex;

/// The outboxes of all open connections.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    open: Mutex<IndexMap<SubscriberId, Arc<Outbox>>>,
    known: Mutex<Known>,
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
    pub(crate) fn enter(&self, outbox: &Arc<Outbox>) {
        self.open.lock().insert(outbox.id(), outbox.clone());
    }

    pub(crate) fn leave(&self, outbox: &Outbox) {
        self.open.lock().swap_remove(&outbox.id());
    }

    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Those that are open now.
    pub(crate) fn all(&self) -> Vec<Arc<Outbox>> {
        self.open.lock().values().cloned().collect()
    }

    /// From now on a connection is found by what its grant says.
    pub(crate) fn know(&self, outbox: &Arc<Outbox>, grant: &Grant, now: UnixMicros) {
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
                let outbox = open.values().find(|outbox| outbox.session() == *id).cloned();
                let entry = |outbox| Entry { outbox, since: UnixMicros(0), issued: None };
                outbox.map(entry).into_iter().collect()
            }
        }
    }
}
