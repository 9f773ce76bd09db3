//! The one table of why a connection ends, with the advice that goes with each reason.

/// Why a connection ended, as its Close frame says it (RFC 6455 section 7.4; 4000 + HTTP status for our own).
///
/// The numbers and words are those of the native dialect, of logs and of counters. Some reasons share theirs: other dialects
/// tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// Either side is done.
    Normal,
    /// The node is draining or shutting down.
    GoingAway,
    /// The peer violated RFC 6455.
    ProtocolError,
    /// A binary frame on a text-only dialect.
    UnsupportedData,
    /// Text that is not UTF-8.
    InvalidPayload,
    /// A message over `limits.message_bytes`.
    MessageTooBig,
    /// A bug of ours.
    Internal,
    /// The node is over its capacity.
    TryAgainLater,
    /// More than `limits.max_errors` bad requests, or one where the dialect has no gentler answer.
    BadRequest,
    /// The same for what this node does not offer.
    NotOffered,
    /// It has not said what it speaks, where that has to be said.
    Unsaid,
    /// A bad token, or none where one was needed.
    Unauthorized,
    /// The client has not said in time who it is.
    Late,
    /// The token was good until now.
    Expired,
    /// Disconnected by the application for good.
    Forbidden,
    /// What it has come for is not here.
    NotFound,
    /// No answer to a heartbeat in time.
    HeartbeatTimeout,
    /// Its user has too many connections.
    LimitReached,
    /// Over the rate for longer than the grace.
    RateLimited,
    /// Its queue went over `limits.queue_bytes`.
    SlowConsumer,
}

/// What a client does after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Nothing: trying again would end the same way.
    No,
    /// Come back, after the time the server names.
    Yes,
    /// Come back, but with another token.
    WithNewToken,
}

impl CloseReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidPayload,
        Self::MessageTooBig,
        Self::Internal,
        Self::TryAgainLater,
        Self::BadRequest,
        Self::NotOffered,
        Self::Unsaid,
        Self::Unauthorized,
        Self::Late,
        Self::Expired,
        Self::Forbidden,
        Self::NotFound,
        Self::HeartbeatTimeout,
        Self::LimitReached,
        Self::RateLimited,
        Self::SlowConsumer,
    ];

    /// The code of the Close frame.
    pub const fn number(self) -> u16 {
        self.row().0
    }

    /// The stable word for programs.
    pub const fn slug(self) -> &'static str {
        self.row().1
    }

    /// What the client should do next.
    pub const fn reconnect(self) -> Reconnect {
        self.row().2
    }

    /// The sentence for people.
    pub const fn explanation(self) -> &'static str {
        self.row().3
    }

    /// The first reason with this number, if the table has it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }

    const fn row(self) -> (u16, &'static str, Reconnect, &'static str) {
        use Reconnect::{No, WithNewToken, Yes};
        match self {
            Self::Normal => (1000, "normal", No, "done"),
            Self::GoingAway => (1001, "going_away", Yes, "this node is shutting down"),
            Self::ProtocolError => (1002, "protocol_error", No, "a frame violated RFC 6455"),
            Self::UnsupportedData => {
                (1003, "unsupported_data", No, "JSON is spoken in text frames, MessagePack in binary ones")
            }
            Self::InvalidPayload => (1007, "invalid_payload", No, "a text message must be valid UTF-8"),
            Self::MessageTooBig => {
                (1009, "message_too_big", No, "a message was larger than limits.message_bytes")
            }
            Self::Internal => (1011, "internal", Yes, "the server made a mistake"),
            Self::TryAgainLater => (1013, "try_again_later", Yes, "this node is over its capacity"),
            Self::BadRequest | Self::NotOffered | Self::Unsaid => {
                (4400, "bad_request", No, "too many bad requests")
            }
            Self::Unauthorized | Self::Late | Self::Expired => {
                (4401, "unauthorized", WithNewToken, "a valid token is needed")
            }
            Self::Forbidden | Self::NotFound => (4403, "forbidden", No, "disconnected by the application"),
            Self::HeartbeatTimeout => (4408, "heartbeat_timeout", Yes, "no pong in time"),
            Self::LimitReached => (4422, "limit_reached", Yes, "this user has too many connections"),
            Self::RateLimited => (4429, "rate_limited", Yes, "over the rate for too long"),
            Self::SlowConsumer => (4508, "slow_consumer", Yes, "messages were not read fast enough"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_reasons_that_are_told_in_the_same_words() {
        assert!(CloseReason::ALL.is_sorted_by_key(|reason| reason.number()));
        for reason in CloseReason::ALL {
            let named = CloseReason::from_number(reason.number()).unwrap();
            assert_eq!(named.row(), reason.row());
            let sharing = CloseReason::ALL.into_iter().filter(|it| it.number() == reason.number());
            let expected = match reason.slug() {
                "unauthorized" | "bad_request" => 3,
                "forbidden" => 2,
                _ => 1,
            };
            assert_eq!(sharing.count(), expected, "{reason:?}");
        }
        assert_eq!(CloseReason::from_number(1006), None);
    }

    #[test]
    fn a_reason_fits_a_control_frame() {
        for reason in CloseReason::ALL {
            assert!(reason.slug().len() <= 123, "RFC 6455 5.5: control frames carry at most 125 bytes");
        }
    }
}
