//! What the check of quiet streams finds, how soon, and what it asks of the broker.

use std::collections::HashMap;

use super::*;
use crate::follower::LOOKS_APART;

/// Some of every phase.
const QUIET: usize = 600;

const LOOK: Duration = OPTIONS.check_interval;

/// Somebody who hears one channel.
struct Listener {
    room: usize,
    outbox: Arc<Outbox>,
}

impl Listener {
    async fn join(hub: &Hub, room: usize) -> Self {
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1_000);
        hub.subscribe(&channel(room), &outbox, terms(Start::Live)).await.unwrap();
        hub.go_live(&channel(room), &outbox, Frame::text("reply"));
        let listener = Self { room, outbox };
        assert_eq!(listener.heard(), 1, "the reply");
        listener
    }

    fn heard(&self) -> usize {
        let mut batch = Batch::default();
        let _ = self.outbox.poll_take(&Context::from_waker(Waker::noop()), &mut batch);
        batch.frames.len()
    }
}

async fn listeners(hub: &Hub, count: usize) -> Vec<Listener> {
    futures_util::future::join_all((0..count).map(|room| Listener::join(hub, room))).await
}

async fn publish(hub: &Hub, room: usize) {
    let draft = Draft { retention: Some(Retention::SHORT), ..draft(room, "1", None) };
    hub.publish(draft).await.unwrap();
}

/// Publishes, and the publication comes on no lane.
async fn lose(broker: &Counting, hub: &Hub, room: usize) {
    broker.unwatch(&channel(room)).await;
    publish(hub, room).await;
    broker.watch(&channel(room)).await.unwrap();
}

/// The stream's newest publication comes on no lane, and no other follows it.
#[tokio::test(start_paused = true)]
async fn a_last_publication_that_was_lost_is_found_by_the_check() {
    let (broker, hub) = counting();
    let listeners = listeners(&hub, 4 * LOOKS_APART as usize).await;
    for looks in 0..3 * LOOKS_APART {
        for listener in &listeners {
            publish(&hub, listener.room).await;
            lose(&broker, &hub, listener.room).await;
        }
        sleep(LOOK * 2 + LOOK / 2).await;
        for listener in &listeners {
            assert_eq!(listener.heard(), 2, "soon, where somebody has just spoken");
        }
        sleep(LOOK * looks).await;
    }
}

/// However long a channel has been quiet, and whenever it is that its last publication is lost.
#[tokio::test(start_paused = true)]
async fn a_publication_lost_after_a_long_silence_is_found_within_one_turn() {
    let (broker, hub) = counting();
    let listeners = listeners(&hub, 4 * LOOKS_APART as usize).await;
    for looks in 20..20 + 2 * LOOKS_APART {
        sleep(LOOK * looks).await;
        for listener in &listeners {
            lose(&broker, &hub, listener.room).await;
        }
        sleep(LOOK * LOOKS_APART + LOOK / 2).await;
        for listener in &listeners {
            assert_eq!(listener.heard(), 1, "room {} after {looks} looks", listener.room);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_channels_take_turns_and_each_gets_its_own() {
    let (broker, hub) = counting();
    let _listeners = listeners(&hub, QUIET).await;
    sleep(LOOK * (2 * LOOKS_APART) + LOOK / 2).await;
    broker.asked.lock().clear();
    sleep(LOOK * (10 * LOOKS_APART)).await;
    let calls = std::mem::take(&mut *broker.asked.lock());
    let longest = calls.iter().map(Vec::len).max().unwrap();
    assert!(longest < QUIET * 3 / 2 / LOOKS_APART as usize, "{longest} at once");
    let mut turns: HashMap<Channel, usize> = HashMap::new();
    calls.into_iter().flatten().for_each(|channel| *turns.entry(channel).or_default() += 1);
    assert_eq!(turns.len(), QUIET, "each of them");
    assert!(turns.values().all(|&times| times == 10), "{turns:?}");
}

/// An order to the node is not to be late because there was none for long.
#[tokio::test(start_paused = true)]
async fn what_the_node_itself_hears_is_compared_at_every_look() {
    let (broker, hub) = counting();
    let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1_000);
    hub.attend(&channel(0), &outbox, terms(Start::Live)).await.unwrap();
    hub.go_live(&channel(0), &outbox, Frame::text("reply"));
    let attending = Listener { room: 0, outbox };
    assert_eq!(attending.heard(), 1, "the reply");
    for looks in 20..20 + 2 * LOOKS_APART {
        sleep(LOOK * looks).await;
        lose(&broker, &hub, attending.room).await;
        sleep(LOOK + LOOK / 2).await;
        assert_eq!(attending.heard(), 1, "after {looks} looks");
    }
}

/// It need not wait until it is its turn again.
#[tokio::test(start_paused = true)]
async fn whoever_was_not_answered_asks_at_the_next_look() {
    let (broker, hub) = counting();
    let listeners = listeners(&hub, 4 * LOOKS_APART as usize).await;
    sleep(LOOK * 20).await;
    broker.is_away.store(true, Ordering::SeqCst);
    for listener in &listeners {
        lose(&broker, &hub, listener.room).await;
    }
    sleep(LOOK * LOOKS_APART + LOOK / 2).await;
    assert!(listeners.iter().all(|it| it.heard() == 0), "nobody knows");
    broker.is_away.store(false, Ordering::SeqCst);
    sleep(LOOK).await;
    for listener in &listeners {
        assert_eq!(listener.heard(), 1, "room {}", listener.room);
    }
}
