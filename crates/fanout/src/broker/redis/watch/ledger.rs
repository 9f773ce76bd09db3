//! What is watched, what the server has been asked, and what it has confirmed. No I/O.
//!
//! ```text
//!             watch                confirmed              unwatch
//!  (absent) ─────────► Asked(batch) ────────► Watched ─────────────► (absent)   UNSUBSCRIBE sent, confirmed later
//!                       └ refused, or the connection is lost ─► (absent)
//! ```
//!
//! **Invariants.**
//! - Questions are answered in the order in which they were asked, and Redis confirms a batch key by key: the front of
//!   `asked` says what the next confirmation must be. Anything else means that the two sides disagree, and the
//!   connection is given up: everything is resubscribed on the next.
//! - A `watch` is answered by the confirmation of the very SUBSCRIBE that it caused. Only `Watched` channels are heard.
//! - `Watched` survives the loss of the connection; `Asked` does not, for its caller hears that it failed.

use std::collections::{HashMap, VecDeque};
use std::vec;

use bytes::BytesMut;
use fanfare_protocol::Channel;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::broker::redis::keys::{Key, Keys};
use crate::broker::redis::resp::{write_command, write_keys_command};

/// The most keys in one SUBSCRIBE or UNSUBSCRIBE.
pub(super) const BATCH_MAX: usize = 512;

/// What callers ask for.
#[derive(Debug)]
pub(super) enum Ask {
    Watch(Channel, oneshot::Sender<Result<(), BrokerError>>),
    Unwatch(Channel, oneshot::Sender<()>),
}

/// The server said what it should not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disagreement(pub(super) &'static str);

/// See the [module's essay](self).
#[derive(Debug, Default)]
pub(super) struct Ledger {
    channels: HashMap<Channel, Phase>,
    asked: VecDeque<Asked>,
    batches: u64,
    /// Channels not asked for again yet on this connection.
    again: Vec<Channel>,
    /// Batches of those under way.
    again_asked: usize,
}

#[derive(Debug)]
enum Phase {
    /// A SUBSCRIBE is under way, and these wait for it.
    Asked {
        batch: u64,
        waiting: Vec<oneshot::Sender<Result<(), BrokerError>>>,
    },
    Watched,
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

impl Ledger {
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
    }

    /// Whether nothing is left to be asked for again, nor to be confirmed.
    pub(super) fn is_complete(&self) -> bool {
        self.again.is_empty() && self.again_asked == 0
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
            self.again_asked += 1;
            self.subscribe(batch, true, keys, now, out);
        }
    }

    /// Takes what callers ask for, in their order, and writes as few commands as that allows.
    pub(super) fn ask(&mut self, asks: vec::Drain<'_, Ask>, keys: &Keys, now: Instant, out: &mut BytesMut) {
        let (mut come, mut gone, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for ask in asks {
            match ask {
                Ask::Watch(channel, answer) => {
                    if !gone.is_empty() {
                        self.unsubscribe(
                            std::mem::take(&mut gone),
                            std::mem::take(&mut waiting),
                            keys,
                            now,
                            out,
                        );
                    }
                    self.enter(channel, answer, &mut come);
                }
                Ask::Unwatch(channel, answer) => {
                    if !come.is_empty() {
                        self.subscribe(std::mem::take(&mut come), false, keys, now, out);
                    }
                    if self.channels.remove(&channel).is_some() {
                        gone.push(channel);
                        waiting.push(answer);
                    } else {
                        let _ = answer.send(()); // It was not watched: there is nothing to undo.
                    }
                }
            }
        }
        if !gone.is_empty() {
            self.unsubscribe(gone, waiting, keys, now, out);
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
            Phase::Asked { .. } | Phase::Watched => Ok(None),
        }
    }

    /// A key was unsubscribed from.
    pub(super) fn unsubscribed(&mut self, name: Option<&str>) -> Result<(), Disagreement> {
        let unasked = Disagreement("it has unsubscribed by itself");
        let Some(Asked { question: Question::Unsubscribe { channels, waiting }, .. }) =
            self.asked.front_mut()
        else {
            return Err(unasked);
        };
        channels.next().filter(|it| Some(it.as_str()) == name).ok_or(unasked)?;
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

    /// The server refused the oldest question. Whoever waits for a `watch` hears the server's words.
    pub(super) fn refused(&mut self, reason: &str) -> Result<(), Disagreement> {
        let Some(Asked { question: Question::Subscribe { batch, again: false, channels }, .. }) =
            self.asked.pop_front()
        else {
            return Err(Disagreement("it refuses what was granted before"));
        };
        let error = BrokerError::Unavailable(reason.into());
        for channel in channels {
            if matches!(self.channels.get(&channel), Some(Phase::Asked { batch: its, .. }) if *its == batch) {
                self.fail(&channel, &error);
            }
        }
        Ok(())
    }

    /// The connection is lost: questions are closed, and what was not confirmed is not watched.
    pub(super) fn lost(&mut self, reason: &str) {
        let error = BrokerError::Unavailable(reason.into());
        self.again.clear();
        self.again_asked = 0;
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
            Some(Phase::Asked { waiting, .. }) => waiting.push(answer),
            None => {
                let batch = self.batches; // The number that `subscribe` is about to give.
                self.channels.insert(channel.clone(), Phase::Asked { batch, waiting: vec![answer] });
                come.push(channel);
            }
        }
    }

    fn subscribe(&mut self, batch: Vec<Channel>, again: bool, keys: &Keys, now: Instant, out: &mut BytesMut) {
        write_keys_command(out, "SUBSCRIBE", keys_of(&batch, keys));
        let question = Question::Subscribe { batch: self.batches, again, channels: batch.into_iter() };
        self.batches += 1;
        self.asked.push_back(Asked { since: now, question });
    }

    fn unsubscribe(
        &mut self,
        batch: Vec<Channel>,
        waiting: Vec<oneshot::Sender<()>>,
        keys: &Keys,
        now: Instant,
        out: &mut BytesMut,
    ) {
        write_keys_command(out, "UNSUBSCRIBE", keys_of(&batch, keys));
        let question = Question::Unsubscribe { channels: batch.into_iter(), waiting };
        self.asked.push_back(Asked { since: now, question });
    }

    /// Unsubscribes from what nobody has waited for.
    pub(super) fn forsake(&mut self, channel: Channel, keys: &Keys, now: Instant, out: &mut BytesMut) {
        self.unsubscribe(vec![channel], Vec::new(), keys, now, out);
    }

    fn fail(&mut self, channel: &Channel, error: &BrokerError) {
        let Some(Phase::Asked { waiting, .. }) = self.channels.remove(channel) else { return };
        for answer in waiting {
            let _ = answer.send(Err(error.clone())); // Whoever has gone does not want to know.
        }
    }
}

fn keys_of<'a>(batch: &'a [Channel], keys: &'a Keys) -> impl ExactSizeIterator<Item = Key<'a>> {
    batch.iter().map(|channel| keys.of(channel))
}

#[cfg(test)]
mod tests;
