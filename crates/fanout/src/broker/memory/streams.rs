//! The pasts of channels, in the memory of one process.
//!
//! A stream keeps what its last draft's retention asks for. When its publications have expired it still knows its epoch
//! and its offset, so that a quiet channel goes on where it was; the stream itself goes once nobody watches it and it has
//! been quiet for [`FORGET_AFTER`] beyond its retention. Expired streams are looked for when the number of streams has
//! doubled, so keeping house costs each publication a constant.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Epoch, IdempotencyKey, Offset, Position, Retention};
use fanfare_protocol::{Channel, Publication};
use tokio::time::Instant;

/// How long a stream that has nothing left to give keeps its epoch.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// The number of streams below which keeping house is not worth it.
const HOUSE: usize = 1024;

/// The streams of some of a bus' channels.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<Channel, Stream>,
    /// The number of streams at which the next look for expired ones is due.
    sweep_at: usize,
}

#[derive(Debug)]
struct Stream {
    epoch: Epoch,
    top: Offset,
    /// The newest, consecutive up to `top`.
    kept: VecDeque<Arc<Publication>>,
    /// When `kept` expires.
    expires: Instant,
    /// Idempotency keys in the order they expire, and what each was answered with.
    keys: HashMap<IdempotencyKey, (Instant, Position)>,
    keys_by_age: VecDeque<(Instant, IdempotencyKey)>,
}

/// What became of a draft.
pub(super) enum Appended {
    /// It is the stream's newest.
    New(Arc<Publication>),
    /// Its idempotency key was placed before, there.
    Repeated(Position),
}

impl Streams {
    /// Gives a draft the next offset of its stream and keeps it.
    pub(super) fn append(
        &mut self,
        draft: Draft,
        retention: Retention,
        is_watched: impl Fn(&Channel) -> bool,
    ) -> Appended {
        let now = Instant::now();
        self.sweep(now, is_watched);
        let stream = self.stream(&draft.channel, now);
        stream.expire(now);
        match draft.key.as_ref().and_then(|key| stream.keys.get(key)) {
            Some((until, position)) if *until > now => return Appended::Repeated(*position),
            _ => {}
        }
        stream.top.0 += 1;
        let position = Position { epoch: stream.epoch, offset: stream.top };
        if let Some(key) = draft.key.clone() {
            let until = now + retention.idempotency_ttl;
            stream.keys.insert(key.clone(), (until, position));
            stream.keys_by_age.push_back((until, key));
        }
        let publication = Arc::new(Publication::kept(draft, position));
        let size = usize::try_from(retention.size.get()).unwrap_or(usize::MAX);
        while stream.kept.len() >= size {
            stream.kept.pop_front();
        }
        stream.kept.push_back(publication.clone());
        stream.expires = now + retention.ttl;
        Appended::New(publication)
    }

    /// Reads a part of a channel's past; a channel that has none gets its epoch now.
    pub(super) fn read(&mut self, channel: &Channel, query: Query) -> Page {
        let now = Instant::now();
        let stream = self.stream(channel, now);
        stream.expire(now);
        let limit = query.limit;
        let publications = match (query.reverse, query.since) {
            (false, since) => {
                let wanted = stream.kept.iter().filter(|it| since.is_none_or(|since| it.offset() > since));
                wanted.take(limit).cloned().collect()
            }
            (true, since) => {
                let wanted =
                    stream.kept.iter().rev().filter(|it| since.is_none_or(|since| it.offset() < since));
                wanted.take(limit).cloned().collect()
            }
        };
        Page { epoch: stream.epoch, top: stream.top, publications }
    }

    /// Where a stream stands, if there is one.
    pub(super) fn position(&self, channel: &Channel) -> Option<Position> {
        self.streams.get(channel).map(|stream| Position { epoch: stream.epoch, offset: stream.top })
    }

    /// Forgets what was published, and goes on where it was.
    pub(super) fn remove(&mut self, channel: &Channel) {
        if let Some(stream) = self.streams.get_mut(channel) {
            stream.kept = VecDeque::new();
        }
    }

    fn stream(&mut self, channel: &Channel, now: Instant) -> &mut Stream {
        self.streams.entry(channel.clone()).or_insert_with(|| Stream {
            // Random, so that a node started anew is not taken for its predecessor; and not `Epoch::NEVER`.
            epoch: Epoch(fastrand::u64(1..)),
            top: Offset(0),
            kept: VecDeque::new(),
            expires: now,
            keys: HashMap::new(),
            keys_by_age: VecDeque::new(),
        })
    }

    fn sweep(&mut self, now: Instant, is_watched: impl Fn(&Channel) -> bool) {
        if self.streams.len() < self.sweep_at.max(HOUSE) {
            return;
        }
        self.streams.retain(|channel, stream| now < stream.expires + FORGET_AFTER || is_watched(channel));
        self.sweep_at = self.streams.len() * 2;
    }
}

impl Stream {
    fn expire(&mut self, now: Instant) {
        if self.expires <= now {
            self.kept = VecDeque::new();
        }
        while self.keys_by_age.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, key)) = self.keys_by_age.pop_front() else { break };
            // It may have been placed again since, by a draft whose retention was shorter than those before it.
            if self.keys.get(&key).is_some_and(|(its, _)| *its == until) {
                self.keys.remove(&key);
            }
        }
    }
}
