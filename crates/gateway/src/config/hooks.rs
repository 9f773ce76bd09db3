//! What a backend is asked, and how.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::choice::OnFailure;
use super::merge::Merged;
use super::secret::Secret;

/// Headers that speak of one hop, or of the body that they came with, or that the gateway sets itself.
const NEVER_FORWARDED: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "fanfare-signature",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a backend is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Where it is asked who a client is.
    pub connect: Option<String>,
    /// Where it is asked whether clients are still welcome.
    pub refresh: Option<String>,
    /// Where clients may call it.
    pub call: Option<String>,
    /// What signs the questions.
    pub secret: Option<Secret>,
    /// The headers of a client's request that it is shown, in lower case.
    pub headers: Vec<String>,
    /// Time for an answer.
    pub timeout: Duration,
    /// Questions under way, of each URL.
    pub concurrency: NonZeroUsize,
    /// Questions that wait for one of them to end.
    pub queue: usize,
    /// What holds while there is no answer.
    pub on_failure: OnFailure,
}

impl Hooks {
    pub(super) fn of(merged: &Merged) -> Self {
        let whole =
            |path| usize::try_from(merged.whole(path).expect("the key has a default")).unwrap_or(usize::MAX);
        Self {
            connect: merged.text("hooks.connect"),
            refresh: merged.text("hooks.refresh"),
            call: merged.text("hooks.call"),
            secret: merged.text("hooks.secret").map(Secret::new),
            headers: merged.list("hooks.headers").iter().map(|it| it.to_ascii_lowercase()).collect(),
            timeout: Duration::from_millis(whole("hooks.timeout_ms") as u64),
            concurrency: NonZeroUsize::new(whole("hooks.concurrency")).expect("bounded from below by 1"),
            queue: whole("hooks.queue"),
            on_failure: OnFailure::of(&merged.text("hooks.on_failure").expect("the key has a default")),
        }
    }
}

/// Whether this is the name of a header that may be shown to a backend.
pub(super) fn is_forwardable(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_name =
        !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    is_name && !name.starts_with("sec-websocket-") && !NEVER_FORWARDED.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_speak_of_a_hop_are_not_forwarded() {
        for good in ["Cookie", "X-Tenant", "authorization", "user-agent"] {
            assert!(is_forwardable(good), "{good}");
        }
        for bad in
            ["Host", "content-length", "Sec-WebSocket-Key", "Fanfare-Signature", "", "a b", "a:b", "TE"]
        {
            assert!(!is_forwardable(bad), "{bad}");
        }
    }
}
