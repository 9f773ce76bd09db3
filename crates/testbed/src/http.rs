//! Requests spelt out to the byte, and their answers.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::eventually::PATIENCE;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Status line and headers, as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (theirs, value) = line.split_once(':')?;
            theirs.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body of text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

/// A GET.
///
/// # Panics
/// When there is no answer.
pub async fn get(address: SocketAddr, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await.expect("the server answers")
}

/// A POST with further headers, each `Name: value`.
///
/// # Panics
/// When there is no answer.
pub async fn post(address: SocketAddr, path: &str, headers: &[&str], body: &str) -> Response {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(address, request.as_bytes()).await.expect("the server answers")
}

/// Whatever the server answers to these bytes.
///
/// # Errors
/// It cannot be reached, or hangs up without an answer.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Response> {
    let mut socket = TcpStream::connect(address).await?;
    // A server that has heard enough may answer and hang up before it has read everything.
    let _ = socket.write_all(request).await;
    read_response(&mut socket).await
}

/// Reads one answer.
///
/// # Errors
/// The server hangs up before it is complete.
///
/// # Panics
/// When it does not come, or is not HTTP.
pub async fn read_response(socket: &mut TcpStream) -> io::Result<Response> {
    let mut unread = Vec::new();
    let mut response = read_head(socket, &mut unread).await?;
    let length =
        response.header("Content-Length").map(|length| length.parse().expect("a length is a number"));
    while length.is_none_or(|length: usize| unread.len() < length) && response.status != 101 {
        match timeout(PATIENCE, socket.read_buf(&mut unread)).await.expect("the body comes")? {
            0 if length.is_none() => break,
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
    response.body = unread;
    Ok(response)
}

/// Reads up to the empty line; what came after it stays in `unread`.
///
/// # Errors
/// The server hangs up before that.
///
/// # Panics
/// When it does not come, or is not HTTP.
pub async fn read_head(socket: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Response> {
    let end = loop {
        if let Some(end) = unread.windows(4).position(|it| it == b"\r\n\r\n") {
            break end + 4;
        }
        if timeout(PATIENCE, socket.read_buf(unread)).await.expect("the server answers")? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8(unread.drain(..end).collect()).expect("a head of text");
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a head of HTTP/1.1");
    Ok(Response { status, head, body: Vec::new() })
}
