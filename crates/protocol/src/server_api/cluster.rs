//! What a backend is told of nodes and of the connections that they hold. It is for people and their tools: nothing is decided
//! by it, so what is a name elsewhere is a text here. Nodes tell each other the same.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::id::{SessionId, UserId};

/// The most connections of one page.
pub const CONNECTIONS_MAX: usize = 1000;

/// Which connections a call is about; all of these hold, and none is every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of a user.
    pub user: Option<UserId>,
    /// The one of a session, with the channels that it hears.
    pub session: Option<SessionId>,
    /// Those that hear a channel.
    pub channel: Option<Channel>,
    /// Those for whom most waits, of all of these: one page, and nobody for whom nothing does.
    pub slowest: bool,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Particulars {
    /// Its session.
    pub session: Box<str>,
    /// Whose it is; none of an anonymous one.
    pub user: Option<Box<str>>,
    /// The node that holds it.
    pub node: Box<str>,
    /// The client's address, as far as trusted proxies say.
    pub address: IpAddr,
    /// What it goes over: `websocket`, `sse`, `stream` or `poll`.
    pub transport: Box<str>,
    /// The subprotocol that it speaks.
    pub protocol: Box<str>,
    /// Since when, in milliseconds since 1970.
    pub connected: u64,
    /// What waits for its client to read it.
    pub queued_bytes: u64,
    /// What it hears, where one session was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<Box<str>>>,
}

/// Some of the connections of all nodes, in an order that holds from page to page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Roll {
    /// They.
    pub connections: Vec<Particulars>,
    /// Where the next page begins; none after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<str>>,
    /// The nodes that have not answered in time: what they hold is not told.
    pub unanswered: Vec<Box<str>>,
}

/// A node, as it says itself.
#[expect(clippy::struct_excessive_bools, reason = "each is told by itself")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// What it is called.
    pub node: Box<str>,
    /// What it runs.
    pub version: Box<str>,
    /// For how long.
    pub uptime_seconds: u64,
    /// Whether it wants new clients.
    pub ready: bool,
    /// Why not: the checks that fail, by their names.
    #[serde(default)]
    pub failing: Vec<Box<str>>,
    /// Whether it is letting go of those that it has.
    pub draining: bool,
    /// Open connections.
    pub connections: u64,
    /// The most that there may be; 0 where the node does not say.
    #[serde(default)]
    pub connections_max: u64,
    /// Different users among them.
    pub users: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// The channels of those.
    pub channels: u64,
    /// Messages that clients have sent.
    pub messages_received: u64,
    /// Messages that were written to clients.
    pub messages_sent: u64,
    /// The same, of late.
    pub messages_received_per_second: f64,
    /// The same, of late.
    pub messages_sent_per_second: f64,
    /// The age that half of what was written of late had when sockets took it; none where nothing was written.
    #[serde(default)]
    pub publish_to_write_p50_ms: Option<f64>,
    /// The same of 99 in a hundred.
    #[serde(default)]
    pub publish_to_write_p99_ms: Option<f64>,
    /// How late publications come back from the broker.
    #[serde(default)]
    pub lag_ms: u64,
    /// What waits for clients to read it.
    pub queued_bytes: u64,
    /// What the process holds of the machine's memory; 0 where that is not known.
    pub memory_bytes: u64,
    /// What the process has had of the machine's cores, in seconds; 0 where that is not known.
    pub cpu_seconds: f64,
}
