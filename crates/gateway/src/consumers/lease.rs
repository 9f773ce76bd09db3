//! Who reads a stream: one node at a time, so that its order is kept, and another as soon as that one is gone.
//!
//! A lease is a key beside the stream that its holder renews and that ends by itself. One that is late, frozen for longer than its
//! lease lasts, may go on for a moment beside the next holder. Both then publish the same entries in the same order and under the
//! same keys, so the first to publish each still keeps the order.
//!
//! Each node holds as many streams of a consumer as are its share, going by the nodes that are alive: one that holds more gives
//! one up, and one that holds enough takes another only where nobody else seems to want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanfare_fanout::broker::redis::RedisLine;
use redis::cmd;

use super::redis_stream::{StreamError, ask};
use crate::census;
use crate::node::Services;

/// How long one lasts that is not renewed.
const LASTS: Duration = Duration::from_secs(10);

/// How often one is renewed, and how often it is looked whether one has become free.
pub(super) const RENEWAL: Duration = Duration::from_secs(1);

/// As often as one has to be found free by a node that has its share already.
const FREE_LOOKS: u32 = 4;

/// Renews the key if it is still ours; deletes it with no time left to last.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
     if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end \
     return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// How many of a consumer's streams this node holds.
#[derive(Debug)]
pub(super) struct Share {
    streams: usize,
    held: AtomicUsize,
    services: Arc<Services>,
}

impl Share {
    pub(super) fn new(streams: usize, services: Arc<Services>) -> Self {
        Self { streams, held: AtomicUsize::new(0), services }
    }

    fn fair(&self) -> usize {
        fair(self.streams, census::nodes(&self.services).len())
    }

    /// Whether the node holds more than it should.
    pub(super) fn is_too_much(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.fair()
    }
}

fn fair(streams: usize, nodes: usize) -> usize {
    streams.div_ceil(nodes.max(1))
}

/// The right to read a stream, as long as it is renewed.
#[derive(Debug)]
pub(super) struct Lease {
    key: String,
    holder: Box<str>,
    share: Arc<Share>,
}

impl Lease {
    /// Takes that of a stream, if it is free and this node should; `looks` counts how often it was left to others.
    pub(super) async fn take(
        line: &RedisLine,
        key: String,
        holder: &str,
        share: &Arc<Share>,
        looks: &mut u32,
    ) -> Result<Option<Self>, StreamError> {
        if share.held.load(Ordering::Relaxed) >= share.fair() && *looks < FREE_LOOKS {
            let is_held: bool = ask(line, cmd("EXISTS").arg(&key)).await?;
            *looks = if is_held { 0 } else { *looks + 1 };
            return Ok(None);
        }
        let mut set = cmd("SET");
        set.arg(&key).arg(holder).arg("NX").arg("PX").arg(LASTS.as_millis() as u64);
        let taken: Option<String> = ask(line, &set).await?;
        *looks = 0;
        Ok(taken.map(|_| {
            share.held.fetch_add(1, Ordering::Relaxed);
            Self { key, holder: holder.into(), share: share.clone() }
        }))
    }

    /// Whether it is still ours, for another while.
    pub(super) async fn renew(&self, line: &RedisLine) -> Result<bool, StreamError> {
        self.last(line, LASTS).await
    }

    /// Leaves the stream to whoever wants it.
    pub(super) async fn release(self, line: &RedisLine) -> Result<bool, StreamError> {
        self.last(line, Duration::ZERO).await
    }

    async fn last(&self, line: &RedisLine, time: Duration) -> Result<bool, StreamError> {
        let mut eval = cmd("EVAL");
        eval.arg(RENEW).arg(1).arg(&self.key).arg(&*self.holder).arg(time.as_millis() as u64);
        ask(line, &eval).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.share.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_nodes_cover_all_streams() {
        for streams in 1..=64 {
            for nodes in 1..=70 {
                assert!(fair(streams, nodes) * nodes >= streams, "{streams} streams, {nodes} nodes");
                assert!(fair(streams, nodes) >= 1);
            }
        }
        assert_eq!((fair(4, 2), fair(5, 2), fair(1, 3), fair(4, 0)), (2, 3, 1, 4));
    }
}
