//! A client that hears channels over one of the transports, and comes back as clients of that transport do.
//!
//! A transport gets its row here: how it is opened, what it says next, and what its client remembers when it is cut.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use fanfare_testbed::http::{self, Response};
use fanfare_testbed::{Client, End, EventStream, Heard, Http2, LineStream, http2};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

/// The transports that must not differ in what is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    WebSocket,
    /// A WebSocket that speaks MessagePack.
    Packed,
    /// A WebSocket in a stream of HTTP/2 (RFC 8441).
    Http2,
    Events,
    Lines,
    Poll,
}

impl Row {
    pub(super) const ALL: [Self; 6] =
        [Self::WebSocket, Self::Packed, Self::Http2, Self::Events, Self::Lines, Self::Poll];

    /// Those that hold a connection over which messages come.
    pub(super) const LASTING: [Self; 5] =
        [Self::WebSocket, Self::Packed, Self::Http2, Self::Events, Self::Lines];

    /// Whether commands are said in the conversation, each with an answer of its own.
    pub(super) const fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::Packed | Self::Http2)
    }

    fn path(self) -> &'static str {
        match self {
            Self::WebSocket | Self::Packed | Self::Http2 => "/ws",
            Self::Events => "/sse",
            Self::Lines => "/stream",
            Self::Poll => "/poll",
        }
    }

    /// Publishes in the way that clients of this transport have, and returns the answer.
    pub(super) async fn publish(self, address: SocketAddr, channel: &str, data: Value) -> Value {
        if self.is_websocket() {
            let command = json!({"type": "publish", "channel": channel, "data": data});
            let socket = TcpStream::connect(address).await.expect("the gateway listens");
            let mut answer = match self {
                Self::Http2 => Http2::over(socket, address).await.websocket().await.ask(command).await,
                Self::Packed => {
                    Client::packed(socket, address).await.expect("it is let in").ask(command).await
                }
                _ => Client::on(socket, address).await.expect("it is let in").ask(command).await,
            };
            answer.as_object_mut().expect("an event").remove("id");
            return answer;
        }
        let body = json!({"channel": channel, "data": data}).to_string();
        http::post(address, "/publish", &[], &body).await.json()
    }
}

/// Why a transport did not let its client in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Before anything else was said.
    Status(u16),
    /// By an error object.
    Code(u64),
}

/// See the [module's note](self).
pub(super) struct Ear {
    row: Row,
    address: SocketAddr,
    channels: Vec<String>,
    line: Line,
    /// Epoch and offset by channel, for transports whose clients remember them.
    places: HashMap<String, (String, u64)>,
    /// What the transport itself has said is to be remembered.
    cursor: String,
    /// A poll that was answered goes on with the next one, whose `subscribed` says nothing new.
    is_going_on: bool,
    /// Read ahead.
    waiting: VecDeque<Value>,
}

enum Line {
    Socket(Box<Client>),
    /// The socket lives as long as its one stream.
    Stream(Box<(Client<http2::Stream>, Http2)>),
    Events(EventStream),
    Lines(LineStream),
    Polls,
    None,
}

impl Ear {
    pub(super) async fn open(row: Row, address: SocketAddr, channels: &[&str]) -> Result<Self, Refused> {
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        Self::open_on(socket, row, address, channels).await
    }

    /// One whose kernel takes next to nothing ahead.
    pub(super) async fn narrow(row: Row, address: SocketAddr, channels: &[&str]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket option");
        let socket = socket.connect(address).await.expect("the gateway listens");
        Self::open_on(socket, row, address, channels).await.expect("the gateway lets it in")
    }

    async fn open_on(
        socket: TcpStream,
        row: Row,
        address: SocketAddr,
        channels: &[&str],
    ) -> Result<Self, Refused> {
        let channels = channels.iter().map(|&it| it.to_owned()).collect();
        let (line, places, cursor, waiting) = (Line::None, HashMap::new(), String::new(), VecDeque::new());
        let mut ear = Self { row, address, channels, line, places, cursor, is_going_on: false, waiting };
        ear.connect(socket).await?;
        Ok(ear)
    }

    /// The connection is cut, from one byte to the next.
    pub(super) fn cut(&mut self) {
        self.line = Line::None;
        // The answer to a poll comes whole or not at all, and what has come is the client's.
        if self.row != Row::Poll {
            self.waiting.clear();
        }
    }

    /// Comes back to where it was, on a node that may be another one.
    pub(super) async fn come_back(&mut self, address: SocketAddr) {
        self.address = address;
        self.is_going_on = false;
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        self.connect(socket).await.expect("the gateway lets it in again");
    }

    async fn connect(&mut self, socket: TcpStream) -> Result<(), Refused> {
        match self.row {
            Row::WebSocket | Row::Packed | Row::Http2 => {
                self.line = self.open_websocket(socket).await?;
                let commands: Vec<_> = self.channels.iter().map(|it| self.subscribe(it)).collect();
                for command in commands {
                    match &mut self.line {
                        Line::Socket(client) => client.send(command).await,
                        Line::Stream(stream) => stream.0.send(command).await,
                        Line::Events(_) | Line::Lines(_) | Line::Polls | Line::None => unreachable!(),
                    }
                }
                // A WebSocket refuses in the conversation what the others refuse before it.
                let first = self.hear().await;
                if first["type"] == "error" {
                    return Err(Refused::Code(first["code"].as_u64().expect("a code")));
                }
                self.waiting.push_front(first);
            }
            Row::Events => {
                let events =
                    EventStream::on(socket, &self.path(""), &self.cursor).await.map_err(|it| refused(&it))?;
                self.line = Line::Events(events);
                assert_eq!(self.hear().await["type"], "welcome");
            }
            Row::Lines => {
                let since = self.since();
                let lines =
                    LineStream::on(socket, &self.path(&since), &[]).await.map_err(|it| refused(&it))?;
                assert_eq!(lines.head().header("Content-Type"), Some("application/x-ndjson"));
                self.line = Line::Lines(lines);
                assert_eq!(self.hear().await["type"], "welcome");
            }
            Row::Poll => {
                self.line = Line::Polls;
                // What has come and was not heard yet may be the last there is.
                if self.waiting.is_empty() {
                    self.poll(socket).await?;
                }
            }
        }
        Ok(())
    }

    async fn open_websocket(&self, socket: TcpStream) -> Result<Line, Refused> {
        let status = |status: Option<u16>| Refused::Status(status.expect("a refusal has a status"));
        Ok(match self.row {
            Row::Http2 => {
                let mut http2 = Http2::over(socket, self.address).await;
                let opened = http2.open(http2.handshake()).await;
                let (_, stream) = opened.map_err(|answer| Refused::Status(answer.status().as_u16()))?;
                let client = Client::speak(stream).await.expect("the gateway greets");
                Line::Stream(Box::new((client, http2)))
            }
            Row::Packed => {
                Line::Socket(Box::new(Client::packed(socket, self.address).await.map_err(status)?))
            }
            _ => Line::Socket(Box::new(Client::on(socket, self.address).await.map_err(status)?)),
        })
    }

    fn subscribe(&self, channel: &str) -> Value {
        let mut command = json!({"type": "subscribe", "channel": channel});
        if let Some((epoch, offset)) = self.places.get(channel) {
            command["since"] = json!({"epoch": epoch, "offset": offset});
        }
        command
    }

    /// An event of a WebSocket; of its end, what was told before the Close.
    fn heard(&mut self, heard: Heard) -> Value {
        match heard {
            Heard::Event(event) => event,
            Heard::End(goodbye) => {
                let closing = goodbye.closing.expect("told before the Close");
                assert_eq!(goodbye.code.map(u64::from), closing["code"].as_u64());
                self.waiting.push_back(Value::Null);
                closing
            }
        }
    }

    /// The next event; `null` at an end as it ought to be.
    pub(super) async fn hear(&mut self) -> Value {
        let event = loop {
            if let Some(event) = self.waiting.pop_front() {
                break event;
            }
            let heard = match &mut self.line {
                Line::Socket(client) => {
                    let heard = client.hear().await;
                    Ok(self.heard(heard))
                }
                Line::Stream(stream) => {
                    let heard = stream.0.hear().await;
                    Ok(self.heard(heard))
                }
                Line::Events(events) => events.next().await,
                Line::Lines(lines) => lines.json().await,
                Line::Polls => {
                    let socket = TcpStream::connect(self.address).await.expect("the gateway listens");
                    self.poll(socket).await.expect("a poll is answered");
                    continue;
                }
                Line::None => panic!("the connection was cut"),
            };
            break match heard {
                Ok(event) => event,
                Err(End::Complete) => Value::Null,
                Err(End::Cut) => panic!("the socket ended in the middle"),
            };
        };
        self.remember(&event);
        event
    }

    /// What a client keeps of an event, by the rule of `docs/protocol.md`.
    fn remember(&mut self, event: &Value) {
        if let Line::Events(events) = &self.line {
            events.last_event_id().clone_into(&mut self.cursor);
            if event["type"] == "closing" {
                let retry = events.retry().expect("a wait is named").as_millis();
                assert_eq!(Some(retry), event["after"].as_u64().map(u128::from), "the browser waits as told");
            }
        }
        let Some(channel) = event["channel"].as_str() else { return };
        let offset = event["offset"].as_u64().unwrap_or_default();
        match event["type"].as_str() {
            Some("subscribed") => {
                let epoch = event["epoch"].as_str().unwrap_or("-").to_owned();
                let place = self.places.entry(channel.to_owned()).or_insert((epoch.clone(), offset));
                let offset = if event["recovered"] == true { place.1 } else { offset };
                *place = (epoch, offset);
            }
            Some("message") => {
                if let Some(place) = self.places.get_mut(channel) {
                    place.1 = offset;
                }
            }
            _ => {}
        }
    }

    async fn poll(&mut self, mut socket: TcpStream) -> Result<(), Refused> {
        use tokio::io::AsyncWriteExt;
        let request = format!("GET {} HTTP/1.1\r\nHost: fanfare\r\n\r\n", self.path(&self.cursor));
        socket.write_all(request.as_bytes()).await.expect("the gateway reads");
        let answer = http::read_response(&mut socket).await.expect("the gateway answers");
        if answer.status != 200 {
            return Err(refused(&answer));
        }
        let answer = answer.json();
        answer["since"].as_str().expect("a cursor").clone_into(&mut self.cursor);
        let mut is_over = false;
        for event in answer["events"].as_array().expect("events") {
            is_over |= event["type"] == "closing";
            if !(self.is_going_on && event["type"] == "subscribed" && event["recovered"] == true) {
                self.waiting.push_back(event.clone());
            }
        }
        if is_over {
            self.waiting.push_back(Value::Null);
        }
        self.is_going_on = true;
        Ok(())
    }

    /// The cursor that a client makes of the places it remembers.
    fn since(&self) -> String {
        let place = |channel: &String| {
            self.places.get(channel).map_or("-".to_owned(), |(epoch, offset)| format!("{epoch}:{offset}"))
        };
        if self.places.is_empty() {
            return String::new();
        }
        self.channels.iter().map(place).collect::<Vec<_>>().join(",")
    }

    fn path(&self, since: &str) -> String {
        let channels: Vec<_> = self.channels.iter().map(|it| format!("channel={it}")).collect();
        let since = if since.is_empty() { String::new() } else { format!("&since={since}") };
        format!("{}?{}{since}", self.row.path(), channels.join("&"))
    }
}

fn refused(answer: &Response) -> Refused {
    match answer.json()["code"].as_u64() {
        // Nothing but a status is said to a handshake that comes too early.
        Some(4503) => {
            assert_eq!(answer.header("Retry-After"), Some("5"));
            Refused::Status(answer.status)
        }
        Some(code) => {
            assert_eq!(u64::from(answer.status) + 4000, code);
            Refused::Code(code)
        }
        None => Refused::Status(answer.status),
    }
}
