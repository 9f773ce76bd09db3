//! What a publication carries: who sent it, which one it is, and when it left.
//!
//! A stamp is the whole `data` of a publication, a JSON string of fixed-width fields, so that a reader finds
//! it in a frame by comparing four bytes where the last one was and takes it apart without a JSON parser:
//!
//! ```text
//! "ff:0000002a:000000000001:00000000075bcd15:xxxxxxxxxxxx"
//!     stream   sequence     sent, ns         padding up to --payload
//! ```

use std::cell::Cell;

/// Where a stamp begins. No field name or channel of the protocol contains it.
const MARKER: &[u8] = b"\"ff:";
const STREAM: std::ops::Range<usize> = 4..12;
const SEQUENCE: std::ops::Range<usize> = 13..25;
const SENT: std::ops::Range<usize> = 26..42;

/// The shortest `data` that holds a stamp, in bytes, its quotes included.
pub(crate) const STAMP_BYTES_MIN: usize = 44;

/// Identifies one publication and says when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Index of the stream: one publisher in one channel.
    pub(crate) stream: u32,
    /// Counts the stream's publications from 1; below 2^48.
    pub(crate) sequence: u64,
    /// Nanoseconds from the start of the run to the publication.
    pub(crate) sent_nanos: u64,
}

impl Stamp {
    /// Appends the stamp as a JSON string of `payload_bytes` bytes, quotes included.
    ///
    /// # Panics
    /// If `payload_bytes` is below [`STAMP_BYTES_MIN`]: the command line has checked it.
    pub(crate) fn write(&self, payload_bytes: usize, output: &mut String) {
        use std::fmt::Write as _;
        assert!(payload_bytes >= STAMP_BYTES_MIN, "a stamp does not fit {payload_bytes} bytes");
        let end = output.len() + payload_bytes - 1;
        write!(output, "\"ff:{:08x}:{:012x}:{:016x}:", self.stream, self.sequence, self.sent_nanos)
            .expect("a String takes everything");
        output.extend(std::iter::repeat_n('x', end - output.len()));
        output.push('"');
    }

    /// Reads the stamp that starts at `at`, if there is one.
    fn read(text: &[u8], at: usize) -> Option<Self> {
        let text = text.get(at..at + STAMP_BYTES_MIN - 1)?;
        if !text.starts_with(MARKER) {
            return None;
        }
        Some(Self {
            stream: u32::try_from(hexadecimal(&text[STREAM])?).ok()?,
            sequence: hexadecimal(&text[SEQUENCE])?,
            sent_nanos: hexadecimal(&text[SENT])?,
        })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// Finds stamps in frames. Remembers where the last one was: the next is nearly always there too.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    expected_at: Cell<usize>,
}

impl Finder {
    /// Calls `found` for each stamp in one frame's `text` and returns how many there were. More than one is
    /// looked for only where the frame `gathers`.
    pub(crate) fn each(&self, text: &[u8], gathers: bool, mut found: impl FnMut(Stamp)) -> usize {
        if !gathers {
            let Some(stamp) = self.only(text) else { return 0 };
            found(stamp);
            return 1;
        }
        let mut count = 0;
        let mut from = 0;
        while let Some(at) = position(text, from) {
            let Some(stamp) = Stamp::read(text, at) else { break };
            found(stamp);
            count += 1;
            from = at + STAMP_BYTES_MIN - 1;
        }
        count
    }

    fn only(&self, text: &[u8]) -> Option<Stamp> {
        Stamp::read(text, self.expected_at.get()).or_else(|| {
            let at = position(text, 0)?;
            self.expected_at.set(at);
            Stamp::read(text, at)
        })
    }
}

fn position(text: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(&text[from..], MARKER).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp { stream: 42, sequence, sent_nanos: 123_456_789 }
    }

    fn frame(stamps: &[Stamp], before: &str) -> String {
        let messages = stamps.iter().map(|stamp| {
            let mut text = format!("{{{before}\"data\":");
            stamp.write(64, &mut text);
            text + "}"
        });
        messages.collect::<Vec<_>>().join(",")
    }

    fn found(finder: &Finder, text: &str) -> Vec<Stamp> {
        let mut stamps = Vec::new();
        finder.each(text.as_bytes(), text.starts_with('['), |stamp| stamps.push(stamp));
        stamps
    }

    #[test]
    fn a_stamp_has_exactly_the_bytes_asked_for() {
        for payload_bytes in [STAMP_BYTES_MIN, 45, 128, 4096] {
            let mut text = String::new();
            stamp(7).write(payload_bytes, &mut text);
            assert_eq!(text.len(), payload_bytes);
            assert_eq!(Stamp::read(text.as_bytes(), 0), Some(stamp(7)));
        }
    }

    #[test]
    fn a_stamp_is_found_wherever_it_moves_to() {
        let finder = Finder::default();
        for before in ["\"offset\":9,", "\"offset\":10,", "", "\"channel\":\"x\","] {
            assert_eq!(found(&finder, &frame(&[stamp(3)], before)), [stamp(3)], "{before}");
        }
    }

    #[test]
    fn every_stamp_of_a_batch_is_found() {
        let text = format!("[{}]", frame(&[stamp(1), stamp(2), stamp(3)], "\"offset\":1,"));
        assert_eq!(found(&Finder::default(), &text), [stamp(1), stamp(2), stamp(3)]);
    }

    #[test]
    fn text_without_a_stamp_has_none() {
        for text in ["", "[]", "{\"type\":\"welcome\"}", "\"ff:", "{\"data\":\"ff:0000002a:zz\"}"] {
            assert_eq!(found(&Finder::default(), text), [], "{text}");
        }
    }
}
