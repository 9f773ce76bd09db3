//! A run: traffic, then one fault after the other, then quiet, then the reckoning.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::args::{Arguments, Topology};
use crate::fault::{Fault, Kind, Schedule};
use crate::follow::{Offence, Position};
use crate::link::Weather;
use crate::presence;
use crate::publisher::{Means, Publisher, call};
use crate::record::Record;
use crate::report::{Findings, OfKind, Spread};
use crate::say;
use crate::stage::{self, NODES, Stage, Wiring};
use crate::stamp::Stamp;
use crate::subscriber::Subscriber;

/// Channels with history.
const KEPT: usize = 12;
/// Channels without.
const PLAIN: usize = 6;
/// Of each sort of publisher.
const PUBLISHERS: u32 = 3;
/// What a subscriber hears: so many channels with history, and one without.
const KEPT_EACH: usize = 2;

/// How long the cluster may take to recover from one fault, and to come to rest.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);

/// A node of a few hundred clients that holds more than this does not give back what it takes.
const RESIDENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How often the state of all subscribers is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A draining node sends at least so many clients away in a second, if it has them.
const PACE_LEAST: u64 = 20;

/// How many may come back in a second beyond twice a draining node's pace.
const RETURNS_SLACK: u64 = 5;

/// How late a slow link is.
const SLOW: Duration = Duration::from_millis(300);

/// A cluster with traffic on it.
struct Campaign {
    stage: Stage,
    record: Rc<Record>,
    subscribers: Vec<Rc<Subscriber>>,
    drain_seconds: u64,
    topology: Topology,
    kinds: BTreeMap<Kind, (u64, Vec<Duration>)>,
    drain_peaks: Vec<(u64, u64)>,
    resident_bytes_max: BTreeMap<String, u64>,
}

/// Runs for as long as the arguments say.
pub(crate) async fn run(arguments: &Arguments, seed: u64, logs: &Path) -> Result<Findings> {
    let kinds = arguments.chosen_kinds()?;
    let stage = Stage::set(arguments, logs, Wiring::Links).await?;
    let kept = (0..KEPT).map(|number| (format!("kept:{number}"), true));
    let plain = (0..PLAIN).map(|number| (format!("plain:{number}"), false));
    let record = Rc::new(Record::new(kept.chain(plain), &logs.join("journal"))?);
    let mut random = fastrand::Rng::with_seed(seed);
    let subscribers = subscribers(arguments.subscribers, &stage, &record, &mut random);
    for subscriber in &subscribers {
        spawn_local(Rc::clone(subscriber).run());
    }
    let mut campaign = Campaign {
        stage,
        record,
        subscribers,
        drain_seconds: arguments.drain,
        topology: arguments.topology,
        kinds: BTreeMap::new(),
        drain_peaks: Vec::new(),
        resident_bytes_max: BTreeMap::new(),
    };
    campaign.assemble().await?;
    let publishers = campaign.publishers(arguments.rate, &mut random);
    let first = campaign.caught_up(Instant::now()).await;
    ensure!(!first.is_empty(), "nobody hears anything even before the first fault");
    let (began, second) = (Instant::now(), campaign.record.second() + 1);
    let mut faults = 0;
    for fault in Schedule::new(seed, kinds) {
        if began.elapsed() >= arguments.duration() {
            break;
        }
        faults += 1;
        sleep(fault.after).await;
        campaign.inject(fault).await?;
        if !fault.hasty {
            campaign.judge().await;
        }
        campaign.weigh();
    }
    campaign.come_to_rest(publishers).await;
    campaign.reckon().await;
    let present = presence::agrees(&campaign.stage, &campaign.record, &campaign.subscribers).await;
    campaign.stage.keep_logs()?;
    Ok(Findings { present, ..campaign.findings(seed, faults, began.elapsed(), second) })
}

fn subscribers(
    count: usize,
    stage: &Stage,
    record: &Rc<Record>,
    random: &mut fastrand::Rng,
) -> Vec<Rc<Subscriber>> {
    (0..count)
        .map(|number| {
            let mut channels: Vec<_> = (0..KEPT_EACH).map(|it| (number * KEPT_EACH + it) % KEPT).collect();
            channels.push(KEPT + number % PLAIN);
            Subscriber::new(number, stage.addresses.proxy, record, &channels, random.u64(..))
        })
        .collect()
}

impl Campaign {
    /// Waits until every subscriber has all its channels.
    async fn assemble(&self) -> Result<()> {
        let deadline = Instant::now() + RECOVERED_WITHIN;
        while !self.subscribers.iter().all(|it| it.is_whole()) {
            let waiting = self.subscribers.iter().find(|it| !it.is_whole());
            ensure!(
                Instant::now() < deadline,
                "not all subscribers come in: {}",
                waiting.map(|it| it.trail()).unwrap_or_default()
            );
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn publishers(&self, rate: u32, random: &mut fastrand::Rng) -> Vec<JoinHandle<()>> {
        let mut publishers = Vec::new();
        for number in 1..=2 * PUBLISHERS {
            let means =
                if number % 2 == 0 { Means::Socket(None) } else { Means::Api(number as usize / 2 % NODES) };
            let publisher = Publisher {
                number,
                means,
                addresses: self.stage.addresses.clone(),
                record: Rc::clone(&self.record),
                random: fastrand::Rng::with_seed(random.u64(..)),
            };
            publishers.push(spawn_local(publisher.run(rate)));
        }
        publishers
    }

    /// Does what the fault says, undoes it, and waits until the cluster has recovered.
    async fn inject(&mut self, fault: Fault) -> Result<()> {
        let Fault { kind, node, holds, hasty, .. } = fault;
        let said =
            format!("{kind} at {} for {holds:?}{}", stage::name(node), if hasty { ", hasty" } else { "" });
        self.record.note(&said);
        say(&format!("{:>9} {said}", self.record.time()));
        self.record.suspect(kind, kind.ends_lives(self.topology));
        self.kinds.entry(kind).or_default().0 += 1;
        let begun = Instant::now();
        let since = match kind {
            // Clients need not wait for the node to come back: others serve them.
            Kind::NodeKill => {
                self.stage.kill(node).await;
                let record = Rc::clone(&self.record);
                let restart = async {
                    sleep(holds).await;
                    self.stage.start(node).await;
                };
                let (durations, ()) =
                    tokio::join!(caught_up(&self.subscribers, &record, begun, hasty), restart);
                self.kinds.entry(kind).or_default().1.extend(durations);
                return Ok(());
            }
            Kind::NodeDrain => self.drain(node).await?,
            Kind::RollingRestart => {
                let mut since = begun;
                for node in 0..NODES {
                    since = self.drain(node).await?;
                }
                since
            }
            _ => {
                self.disturb(kind, node, holds).await;
                Instant::now()
            }
        };
        self.record.note(&format!("{kind} is over"));
        if kind.empties() {
            self.record.forgive();
        }
        if !hasty {
            let durations = self.caught_up(since).await;
            self.kinds.entry(kind).or_default().1.extend(durations);
        }
        self.stage.redis.settle().await;
        Ok(())
    }

    /// Those faults that leave all nodes running.
    async fn disturb(&mut self, kind: Kind, node: usize, holds: Duration) {
        match kind {
            Kind::NodeFreeze => {
                let Some(node) = self.stage.node(node) else { return };
                node.freeze().await;
                sleep(holds).await;
                node.thaw().await;
            }
            Kind::LinkCut => match self.stage.redis_links.get(node) {
                Some(link) => weather(link, Weather::Cut, holds).await,
                None => self.stage.redis.cut_off(&stage::name(node), holds).await,
            },
            Kind::LinkHole => weather(&self.stage.redis_links[node], Weather::Hole, holds).await,
            Kind::LinkSlow => weather(&self.stage.redis_links[node], Weather::Slow(SLOW), holds).await,
            Kind::ClientCut => weather(&self.stage.client_links[node], Weather::Cut, holds).await,
            Kind::ClientHole => weather(&self.stage.client_links[node], Weather::Hole, holds).await,
            Kind::NginxReload => self.stage.nginx.reload().await,
            _ => self.stage.redis.disturb(kind, node, holds).await,
        }
    }

    /// Drains a node, starts it again, and waits until everybody it has sent away is back, which is after it has gone: not many
    /// more at once may come than its pace is.
    async fn drain(&mut self, node: usize) -> Result<Instant> {
        let name = stage::name(node);
        let clients = self.subscribers.iter().filter(|it| it.node().as_ref() == Some(&name)).count() as u64;
        let second = self.record.second();
        self.stage.drain(node).await?;
        let ended = Instant::now();
        self.stage.start(node).await;
        while self.subscribers.iter().any(|it| it.node().is_none()) && ended.elapsed() < RECOVERED_WITHIN {
            sleep(LOOK).await;
        }
        let peak = self.record.peak_of_returns(&name, second);
        let allowed = 2 * clients.div_ceil(self.drain_seconds).max(PACE_LEAST) + RETURNS_SLACK;
        self.drain_peaks.push((peak, allowed));
        if peak > allowed {
            let what = format!("{peak} of {clients} that {name} sent away came back in one second");
            self.record.offend(Offence::Storm, 1, &what);
        }
        Ok(ended)
    }

    /// Waits until every subscriber has heard, on every channel with history, something that was published after `since`.
    async fn caught_up(&self, since: Instant) -> Vec<Duration> {
        caught_up(&self.subscribers, &self.record, since, false).await
    }

    /// Notes the memory of the nodes.
    fn weigh(&mut self) {
        for (name, _, bytes) in self.stage.resident_bytes() {
            let most = self.resident_bytes_max.entry(name.clone()).or_default();
            *most = (*most).max(bytes);
            if bytes > RESIDENT_BYTES_MAX {
                self.record.offend(Offence::Memory, 1, &format!("{name} holds {bytes} bytes"));
            }
        }
    }

    /// Reads every stream, and holds what subscribers and publishers were told against it.
    async fn judge(&self) -> HashMap<usize, (Position, BTreeMap<u64, Stamp>)> {
        let mut streams = HashMap::new();
        for channel in self.record.channels(true) {
            let deadline = Instant::now() + RECOVERED_WITHIN;
            loop {
                let owed = self.record.owed(channel);
                match self.read(channel).await {
                    Ok((top, found)) => {
                        self.record.judge(channel, &owed, &found);
                        streams.insert(channel, (top, found));
                        break;
                    }
                    Err(_) if Instant::now() < deadline => sleep(LOOK).await,
                    Err(why) => {
                        let what = format!("{} cannot be read: {why}", self.record.name(channel));
                        self.record.offend(Offence::Stuck, 1, &what);
                        break;
                    }
                }
            }
        }
        streams
    }

    /// No faults, no publications, and time for the last ones to arrive.
    async fn come_to_rest(&self, publishers: Vec<JoinHandle<()>>) {
        self.record.note("quiet");
        self.record.stop();
        for publisher in publishers {
            if timeout(RECOVERED_WITHIN, publisher).await.is_err() {
                self.record.offend(Offence::Stuck, 1, "a publisher does not come to an end");
            }
        }
    }

    /// Every stream is read and held against the record, and every subscriber must be at its end.
    async fn reckon(&self) {
        let mut tops = HashMap::new();
        for (channel, (top, found)) in self.judge().await {
            self.record.audit(channel, &top.epoch, &found);
            tops.insert(channel, top);
        }
        let behind = |subscriber: &Subscriber| {
            let places = subscriber.places();
            let behind = places.into_iter().find(|(channel, place)| place.as_ref() != tops.get(channel));
            behind.map(|(channel, place)| (channel, place, tops.get(&channel)))
        };
        let deadline = Instant::now() + RECOVERED_WITHIN;
        while self.subscribers.iter().any(|it| behind(it).is_some()) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        for subscriber in &self.subscribers {
            if let Some((channel, place, top)) = behind(subscriber) {
                let name = self.record.name(channel);
                let what =
                    format!("{name} ends at {top:?}, and this one is at {place:?}: {}", subscriber.trail());
                self.record.offend(Offence::Stuck, 1, &what);
            }
            self.record.counts.borrow_mut().missed_plain += subscriber.missed();
        }
    }

    /// A whole stream: its end, and what stands at each offset.
    async fn read(&self, channel: usize) -> Result<(Position, BTreeMap<u64, Stamp>), String> {
        let address = self.stage.addresses.internal.borrow()[0];
        let name = self.record.name(channel);
        let mut found = BTreeMap::new();
        let mut since = None;
        loop {
            let mut body = json!({"channel": name, "limit": 1000});
            if let Some(since) = &since {
                body["since"] = json!(since);
            }
            let page = call(address, "history", &body).await?;
            let epoch = page["epoch"].as_str().ok_or("a page without an epoch")?.to_owned();
            let top = page["offset"].as_u64().ok_or("a page without an offset")?;
            let messages = page["messages"].as_array().ok_or("a page without messages")?;
            for message in messages {
                let offset = message["offset"].as_u64().ok_or("a message without an offset")?;
                let stamp: Stamp = read(&message["data"])?;
                found.insert(offset, stamp);
            }
            let last = found.last_key_value().map_or(0, |(offset, _)| *offset);
            if messages.is_empty() || last >= top {
                return Ok((Position { epoch, offset: top }, found));
            }
            since = Some(Position { epoch, offset: last });
        }
    }

    fn findings(self, seed: u64, faults: u64, elapsed: Duration, second: u64) -> Findings {
        let record = &self.record;
        let lives = record.check_order();
        let mut kinds: BTreeMap<String, OfKind> = BTreeMap::new();
        for (kind, (times, durations)) in self.kinds {
            let of_kind = kinds.entry(kind.to_string()).or_default();
            of_kind.times = times;
            of_kind.caught_up = Spread::of(durations);
        }
        for (cause, gaps) in record.gaps() {
            kinds.entry(cause).or_default().gaps = gaps;
        }
        for (cause, outages) in record.outages() {
            let of_kind = kinds.entry(cause).or_default();
            of_kind.cut_off = outages.len();
            of_kind.back = Spread::of(outages);
        }
        Findings {
            seed,
            seconds: elapsed.as_secs(),
            subscribers: self.subscribers.len(),
            faults,
            counts: record.counts.borrow().clone(),
            lives,
            offences: record.offences(),
            present: 0,
            kinds,
            closes: record.closes(),
            refusals: record.refusals(),
            arrivals_peak: record.peaks_since(second),
            drain_peaks: self.drain_peaks,
            resident_bytes_max: self.resident_bytes_max,
        }
    }
}

/// How long it took from `since` until each subscriber had heard, on each channel with history, what was published after
/// it. A hasty one does not wait for that and knows nothing.
async fn caught_up(
    subscribers: &[Rc<Subscriber>],
    record: &Record,
    since: Instant,
    hasty: bool,
) -> Vec<Duration> {
    let mut durations = Vec::new();
    if hasty {
        return durations;
    }
    let deadline = Instant::now() + RECOVERED_WITHIN;
    let mut marks = None;
    let mut pending: Vec<_> = subscribers.iter().collect();
    while !pending.is_empty() && Instant::now() < deadline {
        sleep(LOOK).await;
        if marks.is_none() {
            marks = record.marks_after(since);
        }
        let Some(marks) = &marks else { continue };
        pending.retain(|subscriber| {
            let there = subscriber.places().iter().all(|(channel, place)| {
                let (Some(place), Some(mark)) = (place, marks.get(channel)) else { return false };
                place.epoch == mark.epoch && place.offset >= mark.offset
            });
            if there {
                durations.push(since.elapsed());
            }
            !there
        });
    }
    if let Some(one) = pending.first() {
        let marks = marks.unwrap_or_default();
        let places = one.places().into_iter().map(|(channel, place)| {
            format!("{} at {place:?}, to pass {:?}", record.name(channel), marks.get(&channel))
        });
        let places: Vec<_> = places.collect();
        let what = format!(
            "{} subscribers have not caught up: {}; {}",
            pending.len(),
            places.join(", "),
            one.trail()
        );
        record.offend(Offence::Stuck, pending.len() as u64, &what);
    }
    durations
}

/// Changes the weather on a link for a while.
async fn weather(link: &crate::link::Link, weather: Weather, holds: Duration) {
    link.set(weather);
    sleep(holds).await;
    link.set(Weather::Clear);
}

fn read(data: &Value) -> Result<Stamp, String> {
    serde_json::from_value(data.clone()).map_err(|error| format!("{error}: {data}"))
}
