//! One connection, however it is carried: welcomed, with a deadline for everything.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::Ending;
use crate::http::Http;
use crate::options::{Options, Target, TokenError, Transport};
use crate::socket::Socket;
use crate::wire::{Kind, Said};

/// How long a step of connecting may take, and how long the server may take none of our bytes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The longest event that is read. The server's own bound on a client's queue is far below it.
pub(crate) const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes, with or without TLS below.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// Why there is no connection, or none any more.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// A close code or an HTTP status, if there was one.
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) next: Next,
    /// Somebody is there, and this transport does not get through to the gateway.
    pub(crate) is_blocked: bool,
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
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into(), next: Next::Again(None), is_blocked: false }
    }

    /// As one that another transport may not meet.
    pub(crate) fn blocked(self) -> Self {
        Self { is_blocked: true, ..self }
    }

    /// A close without a word before it.
    pub(crate) fn closed(code: u16, reason: String) -> Self {
        let next = match code {
            4401 => Next::WithAnotherToken,
            1000 | 1002 | 1003 | 1007 | 1009 | 4400 | 4403 => Next::End,
            _ => Next::Again(None),
        };
        Self { code: Some(code), next, ..Self::because(reason) }
    }

    /// An answer that is no success. 429 and those of 500 are the gateway's own, or of a proxy that reaches none: no other transport
    /// would be better off.
    pub(crate) fn refused(status: u16, retry_after: Option<Duration>) -> Self {
        let next = match status {
            401 => Next::WithAnotherToken,
            400 | 403 | 426 => Next::End,
            _ => Next::Again(retry_after),
        };
        let is_blocked = !matches!(status, 401 | 429 | 500..);
        Self {
            code: Some(status),
            next,
            is_blocked,
            ..Self::because(format!("the server answers with status {status}"))
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
    /// Unknown over HTTP, where nobody answers before there are channels.
    pub(crate) node: String,
    /// When the token ends, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    pub(crate) message_bytes: usize,
    /// What it subscribes the client to by itself.
    pub(crate) channels: Vec<String>,
}

/// What carries the conversation.
enum Carrier {
    Socket(Socket),
    Http(Http),
}

/// An open connection.
pub(crate) struct Line {
    carrier: Carrier,
    /// Silence for so long means that the server is dead: it would have been heard.
    silence: Duration,
    /// When something was last heard.
    heard: Instant,
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
        transport: Transport,
        token: Option<String>,
    ) -> Result<(Self, Welcome), Gone> {
        if transport != Transport::WebSocket {
            let http = Http::open(target, transport, token).await?;
            let welcome = Welcome {
                node: String::new(),
                expires: None,
                message_bytes: usize::MAX,
                channels: Vec::new(),
            };
            return Ok((Self::new(Carrier::Http(http)), welcome));
        }
        let socket = Socket::open(options, target, token).await?;
        let mut line = Self::new(Carrier::Socket(socket));
        let text =
            line.next().await.map_err(|gone| if gone.code.is_none() { gone.blocked() } else { gone })?;
        let said: Said<'_> =
            serde_json::from_str(&text).map_err(|_| Gone::because("no welcome").blocked())?;
        if said.kind != Kind::Welcome {
            return Err(Gone::because("the server does not begin with a welcome").blocked());
        }
        line.silence = Duration::from_secs(said.heartbeat.unwrap_or(60)) + PATIENCE;
        let message_bytes = said.limits.map_or(usize::MAX, |limits| limits.message_bytes);
        if let Carrier::Socket(socket) = &mut line.carrier {
            socket.message_bytes = message_bytes;
        }
        let welcome = Welcome {
            node: said.node.unwrap_or_default(),
            expires: said.expires,
            message_bytes,
            channels: said.channels.unwrap_or_default(),
        };
        Ok((line, welcome))
    }

    fn new(carrier: Carrier) -> Self {
        Self { carrier, silence: PATIENCE, heard: Instant::now(), closing: None }
    }

    /// Whether the server was heard over it.
    pub(crate) fn is_proven(&self) -> bool {
        match &self.carrier {
            Carrier::Socket(_) => true, // It was welcomed.
            Carrier::Http(http) => http.is_proven(),
        }
    }

    /// Sends commands in their order.
    pub(crate) async fn say(&mut self, commands: &mut Vec<String>) -> Result<(), Gone> {
        let said = match &mut self.carrier {
            Carrier::Socket(socket) => socket.say(commands).await,
            Carrier::Http(http) => {
                if !commands.is_empty() {
                    self.heard = Instant::now(); // Nobody owes us anything from before.
                }
                http.say(commands)
            }
        };
        said.map_err(|gone| self.gone(gone))
    }

    /// The next event. Nothing is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) -> Result<Utf8Bytes, Gone> {
        loop {
            let next = match &mut self.carrier {
                Carrier::Socket(socket) => timeout_at(self.heard + self.silence, socket.next()).await,
                Carrier::Http(http) => timeout_at(self.heard + http.silence(), http.next()).await,
            };
            match next {
                Err(_) => return Err(self.gone(self.silent())),
                Ok(Err(gone)) => return Err(self.gone(gone)),
                Ok(Ok(text)) => {
                    self.heard = Instant::now();
                    if let Some(text) = text {
                        return Ok(text);
                    }
                }
            }
        }
    }

    /// A response of which nothing has come is held back by somebody until it ends.
    fn silent(&self) -> Gone {
        let silent = Gone::because("the server is silent");
        if self.is_proven() { silent } else { silent.blocked() }
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
    pub(crate) async fn close(self) {
        let goodbye = async {
            match self.carrier {
                Carrier::Socket(socket) => socket.close().await,
                Carrier::Http(http) => http.close().await,
            }
        };
        let _ = timeout(Duration::from_secs(2), goodbye).await; // Whoever does not answer has heard it or is dead.
    }

    /// What the server said of the end, or else how it looked.
    fn gone(&mut self, looks: Gone) -> Gone {
        self.closing.take().unwrap_or(looks)
    }
}

/// A stream of bytes to the server.
pub(crate) async fn connect(target: &Target) -> Result<Box<dyn Bytes>, Gone> {
    let because = |error: std::io::Error| Gone::because(error.to_string());
    let connecting = async {
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(because)?;
        socket.set_nodelay(true).map_err(because)?;
        let Some(config) = &target.tls else { return Ok(Box::new(socket) as Box<dyn Bytes>) };
        let name = ServerName::try_from(target.host.clone());
        let name = name.map_err(|_| Gone::because("the host is no name of a server"))?;
        let stream = TlsConnector::from(config.clone()).connect(name, socket).await.map_err(because)?;
        Ok(Box::new(stream) as Box<dyn Bytes>)
    };
    timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(Gone::because("the server does not answer")))
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

    #[test]
    fn only_what_another_transport_may_not_meet_counts_against_one() {
        for (status, is_blocked) in
            [(400, true), (403, true), (404, true), (200, true), (401, false), (429, false), (503, false)]
        {
            assert_eq!(Gone::refused(status, None).is_blocked, is_blocked, "{status}");
        }
    }
}
