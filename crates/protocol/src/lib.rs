//! The rules of the gateway: no sockets, no tasks, no clock.

pub mod websocket;
