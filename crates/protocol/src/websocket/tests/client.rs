//! A client in the tests' hands: frames encoded and masked by tungstenite, and what our decoder hears of them.

use tungstenite::protocol::frame::coding::{Control, Data};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::websocket::{Decoder, Event, Input, Violation};

pub(super) use tungstenite::protocol::frame::coding::OpCode;

pub(super) const CONTINUATION: OpCode = OpCode::Data(Data::Continue);
pub(super) const TEXT: OpCode = OpCode::Data(Data::Text);
pub(super) const BINARY: OpCode = OpCode::Data(Data::Binary);
pub(super) const PING: OpCode = OpCode::Control(Control::Ping);
pub(super) const PONG: OpCode = OpCode::Control(Control::Pong);
pub(super) const CLOSE: OpCode = OpCode::Control(Control::Close);

const MASK: [u8; 4] = [0xa1, 0x00, 0x5c, 0xff];

/// An event that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

/// A frame from a client.
pub(super) fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    masked_frame(opcode, is_final, payload, MASK)
}

pub(super) fn masked_frame(opcode: OpCode, is_final: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).expect("memory is enough");
    bytes
}

/// A Close with a code, allowed or not.
pub(super) fn closing(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, true, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A header whose payload is not sent, or is sent as it is: its mask is zero.
pub(super) fn header(opcode: OpCode, is_final: bool, payload_bytes: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = FrameHeader { opcode, is_final, mask: Some([0; 4]), ..FrameHeader::default() };
    header.format(payload_bytes, &mut bytes).expect("memory is enough");
    bytes
}

/// What a new decoder hears of `stream`, read in pieces that end at each of `cuts` and at the end.
pub(super) fn hear(stream: &[u8], cuts: &[usize], bytes_max: usize) -> (Vec<Heard>, Option<Violation>) {
    let mut decoder = Decoder::new(bytes_max);
    let mut heard = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        let mut piece = stream[start..end].to_vec();
        let mut input = Input::new(&mut piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => heard.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (heard, Some(violation)),
            }
        }
        assert!(input.is_empty(), "a decoder takes all it is given");
        start = end;
    }
    (heard, None)
}

/// Cuts `stream` in two at every place, and between all bytes, and expects the same of all.
pub(super) fn hear_cut_everywhere(
    stream: &[u8],
    bytes_max: usize,
    expected: &(Vec<Heard>, Option<Violation>),
) {
    let everywhere: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(&hear(stream, &everywhere, bytes_max), expected, "byte by byte: {stream:x?}");
    for cut in everywhere {
        assert_eq!(&hear(stream, &[cut], bytes_max), expected, "cut at {cut}: {stream:x?}");
    }
}
