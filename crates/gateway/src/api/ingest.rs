//! Many publications in one request: a line of JSON each, for as long as the caller likes.
//!
//! ```text
//!  body ─► lines ─► judged like `publish` ─► up to 256 under way at the broker ─► counted
//!    └── no more is read while so many are under way: TCP slows the caller down
//! ```
//!
//! Lines are handed to the broker in the order in which they come, and one is not waited for before the next. What is wrong with a line
//! is told by its number at the end, and the others are published. Nothing is answered before the body has ended, so a caller need not
//! read while it writes.
//!
//! **Invariants.** Memory is bounded by what is under way, one line that is not complete, and the failures that are told. Once the
//! broker is away nothing more is read: what was not looked at can be sent again from that line on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode, header};
use bytes::Bytes;
use fanfare_protocol::command::Rejection;
use fanfare_protocol::depth;
use fanfare_protocol::dialect::native;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::server_api::ApiReply;
use fanfare_protocol::session::Policy;
use fanfare_protocol::trace::TraceContext;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::timeout;

use super::{ENVELOPE_BYTES, Rights, bearer, perform_within};
use crate::http::{self, Answer};
use crate::node::Services;

/// The most publications under way.
const UNDER_WAY_MAX: usize = 256;

/// The most failures that are told. Who makes more is not listened to any longer.
const FAILURES_MAX: usize = 1000;

/// How long nothing may come.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Lines that were looked at.
    lines: u64,
    published: u64,
    failed: u64,
    failures: Vec<Failed>,
    /// Why the rest was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Failed {
    line: u64,
    code: u16,
    reason: &'static str,
    message: Box<str>,
}

/// Answers one request.
pub(super) async fn answer(
    peer: IpAddr,
    request: Request<Incoming>,
    within: Option<TraceContext>,
    services: &Arc<Services>,
) -> Answer {
    let settings = services.settings();
    let rights = match settings.api_keys.authorise(peer, bearer(request.headers())) {
        Ok(rights) => rights,
        Err(failure) => return http::failure(&failure),
    };
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let text = "lines come as they are, without Content-Encoding";
        return http::failure(&Failure::new(ErrorCode::BadRequest, text));
    }
    let (summary, status) = ingest(request.into_body(), &rights, (&settings.policy, within), services).await;
    http::json(status, serde_json::to_vec(&summary).expect("plain fields are JSON"))
}

async fn ingest(
    mut body: Incoming,
    rights: &Rights,
    (policy, within): (&Policy, Option<TraceContext>),
    services: &Services,
) -> (Summary, StatusCode) {
    let mut lines = Lines::new(policy.limits.message_bytes + ENVELOPE_BYTES);
    let mut summary = Summary { kind: "ingested", ..Summary::default() };
    let mut under_way = FuturesOrdered::new();
    let mut status = StatusCode::OK;
    let mut is_over = false;
    while !is_over && status == StatusCode::OK {
        if services.readiness.is_draining() {
            summary.stopped = Some("the node is draining: send the rest to another");
            status = StatusCode::SERVICE_UNAVAILABLE;
            break;
        }
        let piece = tokio::select! {
            biased;
            Some((number, outcome)) = under_way.next() => {
                status = summary.count(number, outcome);
                continue;
            }
            frame = timeout(IDLE_MAX, body.frame()) => match frame {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(_))) => {
                    status = StatusCode::BAD_REQUEST; // Nobody is there to be told.
                    break;
                }
                Ok(None) => {
                    is_over = true;
                    Bytes::from_static(b"\n")
                }
                Err(_) => {
                    summary.stopped = Some("nothing has come for a minute");
                    status = StatusCode::BAD_REQUEST;
                    break;
                }
            },
        };
        lines.feed(&piece);
        while let Some((number, line)) = lines.next() {
            while under_way.len() >= UNDER_WAY_MAX {
                if let Some((number, outcome)) = under_way.next().await {
                    status = status.max(summary.count(number, outcome));
                }
            }
            if status != StatusCode::OK {
                break;
            }
            summary.lines += 1;
            under_way
                .push_back(async move { (number, publish(line, rights, (policy, within), services).await) });
        }
    }
    while let Some((number, outcome)) = under_way.next().await {
        status = status.max(summary.count(number, outcome));
    }
    (summary, status)
}

async fn publish(
    line: Result<Vec<u8>, Failure>,
    rights: &Rights,
    (policy, within): (&Policy, Option<TraceContext>),
    services: &Services,
) -> Result<(), Failure> {
    let line = line?;
    if depth::json_exceeds(&line, policy.limits.depth) {
        return Err(Rejection::too_deep(policy.limits.depth).failure);
    }
    let call = native::api::decode("publish", &line)?;
    rights.check(&call)?;
    perform_within(within, call, policy, services).await.map(|_: ApiReply| ())
}

impl Summary {
    /// Takes in what came of a line; whether the next is looked at.
    fn count(&mut self, line: u64, outcome: Result<(), Failure>) -> StatusCode {
        let Err(failure) = outcome else {
            self.published += 1;
            return StatusCode::OK;
        };
        self.failed += 1;
        let (code, reason) = (failure.number(), failure.code.slug());
        let is_away = failure.code == ErrorCode::Unavailable;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failed { line, code, reason, message: failure.explanation });
        }
        if is_away {
            self.stopped =
                Some("the broker is away: send what failed and what is left again, with the same keys");
            StatusCode::SERVICE_UNAVAILABLE
        } else if self.failures.len() == FAILURES_MAX {
            self.stopped = Some("too many lines have failed");
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        }
    }
}

/// Cuts what comes into lines, whatever the pieces it comes in. Empty ones are counted and left out.
#[derive(Debug)]
struct Lines {
    most: usize,
    unread: Vec<u8>,
    /// Up to where there is no end of a line.
    searched: usize,
    /// The rest of this line is not kept: it is too long.
    is_too_long: bool,
    number: u64,
}

impl Lines {
    const fn new(most: usize) -> Self {
        Self { most, unread: Vec::new(), searched: 0, is_too_long: false, number: 0 }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.unread.extend_from_slice(piece);
    }

    /// The next line and its number, from 1 on; what is wrong with it where it is too long.
    fn next(&mut self) -> Option<(u64, Result<Vec<u8>, Failure>)> {
        loop {
            let found = self.unread[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(end) = found.map(|at| self.searched + at) else {
                self.searched = self.unread.len();
                if self.searched > self.most {
                    self.is_too_long = true;
                    (self.unread, self.searched) = (Vec::new(), 0);
                }
                return None;
            };
            let mut line: Vec<u8> = self.unread.drain(..=end).collect();
            line.pop();
            self.searched = 0;
            self.number += 1;
            if std::mem::take(&mut self.is_too_long) || line.len() > self.most {
                let text =
                    format!("the line is over {} bytes: data may have limits.message_bytes", self.most);
                return Some((self.number, Err(Failure::new(ErrorCode::TooLarge, text))));
            }
            if !line.trim_ascii().is_empty() {
                return Some((self.number, Ok(line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<(u64, Option<String>)> {
        std::iter::from_fn(|| lines.next())
            .map(|(number, line)| (number, line.ok().map(|line| String::from_utf8(line).unwrap())))
            .collect()
    }

    proptest! {
        /// However it comes in pieces, the same lines are found, and no more is kept than one of them may have, and a piece.
        #[test]
        fn lines_are_the_same_in_whatever_pieces(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(1..7_usize, 60)) {
            let mut whole = Lines::new(5);
            whole.feed(text.as_bytes());
            whole.feed(b"\n");
            let expected = all(&mut whole);
            let (mut lines, mut found, mut rest) = (Lines::new(5), Vec::new(), text.as_bytes());
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                lines.feed(piece);
                found.extend(all(&mut lines));
                prop_assert!(lines.unread.len() <= 5);
                rest = later;
            }
            lines.feed(b"\n");
            found.extend(all(&mut lines));
            prop_assert_eq!(&found, &expected);
            let by_hand = text.split('\n').enumerate().filter(|(_, line)| !line.is_empty());
            let by_hand: Vec<_> = by_hand
                .map(|(at, line)| (at as u64 + 1, (line.len() <= 5).then(|| line.to_owned())))
                .collect();
            prop_assert_eq!(expected, by_hand);
        }
    }
}
