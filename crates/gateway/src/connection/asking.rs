//! What the session wants to know of the backend, on the way there and back.

use std::sync::Arc;

use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::Entry;
use fanfare_protocol::grant::Grant;
use fanfare_protocol::rules::Consent;
use fanfare_protocol::session::{Effect, Input, Session, Terms};
use fanfare_protocol::{Channel, Draft, RequestId};

use super::{Connection, broker_failure};
use crate::hooks::{About, Caller};
use crate::node::Services;
use crate::transport::Transport;

impl<T: Transport> Connection<T> {
    /// Who the backend says that the client is, of whom this is known; and whether that user has a place left.
    pub(super) async fn introduced(&mut self, presumed: Option<Arc<Grant>>) -> Result<Arc<Grant>, Failure> {
        let services = self.services.clone();
        let (settings, caller, session) = (services.settings(), self.caller.clone(), self.session.id());
        let remark = self.session.remark().cloned();
        let asked =
            settings.hooks.introduce(session, caller.as_deref(), presumed, remark.as_ref(), &services);
        let grant = self.while_asking(asked).await.unwrap_or_else(|| Err(gone()))?;
        self.belong(grant)
    }

    /// Performs what only the backend can answer.
    pub(super) async fn ask_backend(&mut self, effect: Effect) {
        let services = self.services.clone();
        let settings = services.settings();
        let (caller, grant) = (self.caller.clone(), self.session.shared_grant().cloned());
        let about = self.about(caller.as_deref(), grant.as_deref());
        match effect {
            Effect::Introduce { id, presumed } => {
                let outcome = self.introduced(presumed).await;
                self.let_in(id, outcome, None);
            }
            Effect::Call { id, method, payload } => {
                let asked = settings.hooks.call(about, &method, &payload, &services);
                let outcome = self.while_asking(asked).await.unwrap_or_else(|| Err(gone()));
                self.answer(Input::Called { id, outcome });
            }
            Effect::Tell { payload } => {
                // Whether it arrives nobody is told.
                let _ = self.while_asking(settings.hooks.tell(about, &payload, &services)).await;
            }
            other => unreachable!("{other:?} is no question to the backend"),
        }
    }

    /// Joins a channel at the hub, once the backend has nothing against it.
    pub(super) async fn join(&mut self, channel: &Channel, terms: Terms) -> Result<Option<Entry>, Failure> {
        self.consent(channel, terms.consent).await?;
        let (services, outbox) = (self.services.clone(), self.outbox.clone());
        let joining = services.hub.subscribe(channel, &outbox, terms);
        self.while_writing(joining).await.map_err(|error| broker_failure(&error))
    }

    /// Tells the session who its client is, or why it is not let in.
    pub(super) fn let_in(
        &mut self,
        id: Option<RequestId>,
        outcome: Result<Arc<Grant>, Failure>,
        before: Option<&Arc<Grant>>,
    ) {
        self.answer(Input::Authenticated { id, outcome });
        self.become_known(before);
        if self.session.grant().is_none_or(|grant| grant.user.is_none()) {
            self.place.belong_to_nobody();
        }
    }

    /// Whether the client may subscribe, as far as the backend has a say in it.
    async fn consent(&mut self, channel: &Channel, consent: Consent) -> Result<(), Failure> {
        if consent == Consent::Given {
            return Ok(());
        }
        let services = self.services.clone();
        let (caller, grant) = (self.caller.clone(), self.session.shared_grant().cloned());
        let about = self.about(caller.as_deref(), grant.as_deref());
        let settings = services.settings();
        let asked = settings.hooks.consent(about, channel, &services);
        self.while_asking(asked).await.unwrap_or_else(|| Err(gone()))
    }

    /// What the backend lets be published.
    pub(super) async fn agreed(&mut self, mut draft: Draft) -> Result<Draft, Failure> {
        let services = self.services.clone();
        let (caller, grant) = (self.caller.clone(), self.session.shared_grant().cloned());
        let about = self.about(caller.as_deref(), grant.as_deref());
        let settings = services.settings();
        let instead = {
            let asked = settings.hooks.publish(about, &draft.channel, &draft.payload, &services);
            self.while_asking(asked).await.unwrap_or_else(|| Err(gone()))?
        };
        if let Some(payload) = instead {
            draft.payload = payload;
            self.session.check(&draft)?;
        }
        Ok(draft)
    }

    /// About whom the backend is asked.
    pub(super) fn about<'a>(&self, caller: Option<&'a Caller>, grant: Option<&'a Grant>) -> About<'a> {
        About { session: Some(self.session.id()), caller, grant }
    }
}

/// What the backend lets be published by a session that lives for one command.
pub(crate) async fn agreed(
    session: &Session,
    mut draft: Draft,
    consent: Consent,
    caller: Option<&Caller>,
    services: &Services,
) -> Result<Draft, Failure> {
    if consent == Consent::Given {
        return Ok(draft);
    }
    let about = About { session: Some(session.id()), caller, grant: session.grant() };
    let settings = services.settings();
    let instead = settings.hooks.publish(about, &draft.channel, &draft.payload, services).await?;
    if let Some(payload) = instead {
        draft.payload = payload;
        session.check(&draft)?;
    }
    Ok(draft)
}

/// What nobody hears any more.
pub(super) fn gone() -> Failure {
    Failure::new(ErrorCode::Unavailable, "the conversation is over")
}
