//! May this client come in? Bounds on what is open and on how fast it is opened, and the origins that pages may come from.
//!
//! ```text
//!  accept ──► a place among the sockets ──► a draw: address, node ──► TLS, HTTP ──► a place among the connections:
//!                 │ none left                  │ over      │ far over      │ told       node, address, user
//!                 ▼                            ▼           ▼               ▼                │ none left
//!              hung up on                  to be told   hung up on     429, 503 ◄──────────┘
//! ```
//!
//! A socket is drawn for when it is accepted, before it costs a TLS handshake, and its first connection is paid for by that;
//! further ones, streams of HTTP/2 and polls, are drawn for one by one. The sockets of trusted proxies stand for many clients,
//! so for them each connection is, when its client is known. Who is over a rate is told so, and who goes on is hung up on: to
//! tell costs a handshake, and so it has the same rate once more.
//!
//! A place is a value: dropped, it is free again, whatever the reason. The bounds are arguments, since a running node may be
//! given new ones; below what is open already, a bound lets nobody in until enough have gone, and drops nobody. A bound in
//! `limits.dry_run` is counted and lets everybody in; their places are counted all the same, so that it holds for all of them
//! from the moment it is enforced.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::StatusCode;
use fanfare_metrics::{Enforcement, Limit, Metrics, Refusal};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::session::Bucket;
use fanfare_protocol::time::Moment;
use fanfare_protocol::{Channel, UserId};
use parking_lot::Mutex;

use crate::config::{Limits, Network, Pace, Trial};

mod headcount;
mod origins;
mod pace;
mod tally;

use headcount::Headcount;
pub(crate) use headcount::{Share, shards};
pub(crate) use origins::Origins;
use pace::Paces;
use tally::Tally;

/// Sockets beyond the connections: health checks, the page, and upgrades that will be told the node is full.
const SPARE_SOCKETS: usize = 1024;

/// How much of one address may wait for other nodes. An answer takes milliseconds, but a name that no node has is waited for
/// in vain, and anybody can make one up.
const ERRANDS_MAX: u32 = 128;

/// When a client that found no place may try again: who has one keeps it for a while.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What is open, and how fast it was opened.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    sockets: Arc<AtomicUsize>,
    open: Arc<Open>,
    paces: Paces,
    /// What the handshakes of all addresses owe: those that came in, and those that were told why not.
    pace: Mutex<(Bucket, Bucket)>,
    keys: RandomState,
}

/// The connections.
#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    addresses: Tally,
    users: Headcount,
    errands: Tally,
}

/// A place among the sockets, free again when dropped.
#[derive(Debug)]
pub(crate) struct SocketPlace(Arc<AtomicUsize>);

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the connections, those of its address, and those of its user once there is one; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Open>,
    address: Option<NonZeroU64>,
    user: Option<NonZeroU64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.open.addresses.leave(address);
        }
        self.leave_user();
    }
}

/// A place among the errands of an address; free again when dropped.
#[derive(Debug)]
pub(crate) struct ErrandPlace {
    open: Arc<Open>,
    address: NonZeroU64,
}

impl Drop for ErrandPlace {
    fn drop(&mut self) {
        self.open.errands.leave(self.address);
    }
}

/// Why a client may not come in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The node is shutting down.
    Draining,
    /// It has as many connections as it may have.
    Node,
    /// The address has.
    Address,
    /// The user has.
    User,
    /// Clients come faster than the node may let them in.
    NodePace(Duration),
    /// Those of this address do.
    AddressPace(Duration),
}

impl NoRoom {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Draining | Self::Node | Self::NodePace(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Address | Self::User | Self::AddressPace(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Draining => Refusal::Draining,
            Self::Node => Refusal::AtCapacity,
            Self::Address | Self::AddressPace(_) => Refusal::TooManyFromAddress,
            Self::User => Refusal::TooManyOfUser,
            Self::NodePace(_) => Refusal::TooManyAtOnce,
        }
    }

    pub(crate) fn retry_after(self) -> Duration {
        match self {
            Self::Draining | Self::Node | Self::Address | Self::User => RETRY_AFTER,
            Self::NodePace(wait) | Self::AddressPace(wait) => wait,
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Draining => "this node is shutting down: connect again",
            Self::Node => "this node is full: connect again later",
            Self::Address => {
                "your address has as many connections as it may have: close one, or connect again later"
            }
            Self::User => {
                "this user has as many connections as it may have: close one, or connect again later"
            }
            Self::NodePace(_) => "this node is letting clients in as fast as it may: connect again later",
            Self::AddressPace(_) => "your address connects too often: connect again later",
        }
    }

    /// The same as an error object.
    pub(crate) fn failure(self) -> Failure {
        let code = match self {
            Self::User => ErrorCode::LimitReached,
            _ if self.status() == StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
            _ => ErrorCode::Unavailable,
        };
        Failure::retry(code, self.explanation(), self.retry_after())
    }
}

/// What came of a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// One more may come in.
    Welcome,
    /// It may not, and is to be told.
    Told(NoRoom),
    /// It may not, and there were too many to tell them all.
    Untold(NoRoom),
}

impl Drawn {
    fn refused(why: NoRoom, may_be_told: bool) -> Self {
        if may_be_told { Self::Told(why) } else { Self::Untold(why) }
    }
}

impl Admission {
    /// A place for a socket that was just accepted, where so many connections may be open.
    pub(crate) fn socket(&self, limits: &Limits, metrics: &Metrics) -> Option<SocketPlace> {
        let most = limits.connections.get().saturating_add(SPARE_SOCKETS);
        if take(&self.sockets, most) {
            return Some(SocketPlace(self.sockets.clone()));
        }
        metrics.limit_exceeded(Limit::Sockets, Enforcement::Refused);
        None
    }

    /// Draws for one more handshake of an address.
    pub(crate) fn draw(&self, address: IpAddr, limits: &Limits, metrics: &Metrics, now: Moment) -> Drawn {
        let enforced = |trial, limit| is_enforced(limits, trial, limit, metrics);
        if let Some(pace) = limits.handshakes_per_ip {
            let network = network(address, limits);
            let draw = |kind| self.paces.take(self.key(kind, network), pace, now);
            if let Err(wait) = draw("pace")
                && enforced(Trial::HandshakesPerIp, Limit::HandshakesPerIp)
            {
                return Drawn::refused(NoRoom::AddressPace(wait), draw("told").is_ok());
            }
        }
        if let Some(pace) = limits.handshakes {
            let (came_in, told) = &mut *self.pace.lock();
            if let Err(wait) = came_in.take(pace.per_second, pace.burst, now)
                && enforced(Trial::Handshakes, Limit::Handshakes)
            {
                let may_be_told = told.take(pace.per_second, pace.burst, now).is_ok();
                return Drawn::refused(NoRoom::NodePace(wait), may_be_told);
            }
        }
        Drawn::Welcome
    }

    /// A place for a connection from an address.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn connection(
        &self,
        address: IpAddr,
        limits: &Limits,
        metrics: &Metrics,
    ) -> Result<Place, NoRoom> {
        let most = limits.connections.get();
        if !take(&self.open.count, most) {
            if is_enforced(limits, Trial::Connections, Limit::Connections, metrics) {
                return Err(NoRoom::Node);
            }
            self.open.count.fetch_add(1, Ordering::Relaxed);
        }
        let mut place = Place { open: self.open.clone(), address: None, user: None };
        let key = self.key("address", network(address, limits));
        let (most, bound) = (limits.connections_per_ip, (Trial::ConnectionsPerIp, Limit::ConnectionsPerIp));
        let enter = |most| self.open.addresses.enter(key, most).is_ok();
        if !entered(enter, most, bound, limits, metrics) {
            return Err(NoRoom::Address);
        }
        place.address = Some(key);
        Ok(place)
    }

    /// Counts a connection as one of a user, unless it is already. One that is refused belongs to nobody.
    ///
    /// # Errors
    /// The user has too many.
    pub(crate) fn belong(
        &self,
        place: &mut Place,
        user: &UserId,
        limits: &Limits,
        metrics: &Metrics,
    ) -> Result<(), NoRoom> {
        let key = user_key(user);
        if place.user == Some(key) {
            return Ok(());
        }
        place.leave_user();
        let (most, bound) =
            (limits.connections_per_user, (Trial::ConnectionsPerUser, Limit::ConnectionsPerUser));
        let enter = |most| self.open.users.enter(key, most).is_ok();
        if !entered(enter, most, bound, limits, metrics) {
            return Err(NoRoom::User);
        }
        place.user = Some(key);
        Ok(())
    }

    /// Takes one publication that somebody has posted, of those that the namespace of a channel has for a user or an address.
    ///
    /// # Errors
    /// How long until there may be another.
    pub(crate) fn post(
        &self,
        address: IpAddr,
        user: Option<&UserId>,
        channel: &Channel,
        rate: NonZeroU32,
        limits: &Limits,
        now: Moment,
    ) -> Result<(), Duration> {
        let address = user.is_none().then(|| network(address, limits));
        let pace = Pace { per_second: rate, burst: rate };
        self.paces.take(self.key("post", (user, address, channel.namespace())), pace, now)
    }

    /// A place for what a client of this address has another node do, if it has fewer than [`ERRANDS_MAX`].
    pub(crate) fn errand(&self, address: IpAddr, limits: &Limits) -> Option<ErrandPlace> {
        let address = self.key("errand", network(address, limits));
        self.open.errands.enter(address, ERRANDS_MAX).ok()?;
        Some(ErrandPlace { open: self.open.clone(), address })
    }

    /// What is known of the connections of users.
    pub(crate) fn headcount(&self) -> &Headcount {
        &self.open.users
    }

    fn key(&self, domain: &str, of: impl Hash) -> NonZeroU64 {
        NonZeroU64::new(self.keys.hash_one((domain, of))).unwrap_or(NonZeroU64::MIN)
    }
}

/// The same on all nodes, unlike the other keys.
fn user_key(user: &UserId) -> NonZeroU64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, user.as_str().as_bytes());
    let first = digest.as_ref().first_chunk().expect("a digest has 32 bytes");
    NonZeroU64::new(u64::from_be_bytes(*first)).unwrap_or(NonZeroU64::MIN)
}

impl Place {
    fn leave_user(&mut self) {
        if let Some(user) = self.user.take() {
            self.open.users.leave(user);
        }
    }

    /// It is no user's any more.
    pub(crate) fn belong_to_nobody(&mut self) {
        self.leave_user();
    }
}

/// What clients are told apart by.
fn network(address: IpAddr, limits: &Limits) -> IpAddr {
    let prefix = if address.to_canonical().is_ipv4() { 32 } else { limits.ipv6_prefix };
    Network::around(address, prefix).first()
}

/// One more of whatever is entered, if there may be: `false` if that is enforced and there may not.
fn entered(
    enter: impl Fn(u32) -> bool,
    most: Option<NonZeroU32>,
    (trial, limit): (Trial, Limit),
    limits: &Limits,
    metrics: &Metrics,
) -> bool {
    let most = most.map_or(u32::MAX, NonZeroU32::get);
    enter(most) || !is_enforced(limits, trial, limit, metrics) && enter(u32::MAX)
}

/// Counts that a limit was met, and says whether it is enforced.
pub(crate) fn is_enforced(limits: &Limits, trial: Trial, limit: Limit, metrics: &Metrics) -> bool {
    let is_tried = limits.dry_run.covers(trial);
    metrics.limit_exceeded(limit, if is_tried { Enforcement::WouldRefuse } else { Enforcement::Refused });
    !is_tried
}

fn take(count: &AtomicUsize, most: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < most).then_some(open + 1)).is_ok()
}

#[cfg(test)]
mod tests;
