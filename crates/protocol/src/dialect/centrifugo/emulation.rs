//! What a client that hears by the body of a response posts: for which conversation, held by which node, and what it says.
//!
//! It is what a [`Ticket`] is elsewhere, in two halves, and the messages are those of a WebSocket.

use std::borrow::Cow;

use serde::Deserialize;

use super::wire::protobuf;
use crate::id::{SessionId, Ticket};

/// What was posted, whichever format it came in.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Posted<'a> {
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// The half of a ticket that is told as `session`; the node is told anyway.
pub(super) fn session(ticket: &Ticket) -> String {
    format!("{:032x}", ticket.secret())
}

/// The secret of a ticket, as [`session`] tells it.
pub(super) fn secret(session: &str) -> Option<u128> {
    SessionId::parse(session).map(|it| u128::from_be_bytes(it.to_bytes()))
}

/// Reads a request in JSON: the ticket, and a message of text.
///
/// # Errors
/// What is wrong with it.
pub fn from_json(body: &[u8]) -> Result<(Ticket, String), &'static str> {
    let Posted { session, node, data } = serde_json::from_slice(body)
        .map_err(|_| "the body has to be an object with `session`, `node` and `data`, each a string")?;
    Ok((ticket(&session, &node)?, data.into_owned()))
}

/// Reads a request in Protobuf: the ticket, and a message of bytes.
///
/// # Errors
/// What is wrong with it.
pub fn from_protobuf(body: &[u8]) -> Result<(Ticket, &[u8]), &'static str> {
    let (node, session, data) =
        protobuf::emulation(body).ok_or("the body has to be an EmulationRequest of Protobuf")?;
    Ok((ticket(session, node)?, data))
}

fn ticket(session: &str, node: &str) -> Result<Ticket, &'static str> {
    let ticket = Some(node).filter(|node| !node.is_empty());
    let ticket = ticket.and_then(|node| Ticket::parse(&format!("{node}.{session}")));
    ticket.ok_or("`session` and `node` have to be those of the reply to `connect`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read_back_in_both_formats() {
        let given = Ticket::from_random("node-1", [7; 16]);
        let json = format!(r#"{{"session":"{}","node":"node-1","data":"{{\"id\":2}}"}}"#, session(&given));
        assert_eq!(from_json(json.as_bytes()), Ok((given.clone(), r#"{"id":2}"#.to_owned())));
        // By the numbers of the schema: 1 the node, 2 the session, 3 the data.
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
        let body = [field(1, b"node-1"), field(2, session(&given).as_bytes()), field(3, &[2, 8, 2])].concat();
        assert_eq!(from_protobuf(&body), Ok((given, &[2, 8, 2][..])));
    }

    #[test]
    fn what_names_no_conversation_is_refused() {
        for body in ["", "[]", "{}", r#"{"session":"x","node":"node-1"}"#, r#"{"session":1}"#] {
            assert!(from_json(body.as_bytes()).is_err(), "{body}");
        }
        let nameless = format!(r#"{{"session":"{:032x}","data":"{{}}"}}"#, 7);
        assert!(from_json(nameless.as_bytes()).is_err(), "no node");
        for body in [&b"\x0a"[..], b"", b"\x12\x01x"] {
            assert!(from_protobuf(body).is_err(), "{body:?}");
        }
    }
}
