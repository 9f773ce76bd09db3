//! What is done to the cluster, and when: drawn from the seed alone, so that a run can be had again.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::args::Topology;
use crate::stage::NODES;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of a node, which is started again a little later.
    NodeKill,
    /// SIGSTOP of a node, then SIGCONT: its kernel takes connections, and nobody answers.
    NodeFreeze,
    /// SIGTERM of a node under traffic, which is started again when it has ended.
    NodeDrain,
    /// The same with every node, one after the other.
    RollingRestart,
    /// CLIENT PAUSE.
    RedisPause,
    /// CLIENT KILL TYPE pubsub.
    RedisKillPubsub,
    /// CLIENT KILL TYPE normal.
    RedisKillNormal,
    /// SIGSTOP of Redis, then SIGCONT.
    RedisFreeze,
    /// SIGKILL of Redis, which comes back with its data, and with no proof that it is all of it. Where there is a replica,
    /// it comes back when that has become the primary.
    RedisRestart,
    /// SIGKILL of Redis, which comes back empty.
    RedisWipe,
    /// SENTINEL FAILOVER, or CLUSTER FAILOVER.
    RedisFailover,
    /// A slot moves to another shard, with its keys.
    RedisMoveSlot,
    /// FLUSHALL.
    RedisFlush,
    /// Redis refuses writes for want of memory.
    RedisFull,
    /// The connections between a node and Redis are reset, and new ones too.
    LinkCut,
    /// The connections between a node and Redis stay, and carry nothing.
    LinkHole,
    /// The connections between a node and Redis are slow.
    LinkSlow,
    /// The connections between nginx and a node are reset, and new ones too.
    ClientCut,
    /// The connections between nginx and a node stay, and carry nothing.
    ClientHole,
    /// SIGHUP of nginx.
    NginxReload,
}

impl Kind {
    /// Whether it can be done to a Redis of that arrangement.
    pub(crate) fn fits(self, topology: Topology) -> bool {
        match self {
            Self::RedisFailover => topology != Topology::Single,
            Self::RedisMoveSlot => topology == Topology::Cluster,
            // Sentinels and clusters tell the nodes addresses of servers, not of links, which can only be cut at the servers;
            // and a replica has what a primary forgets.
            Self::RedisWipe | Self::LinkHole | Self::LinkSlow => topology == Topology::Single,
            _ => true,
        }
    }

    /// Whether what Redis has acknowledged may be gone after it, so that streams go on as others: the one excuse for a
    /// lost position. Sentinels take a primary that is silent for dead, and its replica may lag behind; so does a cluster
    /// where it is the process that is silent. Whoever gets a slot knows as little about its streams as a replica.
    pub(crate) fn ends_lives(self, topology: Topology) -> bool {
        match self {
            Self::RedisRestart
            | Self::RedisWipe
            | Self::RedisFlush
            | Self::RedisFailover
            | Self::RedisMoveSlot => true,
            Self::RedisPause => topology == Topology::Sentinel,
            Self::RedisFreeze => topology != Topology::Single,
            _ => false,
        }
    }

    /// Whether Redis is empty after it.
    pub(crate) fn empties(self) -> bool {
        matches!(self, Self::RedisWipe | Self::RedisFlush)
    }

    /// How long it lasts, in milliseconds; none for what is over when it has been done.
    fn holds_for(self) -> Option<std::ops::Range<u64>> {
        match self {
            Self::NodeKill | Self::RedisRestart | Self::RedisWipe => Some(200..3000),
            Self::NodeFreeze | Self::LinkCut | Self::LinkHole | Self::ClientCut | Self::ClientHole => {
                Some(500..8000)
            }
            Self::RedisPause | Self::RedisFreeze | Self::RedisFull | Self::LinkSlow => Some(500..5000),
            Self::NodeDrain
            | Self::RollingRestart
            | Self::RedisKillPubsub
            | Self::RedisKillNormal
            | Self::RedisFailover
            | Self::RedisMoveSlot
            | Self::RedisFlush
            | Self::NginxReload => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value().expect("no kind is hidden");
        f.write_str(name.get_name())
    }
}

/// One fault of a schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The calm before it.
    pub(crate) after: Duration,
    /// What is done.
    pub(crate) kind: Kind,
    /// To which node, or shard, where it is done to one.
    pub(crate) node: usize,
    /// How long it lasts; zero for what is over when it has been done.
    pub(crate) holds: Duration,
    /// Whether the next one may come before the cluster has recovered.
    pub(crate) hasty: bool,
}

/// An endless schedule: each kind once, in a random order, then all of them again in another one.
#[derive(Debug)]
pub(crate) struct Schedule {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    next: usize,
}

impl Schedule {
    /// The schedule of this seed.
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), next: kinds.len(), kinds }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.next == self.kinds.len() {
            self.random.shuffle(&mut self.kinds);
            self.next = 0;
        }
        let kind = *self.kinds.get(self.next)?;
        self.next += 1;
        let random = &mut self.random;
        Some(Fault {
            after: Duration::from_millis(random.u64(200..2000)),
            kind,
            node: random.usize(..NODES),
            holds: kind.holds_for().map_or(Duration::ZERO, |range| Duration::from_millis(random.u64(range))),
            hasty: random.u8(..5) == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, count: usize) -> Vec<String> {
        Schedule::new(seed, Kind::value_variants().to_vec()).take(count).map(|it| format!("{it:?}")).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(first(7, 100), first(7, 100));
        assert_ne!(first(7, 100), first(8, 100));
    }

    #[test]
    fn every_kind_has_its_turn_before_any_has_its_second() {
        let all = Kind::value_variants();
        let mut seen: Vec<_> =
            Schedule::new(3, all.to_vec()).skip(all.len()).take(all.len()).map(|it| it.kind).collect();
        seen.sort_unstable();
        assert_eq!(seen, all);
    }

    #[test]
    fn without_a_kind_nothing_happens() {
        assert!(Schedule::new(3, Vec::new()).next().is_none());
    }
}
