//! The header of HAProxy's PROXY protocol, versions 1 and 2: in clear, before TLS, before anything.
//!
//! It is read to its last byte and not one further, since the next one belongs to somebody else, and is bounded in length by
//! what it announces, which is bounded itself. The parser is pure: it says what it makes of the bytes so far.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";

/// The longest line of version 1, with its end.
const LINE_BYTES: usize = 107;

/// The longest header of version 2 that is taken: addresses, and what proxies put behind them.
const HEADER_BYTES: usize = 4096;

/// For whom a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// For the proxy itself, such as a check of its health, or for a client whose address is none of IP.
    Itself,
    /// For a client at this address.
    Client(IpAddr),
}

/// What the bytes so far come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Whole(Introduction),
    /// At least so many more belong to it.
    Wants(usize),
}

/// No header, or one with a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub(crate) struct Malformed;

/// Reads a header, and nothing of what comes behind it.
///
/// # Errors
/// There is none, or the stream ends within it. As soon as a byte tells, nothing more is read.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Introduction> {
    let mut header = Vec::new();
    loop {
        let wanted = match parse(&header) {
            Ok(Progress::Whole(introduction)) => return Ok(introduction),
            Ok(Progress::Wants(wanted)) => wanted,
            Err(malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, malformed)),
        };
        let before = header.len();
        header.resize(before + wanted, 0);
        let read = stream.read(&mut header[before..]).await?;
        header.truncate(before + read);
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Progress, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) && !bytes.is_empty() {
        return parse_binary(bytes);
    }
    if begins(WORD) {
        return parse_line(bytes);
    }
    Err(Malformed)
}

/// Version 1: `PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n`.
fn parse_line(bytes: &[u8]) -> Result<Progress, Malformed> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        // Whatever it is going to be, it is no shorter than the shortest of its kind.
        let shortest = match bytes.get(WORD.len()..WORD.len() + 4) {
            Some(b"TCP4") => "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len(),
            Some(b"TCP6") => "PROXY TCP6 :: :: 0 0\r\n".len(),
            _ => SIGNATURE.len(),
        };
        let wants = shortest.saturating_sub(bytes.len()).max(1);
        return if bytes.len() + wants <= LINE_BYTES { Ok(Progress::Wants(wants)) } else { Err(Malformed) };
    };
    let line =
        bytes[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok()).ok_or(Malformed)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Progress::Whole(Introduction::Itself));
    }
    let words: Vec<_> = words.collect();
    let [client, to, client_port, port] = words[..] else { return Err(Malformed) };
    let is_port = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
            && text.parse::<u16>().is_ok()
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    match (address(client), address(to)) {
        (Some(client), Some(_)) if is_port(client_port) && is_port(port) => {
            Ok(Progress::Whole(Introduction::Client(client.to_canonical())))
        }
        _ => Err(Malformed),
    }
}

/// Version 2: the signature, version and command, family and transport, the length of the rest; addresses, and then whatever
/// the proxy has to add, which is skipped.
fn parse_binary(bytes: &[u8]) -> Result<Progress, Malformed> {
    const HEAD: usize = SIGNATURE.len() + 4;
    let Some(&[command, family, ref length @ ..]) = bytes.get(SIGNATURE.len()..HEAD) else {
        return Ok(Progress::Wants(HEAD - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes(*length.first_chunk().expect("two bytes")));
    /// Version 2 in the upper half.
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    if !matches!(command, LOCAL | PROXY) || HEAD + length > HEADER_BYTES {
        return Err(Malformed);
    }
    // The address family above, the transport below: none, TCP, UDP.
    let addresses_bytes = match (command, family) {
        (LOCAL, _) | (PROXY, 0x00) => 0,
        (PROXY, 0x11) => 12,
        (PROXY, 0x21) => 36,
        (PROXY, 0x31) => 216,
        _ => return Err(Malformed),
    };
    if length < addresses_bytes {
        return Err(Malformed);
    }
    let Some(addresses) = bytes.get(HEAD..HEAD + length) else {
        return Ok(Progress::Wants(HEAD + length - bytes.len()));
    };
    Ok(Progress::Whole(match addresses_bytes {
        12 => Introduction::Client(IpAddr::from(*addresses.first_chunk::<4>().expect("it is long enough"))),
        36 => {
            let client = IpAddr::from(*addresses.first_chunk::<16>().expect("it is long enough"));
            Introduction::Client(client.to_canonical())
        }
        _ => Introduction::Itself,
    }))
}

#[cfg(test)]
mod tests;
