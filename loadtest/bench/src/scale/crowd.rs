//! A process that holds its share of the crowd: one thread, one poll, a few hundred bytes a connection.
//!
//! ```text
//!   Down ─(its time has come)─► Connecting ─► Upgrading ─► Subscribing ─► Live
//!     ▲                                                                     │
//!     └───────────── waits its jitter, then tries another node ◄── lost ────┘
//! ```
//!
//! It obeys [`Order`]s on standard input and answers with [`Told`], a line of JSON each, and ends with its input.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, BufRead as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use mio::{Events, Interest, Poll, Token, Waker};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::link::{Link, News};
use crate::args::Hold;
use crate::stamp::Finder;

/// Connections that are being opened at any time: together they stay below a node's backlog.
const OPENING_MAX: usize = 128;
const CONNECTIONS_PER_SOURCE: usize = 8_000;
/// How long opening may take.
const OPENING_TIMEOUT: Duration = Duration::from_secs(60);
/// After a try that failed; somewhere else, and not all at once.
const RETRY_MILLIS: std::ops::Range<u64> = 200..800;
const READ_BYTES: usize = 64 << 10;
const WAKE: Token = Token(usize::MAX);

/// What the coordinator asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Publications up to this number are about to be made: tell when every connection has heard it.
    Expect(u64),
    /// Tell how all of it went.
    Report,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// Every connection is subscribed.
    Opened,
    /// What is expected is known.
    Ready,
    /// Every connection has heard what was expected.
    Done {
        /// From publishing it to hearing it, for each connection.
        latencies_micros: Vec<u32>,
    },
    /// How it went.
    Report(Record),
}

/// How it went, from the first connection on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Connections that are subscribed now.
    pub(crate) live: usize,
    /// Publications that were skipped.
    pub(crate) lost: u64,
    /// Publications that were heard again, or after a later one.
    pub(crate) repeated: u64,
    /// Answers to a return that did not say that everything missed would follow.
    pub(crate) unrecovered: u64,
    /// Tries that had to be made again.
    pub(crate) retries: u64,
    /// For each return: from losing the connection to being subscribed again.
    pub(crate) back_millis: Vec<u32>,
    /// What ended connections, and what else should not have been said.
    pub(crate) troubles: BTreeMap<String, u64>,
}

/// What is waited for.
struct Expected {
    number: u64,
    missing: usize,
    latencies_micros: Vec<u32>,
}

struct Crowd<'a> {
    hold: &'a Hold,
    poll: Poll,
    links: Vec<Link>,
    /// When which connection is to be opened.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When an attempt is given up, oldest first; those that have succeeded or failed since are passed over.
    attempts: VecDeque<(Instant, usize, u32)>,
    opening: usize,
    is_open: bool,
    expected: Option<Expected>,
    record: Record,
    finder: Finder,
    buffer: Vec<u8>,
}

/// Holds the connections until the input ends.
pub(crate) fn hold(hold: &Hold) -> Result<()> {
    let poll = Poll::new()?;
    let orders = read_orders(Waker::new(poll.registry(), WAKE)?);
    let now = Instant::now();
    let due = (0..hold.count).map(|index| Reverse((now, index))).collect();
    let links = (0..hold.count).map(|index| Link::new(hold.first + index, hold.nodes.len())).collect();
    let mut crowd = Crowd {
        hold,
        poll,
        links,
        due,
        attempts: VecDeque::new(),
        opening: 0,
        is_open: false,
        expected: None,
        record: Record::default(),
        finder: Finder::default(),
        buffer: vec![0; READ_BYTES],
    };
    crowd.run(&orders)
}

/// Orders come in by a thread of their own, since standard input cannot be polled everywhere.
fn read_orders(waker: Waker) -> Receiver<Order> {
    let (tell, orders) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { break };
            if tell.send(order).is_err() || waker.wake().is_err() {
                return;
            }
        }
        drop(tell);
        let _ = waker.wake(); // It is over, one way or the other.
    });
    orders
}

fn tell(told: &Told) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, told)?;
    out.write_all(b"\n")?;
    out.flush().context("nobody listens")
}

impl Crowd<'_> {
    fn run(&mut self, orders: &Receiver<Order>) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            self.open_what_is_due();
            let now = Instant::now();
            let next = self.due.peek().filter(|_| self.opening < OPENING_MAX).map(|Reverse((at, _))| *at);
            let next = next.into_iter().chain(self.attempts.front().map(|(at, ..)| *at)).min();
            match self.poll.poll(&mut events, next.map(|at| at.saturating_duration_since(now))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                if event.token() != WAKE {
                    self.attend(event.token().0);
                }
            }
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(&order)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.give_up_late_attempts();
            self.tell_what_is_reached()?;
        }
    }

    fn obey(&mut self, order: &Order) -> Result<()> {
        match order {
            Order::Expect(number) => {
                let missing = self.links.iter().filter(|link| link.heard < *number).count();
                self.expected = Some(Expected { number: *number, missing, latencies_micros: Vec::new() });
                tell(&Told::Ready)
            }
            Order::Report => {
                self.record.live = self.links.iter().filter(|link| link.is_live()).count();
                tell(&Told::Report(std::mem::take(&mut self.record)))
            }
        }
    }

    fn tell_what_is_reached(&mut self) -> Result<()> {
        if !self.is_open && self.opening == 0 && self.due.is_empty() {
            self.is_open = true;
            tell(&Told::Opened)?;
        }
        if let Some(expected) = self.expected.take_if(|it| it.missing == 0) {
            tell(&Told::Done { latencies_micros: expected.latencies_micros })?;
        }
        Ok(())
    }

    fn open_what_is_due(&mut self) {
        let now = Instant::now();
        while self.opening < OPENING_MAX && self.due.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Reverse((_, index)) = self.due.pop().expect("it was looked at");
            self.opening += 1;
            let link = &mut self.links[index];
            let source = source(self.hold.network, index);
            let opened = link.connect(&self.hold.nodes, source).and_then(|stream| {
                self.poll.registry().register(stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            });
            self.attempts.push_back((now + OPENING_TIMEOUT, index, link.attempt));
            if let Err(error) = opened {
                self.end(index, &error.to_string());
            }
        }
    }

    fn give_up_late_attempts(&mut self) {
        let now = Instant::now();
        while let Some((at, index, attempt)) = self.attempts.front().copied() {
            let link = &self.links[index];
            let is_over = link.is_live() || link.is_down() || link.attempt != attempt;
            if !is_over && at > now {
                break;
            }
            self.attempts.pop_front();
            if !is_over {
                self.end(index, "not open in time");
            }
        }
    }

    /// Reads and writes what there is.
    fn attend(&mut self, index: usize) {
        let link = &mut self.links[index];
        let was_live = link.is_live();
        let (expected, record) = (&mut self.expected, &mut self.record);
        let mut clock = None;
        let outcome = link.attend(&mut self.buffer, &self.finder, &mut |heard| {
            let clock = *clock.get_or_insert_with(unix_nanos);
            take(heard, clock, expected.as_mut(), record);
        });
        if !was_live && link.is_live() {
            self.opening -= 1;
            if let Some(lost_at) = link.lost_at.take() {
                self.record
                    .back_millis
                    .push(u32::try_from(lost_at.elapsed().as_millis()).unwrap_or(u32::MAX));
            }
        }
        if let Err(why) = outcome {
            self.end(index, &why);
        }
    }

    /// A connection is over: it is opened again, elsewhere, after a while of its own.
    fn end(&mut self, index: usize, why: &str) {
        let link = &mut self.links[index];
        let wait = if link.is_live() {
            *self.record.troubles.entry(why.to_owned()).or_default() += 1;
            link.lost_at = Some(Instant::now());
            fastrand::u64(0..=self.hold.jitter_ms)
        } else {
            self.opening -= 1;
            self.record.retries += 1;
            fastrand::u64(RETRY_MILLIS)
        };
        link.hang_up();
        self.due.push(Reverse((Instant::now() + Duration::from_millis(wait), index)));
    }
}

/// Enters what a connection has heard.
fn take(news: News, now_nanos: u64, expected: Option<&mut Expected>, record: &mut Record) {
    match news {
        News::Heard { before, number, sent_nanos } => {
            if number <= before {
                record.repeated += 1;
                return;
            }
            record.lost += number - before - 1;
            if let Some(expected) = expected
                && before < expected.number
                && number >= expected.number
            {
                expected.missing -= 1;
                let micros = now_nanos.saturating_sub(sent_nanos) / 1_000;
                expected.latencies_micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
            }
        }
        News::NotRecovered => record.unrecovered += 1,
        News::Trouble(what) => *record.troubles.entry(what).or_default() += 1,
    }
}

/// The address that the `index`th connection of a process comes from: a few thousand share one, since the second half of
/// an address's ports is slow to be had.
fn source(network: u8, index: usize) -> Ipv4Addr {
    let host =
        u8::try_from(index / CONNECTIONS_PER_SOURCE + 1).expect("a process holds fewer than a million");
    Ipv4Addr::new(127, 1, network, host)
}

/// The one clock that all processes share.
#[expect(clippy::disallowed_methods, reason = "the publisher is another process of this machine")]
pub(crate) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_nanos()).expect("it is before 2554")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(numbers: &[(u64, u64)], expected: &mut Expected) -> Record {
        let mut record = Record::default();
        for &(before, number) in numbers {
            take(News::Heard { before, number, sent_nanos: 1_000 }, 6_000, Some(expected), &mut record);
        }
        record
    }

    #[test]
    fn what_is_skipped_is_lost_and_what_comes_again_is_repeated() {
        let mut expected = Expected { number: 9, missing: 1, latencies_micros: Vec::new() };
        let record = heard(&[(0, 1), (1, 2), (2, 5), (5, 5), (5, 4), (5, 6)], &mut expected);
        assert_eq!((record.lost, record.repeated), (2, 2));
        assert_eq!((expected.missing, expected.latencies_micros.len()), (1, 0));
    }

    #[test]
    fn each_connection_reaches_what_is_expected_once() {
        let mut expected = Expected { number: 2, missing: 2, latencies_micros: Vec::new() };
        heard(&[(0, 1), (1, 2), (2, 3), (2, 2)], &mut expected);
        assert_eq!((expected.missing, expected.latencies_micros.as_slice()), (1, &[5][..]));
    }

    #[test]
    fn few_connections_share_an_address() {
        assert_eq!(source(3, 0), Ipv4Addr::new(127, 1, 3, 1));
        assert_eq!(source(3, CONNECTIONS_PER_SOURCE), Ipv4Addr::new(127, 1, 3, 2));
    }
}
