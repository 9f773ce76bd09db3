//! Hears what is watched: one task that reads the socket into the lanes and keeps the server's subscriptions equal to
//! the [`ledger`].
//!
//! **Invariants.**
//! - `watch` has answered only what the server itself has confirmed, on the connection that is read from.
//! - The link rises when everything watched has been confirmed again, and not before.
//! - The ledger holds channels of this place only. Where channels move from place to place, an ask for another's is refused
//!   with MOVED, as the server itself would; a [`Watcher::resettle`] takes what is no longer its own, and
//!   [`Watcher::adopt`] gives it to the place whose own it is.
//! - Whatever was not heard for a while counts as a loss once it is confirmed again.
//! - While a lane is full nothing is read. That time does not count against the server: its silence is measured from
//!   when reading went on.
//!
//! From the socket to the lane a publication costs two allocations, itself and its payload, and no lock but the lane's.

mod ledger;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fanfare_protocol::Channel;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::broker::redis::Shared;
use crate::broker::redis::backoff::Backoff;
use crate::broker::redis::envelope::{self, ENVELOPE_BYTES_MAX};
use crate::broker::redis::link::Half;
use crate::broker::redis::pubsub;
use crate::broker::redis::resp::{self, Reply, Stop};
use crate::broker::redis::route::Place;
use crate::broker::redis::server::{Lost, Server, Socket, Tenure};
use crate::broker::{BrokerError, Heard, Lanes};
use crate::presence::wire;
use ledger::{Ask, BATCH_MAX, Disagreement, Ledger};

/// The most calls that wait to be asked; further ones wait for a place.
const QUEUE_MAX: usize = 1024;

/// The most questions that are open at the server. Bounds what waits to be written, and makes batches grow: what is asked
/// while so many are open goes out together.
const OPEN_MAX: usize = 2;

/// How long a channel is adrift before the server is asked for it again: whoever gives channels to servers learns mostly
/// sooner where it belongs.
const ADRIFT_FOR: Duration = Duration::from_millis(100);

/// What an ask hears that came to the wrong place. It begins as the server's own words would.
const MOVED_ON: &str = "MOVED its slot is another server's now";

/// How much is read at once, and kept when idle.
const BUFFER_BYTES: usize = 64 * 1024;

/// The longest that a reply which is only passed over, and all in front of it, may grow the buffer.
const BUFFER_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + 2 * BUFFER_BYTES;

/// The near end.
#[derive(Debug)]
pub(super) struct Watcher {
    half: Arc<Half>,
    asks: mpsc::Sender<Request>,
}

/// What the task is asked for.
#[derive(Debug)]
enum Request {
    Ask(Ask),
    /// Channels may have moved: those that were watched and are another's now.
    Resettle(oneshot::Sender<Vec<Channel>>),
    /// Another place's channels, which are this one's now.
    Adopt(Vec<Channel>),
}

impl Watcher {
    /// Starts the task that keeps a server's connection for hearing.
    pub(super) fn start(shared: &Arc<Shared>, place: Place, half: Arc<Half>, lanes: Lanes) -> Self {
        let (asks, queue) = mpsc::channel(QUEUE_MAX);
        let watcher = Self { half: half.clone(), asks };
        let ledger = Ledger::new(shared.pubsub);
        let shared = shared.clone();
        let task = Task { shared, place, half, lanes, queue, has_risen: false, ledger, counted: 0 };
        let tasks = task.shared.tasks.clone();
        tasks.spawn(async move { task.shared.shutdown.clone().run_until_cancelled_owned(task.run()).await });
        watcher
    }

    /// Asks for a channel and waits until the server has confirmed it.
    pub(super) async fn watch(&self, channel: Channel) -> Result<(), BrokerError> {
        if !self.half.is_up() {
            return Err(BrokerError::Unavailable("redis is away".into()));
        }
        let shutting_down = || BrokerError::Unavailable("the node is shutting down".into());
        let (answer, answered) = oneshot::channel();
        self.asks.send(Request::Ask(Ask::Watch(channel, answer))).await.map_err(|_| shutting_down())?;
        answered.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Asks for it no more and waits until the server has forgotten it.
    pub(super) async fn unwatch(&self, channel: Channel) {
        let (answer, answered) = oneshot::channel();
        if self.asks.send(Request::Ask(Ask::Unwatch(channel, answer))).await.is_ok() {
            let _ = answered.await; // Without a task there is no connection either.
        }
    }

    /// Gives up what is not this place's any more, and returns what of it was watched.
    pub(super) async fn resettle(&self) -> Vec<Channel> {
        let (answer, released) = oneshot::channel();
        if self.asks.send(Request::Resettle(answer)).await.is_err() {
            return Vec::new(); // The node is shutting down.
        }
        released.await.unwrap_or_default()
    }

    /// Takes over what another place has released.
    pub(super) async fn adopt(&self, channels: Vec<Channel>) {
        let _ = self.asks.send(Request::Adopt(channels)).await; // It fails when the node is shutting down.
    }
}

struct Task {
    shared: Arc<Shared>,
    place: Place,
    half: Arc<Half>,
    lanes: Lanes,
    queue: mpsc::Receiver<Request>,
    has_risen: bool,
    ledger: Ledger,
    /// How many of the node's watched channels are this ledger's.
    counted: u64,
}

/// What the task waits for.
enum Event {
    Read(std::io::Result<usize>),
    Written(std::io::Result<usize>),
    Asked(usize),
    Clock,
    Moved,
}

/// A connection that has been let in.
struct Connected {
    socket: Socket,
    tenure: Tenure,
    input: Input,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let (server, tried) = (self.place.server.clone(), self.place.server.address());
            let connecting = connect(server.clone(), self.shared.clone());
            let lost = match self.while_away(connecting).await {
                Some(Ok(connected)) => self.serve(connected, &mut backoff).await,
                Some(Err(lost)) => lost,
                None => return,
            };
            if matches!(lost, Lost::ShuttingDown) {
                return;
            }
            self.half.fall(&lost);
            self.shared.topology.nudge();
            self.ledger.lost(&lost.to_string());
            if self.while_away(server.rest(&mut backoff, tried.as_ref())).await.is_none() {
                return;
            }
        }
    }

    /// Waits for something, and turns callers away meanwhile. `None` when the broker is gone.
    async fn while_away<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        let mut something = std::pin::pin!(something);
        loop {
            tokio::select! {
                biased; // The queue first: whatever waited when the connection was lost is turned away before the next.
                request = self.queue.recv() => {
                    if let Some(ask) = self.settle(request?) {
                        self.ledger.turn_away(ask, "redis is away");
                    }
                    self.count_watched();
                }
                outcome = &mut something => return Some(outcome),
            }
        }
    }

    async fn serve(&mut self, connected: Connected, backoff: &mut Backoff) -> Lost {
        let Connected { socket, mut tenure, mut input } = connected;
        let (mut reader, mut writer) = io::split(socket);
        let mut output = BytesMut::new();
        let mut requests = Vec::with_capacity(BATCH_MAX);
        let mut alive = Instant::now();
        let mut pinged = alive;
        let mut drifted = None;
        let clock = sleep_until(alive);
        tokio::pin!(clock);
        self.ledger.start_again();
        loop {
            while self.ledger.has_more() && self.ledger.open() < OPEN_MAX {
                self.ledger.ask_again(&self.shared.keys, Instant::now(), &mut output);
            }
            if self.ledger.is_complete() {
                self.is_complete(backoff);
            }
            let event = tokio::select! {
                read = reader.read_buf(input.space()) => Event::Read(read),
                written = writer.write_buf(&mut output), if !output.is_empty() => Event::Written(written),
                count = self.queue.recv_many(&mut requests, BATCH_MAX), if self.ledger.open() < OPEN_MAX => {
                    Event::Asked(count)
                }
                () = &mut clock => Event::Clock,
                () = tenure.ended() => Event::Moved,
            };
            match event {
                Event::Read(Ok(0)) => return Lost::Closed,
                Event::Read(Err(error)) | Event::Written(Err(error)) => return Lost::Broken(error),
                Event::Read(Ok(_)) => {
                    if let Err(lost) = self.heard(&mut input, &mut output).await {
                        return lost;
                    }
                    alive = Instant::now();
                }
                Event::Written(Ok(_)) => {}
                Event::Moved => return Lost::Moved,
                Event::Asked(0) => return Lost::ShuttingDown,
                Event::Asked(_) => self.asked(&mut requests, &mut output),
                Event::Clock => {
                    let now = Instant::now();
                    if self.silent_at(alive).is_some_and(|silent_at| silent_at <= now) {
                        return Lost::Silent(self.shared.timeout);
                    }
                    if pinged + self.shared.ping_interval <= now {
                        pinged = now;
                        self.ledger.ping(now, &mut output);
                    }
                    if drifted.is_some_and(|since| since + ADRIFT_FOR <= now) {
                        drifted = None;
                        self.ledger.try_adrift_again();
                    }
                }
            }
            if drifted.is_none() && self.ledger.is_adrift() {
                drifted = Some(Instant::now());
                self.shared.topology.nudge();
            }
            let ping_due = pinged + self.shared.ping_interval;
            let due = self.silent_at(alive).map_or(ping_due, |silent_at| ping_due.min(silent_at));
            let due = drifted.map_or(due, |since| due.min(since + ADRIFT_FOR));
            if clock.is_elapsed() || due < clock.deadline() {
                clock.as_mut().reset(due); // Later is found out when it fires: most reads leave the timer alone.
            }
        }
    }

    /// When the server will have been silent for too long, if it owes an answer.
    fn silent_at(&self, alive: Instant) -> Option<Instant> {
        self.ledger.oldest().map(|asked| asked.max(alive) + self.shared.timeout)
    }

    /// Everything watched is heard. What was missed until now counts as a loss before the link is up.
    fn is_complete(&mut self, backoff: &mut Backoff) {
        let interrupted = self.ledger.was_interrupted();
        let rises = !self.half.is_up();
        if interrupted || (rises && self.has_risen) {
            self.shared.losses.fetch_add(1, Ordering::Release);
        }
        if rises {
            backoff.reset();
            self.has_risen = true;
            self.half.rise();
        }
    }

    /// Passes on what callers ask for. While not everything is heard again, `watch` fails as it does without a
    /// connection.
    fn asked(&mut self, requests: &mut Vec<Request>, output: &mut BytesMut) {
        let mut asks = Vec::with_capacity(requests.len());
        for request in requests.drain(..) {
            match request {
                Request::Ask(ask) => asks.push(ask),
                other => {
                    self.pass_on(&mut asks, output); // What came before it concerns what it will take.
                    self.settle(other);
                }
            }
        }
        self.pass_on(&mut asks, output);
        self.count_watched();
    }

    fn pass_on(&mut self, asks: &mut Vec<Ask>, output: &mut BytesMut) {
        let is_up = self.half.is_up();
        for ask in asks.extract_if(.., |ask| match ask {
            Ask::Watch(channel, _) => !is_up || !self.shared.is_at(channel, self.place.id),
            Ask::Unwatch(..) => false,
        }) {
            self.ledger.turn_away(ask, if is_up { MOVED_ON } else { "redis is being subscribed to again" });
        }
        self.ledger.ask(asks.drain(..), &self.shared.keys, Instant::now(), output);
    }

    /// Does what takes no connection, and returns what may.
    fn settle(&mut self, request: Request) -> Option<Ask> {
        match request {
            Request::Ask(ask) => return Some(ask),
            Request::Resettle(answer) => {
                let is_ours = |channel: &Channel| self.shared.is_at(channel, self.place.id);
                let _ = answer.send(self.ledger.release(is_ours, MOVED_ON)); // A node that shuts down has no use for it.
            }
            Request::Adopt(mut channels) => {
                channels.retain(|it| self.shared.is_wanted(it)); // It may have been unwatched on its way here.
                self.ledger.adopt(channels);
            }
        }
        None
    }

    /// Handles every whole reply that has been read.
    async fn heard(&mut self, input: &mut Input, output: &mut BytesMut) -> Result<(), Lost> {
        input.pass_over();
        let mut at = 0;
        let stop = loop {
            let (reply, used) = match resp::parse(&input.buffer[at..]) {
                Ok(parsed) => parsed,
                Err(stop) => break stop,
            };
            at += used;
            if let Reply::Publication { key, envelope } = reply {
                self.deliver(key, envelope).await;
            } else {
                self.answered(reply, output)?;
            }
        };
        input.keep_from(at, stop).map(|dropped| self.shared.metrics.publications_dropped(dropped))
    }

    async fn deliver(&self, key: &[u8], envelope: &[u8]) {
        let Some(channel) = self.shared.keys.channel(key).and_then(|name| self.ledger.heard(&name)) else {
            return; // Unwatched while it was on its way.
        };
        if wire::is_notice(envelope) {
            if let Ok(notice) = wire::read_notice(channel.clone(), envelope) {
                let _ = self.lanes.notices().send(notice).await; // A node without a desk wants none.
            }
            return;
        }
        if envelope == envelope::REMOVAL {
            let _ = self.lanes.lane(channel).send(Heard::Removal(Box::new(channel.clone()))).await;
            return;
        }
        let Ok(publication) = envelope::open(channel.clone(), envelope) else {
            self.shared.metrics.publications_dropped(1);
            return;
        };
        let lane = self.lanes.lane(channel);
        if let Err(TrySendError::Full(publication)) = lane.try_send(Heard::Publication(Arc::new(publication)))
        {
            let _ = lane.send(publication).await; // A closed lane belongs to a hub that has gone.
        }
    }

    fn answered(&mut self, reply: Reply<'_>, output: &mut BytesMut) -> Result<(), Lost> {
        let (ledger, keys) = (&mut self.ledger, &self.shared.keys);
        let agreed = match reply {
            Reply::Subscribed(key) => ledger.subscribed(keys.channel(key).as_deref()).map(|forsaken| {
                if let Some(channel) = forsaken {
                    ledger.forsake(channel, keys, Instant::now(), output);
                }
            }),
            Reply::Unsubscribed(key) => ledger.unsubscribed(key.and_then(|key| keys.channel(key)).as_deref()),
            Reply::Pong => ledger.ponged(),
            Reply::Refused(reason) => {
                let reason = String::from_utf8_lossy(reason);
                if pubsub::moved(&reason).is_some() {
                    self.shared.topology.nudge();
                }
                ledger.refused(&reason)
            }
            Reply::Publication { .. } | Reply::Other => Ok(()),
        };
        self.count_watched();
        agreed.map_err(|Disagreement(what)| Lost::NotUnderstood(what))
    }

    fn count_watched(&mut self) {
        let now = self.ledger.len() as u64;
        let mut all = self.shared.watched.lock();
        *all = *all - self.counted + now;
        self.counted = now;
        self.shared.metrics.channels_watched(*all);
    }
}

/// What has been read and not yet handled.
struct Input {
    buffer: BytesMut,
    /// Bytes still to come of a publication that is too long to be kept.
    skip: usize,
}

impl Input {
    fn new() -> Self {
        Self { buffer: BytesMut::with_capacity(BUFFER_BYTES), skip: 0 }
    }

    /// Where the next read goes: there is always ample room.
    fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < BUFFER_BYTES / 4 {
            self.buffer.reserve(BUFFER_BYTES / 2); // Moves what is left to the front: there is room unless it is long.
        }
        &mut self.buffer
    }

    /// Forgets the first `handled` bytes, and prepares for the rest of what stopped the parser. Returns how many
    /// publications are dropped.
    fn keep_from(&mut self, handled: usize, stop: Stop) -> Result<u64, Lost> {
        self.buffer.advance(handled);
        match stop {
            Stop::Malformed(what) => return Err(Lost::NotUnderstood(what)),
            Stop::Oversized { bytes } => {
                self.skip = bytes;
                self.pass_over();
                return Ok(1);
            }
            Stop::Incomplete { bytes } if bytes > BUFFER_BYTES_MAX => {
                return Err(Lost::NotUnderstood("a reply is too long"));
            }
            Stop::Incomplete { bytes } if !self.buffer.is_empty() => {
                self.buffer.reserve(bytes - self.buffer.len());
            }
            Stop::Incomplete { .. } => self.shrink(),
        }
        Ok(0)
    }

    fn pass_over(&mut self) {
        let passed = self.skip.min(self.buffer.len());
        self.buffer.advance(passed);
        self.skip -= passed;
    }

    /// A long publication's memory is not kept.
    fn shrink(&mut self) {
        if self.buffer.capacity() > 4 * BUFFER_BYTES {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
    }
}

/// Opens a connection that speaks RESP3 and has been let in.
async fn connect(server: Server, shared: Arc<Shared>) -> Result<Connected, Lost> {
    let (mut socket, tenure) = server.follow(shared.timeout).await?;
    let greeting = async {
        let mut hello = BytesMut::new();
        server.write_hello(&mut hello, &shared.client_name("watch"));
        socket.write_all_buf(&mut hello).await.map_err(Lost::Broken)?;
        let mut input = Input::new();
        loop {
            match resp::parse(&input.buffer) {
                Ok((Reply::Refused(reason), _)) => {
                    return Err(Lost::Refused(String::from_utf8_lossy(reason).into_owned()));
                }
                Ok((_, used)) => {
                    input.buffer.advance(used);
                    return Ok(input);
                }
                Err(stop) => input.keep_from(0, stop)?,
            };
            if socket.read_buf(input.space()).await.map_err(Lost::Broken)? == 0 {
                return Err(Lost::Closed);
            }
        }
    };
    let input = timeout(shared.timeout, greeting).await.unwrap_or(Err(Lost::Silent(shared.timeout)))?;
    Ok(Connected { socket, tenure, input })
}
