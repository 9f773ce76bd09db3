//! A well-behaved client of the native protocol, driven line by line.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::eventually::PATIENCE;

mod packed;

/// How a client spells what it says: the subprotocol that the gateway has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    Json,
    MessagePack,
}

/// The name of the native protocol in MessagePack.
const MESSAGEPACK: &str = "fanfare.v1.msgpack";

/// What a client hears next.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// An event of the protocol.
    Event(Value),
    /// The end of the connection, with the Close frame if there was one.
    End(Goodbye),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Goodbye {
    /// The code of the Close frame; none when the socket just ended, or the frame was empty.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: String,
    /// The `closing` event before it.
    pub closing: Option<Value>,
}

/// A connected client. It answers pings and Close frames whenever it is listening.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    socket: WebSocketStream<S>,
    spelling: Spelling,
    welcome: Value,
    /// Heard while waiting for something else.
    put_aside: VecDeque<Value>,
    closing: Option<Value>,
    asked: u64,
}

impl Client {
    /// Connects and waits for `welcome`.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("the gateway lets the client in")
    }

    /// The same, but being turned away is an answer: the status of the refusal, or nothing when there was none.
    ///
    /// # Errors
    /// The gateway cannot be reached, refuses, or ends the connection before it has said `welcome`.
    pub async fn try_connect(address: SocketAddr) -> Result<Self, Option<u16>> {
        match TcpStream::connect(address).await {
            Ok(socket) => Self::on(socket, address).await,
            Err(_) => Err(None),
        }
    }

    /// Connects with a token, and waits for `welcome`.
    ///
    /// # Errors
    /// Those of [`Client::try_connect`].
    pub async fn with_token(address: SocketAddr, token: &str) -> Result<Self, Option<u16>> {
        let authorization = format!("Bearer {token}");
        let mut client = Self::knock(address, "/ws", &[("Authorization", &authorization)]).await?;
        client.greeted().await.map(|()| client)
    }

    /// Connects to a path with further headers, and waits for nothing: the gateway may want to hear who this is first. A
    /// subprotocol is offered unless one of the headers does that.
    ///
    /// # Errors
    /// The gateway cannot be reached, or refuses.
    pub async fn knock(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Option<u16>> {
        match TcpStream::connect(address).await {
            Ok(socket) => Self::shake_hands(socket, address, path, headers).await,
            Err(_) => Err(None),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The same over a stream that the caller has made, so with the buffers or the TLS that he wants.
    ///
    /// # Errors
    /// Those of [`Client::try_connect`].
    ///
    /// # Panics
    /// When the gateway does not answer at all.
    pub async fn on(socket: S, address: SocketAddr) -> Result<Self, Option<u16>> {
        let mut client = Self::shake_hands(socket, address, "/ws", &[]).await?;
        client.greeted().await.map(|()| client)
    }

    /// The same with a token.
    ///
    /// # Errors
    /// Those of [`Client::try_connect`].
    ///
    /// # Panics
    /// When the gateway does not answer at all.
    pub async fn on_with_token(socket: S, address: SocketAddr, token: &str) -> Result<Self, Option<u16>> {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", authorization.as_str())];
        let mut client = Self::shake_hands(socket, address, "/ws", &headers).await?;
        client.greeted().await.map(|()| client)
    }

    /// The same in MessagePack, where its events are those of JSON.
    ///
    /// # Errors
    /// Those of [`Client::try_connect`].
    ///
    /// # Panics
    /// When the gateway does not answer at all, or chooses another subprotocol.
    pub async fn packed(socket: S, address: SocketAddr) -> Result<Self, Option<u16>> {
        let offered = [("Sec-WebSocket-Protocol", MESSAGEPACK)];
        let mut client = Self::shake_hands(socket, address, "/ws", &offered).await?;
        assert_eq!(client.spelling, Spelling::MessagePack);
        client.greeted().await.map(|()| client)
    }

    async fn shake_hands(
        socket: S,
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Option<u16>> {
        let url = format!("ws://{address}{path}");
        let mut request = url.into_client_request().expect("an address makes a URL");
        let subprotocol = HeaderValue::from_static("fanfare.v1.json");
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header's value"));
        }
        let handshake = tokio_tungstenite::client_async(request, socket);
        let (socket, response) = match timeout(PATIENCE, handshake).await.expect("the handshake is answered")
        {
            Ok(open) => open,
            Err(Error::Http(response)) => return Err(Some(response.status().as_u16())),
            Err(_) => return Err(None),
        };
        let chosen = response.headers().get("Sec-WebSocket-Protocol");
        let is_packed = chosen.is_some_and(|it| it == MESSAGEPACK);
        Ok(Self::over(socket, if is_packed { Spelling::MessagePack } else { Spelling::Json }))
    }

    /// Speaks WebSocket over a stream whose handshake is over.
    ///
    /// # Errors
    /// Nothing: the connection ends before the gateway has said `welcome`.
    pub async fn speak(stream: S) -> Result<Self, Option<u16>> {
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let mut client = Self::over(socket, Spelling::Json);
        client.greeted().await.map(|()| client)
    }

    fn over(socket: WebSocketStream<S>, spelling: Spelling) -> Self {
        let (put_aside, welcome) = (VecDeque::new(), Value::Null);
        Self { socket, spelling, welcome, put_aside, closing: None, asked: 0 }
    }

    /// Waits for `welcome`.
    ///
    /// # Errors
    /// The connection ends before that.
    ///
    /// # Panics
    /// When something else is said first, or nothing.
    pub async fn greeted(&mut self) -> Result<(), Option<u16>> {
        match self.hear().await {
            Heard::Event(event) => {
                assert_eq!(event["type"], "welcome", "the first word");
                self.welcome = event;
                Ok(())
            }
            Heard::End(_) => Err(None),
        }
    }

    /// The stream that it speaks over.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.socket.into_inner()
    }

    /// The gateway's first word.
    #[must_use]
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// The name of the node that serves this client.
    ///
    /// # Panics
    /// When `welcome` does not tell it.
    #[must_use]
    pub fn node(&self) -> &str {
        self.welcome["node"].as_str().expect("welcome names the node")
    }

    /// Sends a command, or a batch of them.
    ///
    /// # Panics
    /// When the connection has ended.
    pub async fn send(&mut self, command: Value) {
        let message = match self.spelling {
            Spelling::Json => Message::text(command.to_string()),
            Spelling::MessagePack => Message::binary(packed::pack(&command)),
        };
        self.send_frame(message).await.expect("the connection is open");
    }

    /// How many bytes a command has as a message.
    #[must_use]
    pub fn length_of(&self, command: &Value) -> usize {
        match self.spelling {
            Spelling::Json => command.to_string().len(),
            Spelling::MessagePack => packed::pack(command).len(),
        }
    }

    /// Sends any message.
    ///
    /// # Errors
    /// The connection has ended.
    ///
    /// # Panics
    /// When the gateway does not take it in.
    pub async fn send_frame(&mut self, message: Message) -> Result<(), Error> {
        timeout(PATIENCE, self.socket.send(message)).await.expect("the gateway reads")
    }

    /// Sends a command with an id and waits for the answer to it. What else is heard meanwhile is put aside for
    /// [`Client::event`].
    ///
    /// # Panics
    /// When the connection ends before that.
    pub async fn ask(&mut self, mut command: Value) -> Value {
        self.asked += 1;
        let id = json!(self.asked);
        command["id"] = id.clone();
        self.send(command).await;
        loop {
            match self.hear().await {
                Heard::Event(event) if event["id"] == id => return event,
                Heard::Event(event) => self.put_aside.push_back(event),
                Heard::End(goodbye) => panic!("waited for the answer to command {id}, and heard {goodbye:?}"),
            }
        }
    }

    /// Subscribes and waits until it is done.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn subscribe(&mut self, channel: &str) {
        let answer = self.ask(json!({"type": "subscribe", "channel": channel})).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
    }

    /// Publishes and waits until it is done.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn publish(&mut self, channel: &str, data: Value) {
        let answer = self.ask(json!({"type": "publish", "channel": channel, "data": data})).await;
        assert_eq!(answer["type"], "published", "{answer}");
    }

    /// The next event, of whatever type.
    ///
    /// # Panics
    /// When the connection ends, or nothing comes.
    pub async fn event(&mut self) -> Value {
        if let Some(event) = self.put_aside.pop_front() {
            return event;
        }
        match self.hear().await {
            Heard::Event(event) => event,
            Heard::End(goodbye) => panic!("waited for an event and heard {goodbye:?}"),
        }
    }

    /// The next event, which must be a `message` of that channel: its `data`.
    ///
    /// # Panics
    /// When it is anything else.
    pub async fn message(&mut self, channel: &str) -> Value {
        let mut event = self.event().await;
        assert_eq!(event["type"], "message", "{event}");
        assert_eq!(event["channel"], channel, "{event}");
        event["data"].take()
    }

    /// The `data` of the next `count` messages of that channel, nothing else between them.
    ///
    /// # Panics
    /// When anything else is heard.
    pub async fn messages(&mut self, channel: &str, count: usize) -> Vec<Value> {
        let mut data = Vec::with_capacity(count);
        while data.len() < count {
            data.push(self.message(channel).await);
        }
        data
    }

    /// Asserts that nothing waits: the answer to a ping is the next thing heard. What the node has not offered to its
    /// subscribers yet may still come.
    ///
    /// # Panics
    /// When something else comes first.
    pub async fn assert_silence(&mut self) {
        let answer = self.ask(json!({"type": "ping"})).await;
        assert_eq!(answer["type"], "pong", "{answer}");
        assert!(self.put_aside.is_empty(), "heard {:?}", self.put_aside);
    }

    /// Listens until the connection ends, and returns the events before that and how it ended.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn until_closed(&mut self) -> (Vec<Value>, Goodbye) {
        let mut events = Vec::from(std::mem::take(&mut self.put_aside));
        loop {
            match self.hear().await {
                Heard::Event(event) => events.push(event),
                Heard::End(goodbye) => return (events, goodbye),
            }
        }
    }

    /// Listens until the connection ends.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn goodbye(&mut self) -> Goodbye {
        self.until_closed().await.1
    }

    /// Closes with code 1000 and waits for the answer and the end of the socket.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn close(mut self) -> Goodbye {
        let frame = CloseFrame { code: 1000.into(), reason: "done".into() };
        timeout(PATIENCE, self.socket.close(Some(frame)))
            .await
            .expect("the gateway reads")
            .expect("it is open");
        self.goodbye().await
    }

    /// The next thing heard from the socket; the `closing` event is kept for the goodbye.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn hear(&mut self) -> Heard {
        let mut goodbye = Goodbye::default();
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("the gateway has something to say");
            let event: Value = match next {
                Some(Ok(Message::Text(text))) => {
                    assert_eq!(self.spelling, Spelling::Json);
                    serde_json::from_str(text.as_str()).expect("an event is JSON")
                }
                Some(Ok(Message::Binary(bytes))) => {
                    assert_eq!(self.spelling, Spelling::MessagePack);
                    packed::unpack(&bytes)
                }
                Some(Ok(Message::Close(frame))) => {
                    goodbye.code = frame.as_ref().map(|frame| frame.code.into());
                    goodbye.reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    continue;
                }
                Some(Ok(_)) => continue,
                None | Some(Err(_)) => {
                    goodbye.closing = self.closing.take();
                    return Heard::End(goodbye);
                }
            };
            if event["type"] == "closing" {
                self.closing = Some(event);
            } else {
                return Heard::Event(event);
            }
        }
    }
}
