//! The golden conversations of this dialect; see the [theatre](crate::dialect::theatre).

use super::version;
use crate::close::CloseReason;
use crate::dialect::Encoding;
use crate::dialect::theatre::{Spelling, check, replay, transcripts};

#[test]
fn every_transcript_is_what_is_said() {
    let spelling = Spelling::Text(Encoding::Pusher);
    check(&transcripts("pusher/transcripts"), |written| (replay(written, spelling), written.to_owned()));
}

#[test]
fn a_version_is_said_by_the_query_or_by_a_subprotocol() {
    let (other, unsaid) = (Err(CloseReason::NotOffered), Err(CloseReason::Unsaid));
    for (query, subprotocols, expected) in [
        ("protocol=7", &[][..], Ok(())),
        ("client=js&version=8.6.0&protocol=7&flash=false", &[], Ok(())),
        ("protocol=6", &[], other),
        ("protocol=77", &[], other),
        ("protocol=", &[], other),
        ("", &[], unsaid),
        ("client=js&version=7", &[], unsaid),
        ("a_protocol=7", &[], unsaid),
        ("", &["pusher-channels-protocol-7"], Ok(())),
        ("client=swift", &["pusher-channels-protocol-8", "pusher-channels-protocol-7"], Ok(())),
        ("", &["pusher-channels-protocol-5"], other),
        ("", &["fanfare.v1.json"], unsaid),
        ("protocol=7", &["pusher-channels-protocol-5"], Ok(())),
        ("protocol=6", &["pusher-channels-protocol-7"], other),
    ] {
        assert_eq!(version(query, subprotocols.iter().copied()), expected, "{query} {subprotocols:?}");
    }
}
