//! The shell of a Fanfare node: sockets, tasks, clocks, configuration.
//!
//! The way in is [`node::Node`]: it builds everything from a [`config::Config`], serves, and drains. A socket goes through
//! [`admission`], `http` routes it to a transport and a dialect, and [`connection`] lives its life.

mod admin;
pub mod admission;
mod api;
mod auth;
mod census;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
mod consumers;
mod errands;
mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hooks;
mod http;
mod logging;
pub mod node;
mod orders;
pub mod outgoing;
mod proxy;
mod readiness;
mod spans;
mod tls;
mod trace;
mod transport;
mod users;
