//! How often it is told how many are on a channel: a crowd that comes and goes fast is counted now and then.
//!
//! The book tells every node the number with each step that changes it. It is passed on at once where nothing was told of late,
//! and otherwise when [`pause`] is over, as it is by then: so the last number is always told, and a storm costs each client as much
//! as it lasts, not as it counts.
//!
//! **Invariant.** A channel is kept here from a number until its pause is over without another one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use fanfare_protocol::Channel;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The most connections that are a small crowd.
const SMALL: u64 = 100;

/// The least time between two numbers that are told of a channel.
fn pause(connections: u64) -> Duration {
    if connections <= SMALL { Duration::from_millis(250) } else { Duration::from_secs(5) }
}

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pending: Mutex<Pending>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    channels: HashMap<Channel, Count>,
    /// When each of them may be told of, or forgotten.
    due: BTreeSet<(Instant, Channel)>,
}

#[derive(Debug)]
struct Count {
    connections: u64,
    is_told: bool,
}

impl Counts {
    /// So many are on the channel now.
    pub(super) fn note(&self, channel: &Channel, connections: u64, now: Instant) {
        let mut pending = self.pending.lock();
        let Pending { channels, due } = &mut *pending;
        let is_new = channels.insert(channel.clone(), Count { connections, is_told: false }).is_none();
        if is_new {
            due.insert((now, channel.clone()));
            drop(pending);
            self.news.notify_one();
        }
    }

    /// What may be told now.
    fn take(&self, now: Instant) -> Vec<(Channel, u64)> {
        let mut pending = self.pending.lock();
        let Pending { channels, due } = &mut *pending;
        let mut told = Vec::new();
        while due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, channel)) = due.pop_first()
        {
            let count = channels.get_mut(&channel).expect("what is due is there");
            if std::mem::replace(&mut count.is_told, true) {
                channels.remove(&channel);
                continue;
            }
            due.insert((now + pause(count.connections), channel.clone()));
            told.push((channel, count.connections));
        }
        told
    }

    /// Waits until something may be told, and takes it.
    pub(super) async fn next(&self) -> Vec<(Channel, u64)> {
        loop {
            let told = self.take(Instant::now());
            if !told.is_empty() {
                return told;
            }
            let due = self.pending.lock().due.first().map(|(at, _)| *at);
            let time = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.news.notified() => {}
                () = time => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_told_and_those_between_are_not() {
        let (counts, channel, now) = (Counts::default(), Channel::parse("a").unwrap(), Instant::now());
        let later = |millis| now + Duration::from_millis(millis);
        counts.note(&channel, 1, now);
        assert_eq!(counts.take(now), [(channel.clone(), 1)], "at once");
        counts.note(&channel, 2, later(10));
        counts.note(&channel, 3, later(20));
        assert_eq!(counts.take(later(249)), []);
        assert_eq!(counts.take(later(250)), [(channel.clone(), 3)]);
        assert_eq!(counts.take(later(500)), []);
        assert!(counts.pending.lock().channels.is_empty(), "nothing is kept of what has come to rest");
        counts.note(&channel, 2, later(501));
        assert_eq!(counts.take(later(501)), [(channel, 2)], "at once again");
    }

    #[test]
    fn a_large_crowd_is_counted_less_often() {
        let (counts, now) = (Counts::default(), Instant::now());
        let [large, small] = ["large", "small"].map(|name| Channel::parse(name).unwrap());
        let later = |millis| now + Duration::from_millis(millis);
        counts.note(&large, 101, now);
        counts.note(&small, 100, now);
        assert_eq!(counts.take(now).len(), 2);
        counts.note(&large, 102, later(1));
        counts.note(&small, 99, later(1));
        assert_eq!(counts.take(later(4_999)), [(small, 99)]);
        assert_eq!(counts.take(later(5_000)), [(large, 102)]);
    }
}
