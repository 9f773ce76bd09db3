//! The keys that an issuer publishes at a URL: fetched, kept, and fetched again before they are old.
//!
//! ```text
//!  most of their age has passed ──┐
//!  a fetch failed a while ago ────┼──► fetch ──► keys, all at once ──► tokens
//!  a token names an unknown key ──┘     one at a time
//! ```
//!
//! **Invariants.** What was fetched stays in force until a later fetch succeeds, however long that takes: a key server that
//! is away logs nobody out. Tokens cause one fetch per [cool-down](KeyFetching::cool_down) at most, however many there are and whatever
//! they name; whoever presents one while a fetch is under way waits for that one.
//!
//! A key that is not in the set is told from one that may not be there *yet*: the former only where a token that names it has waited
//! for a fetch that did not bring it. In between the answer is to come back, which is of no use to a forger and spares who
//! holds a token of a brand-new key from being turned away for good.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, CACHE_CONTROL};
use ::http::{HeaderMap, HeaderValue, Uri};
use fanfare_metrics::{Metrics, Purpose};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::Means;
use super::keys::jwk::{self, Jwk};
use crate::config::KeyFetching;
use crate::outgoing::{Answer, Outgoing, Policy};

/// No set of keys has more.
const SET_BYTES_MAX: usize = 256 * 1024;

/// The time for one fetch, and so the longest that a token waits for one.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Keys are not fetched more often than this for their age, whatever the server says of it.
const AGE_MIN: Duration = Duration::from_secs(30);

/// After the first failure in a row, and after many.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The keys of which it is remembered until the next fetch that there are none.
const ABSENT_MAX: usize = 64;

/// See the [module's essay](self). Its task ends when it is dropped.
pub(crate) struct KeyServer {
    url: Uri,
    fetching: KeyFetching,
    shared: Arc<Shared>,
    _until_dropped: DropGuard,
}

struct Shared {
    keys: RwLock<Arc<[Jwk]>>,
    /// Names that were asked for, and that the last fetch has not brought.
    absent: Mutex<Vec<Box<str>>>,
    state: watch::Sender<State>,
    /// Told when a fetch is [ordered](State::is_due) before its time.
    ordered: Notify,
    metrics: Arc<Metrics>,
}

/// What there is to know of the fetches so far.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// One is under way, or ordered.
    is_due: bool,
    done: u64,
    /// The failures since the last success.
    failures: u32,
    /// When the last one ended.
    last: Option<Instant>,
}

/// What a key server says of a key that is not among its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is none.
    Known,
    /// There may be one after this time.
    Unknown(Duration),
}

impl KeyServer {
    /// Begins to fetch.
    pub(super) fn start(url: &Uri, fetching: KeyFetching, means: &Means<'_>) -> Self {
        let policy = Policy {
            timeout: FETCH_TIMEOUT,
            answer_bytes: SET_BYTES_MAX,
            concurrent: 1,
            waiting: 0,
            // The schedule below is gentler than a breaker.
            failures: u32::MAX,
            cool_down: Duration::ZERO,
        };
        let stop = means.stop.child_token();
        let shared = Arc::new(Shared {
            keys: RwLock::new(Arc::new([])),
            absent: Mutex::default(),
            state: watch::Sender::new(State { is_due: true, ..State::default() }),
            ordered: Notify::new(),
            metrics: means.metrics.clone(),
        });
        let fetcher = Fetcher {
            url: url.clone(),
            fetching,
            outgoing: means.dialer.outgoing(Purpose::Keys, policy),
            shared: shared.clone(),
        };
        means.tasks.spawn(fetcher.run(stop.clone()));
        Self { url: url.clone(), fetching, shared, _until_dropped: stop.drop_guard() }
    }

    /// Whether this is what `start` would make of these.
    pub(super) fn is_of(&self, url: &Uri, fetching: KeyFetching) -> bool {
        self.url == *url && self.fetching == fetching
    }

    /// The keys at hand.
    pub(super) fn keys(&self) -> Arc<[Jwk]> {
        self.shared.keys.read().clone()
    }

    /// Waits for the first fetch, if it is not over, whatever comes of it.
    pub(super) async fn tried(&self) {
        let _ = self.shared.state.subscribe().wait_for(|state| state.done > 0).await;
    }

    /// A token names a key that is not at hand: fetches, unless that was done just now, and waits for what comes of it.
    pub(super) async fn ask(&self, kid: Option<&str>) {
        let mut state = self.shared.state.subscribe();
        let now = Instant::now();
        let ordered = self.shared.state.send_if_modified(|state| {
            let rested = state.last.is_none_or(|last| now >= last + self.fetching.cool_down);
            let orders = !state.is_due && rested;
            state.is_due |= orders;
            orders
        });
        if ordered {
            self.shared.ordered.notify_one();
        }
        let State { is_due, done, .. } = *state.borrow_and_update();
        if !is_due {
            return;
        }
        let over = timeout(FETCH_TIMEOUT, state.wait_for(|state| state.done != done)).await;
        let has_succeeded = over.is_ok_and(|state| state.is_ok_and(|state| state.failures == 0));
        if let Some(kid) = kid.filter(|_| has_succeeded)
            && !self.keys().iter().any(|key| key.kid.as_deref() == Some(kid))
        {
            let mut absent = self.shared.absent.lock();
            if absent.len() < ABSENT_MAX && !absent.iter().any(|it| &**it == kid) {
                absent.push(kid.into());
            }
        }
    }

    /// What it means that a key is not among those at hand.
    pub(super) fn missing(&self, kid: Option<&str>) -> Missing {
        if self.shared.absent.lock().iter().any(|absent| Some(&**absent) == kid) {
            return Missing::Known;
        }
        let last = self.shared.state.borrow().last;
        let until = last.map(|last| self.fetching.cool_down.saturating_sub(last.elapsed()));
        Missing::Unknown(until.unwrap_or_default())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.state.borrow().failures > 0 {
            self.metrics.key_server_failing(-1);
        }
    }
}

/// The task of a key server.
struct Fetcher {
    url: Uri,
    fetching: KeyFetching,
    outgoing: Outgoing,
    shared: Arc<Shared>,
}

impl Fetcher {
    async fn run(self, stop: CancellationToken) {
        loop {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                outcome = self.fetch() => outcome,
            };
            let rested = Instant::now() + self.take(outcome);
            while !self.shared.state.borrow().is_due {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.shared.ordered.notified() => {}
                    () = sleep_until(rested) => self.shared.state.send_modify(|state| state.is_due = true),
                }
            }
        }
    }

    async fn fetch(&self) -> Result<(Vec<Jwk>, Duration), String> {
        let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
        let answer = self.outgoing.get(&self.url, HeaderMap::from_iter([(ACCEPT, accept)])).await;
        let Answer { headers, body, .. } = answer.map_err(|error| error.to_string())?;
        let keys = jwk::read_set(&body).map_err(|error| error.to_string())?;
        Ok((keys, age(&headers, self.fetching.max_age)))
    }

    /// Puts keys in force, or leaves those that are; and says how long to rest.
    fn take(&self, outcome: Result<(Vec<Jwk>, Duration), String>) -> Duration {
        let server = Place(&self.url);
        let before = *self.shared.state.borrow();
        self.shared.absent.lock().clear();
        let (failures, rest) = match outcome {
            Ok((keys, age)) => {
                if before.failures > 0 {
                    self.shared.metrics.key_server_failing(-1);
                }
                if before.failures > 0 || before.done == 0 {
                    info!(%server, keys = keys.len(), "keys of tokens fetched");
                }
                *self.shared.keys.write() = keys.into();
                (0, rest_of(age))
            }
            Err(error) => {
                if before.failures == 0 {
                    self.shared.metrics.key_server_failing(1);
                    let kept = self.shared.keys.read().len();
                    warn!(%server, error, kept, "keys of tokens cannot be fetched; those at hand stay in force");
                } else {
                    debug!(%server, error, "keys of tokens cannot be fetched");
                }
                let rest = RETRY.0.saturating_mul(1 << before.failures.min(10)).min(RETRY.1);
                (before.failures.saturating_add(1), jittered(rest))
            }
        };
        self.shared.state.send_modify(|state| {
            *state = State { is_due: false, done: state.done + 1, failures, last: Some(Instant::now()) };
        });
        rest
    }
}

/// How long keys may be kept: what their server says, within bounds.
fn age(headers: &HeaderMap, max: Duration) -> Duration {
    let lines = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|line| line.to_str().ok());
    let mut directives = lines.flat_map(|line| line.split(',')).map(str::trim);
    let told = directives.find_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "max-age" => value.trim().trim_matches('"').parse().ok().map(Duration::from_secs),
            "no-cache" | "no-store" => Some(Duration::ZERO),
            _ => None,
        }
    });
    told.unwrap_or(max).clamp(AGE_MIN.min(max), max)
}

/// When keys of that age are fetched again: well before they are old, so that one fetch may fail and the next is in time.
fn rest_of(age: Duration) -> Duration {
    jittered(age.mul_f64(0.8))
}

/// Up to a tenth less, so that nodes that were started together do not ask together for ever.
fn jittered(rest: Duration) -> Duration {
    rest.mul_f64(1.0 - 0.1 * fastrand::f64())
}

/// A URL without its query, which may be a secret.
struct Place<'a>(&'a Uri);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.0.scheme_str(), self.0.authority().map(|it| it.as_str()));
        write!(f, "{}://{}{}", scheme.unwrap_or_default(), authority.unwrap_or_default(), self.0.path())
    }
}

impl fmt::Debug for KeyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyServer({})", Place(&self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_old_as_their_server_says_within_bounds() {
        let max = Duration::from_secs(600);
        for (lines, seconds) in [
            (&[][..], 600),
            (&["public, max-age=120"], 120),
            (&["public", "Max-Age = \"90\", must-revalidate"], 90),
            (&["max-age=86400"], 600),
            (&["max-age=1"], 30),
            (&["no-store"], 30),
            (&["no-cache, max-age=0"], 30),
            (&["max-age=soon"], 600),
            (&["s-maxage=7"], 600),
        ] {
            let headers = lines.iter().map(|line| (CACHE_CONTROL, HeaderValue::from_static(line)));
            assert_eq!(age(&headers.collect(), max).as_secs(), seconds, "{lines:?}");
        }
        for _ in 0..100 {
            assert!(
                (0.7..0.85).contains(&rest_of(max).div_duration_f64(max)),
                "fetched again before they are old"
            );
        }
        let short = Duration::from_secs(2);
        assert_eq!(age(&HeaderMap::new(), short), short, "what is configured may be shorter");
    }

    #[test]
    fn a_place_tells_no_secret() {
        let url: Uri = "https://login.example.com:8443/keys?token=hunter2".parse().unwrap();
        assert_eq!(Place(&url).to_string(), "https://login.example.com:8443/keys");
    }
}
