//! The task behind a client: connects, converses, and comes back.
//!
//! ```text
//!  orders ─► driver ─► commands, batched ─► line ─► server
//!               ▲                            │
//!               └──────── events ◄───────────┘ ─► subscribers' queues, callers
//! ```
//!
//! While there is no connection orders are taken all the same: subscribers wait to be asked for, calls wait to be sent, up to a
//! bound and until their callers have gone. Everything that happens later (another try, room in a queue, a fresh token) is a future in
//! one set, so that one select names all that can happen next.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::calls::{CALLS_MAX, Call, refusal, retry_after};
use crate::client::{Order, command, field};
use crate::line::{Gone, Line, Next, Welcome};
use crate::options::{Options, Target, TokenError, Transport};
use crate::subscriber::{Subscriber, Told};
use crate::subscription::Cause;
use crate::wire::{Kind, Position, Said};
use crate::{Ending, Error};

/// The most orders that are taken before what they come to is sent.
const ORDERS_AT_ONCE: usize = 64;

/// The most tokens in a row that are refused before the client ends.
const TOKENS_MAX: u32 = 5;

/// The longest time before its end that a token is replaced, and how soon it is tried again when there is none.
const BEFORE_THE_END: Duration = Duration::from_secs(60);
const ANOTHER_TOKEN: Duration = Duration::from_secs(5);

/// A connection that lived this long was a good one: the next wait is short again.
const STABLE: Duration = Duration::from_secs(5);

/// What an answer is about.
#[derive(Debug)]
enum Asked {
    Subscribe(String),
    Call(Call),
    /// A `ping` behind a `subscribe`: all that was replayed has come before its answer.
    Settled(String, Position),
    /// A `ping`, for the server's clock.
    Time,
    Token,
}

/// What comes later.
enum Later {
    /// A channel is to be asked for again.
    Ask(String),
    /// There is room in a subscriber's queue.
    Room(String),
    Call(Call),
    /// The token of the connection with this number that ends then is about to.
    TokenEnds(u64, u64),
    Token(u64, Result<Option<String>, TokenError>),
    /// It is to be tried whether a WebSocket is let through by now.
    Probe(u64),
    Probed(u64, Result<Box<(Line, Welcome)>, Gone>),
}

/// What happens next.
enum Event<T> {
    Ordered(Option<Order>),
    Due(Later),
    Came(T),
}

/// Why there is no more to do.
enum End {
    /// Nobody wants it any more, or somebody stopped it.
    Stopped,
    /// The server does not want it any more.
    Gone(Ending),
}

pub(crate) struct Driver {
    options: Arc<Options>,
    target: Target,
    orders: mpsc::Receiver<Order>,
    node: watch::Sender<Option<String>>,
    transport: watch::Sender<Option<Transport>>,
    subscribers: HashMap<String, Subscriber>,
    /// What the server has been asked on this connection, by `id`.
    asked: HashMap<u64, Asked>,
    /// Calls for the next connection.
    waiting: VecDeque<Call>,
    later: FuturesUnordered<BoxFuture<'static, Later>>,
    /// Commands to be sent.
    said: Vec<String>,
    last_id: u64,
    /// Counts connections; none is open while `is_up` is false.
    connections: u64,
    is_up: bool,
    bytes_max: usize,
    /// Which transport has its turn.
    turn: usize,
    /// A WebSocket that is let through, in place of what there is.
    better: Option<Box<(Line, Welcome)>>,
    /// When the token ends, and how far the server's clock is ahead of ours, in milliseconds.
    expires: Option<u64>,
    clock_ahead_ms: i128,
}

impl Driver {
    pub(crate) fn new(
        options: Arc<Options>,
        target: Target,
        orders: mpsc::Receiver<Order>,
        node: watch::Sender<Option<String>>,
        transport: watch::Sender<Option<Transport>>,
    ) -> Self {
        Self {
            options,
            target,
            orders,
            node,
            transport,
            subscribers: HashMap::new(),
            asked: HashMap::new(),
            waiting: VecDeque::new(),
            later: FuturesUnordered::new(),
            said: Vec::new(),
            last_id: 0,
            connections: 0,
            is_up: false,
            bytes_max: usize::MAX,
            turn: 0,
            better: None,
            expires: None,
            clock_ahead_ms: 0,
        }
    }

    /// Runs until nobody wants the client any more, or the server does not, and says which.
    pub(crate) async fn run(mut self, over: Arc<OnceLock<Ending>>) {
        let ending = match self.keep_coming_back().await {
            End::Stopped => Ending { code: None, reason: "it was stopped".into() },
            End::Gone(ending) => ending,
        };
        let ending = over.get_or_init(|| ending);
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Subscribe(_, subscriber) => subscriber.end(Error::Ended(ending.clone())),
                Order::Call(call) => call.fail(Error::Ended(ending.clone())),
                Order::Leave(_) | Order::Stop => {}
            }
        }
        let asked = self
            .asked
            .into_values()
            .filter_map(|it| if let Asked::Call(call) = it { Some(call) } else { None });
        for call in asked.chain(self.waiting) {
            call.fail(Error::Ended(ending.clone()));
        }
        for subscriber in self.subscribers.into_values() {
            subscriber.end(Error::Ended(ending.clone()));
        }
    }

    async fn keep_coming_back(&mut self) -> End {
        let mut backoff = Backoff::new();
        let mut refused_tokens = 0;
        loop {
            let gone = match self.open().await {
                Err(end) => return end,
                Ok(Err(gone)) => gone,
                Ok(Ok((line, welcome))) => {
                    refused_tokens = 0;
                    let began = Instant::now();
                    let outcome = self.converse(line, welcome).await;
                    self.lost();
                    if began.elapsed() >= STABLE {
                        backoff.reset();
                    }
                    match outcome {
                        Err(end) => return end,
                        Ok(gone) => gone,
                    }
                }
            };
            if self.better.is_some() {
                continue;
            }
            let at_least = match gone.next {
                Next::Again(wait) => wait,
                // Perhaps it was no word of the gateway's. The last transport is believed.
                Next::End if gone.is_blocked && self.turn + 1 < self.turns().len() => None,
                Next::WithAnotherToken if self.options.token.is_fresh() && refused_tokens < TOKENS_MAX => {
                    refused_tokens += 1;
                    None
                }
                Next::WithAnotherToken | Next::End => return End::Gone(gone.ending()),
            };
            if gone.is_blocked {
                self.turn = (self.turn + 1) % self.turns().len();
            }
            let wait = sleep(backoff.next(at_least));
            if let Err(end) = self.meanwhile(wait.boxed()).await {
                return end;
            }
        }
    }

    /// A connection, by the transport whose turn it is.
    async fn open(&mut self) -> Result<Result<(Line, Welcome), Gone>, End> {
        if let Some(better) = self.better.take() {
            self.turn = 0;
            return Ok(Ok(*better));
        }
        let transport = self.turns()[self.turn];
        let opening = open(self.options.clone(), self.target.clone(), transport);
        self.meanwhile(opening.boxed()).await
    }

    /// A WebSocket has two tries: one may be bad luck.
    fn turns(&self) -> Vec<Transport> {
        let times = |it: Transport| if it == Transport::WebSocket { 2 } else { 1 };
        self.options.transports.iter().flat_map(|it| std::iter::repeat_n(*it, times(*it))).collect()
    }

    /// Waits for something without a connection, and takes orders meanwhile.
    async fn meanwhile<T>(&mut self, mut something: BoxFuture<'_, T>) -> Result<T, End> {
        loop {
            match self.next(&mut something).await {
                Event::Came(outcome) => return Ok(outcome),
                Event::Ordered(order) => self.ordered(order)?,
                Event::Due(later) => self.due(later),
            }
        }
    }

    async fn next<T>(&mut self, something: impl Future<Output = T>) -> Event<T> {
        let later = async {
            match self.later.next().await {
                Some(later) => later,
                None => pending().await,
            }
        };
        tokio::select! {
            outcome = something => Event::Came(outcome),
            order = self.orders.recv() => Event::Ordered(order),
            later = later => Event::Due(later),
        }
    }

    async fn converse(&mut self, mut line: Line, welcome: Welcome) -> Result<Gone, End> {
        self.welcomed(welcome);
        loop {
            if let Err(gone) = line.say(&mut self.said).await {
                return Ok(gone);
            }
            if self.better.is_some() {
                return Ok(Gone::because("a WebSocket is let through"));
            }
            let outcome = match self.next(line.next()).await {
                Event::Came(Err(gone)) => return Ok(gone),
                Event::Came(Ok(text)) => {
                    if let Ok(mut said) = serde_json::from_str::<Said<'_>>(&text) {
                        if said.kind == Kind::Closing {
                            line.is_closing(&said);
                        }
                        self.heard(&mut said);
                    }
                    Ok(())
                }
                Event::Due(later) => {
                    self.due(later);
                    Ok(())
                }
                Event::Ordered(order) => self.ordered(order).and_then(|()| self.more_orders()),
            };
            if let Err(end) = outcome {
                let _ = line.say(&mut self.said).await; // What was ordered before the stop.
                line.close().await;
                return Err(end);
            }
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        self.connections += 1;
        self.is_up = true;
        self.bytes_max = welcome.message_bytes;
        self.expires = None;
        if self.turns()[self.turn] == Transport::WebSocket {
            self.turn = 0;
            if self.options.token.is_fresh() {
                let id = self.id();
                self.said.push(ping(id));
                self.asked.insert(id, Asked::Time);
            }
        } else if self.options.transports[0] == Transport::WebSocket {
            self.later(self.options.probe.mul_f64(0.5 + fastrand::f64()), Later::Probe(self.connections));
        }
        self.token_ends(welcome.expires);
        // The server's own subscriptions begin anew; ours go on where they were.
        for channel in welcome.channels.iter().filter(|channel| self.subscribers.contains_key(*channel)) {
            self.said.push(leave(channel));
        }
        let idle = self.subscribers.iter().filter(|(_, it)| it.is_idle()).map(|(channel, _)| channel.clone());
        for channel in idle.collect::<Vec<_>>() {
            self.ask(channel);
        }
        for call in std::mem::take(&mut self.waiting) {
            self.send(call);
        }
        self.transport.send_replace(Some(self.turns()[self.turn]));
        self.node.send_replace(Some(welcome.node));
    }

    /// The connection is no more.
    fn lost(&mut self) {
        self.is_up = false;
        self.said.clear();
        self.transport.send_replace(None);
        self.node.send_replace(None);
        let mut asked: Vec<_> = self.asked.drain().collect();
        asked.sort_unstable_by_key(|(id, _)| *id);
        for (_, asked) in asked {
            match asked {
                Asked::Call(call) if call.is_repeatable => self.waiting.push_back(call),
                Asked::Call(call) => call.fail(Error::Unknown),
                Asked::Subscribe(_) | Asked::Settled(..) | Asked::Time | Asked::Token => {}
            }
        }
        for channel in self.subscribers.keys().cloned().collect::<Vec<_>>() {
            self.tell(&channel, |subscriber| subscriber.interrupted(Cause::Connection));
        }
    }

    fn more_orders(&mut self) -> Result<(), End> {
        for _ in 1..ORDERS_AT_ONCE {
            match self.orders.try_recv() {
                Ok(order) => self.ordered(Some(order))?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn ordered(&mut self, order: Option<Order>) -> Result<(), End> {
        match order {
            None | Some(Order::Stop) => return Err(End::Stopped),
            Some(Order::Subscribe(channel, subscriber)) => {
                self.drop_unwanted(&channel);
                if self.subscribers.contains_key(&channel) {
                    subscriber.end(Error::Subscribed(channel));
                } else {
                    self.subscribers.insert(channel.clone(), *subscriber);
                    self.ask(channel);
                }
            }
            Some(Order::Leave(channel)) => self.drop_unwanted(&channel),
            Some(Order::Call(call)) => self.send(call),
        }
        Ok(())
    }

    /// Leaves a channel to which nobody listens.
    fn drop_unwanted(&mut self, channel: &str) {
        if let Some(subscriber) = self.subscribers.get(channel).filter(|it| !it.is_wanted()) {
            if self.is_up && !subscriber.is_idle() {
                self.said.push(leave(channel));
            }
            self.subscribers.remove(channel);
        }
    }

    fn ask(&mut self, channel: String) {
        if !self.is_up {
            return; // All are asked for when there is a connection.
        }
        let id = self.id();
        let Some(subscriber) = self.subscribers.get_mut(&channel).filter(|it| it.is_idle()) else { return };
        self.said.push(format!("{{\"id\":{id},{}}}", subscriber.ask(id, &channel)));
        self.asked.insert(id, Asked::Subscribe(channel));
    }

    fn send(&mut self, call: Call) {
        if call.answer.is_closed() {
            return;
        }
        let bytes = call.fields.len() + 32; // The braces and the id.
        if self.asked.len() + self.waiting.len() >= CALLS_MAX + self.subscribers.len() {
            self.waiting.retain(|call| !call.answer.is_closed());
            call.fail(Error::Busy);
        } else if !self.is_up {
            self.waiting.push_back(call);
        } else if bytes > self.bytes_max {
            call.fail(Error::TooLarge { bytes, bytes_max: self.bytes_max });
        } else {
            let id = self.id();
            self.said.push(format!("{{\"id\":{id},{}}}", call.fields));
            self.asked.insert(id, Asked::Call(call));
        }
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn due(&mut self, later: Later) {
        match later {
            Later::Ask(channel) => self.ask(channel),
            Later::Room(channel) => {
                self.tell(&channel, Subscriber::has_room);
                self.ask(channel);
            }
            Later::Call(call) => self.send(call),
            Later::TokenEnds(connection, expires) => {
                if self.is_up && connection == self.connections && self.expires == Some(expires) {
                    let options = self.options.clone();
                    let token = async move { Later::Token(connection, options.token.get().await) };
                    self.later.push(token.boxed());
                }
            }
            Later::Token(connection, token) if self.is_up && connection == self.connections => match token {
                Ok(Some(token)) => {
                    let id = self.id();
                    let mut fields = format!("{{\"id\":{id},\"type\":\"auth\"");
                    field(&mut fields, "token", &token).expect("a string can be written");
                    self.said.push(fields + "}");
                    self.asked.insert(id, Asked::Token);
                }
                Ok(None) => {}
                Err(_) => self.another_token(),
            },
            Later::Token(..) => {} // The next connection has asked for its own.
            Later::Probe(connection) if self.is_up && connection == self.connections => {
                let opening = open(self.options.clone(), self.target.clone(), Transport::WebSocket);
                let probed = async move { Later::Probed(connection, opening.await.map(Box::new)) };
                self.later.push(probed.boxed());
            }
            Later::Probed(connection, outcome) if self.is_up && connection == self.connections => {
                match outcome {
                    Ok(better) => self.better = Some(better),
                    Err(_) => {
                        self.later(
                            self.options.probe.mul_f64(0.5 + fastrand::f64()),
                            Later::Probe(connection),
                        );
                    }
                }
            }
            Later::Probe(_) | Later::Probed(..) => {}
        }
    }

    fn later(&mut self, wait: Duration, later: Later) {
        self.later.push(sleep(wait).map(|()| later).boxed());
    }

    /// Has the token replaced in time, where another can be had: by the server's clock, as far as that is known.
    fn token_ends(&mut self, expires: Option<u64>) {
        let Some(expires) = expires.filter(|it| self.options.token.is_fresh() && self.expires != Some(*it))
        else {
            return;
        };
        self.expires = Some(expires);
        let left_ms = i128::from(expires) * 1000 - now_ms() - self.clock_ahead_ms;
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let wait = left - (left / 4).min(BEFORE_THE_END);
        self.later(wait, Later::TokenEnds(self.connections, expires));
    }

    fn heard(&mut self, said: &mut Said<'_>) {
        let asked = said.id.and_then(|id| self.asked.remove(&id));
        match (said.kind, asked) {
            (_, Some(Asked::Call(call))) => {
                if let Some((call, wait)) = call.answered(said) {
                    self.later(wait, Later::Call(call));
                }
            }
            (_, Some(Asked::Settled(channel, at))) => {
                if let Some(subscriber) = self.subscribers.get_mut(&channel) {
                    subscriber.settled(at);
                }
            }
            (Kind::Subscribed, Some(Asked::Subscribe(channel))) => self.subscribed(channel, said),
            (Kind::Subscribed, None) => {
                let (position, recovered) = (said.position(), said.recovered);
                if let Some(channel) = said.channel.as_deref() {
                    self.tell(channel, |subscriber| subscriber.again(position, recovered));
                }
            }
            (Kind::Error, Some(Asked::Subscribe(channel))) => self.refused(channel, said),
            (Kind::Refreshed, _) => self.token_ends(said.expires),
            // Over HTTP, where the stream that names them begins after all else.
            (Kind::Welcome, _) => {
                self.token_ends(said.expires);
                self.node.send_replace(said.node.clone());
            }
            (Kind::Pong, Some(Asked::Time)) => self.clock_is(said.time),
            (Kind::Error, Some(Asked::Token)) => self.another_token(),
            (Kind::Message, _) => {
                let message = said.publication();
                if let (Some(channel), Some(message)) = (said.channel.as_deref(), message) {
                    self.tell(channel, |subscriber| subscriber.published(message));
                }
            }
            (Kind::Joined | Kind::Left, _) => {
                if let (Some(channel), Some(member)) = (said.channel.as_deref(), said.member.take()) {
                    let joined = said.kind == Kind::Joined;
                    self.tell(channel, |subscriber| subscriber.moved(member, joined));
                }
            }
            (Kind::Unsubscribed, _) => self.unsubscribed(said),
            _ => {}
        }
    }

    /// There was none, or it was refused.
    fn another_token(&mut self) {
        if let Some(expires) = self.expires {
            self.later(ANOTHER_TOKEN, Later::TokenEnds(self.connections, expires));
        }
    }

    /// What the server's clock says.
    fn clock_is(&mut self, time: Option<u64>) {
        let Some(time) = time else { return };
        self.clock_ahead_ms = i128::from(time) - now_ms();
        let expires = self.expires.take();
        self.token_ends(expires);
    }

    fn subscribed(&mut self, channel: String, said: &Said<'_>) {
        let Some(subscriber) = self.subscribers.get_mut(&channel) else { return };
        if !said.id.is_some_and(|id| subscriber.has_asked(id)) {
            return; // Of a subscriber that has left meanwhile.
        }
        let (told, rewound) = subscriber.subscribed(said.position(), said.recovered);
        self.told(&channel, told);
        if let Some(position) = rewound {
            let id = self.id();
            self.said.push(ping(id));
            self.asked.insert(id, Asked::Settled(channel, position));
        }
    }

    /// The server did not subscribe the client to a channel.
    fn refused(&mut self, channel: String, said: &Said<'_>) {
        let Some(subscriber) = self.subscribers.get_mut(&channel) else { return };
        if !said.id.is_some_and(|id| subscriber.has_asked(id)) {
            return;
        }
        subscriber.interrupted(Cause::Connection);
        match said.code {
            Some(4409) => {
                self.said.push(leave(&channel)); // By the server itself, since it welcomed us.
                self.ask(channel);
            }
            Some(4429 | 4503) => self.later(retry_after(said), Later::Ask(channel)),
            _ => {
                if let Some(subscriber) = self.subscribers.remove(&channel) {
                    subscriber.end(refusal(said));
                }
            }
        }
    }

    /// The server has ended a subscription.
    fn unsubscribed(&mut self, said: &Said<'_>) {
        let Some(channel) = said.channel.as_deref() else { return };
        match said.code {
            None => {} // We have left.
            Some(4410) => {
                self.tell(channel, |subscriber| subscriber.interrupted(Cause::Gap));
                let jitter = Duration::from_millis(fastrand::u64(0..200));
                self.later(jitter, Later::Ask(channel.to_owned()));
            }
            Some(_) => {
                if let Some(subscriber) = self.subscribers.remove(channel) {
                    subscriber.end(refusal(said));
                }
            }
        }
    }

    fn tell(&mut self, channel: &str, event: impl FnOnce(&mut Subscriber) -> Told) {
        if let Some(subscriber) = self.subscribers.get_mut(channel) {
            let told = event(subscriber);
            self.told(channel, told);
        }
    }

    fn told(&mut self, channel: &str, told: Told) {
        match told {
            Told::Yes => {}
            Told::Gone => self.drop_unwanted(channel),
            Told::Lagged => {
                if self.is_up {
                    self.said.push(leave(channel));
                }
                let room = self.subscribers[channel].room();
                let channel = channel.to_owned();
                self.later.push(room.map(|()| Later::Room(channel)).boxed());
            }
        }
    }
}

/// A connection, by this transport.
async fn open(options: Arc<Options>, target: Target, transport: Transport) -> Result<(Line, Welcome), Gone> {
    let token = options.token.get().await.map_err(|error| Gone::without_token(&error))?;
    Line::open(&options, &target, transport, token).await
}

#[expect(clippy::disallowed_methods, reason = "a token says in the world's time when it ends")]
fn now_ms() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_millis()).unwrap_or(i128::MAX)
}

fn ping(id: u64) -> String {
    format!("{{\"id\":{id},\"type\":\"ping\"}}")
}

/// The command that leaves a channel, to which there is no answer.
fn leave(channel: &str) -> String {
    format!("{{{}}}", command("unsubscribe", channel).expect("a name can be written"))
}
