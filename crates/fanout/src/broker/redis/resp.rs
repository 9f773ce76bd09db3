//! As much of Redis' protocol (RESP3) as a connection for pub/sub speaks, read where it lies.
//!
//! The `redis` crate builds a tree of owned values for each publication, some five allocations, and hands it to a
//! callback that cannot wait, so a node that falls behind would queue without bound or lose at random. Here a reply
//! borrows from the socket's buffer and nothing is allocated; whoever reads it decides when to read on.
//!
//! **Invariant.** A reply is at most [`ENVELOPE_BYTES_MAX`] and a few bytes long. A longer publication is reported as
//! [`Stop::Oversized`] as soon as its length is known, so that it can be skipped without being kept.

use std::io::Write;

use bytes::{BufMut, BytesMut};

use crate::broker::redis::envelope::ENVELOPE_BYTES_MAX;
use crate::broker::redis::keys::Key;

/// The longest line: an error, a number, a simple text.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// How deep values may be nested that are only skipped, such as the answer to HELLO.
const DEPTH_MAX: usize = 8;

/// What the server has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// Somebody has published.
    Publication { key: &'a [u8], envelope: &'a [u8] },
    /// This key is heard from here on.
    Subscribed(&'a [u8]),
    /// This key is heard no more; `None` when there was none to leave.
    Unsubscribed(Option<&'a [u8]>),
    /// The answer to PING.
    Pong,
    /// A command was refused; the server's words.
    Refused(&'a [u8]),
    /// Something else, of no interest.
    Other,
}

/// Why there is no reply yet, or never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The reply is at least so many bytes long, and not all of them are there.
    Incomplete { bytes: usize },
    /// A publication so many bytes long, more than will be kept.
    Oversized { bytes: usize },
    /// Not what Redis says.
    Malformed(&'static str),
}

/// Reads the first reply, and tells how many bytes it took.
pub(super) fn parse(buffer: &[u8]) -> Result<(Reply<'_>, usize), Stop> {
    /// How the pushes begin that all speed is about, on a channel of either kind.
    const PUBLICATIONS: [&[u8]; 2] = [b">3\r\n$7\r\nmessage\r\n", b">3\r\n$8\r\nsmessage\r\n"];
    let mut cursor = Cursor { buffer, at: 0 };
    if let Some(head) = PUBLICATIONS.iter().find(|&head| buffer.starts_with(head)) {
        cursor.at = head.len();
        return Ok((cursor.publication()?, cursor.at));
    }
    let reply = match cursor.byte()? {
        b'>' => cursor.push()?,
        b'+' if cursor.line()? == b"PONG" => Reply::Pong,
        b'+' => Reply::Other,
        b'-' => Reply::Refused(cursor.line()?),
        _ => {
            cursor.at = 0;
            cursor.skip(0)?;
            Reply::Other
        }
    };
    Ok((reply, cursor.at))
}

struct Cursor<'a> {
    buffer: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = *self.buffer.get(self.at).ok_or(Stop::Incomplete { bytes: self.at + 1 })?;
        self.at += 1;
        Ok(byte)
    }

    /// Up to the end of the line, which is taken too.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.buffer[self.at..];
        match rest.iter().position(|&byte| byte == b'\r') {
            Some(length) => {
                let line = &rest[..length];
                self.at += length;
                self.line_end()?;
                Ok(line)
            }
            None if rest.len() > LINE_BYTES_MAX => Err(Stop::Malformed("a line does not end")),
            None => Err(Stop::Incomplete { bytes: self.buffer.len() + 1 }),
        }
    }

    fn line_end(&mut self) -> Result<(), Stop> {
        match (self.byte()?, self.byte()?) {
            (b'\r', b'\n') => Ok(()),
            _ => Err(Stop::Malformed("a value does not end where it should")),
        }
    }

    /// A length: `None` for the −1 that stands for nothing.
    fn length(&mut self) -> Result<Option<usize>, Stop> {
        match self.line()? {
            b"-1" => Ok(None),
            digits @ [_, ..] if digits.len() <= 10 => digits
                .iter()
                .try_fold(0, |sum, digit| {
                    digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0'))
                })
                .map(Some)
                .ok_or(Stop::Malformed("a length is not a number")),
            _ => Err(Stop::Malformed("a length is not a number")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + length;
        let Some(taken) = self.buffer.get(self.at..end) else {
            return Err(Stop::Incomplete { bytes: end + 2 });
        };
        self.at = end;
        self.line_end()?;
        Ok(taken)
    }

    /// A text of known length or nothing; the length comes first and may be too great.
    fn text(&mut self, bytes_max: usize) -> Result<Option<&'a [u8]>, Stop> {
        match self.byte()? {
            b'$' => match self.length()? {
                Some(length) if length > bytes_max => Err(Stop::Oversized { bytes: self.at + length + 2 }),
                Some(length) => self.take(length).map(Some),
                None => Ok(None),
            },
            b'+' => self.line().map(Some),
            b'_' => self.line().map(|_| None),
            _ => Err(Stop::Malformed("a text was expected")),
        }
    }

    /// A key, or the name of a push: never long.
    fn name(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        self.text(LINE_BYTES_MAX).map_err(|stop| match stop {
            Stop::Oversized { .. } => Stop::Malformed("a name is too long"),
            Stop::Incomplete { .. } | Stop::Malformed(_) => stop,
        })
    }

    fn publication(&mut self) -> Result<Reply<'a>, Stop> {
        let nothing = Stop::Malformed("a publication lacks a part");
        let key = self.name()?.ok_or(nothing)?;
        let envelope = self.text(ENVELOPE_BYTES_MAX)?.ok_or(nothing)?;
        Ok(Reply::Publication { key, envelope })
    }

    fn push(&mut self) -> Result<Reply<'a>, Stop> {
        let parts = self.length()?.unwrap_or(0);
        if parts == 0 {
            return Ok(Reply::Other);
        }
        match self.name()? {
            Some(b"message" | b"smessage") if parts == 3 => self.publication(),
            Some(b"subscribe" | b"ssubscribe") if parts == 3 => {
                let key = self.name()?.ok_or(Stop::Malformed("a subscription to nothing"))?;
                self.skip(0)?;
                Ok(Reply::Subscribed(key))
            }
            Some(b"unsubscribe" | b"sunsubscribe") if parts == 3 => {
                let key = self.name()?;
                self.skip(0)?;
                Ok(Reply::Unsubscribed(key))
            }
            _ => {
                (1..parts).try_for_each(|_| self.skip(0))?;
                Ok(Reply::Other)
            }
        }
    }

    /// Passes over one value of any kind.
    fn skip(&mut self, depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Malformed("a value is nested too deeply"));
        }
        let parts = match self.byte()? {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => return self.line().map(|_| ()),
            b'$' | b'=' | b'!' => {
                return match self.length()? {
                    None => Ok(()),
                    Some(length) if length > ENVELOPE_BYTES_MAX => {
                        Err(Stop::Malformed("a value is too long"))
                    }
                    Some(length) => self.take(length).map(|_| ()),
                };
            }
            b'*' | b'~' | b'>' => self.length()?.unwrap_or(0),
            b'%' => 2 * self.length()?.unwrap_or(0),
            b'|' => 2 * self.length()?.unwrap_or(0) + 1,
            _ => return Err(Stop::Malformed("a value of a kind that does not exist")),
        };
        (0..parts).try_for_each(|_| self.skip(depth + 1))
    }
}

/// Appends a command without keys.
pub(super) fn write_command(out: &mut BytesMut, arguments: &[&[u8]]) {
    write_head(out, b'*', arguments.len());
    for argument in arguments {
        write_head(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a command whose arguments are keys: SUBSCRIBE, SUNSUBSCRIBE, ….
pub(super) fn write_keys_command<'a>(
    out: &mut BytesMut,
    name: &str,
    keys: impl ExactSizeIterator<Item = Key<'a>>,
) {
    write_head(out, b'*', 1 + keys.len());
    write_head(out, b'$', name.len());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\r\n");
    for key in keys {
        write_head(out, b'$', key.len());
        key.write(&mut out.writer());
        out.extend_from_slice(b"\r\n");
    }
}

fn write_head(out: &mut BytesMut, kind: u8, length: usize) {
    out.put_u8(kind);
    write!(out.writer(), "{length}\r\n").expect("memory takes every write");
}

#[cfg(test)]
mod tests {
    use fanfare_protocol::Channel;
    use proptest::prelude::*;

    use super::*;
    use crate::broker::redis::keys::Keys;

    const SAMPLES: &[(&[u8], Reply<'static>)] = &[
        (
            b">3\r\n$7\r\nmessage\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n",
            Reply::Publication { key: b"key", envelope: b"a\r\nb" },
        ),
        (b">3\r\n+message\r\n$1\r\nk\r\n$0\r\n\r\n", Reply::Publication { key: b"k", envelope: b"" }),
        (b">3\r\n$9\r\nsubscribe\r\n$3\r\nkey\r\n:1\r\n", Reply::Subscribed(b"key")),
        (b">3\r\n$11\r\nunsubscribe\r\n$3\r\nkey\r\n:0\r\n", Reply::Unsubscribed(Some(b"key"))),
        (b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n", Reply::Unsubscribed(None)),
        (b">3\r\n$8\r\nsmessage\r\n$1\r\nk\r\n$1\r\na\r\n", Reply::Publication { key: b"k", envelope: b"a" }),
        (b">3\r\n$10\r\nssubscribe\r\n$1\r\nk\r\n:1\r\n", Reply::Subscribed(b"k")),
        (b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nk\r\n:0\r\n", Reply::Unsubscribed(Some(b"k"))),
        (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", Reply::Other),
        (b"+PONG\r\n", Reply::Pong),
        (b"+OK\r\n", Reply::Other),
        (b"-NOPERM no\r\n", Reply::Refused(b"NOPERM no")),
        (b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n+modules\r\n*0\r\n", Reply::Other),
        (b"$-1\r\n", Reply::Other),
    ];

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        for &(bytes, reply) in SAMPLES {
            let followed = [bytes, b"+PONG\r\n"].concat();
            assert_eq!(parse(&followed), Ok((reply, bytes.len())), "{}", bytes.escape_ascii());
            for end in 0..bytes.len() {
                let Err(Stop::Incomplete { bytes: at_least }) = parse(&bytes[..end]) else {
                    panic!("cut at {end}: {}", bytes.escape_ascii())
                };
                assert!(at_least > end && at_least <= bytes.len(), "{at_least} of {} at {end}", bytes.len());
            }
        }
    }

    #[test]
    fn a_publication_over_the_bound_is_known_by_its_head() {
        let head = format!(">3\r\n$7\r\nmessage\r\n$1\r\nk\r\n${}\r\n", ENVELOPE_BYTES_MAX + 1);
        let bytes = head.len() + ENVELOPE_BYTES_MAX + 1 + 2;
        assert_eq!(parse(head.as_bytes()), Err(Stop::Oversized { bytes }));
    }

    #[test]
    fn nonsense_is_refused() {
        let endless = vec![b'+'; LINE_BYTES_MAX + 2];
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 2);
        for bad in [
            b"GET /".as_slice(),
            b"$x\r\n",
            b"$99999999999\r\n",
            b"$2\r\nabc\r\n",
            b">3\r\n$7\r\nmessage\r\n:1\r\n",
            b">3\r\n$7\r\nmessage\r\n$99999\r\n",
            b"+PONG\rx",
            &endless,
            &deep,
        ] {
            assert!(matches!(parse(bad), Err(Stop::Malformed(_))), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(prop_oneof![
                any::<u8>(), proptest::sample::select(b">*$%|+-:_\r\n0123456789".as_slice())], 0..80),
        ) {
            if let Ok((_, used)) = parse(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }
    }

    #[test]
    fn commands_are_arrays_of_texts() {
        let mut out = BytesMut::new();
        write_command(&mut out, &[b"HELLO", b"3"]);
        let (keys, channels) = (Keys::new("p").unwrap(), ["a", "bc"].map(|it| Channel::parse(it).unwrap()));
        write_keys_command(&mut out, "SUBSCRIBE", channels.iter().map(|channel| keys.of(channel)));
        assert_eq!(
            &out[..],
            b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n\
            *3\r\n$9\r\nSUBSCRIBE\r\n$7\r\np:c:{a}\r\n$8\r\np:c:{bc}\r\n"
        );
    }
}
