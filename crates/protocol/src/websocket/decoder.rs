//! The decoder: one step at a time through headers and payloads, however the reads cut them.

use std::fmt;
use std::ops::Range;

use super::assembly::{Assembly, Body, SplitControl};
use super::deflate::deflated_bytes_max;
use super::header::{self, Control, HEADER_BYTES_MAX, Header, Kind, Op, Packing, Rsv1};
use super::input::Finished;
use super::{Event, Input, Violation, close, mask};

/// The greatest bound under which whatever a message may have compressed fits 32 bits.
const MESSAGE_BYTES_INFLATED_MAX: usize = 1 << 31;

/// The receiving half of a server's connection. See the [module](super) for what it promises.
///
/// ```
/// use fanfare_protocol::websocket::{Decoder, Event, Input};
///
/// let mut decoder = Decoder::new(65_536);
/// let mut read = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; // "Hello", as RFC 6455 has it
/// let mut input = Input::new(&mut read);
/// assert_eq!(decoder.next(&mut input), Ok(Some(Event::Text("Hello"))));
/// assert_eq!(decoder.next(&mut input), Ok(None));
/// assert!(decoder.is_idle());
/// ```
pub struct Decoder {
    step: Step,
    /// The message under way, from its first received byte (or its first whole fragment) to its last. Boxed, as is the
    /// control frame, because most decoders at most times have neither.
    assembly: Option<Box<Assembly>>,
    /// The control frame under way, from its first received byte to its last.
    control: Option<Box<SplitControl>>,
    /// Every message accepted is at most this long, so that all sizes of what is accepted fit 32 bits.
    message_bytes_max: u32,
    rsv1: Rsv1,
}

/// Where in the stream of frames the decoder stands.
enum Step {
    /// Between two frames, or inside the header of the next.
    Header(PartialHeader),
    /// Inside a payload, which may be empty.
    Payload(Payload),
    /// After a Close: the peer may say no more (RFC 6455, 5.5.1).
    Closed,
    /// After a violation, which is told to whoever asks again.
    Failed(Violation),
}

/// The start of a header that a read cut; empty between frames.
#[derive(Clone, Copy)]
struct PartialHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

/// The frame whose payload is being received.
#[derive(Clone, Copy)]
struct Payload {
    op: Op,
    is_final: bool,
    /// As it applies to the next byte.
    mask: [u8; 4],
    /// What has not arrived yet, in bytes.
    missing: u32,
}

/// Something complete. It carries no borrow, so that `next` can build the event from the input alone.
enum Complete {
    /// A whole frame in the input, unmasked.
    Message(Kind, Range<usize>),
    /// The same, still to be inflated.
    Compressed(Kind, Range<usize>),
    Control(Control, Range<usize>),
    /// What was put together from pieces.
    Assembled(Finished),
}

impl Decoder {
    /// A decoder at the start of a connection, which accepts messages of up to `message_bytes_max` bytes (4 GiB - 1 at
    /// most, whatever is asked for).
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            step: Step::Header(PartialHeader::EMPTY),
            assembly: None,
            control: None,
            message_bytes_max: u32::try_from(message_bytes_max).unwrap_or(u32::MAX),
            rsv1: Rsv1::Forbidden,
        }
    }

    /// The same where permessage-deflate was agreed on: every input must be one that inflates. The bound is on messages as
    /// they come out of the inflater; as they come in they may be an eighth longer.
    #[must_use]
    pub fn inflating(message_bytes_max: usize) -> Self {
        // What comes in must fit 32 bits as well.
        Self { rsv1: Rsv1::Compressed, ..Self::new(message_bytes_max.min(MESSAGE_BYTES_INFLATED_MAX)) }
    }

    /// The next complete message or control frame, or `None` when the input is used up.
    ///
    /// After a Close the rest of every input is dropped unread: the answer is `None` for ever.
    ///
    /// # Errors
    ///
    /// The first violation of RFC 6455, or of the bound on messages. The decoder stays failed: it repeats the
    /// violation whatever it is fed.
    pub fn next<'a>(&mut self, input: &'a mut Input<'_>) -> Result<Option<Event<'a>>, Violation> {
        input.finished = None;
        let event = match self.advance(input) {
            Ok(None) => return Ok(None),
            Ok(Some(complete)) => present(complete, input, self.message_bytes_max),
            Err(violation) => Err(violation),
        };
        match event {
            Ok(Event::Close(_)) => self.end(Step::Closed),
            Ok(_) => {}
            Err(violation) => self.end(Step::Failed(violation)),
        }
        event.map(Some)
    }

    /// Whether nothing is half received: no header, no payload, no message.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let between_frames = match &self.step {
            Step::Header(partial) => partial.len == 0,
            Step::Payload(_) => false,
            Step::Closed | Step::Failed(_) => true,
        };
        between_frames && self.assembly.is_none()
    }

    /// Steps through headers and payloads until something is complete or the input is used up.
    fn advance(&mut self, input: &mut Input<'_>) -> Result<Option<Complete>, Violation> {
        loop {
            match self.step {
                Step::Header(partial) => {
                    let Some(header) = self.read_header(partial, input)? else { return Ok(None) };
                    self.step = Step::Payload(self.admit(&header)?);
                }
                Step::Payload(payload) => {
                    // Nothing is set up for a payload before its first byte: an announcement alone costs nothing.
                    if input.is_empty() && payload.missing > 0 {
                        return Ok(None);
                    }
                    if let Some(complete) = self.read_payload(payload, input)? {
                        return Ok(Some(complete));
                    }
                }
                Step::Closed => {
                    input.take(usize::MAX);
                    return Ok(None);
                }
                Step::Failed(violation) => return Err(violation),
            }
        }
    }

    /// Reads a header from the input alone, or joins it to the part that came before.
    fn read_header(
        &mut self,
        partial: PartialHeader,
        input: &mut Input<'_>,
    ) -> Result<Option<Header>, Violation> {
        let parsed = if partial.len == 0 {
            header::parse(input.unread(), self.rsv1)?
        } else {
            header::parse(partial.join(input.unread()).bytes(), self.rsv1)?
        };
        if let Some((header, header_bytes)) = parsed {
            input.take(header_bytes - usize::from(partial.len));
            return Ok(Some(header));
        }
        self.step = Step::Header(partial.join(input.unread()));
        input.take(usize::MAX);
        Ok(None)
    }

    /// Judges a header by what came before it, and its size before a byte of the payload is kept.
    fn admit(&self, header: &Header) -> Result<Payload, Violation> {
        let (received, is_compressed) = match (header.op, &self.assembly) {
            (Op::Continuation, None) => return Err(Violation::NothingToContinue),
            (Op::Start(..), Some(_)) => return Err(Violation::Unfinished),
            (Op::Continuation, Some(assembly)) => (assembly.len() as u64, assembly.is_compressed()),
            (Op::Start(_, packing), None) => (0, packing == Packing::Deflated),
            // Outside the message's size, and small by its own rule.
            (Op::Control(_), _) => return Ok(Payload::of(header)),
        };
        let bytes = received.saturating_add(header.payload_bytes);
        let bytes_max = self.message_bytes_max;
        if is_compressed && bytes > deflated_bytes_max(bytes_max) {
            return Err(Violation::InflatedTooBig { bytes_max });
        }
        if !is_compressed && bytes > u64::from(bytes_max) {
            return Err(Violation::TooBig { bytes, bytes_max });
        }
        Ok(Payload::of(header))
    }

    /// Takes what there is of a payload: the whole, borrowed, if nothing came before; otherwise a piece to assemble.
    fn read_payload(
        &mut self,
        payload: Payload,
        input: &mut Input<'_>,
    ) -> Result<Option<Complete>, Violation> {
        let range = input.take(payload.missing as usize);
        mask::apply(input.slice_mut(range.clone()), payload.mask);
        let rest = payload.after(range.len());
        let ends = rest.missing == 0;
        self.step = if ends { Step::Header(PartialHeader::EMPTY) } else { Step::Payload(rest) };
        match payload.op {
            Op::Control(op) if ends && self.control.is_none() => Ok(Some(Complete::Control(op, range))),
            Op::Control(op) => {
                let control = self.control.get_or_insert_with(|| Box::new(SplitControl::new(op)));
                control.push(input.slice(range));
                if !ends {
                    return Ok(None);
                }
                Ok(self.control.take().map(|control| Complete::Assembled(Finished::Control(control))))
            }
            Op::Start(kind, packing) if ends && rest.is_final && self.assembly.is_none() => {
                Ok(Some(match packing {
                    Packing::Plain => Complete::Message(kind, range),
                    Packing::Deflated => Complete::Compressed(kind, range),
                }))
            }
            Op::Start(..) | Op::Continuation => {
                let body = self.assemble(&rest, input.slice(range))?;
                Ok(body.map(|body| Complete::Assembled(Finished::Body(body))))
            }
        }
    }

    /// Adds a piece of the frame of which `rest` is still to come; the whole message if this was its last.
    fn assemble(&mut self, rest: &Payload, piece: &[u8]) -> Result<Option<Body>, Violation> {
        let assembly = match rest.op {
            Op::Start(kind, packing) => {
                self.assembly.get_or_insert_with(|| Box::new(Assembly::new(kind, packing)))
            }
            Op::Continuation | Op::Control(_) => {
                self.assembly.as_mut().expect("continuations are admitted only inside a message")
            }
        };
        let bytes_max = if rest.is_final {
            assembly.len() + piece.len() + rest.missing as usize
        } else if assembly.is_compressed() {
            usize::try_from(deflated_bytes_max(self.message_bytes_max)).unwrap_or(usize::MAX)
        } else {
            self.message_bytes_max as usize
        };
        assembly.push(piece, bytes_max)?;
        if rest.missing > 0 {
            return Ok(None);
        }
        if rest.is_final {
            return self.assembly.take().map(|assembly| assembly.finish()).transpose();
        }
        // A frame with a payload ends with a piece of it.
        if piece.is_empty() {
            assembly.count_empty_fragment()?;
        }
        Ok(None)
    }

    /// The memory held for payloads, in bytes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.capacity())
            + self.control.as_ref().map_or(0, |control| size_of_val(&**control))
    }

    /// Hears nothing more, and lets go of what was half received.
    fn end(&mut self, step: Step) {
        self.step = step;
        self.assembly = None;
        self.control = None;
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("is_idle", &self.is_idle()).finish_non_exhaustive()
    }
}

impl PartialHeader {
    const EMPTY: Self = Self { bytes: [0; HEADER_BYTES_MAX], len: 0 };

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// With as much of `more` as there is room for; no header needs more.
    fn join(mut self, more: &[u8]) -> Self {
        for (place, byte) in self.bytes[usize::from(self.len)..].iter_mut().zip(more) {
            *place = *byte;
            self.len += 1;
        }
        self
    }
}

impl Payload {
    fn of(header: &Header) -> Self {
        let missing = u32::try_from(header.payload_bytes).expect("admitted under a bound of 32 bits");
        let Header { op, is_final, mask, .. } = *header;
        Self { op, is_final, mask, missing }
    }

    /// The same frame, `bytes` later.
    fn after(self, bytes: usize) -> Self {
        let missing = self.missing - u32::try_from(bytes).expect("no more was taken than was missing");
        Self { missing, mask: mask::advance(self.mask, bytes), ..self }
    }
}

/// The event of what is complete, borrowed from the input, which from here on keeps what was assembled or inflated.
fn present<'a>(
    complete: Complete,
    input: &'a mut Input<'_>,
    message_bytes_max: u32,
) -> Result<Event<'a>, Violation> {
    match complete {
        Complete::Message(kind, range) => message(kind, input.slice(range)),
        Complete::Compressed(kind, range) => {
            input.inflate(Some(range), message_bytes_max as usize)?;
            message(kind, input.inflated())
        }
        Complete::Control(op, range) => control_event(op, input.slice(range)),
        Complete::Assembled(finished) => {
            if let Finished::Body(Body::Compressed(kind, _)) = finished {
                input.finished = Some(finished);
                input.inflate(None, message_bytes_max as usize)?;
                return message(kind, input.inflated());
            }
            match input.finished.insert(finished) {
                Finished::Body(Body::Text(text)) => Ok(Event::Text(text)),
                Finished::Body(Body::Binary(bytes) | Body::Compressed(_, bytes)) => Ok(Event::Binary(bytes)),
                Finished::Control(control) => control_event(control.op, control.payload()),
            }
        }
    }
}

fn message(kind: Kind, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match kind {
        Kind::Binary => Ok(Event::Binary(payload)),
        Kind::Text => str::from_utf8(payload)
            .map(Event::Text)
            .map_err(|error| Violation::text_not_utf8(error.valid_up_to())),
    }
}

fn control_event(op: Control, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match op {
        Control::Close => close::parse(payload).map(Event::Close),
        Control::Ping => Ok(Event::Ping(payload)),
        Control::Pong => Ok(Event::Pong(payload)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one of these per connection, and most connections are idle.
    #[test]
    fn a_decoder_is_small() {
        assert!(size_of::<Decoder>() <= 40, "{} bytes", size_of::<Decoder>());
    }
}
