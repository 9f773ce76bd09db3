//! Places drafts.
//!
//! A draft that is not kept is a PUBLISH. One that is kept is `scripts/publish.lua`: the idempotency key, the epoch, the
//! next offset, the stream and the publication in one step of Redis. Either way it is one command of one pipeline, and
//! whatever goes wrong with it is told to its publisher alone.
//!
//! Where Redis has forgotten the script nothing was done, and the publisher hears so: a draft that was sent once more
//! would be overtaken by those behind it, which somebody else's loading of the script may already have let pass: up to four
//! pipelines are under way, and clause 3 of the contract is worth more than one error after an operator's SCRIPT FLUSH. The
//! pipe loads the script in front of its next pipeline, so whoever tries again succeeds.

use std::sync::Arc;

use fanfare_protocol::publication::{Draft, Position, Retention};
use redis::{Cmd, Value};

use crate::broker::BrokerError;
use crate::broker::redis::Shared;
use crate::broker::redis::envelope::{self, ENVELOPE_BYTES_MAX, Envelope};
use crate::broker::redis::link::Half;
use crate::broker::redis::pipe::{Answer, Command, Pipe, Purpose, words};
use crate::broker::redis::scripts::{self, META_TTL, fresh_epoch, milliseconds};
use crate::broker::redis::server::Server;

static PURPOSE: Purpose = Purpose { name: "publish", scripts: &[&scripts::PUBLISH] };

/// The near end of the connection for publishing.
#[derive(Debug)]
pub(super) struct Publisher {
    shared: Arc<Shared>,
    pipe: Pipe,
}

impl Publisher {
    /// Starts the task that keeps a server's connection for publishing.
    pub(super) fn start(shared: &Arc<Shared>, server: Server, half: Arc<Half>) -> Self {
        Self { shared: shared.clone(), pipe: Pipe::start(shared, server, half, &PURPOSE) }
    }

    /// Queues a draft, at once.
    pub(super) fn place(&self, draft: &Draft) -> Result<Placing, BrokerError> {
        let envelope = Envelope { draft, position: None };
        if envelope.len() + envelope::POSITION_BYTES > ENVELOPE_BYTES_MAX {
            let reason = format!("a publication of {} bytes is too large for it", envelope.len());
            return Err(BrokerError::Unavailable(reason.into()));
        }
        let bytes = envelope.len();
        let command = match draft.retention {
            None => Command::plain(publish(&self.shared, envelope), bytes),
            Some(retention) => {
                Command::script(append_and_publish(&self.shared, draft, retention, bytes), bytes)
            }
        };
        Ok(Placing { answer: self.pipe.queue(command)?, is_kept: draft.retention.is_some() })
    }

    /// Waits until whatever was queued so far has been answered.
    pub(super) async fn settled(&self) {
        let mut ping = Cmd::new();
        ping.arg("PING");
        let _ = self.pipe.run(Command::plain(ping, 0)).await; // Without a connection nothing is left to be answered.
    }
}

/// A draft that has its place in the queue.
#[derive(Debug)]
pub(super) struct Placing {
    answer: Answer,
    is_kept: bool,
}

impl Placing {
    /// Waits for what becomes of it.
    pub(super) async fn placed(self) -> Result<Option<Position>, BrokerError> {
        match (self.answer.wait().await?, self.is_kept) {
            (Value::Int(_receivers), false) => Ok(None),
            (Value::BulkString(position), true) => {
                envelope::position(&position).map(Some).ok_or_else(|| refused(&Value::Nil))
            }
            (other, _) => Err(refused(&other)),
        }
    }
}

fn publish(shared: &Shared, envelope: Envelope<'_>) -> Cmd {
    let (name, key) = (shared.pubsub.publish(), shared.keys.of(&envelope.draft.channel));
    let mut command = Cmd::with_capacity(3, name.len() + key.len() + envelope.len());
    command.arg(name).arg(key).arg(envelope);
    command
}

fn append_and_publish(shared: &Shared, draft: &Draft, retention: Retention, bytes: usize) -> Cmd {
    let Draft { channel, key, .. } = draft;
    let keys = &shared.keys;
    let carrier = keys.of(channel);
    let number_of_keys = 2 + usize::from(key.is_some());
    let mut command = scripts::PUBLISH.run(number_of_keys, bytes + 128 + 4 * carrier.len());
    command.arg(keys.meta(channel)).arg(keys.stream(channel));
    if let Some(key) = key {
        command.arg(keys.idempotency(channel, key));
    }
    command
        .arg(envelope::Body(draft))
        .arg(carrier)
        .arg(retention.size.get())
        .arg(milliseconds(retention.ttl))
        .arg(milliseconds(META_TTL.max(retention.ttl.saturating_mul(2))))
        .arg(milliseconds(retention.idempotency_ttl))
        .arg(shared.pubsub.publish())
        .arg(&fresh_epoch()[..]);
    command
}

/// An answer that is none. The server's words begin with the class of the cause: OOM, MISCONF, BUSY, ….
pub(super) fn refused(answer: &Value) -> BrokerError {
    BrokerError::Unavailable(match answer {
        Value::ServerError(error) => words(error).into(),
        _ => "redis is not understood".into(),
    })
}
