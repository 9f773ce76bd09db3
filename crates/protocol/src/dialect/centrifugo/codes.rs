//! Its numbers: of errors in replies, of subscriptions that end, and of connections that do.
//!
//! A client comes back after codes below 3500, and after those from 4000 to 4499; it subscribes again after 2500 and above.

use crate::close::CloseReason;
use crate::error::ErrorCode;

/// The number and the words of a refused command, and whether the same may be granted later.
pub(super) const fn error(code: ErrorCode) -> (u32, &'static str, bool) {
    match code {
        ErrorCode::Unavailable => (100, "internal server error", true),
        ErrorCode::Unauthorized => (101, "unauthorized", false),
        ErrorCode::NotFound => (102, "unknown channel", false),
        ErrorCode::Forbidden => (103, "permission denied", false),
        ErrorCode::Conflict => (105, "already subscribed", false),
        ErrorCode::TooLarge | ErrorCode::LimitReached => (106, "limit exceeded", false),
        ErrorCode::BadRequest => (107, "bad request", false),
        ErrorCode::NotOffered => (108, "not available", false),
        ErrorCode::Expired => (109, "token expired", false),
        ErrorCode::RateLimited => (111, "too many requests", true),
        ErrorCode::Gap => (112, "unrecoverable position", false),
    }
}

/// Why the server has ended a subscription.
pub(super) const fn unsubscribed(cause: Option<ErrorCode>) -> (u32, &'static str) {
    match cause {
        Some(ErrorCode::Gap) => (2500, "insufficient state"),
        Some(ErrorCode::Expired) => (2501, "subscription expired"),
        _ => (2000, "server unsubscribe"),
    }
}

/// Why a connection ends. What RFC 6455 has a number for keeps that.
pub(super) const fn disconnect(reason: CloseReason) -> (u16, &'static str) {
    match reason {
        CloseReason::ProtocolError | CloseReason::InvalidPayload | CloseReason::MessageTooBig => {
            (reason.number(), reason.slug())
        }
        CloseReason::Normal => (3000, "connection closed"),
        CloseReason::GoingAway => (3001, "shutdown"),
        CloseReason::Internal | CloseReason::TryAgainLater => (3004, "internal server error"),
        CloseReason::Expired => (3005, "connection expired"),
        CloseReason::SlowConsumer => (3008, "slow"),
        CloseReason::HeartbeatTimeout => (3012, "no pong"),
        CloseReason::RateLimited => (3013, "too many requests"),
        CloseReason::Unauthorized => (3500, "invalid token"),
        CloseReason::BadRequest | CloseReason::Unsaid | CloseReason::UnsupportedData => (3501, "bad request"),
        CloseReason::Late => (3502, "stale"),
        CloseReason::Forbidden => (3503, "force disconnect"),
        CloseReason::LimitReached => (3504, "connection limit"),
        CloseReason::NotOffered | CloseReason::NotFound => (3508, "not available"),
    }
}

/// Whether a client that is sent away with this number comes back.
pub(super) const fn comes_back(number: u16) -> bool {
    !matches!(number, 1009 | 3500..=3999 | 4500..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::Reconnect;

    /// Its clients go by the number alone.
    #[test]
    fn the_advice_of_a_reason_is_that_of_its_number() {
        for reason in CloseReason::ALL {
            let (number, words) = disconnect(reason);
            assert!(words.len() <= 123, "a Close frame holds them");
            let comes_back = comes_back(number);
            let ought_to = match reason {
                // It has a way to bring another token; who is to stay away is told so by this number and no other.
                CloseReason::Expired => true,
                // It is for the client that is done, and not for this end.
                CloseReason::Normal | CloseReason::ProtocolError | CloseReason::InvalidPayload => continue,
                // Its server thinks of such a limit as of one that does not go away.
                CloseReason::LimitReached => false,
                _ => reason.reconnect() == Reconnect::Yes,
            };
            assert_eq!(comes_back, ought_to, "{reason:?} {number}");
        }
    }

    #[test]
    fn what_may_be_granted_later_is_what_a_client_tries_again() {
        for code in ErrorCode::ALL {
            let (number, _, is_temporary) = error(code);
            assert_eq!(is_temporary, matches!(number, 100 | 111), "{code:?}");
        }
    }
}
