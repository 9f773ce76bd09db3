//! The same protocol as Protobuf: messages with their length before them, one or several in a frame.

use super::super::{Aside, Endpoint, Greeting, Protocol, excerpt};

/// An empty command or reply.
const PING_AND_PONG: &str = "\0";

// Keys of fields, as the schema numbers them.
const ID: u8 = 1 << 3;
const ERROR: u8 = 2 << 3 | LENGTH;
const PUSH: u8 = 4 << 3 | LENGTH;
const PUSH_CHANNEL: u8 = 2 << 3 | LENGTH;
const UNSUBSCRIBE: u8 = 7 << 3 | LENGTH;
const DISCONNECT: u8 = 11 << 3 | LENGTH;
const LENGTH: u8 = 2;

/// The protocol version 2.
#[derive(Debug)]
pub(in super::super) struct CentrifugoProtobuf;

impl Protocol for CentrifugoProtobuf {
    fn endpoint(&self, _channels: &[&str]) -> Endpoint {
        Endpoint { path: Some("/connection/websocket".to_owned()), subprotocol: Some("centrifuge-protobuf") }
    }

    /// What is said is short, so every length is one byte, and all of it is text.
    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String> {
        if heard.is_empty() {
            let mut commands = "\x04\x08\x01\x22\0".to_owned();
            for channel in greeting.channels {
                let subscribe = short(&format!("\x0a{}", short(channel)));
                commands += &short(&format!("\x08\x02\x2a{subscribe}"));
            }
            greeting.say.push(commands);
            return Ok(());
        }
        let last = if greeting.channels.is_empty() { 1 } else { 2 };
        for reply in messages(heard) {
            match *reply {
                [ID, _, ERROR, ..] => return Err(excerpt(heard)),
                [ID, id, ..] => greeting.ready |= id == last,
                _ => {}
            }
        }
        Ok(())
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn gathers(&self, frame: &[u8]) -> bool {
        messages(frame).nth(1).is_some()
    }

    fn aside(&self, frame: &[u8]) -> Aside {
        let mut is_pinged = false;
        for message in messages(frame) {
            match *message {
                [] => is_pinged = true,
                [ID, _, ERROR, ..] => return Aside::Trouble(excerpt(frame)),
                [PUSH, ref push @ ..] if tells_an_end(push) => return Aside::Trouble(excerpt(frame)),
                _ => {}
            }
        }
        if is_pinged { Aside::Answer(PING_AND_PONG) } else { Aside::Nothing }
    }

    /// The id is required and may be repeated: the reply is not waited for.
    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>) {
        let mut publish = Vec::new();
        write_field(1 << 3 | LENGTH, channel.as_bytes(), &mut publish);
        write_field(2 << 3 | LENGTH, data.as_bytes(), &mut publish);
        let mut command = vec![ID, 3];
        write_field(7 << 3 | LENGTH, &publish, &mut command);
        write_varint(command.len(), output);
        output.extend_from_slice(&command);
    }
}

/// Whether a push says that a subscription or the conversation is over.
fn tells_an_end(mut push: &[u8]) -> bool {
    let of = delimited(&mut push).unwrap_or_default();
    let after_channel = match *of {
        [PUSH_CHANNEL, length, ref rest @ ..] => rest.get(usize::from(length)..).unwrap_or_default(),
        _ => of,
    };
    matches!(after_channel.first(), Some(&(UNSUBSCRIBE | DISCONNECT)))
}

/// A text of up to 127 bytes with its length before it.
fn short(text: &str) -> String {
    let length = u8::try_from(text.len()).ok().filter(u8::is_ascii).expect("the generator's names are short");
    format!("{}{text}", char::from(length))
}

fn messages(mut frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || delimited(&mut frame))
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn write_field(key: u8, bytes: &[u8], output: &mut Vec<u8>) {
    output.push(key);
    write_varint(bytes.len(), output);
    output.extend_from_slice(bytes);
}

fn write_varint(mut number: usize, output: &mut Vec<u8>) {
    while number >= 0x80 {
        output.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}
