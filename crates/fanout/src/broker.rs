//! What carries publications between nodes.
//!
//! A broker *places* publications: it takes a [`Draft`], gives every publication of a channel one order, and puts it
//! into the [`Lanes`] of every node that watches the channel, the publisher's own included. It knows nothing of
//! subscribers.
//!
//! The contract, which `contract` tests against every implementation:
//!
//! 1. Once [`Broker::watch`] has answered, every publication placed after that reaches this node's lanes, until
//!    [`Broker::unwatch`] is called.
//! 2. All nodes that watch a channel throughout see its publications in the same order, each at most once.
//! 3. Drafts whose `publish` futures are first polled in some order, for one channel and from one node, are placed in
//!    that order.
//! 4. `publish` answers `Ok` only for a publication that was placed. An error means that it was not, or, for
//!    [`BrokerError::Timeout`], that nobody knows.
//! 5. While the broker is away calls fail with [`BrokerError::Unavailable`] within the deadline, and when it is back
//!    everything watched is heard again without being asked for.
//! 6. What is not watched is not delivered.
//! 7. A draft with retention is appended to its channel's stream and given the next offset in the same step in which it is
//!    placed: nobody hears what history does not have, and offsets are consecutive from 1, whatever epochs the stream goes
//!    through.
//! 8. [`Broker::history`] answers with the stream as it was at one moment, and every channel has an epoch once it was asked
//!    for. A stream that was lost comes back under another epoch, never under the same one with other offsets. One that may
//!    have lost its end, and no more, goes on under another epoch after what it still has, which keeps its positions: no
//!    position ever names two publications, and one that is still in its place has all before it that ever was.
//!    What was removed is in no page that is asked for once [`Broker::remove_history`] has answered, and every node that
//!    watches hears of it in the channel's lane, after all that was placed before.
//! 9. Two drafts with one idempotency key on one channel, within the retention's time, are placed once, and answered alike.
//! 10. A payload is delivered and kept in the format, and with the bytes, that it was published with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Position};
use fanfare_protocol::{Channel, Publication};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::presence::Notice;

pub mod memory;
pub mod redis;

#[cfg(test)]
mod contract;

/// The most notices of presence that wait, each of which may tell of a few hundred members.
const NOTICES_MAX: usize = 256;

/// See the [module's contract](self).
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// Places a draft, and answers with its position on a channel with history.
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>>;

    /// Reads a part of a channel's history.
    fn history(&self, channel: &Channel, query: Query) -> BoxFuture<'_, Result<Page, BrokerError>>;

    /// Where the streams of these channels stand, in the same order, by a bounded number of round trips; `None` for a
    /// channel that has no stream (any more). One whose server is away does not keep the others from being answered.
    fn positions(&self, channels: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>>;

    /// Forgets what was published on a channel, and tells the nodes that watch it ([`Heard::Removal`]). The epoch stays, and
    /// offsets go on where they were.
    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Counts up whenever this node may have missed something of any channel it watches: its link was lost and is back.
    /// It has done so before anything that was read or heard by way of the new link is handed on.
    fn losses(&self) -> u64;

    /// Asks for a channel's publications. Never called for a channel that is watched or being watched. It may be dropped
    /// before it has answered; then [`Broker::unwatch`] is called before anything else of that channel, and undoes what has
    /// come of it or may yet.
    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Asks for them no more. Never called for a channel that is not watched, but for one whose `watch` was dropped. Answers when the broker has forgotten
    /// the channel or is away: there is nothing a caller could do about a failure.
    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()>;

    /// Whether it can be reached, as far as is known now.
    fn link(&self) -> Link;

    /// Its name in configuration and status: `memory` or `redis`.
    fn kind(&self) -> &'static str;
}

/// Whether a broker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Yes.
    Up,
    /// Not now; it is being tried.
    Down,
}

/// Why a broker could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached, or refuses to work; the text says which.
    #[error("the broker is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// More calls wait for it than the bound allows.
    #[error("the broker is unavailable: {0} calls are waiting for it already")]
    Busy(usize),
    /// It has not answered in time, or the connection was lost before it did: nobody knows whether it did what it was
    /// asked.
    #[error("the broker has not answered within {0:?}")]
    Timeout(Duration),
}

/// What a node hears of a channel, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum Heard {
    /// Something was published.
    Publication(Arc<Publication>),
    /// What was published so far was removed from history: it is not to be shown to anybody who comes from now on.
    Removal(Box<Channel>),
}

/// Where a broker puts what it hears: a few bounded queues, one picked by channel, so that a channel keeps its order and
/// channels do not wait for each other.
///
/// Notices of presence, which are few, have a queue of their own.
#[derive(Debug, Clone)]
pub struct Lanes(Arc<[mpsc::Sender<Heard>]>, mpsc::Sender<Notice>);

/// The other ends: of the lanes for the hub, and of the notices for the desk.
#[derive(Debug)]
pub struct LaneEnds(pub(crate) Vec<mpsc::Receiver<Heard>>, Option<mpsc::Receiver<Notice>>);

impl LaneEnds {
    /// The notices of presence, for [`crate::presence::Desk::start`]. Taken once, before the hub takes the lanes; notices that
    /// nobody has taken are thrown away with the ends.
    pub fn notices(&mut self) -> Option<mpsc::Receiver<Notice>> {
        self.1.take()
    }
}

impl Lanes {
    /// `count` lanes (at least one) that hold `depth` of what is heard each.
    pub fn new(count: usize, depth: usize) -> (Self, LaneEnds) {
        let (starts, ends): (Vec<_>, Vec<_>) = (0..count.max(1)).map(|_| mpsc::channel(depth)).unzip();
        let (notices, crier) = mpsc::channel(NOTICES_MAX);
        (Self(starts.into(), notices), LaneEnds(ends, Some(crier)))
    }

    /// Where notices of presence go. Full, it makes the broker wait like a lane.
    pub(crate) fn notices(&self) -> &mpsc::Sender<Notice> {
        &self.1
    }

    /// The lane of a channel.
    pub fn lane(&self, channel: &Channel) -> &mpsc::Sender<Heard> {
        &self.0[spread(channel, self.0.len())]
    }
}

/// A number in `0..count`, always the same for one channel.
fn spread(channel: &Channel, count: usize) -> usize {
    usize::try_from((hash(channel) >> 32) % count as u64).expect("less than the count")
}

/// FNV-1a: the same on every node and in every run and version.
pub(crate) fn hash(channel: &Channel) -> u64 {
    channel
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
