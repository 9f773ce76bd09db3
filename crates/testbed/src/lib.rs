//! Real servers for tests: started on a free port, faulted on demand, gone when dropped.
//!
//! One file per server. Each starts a process of its own in a directory of its own, so tests run side by side and leave
//! nothing behind. What is missing on the machine makes a test fail, never pass: the panic says how to install it.
//!
//! Everything here panics where a library would return an error: its only callers are tests and benchmarks.

mod eventually;
mod port;
mod process;
mod redis_sentinels;
mod redis_server;

pub use eventually::{PATIENCE, eventually};
pub use port::free_port;
pub use process::Process;
pub use redis_sentinels::RedisSentinels;
pub use redis_server::RedisServer;
