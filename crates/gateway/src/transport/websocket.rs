//! A WebSocket over any byte stream (RFC 6455): bytes in, events out; frames from an outbox, gathered into few writes.
//!
//! Reading goes through a buffer that all connections of a thread share, because what a read brought is decoded before
//! the thread does anything else: a connection owns memory only for a message that is split over reads. Writing takes
//! everything that waits in the outbox and hands it to the socket in one write; only what the socket did not
//! take stays with the connection.
//!
//! Compressors and inflaters belong to the thread like the buffers. Where a client's messages refer to each other, or ours to
//! it do, the connection remembers the end of what was said; and since only the order of writing is the order in which the
//! client hears, such messages are compressed here. All others are compressed already when they come.
//!
//! **Invariant.** An idle connection owns no buffer, neither for reading nor for writing, and no more of what was said than
//! was agreed.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use fanfare_fanout::{Batch, Outbox};
use fanfare_protocol::websocket::{
    Agreement, Context as Memory, Decoder, Event, Frame, Inflater, Input, Shape, Violation, Window,
};
use fanfare_protocol::{Encoding, Form};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Transport, Written};

/// What one read brings at most, larger messages being assembled from several; and what is put in a row for one write.
const SCRATCH_BYTES: usize = 16 * 1024;

/// What the messages of one read may come to beyond their size on the wire before the rest has to wait.
const INFLATED_BYTES: usize = 256 * 1024;

/// The most frames in one write.
const SLICES: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
    static BATCH: RefCell<Batch> = RefCell::default();
    static INFLATER: RefCell<Inflater> = RefCell::default();
}

/// What client and server have agreed on in the handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed {
    pub(crate) encoding: Encoding,
    pub(crate) compression: Option<Agreement>,
}

impl Agreed {
    /// What the client's outbox holds.
    pub(crate) fn form(self) -> Form {
        let shape = self.compression.and_then(|agreement| agreement.shared_shape());
        Form::new(self.encoding, shape)
    }

    /// Whether what is in the outbox is what the client is sent.
    pub(crate) fn is_same_for_all(self) -> bool {
        self.compression.is_none_or(|agreement| agreement.server != Memory::TakenOver)
    }
}

/// What a connection that has agreed on compression remembers.
#[derive(Debug)]
struct Remembered {
    /// The end of what the client has said, where its messages refer to that.
    heard: Option<Window>,
    /// The end of what it was told, where our messages do.
    said: Option<(Shape, Window)>,
}

impl Remembered {
    fn of(agreement: &Agreement) -> Self {
        let heard = Window::new(agreement.client_window_bits());
        let said = (agreement.shape, Window::new(agreement.shape.window_bits));
        Self {
            heard: (agreement.client == Memory::TakenOver).then_some(heard),
            said: (agreement.server == Memory::TakenOver).then_some(said),
        }
    }

    /// Compresses what is about to be written, where that is not for everybody.
    fn compress(&mut self, batch: &mut Batch) {
        let Some((shape, window)) = &mut self.said else { return };
        for bytes in &mut batch.frames {
            let frame = Frame::from_wire(bytes.clone());
            if let Some(deflated) = frame.deflated_after(*shape, window) {
                batch.saved_bytes += frame.len() - deflated.len();
                batch.bytes -= frame.len() - deflated.len();
                *bytes = deflated.into();
            }
        }
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    io: S,
    decoder: Decoder,
    /// Bytes to be decoded before the next read: what arrived behind the handshake, or was too much for one turn.
    early: Bytes,
    /// What the socket has not taken yet.
    unsent: Batch,
    /// Where compression was agreed on.
    remembered: Option<Box<Remembered>>,
}

/// What one read came to.
#[derive(Debug)]
pub(crate) enum Read {
    /// So many bytes, and perhaps events.
    Bytes {
        read: usize,
        /// By how many bytes the messages in them were shorter for being compressed.
        saved: usize,
    },
    /// The peer has shut down its side, or the socket failed.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub(crate) fn new(
        io: S,
        early: Bytes,
        message_bytes_max: usize,
        compression: Option<&Agreement>,
    ) -> Self {
        let decoder = match compression {
            Some(_) => Decoder::inflating(message_bytes_max),
            None => Decoder::new(message_bytes_max),
        };
        let remembered = compression.map(|agreement| Box::new(Remembered::of(agreement)));
        Self { io, decoder, early, unsent: Batch::default(), remembered }
    }

    /// Ends the conversation on the level of TCP: shuts our side down, then reads and forgets until the peer has shut
    /// down its own. Hanging up at once, with bytes unread, would reset the connection, and the reset can overtake the
    /// Close frame on its way to the application.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(Pin::new(&mut self.io).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    Ok(()) | Err(_) => return Poll::Ready(()),
                }
            }
        })
    }

    /// Whether everything that was taken from the outbox has been written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    fn poll_write_batch(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        taken: usize,
    ) -> Poll<io::Result<Written>> {
        match poll_write_frames(Pin::new(&mut self.io), cx, batch) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(bytes)) => {
                let oldest = batch.oldest.take();
                let saved = mem::take(&mut batch.saved_bytes);
                Poll::Ready(Ok(Written { bytes, frames: batch.advance(bytes), taken, oldest, saved }))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for WebSocket<S> {
    const IS_READ: bool = true;
    const TELLS_CLOSE: bool = true;

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Poll<Result<Read, Violation>> {
        if !self.early.is_empty() {
            let mut early = Vec::from(mem::take(&mut self.early));
            let remembered = self.remembered.as_deref_mut();
            let Decoded { saved, left } = decode(&mut self.decoder, remembered, &mut early, on_event)?;
            let read = early.len() - left;
            self.early = Bytes::from(early).split_off(read);
            return Poll::Ready(Ok(Read::Bytes { read, saved }));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    let remembered = self.remembered.as_deref_mut();
                    let Decoded { saved, left } =
                        decode(&mut self.decoder, remembered, buffer.filled_mut(), on_event)?;
                    let read = buffer.filled().len() - left;
                    self.early = Bytes::copy_from_slice(&buffer.filled()[read..]);
                    Poll::Ready(Ok(Read::Bytes { read, saved }))
                }
                Ok(()) | Err(_) => Poll::Ready(Ok(Read::End)),
            }
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<Written>> {
        if !self.unsent.is_empty() {
            let mut unsent = mem::take(&mut self.unsent);
            let outcome = self.poll_write_batch(cx, &mut unsent, 0);
            self.unsent = unsent;
            return outcome;
        }
        BATCH.with_borrow_mut(|batch| {
            let Poll::Ready(taken) = outbox.poll_take(cx, batch) else {
                // What a layer between us and the socket has taken, as TLS does, is pushed on when nothing else waits.
                // Whether it is done or not, a failure included: the next write or read hears of it.
                let _ = Pin::new(&mut self.io).poll_flush(cx);
                return Poll::Pending;
            };
            if let Some(remembered) = &mut self.remembered {
                remembered.compress(batch);
            }
            let outcome = match self.poll_write_batch(cx, batch, taken) {
                written @ Poll::Ready(Ok(_)) => written,
                // The outbox has been drawn from, so the caller hears of that first. What went wrong goes wrong again.
                Poll::Pending | Poll::Ready(Err(_)) => {
                    Poll::Ready(Ok(Written { bytes: 0, frames: 0, taken, oldest: None, saved: 0 }))
                }
            };
            if !batch.is_empty() {
                self.unsent = mem::take(batch);
            }
            outcome
        })
    }
}

/// Few bytes are put in a row for the socket, which takes one piece in a shorter way through the kernel than several.
fn poll_write_frames<S: AsyncWrite>(
    io: Pin<&mut S>,
    cx: &mut Context<'_>,
    batch: &Batch,
) -> Poll<io::Result<usize>> {
    if batch.frames.len() == 1 {
        return io.poll_write(cx, &batch.frames[0]);
    }
    if batch.bytes <= SCRATCH_BYTES {
        return SCRATCH.with_borrow_mut(|scratch| {
            let mut end = 0;
            for frame in &batch.frames {
                scratch[end..end + frame.len()].copy_from_slice(frame);
                end += frame.len();
            }
            io.poll_write(cx, &scratch[..end])
        });
    }
    let mut slices = [io::IoSlice::new(&[]); SLICES];
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(&batch.frames) {
        *slice = io::IoSlice::new(frame);
        count += 1;
    }
    io.poll_write_vectored(cx, &slices[..count])
}

/// Hands on the events that `bytes` complete, and says by how many bytes the messages were shorter for being compressed.
///
/// A read's worth of bytes may come to a thousand times as many, and whoever is handed them may have to keep them: past
/// [`INFLATED_BYTES`] the rest stays undecoded, at the end of the buffer, for the next turn.
fn decode(
    decoder: &mut Decoder,
    remembered: Option<&mut Remembered>,
    bytes: &mut [u8],
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Decoded, Violation> {
    let mut hand_on = |mut input: Input<'_>| {
        while input.saved_bytes() <= INFLATED_BYTES {
            match decoder.next(&mut input)? {
                Some(event) => on_event(event),
                None => break,
            }
        }
        Ok(Decoded { saved: input.saved_bytes(), left: input.unread().len() })
    };
    match remembered {
        None => hand_on(Input::new(bytes)),
        Some(remembered) => INFLATER.with_borrow_mut(|inflater| {
            hand_on(Input::inflating(bytes, inflater, remembered.heard.as_mut()))
        }),
    }
}

/// What decoding a read came to.
struct Decoded {
    /// By how many bytes its messages were shorter for being compressed.
    saved: usize,
    /// How many of its last bytes are still to be decoded.
    left: usize,
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use fanfare_protocol::SessionId;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, BufWriter, duplex};

    use super::*;

    /// As TLS does for what the socket has no room for, this layer keeps everything until it is flushed.
    #[tokio::test]
    async fn what_a_layer_below_has_kept_is_pushed_on_when_nothing_else_waits() {
        let (near, mut far) = duplex(1024);
        let mut socket = WebSocket::new(BufWriter::new(near), Bytes::new(), 1024, None);
        let outbox = Outbox::new(SessionId::from_random([0; 16]), Encoding::NativeJson, 1024);
        let _counted = outbox.push(Frame::pong(b"here")).unwrap();
        poll_fn(|cx| {
            while let Poll::Ready(written) = socket.poll_write(cx, &outbox) {
                assert_eq!(written.unwrap().frames, 1);
            }
            Poll::Ready(())
        })
        .await;
        let mut frame = [0; 6];
        far.read_exact(&mut frame).now_or_never().expect("it was pushed on").unwrap();
        assert_eq!(&frame, b"\x8a\x04here");
    }

    /// One frame, a few that are put in a row, and more than that: whichever way they leave.
    #[test]
    fn frames_arrive_whole_and_in_order_however_little_the_socket_takes() {
        for sizes in [vec![3000], vec![150; 8], vec![1, 0, 9000, 2], vec![5000; 12], vec![70_000, 3]] {
            for socket_takes in [7, 1000, 1 << 20] {
                let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, usize::MAX);
                let mut expected = Vec::new();
                for (number, size) in (1_u8..).zip(&sizes) {
                    let frame = Frame::binary(&vec![number; *size]);
                    expected.extend_from_slice(frame.bytes());
                    let _ = outbox.push(frame).unwrap();
                }
                let (ours, mut theirs) = duplex(socket_takes);
                let mut socket = WebSocket::new(ours, Bytes::new(), 1 << 16, None);
                let (mut written, mut heard) = (0, Vec::new());
                while heard.len() < expected.len() {
                    let mut cx = Context::from_waker(Waker::noop());
                    while let Poll::Ready(outcome) = socket.poll_write(&mut cx, &outbox) {
                        written += outcome.unwrap().frames;
                    }
                    theirs.read_buf(&mut heard).now_or_never().expect("something was written").unwrap();
                }
                assert_eq!((heard, written), (expected, sizes.len() as u64), "{sizes:?} by {socket_takes}");
                assert!(socket.is_flushed() && outbox.is_empty());
            }
        }
    }
}
