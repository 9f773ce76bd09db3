//! The Pusher Channels protocol, version 7, as its client libraries speak it: text frames of `{event, channel?, data?}`.
//!
//! What it calls an application is a [`Realm`] here: its channels are those of a namespace, of which its clients do not know.
//! The name of a channel says what it is ([`names`]), and so the rules of a realm go by names ([`rules`]). The name of an
//! event is the [`Label`](crate::publication::Label) of what is published, and its data is whatever value the string holds that
//! clients send and expect ([`text`]). An application lets its clients in by signatures ([`admission`]), and publishes by an HTTP
//! API ([`api`]).
//!
//! Answers are matched by the channel, not by a number: the only request whose answer depends on what was asked is a
//! subscription, so that one is given a number here.
//!
//! `docs/protocol/pusher.md` says what is supported; the conversations in `transcripts/` are what this is held against.

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::Decoded;
use crate::depth;
use crate::dialect::{Dialect, Encoding, Incoming, Offer};
use crate::error::Failure;
use crate::event::Reply;
use crate::grant::{Grant, Pass, Signed, Token};
use crate::id::SessionId;
use crate::manners::{Absence, Arrival, Loss, Manners, Naming};
use crate::publication::{Delivery, Publication};
use crate::realm::Realm;
use crate::websocket::Frame;

mod admission;
pub mod api;
mod decode;
mod encode;
pub mod names;
pub mod rules;
mod text;
pub mod webhooks;

/// What a subscription is numbered, so that its refusal is told from others.
const SUBSCRIBING: i64 = 1;

const MANNERS: Manners = Manners {
    absence: Absence::Fine,
    naming: Naming::AtAnyTime,
    arrival: Arrival::WithCrowd,
    loss: Loss::Final,
    ..Manners::PLAIN
};

/// What is agreed on at its endpoint.
pub const OFFER: Offer =
    Offer { default: Encoding::Pusher, encodings: &[Encoding::Pusher], by_query: |_| None };

/// The version that is spoken here.
const VERSION: &str = "7";

/// Whether a client speaks the version that is spoken here: by the query of the URL or, where that says nothing of it, by a
/// subprotocol that it offers.
///
/// # Errors
/// Why it is sent away: it speaks another one, or does not say.
pub fn version<'a>(query: &str, subprotocols: impl IntoIterator<Item = &'a str>) -> Result<(), CloseReason> {
    let in_query = || query.split('&').filter_map(|pair| pair.strip_prefix("protocol="));
    let mut said = subprotocols.into_iter().filter_map(|name| name.strip_prefix("pusher-channels-protocol-"));
    let is_spoken = match in_query().next() {
        Some(_) => in_query().any(|version| version == VERSION),
        None => match said.next() {
            Some(first) => first == VERSION || said.any(|version| version == VERSION),
            None => return Err(CloseReason::Unsaid),
        },
    };
    if is_spoken { Ok(()) } else { Err(CloseReason::NotOffered) }
}

/// Version 7, in text frames.
#[derive(Clone, Copy, Debug)]
pub struct Pusher;

impl Dialect for Pusher {
    fn decode(
        &self,
        incoming: Incoming<'_>,
        _batch_max: usize,
        on_command: &mut dyn FnMut(Decoded),
    ) -> Result<(), CloseReason> {
        match incoming {
            Incoming::Text(text) => on_command(decode::command(text)),
            Incoming::Binary(_) => return Err(CloseReason::UnsupportedData),
        }
        Ok(())
    }

    fn exceeds(&self, incoming: Incoming<'_>, levels: usize) -> bool {
        let Incoming::Text(text) = incoming else { return false };
        depth::json_exceeds(text.as_bytes(), levels) || decode::data_exceeds(text, levels)
    }

    fn encode(&self, reply: &Reply) -> Option<Frame> {
        encode::reply(reply)
    }

    fn encode_publication(&self, publication: &Publication, _delivery: Delivery) -> Frame {
        encode::publication(publication)
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn ping(&self) -> Frame {
        encode::ping()
    }

    fn close(&self, reason: CloseReason) -> (u16, &'static str) {
        close(reason)
    }

    fn admit(
        &self,
        realm: &Realm,
        session: SessionId,
        channel: &Channel,
        signed: &Signed,
    ) -> Result<Pass, Failure> {
        admission::admit(realm, session, channel, signed)
    }

    fn recognise(&self, realm: &Realm, session: SessionId, token: &Token) -> Result<Grant, Failure> {
        admission::recognise(realm, session, token)
    }
}

/// Up to 4099 a client does not come back, up to 4199 it waits for a second or more, and up to 4299 it comes back at once.
fn close(reason: CloseReason) -> (u16, &'static str) {
    use CloseReason as It;
    let code = match reason {
        It::Normal | It::ProtocolError | It::UnsupportedData | It::InvalidPayload | It::MessageTooBig => {
            reason.number()
        }
        It::NotFound => 4001,
        It::NotOffered => 4007,
        It::Unsaid => 4008,
        It::BadRequest | It::Unauthorized | It::Late | It::Expired | It::Forbidden => 4009,
        It::Internal | It::TryAgainLater | It::LimitReached | It::RateLimited | It::SlowConsumer => 4100,
        It::GoingAway => 4200,
        It::HeartbeatTimeout => 4201,
    };
    let words = match reason {
        It::NotFound => "there is no application with this key",
        It::NotOffered => "this version of the protocol is not spoken here: connect with protocol=7",
        It::Unsaid => "say which version of the protocol you speak: connect with protocol=7",
        _ => reason.explanation(),
    };
    (code, words)
}

#[cfg(test)]
mod tests;
