//! What a backend may ask of the gateway, whatever the flavour of its API.

use crate::channel::Channel;
use crate::publication::{Payload, Position};

/// One call of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// Publish on one channel.
    Publish {
        /// Where.
        channel: Channel,
        /// What.
        payload: Payload,
    },
}

/// What a call that succeeded answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiReply {
    /// The broker has taken the publication.
    Published {
        /// Where.
        channel: Channel,
        /// Its place, on a channel with history.
        position: Option<Position>,
    },
}
