//! Requests of the node's own to other people's HTTP servers: key servers, hooks, webhooks.
//!
//! ```text
//!  get, post ─► breaker ─► queue ─► slot ─► hyper's pool ─► TLS ─► their server
//!                 │ Open    │ Busy                │ Transport, Timeout, TooLarge, Status
//! ```
//!
//! An [`Outgoing`] is the way to one server. Whatever that server does, the node stays whole:
//!
//! | what a server may do | bound |
//! | --- | --- |
//! | not answer, or byte by byte | [`Policy::timeout`], over everything from the call to the last byte |
//! | answer without end | [`Policy::answer_bytes`] |
//! | be slower than it is asked | [`Policy::concurrent`] at once, [`Policy::waiting`] behind them; more are refused |
//! | fail again and again | [`Policy::failures`] in a row, then it is left alone for [`Policy::cool_down`] |
//! | send elsewhere | a redirect is an answer like any other that is no success |
//!
//! **Invariants.** Each call ends within its timeout. A call that is dropped gives back its slot, and its connection is
//! closed. Errors and logs name no URL's query, no header and no body: they may hold secrets.
//!
//! **Deliberately absent:** trying again, which only the caller knows to be harmless; proxies; HTTP/2; cookies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{HeaderName, RETRY_AFTER, USER_AGENT};
use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use fanfare_metrics::{Answered, Metrics, Purpose};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioTimer;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Authorities;

mod breaker;

use breaker::{Breaker, Turn};

/// How long a connection without a request is kept: less than most servers do, so that few requests meet one that is
/// being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The head of an answer.
const HEAD_BYTES: usize = 64 * 1024;

/// What a connection that died without a word is found by.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// What one server is asked, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From the call to the last byte of the answer.
    pub timeout: Duration,
    /// The longest body of an answer.
    pub answer_bytes: usize,
    /// The most requests under way, and so the most connections.
    pub concurrent: usize,
    /// The most calls that wait for one of them to end.
    pub waiting: usize,
    /// The failures in a row after which the server is left alone.
    pub failures: u32,
    /// For how long it is, before one request tries whether it is back.
    pub cool_down: Duration,
}

/// What is needed to reach anybody; shared by all that a node asks.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

/// The way to one server. See the [module's essay](self).
pub struct Outgoing {
    purpose: Purpose,
    policy: Policy,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Whoever is under way or waits.
    admitted: Semaphore,
    /// Whoever is under way.
    slots: Semaphore,
    breaker: Breaker,
    metrics: Arc<Metrics>,
}

/// An answer of success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 to 299.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer of success.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// No whole answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Not sent: too many are under way, and too many wait, or a place has not become free in time.
    #[error("too many requests to this server are under way")]
    Busy,
    /// Not sent: the server has failed too often in a row. It is tried again after this time.
    #[error("the server has failed too often in a row, and is left alone for {} ms", .0.as_millis())]
    Open(Duration),
    /// An answer that is no success.
    #[error("the answer is {status}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// What it says in `Retry-After`, if that is a number of seconds.
        retry_after: Option<Duration>,
        /// Its body.
        body: Bytes,
    },
    /// An answer over its bound.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// No connection, or one that broke.
    #[error("no answer: {}", Causes(&**.0))]
    Transport(Box<dyn std::error::Error + Send + Sync>),
}

impl Dialer {
    /// Trusts these authorities; connections are tasks of `tasks`.
    #[must_use]
    pub fn new(authorities: &Authorities, tasks: TaskTracker, metrics: Arc<Metrics>) -> Self {
        Self { tls: authorities.tls(), tasks, metrics }
    }

    /// The way to a server, which none of the ways that exist already share anything with.
    #[must_use]
    pub fn outgoing(&self, purpose: Purpose, policy: Policy) -> Outgoing {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*self.tls).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(Tasks(self.tasks.clone()))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(policy.concurrent)
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        Outgoing {
            purpose,
            client,
            admitted: Semaphore::new(policy.concurrent + policy.waiting),
            slots: Semaphore::new(policy.concurrent),
            breaker: Breaker::new(policy.failures, policy.cool_down),
            metrics: self.metrics.clone(),
            policy,
        }
    }
}

impl Outgoing {
    /// A GET.
    ///
    /// # Errors
    /// There is no answer of success.
    pub async fn get(&self, url: &Uri, headers: HeaderMap) -> Result<Answer, OutgoingError> {
        self.call(request(Method::GET, url, headers, Bytes::new())).await
    }

    /// A POST.
    ///
    /// # Errors
    /// There is no answer of success. Whether the server has acted upon it is not known.
    pub async fn post(&self, url: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, OutgoingError> {
        self.call(request(Method::POST, url, headers, body)).await
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Answer, OutgoingError> {
        let outcome = self.guarded(request).await;
        self.metrics.outgoing_ended(self.purpose, outcome.as_ref().map_or_else(label, |_| Answered::Ok));
        outcome
    }

    /// A call past the breaker and through the queue.
    async fn guarded(&self, request: Request<Full<Bytes>>) -> Result<Answer, OutgoingError> {
        let deadline = Instant::now() + self.policy.timeout;
        // Asked before the queue, so that nobody waits for nothing, and after it, since it may have opened meanwhile.
        self.breaker.check(Instant::now()).map_err(OutgoingError::Open)?;
        let _admitted = self.admitted.try_acquire().map_err(|_| OutgoingError::Busy)?;
        let slot = timeout_at(deadline, self.slots.acquire()).await.map_err(|_| OutgoingError::Busy)?;
        let _slot = slot.expect("the semaphore is never closed");
        let trial = self.breaker.admit(Instant::now()).map_err(OutgoingError::Open)?;
        let timed = Timed::start(self);
        let outcome = timeout_at(deadline, self.exchange(request)).await;
        drop(timed);
        let outcome = outcome.unwrap_or(Err(OutgoingError::Timeout(self.policy.timeout)));
        self.note(trial.settle(outcome.as_ref().map_or_else(is_sound, |_| true), Instant::now()));
        outcome
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, OutgoingError> {
        let answer = self.client.request(request).await.map_err(transport)?;
        let (head, body) = answer.into_parts();
        let body = self.read(body).await?;
        if head.status.is_success() {
            return Ok(Answer { status: head.status, headers: head.headers, body });
        }
        let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(OutgoingError::Status {
            status: head.status,
            retry_after: seconds.map(Duration::from_secs),
            body,
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, OutgoingError> {
        let bytes_max = self.policy.answer_bytes;
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(OutgoingError::TooLarge(bytes_max));
        }
        match Limited::new(body, bytes_max).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(OutgoingError::TooLarge(bytes_max)),
            Err(error) => Err(OutgoingError::Transport(error)),
        }
    }

    fn note(&self, turn: Turn) {
        let (purpose, cool_down) = (self.purpose, self.policy.cool_down);
        match turn {
            Turn::None => {}
            Turn::Opened => {
                self.metrics.outgoing_breakers_open(purpose, 1);
                warn!(?purpose, ?cool_down, "a server has failed too often in a row, and is left alone");
            }
            Turn::Closed => {
                self.metrics.outgoing_breakers_open(purpose, -1);
                info!(?purpose, "a server answers again");
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.breaker.is_open() {
            self.metrics.outgoing_breakers_open(self.purpose, -1);
        }
    }
}

fn request(method: Method, url: &Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.clone();
    *request.headers_mut() = headers;
    let agent = HeaderValue::from_static(concat!("fanfare/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().entry::<HeaderName>(USER_AGENT).or_insert(agent);
    request
}

/// Counts a request as under way, and measures it, however it ends.
struct Timed<'a> {
    outgoing: &'a Outgoing,
    started: Instant,
}

impl<'a> Timed<'a> {
    fn start(outgoing: &'a Outgoing) -> Self {
        outgoing.metrics.outgoing_in_flight(outgoing.purpose, 1);
        Self { outgoing, started: Instant::now() }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let Outgoing { metrics, purpose, .. } = self.outgoing;
        metrics.outgoing_in_flight(*purpose, -1);
        metrics.outgoing_took(*purpose, self.started.elapsed());
    }
}

/// Whether the server is well, though its answer is no success: it understands, and says no.
fn is_sound(error: &OutgoingError) -> bool {
    match error {
        OutgoingError::Status { status, .. } => {
            !status.is_server_error() && *status != StatusCode::TOO_MANY_REQUESTS
        }
        _ => false,
    }
}

fn label(error: &OutgoingError) -> Answered {
    match error {
        OutgoingError::Timeout(_) => Answered::Timeout,
        OutgoingError::Busy => Answered::Busy,
        OutgoingError::Open(_) => Answered::BreakerOpen,
        OutgoingError::Status { .. } => Answered::Status,
        OutgoingError::TooLarge(_) => Answered::TooLarge,
        OutgoingError::Transport(_) => Answered::Transport,
    }
}

fn transport(error: hyper_util::client::legacy::Error) -> OutgoingError {
    OutgoingError::Transport(Box::new(error))
}

/// An error and what has caused it: hyper tells the reason in the last of them.
struct Causes<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let causes = std::iter::successors(self.0.source(), |error| error.source());
        causes.take(8).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// Connections are tasks that a node waits for when it stops; they end with the [`Outgoing`] that they belong to.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { purpose, policy, .. } = self;
        f.debug_struct("Outgoing").field("purpose", purpose).field("policy", policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
