//! May this socket come in? Bounds on what is open, and the origins that pages may come from.
//!
//! Two counts, both cheap: sockets, of whatever kind, bounded so that nothing a peer does makes the process run out of
//! file descriptors; and connections, the WebSockets that `limits.connections` bounds. A place is a value: dropped, it is
//! free again, whatever the reason. The bounds are arguments, since a running node may be given new ones; below what is
//! open already, a bound lets nobody in until enough have gone, and drops nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sockets beyond the connections: health checks, the page, and upgrades that will be told the node is full.
const SPARE_SOCKETS: usize = 1024;

/// Counts of what is open.
#[derive(Debug, Default)]
pub struct Admission {
    sockets: Arc<Count>,
    connections: Arc<Count>,
}

/// How many are open.
type Count = AtomicUsize;

/// A taken place, free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<Count>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// A place for a socket that was just accepted, where so many connections may be open.
    pub fn socket(&self, connections_max: usize) -> Option<Place> {
        take(&self.sockets, connections_max.saturating_add(SPARE_SOCKETS))
    }

    /// A place for a connection, one of `connections_max`.
    pub fn connection(&self, connections_max: usize) -> Option<Place> {
        take(&self.connections, connections_max)
    }
}

fn take(count: &Arc<Count>, most: usize) -> Option<Place> {
    let taken =
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < most).then_some(open + 1));
    taken.is_ok().then(|| Place(count.clone()))
}

/// The origins that pages may come from.
#[derive(Debug)]
pub struct Origins(Vec<OriginPattern>);

impl Origins {
    /// These; where none is named, the host that a page connects to. `*` is every origin.
    pub fn new(allowed: &[String]) -> Self {
        Self(allowed.iter().map(|origin| OriginPattern::new(origin)).collect())
    }

    /// Whether a page of this origin may connect to the host that its request names. Clients that are not browsers send
    /// no origin; they are not asked.
    pub fn allow(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        let origin = origin.to_ascii_lowercase();
        if self.0.is_empty() {
            let page = origin.split_once("://").map(|(_, authority)| without_port(authority));
            return page.is_some_and(|page| page.eq_ignore_ascii_case(without_port(host)));
        }
        self.0.iter().any(|pattern| pattern.matches(&origin))
    }
}

/// The host of `host[:port]`, where an IPv6 address stands in brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

#[derive(Debug)]
enum OriginPattern {
    /// `*`
    Every,
    /// `scheme://host[:port]`
    Exactly(String),
    /// `scheme://*.host[:port]`
    Subdomains { scheme: String, host: String },
}

impl OriginPattern {
    fn new(pattern: &str) -> Self {
        match pattern.split_once("://*.") {
            _ if pattern == "*" => Self::Every,
            Some((scheme, host)) => Self::Subdomains { scheme: scheme.into(), host: host.into() },
            None => Self::Exactly(pattern.into()),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Exactly(allowed) => origin == allowed,
            Self::Subdomains { scheme, host } => {
                origin.split_once("://").is_some_and(|(theirs, authority)| {
                    let sub = authority.strip_suffix(host.as_str());
                    theirs == scheme && sub.is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_dropped() {
        let admission = Admission::default();
        let first = admission.connection(2).unwrap();
        let second = admission.connection(2).unwrap();
        assert!(admission.connection(2).is_none());
        drop(first);
        let third = admission.connection(2).unwrap();
        assert!(admission.connection(2).is_none());
        drop((second, third));
        assert!(admission.connection(2).is_some());
    }

    #[test]
    fn a_bound_below_what_is_open_lets_nobody_in_until_enough_have_gone() {
        let admission = Admission::default();
        let mut places: Vec<_> = (0..3).map(|_| admission.connection(3).unwrap()).collect();
        assert!(admission.connection(4).is_some(), "a raised bound has room");
        for _ in 0..2 {
            assert!(admission.connection(2).is_none());
            places.pop();
        }
        assert!(admission.connection(2).is_some());
    }

    #[test]
    fn sockets_have_room_beyond_the_connections() {
        let admission = Admission::default();
        let sockets: Vec<_> = std::iter::from_fn(|| admission.socket(2)).collect();
        assert_eq!(sockets.len(), 2 + SPARE_SOCKETS);
    }

    #[test]
    fn origins_match_exactly_or_by_subdomain() {
        let allowed = ["https://app.example.com".to_owned(), "https://*.example.org:8443".to_owned()];
        let origins = Origins::new(&allowed);
        for (origin, expected) in [
            (None, true),
            (Some("https://app.example.com"), true),
            (Some("HTTPS://App.Example.Com"), true),
            (Some("http://app.example.com"), false),
            (Some("https://app.example.com.evil.net"), false),
            (Some("https://evilapp.example.com"), false),
            (Some("https://a.example.org:8443"), true),
            (Some("https://a.b.example.org:8443"), true),
            (Some("https://example.org:8443"), false),
            (Some("https://.example.org:8443"), false),
            (Some("https://evilexample.org:8443"), false),
            (Some("https://a.example.org"), false),
            (Some("null"), false),
        ] {
            assert_eq!(origins.allow(origin, "example.org:8443"), expected, "{origin:?}");
        }
        let everyone = Origins::new(&["*".to_owned()]);
        assert!(everyone.allow(Some("https://anywhere"), "here"));
    }

    #[test]
    fn where_no_origin_is_named_a_page_connects_to_its_own_host() {
        let origins = Origins::new(&[]);
        for (origin, host, expected) in [
            (None, "localhost:8000", true),
            (Some("http://localhost:3000"), "localhost:8000", true),
            (Some("https://Example.com"), "example.com", true),
            (Some("http://[::1]:3000"), "[::1]:8000", true),
            (Some("http://[::1]"), "[::1]", true),
            (Some("http://[::2]"), "[::1]", false),
            (Some("https://evil.net"), "localhost:8000", false),
            (Some("https://localhost.evil.net"), "localhost:8000", false),
            (Some("null"), "localhost:8000", false),
        ] {
            assert_eq!(origins.allow(origin, host), expected, "{origin:?} {host}");
        }
    }
}
