//! Where somebody can look on while publications are delivered.
//!
//! Most of the time nobody does, and then this costs a load for each batch that a lane brings. While somebody does, a subscriber of
//! whom the [`Witness`] wants to know is not written to past its task: what becomes of each publication is seen on the way
//! through its outbox, by *watching* that until it is empty again.
//!
//! **Invariant.** Whoever looks on changes nothing but the road: what is delivered, in which order, and what gives way to
//! what is the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use fanfare_protocol::rules::Overflow;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Channel, Publication, SessionId};

use crate::outbox::SubscriberId;

/// One per hub. See the [module's essay](self).
#[derive(Debug, Default)]
pub struct Tap {
    is_on: AtomicBool,
    /// Whether it is recorded how those are handed on whose trace is.
    records: AtomicBool,
    witness: OnceLock<Arc<dyn Witness>>,
}

/// Whoever looks on. It is told under locks, so it must not call the hub or an outbox, and is to be quick.
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// Whether it wants to know what this subscriber is sent of this channel.
    fn follows(&self, channel: &Channel, receiver: SubscriberId) -> bool;

    /// The node has these, of one channel, from the broker.
    fn heard(&self, run: &[Arc<Publication>]);

    /// They are with all of their subscribers on this node, or on their way round a large crowd of so many.
    fn fanned_out(&self, run: &[Arc<Publication>], receivers: u64);

    /// One whose trace is recorded, heard at this moment, is with all of its subscribers on this node, or on its way round so many.
    fn handed_on(&self, publication: &Publication, heard: UnixMicros, receivers: u64);

    /// What has become of one for one subscriber.
    fn met(&self, receiver: Receiver, publication: &Publication, fate: Fate);
}

/// A subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its place among the node's.
    pub id: SubscriberId,
    /// Its conversation.
    pub session: SessionId,
}

/// What has become of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits.
    Queued {
        /// What waits for this subscriber now.
        bytes: usize,
        /// Whether it is out of history.
        is_replayed: bool,
    },
    /// The subscriber's socket has taken it.
    Written,
    /// There was no room for so many, or they gave way to it.
    Dropped {
        /// By which policy of the channel.
        policy: Overflow,
        /// How many.
        count: u64,
    },
}

impl Tap {
    /// Has somebody look on, from whenever it is [switched](Tap::switch) on. There can be one.
    pub fn show(&self, witness: Arc<dyn Witness>) {
        let is_first = self.witness.set(witness).is_ok();
        debug_assert!(is_first, "one looks on");
    }

    /// Begins, or ends.
    pub fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Has it recorded how publications are handed on whose trace is recorded, or not.
    pub fn record(&self, records: bool) {
        self.records.store(records, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn records(&self) -> bool {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn handed_on(&self, run: &[Arc<Publication>], heard: UnixMicros, receivers: u64) {
        let is_recorded = |it: &&Arc<Publication>| it.trace().is_some_and(|trace| trace.is_sampled);
        for publication in run.iter().filter(is_recorded) {
            self.witness.get().into_iter().for_each(|it| it.handed_on(publication, heard, receivers));
        }
    }

    /// Whether anybody looks on.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The same, for who wants to tell.
    #[inline]
    pub(crate) fn on(self: &Arc<Self>) -> Option<&Arc<Self>> {
        self.is_on().then_some(self)
    }

    pub(crate) fn follows(&self, run: &[Arc<Publication>], receiver: SubscriberId) -> bool {
        let (Some(witness), Some(first)) = (self.witness.get(), run.first()) else { return false };
        witness.follows(&first.channel, receiver)
    }

    pub(crate) fn heard(&self, run: &[Arc<Publication>]) {
        self.witness.get().into_iter().for_each(|it| it.heard(run));
    }

    pub(crate) fn fanned_out(&self, run: &[Arc<Publication>], receivers: u64) {
        self.witness.get().into_iter().for_each(|it| it.fanned_out(run, receivers));
    }

    pub(crate) fn met(&self, receiver: Receiver, publication: &Publication, fate: Fate) {
        self.witness.get().into_iter().for_each(|it| it.met(receiver, publication, fate));
    }
}

/// Publications that a watched subscriber's writer has taken, and not written yet.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) tap: Arc<Tap>,
    pub(crate) receiver: Receiver,
    pub(crate) publications: Vec<Arc<Publication>>,
}

impl Taken {
    pub(crate) fn written(&self) {
        for publication in &self.publications {
            self.tap.met(self.receiver, publication, Fate::Written);
        }
    }
}
