//! The simulated broker: streams that are kept whole for the verdict, and links that lose what they can.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Epoch, Offset, Position};
use fanfare_protocol::{Channel, Publication};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::subscriber::Subscriber;
use crate::broker::{self, Broker, BrokerError, Heard, Lanes};

/// The servers, and what they know of the nodes.
#[derive(Debug)]
pub(super) struct Cluster {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seed: u64,
    /// No two tasks that speak of different channels draw from one source: their order would change the schedule.
    random: HashMap<Channel, fastrand::Rng>,
    is_calm: bool,
    epochs: u64,
    streams: HashMap<Channel, Stream>,
    links: Vec<Arc<Link>>,
    /// What publishers were told, but for what the servers have lost since.
    acknowledged: Vec<(Channel, Position, u64)>,
    /// How often streams went back under their old epochs.
    regressions: u64,
    /// What they lost by that.
    taken_back: HashSet<u64>,
}

#[derive(Debug)]
struct Stream {
    epoch: Epoch,
    /// All epochs under which it has been, this one last.
    epochs: Vec<Epoch>,
    /// Each with the position under which it was placed.
    placed: Vec<Arc<Publication>>,
}

/// What befalls all servers at once; every link is cut meanwhile, but for a flush.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// They come back without data.
    Restart,
    /// The data goes and nobody is told.
    Flush,
    /// Others take over, which have not got the last few publications of each stream. Streams go on under another epoch.
    FailOver(usize),
    /// The same under the old epoch, which is more than a broker may do.
    GoBack(usize),
}

/// What connects one life of a node to the servers.
#[derive(Debug)]
pub(super) struct Link {
    lanes: Lanes,
    state: Mutex<LinkState>,
    losses: AtomicU64,
}

#[derive(Debug, Default)]
struct LinkState {
    watched: HashSet<Channel>,
    is_dead: bool,
    /// Those who have cut it and not mended it yet.
    cuts: usize,
    /// What was under way when it was cut does not arrive.
    generation: u64,
    /// When the last publication of a channel arrives: mostly the next comes after it.
    arrivals: HashMap<Channel, Instant>,
}

/// One node's end.
#[derive(Debug)]
pub(super) struct SimulatedBroker {
    cluster: Arc<Cluster>,
    link: Arc<Link>,
}

impl LinkState {
    fn is_up(&self) -> bool {
        self.cuts == 0 && !self.is_dead
    }
}

impl Link {
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        state.cuts += 1;
        state.generation += 1;
    }

    pub(super) fn mend(&self) {
        let mut state = self.state.lock();
        state.cuts -= 1;
        if state.is_up() {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The node is gone.
    pub(super) fn die(&self) {
        let mut state = self.state.lock();
        state.is_dead = true;
        state.generation += 1;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    /// The generation while it is up.
    fn generation(&self) -> Result<u64, BrokerError> {
        let state = self.state.lock();
        if state.is_up() {
            Ok(state.generation)
        } else {
            Err(BrokerError::Unavailable("the link is down".into()))
        }
    }
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            seed,
            random: HashMap::new(),
            is_calm: false,
            epochs: 0,
            streams: HashMap::new(),
            links: Vec::new(),
            acknowledged: Vec::new(),
            regressions: 0,
            taken_back: HashSet::new(),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub(super) fn join(self: &Arc<Self>, lanes: Lanes) -> (SimulatedBroker, Arc<Link>) {
        let state = Mutex::default();
        let link = Arc::new(Link { lanes, state, losses: AtomicU64::new(0) });
        self.state.lock().links.push(link.clone());
        (SimulatedBroker { cluster: self.clone(), link: link.clone() }, link)
    }

    pub(super) async fn befall(&self, fault: Fault) {
        let links = {
            let mut state = self.state.lock();
            state.links.retain(|link| !link.is_dead());
            state.links.clone()
        };
        if matches!(fault, Fault::Flush) {
            self.state.lock().streams.clear();
            return;
        }
        links.iter().for_each(|link| link.cut());
        sleep(Duration::from_millis(40)).await;
        {
            let mut state = self.state.lock();
            match fault {
                Fault::Restart | Fault::Flush => state.streams.clear(),
                Fault::FailOver(count) => {
                    let mut names: Vec<_> = state.streams.keys().cloned().collect();
                    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
                    for name in names {
                        let epoch = state.next_epoch();
                        let stream = state.stream(&name);
                        stream.epoch = epoch;
                        stream.epochs.push(epoch);
                    }
                    state.lose_the_last(count);
                }
                Fault::GoBack(count) => {
                    state.regressions += 1;
                    let lost = state.lose_the_last(count);
                    state.taken_back.extend(lost);
                }
            }
        }
        links.iter().for_each(|link| link.mend());
    }

    /// From now on nothing is lost, late or refused.
    pub(super) fn calm_down(&self) {
        self.state.lock().is_calm = true;
    }

    /// What a publisher was told.
    pub(super) fn acknowledged(&self, channel: &Channel, position: Position, content: u64) {
        self.state.lock().acknowledged.push((channel.clone(), position, content));
    }

    /// Everything acknowledged in a stream that lives is in its place.
    pub(super) fn has_all_that_it_acknowledged(&self) {
        let state = self.state.lock();
        for (channel, position, content) in &state.acknowledged {
            let Some(stream) = state.streams.get(channel) else { continue };
            if stream.epochs.contains(&position.epoch) {
                let placed = stream.at(position.offset).map(|it| (it.position, it.received.0));
                assert_eq!(placed, Some((Some(*position), *content)), "{channel} was acknowledged");
            }
        }
    }

    pub(super) fn is_calm(&self) -> bool {
        self.state.lock().is_calm
    }

    /// How often streams went back under their old epochs.
    pub(super) fn regressions(&self) -> u64 {
        self.state.lock().regressions
    }

    /// Whether a publication was taken back by a broker that kept the epoch: that is its loss, and no node can tell.
    pub(super) fn has_taken_back(&self, content: u64) -> bool {
        self.state.lock().taken_back.contains(&content)
    }

    /// Whether the stream is of this epoch and has another content in this place.
    pub(super) fn contradicts(&self, channel: &Channel, position: Position, content: u64) -> bool {
        let state = self.state.lock();
        let stream = state.streams.get(channel).filter(|stream| stream.epoch == position.epoch);
        stream.is_some_and(|stream| stream.at(position.offset).is_none_or(|it| it.received.0 != content))
    }

    /// Whether the stream has all that followed this position, and shows it.
    pub(super) fn shows(&self, channel: &Channel, position: Position) -> bool {
        let state = self.state.lock();
        let Some(stream) = state.streams.get(channel) else { return false };
        let is_reached = position.offset <= stream.position().offset;
        is_reached && (position.epoch == stream.epoch || position.is_shown_by(&stream.placed))
    }

    /// Whether the subscriber is where the stream is, by way of what the stream has.
    pub(super) fn has_told_all(&self, subscriber: &Subscriber) -> bool {
        let channel = subscriber.channel();
        let top = self.state.lock().streams.get(&channel).map(Stream::position);
        let is_at_the_top = top.is_none() || (subscriber.is_live() && subscriber.position() == top);
        let mut heard = subscriber.heard().into_iter();
        is_at_the_top && !heard.any(|(position, content)| self.contradicts(&channel, position, content))
    }
}

impl State {
    fn next_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch(self.epochs)
    }

    fn stream(&mut self, channel: &Channel) -> &mut Stream {
        if !self.streams.contains_key(channel) {
            let epoch = self.next_epoch();
            let stream = Stream { epoch, epochs: vec![epoch], placed: Vec::new() };
            self.streams.insert(channel.clone(), stream);
        }
        self.streams.get_mut(channel).expect("it is there by now")
    }

    /// Takes the last few of each stream away, and returns what they said.
    fn lose_the_last(&mut self, count: usize) -> Vec<u64> {
        let Self { streams, acknowledged, .. } = self;
        let mut lost = Vec::new();
        for stream in streams.values_mut() {
            let left = stream.placed.len().saturating_sub(count);
            lost.extend(stream.placed.drain(left..).map(|it| it.received.0));
        }
        acknowledged.retain(|(channel, position, _)| {
            streams.get(channel).is_some_and(|stream| stream.at(position.offset).is_some())
        });
        lost
    }

    fn random(&mut self, channel: &Channel) -> &mut fastrand::Rng {
        let seed = self.seed;
        self.random.entry(channel.clone()).or_insert_with(|| {
            fastrand::Rng::with_seed(
                channel.as_str().bytes().fold(seed, |seed, byte| seed.rotate_left(7) ^ u64::from(byte)),
            )
        })
    }

    /// True with these chances in a hundred, while there is trouble.
    fn happens(&mut self, channel: &Channel, percent: u8) -> bool {
        !self.is_calm && self.random(channel).u8(..100) < percent
    }

    fn delay(&mut self, channel: &Channel, most: u64) -> Duration {
        let most = if self.happens(channel, 5) { most * 10 } else { most };
        Duration::from_millis(self.random(channel).u64(..=most))
    }

    /// Appends, and sends the publication on its way to every node that watches.
    fn place(&mut self, draft: Draft) -> Position {
        let channel = draft.channel.clone();
        let stream = self.stream(&channel);
        let position = Position { offset: Offset(stream.placed.len() as u64 + 1), ..stream.position() };
        let publication = Arc::new(Publication::new(draft, Some(position)));
        stream.placed.push(publication.clone());
        for link in self.links.clone() {
            if !link.state.lock().is_up()
                || !link.state.lock().watched.contains(&channel)
                || self.happens(&channel, 6)
            {
                continue;
            }
            let copies = if self.happens(&channel, 4) { 2 } else { 1 };
            for _ in 0..copies {
                let latency = self.delay(&channel, 15);
                let is_late = self.happens(&channel, 4);
                link.send(publication.clone(), latency, is_late);
            }
        }
        position
    }
}

impl Stream {
    fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: Offset(self.placed.len() as u64) }
    }

    fn at(&self, offset: Offset) -> Option<&Arc<Publication>> {
        self.placed.get(usize::try_from(offset.0).ok()?.checked_sub(1)?)
    }
}

impl Link {
    #[expect(clippy::disallowed_methods, reason = "what is under way ends with the schedule's runtime")]
    fn send(self: &Arc<Self>, publication: Arc<Publication>, latency: Duration, is_late: bool) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let before = state.arrivals.get(&publication.channel).copied().unwrap_or(now);
        let mut arrival = now + latency;
        if is_late {
            arrival += Duration::from_millis(100); // The next ones overtake it.
        } else {
            arrival = arrival.max(before);
            state.arrivals.insert(publication.channel.clone(), arrival);
        }
        let (link, generation) = (self.clone(), state.generation);
        tokio::spawn(async move {
            sleep_until(arrival).await;
            if link.state.lock().generation == generation {
                let _ = link.lanes.lane(&publication.channel).try_send(Heard::Publication(publication));
            }
        });
    }
}

impl SimulatedBroker {
    /// One question to the servers: there and back, unless either is lost.
    async fn ask<T>(
        &self,
        channel: &Channel,
        answer: impl FnOnce(&mut State) -> T,
    ) -> Result<T, BrokerError> {
        let generation = self.link.generation()?;
        let (there, back, fails, is_lost_there, is_lost_back) = {
            let mut state = self.cluster.state.lock();
            (
                state.delay(channel, 10),
                state.delay(channel, 10),
                state.happens(channel, 4),
                state.happens(channel, 2),
                state.happens(channel, 3),
            )
        };
        sleep(there).await;
        if is_lost_there {
            std::future::pending::<()>().await;
        }
        let is_same = || self.link.generation().is_ok_and(|now| now == generation);
        if fails || !is_same() {
            return Err(BrokerError::Unavailable("the servers refuse".into()));
        }
        let answer = answer(&mut self.cluster.state.lock());
        sleep(back).await;
        if is_lost_back {
            std::future::pending::<()>().await;
        }
        if is_same() { Ok(answer) } else { Err(BrokerError::Timeout(Duration::ZERO)) }
    }
}

impl Broker for SimulatedBroker {
    fn publish(&self, draft: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        let channel = draft.channel.clone();
        async move { self.ask(&channel, |state| Some(state.place(draft))).await }.boxed()
    }

    fn history(&self, channel: &Channel, query: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        let channel = channel.clone();
        async move {
            self.ask(&channel, |state| {
                let stream = state.stream(&channel);
                let Position { epoch, offset: top } = stream.position();
                let since = query.since;
                let publications = if query.reverse {
                    let wanted =
                        stream.placed.iter().rev().filter(|it| since.is_none_or(|since| it.offset() < since));
                    wanted.take(query.limit).cloned().collect()
                } else {
                    let wanted =
                        stream.placed.iter().filter(|it| since.is_none_or(|since| it.offset() > since));
                    wanted.take(query.limit).cloned().collect()
                };
                Page { epoch, top, publications }
            })
            .await
        }
        .boxed()
    }

    fn positions(&self, channels: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        async move {
            let mut positions = Vec::new();
            for channel in &channels {
                positions
                    .push(self.ask(channel, |state| state.streams.get(channel).map(Stream::position)).await);
            }
            positions
        }
        .boxed()
    }

    fn remove_history(&self, _: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        unreachable!("no schedule removes history")
    }

    fn losses(&self) -> u64 {
        self.link.losses.load(Ordering::SeqCst)
    }

    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        let channel = channel.clone();
        async move {
            let watching = self.ask(&channel, |_| self.link.state.lock().watched.insert(channel.clone()));
            let answer = watching.await;
            if answer.is_err() {
                self.link.state.lock().watched.remove(&channel);
            }
            answer.map(drop)
        }
        .boxed()
    }

    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()> {
        self.link.state.lock().watched.remove(channel);
        std::future::ready(()).boxed()
    }

    fn link(&self) -> broker::Link {
        if self.link.generation().is_ok() { broker::Link::Up } else { broker::Link::Down }
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }
}
