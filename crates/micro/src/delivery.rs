//! From a draft to the tasks of its subscribers: broker, lane, registry, follower, outboxes and wakes, through the hub.
//!
//! A subscriber here is what a connection is to the hub: a task that sleeps until its outbox has something, takes it, and
//! sleeps again. All of it runs on one thread. What the connection itself does with what it takes is not here.

use std::future::poll_fn;
use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use fanfare_fanout::broker::Lanes;
use fanfare_fanout::broker::memory::{Bus, MemoryBroker};
use fanfare_fanout::{Batch, Hub, HubOptions, Outbox, Socket};
use fanfare_metrics::Metrics;
use fanfare_protocol::command::{Start, Wording};
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::publication::Retention;
use fanfare_protocol::session::Terms;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Channel, Draft, Encoding, Publication, SessionId};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::{Case, Operation, sample};

pub(crate) const CASES: &[Case] = &[
    Case { name: "deliver/1-to-1", prepare: || deliver(1, 1, None, Way::Task) },
    Case { name: "deliver/1-to-1000", prepare: || deliver(1, 1_000, None, Way::Task) },
    Case { name: "deliver/16-to-100", prepare: || deliver(16, 100, None, Way::Task) },
    Case {
        name: "deliver/1-to-1-with-history",
        prepare: || deliver(1, 1, Some(Retention::SHORT), Way::Task),
    },
    Case {
        name: "deliver/16-to-100-with-history",
        prepare: || deliver(16, 100, Some(Retention::SHORT), Way::Task),
    },
    Case { name: "deliver/1-to-1-past-task", prepare: || deliver(1, 1, None, Way::PastTask) },
    Case { name: "deliver/1-to-1000-past-tasks", prepare: || deliver(1, 1_000, None, Way::PastTask) },
    Case { name: "deliver/16-to-100-past-tasks", prepare: || deliver(16, 100, None, Way::PastTask) },
    Case { name: "subscribe/alone", prepare: || subscribe(0) },
    Case { name: "subscribe/among-100", prepare: || subscribe(100) },
];

const NEVER: Duration = Duration::from_secs(1_000_000);

/// How what is delivered leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Its subscriber's task is woken, and takes it.
    Task,
    /// It is written to the subscriber's socket, while the task sleeps.
    PastTask,
}

/// A socket that takes everything.
#[derive(Debug)]
struct Sink {
    heard: Arc<Heard>,
    frame_bytes: usize,
}

impl Socket for Sink {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.add((bytes.len() / self.frame_bytes) as u64);
        Ok(bytes.len())
    }
}

/// A node without sockets.
struct Node {
    runtime: Runtime,
    tasks: TaskTracker,
    hub: Arc<Hub>,
    heard: Arc<Heard>,
}

/// What all subscribers have taken.
#[derive(Debug, Default)]
struct Heard {
    publications: AtomicU64,
    awaited: AtomicU64,
    all: Notify,
}

impl Heard {
    fn add(&self, publications: u64) {
        if self.publications.fetch_add(publications, Relaxed) + publications == self.awaited.load(Relaxed) {
            self.all.notify_one();
        }
    }
}

impl Node {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime can be had");
        let tasks = TaskTracker::new();
        let hub = runtime.block_on(async {
            let (lanes, ends) = Lanes::new(1, 1_024);
            let broker = Arc::new(MemoryBroker::new(&Bus::default(), lanes));
            let options = HubOptions { broker_timeout: NEVER, check_interval: NEVER, now: || UnixMicros(0) };
            Hub::start(broker, ends, Arc::new(Metrics::new()), &tasks, options)
        });
        Self { runtime, tasks, hub, heard: Arc::default() }
    }

    /// Subscribes, and takes the reply.
    async fn join(&self, channel: &Channel, outbox: &Arc<Outbox>, history: bool) {
        let terms = Terms { start: Start::Live, history, ..Terms::default() };
        let entry = self.hub.subscribe(channel, outbox, terms).await.expect("memory watches");
        let reply = Reply::unasked(Event::Subscribed {
            channel: channel.clone(),
            entry,
            start: Start::Live,
            wording: Wording::Whole,
            lasts: None,
            crowd: None,
            greeting: None,
        });
        self.hub.go_live(channel, outbox, Encoding::NativeJson.dialect().encode(&reply));
        let taken = outbox.poll_take(&Context::from_waker(Waker::noop()), &mut Batch::default());
        assert!(taken.is_ready());
    }

    /// A subscriber that takes whatever comes, for as long as the node runs.
    fn add_subscriber(&self, channel: &Channel, history: bool, way: Way) {
        let outbox = outbox();
        self.runtime.block_on(self.join(channel, &outbox, history));
        let heard = self.heard.clone();
        if way == Way::PastTask {
            let publication = Publication::new(sample::draft(128, None), None);
            let frame_bytes = publication.encoded(Encoding::NativeJson).len();
            outbox.lend(Arc::new(Sink { heard: heard.clone(), frame_bytes }));
        }
        let listen = async move {
            let mut batch = Batch::default();
            loop {
                poll_fn(|cx| outbox.poll_take(cx, &mut batch)).await;
                heard.add(batch.advance(batch.bytes));
            }
        };
        self.tasks.spawn_on(listen, self.runtime.handle());
    }

    /// Publishes, and lets everybody run until all have heard it.
    async fn publish(&self, drafts: &[Draft], subscribers: usize) {
        let deliveries = u64::try_from(drafts.len() * subscribers).expect("a few thousand");
        self.heard.awaited.fetch_add(deliveries, Relaxed);
        for draft in drafts {
            self.hub.publish(draft.clone()).await.expect("memory takes it");
        }
        self.heard.all.notified().await;
    }
}

fn outbox() -> Arc<Outbox> {
    Outbox::new(SessionId::from_random([7; 16]), Encoding::NativeJson, 1_048_576)
}

/// So many publications come together, for so many subscribers.
fn deliver(publications: usize, subscribers: usize, retention: Option<Retention>, way: Way) -> Operation {
    let node = Node::start();
    let channel = sample::channel();
    (0..subscribers).for_each(|_| node.add_subscriber(&channel, retention.is_some(), way));
    let drafts = vec![sample::draft(128, retention); publications];
    Box::new(move || node.runtime.block_on(node.publish(&drafts, subscribers)))
}

/// Somebody comes and goes, each time another, while others stay.
fn subscribe(others: usize) -> Operation {
    let node = Node::start();
    let channel = sample::channel();
    (0..others).for_each(|_| node.add_subscriber(&channel, false, Way::Task));
    let mut visitors = iter::repeat_with(outbox).take(100).collect::<Vec<_>>().into_iter().cycle();
    Box::new(move || {
        let visitor = visitors.next().expect("they come again");
        node.runtime.block_on(async {
            node.join(&channel, &visitor, false).await;
            node.hub.unsubscribe(&channel, &visitor);
        });
    })
}
