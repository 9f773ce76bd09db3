//! The book of a cluster: Redis, changed by scripts.
//!
//! ```text
//!  <prefix>:p:{<channel>}:…        users, seats, lingering, at:<seat>, no:<seat>      (see roll.lua)
//!  <prefix>:p:{<page>}:sitting     the seats that hold members there
//!                     :on:<seat>   the channels on which the seat holds members
//!                     :over:<seat> the seat is being cleared: nothing is written under it any more
//!                     :life        a number of this server's book: lost with it
//!                     :told        what a backend was told of channels, and (debts.rs)
//!                     :owed        which seat owes word of what
//!                     :owes:<seat> the same by seats
//!  <prefix>:p:{seats}:list         a hall: the seats that may hold members
//!                    :warm:<seat>  there while the seat's node beats
//!                    :pages:<seat> the pages on which the seat may hold members
//!                    :lock:<seat>  there while a node clears a part of it
//!  <prefix>:c:{<channel>}          carries notices, beside publications, to the nodes that watch the channel
//! ```
//!
//! What the [`Presence`] promises to be atomic is one script on the keys of one channel and of its page, which share a slot
//! ([`spread`]). A batch is one pipeline to each server, with a script per channel and [`SCRIPT_MAX`] changes. Before the first
//! of them on a page, the page is listed in the hall. Whatever was written under a seat can therefore be found by those who
//! clear it, and once they have begun with a page a mark keeps late writes out, for longer than any write can be late.
//!
//! **Lives.** A seat holds in one [`Life`] of each server: of the book, which a number names, and of the process that it was
//! taken at. A replica that was promoted has what the primary had told it, so the number too, and may lack the newest writes; of
//! a server that came back from its disk the same is true. As nobody can tell what is missing, each node gives up its seat when
//! it finds another life, takes one there, and writes all members again:
//! - Members that are still there are moved from the seat before, those that are not are added, and nobody is told.
//! - What is left on the seat before has departed without the book knowing. That seat is not kept warm any more: it goes cold
//!   and is cleared like that of a crashed node, and `left` is told.
//! - The hall may not know of all that a server has, where one of them fell back and the other did not. So whoever takes a seat in
//!   another life looks at every page, and lists the seats that it finds.
//! - Seats may have gone cold while no primary was there. Nobody clears any before its own has been warm in this life for a whole
//!   interval: the others have had as long to come back. One that comes later finds the mark of those who have cleared, and
//!   its members join again, as those of any node that was away for so long.
//!
//! Nothing is written under a seat to a server of another life: the connection says where it leads before anything is
//! sent, and the book's number is read with every write.
//!
//! **Several servers.** A node takes its seat at all of them together, and another life of one makes it write to all of them
//! again. So does a server more or less.
//!
//! **Slots that move.** Members, page and marks move with their slot, key by key. Meanwhile Redis refuses every script on
//! them, before it has done anything: some of the keys are there and others are not. What is to be written waits, and readers hear
//! so. Afterwards it goes on at the new server under the same seat. The number that names a server's book lies on a page
//! picked at random, lest every slot that moves is another life of two servers.
//!
//! Redis must not evict keys (`maxmemory-policy noeviction`): a book with a page torn out would stay so until a node takes a
//! new seat.

mod scripts;
mod seats;
mod spread;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_protocol::event::{Crowd, Member};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Script, ServerError, ServerErrorKind, Value, cmd};
use scripts::{Scripts, letters};
#[cfg(doc)]
use seats::Life;
use seats::Sitting;
use spread::{Page, halls};

use crate::broker::BrokerError;
use crate::broker::redis::RedisBroker;
use crate::broker::redis::keys::Key;
use crate::broker::redis::line::{Connected, Lines, Switchboard};
use crate::presence::debts::Word;
use crate::presence::wire;
use crate::presence::{
    After, Beat, Change, Debt, MEMBERS_MAX, Presence, Seat, Silent, Step, Teller, Topic, Writer,
};

/// The most changes in one call of a script: about a millisecond of Redis' time.
const SCRIPT_MAX: usize = 256;

/// See the [module's essay](self).
#[derive(Debug)]
pub struct RedisPresence {
    switchboard: Switchboard,
    sitting: Mutex<Sitting>,
    scripts: Scripts,
    teller: Arc<dyn Teller>,
}

impl RedisPresence {
    /// The book on the servers of a broker, which hears the notices; they need not be there. It has connections of its own.
    #[must_use]
    pub fn beside(broker: &RedisBroker) -> Self {
        let switchboard = broker.switchboard();
        let scripts = Scripts::new(switchboard.publish());
        Self { switchboard, sitting: Mutex::default(), scripts, teller: Arc::new(Silent) }
    }

    /// The same, with somebody who tells a backend of it.
    #[must_use]
    pub fn telling(self, teller: Arc<dyn Teller>) -> Self {
        Self { teller, ..self }
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

    /// A script on the keys of one channel, and more in the same slot.
    fn on_channel(&self, script: &Script, channel: &Channel, more: &[Key<'_>]) -> Cmd {
        let (keys, names) = (self.switchboard.keys(), ["users", "seats", "lingering", "at:"]);
        let mut call = cmd("EVALSHA");
        call.arg(script.get_hash()).arg(names.len() + more.len());
        for name in names {
            call.arg(keys.presence(channel, name));
        }
        for key in more {
            call.arg(key);
        }
        call
    }

    fn write_call(&self, writer: &Writer, page: Page, channel: &Channel, changes: &[&Change]) -> Cmd {
        let keys = self.switchboard.keys();
        let seat = writer.seat.as_str();
        let before = writer.before.as_ref().map_or("", Seat::as_str);
        let names =
            [format!("on:{seat}"), format!("over:{seat}"), format!("no:{before}"), format!("owes:{seat}")];
        let [on, over, no, owes] = &names;
        let more = [
            page.key(keys, on),
            page.key(keys, "sitting"),
            page.key(keys, over),
            keys.presence(channel, no),
            page.key(keys, "told"),
            page.key(keys, "owed"),
            page.key(keys, owes),
        ];
        let mut call = self.on_channel(&self.scripts.write, channel, &more);
        call.arg(seat).arg(before).arg(channel.as_str()).arg(keys.of(channel));
        call.arg(self.teller.wants(channel).spell());
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

    /// Writes to one server.
    async fn write_to(
        &self,
        lines: &Lines,
        at: usize,
        writer: &Writer,
        changes: &[Change],
    ) -> Result<Vec<After>, BrokerError> {
        let cleared = || Ok(vec![After::Cleared; changes.len()]);
        let line = &lines.all()[at];
        let Some(life) = self.sitting.lock().lives.get(&line.place()).copied() else { return cleared() };
        let line = &line.connected().await?;
        if line.process() != life.process {
            return cleared();
        }
        let groups = group(changes);
        let page = |group: &Group<'_>| Page::of(lines, at, group.channel);
        let entered = groups.iter().filter(|group| group.enters).map(page).collect();
        if let Err(error) = self.list_pages(lines, at, &writer.seat, entered).await {
            return Err(BrokerError::Unavailable(error.to_string().into())); // Whatever became of it: nothing was written.
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(life.witness.key(self.switchboard.keys(), "life"));
        for group in &groups {
            for part in group.places.chunks(SCRIPT_MAX) {
                let part: Vec<_> = part.iter().map(|place| &changes[*place]).collect();
                pipeline.add_command(self.write_call(writer, page(group), group.channel, &part));
            }
        }
        let mut answers = self.ask(line, &pipeline).await?.into_iter();
        let number = answers.next().ok_or_else(not_understood)?;
        if read::<Option<u64>>(number).ok().flatten() != Some(life.number) {
            return cleared();
        }
        let mut after = vec![After::Refused; changes.len()];
        for group in &groups {
            for part in group.places.chunks(SCRIPT_MAX) {
                let answer = answers.next().ok_or_else(not_understood)?;
                let Some((letters, owed)) = letters(answer) else { continue };
                self.owe(&writer.seat, group.channel, owed);
                for (place, letter) in part.iter().zip(letters.iter().chain(std::iter::repeat(&b'x'))) {
                    after[*place] = match letter {
                        b'p' => After::Present,
                        b'l' => After::Lingering,
                        b'a' => After::Absent,
                        _ => After::Cleared,
                    };
                }
            }
        }
        Ok(after)
    }

    fn owe(&self, seat: &Seat, channel: &Channel, words: Vec<Word>) {
        for word in words {
            let topic = Topic { channel: channel.clone(), word };
            self.teller.owe(Debt { seat: seat.clone(), topic });
        }
    }

    fn settle_call(&self, page: Page, Debt { seat, topic }: &Debt, told: Option<u64>) -> Cmd {
        let keys = self.switchboard.keys();
        let owes = format!("owes:{}", seat.as_str());
        let more = [page.key(keys, "told"), page.key(keys, "owed"), page.key(keys, &owes)];
        let mut call = self.on_channel(&self.scripts.settle, &topic.channel, &more);
        call.arg(seat.as_str()).arg(topic.spell()).arg(topic.word.about.spell());
        call.arg(told.map(|level| level.to_string()).unwrap_or_default());
        call
    }

    /// Settles debts at their servers; one of them that is away keeps all from being answered for.
    async fn settle_all(&self, told: &[(Debt, Option<u64>)]) -> Result<Vec<Option<u64>>, BrokerError> {
        let lines = &*self.switchboard.now();
        let mut calls: BTreeMap<usize, (Vec<usize>, Pipeline)> = BTreeMap::new();
        for (place, (debt, level)) in told.iter().enumerate() {
            let channel = &debt.topic.channel;
            let at = lines.of(channel).ok_or_else(homeless)?;
            let (places, pipeline) = calls.entry(at).or_default();
            places.push(place);
            pipeline.add_command(self.settle_call(Page::of(lines, at, channel), debt, *level));
        }
        let asked = calls.into_iter().map(async |(at, (places, pipeline))| {
            let answers = self.ask(&lines.all()[at].connected().await?, &pipeline).await?;
            Ok::<_, BrokerError>((places, answers))
        });
        let mut levels = vec![None; told.len()];
        for asked in join_all(asked).await {
            let (places, answers) = asked?;
            for (place, answer) in places.into_iter().zip(answers) {
                levels[place] = match answer {
                    Value::Int(level) => u64::try_from(level).ok(),
                    Value::ServerError(error) => return Err(refused(&error)),
                    _ => return Err(not_understood()),
                };
            }
        }
        Ok(levels)
    }

    /// Reads a crowd where its channel is now.
    async fn read_crowd(&self, channel: &Channel, members: bool) -> Result<Value, BrokerError> {
        let mut call = self.on_channel(&self.scripts.crowd, channel, &[]);
        call.arg(if members { MEMBERS_MAX } else { 0 });
        let lines = self.switchboard.now();
        let at = lines.of(channel).ok_or_else(homeless)?;
        let answer = self.ask_one(&lines.all()[at].connected().await?, call.clone()).await;
        if !answer.as_ref().is_err_and(is_moved) || !self.switchboard.is_other_than(&lines).await {
            return answer;
        }
        let lines = self.switchboard.now();
        let at = lines.of(channel).ok_or_else(homeless)?;
        self.ask_one(&lines.all()[at].connected().await?, call).await
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

impl Presence for RedisPresence {
    fn write(&self, writer: Writer, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<After>, BrokerError>> {
        async move {
            let lines = &*self.switchboard.now();
            let mut places: Vec<Vec<usize>> = vec![Vec::new(); lines.all().len()];
            for (place, change) in changes.iter().enumerate() {
                // A channel that no server has waits until one does.
                if let Some(at) = lines.of(&change.channel) {
                    places[at].push(place);
                }
            }
            let written = places.iter().enumerate().filter(|(_, places)| !places.is_empty());
            let written = written.map(async |(at, places)| {
                let its: Vec<_> = places.iter().map(|place| changes[*place].clone()).collect();
                (places, self.write_to(lines, at, &writer, &its).await)
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
        async move { self.beat_everywhere(&seat, ttl, new).await }.boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<bool, BrokerError>> {
        async move {
            let lines = &*self.switchboard.now();
            let steps = join_all(halls(lines).into_iter().map(|hall| self.sweep_hall(lines, hall))).await;
            match steps.iter().any(|step| matches!(step, Ok(true))) {
                true => Ok(true),
                false => steps.into_iter().collect::<Result<Vec<_>, _>>().map(|_| false),
            }
        }
        .boxed()
    }

    fn channels(&self) -> BoxFuture<'_, Result<Vec<Channel>, BrokerError>> {
        async move { self.list_channels().await }.boxed()
    }

    fn crowd(&self, channel: Channel, members: bool) -> BoxFuture<'_, Result<Crowd, BrokerError>> {
        async move {
            let (users, connections, named): (u64, u64, Vec<Vec<Vec<u8>>>) =
                read(self.read_crowd(&channel, members).await?)?;
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

    fn settle(&self, told: Vec<(Debt, Option<u64>)>) -> BoxFuture<'_, Result<Vec<Option<u64>>, BrokerError>> {
        async move { self.settle_all(&told).await }.boxed()
    }
}

fn read<T: redis::FromRedisValue>(value: Value) -> Result<T, BrokerError> {
    redis::from_redis_value(value).map_err(|_| not_understood())
}

fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// Whether another server has the channel.
fn is_moved(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Unavailable(why) if why.starts_with("MOVED "))
}

fn homeless() -> BrokerError {
    BrokerError::Unavailable("redis is away: no server has the channel's slot".into())
}

fn refused(error: &ServerError) -> BrokerError {
    BrokerError::Unavailable(format!("{} {}", error.code(), error.details().unwrap_or_default()).into())
}

fn not_understood() -> BrokerError {
    BrokerError::Unavailable("redis is not understood".into())
}
