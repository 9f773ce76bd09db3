//! What stands at each place of each stream, by the word of publishers and listeners, and what does not agree.

use std::collections::{BTreeMap, HashMap};

use fanfare_client::Position;

/// Offences that are kept in words; more of them say nothing new.
const OFFENCES_MAX: usize = 20;

/// Who published it, and its how manyth publication on the channel that was.
pub(crate) type Stamp = (u32, u64);

/// One stream: nothing takes its history away, so it has one epoch for as long as it is watched.
#[derive(Debug, Default)]
struct Stream {
    epoch: Option<String>,
    /// What listeners heard or publishers were told to stand at an offset.
    at: BTreeMap<u64, Stamp>,
    /// The same, the other way round.
    offset_of: HashMap<Stamp, u64>,
    /// The last offset that a publisher was told.
    top: u64,
    /// What that was at the last [`Judge::mark`].
    mark: u64,
}

/// One listener of one stream: the last offset it has heard, or where it came in.
#[derive(Debug)]
struct Place {
    channel: usize,
    last: Option<u64>,
}

/// A listener's name for the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener(usize);

/// All that was said and heard.
#[derive(Debug)]
pub(crate) struct Judge {
    streams: Vec<Stream>,
    places: Vec<Place>,
    /// Publications that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Messages heard, by all listeners together.
    pub(crate) delivered: u64,
    /// Times that a channel fell silent for a listener.
    pub(crate) interruptions: u64,
    /// What must not happen, and how often it did.
    pub(crate) offences: u64,
    /// The first of them in words.
    pub(crate) stories: Vec<String>,
}

impl Judge {
    /// Of so many channels, on which nothing has been said.
    pub(crate) fn new(channels: usize) -> Self {
        let streams = (0..channels).map(|_| Stream::default()).collect();
        let (acknowledged, delivered, interruptions, offences) = (0, 0, 0, 0);
        Self { streams, places: vec![], acknowledged, delivered, interruptions, offences, stories: vec![] }
    }

    /// A listener comes to a channel.
    pub(crate) fn listener(&mut self, channel: usize) -> Listener {
        self.places.push(Place { channel, last: None });
        Listener(self.places.len() - 1)
    }

    /// A publisher was told the place of its publication.
    pub(crate) fn acknowledge(&mut self, channel: usize, stamp: Stamp, place: &Position) {
        self.acknowledged += 1;
        self.same_epoch(channel, &place.epoch);
        self.stands(channel, place.offset, stamp);
        let stream = &mut self.streams[channel];
        stream.top = stream.top.max(place.offset);
    }

    /// A listener's channel is live, for the first time or again.
    pub(crate) fn live(&mut self, listener: Listener, recovered: Option<bool>, place: Option<&Position>) {
        let Place { channel, last } = self.places[listener.0];
        let Some(place) = place else {
            return self.offend(format!("channel {channel} has no history"));
        };
        self.same_epoch(channel, &place.epoch);
        if last.is_some() && recovered == Some(true) {
            return;
        }
        self.places[listener.0].last = Some(place.offset);
        if last.is_some() {
            self.offend(format!("{listener:?} was told of a gap on channel {channel} after {last:?}"));
        }
    }

    /// A listener heard something.
    pub(crate) fn hear(&mut self, listener: Listener, offset: Option<u64>, stamp: Stamp) {
        self.delivered += 1;
        let Place { channel, last } = self.places[listener.0];
        let (Some(offset), Some(last)) = (offset, last) else {
            return self
                .offend(format!("{listener:?} heard {stamp:?} at {offset:?}, before it was subscribed"));
        };
        match offset {
            it if it <= last => {
                self.offend(format!("{listener:?} heard {it} on channel {channel} again, after {last}"))
            }
            it if it > last + 1 => {
                // Each message that is missing counts.
                self.offences += it - last - 2;
                self.offend(format!("{listener:?} lost {} to {} on channel {channel}", last + 1, it - 1));
            }
            _ => {}
        }
        self.places[listener.0].last = Some(offset.max(last));
        self.stands(channel, offset, stamp);
    }

    /// From now on it counts whether all that has been acknowledged by now was heard: while publishers go on, somebody is always
    /// behind the newest.
    pub(crate) fn mark(&mut self) {
        for stream in &mut self.streams {
            stream.mark = stream.top;
        }
    }

    /// How many listeners have not heard all that had been acknowledged on their channels at the last mark.
    pub(crate) fn behind(&self) -> usize {
        let is_behind = |it: &&Place| it.last.is_none_or(|last| last < self.streams[it.channel].mark);
        self.places.iter().filter(is_behind).count()
    }

    /// Whatever must not happen.
    pub(crate) fn offend(&mut self, story: String) {
        self.offences += 1;
        if self.stories.len() < OFFENCES_MAX {
            self.stories.push(story);
        }
    }

    fn same_epoch(&mut self, channel: usize, epoch: &str) {
        let known = self.streams[channel].epoch.get_or_insert_with(|| epoch.to_owned());
        if known != epoch {
            let story = format!("channel {channel} went on under epoch {epoch}, after {known}");
            self.offend(story);
        }
    }

    fn stands(&mut self, channel: usize, offset: u64, stamp: Stamp) {
        let stream = &mut self.streams[channel];
        let there = *stream.at.entry(offset).or_insert(stamp);
        let place = *stream.offset_of.entry(stamp).or_insert(offset);
        if there != stamp {
            self.offend(format!("at {offset} of channel {channel} there is {stamp:?}, and {there:?}"));
        }
        if place != offset {
            self.offend(format!("{stamp:?} stands on channel {channel} twice: at {place}, and at {offset}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: "e".into(), offset }
    }

    /// A listener from offset 3 on, and what it makes of these; each is an offset and a stamp.
    fn offences(heard: &[(u64, Stamp)]) -> u64 {
        let mut judge = Judge::new(1);
        let listener = judge.listener(0);
        judge.live(listener, Some(false), Some(&at(3)));
        for (offset, stamp) in heard {
            judge.hear(listener, Some(*offset), *stamp);
        }
        judge.offences
    }

    #[test]
    fn each_message_once_and_in_order_is_no_offence() {
        assert_eq!(offences(&[(4, (0, 1)), (5, (1, 1)), (6, (0, 2))]), 0);
    }

    #[test]
    fn every_message_that_is_lost_counts() {
        assert_eq!(offences(&[(4, (0, 1)), (6, (0, 2))]), 1);
        assert_eq!(offences(&[(7, (0, 1))]), 3);
    }

    #[test]
    fn a_second_time_counts_wherever_it_is() {
        assert_eq!(offences(&[(4, (0, 1)), (4, (0, 1))]), 1);
        assert_eq!(offences(&[(4, (0, 1)), (5, (0, 1))]), 1);
        assert_eq!(offences(&[(4, (0, 1)), (5, (0, 2)), (4, (0, 1))]), 1);
    }

    #[test]
    fn what_two_heard_at_one_place_is_the_same() {
        let mut judge = Judge::new(1);
        let (one, other) = (judge.listener(0), judge.listener(0));
        judge.live(one, None, Some(&at(0)));
        judge.live(other, None, Some(&at(0)));
        judge.hear(one, Some(1), (0, 1));
        judge.hear(other, Some(1), (0, 2));
        assert_eq!(judge.offences, 1);
    }

    #[test]
    fn what_was_acknowledged_is_owed_to_every_listener() {
        let mut judge = Judge::new(2);
        let listener = judge.listener(1);
        assert_eq!(judge.behind(), 1, "it is not subscribed yet");
        judge.live(listener, None, Some(&at(0)));
        judge.acknowledge(0, (0, 1), &at(1));
        judge.mark();
        assert_eq!(judge.behind(), 0, "it is another channel's");
        judge.acknowledge(1, (0, 2), &at(1));
        assert_eq!(judge.behind(), 0, "it came after the mark");
        judge.mark();
        assert_eq!(judge.behind(), 1);
        judge.hear(listener, Some(1), (0, 2));
        assert_eq!((judge.behind(), judge.offences), (0, 0));
        judge.acknowledge(1, (0, 3), &at(1));
        assert_eq!(judge.offences, 1, "it was promised a place that another has");
    }

    #[test]
    fn a_gap_and_another_epoch_are_offences() {
        let mut judge = Judge::new(1);
        let listener = judge.listener(0);
        judge.live(listener, Some(false), Some(&at(0)));
        judge.live(listener, Some(true), Some(&at(0)));
        assert_eq!(judge.offences, 0);
        judge.live(listener, Some(false), Some(&at(7)));
        assert_eq!(judge.offences, 1);
        judge.hear(listener, Some(8), (0, 1));
        assert_eq!(judge.offences, 1, "it goes on from there");
        judge.live(listener, Some(true), Some(&Position { epoch: "f".into(), offset: 0 }));
        assert_eq!(judge.offences, 2);
        judge.live(listener, Some(true), None);
        assert_eq!(judge.offences, 3);
    }
}
