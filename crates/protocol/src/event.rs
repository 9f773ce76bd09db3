//! What any client may be told: meanings, never a dialect's spelling.

use std::time::Duration;

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::error::{ErrorCode, Failure};
use crate::id::{RequestId, SessionId, UserId};
use crate::publication::Position;
use crate::time::UnixMicros;

/// An event, and the request it answers, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The name its sender gave the request.
    pub id: Option<RequestId>,
    /// What happened.
    pub event: Event,
}

impl Reply {
    /// An event that answers nothing.
    pub const fn unasked(event: Event) -> Self {
        Self { id: None, event }
    }
}

/// What a client is told. Publications are not here: they are encoded once for all of their receivers
/// ([`crate::Publication::encoded`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The conversation is open.
    Welcome(Welcome),
    /// The channel is live from here on.
    Subscribed {
        /// Which.
        channel: Channel,
        /// Where its stream goes on, on a channel with history.
        position: Option<Position>,
    },
    /// The channel is silent from here on.
    Unsubscribed {
        /// Which.
        channel: Channel,
        /// Why, when the server did it.
        cause: Option<ErrorCode>,
    },
    /// The broker has taken the publication.
    Published {
        /// Where.
        channel: Channel,
        /// Its place, on a channel with history.
        position: Option<Position>,
    },
    /// The answer to a ping.
    Pong {
        /// The node's wall clock.
        time: UnixMicros,
    },
    /// A command was refused.
    Refused {
        /// Why.
        failure: Failure,
        /// The channel it spoke of.
        channel: Option<Channel>,
    },
    /// The server is about to close the connection.
    Closing {
        /// Why.
        reason: CloseReason,
        /// How long to wait before coming back, where coming back makes sense.
        after: Duration,
    },
}

/// The first event of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The conversation's name.
    pub session: SessionId,
    /// The node that holds it.
    pub node: Box<str>,
    /// Who the client is, when it said so.
    pub user: Option<UserId>,
    /// The time between two pings of the server.
    pub heartbeat: Duration,
    /// The most bytes in one message of the client.
    pub message_bytes: usize,
    /// The most channels on this connection.
    pub channels: usize,
    /// The commands that may be sent per second; 0 when that is not limited.
    pub messages_per_second: u32,
    /// Channels that the server has already subscribed this connection to.
    pub subscribed: Vec<Channel>,
}
