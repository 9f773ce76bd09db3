//! Clients that hear by a response and speak by requests: who may speak for which conversation.
//!
//! The `welcome` of a conversation without a reading side has a ticket. Whoever has that speaks as the client of the conversation:
//! under its name, with its permissions and on the channels that it hears, at its rate. The conversation itself is not asked, since
//! a body that its client does not read is not polled; so what could have ended it meanwhile is looked at here.
//!
//! A request that comes to another node is handed on to this one: [`errands`](crate::errands).
//!
//! **Invariant.** A ticket is good from the first byte of the response until it is dropped.

use std::collections::HashMap;
use std::sync::Arc;

use fanfare_fanout::Outbox;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::{Grant, Visitor};
use fanfare_protocol::session::Rate;
use fanfare_protocol::{SessionId, Ticket};
use parking_lot::Mutex;

use super::random_bytes;
use crate::auth::Standing;
use crate::hooks::Caller;
use crate::node::Services;

/// The tickets that are out.
#[derive(Debug, Default)]
pub(crate) struct Speakers(Mutex<HashMap<u128, Arc<Speaker>>>);

/// A conversation that can be spoken for.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) outbox: Arc<Outbox>,
    /// What is known of its client by now.
    grant: Mutex<Option<Arc<Grant>>>,
    /// What a backend is told of it, where one is asked.
    pub(crate) caller: Option<Arc<Caller>>,
    /// What has been said so far.
    pub(crate) rate: Mutex<Rate>,
}

/// A ticket that is out until this is dropped.
#[derive(Debug)]
pub(super) struct Issued {
    secret: u128,
    speaker: Arc<Speaker>,
    services: Arc<Services>,
}

impl Issued {
    /// Gives the ticket out for a conversation.
    pub(super) fn new(
        ticket: &Ticket,
        outbox: &Arc<Outbox>,
        grant: Option<&Arc<Grant>>,
        caller: Option<&Arc<Caller>>,
        services: &Arc<Services>,
    ) -> Self {
        let rate = Mutex::new(Rate::new(services.clock.moment()));
        let (outbox, grant, caller) = (outbox.clone(), Mutex::new(grant.cloned()), caller.cloned());
        let speaker = Arc::new(Speaker { outbox, grant, caller, rate });
        services.speakers.0.lock().insert(ticket.secret(), speaker.clone());
        Self { secret: ticket.secret(), speaker, services: services.clone() }
    }

    /// From now on this is known of the client.
    pub(super) fn goes_on_by(&self, grant: Option<&Arc<Grant>>) {
        *self.speaker.grant.lock() = grant.cloned();
    }
}

impl Drop for Issued {
    fn drop(&mut self) {
        self.services.speakers.0.lock().remove(&self.secret);
    }
}

/// A ticket of this node that nobody else can have.
pub(super) fn ticket(services: &Services) -> Ticket {
    Ticket::from_random(&services.settings().policy.node, random_bytes())
}

impl Speakers {
    /// Whose ticket it is.
    ///
    /// # Errors
    /// 4404: it is of a conversation that is over.
    pub(crate) fn of(&self, ticket: &Ticket) -> Result<Arc<Speaker>, Failure> {
        self.0.lock().get(&ticket.secret()).cloned().ok_or_else(|| {
            let text =
                "the conversation of this ticket is over: listen again, and take that of the new welcome";
            Failure::new(ErrorCode::NotFound, text)
        })
    }
}

impl Speaker {
    /// The conversation's name.
    pub(crate) fn session(&self) -> SessionId {
        self.outbox.session()
    }

    /// Who speaks, if that client may still do so.
    ///
    /// # Errors
    /// 4401: its token is over, or has been revoked.
    pub(crate) fn visitor(&self, services: &Services) -> Result<Visitor, Failure> {
        let Some(grant) = self.grant.lock().clone() else { return Ok(Visitor::Anonymous) };
        let now = services.clock.unix();
        let is_over = grant.ends.is_some_and(|ends| ends <= now);
        if is_over || services.revoked.standing(&grant, now.0 / 1_000_000) == Standing::Revoked {
            let text = "the token of this conversation is over: listen again with a new one";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        Ok(Visitor::Known(grant))
    }
}
