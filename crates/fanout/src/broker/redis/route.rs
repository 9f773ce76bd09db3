//! Which server a channel belongs to.
//!
//! A broker keeps its connections per server, and the route names the server by its index. Of several independent servers
//! each has its share of the channels, by [jump consistent hash](https://arxiv.org/abs/1406.2294): a server more at the end
//! of the list takes an equal part of the channels from each of the others and moves no channel between those.

mod sentinel;

use fanfare_protocol::Channel;
use redis::IntoConnectionInfo;

use crate::broker::hash;
use crate::broker::redis::server::Server;
use crate::broker::redis::{RedisMode, RedisOptionsError};
use sentinel::Sentinels;

/// How channels are spread over servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    /// All on one.
    Single,
    /// Over so many.
    Sharded(usize),
}

impl Route {
    /// The server of a channel. Every node must give the same answer, also one of another version.
    pub(super) fn of(self, channel: &Channel) -> usize {
        match self {
            Self::Single => 0,
            Self::Sharded(servers) => jump(hash(channel), servers),
        }
    }
}

/// What options lead to.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) route: Route,
    /// In the order of the route's indices.
    pub(super) servers: Vec<Server>,
    /// Who says where the one server is, if anybody does.
    pub(super) sentinels: Option<Sentinels>,
}

impl Map {
    /// Reads what a mode makes of a list of URLs.
    pub(super) fn of(mode: &RedisMode, urls: &[String]) -> Result<Self, RedisOptionsError> {
        // The parser's own complaint is dropped where it could quote the URL, and with it a password.
        let parsed =
            urls.iter().map(|url| url.as_str().into_connection_info().map_err(|_| RedisOptionsError::Url));
        let infos = parsed.collect::<Result<Vec<_>, _>>()?;
        let route = match (mode, urls.len()) {
            (RedisMode::Single, 1) => Route::Single,
            (RedisMode::Single, urls) => return Err(RedisOptionsError::NotOneUrl { urls }),
            (RedisMode::Sharded, 0) => return Err(RedisOptionsError::NoUrl),
            (RedisMode::Sharded, urls) => Route::Sharded(urls),
            (RedisMode::Sentinel { primary }, _) => {
                let (sentinels, server) = Sentinels::new(&infos, primary)?;
                return Ok(Self { route: Route::Single, servers: vec![server], sentinels: Some(sentinels) });
            }
        };
        let servers = infos.iter().map(Server::new).collect::<Result<_, _>>()?;
        Ok(Self { route, servers, sentinels: None })
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
                let (old, new) = (before.of(channel), after.of(channel));
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
        assert_eq!(places, [2, 2, 1, 0, 1]);
    }
}
