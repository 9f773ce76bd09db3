//! The crate's only door: publish, subscribe, go live, unsubscribe.
//!
//! The hub owns the registry and the broker and runs one task per lane. A lane's task takes what waits in the lane, puts
//! together what is of one channel, and walks that channel's subscribers once per run; their writers are woken a few at a
//! time ([`wakes`](crate::wakes)). A large crowd has its turn a slice at a time ([`round`](crate::registry)), and a very large
//! one more hands than the lane's task. So the busier the node, the longer the runs, and the more publications leave in one
//! write. Nothing in the walk depends on the receiver but its encoding and whether it asked for no echo.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fanfare_metrics::{BrokerCall, Metrics, Outcome, Stage};
use fanfare_protocol::command::Start;
use fanfare_protocol::event::Entry;
use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Position, is_sampled};
use fanfare_protocol::rules::RESERVED_NAMESPACE;
use fanfare_protocol::session::Terms;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Publication};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerError, Heard, LaneEnds, Link, hash};
use crate::interest::{Interest, Stake};
use crate::outbox::Outbox;
use crate::registry::{Entering, Joined, Left, Registry, Slice, Walk};
use crate::tap::Tap;
use crate::wakes::Wakes;

mod own;
mod streams;
mod turns;

use own::Own;
use streams::watch_over;
use turns::Turns;

/// The most channels whose history is read at the same time.
const READS_AT_ONCE: usize = 64;

/// How often a subscriber whose place is not at hand waits for a read before it is told to come back later.
const READS_MAX: usize = 3;

/// The most publications taken from a lane before writers are woken. With [`wakes`](crate::wakes) it bounds what a channel
/// with many subscribers can queue in one go.
const RUN_MAX: usize = 64;

/// How a hub behaves.
#[derive(Debug, Clone, Copy)]
pub struct HubOptions {
    /// The longest that any call of the broker may take.
    pub broker_timeout: Duration,
    /// How often it is looked for channels on which nothing comes, to compare those whose turn it is with what the broker
    /// says of them: each at the first two looks, and then at one of six.
    pub check_interval: Duration,
    /// The wall clock, by which it is counted how long publications take.
    pub now: fn() -> UnixMicros,
}

/// One per node. See the [module's essay](self).
#[derive(Debug)]
pub struct Hub {
    registry: Registry,
    interest: Arc<Interest>,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
    options: HubOptions,
    tasks: TaskTracker,
    /// The losses of the broker's link that the streams know of.
    losses: AtomicU64,
    /// Since when it could not be asked where streams stand.
    unchecked: Mutex<Option<Instant>>,
    /// Publications of its own that it may hear, some of them.
    own: Own,
    /// What the node itself hears.
    attended: AtomicUsize,
    /// The most tasks that walk round one large crowd beside its lane's.
    hands: usize,
    /// Bounds the reads of history under way, so that a node that is back after a loss does not flood the broker.
    reads: Semaphore,
    /// For the tasks that read: they end with the hub.
    me: Weak<Self>,
}

impl Hub {
    /// Builds a hub on a broker that fills the other ends of `lanes`, and starts its tasks. They end when the broker and
    /// all other holders of the lanes are gone.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(
        broker: Arc<dyn Broker>,
        lanes: LaneEnds,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        options: HubOptions,
    ) -> Arc<Self> {
        let interest = Interest::new(broker.clone(), tasks.clone(), options.broker_timeout);
        let hub = Arc::new_cyclic(|me| Self {
            registry: Registry::new(),
            interest,
            losses: AtomicU64::new(broker.losses()),
            broker,
            metrics,
            options,
            tasks: tasks.clone(),
            unchecked: Mutex::new(None),
            own: Own::default(),
            attended: AtomicUsize::new(0),
            // Half of the workers are left for everybody else, and at least one.
            hands: (Handle::current().metrics().num_workers() / 2).saturating_sub(1),
            reads: Semaphore::new(READS_AT_ONCE),
            me: me.clone(),
        });
        tasks.spawn(watch_over(Arc::downgrade(&hub), options.check_interval));
        for lane in lanes.0 {
            tasks.spawn(carry(Arc::downgrade(&hub), lane));
        }
        hub
    }

    /// Places a draft with the broker; every subscriber on every node hears it by way of the lanes.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline. Then nothing was published, or for a timeout nobody knows.
    pub async fn publish(&self, draft: Draft) -> Result<Option<Position>, BrokerError> {
        let received = draft.received;
        if is_sampled(received) {
            self.own.note(&draft);
        }
        let channel = draft.channel.clone();
        let placed = self.call(BrokerCall::Publish, self.broker.publish(draft)).await;
        if placed.is_ok() && channel.within(RESERVED_NAMESPACE).is_none() {
            self.metrics.namespace_published(channel.namespace());
        }
        if is_sampled(received) && placed.is_ok() {
            self.metrics.stage(Stage::Accepted, (self.options.now)().since(received));
        }
        placed
    }

    /// Joins a channel and finds the place in its stream from which it is heard, once the node watches it.
    /// [`Hub::go_live`] opens the gate; [`Hub::unsubscribe`] undoes either, also after this was dropped half-way.
    ///
    /// # Errors
    /// [`BrokerError`], within a few times the deadline. Then nothing was joined.
    pub async fn subscribe(
        &self,
        channel: &Channel,
        outbox: &Arc<Outbox>,
        terms: Terms,
    ) -> Result<Option<Entry>, BrokerError> {
        let stake = self.call(BrokerCall::Watch, self.interest.enter(channel)).await?;
        let start = terms.start;
        match self.registry.join(channel, outbox, terms) {
            Joined::Already => {} // The stake goes back: the first join holds one.
            joined => {
                if joined == Joined::First {
                    self.metrics.channel_opened();
                }
                self.metrics.subscription_added();
                self.metrics.namespace_subscriptions(channel.namespace(), 1);
                stake.keep();
            }
        }
        let entered = self.enter(channel, outbox, start).await;
        if entered.is_err() {
            self.unsubscribe(channel, outbox);
        }
        entered
    }

    async fn enter(
        &self,
        channel: &Channel,
        outbox: &Outbox,
        start: Start,
    ) -> Result<Option<Entry>, BrokerError> {
        for reads in 0..=READS_MAX {
            match self.registry.enter(channel, outbox.id(), start, reads > 0) {
                Entering::Entered(entry) => return Ok(entry),
                Entering::Gone => break,
                Entering::Wait { answer, start_reading } => {
                    start_reading.into_iter().for_each(|reader| self.start_reading(reader));
                    let told = async {
                        answer.await.unwrap_or(Err(BrokerError::Unavailable("the channel is gone".into())))
                    };
                    timeout(self.options.broker_timeout * 2, told)
                        .await
                        .unwrap_or(Err(BrokerError::Timeout(self.options.broker_timeout * 2)))?;
                }
            }
        }
        Err(BrokerError::Unavailable("the channel's stream changes too fast to enter it".into()))
    }

    /// Joins a channel like [`Hub::subscribe`], for the node itself: it is no client's subscription, and is not counted.
    /// [`Hub::depart`] undoes it.
    pub(crate) async fn attend(
        &self,
        channel: &Channel,
        outbox: &Arc<Outbox>,
        terms: Terms,
    ) -> Result<Option<Entry>, BrokerError> {
        let stake = self.call(BrokerCall::Watch, self.interest.enter(channel)).await?;
        let start = terms.start;
        if self.registry.join(channel, outbox, terms) != Joined::Already {
            self.attended.fetch_add(1, Ordering::Relaxed);
            self.registry.look_closely(channel);
            stake.keep();
        }
        let entered = self.enter(channel, outbox, start).await;
        if entered.is_err() {
            self.depart(channel, outbox);
        }
        entered
    }

    /// Leaves what was attended.
    pub(crate) fn depart(&self, channel: &Channel, outbox: &Outbox) {
        if self.registry.leave(channel, outbox.id()) != Left::WasNotThere {
            self.attended.fetch_sub(1, Ordering::Relaxed);
            self.interest.leave(channel);
        }
    }

    /// Has the node hear what is told of a channel's members, for as long as the answer lives. Of what is published there nobody
    /// hears anything by that.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline.
    pub async fn overhear(&self, channel: &Channel) -> Result<Overheard, BrokerError> {
        self.call(BrokerCall::Watch, self.interest.enter(channel))
            .await
            .map(|stake| Overheard { _stake: stake })
    }

    /// How often the broker's link was lost, or something that came over it.
    pub fn losses(&self) -> u64 {
        self.broker.losses()
    }

    /// Queues the reply that tells the client it is subscribed, unless it knows already, then what it has missed, and lets
    /// publications follow.
    pub fn go_live(&self, channel: &Channel, outbox: &Outbox, reply: impl Into<Option<Frame>>) {
        if let Some(queued) = self.registry.go_live(channel, outbox.id(), reply.into()) {
            queued.count(&self.metrics);
        }
    }

    /// Whether anything of the past is to follow when this subscriber, which has entered, goes live.
    pub fn replays(&self, channel: &Channel, outbox: &Outbox) -> bool {
        self.registry.replays(channel, outbox.id())
    }

    /// Reads a part of a channel's history.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline.
    pub async fn history(&self, channel: &Channel, query: Query) -> Result<Page, BrokerError> {
        self.call(BrokerCall::History, self.broker.history(channel, query)).await
    }

    /// Forgets what was published on a channel: who comes to this node from then on is not shown it, and soon nobody is who
    /// comes to any other.
    ///
    /// # Errors
    /// [`BrokerError`], within the deadline.
    pub async fn remove_history(&self, channel: &Channel) -> Result<(), BrokerError> {
        self.call(BrokerCall::History, self.broker.remove_history(channel)).await?;
        // The lane tells this node as it tells the others; but who comes here next may come sooner.
        self.registry.forget(channel);
        Ok(())
    }

    /// Leaves a channel, and says whether it was there. From the return on nothing of it is queued for this outbox.
    pub fn unsubscribe(&self, channel: &Channel, outbox: &Outbox) -> bool {
        let left = self.registry.leave(channel, outbox.id());
        if left == Left::WasNotThere {
            return false;
        }
        if left == Left::Last {
            self.metrics.channel_closed();
        }
        self.metrics.subscription_removed();
        self.metrics.namespace_subscriptions(channel.namespace(), -1);
        self.interest.leave(channel);
        true
    }

    /// Whether this outbox is subscribed to the channel, or about to be.
    pub fn hears(&self, channel: &Channel, outbox: &Outbox) -> bool {
        self.registry.has(channel, outbox.id())
    }

    /// What this outbox is on, by a walk over all channels of the node.
    pub fn channels_of(&self, outbox: &Outbox) -> Vec<Channel> {
        self.registry.channels_of(outbox.id())
    }

    /// Leaves whatever this outbox is on, and returns what that was. Walks over all channels of the node: for a connection
    /// that has panicked, and whose session may not know any more.
    pub fn unsubscribe_all(&self, outbox: &Outbox) -> Vec<Channel> {
        let channels = self.registry.channels_of(outbox.id());
        for channel in &channels {
            self.unsubscribe(channel, outbox);
        }
        channels
    }

    /// Whether the broker can be reached.
    pub fn link(&self) -> Link {
        self.broker.link()
    }

    /// For how long the broker could not be asked where streams stand: zero when the last time was good, or there was nothing to ask.
    pub fn checks_failing_for(&self) -> Duration {
        self.unchecked.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Where it can be seen what becomes of publications.
    pub fn tap(&self) -> &Arc<Tap> {
        self.registry.tap()
    }

    /// The broker's name.
    pub fn broker_kind(&self) -> &'static str {
        self.broker.kind()
    }

    /// How many channels this node watches for clients, or is about to.
    pub fn channels_watched(&self) -> usize {
        self.interest.len().saturating_sub(self.attended.load(Ordering::Relaxed))
    }

    async fn call<T>(
        &self,
        call: BrokerCall,
        answer: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let asked = Instant::now();
        let deadline = self.options.broker_timeout;
        let answer = timeout(deadline, answer).await.unwrap_or(Err(BrokerError::Timeout(deadline)));
        let outcome = match &answer {
            Ok(_) => Outcome::Ok,
            Err(BrokerError::Timeout(_)) => Outcome::Timeout,
            Err(BrokerError::Unavailable(_) | BrokerError::Busy(_)) => Outcome::Unavailable,
        };
        self.metrics.broker_call(call, outcome, asked.elapsed());
        answer
    }

    /// Takes note of when a publication was heard whose way is measured part by part.
    fn measure(&self, publication: &Publication, now: UnixMicros) {
        self.metrics.heard(publication.received.0, now.0);
        if self.own.take(publication) {
            self.metrics.stage(Stage::Heard, now.since(publication.received));
        }
    }

    /// Queues publications for whoever hears them, and empties the list; returns how many deliveries that was.
    fn deliver(&self, publications: &mut Vec<Arc<Publication>>, pending: &mut Pending) -> u64 {
        if publications.is_empty() {
            return 0; // Nothing but writers to wake.
        }
        if publications.len() > 1 {
            // Each channel's are together then, and in the order they came.
            publications.sort_by_cached_key(|publication| hash(&publication.channel));
        }
        self.metrics.publications_received(publications.len() as u64);
        let now = (self.options.now)();
        self.metrics.publication_heard(now.since(publications[0].received));
        publications.iter().filter(|it| is_sampled(it.received)).for_each(|it| self.measure(it, now));
        self.notice_losses();
        let mut deliveries = 0;
        let tap = self.registry.tap().on();
        for run in publications.chunk_by(|one, next| one.channel == next.channel) {
            let began = Instant::now();
            tap.inspect(|tap| tap.heard(run));
            let delivered = self.registry.deliver(&run[0].channel, run, &mut pending.wakes);
            let crowd = delivered.walk.as_ref().map_or(0, |walk| walk.members() as u64);
            let receivers = delivered.receivers + crowd;
            tap.inspect(|tap| tap.fanned_out(run, receivers));
            if self.registry.tap().records() {
                self.registry.tap().handed_on(run, now, receivers);
            }
            // What nodes say to each other no subscriber hears.
            let is_ours = run[0].channel.within(RESERVED_NAMESPACE).is_some();
            if !is_ours {
                let (count, dropped) = (run.len() as u64 * receivers, delivered.queued.lost());
                self.metrics.namespace_delivered(run[0].channel.namespace(), count, dropped);
            }
            delivered.queued.count(&self.metrics);
            match delivered.walk {
                Some(walk) => {
                    for hand in walk.hire(self.hands) {
                        self.tasks.spawn(lend_a_hand(self.me.clone(), hand));
                    }
                    pending.begin(walk);
                }
                None if is_ours => {}
                None => self.metrics.fanned_out(run.len() as u64, delivered.receivers, began.elapsed()),
            }
            delivered.start_reading.into_iter().for_each(|reader| self.start_reading(reader));
            deliveries += run.len() as u64 * delivered.receivers;
        }
        publications.clear();
        deliveries
    }
}

/// That a channel's notices are heard. Dropped, they no longer are.
#[derive(Debug)]
pub struct Overheard {
    _stake: Stake,
}

/// What a lane has taken and is not done with.
#[derive(Debug, Default)]
struct Pending {
    wakes: Wakes,
    /// The large crowds that something goes round, the one whose turn it is first.
    walks: VecDeque<Walk>,
    /// What a step of a walk has to write; kept for its memory.
    slice: Slice,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.walks.is_empty()
    }

    /// How many more publications may be taken: channels that are spoken on faster than their crowds can hear hold up their
    /// lane.
    fn room(&self) -> usize {
        if self.wakes.is_behind() {
            return 0;
        }
        RUN_MAX.saturating_sub(self.walks.iter().map(Walk::on_their_way).max().unwrap_or(0))
    }

    fn begin(&mut self, walk: Walk) {
        match self.walks.iter_mut().find(|known| **known == walk) {
            Some(known) => *known = walk,
            None => self.walks.push_back(walk),
        }
    }

    /// Sees to some writers of small crowds, to which there were so many deliveries, and goes a step further round one of the
    /// large ones.
    fn go_on(&mut self, hub: &Hub, deliveries: u64) {
        self.wakes.delivered(deliveries);
        self.wakes.go_on(&hub.metrics, hub.options.now);
        let Some(mut walk) = self.walks.pop_front() else { return };
        self.slice.show(hub.registry.tap().on());
        if walk.step(&mut self.slice) {
            self.walks.push_back(walk);
        }
        self.slice.perform(&hub.metrics, hub.options.now);
    }
}

/// Carries what comes through one lane to the subscribers, as long as there is a hub.
async fn carry(hub: Weak<Hub>, mut lane: mpsc::Receiver<Heard>) {
    let (mut heard, mut publications) = (Vec::new(), Vec::new());
    let (mut pending, mut turns) = (Pending::default(), Turns::new());
    loop {
        if pending.is_empty() {
            if lane.recv_many(&mut heard, RUN_MAX).await == 0 {
                return;
            }
        } else {
            heard.extend(std::iter::from_fn(|| lane.try_recv().ok()).take(pending.room()));
        }
        let Some(hub) = hub.upgrade() else { return };
        let has_news = !heard.is_empty();
        let mut deliveries = 0;
        for it in heard.drain(..) {
            match it {
                Heard::Publication(publication) => publications.push(publication),
                Heard::Removal(channel) => {
                    deliveries += hub.deliver(&mut publications, &mut pending);
                    hub.registry.forget(&channel);
                }
            }
        }
        deliveries += hub.deliver(&mut publications, &mut pending);
        pending.go_on(&hub, deliveries);
        drop(hub);
        if !(pending.is_empty() && lane.is_empty()) {
            turns.end(has_news).await;
        }
    }
}

/// Walks round a large crowd beside its lane's task.
async fn lend_a_hand(hub: Weak<Hub>, mut walk: Walk) {
    let (mut slice, mut turns) = (Slice::default(), Turns::new());
    while let Some(hub) = hub.upgrade() {
        slice.show(hub.registry.tap().on());
        let goes_on = walk.step(&mut slice);
        slice.perform(&hub.metrics, hub.options.now);
        if !goes_on {
            return;
        }
        drop(hub);
        turns.end(false).await;
    }
}

#[cfg(test)]
mod tests;
