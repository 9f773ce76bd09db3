//! Commands in Protobuf (proto3): messages with their length before them.
//!
//! Fields that are not known are skipped; of one that is there several times the last counts. Nothing that was only announced
//! takes memory, and nothing nests deeper than the schema.

use std::borrow::Cow;

use super::filter::Node;
use super::{
    Connect, Data, Frame, History, Nothing, OfChannel, Publish, Refresh, Rpc, Send, Since, SubRefresh,
    Subscribe,
};
use crate::close::CloseReason;
use crate::command::Decoded;

/// How deeply filters may be nested.
const FILTER_LEVELS_MAX: usize = 16;

/// Reads the commands of one message, in order.
///
/// # Errors
/// The reason to end the conversation: one of them is no command, or there are too many.
pub(in super::super) fn commands(
    mut bytes: &[u8],
    batch_max: usize,
    on_command: &mut dyn FnMut(Decoded),
) -> Result<(), CloseReason> {
    if bytes.is_empty() {
        return Err(CloseReason::BadRequest);
    }
    let mut read = 0;
    while !bytes.is_empty() {
        read += 1;
        let frame = delimited(&mut bytes).and_then(frame);
        let frame = frame.filter(|_| read <= batch_max).ok_or(CloseReason::BadRequest)?;
        on_command(frame.meaning()?);
    }
    Ok(())
}

/// The value of a field, as far as the wire tells.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that the schema does not use.
    Other,
}

impl<'a> Value<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    fn text(self) -> Option<Cow<'a, str>> {
        str::from_utf8(self.bytes()?).ok().map(Cow::Borrowed)
    }

    fn number(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    fn switch(self) -> Option<bool> {
        self.number().map(|number| number != 0)
    }

    /// A number that may be negative, which then has all of its 64 bits.
    #[expect(clippy::cast_possible_truncation, reason = "that is how it is read, here and by others")]
    fn signed(self) -> Option<i32> {
        self.number().map(|number| number as i32)
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Hands each field of a message to `on_field`; `None` when the message, or what `on_field` makes of it, is malformed.
fn fields<'a>(mut bytes: &'a [u8], mut on_field: impl FnMut(u64, Value<'a>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => {
                bytes = bytes.get(8..)?;
                Value::Other
            }
            2 => Value::Bytes(delimited(&mut bytes)?),
            5 => {
                bytes = bytes.get(4..)?;
                Value::Other
            }
            _ => return None,
        };
        on_field(key >> 3, value)?;
    }
    Some(())
}

fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let mut frame = Frame::default();
    fields(bytes, |number, value| {
        match number {
            1 => frame.id = u32::try_from(value.number()?).ok()?,
            4 => frame.connect = Some(connect(value.bytes()?)?),
            5 => frame.subscribe = Some(subscribe(value.bytes()?)?),
            6 => frame.unsubscribe = Some(of_channel(value.bytes()?)?),
            7 => frame.publish = Some(publish(value.bytes()?)?),
            8 => frame.presence = Some(of_channel(value.bytes()?)?),
            9 => frame.presence_stats = Some(of_channel(value.bytes()?)?),
            10 => frame.history = Some(history(value.bytes()?)?),
            11 => frame.ping = value.bytes().map(|_| Nothing {}),
            12 => frame.send = Some(send(value.bytes()?)?),
            13 => frame.rpc = Some(rpc(value.bytes()?)?),
            14 => frame.refresh = Some(refresh(value.bytes()?)?),
            15 => frame.sub_refresh = Some(sub_refresh(value.bytes()?)?),
            _ => {}
        }
        Some(())
    })?;
    Some(frame)
}

/// Node, session and data of what was posted for a conversation.
pub(in super::super) fn emulation(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (mut node, mut session, mut posted) = ("", "", &[][..]);
    fields(bytes, |number, value| {
        match number {
            1 => node = str::from_utf8(value.bytes()?).ok()?,
            2 => session = str::from_utf8(value.bytes()?).ok()?,
            3 => posted = value.bytes()?,
            _ => {}
        }
        Some(())
    })?;
    Some((node, session, posted))
}

fn connect(bytes: &[u8]) -> Option<Connect<'_>> {
    let mut connect = Connect::default();
    fields(bytes, |number, value| {
        match number {
            1 => connect.token = value.text()?,
            2 => connect.data = Some(Data::Bytes(value.bytes()?)),
            3 => {
                let (mut name, mut of) = (Cow::Borrowed(""), Subscribe::default());
                fields(value.bytes()?, |number, value| {
                    match number {
                        1 => name = value.text()?,
                        2 => of = subscribe(value.bytes()?)?,
                        _ => {}
                    }
                    Some(())
                })?;
                connect.subs.insert(name, of);
            }
            4 => connect.name = value.text()?,
            5 => connect.version = value.text()?,
            _ => {}
        }
        Some(())
    })?;
    Some(connect)
}

fn subscribe(bytes: &[u8]) -> Option<Subscribe<'_>> {
    let mut of = Subscribe::default();
    fields(bytes, |number, value| {
        match number {
            1 => of.channel = value.text()?,
            2 => of.token = value.text()?,
            3 => of.recover = value.switch()?,
            6 => of.epoch = value.text()?,
            7 => of.offset = value.number()?,
            11 => of.join_leave = value.switch()?,
            12 => of.delta = value.text()?,
            13 => of.tf = Some(filter(value.bytes()?, FILTER_LEVELS_MAX)?),
            15 => of.r#type = value.signed()?,
            _ => {}
        }
        Some(())
    })?;
    Some(of)
}

/// A filter, and those within it, so many within each other at most.
fn filter(bytes: &[u8], levels: usize) -> Option<Node<'_>> {
    let within = levels.checked_sub(1)?;
    let mut node = Node::default();
    fields(bytes, |number, value| {
        match number {
            1 => node.op = value.text()?,
            2 => node.key = value.text()?,
            3 => node.cmp = value.text()?,
            4 => node.val = value.text()?,
            5 => node.vals.push(value.text()?),
            6 => node.nodes.push(filter(value.bytes()?, within)?),
            _ => {}
        }
        Some(())
    })?;
    Some(node)
}

fn of_channel(bytes: &[u8]) -> Option<OfChannel<'_>> {
    let mut of = OfChannel::default();
    fields(bytes, |number, value| {
        if number == 1 {
            of.channel = value.text()?;
        }
        Some(())
    })?;
    Some(of)
}

fn publish(bytes: &[u8]) -> Option<Publish<'_>> {
    let mut of = Publish::default();
    fields(bytes, |number, value| {
        match number {
            1 => of.channel = value.text()?,
            2 => of.data = Some(Data::Bytes(value.bytes()?)),
            _ => {}
        }
        Some(())
    })?;
    Some(of)
}

fn history(bytes: &[u8]) -> Option<History<'_>> {
    let mut of = History::default();
    fields(bytes, |number, value| {
        match number {
            1 => of.channel = value.text()?,
            7 => of.limit = value.signed()?,
            8 => {
                let mut since = Since::default();
                fields(value.bytes()?, |number, value| {
                    match number {
                        1 => since.offset = value.number()?,
                        2 => since.epoch = value.text()?,
                        _ => {}
                    }
                    Some(())
                })?;
                of.since = Some(since);
            }
            9 => of.reverse = value.switch()?,
            _ => {}
        }
        Some(())
    })?;
    Some(of)
}

fn send(bytes: &[u8]) -> Option<Send<'_>> {
    let mut of = Send::default();
    fields(bytes, |number, value| {
        if number == 1 {
            of.data = Some(Data::Bytes(value.bytes()?));
        }
        Some(())
    })?;
    Some(of)
}

fn rpc(bytes: &[u8]) -> Option<Rpc<'_>> {
    let mut of = Rpc::default();
    fields(bytes, |number, value| {
        match number {
            1 => of.data = Some(Data::Bytes(value.bytes()?)),
            2 => of.method = value.text()?,
            _ => {}
        }
        Some(())
    })?;
    Some(of)
}

fn refresh(bytes: &[u8]) -> Option<Refresh<'_>> {
    let mut of = Refresh::default();
    fields(bytes, |number, value| {
        if number == 1 {
            of.token = value.text()?;
        }
        Some(())
    })?;
    Some(of)
}

fn sub_refresh(bytes: &[u8]) -> Option<SubRefresh<'_>> {
    let mut of = SubRefresh::default();
    fields(bytes, |number, value| {
        match number {
            1 => of.channel = value.text()?,
            2 => of.token = value.text()?,
            _ => {}
        }
        Some(())
    })?;
    Some(of)
}
