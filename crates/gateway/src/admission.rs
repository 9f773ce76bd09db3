//! May this socket come in? Bounds on what is open, and the origins that pages may come from.
//!
//! Two counts, both cheap: sockets, of whatever kind, bounded so that nothing a peer does makes the process run out of
//! file descriptors; and connections, the WebSockets that `limits.connections` bounds. A place is a value: dropped, it is
//! free again, whatever the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sockets beyond the connections: health checks, the page, and upgrades that will be told the node is full.
const SPARE_SOCKETS: usize = 1024;

/// Counts of what is open, and their bounds.
#[derive(Debug)]
pub struct Admission {
    sockets: Arc<Count>,
    connections: Arc<Count>,
    origins: Vec<OriginPattern>,
}

#[derive(Debug)]
struct Count {
    open: AtomicUsize,
    most: usize,
}

/// A taken place, free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<Count>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// Admits that many connections, from pages of these origins; where none is named, from pages of the host that they
    /// connect to. `*` is every origin.
    pub fn new(connections_max: usize, origins: &[String]) -> Self {
        let count = |most| Arc::new(Count { open: AtomicUsize::new(0), most });
        Self {
            sockets: count(connections_max.saturating_add(SPARE_SOCKETS)),
            connections: count(connections_max),
            origins: origins.iter().map(|origin| OriginPattern::new(origin)).collect(),
        }
    }

    /// A place for a socket that was just accepted.
    pub fn socket(&self) -> Option<Place> {
        take(&self.sockets)
    }

    /// A place for a connection.
    pub fn connection(&self) -> Option<Place> {
        take(&self.connections)
    }

    /// Whether a page of this origin may connect to the host that its request names. Clients that are not browsers send
    /// no origin; they are not asked.
    pub fn allows_origin(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        let origin = origin.to_ascii_lowercase();
        if self.origins.is_empty() {
            let page = origin.split_once("://").map(|(_, authority)| without_port(authority));
            return page.is_some_and(|page| page.eq_ignore_ascii_case(without_port(host)));
        }
        self.origins.iter().any(|pattern| pattern.matches(&origin))
    }
}

/// The host of `host[:port]`, where an IPv6 address stands in brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

fn take(count: &Arc<Count>) -> Option<Place> {
    let taken = count
        .open
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < count.most).then_some(open + 1));
    taken.is_ok().then(|| Place(count.clone()))
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
        let admission = Admission::new(2, &[]);
        let first = admission.connection().unwrap();
        let second = admission.connection().unwrap();
        assert!(admission.connection().is_none());
        drop(first);
        let third = admission.connection().unwrap();
        assert!(admission.connection().is_none());
        drop((second, third));
        assert!(admission.connection().is_some());
    }

    #[test]
    fn sockets_have_room_beyond_the_connections() {
        let admission = Admission::new(2, &[]);
        let sockets: Vec<_> = std::iter::from_fn(|| admission.socket()).collect();
        assert_eq!(sockets.len(), 2 + SPARE_SOCKETS);
    }

    #[test]
    fn origins_match_exactly_or_by_subdomain() {
        let allowed = ["https://app.example.com".to_owned(), "https://*.example.org:8443".to_owned()];
        let admission = Admission::new(1, &allowed);
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
            assert_eq!(admission.allows_origin(origin, "example.org:8443"), expected, "{origin:?}");
        }
        let everyone = Admission::new(1, &["*".to_owned()]);
        assert!(everyone.allows_origin(Some("https://anywhere"), "here"));
    }

    #[test]
    fn where_no_origin_is_named_a_page_connects_to_its_own_host() {
        let admission = Admission::new(1, &[]);
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
            assert_eq!(admission.allows_origin(origin, host), expected, "{origin:?} {host}");
        }
    }
}
