//! What a session is fed.

use std::sync::Arc;
use std::time::Duration;

use super::Policy;
#[expect(unused_imports, reason = "the documentation names them")]
use super::{Effect, Session};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Hearing, Rejection, Request, Start, Wording};
use crate::error::Failure;
use crate::event::{Crowd, Entry};
use crate::grant::{Amendment, Grant, Pass};
use crate::history::{Excerpt, Page};
use crate::id::RequestId;
use crate::publication::{Payload, Position};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes came from the peer, of whatever kind: it is alive.
    Heard,
    /// A ping, which the transport answers, or an answer to one. Each is as good as a command where the rate is concerned; none is
    /// refused, but whoever goes on for too long is.
    Probed,
    /// A command.
    Request(Request),
    /// A command that came with the request that opened the conversation: it is judged like any other, but the rate at
    /// which commands are sent is not its matter.
    Opening(Request),
    /// A command that could not be understood.
    Rejected(Rejection),
    /// The answer to [`Effect::Authenticate`] and [`Effect::Introduce`].
    Authenticated {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// What is known of the client, or why it is not let in.
        outcome: Result<Arc<Grant>, Failure>,
    },
    /// The answer to [`Effect::Join`].
    Joined {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// Which channel.
        channel: Channel,
        /// From where it was asked for.
        start: Start,
        /// How publications are told to it.
        wording: Wording,
        /// Where it enters the channel's stream, if that has history, or why it cannot be heard.
        outcome: Result<Option<Entry>, Failure>,
    },
    /// The answer to [`Effect::Admit`].
    Admitted {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// Which channel.
        channel: Channel,
        /// How it is to be heard; none where it is heard already.
        hearing: Option<Hearing>,
        /// What the proof says, or why it is not taken.
        outcome: Result<Pass, Failure>,
    },
    /// The answer to [`Effect::Publish`].
    Placed {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// Which channel.
        channel: Channel,
        /// Its place, or why it was not published.
        outcome: Result<Option<Position>, Failure>,
    },
    /// The answer to [`Effect::Read`].
    Read {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// Which channel.
        channel: Channel,
        /// What was asked for.
        excerpt: Excerpt,
        /// What was found, or why nothing was.
        outcome: Result<Page, Failure>,
    },
    /// The answer to [`Effect::Count`].
    Counted {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// Which channel.
        channel: Channel,
        /// Who is there, or why that is not known.
        outcome: Result<Arc<Crowd>, Failure>,
    },
    /// The answer to [`Effect::Call`].
    Called {
        /// The request that asked for it.
        id: Option<RequestId>,
        /// What the backend says, or why it says nothing.
        outcome: Result<Payload, Failure>,
    },
    /// The answer to [`Effect::Reaffirm`].
    Reaffirmed {
        /// What is known of the client from now on, or why not.
        outcome: Result<Arc<Grant>, Failure>,
    },
    /// The answer to [`Effect::Survey`].
    Surveyed {
        /// Which channel.
        channel: Channel,
        /// Who is there, or why that is not known.
        outcome: Result<Arc<Crowd>, Failure>,
    },
    /// The node can no longer keep the promise that nothing of this channel is missed.
    Lost {
        /// Which channel.
        channel: Channel,
    },
    /// The time of [`Session::deadline`] has come.
    Tick,
    /// The queue of this connection went over its bound and was emptied.
    Overflowed,
    /// A backend has ordered this client away, or revoked its token.
    Dismissed(CloseReason),
    /// A backend has this client hear a channel, whatever its token says of that.
    Enlisted {
        /// Which.
        channel: Channel,
        /// From where.
        start: Start,
        /// On which terms.
        pass: Arc<Pass>,
    },
    /// A backend has this client hear a channel no longer.
    Expelled {
        /// Which.
        channel: Channel,
    },
    /// A backend has what is known of this client end at another time than its token says.
    Amended(Arc<Amendment>),
    /// The node is draining; the client is to wait this long before it comes back.
    Drain(Duration),
    /// The node decides differently from now on. Channels that the client may not hear any more are left, and it is
    /// told; for the rest the bounds hold for what comes.
    PolicyChanged(Arc<Policy>),
    /// The peer broke a rule of the transport.
    Violated(CloseReason),
    /// The peer's Close frame, with its code if it had one.
    PeerClosed(Option<u16>),
    /// The peer is gone without a Close: end of file, or an error of the socket.
    Gone,
}
