//! The scenarios, and what they share: opening many connections at a bounded pace.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep};

use crate::args::Common;
use crate::connection::{Connection, Scratch, Target};
use crate::report::progress;

pub(crate) mod check;
pub(crate) mod crowd;
pub(crate) mod flow;
pub(crate) mod idle;

/// Where nobody says when a subscription holds, it is taken to hold after this.
const UNACKNOWLEDGED: Duration = Duration::from_secs(1);

/// Resolves the addresses of the command line.
async fn targets(common: &Common) -> Result<Vec<Target>> {
    let protocol = common.protocol.protocol();
    let authority = common.authority.as_deref();
    stream::iter(&common.url).then(|url| Target::resolve(url, protocol, authority)).try_collect().await
}

/// A word that no other run has, so that channels of one run are not those of the last.
pub(crate) fn run_name() -> String {
    format!("{:08x}", fastrand::u32(..))
}

/// Where a connection goes.
struct Place<'a> {
    /// Number of the URL, taken round and round.
    url: usize,
    /// What it subscribes to.
    channel: &'a str,
}

/// Opens `count` connections, the `index`th at `place(index)`; hands each to `opened` as soon as it is
/// subscribed, so that it is never left unread. Returns how long all of them took.
async fn open_all<'a>(
    common: &Common,
    count: usize,
    scratch: &Scratch,
    place: impl Fn(usize) -> Place<'a>,
    mut opened: impl FnMut(usize, Connection),
) -> Result<Duration> {
    let targets = targets(common).await?;
    progress(&format!("opening {count} connections to {}", common.url.join(", ")));
    let start = Instant::now();
    let connections = stream::iter(0..count).map(|index| {
        let Place { url, channel } = place(index);
        let target = &targets[url % targets.len()];
        async move {
            let connection = Connection::open(target, index, &[channel], scratch).await?;
            anyhow::Ok((index, connection))
        }
    });
    let mut connections = std::pin::pin!(connections.buffer_unordered(common.concurrency.max(1)));
    while let Some((index, connection)) = connections.try_next().await? {
        opened(index, connection);
    }
    let elapsed = start.elapsed();
    if !common.protocol.protocol().acknowledges() {
        sleep(UNACKNOWLEDGED).await;
    }
    Ok(elapsed)
}

/// Adds what went wrong on connections to the failures.
fn blame(troubles: &BTreeMap<String, u64>, failures: &mut Vec<String>) {
    failures.extend(troubles.iter().map(|(what, count)| format!("{what}: {count}")));
}
