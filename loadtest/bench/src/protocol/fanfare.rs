//! `fanfare.v1.json`: one event or an array of them in a frame.

use std::io::Write as _;

use serde::Deserialize;

use super::{Aside, Endpoint, Greeting, Protocol, excerpt};

/// The native protocol.
#[derive(Debug)]
pub(crate) struct Fanfare;

/// The events that matter here.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    /// The conversation begins.
    Welcome { node: String },
    /// From here on the channel is heard, be it one that nobody has asked for: that of the client's user.
    Subscribed { channel: String },
    /// The server took a subscription away: part of a stream may be lost.
    Unsubscribed { reason: Option<String> },
    /// A command failed.
    Error { code: u16, reason: String },
    /// Whatever else; a Close frame follows `closing` and says it again.
    #[serde(other)]
    Other,
}

impl Fanfare {
    /// Publishes by the server API.
    pub(crate) fn api_request(channel: &str, data: &str) -> (String, String) {
        ("/api/publish".to_owned(), format!("{{\"channel\":\"{channel}\",\"data\":{data}}}"))
    }
}

impl Protocol for Fanfare {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint { path: None, subprotocol: Some("fanfare.v1.json") }
    }

    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        if heard.is_empty() {
            for channel in greeting.channels {
                greeting.say.push(format!("{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}"));
            }
            return Ok(());
        }
        for event in events(heard)? {
            match event {
                Event::Welcome { node } => greeting.node = Some(node),
                Event::Subscribed { channel } if greeting.channels.contains(&&*channel) => greeting.step += 1,
                Event::Error { code, reason } => return Err(format!("error {code} {reason}")),
                Event::Subscribed { .. } | Event::Unsubscribed { .. } | Event::Other => {}
            }
        }
        greeting.ready = greeting.node.is_some() && greeting.step == greeting.channels.len();
        Ok(())
    }

    fn gathers(&self, frame: &[u8]) -> bool {
        frame.first() == Some(&b'[')
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        let events = match events(frame) {
            Ok(events) => events,
            Err(error) => return Aside::Nonsense(error),
        };
        let trouble = events.into_iter().find_map(|event| match event {
            Event::Error { code, reason } => Some(format!("error {code} {reason}")),
            Event::Unsubscribed { reason } => {
                Some(format!("unsubscribed by the server: {}", reason.as_deref().unwrap_or("?")))
            }
            Event::Welcome { .. } | Event::Subscribed { .. } | Event::Other => None,
        });
        trouble.map_or(Aside::Nothing, Aside::Trouble)
    }

    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        write!(output, "{{\"type\":\"publish\",\"channel\":\"{channel}\",\"data\":{data}}}")
            .expect("a Vec takes everything");
    }
}

fn events(frame: &[u8]) -> Result<Vec<Event>, String> {
    let parsed = if frame.first() == Some(&b'[') {
        serde_json::from_slice(frame)
    } else {
        serde_json::from_slice(frame).map(|it| vec![it])
    };
    parsed.map_err(|error| format!("{error}: {}", excerpt(frame)))
}
