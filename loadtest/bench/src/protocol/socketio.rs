//! Socket.IO 4 on Engine.IO 4, straight over a WebSocket: a digit or two, then JSON. See `peers/socketio/server.js`.

use std::io::Write as _;

use super::{Aside, Endpoint, Greeting, Protocol, excerpt};

/// Events `subscribe`, `publish` and `m`, rooms as channels.
#[derive(Debug)]
pub(super) struct SocketIo;

impl Protocol for SocketIo {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint { path: Some("/socket.io/?EIO=4&transport=websocket".to_owned()), subprotocol: None }
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        match (heard, greeting.channels) {
            (b"", _) => {}
            (b"2", _) => greeting.say.push("3".to_owned()),
            ([b'0', ..], _) => greeting.then_say("40"),
            ([b'4', b'0', ..], []) | ([b'4', b'3', ..], _) => greeting.ready = true,
            ([b'4', b'0', ..], [channel, ..]) => {
                greeting.then_say(format!("420[\"subscribe\",\"{channel}\"]"));
            }
            _ => return Err(excerpt(heard)),
        }
        Ok(())
    }

    fn gathers(&self, _frame: &[u8]) -> bool {
        false
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        match frame {
            b"2" => Aside::Answer("3"),
            _ => Aside::Nonsense(excerpt(frame)),
        }
    }

    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        write!(output, "42[\"publish\",\"{channel}\",{data}]").expect("a Vec takes everything");
    }
}
