//! HTTP/2 on one stream of bytes: many requests at once, WebSockets among them (RFC 8441).
//!
//! One peer may have many streams, so everything is bounded twice, per stream and per socket:
//!
//! | what a peer may do | bound |
//! | --- | --- |
//! | open streams | `limits.streams` at once; more are refused, with REFUSED_STREAM |
//! | open and reset streams, over and over (CVE-2023-44487) | [`RESETS_PENDING`], then GOAWAY with ENHANCE_YOUR_CALM |
//! | send what nobody reads | [`STREAM_WINDOW`] and [`SOCKET_WINDOW`]: flow control stops it there |
//! | not read what it is sent | [`UNSENT_BYTES`] a stream; what else waits is in the outbox, where policy sees it |
//! | send headers without end, also in CONTINUATION frames | [`HEAD_BYTES`] |
//! | break the protocol stream by stream | [`ERRORS`], then GOAWAY with ENHANCE_YOUR_CALM |
//! | ask for answers: PING, SETTINGS | one waits at a time; until it is written nothing more is read |
//! | open no stream at all | `limits.header_seconds`, then GOAWAY |
//!
//! **Invariant.** A socket without streams goes away; one with streams stays, since each stream has a deadline of its own:
//! a request that of its call, a WebSocket its heartbeat.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{HEAD_BYTES, LAST_ANSWER, Visit};
use crate::http::{self, Door, Peer};
use crate::node::Services;

/// What may be received on one stream before it is read: a message of the default length.
const STREAM_WINDOW: u32 = 64 * 1024;

/// What may be received on all streams together: sixteen may stand still before the others are held up.
const SOCKET_WINDOW: u32 = 1024 * 1024;

/// What one stream may hand over before the peer has taken it.
const UNSENT_BYTES: usize = 16 * 1024;

/// Streams that were reset before we have so much as looked at them.
const RESETS_PENDING: usize = 20;

/// Streams that we have reset because the peer broke the protocol on them.
const ERRORS: usize = 100;

impl Visit {
    /// Answers requests until the peer goes, the node stops, or nothing has been asked for a while.
    pub(super) async fn converse_http2(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { door, address, drawn, place, services, stop } = self;
        let settings = services.settings();
        let (patience, streams_max) = (settings.header_timeout, settings.limits.streams.get());
        drop(settings);
        let streams = Streams::new(&services);
        let peer = Arc::new(Peer::new(address, drawn, &services));
        let service = service_fn(|request| {
            let (services, peer) = (services.clone(), peer.clone());
            async move { Ok::<_, Infallible>(http::answer(door, &peer, request, &services).await) }
        });
        let mut builder = http2::Builder::new(streams.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams_max)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(SOCKET_WINDOW)
            .max_send_buf_size(UNSENT_BYTES)
            .max_header_list_size(HEAD_BYTES as u32)
            .max_pending_accept_reset_streams(RESETS_PENDING)
            .max_local_error_reset_streams(ERRORS);
        if door == Door::Public {
            builder.enable_connect_protocol();
        }
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut seen = streams.begun();
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = connection.as_mut() => break outcome,
                () = stop.cancelled() => {}
                () = sleep(patience) => {
                    let before = std::mem::replace(&mut seen, streams.begun());
                    if !streams.were_idle_since(before) {
                        continue;
                    }
                }
            }
            connection.as_mut().graceful_shutdown();
            break timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()));
        };
        drop(place);
        if let Err(error) = outcome {
            debug!(%error, "an HTTP/2 connection ended early");
        }
    }
}

/// Runs the tasks of one socket's streams, and knows whether there are any: hyper has one for each request until its answer
/// has left, and one for each WebSocket.
#[derive(Clone)]
struct Streams {
    services: Arc<Services>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Streams {
    fn new(services: &Arc<Services>) -> Self {
        Self { services: services.clone(), counts: Arc::default() }
    }

    fn begun(&self) -> u64 {
        self.counts.begun.load(Ordering::Relaxed)
    }

    /// Whether none is open now, and none was begun since `begun` had this value.
    fn were_idle_since(&self, begun: u64) -> bool {
        self.begun() == begun && self.counts.ended.load(Ordering::Relaxed) == begun
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
        let ended = Ended(self.counts.clone());
        self.services.spawn_guarded(task.map(move |()| drop(ended)));
    }
}

/// Counts a stream as ended however its task ends.
struct Ended(Arc<Counts>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
