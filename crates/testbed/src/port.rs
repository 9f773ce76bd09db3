//! Ports that nothing listens on.

use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which Linux takes ports for outgoing connections (32768 and up): a client that keeps knocking
/// on the port of a stopped server must neither be given that port nor connect to itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A loopback port that was free a moment ago. Whoever starts a server on it tries another when it was taken meanwhile.
///
/// # Panics
/// When a hundred ports in a row are taken.
#[must_use]
pub fn free_port() -> u16 {
    (0..100)
        .map(|_| fastrand::u16(PORTS))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("a machine that runs tests has a free port")
}
