//! The book of a cluster: Redis, changed by scripts.
//!
//! ```text
//!  <prefix>:p:{c<channel>}:…       users, seats, lingering, at:<seat>, no:<seat>      (see roll.lua)
//!  <prefix>:p:{seats}:life         names this book: lost with it
//!                    :list         the seats that may hold members
//!                    :warm:<seat>  there while the seat's node beats
//!                    :on:<seat>    the channels on which the seat may hold members
//!                    :lock:<seat>  there while a node clears a part of it
//!  <prefix>:c:{<channel>}          carries notices, beside publications, to the nodes that watch the channel
//! ```
//!
//! What the [`Presence`] promises to be atomic is one script on the keys of one channel, which share a hash tag. A batch is one
//! pipeline: the seat and its channels are listed first, then one script per channel and [`SCRIPT_MAX`] changes. Whatever was
//! written under a seat can therefore be found by those who clear it, and once they have begun with a channel a mark keeps late
//! writes out, for longer than any write can be late.
//!
//! Of several servers each has a book of its own for its share of the channels. A node takes its seat in all of them together,
//! and one that has lost its book makes the node write to all of them again.
//!
//! Redis must not evict keys (`maxmemory-policy noeviction`): a book with a page torn out would stay so until a node takes a
//! new seat.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_protocol::event::{Crowd, Member};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use redis::{Cmd, Pipeline, Script, ServerError, ServerErrorKind, Value, cmd};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::BrokerError;
use crate::broker::redis::line::{Line, Lines};
use crate::broker::redis::{RedisOptions, RedisOptionsError};
use crate::presence::wire;
use crate::presence::{After, Beat, Change, MEMBERS_MAX, Presence, Seat, Step, Writer};

/// The most changes in one call of a script: about a millisecond of Redis' time.
const SCRIPT_MAX: usize = 256;

/// The most channels that one call of [`Presence::sweep`] works on, and the most members of each.
const SWEEP_CHANNELS: usize = 64;
const SWEEP_MEMBERS: usize = 512;

/// How long a cleared seat is kept from being written under: longer than a write can wait in a socket.
const TOMBSTONE: Duration = Duration::from_secs(600);

/// How long a node that clears a seat may take before another takes over.
const LOCK: Duration = Duration::from_secs(2);

/// See the [module's essay](self).
#[derive(Debug)]
pub struct RedisPresence {
    lines: Lines,
    /// For each server, the book that the node's seat was taken in.
    lives: Vec<AtomicU64>,
    prefix: Box<str>,
    scripts: Scripts,
}

impl RedisPresence {
    /// The book on the servers that the options name; they need not be there. The prefix and the servers are those of the
    /// [`RedisBroker`](crate::broker::redis::RedisBroker), which hears the notices.
    ///
    /// # Errors
    /// [`RedisOptionsError`] for options that can never work.
    pub fn new(
        options: &RedisOptions,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, RedisOptionsError> {
        let lines = Lines::new(options, tasks, shutdown)?;
        let lives = lines.all().iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self { lines, lives, prefix: options.prefix.as_str().into(), scripts: Scripts::new() })
    }

    /// Asks, and teaches a server that does not know the scripts.
    async fn ask(&self, line: &Line, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let answers = line.ask(pipeline).await?;
        if !answers.iter().any(is_unknown_script) {
            return Ok(answers);
        }
        line.ask(&self.scripts.teach()).await?;
        line.ask(pipeline).await // Whatever was done the first time may be done again.
    }

    async fn ask_one(&self, line: &Line, command: Cmd) -> Result<Value, BrokerError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        match self.ask(line, &pipeline).await?.pop() {
            Some(Value::ServerError(error)) => Err(refused(&error)),
            Some(value) => Ok(value),
            None => Err(not_understood()),
        }
    }

    fn channel_key(&self, channel: &Channel, name: &str) -> String {
        // The letter keeps the hash tag from being empty where a name begins with a brace.
        format!("{}:p:{{c{channel}}}:{name}", self.prefix)
    }

    fn seats_key(&self, name: &str) -> String {
        format!("{}:p:{{seats}}:{name}", self.prefix)
    }

    /// A script on the keys of one channel.
    fn on_channel(&self, script: &Script, channel: &Channel, seat: Option<&Seat>) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(script.get_hash()).arg(if seat.is_some() { 5 } else { 4 });
        for name in ["users", "seats", "lingering", "at:"] {
            call.arg(self.channel_key(channel, name));
        }
        if let Some(seat) = seat {
            call.arg(self.channel_key(channel, &format!("no:{}", seat.as_str())));
        }
        call
    }

    fn write_call(&self, writer: &Writer, channel: &Channel, changes: &[&Change]) -> Cmd {
        let mut call = self.on_channel(&self.scripts.write, channel, Some(&writer.seat));
        let before = writer.before.as_ref().map_or("", Seat::as_str);
        call.arg(writer.seat.as_str()).arg(before).arg(self.lines.pubsub_channel(channel));
        for change in changes {
            match &change.step {
                Step::Enter(member) => call.arg("e").arg(wire::member(member)),
                Step::Restore(member) => call.arg("r").arg(wire::member(member)),
                Step::Depart(session) => call.arg("d").arg(&session.to_bytes()),
                Step::Leave(session) => call.arg("l").arg(&session.to_bytes()),
            };
        }
        call
    }

    fn list_call(&self, seat: &Seat, channels: impl Iterator<Item = impl AsRef<str>>) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.list.get_hash()).arg(2).arg(self.seats_key("list"));
        call.arg(self.seats_key(&format!("on:{}", seat.as_str()))).arg(seat.as_str());
        for channel in channels {
            call.arg(channel.as_ref());
        }
        call
    }

    /// Forgets the channels on which a seat holds nobody.
    async fn unlist(&self, line: &Line, seat: &str, channels: &[&str]) -> Result<(), BrokerError> {
        if channels.is_empty() {
            return Ok(());
        }
        let mut call = cmd("SREM");
        call.arg(self.seats_key(&format!("on:{seat}"))).arg(channels);
        self.ask_one(line, call).await.map(drop)
    }

    /// Writes to one server.
    async fn write_to(
        &self,
        server: usize,
        writer: &Writer,
        changes: &[Change],
    ) -> Result<Vec<After>, BrokerError> {
        let line = &self.lines.all()[server];
        let groups = group(changes);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(self.seats_key("life"));
        let entered: Vec<_> = groups.iter().filter(|it| it.enters).map(|it| it.channel.as_str()).collect();
        if !entered.is_empty() {
            pipeline.add_command(self.list_call(&writer.seat, entered.iter()));
        }
        for group in &groups {
            for part in group.places.chunks(SCRIPT_MAX) {
                let part: Vec<_> = part.iter().map(|place| &changes[*place]).collect();
                pipeline.add_command(self.write_call(writer, group.channel, &part));
            }
        }
        let mut answers = self.ask(line, &pipeline).await?.into_iter();
        let life: Option<u64> = read(answers.next().ok_or_else(not_understood)?)?;
        if life != Some(self.lives[server].load(Ordering::Relaxed)) {
            return Ok(vec![After::Cleared; changes.len()]);
        }
        let is_unlisted = !entered.is_empty() && matches!(answers.next(), Some(Value::ServerError(_)) | None);
        let mut after = vec![After::Refused; changes.len()];
        let mut empty = Vec::new();
        for group in &groups {
            let mut is_empty = false;
            for part in group.places.chunks(SCRIPT_MAX) {
                let answer = answers.next().ok_or_else(not_understood)?;
                let Some((letters, holds_nobody)) = letters(answer) else { continue };
                is_empty = holds_nobody;
                for (place, letter) in part.iter().zip(letters.iter().chain(std::iter::repeat(&b'x'))) {
                    after[*place] = match letter {
                        b'p' => After::Present,
                        b'l' => After::Lingering,
                        b'a' => After::Absent,
                        _ => After::Cleared,
                    };
                }
            }
            if is_empty {
                empty.push(group.channel.as_str());
            }
        }
        if is_unlisted && after.contains(&After::Present) {
            return Ok(vec![After::Cleared; changes.len()]); // Nobody would find these: the seat is given up.
        }
        // A name that stays on the list costs a look when the seat is cleared.
        let _ = self.unlist(line, writer.seat.as_str(), &empty).await;
        Ok(after)
    }

    async fn clear(&self, line: &Line, seat: &Seat, channels: &[Channel]) -> Result<(), BrokerError> {
        let mut pipeline = Pipeline::with_capacity(channels.len());
        for channel in channels {
            let mut call = self.on_channel(&self.scripts.clear, channel, Some(seat));
            call.arg(seat.as_str()).arg(self.lines.pubsub_channel(channel)).arg(SWEEP_MEMBERS);
            call.arg(u64::try_from(TOMBSTONE.as_millis()).expect("minutes"));
            pipeline.add_command(call);
        }
        let left = self.ask(line, &pipeline).await?;
        let cleared = channels.iter().zip(left).filter(|(_, left)| *left == Value::Int(0));
        let cleared: Vec<_> = cleared.map(|(channel, _)| channel.as_str()).collect();
        self.unlist(line, seat.as_str(), &cleared).await?;
        self.ask_one(line, cmd("DEL").arg(self.seats_key(&format!("lock:{}", seat.as_str()))).to_owned())
            .await?;
        Ok(())
    }
}

impl RedisPresence {
    async fn beat_at(
        &self,
        server: usize,
        seat: &Seat,
        ttl: Duration,
        new: bool,
    ) -> Result<Beat, BrokerError> {
        let line = &self.lines.all()[server];
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.beat.get_hash()).arg(3).arg(self.seats_key("life"));
        call.arg(self.seats_key("list")).arg(self.seats_key(&format!("warm:{}", seat.as_str())));
        call.arg(seat.as_str()).arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        call.arg(fastrand::u64(1..)).arg(u8::from(new));
        let (warm, life): (u8, u64) = read(self.ask_one(line, call).await?)?;
        Ok(Beat { is_warm: warm == 1, life })
    }

    /// Clears a part of one cold seat on one server; `false` when there is none.
    async fn sweep_at(&self, line: &Line) -> Result<bool, BrokerError> {
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.cold.get_hash()).arg(1).arg(self.seats_key("list"));
        for prefix in ["warm:", "on:", "lock:"] {
            call.arg(self.seats_key(prefix));
        }
        call.arg(u64::try_from(LOCK.as_millis()).expect("seconds")).arg(SWEEP_CHANNELS);
        let answer = self.ask_one(line, call).await?;
        if matches!(&answer, Value::Array(parts) if parts.is_empty()) {
            return Ok(false);
        }
        let (seat, names): (String, Vec<String>) = read(answer)?;
        let channels: Vec<_> = names.iter().filter_map(|name| Channel::parse(name).ok()).collect();
        self.clear(line, &Seat(seat.into()), &channels).await?;
        Ok(true)
    }
}

/// The changes of one channel, by their places in the batch.
struct Group<'a> {
    channel: &'a Channel,
    /// Whether any of them puts somebody into the book.
    enters: bool,
    places: Vec<usize>,
}

/// Changes by channel, in the order in which channels and changes first come.
fn group(changes: &[Change]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known = HashMap::new();
    for (place, Change { channel, step }) in changes.iter().enumerate() {
        let at = *known.entry(channel).or_insert_with(|| {
            groups.push(Group { channel, enters: false, places: Vec::new() });
            groups.len() - 1
        });
        groups[at].enters |= matches!(step, Step::Enter(_) | Step::Restore(_));
        groups[at].places.push(place);
    }
    groups
}

/// What `write.lua` has answered; `None` when Redis refused it.
fn letters(answer: Value) -> Option<(Vec<u8>, bool)> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(Value::BulkString(letters)), Some(Value::Int(empty))) => Some((letters, empty == 1)),
        _ => None,
    }
}

#[derive(Debug)]
struct Scripts {
    /// All of them, to be loaded.
    codes: [String; 6],
    write: Script,
    clear: Script,
    crowd: Script,
    beat: Script,
    list: Script,
    cold: Script,
}

impl Scripts {
    fn new() -> Self {
        let roll = include_str!("redis/roll.lua");
        let codes = [
            [roll, include_str!("redis/write.lua")].concat(),
            [roll, include_str!("redis/clear.lua")].concat(),
            [roll, include_str!("redis/crowd.lua")].concat(),
            include_str!("redis/beat.lua").to_owned(),
            include_str!("redis/list.lua").to_owned(),
            include_str!("redis/cold.lua").to_owned(),
        ];
        let [write, clear, crowd, beat, list, cold] = codes.each_ref().map(|code| Script::new(code));
        Self { codes, write, clear, crowd, beat, list, cold }
    }

    fn teach(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.codes.len());
        for code in &self.codes {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(code);
        }
        pipeline
    }
}

impl Presence for RedisPresence {
    fn write(&self, writer: Writer, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<After>, BrokerError>> {
        async move {
            let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.lines.all().len()];
            for (place, change) in changes.iter().enumerate() {
                places[self.lines.of(&change.channel)].push(place);
            }
            let written = places.iter().enumerate().filter(|(_, places)| !places.is_empty());
            let written = written.map(async |(server, places)| {
                let its: Vec<_> = places.iter().map(|place| changes[*place].clone()).collect();
                (places, self.write_to(server, &writer, &its).await)
            });
            let mut after = vec![After::Refused; changes.len()];
            for (places, answer) in join_all(written).await {
                match answer {
                    Ok(its) => places.iter().zip(its).for_each(|(place, it)| after[*place] = it),
                    Err(BrokerError::Unavailable(_) | BrokerError::Busy(_)) => {} // Refused, all of it.
                    Err(error @ BrokerError::Timeout(_)) => return Err(error),
                }
            }
            Ok(after)
        }
        .boxed()
    }

    fn beat(&self, seat: Seat, ttl: Duration, new: bool) -> BoxFuture<'_, Result<Beat, BrokerError>> {
        async move {
            let beats = (0..self.lines.all().len()).map(|server| self.beat_at(server, &seat, ttl, new));
            // All of them, whatever becomes of one: the others stay warm while it is away.
            let beats = join_all(beats).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            if new {
                self.lives
                    .iter()
                    .zip(&beats)
                    .for_each(|(life, beat)| life.store(beat.life, Ordering::Relaxed));
            }
            Ok(Beat {
                is_warm: beats.iter().all(|beat| beat.is_warm),
                life: beats.iter().fold(0, |all, beat| all.rotate_left(1) ^ beat.life),
            })
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>> {
        async move {
            let steps = join_all(self.lines.all().iter().map(|line| self.sweep_at(line))).await;
            match steps.iter().any(|step| matches!(step, Ok(true))) {
                true => Ok(true),
                false => steps.into_iter().collect::<Result<Vec<_>, _>>().map(|_| false),
            }
        }
        .boxed()
    }

    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>> {
        async move {
            let line = &self.lines.all()[self.lines.of(&channel)];
            let mut call = self.on_channel(&self.scripts.crowd, &channel, None);
            call.arg(if members { MEMBERS_MAX } else { 0 });
            let (users, connections, named): (u64, u64, Vec<Vec<Vec<u8>>>) =
                read(self.ask_one(line, call).await?)?;
            let named =
                || named.iter().flatten().map(|it| wire::read_member(it)).collect::<Result<Vec<Member>, _>>();
            let members = match members && connections <= MEMBERS_MAX {
                true => Some(named().map_err(|wire::Malformed| not_understood())?),
                false => None,
            };
            Ok(Crowd { users, connections, members })
        }
        .boxed()
    }
}

fn read<T: redis::FromRedisValue>(value: Value) -> Result<T, BrokerError> {
    redis::from_redis_value(value).map_err(|_| not_understood())
}

fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

fn refused(error: &ServerError) -> BrokerError {
    BrokerError::Unavailable(format!("{} {}", error.code(), error.details().unwrap_or_default()).into())
}

fn not_understood() -> BrokerError {
    BrokerError::Unavailable("redis is not understood".into())
}
