//! The way to one backend: what waits for it, and the task that tells it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::presence::{About, Debt};
use fanfare_metrics::{EventOutcome, Metrics};
use fanfare_protocol::Channel;
use fanfare_protocol::happening::{Happening, Kinds, Noticed, Report};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Terms;
use crate::node::Services;
use crate::outgoing::OutgoingError;

/// How long to wait before the book is asked again, and before a report is sent again for the first time.
const RETRY: Duration = Duration::from_millis(250);

/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a node that stops goes on telling.
const FLUSH: Duration = Duration::from_secs(5);

/// See the [module's note](self).
#[derive(Debug)]
pub(crate) struct Lane {
    /// None: nobody is to be told any more.
    terms: RwLock<Option<Arc<Terms>>>,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    noticed: VecDeque<Noticed>,
    owed: VecDeque<Debt>,
    /// The same, to be found: none is there twice.
    known: HashSet<Debt>,
}

/// What is told in one report.
#[derive(Default)]
struct Batch {
    /// First what the book says, then the rest.
    noticed: Vec<Noticed>,
    of_book: usize,
    /// Those that words in it are about, each with what it says.
    told: Vec<(Debt, u64)>,
}

impl Lane {
    pub(super) fn new(terms: Arc<Terms>, metrics: Arc<Metrics>) -> Self {
        Self { terms: RwLock::new(Some(terms)), waiting: Mutex::default(), arrived: Notify::new(), metrics }
    }

    pub(super) fn take_terms(&self, terms: Option<Arc<Terms>>) {
        *self.terms.write() = terms;
        self.arrived.notify_one();
    }

    fn terms(&self) -> Option<Arc<Terms>> {
        self.terms.read().clone()
    }

    /// What is told of a channel.
    pub(super) fn kinds(&self, channel: &Channel) -> Kinds {
        let terms = self.terms.read();
        let Some(terms) = &*terms else { return Kinds::NONE };
        terms.kinds.only((terms.kinds_of)(channel))
    }

    pub(super) fn notice(&self, noticed: Noticed) {
        let Some(terms) = self.terms() else { return };
        if !terms.kinds.has_any(noticed.happening.kind()) {
            return;
        }
        {
            let mut waiting = self.waiting.lock();
            if waiting.noticed.len() >= terms.queue.get() {
                drop(waiting);
                return self.metrics.events_ended(EventOutcome::Overflowed, 1);
            }
            waiting.noticed.push_back(noticed);
        }
        self.metrics.events_waiting(1);
        self.arrived.notify_one();
    }

    pub(super) fn owe(&self, debt: Debt) {
        {
            let mut waiting = self.waiting.lock();
            if !waiting.known.insert(debt.clone()) {
                return;
            }
            waiting.owed.push_back(debt);
        }
        self.metrics.events_waiting(1);
        self.arrived.notify_one();
    }

    fn len(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.noticed.len() + waiting.owed.len()
    }

    fn take_owed(&self, count: usize) -> Vec<Debt> {
        let mut waiting = self.waiting.lock();
        let count = count.min(waiting.owed.len());
        let owed: Vec<_> = waiting.owed.drain(..count).collect();
        for debt in &owed {
            waiting.known.remove(debt);
        }
        drop(waiting);
        self.metrics.events_waiting(-signed(owed.len()));
        owed
    }

    fn take_noticed(&self, count: usize, mut bytes: usize) -> Vec<Noticed> {
        let mut waiting = self.waiting.lock();
        let mut noticed = Vec::new();
        while noticed.len() < count
            && let Some(next) = waiting.noticed.pop_front_if(|it| {
                let rest = bytes.checked_sub(it.happening.bytes_about());
                bytes = rest.unwrap_or(0);
                rest.is_some() || noticed.is_empty()
            })
        {
            noticed.push(next);
        }
        drop(waiting);
        self.metrics.events_waiting(-signed(noticed.len()));
        noticed
    }
}

/// Tells what comes along a lane until told to stop, and then for a while what waits; or until nobody is to be told any more.
pub(crate) async fn run(lane: Arc<Lane>, services: Arc<Services>, stop: CancellationToken) {
    while let Some(terms) = lane.terms() {
        if lane.len() == 0 {
            tokio::select! {
                biased;
                () = lane.arrived.notified() => {}
                () = stop.cancelled() => break,
            }
            continue;
        }
        if lane.len() < terms.batch_events {
            let _ = timeout(terms.delay, stop.cancelled()).await;
        }
        let told = async { tell_some(&lane, &terms, &services).await };
        if stop.run_until_cancelled(told).await.is_none() {
            break;
        }
    }
    let _ = timeout(FLUSH, async {
        while let Some(terms) = lane.terms()
            && lane.len() > 0
        {
            tell_some(&lane, &terms, &services).await;
        }
    })
    .await;
}

/// Puts a report together, and sends it until it is taken or given up.
async fn tell_some(lane: &Arc<Lane>, terms: &Terms, services: &Services) {
    let Some(batch) = gather(lane, terms, services).await else { return sleep(RETRY).await };
    if batch.noticed.is_empty() {
        return;
    }
    // Dropped half-way, when the node stops, it goes back to where it was.
    let mut underway = Underway { lane, batch };
    let outcome = if send(lane, &underway.batch.noticed, services).await {
        EventOutcome::Delivered
    } else {
        EventOutcome::GivenUp
    };
    let batch = std::mem::take(&mut underway.batch);
    lane.metrics.events_waiting(-signed(batch.noticed.len()));
    lane.metrics.events_ended(outcome, batch.noticed.len());
    take_note(lane, batch.told, services).await;
}

/// What there is to be told now; `None` where the book does not say.
async fn gather(lane: &Lane, terms: &Terms, services: &Services) -> Option<Batch> {
    let mut batch = Batch::default();
    let owed = lane.take_owed(terms.batch_events);
    if !owed.is_empty() {
        let asked = owed.iter().map(|debt| (debt.clone(), None)).collect();
        let levels = match services.desk.settle(asked).await {
            Ok(levels) => levels,
            Err(error) => {
                debug!(%error, "it is not known what is to be told of channels");
                return without_book(lane, terms, owed);
            }
        };
        let at = services.clock.unix();
        for (debt, level) in owed.into_iter().zip(levels) {
            let Some(level) = level else { continue };
            let happening = happening(&debt, level);
            if terms.kinds.has_any(happening.kind()) {
                batch.noticed.push(Noticed { at, happening });
            }
            batch.told.push((debt, level));
        }
    }
    batch.of_book = batch.noticed.len();
    if batch.noticed.is_empty() && !batch.told.is_empty() {
        // Of what nobody wants to be told, such as that a channel is vacated, it is noted down that it was.
        take_note(lane, std::mem::take(&mut batch.told), services).await;
    }
    let bytes = batch.noticed.iter().map(|it| it.happening.bytes_about()).sum::<usize>();
    let room = (terms.batch_events - batch.noticed.len(), terms.batch_bytes.saturating_sub(bytes));
    batch.noticed.extend(lane.take_noticed(room.0, room.1));
    lane.metrics.events_waiting(signed(batch.noticed.len()));
    Some(batch)
}

/// The rest can be told while the book is away.
fn without_book(lane: &Lane, terms: &Terms, owed: Vec<Debt>) -> Option<Batch> {
    owed.into_iter().for_each(|debt| lane.owe(debt));
    let noticed = lane.take_noticed(terms.batch_events, terms.batch_bytes);
    lane.metrics.events_waiting(signed(noticed.len()));
    (!noticed.is_empty()).then(|| Batch { noticed, ..Batch::default() })
}

/// Has the book know what was told. What is another way by now is owed again.
async fn take_note(lane: &Lane, told: Vec<(Debt, u64)>, services: &Services) {
    if told.is_empty() {
        return;
    }
    let levels: Vec<_> = told.iter().map(|(debt, level)| (debt.clone(), Some(*level))).collect();
    match services.desk.settle(levels).await {
        Ok(levels) => {
            let owed = told.into_iter().zip(levels).filter(|(_, level)| level.is_some());
            owed.for_each(|((debt, _), _)| lane.owe(debt));
        }
        // It is told once more when the book is back.
        Err(error) => {
            debug!(%error, "it could not be noted down what was told");
            told.into_iter().for_each(|(debt, _)| lane.owe(debt));
        }
    }
}

fn happening(debt: &Debt, level: u64) -> Happening {
    let channel = debt.topic.channel.clone();
    match (&debt.topic.word.about, level) {
        (About::Occupancy, 0) => Happening::Vacated { channel },
        (About::Occupancy, _) => Happening::Occupied { channel },
        (About::Connections, connections) => Happening::Counted { channel, connections },
        (About::User(user), 0) => Happening::Left { channel, user: user.clone() },
        (About::User(user), _) => Happening::Joined { channel, user: user.clone() },
    }
}

/// Posts until it is taken, at growing distances and as the settings say by then; `false` when the time is over.
async fn send(lane: &Lane, noticed: &[Noticed], services: &Services) -> bool {
    let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let node = services.settings().policy.node.clone();
    let report = Report { id: &id, node: &node, noticed };
    let began = Instant::now();
    let mut wait = RETRY;
    loop {
        let Some(terms) = lane.terms() else { return false };
        let (headers, body) = (terms.spell)(&report, services.clock.unix());
        let Err(error) = terms.outgoing.post(&terms.url, headers, body).await else { return true };
        let asked = match &error {
            OutgoingError::Status { retry_after: Some(after), .. } => (*after).min(RETRY_MAX),
            _ => Duration::ZERO,
        };
        // Between a half and the whole, so that nodes that failed together do not come back together.
        let pause = wait.mul_f64(0.5 + fastrand::f64() / 2.0).max(asked);
        if began.elapsed() + pause >= terms.retry {
            warn!(events = noticed.len(), %error, "a backend could not be told: these events are lost");
            return false;
        }
        debug!(%error, ?pause, "a report was not taken");
        services.metrics.event_report_retried();
        sleep(pause).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// A report that is being sent.
struct Underway<'a> {
    lane: &'a Lane,
    batch: Batch,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let Batch { noticed, of_book, told } = std::mem::take(&mut self.batch);
        self.lane.metrics.events_waiting(-signed(noticed.len()));
        told.into_iter().for_each(|(debt, _)| self.lane.owe(debt));
        let mut waiting = self.lane.waiting.lock();
        // What the book says it is asked for again.
        for noticed in noticed.into_iter().skip(of_book).rev() {
            waiting.noticed.push_front(noticed);
            self.lane.metrics.events_waiting(1);
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("fewer than 2^63")
}
