//! Whether every node says in the end that those are present who are, and nobody else.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::follow::Offence;
use crate::publisher::call;
use crate::record::Record;
use crate::stage::{self, NODES, PRESENCE_GRACE, PRESENCE_HEARTBEAT, Stage};
use crate::subscriber::Subscriber;

/// How often all are asked.
const LOOK: Duration = Duration::from_millis(200);

/// What one node says of one channel.
struct Said {
    node: usize,
    channel: usize,
    ghosts: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// Asks every node about every channel with history until all of them name the subscribers, at the latest until members of
/// a dead node have to be gone; what is wrong then is an offence. Returns how many were named.
pub(crate) async fn agrees(stage: &Stage, record: &Record, subscribers: &[Rc<Subscriber>]) -> u64 {
    let deadline = Instant::now() + 2 * PRESENCE_HEARTBEAT + PRESENCE_GRACE;
    loop {
        let is_over = Instant::now() >= deadline;
        let (named, wrong) = ask(stage, record, subscribers).await;
        if wrong.is_empty() {
            return named;
        }
        if is_over {
            for Said { node, channel, ghosts, missing } in wrong {
                let place = format!("{} at {}", record.name(channel), stage::name(node));
                for (offence, who) in [(Offence::Ghost, ghosts), (Offence::Missing, missing)] {
                    if !who.is_empty() {
                        record.offend(offence, who.len() as u64, &format!("{place}: {who:?}"));
                    }
                }
            }
            return named;
        }
        sleep(LOOK).await;
    }
}

/// Asks once: how many were named, and where that is wrong.
async fn ask(stage: &Stage, record: &Record, subscribers: &[Rc<Subscriber>]) -> (u64, Vec<Said>) {
    let (mut count, mut wrong) = (0, Vec::new());
    for node in 0..NODES {
        let address = stage.addresses.internal.borrow()[node];
        for channel in record.channels(true) {
            let answer = call(address, "presence", &json!({"channel": record.name(channel)})).await;
            let members = answer.as_ref().ok().and_then(|it| it["members"].as_array());
            let named = members.into_iter().flatten().filter_map(|it| it["session"].as_str());
            let named: BTreeSet<_> = named.map(str::to_owned).collect();
            let there: BTreeSet<_> = subscribers.iter().filter_map(|it| it.session_on(channel)).collect();
            count += named.len() as u64;
            if named != there {
                let (ghosts, missing) = (&named - &there, &there - &named);
                wrong.push(Said { node, channel, ghosts, missing });
            }
        }
    }
    (count, wrong)
}
