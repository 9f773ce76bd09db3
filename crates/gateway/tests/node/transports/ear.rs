//! A client that hears channels over one of the transports, and comes back as clients of that transport do.
//!
//! A transport gets its row here: how it is opened, what it says next, and what its client remembers when it is cut.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use fanfare_gateway::node::Node;
use fanfare_testbed::authority::GOOD;
use fanfare_testbed::http::{self, Response};
use fanfare_testbed::{Authority, Client, Deflated, End, EventStream, Heard, Http2, LineStream};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::node;
use crate::tls::connect_over;

/// The transports that must not differ in what is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    WebSocket,
    /// A WebSocket that has agreed on compression, and compresses whatever it says.
    Deflated,
    /// A WebSocket that speaks MessagePack.
    Packed,
    /// A WebSocket in a stream of HTTP/2 (RFC 8441), in clear.
    Http2,
    /// The same over TLS, which has agreed on HTTP/2.
    Http2Tls,
    Events,
    Lines,
    Poll,
}

impl Row {
    pub(super) const ALL: [Self; 8] = [
        Self::WebSocket,
        Self::Deflated,
        Self::Packed,
        Self::Http2,
        Self::Http2Tls,
        Self::Events,
        Self::Lines,
        Self::Poll,
    ];

    /// Those that hold a connection over which messages come.
    pub(super) fn lasting() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|&row| row != Self::Poll)
    }

    /// As `docs/conformance.md` has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Deflated => "WebSocket, compressed",
            Self::Packed => "WebSocket, MessagePack",
            Self::Http2 => "WebSocket over HTTP/2, in clear",
            Self::Http2Tls => "WebSocket over HTTP/2, TLS",
            Self::Events => "SSE",
            Self::Lines => "HTTP streaming",
            Self::Poll => "long polling",
        }
    }

    /// Whether commands are said in the conversation, each with an answer of its own.
    pub(super) const fn is_websocket(self) -> bool {
        !matches!(self, Self::Events | Self::Lines | Self::Poll)
    }

    /// Whether it is one that a proxy of HTTP/1.1 in clear carries.
    pub(super) const fn is_http1(self) -> bool {
        !matches!(self, Self::Http2 | Self::Http2Tls)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Events => "/sse",
            Self::Lines => "/stream",
            Self::Poll => "/poll",
            _ => "/ws",
        }
    }

    /// What a node is configured by so that this transport is served, and messages are compressed where that was agreed on.
    pub(super) fn settings(self, text: &str) -> String {
        let tls =
            if self == Self::Http2Tls { TRUSTED.issue("node", GOOD).settings("tls") } else { String::new() };
        format!("[compression]\nthreshold_bytes = 0\n{tls}\n{text}")
    }

    /// A node configured by this text, which serves this transport.
    pub(super) async fn node(self, text: &str) -> Node {
        node(&self.settings(text)).await
    }

    /// Publishes in the way that clients of this transport have, and returns the answer.
    pub(super) async fn publish(self, address: SocketAddr, channel: &str, data: Value) -> Value {
        self.publish_bytes(address, channel, data, 0).await.expect("the conversation goes on")
    }

    /// The same by a message that is filled up to so many bytes, as this transport counts them.
    ///
    /// # Errors
    /// The code by which the conversation was closed over it.
    pub(super) async fn publish_bytes(
        self,
        address: SocketAddr,
        channel: &str,
        data: Value,
        bytes: usize,
    ) -> Result<Value, u16> {
        let mut command = json!({"type": "publish", "id": 7, "channel": channel, "data": data});
        let mut client = None;
        if self.is_websocket() {
            let socket = TcpStream::connect(address).await.expect("the gateway listens");
            client = Some(self.websocket(socket, address).await.expect("it is let in"));
        }
        let length = |command: &Value| {
            client.as_ref().map_or(command.to_string().len(), |it| it.client.length_of(command))
        };
        let lacking = bytes.saturating_sub(length(&command));
        if lacking > 0 {
            // What a field and its header take is found by having it there.
            command["filling"] = json!("x".repeat(lacking));
            let over = length(&command) - bytes;
            command["filling"] = json!("x".repeat(lacking - over));
            assert_eq!(
                length(&command),
                bytes,
                "a header that varies with the length would make it another one"
            );
        }
        let mut answer = match &mut client {
            Some(websocket) => {
                websocket.client.send(command).await;
                match websocket.client.hear().await {
                    Heard::Event(event) => event,
                    Heard::End(goodbye) => return Err(goodbye.code.expect("a Close with a code")),
                }
            }
            None => {
                let answer = http::post(address, "/publish", &[], &command.to_string()).await;
                assert_eq!(answer.status == 200, answer.json()["type"] == "published");
                answer.json()
            }
        };
        let id = answer.as_object_mut().expect("an event").remove("id");
        // Of what is too long the id is not read either.
        assert!(id == Some(json!(7)) || answer["code"] == 4413, "{answer}");
        Ok(answer)
    }

    /// A WebSocket of this kind that has heard `welcome`.
    ///
    /// # Errors
    /// The status of the refusal.
    async fn websocket(self, socket: TcpStream, address: SocketAddr) -> Result<WebSocket, Option<u16>> {
        let mut compressed = None;
        let (client, http2) = match self {
            Self::Http2 | Self::Http2Tls => {
                let mut http2 = match self {
                    Self::Http2 => Http2::over(socket, address).await,
                    _ => {
                        let config = Arc::new(TRUSTED.client(&["h2"], None));
                        let stream = connect_over(socket, &config).await.expect("the hands are shaken");
                        Http2::over(stream, address).await
                    }
                };
                let opened = http2.open(http2.handshake()).await;
                let (_, stream) = opened.map_err(|answer| Some(answer.status().as_u16()))?;
                (Client::speak(Box::new(stream) as Wire).await?, Some(http2))
            }
            Self::Deflated => {
                let (stream, heard) = Deflated::shake_hands(socket).await?;
                compressed = Some(heard);
                (Client::speak(Box::new(stream) as Wire).await?, None)
            }
            Self::Packed => (Client::packed(Box::new(socket) as Wire, address).await?, None),
            _ => (Client::on(Box::new(socket) as Wire, address).await?, None),
        };
        Ok(WebSocket { client, compressed, _http2: http2 })
    }
}

/// Who signs for the nodes of this process.
static TRUSTED: LazyLock<Authority> = LazyLock::new(Authority::new);

/// Whatever a WebSocket goes over.
type Wire = Box<dyn Stream>;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct WebSocket {
    client: Client<Wire>,
    /// How many compressed messages it has heard, where that was agreed on.
    compressed: Option<Arc<AtomicUsize>>,
    /// The socket lives as long as its one stream.
    _http2: Option<Http2>,
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
    WebSocket(Box<WebSocket>),
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
            Row::WebSocket | Row::Deflated | Row::Packed | Row::Http2 | Row::Http2Tls => {
                let status = |status: Option<u16>| Refused::Status(status.expect("a refusal has a status"));
                let mut websocket = self.row.websocket(socket, self.address).await.map_err(status)?;
                for channel in &self.channels {
                    websocket.client.send(self.subscribe(channel)).await;
                }
                self.line = Line::WebSocket(Box::new(websocket));
                // A WebSocket refuses in the conversation what the others refuse before it.
                let mut heard = VecDeque::new();
                for _ in 0..self.channels.len() {
                    let event = self.next().await;
                    if event["type"] == "error" {
                        return Err(Refused::Code(event["code"].as_u64().expect("a code")));
                    }
                    heard.push_back(event);
                }
                heard.append(&mut self.waiting);
                self.waiting = heard;
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

    /// How many compressed messages have come, where compression was agreed on.
    pub(super) fn compressed(&self) -> Option<usize> {
        let Line::WebSocket(websocket) = &self.line else { return None };
        websocket.compressed.as_ref().map(|heard| heard.load(Ordering::Relaxed))
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
        let event = self.next().await;
        self.remember(&event);
        event
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                break event;
            }
            let heard = match &mut self.line {
                Line::WebSocket(websocket) => {
                    let heard = websocket.client.hear().await;
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
        }
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
