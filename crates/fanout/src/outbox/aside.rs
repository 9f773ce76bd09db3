//! What few outboxes have for long, beside what waits: who looks on, and what a socket has not taken of who wrote past its task.

use std::sync::Arc;

use fanfare_protocol::Publication;
use fanfare_protocol::rules::Overflow;

use super::queue::{Losses, NoRoom};
use super::{Batch, Outbox, Phase, State};
use crate::tap::{Fate, Receiver, Taken, Tap};

/// See the [module's note](self).
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// What the socket did not take of who had claimed it: before all that is queued.
    pub(super) left_over: Option<Batch>,
    /// Who is told what becomes of what is queued, until nothing waits.
    pub(super) tap: Option<Arc<Tap>>,
}

impl Outbox {
    /// Has it told what becomes of what is queued from now on, until nothing waits.
    pub(crate) fn watch(&self, tap: &Arc<Tap>) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open && state.tap().is_none() {
            state.aside.get_or_insert_default().tap = Some(tap.clone());
        }
    }

    pub(super) fn receiver(&self) -> Receiver {
        Receiver { id: self.id, session: self.session }
    }

    #[cold]
    pub(super) fn tell_of_offer(
        &self,
        state: &State,
        publication: &Arc<Publication>,
        overflow: Overflow,
        outcome: Result<Losses, NoRoom>,
    ) {
        let Some(tap) = state.tap() else { return };
        let is_queued = match (outcome, overflow) {
            (Ok(_), Overflow::DropOldest) => state.queue.ends_with(publication),
            (Ok(_), Overflow::Disconnect | Overflow::Conflate) => true,
            (Err(NoRoom), _) => false,
        };
        if is_queued {
            let fate = Fate::Queued { bytes: state.queue.bytes(), is_replayed: false };
            tap.met(self.receiver(), publication, fate);
        }
        let lost = match outcome {
            Ok(losses) => [(Overflow::DropOldest, losses.dropped), (Overflow::Conflate, losses.conflated)],
            Err(NoRoom) => [(Overflow::Disconnect, 1), (Overflow::Disconnect, 0)],
        };
        for (policy, count) in lost.into_iter().filter(|(_, count)| *count > 0) {
            tap.met(self.receiver(), publication, Fate::Dropped { policy, count });
        }
    }

    pub(super) fn tell_of_replay(&self, state: &State, publications: &[Arc<Publication>]) {
        let Some(tap) = state.tap() else { return };
        let fate = Fate::Queued { bytes: state.queue.bytes(), is_replayed: true };
        for publication in publications {
            tap.met(self.receiver(), publication, fate);
        }
    }
}

impl State {
    pub(super) fn tap(&self) -> Option<&Arc<Tap>> {
        self.aside.as_ref()?.tap.as_ref()
    }

    pub(super) fn left_over(&self) -> Option<&Batch> {
        self.aside.as_ref()?.left_over.as_ref()
    }

    pub(super) fn take_left_over(&mut self) -> Option<Batch> {
        self.aside.as_ref()?;
        let mut left_over = None;
        self.put_aside(|aside| left_over = aside.left_over.take());
        left_over
    }

    /// Changes what is aside, which is nowhere where there is none.
    pub(super) fn put_aside(&mut self, change: impl FnOnce(&mut Aside)) {
        let mut aside = self.aside.take().unwrap_or_default();
        change(&mut aside);
        self.aside = (aside.left_over.is_some() || aside.tap.is_some()).then_some(aside);
    }

    /// What is to be told of what is about to be taken, where anything is.
    pub(super) fn watched(&self, outbox: &Outbox) -> Option<Box<Taken>> {
        let tap = self.tap()?.clone();
        Some(Box::new(Taken { tap, receiver: outbox.receiver(), publications: Vec::new() }))
    }
}
