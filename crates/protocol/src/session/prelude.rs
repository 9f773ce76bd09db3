//! A conversation that its client opens: what it says first, and what has to be known before it is greeted.
//!
//! ```text
//!   awaited ──Open──► token judged ──► its channels joined ──► greeted, with where it enters them ──► open
//!      │ anything else, or nothing in time       │ refused
//!      └───────────────► closed ◄────────────────┘
//! ```
//!
//! What the client says behind its opening waits until it has been greeted, as many commands as a batch may have.

use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use super::{Effect, Entering, Notices, Open, Session, State, refuse};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Command, Introduction, Request, Start};
use crate::error::{ErrorCode, Failure};
use crate::event::{Entered, Entry};
use crate::grant::{Grant, Visitor};
use crate::id::{RequestId, Ticket};
use crate::publication::Payload;
use crate::time::{Moment, Now};

/// See the [module's note](self).
#[derive(Debug)]
pub(super) struct Prelude {
    pub(super) open: Open,
    pub(super) deadline: Moment,
    step: Step,
    /// To be told with the greeting.
    ticket: Option<Ticket>,
    /// Said behind the opening.
    waiting: Vec<Request>,
}

impl Prelude {
    /// Whether something waits that was said behind the opening.
    pub(super) fn holds(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[derive(Debug)]
enum Step {
    /// Nothing has been said; by its request the client is this one.
    Awaited(Visitor),
    /// The opening is being answered.
    Answering(Answering),
}

#[derive(Debug)]
struct Answering {
    id: Option<RequestId>,
    /// What it tells the application.
    remark: Option<Payload>,
    places: Vec<(Channel, Start)>,
    /// The joins that are unanswered.
    joining: usize,
    entered: Vec<Entered>,
}

impl Session {
    /// Waits for the client to speak, whoever it is by its request; of whom a backend says that, it is presumed to be this one.
    pub(super) fn await_opening(&mut self, now: Now, presumed: Option<Option<Arc<Grant>>>) {
        let deadline = now.moment + self.policy.limits.auth_timeout;
        let visitor = self.identity.take().map(|identity| Visitor::Known(identity.grant));
        let (open, visitor) = match std::mem::replace(&mut self.state, State::Over) {
            State::Open(open) => (open, visitor.unwrap_or(Visitor::Anonymous)),
            State::Authenticating(it) => (it.open, presumed.map_or(Visitor::Unknown, Visitor::Presumed)),
            State::Prelude(_) | State::Closing { .. } | State::Finishing { .. } | State::Over => {
                unreachable!("a conversation begins once")
            }
        };
        let step = Step::Awaited(visitor);
        self.state =
            State::Prelude(Box::new(Prelude { open, deadline, step, ticket: None, waiting: Vec::new() }));
    }

    /// What the client says comes by requests that show this ticket: it is told so when it is greeted, which it has not been.
    pub fn speaks_by(&mut self, ticket: Ticket) {
        if let State::Prelude(prelude) = &mut self.state {
            prelude.ticket = Some(ticket);
        }
    }

    /// What the client has told the application with its opening, until it is greeted.
    pub fn remark(&self) -> Option<&Payload> {
        match &self.state {
            State::Prelude(prelude) => match &prelude.step {
                Step::Answering(answering) => answering.remark.as_ref(),
                Step::Awaited(_) => None,
            },
            _ => None,
        }
    }

    /// Whether the client has still to open the conversation.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(&self.state, State::Prelude(it) if matches!(it.step, Step::Awaited(_)))
    }

    pub(super) fn during_prelude(&mut self, now: Now, request: Request, effects: &mut Vec<Effect>) {
        let batch = self.policy.limits.batch;
        let State::Prelude(prelude) = &mut self.state else { return };
        match (&mut prelude.step, request.command) {
            (Step::Awaited(visitor), Command::Open(introduction)) => {
                let visitor = std::mem::take(visitor);
                self.introduced(now, request.id, introduction, visitor, effects);
            }
            (Step::Answering(_), command)
                if !matches!(command, Command::Open(_)) && prelude.waiting.len() < batch =>
            {
                prelude.waiting.push(Request { id: request.id, command });
            }
            _ => self.close(now, CloseReason::BadRequest, Duration::ZERO, effects),
        }
    }

    fn introduced(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        introduction: Introduction,
        visitor: Visitor,
        effects: &mut Vec<Effect>,
    ) {
        let State::Prelude(prelude) = &mut self.state else { return };
        let Introduction { token, payload: remark, places, .. } = introduction;
        let answering = Answering { id: id.clone(), remark, places, joining: 0, entered: Vec::new() };
        prelude.step = Step::Answering(answering);
        match (token, visitor) {
            (Some(token), _) => effects.push(Effect::Authenticate { id, token }),
            (None, Visitor::Anonymous) => self.enrol_first(now, effects),
            (None, Visitor::Known(grant)) => {
                self.identity = Some(Identity::new(grant, self.id, now, self.manners.token_grace));
                self.enrol_first(now, effects);
            }
            (None, Visitor::Presumed(presumed)) => effects.push(Effect::Introduce { id, presumed }),
            (None, Visitor::Unknown) => {
                let text = "a token is needed here: see auth.anonymous";
                refuse(id, None, Failure::new(ErrorCode::Unauthorized, text), effects);
                self.close(now, CloseReason::Unauthorized, Duration::ZERO, effects);
            }
        }
    }

    /// Joins what the client is subscribed to without asking, and greets it once that is done.
    pub(super) fn enrol_first(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let State::Prelude(prelude) = &mut self.state else { return };
        let Step::Answering(answering) = &mut prelude.step else { return };
        let places = std::mem::take(&mut answering.places);
        let joining = self.enrol(&places, effects).len();
        if let State::Prelude(prelude) = &mut self.state
            && let Step::Answering(answering) = &mut prelude.step
        {
            answering.joining = joining;
        }
        if joining == 0 {
            self.greet_opener(now, effects);
        }
    }

    /// One of those joins has been answered.
    pub(super) fn joined_first(
        &mut self,
        now: Now,
        Entering { channel, start, wording: _ }: Entering,
        outcome: Result<Option<Entry>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let greeting = self.greeting(&channel);
        let State::Prelude(prelude) = &mut self.state else { return };
        let Step::Answering(answering) = &mut prelude.step else { return };
        answering.joining = answering.joining.saturating_sub(1);
        let is_last = answering.joining == 0;
        match outcome {
            Ok(entry) => answering.entered.push(Entered { channel, entry, start, greeting }),
            Err(failure) => {
                // To be greeted without one of its channels would be to miss what comes on it.
                let after = failure.retry_after.unwrap_or(Duration::ZERO);
                return self.close(now, CloseReason::TryAgainLater, after, effects);
            }
        }
        if is_last {
            self.greet_opener(now, effects);
        }
    }

    fn greet_opener(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let State::Prelude(prelude) = std::mem::replace(&mut self.state, State::Over) else {
            unreachable!("whoever calls has looked")
        };
        let Prelude { open, step, ticket, waiting, .. } = *prelude;
        let Step::Answering(Answering { id, entered, .. }) = step else {
            unreachable!("whoever calls has looked")
        };
        self.state = State::Open(open);
        let channels: Vec<_> = entered.iter().map(|it| it.channel.clone()).collect();
        self.welcome(now, id, ticket, channels.clone(), entered, effects);
        for channel in channels {
            effects.push(Effect::GoLive { channel: channel.clone(), reply: None });
            self.enter(channel, Notices::Unwanted, effects);
        }
        // What the policy has come to forbid meanwhile is left again, and the client is told.
        self.withdraw(effects);
        for request in waiting {
            self.command(now, request, effects);
        }
    }
}
