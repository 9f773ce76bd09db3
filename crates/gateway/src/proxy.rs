//! For whom does a socket speak? Proxies say so, and those that are trusted are believed.
//!
//! ```text
//!  X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.0.0.2        the socket's peer: 10.0.0.1
//!                   anybody wrote  ▲ the client      └── proxies ──┘
//!                   this           └ the last address that is no trusted proxy's
//! ```
//!
//! Each proxy appends the address that it was spoken to from. So the list is read from its end for as long as the addresses are
//! those of trusted proxies: the first other one was written by a proxy that is trusted, and what stands before it by whoever
//! liked to. What cannot be read ends the search, and the request counts as the proxy's own.
//!
//! **Invariant.** A peer that is not trusted is never believed, and of two headers only the one that the proxies set is looked
//! at: many hand on the other as it came.

use std::net::IpAddr;

use ::http::{HeaderMap, HeaderName, header};

use crate::config::{self, ForwardedBy, Network};

mod forwarded;
pub(crate) mod protocol;

/// The proxies of a node.
#[derive(Debug)]
pub(crate) struct Proxies {
    trusted: Vec<Network>,
    header: ForwardedBy,
    protocol: bool,
}

/// A trusted proxy named a client that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl Proxies {
    pub(crate) fn of(config: &config::Proxy) -> Self {
        Self { trusted: config.trusted.clone(), header: config.header, protocol: config.protocol }
    }

    /// Whether an address is one of theirs.
    pub(crate) fn include(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Whether sockets from an address begin with a header of the PROXY protocol.
    pub(crate) fn introduce(&self, address: IpAddr) -> bool {
        self.protocol && self.include(address)
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// It cannot be read, so it is the peer's.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Unreadable> {
        if !self.include(peer) {
            return Ok(peer);
        }
        let (name, read): (HeaderName, fn(&str) -> Option<IpAddr>) = match self.header {
            ForwardedBy::XForwardedFor => (HeaderName::from_static("x-forwarded-for"), forwarded::address),
            ForwardedBy::Forwarded => (header::FORWARDED, forwarded::element),
        };
        let mut client = peer;
        for line in headers.get_all(name).iter().rev() {
            let line = line.to_str().map_err(|_| Unreadable)?;
            for hop in line.rsplit(',') {
                client = read(hop.trim()).ok_or(Unreadable)?;
                if !self.include(client) {
                    return Ok(client);
                }
            }
        }
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedBy) -> Proxies {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|it| it.parse().unwrap());
        Proxies { trusted: trusted.into(), header, protocol: false }
    }

    fn client(by: ForwardedBy, peer: &str, lines: &[&str]) -> Result<String, Unreadable> {
        let mut headers = HeaderMap::new();
        let (name, other) = match by {
            ForwardedBy::XForwardedFor => ("x-forwarded-for", "forwarded"),
            ForwardedBy::Forwarded => ("forwarded", "x-forwarded-for"),
        };
        for line in lines {
            headers.append(name, HeaderValue::from_str(line).unwrap());
        }
        headers.append(other, "for=203.0.113.99, 203.0.113.99".parse().unwrap());
        proxies(by).client(peer.parse().unwrap(), &headers).map(|it| it.to_string())
    }

    #[test]
    fn the_client_is_the_last_that_is_no_trusted_proxy() {
        for (peer, lines, expected) in [
            ("10.0.0.1", &[][..], Ok("10.0.0.1")),
            ("10.0.0.1", &["203.0.113.7"], Ok("203.0.113.7")),
            ("::ffff:10.0.0.1", &["203.0.113.7"], Ok("203.0.113.7")),
            ("10.0.0.1", &["203.0.113.7, 10.0.0.2"], Ok("203.0.113.7")),
            ("10.0.0.1", &["203.0.113.7", "10.0.0.2,10.0.0.3"], Ok("203.0.113.7")),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7, 10.0.0.2"], Ok("203.0.113.7")),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.7"], Ok("203.0.113.7")),
            ("10.0.0.1", &["garbage, 203.0.113.7"], Ok("203.0.113.7")),
            ("10.0.0.1", &["10.0.0.9, 10.0.0.2"], Ok("10.0.0.9")),
            ("10.0.0.1", &["203.0.113.7:4711"], Ok("203.0.113.7")),
            ("10.0.0.1", &["2001:db8::7"], Ok("2001:db8::7")),
            ("2001:db8:ffff::1", &["[2001:db8::7]:4711"], Ok("2001:db8::7")),
            ("10.0.0.1", &["\"[2001:db8::7]\""], Ok("2001:db8::7")),
            // Nobody is believed who is not trusted.
            ("203.0.113.1", &["198.51.100.1"], Ok("203.0.113.1")),
            ("203.0.113.1", &["10.0.0.1"], Ok("203.0.113.1")),
            ("::1", &["198.51.100.1"], Ok("::1")),
            // What cannot be read ends the search.
            ("10.0.0.1", &["203.0.113.7, garbage"], Err(Unreadable)),
            ("10.0.0.1", &["203.0.113.7, "], Err(Unreadable)),
            ("10.0.0.1", &[""], Err(Unreadable)),
            ("10.0.0.1", &["203.0.113.7, unknown, 10.0.0.2"], Err(Unreadable)),
            ("10.0.0.1", &["203.0.113.7 10.0.0.2"], Err(Unreadable)),
            ("10.0.0.1", &["203.0.113.256"], Err(Unreadable)),
            ("10.0.0.1", &["[::1"], Err(Unreadable)),
        ] {
            let found = client(ForwardedBy::XForwardedFor, peer, lines);
            assert_eq!(found.as_deref(), expected.as_ref().copied(), "{peer} {lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_by_its_for() {
        for (lines, expected) in [
            (&["for=203.0.113.7"][..], Ok("203.0.113.7")),
            (&["For=203.0.113.7;proto=https;by=10.0.0.1"], Ok("203.0.113.7")),
            (&["proto=https; for=\"[2001:db8::7]:4711\""], Ok("2001:db8::7")),
            (&["for=198.51.100.1, for=203.0.113.7;host=a, for=10.0.0.2"], Ok("203.0.113.7")),
            (&["for=198.51.100.1", "for=203.0.113.7"], Ok("203.0.113.7")),
            (&["for=_hidden"], Err(Unreadable)),
            (&["for=unknown, for=10.0.0.2"], Err(Unreadable)),
            (&["proto=https"], Err(Unreadable)),
            (&["203.0.113.7"], Err(Unreadable)),
        ] {
            let found = client(ForwardedBy::Forwarded, "10.0.0.1", lines);
            assert_eq!(found.as_deref(), expected.as_ref().copied(), "{lines:?}");
        }
    }

    proptest! {
        /// Whatever clients write before what the proxies append, it makes them nobody else.
        #[test]
        fn what_a_client_writes_changes_nothing(
            spoofed in prop::collection::vec(r#"[0-9a-f.:,\[\]" =;]{0,24}"#, 0..4),
            hops in 0..3_u8,
        ) {
            let mut lines = spoofed;
            let appended = (0..hops).fold("203.0.113.7".to_owned(), |line, hop| format!("{line}, 10.0.0.{hop}"));
            match lines.pop() {
                Some(last) => lines.push(format!("{last}, {appended}")),
                None => lines.push(appended),
            }
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client(ForwardedBy::XForwardedFor, "10.9.9.9", &lines), Ok("203.0.113.7".into()));
        }
    }
}
