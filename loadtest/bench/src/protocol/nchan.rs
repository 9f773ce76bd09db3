//! nchan: the path of the handshake names the channel, `POST` publishes, and what subscribers hear is the body.

use super::{Aside, Endpoint, Greeting, Post, Protocol, excerpt};

/// As `peers/nchan/nginx.conf` lays out the paths.
#[derive(Debug)]
pub(super) struct Nchan;

impl Protocol for Nchan {
    fn endpoint(&self, channels: &[&str]) -> Endpoint {
        Endpoint { path: channels.first().map(|channel| format!("/sub/{channel}")), subprotocol: None }
    }

    fn greet(&self, greeting: &mut Greeting<'_>, _heard: &[u8]) -> Result<(), String> {
        greeting.ready = true;
        Ok(())
    }

    fn gathers(&self, _frame: &[u8]) -> bool {
        false
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        Aside::Nonsense(excerpt(frame))
    }

    fn publish(&self, _channel: &str, data: &str, output: &mut Vec<u8>) {
        output.extend_from_slice(data.as_bytes());
    }

    fn posts(&self) -> Option<Post> {
        let request = |channel: &str, data: &str| (format!("/pub/{channel}"), data.to_owned());
        Some(Post { request, pipelined: 8 })
    }

    fn acknowledges(&self) -> bool {
        false
    }
}
