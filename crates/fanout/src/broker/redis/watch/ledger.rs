//! What is watched, what the server has been asked, and what it has confirmed. No I/O.
//!
//! ```text
//!             watch                confirmed              unwatch
//!  (absent) ─────────► Asked(batch) ────────► Watched ─────────────► (absent)   UNSUBSCRIBE sent, confirmed later
//!                       └ refused, or the connection is lost ─► (absent)
//!                                     confirmed ▲ │ the server drops it: its slot moves
//!             adopt                             │ ▼
//!  (absent) ─────────────────────────────────► Adrift ─ release ─► (absent), and adopted by another ledger
//! ```
//!
//! **Invariants.**
//! - Questions are answered in the order in which they were asked, and Redis confirms a batch key by key: the front of
//!   `asked` says what the next confirmation must be. Anything else means that the two sides disagree, and the
//!   connection is given up: everything is resubscribed on the next.
//! - A `watch` is answered by the confirmation of the very SUBSCRIBE that it caused. Only `Watched` channels are heard.
//! - `Watched` survives the loss of the connection; `Asked` does not, for its caller hears that it failed.
//! - What is `Adrift` is asked for again until it is confirmed or released.
//!
//! **In a Redis Cluster** a question is about one slot. The server unsubscribes by itself from what moves away, whenever
//! that is, and refuses every question about it with MOVED and the slot. So its unsubscribing may look like the answer to our
//! own, which it then refuses as well: a MOVED about another slot than that of the front is such a belated one, and means
//! nothing. Whatever else is about the moved slot is refused in its turn.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::vec;

use bytes::BytesMut;
use fanfare_protocol::Channel;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::redis::keys::{self, Keys};
use crate::broker::redis::pubsub::{self, Pubsub};
use crate::broker::redis::resp::{write_command, write_keys_command};

/// The most keys in one SUBSCRIBE or UNSUBSCRIBE.
pub(super) const BATCH_MAX: usize = 512;

/// What callers ask for.
#[derive(Debug)]
pub(super) enum Ask {
    Watch(Channel, oneshot::Sender<Result<(), BrokerError>>),
    Unwatch(Channel, oneshot::Sender<()>),
}

/// A channel to unsubscribe from, and who waits for that.
type Leave = (Channel, Option<oneshot::Sender<()>>);

/// The server said what it should not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disagreement(pub(super) &'static str);

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pubsub: Pubsub,
    channels: HashMap<Channel, Phase>,
    asked: VecDeque<Asked>,
    batches: u64,
    /// Channels not asked for again yet on this connection.
    again: Vec<Channel>,
    /// Questions about those under way.
    again_asked: usize,
    /// Refused, or dropped by the server, and not asked for again yet.
    adrift: Vec<Channel>,
    /// Something has been adrift since this was last asked.
    interrupted: bool,
}

#[derive(Debug)]
enum Phase {
    /// A SUBSCRIBE is under way, and these wait for it.
    Asked {
        batch: u64,
        waiting: Vec<oneshot::Sender<Result<(), BrokerError>>>,
    },
    Watched,
    /// Watched, but the server does not carry it now. These wait until it does.
    Adrift {
        waiting: Vec<oneshot::Sender<Result<(), BrokerError>>>,
    },
}

#[derive(Debug)]
struct Asked {
    since: Instant,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Subscribe { batch: u64, again: bool, channels: vec::IntoIter<Channel> },
    Unsubscribe { channels: vec::IntoIter<Channel>, waiting: Vec<oneshot::Sender<()>> },
    Ping,
}

impl Question {
    /// The slot that it is about, where it is about one.
    fn slot(&self) -> Option<u16> {
        match self {
            Self::Subscribe { channels, .. } | Self::Unsubscribe { channels, .. } => {
                channels.as_slice().first().map(keys::slot)
            }
            Self::Ping => None,
        }
    }
}

impl Ledger {
    /// An empty one for a server of that kind.
    pub(super) fn new(pubsub: Pubsub) -> Self {
        Self { pubsub, ..Self::default() }
    }

    /// How many channels are watched, or about to be.
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The channel of that name, if it is watched.
    pub(super) fn heard(&self, name: &str) -> Option<&Channel> {
        let (channel, phase) = self.channels.get_key_value(name)?;
        matches!(phase, Phase::Watched).then_some(channel)
    }

    /// How many questions are open.
    pub(super) fn open(&self) -> usize {
        self.asked.len()
    }

    /// When the oldest open question was asked.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.since)
    }

    /// A new connection knows nothing: everything watched has to be asked for again.
    pub(super) fn start_again(&mut self) {
        debug_assert!(self.asked.is_empty(), "the loss of a connection closes its questions");
        self.again = self.channels.keys().cloned().collect();
        if self.pubsub == Pubsub::Shard {
            self.again.sort_by_cached_key(keys::slot); // A command takes the channels of one slot.
        }
    }

    /// Whether nothing is left to be asked for again, nor to be confirmed.
    pub(super) fn is_complete(&self) -> bool {
        self.again.is_empty() && self.again_asked == 0 && self.adrift.is_empty()
    }

    /// Whether something is adrift and not being asked for.
    pub(super) fn is_adrift(&self) -> bool {
        !self.adrift.is_empty()
    }

    /// What is adrift is to be asked for again.
    pub(super) fn try_adrift_again(&mut self) {
        self.again.append(&mut self.adrift);
    }

    /// Whether anything was adrift since the last time.
    pub(super) fn was_interrupted(&mut self) -> bool {
        std::mem::take(&mut self.interrupted)
    }

    /// Takes over channels that another server carried.
    pub(super) fn adopt(&mut self, channels: impl IntoIterator<Item = Channel>) {
        for channel in channels {
            if let Entry::Vacant(entry) = self.channels.entry(channel) {
                self.again.push(entry.key().clone());
                entry.insert(Phase::Adrift { waiting: Vec::new() });
                self.interrupted = true;
            }
        }
    }

    /// Forgets the channels that are another server's business, and returns those that were watched. Whoever waits for one
    /// of the others hears the reason. The server unsubscribes from them by itself.
    pub(super) fn release(&mut self, is_ours: impl Fn(&Channel) -> bool, reason: &str) -> Vec<Channel> {
        let error = BrokerError::Unavailable(reason.into());
        let mut released = Vec::new();
        for (channel, phase) in self.channels.extract_if(|channel, _| !is_ours(channel)) {
            let waiting = match phase {
                Phase::Asked { waiting, .. } => waiting,
                Phase::Adrift { waiting } => {
                    released.push(channel);
                    waiting
                }
                Phase::Watched => {
                    released.push(channel);
                    continue;
                }
            };
            for answer in waiting {
                let _ = answer.send(Err(error.clone())); // Whoever has gone does not want to know.
            }
        }
        self.adrift.retain(|channel| self.channels.contains_key(channel));
        released
    }

    /// Whether there is more to be asked for again.
    pub(super) fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Asks again for the next batch of what was watched on the last connection.
    pub(super) fn ask_again(&mut self, keys: &Keys, now: Instant, out: &mut BytesMut) {
        let start = self.again.len().saturating_sub(BATCH_MAX);
        let mut batch = self.again.split_off(start);
        batch.retain(|channel| self.channels.contains_key(channel)); // It may have been unwatched meanwhile.
        if !batch.is_empty() {
            self.subscribe(batch, true, keys, now, out);
        }
    }

    /// Takes what callers ask for, in their order, and writes as few commands as that allows.
    pub(super) fn ask(&mut self, asks: vec::Drain<'_, Ask>, keys: &Keys, now: Instant, out: &mut BytesMut) {
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for ask in asks {
            match ask {
                Ask::Watch(channel, answer) => {
                    if !gone.is_empty() {
                        self.unsubscribe(std::mem::take(&mut gone), keys, now, out);
                    }
                    self.enter(channel, answer, &mut come);
                }
                Ask::Unwatch(channel, answer) => {
                    if !come.is_empty() {
                        self.subscribe(std::mem::take(&mut come), false, keys, now, out);
                    }
                    if self.channels.remove(&channel).is_some() {
                        gone.push((channel, Some(answer)));
                    } else {
                        let _ = answer.send(()); // It was not watched: there is nothing to undo.
                    }
                }
            }
        }
        if !gone.is_empty() {
            self.unsubscribe(gone, keys, now, out);
        }
        if !come.is_empty() {
            self.subscribe(come, false, keys, now, out);
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self, now: Instant, out: &mut BytesMut) {
        write_command(out, &[b"PING"]);
        self.asked.push_back(Asked { since: now, question: Question::Ping });
    }

    /// A key was subscribed to. Returns the channel when everyone who asked for it has gone: it is watched no more, and
    /// the caller unsubscribes.
    pub(super) fn subscribed(&mut self, name: Option<&str>) -> Result<Option<Channel>, Disagreement> {
        let unasked = Disagreement("a subscription that was not asked for");
        let Some(Asked { question: Question::Subscribe { batch, channels, again }, .. }) =
            self.asked.front_mut()
        else {
            return Err(unasked);
        };
        let (batch, again) = (*batch, *again);
        let channel = channels.next().filter(|it| Some(it.as_str()) == name).ok_or(unasked)?;
        if channels.as_slice().is_empty() {
            self.again_asked -= usize::from(again);
            self.asked.pop_front();
        }
        let Some(phase) = self.channels.get_mut(&channel) else { return Ok(None) };
        match phase {
            Phase::Asked { batch: its, waiting } if *its == batch => {
                let told = waiting.drain(..).map(|answer| answer.send(Ok(())).is_ok());
                if told.fold(false, |any, told| any | told) {
                    *phase = Phase::Watched;
                    return Ok(None);
                }
                self.channels.remove(&channel);
                Ok(Some(channel))
            }
            Phase::Adrift { waiting } if again => {
                let is_waited_for = !waiting.is_empty();
                let told = waiting.drain(..).map(|answer| answer.send(Ok(())).is_ok());
                if told.fold(!is_waited_for, |any, told| any | told) {
                    *phase = Phase::Watched;
                    return Ok(None);
                }
                self.channels.remove(&channel);
                Ok(Some(channel))
            }
            Phase::Asked { .. } | Phase::Adrift { .. } | Phase::Watched => Ok(None),
        }
    }

    /// A key was unsubscribed from.
    pub(super) fn unsubscribed(&mut self, name: Option<&str>) -> Result<(), Disagreement> {
        let unasked = Disagreement("it has unsubscribed by itself");
        let is_next =
            |channels: &vec::IntoIter<Channel>| channels.as_slice().first().map(Channel::as_str) == name;
        let Some(Asked { question: Question::Unsubscribe { channels, waiting }, .. }) = self
            .asked
            .front_mut()
            .filter(|it| matches!(&it.question, Question::Unsubscribe { channels, .. } if is_next(channels)))
        else {
            return match self.pubsub {
                Pubsub::Plain => Err(unasked),
                Pubsub::Shard => {
                    self.dropped(name);
                    Ok(())
                }
            };
        };
        channels.next();
        if channels.as_slice().is_empty() {
            for answer in waiting.drain(..) {
                let _ = answer.send(()); // Whoever has gone does not want to know.
            }
            self.asked.pop_front();
        }
        Ok(())
    }

    /// The answer to [`Ledger::ping`].
    pub(super) fn ponged(&mut self) -> Result<(), Disagreement> {
        match self.asked.pop_front() {
            Some(Asked { question: Question::Ping, .. }) => Ok(()),
            _ => Err(Disagreement("a PONG without a PING")),
        }
    }

    /// The server has unsubscribed from a channel by itself, since its slot moves.
    fn dropped(&mut self, name: Option<&str>) {
        let Some((channel, phase)) = name.and_then(|name| self.channels.get_key_value(name)) else { return };
        if matches!(phase, Phase::Watched) {
            let channel = channel.clone();
            self.go_adrift(channel);
        }
    }

    fn go_adrift(&mut self, channel: Channel) {
        let Some(phase) = self.channels.get_mut(&channel) else { return }; // It was unwatched or released meanwhile.
        if matches!(phase, Phase::Watched) {
            *phase = Phase::Adrift { waiting: Vec::new() };
        }
        self.adrift.push(channel);
        self.interrupted = true;
    }

    /// Another server has the slot. What was watched is adrift, the rest fails.
    fn moved(&mut self, slot: u16, reason: &str) {
        let Some(Asked { question, .. }) = self.asked.pop_front_if(|it| it.question.slot() == Some(slot))
        else {
            return; // About an UNSUBSCRIBE that the server had carried out by itself.
        };
        match question {
            Question::Subscribe { again: true, channels, .. } => {
                self.again_asked -= 1;
                channels.for_each(|channel| self.go_adrift(channel));
            }
            Question::Subscribe { batch, again: false, channels } => self.fail_batch(batch, channels, reason),
            Question::Unsubscribe { waiting, .. } => {
                for answer in waiting {
                    let _ = answer.send(()); // Whoever has gone does not want to know.
                }
            }
            Question::Ping => {}
        }
    }

    /// The server refused the oldest question. Whoever waits for a `watch` hears the server's words.
    pub(super) fn refused(&mut self, reason: &str) -> Result<(), Disagreement> {
        if let (Pubsub::Shard, Some(slot)) = (self.pubsub, pubsub::moved(reason)) {
            self.moved(slot, reason);
            return Ok(());
        }
        let Some(Asked { question: Question::Subscribe { batch, again: false, channels }, .. }) =
            self.asked.pop_front()
        else {
            return Err(Disagreement("it refuses what was granted before"));
        };
        self.fail_batch(batch, channels, reason);
        Ok(())
    }

    fn fail_batch(&mut self, batch: u64, channels: impl Iterator<Item = Channel>, reason: &str) {
        let error = BrokerError::Unavailable(reason.into());
        for channel in channels {
            if matches!(self.channels.get(&channel), Some(Phase::Asked { batch: its, .. }) if *its == batch) {
                self.fail(&channel, &error);
            }
        }
    }

    /// The connection is lost: questions are closed, and what was not confirmed is not watched.
    pub(super) fn lost(&mut self, reason: &str) {
        let error = BrokerError::Unavailable(reason.into());
        self.again.clear();
        self.again_asked = 0;
        self.adrift.clear();
        for phase in self.channels.values_mut() {
            let Phase::Adrift { waiting } = phase else { continue };
            for answer in waiting.drain(..) {
                let _ = answer.send(Err(error.clone())); // Whoever has gone does not want to know.
            }
        }
        for asked in std::mem::take(&mut self.asked) {
            match asked.question {
                Question::Subscribe { channels, .. } => {
                    for channel in channels {
                        if matches!(self.channels.get(&channel), Some(Phase::Asked { .. })) {
                            self.fail(&channel, &error);
                        }
                    }
                }
                Question::Unsubscribe { waiting, .. } => {
                    for answer in waiting {
                        let _ = answer.send(()); // The server has forgotten the channel with the connection.
                    }
                }
                Question::Ping => {}
            }
        }
    }

    /// Answers a caller while there is no connection.
    pub(super) fn turn_away(&mut self, ask: Ask, reason: &str) {
        match ask {
            Ask::Watch(_, answer) => {
                let _ = answer.send(Err(BrokerError::Unavailable(reason.into())));
            }
            Ask::Unwatch(channel, answer) => {
                self.channels.remove(&channel);
                let _ = answer.send(());
            }
        }
    }

    fn enter(
        &mut self,
        channel: Channel,
        answer: oneshot::Sender<Result<(), BrokerError>>,
        come: &mut Vec<Channel>,
    ) {
        match self.channels.get_mut(&channel) {
            Some(Phase::Watched) => {
                let _ = answer.send(Ok(()));
            }
            Some(Phase::Asked { waiting, .. } | Phase::Adrift { waiting }) => waiting.push(answer),
            None => {
                let batch = self.batches; // The number that `subscribe` is about to give.
                self.channels.insert(channel.clone(), Phase::Asked { batch, waiting: vec![answer] });
                come.push(channel);
            }
        }
    }

    fn subscribe(&mut self, batch: Vec<Channel>, again: bool, keys: &Keys, now: Instant, out: &mut BytesMut) {
        for channels in self.pubsub.commands(batch, |it| it) {
            write_keys_command(out, self.pubsub.subscribe(), channels.iter().map(|it| keys.of(it)));
            let channels = channels.into_iter();
            let question = Question::Subscribe { batch: self.batches, again, channels };
            self.again_asked += usize::from(again);
            self.asked.push_back(Asked { since: now, question });
        }
        self.batches += 1;
    }

    fn unsubscribe(&mut self, batch: Vec<Leave>, keys: &Keys, now: Instant, out: &mut BytesMut) {
        for leaves in self.pubsub.commands(batch, |(channel, _)| channel) {
            let (channels, waiting): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
            write_keys_command(out, self.pubsub.unsubscribe(), channels.iter().map(|it| keys.of(it)));
            let waiting = waiting.into_iter().flatten().collect();
            let question = Question::Unsubscribe { channels: channels.into_iter(), waiting };
            self.asked.push_back(Asked { since: now, question });
        }
    }

    /// Unsubscribes from what nobody has waited for.
    pub(super) fn forsake(&mut self, channel: Channel, keys: &Keys, now: Instant, out: &mut BytesMut) {
        self.unsubscribe(vec![(channel, None)], keys, now, out);
    }

    fn fail(&mut self, channel: &Channel, error: &BrokerError) {
        let Some(Phase::Asked { waiting, .. }) = self.channels.remove(channel) else { return };
        for answer in waiting {
            let _ = answer.send(Err(error.clone())); // Whoever has gone does not want to know.
        }
    }
}

#[cfg(test)]
mod tests;
