//! One connection of the crowd: what it says, and what it knows of the two channels that it hears.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use mio::net::TcpStream;
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use crate::stamp::Finder;
use crate::wire::{Scanned, scan, write_pong, write_text};

/// The channel that everybody hears.
pub(crate) const NEWS: &str = "news:all";
/// How many share a room.
pub(crate) const ROOM_SIZE: usize = 10;

/// What comes of reading.
#[derive(Debug)]
pub(crate) enum News {
    /// A publication of [`NEWS`], and the number of the one before it on this connection.
    Heard { before: u64, number: u64, sent_nanos: u64 },
    /// It came back, and not all it missed will follow.
    NotRecovered,
    /// Something that should not have been said.
    Trouble(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Connecting,
    Upgrading,
    /// So many answers are to come.
    Subscribing(u8),
    Live,
}

/// A place in a stream.
#[derive(Clone, Debug)]
struct Place {
    epoch: Rc<str>,
    offset: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Link {
    /// Its number in the whole crowd.
    number: usize,
    node: usize,
    phase: Phase,
    stream: Option<TcpStream>,
    /// Counts tries, so that a deadline of an earlier one is not taken for that of a later one.
    pub(crate) attempt: u32,
    /// The last publication heard; its number is its offset too, since nobody else publishes.
    pub(crate) heard: u64,
    news: Option<Rc<str>>,
    room: Option<Place>,
    /// When it was lost, until it is back.
    pub(crate) lost_at: Option<Instant>,
    carried: Vec<u8>,
    unsent: Vec<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event<'a> {
    Subscribed {
        channel: &'a str,
        epoch: Option<&'a str>,
        offset: Option<u64>,
        recovered: Option<bool>,
    },
    Unsubscribed {
        reason: Option<&'a str>,
    },
    Error {
        code: u16,
        reason: &'a str,
    },
    #[serde(other)]
    Other,
}

impl Link {
    /// The connection with this number, not open yet.
    pub(crate) fn new(number: usize, nodes: usize) -> Self {
        Self {
            number,
            node: number % nodes,
            phase: Phase::Down,
            stream: None,
            attempt: 0,
            heard: 0,
            news: None,
            room: None,
            lost_at: None,
            carried: Vec::new(),
            unsent: Vec::new(),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    pub(crate) fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    /// Begins to connect: to its node, or to any other after it was lost there.
    pub(crate) fn connect(&mut self, nodes: &[SocketAddr], source: Ipv4Addr) -> io::Result<&mut TcpStream> {
        if self.attempt > 0 && nodes.len() > 1 {
            self.node = (self.node + fastrand::usize(1..nodes.len())) % nodes.len();
        }
        self.attempt += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        match socket.connect(&nodes[self.node].into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
            _ => {}
        }
        self.phase = Phase::Connecting;
        Ok(self.stream.insert(TcpStream::from_std(socket.into())))
    }

    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
        self.phase = Phase::Down;
        self.carried = Vec::new();
        self.unsent = Vec::new();
    }

    /// Reads and writes what there is. An error says why the connection is over.
    pub(crate) fn attend(
        &mut self,
        buffer: &mut [u8],
        finder: &Finder,
        on_news: &mut dyn FnMut(News),
    ) -> Result<(), String> {
        if self.phase == Phase::Connecting {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.take_error().and_then(|error| error.map_or_else(|| stream.peer_addr(), Err)) {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error.to_string()),
                Ok(address) => self.ask_to_upgrade(address),
            }
        }
        self.flush()?;
        loop {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            let count = match stream.read(buffer) {
                Ok(0) => return Err("the stream ended".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            if self.carried.is_empty() {
                let rest = self.take(&buffer[..count], finder, on_news)?;
                self.carried = buffer[count - rest..count].to_vec();
            } else {
                let mut bytes = std::mem::take(&mut self.carried);
                bytes.extend_from_slice(&buffer[..count]);
                let rest = self.take(&bytes, finder, on_news)?;
                self.carried = bytes.split_off(bytes.len() - rest);
            }
            self.flush()?;
            if count < buffer.len() {
                // Less than there was room for: the socket is empty, and the next bytes are a new event.
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }

    fn ask_to_upgrade(&mut self, address: SocketAddr) {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: fanfare.v1.json\r\n\r\n",
            tungstenite::handshake::client::generate_key()
        );
        self.unsent = request.into_bytes();
        self.phase = Phase::Upgrading;
    }

    /// Subscribes to both channels, after the last place in each where there was one.
    fn ask_to_subscribe(&mut self) {
        let since = |place: Option<Place>| {
            place.map_or_else(String::new, |Place { epoch, offset }| {
                format!(r#","since":{{"epoch":"{epoch}","offset":{offset}}}"#)
            })
        };
        let news = since(self.news.clone().map(|epoch| Place { epoch, offset: self.heard }));
        let room = since(self.room.clone());
        let text = format!(
            r#"[{{"type":"subscribe","channel":"{NEWS}"{news}}},{{"type":"subscribe","channel":"room:{}"{room}}}]"#,
            self.number / ROOM_SIZE
        );
        write_text(text.as_bytes(), &mut self.unsent);
        self.phase = Phase::Subscribing(2);
    }

    /// Takes what is whole, and returns how many bytes are not.
    fn take(
        &mut self,
        mut bytes: &[u8],
        finder: &Finder,
        on_news: &mut dyn FnMut(News),
    ) -> Result<usize, String> {
        if self.phase == Phase::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(bytes.len()) };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned());
            }
            bytes = &bytes[end + 4..];
            self.ask_to_subscribe();
        }
        loop {
            match scan(bytes).map_err(|error| error.to_string())? {
                Scanned::Partial => return Ok(bytes.len()),
                Scanned::Frame { opcode, payload, bytes: count } => {
                    match opcode {
                        OpCode::Data(_) => self.hear(payload, finder, on_news)?,
                        OpCode::Control(Control::Ping) => write_pong(payload, &mut self.unsent),
                        OpCode::Control(Control::Close) => {
                            return Err(format!(
                                "closed: {}",
                                String::from_utf8_lossy(payload.get(2..).unwrap_or(b""))
                            ));
                        }
                        OpCode::Control(_) => {}
                    }
                    bytes = &bytes[count..];
                }
            }
        }
    }

    fn hear(&mut self, frame: &[u8], finder: &Finder, on_news: &mut dyn FnMut(News)) -> Result<(), String> {
        let stamps = finder.each(frame, false, |stamp| {
            on_news(News::Heard { before: self.heard, number: stamp.sequence, sent_nanos: stamp.sent_nanos });
            self.heard = self.heard.max(stamp.sequence);
        });
        if stamps > 0 {
            return Ok(());
        }
        let event = serde_json::from_slice(frame).map_err(|error| format!("not an event: {error}"))?;
        match event {
            Event::Subscribed { channel, epoch, offset, recovered } => {
                let (Some(epoch), Some(offset)) = (epoch, offset) else {
                    return Err(format!("no place in {channel}"));
                };
                self.subscribed(channel, epoch, offset, recovered, on_news);
            }
            Event::Error { code, reason } => return Err(format!("error {code} {reason}")),
            Event::Unsubscribed { reason } => {
                on_news(News::Trouble(format!("unsubscribed: {}", reason.unwrap_or("?"))));
            }
            Event::Other => {}
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        channel: &str,
        epoch: &str,
        offset: u64,
        recovered: Option<bool>,
        on_news: &mut dyn FnMut(News),
    ) {
        let known = if channel == NEWS { self.news.as_ref() } else { self.room.as_ref().map(|it| &it.epoch) };
        let is_broken = known.is_some() && recovered != Some(true);
        if is_broken {
            on_news(News::NotRecovered);
        }
        if channel == NEWS {
            if is_broken && offset > self.heard {
                // What was skipped will not come; the run goes on, and fails at its end.
                on_news(News::Heard { before: self.heard, number: offset, sent_nanos: 0 });
            }
            if self.news.is_none() || is_broken {
                self.heard = offset;
            }
            self.news = Some(epoch.into());
        } else {
            self.room = Some(Place { epoch: epoch.into(), offset });
        }
        self.phase = match self.phase {
            Phase::Subscribing(2) => Phase::Subscribing(1),
            _ => Phase::Live,
        };
    }
}

/// What Linux answers to a connect that does not wait: `EINPROGRESS`.
const IN_PROGRESS: i32 = 115;
