//! Every bound that a session enforces.

use std::time::Duration;

/// The bounds of one conversation, the same for every session of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes in one message of a client, over all its fragments.
    pub message_bytes: usize,
    /// The most channels one connection may be subscribed to.
    pub channels: usize,
    /// The most commands in one message.
    pub batch: usize,
    /// The most arrays and objects within each other in one command, itself among them.
    pub depth: usize,
    /// The bad requests after which a connection is closed.
    pub errors: u32,
    /// The commands a connection may send per second; 0 does not limit them.
    pub messages_per_second: u32,
    /// How long a connection may go on over that rate before it is closed.
    pub burst_grace: Duration,
    /// The most bytes that may wait for one connection.
    pub queue_bytes: usize,
    /// How long a client that has to present a token may take.
    pub auth_timeout: Duration,
    /// How long to wait for the peer's Close and for our last bytes to leave (RFC 6455 section 7.1.1).
    pub close_timeout: Duration,
    /// The bounds that are only counted.
    pub trial: Trial,
}

/// A bound that a session meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// [`Limits::messages_per_second`]
    Commands,
    /// The rate of a namespace.
    Publications,
    /// The data of one publication of a namespace.
    DataBytes,
    /// [`Limits::channels`]
    Channels,
    /// [`Limits::batch`]
    Batch,
    /// [`Limits::depth`]
    Depth,
}

/// Bounds that are counted when they are met, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial(u8);

impl Trial {
    /// Whether this bound is one of them.
    pub const fn covers(self, bound: Bound) -> bool {
        self.0 & (1 << bound as u8) != 0
    }
}

impl FromIterator<Bound> for Trial {
    fn from_iter<I: IntoIterator<Item = Bound>>(bounds: I) -> Self {
        Self(bounds.into_iter().fold(0, |set, bound| set | 1 << bound as u8))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            channels: 128,
            batch: 128,
            depth: 128,
            errors: 32,
            messages_per_second: 100,
            burst_grace: Duration::from_secs(5),
            queue_bytes: 1024 * 1024,
            auth_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            trial: Trial::default(),
        }
    }
}

/// When the server asks whether a client is still there, and how long it waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Between two pings.
    pub interval: Duration,
    /// From a ping to the first sign of life.
    pub timeout: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}
