//! Which server a channel belongs to, and where that server is.
//!
//! A [`Layout`] says both at one moment: the *places*, which are servers or, where replicas take over, whatever server is the
//! primary of the moment; and the *route* from a channel to a place. The [`Topology`] is how layouts follow one another: one
//! value behind an `Arc`, for all who keep connections to the same servers, and one [`Guide`] that keeps it true.
//!
//! - One server, or the primary that [`sentinel`]s name: one place, for ever.
//! - Several independent servers: each has its share of the channels, by [jump consistent
//!   hash](https://arxiv.org/abs/1406.2294): a server more at the end of the list takes an equal part of the channels from each
//!   of the others and moves no channel between those. The places are the same for ever.
//! - A Redis [`cluster`]: each place is the primary of a shard. Places come and go, and slots with their channels move
//!   between them.

mod cluster;
mod sentinel;

use std::sync::Arc;

use fanfare_protocol::Channel;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio_rustls::rustls::ClientConfig;

use crate::broker::hash;
use crate::broker::redis::keys;
use crate::broker::redis::server::Server;
use crate::broker::redis::{RedisMode, RedisOptionsError, Shared};
use cluster::Shards;
use sentinel::Sentinels;

/// How channels are spread over places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// All on one.
    Single,
    /// Over so many.
    Sharded(usize),
    /// The place of each of the slots, if it has one.
    Slots(Box<[Option<u16>]>),
}

impl Route {
    /// The index of a channel's place, if it has one. Every node must give the same answer, also one of another version.
    pub(super) fn of(&self, channel: &Channel) -> Option<usize> {
        match self {
            Self::Single => Some(0),
            Self::Sharded(servers) => Some(jump(hash(channel), *servers)),
            Self::Slots(places) => places[usize::from(keys::slot(channel))].map(usize::from),
        }
    }
}

/// What a place is called: never given to another one in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceId(u64);

/// A server to keep connections to.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: PlaceId,
    pub(super) server: Server,
}

/// Who is where, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    route: Route,
    /// In the order of the route's indices.
    places: Vec<Place>,
}

impl Layout {
    fn of_servers(route: Route, servers: impl IntoIterator<Item = Server>) -> Self {
        let places = (0..).map(PlaceId).zip(servers).map(|(id, server)| Place { id, server });
        Self { route, places: places.collect() }
    }

    /// The index of a channel's place among [`Layout::places`], if it has one.
    pub(super) fn of(&self, channel: &Channel) -> Option<usize> {
        self.route.of(channel)
    }

    /// What a channel's place is called.
    pub(super) fn place(&self, channel: &Channel) -> Option<PlaceId> {
        self.of(channel).map(|at| self.places[at].id)
    }

    /// The index of each slot's place, if it has one, where there are slots.
    pub(super) fn slots(&self) -> Option<&[Option<u16>]> {
        match &self.route {
            Route::Slots(places) => Some(places),
            Route::Single | Route::Sharded(_) => None,
        }
    }

    /// All places.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    fn is_alike(&self, other: &Self) -> bool {
        self.route == other.route
            && self.places.iter().map(|it| it.id).eq(other.places.iter().map(|it| it.id))
    }
}

/// See the [module's essay](self).
#[derive(Debug)]
pub(super) struct Topology {
    layout: watch::Sender<Arc<Layout>>,
    nudged: Notify,
    /// Whether layouts follow one another at all.
    moves: bool,
}

impl Topology {
    fn new(layout: Layout, moves: bool) -> Arc<Self> {
        Arc::new(Self { layout: watch::Sender::new(Arc::new(layout)), nudged: Notify::new(), moves })
    }

    /// Who is where, as far as is known now.
    pub(super) fn layout(&self) -> Arc<Layout> {
        self.layout.borrow().clone()
    }

    /// The layouts from now on; none where this one is for ever.
    pub(super) fn changes(&self) -> Option<watch::Receiver<Arc<Layout>>> {
        self.moves.then(|| self.layout.subscribe())
    }

    /// Something was not where it should be, or does not answer: it is time to ask who is where.
    pub(super) fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Returns when it was nudged since the last time.
    async fn nudged(&self) {
        self.nudged.notified().await;
    }

    /// Takes another layout.
    fn change(&self, layout: Layout) {
        self.layout.send_if_modified(|now| {
            let is_new = !now.is_alike(&layout);
            if is_new {
                *now = Arc::new(layout);
            }
            is_new
        });
    }
}

/// What options lead to.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) topology: Arc<Topology>,
    /// Who says where servers are, if anybody does.
    pub(super) guide: Option<Guide>,
}

/// Who says where servers are.
#[derive(Debug)]
pub(super) enum Guide {
    Sentinels(Sentinels),
    Shards(Shards),
}

impl Guide {
    /// Asks until the broker has gone.
    pub(super) fn follow(self, shared: Arc<Shared>) -> BoxFuture<'static, ()> {
        match self {
            Self::Sentinels(sentinels) => sentinels.follow(shared).boxed(),
            Self::Shards(shards) => shards.follow(shared).boxed(),
        }
    }
}

impl Map {
    /// Reads what a mode makes of a list of URLs.
    pub(super) fn of(
        mode: &RedisMode,
        urls: &[String],
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, RedisOptionsError> {
        let servers = urls.iter().map(|url| Server::new(url, tls)).collect::<Result<Vec<_>, _>>()?;
        if servers.windows(2).any(|pair| pair[0].is_secure() != pair[1].is_secure()) {
            return Err(RedisOptionsError::Mixed);
        }
        let route = match (mode, urls.len()) {
            (RedisMode::Single, 1) => Route::Single,
            (RedisMode::Single, urls) => return Err(RedisOptionsError::NotOneUrl { urls }),
            (_, 0) => return Err(RedisOptionsError::NoUrl),
            (RedisMode::Sharded, urls) => Route::Sharded(urls),
            (RedisMode::Sentinel { primary }, _) => {
                let (sentinels, server) = Sentinels::new(servers, primary)?;
                let topology = Topology::new(Layout::of_servers(Route::Single, [server]), false);
                return Ok(Self { topology, guide: Some(Guide::Sentinels(sentinels)) });
            }
            (RedisMode::Cluster, _) => {
                let nobody = Route::Slots(vec![None; keys::SLOTS].into());
                let topology = Topology::new(Layout::of_servers(nobody, []), true);
                return Ok(Self { topology, guide: Some(Guide::Shards(Shards::new(&servers)?)) });
            }
        };
        Ok(Self { topology: Topology::new(Layout::of_servers(route, servers), false), guide: None })
    }
}

/// A bucket in `0..count`; `count` is at least 1.
fn jump(mut key: u64, count: usize) -> usize {
    let (mut bucket, mut next) = (0, 0);
    while next < count {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // The next bucket count at which this key moves: (bucket + 1) / uniform(0, 1], in integers.
        next =
            usize::try_from(((bucket as u128 + 1) << 31) / u128::from((key >> 33) + 1)).unwrap_or(usize::MAX);
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_more_takes_its_share_and_moves_nothing_else() {
        const CHANNELS: usize = 20_000;
        let channels: Vec<_> =
            (0..CHANNELS).map(|it| Channel::parse(&format!("room:{it}")).unwrap()).collect();
        for servers in 1..=16 {
            let (before, after) = (Route::Sharded(servers), Route::Sharded(servers + 1));
            let mut shares = vec![0; servers + 1];
            for channel in &channels {
                let (old, new) = (before.of(channel).unwrap(), after.of(channel).unwrap());
                assert!(new == old || new == servers, "{channel} moves from {old} to {new} of {servers}");
                shares[new] += 1;
            }
            let fair = CHANNELS / (servers + 1);
            for share in shares {
                assert!(
                    (fair * 8 / 10..=fair * 12 / 10).contains(&share),
                    "{share}, and {fair} would be fair"
                );
            }
        }
    }

    /// Nodes of different versions share a cluster: these must never change.
    #[test]
    fn places_are_the_same_for_ever() {
        let places = ["a", "room:1", "room:2", "{b}", "user:42"]
            .map(|name| Route::Sharded(5).of(&Channel::parse(name).unwrap()));
        assert_eq!(places, [2, 2, 1, 0, 1].map(Some));
    }
}
