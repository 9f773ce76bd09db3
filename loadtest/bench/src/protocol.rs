//! What differs between the servers that the generator can load: one adapter each, one file each.
//!
//! An adapter knows how a connection is opened and subscribed, how a publication is spelt, and what a frame
//! means that carries no publication. It does not know how publications are recognised: whatever the protocol
//! wraps around it, the payload is a [`Stamp`](crate::stamp::Stamp), which is found without parsing the rest.

use std::fmt;

use clap::ValueEnum;

mod centrifugo;
mod fanfare;
mod floor;
mod nats;
mod nchan;
mod pusher;
mod socketio;
#[cfg(test)]
mod tests;
mod ws;

pub(crate) use fanfare::Fanfare;

/// Which protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// `fanfare.v1.json`
    Fanfare,
    /// Centrifugo's client protocol, as JSON
    Centrifugo,
    /// The same, as Protobuf
    CentrifugoProtobuf,
    /// NATS over WebSocket
    Nats,
    /// nchan: subscribes by the path, publishes by HTTP
    Nchan,
    /// The Pusher protocol 7, with client events
    Pusher,
    /// Socket.IO 4 over a bare WebSocket
    Socketio,
    /// The script around the npm package `ws`
    Ws,
    /// The floor server
    Floor,
}

impl Dialect {
    /// The adapter.
    pub(crate) fn protocol(self) -> &'static dyn Protocol {
        match self {
            Self::Fanfare => &Fanfare,
            Self::Centrifugo => &centrifugo::Centrifugo,
            Self::CentrifugoProtobuf => &centrifugo::CentrifugoProtobuf,
            Self::Nats => &nats::Nats,
            Self::Nchan => &nchan::Nchan,
            Self::Pusher => &pusher::Pusher,
            Self::Socketio => &socketio::SocketIo,
            Self::Ws => &ws::Ws,
            Self::Floor => &floor::Floor,
        }
    }
}

/// An adapter.
pub(crate) trait Protocol: fmt::Debug + Sync {
    /// What a client asks for in its handshake.
    fn endpoint(&self, channels: &[&str]) -> Endpoint;

    /// Leads the opening of a connection: called once before anything was heard, with no bytes, and then for each
    /// frame that arrives, until `greeting` is ready. An error is the server's refusal, in its words.
    fn greet(&self, greeting: &mut Greeting<'_>, heard: &[u8]) -> Result<(), String>;

    /// Whether this frame may hold more than one publication, or a publication and something else.
    fn gathers(&self, frame: &[u8]) -> bool;

    /// What else a frame says, when it holds no publication or [`gathers`](Self::gathers).
    fn aside(&self, frame: &[u8]) -> Aside;

    /// Appends a publication of `data`, which is a JSON string, as a client sends it in a frame.
    fn publish(&self, channel: &str, data: &str, output: &mut Vec<u8>);

    /// How publications reach the server when the command line does not say.
    fn posts(&self) -> Option<Post> {
        None
    }

    /// Whether what a client says goes in binary messages.
    fn is_binary(&self) -> bool {
        false
    }

    /// Whether a client hears that it is subscribed. Where it does not, the generator waits a moment instead.
    fn acknowledges(&self) -> bool {
        true
    }

    /// Channels that a publisher has to be in to publish there.
    fn publishes_as_subscriber(&self) -> bool {
        false
    }
}

/// What a handshake asks for.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    /// Replaces the path of the URL.
    pub(crate) path: Option<String>,
    /// Offered in `Sec-WebSocket-Protocol`.
    pub(crate) subprotocol: Option<&'static str>,
}

/// The opening of a connection, so far.
#[derive(Debug)]
pub(crate) struct Greeting<'a> {
    /// What to subscribe to.
    pub(crate) channels: &'a [&'a str],
    /// How many steps the adapter has taken: its own to count.
    pub(crate) step: usize,
    /// Frames to send.
    pub(crate) say: Vec<String>,
    /// The name of the node, where the server tells it.
    pub(crate) node: Option<String>,
    /// Open and subscribed.
    pub(crate) ready: bool,
}

impl<'a> Greeting<'a> {
    /// Before anything was said.
    pub(crate) fn new(channels: &'a [&'a str]) -> Self {
        Self { channels, step: 0, say: Vec::new(), node: None, ready: false }
    }

    /// Says one thing and goes on to the next step.
    fn then_say(&mut self, text: impl Into<String>) {
        self.say.push(text.into());
        self.step += 1;
    }
}

/// What a frame means that is no publication.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// Nothing that matters to a load.
    Nothing,
    /// The server wants to hear this.
    Answer(&'static str),
    /// Something that should not have happened.
    Trouble(String),
    /// Not the protocol.
    Nonsense(String),
}

/// Publishing by HTTP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Post {
    /// Path and body of the request that publishes.
    pub(crate) request: fn(channel: &str, data: &str) -> (String, String),
    /// How many requests may wait for their answers on the one connection.
    pub(crate) pipelined: usize,
}

/// Whether `part` is somewhere in `frame`.
fn contains(frame: &[u8], part: &str) -> bool {
    memchr::memmem::find(frame, part.as_bytes()).is_some()
}

/// The beginning of a frame, for people.
fn excerpt(frame: &[u8]) -> String {
    String::from_utf8_lossy(&frame[..frame.len().min(120)]).into_owned()
}
