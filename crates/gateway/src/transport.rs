//! Transports carry whole messages in and frames out; what is in them is opaque here.

pub(crate) mod echo;
pub(crate) mod websocket;
