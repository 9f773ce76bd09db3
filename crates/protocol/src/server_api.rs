//! What a backend may ask of the gateway, whatever the flavour of its API.

use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::Start;
use crate::event::Crowd;
use crate::grant::{Amendment, Pass, Pattern};
use crate::history::Page;
use crate::id::{SessionId, UserId};
use crate::publication::{IdempotencyKey, Payload, Position};

mod cluster;

pub use cluster::{CONNECTIONS_MAX, Filter, NodeFacts, Particulars, Roll};

/// Of whom a call speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A user, by all of its connections.
    User(UserId),
    /// One connection.
    Session(SessionId),
    /// Whoever holds the token of this name (`jti`).
    Token(Box<str>),
    /// Some of the connections of a user, or of nobody in particular.
    Among(Box<Among>),
}

/// Connections for which all of this is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Among {
    /// They are this user's.
    pub user: Option<UserId>,
    /// It is this one.
    pub session: Option<SessionId>,
    /// Its client speaks by the ticket with this secret.
    pub secret: Option<u128>,
    /// It is none of these.
    pub except: Vec<SessionId>,
}

impl Among {
    /// Whether a connection of this session may be meant, whosever it is.
    pub fn names(&self, session: SessionId) -> bool {
        self.session.is_none_or(|it| it == session) && !self.except.contains(&session)
    }
}

/// One call of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// Publish on one channel.
    Publish {
        /// Where.
        channel: Channel,
        /// What.
        payload: Payload,
        /// What makes it the same publication when it is sent again.
        key: Option<IdempotencyKey>,
        /// The session that is not to hear it.
        exclude: Option<SessionId>,
    },
    /// Read a part of a channel's past.
    History {
        /// Which.
        channel: Channel,
        /// Where the page begins.
        since: Option<Position>,
        /// The most publications to answer with.
        limit: usize,
        /// The newest first.
        reverse: bool,
    },
    /// Ask who is subscribed to a channel.
    Presence {
        /// Which.
        channel: Channel,
        /// Whether to name them, or only to count.
        members: bool,
    },
    /// List the channels that anybody is subscribed to, as far as it is known who is.
    Channels {
        /// Those that this names.
        within: Pattern,
    },
    /// Close the connections of a user, or one of them.
    Disconnect {
        /// Whose.
        whom: Whom,
        /// What they are told.
        reason: CloseReason,
    },
    /// Take no tokens any more that were issued so far, and close what they have opened.
    Revoke {
        /// Of a user, or the one token of a name.
        whom: Whom,
        /// For how long: until the last of them has expired anyway.
        ttl: Duration,
    },
    /// Have the connections of a user, or one of them, last for longer or shorter than their tokens say.
    Refresh {
        /// Whose.
        whom: Whom,
        /// What is changed.
        amendment: Amendment,
    },
    /// Have the connections of a user, or one of them, hear a channel.
    Subscribe {
        /// Whose.
        whom: Whom,
        /// What.
        channel: Channel,
        /// From where.
        start: Start,
        /// On which terms.
        pass: Pass,
    },
    /// Have them hear it no longer.
    Unsubscribe {
        /// Whose.
        whom: Whom,
        /// What.
        channel: Channel,
    },
    /// List connections of all nodes.
    Connections {
        /// Which.
        filter: Filter,
        /// Where the page before has ended.
        after: Option<Box<str>>,
        /// The most of them, up to [`CONNECTIONS_MAX`].
        limit: usize,
    },
    /// List the nodes that are alive.
    Nodes,
    /// Have the application do what clients may ask of it, for the caller itself.
    Call {
        /// What to do, in the application's words.
        method: Box<str>,
        /// With what.
        payload: Payload,
    },
    /// Forget a channel's past.
    RemoveHistory {
        /// Which.
        channel: Channel,
    },
}

/// What a call that succeeded answers.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiReply {
    /// The broker has taken the publication.
    Published {
        /// Where.
        channel: Channel,
        /// Its place, on a channel with history.
        position: Option<Position>,
    },
    /// A part of a channel's past.
    Past {
        /// Which channel's.
        channel: Channel,
        /// What was found.
        page: Page,
    },
    /// Who is subscribed to a channel.
    Present {
        /// Which channel.
        channel: Channel,
        /// Whom it was found to have.
        crowd: Arc<Crowd>,
    },
    /// Channels that somebody is subscribed to.
    Channels {
        /// Each with its crowd, of which nobody is named.
        channels: Vec<(Channel, Arc<Crowd>)>,
    },
    /// Connections.
    Connections(Roll),
    /// Nodes, by name.
    Nodes(Vec<NodeFacts>),
    /// What came of a call.
    Returned {
        /// What the application says.
        payload: Payload,
    },
    /// Done, and there is nothing more to say.
    Done,
}
