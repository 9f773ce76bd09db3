//! What the session decided is done here: frames are queued, the hub is asked and its answers go back to the session.
//!
//! Effects are performed one at a time and in order, with one exception that keeps the order all the same: publications
//! that follow each other are handed to the broker without waiting for the answer to each, so that a publisher's speed
//! is not bounded by the broker's round trip.

use std::time::Duration;

use fanfare_fanout::Outbox;
use fanfare_fanout::broker::BrokerError;
use fanfare_metrics::Metrics;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::session::{Effect, Input};
use fanfare_protocol::websocket::Frame;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, mem};

/// The most publications of one connection that the broker has not answered yet.
const PLACING_MAX: usize = 64;

/// When to try again while the broker is away: its own next attempt is no further off than this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Performs everything the session has decided.
    pub(super) async fn perform_effects(&mut self) {
        let services = self.services.clone();
        while !self.effects.is_empty() {
            let mut placing = FuturesOrdered::new();
            for effect in mem::take(&mut self.effects) {
                if !matches!(effect, Effect::Publish { .. }) || placing.len() == PLACING_MAX {
                    while let Some(placed) = self.while_writing(placing.next()).await {
                        self.answer(placed);
                    }
                }
                match effect {
                    Effect::Publish { id, draft } => {
                        let channel = draft.channel.clone();
                        let answer = services.hub.publish(draft);
                        placing.push_back(Box::pin(async move {
                            Input::Placed {
                                id,
                                channel,
                                outcome: answer.await.map_err(|error| failure(&error)),
                            }
                        }));
                    }
                    Effect::Join { id, channel } => {
                        let outbox = self.outbox.clone();
                        let answer = self.while_writing(services.hub.subscribe(&channel, &outbox)).await;
                        let outcome = answer.map_err(|error| failure(&error));
                        self.answer(Input::Joined { id, channel, outcome });
                    }
                    prompt => self.perform(prompt),
                }
            }
            while let Some(placed) = self.while_writing(placing.next()).await {
                self.answer(placed);
            }
        }
    }

    /// Gives the session an answer of the hub and performs what follows from it at once, before effects that were
    /// decided later than the question.
    fn answer(&mut self, input: Input) {
        let later = mem::take(&mut self.effects);
        self.take(input);
        for effect in mem::replace(&mut self.effects, later) {
            self.perform(effect);
        }
    }

    /// Performs an effect that waits for nothing.
    fn perform(&mut self, effect: Effect) {
        let services = &self.services;
        match effect {
            Effect::Send(reply) => self.send(&reply),
            Effect::Ping => {
                services.metrics.heartbeat_sent();
                queue(&self.outbox, &services.metrics, Frame::ping(&[]));
            }
            Effect::GoLive { channel, reply } => {
                services.hub.go_live(&channel, &self.outbox, self.spell(&reply));
            }
            Effect::Leave { channel } => services.hub.unsubscribe(&channel, &self.outbox),
            Effect::Close { reason, farewell } => {
                let close = Frame::close(reason.number(), reason.slug());
                self.conclude([self.spell(&farewell), close]);
            }
            Effect::EchoClose(code) => {
                self.conclude([code.map_or_else(Frame::close_without_code, |code| Frame::close(code, ""))]);
            }
            asks @ (Effect::Join { .. } | Effect::Publish { .. }) => self.effects.push(asks),
        }
    }

    fn send(&self, reply: &Reply) {
        if let Event::Refused { failure, .. } = &reply.event {
            self.services.metrics.command_refused(failure.code.number());
        }
        queue(&self.outbox, &self.services.metrics, self.spell(reply));
    }

    fn conclude(&self, last: impl IntoIterator<Item = Frame>) {
        let grown = self.outbox.conclude(last);
        self.services.metrics.outbox_queued(i64::try_from(grown).expect("a few frames"));
    }

    fn spell(&self, reply: &Reply) -> Frame {
        self.outbox.encoding().dialect().encode(reply)
    }
}

/// Queues a frame; when it does not fit the outbox itself orders the connection to close.
pub(super) fn queue(outbox: &Outbox, metrics: &Metrics, frame: Frame) {
    let grown = match outbox.push(frame) {
        Ok(bytes) => i64::try_from(bytes).expect("a queue is bounded"),
        Err(full) => -i64::try_from(full.discarded).expect("a queue is bounded"),
    };
    metrics.outbox_queued(grown);
}

/// What a client is told when the broker cannot do its part.
pub(crate) fn failure(error: &BrokerError) -> Failure {
    let explanation = match error {
        BrokerError::Unavailable(_) => "the broker is away: nothing was done, try again",
        BrokerError::Busy(_) => "the broker is overloaded: nothing was done, try again",
        BrokerError::Timeout(_) => "the broker has not answered in time: it may have been done or not",
    };
    Failure::retry(ErrorCode::Unavailable, explanation, RETRY_AFTER)
}
