//! Frames from the server: encoded once, then shared by every socket that gets them.

use std::fmt;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{self, Shape, Window};
use super::{CONTROL_BYTES_MAX, close};

/// The bit of a compressed message's first byte.
const RSV1: u8 = 0x40;

/// The longest header a server sends: two bytes and a length of eight; there is no mask.
const HEADER_BYTES_MAX: usize = 10;

/// The longest reason a Close carries, in bytes: a control payload without the code.
const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Which message a frame built by [`Frame::build`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A text message; its payload must be UTF-8.
    Text,
    /// A binary message.
    Binary,
}

/// A whole, final frame from the server: header and payload in one piece of shared memory.
///
/// Servers do not mask, so the bytes are the same for every peer. Cloning counts a reference and copies nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
}

impl Frame {
    /// A text message.
    #[must_use]
    pub fn text(payload: &str) -> Self {
        Self::build(FrameKind::Text, payload.len(), |out| out.extend_from_slice(payload.as_bytes()))
    }

    /// A binary message.
    #[must_use]
    pub fn binary(payload: &[u8]) -> Self {
        Self::build(FrameKind::Binary, payload.len(), |out| out.extend_from_slice(payload))
    }

    /// A message whose payload `write` appends to a buffer that already has room for the header in front, so that an
    /// encoder's output is never copied. `payload_bytes` is an estimate: a better one saves memory or a reallocation.
    ///
    /// `write` only appends, and appends UTF-8 to a [`FrameKind::Text`].
    ///
    /// ```
    /// use std::io::Write;
    /// use fanfare_protocol::websocket::{Frame, FrameKind};
    ///
    /// let frame = Frame::build(FrameKind::Text, 16, |out| write!(out, "{{\"n\":{}}}", 41).expect("memory is enough"));
    /// assert_eq!(frame.payload(), br#"{"n":41}"#);
    /// assert_eq!(frame.bytes()[..2], [0x81, 8]);
    /// ```
    ///
    /// # Panics
    ///
    /// When `write` removed what it did not write. In builds with debug assertions also when text is not UTF-8.
    #[must_use]
    pub fn build(kind: FrameKind, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let code = match kind {
            FrameKind::Text => OpCode::Data(Data::Text),
            FrameKind::Binary => OpCode::Data(Data::Binary),
        };
        let frame = Self::encode(code, payload_bytes, write);
        debug_assert!(kind == FrameKind::Binary || str::from_utf8(frame.payload()).is_ok(), "text is UTF-8");
        frame
    }

    /// A Ping.
    ///
    /// # Panics
    ///
    /// When the payload is over [`CONTROL_BYTES_MAX`] bytes.
    #[must_use]
    pub fn ping(payload: &[u8]) -> Self {
        Self::control(Control::Ping, payload)
    }

    /// A Pong, with the payload of the Ping that it answers.
    ///
    /// # Panics
    ///
    /// When the payload is over [`CONTROL_BYTES_MAX`] bytes, which that of a Ping from the decoder never is.
    #[must_use]
    pub fn pong(payload: &[u8]) -> Self {
        Self::control(Control::Pong, payload)
    }

    /// A Close with a code, and a reason that is cut between two characters if it is over 123 bytes.
    ///
    /// # Panics
    ///
    /// When `code` is one that RFC 6455 forbids to send, such as 1006.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        assert!(close::may_be_sent(code), "close code {code} must not be sent");
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        Self::encode(OpCode::Control(Control::Close), 2 + reason.len(), |out| {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(reason.as_bytes());
        })
    }

    /// A Close that says nothing: the answer to one that said nothing.
    #[must_use]
    pub fn close_without_code() -> Self {
        Self { bytes: Bytes::from_static(&[0x88, 0]) }
    }

    /// The whole frame, as it goes to a socket.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The frame without its header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[header_bytes(&self.bytes)..]
    }

    /// The length in bytes of the whole frame, at least 2.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame has a header, so none is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back the bytes of a whole frame that was built here.
    ///
    /// # Panics
    ///
    /// When they are shorter than a header.
    #[must_use]
    pub fn from_wire(bytes: Bytes) -> Self {
        assert!(bytes.len() >= header_bytes(&bytes), "a frame has a header");
        Self { bytes }
    }

    /// Its message compressed in this shape, for everybody who agreed to it; `None` when it goes as it is: it is a control
    /// frame, or below the threshold, or would not be shorter.
    #[must_use]
    pub fn deflated(&self, shape: Shape) -> Option<Self> {
        deflate::deflate(self, shape, None)
    }

    /// The same for one peer whose messages refer to those before them; it joins them if it is compressed.
    #[must_use]
    pub fn deflated_after(&self, shape: Shape, window: &mut Window) -> Option<Self> {
        deflate::deflate(self, shape, Some(window))
    }

    /// Whether it is a message that is not compressed.
    pub(super) fn is_plain_message(&self) -> bool {
        let first = self.bytes[0];
        first & RSV1 == 0 && matches!(first & 0x0f, 1 | 2)
    }

    /// The frame of the same message with the payload that `write` appends, marked as compressed.
    pub(super) fn deflated_by(&self, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let code = OpCode::from(self.bytes[0] & 0x0f);
        Self::encode_with(
            &FrameHeader { opcode: code, rsv1: true, ..FrameHeader::default() },
            self.payload().len(),
            write,
        )
    }

    fn control(code: Control, payload: &[u8]) -> Self {
        assert!(payload.len() <= CONTROL_BYTES_MAX, "a control frame of {} bytes", payload.len());
        Self::encode(OpCode::Control(code), payload.len(), |out| out.extend_from_slice(payload))
    }

    /// Leaves room for the longest header, has the payload written behind it, and puts the header, whose length is
    /// known only now, right in front of the payload. What is left of the room is sliced off, not moved over.
    fn encode(code: OpCode, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::encode_with(&FrameHeader { opcode: code, ..FrameHeader::default() }, payload_bytes, write)
    }

    fn encode_with(header: &FrameHeader, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + payload_bytes);
        bytes.resize(HEADER_BYTES_MAX, 0);
        write(&mut bytes);
        assert!(bytes.starts_with(&[0; HEADER_BYTES_MAX]), "a frame's writer only appends");
        let payload_bytes = (bytes.len() - HEADER_BYTES_MAX) as u64;
        let header_bytes = header.len(payload_bytes);
        let start = HEADER_BYTES_MAX - header_bytes;
        header
            .format(payload_bytes, &mut &mut bytes[start..HEADER_BYTES_MAX])
            .expect("the slice has its length");
        Self { bytes: Bytes::from(bytes).slice(start..) }
    }
}

/// How long the header of a whole frame that was built here is: its first byte of the length tells.
fn header_bytes(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// What a whole frame of ours says, for transports that carry the same in other wrappings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message: its payload, which shares the frame's memory.
    Message(Bytes),
    /// Are you there?
    Ping,
    /// Yes, I am.
    Pong,
    /// Nothing follows.
    Close,
}

impl Said {
    /// Reads the bytes of a whole frame that was built here: unmasked, uncompressed, and in one piece.
    ///
    /// # Panics
    ///
    /// When they are not.
    #[must_use]
    pub fn by(frame: &Bytes) -> Self {
        let header_bytes = match frame[1] {
            126 => 4,
            127 => HEADER_BYTES_MAX,
            _ => 2,
        };
        match OpCode::from(frame[0] & 0x0f) {
            OpCode::Data(_) => Self::Message(frame.slice(header_bytes..)),
            OpCode::Control(Control::Ping) => Self::Ping,
            OpCode::Control(Control::Pong) => Self::Pong,
            OpCode::Control(_) => Self::Close,
        }
    }
}

/// The whole frame, as it goes to a socket.
impl From<Frame> for Bytes {
    fn from(frame: Frame) -> Self {
        frame.bytes
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = &self.bytes[0];
        f.debug_struct("Frame")
            .field("op_code", &(first & 0x0f))
            .field("payload_bytes", &self.payload().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Reads a frame back with tungstenite: what it is, its payload, and that nothing else is there.
    fn read_back(frame: &Frame) -> (OpCode, Vec<u8>) {
        let mut cursor = Cursor::new(frame.bytes());
        let (header, payload_bytes) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert_eq!(
            header,
            FrameHeader { opcode: header.opcode, ..FrameHeader::default() },
            "final, bare, unmasked"
        );
        let payload = &frame.bytes()[cursor.position() as usize..];
        assert_eq!(payload_bytes, payload.len() as u64);
        assert_eq!(payload, frame.payload());
        assert_eq!(frame.len(), frame.bytes().len());
        (header.opcode, payload.to_vec())
    }

    #[test]
    fn messages_are_read_back_around_every_change_of_header() {
        for len in [0, 1, 124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537, 100_000] {
            let payload: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
            let text = str::from_utf8(&payload).unwrap();
            assert_eq!(read_back(&Frame::text(text)), (OpCode::Data(Data::Text), payload.clone()));
            assert_eq!(read_back(&Frame::binary(&payload)), (OpCode::Data(Data::Binary), payload.clone()));
            for estimate in [0, len, len + 100] {
                let built = Frame::build(FrameKind::Binary, estimate, |out| out.extend_from_slice(&payload));
                assert_eq!(read_back(&built), (OpCode::Data(Data::Binary), payload.clone()));
            }
        }
    }

    #[test]
    fn control_frames_are_read_back() {
        for len in [0, 1, 125] {
            let payload = vec![0xfe; len];
            assert_eq!(read_back(&Frame::ping(&payload)), (OpCode::Control(Control::Ping), payload.clone()));
            assert_eq!(read_back(&Frame::pong(&payload)), (OpCode::Control(Control::Pong), payload));
        }
        let close = OpCode::Control(Control::Close);
        assert_eq!(read_back(&Frame::close(1000, "")), (close, b"\x03\xe8".to_vec()));
        assert_eq!(read_back(&Frame::close(4508, "slow")), (close, b"\x11\x9cslow".to_vec()));
        assert_eq!(read_back(&Frame::close_without_code()), (close, Vec::new()));
    }

    #[test]
    fn what_a_frame_says_is_told_without_its_header() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = "x".repeat(len);
            for frame in [Frame::text(&payload), Frame::binary(payload.as_bytes())] {
                let Said::Message(said) = Said::by(frame.bytes()) else { panic!("{frame:?}") };
                assert_eq!(said, payload.as_bytes());
                assert_eq!(said.as_ptr(), frame.payload().as_ptr(), "shared");
            }
        }
        assert_eq!(Said::by(Frame::ping(b"a").bytes()), Said::Ping);
        assert_eq!(Said::by(Frame::pong(b"a").bytes()), Said::Pong);
        assert_eq!(Said::by(Frame::close(1001, "gone").bytes()), Said::Close);
        assert_eq!(Said::by(Frame::close_without_code().bytes()), Said::Close);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let (_, payload) = read_back(&Frame::close(1001, &"x".repeat(200)));
        assert_eq!(payload.len(), 125);
        let (_, payload) = read_back(&Frame::close(1001, &"ä".repeat(100)));
        assert_eq!(close::parse(&payload), Ok(Some((1001, "ä".repeat(61).as_str()))));
    }

    #[test]
    fn clones_share_their_bytes() {
        let frame = Frame::text("once");
        assert_eq!(frame.bytes().as_ptr(), frame.clone().bytes().as_ptr());
    }

    #[test]
    #[should_panic(expected = "must not be sent")]
    fn a_close_code_that_is_never_sent_is_our_bug() {
        let _ = Frame::close(1006, "");
    }

    #[test]
    #[should_panic(expected = "only appends")]
    fn a_writer_that_clears_the_room_is_our_bug() {
        let _ = Frame::build(FrameKind::Text, 0, |out| {
            out.clear();
            out.extend_from_slice(b"longer than a header");
        });
    }
}
