//! Who hears which channel on this node.
//!
//! Channels are spread over shards by hash; a shard's lock is held to find a channel, a channel's lock to walk or change
//! its subscribers. Both are short and synchronous, and the walk does nothing per subscriber but claim its outbox or push
//! shared references into it.
//!
//! A crowd of up to [`SMALL`] is walked in one go. A larger one is walked by the lane's task in slices, with everybody else's
//! turn between them: [`round`] tells how. Members who have agreed to that are told what has changed since the publication before:
//! [`chain`].
//!
//! A subscription is *joining* until it is known where it enters the channel's stream, *entered* until the client has been
//! told, and *live* from then on. [`Registry::go_live`] queues the reply that tells the client it is subscribed, then what
//! it has missed, then what has come since it entered, and opens the gate, all under the channel's lock: nothing falls in
//! between. A channel with history has a [`Follower`], which sees everything before the subscribers do.
//!
//! **Invariants.**
//! - A channel is in the registry if and only if it has a subscriber (joining ones included).
//! - Publications delivered by one task reach each outbox in the order they were delivered; on a channel with history, in
//!   the order of their offsets and without a gap, whoever delivers them.
//! - At most one task reads a channel's history at a time.
//! - Whoever has entered hears what is delivered after it entered, once, however the crowd changes while a publication goes
//!   round.
//! - A subscriber that has left hears no more of it: an order that told of the loss of that subscription is taken back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::{self, RandomState};
use std::hash::BuildHasher;
use std::mem;
use std::sync::Arc;

use fanfare_protocol::command::{Start, Wording};
use fanfare_protocol::event::Entry;
use fanfare_protocol::history::Page;
use fanfare_protocol::publication::Position;
use fanfare_protocol::rules::Overflow;
use fanfare_protocol::session::Terms;
use fanfare_protocol::tags::Filter;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, Publication};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::broker::BrokerError;
use crate::follower::{Entrance, Follower, Reading};
use crate::outbox::{Asleep, Order, Outbox, Queued, Sheaves, SubscriberId};
use crate::tap::Tap;
use crate::wakes::Wakes;

mod chain;
mod round;

pub(crate) use round::{Slice, Walk};

use chain::{Chain, Chained, Link, Run, Told};
use round::Round;

/// The most members of a crowd that is walked in one go.
const SMALL: usize = 256;

/// A power of two well over the number of cores, so that two of them seldom want the same shard.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Registry {
    hasher: RandomState,
    shards: Box<[Shard]>,
    tap: Arc<Tap>,
}

type Shard = Mutex<HashMap<Channel, Arc<Subscribers>>>;

/// The subscribers of one channel.
#[derive(Debug, Default)]
struct Subscribers(Mutex<Crowd>);

#[derive(Debug, Default)]
struct Crowd {
    /// Dense, so that the walk is one; by id, so that leaving is cheap even for ten thousand at once.
    members: Members,
    /// On a channel with history.
    stream: Option<Box<Stream>>,
    /// What goes round, once the crowd has been a large one.
    round: Option<Box<Round>>,
    /// While some of them are told differences.
    chain: Option<Box<Chain>>,
    /// What those let through who do not want to hear everything.
    filters: Filters,
    /// The last member has left and the channel is out of its shard: whoever still holds it looks again.
    deserted: bool,
}

type Filters = Option<Box<HashMap<SubscriberId, Arc<Filter>>>>;

/// The channel's stream, as this node follows it.
#[derive(Debug, Default)]
struct Stream {
    follower: Follower,
    /// Some task is reading history, and will look whether more is wanted before it stops.
    is_read: bool,
    /// Subscribers that cannot enter before a read that has not begun.
    waiting: Vec<Waiting>,
    /// Subscribers for whom the read under way is made.
    riding: Vec<Waiting>,
}

type Waiting = oneshot::Sender<Result<(), BrokerError>>;

/// The right, and the duty, to read a channel's history for its stream. There is one at a time, and it ends with the
/// stream: a page that was read for one is never shown to another that has taken its name.
#[derive(Debug)]
pub(crate) struct Reader {
    channel: Channel,
    subscribers: Arc<Subscribers>,
}

impl PartialEq for Reader {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subscribers, &other.subscribers)
    }
}

impl Eq for Reader {}

#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    /// What it has heard of what goes [`round`], or need not hear.
    heard: u64,
    overflow: Overflow,
    told: Told,
    gate: Gate,
}

#[derive(Debug)]
enum Gate {
    /// It is not known yet where it enters: nothing is for it.
    Joining,
    /// It enters here, and the client is about to be told.
    Entered(Box<Entered>),
    Live,
    /// The promise to it is broken; it has been told, or will be when it goes live.
    Lost,
}

/// What waits for a subscriber that is about to go live.
#[derive(Debug, Default)]
struct Entered {
    /// What it has missed.
    replay: Vec<Arc<Publication>>,
    /// What has come since.
    since: Vec<Arc<Publication>>,
}

/// What a delivery came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// The live subscribers that have it.
    pub(crate) receivers: u64,
    /// What it came to in all of their outboxes.
    pub(crate) queued: Queued,
    /// The caller is to start a task that reads history.
    pub(crate) start_reading: Option<Reader>,
    /// It goes round: the caller is to walk until it is done.
    pub(crate) walk: Option<Walk>,
}

/// Whether a subscriber could enter.
#[derive(Debug)]
pub(crate) enum Entering {
    /// Yes; with its place in the stream, on a channel with history.
    Entered(Option<Entry>),
    /// Not before the answer; then it asks again.
    Wait {
        /// Told when a read has been made.
        answer: oneshot::Receiver<Result<(), BrokerError>>,
        /// The caller is to start a task that reads history.
        start_reading: Option<Reader>,
    },
    /// It has left meanwhile.
    Gone,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), shards, tap: Arc::default() }
    }

    /// Where it can be seen what becomes of publications.
    pub(crate) fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// Adds a subscriber that is joining.
    pub(crate) fn join(&self, channel: &Channel, outbox: &Arc<Outbox>, terms: Terms) -> Joined {
        loop {
            let subscribers = self.shard(channel).lock().entry(channel.clone()).or_default().clone();
            let mut crowd = subscribers.0.lock();
            if crowd.deserted {
                continue;
            }
            if terms.history {
                crowd.stream.get_or_insert_default();
            }
            let first = crowd.members.is_empty();
            let Crowd { members, round, chain, filters, .. } = &mut *crowd;
            let indexmap::map::Entry::Vacant(place) = members.entry(outbox.id()) else {
                return Joined::Already;
            };
            let told = match (terms.filter, terms.wording) {
                (Some(filter), _) => {
                    filters.get_or_insert_default().insert(outbox.id(), filter);
                    Told::Filtered
                }
                (None, Wording::Whole) => Told::Alike,
                (None, Wording::Differences) => {
                    debug_assert_eq!(terms.overflow, Overflow::Disconnect, "others do not hear everything");
                    chain.get_or_insert_default().join(outbox.encoding());
                    Told::Whole
                }
            };
            let (outbox, overflow) = (outbox.clone(), terms.overflow);
            place.insert(Member { outbox, heard: 0, overflow, told, gate: Gate::Joining });
            round.iter_mut().for_each(|round| round.has_grown());
            return if first { Joined::First } else { Joined::Another };
        }
    }

    /// Finds a joining subscriber's place in the stream. `asked` says that it has waited for a read already.
    pub(crate) fn enter(&self, channel: &Channel, id: SubscriberId, start: Start, asked: bool) -> Entering {
        let Some(subscribers) = self.find(channel) else { return Entering::Gone };
        let mut crowd = subscribers.0.lock();
        let Crowd { members, stream, round, filters, .. } = &mut *crowd;
        let Some(member) = members.get_mut(&id) else { return Entering::Gone };
        let entrance = match stream {
            None => None,
            Some(stream) => match stream.follower.enter(start, asked) {
                Entrance::Open { entry, replay } => match member.told {
                    Told::Alike => Some((entry, replay)),
                    Told::Filtered => Some((entry, wanted(filters, id, &replay))),
                    Told::Whole | Told::Difference => {
                        Some((entry, chain::whole(&replay, member.outbox.encoding())))
                    }
                },
                Entrance::Read => {
                    let (tell, answer) = oneshot::channel();
                    stream.waiting.push(tell);
                    let start_reading = stream.start_reading(channel, &subscribers);
                    return Entering::Wait { answer, start_reading };
                }
            },
        };
        let entrance = entrance.map(|(entry, replay)| fitting(&member.outbox, start, entry, replay));
        let (entry, replay) = entrance.unzip();
        // Whoever joins a channel twice is told where it is, and goes on hearing it as before.
        if let Gate::Joining | Gate::Entered(_) = member.gate {
            member.gate =
                Gate::Entered(Box::new(Entered { replay: replay.unwrap_or_default(), since: Vec::new() }));
            // What goes round already is before its place.
            member.heard = round.as_ref().map_or(0, |round| round.newest());
        }
        Entering::Entered(entry)
    }

    /// Queues `reply` for a subscriber that has entered, then what it missed, and opens its gate, in one step; `None` when
    /// it has left meanwhile.
    pub(crate) fn go_live(
        &self,
        channel: &Channel,
        id: SubscriberId,
        reply: impl Into<Option<Frame>>,
    ) -> Option<Queued> {
        let subscribers = self.find(channel)?;
        let mut crowd = subscribers.0.lock();
        let Crowd { members, round, filters, .. } = &mut *crowd;
        let member = members.get_mut(&id)?;
        let mut queued = Queued::default();
        if let (Gate::Live, Some(round)) = (&member.gate, round) {
            // It is told its place once more, and has it when all before has come.
            queued += round.catch_up(member, filters);
        }
        if let Some(reply) = reply.into() {
            queued += member.outbox.push(reply).unwrap_or_else(Queued::from);
        }
        match mem::replace(&mut member.gate, Gate::Live) {
            Gate::Entered(entered) => {
                let comes = if entered.replay.is_empty() { &entered.since } else { &entered.replay };
                look_on(self.tap.on(), comes, &member.outbox);
                queued += member.outbox.replay(&entered.replay).unwrap_or_else(Queued::from);
                let since = Run { publications: &entered.since, links: &[] };
                queued += match member.told {
                    Told::Alike => member.outbox.offer(since.publications, member.overflow),
                    _ => {
                        let told = apart(member, filters, since);
                        member.outbox.offer(&told, member.overflow)
                    }
                };
            }
            Gate::Lost => {
                member.gate = Gate::Lost;
                member.outbox.order(Order::Lost { channel: channel.clone() });
            }
            Gate::Joining | Gate::Live => {}
        }
        Some(queued)
    }

    /// Whether a subscriber that has entered is to be replayed anything.
    pub(crate) fn replays(&self, channel: &Channel, id: SubscriberId) -> bool {
        let Some(subscribers) = self.find(channel) else { return false };
        let crowd = subscribers.0.lock();
        let gate = crowd.members.get(&id).map(|member| &member.gate);
        matches!(gate, Some(Gate::Entered(entered)) if !(entered.replay.is_empty() && entered.since.is_empty()))
    }

    /// Removes a subscriber. From the return on nothing of this channel is queued for it.
    pub(crate) fn leave(&self, channel: &Channel, id: SubscriberId) -> Left {
        let Some(subscribers) = self.find(channel) else { return Left::WasNotThere };
        let mut crowd = subscribers.0.lock();
        let Some(member) = crowd.remove(id) else { return Left::WasNotThere };
        if matches!(member.gate, Gate::Lost) {
            member.outbox.retract_loss(channel);
        }
        if !crowd.members.is_empty() {
            crowd.shrink();
            return Left::Another;
        }
        crowd.deserted = true;
        drop(crowd);
        if let hash_map::Entry::Occupied(entry) = self.shard(channel).lock().entry(channel.clone())
            && Arc::ptr_eq(entry.get(), &subscribers)
        {
            entry.remove();
        }
        Left::Last
    }

    /// Whether it is among the subscribers of a channel, live or about to be.
    pub(crate) fn has(&self, channel: &Channel, id: SubscriberId) -> bool {
        self.find(channel).is_some_and(|subscribers| subscribers.0.lock().members.contains_key(&id))
    }

    /// The channels that a subscriber is on, by a walk over all there are.
    pub(crate) fn channels_of(&self, id: SubscriberId) -> Vec<Channel> {
        let mut channels = Vec::new();
        for shard in &self.shards {
            let all: Vec<_> = shard.lock().iter().map(|(name, it)| (name.clone(), it.clone())).collect();
            channels.extend(
                all.into_iter().filter(|(_, it)| it.0.lock().members.contains_key(&id)).map(|(name, _)| name),
            );
        }
        channels
    }

    /// Queues publications of one channel, in the order they came, for all its live subscribers, whose writers are woken
    /// by way of `wakes`.
    pub(crate) fn deliver(
        &self,
        channel: &Channel,
        publications: &[Arc<Publication>],
        wakes: &mut Wakes,
    ) -> Delivered {
        debug_assert!(publications.iter().all(|publication| publication.channel == *channel));
        let Some(subscribers) = self.find(channel) else { return Delivered::default() };
        let mut crowd = subscribers.0.lock();
        let Crowd { members, stream, round, chain, filters, .. } = &mut *crowd;
        let (publications, start_reading) = match stream {
            None => (Cow::Borrowed(publications), None),
            Some(stream) => {
                let step = stream.follower.admit(publications);
                debug_assert!(!step.lost, "only a read shows that something is lost");
                (step.deliver, stream.start_reading(channel, &subscribers))
            }
        };
        let links = chain.as_mut().map_or_else(Vec::new, |chain| chain.extend(&publications));
        let delivered = if members.len() <= SMALL && round.as_ref().is_none_or(|round| round.is_done()) {
            walk(members, filters, Run { publications: &publications, links: &links }, (wakes, self.tap.on()))
        } else if publications.is_empty() {
            Delivered::default()
        } else {
            let round = round.get_or_insert_default();
            round.begin(&publications, links, members.len());
            Delivered { walk: Some(Walk::new(&subscribers, members.len(), round)), ..Delivered::default() }
        };
        Delivered { start_reading, ..delivered }
    }

    /// The link to the broker was lost and is back: no stream is taken on trust any more. Returns those that want their
    /// history read.
    pub(crate) fn doubt_all(&self) -> Vec<Reader> {
        self.each_stream(|channel, subscribers, stream| {
            stream.follower.doubt();
            stream.start_reading(channel, subscribers)
        })
    }

    /// The channels with history on which nothing has come since the last look, or those of them whose turn it is.
    pub(crate) fn take_due(&self) -> Vec<Channel> {
        self.each_stream(|channel, _, stream| {
            let phase = (self.hasher.hash_one(channel) >> 32) as u32; // Not what has picked the shard.
            stream.follower.is_due(phase).then(|| channel.clone())
        })
    }

    /// The broker has not said where a stream stands: it is its turn at the next look, too.
    pub(crate) fn stays_due(&self, channel: &Channel) {
        self.with_follower(channel, Follower::stays_due);
    }

    /// A channel of the node's own, which must not wait for its turn.
    pub(crate) fn look_closely(&self, channel: &Channel) {
        self.with_follower(channel, Follower::look_closely);
    }

    /// Compares with where the broker says a stream stands; whether the caller is to start a task that reads history.
    pub(crate) fn check(&self, channel: &Channel, position: Position) -> Option<Reader> {
        let subscribers = self.find(channel)?;
        let mut crowd = subscribers.0.lock();
        let stream = crowd.stream.as_mut()?;
        stream.follower.check(position);
        stream.start_reading(channel, &subscribers)
    }

    /// What was published on a channel was removed from history: nobody who comes from now on is shown it.
    pub(crate) fn forget(&self, channel: &Channel) {
        self.with_follower(channel, Follower::forget);
    }

    fn with_follower(&self, channel: &Channel, act: impl FnOnce(&mut Follower)) {
        let Some(subscribers) = self.find(channel) else { return };
        if let Some(stream) = subscribers.0.lock().stream.as_mut() {
            act(&mut stream.follower);
        }
    }

    /// Asks each channel with history, one at a time; returns what they say.
    fn each_stream<T>(
        &self,
        mut ask: impl FnMut(&Channel, &Arc<Subscribers>, &mut Stream) -> Option<T>,
    ) -> Vec<T> {
        let mut answers = Vec::new();
        for shard in &self.shards {
            let channels: Vec<_> = shard.lock().iter().map(|(name, it)| (name.clone(), it.clone())).collect();
            for (channel, subscribers) in channels {
                if let Some(stream) = &mut subscribers.0.lock().stream {
                    answers.extend(ask(&channel, &subscribers, stream));
                }
            }
        }
        answers
    }

    fn find(&self, channel: &Channel) -> Option<Arc<Subscribers>> {
        self.shard(channel).lock().get(channel).cloned()
    }

    fn shard(&self, channel: &Channel) -> &Shard {
        let hash =
            usize::try_from(self.hasher.hash_one(channel) % SHARDS as u64).expect("less than the shards");
        &self.shards[hash]
    }
}

impl Reader {
    /// The channel to be read.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// What is to be read next; `None` when the task has done its duty.
    pub(crate) fn next(&self) -> Option<Reading> {
        let mut crowd = self.subscribers.0.lock();
        let stream = crowd.followed()?;
        let reading = stream.follower.take_read();
        stream.is_read = reading.is_some();
        stream.riding.append(&mut stream.waiting);
        reading
    }

    /// Takes what was read, and lets those who waited for it try again.
    pub(crate) fn learn(&self, reading: Reading, page: Page, tap: Option<&Arc<Tap>>) -> Delivered {
        let mut crowd = self.subscribers.0.lock();
        let Crowd { members, stream: Some(stream), round, chain, filters, deserted: false } = &mut *crowd
        else {
            return Delivered::default();
        };
        let Some(step) = stream.follower.learn(reading, page) else {
            stream.waiting.append(&mut stream.riding); // It is read again, for them too.
            return Delivered::default();
        };
        stream.tell(&Ok(()));
        let mut before = Queued::default();
        if let Some(round) = round.as_mut().filter(|_| step.lost || !step.deliver.is_empty()) {
            // What is on its way comes first; here nobody walks on.
            before = members.values_mut().fold(before, |mut sum, member| {
                sum += round.catch_up(member, filters);
                sum
            });
        }
        if step.lost {
            lose(&self.channel, members);
        }
        let links = chain.as_mut().map_or_else(Vec::new, |chain| chain.extend(&step.deliver));
        let run = Run { publications: &step.deliver, links: &links };
        let mut delivered = walk(members, filters, run, (&mut Wakes::default(), tap));
        delivered.queued += before;
        delivered
    }

    /// The read has failed: those who waited for it are told, and what the stream itself needs is still wanted. Whether
    /// anybody needs it.
    pub(crate) fn failed(&self, reading: Reading, error: &BrokerError) -> bool {
        let mut crowd = self.subscribers.0.lock();
        let Some(stream) = crowd.followed() else { return false };
        stream.follower.want(reading.read);
        stream.tell(&Err(error.clone()));
        true
    }
}

impl Stream {
    /// Whether a read is wanted and nobody makes it: whoever hears yes starts the task that does.
    fn start_reading(&mut self, channel: &Channel, subscribers: &Arc<Subscribers>) -> Option<Reader> {
        if self.is_read || !self.follower.wants_read() {
            return None;
        }
        self.is_read = true;
        Some(Reader { channel: channel.clone(), subscribers: subscribers.clone() })
    }

    fn tell(&mut self, answer: &Result<(), BrokerError>) {
        for tell in mem::take(&mut self.riding) {
            let _ = tell.send(answer.clone()); // Whoever has gone does not want to know.
        }
    }
}

impl Crowd {
    /// The stream, while somebody follows it.
    fn followed(&mut self) -> Option<&mut Stream> {
        self.stream.as_deref_mut().filter(|_| !self.deserted)
    }

    /// Takes a member out; who has not had its turn in a round still has it.
    fn remove(&mut self, id: SubscriberId) -> Option<Member> {
        let index = self.members.get_index_of(&id)?;
        let index = match &mut self.round {
            Some(round) => round.make_last_before_turn(&mut self.members, index),
            None => index,
        };
        let (_, member) = self.members.swap_remove_index(index)?;
        match member.told {
            Told::Alike => {}
            Told::Filtered => self.forget_filter(id),
            Told::Whole | Told::Difference => self.unchain(member.outbox.encoding()),
        }
        Some(member)
    }

    /// One of those who are told differences is gone.
    fn unchain(&mut self, encoding: Encoding) {
        if self.chain.as_mut().is_some_and(|chain| !chain.leave(encoding)) {
            self.chain = None;
            self.round.iter_mut().for_each(|round| round.forget_links());
        }
    }

    fn forget_filter(&mut self, id: SubscriberId) {
        let Some(filters) = &mut self.filters else { return };
        filters.remove(&id);
        if filters.is_empty() {
            self.filters = None;
        }
    }

    /// Gives memory back after a crowd has dispersed.
    fn shrink(&mut self) {
        if self.members.capacity() > 64 && self.members.len() * 4 < self.members.capacity() {
            self.members.shrink_to(self.members.len() * 2);
        }
    }
}

/// As much of a replay as may wait at once. One that overflowed the queue would disconnect the client, each time that it came
/// back for it; so whoever asked for all is told that it cannot be had, and whoever asked for the last few gets fewer.
fn fitting(
    outbox: &Outbox,
    start: Start,
    mut entry: Entry,
    mut replay: Vec<Arc<Publication>>,
) -> (Entry, Vec<Arc<Publication>>) {
    let newest = outbox.replayable(&replay);
    if newest < replay.len() {
        let is_part_enough = matches!(start, Start::Rewind(_));
        entry.recovered = is_part_enough;
        replay.drain(..replay.len() - if is_part_enough { newest } else { 0 });
    }
    (entry, replay)
}

type Members = IndexMap<SubscriberId, Member>;

/// The hot path: nothing here depends on the receiver but its gate, its encoding, its policy and how it is told. Whoever is
/// idle is claimed, to be written to past its outbox when its turn comes; for the others it is queued.
fn walk(
    members: &mut Members,
    filters: &Filters,
    run: Run<'_>,
    (wakes, tap): (&mut Wakes, Option<&Arc<Tap>>),
) -> Delivered {
    let publications = run.publications;
    let mut delivered = Delivered::default();
    if publications.is_empty() {
        return delivered;
    }
    let (mut sheaves, mut chained) = (Sheaves::of(publications), Chained::of(run));
    for member in members.values_mut() {
        match &mut member.gate {
            Gate::Live => {
                delivered.receivers += 1;
                look_on(tap, publications, &member.outbox);
                if member.told != Told::Alike {
                    delivered.queued += match member.told {
                        Told::Filtered => filter(member, filters, publications, wakes),
                        _ => chained.tell(member, wakes),
                    };
                    continue;
                }
                if let Some(asleep) = sheaves.claim(&member.outbox, member.overflow) {
                    wakes.add(asleep);
                    continue;
                }
                let (queued, waker) = member.outbox.offer_asleep(publications, member.overflow);
                delivered.queued += queued;
                waker.into_iter().for_each(|waker| wakes.add(Asleep::Task(waker)));
            }
            Gate::Entered(entered) => entered.since.extend_from_slice(publications),
            Gate::Joining | Gate::Lost => {}
        }
    }
    delivered
}

/// Has it told what becomes of these for a subscriber, if somebody looks on who wants to know.
#[inline]
fn look_on(tap: Option<&Arc<Tap>>, publications: &[Arc<Publication>], outbox: &Outbox) {
    if let Some(tap) = tap
        && tap.follows(publications, outbox.id())
    {
        outbox.watch(tap);
    }
}

/// Queues for a member what its filter lets through.
fn filter(
    member: &Member,
    filters: &Filters,
    publications: &[Arc<Publication>],
    wakes: &mut Wakes,
) -> Queued {
    let wanted = wanted(filters, member.outbox.id(), publications);
    let (queued, waker) = member.outbox.offer_asleep(&wanted, member.overflow);
    waker.into_iter().for_each(|waker| wakes.add(Asleep::Task(waker)));
    queued
}

/// What a member is told of a run, who is told otherwise than everybody.
fn apart(member: &mut Member, filters: &Filters, run: Run<'_>) -> Vec<Arc<Publication>> {
    match member.told {
        Told::Filtered => wanted(filters, member.outbox.id(), run.publications),
        Told::Alike | Told::Whole | Told::Difference => run.tell(member),
    }
}

/// Those of some publications that a member's filter lets through.
fn wanted(filters: &Filters, id: SubscriberId, publications: &[Arc<Publication>]) -> Vec<Arc<Publication>> {
    let filter = filters.as_ref().and_then(|filters| filters.get(&id)).expect("it is told by its filter");
    publications.iter().filter(|publication| filter.admits(publication.payload.tags())).cloned().collect()
}

/// Breaks the promise to everyone it was made to, and tells them.
fn lose(channel: &Channel, members: &mut Members) {
    for member in members.values_mut() {
        match member.gate {
            Gate::Live => {
                member.gate = Gate::Lost;
                member.outbox.order(Order::Lost { channel: channel.clone() });
            }
            Gate::Entered(_) => member.gate = Gate::Lost,
            Gate::Joining | Gate::Lost => {}
        }
    }
}

/// What joining came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The channel is new here.
    First,
    /// Others hear it too.
    Another,
    /// This subscriber had joined before.
    Already,
}

/// What leaving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nobody hears the channel here any more.
    Last,
    /// Others still do.
    Another,
    /// It had not joined, or has left before.
    WasNotThere,
}

#[cfg(test)]
mod tests;
