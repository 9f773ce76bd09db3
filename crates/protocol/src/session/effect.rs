//! What a session has done.

use std::sync::Arc;

#[expect(unused_imports, reason = "the documentation names it")]
use super::Input;
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Hearing, Start, Wording};
use crate::error::ErrorCode;
use crate::event::{Crowd, Member, Reply};
use crate::grant::{Acquaintance, Grant, Proof, Token};
use crate::history::Excerpt;
use crate::id::RequestId;
use crate::limits::Bound;
use crate::publication::{Draft, Payload};
use crate::rules::{Consent, Overflow};
use crate::tags::Filter;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the client.
    Send(Reply),
    /// Count that a bound was met. What follows from it, if it is not only tried, is an effect of its own.
    Exceeded(Bound),
    /// Ask for a sign of life, as the dialect does that.
    Ping,
    /// Verify a token, and answer with [`Input::Authenticated`]. Joins that follow from the answer, since the token lists
    /// channels, are performed after all that was decided before: a channel that is being left may be among them.
    Authenticate {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// Which.
        token: Token,
    },
    /// Ask the backend who this is, and answer with [`Input::Authenticated`], like [`Effect::Authenticate`].
    Introduce {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// What its token says, if it came with one.
        presumed: Option<Arc<Grant>>,
    },
    /// Ask the backend again what it said of this client, and answer with [`Input::Reaffirmed`]. The answer is not waited for:
    /// what was decided after this is performed meanwhile.
    Reaffirm,
    /// Have the backend do something, and answer with [`Input::Called`].
    Call {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// What to do.
        method: Box<str>,
        /// With what.
        payload: Payload,
    },
    /// Let the backend know something. Nothing answers.
    Tell {
        /// What.
        payload: Payload,
    },
    /// Judge what is to let the client on a channel, and answer with [`Input::Admitted`].
    Admit {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// Which.
        channel: Channel,
        /// To be repeated in the answer.
        hearing: Option<Hearing>,
        /// What it shows.
        proof: Proof,
    },
    /// Join the channel at the hub, its gate closed, and answer with [`Input::Joined`].
    Join {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// Which.
        channel: Channel,
        /// How.
        terms: Terms,
    },
    /// Read history, and answer with [`Input::Read`].
    Read {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// Which channel's.
        channel: Channel,
        /// Which part.
        excerpt: Excerpt,
    },
    /// Queue the reply and open the channel's gate, in one step.
    GoLive {
        /// Which.
        channel: Channel,
        /// What to tell the client first, unless it has been told already.
        reply: Option<Reply>,
    },
    /// Tell the cluster that this client is on the channel, until [`Effect::Leave`]. Comes right after [`Effect::GoLive`],
    /// where it is known who is subscribed.
    Enter {
        /// Which.
        channel: Channel,
        /// As whom others see it.
        member: Member,
        /// What it is told of them.
        told: Told,
    },
    /// As [`Effect::Enter`], before [`Effect::GoLive`]; and ask who is there, and answer with [`Input::Surveyed`]. Who joins and
    /// leaves from then on is told after [`Effect::Heed`].
    Survey {
        /// Which.
        channel: Channel,
        /// As whom others see it.
        member: Member,
    },
    /// Tell the client who has joined and left since this was the crowd, and who does from now on.
    Heed {
        /// Where.
        channel: Channel,
        /// Who it has been told is there.
        crowd: Arc<Crowd>,
    },
    /// Tell the client of these users, and of no others any more, whether they are there; now and whenever that changes.
    LookOut {
        /// For whom.
        acquaintances: Vec<Acquaintance>,
    },
    /// Ask who is on the channel, and answer with [`Input::Counted`].
    Count {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// Which channel.
        channel: Channel,
        /// Whether to name them, or only to count.
        members: bool,
    },
    /// Leave the channel, at the hub and as a member; nothing of it is queued from then on.
    Leave {
        /// Which.
        channel: Channel,
        /// Why, where that is not the client's wish.
        cause: Option<ErrorCode>,
    },
    /// Publish, and answer with [`Input::Placed`].
    Publish {
        /// To be repeated in the answer.
        id: Option<RequestId>,
        /// What; the backend, where it is asked, may say it otherwise.
        draft: Draft,
        /// Whether the backend is asked before.
        consent: Consent,
    },
    /// Queue the farewell and a Close frame with this reason, even over the bound, and nothing after them.
    Close {
        /// Why.
        reason: CloseReason,
        /// The event that says so in the dialect.
        farewell: Reply,
    },
    /// Answer the peer's Close with its own code, and queue nothing after it.
    EchoClose(Option<u16>),
}

/// What a subscriber is told of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// Who joins and leaves.
    Turns,
    /// How many there are.
    Count,
}

/// How a subscriber hears a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// From which point.
    pub start: Start,
    /// Whether the channel has a stream to enter.
    pub history: bool,
    /// What becomes of it when it is slow.
    pub overflow: Overflow,
    /// How publications are told to it.
    pub wording: Wording,
    /// Which of them are for it, where not all are.
    pub filter: Option<Arc<Filter>>,
    /// Whether the backend is asked before.
    pub consent: Consent,
}
