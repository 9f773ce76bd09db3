//! `/echo`: a WebSocket that answers every message with itself, for conformance suites to talk to.
//!
//! It is the gateway's own handshake, transport, codec and outbox with nothing on top: what a suite finds out about it holds
//! for `/ws`, whose dialect would have no use for a suite's messages. `fanfare echo` serves it, on loopback alone, and
//! nothing else does ([ADR 0015](../../../../docs/adr/0015-conformance.md)).
//!
//! **Invariant.** Nothing is read while anything waits to be written, so what waits is what one read completed: a message
//! of the greatest size and some small ones. More than that, which takes compressed messages, is an overflow.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Order, Outbox, Queued};
use fanfare_protocol::websocket::{Event, Frame};
use fanfare_protocol::{CloseReason, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::Transport;
use super::websocket::{Agreed, Read, WebSocket};
use crate::admission::Place;
use crate::node::Services;

/// What one read may bring beside the message that it completes, compressed messages included.
const SMALL_BYTES: usize = 1024 * 1024;

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct Echo<S> {
    socket: WebSocket<S>,
    outbox: Arc<Outbox>,
    close_timeout: Duration,
    services: Arc<Services>,
    _place: Place,
}

/// How a conversation ended.
enum End {
    /// With a Close frame, which is the last that is queued.
    Closed,
    /// Without one: the peer is gone.
    Gone,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Echo<S> {
    /// Takes over a socket after its upgrade, with the bytes that came behind the handshake.
    pub(crate) fn open(io: S, early: Bytes, agreed: Agreed, place: Place, services: Arc<Services>) -> Self {
        let limits = &services.settings().policy.limits;
        let bytes_max = limits.message_bytes;
        let outbox = Outbox::new(SessionId::from_random([0; 16]), agreed.form(), bytes_max + SMALL_BYTES);
        services.roster.enter(&outbox, None);
        Self {
            socket: WebSocket::new(io, early, bytes_max, agreed.compression.as_ref()),
            outbox,
            close_timeout: limits.close_timeout,
            services,
            _place: place,
        }
    }

    /// Lives until either side has closed, and a little longer for the other.
    pub(crate) async fn run(mut self) {
        if let End::Closed = poll_fn(|cx| self.poll_talk(cx)).await {
            let _ = timeout(self.close_timeout, poll_fn(|cx| self.poll_goodbye(cx))).await;
        }
    }

    /// Echoes until there is nothing more to say.
    fn poll_talk(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            while let Poll::Ready(order) = self.outbox.poll_order(cx) {
                let reason = match order {
                    Order::Drain { .. } => CloseReason::GoingAway,
                    Order::Overflowed => CloseReason::SlowConsumer,
                    Order::Dismiss { reason } => reason,
                    Order::Tick
                    | Order::Lost { .. }
                    | Order::Enlist { .. }
                    | Order::Expel { .. }
                    | Order::Amend { .. }
                    | Order::Reloaded => continue,
                };
                return self.conclude(Frame::close(reason.number(), reason.slug()));
            }
            if ready!(self.poll_flush(cx)).is_err() {
                return Poll::Ready(End::Gone);
            }
            let (outbox, mut close) = (&self.outbox, None);
            let read = self.socket.poll_read(cx, &mut |event| match event {
                Event::Text(text) => queue(outbox, Frame::text(text)),
                Event::Binary(bytes) => queue(outbox, Frame::binary(bytes)),
                Event::Ping(payload) => queue(outbox, Frame::pong(payload)),
                Event::Pong(_) => {}
                Event::Close(None) => close = Some(Frame::close_without_code()),
                Event::Close(Some((code, _))) => close = Some(Frame::close(code, "")),
            });
            match (ready!(read), close) {
                (Err(violation), _) => {
                    return self.conclude(Frame::close(violation.close_code(), &violation.to_string()));
                }
                (Ok(_), Some(close)) => return self.conclude(close),
                (Ok(Read::End), None) => return Poll::Ready(End::Gone),
                (Ok(Read::Bytes { .. }), None) => {}
            }
        }
    }

    fn conclude(&self, close: Frame) -> Poll<End> {
        self.outbox.conclude([close]);
        Poll::Ready(End::Closed)
    }

    /// Sends what is left, the Close behind it, and waits until the peer has heard it.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_flush(cx)) {
            Ok(()) => self.socket.poll_linger(cx),
            Err(_) => Poll::Ready(()),
        }
    }

    /// Writes until nothing waits.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Poll::Ready(written) = self.socket.poll_write(cx, &self.outbox) {
            written?;
        }
        // Pending when there is nothing to write, too; then a new frame or an order is what wakes the task.
        if self.socket.is_flushed() && self.outbox.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<S> Drop for Echo<S> {
    fn drop(&mut self) {
        self.services.roster.leave(&self.outbox);
    }
}

/// Queues a frame; when it does not fit the outbox itself orders the end.
fn queue(outbox: &Outbox, frame: Frame) {
    let _: Queued = outbox.push(frame).unwrap_or_else(Queued::from);
}
