//! permessage-deflate (RFC 7692) under a WebSocket client that has never heard of it: what it says is compressed on its way, and
//! what it hears is inflated. `miniz_oxide` does it, which the gateway does not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::http;
use crate::raw_peer::{HANDSHAKE, frame, opcode};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

/// A socket whose WebSocket has agreed on compression, without context takeover.
#[derive(Debug)]
pub struct Deflated {
    socket: TcpStream,
    /// As it came from the gateway, less than a frame.
    compressed: Vec<u8>,
    /// For the client to read.
    inflated: Vec<u8>,
    /// As the client wrote it, less than a frame.
    plain: Vec<u8>,
    /// For the gateway.
    unsent: Vec<u8>,
    heard: Arc<AtomicUsize>,
}

impl Deflated {
    /// Shakes hands over a socket. Beside the stream that a client can [speak](crate::Client::speak) over comes the number of compressed
    /// messages that it has heard.
    ///
    /// # Errors
    /// The status of the refusal, or nothing when there was none.
    ///
    /// # Panics
    /// When the gateway does not answer, or does not agree.
    pub async fn shake_hands(mut socket: TcpStream) -> Result<(Self, Arc<AtomicUsize>), Option<u16>> {
        let offer =
            "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: fanfare.v1.json\r\n\r\n";
        let request = format!("{}\r\n{offer}", HANDSHAKE.trim_end());
        socket.write_all(request.as_bytes()).await.map_err(|_| None)?;
        let mut compressed = Vec::new();
        let answer = http::read_head(&mut socket, &mut compressed).await.map_err(|_| None)?;
        if answer.status != 101 {
            return Err(Some(answer.status));
        }
        let agreed = answer.header("Sec-WebSocket-Extensions").expect("compression is agreed on");
        assert!(agreed.contains("server_no_context_takeover"), "{agreed}");
        let heard = Arc::<AtomicUsize>::default();
        let (inflated, plain, unsent) = (Vec::new(), Vec::new(), Vec::new());
        Ok((Self { socket, compressed, inflated, plain, unsent, heard: heard.clone() }, heard))
    }

    /// Inflates whatever frames have come whole.
    fn inflate(&mut self) {
        while let Some((first, payload)) = take_frame(&mut self.compressed) {
            if first & RSV1 == 0 {
                self.inflated.extend(unmasked(first, &payload));
                continue;
            }
            // What a sender leaves away at the end, and the end of the stream.
            let whole = [&payload[..], b"\x00\x00\xff\xff\x03\x00"].concat();
            let payload = decompress_to_vec(&whole).expect("the gateway sends DEFLATE");
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.inflated.extend(unmasked(first & !RSV1, &payload));
        }
    }

    /// Compresses whatever messages the client has written whole.
    fn deflate(&mut self) {
        while let Some((first, payload)) = take_frame(&mut self.plain) {
            if matches!(first & 0x0f, opcode::TEXT | opcode::BINARY) {
                assert_ne!(first & FIN, 0, "the client sends whole messages");
                // A block that is the last one and empty may end it (RFC 7692 section 7.2.3.4).
                let payload = [&compress_to_vec(&payload, 6)[..], b"\x00"].concat();
                self.unsent.extend(frame(first | RSV1, &payload));
            } else {
                self.unsent.extend(frame(first, &payload));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent))?;
            self.unsent.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes a frame from the beginning, if it is there: its first byte, and its payload without the mask.
fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second] = *bytes.first_chunk()?;
    let (start, length) = match second & !MASKED {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => {
            let length = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            (10, usize::try_from(length).expect("it fits the memory"))
        }
        short => (2, usize::from(short)),
    };
    let (start, mask) = match second & MASKED {
        0 => (start, [0; 4]),
        _ => (start + 4, *bytes.get(start..)?.first_chunk()?),
    };
    let payload = bytes.get(start..start + length)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    bytes.drain(..start + length);
    Some((first, payload))
}

/// A frame as a server sends it.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(first, payload);
    let mask = bytes.len() - payload.len() - 4;
    bytes.drain(mask..mask + 4);
    bytes[1] &= !MASKED;
    bytes
}

impl AsyncRead for Deflated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inflate();
        while self.inflated.is_empty() {
            let mut scratch = [0; 4096];
            let mut read = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.compressed.extend(read.filled());
            self.inflate();
        }
        let length = self.inflated.len().min(buffer.remaining());
        buffer.put_slice(&self.inflated[..length]);
        self.inflated.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Deflated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        self.plain.extend(bytes);
        self.deflate();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
