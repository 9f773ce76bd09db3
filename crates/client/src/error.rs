//! What can go wrong.

use std::fmt;
use std::time::Duration;

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No URL of a WebSocket.
    #[error("the URL has to be like ws://127.0.0.1:8000/ws or wss://example.com/ws, not {0:?}")]
    Url(String),
    /// A queue without a place.
    #[error("a subscription's queue needs at least one place")]
    Queue,
    /// No way to connect.
    #[error("at least one transport is needed")]
    Transports,
}

/// Why something that was asked for did not happen, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server says no. Nothing was done, but for 4503, whose text says whether that is known.
    #[error("refused with {code} {reason}: {text}")]
    Refused {
        /// A code of the protocol's table, 4400 to 4599.
        code: u16,
        /// The code's stable word.
        reason: String,
        /// For people.
        text: String,
        /// How long to wait before it is worth another try, where waiting helps.
        retry_after: Option<Duration>,
    },
    /// The connection was lost before the answer: it may have been done. A publication with a key does not end so.
    #[error("the connection was lost before the answer")]
    Unknown,
    /// There was no answer within [`Options::timeout`](crate::Options::timeout). It may have been done.
    #[error("there was no answer in time")]
    Timeout,
    /// More is waiting for an answer than is allowed: 1,024 calls.
    #[error("too much waits for an answer already")]
    Busy,
    /// The server takes no message of so many bytes.
    #[error("the command has {bytes} bytes, and the server takes {bytes_max}")]
    TooLarge {
        /// How many it would be.
        bytes: usize,
        /// How many it may be.
        bytes_max: usize,
    },
    /// It cannot be written as JSON.
    #[error("the data cannot be written as JSON: {0}")]
    Data(String),
    /// This client has a subscription of that channel.
    #[error("this client is subscribed to {0} already")]
    Subscribed(String),
    /// The client has ended for good.
    #[error("the client has ended: {0}")]
    Ended(Ending),
}

/// Why a client ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The close code, or the HTTP status of the refused upgrade. None where the client itself was dropped or stopped.
    pub code: Option<u16>,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} ({code})", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}
