//! Everything that was said and heard in a run: one record, shared by all tasks of the thread.
//!
//! Publishers enter what was acknowledged, subscribers what they heard; the two, and any two subscribers, must agree on
//! what stands at each place of each stream. What does not fit is an offence, written down with the fault of the moment.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::fault::Kind;
use crate::follow::{Offence, Position};
use crate::stamp::Stamp;

/// Offences that are written to the journal in full; more of them say nothing new.
const JOURNAL_OFFENCES_MAX: u64 = 500;

/// One channel under test.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Its name.
    pub(crate) name: String,
    /// Whether it has history.
    pub(crate) kept: bool,
    lives: HashMap<String, Life>,
    /// Publications that were acknowledged, by publisher and number.
    acknowledged: HashSet<(u32, u64)>,
    /// Of those with a place, what Redis must still have, with the offset.
    owed: HashMap<(u32, u64), u64>,
    /// The place of the last acknowledged one, and when it was first tried.
    newest: Option<(Instant, Position)>,
    /// Until it is looked whether they were losses.
    doubted: Vec<Doubt>,
}

/// A loss that a subscriber was told of, under another epoch.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// Where the subscriber was.
    pub(crate) place: Position,
    /// Where the stream was.
    pub(crate) top: u64,
    /// What to say of it if it was none.
    pub(crate) story: String,
}

/// One life of a stream: what stands at each offset.
#[derive(Debug, Default)]
struct Life {
    at: BTreeMap<u64, (u32, u64)>,
    offset_of: HashMap<(u32, u64), u64>,
    acknowledged: BTreeMap<u64, (u32, u64)>,
}

/// Counts of a run.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub(crate) struct Counts {
    /// Publications that were tried.
    pub(crate) published: u64,
    /// Tries beyond the first.
    pub(crate) retried: u64,
    /// Publications that were acknowledged on channels with history.
    pub(crate) acknowledged_kept: u64,
    /// And on those without.
    pub(crate) acknowledged_plain: u64,
    /// Publications heard by one subscriber of a channel with history.
    pub(crate) delivered_kept: u64,
    /// And without.
    pub(crate) delivered_plain: u64,
    /// Of the former, those that came marked as replayed.
    pub(crate) replayed: u64,
    /// Acknowledged publications that a subscriber of a channel without history did not hear.
    pub(crate) missed_plain: u64,
    /// Successful subscriptions with `since`.
    pub(crate) recoveries: u64,
}

/// The record.
#[derive(Debug)]
pub(crate) struct Record {
    began: Instant,
    channels: RefCell<Vec<Channel>>,
    pub(crate) counts: RefCell<Counts>,
    offences: RefCell<BTreeMap<Offence, u64>>,
    /// What was told of gaps, by the fault of the moment.
    gaps: RefCell<BTreeMap<String, BTreeMap<&'static str, u64>>>,
    /// How connections ended.
    closes: RefCell<BTreeMap<String, u64>>,
    /// How long subscribers were cut off, by the fault of the moment.
    outages: RefCell<BTreeMap<String, Vec<Duration>>>,
    /// Connections opened at each node, with the second.
    arrivals: RefCell<BTreeMap<(String, u64), u64>>,
    /// How many came back in a second of those that a node had sent away, by that node.
    returns: RefCell<BTreeMap<(String, u64), u64>>,
    /// Refusals of commands, by number.
    refusals: RefCell<BTreeMap<u16, u64>>,
    fault: Cell<Option<Kind>>,
    /// Faults after which streams may go on as others.
    lives_ended: Cell<usize>,
    journal: RefCell<File>,
    stopped: Cell<bool>,
}

impl Record {
    /// An empty record of these channels (name, whether it has history), with a journal.
    pub(crate) fn new(channels: impl IntoIterator<Item = (String, bool)>, journal: &Path) -> Result<Self> {
        let channel = |(name, kept)| Channel {
            name,
            kept,
            lives: HashMap::new(),
            acknowledged: HashSet::new(),
            owed: HashMap::new(),
            newest: None,
            doubted: Vec::new(),
        };
        Ok(Self {
            began: Instant::now(),
            channels: RefCell::new(channels.into_iter().map(channel).collect()),
            counts: RefCell::default(),
            offences: RefCell::default(),
            gaps: RefCell::default(),
            closes: RefCell::default(),
            outages: RefCell::default(),
            arrivals: RefCell::default(),
            returns: RefCell::default(),
            refusals: RefCell::default(),
            fault: Cell::new(None),
            lives_ended: Cell::new(0),
            journal: RefCell::new(File::create(journal)?),
            stopped: Cell::new(false),
        })
    }

    /// Writes one line to the journal, with the time since the run began.
    pub(crate) fn note(&self, line: &str) {
        // A full disk is no reason to stop looking.
        let _ = writeln!(self.journal.borrow_mut(), "{:>9} {line}", self.time());
    }

    /// The time since the run began, in seconds.
    pub(crate) fn time(&self) -> String {
        format!("{:.3}", self.began.elapsed().as_secs_f64())
    }

    /// Something happened that must not.
    pub(crate) fn offend(&self, offence: Offence, times: u64, what: &str) {
        let mut offences = self.offences.borrow_mut();
        let count = offences.entry(offence).or_default();
        *count += times;
        if *count <= JOURNAL_OFFENCES_MAX {
            self.note(&format!("OFFENCE {offence:?} x{times} during {}: {what}", self.cause()));
        }
    }

    /// What must not happen, and how often it did.
    pub(crate) fn offences(&self) -> BTreeMap<Offence, u64> {
        self.offences.borrow().clone()
    }

    /// A fault begins; it stays the suspect until the next one. It says whether streams may go on as others after it.
    pub(crate) fn suspect(&self, kind: Kind, ends_lives: bool) {
        self.fault.set(Some(kind));
        self.lives_ended.set(self.lives_ended.get() + usize::from(ends_lives));
    }

    /// Whether Redis may have lost acknowledged data by now.
    pub(crate) fn lives_have_ended(&self) -> bool {
        self.lives_ended.get() > 0
    }

    fn cause(&self) -> String {
        self.fault.get().map_or_else(|| "calm".into(), |kind| kind.to_string())
    }

    /// A subscriber was told of a gap: by what word.
    pub(crate) fn gap_told(&self, word: &'static str) {
        *self.gaps.borrow_mut().entry(self.cause()).or_default().entry(word).or_default() += 1;
    }

    /// Gaps told, by the fault of the moment and the word.
    pub(crate) fn gaps(&self) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
        self.gaps.borrow().clone()
    }

    /// A connection ended.
    pub(crate) fn closed(&self, how: String) {
        *self.closes.borrow_mut().entry(how).or_default() += 1;
    }

    /// How connections ended.
    pub(crate) fn closes(&self) -> BTreeMap<String, u64> {
        self.closes.borrow().clone()
    }

    /// A subscriber has all its channels again, so long after its connection ended.
    pub(crate) fn back_after(&self, outage: Duration) {
        self.outages.borrow_mut().entry(self.cause()).or_default().push(outage);
    }

    /// How long subscribers were cut off, by the fault of the moment.
    pub(crate) fn outages(&self) -> BTreeMap<String, Vec<Duration>> {
        self.outages.borrow().clone()
    }

    /// A command was refused.
    pub(crate) fn refused(&self, code: u16) {
        *self.refusals.borrow_mut().entry(code).or_default() += 1;
    }

    /// Refusals by number.
    pub(crate) fn refusals(&self) -> BTreeMap<u16, u64> {
        self.refusals.borrow().clone()
    }

    /// A connection opened at a node, of a client that may have been sent away by another.
    pub(crate) fn arrived(&self, node: &str, sent_away_by: Option<&str>) {
        let second = self.second();
        *self.arrivals.borrow_mut().entry((node.to_owned(), second)).or_default() += 1;
        if let Some(other) = sent_away_by {
            *self.returns.borrow_mut().entry((other.to_owned(), second)).or_default() += 1;
        }
    }

    /// Of those that a node has sent away since that second, the most that came back to the cluster in one second.
    pub(crate) fn peak_of_returns(&self, node: &str, since: u64) -> u64 {
        let returns = self.returns.borrow();
        returns
            .iter()
            .filter(|((it, second), _)| it == node && *second >= since)
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
    }

    /// Whole seconds since the run began.
    pub(crate) fn second(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// The most arrivals in one second at each node, from that second on.
    pub(crate) fn peaks_since(&self, second: u64) -> BTreeMap<String, u64> {
        let mut peaks: BTreeMap<String, u64> = BTreeMap::new();
        for ((node, at), count) in self.arrivals.borrow().iter() {
            if *at >= second {
                let peak = peaks.entry(node.clone()).or_default();
                *peak = (*peak).max(*count);
            }
        }
        peaks
    }

    /// No publication is begun any more.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
    }

    /// Whether [`Record::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// The name of a channel.
    pub(crate) fn name(&self, channel: usize) -> String {
        self.channels.borrow()[channel].name.clone()
    }

    /// The numbers of the channels with history, or of those without.
    pub(crate) fn channels(&self, kept: bool) -> Vec<usize> {
        let channels = self.channels.borrow();
        (0..channels.len()).filter(|&channel| channels[channel].kept == kept).collect()
    }

    /// The number of the channel with this name.
    pub(crate) fn channel_named(&self, name: &str) -> Option<usize> {
        self.channels.borrow().iter().position(|channel| channel.name == name)
    }

    /// A publication was acknowledged, on a channel with history with its place.
    pub(crate) fn acknowledged(
        &self,
        channel: usize,
        stamp: &Stamp,
        begun: Instant,
        position: Option<&Position>,
    ) {
        let what = (stamp.publisher, stamp.number);
        let fits = {
            let mut channels = self.channels.borrow_mut();
            let channel = &mut channels[channel];
            channel.acknowledged.insert(what);
            match position.filter(|_| channel.kept) {
                None => !channel.kept,
                Some(position) => {
                    channel.owed.insert(what, position.offset);
                    let life = channel.lives.entry(position.epoch.clone()).or_default();
                    let before = life.acknowledged.insert(position.offset, what);
                    channel.newest = Some((begun, position.clone()));
                    before.is_none_or(|before| before == what) && life.place(position.offset, what).is_ok()
                }
            }
        };
        let mut counts = self.counts.borrow_mut();
        if self.channels.borrow()[channel].kept {
            counts.acknowledged_kept += 1;
        } else {
            counts.acknowledged_plain += 1;
        }
        if !fits {
            let name = self.name(channel);
            self.offend(
                Offence::Altered,
                1,
                &format!("{name}: {what:?} was acknowledged at {position:?}, where it is not"),
            );
        }
    }

    /// A subscriber heard a publication at a place.
    pub(crate) fn placed(&self, channel: usize, stamp: &Stamp, position: &Position) {
        let what = (stamp.publisher, stamp.number);
        let placed = {
            let mut channels = self.channels.borrow_mut();
            channels[channel].lives.entry(position.epoch.clone()).or_default().place(position.offset, what)
        };
        if let Err((offence, other)) = placed {
            let name = self.name(channel);
            self.offend(offence, 1, &format!("{name}: {what:?} stands at {position:?}, and {other}"));
        }
    }

    /// The place of the newest acknowledged publication that was begun after `moment`, on each channel with history;
    /// none while a channel has none.
    pub(crate) fn marks_after(&self, moment: Instant) -> Option<HashMap<usize, Position>> {
        let channels = self.channels.borrow();
        let kept = channels.iter().enumerate().filter(|(_, channel)| channel.kept);
        let marks = kept.map(|(number, channel)| {
            let (begun, position) = channel.newest.as_ref()?;
            (*begun >= moment).then(|| (number, position.clone()))
        });
        marks.collect()
    }

    /// Whether a publication was acknowledged.
    pub(crate) fn is_acknowledged(&self, channel: usize, what: (u32, u64)) -> bool {
        self.channels.borrow()[channel].acknowledged.contains(&what)
    }

    /// The same, of a channel by its name.
    pub(crate) fn is_acknowledged_on(&self, channel: &str, what: (u32, u64)) -> bool {
        self.channel_named(channel).is_some_and(|channel| self.is_acknowledged(channel, what))
    }

    /// How many publications were acknowledged on a channel.
    pub(crate) fn acknowledged_count(&self, channel: usize) -> u64 {
        self.channels.borrow()[channel].acknowledged.len() as u64
    }

    /// A subscriber was told that its place is lost: [`Record::judge`] looks whether it was.
    pub(crate) fn doubt(&self, channel: usize, doubt: Doubt) {
        self.channels.borrow_mut()[channel].doubted.push(doubt);
    }

    /// What has a place by now and must still be there when the stream is read after this.
    pub(crate) fn owed(&self, channel: usize) -> HashMap<(u32, u64), u64> {
        self.channels.borrow()[channel].owed.clone()
    }

    /// Redis was emptied: nothing is owed of what it had.
    pub(crate) fn forgive(&self) {
        for channel in self.channels.borrow_mut().iter_mut() {
            channel.owed.clear();
            channel.doubted.clear();
        }
    }

    /// Holds the losses that were told against what a stream still has, `found`, by offset; and what was `owed` when its reading
    /// began. A place was lost if neither what stood there nor anything that stood behind it in the same life was there any more.
    /// What is lost may come again, since it was never acknowledged, and by chance to its old offset: it was placed in another life
    /// then, and says so to its publisher.
    pub(crate) fn judge(
        &self,
        channel: usize,
        owed: &HashMap<(u32, u64), u64>,
        found: &BTreeMap<u64, Stamp>,
    ) {
        let mut offences = Vec::new();
        {
            let mut channels = self.channels.borrow_mut();
            let channel = &mut channels[channel];
            let is_there = |offset: u64, what: (u32, u64)| {
                found.get(&offset).is_some_and(|stamp| (stamp.publisher, stamp.number) == what)
            };
            for Doubt { place, top, story } in
                channel.doubted.drain(..).filter(|it| it.place.offset <= it.top)
            {
                let is_placed_again = |offset: u64, what: (u32, u64)| {
                    let others = channel.lives.iter().filter(|(epoch, _)| **epoch != place.epoch);
                    others.into_iter().any(|(_, life)| life.acknowledged.get(&offset) == Some(&what))
                };
                let life = channel.lives.get(&place.epoch);
                let mut behind = life.into_iter().flat_map(|life| life.at.range(place.offset..=top));
                let stands = |offset, what| is_there(offset, what) && !is_placed_again(offset, what);
                if let Some((offset, what)) = behind.find(|(offset, what)| stands(**offset, **what)) {
                    let what = format!("{what:?} still stands at {offset}; {story}");
                    offences.push((Offence::NeedlessGap, what));
                }
            }
            for (what, offset) in owed {
                if !is_there(*offset, *what) && channel.owed.remove(what).is_some() {
                    let what = format!("{}: {what:?}, acknowledged at {offset}, is gone", channel.name);
                    offences.push((Offence::Forgotten, what));
                }
            }
        }
        for (offence, what) in offences {
            self.offend(offence, 1, &what);
        }
    }

    /// Holds what a stream turned out to be against what was acknowledged and heard: `found` is all of it, by offset.
    pub(crate) fn audit(&self, channel: usize, epoch: &str, found: &BTreeMap<u64, Stamp>) {
        let name = self.name(channel);
        let mut channels = self.channels.borrow_mut();
        let life = channels[channel].lives.entry(epoch.to_owned()).or_default();
        let mut offences = Vec::new();
        for (offset, what) in &life.acknowledged {
            if found.get(offset).is_none_or(|stamp| (stamp.publisher, stamp.number) != *what) {
                offences.push((
                    Offence::FalseAck,
                    format!("{what:?} was acknowledged at {offset} of {epoch}, and is not there"),
                ));
            }
        }
        for (offset, stamp) in found {
            let what = (stamp.publisher, stamp.number);
            if !stamp.is_sound(&name) {
                offences.push((Offence::Altered, format!("the sum of {what:?} is wrong in history")));
            }
            if let Err((offence, other)) = life.place(*offset, what) {
                offences.push((offence, format!("history has {what:?} at {offset}, and {other}")));
            }
        }
        drop(channels);
        for (offence, what) in offences {
            self.offend(offence, 1, &format!("{name}: {what}"));
        }
    }

    /// Each publisher's numbers must ascend with the offsets, in every life of every stream; and no stream may have had
    /// more lives than there were faults to end one. Returns the number of lives.
    pub(crate) fn check_order(&self) -> usize {
        let channels = self.channels.borrow();
        let mut lives = 0;
        for channel in channels.iter() {
            lives += channel.lives.len();
            if channel.lives.len() > 1 + self.lives_ended.get() {
                let what = format!("{}: {} epochs", channel.name, channel.lives.len());
                self.offend(Offence::NeedlessGap, 1, &what);
            }
            for (epoch, life) in &channel.lives {
                let mut last = HashMap::new();
                for (offset, (publisher, number)) in &life.at {
                    let before = last.insert(*publisher, *number).unwrap_or(0);
                    if *number < before {
                        let what = format!(
                            "{}: {publisher}'s number {number} stands at {offset} of {epoch}, after its {before}",
                            channel.name
                        );
                        self.offend(Offence::Reordered, 1, &what);
                    }
                }
            }
        }
        lives
    }
}

impl Life {
    /// Enters what stands at an offset.
    fn place(&mut self, offset: u64, what: (u32, u64)) -> Result<(), (Offence, String)> {
        match self.at.insert(offset, what) {
            Some(before) if before != what => {
                return Err((Offence::Altered, format!("{before:?} was said to stand there")));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        match self.offset_of.insert(what, offset) {
            Some(before) if before != offset => Err((Offence::Doubled, format!("it stands at {before} too"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> (Record, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let channels = [("kept:0".to_owned(), true)];
        (Record::new(channels, &directory.path().join("journal")).unwrap(), directory)
    }

    fn position(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.into(), offset }
    }

    fn stamp(number: u64) -> Stamp {
        Stamp::new("kept:0", 1, number)
    }

    #[test]
    fn all_who_hear_an_offset_hear_the_same() {
        let (record, _directory) = record();
        record.placed(0, &stamp(1), &position("a", 1));
        record.placed(0, &stamp(1), &position("a", 1));
        assert!(record.offences().is_empty());
        record.placed(0, &stamp(2), &position("a", 1));
        assert_eq!(record.offences()[&Offence::Altered], 1);
    }

    #[test]
    fn a_publication_stands_in_one_place_of_a_life() {
        let (record, _directory) = record();
        record.placed(0, &stamp(1), &position("a", 1));
        record.placed(0, &stamp(1), &position("b", 1));
        assert!(record.offences().is_empty(), "an emptied Redis has forgotten the key");
        record.placed(0, &stamp(1), &position("a", 2));
        assert_eq!(record.offences()[&Offence::Doubled], 1);
    }

    #[test]
    fn what_was_acknowledged_is_there() {
        let (record, _directory) = record();
        let at =
            |number| record.acknowledged(0, &stamp(number), Instant::now(), Some(&position("a", number)));
        at(1);
        at(2);
        record.audit(0, "a", &BTreeMap::from([(1, stamp(1)), (2, stamp(2))]));
        assert!(record.offences().is_empty());
        record.audit(0, "a", &BTreeMap::from([(1, stamp(1))]));
        assert_eq!(record.offences()[&Offence::FalseAck], 1);
    }

    #[test]
    fn a_place_is_lost_if_nothing_of_its_life_stands_there_or_behind() {
        let judged = |place, top, found: &[(u64, u64)]| {
            let (record, _directory) = record();
            for number in 1..=5 {
                record.placed(0, &stamp(number), &position("a", number));
            }
            record.acknowledged(0, &stamp(4), Instant::now(), Some(&position("b", 4)));
            record.doubt(0, Doubt { place: position("a", place), top, story: "told".into() });
            let found = found.iter().map(|(offset, number)| (*offset, stamp(*number))).collect();
            record.judge(0, &HashMap::new(), &found);
            record.offences().get(&Offence::NeedlessGap).copied().unwrap_or(0)
        };
        assert_eq!(judged(3, 5, &[(1, 1), (2, 2)]), 0);
        assert_eq!(judged(3, 5, &[(1, 1), (2, 2), (3, 9), (4, 10)]), 0, "another life stands there now");
        assert_eq!(judged(3, 5, &[(1, 1), (2, 2), (3, 3)]), 1);
        assert_eq!(judged(3, 5, &[(5, 5)]), 1, "what stood before it was there too, once");
        assert_eq!(judged(3, 4, &[(5, 5)]), 0, "it came later, again");
        assert_eq!(judged(3, 5, &[(4, 4)]), 0, "it was placed in another life");
        assert_eq!(judged(3, 2, &[(3, 3)]), 0, "the stream did not reach as far");
        assert_eq!(judged(7, 9, &[(5, 5)]), 0, "it stood behind everything that is known");
    }

    #[test]
    fn what_was_acknowledged_stays_until_redis_is_emptied() {
        let (record, _directory) = record();
        for number in 1..=3 {
            record.acknowledged(0, &stamp(number), Instant::now(), Some(&position("a", number)));
        }
        record.judge(0, &record.owed(0), &BTreeMap::from([(1, stamp(1)), (2, stamp(2)), (3, stamp(3))]));
        assert!(record.offences().is_empty());
        record.judge(0, &record.owed(0), &BTreeMap::from([(1, stamp(1)), (2, stamp(2)), (3, stamp(4))]));
        record.judge(0, &record.owed(0), &BTreeMap::from([(1, stamp(1)), (2, stamp(2)), (3, stamp(4))]));
        assert_eq!(record.offences()[&Offence::Forgotten], 1, "each is missed once");
        record.forgive();
        record.judge(0, &record.owed(0), &BTreeMap::new());
        assert_eq!(record.offences()[&Offence::Forgotten], 1);
    }

    #[test]
    fn a_publishers_numbers_ascend() {
        let (record, _directory) = record();
        for (offset, number) in [(1, 1), (2, 3), (3, 4)] {
            record.placed(0, &stamp(number), &position("a", offset));
        }
        assert_eq!(record.check_order(), 1);
        assert!(record.offences().is_empty());
        record.placed(0, &stamp(2), &position("a", 4));
        record.check_order();
        assert_eq!(record.offences()[&Offence::Reordered], 1);
    }
}
