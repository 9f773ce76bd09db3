//! The book of one process. It hangs on the [`Bus`], so that several nodes in one process share it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::event::{Crowd, Member};
use fanfare_protocol::{Channel, SessionId, UserId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::memory::Bus;
use crate::presence::{
    About, Abouts, After, Beat, Change, Debt, MEMBERS_MAX, Notice, Presence, Seat, Silent, Step, Teller,
    Topic, Turn, TurnKind, Wants, Word, Writer,
};

/// The most members that one call clears.
const STEP: usize = 512;

/// A node's view of the book.
#[derive(Debug)]
pub struct MemoryPresence {
    bus: Bus,
    /// The node's, once it has one.
    seat: Mutex<Option<Seat>>,
    teller: Arc<dyn Teller>,
}

impl MemoryPresence {
    /// The book of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), seat: Mutex::default(), teller: Arc::new(Silent) }
    }

    /// The same, with somebody who tells a backend of it.
    #[must_use]
    pub fn telling(self, teller: Arc<dyn Teller>) -> Self {
        Self { teller, ..self }
    }

    fn owe(&self, seat: &Seat, topics: Vec<Topic>) {
        topics.into_iter().for_each(|topic| self.teller.owe(Debt { seat: seat.clone(), topic }));
    }

    /// Tells what a step has come to. Called with the book in hand, which is what keeps notices in order.
    async fn announce(&self, channel: &Channel, turns: Vec<Turn>, connections: Option<u64>) {
        if !turns.is_empty() || connections.is_some() {
            self.bus.announce(Notice { channel: channel.clone(), turns, connections }).await;
        }
    }
}

/// What the nodes of a bus share.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Until when each seat is warm.
    seats: HashMap<Seat, Instant>,
    channels: HashMap<Channel, Roll>,
    /// The level of each topic that the backend knows of, if that is not 0.
    told: HashMap<Topic, u64>,
    /// Which seat owes word of what.
    owed: HashMap<Topic, Seat>,
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
    /// The user of whom a step speaks, if it has a name.
    fn user(&self, step: &Step) -> Option<UserId> {
        match step {
            Step::Enter(member) | Step::Restore(member) => member.user.clone(),
            Step::Depart(session) | Step::Leave(session) => self.members.get(session)?.member.user.clone(),
        }
    }

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

    fn connections(&self, channel: &Channel) -> u64 {
        self.channels.get(channel).map_or(0, |roll| roll.members.len() as u64)
    }

    fn level(&self, topic: &Topic) -> u64 {
        let Some(roll) = self.channels.get(&topic.channel) else { return 0 };
        match &topic.word.about {
            About::Occupancy => u64::from(!roll.members.is_empty()),
            About::Connections => roll.members.len() as u64,
            About::User(user) => u64::from(roll.users.contains_key(&UserKey::Known(user.clone()))),
        }
    }

    /// Writes down what a seat owes after changes of these users; answers what it has not owed before.
    fn owe(&mut self, seat: &Seat, channel: &Channel, wants: &Wants, users: HashSet<UserId>) -> Vec<Topic> {
        let users = users.into_iter().map(|user| (Abouts::USERS, About::User(user)));
        let all = [(Abouts::OCCUPANCY, About::Occupancy)].into_iter().chain(users);
        let all: Vec<_> = all.chain([(Abouts::CONNECTIONS, About::Connections)]).collect();
        let topics = wants.backends.iter().flat_map(|(to, wanted)| {
            let its = all.iter().filter(|(one, _)| wanted.covers(*one));
            its.map(|(_, about)| Word { to: to.clone(), about: about.clone() })
        });
        let mut new: Vec<_> = topics.map(|word| Topic { channel: channel.clone(), word }).collect();
        new.retain(|topic| {
            let is_told = self.level(topic) == self.told.get(topic).copied().unwrap_or(0);
            !is_told && !self.owed.contains_key(topic)
        });
        self.owed.extend(new.iter().map(|topic| (topic.clone(), seat.clone())));
        new
    }

    fn settle(&mut self, seat: &Seat, topic: &Topic, told: Option<u64>) -> Option<u64> {
        if self.owed.get(topic) != Some(seat) {
            return None;
        }
        match told {
            Some(0) => drop(self.told.remove(topic)),
            Some(level) => drop(self.told.insert(topic.clone(), level)),
            None => {}
        }
        let level = self.level(topic);
        if level != self.told.get(topic).copied().unwrap_or(0) {
            return Some(level);
        }
        self.owed.remove(topic);
        None
    }

    /// Has another seat owe what this one does.
    fn inherit(&mut self, from: &Seat, by: &Seat) -> Vec<Topic> {
        let owed = self.owed.iter_mut().filter(|(_, seat)| *seat == from);
        let inherited = owed.map(|(topic, seat)| {
            seat.clone_from(by);
            topic.clone()
        });
        inherited.collect()
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
            let mut book = self.bus.book().await;
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
                let mut touched = HashSet::new();
                for change in run {
                    touched.extend(roll.user(&change.step));
                    answers.push(roll.take(&seat, change.step.clone(), &mut turns));
                }
                book.forget_if_empty(channel);
                let wants = self.teller.wants(channel);
                self.owe(&seat, book.owe(&seat, channel, &wants, touched));
                let connections = wants.counts.then(|| book.connections(channel));
                self.announce(channel, turns, connections).await;
            }
            Ok(answers)
        }
        .boxed()
    }

    fn beat(&self, seat: Seat, ttl: Duration, new: bool) -> BoxFuture<'_, Result<Beat, BrokerError>> {
        async move {
            let mut book = self.bus.book().await;
            let is_warm = new || book.is_warm(&seat);
            if new {
                *self.seat.lock() = Some(seat.clone());
            }
            if is_warm {
                book.seats.insert(seat, Instant::now() + ttl);
            }
            Ok(Beat { is_warm, life: 1 }) // It lives as long as the process.
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>> {
        async move {
            let mut book = self.bus.book().await;
            let Some(cold) = book.seats.keys().find(|seat| !book.is_warm(seat)).cloned() else {
                return Ok(false);
            };
            let Some(own) = self.seat.lock().clone() else { return Ok(false) };
            match book.clear(&cold) {
                Some((channel, turns)) => {
                    let gone = turns.iter().filter_map(|turn| turn.member.user.clone()).collect();
                    let wants = self.teller.wants(&channel);
                    self.owe(&own, book.owe(&own, &channel, &wants, gone));
                    let connections = wants.counts.then(|| book.connections(&channel));
                    self.announce(&channel, turns, connections).await;
                }
                None => {
                    self.owe(&own, book.inherit(&cold, &own));
                    book.seats.remove(&cold);
                }
            }
            Ok(true)
        }
        .boxed()
    }

    fn channels(&self) -> BoxFuture<'_, Result<Vec<Channel>, BrokerError>> {
        async move { Ok(self.bus.book().await.channels.keys().cloned().collect()) }.boxed()
    }

    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>> {
        async move {
            let book = self.bus.book().await;
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

    fn settle(&self, told: Vec<(Debt, Option<u64>)>) -> BoxFuture<'_, Result<Vec<Option<u64>>, BrokerError>> {
        async move {
            let mut book = self.bus.book().await;
            let mut levels = Vec::with_capacity(told.len());
            for (Debt { seat, topic }, told) in told {
                levels.push(book.settle(&seat, &topic, told));
            }
            Ok(levels)
        }
        .boxed()
    }
}
