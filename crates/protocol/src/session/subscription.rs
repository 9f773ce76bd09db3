//! What a session decides about channels: who may hear, read, count and publish, and what the hub's answers mean.
//!
//! A channel is *wanted* going by the commands so far, and *unanswered* while the hub has joins of it to answer; commands may
//! be decided ahead of those answers, which is why both are kept.

use std::sync::Arc;

use super::{Effect, Notices, Policy, Session, State, Terms, refuse};
use crate::channel::Channel;
use crate::command::Start;
use crate::error::{ErrorCode, Failure};
use crate::event::{Crowd, Entry, Event, Member, Reply};
use crate::grant::Verb;
use crate::history::{Excerpt, Page};
use crate::id::RequestId;
use crate::limits::Bound;
use crate::publication::{Draft, Position, Retention};
use crate::rules::Consent;
use crate::time::Now;

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: Option<RequestId>,
        channel: Channel,
        start: Start,
        is_told: bool,
        effects: &mut Vec<Effect>,
    ) {
        match self.may_subscribe(&channel, start) {
            Ok(terms) => {
                if self.wanted >= self.policy.limits.channels {
                    effects.push(Effect::Exceeded(Bound::Channels));
                }
                let subscription = self.subscriptions.entry(channel.clone()).or_default();
                subscription.is_wanted = true;
                subscription.notices = if is_told { Notices::Wanted } else { Notices::Unwanted };
                subscription.unanswered += 1;
                self.wanted += 1;
                effects.push(Effect::Join { id, channel, terms });
            }
            Err(failure) => {
                if failure.code == ErrorCode::LimitReached {
                    effects.push(Effect::Exceeded(Bound::Channels));
                }
                refuse(id, Some(channel), failure, effects);
            }
        }
    }

    pub(super) fn may_subscribe(&self, channel: &Channel, start: Start) -> Result<Terms, Failure> {
        let rule = self.policy.rules.may_hear(channel, self.grant())?;
        if self.is_wanted(channel) {
            return Err(Failure::new(ErrorCode::Conflict, "already subscribed to this channel"));
        }
        let most = self.policy.limits.channels;
        if self.wanted >= most && !self.policy.limits.trial.covers(Bound::Channels) {
            let text = format!("a connection may subscribe to {most} channels: unsubscribe from one first");
            return Err(Failure::new(ErrorCode::LimitReached, text));
        }
        // What the application has said of this client already it is not asked again.
        let is_said = self.grant().is_some_and(|it| it.owns(channel) || it.allows(Verb::Subscribe, channel));
        let consent = if is_said { Consent::Given } else { rule.consent_to_subscribe };
        Ok(Terms { start, history: rule.history.is_some(), overflow: rule.overflow, consent })
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

    pub(super) fn lost(&mut self, channel: Channel, effects: &mut Vec<Effect>) {
        let State::Open(_) = self.state else { return };
        if self.let_go(&channel) {
            effects.push(Effect::Leave { channel: channel.clone() });
            let event = Event::Unsubscribed { channel, cause: Some(ErrorCode::Gap) };
            effects.push(Effect::Send(Reply::unasked(event)));
        }
    }

    pub(super) fn joined(
        &mut self,
        id: Option<RequestId>,
        channel: Channel,
        outcome: Result<Option<Entry>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&channel) else { return };
        let notices = subscription.notices;
        subscription.unanswered = subscription.unanswered.saturating_sub(1);
        if subscription.unanswered == 0 && outcome.is_err() && subscription.is_wanted {
            subscription.is_wanted = false;
            self.wanted -= 1;
        }
        if subscription.unanswered == 0 && !subscription.is_wanted {
            self.subscriptions.remove(&channel);
        }
        match outcome {
            Ok(entry) => {
                let State::Open(_) = self.state else { return };
                if let Err(failure) = self.policy.rules.may_hear(&channel, self.grant()) {
                    self.let_go(&channel); // The policy or the token changed while the hub was asked.
                    effects.push(Effect::Leave { channel: channel.clone() });
                    return refuse(id, Some(channel), failure, effects);
                }
                // It may be unwanted by now; then the Leave that was decided meanwhile comes right after this.
                let event = Event::Subscribed { channel: channel.clone(), entry };
                effects.push(Effect::GoLive { channel: channel.clone(), reply: Reply { id, event } });
                if self.policy.rules.rule(&channel).is_ok_and(|rule| rule.presence) {
                    let (user, profile) = match self.grant() {
                        Some(grant) => (grant.user.clone(), grant.profile.clone()),
                        None => (None, None),
                    };
                    let member = Member { user, session: self.id, profile };
                    effects.push(Effect::Enter { channel, member, is_told: notices == Notices::Wanted });
                }
            }
            Err(failure) => self.tell_refusal(id, channel, failure, effects),
        }
    }

    pub(super) fn unsubscribe(&mut self, id: Option<RequestId>, channel: Channel, effects: &mut Vec<Effect>) {
        if !self.let_go(&channel) {
            let failure = Failure::new(ErrorCode::NotFound, "not subscribed to this channel");
            return refuse(id, Some(channel), failure, effects);
        }
        effects.push(Effect::Leave { channel: channel.clone() });
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
        let (rules, grant) = (&self.policy.rules, self.grant());
        let live = self.subscriptions.iter().filter(|(_, it)| it.is_wanted && it.unanswered == 0);
        let withdrawn = live
            .filter_map(|(channel, _)| Some((channel.clone(), rules.may_hear(channel, grant).err()?.code)));
        for (channel, cause) in withdrawn.collect::<Vec<_>>() {
            self.let_go(&channel);
            effects.push(Effect::Leave { channel: channel.clone() });
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
