//! Frames as bytes: what a server sends is scanned in place, what a client sends is written masked.
//!
//! Only what load needs: whole, unfragmented, uncompressed frames, which is all that a gateway of JSON events
//! sends. Anything else ends the connection with a [`WireError`], so that it shows as a failure of the run.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest frame taken from a server, in bytes: far above any that a run asks for.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame that the generator does not take.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// RFC 6455 is violated.
    #[error("malformed frame header")]
    Header(#[source] Box<tungstenite::Error>),
    /// A server must not mask.
    #[error("the server masked a frame")]
    Masked,
    /// Legal, but no gateway of small events does it.
    #[error("a fragmented frame: the generator reads whole messages only")]
    Fragmented,
    /// Compression was not negotiated.
    #[error("a frame with reserved bits, though no extension was negotiated")]
    Reserved,
    /// See [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes")]
    TooLong(u64),
}

/// What stands at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned<'a> {
    /// A whole frame and how many bytes it took.
    Frame { opcode: OpCode, payload: &'a [u8], bytes: usize },
    /// Not yet a whole one.
    Partial,
}

/// Looks at the frame at the start of `bytes`.
pub(crate) fn scan(bytes: &[u8]) -> Result<Scanned<'_>, WireError> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|error| WireError::Header(Box::new(error)))?;
    let Some((header, length)) = parsed else { return Ok(Scanned::Partial) };
    if header.mask.is_some() {
        return Err(WireError::Masked);
    }
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(WireError::Reserved);
    }
    if !header.is_final {
        return Err(WireError::Fragmented);
    }
    let start = cursor.position() as usize;
    let length = match usize::try_from(length) {
        Ok(length) if length <= FRAME_BYTES_MAX => length,
        _ => return Err(WireError::TooLong(length)),
    };
    Ok(match bytes.get(start..start + length) {
        Some(payload) => Scanned::Frame { opcode: header.opcode, payload, bytes: start + length },
        None => Scanned::Partial,
    })
}

/// Appends a client's text frame.
pub(crate) fn write_text(text: &[u8], output: &mut Vec<u8>) {
    write_frame(OpCode::Data(Data::Text), text, output);
}

/// Appends a client's binary frame.
pub(crate) fn write_binary(payload: &[u8], output: &mut Vec<u8>) {
    write_frame(OpCode::Data(Data::Binary), payload, output);
}

/// Appends the answer to a ping.
pub(crate) fn write_pong(payload: &[u8], output: &mut Vec<u8>) {
    write_frame(OpCode::Control(Control::Pong), payload, output);
}

fn write_frame(opcode: OpCode, payload: &[u8], output: &mut Vec<u8>) {
    let mask = fastrand::u32(..).to_ne_bytes();
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    header.format(payload.len() as u64, output).expect("a Vec takes everything");
    output.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: OpCode = OpCode::Data(Data::Text);

    #[test]
    fn frames_of_every_length_class_are_taken_whole_and_only_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            FrameHeader { opcode: TEXT, ..FrameHeader::default() }.format(length as u64, &mut bytes).unwrap();
            bytes.extend(&payload);
            let whole = bytes.len();
            assert!(matches!(scan(&bytes[..whole - 1]).unwrap(), Scanned::Partial));
            assert!(matches!(scan(&bytes[..1]).unwrap(), Scanned::Partial));
            bytes.extend(b"\x81\x00");
            assert_eq!(
                scan(&bytes).unwrap(),
                Scanned::Frame { opcode: TEXT, payload: &payload, bytes: whole }
            );
        }
    }

    #[test]
    fn what_is_not_a_plain_server_frame_is_refused() {
        assert!(matches!(scan(b"\x81\x81....x"), Err(WireError::Masked)));
        assert!(matches!(scan(b"\x01\x01x"), Err(WireError::Fragmented)));
        assert!(matches!(scan(b"\xc1\x01x"), Err(WireError::Reserved)));
        assert!(matches!(scan(b"\x83\x01x"), Err(WireError::Header(_))));
        assert!(matches!(scan(b"\x82\x7f\x00\x00\xff\xff\xff\xff\xff\xff"), Err(WireError::TooLong(_))));
    }

    #[test]
    fn what_a_client_writes_is_masked_and_reads_back() {
        let mut bytes = Vec::new();
        write_text(b"hello, world", &mut bytes);
        assert!(matches!(scan(&bytes), Err(WireError::Masked)));
        let (mask, masked) = bytes[2..].split_at(4);
        let text: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(text, b"hello, world");
    }
}
