//! The connections to all places, and what happens when places change.
//!
//! With most arrangements nothing ever does. In a Redis Cluster slots move with their channels from place to place, and places
//! come and go. One task follows, a change at a time:
//!
//! ```text
//!  1  connections to new places are started
//!  2  calls take the new route; publications on channels that move are refused
//!  3  every place gives up the channels that it has lost, which go to those that have got them now;
//!     meanwhile all answer the publications that were queued before 2,
//!  4  and then publications on channels that move take the new route
//!  5  connections to places that are gone end
//! ```
//!
//! **Invariants.**
//! - Publications of this node on one channel keep their order: none is queued at the new place before those at the old one are
//!   answered. Queuing happens under the lock that 2 and 4 take.
//! - What is watched is in the ledger of one place, or on its way there. A `watch` that comes to a place which the channel has left
//!   is refused there (2 comes before 3), and goes to the new place once. An `unwatch` that crosses the channel on its way leaves
//!   it unwanted, and then nobody takes it over: the ledger that would looks after 2, and 2 comes before 3.
//!
//! A command that came to the wrong server was not carried out. Publishers are told so; whoever reads or watches is sent to the new
//! place, or the place's new server, once, when there is one within the deadline.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use fanfare_protocol::Channel;
use fanfare_protocol::publication::Draft;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::broker::redis::Shared;
use crate::broker::redis::history::Reader;
use crate::broker::redis::link::{Board, Half};
use crate::broker::redis::publish::{Placing, Publisher};
use crate::broker::redis::route::{Layout, Place, PlaceId};
use crate::broker::redis::watch::Watcher;
use crate::broker::{BrokerError, Lanes};

/// See the [module's essay](self).
#[derive(Debug)]
pub(super) struct Fleet {
    shared: Arc<Shared>,
    board: Arc<Board>,
    lanes: Lanes,
    now: watch::Sender<Now>,
}

#[derive(Debug)]
struct Now {
    layout: Arc<Layout>,
    /// In the order of the layout's places.
    ends: Vec<Arc<Ends>>,
    /// The layout before this one, while channels move.
    leaving: Option<Arc<Layout>>,
}

/// One of the connections to a place that may be asked twice.
#[derive(Clone, Copy, Debug)]
pub(super) enum Connection {
    Read = 1,
    Watch = 2,
}

/// The near ends of the connections to one place.
#[derive(Debug)]
pub(super) struct Ends {
    place: PlaceId,
    /// For publishing, reading and watching.
    halves: [Arc<Half>; 3],
    publisher: Publisher,
    pub(super) reader: Reader,
    pub(super) watcher: Watcher,
}

impl Ends {
    fn start(shared: &Arc<Shared>, place: Place, halves: [Arc<Half>; 3], lanes: &Lanes) -> Self {
        let [publishing, reading, watching] = &halves;
        Self {
            place: place.id,
            publisher: Publisher::start(shared, place.server.clone(), publishing.clone()),
            reader: Reader::start(shared, place.server.clone(), reading.clone()),
            watcher: Watcher::start(shared, place, watching.clone(), lanes.clone()),
            halves,
        }
    }
}

impl Now {
    fn of(&self, channel: &Channel) -> Result<&Arc<Ends>, BrokerError> {
        let nobody = || BrokerError::Unavailable("redis is away: no server has the channel's slot".into());
        self.layout.of(channel).map(|at| &self.ends[at]).ok_or_else(nobody)
    }
}

impl Fleet {
    /// Starts to connect to every place.
    pub(super) fn start(shared: &Arc<Shared>, board: &Arc<Board>, lanes: &Lanes) -> Self {
        let layout = shared.layout();
        let fleet = Self {
            shared: shared.clone(),
            board: board.clone(),
            lanes: lanes.clone(),
            now: watch::Sender::new(Now { layout: layout.clone(), ends: Vec::new(), leaving: None }),
        };
        let ends = fleet.ends(&layout, &BTreeMap::new());
        fleet.now.send_modify(|now| now.ends = ends);
        fleet
    }

    /// Queues a draft for the place of its channel, at once.
    pub(super) fn place(&self, draft: &Draft) -> Result<Placing, BrokerError> {
        let now = self.now.borrow();
        let ends = now.of(&draft.channel)?;
        if now.leaving.as_ref().is_some_and(|before| before.place(&draft.channel) != Some(ends.place)) {
            return Err(BrokerError::Unavailable("the channel is moving to another redis".into()));
        }
        ends.publisher.place(draft)
    }

    /// Asks something of a channel's place, on one of its connections, that may be asked twice.
    pub(super) async fn ask<T, F>(
        &self,
        channel: &Channel,
        on: Connection,
        ask: impl Fn(Arc<Ends>) -> F,
    ) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, BrokerError>>,
    {
        let ends = self.of(channel)?;
        let place = ends.place;
        let renewed = ends.halves[on as usize].rises();
        match ask(ends).await {
            Err(error) if is_moved(&error) => match self.elsewhere(channel, place, renewed).await {
                Some(ends) => ask(ends).await,
                None => Err(error),
            },
            answer => answer,
        }
    }

    /// The place of a channel.
    pub(super) fn of(&self, channel: &Channel) -> Result<Arc<Ends>, BrokerError> {
        self.now.borrow().of(channel).cloned()
    }

    /// The place of a channel when it is another one, or when it has another server, within the deadline.
    async fn elsewhere(
        &self,
        channel: &Channel,
        place: PlaceId,
        mut renewed: watch::Receiver<u64>,
    ) -> Option<Arc<Ends>> {
        let mut now = self.now.subscribe();
        let change = async {
            tokio::select! {
                moved = now.wait_for(|now| now.of(channel).is_ok_and(|ends| ends.place != place)) => moved.is_ok(),
                renewed = renewed.changed() => renewed.is_ok(),
            }
        };
        let is_changed = timeout(self.shared.timeout, change).await.unwrap_or(false);
        is_changed.then(|| self.of(channel).ok()).flatten()
    }

    /// Follows the layouts for ever.
    pub(super) async fn follow(self: Arc<Self>, mut layouts: watch::Receiver<Arc<Layout>>) {
        layouts.mark_changed(); // It may have changed before anybody followed.
        let mut homeless = Vec::new();
        while layouts.changed().await.is_ok() {
            let layout = layouts.borrow_and_update().clone();
            self.change(layout, &mut homeless).await;
        }
    }

    /// Takes another layout. Channels that were watched and whose slot no place has are `homeless` until the next.
    async fn change(&self, layout: Arc<Layout>, homeless: &mut Vec<Channel>) {
        let before: BTreeMap<_, _> = {
            let now = self.now.borrow();
            now.ends.iter().map(|ends| (ends.place, ends.clone())).collect()
        };
        let ends = self.ends(&layout, &before);
        let after: BTreeMap<_, _> = ends.iter().map(|ends| (ends.place, ends.clone())).collect();
        self.shared.set_layout(layout.clone());
        self.now.send_modify(|now| {
            let leaving = std::mem::replace(&mut now.layout, layout.clone());
            (now.ends, now.leaving) = (ends, Some(leaving));
        });
        // Neither waits for the other: a place whose lane is full releases nothing until it has room.
        let publishing = async {
            join_all(before.values().map(|ends| ends.publisher.settled())).await;
            self.now.send_modify(|now| now.leaving = None);
        };
        let old = std::mem::take(homeless);
        let hearing = async {
            let released = before.values().map(async |ends| {
                let released = ends.watcher.resettle().await;
                hand_over(released, &layout, &after).await
            });
            let (released, mut still) = tokio::join!(join_all(released), hand_over(old, &layout, &after));
            still.extend(released.into_iter().flatten());
            still
        };
        let ((), still) = tokio::join!(publishing, hearing);
        *homeless = still;
        for gone in before.values().filter(|ends| !after.contains_key(&ends.place)) {
            gone.halves.iter().for_each(|half| half.retire());
        }
    }

    /// The ends of every place of a layout, new ones where there were none before.
    fn ends(&self, layout: &Layout, before: &BTreeMap<PlaceId, Arc<Ends>>) -> Vec<Arc<Ends>> {
        // All halves first: the link must not be up before each has been counted.
        let half = |place: &Place| {
            ["publish", "read", "watch"].map(|it| self.board.half(it, place.server.to_string()))
        };
        let halves = layout.places().iter().map(|it| (!before.contains_key(&it.id)).then(|| half(it)));
        let halves: Vec<_> = halves.collect();
        let ends = layout.places().iter().zip(halves).map(|(place, halves)| match halves {
            Some(halves) => Arc::new(Ends::start(&self.shared, place.clone(), halves, &self.lanes)),
            None => before[&place.id].clone(),
        });
        ends.collect()
    }
}

/// Gives channels to the places that have them now, and returns those that no place has.
async fn hand_over(
    channels: Vec<Channel>,
    layout: &Layout,
    places: &BTreeMap<PlaceId, Arc<Ends>>,
) -> Vec<Channel> {
    let mut adopted: BTreeMap<PlaceId, Vec<Channel>> = BTreeMap::new();
    let mut homeless = Vec::new();
    for channel in channels {
        match layout.place(&channel) {
            Some(place) => adopted.entry(place).or_default().push(channel),
            None => homeless.push(channel),
        }
    }
    join_all(adopted.into_iter().map(|(place, channels)| places[&place].watcher.adopt(channels))).await;
    homeless
}

/// Whether a server said that another one has the channel. The other refusals of that kind, while a slot is moving, may last.
fn is_moved(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Unavailable(why) if why.starts_with("MOVED "))
}
