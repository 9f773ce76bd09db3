//! What any client may ask: meanings, never a dialect's spelling.

use crate::channel::Channel;
use crate::error::Failure;
use crate::id::RequestId;
use crate::publication::Payload;

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
    /// Hear a channel from now on.
    Subscribe {
        /// Which.
        channel: Channel,
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
    },
    /// Is anyone there, and what time is it?
    Ping,
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
}

/// What a dialect makes of one command on the wire.
pub type Decoded = Result<Request, Rejection>;
