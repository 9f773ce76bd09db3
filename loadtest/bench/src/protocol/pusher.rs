//! The Pusher protocol 7, as Sockudo and the gateway serve it: private channels, since only their members may publish, and
//! client events. A publisher does not hear itself.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use super::{Aside, Endpoint, Greeting, Protocol, contains, excerpt};

/// Key of the application that `peers/sockudo` and `peers/fanfare` configure.
const APP_KEY: &str = "bench-key";
/// Its secret.
const APP_SECRET: &[u8] = b"bench-secret";

const PONG: &str = "{\"event\":\"pusher:pong\",\"data\":{}}";

/// Version 7.
#[derive(Debug)]
pub(super) struct Pusher;

impl Protocol for Pusher {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        let path = format!("/app/{APP_KEY}?protocol=7&client=bench&version=1&flash=false");
        Endpoint { path: Some(path), subprotocol: None }
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        if contains(heard, "\"pusher:error\"") || contains(heard, "subscription_error") {
            return Err(excerpt(heard));
        }
        if contains(heard, "\"pusher:connection_established\"") {
            let socket = socket_id(heard).ok_or_else(|| excerpt(heard))?;
            for channel in greeting.channels {
                greeting.say.push(subscription(&socket, channel));
            }
            greeting.ready = greeting.channels.is_empty();
        } else if contains(heard, "subscription_succeeded\"") {
            greeting.step += 1;
            greeting.ready = greeting.step == greeting.channels.len();
        }
        Ok(())
    }

    fn gathers(&self, _frame: &[u8]) -> bool {
        false
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        if contains(frame, "\"pusher:ping\"") {
            Aside::Answer(PONG)
        } else if contains(frame, "\"pusher:error\"") {
            Aside::Trouble(excerpt(frame))
        } else {
            Aside::Nothing
        }
    }

    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        write!(output, "{{\"event\":\"client-m\",\"channel\":\"private-{channel}\",\"data\":{data}}}")
            .expect("a Vec takes everything");
    }

    fn publishes_as_subscriber(&self) -> bool {
        true
    }
}

/// The data of the event is JSON in a JSON string.
fn socket_id(heard: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(heard).ok()?;
    let data: Value = serde_json::from_str(event["data"].as_str()?).ok()?;
    data["socket_id"].as_str().map(str::to_owned)
}

fn subscription(socket: &str, channel: &str) -> String {
    let signed = hmac_sha256::HMAC::mac(format!("{socket}:private-{channel}"), APP_SECRET);
    let mut hexadecimal = String::new();
    for byte in signed {
        write!(hexadecimal, "{byte:02x}").expect("a String takes everything");
    }
    format!(
        "{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"private-{channel}\",\
         \"auth\":\"{APP_KEY}:{hexadecimal}\"}}}}"
    )
}
