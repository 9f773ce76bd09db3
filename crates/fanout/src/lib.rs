//! From one publication to many outboxes, on this node and on all the others.
//!
//! ```text
//!  session ─► Hub::publish ─► broker ─► (every watching node) lane ─► Hub ─► registry ─► outbox ─► writer
//!  session ─► Hub::subscribe ─► interest ─► broker.watch      └ one order per channel ┘    └ one per connection
//! ```
//!
//! [`Hub`] is the only door. Behind it the [`registry`] knows who hears a channel here, [`interest`] sees to it that the
//! node watches exactly the channels that somebody hears, a [`broker::Broker`] carries publications between nodes, and
//! each connection's [`Outbox`] bounds what waits for it. Beside them a [`presence::Desk`] knows who is subscribed, on all nodes.
//!
//! **Invariant.** Publications reach a hub only through the lanes its broker feeds, those of the node itself included:
//! no node takes a short cut, so every subscriber of a channel sees the same order.

pub mod broker;
pub mod cluster;
mod follower;
mod hub;
mod interest;
#[cfg(test)]
mod keyed;
mod outbox;
pub mod presence;
mod registry;
#[cfg(test)]
mod simulation;
pub mod tap;
mod wakes;

pub use hub::{Hub, HubOptions, Overheard};
pub use outbox::{Batch, Full, Order, Outbox, Queued, Socket, SubscriberId, taken};
