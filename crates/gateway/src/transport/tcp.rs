//! A TCP socket that its connection's task owns, and that the hub may write to while that task sleeps.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use fanfare_fanout::Socket;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::ByteStream;

/// See the [module's note](self).
#[derive(Debug)]
pub(crate) struct Tcp {
    reads: OwnedReadHalf,
    writes: Arc<Writes>,
}

/// The half that is written to.
#[derive(Debug)]
struct Writes(OwnedWriteHalf);

impl Tcp {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (reads, writes) = stream.into_split();
        Self { reads, writes: Arc::new(Writes(writes)) }
    }

    fn poll_try<T>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&OwnedWriteHalf) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.writes.0.as_ref().poll_write_ready(cx))?;
            match write(&self.writes.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl ByteStream for Tcp {
    fn past_task(&self) -> Option<Arc<dyn Socket>> {
        Some(self.writes.clone())
    }
}

impl Socket for Writes {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Not by way of tokio, whose word of the socket's readiness has gone cold; the task finds out what it is not told.
        SockRef::from(self.0.as_ref()).send(bytes)
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reads).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |half| half.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |half| half.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.writes.0.as_ref()).shutdown(std::net::Shutdown::Write))
    }
}
