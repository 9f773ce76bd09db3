//! One Redis server: where it is, how to introduce oneself, and how to reach it.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use redis::{ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::broker::redis::RedisOptionsError;
use crate::broker::redis::resp;

/// Why a connection is no more, or never was. Goes to the log and to callers, and holds no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("redis cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("redis refuses to work: {0}")]
    Refused(String),
    #[error("redis has been silent for {0:?}")]
    Silent(Duration),
    #[error("redis closed the connection")]
    Closed,
    #[error("the connection to redis broke: {0}")]
    Broken(#[source] io::Error),
    #[error("redis is not understood: {0}")]
    NotUnderstood(&'static str),
    #[error("redis failed: {0}")]
    Failed(#[source] redis::RedisError),
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Where a server is and what it wants to hear first.
#[derive(Clone)]
pub(super) struct Server {
    host: String,
    port: u16,
    settings: RedisConnectionInfo,
}

impl Server {
    pub(super) fn new(info: &ConnectionInfo) -> Result<Self, RedisOptionsError> {
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(RedisOptionsError::Url) };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(Self { host: host.clone(), port: *port, settings })
    }

    /// What the `redis` crate wants to know.
    pub(super) fn settings(&self) -> &RedisConnectionInfo {
        &self.settings
    }

    /// Appends the words that begin a conversation of our own: RESP3, credentials, a name for CLIENT LIST.
    pub(super) fn write_hello(&self, out: &mut BytesMut, name: &str) {
        let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = self.settings.password() {
            let user = self.settings.username().unwrap_or("default");
            words.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        words.extend([b"SETNAME", name.as_bytes()]);
        resp::write_command(out, &words);
    }

    /// Opens a socket that sends small writes at once.
    pub(super) async fn open(&self, deadline: Duration) -> Result<TcpStream, Lost> {
        let socket = timeout(deadline, TcpStream::connect((self.host.as_str(), self.port)));
        let socket = socket.await.map_err(|_| Lost::Silent(deadline))?.map_err(Lost::Unreachable)?;
        socket.set_nodelay(true).map_err(Lost::Unreachable)?;
        Ok(socket)
    }
}

/// Host and port, for logs.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The same: a password has no business in a log.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}
