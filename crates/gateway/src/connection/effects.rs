//! What the session decided is done here: frames are queued, the hub is asked and its answers go back to the session.
//!
//! Effects are performed one at a time and in order, with one exception that keeps the order all the same: publications
//! that follow each other are handed to the broker without waiting for the answer to each, so that a publisher's speed
//! is not bounded by the broker's round trip.
//!
//! A command whose answer may be long (a replay, a page, a list of members) is performed when the client has read most of
//! the answers before it: a batch that recovers many channels would overflow the queue of a client that reads well. No answer
//! is longer than half of the queue, so memory stays within its bound. A client that does not read is not waited for twice.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::presence::{Desk, Listening};
use fanfare_fanout::{Outbox, Queued};
use fanfare_metrics::{Metrics, Recovery};
use fanfare_protocol::command::Start;
use fanfare_protocol::dialect::Dialect;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::{Crowd, Event, Member, Reply};
use fanfare_protocol::grant::{Grant, Pass, Proof, Token};
use fanfare_protocol::happening::{Happening, Kinds};
use fanfare_protocol::rules::Consent;
use fanfare_protocol::session::{self, Effect, Input, Stage};
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Draft, RequestId, SessionId};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::{Connection, Told, facts, mem};
use crate::hooks::Renewals;
use crate::node::Services;
use crate::spans::{Begun, Kind, Value as Fact};
use crate::trace::{self, By};
use crate::transport::Transport;

/// The most publications of one connection that the broker has not answered yet.
const PLACING_MAX: usize = 64;

/// The longest that a command waits for the client to read the answers to those before it.
const READING_MAX: Duration = Duration::from_secs(5);

/// When to try again while the broker is away: its own next attempt is no further off than this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl<T: Transport> Connection<T> {
    /// Performs everything the session has decided: at once where nothing asks the hub, else by the future.
    pub(super) fn perform_effects(&mut self) -> Option<BoxFuture<'_, ()>> {
        let effects = mem::take(&mut self.effects);
        if effects.iter().any(asks_hub) {
            return Some(self.perform_asking(effects).boxed());
        }
        effects.into_iter().for_each(|effect| self.perform(effect));
        None
    }

    async fn perform_asking(&mut self, effects: Vec<Effect>) {
        let services = self.services.clone();
        let mut placing = FuturesOrdered::new();
        let mut is_patient = true;
        for effect in effects {
            let is_free = matches!(effect, Effect::Publish { consent: Consent::Given, .. });
            if !is_free || placing.len() == PLACING_MAX {
                while let Some(placed) = self.while_writing(placing.next()).await {
                    self.answer(placed);
                }
            }
            if let Effect::Join { .. } | Effect::Survey { .. } | Effect::Read { .. } | Effect::Count { .. } =
                effect
            {
                is_patient = is_patient && self.has_made_room().await;
            }
            let mut asked = Asked::of(&effect, &services);
            match effect {
                Effect::Authenticate { id, token } => self.authenticate(id, &token).await,
                Effect::Introduce { .. } | Effect::Call { .. } | Effect::Tell { .. } => {
                    self.ask_backend(effect).await;
                }
                Effect::Publish { id, draft, consent: Consent::Given } => {
                    placing.push_back(place(&services, self.session.id(), id, draft).boxed());
                }
                Effect::Publish { id, draft, consent: Consent::Needed } => {
                    let channel = draft.channel.clone();
                    match self.agreed(draft).await {
                        Ok(draft) => {
                            placing.push_back(place(&services, self.session.id(), id, draft).boxed())
                        }
                        Err(failure) => self.answer(Input::Placed { id, channel, outcome: Err(failure) }),
                    }
                }
                Effect::Admit { id, channel, hearing, proof } => {
                    let outcome = self.admit(&channel, &proof);
                    self.answer(Input::Admitted { id, channel, hearing, outcome });
                }
                Effect::Join { id, channel, terms } => {
                    let (start, wording) = (terms.start, terms.wording);
                    let outcome = self.join(&channel, terms).await;
                    self.record(asked.take(), outcome.as_ref().err());
                    self.answer(Input::Joined { id, channel, start, wording, outcome });
                }
                Effect::Survey { channel, member } => {
                    services.desk.enter_unaware(&channel, member, &self.outbox);
                    let most = self.session.limits().queue_bytes / 2;
                    let outcome = self.while_writing(count(&services.desk, &channel, true, most)).await;
                    self.answer(Input::Surveyed { channel, outcome });
                }
                Effect::Read { id, channel, excerpt } => {
                    let answer = self.while_writing(services.hub.history(&channel, excerpt.query())).await;
                    let outcome = answer.map_err(|error| failure(&error));
                    self.record(asked.take(), outcome.as_ref().err());
                    self.answer(Input::Read { id, channel, excerpt, outcome });
                }
                Effect::Count { id, channel, members } => {
                    let most = self.session.limits().queue_bytes / 2;
                    let outcome = self.while_writing(count(&services.desk, &channel, members, most)).await;
                    self.record(asked.take(), outcome.as_ref().err());
                    self.answer(Input::Counted { id, channel, outcome });
                }
                prompt => self.perform(prompt),
            }
            self.record(asked, None);
        }
        while let Some(placed) = self.while_writing(placing.next()).await {
            self.answer(placed);
        }
    }

    /// Has it recorded what a client has asked and what came of it, where it is.
    fn record(&self, asked: Option<Asked>, failure: Option<&Failure>) {
        let Some(Asked { begun, name, channel }) = asked else { return };
        let mut facts = vec![("fanfare.session", Fact::text(&self.session.id()))];
        facts.extend(self.user().map(|user| ("enduser.id", Fact::text(user.as_str()))));
        facts.extend(channel.map(|channel| ("fanfare.channel", Fact::text(channel.as_str()))));
        let Services { spans, clock, .. } = &*self.services;
        spans.end(begun, (Kind::Server, name), clock.unix(), facts, failure);
    }

    /// Finds out whose a token is: by the application whose client this is, or by the keys that are configured.
    async fn authenticate(&mut self, id: Option<RequestId>, token: &Token) {
        let services = self.services.clone();
        let outcome = match self.session.realm() {
            Some(realm) => self.dialect().recognise(realm, self.session.id(), token).map(Arc::new),
            None => {
                let settings = services.settings();
                self.while_writing(settings.auth.prepare(token)).await;
                settings.auth.verify(token, &services)
            }
        };
        let before = self.session.shared_grant().cloned();
        let outcome = match outcome {
            // Who its clients are an application with a realm has signed.
            Ok(grant) if self.session.realm().is_some() => self.belong(grant),
            Ok(grant) => self.introduced(Some(grant)).await,
            Err(failure) => Err(failure),
        };
        self.let_in(id, outcome, before.as_ref());
    }

    /// Judges what is to let the client on a channel.
    fn admit(&self, channel: &Channel, proof: &Proof) -> Result<Pass, Failure> {
        match (proof, self.session.realm()) {
            (Proof::Signed(signed), Some(realm)) => {
                self.dialect().admit(realm, self.session.id(), channel, signed)
            }
            _ => {
                let settings = self.services.settings();
                settings.auth.admit(proof, channel, self.session.grant(), &self.services)
            }
        }
    }

    /// Writes until there is room for a long answer; `false` when that has taken the client too long.
    async fn has_made_room(&mut self) -> bool {
        let writing = poll_fn(|cx| {
            if self.outbox.has_ample_room() {
                return Poll::Ready(());
            }
            self.write_what_waits(cx);
            let is_over = self.session.stage() == Stage::Over;
            if is_over || self.outbox.has_ample_room() { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(READING_MAX, writing).await.is_ok()
    }

    /// Gives the session an answer and performs what follows from it at once, before effects that were decided later than
    /// the question. What asks in its turn, since a token lists channels, comes after them, and so does what follows that.
    pub(super) fn answer(&mut self, input: Input) {
        let later = mem::take(&mut self.effects);
        self.take(input);
        let mut asked = false;
        for effect in mem::replace(&mut self.effects, later) {
            asked |= asks_hub(&effect);
            if asked { self.effects.push(effect) } else { self.perform(effect) }
        }
    }

    /// Performs an effect that waits for nothing.
    pub(super) fn perform(&mut self, effect: Effect) {
        let services = &self.services;
        match effect {
            Effect::Send(reply) => self.send(&reply),
            Effect::Exceeded(bound) => facts::exceeded(&services.metrics, self.session.limits(), bound),
            Effect::Ping => {
                services.metrics.heartbeat_sent();
                queue(&self.outbox, &services.metrics, self.dialect().ping());
            }
            Effect::GoLive { channel, reply } => self.go_live(channel, reply.as_ref()),
            Effect::Heed { channel, crowd } => {
                services.desk.heed(&channel, self.session.id(), &crowd);
            }
            Effect::Enter { channel, member, told } => {
                services.desk.enter(&channel, member, listening(told, &self.outbox));
            }
            Effect::LookOut { acquaintances } => services.desk.look_out(&self.outbox, acquaintances),
            Effect::Leave { channel, cause } => self.leave(&channel, cause),
            Effect::Close { reason, farewell } => {
                if let Event::Closing { after, .. } = farewell.event {
                    self.transport.closing(after);
                }
                let (code, words) = self.dialect().close(reason);
                let farewell = self.dialect().encode(&farewell);
                let farewell =
                    farewell.or_else(|| if T::TELLS_CLOSE { None } else { self.dialect().farewell(reason) });
                self.conclude(farewell.into_iter().chain([Frame::close(code, words)]));
            }
            Effect::EchoClose(code) => {
                self.conclude([code.map_or_else(Frame::close_without_code, |code| Frame::close(code, ""))]);
            }
            Effect::Reaffirm => {
                let grant = self.session.shared_grant().cloned();
                let session = self.session.id();
                self.renewal = grant.map(|grant| Renewals::ask(session, grant, &self.services));
            }
            Effect::Authenticate { .. }
            | Effect::Introduce { .. }
            | Effect::Call { .. }
            | Effect::Tell { .. }
            | Effect::Admit { .. }
            | Effect::Join { .. }
            | Effect::Survey { .. }
            | Effect::Publish { .. }
            | Effect::Read { .. }
            | Effect::Count { .. } => unreachable!("what asks is performed where its answer is waited for"),
        }
    }

    /// Opens the gate of a channel, after what the client is told before that.
    fn go_live(&mut self, channel: Channel, reply: Option<&Reply>) {
        let Services { hub, events, .. } = &*self.services;
        let frame = reply.and_then(|reply| self.dialect().encode(reply));
        let mut is_empty = false;
        if let Some(Reply { event: Event::Subscribed { entry, start, .. }, .. }) = reply {
            if let Some(frame) = &frame {
                self.transport.entering(&channel, *entry, frame);
            }
            is_empty = matches!(start, Start::Rewind(_)) && !hub.replays(&channel, &self.outbox);
            if let (Some(entry), Start::Since(_)) = (entry, start) {
                let outcome = if entry.recovered { Recovery::Recovered } else { Recovery::Lost };
                self.services.metrics.recovery(outcome);
            }
            if hub.tap().is_on() {
                let was_there = matches!(start, Start::Since(_));
                let replays = hub.replays(&channel, &self.outbox);
                let came = (*entry, was_there);
                trace::subscribed(&self.services, &self.outbox, self.user(), &channel, came, replays);
            }
        }
        hub.go_live(&channel, &self.outbox, frame);
        if is_empty {
            if events.wants(&channel, Kinds::NOTHING_KEPT) {
                let happening = Happening::NothingKept { channel: channel.clone() };
                events.of_channel(&channel, &happening);
            }
            self.send(&Reply::unasked(Event::NothingKept { channel }));
        }
    }

    fn leave(&self, channel: &Channel, cause: Option<ErrorCode>) {
        let Services { hub, desk, .. } = &*self.services;
        if hub.unsubscribe(channel, &self.outbox) && hub.tap().is_on() {
            trace::unsubscribed(&self.services, &self.outbox, self.user(), channel, cause);
        }
        desk.leave(channel, self.session.id());
    }

    /// Takes one of the places of the user that a client turns out to be, unless it is somebody already: a conversation keeps
    /// its user. Where there is none it may come back when those of its connections that are dead have been found out.
    pub(super) fn belong(&mut self, grant: Arc<Grant>) -> Result<Arc<Grant>, Failure> {
        if self.session.grant().is_some() {
            return Ok(grant);
        }
        let heartbeat = self.services.settings().policy.heartbeat;
        let patience = (heartbeat.interval + heartbeat.timeout).mul_f64(1.0 + fastrand::f64());
        match self.services.belong_to(&mut self.place, &grant) {
            Ok(()) => Ok(grant),
            Err(why) => Err(Failure { retry_after: Some(patience), ..why.failure() }),
        }
    }

    fn send(&mut self, reply: &Reply) {
        if let (Event::Welcome(welcome), Told::NotYet) = (&reply.event, self.told) {
            self.told = Told::Opened;
            if self.services.hub.tap().is_on() {
                trace::connected(&self.services, &self.outbox, welcome.user.as_ref());
            }
            let (session, user) = (welcome.session, welcome.user.clone());
            self.services.events.of_connection(|| Happening::Connected { session, user });
        }
        if let Event::Refused { failure, channel } = &reply.event {
            self.transport.refused(failure);
            if self.services.hub.tap().is_on() {
                let who = (Some(self.session.id()), self.user());
                trace::refused(&self.services, who, channel.as_ref(), failure, None);
            }
            self.services.metrics.command_refused(failure.code.number());
        }
        if let Some(frame) = self.dialect().encode(reply) {
            queue(&self.outbox, &self.services.metrics, frame);
        }
    }

    fn conclude(&self, last: impl IntoIterator<Item = Frame>) {
        let grown = self.outbox.conclude(last);
        self.services.metrics.outbox_queued(i64::try_from(grown).expect("a few frames"));
    }

    fn dialect(&self) -> &'static dyn Dialect {
        self.outbox.encoding().dialect()
    }
}

/// What a client has asked that is recorded, and what is not: publications are where they are published.
struct Asked {
    begun: Begun,
    name: &'static str,
    channel: Option<Channel>,
}

impl Asked {
    fn of(effect: &Effect, services: &Services) -> Option<Self> {
        if !services.spans.is_on() {
            return None;
        }
        let (name, channel) = match effect {
            Effect::Authenticate { .. } | Effect::Introduce { .. } => ("auth", None),
            Effect::Call { .. } => ("call", None),
            Effect::Join { channel, .. } => ("subscribe", Some(channel)),
            Effect::Read { channel, .. } => ("history", Some(channel)),
            Effect::Count { channel, .. } => ("presence", Some(channel)),
            _ => return None,
        };
        let begun = services.spans.begin(None, services.clock.unix())?;
        Some(Self { begun, name, channel: channel.cloned() })
    }
}

/// Whether an effect waits for the hub, or for the backend.
pub(super) fn asks_hub(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Authenticate { .. }
            | Effect::Introduce { .. }
            | Effect::Call { .. }
            | Effect::Tell { .. }
            | Effect::Admit { .. }
            | Effect::Join { .. }
            | Effect::Survey { .. }
            | Effect::Publish { .. }
            | Effect::Read { .. }
            | Effect::Count { .. }
    )
}

async fn place(services: &Services, session: SessionId, id: Option<RequestId>, draft: Draft) -> Input {
    let channel = draft.channel.clone();
    let told = services.events.wants(&channel, Kinds::PUBLISHED).then(|| {
        let user = draft.sender.as_ref().and_then(|sender| sender.user.clone());
        Happening::Published { channel: channel.clone(), payload: draft.payload.clone(), session, user }
    });
    let outcome = trace::publish(services, draft, By::Client(session)).await;
    if let (Ok(_), Some(happening)) = (&outcome, told) {
        services.events.of_channel(&channel, &happening);
    }
    Input::Placed { id, channel, outcome }
}

/// Asks who is on a channel. An answer of more than about `bytes_max` bytes, or of more members than are ever named, is
/// refused: it would overflow the queue of whoever asked.
pub(crate) async fn count(
    desk: &Desk,
    channel: &Channel,
    members: bool,
    bytes_max: usize,
) -> Result<Arc<Crowd>, Failure> {
    /// Field names, quotes and the session of one member.
    const MEMBER_BYTES: usize = 72;
    let crowd = desk.crowd(channel, members).await.map_err(|error| failure(&error))?;
    let bytes = |member: &Member| {
        let user = member.user.as_ref().map_or(0, |user| user.as_str().len());
        let shown = [&member.profile, &member.note].into_iter().flatten();
        MEMBER_BYTES + user + shown.map(|it| it.as_bytes().len()).sum::<usize>()
    };
    let fits = crowd.members.as_ref().map(|them| them.iter().map(bytes).sum::<usize>() <= bytes_max);
    if members && fits != Some(true) {
        let text = "too many members to name: ask with \"members\": false for their number";
        return Err(Failure::new(ErrorCode::TooLarge, text));
    }
    Ok(crowd)
}

/// What a subscriber listens to, who is to be told this.
fn listening(told: session::Told, outbox: &Arc<Outbox>) -> Listening<'_> {
    match told {
        session::Told::Nothing => Listening::None,
        session::Told::Turns => Listening::Turns(outbox),
        session::Told::Count => Listening::Count(outbox),
    }
}

/// Queues a frame; when it does not fit the outbox itself orders the connection to close.
pub(super) fn queue(outbox: &Outbox, metrics: &Metrics, frame: Frame) {
    outbox.push(frame).unwrap_or_else(Queued::from).count(metrics);
}

/// What a client is told when the broker cannot do its part.
pub(crate) fn failure(error: &BrokerError) -> Failure {
    let explanation = match error {
        BrokerError::Unavailable(_) => "the broker is away: nothing was done, try again",
        BrokerError::Busy(_) => "the broker is overloaded: nothing was done, try again",
        BrokerError::Timeout(_) => "the broker has not answered in time: it may have been done or not",
    };
    Failure::retry(ErrorCode::Unavailable, explanation, RETRY_AFTER)
}
