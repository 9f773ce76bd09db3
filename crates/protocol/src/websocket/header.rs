//! A frame header from a client, judged by everything that can be judged without knowing what came before it.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control as ControlCode, Data as DataCode, OpCode};

use super::{CONTROL_BYTES_MAX, Violation};

/// The longest header a client can send: two bytes, a length of eight, a mask of four.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The next fragment of a message.
    Continuation,
    /// The first fragment of a message.
    Start(Kind, Packing),
    /// A frame between messages or between their fragments.
    Control(Control),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is.
    Plain,
    /// Through permessage-deflate.
    Deflated,
}

/// What a control frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Close,
    Ping,
    Pong,
}

/// What RSV1 means on a connection: nothing, or by permessage-deflate that a message is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rsv1 {
    Forbidden,
    Compressed,
}

/// A header that is right by itself. A control frame's is final, and its payload at most [`CONTROL_BYTES_MAX`] long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) op: Op,
    pub(super) is_final: bool,
    pub(super) mask: [u8; 4],
    /// As announced; nothing has been reserved for it.
    pub(super) payload_bytes: u64,
}

/// Reads the header at the start of `bytes` and says how many bytes it takes; `None` when it has not all arrived.
pub(super) fn parse(bytes: &[u8], rsv1: Rsv1) -> Result<Option<(Header, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    let (wire, payload_bytes) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        // Reading from a slice cannot fail: what is left is an op code that tungstenite does not know.
        Err(_) => return Err(Violation::ReservedOpCode(bytes[0] & 0x0f)),
    };
    let header_bytes = usize::try_from(cursor.position()).expect("a position inside a slice");
    let op = with_reserved_bits(op(wire.opcode)?, &wire, rsv1)?;
    let Some(mask) = wire.mask else { return Err(Violation::Unmasked) };
    if payload_bytes >> 63 != 0 {
        return Err(Violation::LengthOver63Bits(payload_bytes));
    }
    if header_bytes != wire.len(payload_bytes) {
        return Err(Violation::LengthNotMinimal(payload_bytes));
    }
    if let Op::Control(_) = op {
        if !wire.is_final {
            return Err(Violation::ControlFragmented);
        }
        if payload_bytes > CONTROL_BYTES_MAX as u64 {
            return Err(Violation::ControlTooLong(payload_bytes));
        }
    }
    let header = Header { op, is_final: wire.is_final, mask, payload_bytes };
    Ok(Some((header, header_bytes)))
}

/// The reserved bits belong to extensions. The only one there is uses the first, on the first frame of a message, and
/// nowhere else (RFC 7692, 6.1).
fn with_reserved_bits(op: Op, wire: &FrameHeader, rsv1: Rsv1) -> Result<Op, Violation> {
    let bits = u8::from(wire.rsv1) << 2 | u8::from(wire.rsv2) << 1 | u8::from(wire.rsv3);
    match (bits, op, rsv1) {
        (0, _, _) => Ok(op),
        (0b100, Op::Start(kind, _), Rsv1::Compressed) => Ok(Op::Start(kind, Packing::Deflated)),
        _ => Err(Violation::ReservedBits(bits)),
    }
}

fn op(code: OpCode) -> Result<Op, Violation> {
    match code {
        OpCode::Data(DataCode::Continue) => Ok(Op::Continuation),
        OpCode::Data(DataCode::Text) => Ok(Op::Start(Kind::Text, Packing::Plain)),
        OpCode::Data(DataCode::Binary) => Ok(Op::Start(Kind::Binary, Packing::Plain)),
        OpCode::Control(ControlCode::Close) => Ok(Op::Control(Control::Close)),
        OpCode::Control(ControlCode::Ping) => Ok(Op::Control(Control::Ping)),
        OpCode::Control(ControlCode::Pong) => Ok(Op::Control(Control::Pong)),
        OpCode::Data(DataCode::Reserved(code)) | OpCode::Control(ControlCode::Reserved(code)) => {
            Err(Violation::ReservedOpCode(code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(bytes: &[u8]) -> Result<Option<Header>, Violation> {
        parse(bytes, Rsv1::Forbidden).map(|parsed| parsed.map(|(header, _)| header))
    }

    #[test]
    fn headers_by_the_table() {
        use Violation::*;
        let table: [(&[u8], Violation); 21] = [
            (b"\xc1\x80\0\0\0\0", ReservedBits(0b100)),
            (b"\xa1\x80\0\0\0\0", ReservedBits(0b010)),
            (b"\x99\x80\0\0\0\0", ReservedBits(0b001)),
            (b"\xf0\x80\0\0\0\0", ReservedBits(0b111)),
            (b"\x83\x80\0\0\0\0", ReservedOpCode(3)),
            (b"\x87\x80\0\0\0\0", ReservedOpCode(7)),
            (b"\x8b\x80\0\0\0\0", ReservedOpCode(11)),
            (b"\x8f\x80\0\0\0\0", ReservedOpCode(15)),
            (b"\x81\x00", Unmasked),
            (b"\x81\x05hello", Unmasked),
            (b"\x88\x00", Unmasked),
            (b"\x82\xfe\x00\x00\0\0\0\0", LengthNotMinimal(0)),
            (b"\x82\xfe\x00\x7d\0\0\0\0", LengthNotMinimal(125)),
            (b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", LengthNotMinimal(65_535)),
            (b"\x89\xfe\x00\x7d\0\0\0\0", LengthNotMinimal(125)),
            (b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", LengthOver63Bits(1 << 63)),
            (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", LengthOver63Bits(u64::MAX)),
            (b"\x09\x80\0\0\0\0", ControlFragmented),
            (b"\x08\x82\0\0\0\0\x03\xe8", ControlFragmented),
            (b"\x89\xfe\x00\x7e\0\0\0\0", ControlTooLong(126)),
            (b"\x88\xff\0\0\0\0\0\x01\0\0\0\0\0\0", ControlTooLong(65_536)),
        ];
        for (bytes, violation) in table {
            assert_eq!(judge(bytes), Err(violation), "{bytes:x?}");
        }
    }

    #[test]
    fn a_header_is_read_whatever_follows_and_only_when_it_is_whole() {
        let mask = [1, 2, 3, 4];
        let table: [(&[u8], Header); 4] = [
            (
                b"\x81\x80\x01\x02\x03\x04",
                Header { op: Op::Start(Kind::Text, Packing::Plain), is_final: true, mask, payload_bytes: 0 },
            ),
            (
                b"\x00\xfd\x01\x02\x03\x04",
                Header { op: Op::Continuation, is_final: false, mask, payload_bytes: 125 },
            ),
            (
                b"\x02\xfe\xff\xff\x01\x02\x03\x04",
                Header {
                    op: Op::Start(Kind::Binary, Packing::Plain),
                    is_final: false,
                    mask,
                    payload_bytes: 65_535,
                },
            ),
            (
                b"\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04",
                Header { op: Op::Continuation, is_final: true, mask, payload_bytes: u64::MAX >> 1 },
            ),
        ];
        for (bytes, header) in table {
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end], Rsv1::Forbidden), Ok(None), "{end} bytes of {bytes:x?}");
            }
            let whole = Ok(Some((header, bytes.len())));
            assert_eq!(parse(bytes, Rsv1::Forbidden), whole);
            assert_eq!(parse(bytes, Rsv1::Compressed), whole);
            assert_eq!(parse(&[bytes, b"\xff\xff"].concat(), Rsv1::Forbidden), whole);
        }
    }

    #[test]
    fn rsv1_begins_a_compressed_message_where_that_was_agreed() {
        let table: [(&[u8], Result<bool, Violation>); 8] = [
            (b"\xc1\x80\0\0\0\0", Ok(true)),
            (b"\x42\x80\0\0\0\0", Ok(true)),
            (b"\x81\x80\0\0\0\0", Ok(false)),
            (b"\xc0\x80\0\0\0\0", Err(Violation::ReservedBits(0b100))),
            (b"\xc9\x80\0\0\0\0", Err(Violation::ReservedBits(0b100))),
            (b"\xc8\x80\0\0\0\0", Err(Violation::ReservedBits(0b100))),
            (b"\xe1\x80\0\0\0\0", Err(Violation::ReservedBits(0b110))),
            (b"\xa1\x80\0\0\0\0", Err(Violation::ReservedBits(0b010))),
        ];
        for (bytes, expected) in table {
            let parsed = parse(bytes, Rsv1::Compressed);
            let is_deflated = |op| matches!(op, Op::Start(_, Packing::Deflated));
            let verdict = parsed.map(|parsed| is_deflated(parsed.expect("a whole header").0.op));
            assert_eq!(verdict, expected, "{bytes:x?}");
        }
    }
}
