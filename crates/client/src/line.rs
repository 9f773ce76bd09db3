//! One connection: a WebSocket that has been welcomed, with a deadline for everything.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::Ending;
use crate::options::{Options, Target, TokenError};
use crate::wire::{Kind, Said};

/// How long a step of connecting may take, and how long the server may take none of our bytes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest event that is read. The server's own bound on a client's queue is far below it.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most commands in a batch; the server's bound is 128 unless configured.
const BATCH_MAX: usize = 64;

/// Bytes below the WebSocket.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// Why there is no connection, or none any more.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// A close code or an HTTP status, if there was one.
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) next: Next,
}

/// What comes after a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another one, not before this.
    Again(Option<Duration>),
    /// Another one with another token.
    WithAnotherToken,
    /// Nothing.
    End,
}

impl Gone {
    fn because(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into(), next: Next::Again(None) }
    }

    /// A close without a word before it.
    fn closed(code: u16, reason: String) -> Self {
        let next = match code {
            4401 => Next::WithAnotherToken,
            1000 | 1002 | 1003 | 1007 | 1009 | 4400 | 4403 => Next::End,
            _ => Next::Again(None),
        };
        Self { code: Some(code), reason, next }
    }

    fn refused(status: u16, retry_after: Option<Duration>) -> Self {
        let next = match status {
            401 => Next::WithAnotherToken,
            400 | 403 | 426 => Next::End,
            _ => Next::Again(retry_after),
        };
        Self {
            code: Some(status),
            reason: format!("the server refuses the upgrade with status {status}"),
            next,
        }
    }

    /// Nobody makes tokens at the moment.
    pub(crate) fn without_token(error: &TokenError) -> Self {
        Self::because(format!("there is no token: {error}"))
    }

    /// For good.
    pub(crate) fn ending(&self) -> Ending {
        Ending { code: self.code, reason: self.reason.clone() }
    }
}

/// What the server said first.
#[derive(Debug)]
pub(crate) struct Welcome {
    pub(crate) node: String,
    /// When the token ends, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    pub(crate) message_bytes: usize,
    /// What it subscribes the client to by itself.
    pub(crate) channels: Vec<String>,
}

/// An open connection.
pub(crate) struct Line {
    socket: WebSocketStream<Box<dyn Bytes>>,
    /// Silence for so long means that the server is dead: it would have pinged.
    silence: Duration,
    /// When something was last heard.
    heard: Instant,
    message_bytes: usize,
    closing: Option<Gone>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("silence", &self.silence).finish_non_exhaustive()
    }
}

impl Line {
    /// Connects and waits for `welcome`.
    pub(crate) async fn open(
        options: &Options,
        target: &Target,
        token: Option<String>,
    ) -> Result<(Self, Welcome), Gone> {
        let socket = timeout(PATIENCE, upgrade(options, target, token));
        let socket = socket.await.unwrap_or_else(|_| Err(Gone::because("the server does not answer")))?;
        let heard = Instant::now();
        let mut line = Self { socket, silence: PATIENCE, heard, message_bytes: usize::MAX, closing: None };
        let text = line.next().await?;
        let said: Said<'_> = serde_json::from_str(&text).map_err(|_| Gone::because("no welcome"))?;
        if said.kind != Kind::Welcome {
            return Err(Gone::because("the server does not begin with a welcome"));
        }
        line.silence = Duration::from_secs(said.heartbeat.unwrap_or(60)) + PATIENCE;
        line.message_bytes = said.limits.map_or(usize::MAX, |limits| limits.message_bytes);
        let welcome = Welcome {
            node: said.node.unwrap_or_default(),
            expires: said.expires,
            message_bytes: line.message_bytes,
            channels: said.channels.unwrap_or_default(),
        };
        Ok((line, welcome))
    }

    /// Sends commands in their order, as few batches as their bytes allow.
    pub(crate) async fn say(&mut self, commands: &mut Vec<String>) -> Result<(), Gone> {
        let mut commands = commands.drain(..).peekable();
        while let Some(first) = commands.next() {
            let mut batch = first;
            let mut count = 1;
            let fits = |batch: &str, next: &String| batch.len() + next.len() + 3 <= self.message_bytes;
            while count < BATCH_MAX
                && let Some(next) = commands.next_if(|next| fits(&batch, next))
            {
                if count == 1 {
                    batch.insert(0, '[');
                }
                batch.push(',');
                batch.push_str(&next);
                count += 1;
            }
            if count > 1 {
                batch.push(']');
            }
            match timeout(PATIENCE, self.socket.send(Message::text(batch))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.gone(Gone::because(error.to_string()))),
                Err(_) => return Err(self.gone(Gone::because("the server takes nothing"))),
            }
        }
        Ok(())
    }

    /// The next event. Nothing is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) -> Result<Utf8Bytes, Gone> {
        loop {
            let Ok(next) = timeout_at(self.heard + self.silence, self.socket.next()).await else {
                return Err(self.gone(Gone::because("the server is silent")));
            };
            self.heard = Instant::now();
            let gone = match next {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Gone::closed(frame.code.into(), frame.reason.as_str().to_owned())
                }
                Some(Ok(Message::Close(None))) | None => Gone::because("the server closed the connection"),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Gone::because(error.to_string()),
            };
            return Err(self.gone(gone));
        }
    }

    /// Remembers what the server says of the close to come.
    pub(crate) fn is_closing(&mut self, said: &Said<'_>) {
        let mut gone = Gone::closed(said.code.unwrap_or(1000), said.message.clone().unwrap_or_default());
        if said.reconnect == Some(true) {
            gone.next = Next::Again(said.after.map(Duration::from_millis));
        } else if gone.next != Next::WithAnotherToken {
            gone.next = Next::End;
        }
        self.closing = Some(gone);
    }

    /// Says goodbye, as far as the server listens.
    pub(crate) async fn close(mut self) {
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::from_static("normal"),
        };
        let goodbye = async {
            let _ = self.socket.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(Duration::from_secs(2), goodbye).await; // Whoever does not answer has heard it or is dead.
    }

    /// What the server said of the end, or else how it looked.
    fn gone(&mut self, looks: Gone) -> Gone {
        self.closing.take().unwrap_or(looks)
    }
}

async fn upgrade(
    options: &Options,
    target: &Target,
    token: Option<String>,
) -> Result<WebSocketStream<Box<dyn Bytes>>, Gone> {
    let because = |error: std::io::Error| Gone::because(error.to_string());
    let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(because)?;
    socket.set_nodelay(true).map_err(because)?;
    let stream: Box<dyn Bytes> = match &target.tls {
        None => Box::new(socket),
        Some(config) => {
            let name = ServerName::try_from(target.host.clone());
            let name = name.map_err(|_| Gone::because("the host is no name of a server"))?;
            Box::new(TlsConnector::from(config.clone()).connect(name, socket).await.map_err(because)?)
        }
    };
    let request = options.url.as_str().into_client_request();
    let mut request = request.map_err(|error| Gone::because(error.to_string()))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("fanfare.v1.json"));
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Gone {
            code: None,
            reason: "the token has characters that a header cannot have".into(),
            next: Next::WithAnotherToken,
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert("Authorization", value);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(EVENT_BYTES_MAX))
        .max_frame_size(Some(EVENT_BYTES_MAX));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let seconds = answer.headers().get("Retry-After").and_then(|it| it.to_str().ok()?.parse().ok());
            Err(Gone::refused(answer.status().as_u16(), seconds.map(Duration::from_secs)))
        }
        Err(error) => Err(Gone::because(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_back_is_as_the_protocol_has_it() {
        for code in [1000, 1002, 1003, 1007, 1009, 4400, 4403] {
            assert_eq!(Gone::closed(code, String::new()).next, Next::End, "{code}");
        }
        for code in [1001, 1006, 1011, 1013, 4408, 4422, 4429, 4508, 4999] {
            assert_eq!(Gone::closed(code, String::new()).next, Next::Again(None), "{code}");
        }
        assert_eq!(Gone::closed(4401, String::new()).next, Next::WithAnotherToken);
        assert_eq!(Gone::refused(401, None).next, Next::WithAnotherToken);
        assert_eq!(Gone::refused(403, None).next, Next::End);
        let wait = Some(Duration::from_secs(3));
        for status in [404, 429, 502, 503] {
            assert_eq!(Gone::refused(status, wait).next, Next::Again(wait), "{status}");
        }
    }
}
