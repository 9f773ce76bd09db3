//! Transports carry whole messages in and frames out; what is in them is opaque here.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fanfare_fanout::{Outbox, Socket};
use fanfare_protocol::Channel;
use fanfare_protocol::error::Failure;
use fanfare_protocol::event::Entry;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::websocket::{Event, Frame, Violation};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

mod cursor;
pub(crate) mod echo;
pub(crate) mod http2;
pub(crate) mod lines;
pub(crate) mod posted;
mod reread;
mod tcp;
pub(crate) mod websocket;

pub(crate) use cursor::{Cursor, Wanted};
pub(crate) use reread::Reread;
pub(crate) use tcp::Tcp;

use websocket::Read;

/// The two sides of a connection.
///
/// The rest is for transports that tell their client, outside the frames, what a frame means to it; others
/// ignore it.
pub(crate) trait Transport: Send {
    /// Whether its client is heard on it.
    const IS_READ: bool = false;

    /// Whether its client is told by a Close frame why a conversation ends.
    const TELLS_CLOSE: bool = false;

    /// Makes one write of what waits. Pending when nothing waits or no more is taken; the task is woken when that changes.
    ///
    /// # Errors
    /// Those of the socket: the peer is gone.
    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<Written>>;

    /// Reads once and hands every event that it completes to `on_event`. From what goes one way nothing ever comes.
    ///
    /// # Errors
    /// The peer broke RFC 6455; nothing after that is understood.
    fn poll_read(
        &mut self,
        _cx: &mut Context<'_>,
        _on_event: &mut dyn FnMut(Event<'_>),
    ) -> Poll<Result<Read, Violation>> {
        Poll::Pending
    }

    /// This frame, which is about to be queued, says that the client enters a channel.
    fn entering(&mut self, _channel: &Channel, _entry: Option<Entry>, _frame: &Frame) {}

    /// A command has been refused.
    fn refused(&mut self, _failure: &Failure) {}

    /// The conversation is about to be closed; the client is to wait this long before it comes back.
    fn closing(&mut self, _after: Duration) {}
}

/// What a WebSocket goes over.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Where others than the connection's task may write to it, if frames go there as they are.
    fn past_task(&self) -> Option<Arc<dyn Socket>> {
        None
    }
}

/// TLS has one writer.
impl ByteStream for TlsStream<TcpStream> {}

/// What one write came to.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// The frames whose last byte was among them.
    pub(crate) frames: u64,
    /// By how many bytes the outbox shrank to feed this write.
    pub(crate) taken: usize,
    /// When the oldest publication in it entered the gateway, the first time a batch is written.
    pub(crate) oldest: Option<UnixMicros>,
    /// By how many bytes the batch is shorter for being compressed, the first time it is written.
    pub(crate) saved: usize,
}
