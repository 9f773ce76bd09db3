//! The backend is asked about clients: who this is, may it subscribe, may it publish that, what comes of its call.
//!
//! ```text
//!  session ──► Introduce, Join, Publish, Call ──► question ─► signature ─► Outgoing ─► the backend
//!     ▲                                                                                   │ answer
//!     └── Authenticated, Joined, Placed, Called ◄── refusal, or failure, or go on ◄── protocol::hook
//!  session ──► Reaffirm ──► renewals: many clients, one question ──► …
//! ```
//!
//! What the answers mean the protocol says ([`fanfare_protocol::hook`]); what bounds the asking, [`crate::outgoing`]: a deadline, so
//! many questions at once, so many behind them, and a breaker. Here the two meet, and what is neither yes nor no becomes a
//! failure: 4503, with a wait that is different for each client, so that those who failed together do not come back
//! together. Or, with `hooks.on_failure = "allow"`, what the rules and the token allow.
//!
//! **Invariants.** A question that is dropped is abandoned: its connection to the backend is closed, its place is free. No token,
//! header, body or answer is logged or in a `Debug`. Where the session takes consent and there is nobody to give it, it is not
//! given.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use bytes::Bytes;
use fanfare_metrics::{Hook, HookOutcome, Purpose};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::grant::{Grant, Visitor};
use fanfare_protocol::hook::{self, Client, Instead, Question, Unreadable, Word};
use fanfare_protocol::publication::Payload;
use fanfare_protocol::{Channel, SessionId};
use ring::hmac;
use tokio::time::Instant;
use tracing::debug;

use crate::config::{self, Config, OnFailure};
use crate::node::Services;
use crate::outgoing::{Dialer, Outgoing, OutgoingError, Policy};
use crate::trace;

mod renewals;

pub(crate) use renewals::{Renewal, Renewals};

/// The header that carries the signature of a question.
const SIGNATURE: HeaderName = HeaderName::from_static("fanfare-signature");

/// The longest answer.
const ANSWER_BYTES: usize = 256 * 1024;

/// The most bytes of a client's headers that are kept to be forwarded.
const HEADER_BYTES: usize = 16 * 1024;

/// The failures in a row after which the backend is left alone, and for how long.
const FAILURES: u32 = 10;
const COOL_DOWN: Duration = Duration::from_secs(5);

/// The least wait of a client whose question failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Over what time those come back whose questions failed: connections, and commands of those that are open.
const RETURN_WINDOW: Duration = Duration::from_secs(10);
const RETRY_WINDOW: Duration = Duration::from_secs(2);

/// What is asked where. See the [module's essay](self).
pub(crate) struct Hooks {
    ways: HashMap<Key, Arc<Way>>,
    connect: Option<Arc<Way>>,
    refresh: Option<Arc<Way>>,
    call: Option<Arc<Way>>,
    /// By namespace.
    subscribe: HashMap<Box<str>, Arc<Way>>,
    publish: HashMap<Box<str>, Arc<Way>>,
    key: Option<hmac::Key>,
    /// What of a client's headers is forwarded.
    forwarded: Vec<HeaderName>,
    on_failure: OnFailure,
    /// Whether whom the backend gives no user may come in.
    is_anonymous_welcome: bool,
}

/// A URL, and all that bounds how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    url: String,
    timeout: Duration,
    concurrency: usize,
    queue: usize,
}

#[derive(Debug)]
struct Way {
    url: Uri,
    outgoing: Outgoing,
}

/// What the backend is told of a client that the session does not know; kept for as long as it is connected.
pub(crate) struct Caller {
    address: IpAddr,
    transport: &'static str,
    headers: HeaderMap,
}

/// About whom a question is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    /// None of a caller of the server API.
    pub(crate) session: Option<SessionId>,
    /// Nothing of those who came before anybody was to be asked.
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) grant: Option<&'a Grant>,
}

/// Why there is no yes.
enum No {
    /// The backend says so.
    Refused(Failure),
    /// It says nothing.
    Failed(Failure),
}

impl Hooks {
    /// Those of a configuration, in force after those of `before` if the node runs already: a way that stays the same goes on
    /// knowing what has failed.
    pub(crate) fn of(config: &Config, before: Option<&Self>, dialer: &Dialer) -> Self {
        let hooks = &config.hooks;
        let mut ways = HashMap::new();
        let mut way = |url: &String| {
            let key = Key::of(url, hooks);
            let known = ways.get(&key).or_else(|| before.and_then(|before| before.ways.get(&key)));
            let way = known.cloned().unwrap_or_else(|| Arc::new(Way::new(&key, dialer)));
            ways.insert(key, way.clone());
            way
        };
        let mut here = |url: &Option<String>| url.as_ref().map(&mut way);
        let (connect, refresh, call) = (here(&hooks.connect), here(&hooks.refresh), here(&hooks.call));
        let mut of_namespaces = |url: fn(&config::Namespace) -> &Option<String>| {
            let named = config.namespaces.iter();
            named
                .filter_map(|(name, it)| Some((name.as_str().into(), here(url(it))?)))
                .collect::<HashMap<Box<str>, Arc<Way>>>()
        };
        let subscribe = of_namespaces(|namespace| &namespace.subscribe_hook);
        let publish = of_namespaces(|namespace| &namespace.publish_hook);
        let forwarded = hooks.headers.iter().map(|name| name.parse().expect("checked to be a header's name"));
        Self {
            connect,
            refresh,
            call,
            subscribe,
            publish,
            key: hooks.secret.as_ref().map(|it| hmac::Key::new(hmac::HMAC_SHA256, it.expose().as_bytes())),
            forwarded: forwarded.collect(),
            on_failure: hooks.on_failure,
            is_anonymous_welcome: config.auth.anonymous,
            ways,
        }
    }

    /// What is to be kept of a request for later questions about its client; nothing where none will be asked.
    pub(crate) fn caller(
        &self,
        address: impl FnOnce() -> IpAddr,
        transport: &'static str,
        headers: &HeaderMap,
    ) -> Option<Arc<Caller>> {
        if self.ways.is_empty() {
            return None;
        }
        let mut kept = HeaderMap::new();
        let mut room = HEADER_BYTES;
        for name in &self.forwarded {
            for value in headers.get_all(name) {
                // Half a cookie would be another one.
                let Some(rest) = room.checked_sub(name.as_str().len() + value.len()) else { continue };
                room = rest;
                kept.append(name.clone(), value.clone());
            }
        }
        Some(Arc::new(Caller { address: address(), transport, headers: kept }))
    }

    /// With whom a conversation begins of whom this is known already.
    pub(crate) fn presume(&self, visitor: Visitor, takes_tokens: bool) -> Visitor {
        match visitor {
            visitor if self.connect.is_none() => visitor,
            Visitor::Known(grant) => Visitor::Presumed(Some(grant)),
            Visitor::Unknown if takes_tokens => Visitor::Unknown,
            Visitor::Anonymous | Visitor::Unknown => Visitor::Presumed(None),
            Visitor::Presumed(presumed) => Visitor::Presumed(presumed),
        }
    }

    /// Asks who a client is, if that is asked here.
    ///
    /// # Errors
    /// The backend does not let it in, or does not answer.
    pub(crate) async fn introduce(
        &self,
        session: SessionId,
        caller: Option<&Caller>,
        presumed: Option<Arc<Grant>>,
        payload: Option<&Payload>,
        services: &Services,
    ) -> Result<Arc<Grant>, Failure> {
        let presumed = presumed.unwrap_or_default();
        let about = About { session: Some(session), caller, grant: Some(&presumed) };
        let Some(way) = &self.connect else { return Ok(presumed) };
        let now = services.clock.unix();
        let read = |body: &[u8]| hook::connect(body, Some(&presumed), now);
        let asked = self.ask(Hook::Connect, Some(way), Question::Connect { payload }, about, read, services);
        let mut grant = match asked.await {
            Ok(grant) => grant,
            Err(No::Failed(_)) if self.on_failure == OnFailure::Allow => (*presumed).clone(),
            Err(No::Failed(failure)) => return Err(put_off(failure, RETURN_WINDOW)),
            Err(No::Refused(failure)) => return Err(failure),
        };
        grant.is_renewable &= self.refresh.is_some();
        if grant.user.is_none() && !self.is_anonymous_welcome && *presumed == Grant::default() {
            let text = "the application does not say who this is, and takes nobody who is nobody";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        Ok(Arc::new(grant))
    }

    /// Asks whether a client may subscribe.
    ///
    /// # Errors
    /// The backend says no, or does not answer.
    pub(crate) async fn consent(
        &self,
        about: About<'_>,
        channel: &Channel,
        services: &Services,
    ) -> Result<(), Failure> {
        let way = self.subscribe.get(channel.namespace());
        let question = Question::Subscribe { channel };
        let asked = self.ask(Hook::Subscribe, way, question, about, hook::consent, services).await;
        self.unless_lenient(asked, ())
    }

    /// Asks whether a client may publish this, or what instead.
    ///
    /// # Errors
    /// The backend says no, or does not answer.
    pub(crate) async fn publish(
        &self,
        about: About<'_>,
        channel: &Channel,
        payload: &Payload,
        services: &Services,
    ) -> Result<Instead, Failure> {
        let way = self.publish.get(channel.namespace());
        let question = Question::Publish { channel, payload };
        let asked = self.ask(Hook::Publish, way, question, about, hook::publish, services).await;
        self.unless_lenient(asked, None)
    }

    /// Has the backend do something for a client.
    ///
    /// # Errors
    /// It refuses, or does not answer: then it is not known whether it has done it.
    pub(crate) async fn call(
        &self,
        about: About<'_>,
        method: &str,
        payload: &Payload,
        services: &Services,
    ) -> Result<Payload, Failure> {
        let question = Question::Call { method, payload };
        let asked = self.ask(Hook::Call, self.call.as_ref(), question, about, hook::call, services).await;
        asked.map_err(|no| match no {
            No::Refused(failure) => failure,
            No::Failed(failure) => put_off(failure, RETRY_WINDOW),
        })
    }

    /// Lets the backend know something. Nobody is told whether it does.
    pub(crate) async fn tell(&self, about: About<'_>, payload: &Payload, services: &Services) {
        let question = Question::Tell { payload };
        let _ = self.ask(Hook::Call, self.call.as_ref(), question, about, hook::consent, services).await;
    }

    fn unless_lenient<A>(&self, asked: Result<A, No>, otherwise: A) -> Result<A, Failure> {
        match asked {
            Ok(answer) => Ok(answer),
            Err(No::Failed(_)) if self.on_failure == OnFailure::Allow => Ok(otherwise),
            Err(No::Failed(failure)) => Err(put_off(failure, RETRY_WINDOW)),
            Err(No::Refused(failure)) => Err(failure),
        }
    }

    async fn ask<A>(
        &self,
        hook: Hook,
        way: Option<&Arc<Way>>,
        question: Question<'_>,
        about: About<'_>,
        read: impl FnOnce(&[u8]) -> Word<A>,
        services: &Services,
    ) -> Result<A, No> {
        let policy = services.settings().policy.clone();
        let client = Client {
            session: about.session,
            node: &policy.node,
            address: about.caller.map(|caller| caller.address),
            transport: match (about.caller, about.session) {
                (Some(caller), _) => caller.transport,
                (None, Some(_)) => "unknown",
                (None, None) => "api",
            },
            grant: about.grant,
        };
        let body = question.encode(&client, services.clock.unix());
        let headers = about.caller.map(|caller| caller.headers.clone()).unwrap_or_default();
        let channel = match question {
            Question::Subscribe { channel } | Question::Publish { channel, .. } => Some(channel),
            Question::Connect { .. } | Question::Call { .. } | Question::Tell { .. } => None,
        };
        self.post((hook, about, channel), way, headers, body, services, read).await
    }

    /// Sends a question, and makes of what comes back, if anything does, what it means.
    async fn post<A>(
        &self,
        (hook, about, channel): (Hook, About<'_>, Option<&Channel>),
        way: Option<&Arc<Way>>,
        mut headers: HeaderMap,
        body: Vec<u8>,
        services: &Services,
        read: impl FnOnce(&[u8]) -> Word<A>,
    ) -> Result<A, No> {
        let (outcome, asked) = (HookOutcome::Abandoned, Instant::now());
        let mut counted = Counted { hook, outcome, about, channel, asked, services };
        let Some(way) = way else {
            counted.outcome = HookOutcome::NotAsked;
            return Err(No::Failed(unanswered(RETRY_AFTER)));
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            headers.insert(SIGNATURE, signature(key, &body));
        }
        let answer = way.outgoing.post(&way.url, headers, Bytes::from(body)).await;
        let (outcome, answer) = match answer.map(|answer| read(&answer.body)) {
            Ok(Ok(Ok(answer))) => (HookOutcome::Allowed, Ok(answer)),
            Ok(Ok(Err(refusal))) => (HookOutcome::Refused, Err(No::Refused(refusal))),
            Ok(Err(Unreadable(what))) => {
                debug!(?hook, what, "the backend's answer cannot be understood");
                (HookOutcome::Unreadable, Err(No::Failed(unanswered(RETRY_AFTER))))
            }
            Err(error) => refused_or_failed(hook, &error),
        };
        counted.outcome = outcome;
        answer
    }
}

/// What an answer without success means.
fn refused_or_failed<A>(hook: Hook, error: &OutgoingError) -> (HookOutcome, Result<A, No>) {
    let refused = |code| {
        let failure = Failure::new(code, "the application has refused this");
        (HookOutcome::Refused, Err(No::Refused(failure)))
    };
    let (outcome, wait) = match error {
        OutgoingError::Status { status: StatusCode::UNAUTHORIZED, .. } => {
            return refused(ErrorCode::Unauthorized);
        }
        OutgoingError::Status { status: StatusCode::FORBIDDEN, .. } => return refused(ErrorCode::Forbidden),
        OutgoingError::Status { retry_after, .. } => (HookOutcome::Failed, *retry_after),
        OutgoingError::Open(wait) => (HookOutcome::NotAsked, Some(*wait)),
        OutgoingError::Busy => (HookOutcome::NotAsked, None),
        OutgoingError::Timeout(_) | OutgoingError::TooLarge(_) | OutgoingError::Transport(_) => {
            (HookOutcome::Failed, None)
        }
    };
    debug!(?hook, %error, "the backend was asked in vain");
    (outcome, Err(No::Failed(unanswered(wait.unwrap_or(RETRY_AFTER)))))
}

fn unanswered(wait: Duration) -> Failure {
    let text = "the application that decides this does not answer: try again";
    Failure::retry(ErrorCode::Unavailable, text, wait.max(RETRY_AFTER))
}

/// Spreads those who were told to wait over a window.
fn put_off(failure: Failure, window: Duration) -> Failure {
    let wait = failure.retry_after.unwrap_or(RETRY_AFTER) + window.mul_f64(fastrand::f64());
    Failure { retry_after: Some(wait), ..failure }
}

/// The HMAC-SHA256 of a body, as its header spells it.
fn signature(key: &hmac::Key, body: &[u8]) -> HeaderValue {
    let digest = data_encoding::HEXLOWER.encode(hmac::sign(key, body).as_ref());
    HeaderValue::try_from(format!("sha256={digest}")).expect("hexadecimal digits are a header value")
}

impl Key {
    fn of(url: &str, hooks: &config::Hooks) -> Self {
        let (concurrency, queue) = (hooks.concurrency.get(), hooks.queue);
        Self { url: url.into(), timeout: hooks.timeout, concurrency, queue }
    }
}

impl Way {
    fn new(key: &Key, dialer: &Dialer) -> Self {
        let policy = Policy {
            timeout: key.timeout,
            answer_bytes: ANSWER_BYTES,
            concurrent: key.concurrency,
            waiting: key.queue,
            failures: FAILURES,
            cool_down: COOL_DOWN,
        };
        let url = key.url.parse().expect("checked to be a URL");
        Self { url, outgoing: dialer.outgoing(Purpose::Hook, policy) }
    }
}

/// Counts a question when it has come to its end, whatever that is.
struct Counted<'a> {
    hook: Hook,
    outcome: HookOutcome,
    about: About<'a>,
    channel: Option<&'a Channel>,
    asked: Instant,
    services: &'a Services,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Self { hook, outcome, about, channel, asked, services } = self;
        services.metrics.hook_ended(*hook, *outcome);
        if services.hub.tap().is_on() {
            let user = about.grant.and_then(|grant| grant.user.as_ref());
            let words = (hook.as_str(), outcome.as_str());
            trace::asked(services, words, about.session, user, *channel, asked.elapsed());
        }
    }
}

/// Shows that there are some, and nothing of them.
impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("ways", &self.ways.len()).finish_non_exhaustive()
    }
}

/// Shows no header.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("transport", &self.transport).finish_non_exhaustive()
    }
}
