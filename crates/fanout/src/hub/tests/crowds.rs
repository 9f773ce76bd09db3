//! Large crowds on a lane with others.

use std::io;

use fanfare_testbed::eventually;
use tokio::sync::Notify;

use super::*;
use crate::outbox::Socket;

/// A crowd has its turn a slice at a time: meanwhile what is published on another channel of the same lane is heard.
#[tokio::test(start_paused = true)]
async fn a_small_channel_does_not_wait_until_a_large_crowd_has_heard() {
    const CROWD: usize = 5_000;
    let (lanes, ends) = Lanes::new(1, 64);
    let broker = Arc::new(MemoryBroker::new(&Bus::default(), lanes));
    let hub = Hub::start(broker, ends, Arc::default(), &TaskTracker::new(), OPTIONS);
    let subscribe = async |number: usize| {
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1 << 20);
        hub.subscribe(&channel(number), &outbox, Terms::default()).await.unwrap();
        hub.go_live(&channel(number), &outbox, Frame::text("reply"));
        assert!(hears(&outbox));
        outbox
    };
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(subscribe(0).await);
    }
    let neighbour = subscribe(1).await;
    for round in 0..3 {
        hub.publish(draft(0, "1", None)).await.unwrap();
        while !crowd.iter().any(|outbox| !outbox.is_empty()) {
            tokio::task::yield_now().await;
        }
        hub.publish(draft(1, "2", None)).await.unwrap();
        while !hears(&neighbour) {
            tokio::task::yield_now().await;
        }
        let heard = crowd.iter().filter(|outbox| !outbox.is_empty()).count();
        assert!((1..CROWD / 10).contains(&heard), "{heard} of the crowd came first in round {round}");
        while crowd.iter().any(|outbox| outbox.is_empty()) {
            tokio::task::yield_now().await;
        }
        assert!(crowd.iter().all(|outbox| hears(outbox)));
    }
}

/// A socket that knows which tasks wrote to it.
#[derive(Debug, Default)]
struct Page {
    text: Mutex<String>,
    tasks: Arc<Mutex<HashSet<tokio::task::Id>>>,
}

impl Socket for Page {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.tasks.lock().extend(tokio::task::try_id());
        self.text.lock().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }
}

/// Where there are workers, several tasks write to a very large crowd, and everybody hears everything once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_hands_write_to_a_very_large_crowd_and_keep_the_order() {
    const CROWD: usize = 8 * 1024;
    let (lanes, ends) = Lanes::new(1, 64);
    let broker = Arc::new(MemoryBroker::new(&Bus::default(), lanes));
    let hub = Hub::start(broker, ends, Arc::default(), &TaskTracker::new(), OPTIONS);
    let tasks = Arc::<Mutex<HashSet<_>>>::default();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1 << 20);
        let page = Arc::new(Page { tasks: tasks.clone(), ..Page::default() });
        outbox.lend(page.clone());
        hub.subscribe(&channel(0), &outbox, Terms::default()).await.unwrap();
        hub.go_live(&channel(0), &outbox, Frame::text("reply"));
        crowd.push((outbox, page));
    }
    let heard = |(outbox, page): &(Arc<Outbox>, Arc<Page>)| {
        // What came while somebody wrote to it was queued: it is written as its connection's task would.
        let cx = &Context::from_waker(Waker::noop());
        assert!(outbox.poll_order(cx).is_pending());
        let mut batch = Batch::default();
        while outbox.poll_take(cx, &mut batch).is_ready() {
            for frame in std::mem::take(&mut batch).frames {
                page.text.lock().push_str(&String::from_utf8_lossy(&frame));
            }
        }
        let text = page.text.lock();
        text.split("\"data\":")
            .skip(1)
            .map(|it| it[..it.find('}').unwrap()].parse().unwrap())
            .collect::<Vec<u64>>()
    };
    let mut published = 0;
    eventually("several hands have written", async || {
        crowd.iter().for_each(|it| drop(heard(it))); // Their writers sleep for want of frames.
        for _ in 0..8 {
            hub.publish(draft(0, &published.to_string(), None)).await.unwrap();
            published += 1;
        }
        tasks.lock().len() >= 3
    })
    .await;
    for it in &crowd {
        eventually("all is heard", async || heard(it).len() as u64 == published).await;
        assert_eq!(heard(it), (0..published).collect::<Vec<_>>());
    }
}

/// A socket that takes some time to write to, as the kernel does, and tells when the whole crowd has been written to.
#[derive(Debug)]
struct Slow {
    left: Arc<AtomicUsize>,
    all: Arc<Notify>,
}

impl Socket for Slow {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(5) {
            std::hint::spin_loop();
        }
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.notify_one();
        }
        Ok(bytes.len())
    }
}

/// While one worker writes to a large crowd, another that has nothing to do may sleep: it is not woken at each turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_worker_is_left_alone_while_another_writes_to_a_large_crowd() {
    const CROWD: usize = 1024;
    const PUBLICATIONS: usize = 16;
    let (lanes, ends) = Lanes::new(1, 64);
    let broker = Arc::new(MemoryBroker::new(&Bus::default(), lanes));
    let hub = Hub::start(broker, ends, Arc::default(), &TaskTracker::new(), OPTIONS);
    let (left, all) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let outbox = Outbox::new(SessionId::from_random([1; 16]), Encoding::NativeJson, 1 << 20);
        outbox.lend(Arc::new(Slow { left: left.clone(), all: all.clone() }));
        hub.subscribe(&channel(0), &outbox, Terms::default()).await.unwrap();
        hub.go_live(&channel(0), &outbox, Frame::text("reply"));
        assert!(hears(&outbox) && !hears(&outbox), "its writer sleeps for want of frames");
        crowd.push(outbox);
    }
    let runtime = Handle::current().metrics();
    let times_slept = || (0..2).map(|worker| runtime.worker_park_count(worker)).sum::<u64>();
    let before = times_slept();
    for number in 0..PUBLICATIONS {
        left.store(CROWD, Ordering::Relaxed);
        hub.publish(draft(0, &number.to_string(), None)).await.unwrap();
        all.notified().await;
    }
    let turns = (PUBLICATIONS * CROWD / 32) as u64;
    let slept = times_slept() - before;
    assert!(slept < turns / 2, "workers went to sleep {slept} times in {turns} turns");
}
