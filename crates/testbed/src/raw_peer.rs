//! A peer of RFC 6455 without manners: every byte is the test's to choose, and nothing is answered by itself.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::eventually::PATIENCE;
use crate::http;

/// The op codes of RFC 6455 section 5.2.
pub mod opcode {
    /// A text message.
    pub const TEXT: u8 = 1;
    /// A binary message.
    pub const BINARY: u8 = 2;
    /// The end of the conversation.
    pub const CLOSE: u8 = 8;
    /// "Are you there?"
    pub const PING: u8 = 9;
    /// "I am."
    pub const PONG: u8 = 10;
}

/// The handshake that every [`RawPeer`] sends.
pub const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: fanfare\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A WebSocket whose handshake is over.
#[derive(Debug)]
pub struct RawPeer<S = TcpStream> {
    socket: S,
    unread: Vec<u8>,
}

impl RawPeer {
    /// Connects, shakes hands, and takes in `welcome`.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        Self::shake_hands(socket, HANDSHAKE.as_bytes()).await
    }

    /// The same over a given socket, with a given request and whatever follows it.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn shake_hands(mut socket: TcpStream, request: &[u8]) -> Self {
        socket.write_all(request).await.expect("the gateway reads");
        let mut unread = Vec::new();
        let response = http::read_head(&mut socket, &mut unread).await.expect("the gateway answers");
        assert_eq!(response.status, 101, "{}", response.head);
        let mut peer = Self { socket, unread };
        peer.greeted().await;
        peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawPeer<S> {
    /// One whose handshake is over by other means, as that of HTTP/2 is. Takes in `welcome`.
    ///
    /// # Panics
    /// When something else is said first.
    pub async fn over(stream: S) -> Self {
        let mut peer = Self { socket: stream, unread: Vec::new() };
        peer.greeted().await;
        peer
    }

    async fn greeted(&mut self) {
        let (_, welcome) = self.frame().await.expect("the gateway greets");
        assert!(welcome.starts_with(br#"{"type":"welcome""#), "{}", String::from_utf8_lossy(&welcome));
    }

    /// Sends a whole message or control frame, masked as a client must.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&frame(0x80 | opcode, payload)).await;
    }

    /// Sends a text message.
    pub async fn send_text(&mut self, text: &str) {
        self.send(opcode::TEXT, text.as_bytes()).await;
    }

    /// Sends any bytes. That the gateway has hung up already is no mistake of the peer's.
    ///
    /// # Panics
    /// When the gateway does not take them in.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.try_send_bytes(bytes).await;
    }

    /// The same, where that is a mistake of the gateway's.
    ///
    /// # Errors
    /// It has hung up before it had taken them in.
    ///
    /// # Panics
    /// When it neither takes them in nor hangs up.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.socket.write_all(bytes)).await.expect("the gateway reads")
    }

    /// Shuts down this side of the socket: the gateway reads the end of the stream, and can still write.
    ///
    /// # Panics
    /// When the socket is gone.
    pub async fn shut_down(&mut self) {
        self.socket.shutdown().await.expect("the socket is open");
    }

    /// The next frame, op code and payload; nothing at the end of the socket.
    ///
    /// # Panics
    /// When nothing comes, or a frame that a server must not send.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, payload) = self.frame_as_it_is().await?;
        assert_eq!(first & 0xf0, 0x80, "whole frames without extensions: {first:#x}");
        Some((first & 0x0f, payload))
    }

    /// The same with the whole first byte, whatever its bits; nothing at the end of the socket.
    ///
    /// # Panics
    /// When nothing comes, or a frame that is masked.
    pub async fn frame_as_it_is(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            let read = self.socket.read_buf(&mut self.unread);
            match timeout(PATIENCE, read).await.expect("the gateway has something to say") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Everything up to the Close frame, and its code. Nothing is answered.
    ///
    /// # Panics
    /// When the socket ends without one.
    pub async fn until_close(&mut self) -> (Vec<(u8, Vec<u8>)>, Option<u16>) {
        let mut before = Vec::new();
        loop {
            match self.frame().await.expect("a Close frame comes before the end") {
                (opcode::CLOSE, payload) => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return (before, code);
                }
                frame => before.push(frame),
            }
        }
    }

    /// Whether the socket ends without another frame.
    pub async fn ends(&mut self) -> bool {
        self.frame().await.is_none()
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = *self.unread.first_chunk()?;
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (start, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(*self.unread.get(2..)?.first_chunk()?))),
            127 => {
                let length = u64::from_be_bytes(*self.unread.get(2..)?.first_chunk()?);
                (10, usize::try_from(length).expect("it fits the memory"))
            }
            short => (2, usize::from(short)),
        };
        let payload = self.unread.get(start..start + length)?.to_vec();
        self.unread.drain(..start + length);
        Some((first, payload))
    }
}

/// A frame as a client sends it. The mask is all zeros, which is as good as any.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => frame.push(0x80 | short),
        (_, Ok(medium)) => {
            frame.push(0x80 | 126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
