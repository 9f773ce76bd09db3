//! One Redis server: where it is, how to introduce oneself, and how to reach it.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisConnectionInfo, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::broker::redis::RedisOptionsError;
use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::resp;

/// What begins the URL of a server that speaks TLS.
const SECURE: &str = "rediss://";

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
    #[error("another server is the primary now, or is about to be")]
    Moved,
    #[error("nobody says where the primary is")]
    Unknown,
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a conversation goes over: TCP, or TLS over that.
pub(super) type Socket = Box<dyn Stream>;

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How servers that belong together are spoken to: what they want to hear first, and whether by TLS.
#[derive(Clone)]
pub(super) struct Access {
    settings: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
}

impl Access {
    /// What the `redis` crate wants to know.
    pub(super) fn settings(&self) -> &RedisConnectionInfo {
        &self.settings
    }
}

/// A password has no business in a log.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Where a server is, and how it is spoken to.
#[derive(Clone)]
pub(super) struct Server {
    place: Place,
    access: Access,
}

#[derive(Clone)]
enum Place {
    Fixed(Address),
    /// Whatever Sentinels have last named the primary of this name, or a Redis Cluster the primary of this shard; none while
    /// there is none.
    Elected(Arc<str>, watch::Receiver<Option<Address>>),
}

/// Tells when a connection leads to the wrong server.
#[derive(Debug)]
pub(super) struct Tenure(Option<(Address, watch::Receiver<Option<Address>>)>);

impl Tenure {
    /// Whether another server may take over at all.
    pub(super) fn may_end(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when another server has taken over, or is about to; may be dropped and asked again.
    pub(super) async fn ended(&mut self) {
        let Some((of, found)) = &mut self.0 else { return pending().await };
        if found.wait_for(|now| now.as_ref() != Some(of)).await.is_err() {
            pending::<()>().await; // Nobody asks any more.
        }
    }
}

impl Server {
    /// The one that a URL leads to; where that says `rediss://` it is believed if `tls` says so.
    pub(super) fn new(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Self, RedisOptionsError> {
        let (plain, tls) = match url.strip_prefix(SECURE) {
            // After a # others may say that any certificate will do.
            Some(rest) if rest.contains('#') => return Err(RedisOptionsError::Url),
            Some(rest) => (format!("redis://{rest}"), Some(tls.ok_or(RedisOptionsError::Trust)?.clone())),
            None => (url.to_owned(), None),
        };
        // The parser's own complaint is dropped where it could quote the URL, and with it a password.
        let info = plain.as_str().into_connection_info().map_err(|_| RedisOptionsError::Url)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(RedisOptionsError::Url) };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let place = Place::Fixed(Address { host: host.clone(), port: *port });
        Ok(Self { place, access: Access { settings, tls } })
    }

    /// The one at this address.
    pub(super) fn at(address: Address, access: Access) -> Self {
        Self { place: Place::Fixed(address), access }
    }

    /// The primary of that name, wherever it is.
    pub(super) fn elected(name: &str, found: watch::Receiver<Option<Address>>, access: Access) -> Self {
        Self { place: Place::Elected(name.into(), found), access }
    }

    /// Where it is now, if anybody knows.
    pub(super) fn address(&self) -> Option<Address> {
        match &self.place {
            Place::Fixed(address) => Some(address.clone()),
            Place::Elected(_, found) => found.borrow().clone(),
        }
    }

    /// How it is spoken to.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// What the `redis` crate wants to know.
    pub(super) fn settings(&self) -> &RedisConnectionInfo {
        &self.access.settings
    }

    /// Whether over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.access.tls.is_some()
    }

    /// Appends the words that begin a conversation of our own: RESP3, credentials, a name for CLIENT LIST.
    pub(super) fn write_hello(&self, out: &mut BytesMut, name: &str) {
        let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
        let settings = self.settings();
        if let Some(password) = settings.password() {
            let user = settings.username().unwrap_or("default");
            words.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        words.extend([b"SETNAME", name.as_bytes()]);
        resp::write_command(out, &words);
    }

    /// Asks a few questions on a connection of its own: nothing to keep alive, and nothing to go stale.
    pub(super) async fn ask_once(
        &self,
        settings: &RedisConnectionInfo,
        questions: &Pipeline,
        deadline: Duration,
    ) -> Result<Vec<Value>, Lost> {
        let asking = async {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(deadline));
            let (mut connection, driver) = self.meet(settings, config, deadline).await?;
            tokio::select! {
                () = driver => Err(Lost::Closed),
                answers = connection.send_packed_commands(questions, 0, questions.len()) => {
                    answers.map_err(Lost::Failed)
                }
            }
        };
        timeout(deadline, asking).await.unwrap_or(Err(Lost::Silent(deadline)))
    }

    /// Opens a connection of the `redis` crate, and returns it with the future that moves its bytes.
    pub(super) async fn meet(
        &self,
        settings: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
        deadline: Duration,
    ) -> Result<(MultiplexedConnection, BoxFuture<'static, ()>), Lost> {
        let socket = self.open(deadline).await?;
        let meeting = MultiplexedConnection::new_with_config(settings, socket, config);
        let met = timeout(deadline, meeting).await.map_err(|_| Lost::Silent(deadline))?;
        met.map(|(connection, driver)| (connection, driver.boxed())).map_err(Lost::Failed)
    }

    /// Waits before another attempt, as long as the backoff says; not longer than at first once another server is named than the
    /// one that was `tried`. Connections that each slept on would come back seconds apart, and what one of them makes Redis
    /// tell, another would not hear.
    pub(super) async fn rest(&self, backoff: &mut Backoff, tried: Option<&Address>) {
        if timeout(backoff.next(), self.is_other_than(tried)).await.is_ok() {
            backoff.reset();
            sleep(backoff.next()).await;
        }
    }

    async fn is_other_than(&self, tried: Option<&Address>) {
        let Place::Elected(_, found) = &self.place else { return pending().await };
        let is_other = |now: &Option<Address>| now.is_some() && now.as_ref() != tried;
        if found.clone().wait_for(is_other).await.is_err() {
            pending::<()>().await; // Nobody asks any more.
        }
    }

    /// Opens a socket that sends small writes at once, to where the server is now.
    pub(super) async fn open(&self, deadline: Duration) -> Result<Socket, Lost> {
        self.follow(deadline).await.map(|(socket, _tenure)| socket)
    }

    /// The same for one who wants to know when it no longer leads to the right place.
    pub(super) async fn follow(&self, deadline: Duration) -> Result<(Socket, Tenure), Lost> {
        let (address, tenure) = match &self.place {
            Place::Fixed(address) => (address.clone(), Tenure(None)),
            Place::Elected(_, found) => {
                let address = timeout(deadline, someone(found.clone())).await.ok().flatten();
                let address = address.ok_or(Lost::Unknown)?;
                (address.clone(), Tenure(Some((address, found.clone()))))
            }
        };
        let socket = timeout(deadline, self.dial(&address));
        let socket = socket.await.map_err(|_| Lost::Silent(deadline))?.map_err(Lost::Unreachable)?;
        Ok((socket, tenure))
    }

    /// With TLS the server has to show a certificate for the very name or address that it was found under.
    async fn dial(&self, address: &Address) -> io::Result<Socket> {
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.access.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, socket).await?))
    }
}

/// Waits until it is known who it is; nobody when nobody asks any more.
async fn someone(mut found: watch::Receiver<Option<Address>>) -> Option<Address> {
    found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone())
}

/// Host and port, or the name of what is elected, for logs.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Fixed(address) => address.fmt(f),
            Place::Elected(name, _) => f.write_str(name),
        }
    }
}

/// The same: a password has no business in a log.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn openly() -> Access {
        Access { settings: RedisConnectionInfo::default(), tls: None }
    }

    fn tired() -> Backoff {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            backoff.next();
        }
        backoff
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_sleeps_on_when_another_is_named() {
        let (names, found) = watch::channel(Some(at(1)));
        let server = Server::elected("p", found, openly());
        let first = Backoff::new().bound();
        let mut backoff = tired();
        names.send_replace(Some(at(2)));
        for _ in 0..20 {
            backoff = tired();
            let (before, tried) = (Instant::now(), at(1));
            server.rest(&mut backoff, Some(&tried)).await;
            assert!(before.elapsed() <= first, "{:?}", before.elapsed());
        }
        assert!(backoff.bound() <= 2 * first, "a server that has not been tried is tried as often as any");
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_tried_and_nobody_are_waited_for() {
        let (names, found) = watch::channel(Some(at(1)));
        let server = Server::elected("p", found, openly());
        for named in [Some(at(1)), None] {
            names.send_replace(named);
            let (before, tried) = (Instant::now(), at(1));
            for _ in 0..20 {
                server.rest(&mut tired(), Some(&tried)).await;
            }
            assert!(before.elapsed() > Backoff::new().bound() * 40, "{:?}", before.elapsed());
        }
    }
}
