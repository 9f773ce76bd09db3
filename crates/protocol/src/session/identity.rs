//! Who a session's client is: how it becomes known, stays so by fresh tokens, and is so no longer.
//!
//! ```text
//!   Visitor::Unknown ─► Authenticating ──good token──► Open, known ──good token of the same user──► Open, known
//!                          │ bad token, or none in time       │ the token's time is over
//!                          └──────────► Close 4401 ◄──────────┘
//!   Visitor::Anonymous ─► Open ──good token, while it hears nothing──► Open, known
//!   Visitor::Presumed ─► Authenticating ──the backend's word──► Open, known, if as nobody
//! ```
//!
//! Between a token and what comes of it, and until the backend has said who a presumed client is, commands are held: they are
//! judged as those of whoever it turns out to be. A backend's word that ends is asked for again before it does, somewhere
//! between half and four fifths of its time, so that clients that came together are not asked about together; while the
//! backend does not answer the old word holds until its end.
//!
//! **Invariants.** A known client stays the same user for as long as the conversation lasts, so what others have been told
//! of it stays true. A refused token changes nothing of what an open conversation may do.

use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Input, Open, Policy, Session, State, Subscription, refuse};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Hearing, Start};
use crate::error::{ErrorCode, Failure};
use crate::event::{Entered, Event, Reply, Welcome};
use crate::grant::{Acquaintance, Amendment, Grant, Token};
use crate::id::{RequestId, SessionId, Ticket};
use crate::limits::ACQUAINTANCES_MAX;
use crate::manners::{Naming, Refusal};
use crate::time::{Moment, Now, UnixMicros};

/// What is known of a client that has presented a token.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) grant: Arc<Grant>,
    /// When the token is good no longer, by the clock that does not jump.
    ends: Option<Moment>,
    /// When the backend that said so is asked again; none while it is being asked.
    renews: Option<Moment>,
}

/// The least time between two attempts to renew a backend's word.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// Over what time those come back whom a backend has not renewed.
const RETURN_WINDOW_MILLIS: u64 = 10_000;

impl Identity {
    /// Holds a grant, which is good for a while longer than it says.
    pub(super) fn new(grant: Arc<Grant>, id: SessionId, now: Now, grace: Duration) -> Box<Self> {
        let ends = grant.ends.map(|ends| now.moment + ends.since(now.unix));
        let mut identity = Self { grant, ends: ends.map(|ends| ends + grace), renews: None };
        if identity.grant.is_renewable {
            let part = 0.5 + 0.3 * f64::from(u32::try_from(id.spread(1_000)).unwrap_or(0)) / 1_000.0;
            identity.renews = ends.map(|ends| now.moment + ends.since(now.moment).mul_f64(part));
        }
        Box::new(identity)
    }

    /// When something is to be done about it.
    pub(super) fn due(&self) -> Option<Moment> {
        self.renews.into_iter().chain(self.ends).min()
    }

    /// Has the backend asked again, if there is time for that.
    fn renew_later(&mut self, now: Now) {
        let at = |ends: Moment| now.moment + (ends.since(now.moment) / 2).max(RENEWAL_PAUSE);
        self.renews = self.ends.map(at).filter(|at| self.ends.is_some_and(|ends| *at < ends));
    }
}

/// How long it is until then (Unix seconds).
fn lasting(expires: u64, now: Now) -> Duration {
    UnixMicros(expires.saturating_mul(1_000_000)).since(now.unix)
}

/// A conversation whose client is not known yet.
#[derive(Debug)]
pub(super) struct Authenticating {
    pub(super) open: Open,
    pub(super) deadline: Moment,
    /// What was said while it is being found out who says it; none while nobody is asked.
    held: Option<Vec<Input>>,
}

impl Authenticating {
    pub(super) fn state(open: Open, deadline: Moment, held: Option<Vec<Input>>) -> State {
        State::Authenticating(Box::new(Self { open, deadline, held }))
    }

    /// Whether it is being found out who the client is.
    #[cfg(test)]
    pub(super) fn is_asking(&self) -> bool {
        self.held.is_some()
    }

    /// Why it is closed when its time is over.
    pub(super) fn lateness(&self) -> CloseReason {
        match self.held {
            None => CloseReason::Late,
            Some(_) => CloseReason::TryAgainLater,
        }
    }
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

    /// Whether commands are held, so that it is better not to read more of them.
    pub fn holds(&self) -> bool {
        match &self.state {
            State::Authenticating(it) => it.held.as_ref().is_some_and(|held| !held.is_empty()),
            State::Prelude(it) => it.holds(),
            State::Open(_) | State::Closing { .. } | State::Finishing { .. } | State::Over => false,
        }
    }

    /// Where to keep a command while it is being found out whose it is; nowhere for everything else.
    pub(super) fn held_with(&mut self, input: &Input) -> Option<&mut Vec<Input>> {
        let is_command = matches!(input, Input::Request(_) | Input::Opening(_) | Input::Rejected(_));
        match &mut self.state {
            State::Authenticating(authenticating) if is_command => authenticating.held.as_mut(),
            _ => None,
        }
    }

    pub(super) fn authenticate(&mut self, id: Option<RequestId>, token: Token, effects: &mut Vec<Effect>) {
        if let State::Authenticating(authenticating) = &mut self.state {
            authenticating.held.get_or_insert_default();
        }
        effects.push(Effect::Authenticate { id, token });
    }

    /// Closes if what is known of the client is over; asks the backend if it soon will be.
    pub(super) fn has_expired(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let (State::Open(_), Some(identity)) = (&self.state, &mut self.identity) else { return false };
        if identity.ends.is_some_and(|ends| ends <= now.moment) {
            let (reason, after) = match identity.grant.is_renewable {
                // It was not refused, there was just nobody to renew it.
                true => (CloseReason::TryAgainLater, self.id.spread(RETURN_WINDOW_MILLIS)),
                false => (CloseReason::Expired, 0),
            };
            self.close(now, reason, Duration::from_millis(after), effects);
            return true;
        }
        if identity.renews.is_some_and(|at| at <= now.moment) {
            identity.renews = None;
            effects.push(Effect::Reaffirm);
        }
        false
    }

    /// The backend's answer to [`Effect::Reaffirm`].
    pub(super) fn reaffirmed(
        &mut self,
        now: Now,
        outcome: Result<Arc<Grant>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let (State::Open(_), Some(identity)) = (&self.state, &mut self.identity) else { return };
        match outcome {
            Ok(grant) if grant.user == identity.grant.user => self.replace(now, None, grant, effects),
            Ok(_) => self.close(now, CloseReason::Unauthorized, Duration::ZERO, effects),
            Err(failure) if matches!(failure.code, ErrorCode::Unavailable | ErrorCode::RateLimited) => {
                identity.renew_later(now);
            }
            Err(failure) => self.turn_away(now, None, failure, effects),
        }
    }

    /// Goes on by what is known of the same client from now on.
    fn replace(&mut self, now: Now, id: Option<RequestId>, grant: Arc<Grant>, effects: &mut Vec<Effect>) {
        let event = self.refreshed(now, grant.expires);
        self.identity = Some(Identity::new(grant, self.id, now, self.manners.token_grace));
        effects.push(Effect::Send(Reply { id, event }));
        self.withdraw(effects);
        let _ = self.enrol(&[], effects);
    }

    fn refreshed(&self, now: Now, expires: Option<u64>) -> Event {
        let lasts = expires.map(|expires| lasting(expires, now));
        Event::Refreshed { session: self.id, expires, lasts }
    }

    /// Goes on for as long as a backend says. What the client may do and which channels it hears stay what they are. Who has
    /// shown nothing has nothing that could end.
    pub(super) fn amended(&mut self, now: Now, amendment: &Amendment, effects: &mut Vec<Effect>) {
        let Some(known) = &self.identity else { return };
        let grant = known.grant.amended(amendment);
        let is_over = grant.ends.is_some_and(|ends| ends <= now.unix);
        let event = self.refreshed(now, grant.expires);
        self.identity = Some(Identity::new(Arc::new(grant), self.id, now, self.manners.token_grace));
        if is_over {
            return self.close(now, CloseReason::Expired, Duration::ZERO, effects);
        }
        // Who has not been greeted yet hears of it then.
        if let State::Open(_) = self.state {
            effects.push(Effect::Send(Reply::unasked(event)));
        }
    }

    /// Tells a client why it may not be here, and closes.
    fn turn_away(&mut self, now: Now, id: Option<RequestId>, failure: Failure, effects: &mut Vec<Effect>) {
        let reason = match failure.code {
            ErrorCode::Unavailable => CloseReason::TryAgainLater,
            ErrorCode::LimitReached => CloseReason::LimitReached,
            ErrorCode::Forbidden => CloseReason::Forbidden,
            ErrorCode::RateLimited => CloseReason::RateLimited,
            ErrorCode::Expired => CloseReason::Expired,
            _ => CloseReason::Unauthorized,
        };
        let after = failure.retry_after.unwrap_or(Duration::ZERO);
        if self.manners.refusal == Refusal::Told || reason == CloseReason::Expired {
            refuse(id, None, failure, effects);
        }
        self.close(now, reason, after, effects);
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
                let Authenticating { open, held, .. } = *authenticating;
                self.state = State::Open(open);
                self.introduce(now, id, grant, effects);
                held.into_iter().flatten().for_each(|input| self.handle(now, input, effects));
            }
            (State::Authenticating(_) | State::Prelude(_), Err(failure)) => {
                self.turn_away(now, id, failure, effects);
            }
            (State::Prelude(_), Ok(grant)) => {
                self.identity = Some(Identity::new(grant, self.id, now, self.manners.token_grace));
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
            self.identity = Some(Identity::new(grant.clone(), self.id, now, self.manners.token_grace));
            effects.push(Effect::Send(Reply { id, event: Event::Recognised }));
            return self.look_out(&grant.acquaintances, effects);
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
        self.replace(now, id, grant, effects);
    }

    /// Has the client told of the users whom it knows, as far as it is known of them whether they are there.
    fn look_out(&self, acquaintances: &[Acquaintance], effects: &mut Vec<Effect>) {
        let is_known =
            |it: &&Acquaintance| self.policy.rules.rule(&it.channel).is_ok_and(|rule| rule.presence);
        let mut known: Vec<_> = acquaintances.iter().filter(is_known).cloned().collect();
        if known.len() > ACQUAINTANCES_MAX {
            known.truncate(ACQUAINTANCES_MAX);
            let with = known.iter().map(|it| it.user.clone()).collect();
            effects.push(Effect::Send(Reply::unasked(Event::Acquainted { with })));
        }
        effects.push(Effect::LookOut { acquaintances: known });
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
        self.identity = Some(Identity::new(grant, self.id, now, self.manners.token_grace));
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
            let hearing = Hearing { start, ..Hearing::default() };
            let Ok(terms) = self.may_subscribe(channel, hearing) else { continue };
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
