//! A connection without a reading side: asked for by one HTTP request, written into the body of the response.
//!
//! The HTTP stack that owns the socket polls the body, and with it the connection: there is no task of its own. It asks
//! for more only when it has room, so a client that reads slowly is felt in the outbox, where `limits.queue_bytes` and the
//! channels' policies hold as they do for a WebSocket; beyond the outbox wait one chunk and what the stack buffers. A
//! client that has gone is noticed by the stack, which drops the body, and `Drop` does the rest.
//!
//! ```text
//!   request ──► Opening(subscribe) ──► Session ──► effects ──► hub
//!   body    ◄── Lines ◄── outbox ◄─────────┴───────────────────┘
//! ```
//!
//! The channels are joined one after the other, each when most of what was replayed before has been handed over. Nothing
//! is asked of the client later on, so there is no pong: the kernel ends a connection that acknowledges nothing
//! (`TCP_USER_TIMEOUT`), and heartbeats see to it that there is something to acknowledge.
//!
//! Since such a client cannot subscribe again, a channel that is lost ends the whole response: coming back recovers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::Order;
use fanfare_metrics::Carrier;
use fanfare_protocol::command::{Command, Request, Wording};
use fanfare_protocol::error::Failure;
use fanfare_protocol::session::{Input, Stage};
use fanfare_protocol::{CloseReason, Encoding};
use hyper::body::{Body, Frame};
use tokio::time::timeout;

use super::effects::asks_hub;
use super::polled::Polled;
use super::speakers::{Issued, ticket};
use super::{Connection, Guest};
use crate::node::Services;
use crate::transport::Wanted;
use crate::transport::lines::{Arrival, Form, Lines};

/// What a request asks to hear.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) channels: Vec<Wanted>,
    pub(crate) arrival: Arrival,
    /// Whether it is told who joins and leaves.
    pub(crate) presence: bool,
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Streaming {
    state: Polled<Lines>,
    /// Channels that are still to be joined.
    waiting: VecDeque<Request>,
    /// What lets its client speak, where it has been told that.
    ticket: Option<Issued>,
}

/// What a turn came to.
enum Turn {
    /// Something was dressed.
    Wrote,
    /// The conversation is over, and all of it has been dressed.
    Over,
}

impl Streaming {
    /// Opens a conversation and asks for the channels.
    pub(crate) fn open(form: Form, listening: Listening, guest: Guest, services: &Arc<Services>) -> Self {
        let Listening { channels, arrival, presence } = listening;
        let carrier = match form {
            Form::Events => Carrier::Events,
            Form::Lines | Form::Bare => Carrier::Lines,
            Form::Answer => Carrier::Poll,
        };
        let lines = |_| Lines::new(form, &channels, arrival);
        let ticket = (form != Form::Answer).then(|| ticket(services));
        let encoding = Encoding::NativeJson;
        let mut connection =
            Connection::begin(lines, carrier, encoding, guest, ticket.clone(), services.clone());
        let grant = connection.session.shared_grant();
        let caller = connection.caller.as_ref();
        let issued = ticket.map(|ticket| Issued::new(&ticket, &connection.outbox, grant, caller, services));
        if form == Form::Answer {
            // The answer to a poll is no conversation: the client would be greeted each time.
            connection.effects.clear();
        }
        let request = |Wanted { channel, start }| Request {
            id: None,
            command: Command::Subscribe {
                channel,
                start,
                presence,
                wording: Wording::Whole,
                filter: None,
                proof: None,
            },
        };
        let waiting = channels.into_iter().map(request).collect();
        Self { state: Polled::Here(Box::new(connection)), waiting, ticket: issued }
    }

    /// Joins as many of the channels as can be before the client reads; then, if that was all of them and none let the
    /// client in, says why.
    pub(crate) async fn opened(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll_opened(cx)).await;
        let Polled::Here(connection) = &self.state else { return Ok(()) };
        let is_in_vain = self.waiting.is_empty() && connection.session.channels().next().is_none();
        match connection.transport.refusal() {
            Some(refusal) if is_in_vain => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.state.poll_asking(cx));
            if !self.begin_asking() {
                return Poll::Ready(());
            }
        }
    }

    /// The whole of what there is, as soon as there is something, or after `hold`.
    pub(crate) async fn answer(mut self, hold: Duration) -> Vec<u8> {
        // Every call of the hub has a deadline, so this has one.
        poll_fn(|cx| self.poll_until(cx, Self::is_joined)).await;
        let settled = poll_fn(|cx| self.poll_until(cx, Self::has_news));
        // That nothing came is an answer too.
        let _ = timeout(hold, settled).await;
        match std::mem::replace(&mut self.state, Polled::Gone) {
            Polled::Here(mut connection) => {
                connection.finish();
                std::mem::replace(&mut connection.transport, Lines::new(Form::Answer, &[], Arrival::First))
                    .into_answer()
            }
            Polled::Asking(_) | Polled::Gone => Vec::new(),
        }
    }

    /// Goes on until nothing is left to be dressed and `is_enough`, or the conversation is over.
    fn poll_until(&mut self, cx: &mut Context<'_>, is_enough: fn(&Self) -> bool) -> Poll<()> {
        loop {
            match self.poll_turn(cx) {
                Poll::Ready(Turn::Wrote) => {}
                Poll::Ready(Turn::Over) => return Poll::Ready(()),
                Poll::Pending if is_enough(self) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether no channel is left to be joined.
    fn is_joined(&self) -> bool {
        self.waiting.is_empty() && matches!(self.state, Polled::Here(_))
    }

    /// Whether a poll is to be answered.
    fn has_news(&self) -> bool {
        matches!(&self.state, Polled::Here(connection) if connection.transport.has_news())
    }

    /// Goes on until something has been dressed or the conversation is over.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            ready!(self.state.poll_asking(cx));
            let Polled::Here(connection) = &mut self.state else { return Poll::Ready(Turn::Over) };
            let is_amended = connection.take_orders(cx);
            if (connection.take_renewal(cx) || is_amended)
                && let Some(ticket) = &self.ticket
            {
                ticket.goes_on_by(connection.session.shared_grant());
            }
            if self.begin_asking() {
                continue;
            }
            let Polled::Here(connection) = &mut self.state else { continue };
            if self.waiting.is_empty() && connection.session.channels().next().is_none() {
                connection.finish();
            }
            connection.schedule_tick();
            let before = connection.transport.dressed();
            connection.write_what_waits(cx);
            if connection.transport.dressed() != before {
                return Poll::Ready(Turn::Wrote);
            }
            if connection.transport.is_over() || connection.session.stage() == Stage::Over {
                return Poll::Ready(Turn::Over);
            }
            if !self.waiting.is_empty() && connection.outbox.has_ample_room() {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Performs what the session has decided, and joins the next channel if there is room for what it may replay; `false`
    /// when nothing was there to ask of the hub.
    fn begin_asking(&mut self) -> bool {
        let Polled::Here(connection) = &mut self.state else { return false };
        loop {
            if connection.effects.iter().any(asks_hub) {
                break;
            }
            drop(connection.perform_effects());
            if connection.session.stage() != Stage::Open || connection.transport.is_full() {
                self.waiting.clear();
            }
            if !connection.outbox.has_ample_room() {
                return false;
            }
            let Some(request) = self.waiting.pop_front() else { return false };
            connection.take(Input::Opening(request));
        }
        self.state.ask()
    }
}

impl Connection<Lines> {
    /// Whether what is known of the client has changed by that.
    fn take_orders(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_amended = false;
        // Whoever polls us has taken what it was given before.
        self.take(Input::Heard);
        while let Poll::Ready(order) = self.outbox.poll_order(cx) {
            if let Order::Enlist { .. } = order {
                continue; // It has named its channels, and could not recover another.
            }
            let is_loss = matches!(order, Order::Lost { .. });
            is_amended |= matches!(order, Order::Amend { .. });
            self.take_order(order);
            if is_loss {
                drop(self.perform_effects());
                self.finish();
            }
        }
        is_amended
    }

    /// Ends a conversation that has nothing more to say, as a peer's Close would.
    fn finish(&mut self) {
        if self.session.stage() == Stage::Open {
            self.take(Input::PeerClosed(Some(CloseReason::Normal.number())));
            drop(self.perform_effects());
        }
    }
}

impl Body for Streaming {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let turn = self.poll_turn(cx);
            let Polled::Here(connection) = &mut self.state else {
                return if turn.is_pending() { Poll::Pending } else { Poll::Ready(None) };
            };
            if let Some(chunk) = connection.transport.take_chunk() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            match turn {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Turn::Wrote) => {}
                Poll::Ready(Turn::Over) => {
                    self.state = Polled::Gone;
                    return Poll::Ready(None);
                }
            }
        }
    }
}
