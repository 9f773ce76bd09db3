//! A client's WebSocket: what is said and heard, with a deadline for everything.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::follow::Position;
use crate::stamp::Stamp;

/// How long a client waits to be let in, or for its bytes to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client hears.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first word.
    Welcome {
        /// Who serves.
        node: String,
        /// Who is served.
        session: String,
        /// Seconds between its pings.
        heartbeat: u64,
    },
    /// A channel is live.
    Subscribed {
        channel: String,
        epoch: Option<String>,
        offset: Option<u64>,
        #[serde(default)]
        recovered: bool,
    },
    /// A channel is silent.
    Unsubscribed { channel: String, code: Option<u16> },
    /// A publication.
    Message {
        channel: String,
        data: Stamp,
        offset: Option<u64>,
        #[serde(default)]
        recovered: bool,
    },
    /// A publication was accepted.
    Published { id: Option<u64>, epoch: Option<String>, offset: Option<u64> },
    /// A command was refused.
    Error { id: Option<u64>, channel: Option<String>, code: u16, retry_after: Option<u64> },
    /// The end is near.
    Closing { code: u16, reconnect: bool, after: Option<u64> },
    /// Not of interest.
    #[serde(other)]
    Other,
}

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub(crate) struct Gone {
    /// How it ended, in a word: a close code, a status, or what the socket said.
    pub(crate) how: String,
    /// How long the server asks to wait.
    pub(crate) after: Option<Duration>,
}

impl Gone {
    fn because(how: impl Into<String>) -> Self {
        Self { how: how.into(), after: None }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Who serves.
    pub(crate) node: String,
    /// What the server calls this connection.
    pub(crate) session: String,
    /// Silence after which the server is taken for dead: it would have pinged.
    silence: Duration,
    closing: Option<Gone>,
}

impl Socket {
    /// Connects and waits for `welcome`.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Gone> {
        match timeout(PATIENCE, Self::shake_hands(address)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Gone::because("handshake timeout")),
        }
    }

    async fn shake_hands(address: SocketAddr) -> Result<Self, Gone> {
        let socket = TcpStream::connect(address).await.map_err(|error| Gone::because(word(&error)))?;
        let _ = socket.set_nodelay(true);
        let mut request = format!("ws://{address}/ws").into_client_request().expect("an address makes a URL");
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("fanfare.v1.json"));
        let stream = match tokio_tungstenite::client_async(request, socket).await {
            Ok((stream, _)) => stream,
            Err(Error::Http(response)) => {
                let seconds =
                    response.headers().get("Retry-After").and_then(|it| it.to_str().ok()?.parse().ok());
                let how = format!("status {}", response.status().as_u16());
                return Err(Gone { how, after: seconds.map(Duration::from_secs) });
            }
            Err(error) => return Err(Gone::because(how(&error))),
        };
        let (node, session) = (String::new(), String::new());
        let mut socket = Self { stream, node, session, silence: PATIENCE, closing: None };
        match socket.hear().await? {
            Event::Welcome { node, session, heartbeat } => {
                (socket.node, socket.session) = (node, session);
                socket.silence = Duration::from_secs(heartbeat) + PATIENCE;
                Ok(socket)
            }
            other => Err(Gone::because(format!("first word {other:?}"))),
        }
    }

    /// Sends a command.
    pub(crate) async fn say(&mut self, command: &Value) -> Result<(), Gone> {
        match timeout(PATIENCE, self.stream.send(Message::text(command.to_string()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.gone(&how(&error))),
            Err(_) => Err(self.gone("write timeout")),
        }
    }

    /// Waits for the next event. Safe to drop halfway.
    pub(crate) async fn hear(&mut self) -> Result<Event, Gone> {
        loop {
            let Ok(next) = timeout(self.silence, self.stream.next()).await else {
                return Err(self.gone("silence"));
            };
            match next {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(text.as_str()) {
                    Ok(Event::Closing { code, reconnect, after }) => {
                        let how = if reconnect { format!("{code}") } else { format!("{code} for good") };
                        self.closing = Some(Gone { how, after: after.map(Duration::from_millis) });
                    }
                    Ok(event) => return Ok(event),
                    Err(error) => return Err(self.gone(&format!("not understood: {error}: {text}"))),
                },
                Some(Ok(Message::Close(frame))) => {
                    let how = frame.map_or_else(|| "close".into(), |frame| u16::from(frame.code).to_string());
                    return Err(self.gone(&how));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.gone(&how(&error))),
                None => return Err(self.gone("end")),
            }
        }
    }

    /// What the server said of the end, or else how it looked.
    fn gone(&mut self, how: &str) -> Gone {
        self.closing.take().unwrap_or_else(|| Gone::because(how))
    }
}

/// The place that an event names.
pub(crate) fn position(epoch: Option<String>, offset: Option<u64>) -> Option<Position> {
    Some(Position { epoch: epoch?, offset: offset? })
}

fn how(error: &Error) -> String {
    match error {
        Error::Io(error) => word(error),
        Error::ConnectionClosed | Error::AlreadyClosed => "end".into(),
        // Without a close frame, that is.
        Error::Protocol(_) => "reset".into(),
        other => other.to_string(),
    }
}

fn word(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    match error.kind() {
        ConnectionReset | BrokenPipe | UnexpectedEof => "reset".into(),
        ConnectionRefused => "refused".into(),
        _ => error.to_string(),
    }
}

/// When to try again after so many failures in a row: at random, up to twice as late each time.
pub(crate) fn backoff(random: &mut fastrand::Rng, failures: u32) -> Duration {
    const FIRST: u64 = 200;
    const MOST: u64 = 3000;
    Duration::from_millis(random.u64(0..=(FIRST << failures.min(8)).min(MOST)))
}
