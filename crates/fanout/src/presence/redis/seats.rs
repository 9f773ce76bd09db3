//! Seats: taking one, keeping it warm, and clearing those that have gone cold.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::Channel;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value, cmd};

use super::scripts::cleared;
use super::spread::{Page, hall_of, halls};
use super::{RedisPresence, not_understood, read};
use crate::broker::BrokerError;
use crate::broker::redis::line::{Connected, Lines, PlaceId, Process};
use crate::presence::{Beat, Seat, Topic};

/// The most pages and the most channels that one call of [`RedisPresence::sweep_hall`] works on, and the most members of each.
const SWEEP_PAGES: usize = 64;
const SWEEP_CHANNELS: usize = 64;
const SWEEP_MEMBERS: usize = 512;

/// How long a cleared seat is kept from being written under: longer than a write can wait in a socket.
const TOMBSTONE: Duration = Duration::from_secs(600);

/// How long a node that clears a seat may take before another takes over.
const LOCK: Duration = Duration::from_secs(2);

/// How long a number stands that nobody asks for.
const WITNESS: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many pages are looked at in one pipeline.
const AUDIT_PAGES: usize = 512;

/// Where and when a seat was taken at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) process: Process,
    /// The page with a number that is lost with everything else there.
    pub(super) witness: Page,
    pub(super) number: u64,
}

/// What is remembered of the node's seat.
#[derive(Debug, Default)]
pub(super) struct Sitting {
    /// What it is called, once there is one.
    seat: Option<Seat>,
    /// The life of each server that it was taken in.
    pub(super) lives: Arc<BTreeMap<PlaceId, Life>>,
    /// The pages that its halls know of.
    listed: Option<(Seat, HashSet<Page>)>,
}

impl Sitting {
    fn take(&mut self, seat: &Seat, lives: BTreeMap<PlaceId, Life>) {
        *self = Self { seat: Some(seat.clone()), lives: Arc::new(lives), listed: None };
    }

    fn is_listed(&self, seat: &Seat, page: &Page) -> bool {
        self.listed.as_ref().is_some_and(|(its, pages)| its == seat && pages.contains(page))
    }

    fn list(&mut self, seat: &Seat, pages: &[Page]) {
        let listed = self.listed.take_if(|(its, _)| its == seat);
        let (_, known) = self.listed.insert(listed.unwrap_or_else(|| (seat.clone(), HashSet::new())));
        known.extend(pages);
    }
}

impl RedisPresence {
    /// Takes a seat, or keeps it warm in the lives in which it was taken.
    pub(super) async fn beat_everywhere(
        &self,
        seat: &Seat,
        ttl: Duration,
        new: bool,
    ) -> Result<Beat, BrokerError> {
        let lines = &*self.switchboard.now();
        let (taken, halls) = (self.sitting.lock().lives.clone(), halls(lines));
        if halls.is_empty() {
            return Err(BrokerError::Unavailable("redis is away: no server has the seats".into()));
        }
        // All of them, whatever becomes of one: the seat stays warm while a server is away.
        let lives = join_all((0..lines.all().len()).map(|at| self.life(lines, at, &taken))).await;
        let is_of_it = |(line, life): (&Arc<_>, &Result<Life, _>)| {
            let taken = taken.get(&place_of(line));
            taken.is_some_and(|taken| life.as_ref().is_ok_and(|life| life == taken) || life.is_err())
        };
        let is_alike = lives.len() == taken.len() && lines.all().iter().zip(&lives).all(is_of_it);
        let beats = halls.iter().filter(|_| new || is_alike); // What it holds in another life is not to be kept.
        let beats = join_all(beats.map(|hall| self.warm(lines, *hall, seat, ttl, new))).await;
        let lives = lives.into_iter().collect::<Result<Vec<_>, _>>()?;
        let is_warm =
            (new || is_alike) && beats.into_iter().collect::<Result<Vec<_>, _>>()?.iter().all(|it| *it);
        let life = lives.iter().fold(0, |all: u64, it| all.rotate_left(1) ^ it.process.number() ^ it.number);
        if new {
            let lives: BTreeMap<_, _> = lines.all().iter().map(place_of).zip(lives).collect();
            if lives != *taken {
                self.audit(lines, &lives).await?;
            }
            self.sitting.lock().take(seat, lives);
        }
        Ok(Beat { is_warm, life })
    }

    /// In which life a server is. A page that has moved elsewhere is no witness: whatever befell the server since, it would not
    /// have seen.
    async fn life(
        &self,
        lines: &Lines,
        at: usize,
        taken: &BTreeMap<PlaceId, Life>,
    ) -> Result<Life, BrokerError> {
        let before = taken.get(&lines.all()[at].place()).map(|life| life.witness);
        let witness = before.filter(|page| page.at(lines) == Some(at));
        let witness =
            witness.or_else(|| fastrand::choice(Page::all_of(lines, at))).ok_or_else(not_understood)?;
        let line = lines.all()[at].connected().await?;
        let key = || witness.key(self.switchboard.keys(), "life");
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.cmd("SET").arg(key()).arg(fastrand::u64(1..)).arg("NX").ignore();
        pipeline.cmd("PEXPIRE").arg(key()).arg(milliseconds(WITNESS)).ignore();
        pipeline.cmd("GET").arg(key());
        let number = line.ask(&pipeline).await?.pop().ok_or_else(not_understood)?;
        Ok(Life { process: line.process(), witness, number: read(number)? })
    }

    /// The channels on which any seat holds members: from the halls to the pages, and from those to the channels.
    pub(super) async fn list_channels(&self) -> Result<Vec<Channel>, BrokerError> {
        let lines = &*self.switchboard.now();
        let keys = self.switchboard.keys();
        let mut found = HashSet::new();
        for hall in halls(lines) {
            let line = &lines.all()[hall].connected().await?;
            let mut seats = cmd("SMEMBERS");
            seats.arg(keys.seats("list"));
            let seats: Vec<String> = read(self.ask_one(line, seats).await?)?;
            for seat in seats {
                let mut pages = cmd("SMEMBERS");
                pages.arg(keys.seats(&format!("pages:{seat}")));
                let pages: Vec<u16> = read(self.ask_one(line, pages).await?)?;
                let on = format!("on:{seat}");
                for some in pages.chunks(AUDIT_PAGES) {
                    let some = some.iter().map(|page| Page::read(lines, hall, *page));
                    let mut by_place: BTreeMap<usize, Pipeline> = BTreeMap::new();
                    for (page, at) in some.filter_map(|page| Some((page, page.at(lines)?))) {
                        by_place.entry(at).or_default().cmd("SMEMBERS").arg(page.key(keys, &on));
                    }
                    for (at, pipeline) in by_place {
                        let answers = self.ask(&lines.all()[at].connected().await?, &pipeline).await?;
                        for answer in answers {
                            let names: Vec<String> = read(answer)?;
                            found.extend(names.iter().filter_map(|name| Channel::parse(name).ok()));
                        }
                    }
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    async fn warm(
        &self,
        lines: &Lines,
        hall: usize,
        seat: &Seat,
        ttl: Duration,
        new: bool,
    ) -> Result<bool, BrokerError> {
        let (keys, seat) = (self.switchboard.keys(), seat.as_str());
        let line = &lines.all()[hall].connected().await?;
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.beat.get_hash()).arg(2).arg(keys.seats("list"));
        call.arg(keys.seats(&format!("warm:{seat}"))).arg(seat).arg(milliseconds(ttl)).arg(u8::from(new));
        read(self.ask_one(line, call).await?)
    }

    /// Looks for seats on every page, and lists them in their halls: those of nodes that died may be on pages of which a
    /// server that fell back, or came back empty, says nothing.
    async fn audit(&self, lines: &Lines, lives: &BTreeMap<PlaceId, Life>) -> Result<(), BrokerError> {
        let audits = (0..lines.all().len()).map(async |at| {
            let line = lines.all()[at].connected().await?;
            if lives.get(&lines.all()[at].place()).is_none_or(|life| life.process != line.process()) {
                return Err(BrokerError::Unavailable("another redis has taken over".into()));
            }
            let hall = hall_of(lines, at).ok_or_else(not_understood)?;
            let mut found: BTreeMap<String, Vec<Page>> = BTreeMap::new();
            for pages in Page::all_of(lines, at).chunks(AUDIT_PAGES) {
                let mut pipeline = Pipeline::with_capacity(pages.len());
                for page in pages {
                    pipeline.cmd("SMEMBERS").arg(page.key(self.switchboard.keys(), "sitting"));
                }
                for (page, seats) in pages.iter().zip(line.ask(&pipeline).await?) {
                    for seat in read::<Vec<String>>(seats)? {
                        found.entry(seat).or_default().push(*page);
                    }
                }
            }
            for (seat, pages) in found {
                self.enlist(lines, hall, &seat, &pages).await?;
            }
            Ok(())
        });
        join_all(audits).await.into_iter().collect()
    }

    /// Lists a seat and pages in a hall.
    async fn enlist(
        &self,
        lines: &Lines,
        hall: usize,
        seat: &str,
        pages: &[Page],
    ) -> Result<(), BrokerError> {
        let (keys, line) = (self.switchboard.keys(), &lines.all()[hall].connected().await?);
        for pages in pages.chunks(AUDIT_PAGES) {
            let mut call = cmd("EVALSHA");
            call.arg(self.scripts.enlist.get_hash()).arg(2).arg(keys.seats("list"));
            call.arg(keys.seats(&format!("pages:{seat}"))).arg(seat);
            call.arg(pages.iter().map(|page| page.number()).collect::<Vec<_>>());
            self.ask_one(line, call).await?;
        }
        Ok(())
    }

    /// The same of a seat that is about to be written under, once for each page.
    pub(super) async fn list_pages(
        &self,
        lines: &Lines,
        at: usize,
        seat: &Seat,
        mut pages: Vec<Page>,
    ) -> Result<(), BrokerError> {
        pages.sort_unstable();
        pages.dedup();
        {
            let sitting = self.sitting.lock();
            pages.retain(|page| !sitting.is_listed(seat, page));
        }
        if pages.is_empty() {
            return Ok(());
        }
        let hall = hall_of(lines, at)
            .ok_or_else(|| BrokerError::Unavailable("redis is away: no server has the seats".into()))?;
        self.enlist(lines, hall, seat.as_str(), &pages).await?;
        self.sitting.lock().list(seat, &pages);
        Ok(())
    }

    /// Clears a part of one cold seat of one hall; `false` when there is none, or nothing can be done about it now.
    pub(super) async fn sweep_hall(&self, lines: &Lines, hall: usize) -> Result<bool, BrokerError> {
        let keys = self.switchboard.keys();
        let line = &lines.all()[hall].connected().await?;
        if !self.is_seated_at(lines, hall, line) {
            return Ok(false);
        }
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.cold.get_hash()).arg(1).arg(keys.seats("list"));
        for prefix in ["warm:", "pages:", "lock:"] {
            call.arg(keys.seats(prefix));
        }
        call.arg(milliseconds(LOCK)).arg(SWEEP_PAGES);
        let answer = self.ask_one(line, call).await?;
        if matches!(&answer, Value::Array(parts) if parts.is_empty()) {
            return Ok(false);
        }
        let (seat, numbers): (String, Vec<u16>) = read(answer)?;
        let mut places: BTreeMap<usize, Vec<Page>> = BTreeMap::new();
        for page in numbers.into_iter().map(|number| Page::read(lines, hall, number)) {
            if let Some(at) = page.at(lines) {
                places.entry(at).or_default().push(page);
            }
        }
        let swept = places.iter().map(|(at, pages)| self.sweep_pages(lines, *at, &seat, pages));
        let swept = join_all(swept).await;
        let is_done = swept.iter().any(|it| it.as_ref().is_ok_and(|(has_cleared, _)| *has_cleared));
        let empty: Vec<_> =
            swept.iter().flatten().flat_map(|(_, empty)| empty).map(|it| it.number()).collect();
        let mut pipeline = Pipeline::with_capacity(2);
        if !empty.is_empty() {
            pipeline.cmd("SREM").arg(keys.seats(&format!("pages:{seat}"))).arg(&empty);
        }
        pipeline.cmd("DEL").arg(keys.seats(&format!("lock:{seat}")));
        line.ask(&pipeline).await?;
        Ok(is_done || !empty.is_empty())
    }

    /// Whoever has no seat in a server's life does not judge those of others there.
    fn is_seated_at(&self, lines: &Lines, at: usize, line: &Connected<'_>) -> bool {
        let life = self.sitting.lock().lives.get(&lines.all()[at].place()).copied();
        life.is_some_and(|life| life.process == line.process())
    }

    /// Clears a part of what is on pages of one server. Answers whether that was anything, and which pages are empty.
    async fn sweep_pages(
        &self,
        lines: &Lines,
        at: usize,
        cold: &str,
        pages: &[Page],
    ) -> Result<(bool, Vec<Page>), BrokerError> {
        let line = &lines.all()[at].connected().await?;
        let own = self.sitting.lock().seat.clone();
        let Some(own) = own.filter(|_| self.is_seated_at(lines, at, line)) else {
            return Ok((false, Vec::new()));
        };
        let keys = self.switchboard.keys();
        let mut look = Pipeline::with_capacity(3 * pages.len());
        for page in pages {
            let (over, on, owes) = (format!("over:{cold}"), format!("on:{cold}"), format!("owes:{cold}"));
            look.cmd("SET").arg(page.key(keys, &over)).arg(1).arg("PX").arg(milliseconds(TOMBSTONE));
            look.cmd("SRANDMEMBER").arg(page.key(keys, &on)).arg(SWEEP_CHANNELS);
            look.cmd("SRANDMEMBER").arg(page.key(keys, &owes)).arg(SWEEP_MEMBERS);
        }
        let found = line.ask(&look).await?;
        let (mut rest, mut empty) = (Vec::new(), Vec::new());
        let mut room = SWEEP_CHANNELS;
        for (page, found) in pages.iter().zip(found.chunks(3)) {
            let [Value::Okay, names, topics] = found else { continue };
            let (Ok(names), Ok(topics)) = (read(names.clone()), read(topics.clone())) else { continue };
            let (names, topics): (Vec<String>, Vec<String>) = (names, topics);
            if names.is_empty() && topics.is_empty() {
                empty.push(*page);
            }
            let channels: Vec<_> =
                names.iter().filter_map(|name| Channel::parse(name).ok()).take(room).collect();
            room -= channels.len();
            rest.push(Rest { page: *page, channels, topics });
        }
        rest.retain(|rest| !(rest.channels.is_empty() && rest.topics.is_empty()));
        let done = self.sweep_rest(lines, at, line, Sweeping { cold, own: &own }, &rest).await?;
        Ok((done, empty))
    }

    /// Clears what was found of a cold seat, and takes over what it owes.
    async fn sweep_rest(
        &self,
        lines: &Lines,
        at: usize,
        line: &Connected<'_>,
        seats: Sweeping<'_>,
        rest: &[Rest],
    ) -> Result<bool, BrokerError> {
        if rest.is_empty() {
            return Ok(false);
        }
        // Whoever clears this node's seat one day has to find what it owes.
        self.list_pages(lines, at, seats.own, rest.iter().map(|rest| rest.page).collect()).await?;
        let mut pipeline = Pipeline::new();
        for Rest { page, channels, topics } in rest {
            for channel in channels {
                pipeline.add_command(self.clear_call(*page, channel, seats));
            }
            if !topics.is_empty() {
                pipeline.add_command(self.inherit_call(*page, topics, seats));
            }
        }
        let mut answers = self.ask(line, &pipeline).await?.into_iter();
        let mut has_cleared = false;
        for Rest { channels, topics, .. } in rest {
            for (channel, answer) in channels.iter().zip(answers.by_ref()) {
                let Some(owed) = cleared(answer) else { continue };
                has_cleared = true;
                self.owe(seats.own, channel, owed);
            }
            if topics.is_empty() {
                continue;
            }
            let inherited: Vec<String> = answers.next().map_or(Ok(Vec::new()), read)?;
            has_cleared |= !inherited.is_empty();
            for topic in inherited.iter().filter_map(|topic| Topic::read(topic)) {
                self.owe(seats.own, &topic.channel, vec![topic.word]);
            }
        }
        Ok(has_cleared)
    }

    fn clear_call(&self, page: Page, channel: &Channel, Sweeping { cold, own }: Sweeping<'_>) -> Cmd {
        let (keys, own) = (self.switchboard.keys(), own.as_str());
        let (on, no) = (format!("on:{cold}"), format!("no:{cold}"));
        let (owes, over) = (format!("owes:{own}"), format!("over:{own}"));
        let more = [
            page.key(keys, &on),
            page.key(keys, "sitting"),
            keys.presence(channel, &no),
            page.key(keys, "told"),
            page.key(keys, "owed"),
            page.key(keys, &owes),
            page.key(keys, &over),
        ];
        let mut call = self.on_channel(&self.scripts.clear, channel, &more);
        call.arg(cold).arg(channel.as_str()).arg(keys.of(channel)).arg(SWEEP_MEMBERS);
        call.arg(milliseconds(TOMBSTONE)).arg(own).arg(self.teller.wants(channel).spell());
        call
    }

    fn inherit_call(&self, page: Page, topics: &[String], Sweeping { cold, own }: Sweeping<'_>) -> Cmd {
        let (keys, own) = (self.switchboard.keys(), own.as_str());
        let mut call = cmd("EVALSHA");
        call.arg(self.scripts.inherit.get_hash()).arg(4).arg(page.key(keys, "owed"));
        for name in [format!("owes:{cold}"), format!("owes:{own}"), format!("over:{own}")] {
            call.arg(page.key(keys, &name));
        }
        call.arg(cold).arg(own).arg(topics);
        call
    }
}

/// Whose seat is cleared, and by whom.
#[derive(Clone, Copy)]
struct Sweeping<'a> {
    cold: &'a str,
    own: &'a Seat,
}

/// What is left of a cold seat on a page, or a part of it.
struct Rest {
    page: Page,
    channels: Vec<Channel>,
    topics: Vec<String>,
}

fn place_of(line: &Arc<crate::broker::redis::line::Line>) -> PlaceId {
    line.place()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
