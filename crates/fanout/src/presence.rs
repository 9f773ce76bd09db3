//! Who is subscribed to a channel, on all nodes together.
//!
//! ```text
//!  hub ─► Desk::enter, leave ─► table ─► writer ──► Presence::write ─┐            ┌─► crowd, asked by anyone
//!                                 ▲                                  ▼            │
//!          (every node)        keeper ────────────► Presence::beat, sweep ── the book ── notices
//!                                                                                 │
//!  sockets ◄─ Desk's audience ◄─ notices queue ◄─ (nodes that watch the channel) ◄┘
//! ```
//!
//! There is one *book* for the whole cluster, behind the trait [`Presence`], and one [`Desk`] per node, which alone knows
//! of time: it gathers changes, delays goodbyes, keeps the node's seat warm and clears seats that have gone cold. The book
//! only performs steps, each of them atomic and safe to repeat.
//!
//! **Seats.** A node writes its members under a *seat*, a name it never uses twice. The seat lives as long as the node
//! beats; liveness so costs one small call per node and interval, however many members there are. The seat of a node that
//! has crashed goes cold within one interval, and every node looks for cold seats three times per interval: one of them
//! clears it in bounded steps and the book tells everyone who has `left`. A node that was frozen or cut off for so long finds
//! its seat cold, takes a new one and enters all of its members again, which moves those that had not been cleared yet in
//! silence and is told as `joined` for the others. The same is done when an answer is lost and nobody knows what was
//! written: a seat is given up rather than repaired. A node that has taken a seat waits for an interval before it judges the
//! seats of others: where the book was away from all nodes nobody is taken for dead who comes back in time.
//!
//! **Lives.** A book may be lost, or fall back to what it was a moment ago: a Redis that comes back empty, or a replica that
//! takes over. That is another *life* of it. Each node notices by itself, takes a new seat and restores all of its members
//! without telling anybody: they have heard it. Who departed without the book knowing stays on the old seat, which goes cold;
//! who came meanwhile enters.
//!
//! **Users.** `joined` and `left` speak of users: the first connection that a user has on a channel, and the last. An
//! anonymous connection is a user of its own. What the book holds, and with it every [`Crowd`], agrees with the notices:
//! whoever reads a crowd and then follows them knows who is there.
//!
//! **Grace.** A connection that was the last of its user *lingers*: it stays in the book until the grace is over, or the user
//! is back by another connection on any node, which takes its place in silence. The timer is the node's; a node that shuts
//! down leaves its seat to go cold after the grace, and others clear it.
//!
//! **Counts.** Where those who hear a channel are told how many they are, each step that changes it tells the number ([`counts`]).
//!
//! **Acquaintances.** A client may be told of users whether they are there without hearing what they hear ([`lookout`]).
//!
//! **Debts.** What a backend is to be told of channels is kept in the book too, and with each change which node owes it ([`debts`]).
//!
//! **Invariants.**
//! - For each user of a channel the book counts the connections it holds, and a user is in the book while that is not 0.
//!   Each `joined` and `left` is told by the very step in which the count leaves or reaches 0, so once, and in order.
//! - A seat that holds members is listed among the seats, with its channels, before the first of them is written; once it is
//!   being cleared nothing can be written under it. Nobody stays in the book whom no node answers for.
//! - What was written under a seat counts in the life in which the seat was taken, and in no other.
//! - [`Desk::enter`] and [`Desk::leave`] never wait. What the desk remembers is bounded by the node's subscriptions and by those
//!   that ended within a grace, or since the book went away.
//!
//! **Deliberately absent:** the order of notices relative to publications, which take another queue; and notices to the session
//! they speak of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::event::{Crowd, Member};
use fanfare_protocol::{Channel, SessionId};
use futures_util::future::BoxFuture;

use crate::broker::BrokerError;

mod audience;
mod counts;
mod crowds;
mod debts;
mod desk;
mod lookout;
pub mod memory;
pub mod redis;
mod table;
pub(crate) mod wire;

pub use debts::{About, Abouts, Debt, Recipient, Silent, Teller, Topic, Wants, Word};
pub use desk::{Desk, Listening, PresenceOptions};

/// The most members that a crowd names; a larger one is counted alone.
pub const MEMBERS_MAX: u64 = 20_000;

/// The book. See the [module's essay](self); `tests/presence.rs` holds every implementation to it.
pub trait Presence: fmt::Debug + Send + Sync + 'static {
    /// Performs changes, those of one channel in their order, and says for each what has become of it. Takes a bounded number
    /// of round trips, and performs a change again without harm.
    fn write(&self, writer: Writer, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<After>, BrokerError>>;

    /// Keeps a seat warm for `ttl`, if it still is or if it is `new`. What is written under a seat later holds in the life that
    /// it was taken in: in another one the answer to everything is [`After::Cleared`], and it is not warm.
    fn beat(&self, seat: Seat, ttl: Duration, new: bool) -> BoxFuture<'_, Result<Beat, BrokerError>>;

    /// Clears a bounded part of a seat that has gone cold, unless another node is at it. Answers whether there is more to do.
    /// What that seat owed is owed by this node's from then on.
    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>>;

    /// The channels that anybody is on, in any order.
    fn channels(&self) -> BoxFuture<'_, Result<Vec<Channel>, BrokerError>>;

    /// Who is there. Without `members`, or beyond [`MEMBERS_MAX`] connections, nobody is named.
    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>>;

    /// Takes note of what the backend was told, where it was: from then on it knows that level. Answers for each debt what it is
    /// to be told now, in the same order; `None` where nothing is owed any more, or not by this seat.
    fn settle(&self, told: Vec<(Debt, Option<u64>)>) -> BoxFuture<'_, Result<Vec<Option<u64>>, BrokerError>>;
}

/// Under which name a node has its members in the book: never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seat(Arc<str>);

impl Seat {
    /// A new one. The node's name is in it for people who look into the book.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self(format!("{node}.{:016x}", fastrand::u64(..)).into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its seat.
    pub seat: Seat,
    /// The seat it had before: members that enter are moved from there.
    pub before: Option<Seat>,
}

/// One step of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// On which channel.
    pub channel: Channel,
    /// What.
    pub step: Step,
}

/// What a member does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is there.
    Enter(Arc<Member>),
    /// It was there in another life of the book: as [`Step::Enter`], and nobody is told. But [`After::Absent`] where the seat
    /// before has been cleared in this life, by which it has left.
    Restore(Arc<Member>),
    /// It leaves at once if its user has another connection there, and lingers if not.
    Depart(SessionId),
    /// It leaves at once.
    Leave(SessionId),
}

/// Where a member is after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// In the book.
    Present,
    /// In the book, until its grace is over.
    Lingering,
    /// Not in the book.
    Absent,
    /// Where it was: the step was refused.
    Refused,
    /// Nowhere: the seat is being cleared, or is of another life, and nothing can be written under it any more.
    Cleared,
}

/// What a beat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whether the seat is warm: if not, it never will be again.
    pub is_warm: bool,
    /// Names the book's life: under another number nobody knows what is left of what was written.
    pub life: u64,
}

/// What the book tells the nodes that watch a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which channel.
    pub channel: Channel,
    /// What happened, in order.
    pub turns: Vec<Turn>,
    /// How many connections are on it after that, where those who hear it are told.
    pub connections: Option<u64>,
}

/// A user has come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which of the two.
    pub kind: TurnKind,
    /// Who, and by which connection.
    pub member: Member,
}

/// Whether a user has come or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnKind {
    /// It has come.
    Joined,
    /// It has gone.
    Left,
}
