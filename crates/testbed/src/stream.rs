//! A client of the one-way transports: the body of a response read as it comes, by lines and by Server-Sent Events.
//!
//! Chunks are taken apart here and events are put together as the HTML standard says, by nobody's library: it is an
//! independent reading of what the gateway writes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::eventually::PATIENCE;
use crate::http::{Response, read_head, read_response};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last chunk.
    Complete,
    /// With the socket.
    Cut,
}

/// The body of an answer, line by line.
#[derive(Debug)]
pub struct LineStream {
    socket: TcpStream,
    head: Response,
    /// Chunks that are not complete.
    raw: Vec<u8>,
    /// Text that is not a whole line.
    text: Vec<u8>,
    end: Option<End>,
}

impl LineStream {
    /// Asks for a stream with further headers, each `Name: value`.
    ///
    /// # Errors
    /// The answer, when it is not a stream.
    ///
    /// # Panics
    /// When there is none.
    pub async fn open(address: SocketAddr, path: &str, headers: &[&str]) -> Result<Self, Response> {
        Self::on(TcpStream::connect(address).await.expect("the gateway listens"), path, headers).await
    }

    /// The same over a socket that the caller has made, so with the buffers that he wants.
    ///
    /// # Errors
    /// Those of [`LineStream::open`].
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn on(socket: TcpStream, path: &str, headers: &[&str]) -> Result<Self, Response> {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        Self::asked(socket, &format!("GET {path} HTTP/1.1\r\nHost: fanfare\r\n{headers}\r\n")).await
    }

    /// Asks for a stream by a POST with this body.
    ///
    /// # Errors
    /// Those of [`LineStream::open`].
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(address: SocketAddr, path: &str, body: &str) -> Result<Self, Response> {
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: fanfare\r\nContent-Length: {length}\r\n\r\n");
        Self::asked(socket, &(head + body)).await
    }

    async fn asked(mut socket: TcpStream, request: &str) -> Result<Self, Response> {
        socket.write_all(request.as_bytes()).await.expect("the gateway reads");
        let mut raw = Vec::new();
        let mut head = read_head(&mut socket, &mut raw).await.expect("the gateway answers");
        if let Some(length) = head.header("Content-Length") {
            let length: usize = length.parse().expect("a length is a number");
            while raw.len() < length {
                let read = timeout(PATIENCE, socket.read_buf(&mut raw)).await.expect("the body comes");
                assert!(read.expect("the socket lives") > 0, "the body is complete");
            }
            head.body = raw;
            return Err(head);
        }
        assert_eq!(head.header("Transfer-Encoding"), Some("chunked"), "{}", head.head);
        Ok(Self { socket, head, raw, text: Vec::new(), end: None })
    }

    /// Status line and headers.
    #[must_use]
    pub fn head(&self) -> &Response {
        &self.head
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// There is none any more.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn line(&mut self) -> Result<String, End> {
        timeout(PATIENCE, self.next_line()).await.expect("the gateway says something")
    }

    async fn next_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Ok(String::from_utf8(line).expect("UTF-8").trim_end_matches('\n').to_owned());
            }
            if let Some(end) = self.end {
                assert!(end == End::Cut || self.text.is_empty(), "the last line is whole");
                return Err(end);
            }
            while self.unwrap_chunk() {}
            if self.text.contains(&b'\n') || self.end.is_some() {
                continue;
            }
            match self.socket.read_buf(&mut self.raw).await {
                Ok(0) | Err(_) => self.end = Some(End::Cut),
                Ok(_) => {}
            }
        }
    }

    /// Moves one whole chunk into the text; `false` when there is none.
    fn unwrap_chunk(&mut self) -> bool {
        let Some(line) = self.raw.windows(2).position(|it| it == b"\r\n") else { return false };
        let size = str::from_utf8(&self.raw[..line]).expect("a size in ASCII");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
        if self.raw.len() < line + 2 + size + 2 {
            return false;
        }
        self.text.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
        assert_eq!(&self.raw[line + 2 + size..line + 4 + size], b"\r\n", "a chunk ends with a line break");
        self.raw.drain(..line + 4 + size);
        if size == 0 {
            self.end = Some(End::Complete);
        }
        true
    }

    /// The next line that is JSON; empty ones are heartbeats.
    ///
    /// # Errors
    /// There is none any more.
    ///
    /// # Panics
    /// When a line is neither.
    pub async fn json(&mut self) -> Result<Value, End> {
        loop {
            let line = self.line().await?;
            if !line.is_empty() {
                return Ok(serde_json::from_str(&line).expect("a line of JSON"));
            }
        }
    }

    /// Asks for something else on the same socket once the stream is complete.
    ///
    /// # Panics
    /// When it is not answered.
    pub async fn then_get(mut self, path: &str) -> Response {
        assert_eq!(self.end, Some(End::Complete), "the stream is over");
        let request = format!("GET {path} HTTP/1.1\r\nHost: fanfare\r\nConnection: close\r\n\r\n");
        self.socket.write_all(request.as_bytes()).await.expect("the gateway reads");
        read_response(&mut self.socket).await.expect("the gateway answers")
    }
}

/// Server-Sent Events, with what a browser remembers between connections.
#[derive(Debug)]
pub struct EventStream {
    lines: LineStream,
    last_event_id: String,
    retry: Option<Duration>,
    comments: usize,
}

impl EventStream {
    /// Asks for a stream; `last_event_id` is what an earlier one left behind.
    ///
    /// # Errors
    /// The answer, when it is not a stream.
    ///
    /// # Panics
    /// When it is one of something else, or there is none.
    pub async fn open(address: SocketAddr, path: &str, last_event_id: &str) -> Result<Self, Response> {
        Self::on(TcpStream::connect(address).await.expect("the gateway listens"), path, last_event_id).await
    }

    /// The same over a socket that the caller has made.
    ///
    /// # Errors
    /// Those of [`EventStream::open`].
    ///
    /// # Panics
    /// Those of [`EventStream::open`].
    pub async fn on(socket: TcpStream, path: &str, last_event_id: &str) -> Result<Self, Response> {
        let header = format!("Last-Event-ID: {last_event_id}");
        let mut headers = vec!["Accept: text/event-stream"];
        if !last_event_id.is_empty() {
            headers.push(&header);
        }
        let lines = LineStream::on(socket, path, &headers).await?;
        assert_eq!(lines.head().header("Content-Type"), Some("text/event-stream"));
        Ok(Self { lines, last_event_id: last_event_id.to_owned(), retry: None, comments: 0 })
    }

    /// The next event's data.
    ///
    /// # Errors
    /// There is none any more.
    ///
    /// # Panics
    /// When it is not JSON.
    pub async fn next(&mut self) -> Result<Value, End> {
        let mut data: Option<String> = None;
        loop {
            let line = self.lines.line().await?;
            if line.is_empty() {
                match data.take() {
                    Some(data) => return Ok(serde_json::from_str(&data).expect("an event of JSON")),
                    None => continue,
                }
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "data" => {
                    assert!(data.is_none(), "an event has one line of data");
                    data = Some(value.to_owned());
                }
                "id" => value.clone_into(&mut self.last_event_id),
                "retry" => self.retry = Some(Duration::from_millis(value.parse().expect("milliseconds"))),
                _ => panic!("a field of no standard: {line}"),
            }
        }
    }

    /// The last id that came.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The last wait that was named.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// How many comments have come.
    #[must_use]
    pub fn comments(&self) -> usize {
        self.comments
    }

    /// The lines it is made of.
    #[must_use]
    pub fn into_lines(self) -> LineStream {
        self.lines
    }
}
