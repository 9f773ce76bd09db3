//! Every way in which a client can break RFC 6455, with the close code that says so.

use super::CONTROL_BYTES_MAX;
use super::assembly::EMPTY_FRAGMENTS_MAX;

/// Why the decoder gave up on a connection.
///
/// The text says what was wrong and what would be right. It names nothing that the peer could choose but numbers, and
/// is at most 123 bytes long, so that it can be sent as the reason of the Close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// One of the three reserved bits is set.
    #[error("reserved bits {0:03b} are set: no extension was agreed, so they must be 000")]
    ReservedBits(u8),
    /// An op code that RFC 6455 keeps for later.
    #[error("op code {0:#x} is reserved: 0x0 to 0x2 and 0x8 to 0xa are known")]
    ReservedOpCode(u8),
    /// A frame without a mask.
    #[error("the frame is not masked: a client must mask every frame")]
    Unmasked,
    /// A payload length written in more bytes than it needs.
    #[error("a length of {0} was sent in a longer form than it needs: the shortest must be used")]
    LengthNotMinimal(u64),
    /// A payload length with its most significant bit set.
    #[error("a length of {0:#x} has its first bit set: that bit must be 0")]
    LengthOver63Bits(u64),
    /// A Ping, Pong or Close without the FIN bit.
    #[error("a control frame is fragmented: it must be final")]
    ControlFragmented,
    /// A Ping, Pong or Close of more than [`CONTROL_BYTES_MAX`] bytes.
    #[error("a control frame of {0} bytes: at most {max} are allowed", max = CONTROL_BYTES_MAX)]
    ControlTooLong(u64),
    /// A continuation of nothing.
    #[error("a continuation frame, but no fragmented message is under way: start with text or binary")]
    NothingToContinue,
    /// A new message before the fragmented one has ended.
    #[error("a new message inside a fragmented one: continuation frames must finish that first")]
    Unfinished,
    /// Text that is not UTF-8.
    #[error("byte {at} of a text message cannot be part of valid UTF-8: send binary, or encode it")]
    TextNotUtf8 {
        /// Where the first character that is not valid starts, in bytes from the start of the message.
        at: u32,
    },
    /// A message over the bound.
    #[error("a message of at least {bytes} bytes: at most {bytes_max} are accepted")]
    TooBig {
        /// What was announced, in bytes, together with the fragments already received.
        bytes: u64,
        /// What is accepted, in bytes.
        bytes_max: u32,
    },
    /// A compressed message over the bound once inflated, or compressed so badly that it is far over it as it came.
    #[error(
        "a compressed message of more than {bytes_max} bytes: at most that many are accepted, once inflated"
    )]
    InflatedTooBig {
        /// What is accepted, in bytes.
        bytes_max: u32,
    },
    /// A compressed message that is no DEFLATE data, or not all of it.
    #[error("a compressed message is not DEFLATE data that ends with it, as RFC 7692 section 7.2 has it")]
    NotDeflate,
    /// A message in too many fragments that carry nothing.
    #[error("a message with more than {max} empty fragments: let each carry something", max = EMPTY_FRAGMENTS_MAX)]
    TooManyEmptyFragments,
    /// A Close whose payload is a single byte.
    #[error("a close frame with a payload of 1 byte: none, or a code of 2 bytes and a reason")]
    CloseTooShort,
    /// A Close with a code that must not be sent.
    #[error("close code {0} must not be sent: use 1000-1003, 1007-1014 or 3000-4999")]
    CloseCode(u16),
    /// A Close whose reason is not UTF-8.
    #[error("the reason in a close frame is not UTF-8: it must be")]
    CloseReasonNotUtf8,
}

impl Violation {
    /// The code of the Close to send: 1002 (protocol error), 1007 (not UTF-8) or 1009 (too big to process).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::ReservedBits(_)
            | Self::ReservedOpCode(_)
            | Self::Unmasked
            | Self::LengthNotMinimal(_)
            | Self::LengthOver63Bits(_)
            | Self::ControlFragmented
            | Self::ControlTooLong(_)
            | Self::NothingToContinue
            | Self::Unfinished
            | Self::CloseTooShort
            | Self::CloseCode(_)
            | Self::NotDeflate => 1002,
            Self::TextNotUtf8 { .. } | Self::CloseReasonNotUtf8 => 1007,
            Self::TooBig { .. } | Self::InflatedTooBig { .. } | Self::TooManyEmptyFragments => 1009,
        }
    }

    /// Text whose first `valid_bytes` bytes are valid, and not the character after them.
    pub(super) fn text_not_utf8(valid_bytes: usize) -> Self {
        Self::TextNotUtf8 { at: u32::try_from(valid_bytes).expect("a message's size fits 32 bits") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_fits_into_a_close_frame() {
        let longest = [
            Violation::ReservedBits(7),
            Violation::ReservedOpCode(15),
            Violation::Unmasked,
            Violation::LengthNotMinimal(u64::MAX),
            Violation::LengthOver63Bits(u64::MAX),
            Violation::ControlFragmented,
            Violation::ControlTooLong(u64::MAX),
            Violation::NothingToContinue,
            Violation::Unfinished,
            Violation::TextNotUtf8 { at: u32::MAX },
            Violation::TooBig { bytes: u64::MAX, bytes_max: u32::MAX },
            Violation::InflatedTooBig { bytes_max: u32::MAX },
            Violation::NotDeflate,
            Violation::TooManyEmptyFragments,
            Violation::CloseTooShort,
            Violation::CloseCode(u16::MAX),
            Violation::CloseReasonNotUtf8,
        ];
        for violation in longest {
            let text = violation.to_string();
            assert!(text.len() <= CONTROL_BYTES_MAX - 2, "{} bytes: {text}", text.len());
        }
    }
}
