//! The golden conversations of this dialect; see the [theatre](crate::dialect::theatre).

use crate::dialect::Encoding;
use crate::dialect::theatre::{Spelling, check, replay, transcripts};

#[test]
fn every_transcript_is_what_is_said() {
    let spelling = Spelling::Text(Encoding::Pusher);
    check(&transcripts("pusher/transcripts"), |written| (replay(written, spelling), written.to_owned()));
}
