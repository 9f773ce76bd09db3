//! What a subscriber hears.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::Error;
use crate::client::Order;
use crate::wire::{Member, Message, Position};

/// How to subscribe.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    /// Where somebody left off: what came after that is heard first.
    pub since: Option<Position>,
    /// Otherwise how many of the newest messages are heard first.
    pub rewind: Option<u32>,
    /// Whether to be told who comes and goes.
    pub presence: bool,
}

/// What is heard on a channel, in its order.
#[derive(Clone, Debug)]
pub enum Event {
    /// The channel is live, for the first time or again.
    Subscribed {
        /// On a channel with history: whether everything since the last message (or `since`, or `rewind`) follows. `Some(false)` after an
        /// [`Event::Interrupted`] means that something is gone for good: load your state anew, and apply what follows to it. None on a
        /// channel without history, where what came meanwhile is gone always.
        recovered: Option<bool>,
        /// Where the stream stands, on a channel with history.
        position: Option<Position>,
    },
    /// A publication.
    Message(Message),
    /// A user has come to the channel.
    Joined(Member),
    /// The user has gone.
    Left(Member),
    /// The channel is silent until the next [`Event::Subscribed`].
    Interrupted(Cause),
    /// The last event: the server ended the subscription for good, or the client has ended.
    Ended(Error),
}

/// Why a channel is silent for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection is lost.
    Connection,
    /// The server lost the subscription's place.
    Gap,
    /// This subscription's queue was full.
    Lagged,
}

/// Hears one channel. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    channel: String,
    events: mpsc::Receiver<Event>,
    orders: mpsc::Sender<Order>,
}

impl Subscription {
    pub(crate) fn new(channel: &str, events: mpsc::Receiver<Event>, orders: mpsc::Sender<Order>) -> Self {
        Self { channel: channel.to_owned(), events, orders }
    }

    /// What it hears.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The next event; none after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.events.close();
        // Where there is no room for it the client finds out at the next event.
        let _ = self.orders.try_send(Order::Leave(std::mem::take(&mut self.channel)));
    }
}
