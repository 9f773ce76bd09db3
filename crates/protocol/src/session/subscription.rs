//! What a session decides about channels: who may hear, read, count and publish, and what the hub's answers mean.
//!
//! A channel is *wanted* going by the commands so far, and *unanswered* while the hub has joins of it to answer; commands may
//! be decided ahead of those answers, which is why both are kept.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Arriving, Effect, Entering, Held, Notices, Policy, Session, State, Subscription, Terms, Told, refuse,
};
use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Hearing, Wording};
use crate::error::{ErrorCode, Failure};
use crate::event::{Crowd, Entry, Event, Member, Reply};
use crate::grant::{Grant, Pass, Proof, Verb};
use crate::history::{Excerpt, Page};
use crate::id::RequestId;
use crate::limits::Bound;
use crate::manners::{Absence, Arrival, Loss, Refusal, Senders};
use crate::publication::{Draft, Payload, Position, Retention, Sender};
use crate::rules::{Consent, Count, Overflow, Rule};
use crate::time::Now;

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: Option<RequestId>,
        channel: Channel,
        hearing: Hearing,
        notices: Notices,
        proof: Option<Proof>,
        effects: &mut Vec<Effect>,
    ) {
        let asked = match proof {
            None => {
                let terms = self.may_subscribe(&channel, hearing);
                terms.map(|terms| Effect::Join { id: id.clone(), channel: channel.clone(), terms })
            }
            Some(proof) => self.has_room_for(&channel).map(|()| {
                let (id, channel) = (id.clone(), channel.clone());
                Effect::Admit { id, channel, hearing: Some(hearing), proof }
            }),
        };
        match asked {
            Ok(asked) => {
                if self.wanted >= self.policy.limits.channels {
                    effects.push(Effect::Exceeded(Bound::Channels));
                }
                let subscription = self.subscriptions.entry(channel).or_default();
                subscription.is_wanted = true;
                subscription.notices = notices;
                subscription.unanswered += 1;
                self.wanted += 1;
                effects.push(asked);
            }
            Err(failure) => {
                if failure.code == ErrorCode::LimitReached {
                    effects.push(Effect::Exceeded(Bound::Channels));
                }
                refuse(id, Some(channel), failure, effects);
            }
        }
    }

    pub(super) fn may_subscribe(&self, channel: &Channel, hearing: Hearing) -> Result<Terms, Failure> {
        let rule = self.policy.rules.may_hear(channel, self.grant())?;
        self.has_room_for(channel)?;
        // What the application has said of this client already it is not asked again.
        let is_said = self.grant().is_some_and(|it| it.owns(channel) || it.allows(Verb::Subscribe, channel));
        let consent = if is_said { Consent::Given } else { rule.consent_to_subscribe };
        Ok(agreed(rule, hearing, consent))
    }

    /// Whether another subscription fits, which is not one already.
    fn has_room_for(&self, channel: &Channel) -> Result<(), Failure> {
        if self.is_wanted(channel) {
            return Err(Failure::new(ErrorCode::Conflict, "already subscribed to this channel"));
        }
        let most = self.policy.limits.channels;
        if self.wanted >= most && !self.policy.limits.trial.covers(Bound::Channels) {
            let text = format!("a connection may subscribe to {most} channels: unsubscribe from one first");
            return Err(Failure::new(ErrorCode::LimitReached, text));
        }
        Ok(())
    }

    /// Whether the client may hear a channel that it wants: by its grant, or by the pass that it has shown.
    fn still_hears(&self, channel: &Channel) -> Result<(), Failure> {
        match self.pass(channel).is_some() {
            true => self.policy.rules.rule(channel).map(drop),
            false => self.policy.rules.may_hear(channel, self.grant()).map(drop),
        }
    }

    /// The answer to a proof: of who wants to hear a channel, or to go on hearing it.
    pub(super) fn admitted(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        channel: Channel,
        hearing: Option<Hearing>,
        outcome: Result<Pass, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let is_final = self.manners.refusal == Refusal::Final;
        let pass = match outcome {
            Err(failure) if is_final && failure.code == ErrorCode::Unauthorized => {
                return self.close(now, CloseReason::Unauthorized, Duration::ZERO, effects);
            }
            Err(failure) => {
                if hearing.is_some() {
                    self.answered(&channel, false);
                }
                return self.tell_refusal(id, channel, failure, effects);
            }
            Ok(pass) => pass,
        };
        let State::Open(_) = self.state else { return };
        let lasts = pass.expires.map(|expires| expires.since(now.unix));
        let ends = lasts.map(|lasts| now.moment + lasts + self.manners.token_grace);
        let held = Box::new(Held { pass, ends });
        let Some(hearing) = hearing else { return self.renewed(id, channel, held, lasts, effects) };
        let terms = match self.policy.rules.rule(&channel) {
            Ok(_) if !self.is_wanted(&channel) => {
                Err(Failure::new(ErrorCode::NotFound, "unsubscribed before it was subscribed to"))
            }
            Ok(rule) => Ok(agreed(rule, hearing, Consent::Given)),
            Err(failure) => Err(failure),
        };
        match terms {
            Ok(terms) => {
                if let Some(subscription) = self.subscriptions.get_mut(&channel) {
                    subscription.pass = Some(held);
                    self.has_shown_passes = true;
                }
                self.look_at_passes();
                effects.push(Effect::Join { id, channel, terms });
            }
            Err(failure) => {
                self.answered(&channel, false);
                refuse(id, Some(channel), failure, effects);
            }
        }
    }

    pub(super) fn renew_pass(
        &self,
        id: Option<RequestId>,
        channel: Channel,
        proof: Proof,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_wanted(&channel) {
            let failure = Failure::new(ErrorCode::NotFound, "not subscribed to this channel");
            return refuse(id, Some(channel), failure, effects);
        }
        effects.push(Effect::Admit { id, channel, hearing: None, proof });
    }

    fn renewed(
        &mut self,
        id: Option<RequestId>,
        channel: Channel,
        held: Box<Held>,
        lasts: Option<Duration>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&channel).filter(|it| it.is_wanted) else {
            let failure = Failure::new(ErrorCode::NotFound, "not subscribed to this channel");
            return refuse(id, Some(channel), failure, effects);
        };
        subscription.pass = Some(held);
        self.has_shown_passes = true;
        self.look_at_passes();
        effects.push(Effect::Send(Reply { id, event: Event::Renewed { channel, lasts } }));
    }

    /// Leaves the channels whose passes are over, and tells the client.
    pub(super) fn end_passes(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let State::Open(_) = self.state else { return };
        if self.passes_end.is_none_or(|end| end > now.moment) {
            return;
        }
        let is_over = |it: &Subscription| {
            it.is_wanted && it.pass.as_ref().and_then(|held| held.ends).is_some_and(|ends| ends <= now.moment)
        };
        let over =
            self.subscriptions.iter().filter(|(_, it)| is_over(it)).map(|(channel, _)| channel.clone());
        for channel in over.collect::<Vec<_>>() {
            self.let_go(&channel);
            effects.push(Effect::Leave { channel: channel.clone(), cause: Some(ErrorCode::Expired) });
            let event = Event::Unsubscribed { channel, cause: Some(ErrorCode::Expired) };
            effects.push(Effect::Send(Reply::unasked(event)));
        }
        self.look_at_passes();
    }

    /// The pass by which the client is on a channel, if it has shown one.
    fn pass(&self, channel: &Channel) -> Option<&Pass> {
        if !self.has_shown_passes {
            return None; // Which is so for nearly all, and looking for it takes a hash.
        }
        self.subscriptions.get(channel)?.pass.as_ref().map(|held| &held.pass)
    }

    /// Finds out when the next pass ends.
    fn look_at_passes(&mut self) {
        let wanted = self.subscriptions.values().filter(|it| it.is_wanted);
        self.passes_end = wanted.filter_map(|it| it.pass.as_ref()?.ends).min();
    }

    /// Something that was asked for a channel has been answered; the notices that the client wants of it, if it was there.
    fn answered(&mut self, channel: &Channel, is_good: bool) -> Option<Notices> {
        let subscription = self.subscriptions.get_mut(channel)?;
        let notices = subscription.notices;
        subscription.unanswered = subscription.unanswered.saturating_sub(1);
        if subscription.unanswered == 0 && !is_good && subscription.is_wanted {
            subscription.is_wanted = false;
            self.wanted -= 1;
        }
        if subscription.unanswered == 0 && !subscription.is_wanted {
            self.subscriptions.remove(channel);
        }
        Some(notices)
    }

    pub(super) fn may_read(&self, channel: &Channel) -> Result<(), Failure> {
        self.policy.rules.may_read(channel, self.grant())
    }

    /// Whoever may be on a channel may know who else is.
    pub(super) fn may_count(&self, channel: &Channel) -> Result<(), Failure> {
        if self.is_wanted(channel) {
            return self.policy.rules.rule(channel)?.knows_presence();
        }
        self.policy.rules.may_count(channel, self.grant())
    }

    pub(super) fn counted(
        &self,
        id: Option<RequestId>,
        channel: Channel,
        outcome: Result<Arc<Crowd>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        match outcome {
            Err(failure) => self.tell_refusal(id, channel, failure, effects),
            Ok(crowd) => {
                if let State::Open(_) = self.state {
                    effects.push(Effect::Send(Reply { id, event: Event::Present { channel, crowd } }));
                }
            }
        }
    }

    pub(super) fn read(
        &self,
        id: Option<RequestId>,
        channel: Channel,
        excerpt: Excerpt,
        outcome: Result<Page, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        match outcome.and_then(|page| excerpt.of(page)) {
            Err(failure) => self.tell_refusal(id, channel, failure, effects),
            Ok(mut page) => {
                if let State::Open(_) = self.state {
                    // An answer that fills the queue alone would make a slow consumer of whoever asks.
                    page.shorten(self.policy.limits.queue_bytes / 2);
                    effects.push(Effect::Send(Reply { id, event: Event::Past { channel, page } }));
                }
            }
        }
    }

    pub(super) fn lost(&mut self, now: Now, channel: Channel, effects: &mut Vec<Effect>) {
        let State::Open(_) = self.state else { return };
        if self.manners.loss == Loss::Final && self.is_wanted(&channel) {
            return self.close(now, CloseReason::TryAgainLater, Duration::ZERO, effects);
        }
        if self.let_go(&channel) {
            effects.push(Effect::Leave { channel: channel.clone(), cause: Some(ErrorCode::Gap) });
            let event = Event::Unsubscribed { channel, cause: Some(ErrorCode::Gap) };
            effects.push(Effect::Send(Reply::unasked(event)));
        }
    }

    /// What its application says of the client on a channel, beyond that it may hear it.
    fn terms(&self, channel: &Channel) -> Option<&Pass> {
        self.pass(channel).or_else(|| self.grant()?.pass(channel))
    }

    /// What the application has the client told when it is let on a channel.
    pub(super) fn greeting(&self, channel: &Channel) -> Option<Payload> {
        self.terms(channel)?.greeting.clone()
    }

    pub(super) fn joined(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        Entering { channel, start, wording }: Entering,
        outcome: Result<Option<Entry>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let lasts = self.pass(&channel).and_then(|pass| pass.expires);
        let lasts = lasts.map(|expires| expires.since(now.unix));
        let Some(notices) = self.answered(&channel, outcome.is_ok()) else { return };
        if let State::Prelude(_) = self.state {
            return self.joined_first(now, Entering { channel, start, wording }, outcome, effects);
        }
        match outcome {
            Ok(entry) => {
                let State::Open(_) = self.state else { return };
                if let Err(failure) = self.still_hears(&channel) {
                    self.let_go(&channel); // The policy or the token changed while the hub was asked.
                    effects.push(Effect::Leave { channel: channel.clone(), cause: None });
                    return refuse(id, Some(channel), failure, effects);
                }
                if self.is_shown_crowd(&channel, notices) {
                    return self.survey(channel, Arriving { id, entry, start, wording, lasts }, effects);
                }
                // It may be unwanted by now; then the Leave that was decided meanwhile comes right after this.
                let greeting = self.greeting(&channel);
                let event = Event::Subscribed {
                    channel: channel.clone(),
                    entry,
                    start,
                    wording,
                    lasts,
                    crowd: None,
                    greeting,
                };
                let reply = Some(Reply { id, event });
                effects.push(Effect::GoLive { channel: channel.clone(), reply });
                self.enter(channel, notices, effects);
            }
            Err(failure) => self.tell_refusal(id, channel, failure, effects),
        }
    }

    /// Whether the client learns with the answer to its subscription who is there.
    fn is_shown_crowd(&self, channel: &Channel, notices: Notices) -> bool {
        self.manners.arrival == Arrival::WithCrowd
            && notices == Notices::Wanted
            && self.policy.rules.rule(channel).is_ok_and(|rule| rule.presence)
    }

    /// Enters the channel and asks who is there. That asks the hub, so what was decided meanwhile comes first: the client may have
    /// left by then, and come back.
    fn survey(&mut self, channel: Channel, arriving: Arriving, effects: &mut Vec<Effect>) {
        let member = self.member(&channel);
        let subscription = self.subscriptions.entry(channel.clone()).or_default();
        subscription.arriving = Some(Box::new(arriving));
        subscription.unanswered += 1;
        effects.push(Effect::Survey { channel, member });
    }

    pub(super) fn surveyed(
        &mut self,
        channel: Channel,
        outcome: Result<Arc<Crowd>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&channel) else { return };
        let (is_wanted, arriving) = (subscription.is_wanted, subscription.arriving.take());
        self.answered(&channel, outcome.is_ok());
        let State::Open(_) = self.state else { return };
        if !is_wanted {
            return effects.push(Effect::Leave { channel, cause: None }); // It has entered since it left.
        }
        let Some(arriving) = arriving else { return }; // It has been answered by the crowd that another attempt found.
        let Arriving { id, entry, start, wording, lasts } = *arriving;
        match outcome.and_then(|crowd| self.still_hears(&channel).map(|()| crowd)) {
            Ok(crowd) => {
                let (shown, greeting) = (Some(crowd.clone()), self.greeting(&channel));
                let event = Event::Subscribed {
                    channel: channel.clone(),
                    entry,
                    start,
                    wording,
                    lasts,
                    crowd: shown,
                    greeting,
                };
                effects.push(Effect::GoLive { channel: channel.clone(), reply: Some(Reply { id, event }) });
                effects.push(Effect::Heed { channel, crowd });
            }
            Err(failure) => {
                self.let_go(&channel);
                effects.push(Effect::Leave { channel: channel.clone(), cause: None });
                refuse(id, Some(channel), failure, effects);
            }
        }
    }

    /// As whom others see the client on a channel.
    fn member(&self, channel: &Channel) -> Member {
        let session = self.id;
        if let Some(Pass { user: Some(user), profile, .. }) = self.pass(channel) {
            return Member { user: Some(user.clone()), session, profile: profile.clone(), note: None };
        }
        let grant = self.grant();
        let user = grant.and_then(|grant| grant.user.clone());
        let profile = grant.and_then(|grant| grant.profile.clone());
        Member { user, session, profile, note: self.terms(channel).and_then(|terms| terms.profile.clone()) }
    }

    /// As whom the client publishes on a channel; nobody in particular where it has not said who it is.
    pub(super) fn sender(&self, channel: &Channel) -> Option<Box<Sender>> {
        if self.manners.senders == Senders::Connections {
            let Member { user, session, profile, note } = self.member(channel);
            return Some(Box::new(Sender { user, profile, session: Some(session), note }));
        }
        match self.pass(channel) {
            Some(Pass { user: Some(user), profile, .. }) => {
                let (user, profile) = (Some(user.clone()), profile.clone());
                Some(Box::new(Sender { user, profile, ..Sender::default() }))
            }
            _ => self.grant().and_then(Grant::sender),
        }
    }

    /// Tells the cluster that the client is on the channel, where it is known who is.
    pub(super) fn enter(&self, channel: Channel, notices: Notices, effects: &mut Vec<Effect>) {
        let Ok(rule) = self.policy.rules.rule(&channel) else { return };
        if !rule.keeps_roll() {
            return;
        }
        let wants_turns = || self.terms(&channel).is_some_and(|terms| terms.notices);
        let told = match notices {
            Notices::Wanted => Told::Turns,
            Notices::Unwanted if wants_turns() => Told::Turns,
            Notices::Unwanted if rule.count == Count::Told => Told::Count,
            Notices::Unwanted => Told::Nothing,
        };
        let member = self.member(&channel);
        effects.push(Effect::Enter { channel, member, told });
    }

    /// Has the client hear a channel because a backend says so, by this pass, as good as one that it had shown.
    ///
    /// What cannot be is left out, as what a token lists is: a client that is not let in yet, a namespace that is not there, one
    /// channel more than a connection may have. To clients of a realm there are no channels but those that they ask for.
    pub(super) fn enlisted(
        &mut self,
        now: Now,
        Entering { channel, start, wording }: Entering,
        pass: &Pass,
        effects: &mut Vec<Effect>,
    ) {
        let State::Open(_) = self.state else { return };
        let Ok(rule) = self.policy.rules.rule(&channel) else { return };
        if self.policy.realm.is_some() {
            return;
        }
        let terms = agreed(rule, Hearing { start, wording, filter: None }, Consent::Given);
        let is_new = match self.has_room_for(&channel) {
            Ok(()) => true,
            Err(failure) if failure.code == ErrorCode::Conflict => false,
            Err(_) => return effects.push(Effect::Exceeded(Bound::Channels)),
        };
        let grace = self.manners.token_grace;
        let ends = pass.expires.map(|expires| now.moment + expires.since(now.unix) + grace);
        let subscription = self.subscriptions.entry(channel.clone()).or_default();
        // What ends must not end what the client hears by a right of its own.
        if is_new || ends.is_none() {
            subscription.pass.get_or_insert_with(|| Box::new(Held { pass: pass.clone(), ends }));
            self.has_shown_passes = true;
        }
        if is_new {
            subscription.is_wanted = true;
            subscription.notices = Notices::Unwanted;
            subscription.unanswered += 1;
            self.wanted += 1;
            effects.push(Effect::Join { id: None, channel, terms });
        }
        if ends.is_some() {
            self.look_at_passes();
        }
    }

    /// Has the client hear a channel no longer because a backend says so. It may ask for it again, if it may.
    pub(super) fn expelled(&mut self, channel: &Channel, effects: &mut Vec<Effect>) {
        let State::Open(_) = self.state else { return };
        if self.let_go(channel) {
            effects.push(Effect::Leave { channel: channel.clone(), cause: Some(ErrorCode::Forbidden) });
            let event = Event::Unsubscribed { channel: channel.clone(), cause: Some(ErrorCode::Forbidden) };
            effects.push(Effect::Send(Reply::unasked(event)));
        }
    }

    pub(super) fn unsubscribe(&mut self, id: Option<RequestId>, channel: Channel, effects: &mut Vec<Effect>) {
        if !self.let_go(&channel) {
            if self.manners.absence == Absence::Fine {
                let event = Event::Unsubscribed { channel, cause: None };
                return effects.extend(id.map(|id| Effect::Send(Reply { id: Some(id), event })));
            }
            let failure = Failure::new(ErrorCode::NotFound, "not subscribed to this channel");
            return refuse(id, Some(channel), failure, effects);
        }
        effects.push(Effect::Leave { channel: channel.clone(), cause: None });
        if id.is_some() {
            effects.push(Effect::Send(Reply { id, event: Event::Unsubscribed { channel, cause: None } }));
        }
    }

    /// The channel is not to be heard any more; `false` when it was not to be heard anyway.
    pub(super) fn let_go(&mut self, channel: &Channel) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(channel).filter(|it| it.is_wanted) else {
            return false;
        };
        subscription.is_wanted = false;
        subscription.pass = None;
        self.wanted -= 1;
        if subscription.unanswered == 0 {
            self.subscriptions.remove(channel);
        }
        true
    }

    pub(super) fn is_wanted(&self, channel: &Channel) -> bool {
        self.subscriptions.get(channel).is_some_and(|subscription| subscription.is_wanted)
    }

    /// Channels that are being joined are judged when the hub has answered, so that the request is answered once.
    pub(super) fn policy_changed(&mut self, policy: Arc<Policy>, effects: &mut Vec<Effect>) {
        self.policy = policy;
        self.withdraw(effects);
    }

    /// Leaves what the client may not hear any more, and tells it.
    pub(super) fn withdraw(&mut self, effects: &mut Vec<Effect>) {
        let State::Open(_) = self.state else { return };
        let live = self.subscriptions.iter().filter(|(_, it)| it.is_wanted && it.unanswered == 0);
        let withdrawn =
            live.filter_map(|(channel, _)| Some((channel.clone(), self.still_hears(channel).err()?.code)));
        for (channel, cause) in withdrawn.collect::<Vec<_>>() {
            self.let_go(&channel);
            effects.push(Effect::Leave { channel: channel.clone(), cause: Some(cause) });
            let event = Event::Unsubscribed { channel, cause: Some(cause) };
            effects.push(Effect::Send(Reply::unasked(event)));
        }
    }

    pub(super) fn publish(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        mut draft: Draft,
        effects: &mut Vec<Effect>,
    ) {
        match self.may_publish(now, &draft, effects) {
            Ok((retention, consent)) => {
                draft.retention = retention;
                effects.push(Effect::Publish { id, draft, consent });
            }
            Err(failure) => {
                if failure.code == ErrorCode::TooLarge {
                    effects.push(Effect::Exceeded(Bound::DataBytes));
                }
                refuse(id, Some(draft.channel), failure, effects);
            }
        }
    }

    /// Whether the draft may be published, and how it is kept. What is refused does not count against the namespace's rate.
    fn may_publish(
        &mut self,
        now: Now,
        draft: &Draft,
        effects: &mut Vec<Effect>,
    ) -> Result<(Option<Retention>, Consent), Failure> {
        let channel = &draft.channel;
        let rule = self.policy.rules.may_publish(channel, self.grant(), self.is_wanted(channel))?;
        let retention = rule.check(&draft.payload, draft.key.as_ref())?;
        self.policy.limits.check(draft)?;
        let consent = rule.consent_to_publish;
        if let Some(rate) = rule.rate
            && let Err(wait) = self.publishing.take(channel.namespace(), rate, now.moment)
        {
            effects.push(Effect::Exceeded(Bound::Publications));
            if !self.policy.limits.trial.covers(Bound::Publications) {
                return Err(Failure::too_many_publications(rate, wait));
            }
        }
        Ok((retention, consent))
    }

    /// Whether a draft that the backend has said otherwise is still one that may be published.
    ///
    /// # Errors
    /// 4413 when it is over a bound, 4404 when its namespace is gone.
    pub fn check(&self, draft: &Draft) -> Result<(), Failure> {
        self.policy.rules.rule(&draft.channel)?.check(&draft.payload, draft.key.as_ref())?;
        self.policy.limits.check(draft)
    }

    pub(super) fn placed(
        &self,
        id: Option<RequestId>,
        channel: Channel,
        outcome: Result<Option<Position>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        match outcome {
            Err(failure) => self.tell_refusal(id, channel, failure, effects),
            Ok(position) => {
                if let (State::Open(_), Some(id)) = (&self.state, id) {
                    let event = Event::Published { channel, position };
                    effects.push(Effect::Send(Reply { id: Some(id), event }));
                }
            }
        }
    }
}

/// How a channel of this rule is heard. Differences are told where nothing is ever left out, for a slow subscriber or by a
/// filter: there it has what they are to be applied to.
fn agreed(rule: &Rule, hearing: Hearing, consent: Consent) -> Terms {
    let Hearing { start, wording, filter } = hearing;
    let hears_all = rule.overflow == Overflow::Disconnect && filter.is_none();
    let wording = if hears_all { wording } else { Wording::Whole };
    let (history, overflow) = (rule.history.is_some(), rule.overflow);
    Terms { start, history, overflow, wording, filter, consent }
}
