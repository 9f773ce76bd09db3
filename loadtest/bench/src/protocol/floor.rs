//! The floor server: `S` and a channel subscribes, `P`, a channel, a space and a payload publishes, and what
//! subscribers hear is the payload.

use std::io::Write as _;

use super::{Aside, Endpoint, Greeting, Protocol, excerpt};

/// No protocol to speak of.
#[derive(Debug)]
pub(super) struct Floor;

impl Protocol for Floor {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint::default()
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        match (heard, greeting.channels) {
            (b"", [channel, ..]) => greeting.then_say(format!("S{channel}")),
            (b"", []) | (b"S", _) => greeting.ready = true,
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
        write!(output, "P{channel} {data}").expect("a Vec takes everything");
    }
}
