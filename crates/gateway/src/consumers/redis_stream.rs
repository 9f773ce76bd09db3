//! Publications from a Redis Stream, by a consumer group.
//!
//! ```text
//!  lease ─► what the last holder has left undone ─► what is new ─► placed ─► XACK, XDEL, and XADD to the dead: in one step
//! ```
//!
//! All nodes are one consumer of the group, and one at a time reads: so whatever a node has left undone that is gone, pending
//! entries, is at once the next one's, before anything newer. Entries that the broker has refused are pending too, and read again.
//!
//! What is asked between a lease that was taken and its end is asked of one server, by a [`RedisLine`]. Where a replica takes
//! over that ends, and what the new primary holds for undone is read first: it may not have heard what the old one was told.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::broker::BrokerError;
use fanfare_fanout::broker::redis::{RedisLine, RedisServers, RedisWay};
use fanfare_protocol::error::Failure;
use redis::{Cmd, FromRedisValue, Pipeline, ServerError, Value, cmd};
use tokio::time::{Instant, sleep};

use super::lease::{Lease, RENEWAL, Share};
use super::reply::{self, Found};
use super::{DEAD_MAX, Feed, MEASURE_INTERVAL, Outcome, Pause};
use crate::config::{BLOCK, Published, RedisStreams};

/// The one consumer of the group that all nodes are.
const CONSUMER: &str = "fanfare";

/// Where the entries are.
#[derive(Debug)]
pub(super) struct Stream {
    way: RedisWay,
    name: String,
    group: String,
    /// What this node is called in a lease: no two processes are called the same.
    holder: String,
    /// Whether entries stay in the stream when they have been published.
    is_kept: bool,
}

impl Stream {
    pub(super) fn of(config: &RedisStreams, part: usize, servers: &Arc<RedisServers>, node: &str) -> Self {
        let name = match config.partitions.get() {
            1 => config.stream.clone(),
            _ => format!("{}:{part}", config.stream),
        };
        let holder = format!("{node}-{:016x}", fastrand::u64(..));
        Self {
            way: servers.way(&name),
            name,
            group: config.group.clone(),
            holder,
            is_kept: config.published == Published::Kept,
        }
    }

    async fn connect(&self) -> Result<RedisLine, StreamError> {
        let line = self.way.line().await?;
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&self.name).arg(&self.group).arg("0").arg("MKSTREAM");
        match ask::<Value>(&line, &create).await {
            Err(StreamError::Refused { code, .. }) if &*code == "BUSYGROUP" => Ok(line),
            Err(error) => Err(error),
            Ok(_) => Ok(line),
        }
    }

    /// What belongs to the stream, in the same slot of a Redis Cluster.
    fn beside(&self, what: &str) -> String {
        format!("{{{}}}:{what}", self.name)
    }

    /// The entries that are owed, or else the first new ones.
    fn read(&self, batch: usize, is_owed: bool) -> Cmd {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(CONSUMER).arg("COUNT").arg(batch);
        if !is_owed {
            read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        read.arg("STREAMS").arg(&self.name).arg(if is_owed { "0" } else { ">" });
        read
    }

    /// Takes leave of what has been published, and of what cannot be.
    fn settle(&self, found: &[Found], outcomes: &[Outcome], is_kept_aside: bool) -> Option<Pipeline> {
        let mut done = Vec::new();
        let mut step = redis::pipe();
        step.cmd("MULTI");
        for (found, outcome) in found.iter().zip(outcomes) {
            match outcome {
                Outcome::Accepted => {}
                Outcome::Refused(failure) if is_kept_aside => {
                    step.add_command(self.bury(found, failure));
                }
                Outcome::Refused(_) => {}
                Outcome::Deferred => continue,
            }
            done.push(found.id.as_str());
        }
        if done.is_empty() {
            return None;
        }
        step.cmd("XACK").arg(&self.name).arg(&self.group).arg(&done);
        if !self.is_kept {
            step.cmd("XDEL").arg(&self.name).arg(&done);
        }
        step.cmd("EXEC");
        Some(step)
    }

    /// Keeps an entry with the reason why it was not published.
    fn bury(&self, found: &Found, failure: &Failure) -> Cmd {
        let mut bury = cmd("XADD");
        bury.arg(self.beside("dead")).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
        bury.arg("id").arg(&found.id).arg("reason").arg(&*failure.explanation);
        // Names and values alternate; one without the other cannot be written.
        found.fields.chunks_exact(2).flatten().for_each(|part| {
            bury.arg(&part[..]);
        });
        bury
    }
}

/// Publishes what is in the stream, until told to stop.
pub(super) async fn run(feed: Feed, stream: Stream, share: Arc<Share>) {
    let mut pause = Pause::default();
    while !feed.stop.is_cancelled() {
        if let Err(error) = talk(&feed, &stream, &share, &mut pause).await {
            feed.is_down(&error);
            feed.rest(pause.next()).await;
        }
    }
}

/// All is well: the next trouble is a new one.
fn up(feed: &Feed, pause: &mut Pause) {
    feed.is_up();
    *pause = Pause::default();
}

/// Why the stream could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("{}", told(.0))]
    Lost(#[from] BrokerError),
    /// The server's own words.
    #[error("redis refuses: {code} {details}")]
    Refused { code: Box<str>, details: Box<str> },
    #[error("redis is not understood")]
    NotUnderstood,
}

fn told(error: &BrokerError) -> String {
    match error {
        BrokerError::Unavailable(why) => (**why).to_owned(),
        BrokerError::Timeout(_) | BrokerError::Busy(_) => {
            "redis has not answered, or the connection was lost".to_owned()
        }
    }
}

impl From<&ServerError> for StreamError {
    fn from(error: &ServerError) -> Self {
        Self::Refused { code: error.code().into(), details: error.details().unwrap_or_default().into() }
    }
}

/// Asks one thing.
pub(super) async fn ask<T: FromRedisValue>(line: &RedisLine, command: &Cmd) -> Result<T, StreamError> {
    let mut one = Pipeline::with_capacity(1);
    one.add_command(command.clone());
    let answer = ask_all(line, &one).await?.pop().ok_or(StreamError::NotUnderstood)?;
    redis::from_redis_value(answer).map_err(|_| StreamError::NotUnderstood)
}

/// Asks several, none of which may be refused, not even within a transaction.
async fn ask_all(line: &RedisLine, commands: &Pipeline) -> Result<Vec<Value>, StreamError> {
    let answers = line.ask(commands).await?;
    let within = answers.iter().flat_map(|it| match it {
        Value::Array(answers) => &answers[..],
        _ => &[],
    });
    let refusal = answers.iter().chain(within).find_map(|it| match it {
        Value::ServerError(error) => Some(StreamError::from(error)),
        _ => None,
    });
    refusal.map_or(Ok(answers), Err)
}

/// Goes on until the connection is lost, or told to stop.
async fn talk(
    feed: &Feed,
    stream: &Stream,
    share: &Arc<Share>,
    pause: &mut Pause,
) -> Result<(), StreamError> {
    let Some(line) = feed.stop.run_until_cancelled(stream.connect()).await else { return Ok(()) };
    let line = line?;
    let (mut looks, mut measured) = (0, None);
    while !feed.stop.is_cancelled() {
        measure(feed, stream, &line, &mut measured).await?;
        let key = stream.beside(&format!("{}:holder", stream.group));
        match Lease::take(&line, key, &stream.holder, share, &mut looks).await? {
            Some(lease) => {
                let outcome = hold(feed, stream, share, &lease, &line, &mut measured, pause).await;
                // One that cannot be given back ends by itself.
                let _ = lease.release(&line).await;
                outcome?;
            }
            None => {
                up(feed, pause);
                feed.rest(RENEWAL.mul_f64(0.5 + fastrand::f64())).await;
            }
        }
    }
    Ok(())
}

/// Publishes what there is, until the lease is another's, or told to stop.
async fn hold(
    feed: &Feed,
    stream: &Stream,
    share: &Share,
    lease: &Lease,
    line: &RedisLine,
    measured: &mut Option<Instant>,
    trouble: &mut Pause,
) -> Result<(), StreamError> {
    // Of whoever held it before.
    let mut is_owed = true;
    let mut pause = Pause::default();
    while !share.is_too_much() && lease.renew(line).await? {
        measure(feed, stream, line, measured).await?;
        let read = stream.read(feed.batch, is_owed);
        let Some(reply) = feed.stop.run_until_cancelled(ask::<Value>(line, &read)).await else {
            return Ok(()); // What may have been handed out is read again by the next.
        };
        let found = reply::found(&stream.name, &reply?);
        if found.is_empty() {
            // One that cannot take leave of what is owed gets no further than that.
            if !is_owed {
                up(feed, trouble);
            }
            is_owed = false;
            continue;
        }
        if is_owed {
            feed.read_again(found.len());
        }
        let outcomes = place(feed, &found, lease, line).await;
        if let Some(step) = stream.settle(&found, &outcomes, feed.is_kept_aside) {
            ask_all(line, &step).await?;
            up(feed, trouble);
        }
        if outcomes.contains(&Outcome::Deferred) {
            is_owed = true;
            feed.rest(pause.next()).await;
        } else {
            pause = Pause::default();
        }
    }
    Ok(())
}

/// Has the batch placed, and keeps the lease meanwhile. Entries that are in the stream no more are as good as published.
async fn place(feed: &Feed, found: &[Found], lease: &Lease, line: &RedisLine) -> Vec<Outcome> {
    let there = found.iter().filter_map(|it| it.entry.clone()).collect();
    let mut placing = pin!(feed.place(there));
    let placed = loop {
        tokio::select! {
            biased;
            placed = placing.as_mut() => break placed,
            // Lost, it is another's; what has been begun is the same that the other does.
            () = sleep(RENEWAL) => drop(lease.renew(line).await),
        }
    };
    let mut placed = placed.into_iter();
    let outcome = |it: &Found| match it.entry {
        Some(_) => placed.next().expect("one for each"),
        None => Outcome::Accepted,
    };
    found.iter().map(outcome).collect()
}

/// Looks how much waits, if that has not been done of late.
async fn measure(
    feed: &Feed,
    stream: &Stream,
    line: &RedisLine,
    last: &mut Option<Instant>,
) -> Result<(), StreamError> {
    if last.is_some_and(|last| last.elapsed() < MEASURE_INTERVAL) {
        return Ok(());
    }
    *last = Some(Instant::now());
    let groups: Value = ask(line, cmd("XINFO").arg("GROUPS").arg(&stream.name)).await?;
    let Some((delivered, lag)) = reply::progress(&stream.group, &groups) else { return Ok(()) };
    let (pending, first, _, _): (u64, Option<String>, Value, Value) =
        ask(line, cmd("XPENDING").arg(&stream.name).arg(&stream.group)).await?;
    let mut next = cmd("XRANGE");
    next.arg(&stream.name).arg(format!("({delivered}")).arg("+").arg("COUNT").arg(1);
    let after: Vec<(String, Value)> = ask(line, &next).await?;
    // Where entries were deleted Redis may not know how many are left; what is kept for nobody else is all there is.
    let waiting = match lag {
        Some(lag) => pending + lag,
        None if stream.is_kept => pending + after.len() as u64,
        None => ask(line, cmd("XLEN").arg(&stream.name)).await?,
    };
    let oldest = first.or_else(|| after.into_iter().next().map(|(id, _)| id));
    let since = oldest.and_then(|id| reply::millis(&id));
    let now = feed.services.clock.unix().millis();
    feed.measured(waiting, Duration::from_millis(since.map_or(0, |since| now.saturating_sub(since))));
    Ok(())
}
