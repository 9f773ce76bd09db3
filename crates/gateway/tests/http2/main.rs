//! HTTP/2 on both listeners, and WebSockets over it (RFC 8441), with clients that are not ours: the `h2` crate, curl, and
//! frames by hand for what no client does.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

mod conversation;
mod floods;
mod handshake;
mod requests;
mod streams;

#[expect(dead_code, reason = "clusters are of no interest here")]
#[path = "../node/support.rs"]
mod nodes;
#[expect(dead_code, reason = "only some of it is of interest here")]
#[path = "../tls/support.rs"]
mod tls;
