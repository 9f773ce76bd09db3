//! Whole nodes in one process: real sockets on ports that the system picks, several nodes on one memory bus.
//!
//! One file per property of a node. What a session decides is tested beside it, in `protocol`; here it is shown to reach
//! the wire, the other nodes and the counters.

mod admission;
mod api;
mod attacks;
mod auth;
mod bounds;
mod closing;
mod compression;
mod compression_memory;
mod consuming;
mod counters;
mod crossing;
mod crowds;
mod drain;
mod echo;
mod events;
mod formats;
mod framing;
mod golden;
mod handshake;
mod headcount;
mod heartbeat;
mod history;
mod hooks;
mod hygiene;
mod ingesting;
mod issuers;
mod limits;
mod measures;
mod operators;
mod placing;
mod presence;
mod proxies;
mod revoking;
mod slow_consumer;
mod speaking;
mod steering;
mod support;
mod transports;

#[expect(dead_code, reason = "only some of it is of interest here")]
#[path = "../tls/support.rs"]
mod tls;
