//! What a node tells people and machines about itself.

pub mod console;
