//! The shell of a Fanfare node.

pub mod admin;
pub mod config;
