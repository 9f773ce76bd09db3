//! One conversation: what each input means, decided without I/O, clock or randomness.
//!
//! ```text
//!              Input                        Effect
//!  socket  ──► Request, Rejected ──►┌─────────┐──► Send, Ping, Close ──► socket
//!  sweep   ──► Tick             ──►│         │
//!  hub     ──► Joined, Placed   ──►│ Session │──► Join, GoLive, Leave, Publish ──► hub
//!  backend ──► Called           ──►└─────────┘──► Introduce, Reaffirm, Call ──► backend
//!  node    ──► Drain, Overflowed, PolicyChanged, Enlisted, Expelled, Amended
//! ```
//!
//! The shell that owns a session feeds it inputs and performs its effects one after the other. Effects that ask the hub
//! something ([`Effect::Join`], [`Effect::Publish`]) come back as an input with the answer, and what follows from the
//! answer is performed before effects that were decided after the question: so replies keep the order of the commands.
//! Commands may be decided ahead of answers to earlier ones; a session therefore counts the joins that are unanswered.
//! Only while it is being found out who says them, they are held until that is known.
//! Publications are *not* an input: they go from the hub to the outbox without waking the session.
//!
//! **Invariants.**
//! - After [`Effect::Close`] or [`Effect::EchoClose`] the session decides to send nothing more. Where a refused token is what
//!   closes, effects that were decided while it was verified are performed after the Close, and what they send is dropped.
//! - When every effect has been performed and answered, [`Session::channels`] are those joined at the hub. Before that
//!   they may be more, never fewer but for a [`Effect::Leave`] that is still to be performed: whoever tears a connection
//!   down leaves exactly those, and leaving what was not joined does no harm.
//! - [`Session::deadline`] never lies in the past after a [`Input::Tick`] at that time: ticking always makes progress.
//!
//! Deliberately absent: whether a token is good, which takes keys, and what a backend thinks, which takes a network. It is
//! asked by [`Effect::Authenticate`], and where an effect says that consent is [needed](crate::rules::Consent::Needed).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Command, Hearing, Rejection, Request, Start, Wording};
use crate::error::{ErrorCode, Failure};
use crate::event::{Entry, Event, Reply};
use crate::grant::{Pass, Visitor};
use crate::history::Excerpt;
use crate::id::{RequestId, SessionId, Ticket};
use crate::limits::{Bound, Heartbeat, Limits};
use crate::manners::{Manners, Opening, SignOfLife};
use crate::publication::Draft;
use crate::realm::Realm;
use crate::rules::Rules;
use crate::time::{Moment, Now};

mod calls;
mod effect;
mod identity;
mod input;
mod keepalive;
mod prelude;
mod rate;
mod subscription;

use identity::{Authenticating, Identity};
use keepalive::{Due, Keepalive};
use prelude::Prelude;
use rate::Publishing;

pub use effect::{Effect, Terms, Told};
pub use input::Input;
pub use rate::{Bucket, Rate, Verdict};

/// What a node has decided for all of its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The node's name, told in `welcome`.
    pub node: Box<str>,
    /// The bounds.
    pub limits: Limits,
    /// When to ask for a sign of life.
    pub heartbeat: Heartbeat,
    /// What the namespaces allow.
    pub rules: Rules,
    /// Whether there is a backend that clients may call.
    pub takes_calls: bool,
    /// The application whose clients these are, where they know of no other.
    pub realm: Option<Realm>,
}

/// How far a conversation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Commands are served, if only the one that presents a token.
    Open,
    /// Our Close is out; the peer's is awaited until the deadline.
    Closing,
    /// Both sides have closed: once our last bytes have left, hang up.
    Finishing,
    /// Nothing more to say or hear: hang up now.
    Over,
}

/// One conversation. See the [module's essay](self).
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    policy: Arc<Policy>,
    manners: &'static Manners,
    state: State,
    /// Who the client is, once it has shown that.
    identity: Option<Box<Identity>>,
    subscriptions: HashMap<Channel, Subscription>,
    /// How many of these are to be heard.
    wanted: usize,
    /// When the first of the proofs ends by which it is on channels.
    passes_end: Option<Moment>,
    /// Whether it has ever shown one.
    has_shown_passes: bool,
    /// What it has published of late.
    publishing: Publishing,
    /// The code that this conversation ends or ended with, for logs and counters; 1006 while nobody closed it.
    outcome: u16,
}

#[derive(Debug)]
enum State {
    /// A token is waited for. It does not last: what it needs is not kept in every session.
    Authenticating(Box<Authenticating>),
    /// The client has not opened the conversation yet, or has not been greeted.
    Prelude(Box<Prelude>),
    Open(Open),
    Closing {
        deadline: Moment,
    },
    Finishing {
        deadline: Moment,
    },
    Over,
}

/// What is only known while commands are served.
#[derive(Debug)]
struct Open {
    keepalive: Keepalive,
    rate: Rate,
    bad_requests: u32,
}

/// How a connection stands to a channel: wanted, or with joins unanswered, or both.
#[derive(Debug, Default)]
struct Subscription {
    /// Going by the commands so far, the client is to hear it.
    is_wanted: bool,
    notices: Notices,
    /// What was asked for it and not answered yet, a judgement or a join: several when the client left and came back meanwhile.
    unanswered: u32,
    /// What let the client in, where the channel is not open to it anyway.
    pass: Option<Box<Held>>,
    /// What it is answered once it is known who is there.
    arriving: Option<Box<Arriving>>,
}

/// A pass that the client has shown.
#[derive(Debug)]
struct Held {
    pass: Pass,
    /// When it is good no longer, by the clock that does not jump.
    ends: Option<Moment>,
}

/// A subscription whose answer waits for the crowd.
#[derive(Debug)]
struct Arriving {
    id: Option<RequestId>,
    entry: Option<Entry>,
    start: Start,
    wording: Wording,
    lasts: Option<Duration>,
}

/// A channel, the point of its stream from which it is to be heard, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entering {
    channel: Channel,
    start: Start,
    wording: Wording,
}

/// Whether a subscriber is to be told who joins and leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Notices {
    #[default]
    Unwanted,
    Wanted,
}

/// The code for a connection that ended without a Close frame (RFC 6455 section 7.4.1; never sent).
pub const ABNORMAL: u16 = 1006;

impl Session {
    /// Opens a conversation. Where the server speaks first, whoever has not to present a token is greeted.
    pub fn open(
        id: SessionId,
        policy: Arc<Policy>,
        manners: &'static Manners,
        visitor: Visitor,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let presumed = if let Visitor::Presumed(presumed) = &visitor { Some(presumed.clone()) } else { None };
        let mut session = Self::begin(id, policy, visitor, now);
        session.manners = manners;
        if manners.opening == Opening::Client {
            session.await_opening(now, presumed);
            return session;
        }
        match presumed {
            Some(presumed) => effects.push(Effect::Introduce { id: None, presumed }),
            None if matches!(session.state, State::Open(_)) => session.greet(now, None, effects),
            None => {}
        }
        session
    }

    /// The same for a client that names its channels when it comes, and says nothing later on: what its token lists is
    /// allowed to it, but not subscribed to, since nobody could recover it. What it has to say later it says by the ticket.
    pub fn open_one_way(
        id: SessionId,
        policy: Arc<Policy>,
        visitor: Visitor,
        ticket: Option<Ticket>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let session = Self::begin(id, policy, visitor, now);
        if let State::Open(_) = session.state {
            session.welcome(now, None, ticket, Vec::new(), Vec::new(), effects);
        }
        session
    }

    /// A conversation of one command, which greets nobody: what is said in it is judged as what a client says that hears
    /// `heard`. Nothing has been joined for it, so there is nothing to tear down.
    pub fn for_one_command(
        id: SessionId,
        policy: Arc<Policy>,
        visitor: Visitor,
        heard: Option<Channel>,
        now: Now,
    ) -> Self {
        let mut session = Self::begin(id, policy, visitor, now);
        session.wanted = usize::from(heard.is_some());
        let hears = || Subscription { is_wanted: true, ..Subscription::default() };
        session.subscriptions.extend(heard.map(|channel| (channel, hears())));
        session
    }

    fn begin(id: SessionId, policy: Arc<Policy>, visitor: Visitor, now: Now) -> Self {
        let open = Open {
            keepalive: Keepalive::new(policy.heartbeat, id, now.moment),
            rate: Rate::new(now.moment),
            bad_requests: 0,
        };
        let deadline = now.moment + policy.limits.auth_timeout;
        let (state, identity) = match visitor {
            Visitor::Anonymous => (State::Open(open), None),
            Visitor::Known(grant) => (State::Open(open), Some(Identity::new(grant, id, now, Duration::ZERO))),
            Visitor::Presumed(_) => (Authenticating::state(open, deadline, Some(Vec::new())), None),
            Visitor::Unknown => (Authenticating::state(open, deadline, None), None),
        };
        let subscriptions = HashMap::new();
        Self {
            id,
            policy,
            manners: &Manners::PLAIN,
            state,
            identity,
            subscriptions,
            wanted: 0,
            passes_end: None,
            has_shown_passes: false,
            publishing: Publishing::default(),
            outcome: ABNORMAL,
        }
    }

    /// Takes one input and appends what is to be done, in order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        if let Some(held) = self.held_with(&input) {
            return held.push(input);
        }
        match input {
            Input::Heard if self.manners.life == SignOfLife::Anything => self.heard(),
            Input::Heard => {}
            Input::Probed => self.probed(now, effects),
            Input::Request(request) => self.request(now, request, effects),
            Input::Opening(request) if self.stage() == Stage::Open => self.command(now, request, effects),
            Input::Opening(_) => {}
            Input::Rejected(rejection) => self.rejected(now, rejection, effects),
            Input::Authenticated { id, outcome } => self.authenticated(now, id, outcome, effects),
            Input::Joined { id, channel, start, wording, outcome } => {
                self.joined(now, id, Entering { channel, start, wording }, outcome, effects);
            }
            Input::Admitted { id, channel, hearing, outcome } => {
                self.admitted(now, id, channel, hearing, outcome, effects);
            }
            Input::Placed { id, channel, outcome } => self.placed(id, channel, outcome, effects),
            Input::Read { id, channel, excerpt, outcome } => {
                self.read(id, channel, excerpt, outcome, effects)
            }
            Input::Counted { id, channel, outcome } => self.counted(id, channel, outcome, effects),
            Input::Called { id, outcome } => self.called(id, outcome, effects),
            Input::Reaffirmed { outcome } => self.reaffirmed(now, outcome, effects),
            Input::Surveyed { channel, outcome } => self.surveyed(channel, outcome, effects),
            Input::Lost { channel } => self.lost(now, channel, effects),
            Input::Tick => self.tick(now, effects),
            Input::Overflowed => self.close(now, CloseReason::SlowConsumer, Duration::ZERO, effects),
            Input::Dismissed(reason) => self.close(now, reason, Duration::ZERO, effects),
            Input::Enlisted { channel, start, pass } => {
                let wording = Wording::Whole; // Of a backend's making the client has agreed to nothing.
                self.enlisted(now, Entering { channel, start, wording }, &pass, effects);
            }
            Input::Expelled { channel } => self.expelled(&channel, effects),
            Input::Amended(amendment) => self.amended(now, &amendment, effects),
            Input::Drain(after) => self.close(now, CloseReason::GoingAway, after, effects),
            Input::PolicyChanged(policy) => self.policy_changed(policy, effects),
            Input::Violated(reason) => self.fail(now, reason, effects),
            Input::PeerClosed(code) => self.peer_closed(now, code, effects),
            Input::Gone => self.state = State::Over,
        }
    }

    /// When [`Input::Tick`] is due next; `None` when nothing is waited for.
    pub fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Authenticating(it) => Some(it.deadline),
            State::Prelude(it) => Some(it.deadline),
            State::Open(open) => {
                let keepalive = open.keepalive.deadline(self.policy.heartbeat);
                let due = self.identity.as_ref().and_then(|identity| identity.due());
                [Some(keepalive), due, self.passes_end].into_iter().flatten().min()
            }
            State::Closing { deadline } | State::Finishing { deadline } => Some(*deadline),
            State::Over => None,
        }
    }

    /// How far the conversation has come.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Authenticating(_) | State::Prelude(_) | State::Open(_) => Stage::Open,
            State::Closing { .. } => Stage::Closing,
            State::Finishing { .. } => Stage::Finishing,
            State::Over => Stage::Over,
        }
    }

    /// The channels to be left at the hub when the connection ends, in no order.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.subscriptions.keys()
    }

    /// The conversation's name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The application whose client this is, where it knows of no other.
    pub fn realm(&self) -> Option<&Realm> {
        self.policy.realm.as_ref()
    }

    /// The bounds it enforces.
    pub fn limits(&self) -> &Limits {
        &self.policy.limits
    }

    /// The close code it ended with: ours, the peer's, or [`ABNORMAL`].
    pub fn outcome(&self) -> u16 {
        self.outcome
    }

    fn heard(&mut self) {
        if let Some(open) = self.state.open() {
            open.keepalive.heard(self.policy.heartbeat);
        }
    }

    fn probed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(open) = self.state.open() else { return };
        if open.rate.take(&self.policy.limits, now.moment) == Verdict::GraceIsOver {
            effects.push(Effect::Exceeded(Bound::Commands));
            if !self.policy.limits.trial.covers(Bound::Commands) {
                self.close(now, CloseReason::RateLimited, Duration::ZERO, effects);
            }
        }
    }

    fn request(&mut self, now: Now, request: Request, effects: &mut Vec<Effect>) {
        if self.within_rate(now, request.id.as_ref(), request.command.channel(), effects) {
            self.command(now, request, effects);
        }
    }

    fn command(&mut self, now: Now, request: Request, effects: &mut Vec<Effect>) {
        if let State::Prelude(_) = self.state {
            return self.during_prelude(now, request, effects);
        }
        let Request { id, command } = self.within_realm(request);
        if let (State::Authenticating(_), false) =
            (&self.state, matches!(command, Command::Authenticate { .. }))
        {
            let failure = Failure::new(
                ErrorCode::Unauthorized,
                "present a token first: send auth, and wait for welcome",
            );
            return refuse(id, command.channel().cloned(), failure, effects);
        }
        match command {
            Command::Authenticate { token } => self.authenticate(id, token, effects),
            // A conversation is opened once, and only where that is the client's to do.
            Command::Open(_) => self.close(now, CloseReason::BadRequest, Duration::ZERO, effects),
            Command::Subscribe { channel, start, presence, wording, filter, proof } => {
                let notices = if presence { Notices::Wanted } else { Notices::Unwanted };
                let hearing = Hearing { start, wording, filter };
                self.subscribe(id, channel, hearing, notices, proof, effects);
            }
            Command::Renew { channel, proof } => self.renew_pass(id, channel, proof, effects),
            Command::Unsubscribe { channel } => self.unsubscribe(id, channel, effects),
            Command::Publish { channel, payload, echo, key } => {
                let exclude = (!echo).then_some(self.id);
                let sender = self.sender(&channel);
                let retention = None;
                let draft = Draft {
                    channel,
                    payload,
                    sender,
                    exclude,
                    received: now.unix,
                    retention,
                    key,
                    trace: None,
                };
                self.publish(now, id, draft, effects);
            }
            Command::History { channel, since, limit, reverse } => match self.may_read(&channel) {
                Ok(()) => {
                    effects.push(Effect::Read { id, channel, excerpt: Excerpt { since, limit, reverse } })
                }
                Err(failure) => refuse(id, Some(channel), failure, effects),
            },
            Command::Presence { channel, members } => match self.may_count(&channel) {
                Ok(()) => effects.push(Effect::Count { id, channel, members }),
                Err(failure) => refuse(id, Some(channel), failure, effects),
            },
            Command::Call { method, payload } => self.call(id, method, payload, effects),
            Command::Tell { payload } => self.tell(now, id, payload, effects),
            Command::Pong => self.ponged(now, effects),
            Command::Ping => effects.push(Effect::Send(Reply { id, event: Event::Pong { time: now.unix } })),
        }
    }

    /// What a client of a realm names lies in its namespace.
    fn within_realm(&self, mut request: Request) -> Request {
        if let Some(realm) = &self.policy.realm
            && let Some(channel) = request.command.channel_mut()
            && let Some(placed) = realm.channel(channel.as_str())
        {
            *channel = placed;
        }
        request
    }

    /// An answer to a ping that was a message.
    fn ponged(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let State::Open(open) = &mut self.state else { return };
        if !open.keepalive.heard(self.policy.heartbeat) && self.manners.life == SignOfLife::Answer {
            self.close(now, CloseReason::BadRequest, Duration::ZERO, effects);
        }
    }

    /// A mistake costs as much as a command: it is read and answered like one.
    fn rejected(&mut self, now: Now, rejection: Rejection, effects: &mut Vec<Effect>) {
        if self.is_awaited() {
            return self.close(now, CloseReason::BadRequest, Duration::ZERO, effects);
        }
        let Rejection { id, channel, failure, over } = rejection;
        if !self.within_rate(now, id.as_ref(), channel.as_ref(), effects) {
            return;
        }
        let Some(open) = self.state.open() else { return };
        let is_bad = failure.code == ErrorCode::BadRequest;
        open.bad_requests += u32::from(is_bad);
        let too_many = open.bad_requests > self.policy.limits.errors;
        effects.extend(over.map(Effect::Exceeded));
        refuse(id, channel, failure, effects);
        if too_many {
            self.close(now, CloseReason::BadRequest, Duration::ZERO, effects);
        }
    }

    /// Counts a command against the rate. One that is over it is refused here, or ends the conversation.
    fn within_rate(
        &mut self,
        now: Now,
        id: Option<&RequestId>,
        channel: Option<&Channel>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(open) = self.state.open() else { return false };
        let verdict = open.rate.take(&self.policy.limits, now.moment);
        if verdict == Verdict::Allowed {
            return true;
        }
        effects.push(Effect::Exceeded(Bound::Commands));
        if self.policy.limits.trial.covers(Bound::Commands) {
            return true;
        }
        match verdict {
            Verdict::Allowed => unreachable!("it was just looked at"),
            Verdict::Refused { retry_after } => {
                let text = format!("at most {} commands a second", self.policy.limits.messages_per_second);
                let failure = Failure::retry(ErrorCode::RateLimited, text, retry_after);
                refuse(id.cloned(), channel.cloned(), failure, effects);
            }
            Verdict::GraceIsOver => self.close(now, CloseReason::RateLimited, Duration::ZERO, effects),
        }
        false
    }

    /// Refuses what the hub could not do, unless nobody listens any more.
    fn tell_refusal(
        &self,
        id: Option<RequestId>,
        channel: Channel,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) {
        if let State::Open(_) = self.state {
            refuse(id, Some(channel), failure, effects);
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.has_expired(now, effects) {
            return;
        }
        self.end_passes(now, effects);
        match &mut self.state {
            State::Authenticating(it) if it.deadline <= now.moment => {
                let reason = it.lateness();
                self.close(now, reason, Duration::ZERO, effects);
            }
            State::Prelude(it) if it.deadline <= now.moment => {
                self.close(now, CloseReason::Late, Duration::ZERO, effects);
            }
            State::Authenticating(_) | State::Prelude(_) => {}
            State::Open(open) => match open.keepalive.tick(self.policy.heartbeat, now.moment) {
                Due::Nothing => {}
                Due::Ping => effects.push(Effect::Ping),
                Due::Close => self.close(now, CloseReason::HeartbeatTimeout, Duration::ZERO, effects),
            },
            State::Closing { deadline } | State::Finishing { deadline } if *deadline <= now.moment => {
                self.state = State::Over;
            }
            State::Closing { .. } | State::Finishing { .. } | State::Over => {}
        }
    }

    fn peer_closed(&mut self, now: Now, code: Option<u16>, effects: &mut Vec<Effect>) {
        let deadline = now.moment + self.policy.limits.close_timeout;
        match self.state {
            State::Authenticating(_) | State::Prelude(_) | State::Open(_) => {
                // RFC 6455 section 5.5.1: answer with a Close; and section 7.1.5: no code is 1005, to us a normal end.
                self.outcome = code.unwrap_or(CloseReason::Normal.number());
                effects.push(Effect::EchoClose(code));
                self.state = State::Finishing { deadline };
            }
            State::Closing { .. } => self.state = State::Finishing { deadline },
            State::Finishing { .. } | State::Over => {}
        }
    }

    fn close(&mut self, now: Now, reason: CloseReason, after: Duration, effects: &mut Vec<Effect>) {
        if self.state.open().is_none() {
            return;
        }
        self.outcome = reason.number();
        effects.push(Effect::Close { reason, farewell: Reply::unasked(Event::Closing { reason, after }) });
        self.state = State::Closing { deadline: now.moment + self.policy.limits.close_timeout };
    }

    /// Closes without waiting for an answer: what the peer sends cannot be understood (RFC 6455 section 7.1.7).
    fn fail(&mut self, now: Now, reason: CloseReason, effects: &mut Vec<Effect>) {
        self.close(now, reason, Duration::ZERO, effects);
        if let State::Closing { deadline } = self.state {
            self.state = State::Finishing { deadline };
        }
    }
}

impl State {
    /// What is known while commands are read.
    fn open(&mut self) -> Option<&mut Open> {
        match self {
            Self::Authenticating(it) => Some(&mut it.open),
            Self::Prelude(it) => Some(&mut it.open),
            Self::Open(open) => Some(open),
            Self::Closing { .. } | Self::Finishing { .. } | Self::Over => None,
        }
    }
}

fn refuse(id: Option<RequestId>, channel: Option<Channel>, failure: Failure, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send(Reply { id, event: Event::Refused { failure, channel } }));
}

#[cfg(test)]
mod tests;
