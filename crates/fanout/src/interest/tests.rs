use std::collections::{HashSet, VecDeque};
use std::pin::Pin;

use fanfare_protocol::history::{Page, Query};
use fanfare_protocol::publication::{Draft, Position};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::broker::Link;
use crate::keyed::names_that_collide_in_one_are_spread_in_another;

const DEADLINE: Duration = Duration::from_secs(5);

/// A broker that answers when the test says so, and notes what its contract forbids to ask.
#[derive(Debug)]
struct Scripted {
    calls: mpsc::Sender<Call>,
    watched: Mutex<HashSet<Channel>>,
    in_flight: Mutex<HashSet<Channel>>,
    /// A watch of these was dropped before it had answered.
    dropped: Mutex<HashSet<Channel>>,
    /// A panic in the task of a change would be lost.
    offences: Mutex<Vec<&'static str>>,
}

/// Does something when it is dropped, unless it was defused.
struct Guard<F: FnMut()>(F, bool);

fn on_drop<F: FnMut()>(action: F) -> Guard<F> {
    Guard(action, true)
}

impl<F: FnMut()> Guard<F> {
    fn defuse(mut self) {
        self.1 = false;
    }
}

impl<F: FnMut()> Drop for Guard<F> {
    fn drop(&mut self) {
        if self.1 {
            (self.0)();
        }
    }
}

/// A call of the broker that waits for its answer.
#[derive(Debug)]
struct Call {
    is_watch: bool,
    answer: oneshot::Sender<Result<(), BrokerError>>,
}

impl Scripted {
    async fn ask(&self, channel: Channel, is_watch: bool) -> Result<(), BrokerError> {
        if !self.in_flight.lock().insert(channel.clone()) {
            self.offences.lock().push("two changes of one channel cross");
        }
        let was_dropped = self.dropped.lock().remove(&channel);
        if was_dropped && is_watch {
            self.offences.lock().push("a watch that was dropped is not undone");
        }
        if !was_dropped && self.watched.lock().contains(&channel) == is_watch {
            self.offences.lock().push("asked for what is so already");
        }
        let asking = on_drop(|| {
            self.in_flight.lock().remove(&channel);
            self.dropped.lock().insert(channel.clone());
        });
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { is_watch, answer }).await.unwrap();
        let outcome = answered.await.expect("the test answers");
        asking.defuse();
        if !is_watch {
            self.watched.lock().remove(&channel);
        } else if outcome.is_ok() {
            self.watched.lock().insert(channel.clone());
        }
        self.in_flight.lock().remove(&channel);
        outcome
    }
}

impl Broker for Scripted {
    fn publish(&self, _: Draft) -> BoxFuture<'_, Result<Option<Position>, BrokerError>> {
        unreachable!("interest does not publish")
    }

    fn history(&self, _: &Channel, _: Query) -> BoxFuture<'_, Result<Page, BrokerError>> {
        unreachable!("interest does not read")
    }

    fn positions(&self, _: Vec<Channel>) -> BoxFuture<'_, Vec<Result<Option<Position>, BrokerError>>> {
        unreachable!("interest does not read")
    }

    fn remove_history(&self, _: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        unreachable!("interest does not read")
    }

    fn losses(&self) -> u64 {
        0
    }

    fn watch(&self, channel: &Channel) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.ask(channel.clone(), true).boxed()
    }

    fn unwatch(&self, channel: &Channel) -> BoxFuture<'_, ()> {
        self.ask(channel.clone(), false).map(drop).boxed()
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn kind(&self) -> &'static str {
        "scripted"
    }
}

type Entering = Pin<Box<dyn Future<Output = Result<Stake, BrokerError>> + Send>>;

/// An interest in one channel and the script of its broker.
struct Stage {
    interest: Arc<Interest>,
    broker: Arc<Scripted>,
    calls: mpsc::Receiver<Call>,
    channel: Channel,
}

impl Stage {
    fn new() -> Self {
        let (tell, calls) = mpsc::channel(8);
        let broker = Arc::new(Scripted {
            calls: tell,
            watched: Mutex::default(),
            in_flight: Mutex::default(),
            dropped: Mutex::default(),
            offences: Mutex::default(),
        });
        let interest = Interest::new(broker.clone(), TaskTracker::new(), DEADLINE);
        Self { interest, broker, calls, channel: Channel::parse("room:1").unwrap() }
    }

    /// Begins to enter, as far as can be without waiting.
    fn enter(&self) -> Entering {
        let (interest, channel) = (self.interest.clone(), self.channel.clone());
        let mut entering: Entering = Box::pin(async move { interest.enter(&channel).await });
        assert!(now(&mut entering).is_none(), "nobody enters at once here");
        entering
    }

    /// The next call of the broker, if there is one once all tasks have run as far as they can.
    async fn call(&mut self) -> Option<Call> {
        settle().await;
        assert_eq!(*self.broker.offences.lock(), [""; 0]);
        self.calls.try_recv().ok()
    }

    async fn answer_watch(&mut self, answer: Result<(), BrokerError>) {
        let call = self.call().await.expect("the broker is asked");
        assert!(call.is_watch);
        call.answer.send(answer).unwrap();
        settle().await;
    }

    async fn answer_unwatch(&mut self) {
        let call = self.call().await.expect("the broker is asked");
        assert!(!call.is_watch);
        call.answer.send(Ok(())).unwrap();
        settle().await;
    }

    async fn is_quiet_and_empty(&mut self) -> bool {
        self.call().await.is_none() && self.interest.len() == 0 && self.broker.watched.lock().is_empty()
    }
}

/// Lets every task of this thread run until it waits: each chain of wake-ups here is far shorter than this.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

fn now(entering: &mut Entering) -> Option<Result<Stake, BrokerError>> {
    entering.now_or_never()
}

fn away() -> BrokerError {
    BrokerError::Unavailable("away".into())
}

#[tokio::test]
async fn many_enter_by_one_watch_and_none_before_its_answer() {
    let mut stage = Stage::new();
    let mut entering: Vec<_> = (0..3).map(|_| stage.enter()).collect();
    let call = stage.call().await.unwrap();
    assert!(call.is_watch);
    assert!(entering.iter_mut().all(|entering| now(entering).is_none()));
    call.answer.send(Ok(())).unwrap();
    settle().await;
    let mut stakes: Vec<_> = entering.iter_mut().map(|entering| now(entering).unwrap().unwrap()).collect();
    assert_eq!(stage.interest.len(), 1);

    stakes.push(stage.interest.enter(&stage.channel).now_or_never().expect("it is watched").unwrap());
    while stakes.len() > 1 {
        stakes.pop();
        assert!(stage.call().await.is_none(), "somebody hears it still");
    }
    drop(stakes);
    stage.answer_unwatch().await;
    assert!(stage.is_quiet_and_empty().await);
}

#[tokio::test]
async fn a_kept_stake_counts_until_it_is_given_back() {
    let mut stage = Stage::new();
    let mut entering = stage.enter();
    stage.answer_watch(Ok(())).await;
    now(&mut entering).unwrap().unwrap().keep();
    assert!(stage.call().await.is_none());
    stage.interest.leave(&stage.channel);
    stage.answer_unwatch().await;
    assert!(stage.is_quiet_and_empty().await);
}

#[tokio::test]
async fn whoever_enters_while_the_channel_is_given_up_waits_for_a_new_watch() {
    let mut stage = Stage::new();
    let mut first = stage.enter();
    stage.answer_watch(Ok(())).await;
    drop(now(&mut first).unwrap());
    let unwatch = stage.call().await.unwrap();
    assert!(!unwatch.is_watch);

    let mut second = stage.enter();
    assert!(stage.call().await.is_none(), "the changes do not cross");
    unwatch.answer.send(Ok(())).unwrap();
    settle().await;
    assert!(now(&mut second).is_none(), "an unwatch is no answer to whoever wants to hear");
    stage.answer_watch(Ok(())).await;
    drop(now(&mut second).unwrap().unwrap());
    stage.answer_unwatch().await;
    assert!(stage.is_quiet_and_empty().await);
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_the_next_asks_again() {
    let mut stage = Stage::new();
    let mut entering = [stage.enter(), stage.enter()];
    stage.answer_watch(Err(away())).await;
    assert!(now(&mut entering[0]).unwrap().is_err());
    // The second has not looked yet; a third comes, and its watch is not the second's business.
    let mut third = stage.enter();
    let call = stage.call().await.unwrap();
    assert!(now(&mut entering[1]).unwrap().is_err());
    assert!(now(&mut third).is_none());
    call.answer.send(Ok(())).unwrap();
    settle().await;
    drop(now(&mut third).unwrap().unwrap());
    stage.answer_unwatch().await;
    assert!(stage.is_quiet_and_empty().await);
}

#[tokio::test]
async fn whoever_gives_up_while_waiting_is_not_counted() {
    for answer in [Ok(()), Err(away())] {
        let mut stage = Stage::new();
        let (first, second) = (stage.enter(), stage.enter());
        let call = stage.call().await.unwrap();
        drop((first, second));
        assert!(stage.call().await.is_none(), "the watch is not interrupted");
        let was_ok = answer.is_ok();
        call.answer.send(answer).unwrap();
        settle().await;
        if was_ok {
            stage.answer_unwatch().await;
        }
        assert!(stage.is_quiet_and_empty().await);
    }
}

#[tokio::test]
async fn whoever_gives_up_takes_nobody_along() {
    let mut stage = Stage::new();
    let (first, mut second) = (stage.enter(), stage.enter());
    drop(first);
    stage.answer_watch(Ok(())).await;
    let _stake = now(&mut second).unwrap().unwrap();
    assert!(stage.call().await.is_none());
}

#[tokio::test]
async fn whoever_returns_while_the_answer_is_out_keeps_the_watch() {
    let mut stage = Stage::new();
    let first = stage.enter();
    let call = stage.call().await.unwrap();
    drop(first);
    let mut second = stage.enter();
    call.answer.send(Ok(())).unwrap();
    settle().await;
    let _stake = now(&mut second).unwrap().unwrap();
    assert!(stage.call().await.is_none(), "nothing was given up");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_shutdown() {
    let stage = Stage::new();
    let mut entering = stage.enter();
    let mut channels = stage.interest.channels.lock();
    // What happens to the task of a change when its runtime goes: its senders are dropped with it.
    channels.get_mut(&stage.channel).unwrap().phase = Phase::Changing(Vec::new());
    drop(channels);
    assert!(matches!(now(&mut entering), Some(Err(BrokerError::Unavailable(_)))));
}

#[derive(Clone, Debug)]
enum Step {
    /// A client that is out enters; one that waits gives up; one that is in leaves.
    Move(usize),
    Answer(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0..4_usize).prop_map(Step::Move), proptest::bool::weighted(0.7).prop_map(Step::Answer)]
}

enum Client {
    Out,
    Entering(Entering),
    In { _stake: Stake },
}

async fn play(steps: Vec<Step>) {
    let mut stage = Stage::new();
    let mut clients: Vec<_> = (0..4).map(|_| Client::Out).collect();
    let mut waiting: Option<Call> = None;
    let ending = (0..8).flat_map(|_| [Step::Answer(true)]);
    let mut steps: VecDeque<_> = steps.into();
    let mut is_ending = false;
    loop {
        match steps.pop_front() {
            Some(Step::Move(number)) => {
                clients[number] = match mem::replace(&mut clients[number], Client::Out) {
                    Client::Out => {
                        let (interest, channel) = (stage.interest.clone(), stage.channel.clone());
                        Client::Entering(Box::pin(async move { interest.enter(&channel).await }))
                    }
                    Client::Entering(_) | Client::In { .. } => Client::Out,
                }
            }
            Some(Step::Answer(is_ok)) => {
                if let Some(call) = waiting.take() {
                    call.answer.send(if is_ok { Ok(()) } else { Err(away()) }).unwrap();
                }
            }
            None if is_ending => break,
            None => {
                is_ending = true;
                clients.iter_mut().for_each(|client| *client = Client::Out);
                steps.extend(ending.clone());
            }
        }
        settle().await;
        for client in &mut clients {
            if let Client::Entering(entering) = client
                && let Some(outcome) = now(entering)
            {
                *client = outcome.map_or(Client::Out, |stake| Client::In { _stake: stake });
            }
            if let Client::In { .. } = client {
                assert!(stage.broker.watched.lock().contains(&stage.channel), "in, but not watched");
            }
        }
        if let Some(call) = stage.call().await {
            assert!(waiting.replace(call).is_none(), "one change at a time");
        }
    }
    assert!(stage.is_quiet_and_empty().await, "nobody is in, and yet something is left");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever clients and broker do, and in whatever order, those who are in hear, and in the end nothing is watched.
    #[test]
    fn those_who_are_in_hear_and_nothing_is_left_behind(steps in proptest::collection::vec(step(), 0..60)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(play(steps));
    }
}

/// The broker says nothing to a watch: it may have come to pass, or may yet.
#[tokio::test(start_paused = true)]
async fn a_watch_without_an_answer_is_given_up_and_undone() {
    for comes_again in [false, true] {
        let mut stage = Stage::new();
        let mut entering = stage.enter();
        let unanswered = stage.call().await.expect("the broker is asked");
        let asked = tokio::time::Instant::now();
        assert!(matches!((&mut entering).await, Err(BrokerError::Timeout(DEADLINE))));
        assert_eq!(asked.elapsed(), DEADLINE);
        drop(entering);
        assert!(unanswered.is_watch && unanswered.answer.is_closed());
        let again = comes_again.then(|| stage.enter());
        stage.answer_unwatch().await;
        if let Some(again) = again {
            stage.answer_watch(Ok(())).await;
            drop(again.await.unwrap());
            stage.answer_unwatch().await;
        }
        assert_eq!(stage.interest.len(), 0);
        assert!(stage.call().await.is_none(), "nothing is left to be asked");
    }
}

#[tokio::test]
async fn names_that_collide_in_one_interest_are_spread_in_another() {
    names_that_collide_in_one_are_spread_in_another(|| {
        Stage::new().interest.channels.lock().hasher().clone()
    });
}
