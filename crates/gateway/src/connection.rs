//! The life of one connection, from the upgrade to the last byte.
//!
//! ```text
//!   socket ──► decode ──► Session ──► effects ──► hub          one task, one loop:
//!   outbox ◄── encode ◄──────┘           │                     wait for something to happen (a turn),
//!     └──────► socket  ◄── hub ◄─────────┘                     then perform what the session makes of it
//! ```
//!
//! The task owns the socket and the session; others reach it through its [`Outbox`] alone. In a turn it takes, rarest
//! first, the orders from other tasks, then writes what waits, then reads: a flood of frames starves neither the clock nor
//! the shutdown. While it waits for the broker it goes on writing, and does not read: a client that publishes faster than
//! the broker places is slowed down by TCP.
//!
//! **Invariants.**
//! - Whatever way the task ends, a panic and a dropped runtime included, `Drop` leaves every channel, frees the place
//!   and counts the close. After a panic the session's list of channels is not relied on: it lacks what was about to be left.
//! - While the peer is silent and nothing is published the task sleeps, and owns no heap memory beyond its outbox and
//!   its session's subscriptions.

use std::future::poll_fn;
use std::mem;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use fanfare_fanout::{Order, Outbox, taken};
use fanfare_metrics::{Carrier, Enforcement, Limit, Metrics, Recovery};
use fanfare_protocol::command::{Decoded, Rejection};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::grant::{Grant, Visitor};
use fanfare_protocol::happening::Happening;
use fanfare_protocol::limits::Bound;
use fanfare_protocol::session::{Effect, Input, Session, Stage};
use fanfare_protocol::time::{Moment, Now};
use fanfare_protocol::websocket::{Event, Frame, Violation};
use fanfare_protocol::{CloseReason, Form, SessionId, Ticket, UserId};
use futures_util::FutureExt;
use tracing::debug;

use crate::admission::Place;
use crate::auth::Standing;
use crate::clock::Clock;
use crate::hooks::{Caller, Renewal};
use crate::node::Services;
use crate::trace;
use crate::transport::websocket::{Agreed, Read, WebSocket};
use crate::transport::{ByteStream, Transport};

mod asking;
mod effects;
mod facts;
mod polled;
mod roster;
mod speakers;
mod streaming;
mod talking;
mod wheel;

pub(crate) use asking::agreed;
pub(crate) use effects::{count, failure as broker_failure};
pub(crate) use facts::exceeded;
pub(crate) use roster::{Entry, Line, Origin, Roster, measure};
pub(crate) use speakers::{Speaker, Speakers};
pub(crate) use streaming::{Listening, Streaming};
pub(crate) use talking::{Talking, Talks};
pub(crate) use wheel::Wheel;

/// The effects that are decided ahead of an answer before the client is read no more.
const AHEAD_MAX: usize = 256;

/// For whom a connection is opened.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Who it is, as far as the request has shown that.
    pub(crate) visitor: Visitor,
    /// What it takes up.
    pub(crate) place: Place,
    /// What it will be called.
    pub(crate) session: SessionId,
    /// Its address, as far as trusted proxies say.
    pub(crate) address: IpAddr,
    /// What the backend is told of it, where one is asked.
    pub(crate) caller: Option<Arc<Caller>>,
    /// Whose client it is.
    pub(crate) membership: Membership,
}

/// Whose client somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The node's.
    Common,
    /// The node's too, with the rights of a caller of the server API: an operator at the console.
    Operating(Arc<Grant>),
    /// That of the application with this namespace, and nobody else's.
    Of(Box<str>),
    /// Nobody's: it is told why, in its own dialect, and nothing else.
    Refused(CloseReason),
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Connection<T> {
    transport: T,
    session: Session,
    outbox: Arc<Outbox>,
    /// What the session has decided and nobody has performed yet.
    effects: Vec<Effect>,
    /// The tick that the wheel owes us.
    tick_due: Option<Moment>,
    services: Arc<Services>,
    place: Place,
    /// What the backend is told of the client.
    caller: Option<Arc<Caller>>,
    /// What the backend says of it next, while it is being asked.
    renewal: Option<Renewal>,
    told: Told,
}

/// Whether a backend has been told that the conversation has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It will not be: the conversation is a request and its answer.
    Never,
    NotYet,
    Opened,
}

impl<T: Transport> Connection<T> {
    /// Opens a conversation over a transport that carries messages of at most so many bytes, and greets the client.
    fn begin(
        transport: impl FnOnce(usize) -> T,
        carrier: Carrier,
        form: impl Into<Form>,
        guest: Guest,
        ticket: Option<Ticket>,
        services: Arc<Services>,
    ) -> Self {
        let Guest { visitor, place, session: id, address, caller, membership } = guest;
        let (form, mut effects) = (form.into(), Vec::new());
        let policy = match &membership {
            Membership::Of(namespace) => services.settings().policy_of(Some(namespace)),
            Membership::Common | Membership::Operating(_) | Membership::Refused(_) => None,
        };
        let policy = policy.unwrap_or_else(|| services.settings().policy.clone());
        let limits = &policy.limits;
        let (message_bytes, queue_bytes) = (limits.message_bytes, limits.queue_bytes);
        let now = services.clock.now();
        let session = if T::IS_READ {
            let manners = form.encoding().dialect().manners();
            let mut session = Session::open(id, policy, manners, visitor, now, &mut effects);
            ticket.into_iter().for_each(|ticket| session.speaks_by(ticket));
            session
        } else {
            Session::open_one_way(id, policy, visitor, ticket, now, &mut effects)
        };
        let outbox = Outbox::new(session.id(), form, queue_bytes);
        services.roster.enter(&outbox, Some(Origin { address, carrier, since: now.unix }));
        services.metrics.connection_opened(carrier);
        debug!(session = %session.id(), %address, ?carrier, "connection opened");
        let mut connection = Self {
            transport: transport(message_bytes),
            session,
            outbox,
            effects,
            tick_due: None,
            services,
            place,
            caller,
            renewal: None,
            told: if matches!(carrier, Carrier::Poll) { Told::Never } else { Told::NotYet },
        };
        connection.become_known(None);
        // Whoever swapped the settings after our look at them, and before the roster had us, did not find us there.
        connection.take_policy();
        if let Membership::Refused(reason) = membership {
            connection.take(Input::Dismissed(reason));
        }
        connection
    }

    fn take(&mut self, input: Input) {
        self.session.handle(self.services.clock.now(), input, &mut self.effects);
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Tick => {
                self.tick_due = None;
                self.outbox.rest();
                self.take(Input::Tick);
            }
            Order::Overflowed => {
                self.services.metrics.outbox_overflowed();
                self.services.metrics.limit_exceeded(Limit::QueueBytes, Enforcement::Refused);
                self.take(Input::Overflowed);
            }
            Order::Lost { channel } => {
                self.services.metrics.recovery(Recovery::Gap);
                self.take(Input::Lost { channel });
            }
            Order::Dismiss { reason } => self.take(Input::Dismissed(reason)),
            Order::Enlist { channel, start, pass } => self.take(Input::Enlisted { channel, start, pass }),
            Order::Expel { channel } => self.take(Input::Expelled { channel }),
            Order::Amend { amendment } => {
                let before = self.session.shared_grant().cloned();
                self.take(Input::Amended(amendment));
                self.become_known(before.as_ref());
            }
            Order::Drain { after } => self.take(Input::Drain(after)),
            Order::Reloaded => self.take_policy(),
        }
        // An order may only have moved the deadline, in which case no effect ends the turn.
        self.schedule_tick();
    }

    /// Has itself found by who its client is now, where it was found by `before`.
    fn become_known(&mut self, before: Option<&Arc<Grant>>) {
        let Services { roster, revoked, clock, .. } = &*self.services;
        let grant = self.session.shared_grant();
        if before.map(Arc::as_ptr) == grant.map(Arc::as_ptr) {
            return;
        }
        if let Some(before) = before {
            roster.forget(&self.outbox, before);
        }
        if let Some(grant) = grant {
            let now = clock.unix();
            roster.know(&self.outbox, grant, now);
            if let Some(user) = grant.user.as_ref().filter(|_| self.services.hub.tap().is_on()) {
                self.services.tracer.know(self.outbox.id(), user);
            }
            // An order that came since the token was judged did not find us there.
            if revoked.standing(grant, now.0 / 1_000_000) == Standing::Revoked {
                self.outbox.order(Order::Dismiss { reason: CloseReason::Unauthorized });
            }
        }
    }

    /// Goes on by the policy that is in force now. The socket and the outbox keep their bounds: the client was told them.
    fn take_policy(&mut self) {
        let namespace = self.session.realm().map(|realm| &*realm.namespace);
        let input = match self.services.settings().policy_of(namespace) {
            Some(policy) => Input::PolicyChanged(policy),
            None => Input::Dismissed(CloseReason::NotFound),
        };
        self.take(input);
    }

    /// Hands the session what the backend says of its client, once it does; whether it has.
    fn take_renewal(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(renewal) = &mut self.renewal else { return false };
        let Poll::Ready(answer) = renewal.poll_unpin(cx) else { return false };
        self.renewal = None;
        // Whoever was to ask has ended without: the session is told nothing, and its word ends when it ends.
        let Ok(outcome) = answer else { return false };
        let before = self.session.shared_grant().cloned();
        self.take(Input::Reaffirmed { outcome });
        self.become_known(before.as_ref());
        self.schedule_tick();
        true
    }

    /// Sees to it that the session's next deadline rings.
    fn schedule_tick(&mut self) {
        let Some(deadline) = self.session.deadline() else { return };
        if self.tick_due.is_none_or(|due| deadline < due) {
            self.services.wheel.schedule(deadline, &self.outbox);
            self.tick_due = Some(deadline);
        }
    }
}

impl<T: Transport> Connection<T> {
    /// Writes until nothing waits or the socket is full.
    fn write_what_waits(&mut self, cx: &mut Context<'_>) {
        let Services { metrics, clock, .. } = &*self.services;
        while let Poll::Ready(outcome) = self.transport.poll_write(cx, &self.outbox) {
            let Ok(written) = outcome else { return self.take(Input::Gone) };
            if written.taken > 0 {
                metrics.outbox_queued(-i64::try_from(written.taken).expect("a batch is bounded"));
            }
            if written.bytes > 0 {
                metrics.written(written.frames, written.bytes as u64);
            }
            if written.saved > 0 {
                metrics.written_saved(written.saved as u64);
            }
            if let Some(received) = written.oldest {
                taken(metrics, 1, received, clock.unix());
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut reader = Reader {
            clock: &self.services.clock,
            now: None,
            session: &mut self.session,
            effects: &mut self.effects,
            outbox: &self.outbox,
            metrics: &self.services.metrics,
            messages: 0,
        };
        let outcome = std::task::ready!(self.transport.poll_read(cx, &mut |event| reader.event(event)));
        match outcome {
            Ok(Read::Bytes { read, saved }) => {
                reader.take(Input::Heard);
                self.services.metrics.read(reader.messages, read as u64);
                if saved > 0 {
                    self.services.metrics.read_saved(saved as u64);
                }
            }
            Ok(Read::End) => self.take(Input::Gone),
            Err(violation) => self.violated(&violation),
        }
        Poll::Ready(())
    }

    fn violated(&mut self, violation: &Violation) {
        debug!(session = ?self.session.id(), %violation, "the peer broke the protocol");
        let reason = CloseReason::from_number(violation.close_code()).unwrap_or(CloseReason::ProtocolError);
        if reason == CloseReason::MessageTooBig {
            self.services.metrics.limit_exceeded(Limit::MessageBytes, Enforcement::Refused);
        }
        self.take(Input::Violated(reason));
    }

    /// Waits for the backend, and lives on meanwhile: orders are taken, pings sent, and what the client says is decided ahead,
    /// to be performed later. `None` when the conversation ends before; then the question is dropped.
    async fn while_asking<A>(&mut self, answer: impl Future<Output = A>) -> Option<A> {
        // What was decided together with the end of the conversation is not asked about any more.
        if self.session.stage() != Stage::Open {
            return None;
        }
        let mut answer = pin!(answer);
        self.schedule_tick();
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            // Who only hears is looked after by whoever polls it, and gone when it is dropped.
            if T::IS_READ {
                self.live_on(cx);
            }
            self.write_what_waits(cx);
            if self.session.stage() == Stage::Open { Poll::Pending } else { Poll::Ready(None) }
        })
        .await
    }

    fn live_on(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            self.take_order(order);
        }
        self.take_renewal(cx);
        let is_ping = |effect: &mut Effect| matches!(effect, Effect::Ping);
        for ping in self.effects.extract_if(.., is_ping).collect::<Vec<_>>() {
            self.perform(ping);
        }
        while self.session.stage() == Stage::Open
            && !self.session.holds()
            && self.effects.len() < AHEAD_MAX
            && self.poll_read(cx).is_ready()
        {}
    }

    /// Waits for something, and goes on writing meanwhile.
    async fn while_writing<A>(&mut self, answer: impl Future<Output = A>) -> A {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            let polled = answer.as_mut().poll(cx);
            if polled.is_pending() {
                self.write_what_waits(cx);
            }
            polled
        })
        .await
    }
}

impl<S: ByteStream> Connection<WebSocket<S>> {
    /// Takes over a socket after its upgrade, with the bytes that came behind the handshake, and greets the client.
    pub(crate) fn open(io: S, early: Bytes, agreed: Agreed, guest: Guest, services: Arc<Services>) -> Self {
        let compression = agreed.compression.as_ref();
        // What refers to what was written before is compressed as it is written, by the task.
        let past_task = if agreed.is_same_for_all() { io.past_task() } else { None };
        let socket = |message_bytes| WebSocket::new(io, early, message_bytes, compression);
        let connection = Self::begin(socket, Carrier::WebSocket, agreed.form(), guest, None, services);
        past_task.into_iter().for_each(|socket| connection.outbox.lend(socket));
        connection
    }

    /// Lives until the connection has ended, for whatever reason.
    ///
    /// The future is what every idle connection costs, so it holds the connection once and nothing else: an `async fn`
    /// would keep a second one for its argument, and what asks the hub is boxed for as long as it asks.
    pub(crate) fn run(self) -> impl Future<Output = ()> {
        let mut connection = self;
        async move {
            loop {
                if let Some(asking) = connection.perform_effects() {
                    asking.await;
                }
                if connection.session.stage() == Stage::Over {
                    break;
                }
                connection.schedule_tick();
                poll_fn(|cx| connection.poll_turn(cx)).await;
            }
        }
    }

    /// Waits until there is something to perform, or the session is over.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            self.take_order(order);
        }
        self.take_renewal(cx);
        self.write_what_waits(cx);
        loop {
            match self.session.stage() {
                Stage::Over => return Poll::Ready(()),
                _ if !self.effects.is_empty() => return Poll::Ready(()),
                Stage::Finishing if self.transport.is_flushed() && self.outbox.is_empty() => {
                    std::task::ready!(self.transport.poll_linger(cx));
                    self.take(Input::Gone);
                }
                Stage::Finishing => return Poll::Pending,
                Stage::Open | Stage::Closing => std::task::ready!(self.poll_read(cx)),
            }
        }
    }
}

impl<T> Connection<T> {
    /// Who it is, where that is known.
    fn user(&self) -> Option<&UserId> {
        self.session.grant().and_then(|grant| grant.user.as_ref())
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        let Services { hub, desk, metrics, roster, events, .. } = &*self.services;
        if hub.tap().is_on() {
            let channels: Vec<_> = self.session.channels().collect();
            let (user, code) = (self.user(), self.session.outcome());
            trace::disconnected(&self.services, &self.outbox, user, &channels, code);
        }
        for channel in self.session.channels() {
            hub.unsubscribe(channel, &self.outbox);
            desk.leave(channel, self.session.id());
        }
        if std::thread::panicking() {
            // Between a decision to leave and its performance the session no longer lists the channel.
            let left_over = hub.unsubscribe_all(&self.outbox);
            left_over.iter().for_each(|channel| desk.leave(channel, self.session.id()));
        }
        let discarded = self.outbox.discard();
        metrics.outbox_queued(-i64::try_from(discarded).expect("a queue is bounded"));
        if let Some(grant) = self.session.grant() {
            roster.forget(&self.outbox, grant);
            if !grant.acquaintances.is_empty() {
                desk.look_away(self.session.id());
            }
        }
        roster.leave(&self.outbox);
        let outcome = self.session.outcome();
        let user = self.user().map(UserId::as_str);
        debug!(session = %self.session.id(), user, code = outcome, "connection ended");
        if outcome == CloseReason::HeartbeatTimeout.number() {
            metrics.heartbeat_timed_out();
        }
        if self.told == Told::Opened {
            let user = || self.session.grant().and_then(|grant| grant.user.clone());
            let session = self.session.id();
            events.of_connection(|| Happening::Disconnected { session, user: user(), code: outcome });
        }
        metrics.connection_closed(outcome);
    }
}

/// What reading needs of a connection while its socket is borrowed.
struct Reader<'a> {
    clock: &'a Clock,
    /// When the read was made, once that is asked for: most wake-ups are for writing, and bring nothing to read.
    now: Option<Now>,
    session: &'a mut Session,
    effects: &'a mut Vec<Effect>,
    outbox: &'a Outbox,
    metrics: &'a Metrics,
    messages: u64,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) => self.incoming(Incoming::Text(text)),
            Event::Binary(bytes) => self.incoming(Incoming::Binary(bytes)),
            Event::Ping(payload) => {
                effects::queue(self.outbox, self.metrics, Frame::pong(payload));
                self.take(Input::Probed);
            }
            // A sign of life like any other byte.
            Event::Pong(_) => self.take(Input::Probed),
            Event::Close(close) => self.take(Input::PeerClosed(close.map(|(code, _)| code))),
        }
    }

    fn incoming(&mut self, incoming: Incoming<'_>) {
        self.messages += 1;
        if self.session.stage() != Stage::Open {
            return;
        }
        let limits = self.session.limits();
        let (depth, batch, trial) = (limits.depth, limits.batch, limits.trial);
        let dialect = self.outbox.encoding().dialect();
        if dialect.exceeds(incoming, depth) {
            if !trial.covers(Bound::Depth) {
                return self.command(Err(Rejection::too_deep(depth)));
            }
            self.effects.push(Effect::Exceeded(Bound::Depth));
        }
        let batch_max = if trial.covers(Bound::Batch) { usize::MAX } else { batch };
        let mut commands = 0;
        let outcome = dialect.decode(incoming, batch_max, &mut |command| {
            commands += 1;
            self.command(command);
        });
        if commands > batch {
            self.effects.push(Effect::Exceeded(Bound::Batch));
        }
        if let Err(reason) = outcome {
            self.take(Input::Violated(reason));
        }
    }

    fn command(&mut self, command: Decoded) {
        self.metrics.command_received(facts::kind(&command));
        self.take(match command {
            Ok(request) => Input::Request(request),
            Err(rejection) => Input::Rejected(rejection),
        });
    }

    fn take(&mut self, input: Input) {
        let now = *self.now.get_or_insert_with(|| self.clock.now());
        self.session.handle(now, input, self.effects);
    }
}

/// A name for a conversation, from a source that nobody can guess.
pub(crate) fn new_session_id() -> SessionId {
    SessionId::from_random(random_bytes())
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}
