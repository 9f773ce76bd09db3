//! Accepting sockets, shaking hands where TLS is spoken, and speaking HTTP on them until they go, or are upgraded.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfare_metrics::Refusal;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Services, Settings};
use crate::admission::{Drawn, SocketPlace};
use crate::http::{self, Door, Peer};
use crate::proxy::protocol::{self, Introduction};
use crate::tls::{self, Tls};

mod http2;
mod preface;

use preface::Version;

/// Connections that have completed the TCP handshake and wait to be accepted. Each one over that costs its client a
/// second; a reconnect storm brings thousands.
const BACKLOG: u32 = 4096;

/// What the kernel may hold of a socket beyond what is on its way to the peer.
const UNSENT_BYTES: u32 = 16 * 1024;

/// The most bytes in the head of a request.
const HEAD_BYTES: usize = 16 * 1024;

/// The pause after a failed accept: running out of descriptors fails at once, over and over.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a request that was under way when the listeners stop may take to be answered: longer than a call of the
/// server API takes at most, whose broker has a deadline of its own.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// The least time that the head of a request is given, from its first byte on.
const HASTE: Duration = Duration::from_secs(1);

/// Binds an address, ready for a storm.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    socket.listen(BACKLOG)
}

/// Accepts until told to stop.
pub(super) async fn serve(
    door: Door,
    listener: TcpListener,
    services: Arc<Services>,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, peer)) => {
                let settings = services.settings();
                // A peer over the bound is hung up on: there may be no descriptor left to answer it with.
                let Some(place) = services.admission.socket(&settings.limits, &services.metrics) else {
                    continue;
                };
                if let Err(error) = socket.set_nodelay(true) {
                    debug!(%error, "the peer left at once");
                    continue;
                }
                if let Err(error) = bound_silence(&socket, &settings) {
                    debug!(%error, "a peer that acknowledges nothing will be noticed late");
                }
                if let Err(error) = bound_unsent(&socket) {
                    debug!(%error, "a peer that does not read will be noticed late");
                }
                let (services, stop) = (services.clone(), stop.clone());
                let visit = Visit { door, address: peer.ip(), drawn: None, place, services, stop };
                visit.begin(socket, &settings);
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether accepting failed because that one peer has gone already.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// One socket that was accepted.
struct Visit {
    door: Door,
    /// Who is at the other end, as far as the socket tells.
    address: IpAddr,
    /// What the socket has drawn; None where each of its connections is drawn for.
    drawn: Option<Drawn>,
    /// Given back when the socket has gone, or has become a connection, which has a place of its own.
    place: SocketPlace,
    services: Arc<Services>,
    stop: CancellationToken,
}

impl Visit {
    /// Goes on in a task of its own, if it may come in.
    fn begin(mut self, socket: TcpStream, settings: &Settings) {
        let services = self.services.clone();
        if self.door == Door::Public && settings.proxies.introduce(self.address) {
            services.spawn_guarded(self.hear_introduction(socket));
            return;
        }
        if !self.draw(settings) {
            return;
        }
        // Two kinds of tasks, since that of TLS is the larger.
        match settings.tls(self.door) {
            None => services.spawn_guarded(self.converse(socket)),
            Some(tls) => services.spawn_guarded(self.shake_hands(socket, tls.clone())),
        };
    }

    /// Draws for the socket, unless it is a proxy's, which speaks for many; `false` when it is to be hung up on.
    fn draw(&mut self, settings: &Settings) -> bool {
        if self.door == Door::Internal || settings.proxies.include(self.address) {
            return true;
        }
        let Services { admission, metrics, clock, .. } = &*self.services;
        let drawn = admission.draw(self.address, &settings.limits, metrics, clock.moment());
        self.drawn = Some(drawn);
        match drawn {
            Drawn::Welcome | Drawn::Told(_) => true,
            Drawn::Untold(why) => {
                metrics.handshake_refused(why.refusal());
                false
            }
        }
    }

    /// Hears for whom the socket speaks, by the PROXY protocol, and goes on.
    async fn hear_introduction(mut self, mut socket: TcpStream) {
        let settings = self.services.settings();
        let heard = timeout(settings.header_timeout, protocol::read(&mut socket));
        match self.stop.clone().run_until_cancelled_owned(heard).await {
            Some(Ok(Ok(Introduction::Client(client)))) => self.address = client,
            Some(Ok(Ok(Introduction::Itself))) => {}
            Some(Ok(Err(_)) | Err(_)) => {
                return self.services.metrics.handshake_refused(Refusal::BadProxyHeader);
            }
            None => return,
        }
        if !self.draw(&settings) {
            return;
        }
        let tls = settings.tls(self.door).cloned();
        drop(settings);
        // In a box: few listeners have such peers, and no other task need be as large.
        match tls {
            None => Box::pin(self.converse(socket)).await,
            Some(tls) => Box::pin(self.shake_hands(socket, tls)).await,
        }
    }

    /// Shakes hands, then answers requests.
    async fn shake_hands(self, socket: TcpStream, tls: Tls) {
        let stop = self.stop.clone();
        let Some((outcome, stream)) = stop.run_until_cancelled(tls.accept(socket)).await else { return };
        self.services.metrics.tls_handshake(outcome);
        let Some(stream) = stream else { return };
        match stream.get_ref().1.alpn_protocol() {
            // In a box: a task of HTTP/1.1 need not have the size of one of HTTP/2.
            Some(tls::HTTP2) => Box::pin(self.converse_http2(stream)).await,
            _ => {
                let patience = self.services.settings().header_timeout;
                self.converse_http1(stream, patience).await;
            }
        }
    }

    /// Answers requests in clear, in whichever HTTP they are.
    async fn converse(self, socket: TcpStream) {
        let began = Instant::now();
        let patience = self.services.settings().header_timeout;
        let heard = self.stop.clone().run_until_cancelled_owned(timeout(patience, preface::listen(socket)));
        match heard.await {
            Some(Ok(Ok((Version::Http1, stream)))) => {
                // A peer that began late has to be quick.
                let left = patience.saturating_sub(began.elapsed()).max(patience.min(HASTE));
                self.converse_http1(stream, left).await;
            }
            Some(Ok(Ok((Version::Http2, stream)))) => Box::pin(self.converse_http2(stream)).await,
            Some(Err(_)) => self.services.metrics.handshake_refused(Refusal::HeaderTimeout),
            Some(Ok(Err(error))) => debug!(%error, "the peer left without a word"),
            None => {}
        }
    }

    /// Answers requests, the head of each within so much time. An upgrade takes the stream away with it.
    async fn converse_http1(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        patience: Duration,
    ) {
        let Self { door, address, drawn, place, services, stop } = self;
        let peer = Peer::new(address, drawn, &services);
        let greeted = AtomicBool::new(false);
        let service = service_fn(|request| {
            greeted.store(true, Ordering::Relaxed);
            let (services, peer) = (services.clone(), &peer);
            async move { Ok::<_, Infallible>(http::answer(door, peer, request, &services).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let outcome = match stop.run_until_cancelled(connection.as_mut()).await {
            Some(outcome) => outcome,
            None => {
                connection.as_mut().graceful_shutdown();
                // Hyper goes on waiting for a first request; a stopping node does not.
                timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
            }
        };
        drop(place);
        if let Err(error) = outcome {
            // The same timer ends a kept-alive connection that has nothing more to ask: that is nobody's fault.
            if error.is_timeout() && !greeted.load(Ordering::Relaxed) {
                services.metrics.handshake_refused(Refusal::HeaderTimeout);
            }
            debug!(%error, "an HTTP connection ended early");
        }
    }
}

/// Has the kernel end a connection whose peer acknowledges nothing of what it was sent, or makes no room for more of it. A
/// WebSocket is asked for a pong; the other transports have this alone.
fn bound_silence(socket: &TcpStream, settings: &Settings) -> io::Result<()> {
    let heartbeat = settings.policy.heartbeat;
    SockRef::from(socket).set_tcp_user_timeout(Some(heartbeat.interval + heartbeat.timeout))
}

/// Has the kernel take no more than it can send soon: what else waits for a peer that does not read would be megabytes, which
/// no bound of ours knows of and no policy for slow subscribers sees.
fn bound_unsent(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES)
}
