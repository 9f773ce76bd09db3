//! Reads what was published, on a connection of its own: a page of long publications must not delay the answers that
//! publishers wait for.
//!
//! Reading may be repeated, so where Redis has forgotten a script it is asked once more: the pipe has loaded it by then.

use std::sync::Arc;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Epoch, Offset, Position};
use fanfare_protocol::{Channel, Publication};
use futures_util::future::join_all;
use redis::{Cmd, Value};

use crate::broker::BrokerError;
use crate::broker::redis::Shared;
use crate::broker::redis::envelope;
use crate::broker::redis::link::Half;
use crate::broker::redis::pipe::{Command, Pipe, Purpose, is_unknown_script};
use crate::broker::redis::publish::refused;
use crate::broker::redis::scripts::{self, META_TTL, Script, fresh_epoch, milliseconds};
use crate::broker::redis::server::Server;

static PURPOSE: Purpose = Purpose { name: "read", scripts: &[&scripts::HISTORY, &scripts::POSITION] };

/// How seldom the question where a stream stands also looks when its meta expires: often enough, since whoever watches asks
/// thousands of times before it does.
const REFRESHED_ONCE_IN: u8 = 64;

/// About how many bytes a question is.
const BYTES: usize = 256;

/// The near end of the connection for reading.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    pipe: Pipe,
}

impl Reader {
    /// Starts the task that keeps a server's connection for reading.
    pub(super) fn start(shared: &Arc<Shared>, server: Server, half: Arc<Half>) -> Self {
        Self { shared: shared.clone(), pipe: Pipe::start(shared, server, half, &PURPOSE) }
    }

    /// Reads a page.
    pub(super) async fn history(&self, channel: &Channel, query: Query) -> Result<Page, BrokerError> {
        let Range { command, bounds, limit } = Range::of(query);
        let answer = self.ask(&scripts::HISTORY, channel, |script| {
            script.arg(command).arg(&bounds).arg(limit);
        });
        match answer.await? {
            Value::Array(mut parts) if parts.len() == 2 => match (parts.pop(), parts.pop()) {
                (Some(Value::Array(entries)), Some(Value::BulkString(position))) => {
                    let Position { epoch, offset } =
                        envelope::position(&position).ok_or_else(not_understood)?;
                    Ok(Page { epoch, top: offset, publications: self.publications(channel, &entries) })
                }
                _ => Err(not_understood()),
            },
            other => Err(refused(&other)),
        }
    }

    /// Where the stream of a channel stands, if there is one. Whoever asks about many does so before the first answer:
    /// the questions share pipelines.
    ///
    /// This is most of what a cluster at rest asks of Redis, so it reads meta by itself, and leaves it to a script to begin
    /// an epoch, and now and then to keep meta from expiring.
    pub(super) async fn position(&self, channel: &Channel) -> Result<Option<Position>, BrokerError> {
        if fastrand::u8(..REFRESHED_ONCE_IN) > 0
            && let Some(position) = self.glance(channel).await?
        {
            return Ok(position);
        }
        match self.ask(&scripts::POSITION, channel, |_| ()).await? {
            Value::Nil => Ok(None),
            Value::BulkString(position) => envelope::position(&position).map(Some).ok_or_else(not_understood),
            other => Err(refused(&other)),
        }
    }

    /// What meta says; `None` when a script has to look.
    async fn glance(&self, channel: &Channel) -> Result<Option<Option<Position>>, BrokerError> {
        let mut command = Cmd::new();
        command.arg("HMGET").arg(self.shared.keys.meta(channel)).arg("epoch").arg("offset").arg("life");
        match self.pipe.run(Command::plain(command, BYTES)).await? {
            Value::Array(fields) => Ok(match &fields[..] {
                [Value::Nil, Value::Nil, Value::Nil] => Some(None),
                [Value::BulkString(epoch), Value::BulkString(offset), Value::BulkString(life)]
                    if life == self.pipe.life().as_bytes() =>
                {
                    standing(epoch, offset).map(Some)
                }
                _ => None,
            }),
            other => Err(refused(&other)),
        }
    }

    /// Drops a stream and tells the nodes, in this order: whatever they read from then on is without it. Where it stands is
    /// kept. A caller that hears of a failure may repeat it, whichever of the two it was.
    pub(super) async fn remove(&self, channel: &Channel) -> Result<(), BrokerError> {
        let keys = &self.shared.keys;
        let (mut unlink, mut publish) = (Cmd::new(), Cmd::new());
        unlink.arg("UNLINK").arg(keys.stream(channel));
        publish.arg(self.shared.pubsub.publish()).arg(keys.of(channel)).arg(envelope::REMOVAL);
        let run = |command| self.pipe.run(Command::plain(command, BYTES));
        for answer in join_all([unlink, publish].map(run)).await {
            match answer? {
                Value::Int(_affected) => {}
                other => return Err(refused(&other)),
            }
        }
        Ok(())
    }

    /// Runs a script on a channel's stream; once more where Redis did not know it.
    async fn ask(
        &self,
        script: &Script,
        channel: &Channel,
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Value, BrokerError> {
        let keys = &self.shared.keys;
        let ask = || {
            let mut command = script.run(2, BYTES);
            command.arg(keys.meta(channel)).arg(keys.stream(channel));
            arguments(&mut command);
            command.arg(milliseconds(META_TTL)).arg(&fresh_epoch()[..]);
            self.pipe.run(Command::script(command, BYTES))
        };
        let answer = ask().await?;
        if is_unknown_script(&answer) { ask().await } else { Ok(answer) }
    }

    fn publications(&self, channel: &Channel, entries: &[Value]) -> Vec<Arc<Publication>> {
        let opened = entries.iter().filter_map(|entry| match entry {
            Value::BulkString(bytes) => envelope::open(channel.clone(), bytes).ok(),
            _ => None,
        });
        let publications: Vec<_> = opened.map(Arc::new).collect();
        self.shared.metrics.publications_dropped((entries.len() - publications.len()) as u64);
        publications
    }
}

/// A query in Redis' words.
struct Range {
    command: &'static str,
    bounds: [String; 2],
    limit: usize,
}

impl Range {
    fn of(Query { since, limit, reverse }: Query) -> Self {
        const COUNT_MAX: usize = u32::MAX as usize;
        let nothing = reverse && since == Some(Offset(0)); // Redis calls a range before the first entry an error.
        let limit = if nothing { 0 } else { limit.min(COUNT_MAX) };
        let beyond =
            |open: &str| since.map_or_else(|| open.to_owned(), |Offset(since)| format!("({since}-0"));
        match reverse {
            false => Self { command: "XRANGE", bounds: [beyond("-"), "+".to_owned()], limit },
            true => Self { command: "XREVRANGE", bounds: [beyond("+"), "-".to_owned()], limit },
        }
    }
}

/// A position as meta has it: 8 bytes, the greatest first, and digits.
fn standing(epoch: &[u8], offset: &[u8]) -> Option<Position> {
    let epoch = Epoch(u64::from_be_bytes(epoch.try_into().ok()?));
    let offset = Offset(str::from_utf8(offset).ok()?.parse().ok()?);
    Some(Position { epoch, offset })
}

fn not_understood() -> BrokerError {
    refused(&Value::Nil)
}
