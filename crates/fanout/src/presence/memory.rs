//! The book of one process. It hangs on the [`Bus`], so that several nodes in one process share it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::event::{Crowd, Member};
use fanfare_protocol::{Channel, SessionId, UserId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::memory::Bus;
use crate::presence::{
    After, Beat, Change, MEMBERS_MAX, Notice, Presence, Seat, Step, Turn, TurnKind, Writer,
};

/// The most members that one call clears.
const STEP: usize = 512;

/// A node's view of the book.
#[derive(Clone, Debug)]
pub struct MemoryPresence(Bus);

impl MemoryPresence {
    /// The book of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self(bus.clone())
    }

    /// Tells what a step has come to. Called with the book in hand, which is what keeps notices in order.
    async fn announce(&self, channel: &Channel, turns: Vec<Turn>) {
        if !turns.is_empty() {
            self.0.announce(Notice { channel: channel.clone(), turns }).await;
        }
    }
}

/// What the nodes of a bus share.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Until when each seat is warm.
    seats: HashMap<Seat, Instant>,
    channels: HashMap<Channel, Roll>,
}

/// The members of one channel.
#[derive(Debug, Default)]
struct Roll {
    /// How many connections each user has. None is 0.
    users: HashMap<UserKey, u64>,
    /// By session alone: it is random enough to be one of a kind.
    members: HashMap<SessionId, Place>,
    /// The one connection of a user who has left and whose grace runs.
    lingering: HashMap<UserKey, SessionId>,
}

#[derive(Debug)]
struct Place {
    seat: Seat,
    member: Arc<Member>,
}

/// What counts as one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum UserKey {
    Known(UserId),
    Anonymous(SessionId),
}

impl UserKey {
    fn of(member: &Member) -> Self {
        member.user.clone().map_or(Self::Anonymous(member.session), Self::Known)
    }
}

impl Roll {
    fn take(&mut self, seat: &Seat, step: Step, turns: &mut Vec<Turn>) -> After {
        match step {
            Step::Enter(member) => self.enter(seat, &member, Some(turns)),
            Step::Restore(member) => self.enter(seat, &member, None),
            Step::Depart(session) => self.depart(session, turns),
            Step::Leave(session) => self.leave(session, turns),
        }
    }

    fn enter(&mut self, seat: &Seat, member: &Arc<Member>, turns: Option<&mut Vec<Turn>>) -> After {
        let user = UserKey::of(member);
        let came_back = self.lingering.remove(&user);
        if let Some(other) = came_back.filter(|other| *other != member.session) {
            self.members.remove(&other);
            self.uncount(&user);
        }
        let place = Place { seat: seat.clone(), member: member.clone() };
        if self.members.insert(member.session, place).is_none() {
            let count = self.users.entry(user).or_default();
            *count += 1;
            if let Some(turns) = turns.filter(|_| *count == 1 && came_back.is_none()) {
                turns.push(Turn { kind: TurnKind::Joined, member: (**member).clone() });
            }
        }
        After::Present
    }

    fn depart(&mut self, session: SessionId, turns: &mut Vec<Turn>) -> After {
        let Some(place) = self.members.get(&session) else { return After::Absent };
        let user = UserKey::of(&place.member);
        if self.users.get(&user).is_some_and(|count| *count > 1) {
            return self.leave(session, turns);
        }
        self.lingering.insert(user, session);
        After::Lingering
    }

    fn leave(&mut self, session: SessionId, turns: &mut Vec<Turn>) -> After {
        if let Some(Place { member, .. }) = self.members.remove(&session) {
            let user = UserKey::of(&member);
            if self.lingering.get(&user) == Some(&session) {
                self.lingering.remove(&user);
            }
            if self.uncount(&user) {
                turns.push(Turn { kind: TurnKind::Left, member: (*member).clone() });
            }
        }
        After::Absent
    }

    /// Whether that was the user's last.
    fn uncount(&mut self, user: &UserKey) -> bool {
        let count = self.users.get_mut(user).expect("a member is counted");
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.users.remove(user);
        }
        is_last
    }
}

impl Book {
    fn is_warm(&self, seat: &Seat) -> bool {
        self.seats.get(seat).is_some_and(|until| Instant::now() < *until)
    }

    /// Removes some members of a seat from one channel; `None` when there are none.
    fn clear(&mut self, seat: &Seat) -> Option<(Channel, Vec<Turn>)> {
        let of_seat = |place: &Place| place.seat == *seat;
        let (channel, roll) =
            self.channels.iter_mut().find(|(_, roll)| roll.members.values().any(of_seat))?;
        let gone = roll.members.values().filter(|it| of_seat(it)).map(|it| it.member.session);
        let gone: Vec<_> = gone.take(STEP).collect();
        let mut turns = Vec::new();
        for session in gone {
            roll.leave(session, &mut turns);
        }
        let channel = channel.clone();
        self.forget_if_empty(&channel);
        Some((channel, turns))
    }

    fn forget_if_empty(&mut self, channel: &Channel) {
        if self.channels.get(channel).is_some_and(|roll| roll.members.is_empty()) {
            self.channels.remove(channel);
        }
    }
}

impl Presence for MemoryPresence {
    fn write(&self, writer: Writer, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<After>, BrokerError>> {
        async move {
            let mut book = self.0.book().await;
            // A member of the seat before is found by its session and moved by that alone.
            let Writer { seat, before: _ } = writer;
            if !book.seats.contains_key(&seat) {
                return Ok(vec![After::Cleared; changes.len()]);
            }
            let mut answers = Vec::with_capacity(changes.len());
            for run in changes.chunk_by(|one, next| one.channel == next.channel) {
                let channel = &run[0].channel;
                let roll = book.channels.entry(channel.clone()).or_default();
                let mut turns = Vec::new();
                for change in run {
                    answers.push(roll.take(&seat, change.step.clone(), &mut turns));
                }
                book.forget_if_empty(channel);
                self.announce(channel, turns).await;
            }
            Ok(answers)
        }
        .boxed()
    }

    fn beat(&self, seat: Seat, ttl: Duration, new: bool) -> BoxFuture<'_, Result<Beat, BrokerError>> {
        async move {
            let mut book = self.0.book().await;
            let is_warm = new || book.is_warm(&seat);
            if is_warm {
                book.seats.insert(seat, Instant::now() + ttl);
            }
            Ok(Beat { is_warm, life: 1 }) // It lives as long as the process.
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>> {
        async move {
            let mut book = self.0.book().await;
            let Some(cold) = book.seats.keys().find(|seat| !book.is_warm(seat)).cloned() else {
                return Ok(false);
            };
            match book.clear(&cold) {
                Some((channel, turns)) => self.announce(&channel, turns).await,
                None => drop(book.seats.remove(&cold)),
            }
            Ok(true)
        }
        .boxed()
    }

    fn channels(&self) -> BoxFuture<'_, Result<Vec<Channel>, BrokerError>> {
        async move { Ok(self.0.book().await.channels.keys().cloned().collect()) }.boxed()
    }

    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>> {
        async move {
            let book = self.0.book().await;
            let Some(roll) = book.channels.get(&channel) else {
                return Ok(Crowd { users: 0, connections: 0, members: members.then(Vec::new) });
            };
            let connections = roll.members.len() as u64;
            let named = || roll.members.values().map(|place| (*place.member).clone()).collect();
            Ok(Crowd {
                users: roll.users.len() as u64,
                connections,
                members: (members && connections <= MEMBERS_MAX).then(named),
            })
        }
        .boxed()
    }
}
