//! The shell of a Fanfare node.

pub mod config;
