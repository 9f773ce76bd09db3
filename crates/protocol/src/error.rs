//! The one table of what can go wrong with a command while the connection lives on.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Why a command was refused. Numbers are 4000 + the HTTP status that means the same. Some codes share theirs: other dialects
/// than the native one tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// Not the agreed syntax, a field missing or of the wrong type, a bad channel name.
    BadRequest,
    /// A token was refused.
    Unauthorized,
    /// A token was good once.
    Expired,
    /// Not allowed on this channel.
    Forbidden,
    /// Unknown command, unknown namespace, or not subscribed.
    NotFound,
    /// Known, but not offered here: no history is kept, presence is off.
    NotOffered,
    /// Already subscribed.
    Conflict,
    /// The position in the stream is lost: reload, then resubscribe.
    Gap,
    /// The data exceeds the namespace's bound.
    TooLarge,
    /// Too many channels on one connection.
    LimitReached,
    /// Too many commands: this one was dropped.
    RateLimited,
    /// The broker is away: nothing was published.
    Unavailable,
}

impl ErrorCode {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Expired,
        Self::Forbidden,
        Self::NotFound,
        Self::NotOffered,
        Self::Conflict,
        Self::Gap,
        Self::TooLarge,
        Self::LimitReached,
        Self::RateLimited,
        Self::Unavailable,
    ];

    /// The number on the wire: 4000 + [`Self::http_status`].
    pub const fn number(self) -> u16 {
        4000 + self.http_status()
    }

    /// The HTTP status with the same meaning, which the server API answers with.
    pub const fn http_status(self) -> u16 {
        self.row().0
    }

    /// The stable word for programs.
    pub const fn slug(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "bad_request"),
            Self::Unauthorized | Self::Expired => (401, "unauthorized"),
            Self::Forbidden => (403, "forbidden"),
            Self::NotFound | Self::NotOffered => (404, "not_found"),
            Self::Conflict => (409, "conflict"),
            Self::Gap => (410, "gap"),
            Self::TooLarge => (413, "too_large"),
            Self::LimitReached => (422, "limit_reached"),
            Self::RateLimited => (429, "rate_limited"),
            Self::Unavailable => (503, "unavailable"),
        }
    }
}

/// The numbers that an application may give to its own refusals: none of them will ever be in the table.
pub const APPLICATION_NUMBERS: RangeInclusive<u16> = 4600..=4999;

/// A refusal in full: the code, the sentence for people, and whether waiting helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// What was wrong and what would be right, in one sentence.
    pub explanation: Box<str>,
    /// Try again after this long.
    pub retry_after: Option<Duration>,
    /// What the application calls it, where it was the application that refused; one of [`APPLICATION_NUMBERS`].
    pub application: Option<NonZeroU16>,
}

impl Failure {
    /// A refusal that waiting does not mend.
    pub fn new(code: ErrorCode, explanation: impl Into<Box<str>>) -> Self {
        Self { code, explanation: explanation.into(), retry_after: None, application: None }
    }

    /// A refusal that may be gone after `retry_after`.
    pub fn retry(code: ErrorCode, explanation: impl Into<Box<str>>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(code, explanation) }
    }

    /// The number that the client is told: the application's own, or that of the table.
    pub fn number(&self) -> u16 {
        self.application.map_or(self.code.number(), NonZeroU16::get)
    }

    /// More publications of one client than a namespace takes.
    pub fn too_many_publications(per_second: NonZeroU32, retry_after: Duration) -> Self {
        let text = format!("at most {per_second} publications a second of one client are taken here");
        Self::retry(ErrorCode::RateLimited, text, retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_share_a_number_share_its_word() {
        assert!(ErrorCode::ALL.is_sorted_by_key(|code| code.number()), "ALL is in the order of the numbers");
        for code in ErrorCode::ALL {
            let sharing = ErrorCode::ALL.into_iter().filter(|it| it.number() == code.number());
            let is_shared = matches!(code.slug(), "unauthorized" | "not_found");
            assert_eq!(sharing.clone().count(), if is_shared { 2 } else { 1 }, "{code:?}");
            assert!(sharing.into_iter().all(|it| it.slug() == code.slug()));
        }
    }
}
