//! TLS on the listeners, with clients of three engines: rustls, OpenSSL, and what curl brings.
//!
//! Certificates come from an authority of the test's own; the clock is the machine's, so what has expired has done so
//! years ago.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

mod clients;
mod configuration;
mod handshakes;
mod reload;
mod support;
mod traffic;

#[expect(dead_code, reason = "clusters are of no interest here")]
#[path = "../node/support.rs"]
mod nodes;
