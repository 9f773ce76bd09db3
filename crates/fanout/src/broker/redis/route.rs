//! Which server a channel belongs to.
//!
//! A broker keeps one pair of connections per server, and the route names the pair by its index. Today there is a single
//! server and nothing to choose; sentinel will change which address the one server has, cluster and sharding how many
//! there are.

use fanfare_protocol::Channel;
use redis::IntoConnectionInfo;

use crate::broker::redis::RedisOptionsError;
use crate::broker::redis::server::Server;

/// How channels are spread over servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    /// All on one.
    Single,
}

impl Route {
    /// The server of a channel.
    pub(super) fn of(self, _channel: &Channel) -> usize {
        match self {
            Self::Single => 0,
        }
    }
}

/// The one server that a list of URLs names.
pub(super) fn single(urls: &[String]) -> Result<(Route, Vec<Server>), RedisOptionsError> {
    let [url] = urls else { return Err(RedisOptionsError::NotOneUrl { urls: urls.len() }) };
    // The parser's own complaint is dropped where it could quote the URL, and with it a password.
    let info = url.as_str().into_connection_info().map_err(|_| RedisOptionsError::Url)?;
    Ok((Route::Single, vec![Server::new(&info)?]))
}
