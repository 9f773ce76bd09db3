//! The NATS client protocol in WebSocket frames: the server puts as many messages into a frame as are waiting.

use std::fmt::Write as _;
use std::io::Write as _;

use super::{Aside, Endpoint, Greeting, Protocol, contains, excerpt};

/// Core NATS: subjects, no streams.
#[derive(Debug)]
pub(super) struct Nats;

impl Protocol for Nats {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint::default()
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        if contains(heard, "-ERR") {
            return Err(excerpt(heard));
        }
        if heard.starts_with(b"INFO ") {
            let mut commands = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\n".to_owned();
            for channel in greeting.channels {
                write!(commands, "SUB {channel} 1\r\n").expect("a String takes everything");
            }
            // The answer comes after everything before it was done.
            commands.push_str("PING\r\n");
            greeting.then_say(commands);
        }
        greeting.ready = contains(heard, "PONG\r\n");
        Ok(())
    }

    fn gathers(&self, _frame: &[u8]) -> bool {
        true
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        match frame {
            b"PING\r\n" => Aside::Answer("PONG\r\n"),
            _ if frame.ends_with(b"\r\nPING\r\n") => Aside::Answer("PONG\r\n"),
            _ if contains(frame, "-ERR") => Aside::Trouble(excerpt(frame)),
            _ => Aside::Nothing,
        }
    }

    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        write!(output, "PUB {channel} {}\r\n{data}\r\n", data.len()).expect("a Vec takes everything");
    }
}
