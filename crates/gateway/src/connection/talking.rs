//! A connection in two halves: it hears by the body of a response, and speaks by requests that show its ticket.
//!
//! As [`Streaming`](super::Streaming) it is polled by the HTTP stack and has no task; but its session is that of a WebSocket, and
//! the dialect's whole conversation is held in it. What is posted to any node is put into its inbox, by the node that holds it,
//! and taken up when the body is polled.
//!
//! ```text
//!   request ──────────────────► inbox ──► Session ──► effects ──► hub
//!   POST, here or elsewhere ──► inbox       │                      │
//!   body    ◄── Ready ◄── Lines ◄── outbox ◄┴──────────────────────┘
//! ```
//!
//! **Invariant.** What is posted is taken up once and in the order in which it reached the inbox, or refused to whoever posts it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fanfare_metrics::Carrier;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::session::Stage;
use fanfare_protocol::{Encoding, SessionId, Ticket};
use hyper::body::{Body, Frame};
use parking_lot::Mutex;

use super::effects::asks_hub;
use super::polled::Polled;
use super::speakers::ticket;
use super::{Connection, Guest};
use crate::node::Services;
use crate::transport::lines::{Arrival, Form, Lines};
use crate::transport::posted::{Inbox, Message, NoRoom, Posted, Ready};

/// The whole messages that may wait for a conversation, in bytes.
const MESSAGES_WAITING: usize = 2;

/// When a client whose conversation does not keep up may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The inboxes of this node's conversations, by the secret of their tickets, and what they are called otherwise.
#[derive(Debug, Default)]
pub(crate) struct Talks(Mutex<HashMap<u128, (Arc<Inbox>, SessionId)>>);

impl Talks {
    /// Hands a message to the conversation of a ticket of this node.
    ///
    /// # Errors
    /// 4404: that is over. 4429: it does not keep up.
    pub(crate) fn post(&self, ticket: &Ticket, message: Message) -> Result<(), Failure> {
        let inbox = self.0.lock().get(&ticket.secret()).map(|(inbox, _)| inbox.clone());
        let inbox =
            inbox.ok_or_else(|| Failure::new(ErrorCode::NotFound, "this session is over: connect again"))?;
        inbox.push(message).map_err(|NoRoom| {
            let text = "this session has not taken up what was posted before: read its stream";
            Failure::retry(ErrorCode::RateLimited, text, RETRY_AFTER)
        })
    }

    /// The conversation of a ticket with this secret.
    pub(crate) fn session(&self, secret: u128) -> Option<SessionId> {
        self.0.lock().get(&secret).map(|(_, session)| *session)
    }
}

/// An inbox that is listed until this is dropped.
#[derive(Debug)]
struct Listed {
    secret: u128,
    services: Arc<Services>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.services.talks.0.lock().remove(&self.secret);
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Talking {
    state: Polled<Posted>,
    ready: Arc<Ready>,
    _listed: Listed,
}

impl Talking {
    /// Opens a conversation in an encoding, dressed in this form, by what its client says first.
    pub(crate) fn open(
        form: Form,
        encoding: Encoding,
        first: Message,
        guest: Guest,
        services: &Arc<Services>,
    ) -> Self {
        let carrier = match form {
            Form::Events => Carrier::Events,
            Form::Lines | Form::Answer | Form::Bare => Carrier::Lines,
        };
        let message_bytes = services.settings().policy.limits.message_bytes;
        let bytes_max = message_bytes.saturating_mul(MESSAGES_WAITING).max(first.len());
        let inbox = Arc::new(Inbox::new(bytes_max));
        inbox.push(first).expect("there is room for it");
        let (ready, ticket) = (Arc::<Ready>::default(), ticket(services));
        services.talks.0.lock().insert(ticket.secret(), (inbox.clone(), guest.session));
        let listed = Listed { secret: ticket.secret(), services: services.clone() };
        let posted = |_| Posted::new(Lines::new(form, &[], Arrival::First), inbox, ready.clone());
        let connection = Connection::begin(posted, carrier, encoding, guest, Some(ticket), services.clone());
        Self { state: Polled::Here(Box::new(connection)), ready, _listed: listed }
    }

    /// Goes on until there is nothing to be done for now; ready when the conversation is over.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.state.poll_asking(cx));
            let Some(connection) = self.state.here() else { return Poll::Ready(()) };
            let turn = connection.poll_turn(cx);
            let is_over = connection.is_over();
            if self.state.ask() {
                continue;
            }
            if is_over {
                return Poll::Ready(());
            }
            ready!(turn);
        }
    }
}

impl Connection<Posted> {
    /// Does what can be done without asking; ready when something is left to be done.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            self.take_order(order);
        }
        self.take_renewal(cx);
        if self.effects.is_empty() && self.session.stage() == Stage::Open && self.poll_read(cx).is_pending() {
            self.write_what_waits(cx);
            self.schedule_tick();
            return if self.effects.is_empty() { Poll::Pending } else { Poll::Ready(()) };
        }
        if !self.effects.iter().any(asks_hub) {
            drop(self.perform_effects());
        }
        self.write_what_waits(cx);
        self.schedule_tick();
        if self.session.stage() == Stage::Open { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_over(&self) -> bool {
        self.transport.is_over() || self.session.stage() == Stage::Over
    }
}

impl Body for Talking {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let turns = self.poll_turns(cx);
        if let Some(chunk) = self.ready.take() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        ready!(turns);
        self.state = Polled::Gone;
        Poll::Ready(None)
    }
}
