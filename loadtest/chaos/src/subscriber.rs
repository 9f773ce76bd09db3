//! A client as the protocol wants it: it comes back when it is cut off, resumes where it was, and takes the server at its
//! word.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::follow::{Entered, Entry, Follow, Offence, Position};
use crate::record::{Doubt, Record};
use crate::socket::{Event, Gone, Socket, backoff, position};
use crate::stamp::Stamp;

/// How long an answer to `subscribe` may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a subscriber remembers to explain an offence with.
const TRAIL_MAX: usize = 24;

/// A connection that nothing ends is ended by its client after a while, in seconds: people come and go, and a node that
/// was down has clients again.
const STAYS_SECONDS: std::ops::Range<u64> = 5..60;

/// What such a client says of it.
const MOVED_ON: &str = "moved on";

/// How a connection ends whose node drains.
const SENT_AWAY: &str = "1001";

/// Clients that open a connection in the same instant at most wait this long for their first.
const FIRST_WITHIN_MILLIS: u64 = 3000;

/// One subscriber, shared by its task and by those who ask how far it is.
#[derive(Debug)]
pub(crate) struct Subscriber {
    number: usize,
    proxy: SocketAddr,
    record: Rc<Record>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    subscriptions: HashMap<usize, Subscription>,
    trail: VecDeque<String>,
    node: Option<String>,
    session: Option<String>,
    /// When its last connection ended, until all its channels are live again.
    cut_off: Option<Instant>,
}

#[derive(Debug, Default)]
struct Subscription {
    kept: Option<Follow>,
    /// What stands at its place, where it has heard that.
    newest: Option<Stamp>,
    plain: Plain,
    standing: Standing,
}

/// What was heard on a channel without history.
#[derive(Debug, Default)]
struct Plain {
    /// On this subscription. A client that moves to a node that lags behind may hear again what it heard from another.
    now: HashSet<(u32, u64)>,
    /// The highest number of each publisher, on this subscription.
    last: HashMap<u32, u64>,
    /// On any subscription.
    ever: HashSet<(u32, u64)>,
}

/// Where a subscription stands on the present connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Not asked for.
    #[default]
    Off,
    /// To be asked for (again) then.
    Due(Instant),
    /// Asked for then.
    Asked(Instant),
    /// Granted.
    Live,
}

impl Subscriber {
    /// A subscriber of some channels, that has not begun yet.
    pub(crate) fn new(
        number: usize,
        proxy: SocketAddr,
        record: &Rc<Record>,
        channels: &[usize],
        seed: u64,
    ) -> Rc<Self> {
        let kept = record.channels(true);
        let subscription = |&channel: &usize| {
            let kept = kept.contains(&channel).then(Follow::default);
            (channel, Subscription { kept, ..Subscription::default() })
        };
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            subscriptions: channels.iter().map(subscription).collect(),
            trail: VecDeque::new(),
            node: None,
            session: None,
            cut_off: None,
        };
        Rc::new(Self { number, proxy, record: Rc::clone(record), state: RefCell::new(state) })
    }

    /// Its place in each channel with history; none where it is not subscribed now.
    pub(crate) fn places(&self) -> Vec<(usize, Option<Position>)> {
        let state = self.state.borrow();
        let kept =
            state.subscriptions.iter().filter_map(|(channel, it)| Some((*channel, it, it.kept.as_ref()?)));
        kept.map(|(channel, it, follow)| {
            (channel, follow.position().filter(|_| it.standing == Standing::Live).cloned())
        })
        .collect()
    }

    /// Whether every channel is live.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.borrow().subscriptions.values().all(|it| it.standing == Standing::Live)
    }

    /// The node that serves it; none while it has no connection.
    pub(crate) fn node(&self) -> Option<String> {
        self.state.borrow().node.clone()
    }

    /// Its present connection, if it is subscribed to a channel by that.
    pub(crate) fn session_on(&self, channel: usize) -> Option<String> {
        let state = self.state.borrow();
        let is_live = state.subscriptions.get(&channel).is_some_and(|it| it.standing == Standing::Live);
        state.session.clone().filter(|_| is_live)
    }

    /// What it did and heard of late.
    pub(crate) fn trail(&self) -> String {
        let state = self.state.borrow();
        format!("subscriber {}: {}", self.number, Vec::from(state.trail.clone()).join("; "))
    }

    /// Acknowledged publications on channels without history that it did not hear.
    pub(crate) fn missed(&self) -> u64 {
        let state = self.state.borrow();
        let plain = state.subscriptions.iter().filter(|(_, it)| it.kept.is_none());
        plain
            .map(|(channel, it)| {
                let heard = it.plain.ever.iter();
                let heard = heard.filter(|what| self.record.is_acknowledged(*channel, **what)).count();
                self.record.acknowledged_count(*channel).saturating_sub(heard as u64)
            })
            .sum()
    }

    /// Listens for as long as the run lasts.
    pub(crate) async fn run(self: Rc<Self>) {
        let first = self.state.borrow_mut().random.u64(..FIRST_WITHIN_MILLIS);
        sleep(Duration::from_millis(first)).await;
        let mut failures = 0;
        let mut sent_away_by = None;
        loop {
            let gone = match Socket::open(self.proxy).await {
                Ok(mut socket) => {
                    failures = 0;
                    self.record.arrived(&socket.node, sent_away_by.take().as_deref());
                    self.remember(&format!("came to {}", socket.node));
                    let gone = self.listen(&mut socket).await;
                    sent_away_by = (gone.how == SENT_AWAY).then(|| socket.node.clone());
                    self.record.closed(gone.how.clone());
                    gone
                }
                Err(gone) => {
                    self.record.closed(format!("not let in: {}", gone.how));
                    gone
                }
            };
            self.left(&gone);
            let wait = gone.after.unwrap_or_else(|| backoff(&mut self.state.borrow_mut().random, failures));
            failures += 1;
            sleep(wait).await;
        }
    }

    fn left(&self, gone: &Gone) {
        self.remember(&format!("left: {}", gone.how));
        if gone.how.starts_with("not understood") || gone.how.ends_with("for good") {
            self.offend(Offence::Unexpected, 1, &gone.how);
        }
        let mut state = self.state.borrow_mut();
        if state.node.take().is_some() && gone.how != MOVED_ON {
            state.cut_off.get_or_insert_with(Instant::now);
        }
        state.subscriptions.values_mut().for_each(|it| it.standing = Standing::Off);
    }

    /// One connection, to its end.
    async fn listen(&self, socket: &mut Socket) -> Gone {
        let leaves;
        {
            let mut state = self.state.borrow_mut();
            state.node = Some(socket.node.clone());
            state.session = Some(socket.session.clone());
            let now = Instant::now();
            leaves = now + Duration::from_secs(state.random.u64(STAYS_SECONDS));
            state.subscriptions.values_mut().for_each(|it| it.standing = Standing::Due(now));
        }
        loop {
            if let Err(gone) = self.ask(socket).await {
                return gone;
            }
            let heard = tokio::select! {
                heard = socket.hear() => heard,
                () = sleep_until(leaves), if !self.record.is_stopped() => {
                    if self.record.is_stopped() {
                        continue; // In the end everybody stays, so that it is known who is there.
                    }
                    return Gone { how: MOVED_ON.into(), after: Some(Duration::ZERO) };
                }
                overdue = self.wait() => {
                    if overdue {
                        return Gone { how: "subscribe unanswered".into(), after: None };
                    }
                    continue;
                }
            };
            match heard {
                Ok(event) => self.take(event),
                Err(gone) => return gone,
            }
        }
    }

    /// Asks for every subscription that is due.
    async fn ask(&self, socket: &mut Socket) -> Result<(), Gone> {
        let now = Instant::now();
        let commands: Vec<Value> = {
            let mut state = self.state.borrow_mut();
            let due = state.subscriptions.iter_mut();
            let due = due.filter(|(_, it)| matches!(it.standing, Standing::Due(at) if at <= now));
            due.map(|(channel, it)| {
                it.standing = Standing::Asked(now);
                let mut command = json!({"type": "subscribe", "channel": self.record.name(*channel)});
                if let Some(position) = it.kept.as_ref().and_then(Follow::position) {
                    command["since"] = json!(position);
                }
                command
            })
            .collect()
        };
        for command in commands {
            socket.say(&command).await?;
        }
        Ok(())
    }

    /// Waits until a subscription is due, or an answer overdue: that is what it returns.
    async fn wait(&self) -> bool {
        let (at, overdue) = {
            let state = self.state.borrow();
            let deadlines = state.subscriptions.values().filter_map(|it| match it.standing {
                Standing::Due(at) => Some((at, false)),
                Standing::Asked(at) => Some((at + ANSWER_WITHIN, true)),
                Standing::Off | Standing::Live => None,
            });
            deadlines.min().unwrap_or_else(|| (Instant::now() + Duration::from_secs(3600), false))
        };
        sleep_until(at).await;
        overdue
    }

    fn take(&self, event: Event) {
        match event {
            Event::Subscribed { channel, epoch, offset, recovered } => {
                let position = position(epoch, offset);
                self.remember(&format!("subscribed {channel} {position:?} recovered {recovered}"));
                self.enter(&channel, position.as_ref(), recovered);
            }
            Event::Unsubscribed { channel, code } => {
                self.remember(&format!("unsubscribed {channel} {code:?}"));
                let word = if code == Some(4410) { "unsubscribed 4410" } else { "unsubscribed" };
                self.record.gap_told(word);
                self.again(&channel, Duration::ZERO);
            }
            Event::Message { channel, data, offset, recovered } => {
                self.hear(&channel, &data, offset, recovered)
            }
            Event::Error { channel, code, retry_after, .. } => {
                self.remember(&format!("error {channel:?} {code}"));
                self.record.refused(code);
                let wait = retry_after.unwrap_or_else(|| self.state.borrow_mut().random.u64(200..1000));
                match channel {
                    Some(channel) if matches!(code, 4503 | 4429 | 4410) => {
                        self.again(&channel, Duration::from_millis(wait));
                    }
                    _ => self.offend(Offence::Unexpected, 1, &format!("{channel:?} was refused: {code}")),
                }
            }
            Event::Welcome { .. } | Event::Published { .. } | Event::Closing { .. } | Event::Other => {}
        }
    }

    fn again(&self, channel: &str, wait: Duration) {
        let due = Standing::Due(Instant::now() + wait);
        self.with(channel, |it| it.standing = due);
    }

    fn enter(&self, channel: &str, position: Option<&Position>, recovered: bool) {
        let entered = self.with(channel, |it| {
            let asked = matches!(std::mem::replace(&mut it.standing, Standing::Live), Standing::Asked(_));
            let entered = match (&mut it.kept, position.cloned()) {
                (Some(follow), Some(position)) => {
                    let entered = follow.enter(Entry { position, recovered });
                    if entered != Entered::Recovered {
                        it.newest = None;
                    }
                    Some(entered)
                }
                (None, None) => {
                    it.plain.begin();
                    None
                }
                _ => Some(Entered::Offence(Offence::Unexpected)),
            };
            if asked { entered } else { Some(Entered::Offence(Offence::Unexpected)) }
        });
        if self.is_whole()
            && let Some(since) = self.state.borrow_mut().cut_off.take()
        {
            self.record.back_after(since.elapsed());
        }
        match entered.flatten() {
            None | Some(Entered::Fresh) => {}
            Some(Entered::Recovered) => {
                self.record.counts.borrow_mut().recoveries += 1;
                self.stand(channel);
            }
            Some(Entered::ToldLoss { before, another_epoch }) => {
                self.record.gap_told("recovered: false");
                let what = format!("{channel}: told of a loss at {position:?}");
                // A history as long as the run has everything, as long as Redis has.
                if !(another_epoch && self.record.lives_have_ended()) {
                    self.offend(Offence::NeedlessGap, 1, &format!("{what}, and Redis had everything"));
                } else if let (Some(number), Some(position)) = (self.record.channel_named(channel), position)
                {
                    let story = format!("{what} ({})", self.trail());
                    self.record.doubt(number, Doubt { place: before, top: position.offset, story });
                }
            }
            Some(Entered::Offence(offence)) => {
                self.offend(
                    offence,
                    1,
                    &format!("{channel}: subscribed at {position:?}, recovered {recovered}"),
                );
            }
        }
    }

    /// Enters in the record what it comes back to: under another epoch too it is what the others hear there.
    fn stand(&self, channel: &str) {
        let place = self.with(channel, |it| it.newest.clone().zip(it.kept.as_ref()?.position().cloned()));
        if let (Some(number), Some((stamp, position))) = (self.record.channel_named(channel), place.flatten())
        {
            self.record.placed(number, &stamp, &position);
        }
    }

    fn hear(&self, channel: &str, stamp: &Stamp, offset: Option<u64>, replayed: bool) {
        let what = (stamp.publisher, stamp.number);
        self.remember(&format!("{channel} {offset:?} {what:?}"));
        let outcome = self.with(channel, |it| {
            if it.standing != Standing::Live {
                return Err((Offence::Unexpected, 1));
            }
            match (&mut it.kept, offset) {
                (Some(follow), Some(offset)) => follow.hear(offset).map(|()| {
                    it.newest = Some(stamp.clone());
                    follow.position().cloned()
                }),
                (None, None) => {
                    it.plain.hear(what, || self.record.is_acknowledged_on(channel, what)).map(|()| None)
                }
                _ => Err((Offence::Unexpected, 1)),
            }
        });
        let Some(outcome) = outcome else {
            return self.offend(Offence::Unexpected, 1, &format!("{channel}: heard and not subscribed"));
        };
        let mut sound = stamp.is_sound(channel);
        match outcome {
            Ok(position) => {
                self.count(position.is_some(), replayed);
                if let (Some(number), Some(position)) = (self.record.channel_named(channel), position) {
                    self.record.placed(number, stamp, &position);
                } else {
                    sound &= offset.is_none();
                }
            }
            Err((offence, times)) => {
                self.offend(offence, times, &format!("{channel}: {what:?} at {offset:?}"));
            }
        }
        if !sound {
            self.offend(Offence::Altered, 1, &format!("{channel}: the sum of {what:?} is wrong"));
        }
    }

    fn count(&self, kept: bool, replayed: bool) {
        let mut counts = self.record.counts.borrow_mut();
        if kept {
            counts.delivered_kept += 1;
        } else {
            counts.delivered_plain += 1;
        }
        counts.replayed += u64::from(replayed);
    }

    fn with<T>(&self, channel: &str, act: impl FnOnce(&mut Subscription) -> T) -> Option<T> {
        let number = self.record.channel_named(channel)?;
        self.state.borrow_mut().subscriptions.get_mut(&number).map(act)
    }

    fn remember(&self, what: &str) {
        let mut state = self.state.borrow_mut();
        if state.trail.len() == TRAIL_MAX {
            state.trail.pop_front();
        }
        state.trail.push_back(format!("{} {what}", self.record.time()));
    }

    fn offend(&self, offence: Offence, times: u64, what: &str) {
        let node = self.node();
        self.record.offend(offence, times, &format!("{what} (by {node:?}; {})", self.trail()));
    }
}

impl Plain {
    /// Begins anew, on another connection.
    fn begin(&mut self) {
        self.now.clear();
        self.last.clear();
    }

    /// Each publication at most once, and each publisher's in order. One that was not acknowledged may come late: its
    /// publisher has gone on without it.
    fn hear(&mut self, what: (u32, u64), acknowledged: impl FnOnce() -> bool) -> Result<(), (Offence, u64)> {
        self.ever.insert(what);
        if !self.now.insert(what) {
            return Err((Offence::Doubled, 1));
        }
        let last = self.last.entry(what.0).or_default();
        if what.1 < *last {
            return if acknowledged() { Err((Offence::Reordered, 1)) } else { Ok(()) };
        }
        *last = what.1;
        Ok(())
    }
}
