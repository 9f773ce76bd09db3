//! Sends a run's publications: as fast as they are delivered, or by a timetable.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tungstenite::http::Uri;

use crate::audience::Run;
use crate::connection::Line;
use crate::protocol::{Post, Protocol};

/// When the next publication may leave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Closed loop: as soon as fewer than this many are on their way.
    InFlight(usize),
    /// Open loop: so many a second, whatever becomes of them.
    PerSecond(f64),
}

/// How publications reach the server.
#[derive(Debug)]
pub(crate) enum Via {
    /// In frames; each stream has a connection, streams share them evenly.
    Lines(&'static dyn Protocol, Vec<Rc<Line>>),
    /// By HTTP on one connection, since order is asserted.
    Posts(Box<Posts>),
}

/// A publisher of all streams of a run, in turn.
#[derive(Debug)]
pub(crate) struct Publisher<'a> {
    pub(crate) run: Rc<Run>,
    pub(crate) via: &'a mut Via,
    /// The channel of each room.
    pub(crate) channels: Rc<[String]>,
    /// Length of `data` as JSON, in bytes.
    pub(crate) payload_bytes: usize,
    pub(crate) pace: Pace,
    /// So many publications of a stream leave together before it is the next one's turn.
    pub(crate) burst: u64,
    /// Ends after this many.
    pub(crate) publications_max: u64,
}

impl Publisher<'_> {
    /// Publishes until `publications_max`, or until the run is stopped: not to be dropped before, since what is
    /// numbered and not sent would pass for lost.
    pub(crate) async fn publish(mut self) -> Result<()> {
        let streams = self.run.audience.borrow().streams();
        let (start, mut data, mut said) = (Instant::now(), String::new(), Vec::new());
        let mut next = 0;
        while next < self.publications_max && !self.run.is_stopped() {
            let due = self.due(start, next).await.min(self.publications_max - next);
            for index in next..next + due {
                if let Pace::PerSecond(rate) = self.pace {
                    let lag = start.elapsed().saturating_sub(offset(index, rate));
                    self.run.audience.borrow_mut().tally.lag.record(lag.as_nanos() as u64);
                }
                let stream = (index / self.burst % streams as u64) as usize;
                self.send(stream, &mut data, &mut said).await?;
            }
            self.flush().await?;
            next += due;
        }
        Ok(())
    }

    /// Waits until at least one burst may leave; returns how many publications may: 0 once the run is stopped.
    async fn due(&self, start: Instant, next: u64) -> u64 {
        while !self.run.is_stopped() {
            match self.pace {
                Pace::InFlight(window) => {
                    let in_flight = self.run.audience.borrow().in_flight;
                    // A window shorter than a burst would never open.
                    let window = (window as u64).max(self.burst);
                    let bursts = window.saturating_sub(in_flight as u64) / self.burst;
                    if bursts > 0 {
                        return bursts * self.burst;
                    }
                    self.run.progressed.notified().await;
                }
                Pace::PerSecond(rate) => {
                    let due = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
                    if due > next {
                        return due - next;
                    }
                    tokio::select! {
                        () = sleep_until(start + offset(next, rate)) => {}
                        () = self.run.progressed.notified() => {}
                    }
                }
            }
        }
        0
    }

    async fn send(&mut self, stream: usize, data: &mut String, said: &mut Vec<u8>) -> Result<()> {
        let stamp = self.run.audience.borrow_mut().publish(stream, self.run.now_nanos());
        let channel = &self.channels[self.run.audience.borrow().room_of(stream)];
        data.clear();
        stamp.write(self.payload_bytes, data);
        match self.via {
            Via::Lines(protocol, lines) => {
                said.clear();
                protocol.publish(channel, data, said);
                lines[stream % lines.len()].queue(said);
            }
            Via::Posts(posts) => posts.publish(channel, data).await?,
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        if let Via::Lines(_, lines) = &self.via {
            for line in lines {
                line.drained().await.context("the publisher's connection failed")?;
            }
        }
        Ok(())
    }
}

fn offset(index: u64, per_second: f64) -> Duration {
    Duration::from_secs_f64(index as f64 / per_second)
}

/// A kept-alive HTTP/1.1 connection that publishes.
#[derive(Debug)]
pub(crate) struct Posts {
    stream: BufReader<TcpStream>,
    post: Post,
    /// Headers that all requests share.
    headers: String,
    /// Requests whose answers have not been read.
    waiting: usize,
    body: Vec<u8>,
}

impl Posts {
    /// Connects to the server at `url`, such as `http://127.0.0.1:8001`.
    pub(crate) async fn connect(url: &str, key: Option<&str>, post: Post) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("not a URL: {url}"))?;
        let host = uri.authority().with_context(|| format!("{url} names no host"))?.as_str();
        let address = if uri.port().is_some() { host.to_owned() } else { format!("{host}:80") };
        let stream =
            TcpStream::connect(&address).await.with_context(|| format!("cannot connect to {url}"))?;
        stream.set_nodelay(true)?;
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let headers = format!("Host: {host}\r\nContent-Type: application/json\r\n{key}");
        Ok(Self { stream: BufReader::new(stream), post, headers, waiting: 0, body: Vec::new() })
    }

    async fn publish(&mut self, channel: &str, data: &str) -> Result<()> {
        while self.waiting >= self.post.pipelined {
            self.answer().await?;
        }
        let (path, body) = (self.post.request)(channel, data);
        let request =
            format!("POST {path} HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n{body}", self.headers, body.len());
        self.stream.get_mut().write_all(request.as_bytes()).await.context("the API connection failed")?;
        self.waiting += 1;
        // One at a time means that the caller hears of a refusal before it goes on.
        if self.post.pipelined == 1 { self.answer().await } else { Ok(()) }
    }

    async fn answer(&mut self) -> Result<()> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.context("the API connection failed")?;
        let status = line.trim_end().to_owned();
        let mut length = None;
        while line != "\r\n" {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                bail!("the API closed the connection in the middle of a response");
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = Some(value.trim().parse().context("a content-length that is no number")?);
            }
        }
        self.body.resize(length.context("the API answered without a content-length")?, 0);
        self.stream.read_exact(&mut self.body).await?;
        self.waiting -= 1;
        if !status.starts_with("HTTP/1.1 2") {
            bail!("the API answered {status}: {}", String::from_utf8_lossy(&self.body));
        }
        Ok(())
    }
}
