//! Every connection of the node, to be found by those who must tell all of them something: the drain, and
//! new settings.

use std::sync::Arc;

use fanfare_fanout::{Outbox, SubscriberId};
use indexmap::IndexMap;
use parking_lot::Mutex;

/// The outboxes of all open connections.
#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<IndexMap<SubscriberId, Arc<Outbox>>>);

impl Roster {
    pub(crate) fn enter(&self, outbox: &Arc<Outbox>) {
        self.0.lock().insert(outbox.id(), outbox.clone());
    }

    pub(crate) fn leave(&self, outbox: &Outbox) {
        self.0.lock().swap_remove(&outbox.id());
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Those that are open now.
    pub(crate) fn all(&self) -> Vec<Arc<Outbox>> {
        self.0.lock().values().cloned().collect()
    }
}
