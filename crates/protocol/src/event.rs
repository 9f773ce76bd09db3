//! What any client may be told: meanings, never a dialect's spelling.

use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Start, Wording};
use crate::error::{ErrorCode, Failure};
use crate::history::Page;
use crate::id::{RequestId, SessionId, Ticket, UserId};
use crate::publication::{Payload, Position};
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
    /// The token was replaced by one that is good for longer.
    Refreshed {
        /// The conversation's name.
        session: SessionId,
        /// Unix seconds at which that one ends; `None` when it does not.
        expires: Option<u64>,
        /// How long that is from now.
        lasts: Option<Duration>,
    },
    /// The channel is live from here on.
    Subscribed {
        /// Which.
        channel: Channel,
        /// On a channel with history, where its stream goes on.
        entry: Option<Entry>,
        /// From where it was asked for.
        start: Start,
        /// How its publications are told.
        wording: Wording,
        /// How long the proof is good that let the client in, where it ends.
        lasts: Option<Duration>,
        /// Who is there, the client among them, where it is told that with this.
        crowd: Option<Arc<Crowd>>,
        /// What the application has it told with this.
        greeting: Option<Payload>,
    },
    /// What was asked for of the past, some of the newest, is not kept.
    NothingKept {
        /// On which channel.
        channel: Channel,
    },
    /// The client is who it says.
    Recognised,
    /// Whether users whom the client knows are there, each as far as that is news to it.
    Sighted {
        /// Those who are.
        there: Vec<UserId>,
        /// Those who are not.
        gone: Vec<UserId>,
    },
    /// Of so many users the client cannot be told whether they are there: of these it is.
    Acquainted {
        /// Those that were named first.
        with: Vec<UserId>,
    },
    /// How many connections are subscribed to a channel.
    Counted {
        /// Which.
        channel: Channel,
        /// The client's own among them.
        connections: u64,
    },
    /// The proof that let the client in was replaced by one that is good for longer.
    Renewed {
        /// Where.
        channel: Channel,
        /// How long; `None` when it does not end.
        lasts: Option<Duration>,
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
    /// A part of a channel's past.
    Past {
        /// Which channel's.
        channel: Channel,
        /// What was found.
        page: Page,
    },
    /// Who is subscribed to a channel.
    Present {
        /// Which channel.
        channel: Channel,
        /// Whom it was found to have; shared by all who ask at once.
        crowd: Arc<Crowd>,
    },
    /// A user has come to a channel, by its first connection there.
    Joined {
        /// Which.
        channel: Channel,
        /// Who.
        member: Member,
    },
    /// A user has left a channel, with its last connection there.
    Left {
        /// Which.
        channel: Channel,
        /// Who.
        member: Member,
    },
    /// What came of a call.
    Returned {
        /// What the application says.
        payload: Payload,
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

/// Where a subscriber enters a channel's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position after which publications are live.
    pub position: Position,
    /// Whether everything from the point that the subscriber asked for up to there follows as replayed.
    pub recovered: bool,
}

/// One subscriber of a channel, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who; `None` for an anonymous client.
    pub user: Option<UserId>,
    /// By which connection.
    pub session: SessionId,
    /// The `info` of the user's token.
    pub profile: Option<Payload>,
    /// What was said of it for this channel alone.
    pub note: Option<Payload>,
}

impl Member {
    /// What others are shown of it where they are shown one thing.
    pub fn shown(&self) -> Option<&Payload> {
        self.note.as_ref().or(self.profile.as_ref())
    }
}

/// Who is subscribed to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Users; several connections of one count once, and each anonymous connection is one.
    pub users: u64,
    /// Connections.
    pub connections: u64,
    /// Each connection, where names were asked for and are not too many.
    pub members: Option<Vec<Member>>,
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
    /// Unix seconds at which its token ends; `None` when it has none, or one that does not.
    pub expires: Option<u64>,
    /// How long that is from now.
    pub lasts: Option<Duration>,
    /// The time between two pings of the server.
    pub heartbeat: Duration,
    /// The most bytes in one message of the client.
    pub message_bytes: usize,
    /// The most channels on this connection.
    pub channels: usize,
    /// The commands that may be sent per second; 0 when that is not limited.
    pub messages_per_second: u32,
    /// Lets a client that cannot speak in this conversation speak for it elsewhere.
    pub ticket: Option<Ticket>,
    /// Channels that the server subscribes this connection to; each is told of by its own [`Event::Subscribed`].
    pub subscribed: Vec<Channel>,
    /// The same where they have been joined already: then this is all that is said of them.
    pub entered: Vec<Entered>,
}

/// A channel that has been joined, and where it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Which.
    pub channel: Channel,
    /// On a channel with history, where its stream goes on.
    pub entry: Option<Entry>,
    /// From where it was asked for.
    pub start: Start,
    /// What the application has the client told with this.
    pub greeting: Option<Payload>,
}
