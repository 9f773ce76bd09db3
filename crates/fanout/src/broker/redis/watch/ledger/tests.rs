use std::time::Duration;

use super::*;
use crate::keyed::names_that_collide_in_one_are_spread_in_another;

struct Rig {
    ledger: Ledger,
    keys: Keys,
    out: BytesMut,
    now: Instant,
}

type Heard = oneshot::Receiver<Result<(), BrokerError>>;

impl Rig {
    fn new() -> Self {
        Self::of(Pubsub::Plain)
    }

    fn of(pubsub: Pubsub) -> Self {
        let keys = Keys::new("p").unwrap();
        Self { ledger: Ledger::new(pubsub), keys, out: BytesMut::new(), now: Instant::now() }
    }

    /// A ledger of a node of a Redis Cluster in which these are watched.
    async fn watching(names: &[&str]) -> Self {
        let mut rig = Self::of(Pubsub::Shard);
        for name in names {
            let (ask, heard) = watch(name);
            rig.ask([ask]);
            rig.ledger.subscribed(Some(name)).unwrap();
            heard.await.unwrap().unwrap();
        }
        rig
    }

    /// Another server has the slot of a channel.
    fn moved(&mut self, name: &str) {
        let slot = keys::slot(&channel(name));
        self.ledger.refused(&format!("MOVED {slot} 127.0.0.1:1")).unwrap();
    }

    /// Asks and returns what was written, with the line ends and lengths left out.
    fn ask(&mut self, asks: impl IntoIterator<Item = Ask>) -> String {
        let mut asks: Vec<_> = asks.into_iter().collect();
        self.ledger.ask(asks.drain(..), &self.keys, self.now, &mut self.out);
        self.written()
    }

    fn again(&mut self) -> String {
        self.ledger.ask_again(&self.keys, self.now, &mut self.out);
        self.written()
    }

    fn written(&mut self) -> String {
        let out = self.out.split();
        let text = std::str::from_utf8(&out).unwrap();
        let words = text.split("\r\n").filter(|it| !it.starts_with(['*', '$']) && !it.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn watch(name: &str) -> (Ask, Heard) {
    let (answer, answered) = oneshot::channel();
    (Ask::Watch(channel(name), answer), answered)
}

fn unwatch(name: &str) -> (Ask, oneshot::Receiver<()>) {
    let (answer, answered) = oneshot::channel();
    (Ask::Unwatch(channel(name), answer), answered)
}

#[tokio::test]
async fn neighbours_share_a_command_and_the_order_is_kept() {
    let mut rig = Rig::new();
    let ((a, mut a_heard), (b, _b), (gone, mut gone_heard), (c, _c)) =
        (watch("a"), watch("b"), unwatch("a"), watch("c"));
    let (stranger, mut stranger_heard) = unwatch("stranger");
    let written = rig.ask([a, b, gone, c, stranger]);
    assert_eq!(written, "SUBSCRIBE p:c:{a} p:c:{b} UNSUBSCRIBE p:c:{a} SUBSCRIBE p:c:{c}");
    assert_eq!(stranger_heard.try_recv(), Ok(()));
    assert_eq!(rig.ledger.subscribed(Some("a")), Ok(None));
    assert!(a_heard.try_recv().is_err(), "it was unwatched before it was confirmed");
    assert_eq!(rig.ledger.subscribed(Some("b")), Ok(None));
    assert!(gone_heard.try_recv().is_err());
    assert_eq!(rig.ledger.unsubscribed(Some("a")), Ok(()));
    assert_eq!(gone_heard.try_recv(), Ok(()));
    assert!(rig.ledger.heard("b").is_some() && rig.ledger.heard("a").is_none());
}

/// Between the two subscriptions there is a moment without one: the first confirmation must not answer the second call.
#[tokio::test]
async fn a_watch_is_answered_by_its_own_confirmation() {
    let mut rig = Rig::new();
    let ((first, _gone), (gone, _), (second, mut heard)) = (watch("a"), unwatch("a"), watch("a"));
    rig.ask([first, gone, second]);
    rig.ledger.subscribed(Some("a")).unwrap();
    rig.ledger.unsubscribed(Some("a")).unwrap();
    assert!(heard.try_recv().is_err());
    assert!(rig.ledger.heard("a").is_none());
    rig.ledger.subscribed(Some("a")).unwrap();
    assert!(matches!(heard.try_recv(), Ok(Ok(()))));
    assert!(rig.ledger.heard("a").is_some());
}

#[tokio::test]
async fn what_was_not_asked_is_a_disagreement() {
    let mut rig = Rig::new();
    assert!(rig.ledger.subscribed(Some("a")).is_err());
    assert!(rig.ledger.unsubscribed(Some("a")).is_err());
    assert!(rig.ledger.ponged().is_err());
    let (ask, _heard) = watch("a");
    rig.ask([ask]);
    assert!(rig.ledger.unsubscribed(Some("a")).is_err());
    assert!(rig.ledger.subscribed(Some("b")).is_err());
}

#[tokio::test]
async fn what_was_watched_is_asked_for_again_in_batches() {
    let mut rig = Rig::new();
    let names: Vec<_> = (0..=BATCH_MAX).map(|it| format!("room:{it}")).collect();
    let (asks, _heard): (Vec<_>, Vec<_>) = names.iter().map(|name| watch(name)).unzip();
    rig.ask(asks);
    for name in &names {
        rig.ledger.subscribed(Some(name)).unwrap();
    }
    let (late, mut late_heard) = watch("late");
    rig.ask([late]);
    rig.ledger.lost("gone");
    assert!(matches!(late_heard.try_recv(), Ok(Err(BrokerError::Unavailable(_)))));
    rig.ledger.start_again();
    let (gone, _) = unwatch("room:7");
    rig.ask([gone]);
    let mut again: Vec<_> =
        (0..2).flat_map(|_| rig.again().split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(!rig.ledger.has_more() && !rig.ledger.is_complete());
    rig.ledger.unsubscribed(Some("room:7")).unwrap();
    // The second batch is one channel; when that is the one that was unwatched, nothing is written for it.
    again.retain(|word| !word.is_empty() && word != "SUBSCRIBE");
    assert_eq!(again.len(), BATCH_MAX, "all but the one that was unwatched meanwhile");
    for (at, key) in again.iter().enumerate() {
        assert!(!rig.ledger.is_complete(), "{at} of {}", again.len());
        rig.ledger.subscribed(key.strip_prefix("p:c:{").and_then(|it| it.strip_suffix("}"))).unwrap();
    }
    assert!(rig.ledger.is_complete());
    assert!(rig.ledger.heard("room:8").is_some() && rig.ledger.heard("late").is_none());
}

#[tokio::test]
async fn a_refusal_concerns_one_batch() {
    let mut rig = Rig::new();
    let ((a, mut a_heard), (gone, _), (b, mut b_heard)) = (watch("a"), unwatch("x"), watch("b"));
    rig.ask([a]);
    rig.ask([gone, b]);
    rig.ledger.refused("NOPERM").unwrap();
    assert!(matches!(a_heard.try_recv(), Ok(Err(BrokerError::Unavailable(_)))));
    rig.ledger.subscribed(Some("b")).unwrap();
    assert!(matches!(b_heard.try_recv(), Ok(Ok(()))));
    assert_eq!(rig.ledger.len(), 1);
}

#[tokio::test]
async fn the_oldest_question_is_the_one_to_worry_about() {
    let mut rig = Rig::new();
    assert_eq!(rig.ledger.oldest(), None);
    let (first, later) = (rig.now, rig.now + Duration::from_secs(1));
    rig.ledger.ping(first, &mut rig.out);
    rig.ledger.ping(later, &mut rig.out);
    assert_eq!((rig.ledger.oldest(), rig.ledger.open()), (Some(first), 2));
    rig.ledger.ponged().unwrap();
    assert_eq!((rig.ledger.oldest(), rig.ledger.open()), (Some(later), 1));
}

#[tokio::test]
async fn in_a_cluster_a_command_is_about_one_slot() {
    let mut rig = Rig::of(Pubsub::Shard);
    let ((a, mut a_heard), (b, mut b_heard)) = (watch("a"), watch("b"));
    assert!(keys::slot(&channel("b")) < keys::slot(&channel("a")), "the lower slot comes first");
    assert_eq!(rig.ask([a, b]), "SSUBSCRIBE p:c:{b} SSUBSCRIBE p:c:{a}");
    rig.moved("b");
    assert!(matches!(b_heard.try_recv(), Ok(Err(BrokerError::Unavailable(why))) if why.starts_with("MOVED")));
    rig.ledger.subscribed(Some("a")).unwrap();
    assert!(matches!(a_heard.try_recv(), Ok(Ok(()))));
    let (b, _b_heard) = watch("b");
    rig.ask([b]);
    rig.ledger.subscribed(Some("b")).unwrap();
    let written = rig.ask(["a", "b"].map(|name| unwatch(name).0));
    assert_eq!(written, "SUNSUBSCRIBE p:c:{b} SUNSUBSCRIBE p:c:{a}");
}

#[tokio::test]
async fn what_the_server_drops_is_asked_for_until_it_is_confirmed() {
    let mut rig = Rig::watching(&["a", "b"]).await;
    rig.ledger.unsubscribed(Some("a")).unwrap();
    assert!(rig.ledger.heard("a").is_none() && rig.ledger.heard("b").is_some());
    for _ in 0..2 {
        assert!(rig.ledger.is_adrift() && !rig.ledger.is_complete());
        rig.ledger.try_adrift_again();
        assert_eq!(rig.again(), "SSUBSCRIBE p:c:{a}");
        assert!(!rig.ledger.is_complete());
        rig.moved("a");
    }
    rig.ledger.try_adrift_again();
    rig.again();
    let (ask, mut heard) = watch("a");
    assert_eq!(rig.ask([ask]), "", "it is being asked for");
    assert!(heard.try_recv().is_err());
    rig.ledger.subscribed(Some("a")).unwrap();
    assert!(matches!(heard.try_recv(), Ok(Ok(()))));
    assert!(rig.ledger.is_complete() && rig.ledger.heard("a").is_some());
    assert!(rig.ledger.was_interrupted() && !rig.ledger.was_interrupted(), "which is a loss, once");
    // What nobody watches is nobody's loss.
    rig.ledger.unsubscribed(Some("stranger")).unwrap();
    assert!(rig.ledger.is_complete() && !rig.ledger.was_interrupted());
}

/// The server drops a channel just before it reads our own wish to leave it, which it then refuses as well.
#[tokio::test]
async fn a_belated_refusal_concerns_nobody_else() {
    let mut rig = Rig::watching(&["a"]).await;
    let ((gone, mut gone_heard), (b, mut b_heard)) = (unwatch("a"), watch("b"));
    rig.ask([gone, b]);
    rig.ledger.unsubscribed(Some("a")).unwrap();
    assert_eq!(gone_heard.try_recv(), Ok(()));
    rig.moved("a");
    assert!(b_heard.try_recv().is_err(), "nothing was said about it");
    rig.ledger.subscribed(Some("b")).unwrap();
    assert!(matches!(b_heard.try_recv(), Ok(Ok(()))));
    // Or the refusal is all there is.
    let (gone, mut gone_heard) = unwatch("b");
    rig.ask([gone]);
    rig.moved("b");
    assert_eq!((gone_heard.try_recv(), rig.ledger.open()), (Ok(()), 0));
    rig.moved("b");
}

#[tokio::test]
async fn channels_move_from_one_ledger_to_another() {
    let (mut from, mut to) = (Rig::watching(&["a", "b", "adrift"]).await, Rig::watching(&["c"]).await);
    from.ledger.unsubscribed(Some("adrift")).unwrap();
    let (late, mut late_heard) = watch("late");
    from.ask([late]);
    let mut released = from.ledger.release(|channel| channel.as_str() == "b", "MOVED on");
    released.sort();
    assert_eq!(released, ["a", "adrift"].map(channel));
    assert!(matches!(late_heard.try_recv(), Ok(Err(BrokerError::Unavailable(why))) if &*why == "MOVED on"));
    assert!(from.ledger.is_complete() && from.ledger.len() == 1);
    from.moved("late");
    to.ledger.adopt(released);
    to.ledger.adopt([channel("c")]);
    assert!(to.ledger.heard("a").is_none() && to.ledger.heard("c").is_some());
    let asked = to.again();
    assert!(["{a}", "{adrift}"].iter().all(|it| asked.contains(it)) && !asked.contains("{c}"), "{asked}");
    // The connection is lost before that is confirmed: it is asked for again on the next.
    to.ledger.lost("gone");
    to.ledger.start_again();
    let mut left = 3;
    for key in to.again().split(' ').filter(|word| word.starts_with('p')) {
        assert!(!to.ledger.is_complete());
        to.ledger.subscribed(key.strip_prefix("p:c:{").and_then(|it| it.strip_suffix("}"))).unwrap();
        left -= 1;
    }
    assert!(left == 0 && to.ledger.is_complete() && to.ledger.was_interrupted());
    assert!(["a", "adrift", "c"].iter().all(|name| to.ledger.heard(name).is_some()));
}

#[test]
fn names_that_collide_in_one_ledger_are_spread_in_another() {
    names_that_collide_in_one_are_spread_in_another(|| Rig::new().ledger.channels.hasher().clone());
}
