//! The floor: a server that does nothing but move bytes, so that there is something to hold others against.
//!
//! One thread, one `epoll`, no runtime, no task and no timer. A connection is a socket, the number of a channel,
//! and a buffer that is empty unless the socket did not take everything. A publication is framed once, and the
//! same bytes are written to everyone in the channel, up to `--gather` publications in one write: with 1 it is
//! the floor of those that write each message alone, with 8 of those that gather.
//!
//! Deliberately absent: a protocol (`S` and a channel subscribes, `P`, a channel, a space and a payload
//! publishes), a bound on what waits, heartbeats, every check that its one client makes superfluous.

use std::collections::HashMap;
use std::io::{self, Cursor, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

const LISTENER: Token = Token(usize::MAX);
const BACKLOG: i32 = 4096;
const EVENTS_MAX: usize = 1024;
const SCRATCH_BYTES: usize = 256 << 10;
/// What a connection is in that has not subscribed.
const NO_CHANNEL: u32 = u32::MAX;

/// A server without a protocol, as a floor for others.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value = "127.0.0.1:8002", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Publications of a channel that one write may carry
    #[arg(long, default_value_t = 1, value_name = "N")]
    gather: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // As far as the hard limit goes; a lack shows at the client.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let server = Server::listen(arguments.listen, arguments.gather.max(1))?;
    // For whoever asked for port 0.
    writeln!(io::stdout(), "{}", server.listener.local_addr()?)?;
    server.serve()
}

struct Connection {
    socket: TcpStream,
    channel: u32,
    /// The handshake is over.
    open: bool,
    /// What the socket has not taken.
    unsent: Vec<u8>,
}

/// A channel's subscribers, and what waits for them within a turn.
#[derive(Default)]
struct Channel {
    subscribers: Vec<usize>,
    batch: Vec<u8>,
    batched: usize,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    gather: usize,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    names: HashMap<Vec<u8>, u32>,
    channels: Vec<Channel>,
    /// Channels with a batch.
    waiting: Vec<u32>,
    /// Starts of heads and frames whose ends have not arrived.
    carried: HashMap<usize, Vec<u8>>,
}

impl Server {
    fn listen(address: SocketAddr, gather: usize) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into()).with_context(|| format!("cannot bind to {address}"))?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            gather,
            connections: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            channels: Vec::new(),
            waiting: Vec::new(),
            carried: HashMap::new(),
        })
    }

    fn serve(mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut scratch = vec![0; SCRATCH_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(index) => {
                        if event.is_writable() {
                            self.flush(index);
                        }
                        if event.is_readable() {
                            self.read(index, &mut scratch);
                        }
                    }
                }
            }
            for channel in std::mem::take(&mut self.waiting) {
                self.deliver(channel);
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            };
            socket.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(index), interest)?;
            let connection = Connection { socket, channel: NO_CHANNEL, open: false, unsent: Vec::new() };
            self.connections[index] = Some(connection);
        }
    }

    fn close(&mut self, index: usize) {
        let Some(mut connection) = self.connections[index].take() else { return };
        // A socket that is being closed leaves the poll in any case.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        if let Some(channel) = self.channels.get_mut(connection.channel as usize) {
            channel.subscribers.retain(|&subscriber| subscriber != index);
        }
        self.carried.remove(&index);
        self.free.push(index);
    }

    /// Reads until the socket is empty: readiness is told at edges.
    fn read(&mut self, index: usize, scratch: &mut [u8]) {
        while let Some(connection) = &mut self.connections[index] {
            match connection.socket.read(scratch) {
                Ok(0) => self.close(index),
                Ok(count) => {
                    self.take(index, &scratch[..count]);
                    if count < scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.close(index),
            }
        }
    }

    fn take(&mut self, index: usize, bytes: &[u8]) {
        let mut whole = self.carried.remove(&index).unwrap_or_default();
        whole.extend_from_slice(bytes);
        let mut rest = whole.as_mut_slice();
        while let Some(connection) = &mut self.connections[index] {
            let taken = match connection.open {
                false => connection.greet(rest),
                true => self.hear(index, rest),
            };
            if taken == 0 {
                break;
            }
            rest = &mut rest[taken..];
        }
        if !rest.is_empty() && self.connections[index].is_some() {
            self.carried.insert(index, rest.to_vec());
        }
    }

    /// Takes one frame from the start of `bytes`; returns its length, 0 while it is not whole.
    fn hear(&mut self, index: usize, bytes: &mut [u8]) -> usize {
        let mut cursor = Cursor::new(&*bytes);
        let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else { return 0 };
        let start = cursor.position() as usize;
        let end = start + length as usize;
        let Some(payload) = bytes.get_mut(start..end) else { return 0 };
        let mask = header.mask.unwrap_or_default();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        match payload {
            [b'S', channel @ ..] => self.subscribe(index, channel),
            [b'P', publication @ ..] => self.publish(publication),
            _ => self.close(index),
        }
        end
    }

    fn channel(&mut self, name: &[u8]) -> u32 {
        if let Some(&channel) = self.names.get(name) {
            return channel;
        }
        let channel = u32::try_from(self.channels.len()).expect("fewer channels than connections");
        self.names.insert(name.to_vec(), channel);
        self.channels.push(Channel::default());
        channel
    }

    fn subscribe(&mut self, index: usize, name: &[u8]) {
        let channel = self.channel(name);
        self.channels[channel as usize].subscribers.push(index);
        if let Some(connection) = &mut self.connections[index] {
            connection.channel = channel;
            if connection.write(b"\x81\x01S").is_err() {
                self.close(index);
            }
        }
    }

    fn publish(&mut self, publication: &[u8]) {
        let split = publication.iter().position(|&byte| byte == b' ').unwrap_or(0);
        let number = self.channel(&publication[..split]);
        let payload = &publication[split + 1..];
        let channel = &mut self.channels[number as usize];
        let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut channel.batch).expect("a Vec takes everything");
        channel.batch.extend_from_slice(payload);
        channel.batched += 1;
        if channel.batched == self.gather {
            self.deliver(number);
        } else if channel.batched == 1 {
            self.waiting.push(number);
        }
    }

    fn deliver(&mut self, number: u32) {
        let channel = &mut self.channels[number as usize];
        let (batch, subscribers) =
            (std::mem::take(&mut channel.batch), std::mem::take(&mut channel.subscribers));
        channel.batched = 0;
        let mut dead = Vec::new();
        for &index in &subscribers {
            if let Some(connection) = &mut self.connections[index]
                && connection.write(&batch).is_err()
            {
                dead.push(index);
            }
        }
        let channel = &mut self.channels[number as usize];
        channel.subscribers = subscribers;
        channel.batch = batch;
        channel.batch.clear();
        dead.into_iter().for_each(|index| self.close(index));
    }

    fn flush(&mut self, index: usize) {
        if let Some(connection) = &mut self.connections[index]
            && !connection.unsent.is_empty()
        {
            let unsent = std::mem::take(&mut connection.unsent);
            if connection.write(&unsent).is_err() {
                self.close(index);
            }
        }
    }
}

impl Connection {
    /// Answers the handshake at the start of `bytes`; returns its length, 0 while it is not whole.
    fn greet(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return 0 };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let key = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            .map_or("", |(_, value)| value.trim());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.open = true;
        // A peer that is gone is found at the next read.
        let _ = self.write(answer.as_bytes());
        end + 4
    }

    /// Writes what the socket takes, after what it has not taken before, and keeps the rest.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }
}
