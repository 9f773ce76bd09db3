//! What is true of the words that a backend is owed, whatever book they are kept in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::presence::{About, Abouts, Debt, Recipient, Teller, Wants};
use fanfare_protocol::{Channel, UserId};
use fanfare_testbed::eventually;
use parking_lot::Mutex;

use super::cluster::{Cluster, Node};
use super::faults::Fault;

/// What a node has been told that it owes.
#[derive(Debug)]
pub(crate) struct Ledger {
    wanted: Wants,
    debts: Mutex<VecDeque<Debt>>,
}

impl Ledger {
    pub(crate) fn new(wanted: Wants) -> Arc<Self> {
        Arc::new(Self { wanted, debts: Mutex::default() })
    }

    fn take(&self) -> Option<Debt> {
        self.debts.lock().pop_front()
    }
}

impl Teller for Ledger {
    fn wants(&self, _channel: &Channel) -> Wants {
        self.wanted.clone()
    }

    fn owe(&self, debt: Debt) {
        self.debts.lock().push_back(debt);
    }
}

/// A backend, which believes what it is told.
#[derive(Default)]
struct Backend {
    heard: Vec<(About, u64)>,
}

impl Backend {
    /// Is told all that these nodes owe now, one word after the other.
    async fn listen(&mut self, nodes: &[&Node]) {
        for node in nodes {
            while let Some(debt) = node.ledger.take() {
                let mut told = None;
                while let Some(level) = settled(node, &debt, told).await {
                    self.heard.push((debt.topic.word.about.clone(), level));
                    told = Some(level);
                }
            }
        }
    }

    /// Listens until it has heard exactly this.
    async fn hears(&mut self, nodes: &[&Node], expected: &[(About, u64)]) {
        let mut heard = Vec::new();
        eventually(format!("{expected:?} is told"), async || {
            self.listen(nodes).await;
            heard.append(&mut self.heard);
            heard.len() >= expected.len()
        })
        .await;
        assert_eq!(heard, expected);
    }
}

async fn settled(node: &Node, debt: &Debt, told: Option<u64>) -> Option<u64> {
    node.desk.settle(vec![(debt.clone(), told)]).await.unwrap()[0]
}

fn user(name: &str) -> About {
    About::User(UserId::new(name))
}

use About::{Connections, Occupancy};

/// However many nodes it is on: the first to come and the last to go make one word each.
pub(crate) async fn a_channel_is_told_of_when_the_first_comes_and_the_last_goes(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (Abouts::OCCUPANCY.into(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut backend = Backend::default();
    for _ in 0..3 {
        one.enter("ann", 1);
        two.enter("bob", 2);
        one.enter("", 3);
        one.becomes((3, 3)).await;
        backend.hears(&[&one, &two], &[(Occupancy, 1)]).await;
        one.leave(1);
        one.leave(3);
        one.becomes((1, 1)).await;
        backend.listen(&[&one, &two]).await;
        assert_eq!(backend.heard, [], "somebody is there");
        two.leave(2);
        backend.hears(&[&one, &two], &[(Occupancy, 0)]).await;
    }
}

/// Users once each, whatever the number of their connections; and connections as many as there are.
pub(crate) async fn users_and_connections_are_told_of_where_that_is_wanted(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (Abouts::USERS.and(Abouts::CONNECTIONS).into(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let nodes = [&one, &two];
    let mut backend = Backend::default();
    one.enter("ann", 1);
    backend.hears(&nodes, &[(user("ann"), 1), (Connections, 1)]).await;
    two.enter("ann", 2);
    backend.hears(&nodes, &[(Connections, 2)]).await;
    one.leave(1);
    backend.hears(&nodes, &[(Connections, 1)]).await;
    two.leave(2);
    backend.hears(&nodes, &[(user("ann"), 0), (Connections, 0)]).await;
}

/// Each as far as it wants to be told, and none waits for another: what one has not taken the others have been told long since.
pub(crate) async fn backends_are_told_each_by_itself(mut cluster: Cluster) {
    let audit = Recipient::named("audit");
    let backends = vec![(Recipient::default(), Abouts::OCCUPANCY), (audit.clone(), Abouts::USERS)];
    (cluster.wanted, cluster.grace) = (Wants { backends, counts: false }, Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    one.enter("ann", 1);
    one.becomes((1, 1)).await;
    let mut owed: Vec<_> = [one.ledger.take().unwrap(), one.ledger.take().unwrap()].into();
    owed.sort_by_key(|debt| debt.topic.word.to == audit);
    let [first, second] = &owed[..] else { panic!("two are owed") };
    assert_eq!((&first.topic.word.about, &second.topic.word.about), (&Occupancy, &user("ann")));
    assert_eq!(second.topic.word.to, audit);
    // The first is told all along, while the other takes nothing.
    assert_eq!(settled(&one, first, None).await, Some(1));
    assert_eq!(settled(&one, first, Some(1)).await, None);
    one.leave(1);
    one.becomes((0, 0)).await;
    let vacated = one.ledger.take().unwrap();
    assert_eq!((&vacated, one.ledger.take()), (first, None), "the other is owed still");
    assert_eq!(settled(&one, &vacated, None).await, Some(0));
    assert_eq!(settled(&one, &vacated, Some(0)).await, None);
    two.enter("ann", 2);
    two.becomes((1, 1)).await;
    assert_eq!(two.ledger.take().map(|debt| debt.topic.word.to), Some(Recipient::default()));
    assert_eq!(settled(&one, second, None).await, Some(1));
    // What a dead node owed each of them another one tells.
    one.crash();
    let told = async || two.ledger.take().filter(|debt| debt.topic.word.to == audit);
    eventually("the other's is inherited", async || {
        let Some(debt) = told().await else { return false };
        assert_eq!(debt.topic.word.about, user("ann"));
        settled(&two, &debt, None).await == Some(1)
    })
    .await;
}

/// While nobody listens, at most one word of a topic is owed: the last.
pub(crate) async fn what_came_and_went_untold_is_not_told(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (Abouts::OCCUPANCY.into(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    for session in 1..=5 {
        one.enter("", session);
        one.becomes((1, 1)).await;
        one.leave(session);
        one.becomes((0, 0)).await;
    }
    assert_eq!(one.ledger.debts.lock().len(), 1, "owed once");
    let mut backend = Backend::default();
    backend.listen(&[&one, &two]).await;
    assert_eq!(backend.heard, [], "it was vacant, and is");
    two.enter("", 9);
    backend.hears(&[&one, &two], &[(Occupancy, 1)]).await;
}

/// What changes while a word is on its way is told after it, by the same node.
pub(crate) async fn a_change_while_it_is_told_is_told_next(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (Abouts::OCCUPANCY.into(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    one.enter("ann", 1);
    one.becomes((1, 1)).await;
    let debt = one.ledger.take().unwrap();
    assert_eq!(settled(&one, &debt, None).await, Some(1));
    two.enter("bob", 2);
    two.becomes((2, 2)).await;
    one.leave(1);
    two.leave(2);
    two.becomes((0, 0)).await;
    assert_eq!(two.ledger.take(), None, "it is another node's to tell");
    assert_eq!(settled(&one, &debt, Some(1)).await, Some(0));
    assert_eq!(settled(&one, &debt, Some(0)).await, None);
    assert_eq!(settled(&one, &debt, None).await, None, "it is settled");
}

/// Whoever clears up after a node that crashed tells of those who are gone by it, and what it still owed.
pub(crate) async fn what_a_dead_node_owes_another_one_tells(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (Abouts::OCCUPANCY.into(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut backend = Backend::default();
    // Of the last of its members it has told nobody.
    one.enter("ann", 1);
    one.becomes((1, 1)).await;
    two.enter("bob", 2);
    two.becomes((2, 2)).await;
    assert_eq!(two.ledger.take(), None, "the first owes it");
    one.crash();
    backend.hears(&[&two], &[(Occupancy, 1)]).await;
    two.becomes((1, 1)).await;
    backend.listen(&[&two]).await;
    assert_eq!(backend.heard, [], "somebody is there");
    // Of those who were told of, that they are gone.
    let three = cluster.node("three").await;
    three.becomes((1, 1)).await;
    two.crash();
    backend.hears(&[&three], &[(Occupancy, 0)]).await;
}

/// A write of which the node does not know what became of it: what it made owed is told all the same.
pub(crate) async fn a_lost_answer_loses_no_word(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (Abouts::OCCUPANCY.into(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    one.becomes((0, 0)).await;
    one.book.set(Fault::Deaf);
    one.enter("ann", 1);
    eventually("it was written", async || two.counts().await == (1, 1)).await;
    one.book.set(Fault::None);
    Backend::default().hears(&[&one, &two], &[(Occupancy, 1)]).await;
    assert_eq!(one.counts().await, (1, 1));
}
