//! Every bound that a session enforces.

use std::time::Duration;

use crate::error::{ErrorCode, Failure};
use crate::publication::Draft;

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

/// The most users of whom one client is told whether they are there.
pub const ACQUAINTANCES_MAX: usize = 100;

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

impl Limits {
    /// Whether a subscriber who has read everything before can be sent this. A value may grow when it is translated to the
    /// format of who hears it; what would fill a queue alone would disconnect every such subscriber.
    ///
    /// # Errors
    /// 4413, with both sizes.
    pub fn check(&self, draft: &Draft) -> Result<(), Failure> {
        if draft.bytes_at_worst() <= self.queue_bytes {
            return Ok(());
        }
        let (bytes, most) = (draft.bytes_at_most(), self.queue_bytes);
        if bytes <= most {
            return Ok(());
        }
        let text = format!(
            "`data` has {} bytes and may come to {bytes} for a subscriber of the other format; at most {most} wait for one",
            draft.payload.as_bytes().len()
        );
        Err(Failure::new(ErrorCode::TooLarge, text))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::id::UserId;
    use crate::publication::{Payload, Publication, Sender};
    use crate::time::UnixMicros;
    use crate::{Encoding, Position};

    fn draft(payload: Payload, sender: Option<Box<Sender>>) -> Draft {
        let channel = Channel::parse(&"\"".repeat(255)).unwrap();
        Draft {
            channel,
            payload,
            sender,
            exclude: None,
            received: UnixMicros(0),
            retention: None,
            key: None,
            trace: None,
        }
    }

    /// The worst there is in either format: empty bins, empty exts, long numbers in few characters, and a user to escape.
    fn growing() -> Vec<Draft> {
        let bins = [&[0xdc, 0x10, 0][..], &b"\xc4\0".repeat(4096)].concat();
        let exts = [&[0xdc, 0x10, 0][..], &b"\xd4\0\0".repeat(4096)].concat();
        let floats = [&[0xdc, 0x10, 0][..], &b"\xca\x0e\x9b\xc0\x0b".repeat(4096)].concat();
        let packed = |value: &[u8]| Payload::parse_msgpack(value).unwrap();
        let numbers = Payload::parse(&format!("[{}-0]", "-0,".repeat(4000))).unwrap();
        let sender = |profile: Option<Payload>| {
            let session = Some(crate::SessionId::from_random([0xff; 16]));
            let user = Some(UserId::new(&"\u{1}".repeat(255)));
            Some(Box::new(Sender { user, note: profile.clone(), profile, session }))
        };
        vec![
            draft(packed(&bins), None),
            draft(packed(&exts), None),
            draft(packed(&floats), sender(Some(packed(&bins)))),
            draft(numbers.clone(), sender(Some(numbers))),
        ]
    }

    #[test]
    fn nothing_is_longer_than_what_it_is_checked_for() {
        let position = Some(Position { epoch: crate::Epoch(u64::MAX), offset: crate::Offset(u64::MAX) });
        for draft in growing() {
            let (most, worst) = (draft.bytes_at_most(), draft.bytes_at_worst());
            let publication = Publication::new(draft, position);
            for encoding in Encoding::ALL {
                let bytes = publication.encoded(encoding).len().max(publication.replayed(encoding).len());
                assert!(bytes <= most && most <= worst, "{bytes} <= {most} <= {worst}");
            }
        }
    }

    #[test]
    fn what_would_fill_a_queue_alone_is_refused() {
        for draft in growing() {
            let bytes = draft.bytes_at_most();
            for (queue_bytes, fits) in [(bytes - 1, false), (bytes, true), (bytes + 1, true)] {
                let outcome = Limits { queue_bytes, ..Limits::default() }.check(&draft);
                assert_eq!(
                    outcome.map_err(|failure| failure.code),
                    if fits { Ok(()) } else { Err(ErrorCode::TooLarge) }
                );
            }
        }
    }
}
