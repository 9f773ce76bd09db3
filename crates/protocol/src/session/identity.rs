//! Who a session's client is: how it becomes known, stays so by fresh tokens, and is so no longer.
//!
//! ```text
//!   Visitor::Unknown ─► Authenticating ──good token──► Open, known ──good token of the same user──► Open, known
//!                          │ bad token, or none in time       │ the token's time is over
//!                          └──────────► Close 4401 ◄──────────┘
//!   Visitor::Anonymous ─► Open ──good token, while it hears nothing──► Open, known
//! ```
//!
//! **Invariants.** A known client stays the same user for as long as the conversation lasts, so what others have been told
//! of it stays true. A refused token changes nothing of what an open conversation may do.

use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Open, Policy, Session, State, Subscription, refuse};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::Start;
use crate::error::{ErrorCode, Failure};
use crate::event::{Entered, Event, Reply, Welcome};
use crate::grant::Grant;
use crate::id::{RequestId, Ticket};
use crate::manners::{Naming, Refusal};
use crate::time::{Moment, Now, UnixMicros};

/// What is known of a client that has presented a token.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) grant: Arc<Grant>,
    /// When the token is good no longer, by the clock that does not jump.
    pub(super) ends: Option<Moment>,
}

impl Identity {
    /// Holds a grant, which is good for a while longer than it says.
    pub(super) fn new(grant: Arc<Grant>, now: Now, grace: Duration) -> Box<Self> {
        let ends = grant.ends.map(|ends| now.moment + ends.since(now.unix) + grace);
        Box::new(Self { grant, ends })
    }
}

/// How long it is until then (Unix seconds).
fn lasting(expires: u64, now: Now) -> Duration {
    UnixMicros(expires.saturating_mul(1_000_000)).since(now.unix)
}

/// A conversation whose client has to present a token first.
#[derive(Debug)]
pub(super) struct Authenticating {
    pub(super) open: Open,
    pub(super) deadline: Moment,
}

impl Session {
    /// What the client's token says; `None` for an anonymous client.
    pub fn grant(&self) -> Option<&Grant> {
        self.shared_grant().map(|grant| &**grant)
    }

    /// The same, to be kept.
    pub fn shared_grant(&self) -> Option<&Arc<Grant>> {
        self.identity.as_ref().map(|identity| &identity.grant)
    }

    pub(super) fn is_expired(&self, now: Now) -> bool {
        self.identity.as_ref().and_then(|it| it.ends).is_some_and(|ends| ends <= now.moment)
    }

    /// The answer to a token.
    pub(super) fn authenticated(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        outcome: Result<Arc<Grant>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        match (&mut self.state, outcome) {
            (State::Authenticating(_), Ok(grant)) => {
                let State::Authenticating(authenticating) = std::mem::replace(&mut self.state, State::Over)
                else {
                    unreachable!("it was just matched")
                };
                self.state = State::Open(authenticating.open);
                self.introduce(now, id, grant, effects);
            }
            (State::Authenticating(_) | State::Prelude(_), Err(failure)) => {
                let reason = match failure.code {
                    ErrorCode::Unavailable => CloseReason::TryAgainLater,
                    ErrorCode::LimitReached => CloseReason::LimitReached,
                    ErrorCode::Expired => CloseReason::Expired,
                    _ => CloseReason::Unauthorized,
                };
                let after = failure.retry_after.unwrap_or(Duration::ZERO);
                if self.manners.refusal == Refusal::Told || reason == CloseReason::Expired {
                    refuse(id, None, failure, effects);
                }
                self.close(now, reason, after, effects);
            }
            (State::Prelude(_), Ok(grant)) => {
                self.identity = Some(Identity::new(grant, now, self.manners.token_grace));
                self.enrol_first(now, effects);
            }
            (State::Open(_), Ok(grant)) => self.renew(now, id, grant, effects),
            (State::Open(_), Err(failure)) => self.refuse_token(now, id, failure, effects),
            (State::Closing { .. } | State::Finishing { .. } | State::Over, _) => {}
        }
    }

    /// Takes a token in an open conversation.
    fn renew(&mut self, now: Now, id: Option<RequestId>, grant: Arc<Grant>, effects: &mut Vec<Effect>) {
        if self.manners.naming == Naming::AtAnyTime
            && self.identity.as_ref().is_none_or(|known| known.grant.user == grant.user)
        {
            self.identity = Some(Identity::new(grant, now, self.manners.token_grace));
            return effects.push(Effect::Send(Reply { id, event: Event::Recognised }));
        }
        let Some(identity) = &self.identity else {
            if self.subscriptions.is_empty() {
                return self.introduce(now, id, grant, effects);
            }
            let text = "this connection is anonymous and subscribed: present the token before subscribing";
            return refuse(id, None, Failure::new(ErrorCode::Conflict, text), effects);
        };
        if identity.grant.user != grant.user {
            let failure =
                Failure::new(ErrorCode::Unauthorized, "the token is another user's: connect anew with it");
            return self.refuse_token(now, id, failure, effects);
        }
        let expires = grant.expires;
        self.identity = Some(Identity::new(grant, now, self.manners.token_grace));
        let lasts = expires.map(|expires| lasting(expires, now));
        effects
            .push(Effect::Send(Reply { id, event: Event::Refreshed { session: self.id, expires, lasts } }));
        self.withdraw(effects);
        let _ = self.enrol(&[], effects);
    }

    /// A wrong token costs a signature to be checked, so an open conversation may present only so many.
    fn refuse_token(&mut self, now: Now, id: Option<RequestId>, failure: Failure, effects: &mut Vec<Effect>) {
        let State::Open(open) = &mut self.state else { return };
        if self.manners.refusal == Refusal::Final && failure.code == ErrorCode::Unauthorized {
            return self.close(now, CloseReason::Unauthorized, Duration::ZERO, effects);
        }
        let is_bad = matches!(failure.code, ErrorCode::Unauthorized | ErrorCode::Expired);
        open.bad_requests += u32::from(is_bad);
        let too_many = open.bad_requests > self.policy.limits.errors;
        refuse(id, None, failure, effects);
        if too_many {
            self.close(now, CloseReason::Unauthorized, Duration::ZERO, effects);
        }
    }

    /// Greets a client that has become known, and subscribes it to what its token lists.
    fn introduce(&mut self, now: Now, id: Option<RequestId>, grant: Arc<Grant>, effects: &mut Vec<Effect>) {
        self.identity = Some(Identity::new(grant, now, self.manners.token_grace));
        self.greet(now, id, effects);
    }

    pub(super) fn greet(&mut self, now: Now, id: Option<RequestId>, effects: &mut Vec<Effect>) {
        let mut joins = Vec::new();
        let subscribed = self.enrol(&[], &mut joins);
        self.welcome(now, id, None, subscribed, Vec::new(), effects);
        effects.append(&mut joins);
    }

    /// Tells the client that the conversation is open, and what it is subscribed to.
    pub(super) fn welcome(
        &self,
        now: Now,
        id: Option<RequestId>,
        ticket: Option<Ticket>,
        subscribed: Vec<Channel>,
        entered: Vec<Entered>,
        effects: &mut Vec<Effect>,
    ) {
        let Policy { node, limits, heartbeat, .. } = &*self.policy;
        let grant = self.grant();
        let welcome = Welcome {
            session: self.id,
            node: node.clone(),
            user: grant.and_then(|grant| grant.user.clone()),
            expires: grant.and_then(|grant| grant.expires),
            lasts: grant.and_then(|grant| grant.expires).map(|expires| lasting(expires, now)),
            heartbeat: heartbeat.interval,
            message_bytes: limits.message_bytes,
            channels: limits.channels,
            messages_per_second: limits.messages_per_second,
            ticket,
            subscribed,
            entered,
        };
        effects.push(Effect::Send(Reply { id, event: Event::Welcome(welcome) }));
    }

    /// Subscribes to the channels that the token lists, and to the personal one where there is such a namespace; returns
    /// those that it was not subscribed to already. What cannot be subscribed to is left out: the token is older than the
    /// configuration that forbids it. `places` say where the client stands in some of them.
    pub(super) fn enrol(&mut self, places: &[(Channel, Start)], effects: &mut Vec<Effect>) -> Vec<Channel> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let grant = identity.grant.clone();
        let personal = grant.personal_channel();
        let mut joined = Vec::new();
        for channel in personal.iter().chain(&grant.channels) {
            let place = places.iter().find(|(it, _)| it == channel);
            let start = place.map_or(Start::Live, |(_, start)| *start);
            let Ok(terms) = self.may_subscribe(channel, start) else { continue };
            let subscription: &mut Subscription = self.subscriptions.entry(channel.clone()).or_default();
            subscription.is_wanted = true;
            subscription.unanswered += 1;
            self.wanted += 1;
            effects.push(Effect::Join { id: None, channel: channel.clone(), terms });
            joined.push(channel.clone());
        }
        joined
    }
}
