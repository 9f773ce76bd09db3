use std::time::Duration;

use super::*;

struct Rig {
    ledger: Ledger,
    keys: Keys,
    out: BytesMut,
    now: Instant,
}

type Heard = oneshot::Receiver<Result<(), BrokerError>>;

impl Rig {
    fn new() -> Self {
        let keys = Keys::new("p").unwrap();
        Self { ledger: Ledger::default(), keys, out: BytesMut::new(), now: Instant::now() }
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
