//! Who on this node is told who joins and leaves a channel, or how many there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fanfare_metrics::Metrics;
use fanfare_protocol::event::{Crowd, Event, Member, Reply};
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, SessionId};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::task::yield_now;

use crate::outbox::{Order, Outbox, Queued};
use crate::presence::{Notice, Turn, TurnKind};

/// The most turns that are held for a listener that does not know yet who is there. More can only come in while it waits for an
/// answer of the book; whoever has more to be told than that comes back instead.
const HELD_MAX: usize = 4096;

/// The listeners of every channel.
#[derive(Debug, Default)]
pub(super) struct Audience(Mutex<HashMap<Channel, IndexMap<SessionId, Listener>>>);

#[derive(Debug)]
struct Listener {
    outbox: Arc<Outbox>,
    hears: Hears,
}

/// What a listener is told, and what of it so far.
#[derive(Debug)]
enum Hears {
    /// Who joins and leaves.
    Turns,
    /// The same once it knows who was there before: these.
    TurnsAfter(Vec<Turn>),
    /// How many there are, and that it was told last.
    Count(Option<u64>),
}

/// What a listener is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    AtOnce,
    /// Not before [`Audience::heed`].
    Later,
    /// Not who joins and leaves, but how many there are.
    Count,
}

impl Audience {
    pub(super) fn add(&self, channel: &Channel, session: SessionId, outbox: Arc<Outbox>, telling: Telling) {
        let hears = match telling {
            Telling::AtOnce => Hears::Turns,
            Telling::Later => Hears::TurnsAfter(Vec::new()),
            Telling::Count => Hears::Count(None),
        };
        let listener = Listener { outbox, hears };
        self.0.lock().entry(channel.clone()).or_default().insert(session, listener);
    }

    /// From the return on nothing is queued for it.
    pub(super) fn remove(&self, channel: &Channel, session: SessionId) {
        let mut channels = self.0.lock();
        if let Some(listeners) = channels.get_mut(channel) {
            listeners.swap_remove(&session);
            if listeners.is_empty() {
                channels.remove(channel);
            }
        }
    }

    /// A listener has been told that this is the crowd: queues what has changed since it listens, and is not in that, and tells it
    /// at once from now on.
    pub(super) fn heed(&self, channel: &Channel, session: SessionId, crowd: &Crowd, metrics: &Metrics) {
        let mut channels = self.0.lock();
        let listener = channels.get_mut(channel).and_then(|listeners| listeners.get_mut(&session));
        let Some(Listener { outbox, hears }) = listener else { return };
        let Hears::TurnsAfter(held) = std::mem::replace(hears, Hears::Turns) else { return };
        for turn in news(held, crowd) {
            if let Some(frame) = outbox.encoding().dialect().encode(&event(channel, turn)) {
                outbox.push(frame).unwrap_or_else(Queued::from).count(metrics);
            }
        }
    }

    /// Queues a notice for everyone who listens. The lock is held for one turn at a time, and writers come between.
    pub(super) async fn tell(&self, notice: &Notice, metrics: &Metrics) {
        for turn in &notice.turns {
            self.tell_turn(&notice.channel, turn, metrics);
            yield_now().await;
        }
    }

    fn tell_turn(&self, channel: &Channel, turn: &Turn, metrics: &Metrics) {
        let mut channels = self.0.lock();
        let Some(listeners) = channels.get_mut(channel) else { return };
        let session = turn.member.session;
        let event = event(channel, turn.clone());
        let mut frames = Frames::default();
        for (_, listener) in listeners.iter_mut().filter(|(listener, _)| **listener != session) {
            let Listener { outbox, hears } = listener;
            match hears {
                Hears::TurnsAfter(held) if held.len() < HELD_MAX => held.push(turn.clone()),
                Hears::TurnsAfter(_) => outbox.order(Order::Overflowed),
                Hears::Turns => frames.queue(&event, outbox, metrics),
                Hears::Count(_) => {}
            }
        }
    }

    /// Queues how many there are for everyone who is told that and has not been.
    pub(super) fn tell_count(&self, channel: &Channel, connections: u64, metrics: &Metrics) {
        let mut channels = self.0.lock();
        let Some(listeners) = channels.get_mut(channel) else { return };
        let event = Reply::unasked(Event::Counted { channel: channel.clone(), connections });
        let mut frames = Frames::default();
        for Listener { outbox, hears } in listeners.values_mut() {
            let Hears::Count(told) = hears else { continue };
            if told.replace(connections) != Some(connections) {
                frames.queue(&event, outbox, metrics);
            }
        }
    }
}

/// One event, as it is spelt in each encoding that somebody speaks; `None` where there is no word for it.
#[derive(Default)]
struct Frames([Option<Option<Frame>>; Encoding::ALL.len()]);

impl Frames {
    fn queue(&mut self, event: &Reply, outbox: &Outbox, metrics: &Metrics) {
        let encoding = outbox.encoding();
        let frame = self.0[encoding as usize].get_or_insert_with(|| encoding.dialect().encode(event));
        if let Some(frame) = frame {
            outbox.push(frame.clone()).unwrap_or_else(Queued::from).count(metrics);
        }
    }
}

/// What of these turns whoever knows the crowd does not know. Some may have happened before it was read.
fn news(turns: Vec<Turn>, crowd: &Crowd) -> Vec<Turn> {
    if turns.is_empty() {
        return turns;
    }
    let key = |member: &Member| match &member.user {
        Some(user) => Ok(user.clone()),
        None => Err(member.session),
    };
    let mut there: HashSet<_> = crowd.members.iter().flatten().map(key).collect();
    let mut news = turns;
    news.retain(|turn| match turn.kind {
        TurnKind::Joined => there.insert(key(&turn.member)),
        TurnKind::Left => there.remove(&key(&turn.member)),
    });
    news
}

fn event(channel: &Channel, Turn { kind, member }: Turn) -> Reply {
    let channel = channel.clone();
    Reply::unasked(match kind {
        TurnKind::Joined => Event::Joined { channel, member },
        TurnKind::Left => Event::Left { channel, member },
    })
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use fanfare_protocol::UserId;

    use super::*;
    use crate::keyed::names_that_collide_in_one_are_spread_in_another;
    use crate::outbox::Batch;

    fn member(session: u8, user: &str) -> Member {
        let session = SessionId::from_random([session; 16]);
        Member { user: Some(UserId::new(user)), session, profile: None, note: None }
    }

    fn told(outbox: &Outbox) -> Vec<String> {
        let mut batch = Batch::default();
        let _ = outbox.poll_take(&Context::from_waker(Waker::noop()), &mut batch);
        let texts = batch.frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned());
        texts.map(|text| text[text.find('{').expect("a frame of JSON")..].to_owned()).collect()
    }

    /// Whatever happens between coming in and being told who is there: each change is told once, or is in that.
    #[test]
    fn who_learns_who_is_there_misses_nobody_and_is_told_of_nobody_twice() {
        let (audience, metrics) = (Audience::default(), Metrics::new());
        let (channel, ann) = (Channel::parse("a").unwrap(), member(1, "ann"));
        let outbox = Outbox::new(ann.session, Encoding::NativeJson, 1024 * 1024);
        audience.add(&channel, ann.session, outbox.clone(), Telling::Later);
        let turn = |kind, member: &Member| Turn { kind, member: member.clone() };
        let (bob, eve, kim) = (member(2, "bob"), member(3, "eve"), member(4, "kim"));
        // What the crowd knows already, and what it does not.
        audience.tell_turn(&channel, &turn(TurnKind::Joined, &bob), &metrics);
        audience.tell_turn(&channel, &turn(TurnKind::Left, &eve), &metrics);
        audience.tell_turn(&channel, &turn(TurnKind::Joined, &kim), &metrics);
        assert_eq!(told(&outbox), Vec::<String>::new(), "it does not know who is there");
        let crowd = Crowd { users: 2, connections: 2, members: Some(vec![ann.clone(), bob.clone()]) };
        audience.heed(&channel, ann.session, &crowd, &metrics);
        let [joined] = &told(&outbox)[..] else { panic!("one is news") };
        assert!(joined.contains("joined") && joined.contains("kim"), "{joined}");
        audience.tell_turn(&channel, &turn(TurnKind::Left, &bob), &metrics);
        let [left] = &told(&outbox)[..] else { panic!("it is told at once") };
        assert!(left.contains("left") && left.contains("bob"), "{left}");
    }

    /// Each number once, and whoever comes is told the one that everybody else knows already.
    #[test]
    fn who_is_told_how_many_there_are_is_told_each_number_once() {
        let (audience, metrics) = (Audience::default(), Metrics::new());
        let channel = Channel::parse("shop:news").unwrap();
        let counted = Reply::unasked(Event::Counted { channel: channel.clone(), connections: 1 });
        let speaks = |encoding: &Encoding| encoding.dialect().encode(&counted).is_some();
        let encoding = Encoding::ALL.into_iter().find(speaks).unwrap();
        let outbox = |session| Outbox::new(SessionId::from_random([session; 16]), encoding, 1024 * 1024);
        let (ann, bob, native) = (
            outbox(1),
            outbox(2),
            Outbox::new(SessionId::from_random([3; 16]), Encoding::NativeJson, 1024 * 1024),
        );
        audience.add(&channel, ann.session(), ann.clone(), Telling::Count);
        audience.add(&channel, native.session(), native.clone(), Telling::Count);
        audience.tell_count(&channel, 1, &metrics);
        audience.tell_count(&channel, 1, &metrics);
        let [one] = &told(&ann)[..] else { panic!("told once") };
        assert!(one.contains("news") && one.contains('1'), "{one}");
        audience.add(&channel, bob.session(), bob.clone(), Telling::Count);
        let joined = Turn { kind: TurnKind::Joined, member: member(2, "bob") };
        audience.tell_turn(&channel, &joined, &metrics);
        audience.tell_count(&channel, 1, &metrics);
        assert_eq!((told(&ann).len(), told(&bob).len()), (0, 1), "the number is news to one of them");
        assert_eq!(told(&native).len(), 0, "its dialect has no word for it");
        audience.remove(&channel, ann.session());
        audience.tell_count(&channel, 2, &metrics);
        assert_eq!((told(&ann).len(), told(&bob).len()), (0, 1));
    }

    /// What nobody waits for has a bound, and who would exceed it comes back.
    #[test]
    fn what_is_held_is_bounded() {
        let (audience, metrics) = (Audience::default(), Metrics::new());
        let channel = Channel::parse("a").unwrap();
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1024 * 1024);
        audience.add(&channel, SessionId::from_random([1; 16]), outbox.clone(), Telling::Later);
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..HELD_MAX {
            let turn = Turn { kind: TurnKind::Joined, member: member(2, "bob") };
            audience.tell_turn(&channel, &turn, &metrics);
        }
        assert!(outbox.poll_order(&cx).is_pending());
        audience.tell_turn(&channel, &Turn { kind: TurnKind::Left, member: member(2, "bob") }, &metrics);
        assert!(matches!(outbox.poll_order(&cx), std::task::Poll::Ready(Order::Overflowed)));
    }

    #[test]
    fn names_that_collide_in_one_audience_are_spread_in_another() {
        names_that_collide_in_one_are_spread_in_another(|| Audience::default().0.lock().hasher().clone());
    }
}
