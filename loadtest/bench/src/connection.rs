//! One client connection, as cheap as a load generator needs it.
//!
//! The handshake is tungstenite's: an independent peer of the gateway's own codec checks it. After it, the
//! socket is taken back, with the keys of TLS where that is spoken, and frames are scanned in place, in a buffer
//! that all connections of the thread share; a connection owns memory for bytes only while a frame is split over
//! two reads, or while the socket does not take what it has to say. So one read is one system call, and a message
//! in it costs a header parse and a comparison: the gateway, not its peer, is what a run measures.
//!
//! Pings are answered where they are met, the WebSocket's and those that a protocol has of its own. Everything
//! else is handed to the caller as [`Heard`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Request;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use crate::protocol::{Aside, Greeting, Protocol};
use crate::secure::{self, Tls};
use crate::stamp::{Finder, Stamp};
use crate::wire::{Scanned, WireError, scan, write_binary, write_pong, write_text};

/// How long connecting, the handshake and the answer to `subscribe` may take together.
const OPENING_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections per source address: well below the ephemeral ports that one address has.
const CONNECTIONS_PER_SOURCE: usize = 10_000;
const SCRATCH_BYTES: usize = 256 << 10;

/// A WebSocket address, resolved once, and what is spoken there.
pub(crate) struct Target {
    url: String,
    address: SocketAddr,
    protocol: &'static dyn Protocol,
    /// For `wss://`.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection after its handshakes.
struct Dialed {
    stream: TcpStream,
    tls: Option<Tls>,
    /// What came behind the response.
    after: Vec<u8>,
}

impl Target {
    /// Resolves a URL; one that begins with `wss://` needs an authority to trust.
    pub(crate) async fn resolve(
        url: &str,
        protocol: &'static dyn Protocol,
        authority: Option<&Path>,
    ) -> Result<Self> {
        let request = url.into_client_request().with_context(|| format!("not a WebSocket URL: {url}"))?;
        let uri = request.uri();
        let host = uri.host().with_context(|| format!("{url} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (tls, port) = match (uri.scheme_str(), authority) {
            (Some("wss"), Some(authority)) => {
                let name = ServerName::try_from(host.to_owned())?;
                (Some((secure::connector(authority)?, name)), 443)
            }
            (Some("wss"), None) => bail!("{url}: wss:// needs --authority, the certificate to trust"),
            (Some("ws"), _) => (None, 80),
            _ => bail!("{url}: only ws:// and wss:// are spoken"),
        };
        let address = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(port)))
            .await
            .with_context(|| format!("cannot resolve {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        Ok(Self { url: url.to_owned(), address, protocol, tls })
    }

    /// The URL with the path that the protocol wants for these channels.
    fn url_for(&self, path: Option<&str>) -> String {
        let Some(path) = path else { return self.url.clone() };
        let (scheme, rest) = self.url.split_once("://").unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        format!("{scheme}://{authority}{path}")
    }

    /// Opens the `index`th connection of this process. On loopback, each 10,000 have a source address of
    /// their own: one address runs out of ports, and slows down well before.
    async fn dial(&self, index: usize, channels: &[&str]) -> Result<Dialed> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let source = u8::try_from(index / CONNECTIONS_PER_SOURCE).context("too many connections")?;
        if source > 0 && matches!(self.address.ip(), IpAddr::V4(address) if address.is_loopback()) {
            let address = Ipv4Addr::new(127, 0, source, 1);
            socket.bind((address, 0).into()).with_context(|| format!("cannot bind to {address}"))?;
        }
        let stream = socket.connect(self.address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let endpoint = self.protocol.endpoint(channels);
        let mut request = self.url_for(endpoint.path.as_deref()).into_client_request()?;
        if let Some(subprotocol) = endpoint.subprotocol {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        let Some((connector, name)) = &self.tls else {
            let Head { stream, after, .. } = upgrade(request, stream).await?;
            return Ok(Dialed { stream, tls: None, after });
        };
        let secure = connector.connect(name.clone(), stream).await.context("the TLS handshake failed")?;
        let Head { stream: secure, mut after, .. } = upgrade(request, secure).await?;
        let (stream, session) = secure.into_inner();
        Ok(Dialed { stream, tls: Some(Tls::new(session, &mut after)?), after })
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(request: Request, stream: S) -> Result<Head<S>> {
    let config = WebSocketConfig::default().read_buffer_size(1024);
    let (socket, _response) =
        tokio_tungstenite::client_async_with_config(request, Head::new(stream), Some(config))
            .await
            .context("the handshake failed")?;
    Ok(socket.into_inner())
}

/// The memory that the connections of the thread share.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: RefCell<Vec<u8>>,
    /// What came over the wire, where that is TLS.
    sealed: RefCell<Vec<u8>>,
    finder: Finder,
}

impl Default for Scratch {
    fn default() -> Self {
        let buffer = || RefCell::new(vec![0; SCRATCH_BYTES]);
        Self { bytes: buffer(), sealed: buffer(), finder: Finder::default() }
    }
}

/// What came out of a read.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A publication of this run.
    Publication(Stamp),
    /// Something that should not have happened, in the server's words.
    Trouble(String),
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// A Close frame, with its code and reason.
    #[error("close {0} {1}")]
    Closed(u16, String),
    /// The stream ended without one.
    #[error("end of stream without a close frame")]
    Eof,
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is not the protocol.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// A frame that is not of the protocol.
    #[error("not an event: {0}")]
    Nonsense(String),
}

/// The writing half: shared by the reader, which answers pings, and a publisher.
#[derive(Debug)]
pub(crate) struct Line {
    socket: OwnedWriteHalf,
    tls: Option<Tls>,
    /// Whether what is said goes in binary frames.
    is_binary: bool,
    /// Whole frames, as they go over the wire, that the socket has not taken yet, but for the bytes that it has.
    unsent: RefCell<Vec<u8>>,
}

impl Line {
    /// Adds a frame to what is to be sent; [`Line::flush`] sends it.
    pub(crate) fn queue(&self, said: &[u8]) {
        let write = if self.is_binary { write_binary } else { write_text };
        self.say(|output| write(said, output));
    }

    fn say(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut unsent = self.unsent.borrow_mut();
        let Some(tls) = &self.tls else { return write(&mut unsent) };
        let mut plain = Vec::new();
        write(&mut plain);
        tls.seal(&plain, &mut unsent).expect("a Vec takes everything");
    }

    /// Hands the socket what it takes. True when nothing is left.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        let mut unsent = self.unsent.borrow_mut();
        while !unsent.is_empty() {
            match self.socket.try_write(&unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Waits until the socket has taken everything.
    pub(crate) async fn drained(&self) -> io::Result<()> {
        while !self.flush()? {
            self.socket.writable().await?;
        }
        Ok(())
    }

    /// Sends what is left to send, as far as the socket takes it now, and wakes the task when it takes more.
    fn poll_flush(&self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.unsent.borrow().is_empty() {
            match self.socket.as_ref().poll_write_ready(context)? {
                Poll::Ready(()) => self.flush()?,
                Poll::Pending => break,
            };
        }
        Ok(())
    }
}

/// A connection's reading half, and a handle to the other.
#[derive(Debug)]
pub(crate) struct Connection {
    protocol: &'static dyn Protocol,
    line: Rc<Line>,
    socket: OwnedReadHalf,
    /// The start of a frame whose end has not arrived.
    carried: Vec<u8>,
    /// The name of the node behind it, where the server tells it.
    pub(crate) node: String,
}

impl Connection {
    /// Opens the `index`th connection of the process and subscribes it to the channels.
    pub(crate) async fn open(
        target: &Target,
        index: usize,
        channels: &[&str],
        scratch: &Scratch,
    ) -> Result<Self> {
        let opening = async {
            let Dialed { stream, tls, after } = target.dial(index, channels).await?;
            let (socket, write_half) = stream.into_split();
            let (protocol, node) = (target.protocol, String::new());
            let is_binary = protocol.is_binary();
            let line = Rc::new(Line { socket: write_half, tls, is_binary, unsent: RefCell::default() });
            let mut connection = Self { protocol, line, socket, carried: Vec::new(), node };
            connection.greet(channels, &after, scratch).await?;
            Ok(connection)
        };
        timeout(OPENING_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| bail!("not open after {OPENING_TIMEOUT:?}"))
            .with_context(|| format!("connection {} to {}", index + 1, target.url))
    }

    async fn greet(&mut self, channels: &[&str], after_head: &[u8], scratch: &Scratch) -> Result<()> {
        let protocol = self.protocol;
        let mut greeting = Greeting::new(channels);
        let mut refused = protocol.greet(&mut greeting, b"").err();
        let mut hear = |greeting: &mut Greeting<'_>, frame: &[u8]| {
            if refused.is_none() {
                refused = protocol.greet(greeting, frame).err();
            }
            refused.clone()
        };
        let mut refusal = None;
        self.take(after_head, |frame| {
            refusal = hear(&mut greeting, frame);
            Ok(())
        })?;
        loop {
            for text in greeting.say.drain(..) {
                self.line.queue(text.as_bytes());
            }
            self.line.drained().await?;
            if let Some(refusal) = refusal {
                bail!("subscribe was answered by {refusal}");
            }
            if greeting.ready {
                self.node = greeting.node.unwrap_or_default();
                return Ok(());
            }
            let end = poll_fn(|context| self.poll_read(scratch, context)).await?;
            self.take(&scratch.bytes.borrow()[..end], |frame| {
                refusal = hear(&mut greeting, frame);
                Ok(())
            })?;
        }
    }

    /// The other half.
    pub(crate) fn line(&self) -> Rc<Line> {
        Rc::clone(&self.line)
    }

    /// Waits for bytes, reads once, and tells `hear` all that has become whole.
    pub(crate) async fn read(&mut self, scratch: &Scratch, mut hear: impl FnMut(Heard)) -> Result<(), Ended> {
        let end = poll_fn(|context| self.poll_read(scratch, context)).await?;
        let (protocol, line) = (self.protocol, Rc::clone(&self.line));
        self.take(&scratch.bytes.borrow()[..end], |frame| {
            let gathers = protocol.gathers(frame);
            let publications = scratch.finder.each(frame, gathers, |stamp| hear(Heard::Publication(stamp)));
            if publications > 0 && !gathers {
                return Ok(());
            }
            match protocol.aside(frame) {
                Aside::Nothing => {}
                Aside::Answer(text) => {
                    line.queue(text.as_bytes());
                    line.flush()?;
                }
                Aside::Trouble(what) => hear(Heard::Trouble(what)),
                Aside::Nonsense(what) => return Err(Ended::Nonsense(what)),
            }
            Ok(())
        })
    }

    /// Fills the scratch buffer with what was carried and what one read brings; returns where it ends.
    fn poll_read(&mut self, scratch: &Scratch, context: &mut Context<'_>) -> Poll<Result<usize, Ended>> {
        // Meanwhile, so that neither a pong waits behind a full socket nor the reader behind a pong.
        self.line.poll_flush(context)?;
        let mut bytes = scratch.bytes.borrow_mut();
        let start = self.carried.len();
        if self.line.tls.is_some() {
            return self.poll_read_sealed(&mut scratch.sealed.borrow_mut(), &mut bytes, context);
        }
        if bytes.len() < start + SCRATCH_BYTES {
            bytes.resize(start + SCRATCH_BYTES, 0);
        }
        let mut output = ReadBuf::new(&mut bytes[start..]);
        // Unlike `try_read`, this knows that a read which did not fill the buffer has emptied the socket, and
        // saves the system call that would find nothing.
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut output))?;
        let count = output.filled().len();
        if count == 0 {
            return Poll::Ready(Err(Ended::Eof));
        }
        bytes[..start].copy_from_slice(&self.carried);
        self.carried.clear();
        Poll::Ready(Ok(start + count))
    }

    /// The same over TLS: until something comes that is more than TLS's own.
    fn poll_read_sealed(
        &mut self,
        sealed: &mut [u8],
        bytes: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Ended>> {
        let line = Rc::clone(&self.line);
        let tls = line.tls.as_ref().expect("the caller has looked");
        bytes.clear();
        bytes.extend_from_slice(&self.carried);
        while bytes.len() == self.carried.len() {
            let mut output = ReadBuf::new(sealed);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut output))?;
            if output.filled().is_empty() {
                return Poll::Ready(Err(Ended::Eof));
            }
            tls.open(output.filled(), bytes)?;
        }
        self.carried.clear();
        Poll::Ready(Ok(bytes.len()))
    }

    /// Hands on what whole frames carry, answers pings, and keeps the rest for later.
    fn take(
        &mut self,
        mut bytes: &[u8],
        mut hear: impl FnMut(&[u8]) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        loop {
            match scan(bytes)? {
                Scanned::Frame { opcode: OpCode::Data(_), payload, bytes: count } => {
                    hear(payload)?;
                    bytes = &bytes[count..];
                }
                Scanned::Frame { opcode: OpCode::Control(control), payload, bytes: count } => {
                    self.control(control, payload)?;
                    bytes = &bytes[count..];
                }
                Scanned::Partial => {
                    self.carried.extend_from_slice(bytes);
                    return Ok(());
                }
            }
        }
    }

    fn control(&self, control: Control, payload: &[u8]) -> Result<(), Ended> {
        match control {
            Control::Ping => {
                self.line.say(|output| write_pong(payload, output));
                self.line.flush()?;
            }
            Control::Close => {
                let (code, reason) = payload.split_at_checked(2).unwrap_or((&[0x03, 0xed], b""));
                let code = u16::from_be_bytes([code[0], code[1]]);
                return Err(Ended::Closed(code, String::from_utf8_lossy(reason).into_owned()));
            }
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(())
    }
}

/// Lets a handshake read no further than the blank line that ends the response, and keeps what followed it in
/// the same segment, which tungstenite would otherwise take with it into a buffer nobody can reach.
#[derive(Debug)]
struct Head<S> {
    stream: S,
    /// How much of the blank line has passed.
    matched: usize,
    after: Vec<u8>,
}

impl<S> Head<S> {
    const END: &[u8] = b"\r\n\r\n";

    fn new(stream: S) -> Self {
        Self { stream, matched: 0, after: Vec::new() }
    }

    /// How many of `bytes` belong to the head.
    fn within(&mut self, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            self.matched = match byte {
                it if it == Self::END[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == Self::END.len() {
                return index + 1;
            }
        }
        bytes.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Head<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        output: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.matched == Self::END.len() {
            return Poll::Ready(Err(io::Error::other("the handshake reads past the response")));
        }
        let start = output.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, output))?;
        let end = start + self.within(&output.filled()[start..]);
        self.after = output.filled()[end..].to_vec();
        output.set_filled(end);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Head<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
