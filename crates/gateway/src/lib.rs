//! The shell of a node: sockets, tasks, clocks and configuration.

pub mod admin;
