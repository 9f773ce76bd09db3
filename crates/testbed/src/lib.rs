//! Real servers for tests: started on a free port, faulted on demand, gone when dropped; and clients to face them with.
//!
//! One file per server. Each starts a process of its own in a directory of its own, so tests run side by side and leave
//! nothing behind. What is missing on the machine makes a test fail, never pass: the panic says how to install it.
//! The clients are of two kinds: [`Client`] is a polite one whose engine is tungstenite, a peer independent of our codec;
//! [`RawPeer`] does what no library lets one do, down to the byte.
//!
//! Everything here panics where a library would return an error: its only callers are tests and benchmarks.

pub mod authority;
pub mod backend;
mod client;
mod deflated;
mod eventually;
mod gateway;
pub mod http;
pub mod http2;
mod msgpack_client;
mod nginx;
mod port;
mod postgres_server;
mod process;
pub mod raw_peer;
mod redis_cluster;
mod redis_sentinels;
mod redis_server;
mod samples;
mod stream;

pub use authority::Authority;
pub use backend::Backend;
pub use client::{Client, Goodbye, Heard};
pub use deflated::Deflated;
pub use eventually::{PATIENCE, eventually};
pub use gateway::Gateway;
pub use http2::Http2;
pub use msgpack_client::MsgpackClient;
pub use nginx::Nginx;
pub use port::free_port;
pub use postgres_server::PostgresServer;
pub use process::Process;
pub use raw_peer::RawPeer;
pub use redis_cluster::{RedisCluster, SHARDS};
pub use redis_sentinels::RedisSentinels;
pub use redis_server::RedisServer;
pub use samples::Samples;
pub use stream::{End, EventStream, LineStream};
