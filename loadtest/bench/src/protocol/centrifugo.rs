//! Centrifugo's bidirectional client protocol as JSON: commands and replies, one a line, several lines in a frame.

use std::fmt::Write as _;
use std::io::Write as _;

use super::{Aside, Endpoint, Greeting, Protocol, contains, excerpt};

mod protobuf;

pub(super) use protobuf::CentrifugoProtobuf;

const PING_AND_PONG: &str = "{}";

/// The protocol version 2.
#[derive(Debug)]
pub(super) struct Centrifugo;

impl Protocol for Centrifugo {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint { path: Some("/connection/websocket".to_owned()), subprotocol: None }
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        if heard.is_empty() {
            let mut commands = "{\"id\":1,\"connect\":{}}".to_owned();
            for channel in greeting.channels {
                write!(commands, "\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}")
                    .expect("a String takes everything");
            }
            greeting.say.push(commands);
            return Ok(());
        }
        if contains(heard, "\"error\":") {
            return Err(excerpt(heard));
        }
        let last = if greeting.channels.is_empty() { "\"connect\":" } else { "\"subscribe\":" };
        greeting.ready = contains(heard, last);
        Ok(())
    }

    fn gathers(&self, frame: &[u8]) -> bool {
        memchr::memchr(b'\n', frame).is_some()
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        let ping = frame == PING_AND_PONG.as_bytes()
            || frame.starts_with(b"{}\n")
            || frame.ends_with(b"\n{}")
            || contains(frame, "\n{}\n");
        if ping {
            return Aside::Answer(PING_AND_PONG);
        }
        for bad in ["\"error\":{", "\"disconnect\":{", "\"unsubscribe\":{"] {
            if contains(frame, bad) {
                return Aside::Trouble(excerpt(frame));
            }
        }
        Aside::Nothing
    }

    /// The id is required and may be repeated: the reply is not waited for.
    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        write!(output, "{{\"id\":3,\"publish\":{{\"channel\":\"{channel}\",\"data\":{data}}}}}")
            .expect("a Vec takes everything");
    }
}
