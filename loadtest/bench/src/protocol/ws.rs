//! The script `peers/ws/server.js`: the least that people write themselves around the npm package `ws`.

use std::io::Write as _;

use super::{Aside, Endpoint, Greeting, Protocol, excerpt};

/// JSON objects with `subscribe`, or with `publish` and `data`.
#[derive(Debug)]
pub(super) struct Ws;

impl Protocol for Ws {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint::default()
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        match greeting.channels {
            [] => greeting.ready = true,
            [channel, ..] if heard.is_empty() => {
                greeting.then_say(format!("{{\"subscribe\":\"{channel}\"}}"));
            }
            _ if heard.starts_with(b"{\"subscribed\":") => greeting.ready = true,
            _ => return Err(excerpt(heard)),
        }
        Ok(())
    }

    fn gathers(&self, _frame: &[u8]) -> bool {
        false
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        Aside::Nonsense(excerpt(frame))
    }

    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        write!(output, "{{\"publish\":\"{channel}\",\"data\":{data}}}").expect("a Vec takes everything");
    }
}
