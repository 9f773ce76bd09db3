//! Which HTTP a peer speaks in clear: HTTP/2 begins with words that no request of HTTP/1.1 begins with (RFC 9113 section 3.4).
//!
//! Over TLS the handshake has agreed on it. In clear whoever speaks HTTP/2 knows beforehand that we do.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::transport::Reread;

/// What every client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read at once: most requests whole, so that nobody pays for being asked.
const READ_BYTES: usize = 2048;

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

impl Version {
    /// What has been said so far tells, unless it may still become the preface.
    fn of(said: &[u8]) -> Option<Self> {
        match said.get(..PREFACE.len()) {
            Some(first) if first == PREFACE => Some(Self::Http2),
            None if PREFACE.starts_with(said) => None,
            _ => Some(Self::Http1),
        }
    }
}

/// Reads until it is clear what is spoken. The stream that comes back yields everything from the first byte on.
///
/// # Errors
/// Those of the stream, or its end before it said anything that tells.
pub(super) async fn listen<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Version, Reread<S>)> {
    let mut said = Bytes::new();
    loop {
        // No buffer lives across the wait: it would be part of the task.
        said = poll_fn(|cx| {
            let mut buffer = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer))?;
            match buffer.filled() {
                [] => Err(io::ErrorKind::UnexpectedEof.into()).into(),
                more if said.is_empty() => Ok::<_, io::Error>(Bytes::copy_from_slice(more)).into(),
                more => Ok([&said, more].concat().into()).into(),
            }
        })
        .await?;
        if let Some(version) = Version::of(&said) {
            return Ok((version, Reread::new(said, stream)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_as_soon_as_they_can() {
        for (said, version) in [
            (&b""[..], None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (PREFACE, Some(Version::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(Version::Http2)),
            (b"G", Some(Version::Http1)),
            (b"PU", Some(Version::Http1)),
            (b"PRI * HTTP/1.1\r\n", Some(Version::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r and so on", Some(Version::Http1)),
            (b"\x16\x03\x01", Some(Version::Http1)),
        ] {
            assert_eq!(Version::of(said), version, "{said:?}");
        }
    }
}
