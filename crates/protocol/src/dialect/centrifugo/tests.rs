//! The golden conversations, and what no conversation has.

use crate::dialect::Encoding;
use crate::dialect::theatre::{Spelling, check, replay, transcripts};

#[test]
fn every_transcript_is_what_is_said() {
    let spelling = Spelling::Text(Encoding::CentrifugoJson);
    check(&transcripts("centrifugo/transcripts"), |written| (replay(written, spelling), written.to_owned()));
}
