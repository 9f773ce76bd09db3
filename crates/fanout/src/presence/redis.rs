//! The book of a cluster: Redis, changed by scripts.
//!
//! ```text
//!  <prefix>:p:{<channel>}:…        users, seats, lingering, at:<seat>, no:<seat>      (see roll.lua)
//!  <prefix>:p:{seats}:life         a number of this book: lost with it
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
//! **Lives.** A seat holds in one [`Life`]: of the book, which its number names, and of the server that it was taken at. A
//! replica that was promoted has what the primary had told it, so the number too, and may lack the newest writes; of a server
//! that came back from its disk the same is true. As nobody can tell what is missing, each node gives up its seat when it finds
//! another life, takes one there, and writes all members again:
//! - Members that are still there are moved from the seat before, those that are not are added, and nobody is told.
//! - What is left on the seat before has departed without the book knowing. That seat is not kept warm any more: it goes cold
//!   and is cleared like that of a crashed node, and `left` is told.
//! - Seats may have gone cold while no primary was there. Nobody clears any before its own has been warm in this life for a whole
//!   interval: the others have had as long to come back. One that comes later finds the mark of those who have cleared, and
//!   its members join again, as those of any node that was away for so long.
//!
//! Nothing is written under a seat to a server of another life: the connection says where it leads before anything is
//! sent, and the book's number is read with every write.
//!
//! Of several servers each has a book of its own for its share of the channels. A node takes its seat in all of them together,
//! and another life of one makes the node write to all of them again.
//!
//! Redis must not evict keys (`maxmemory-policy noeviction`): a book with a page torn out would stay so until a node takes a
//! new seat.

use std::collections::HashMap;
use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_protocol::event::{Crowd, Member};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Script, ServerError, ServerErrorKind, Value, cmd};

use crate::broker::BrokerError;
use crate::broker::redis::RedisBroker;
use crate::broker::redis::line::{Connected, Lines, Process};
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
    /// For each server, the one in which the node's seat was taken.
    lives: Vec<Mutex<Life>>,
    scripts: Scripts,
}

/// Where and when a seat was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    process: Process,
    book: u64,
}

impl Life {
    fn number(self) -> u64 {
        self.process.number() ^ self.book
    }
}

impl RedisPresence {
    /// The book on the servers of a broker, which hears the notices; they need not be there. It has connections of its own.
    #[must_use]
    pub fn beside(broker: &RedisBroker) -> Self {
        let lines = broker.lines();
        let lives = lines.all().iter().map(|_| Mutex::default()).collect();
        Self { lines, lives, scripts: Scripts::new() }
    }

    /// Asks, and teaches a server that does not know the scripts.
    async fn ask(&self, line: &Connected<'_>, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let answers = line.ask(pipeline).await?;
        if !answers.iter().any(is_unknown_script) {
            return Ok(answers);
        }
        line.ask(&self.scripts.teach()).await?;
        line.ask(pipeline).await // Whatever was done the first time may be done again.
    }

    async fn ask_one(&self, line: &Connected<'_>, command: Cmd) -> Result<Value, BrokerError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        match self.ask(line, &pipeline).await?.pop() {
            Some(Value::ServerError(error)) => Err(refused(&error)),
            Some(value) => Ok(value),
            None => Err(not_understood()),
        }
    }

    /// A script on the keys of one channel, and on what says that these seats are being cleared.
    fn on_channel(&self, script: &Script, channel: &Channel, seats: &[&str]) -> Cmd {
        let (keys, names) = (self.lines.keys(), ["users", "seats", "lingering", "at:"]);
        let mut call = cmd("EVALSHA");
        call.arg(script.get_hash()).arg(names.len() + seats.len());
        for name in names {
            call.arg(keys.presence(channel, name));
        }
        for seat in seats {
            call.arg(keys.presence(channel, &format!("no:{seat}")));
        }
        call
    }

    fn write_call(&self, writer: &Writer, channel: &Channel, changes: &[&Change]) -> Cmd {
        let seat = writer.seat.as_str();
        let before = writer.before.as_ref().map_or("", Seat::as_str);
        let mut call = self.on_channel(&self.scripts.write, channel, &[seat, before]);
        call.arg(seat).arg(before).arg(self.lines.keys().of(channel));
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
        let (keys, seat) = (self.lines.keys(), seat.as_str());
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.list.get_hash()).arg(2).arg(keys.seats("list"));
        call.arg(keys.seats(&format!("on:{seat}"))).arg(seat);
        for channel in channels {
            call.arg(channel.as_ref());
        }
        call
    }

    /// Forgets the channels on which a seat holds nobody.
    async fn unlist(&self, line: &Connected<'_>, seat: &str, channels: &[&str]) -> Result<(), BrokerError> {
        if channels.is_empty() {
            return Ok(());
        }
        let mut call = cmd("SREM");
        call.arg(self.lines.keys().seats(&format!("on:{seat}"))).arg(channels);
        self.ask_one(line, call).await.map(drop)
    }

    /// Writes to one server.
    async fn write_to(
        &self,
        server: usize,
        writer: &Writer,
        changes: &[Change],
    ) -> Result<Vec<After>, BrokerError> {
        let life = *self.lives[server].lock();
        let line = &self.lines.all()[server].connected().await?;
        if line.process() != life.process {
            return Ok(vec![After::Cleared; changes.len()]);
        }
        let groups = group(changes);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(self.lines.keys().seats("life"));
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
        let book: Option<u64> = read(answers.next().ok_or_else(not_understood)?)?;
        if book != Some(life.book) {
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

    async fn clear(&self, line: &Connected<'_>, seat: &str, channels: &[Channel]) -> Result<(), BrokerError> {
        let keys = self.lines.keys();
        let mut pipeline = Pipeline::with_capacity(channels.len());
        for channel in channels {
            let mut call = self.on_channel(&self.scripts.clear, channel, &[seat]);
            call.arg(seat).arg(keys.of(channel)).arg(SWEEP_MEMBERS);
            call.arg(u64::try_from(TOMBSTONE.as_millis()).expect("minutes"));
            pipeline.add_command(call);
        }
        let left = self.ask(line, &pipeline).await?;
        let cleared = channels.iter().zip(left).filter(|(_, left)| *left == Value::Int(0));
        let cleared: Vec<_> = cleared.map(|(channel, _)| channel.as_str()).collect();
        self.unlist(line, seat, &cleared).await?;
        let mut unlock = cmd("DEL");
        unlock.arg(keys.seats(&format!("lock:{seat}")));
        self.ask_one(line, unlock).await.map(drop)
    }
}

impl RedisPresence {
    /// Keeps a seat warm at one server: whether it is, and in which life.
    async fn beat_at(
        &self,
        server: usize,
        seat: &Seat,
        ttl: Duration,
        new: bool,
    ) -> Result<(bool, Life), BrokerError> {
        let (keys, seat) = (self.lines.keys(), seat.as_str());
        let taken = *self.lives[server].lock();
        let line = &self.lines.all()[server].connected().await?;
        let process = line.process();
        if !new && process != taken.process {
            return Ok((false, Life { process, book: 0 })); // Nor is what it holds here to be kept.
        }
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.beat.get_hash()).arg(3).arg(keys.seats("life"));
        call.arg(keys.seats("list")).arg(keys.seats(&format!("warm:{seat}")));
        call.arg(seat).arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        call.arg(fastrand::u64(1..)).arg(u8::from(new));
        let (warm, book): (u8, u64) = read(self.ask_one(line, call).await?)?;
        let life = Life { process, book };
        Ok((warm == 1 && (new || life == taken), life))
    }

    /// Clears a part of one cold seat on one server; `false` when there is none.
    async fn sweep_at(&self, server: usize) -> Result<bool, BrokerError> {
        let keys = self.lines.keys();
        let line = &self.lines.all()[server].connected().await?;
        if line.process() != self.lives[server].lock().process {
            return Ok(false); // Whoever has no seat here yet does not judge those of others.
        }
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.cold.get_hash()).arg(1).arg(keys.seats("list"));
        for prefix in ["warm:", "on:", "lock:"] {
            call.arg(keys.seats(prefix));
        }
        call.arg(u64::try_from(LOCK.as_millis()).expect("seconds")).arg(SWEEP_CHANNELS);
        let answer = self.ask_one(line, call).await?;
        if matches!(&answer, Value::Array(parts) if parts.is_empty()) {
            return Ok(false);
        }
        let (seat, names): (String, Vec<String>) = read(answer)?;
        let channels: Vec<_> = names.iter().filter_map(|name| Channel::parse(name).ok()).collect();
        self.clear(line, &seat, &channels).await?;
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
                self.lives.iter().zip(&beats).for_each(|(taken, (_, life))| *taken.lock() = *life);
            }
            Ok(Beat {
                is_warm: beats.iter().all(|(is_warm, _)| *is_warm),
                life: beats.iter().fold(0, |all, (_, life)| all.rotate_left(1) ^ life.number()),
            })
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>> {
        async move {
            let steps = join_all((0..self.lines.all().len()).map(|server| self.sweep_at(server))).await;
            match steps.iter().any(|step| matches!(step, Ok(true))) {
                true => Ok(true),
                false => steps.into_iter().collect::<Result<Vec<_>, _>>().map(|_| false),
            }
        }
        .boxed()
    }

    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>> {
        async move {
            let line = &self.lines.all()[self.lines.of(&channel)].connected().await?;
            let mut call = self.on_channel(&self.scripts.crowd, &channel, &[]);
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
