//! Which trace something belongs to, as W3C Trace Context says it (`traceparent`): what goes with a publication from its publisher
//! to whoever delivers it.

use std::fmt;

/// A place in a trace: its name, the step that comes before, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace. Never zero.
    pub trace: TraceId,
    /// The step under which others come. Never zero.
    pub span: SpanId,
    /// Whether whoever began the trace records it.
    pub is_sampled: bool,
}

/// Names a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(u128);

/// Names a step of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(u64);

impl TraceContext {
    /// The bytes of one between nodes.
    pub const BYTES: usize = 25;

    /// Reads the value of a header `traceparent`; `None` for what the specification has readers ignore.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version = hex::<2>(parts.next()?)?;
        let trace = TraceId::new(hex::<32>(parts.next()?)?)?;
        let span = SpanId::new(u64::try_from(hex::<16>(parts.next()?)?).ok()?)?;
        let flags = hex::<2>(parts.next()?)?;
        // Later versions may say more behind it; the first may not, and 255 is none.
        let is_known = version != 0xff && (version != 0 || parts.next().is_none());
        is_known.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }

    /// As it goes between nodes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.trace.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span.0.to_be_bytes());
        bytes[24] = u8::from(self.is_sampled);
        bytes
    }

    /// Reads what [`TraceContext::to_bytes`] wrote; `None` for what it never writes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk::<16>()?;
        let (span, flags) = rest.split_first_chunk::<8>()?;
        let (trace, span) = (u128::from_be_bytes(*trace), u64::from_be_bytes(*span));
        Some(Self { trace: TraceId::new(trace)?, span: SpanId::new(span)?, is_sampled: flags[0] & 1 == 1 })
    }

    /// The same trace, one step further.
    #[must_use]
    pub const fn under(self, span: SpanId) -> Self {
        Self { span, ..self }
    }
}

/// So many hexadecimal digits in lower case, and nothing else.
fn hex<const DIGITS: usize>(text: &str) -> Option<u128> {
    let is_hex = text.len() == DIGITS && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl TraceId {
    /// Takes a number that the shell drew; `None` for zero, which names nothing.
    pub const fn new(number: u128) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number again.
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl SpanId {
    /// Takes a number that the shell drew; `None` for zero, which names nothing.
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number again.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// As `traceparent` spells it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let span = "00f067aa0ba902b7";
        for (text, is_read) in [
            (format!("00-{TRACE}-{span}-01"), true),
            (format!(" 00-{TRACE}-{span}-00 "), true),
            (format!("cc-{TRACE}-{span}-01-what-the-future-says"), true),
            (format!("00-{TRACE}-{span}-01-more"), false),
            (format!("ff-{TRACE}-{span}-01"), false),
            (format!("00-{}-{span}-01", TRACE.to_uppercase()), false),
            (format!("00-{}-{span}-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
            (format!("00-{TRACE}-{span}"), false),
            (format!("00-{TRACE}+{span}-01"), false),
            (format!("00-+{}-{span}-01", &TRACE[1..]), false),
            (String::new(), false),
        ] {
            assert_eq!(TraceContext::parse(&text).is_some(), is_read, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., is_sampled: bool) {
            let context = TraceContext {
                trace: TraceId::new(trace).unwrap(), span: SpanId::new(span).unwrap(), is_sampled,
            };
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
            prop_assert_eq!(TraceContext::from_bytes(context.to_bytes()), Some(context));
        }

        #[test]
        fn hostile_bytes_do_no_harm(bytes: [u8; 25], text in ".{0,80}") {
            let _ = (TraceContext::from_bytes(bytes), TraceContext::parse(&text));
        }
    }
}
