//! What any client may ask: meanings, never a dialect's spelling.

use std::sync::Arc;

use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::grant::{Proof, Token};
use crate::id::RequestId;
use crate::limits::Bound;
use crate::publication::{IdempotencyKey, Payload, Position};
use crate::tags::Filter;

/// The longest name of what an application is to do, in bytes.
pub const METHOD_BYTES_MAX: usize = 255;

/// One command and the name its sender gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be repeated in the reply.
    pub id: Option<RequestId>,
    /// What is asked.
    pub command: Command,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin the conversation, where that is the client's to do.
    Open(Introduction),
    /// Say who one is.
    Authenticate {
        /// What shows it.
        token: Token,
    },
    /// Hear a channel from now on.
    Subscribe {
        /// Which.
        channel: Channel,
        /// From which point of its stream.
        start: Start,
        /// Whether to be told who joins and leaves.
        presence: bool,
        /// How publications are to be told, where that can be had.
        wording: Wording,
        /// Which of them are to be heard, where not all are.
        filter: Option<Arc<Filter>>,
        /// What lets the client in, where it has to show that.
        proof: Option<Proof>,
    },
    /// Go on hearing a channel by a fresh proof.
    Renew {
        /// Which.
        channel: Channel,
        /// What lets the client in.
        proof: Proof,
    },
    /// Stop hearing a channel.
    Unsubscribe {
        /// Which.
        channel: Channel,
    },
    /// Say something on a channel.
    Publish {
        /// Where.
        channel: Channel,
        /// What.
        payload: Payload,
        /// Whether the publisher's own connection hears it too.
        echo: bool,
        /// What makes it the same publication when it is sent again.
        key: Option<IdempotencyKey>,
    },
    /// Read a part of a channel's past.
    History {
        /// Which.
        channel: Channel,
        /// Only what was published after this position; before it, in reverse.
        since: Option<Position>,
        /// The most publications to answer with.
        limit: usize,
        /// The newest first.
        reverse: bool,
    },
    /// Ask who is subscribed to a channel.
    Presence {
        /// Which.
        channel: Channel,
        /// Whether to name them, or only to count.
        members: bool,
    },
    /// Have the application do something, and hear what came of it.
    Call {
        /// What to do, in the application's words.
        method: Box<str>,
        /// With what.
        payload: Payload,
    },
    /// Let the application know something.
    Tell {
        /// What.
        payload: Payload,
    },
    /// Is anyone there, and what time is it?
    Ping,
    /// The answer to a ping, where that is a message.
    Pong,
}

impl Command {
    /// The channel that it is about, if it is about one.
    pub const fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Subscribe { channel, .. }
            | Self::Renew { channel, .. }
            | Self::Unsubscribe { channel }
            | Self::Publish { channel, .. }
            | Self::History { channel, .. }
            | Self::Presence { channel, .. } => Some(channel),
            Self::Open(_)
            | Self::Authenticate { .. }
            | Self::Call { .. }
            | Self::Tell { .. }
            | Self::Ping
            | Self::Pong => None,
        }
    }

    /// The same, to put another in its place.
    pub const fn channel_mut(&mut self) -> Option<&mut Channel> {
        match self {
            Self::Subscribe { channel, .. }
            | Self::Renew { channel, .. }
            | Self::Unsubscribe { channel }
            | Self::Publish { channel, .. }
            | Self::History { channel, .. }
            | Self::Presence { channel, .. } => Some(channel),
            Self::Open(_)
            | Self::Authenticate { .. }
            | Self::Call { .. }
            | Self::Tell { .. }
            | Self::Ping
            | Self::Pong => None,
        }
    }
}

/// What a client says of itself when it opens a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// What shows who it is; none where its request has shown that, or it is nobody.
    pub token: Option<Token>,
    /// What it tells the application.
    pub payload: Option<Payload>,
    /// What kind of client it is.
    pub name: Box<str>,
    /// Of which version.
    pub version: Box<str>,
    /// Where it stands in the channels that it is subscribed to without asking.
    pub places: Vec<(Channel, Start)>,
}

/// From which point of its stream a channel is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// From now on.
    #[default]
    Live,
    /// After the last position that the client has seen.
    Since(Position),
    /// After the last so many publications, which are replayed.
    Rewind(u32),
}

/// How publications are told to a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wording {
    /// Each whole.
    #[default]
    Whole,
    /// As what has changed since the one before, where that is shorter: [`crate::Publication::after`].
    Differences,
}

/// How a channel is to be heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// From which point of its stream.
    pub start: Start,
    /// How publications are told.
    pub wording: Wording,
    /// Which of them are, where not all are.
    pub filter: Option<Arc<Filter>>,
}

/// A command that could not be understood, with as much of it as could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The request's name, where it was readable.
    pub id: Option<RequestId>,
    /// The channel it spoke of, where that was readable.
    pub channel: Option<Channel>,
    /// What was wrong.
    pub failure: Failure,
    /// The bound that it went over, where that is what was wrong.
    pub over: Option<Bound>,
}

impl Rejection {
    /// A message of which nothing could be read that would say whose it is.
    pub fn unnamed(failure: Failure) -> Self {
        Self { id: None, channel: None, failure, over: None }
    }

    /// A command with more than so many levels.
    pub fn too_deep(levels: usize) -> Self {
        let text = format!("nested more than {levels} deep: send flatter data");
        let failure = Failure::new(ErrorCode::BadRequest, text);
        Self { over: Some(Bound::Depth), ..Self::unnamed(failure) }
    }
}

/// What a dialect makes of one command on the wire.
pub type Decoded = Result<Request, Rejection>;
