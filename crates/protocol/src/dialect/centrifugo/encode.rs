//! From events to replies and pushes: one walk over the fields, whatever they are written to.

use std::time::Duration;

use super::sink::{Field, Sink};
use super::{codes, emulation};
use crate::close::CloseReason;
use crate::command::{Start, Wording};
use crate::event::{Crowd, Entered, Entry, Event, Member, Reply, Welcome};
use crate::history::Page;
use crate::id::{RequestId, SessionId, UserId};
use crate::publication::{Offset, Payload, Publication, Sender};

/// What the server says of itself.
const VERSION: &str = concat!("fanfare ", env!("CARGO_PKG_VERSION"));

/// A frame's worth of bytes for a publication.
pub(super) fn room(publication: &Publication) -> usize {
    publication.payload.as_bytes().len() + publication.channel.as_str().len() + 96
}

/// A publication as all subscribers get it.
pub(super) fn push(sink: &mut impl Sink, of: &Publication) {
    push_of(sink, of, |sink| publication(sink, of));
}

/// A publication as those get it who have agreed to differences: what it says, or a delta that makes that out of what was before.
pub(super) fn chained(sink: &mut impl Sink, of: &Publication, said: &[u8], is_delta: bool) {
    push_of(sink, of, |sink| {
        sink.bytes(Field::new("data", 4), said);
        placed(sink, of);
        sink.switch(Field::new("delta", 8), is_delta);
    });
}

fn push_of<S: Sink>(sink: &mut S, of: &Publication, write: impl FnOnce(&mut S)) {
    sink.message(PUSH, |sink| {
        sink.text(CHANNEL, of.channel.as_str());
        sink.message(Field::new("pub", 4), write);
    });
}

const PUSH: Field = Field::new("push", 4);
const CHANNEL: Field = Field::new("channel", 2);

/// Writes the reply that an event is, or the push; `None` where there is no word for it.
pub(super) fn reply(sink: &mut impl Sink, reply: &Reply) -> Option<()> {
    match &reply.id {
        Some(RequestId::Number(id)) => {
            let id = u64::try_from(*id).ok()?;
            answer(sink, id, &reply.event)
        }
        Some(RequestId::Text(_)) => None,
        None => unasked(sink, &reply.event),
    }
}

fn answer(sink: &mut impl Sink, id: u64, event: &Event) -> Option<()> {
    sink.number(Field::new("id", 1), id);
    match event {
        Event::Welcome(of) => sink.message(Field::new("connect", 5), |sink| welcome(sink, of)),
        Event::Subscribed { entry, start, wording, lasts, greeting, .. } => {
            sink.message(Field::new("subscribe", 6), |sink| {
                expiry(sink, *lasts, [Field::new("expires", 1), Field::new("ttl", 2)]);
                entered(sink, *entry, *start, greeting.as_ref());
                sink.switch(Field::new("delta", 13), *wording == Wording::Differences);
            });
        }
        Event::Unsubscribed { .. } => sink.message(Field::new("unsubscribe", 7), |_| {}),
        Event::Published { .. } => sink.message(Field::new("publish", 8), |_| {}),
        Event::Present { crowd, .. } => match &crowd.members {
            Some(members) => sink.message(Field::new("presence", 9), |sink| {
                let members = members.iter().map(|it| (it.session.to_string(), it));
                sink.map(Field::always("presence", 1), members, member);
            }),
            None => sink.message(Field::new("presence_stats", 10), |sink| presence_stats(sink, crowd)),
        },
        Event::Past { page, .. } => sink.message(Field::new("history", 11), |sink| history(sink, page)),
        Event::Returned { payload } => sink.message(Field::new("rpc", 13), |sink| {
            sink.data(Field::new("data", 1), payload);
        }),
        Event::Refreshed { session, lasts, .. } => sink.message(Field::new("refresh", 14), |sink| {
            sink.text(Field::new("client", 1), &session.to_string());
            sink.text(Field::new("version", 2), VERSION);
            expiry(sink, *lasts, [Field::new("expires", 3), Field::new("ttl", 4)]);
        }),
        Event::Renewed { lasts, .. } => sink.message(Field::new("sub_refresh", 15), |sink| {
            expiry(sink, *lasts, [Field::new("expires", 1), Field::new("ttl", 2)]);
        }),
        Event::Refused { failure, .. } => sink.message(Field::new("error", 2), |sink| {
            let (number, words, is_temporary) = codes::error(failure.code);
            sink.number(Field::new("code", 1), number.into());
            sink.text(Field::new("message", 2), &format!("{words}: {}", failure.explanation));
            sink.switch(Field::new("temporary", 3), is_temporary);
        }),
        Event::Joined { .. }
        | Event::Left { .. }
        | Event::NothingKept { .. }
        | Event::Recognised
        | Event::Sighted { .. }
        | Event::Acquainted { .. }
        | Event::Counted { .. }
        | Event::Pong { .. }
        | Event::Closing { .. } => return None,
    }
    Some(())
}

fn unasked(sink: &mut impl Sink, event: &Event) -> Option<()> {
    if let Event::Refreshed { lasts, .. } = event {
        sink.message(PUSH, |sink| {
            sink.message(Field::new("refresh", 12), |sink| {
                expiry(sink, *lasts, [Field::new("expires", 1), Field::new("ttl", 2)]);
            });
        });
        return Some(());
    }
    let (channel, field) = match event {
        Event::Joined { channel, .. } => (channel, Field::new("join", 5)),
        Event::Left { channel, .. } => (channel, Field::new("leave", 6)),
        Event::Unsubscribed { channel, .. } => (channel, Field::new("unsubscribe", 7)),
        Event::Subscribed { channel, .. } => (channel, Field::new("subscribe", 9)),
        _ => return None,
    };
    sink.message(PUSH, |sink| {
        sink.text(CHANNEL, channel.as_str());
        sink.message(field, |sink| match event {
            Event::Joined { member: of, .. } | Event::Left { member: of, .. } => {
                sink.message(Field::new("info", 1), |sink| member(sink, of));
            }
            Event::Unsubscribed { cause, .. } => {
                let (code, reason) = codes::unsubscribed(*cause);
                sink.number(Field::new("code", 2), code.into());
                sink.text(Field::new("reason", 3), reason);
            }
            Event::Subscribed { entry, start, greeting, .. } => {
                let place = entry.map(|entry| (entry.position.epoch, place(entry, *start)));
                sink.switch(Field::new("recoverable", 1), place.is_some());
                if let Some((epoch, offset)) = place {
                    sink.text(Field::new("epoch", 4), &epoch.to_string());
                    sink.number(Field::new("offset", 5), offset.0);
                }
                sink.switch(Field::new("positioned", 6), place.is_some());
                if let Some(greeting) = greeting {
                    sink.data(Field::new("data", 7), greeting);
                }
            }
            _ => {}
        });
    });
    Some(())
}

/// Why a conversation ends, for those who are told by a message.
pub(super) fn disconnect(sink: &mut impl Sink, reason: CloseReason) {
    let (code, words) = codes::disconnect(reason);
    sink.message(PUSH, |sink| {
        sink.message(Field::new("disconnect", 11), |sink| {
            sink.number(Field::new("code", 1), code.into());
            sink.text(Field::new("reason", 2), words);
            sink.switch(Field::new("reconnect", 3), codes::comes_back(code));
        });
    });
}

fn welcome(sink: &mut impl Sink, of: &Welcome) {
    sink.text(Field::new("client", 1), &of.session.to_string());
    sink.text(Field::new("version", 2), VERSION);
    expiry(sink, of.lasts, [Field::new("expires", 3), Field::new("ttl", 4)]);
    let subscriptions = of.entered.iter().map(|it| (it.channel.as_str().to_owned(), it));
    sink.map(Field::new("subs", 6), subscriptions, |sink, Entered { entry, start, greeting, .. }| {
        entered(sink, *entry, *start, greeting.as_ref());
    });
    sink.number(Field::new("ping", 7), of.heartbeat.as_secs());
    sink.switch(Field::new("pong", 8), true);
    if let Some(ticket) = &of.ticket {
        sink.text(Field::new("session", 9), &emulation::session(ticket));
    }
    sink.text(Field::new("node", 10), &of.node);
}

/// Where a subscriber enters a channel, and what the application has it told.
fn entered(sink: &mut impl Sink, entry: Option<Entry>, start: Start, greeting: Option<&Payload>) {
    sink.switch(Field::new("recoverable", 3), entry.is_some());
    if let Some(entry) = entry {
        sink.text(Field::new("epoch", 6), &entry.position.epoch.to_string());
        sink.switch(Field::new("recovered", 8), entry.recovered);
        sink.number(Field::new("offset", 9), place(entry, start).0);
    }
    sink.switch(Field::new("positioned", 10), entry.is_some());
    if let Some(greeting) = greeting {
        sink.data(Field::new("data", 11), greeting);
    }
    let was_recovering = entry.is_some() && matches!(start, Start::Since(_));
    sink.switch(Field::new("was_recovering", 12), was_recovering);
}

/// Where a subscriber stands. What it has missed follows as publications, so it is still at the place that it named.
fn place(entry: Entry, start: Start) -> Offset {
    match start {
        Start::Since(since) if entry.recovered => since.offset,
        Start::Since(_) | Start::Live | Start::Rewind(_) => entry.position.offset,
    }
}

/// For how long a token is good, in whole seconds, and at least one: 0 would be for ever.
fn expiry(sink: &mut impl Sink, lasts: Option<Duration>, [expires, ttl]: [Field; 2]) {
    if let Some(lasts) = lasts {
        sink.switch(expires, true);
        sink.number(ttl, lasts.as_secs().max(1));
    }
}

/// A page of history, for clients and callers of the server API alike.
pub(super) fn history(sink: &mut impl Sink, page: &Page) {
    let publications = page.publications.iter();
    sink.list(Field::always("publications", 1), publications, |sink, it| publication(sink, it));
    sink.text(Field::always("epoch", 2), &page.epoch.to_string());
    sink.number(Field::always("offset", 3), page.top.0);
}

/// How many are there.
pub(super) fn presence_stats(sink: &mut impl Sink, crowd: &Crowd) {
    sink.number(Field::always("num_clients", 1), crowd.connections);
    sink.number(Field::always("num_users", 2), crowd.users);
}

fn publication(sink: &mut impl Sink, of: &Publication) {
    sink.data(Field::new("data", 4), &of.payload);
    placed(sink, of);
}

/// From whom, where, and how it is marked.
fn placed(sink: &mut impl Sink, of: &Publication) {
    if let Some(Sender { user, profile, session, note }) = of.sender.as_deref() {
        sink.message(Field::new("info", 5), |sink| {
            client(sink, user.as_ref(), *session, [profile.as_ref(), note.as_ref()]);
        });
    }
    sink.number(Field::new("offset", 6), of.offset().0);
    sink.texts(Field::new("tags", 7), of.payload.tags().iter());
}

pub(super) fn member(sink: &mut impl Sink, of: &Member) {
    client(sink, of.user.as_ref(), Some(of.session), [of.profile.as_ref(), of.note.as_ref()]);
}

/// Who somebody is, and what others are shown of it, anywhere and on the channel.
fn client(
    sink: &mut impl Sink,
    user: Option<&UserId>,
    session: Option<SessionId>,
    [anywhere, here]: [Option<&Payload>; 2],
) {
    sink.text(Field::always("user", 1), user.map_or("", UserId::as_str));
    sink.text(Field::always("client", 2), &session.map(|it| it.to_string()).unwrap_or_default());
    for (field, shown) in [(Field::new("conn_info", 3), anywhere), (Field::new("chan_info", 4), here)] {
        if let Some(shown) = shown {
            sink.data(field, shown);
        }
    }
}
