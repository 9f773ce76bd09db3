//! What goes over the wire, as the native protocol has it in JSON.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A place in the stream of a channel with history. Epochs are compared for equality alone, offsets within an epoch alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Names the stream.
    pub epoch: String,
    /// Counts its messages from 1.
    pub offset: u64,
}

/// What a publication carries.
#[derive(Clone, Debug)]
enum Data {
    Json(Box<RawValue>),
    Bytes(Vec<u8>),
}

/// A publication, as a subscriber hears it.
#[derive(Clone, Debug)]
pub struct Message {
    data: Data,
    /// Its offset, on a channel with history.
    pub offset: Option<u64>,
    /// Whether it was replayed.
    pub recovered: bool,
    /// How many older ones gave way to it, on a channel that conflates.
    pub conflated: u64,
    /// The authenticated client that published it, if it was one.
    pub from: Option<Publisher>,
}

impl Message {
    /// Reads the data as JSON.
    ///
    /// # Errors
    /// It is something else, or bytes.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match &self.data {
            Data::Json(json) => serde_json::from_str(json.get()),
            Data::Bytes(_) => Err(serde::de::Error::custom("the data is bytes, not JSON")),
        }
    }

    /// The data as it was written, where it is JSON.
    pub fn as_json(&self) -> Option<&str> {
        match &self.data {
            Data::Json(json) => Some(json.get()),
            Data::Bytes(_) => None,
        }
    }

    /// The data, where it is bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Bytes(bytes) => Some(bytes),
            Data::Json(_) => None,
        }
    }
}

/// The client that published something.
#[derive(Clone, Debug, Deserialize)]
pub struct Publisher {
    /// Its user.
    pub user: String,
    /// What its token says of it.
    pub info: Option<Box<RawValue>>,
}

/// A subscriber of a channel.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its user; none for an anonymous one.
    pub user: Option<String>,
    /// Names its connection.
    pub session: String,
    /// What its token says of it.
    pub info: Option<Box<RawValue>>,
}

/// A page of the past.
#[derive(Clone, Debug)]
pub struct History {
    /// Where the stream stands.
    pub top: Position,
    /// In the order that was asked for.
    pub messages: Vec<Message>,
}

/// Who is subscribed to a channel.
#[derive(Clone, Debug)]
pub struct Presence {
    /// How many users; each anonymous connection is one.
    pub users: u64,
    /// How many connections.
    pub connections: u64,
    /// One for each connection, if they were asked for.
    pub members: Option<Vec<Member>>,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Welcome,
    Refreshed,
    Subscribed,
    Unsubscribed,
    Message,
    Published,
    History,
    Presence,
    Joined,
    Left,
    Pong,
    Error,
    Closing,
    #[serde(other)]
    Unknown,
}

/// Any event: the fields of all of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Said<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) id: Option<u64>,
    #[serde(borrow)]
    pub(crate) channel: Option<Cow<'a, str>>,
    pub(crate) epoch: Option<String>,
    pub(crate) offset: Option<u64>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
    pub(crate) recovered: Option<bool>,
    conflated: Option<u64>,
    from: Option<Publisher>,
    pub(crate) member: Option<Member>,
    users: Option<u64>,
    connections: Option<u64>,
    members: Option<Vec<Member>>,
    #[serde(borrow)]
    messages: Option<Vec<Kept<'a>>>,
    pub(crate) code: Option<u16>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) reconnect: Option<bool>,
    pub(crate) after: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) heartbeat: Option<u64>,
    pub(crate) ticket: Option<String>,
    pub(crate) time: Option<u64>,
    pub(crate) node: Option<String>,
    pub(crate) limits: Option<Limits>,
    pub(crate) channels: Option<Vec<String>>,
}

/// What a server says of its bounds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Limits {
    pub(crate) message_bytes: usize,
}

/// A message in a page of history.
#[derive(Debug, Deserialize)]
struct Kept<'a> {
    offset: u64,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
    from: Option<Publisher>,
}

impl Said<'_> {
    /// The position that it names.
    pub(crate) fn position(&self) -> Option<Position> {
        Some(Position { epoch: self.epoch.clone()?, offset: self.offset? })
    }

    /// A `message`.
    pub(crate) fn publication(&mut self) -> Option<Message> {
        Some(Message {
            data: read(self.data, self.data_base64.as_deref())?,
            offset: self.offset,
            recovered: self.recovered.unwrap_or(false),
            conflated: self.conflated.unwrap_or(0),
            from: self.from.take(),
        })
    }

    /// A page of `history`.
    pub(crate) fn history(&mut self) -> Option<History> {
        let messages = self.messages.take()?.into_iter().map(|kept| {
            let data = read(kept.data, kept.data_base64.as_deref())?;
            let offset = Some(kept.offset);
            Some(Message { data, offset, recovered: false, conflated: 0, from: kept.from })
        });
        Some(History { messages: messages.collect::<Option<_>>()?, top: self.position()? })
    }

    /// A `presence`.
    pub(crate) fn presence(&mut self) -> Option<Presence> {
        Some(Presence { users: self.users?, connections: self.connections?, members: self.members.take() })
    }
}

/// A value that is there, if only as `null`.
fn even_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

fn read(json: Option<&RawValue>, base64: Option<&str>) -> Option<Data> {
    match (json, base64) {
        (Some(json), _) => Some(Data::Json(json.to_owned())),
        (None, Some(base64)) => BASE64.decode(base64.as_bytes()).ok().map(Data::Bytes),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_protocol_writes_them() {
        let text = r#"{"type":"message","channel":"room:1","offset":3,"recovered":true,"conflated":2,"from":{"user":"ann","info":{"age": 7}},"data":{"n": 1.50}}"#;
        let mut said: Said<'_> = serde_json::from_str(text).unwrap();
        assert_eq!((said.kind, said.channel.as_deref()), (Kind::Message, Some("room:1")));
        let message = said.publication().unwrap();
        assert_eq!((message.as_json(), message.offset), (Some(r#"{"n": 1.50}"#), Some(3)));
        assert_eq!((message.recovered, message.conflated), (true, 2));
        assert_eq!(message.from.unwrap().info.unwrap().get(), r#"{"age": 7}"#);
        let text = r#"{"type":"message","channel":"a","data_base64":"AAEC"}"#;
        let message = serde_json::from_str::<Said<'_>>(text).unwrap().publication().unwrap();
        assert_eq!((message.as_bytes(), message.offset), (Some(&[0, 1, 2][..]), None));
        assert!(message.json::<serde_json::Value>().is_err());
        let null = serde_json::from_str::<Said<'_>>(r#"{"type":"message","channel":"a","data":null}"#);
        assert_eq!(null.unwrap().publication().unwrap().as_json(), Some("null"));
        let later: Said<'_> = serde_json::from_str(r#"{"type":"unheard_of","x":[]}"#).unwrap();
        assert_eq!(later.kind, Kind::Unknown);
    }

    #[test]
    fn a_page_has_the_stream_s_place_and_its_messages() {
        let text = r#"{"type":"history","id":9,"channel":"a","epoch":"e","offset":3,"messages":[{"offset":2,"data":{"n":2}},{"offset":3,"data_base64":"AA=="}]}"#;
        let page = serde_json::from_str::<Said<'_>>(text).unwrap().history().unwrap();
        assert_eq!(page.top, Position { epoch: "e".into(), offset: 3 });
        assert!(page.messages.iter().map(|it| it.offset).eq([Some(2), Some(3)]));
    }
}
