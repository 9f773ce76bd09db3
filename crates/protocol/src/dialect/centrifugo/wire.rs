//! Its commands as they come, whichever format they came in, and what they mean.
//!
//! A message that cannot be read as commands, or whose commands have no place in the protocol, ends the conversation, as it
//! does at Centrifugo; a command that can be read but not be granted is refused under its number.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::{Command, Decoded, Introduction, Rejection, Request, Start, Wording};
use crate::error::{ErrorCode, Failure};
use crate::grant::{Proof, Token};
use crate::id::RequestId;
use crate::publication::{Epoch, Offset, Payload, Position};

mod filter;
pub(super) mod json;
pub(super) mod protobuf;

/// The most publications that are answered at once.
const HISTORY_MAX: usize = 300;

/// The longest name of a kind of client, and of its version, in bytes; what is longer is cut off.
const NAME_BYTES_MAX: usize = 64;

/// The one format of differences that there is.
const FOSSIL: &str = "fossil";

/// The longest name of a method, in bytes.
const METHOD_BYTES_MAX: usize = 255;

/// One command: its number, and the first method that it names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(super) struct Frame<'a> {
    id: u32,
    #[serde(borrow)]
    connect: Option<Connect<'a>>,
    #[serde(borrow)]
    subscribe: Option<Subscribe<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<OfChannel<'a>>,
    #[serde(borrow)]
    publish: Option<Publish<'a>>,
    #[serde(borrow)]
    presence: Option<OfChannel<'a>>,
    #[serde(borrow)]
    presence_stats: Option<OfChannel<'a>>,
    #[serde(borrow)]
    history: Option<History<'a>>,
    ping: Option<Nothing>,
    #[serde(borrow)]
    send: Option<Send<'a>>,
    #[serde(borrow)]
    rpc: Option<Rpc<'a>>,
    #[serde(borrow)]
    refresh: Option<Refresh<'a>>,
    #[serde(borrow)]
    sub_refresh: Option<SubRefresh<'a>>,
}

/// A command of which nothing is read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Nothing {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Connect<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<Data<'a>>,
    #[serde(borrow)]
    subs: BTreeMap<Cow<'a, str>, Subscribe<'a>>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "as it comes")]
pub(super) struct Subscribe<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    recover: bool,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
    join_leave: bool,
    /// The format of the differences that it understands.
    #[serde(borrow)]
    delta: Cow<'a, str>,
    #[serde(borrow)]
    tf: Option<filter::Node<'a>>,
    /// 0 is a subscription to a stream; others are to things that are not here.
    r#type: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OfChannel<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    limit: i32,
    #[serde(borrow)]
    since: Option<Since<'a>>,
    reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Since<'a> {
    offset: u64,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Send<'a> {
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rpc<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SubRefresh<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
}

/// What a client has sent for others to read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    Json(&'a RawValue),
    /// JSON, or any bytes.
    Bytes(&'a [u8]),
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::Json)
    }
}

impl Data<'_> {
    pub(super) fn payload(self) -> Payload {
        match self {
            Self::Json(json) => Payload::from_raw(json),
            Self::Bytes(bytes) => {
                let json = str::from_utf8(bytes).ok().and_then(|text| Payload::parse(text).ok());
                json.unwrap_or_else(|| Payload::binary(bytes))
            }
        }
    }
}

impl Frame<'_> {
    /// What the command means.
    ///
    /// # Errors
    /// The reason to end the conversation: the command has no place in it.
    pub(super) fn meaning(self) -> Result<Decoded, CloseReason> {
        let id = self.id;
        let Some(meaning) = self.command()? else {
            // An answer to a ping has no number, as nothing else that is empty.
            return if id == 0 {
                Ok(Ok(Request { id: None, command: Command::Pong }))
            } else {
                Err(CloseReason::BadRequest)
            };
        };
        // What is said to the application is not answered, and has none either.
        let is_told = matches!(meaning, Ok(Command::Tell { .. }));
        if id == 0 && !is_told {
            return Err(CloseReason::BadRequest);
        }
        let id = (!is_told).then(|| RequestId::Number(id.into()));
        Ok(match meaning {
            Ok(command) => Ok(Request { id, command }),
            Err(failure) => Err(Rejection { id, ..Rejection::unnamed(failure) }),
        })
    }

    /// The command of the first method; `None` when there is none.
    fn command(self) -> Result<Option<Result<Command, Failure>>, CloseReason> {
        let meaning = if let Some(connect) = self.connect {
            Ok(Command::Open(connect.introduction()))
        } else if let Some(subscribe) = self.subscribe {
            subscribe.command()?
        } else if let Some(of) = self.unsubscribe {
            named(&of.channel)?.map(|channel| Command::Unsubscribe { channel })
        } else if let Some(publish) = self.publish {
            publish.command()?
        } else if let Some(of) = self.presence {
            named(&of.channel)?.map(|channel| Command::Presence { channel, members: true })
        } else if let Some(of) = self.presence_stats {
            named(&of.channel)?.map(|channel| Command::Presence { channel, members: false })
        } else if let Some(history) = self.history {
            history.command()?
        } else if self.ping.is_some() {
            Err(not_offered("it is the server that pings"))
        } else if let Some(Send { data }) = self.send {
            Ok(Command::Tell { payload: sent(data) })
        } else if let Some(Rpc { method, data }) = self.rpc {
            rpc(&method, data)
        } else if let Some(Refresh { token }) = self.refresh {
            let token = some(token).ok_or(CloseReason::BadRequest)?;
            Ok(Command::Authenticate { token: Token::new(token) })
        } else if let Some(SubRefresh { channel, token }) = self.sub_refresh {
            let token = some(token).ok_or(CloseReason::BadRequest)?;
            let proof = Proof::Token(Token::new(token));
            named(&channel)?.map(|channel| Command::Renew { channel, proof })
        } else {
            return Ok(None);
        };
        Ok(Some(meaning))
    }
}

impl Connect<'_> {
    fn introduction(self) -> Introduction {
        let place = |(name, it): (Cow<'_, str>, Subscribe<'_>)| {
            Some((Channel::parse(&name).ok()?, it.start())).filter(|(_, start)| *start != Start::Live)
        };
        let cut = |text: Cow<'_, str>| text[..text.floor_char_boundary(NAME_BYTES_MAX)].into();
        Introduction {
            token: some(self.token).map(Token::new),
            payload: self.data.map(Data::payload),
            name: cut(self.name),
            version: cut(self.version),
            places: self.subs.into_iter().filter_map(place).collect(),
        }
    }
}

impl Subscribe<'_> {
    fn start(&self) -> Start {
        if self.recover { Start::Since(position(&self.epoch, self.offset)) } else { Start::Live }
    }

    fn command(self) -> Result<Result<Command, Failure>, CloseReason> {
        let channel = named(&self.channel)?;
        if self.r#type != 0 {
            return Ok(Err(not_offered("there are subscriptions to streams alone: leave `type` out")));
        }
        let filter = self.tf.as_ref().map(filter::read).transpose();
        Ok(channel.and_then(|channel| {
            Ok(Command::Subscribe {
                channel,
                start: self.start(),
                presence: self.join_leave,
                wording: if self.delta == FOSSIL { Wording::Differences } else { Wording::Whole },
                filter: filter?.map(Arc::new),
                proof: some(self.token).map(|token| Proof::Token(Token::new(token))),
            })
        }))
    }
}

impl Publish<'_> {
    fn command(self) -> Result<Result<Command, Failure>, CloseReason> {
        let channel = named(&self.channel)?;
        let Some(data) = self.data else { return Ok(Err(bad("`data` is missing"))) };
        Ok(channel.map(|channel| Command::Publish {
            channel,
            payload: data.payload(),
            echo: true,
            key: None,
        }))
    }
}

impl Since<'_> {
    pub(super) fn position(&self) -> Position {
        position(&self.epoch, self.offset)
    }
}

impl History<'_> {
    fn command(self) -> Result<Result<Command, Failure>, CloseReason> {
        // What is below nothing is as much as there is.
        let limit = usize::try_from(self.limit).map_or(HISTORY_MAX, |limit| limit.min(HISTORY_MAX));
        let since = self.since.as_ref().map(Since::position);
        let reverse = self.reverse;
        Ok(named(&self.channel)?.map(|channel| Command::History { channel, since, limit, reverse }))
    }
}

/// A call of the application. Its method may have no name, as at Centrifugo, but one of the application's has.
fn rpc(method: &str, data: Option<Data<'_>>) -> Result<Command, Failure> {
    if method.is_empty() || method.len() > METHOD_BYTES_MAX {
        return Err(bad("`method` has to be a name of 1 to 255 bytes"));
    }
    Ok(Command::Call { method: method.into(), payload: sent(data) })
}

/// What is left out is `null`.
fn sent(data: Option<Data<'_>>) -> Payload {
    data.map_or_else(|| Payload::parse("null").expect("it is JSON"), Data::payload)
}

/// A channel's name; one that cannot be is refused, and none at all has no place in the protocol.
fn named(name: &str) -> Result<Result<Channel, Failure>, CloseReason> {
    if name.is_empty() {
        return Err(CloseReason::BadRequest);
    }
    Ok(Channel::parse(name).map_err(|error| bad(format!("`channel` is not a channel name: {error}"))))
}

fn position(epoch: &str, offset: u64) -> Position {
    Position { epoch: Epoch::parse(epoch).unwrap_or(Epoch::NEVER), offset: Offset(offset) }
}

/// A text that says something.
fn some(text: Cow<'_, str>) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into_owned().into())
}

fn bad(explanation: impl Into<Box<str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, explanation)
}

fn not_offered(explanation: &str) -> Failure {
    Failure::new(ErrorCode::NotOffered, explanation)
}
