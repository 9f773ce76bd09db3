//! What is true of presence, whatever book it is kept in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_protocol::event::Crowd;
use fanfare_protocol::grant::Pattern;
use fanfare_testbed::eventually;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, GRACE, HEARTBEAT, Node, id};
use super::faults::Fault;

/// Longer than any change takes to be written and told.
const WHILE: Duration = Duration::from_millis(150);

pub(crate) async fn a_crowd_counts_connections_and_users_of_all_nodes(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    assert_eq!(one.counts().await, (0, 0));
    one.enter("ann", 1);
    one.enter("ann", 2);
    one.enter("", 3);
    one.becomes((2, 3)).await;
    two.enter("ann", 4);
    two.enter("bob", 5);
    two.enter("", 6);
    let names = ["ann/1", "ann/2", "ann/4", "anonymous/3", "anonymous/6", "bob/5"];
    for node in [&one, &two] {
        node.becomes((4, 6)).await;
        assert_eq!(node.names().await, names);
    }
    assert!(one.metrics.render().contains("fanfare_presence_members 3\n"));
}

pub(crate) async fn each_user_is_told_of_once_on_every_node_however_many_connections(mut cluster: Cluster) {
    cluster.grace = Duration::ZERO;
    let nodes = [cluster.node("one").await, cluster.node("two").await, cluster.node("three").await];
    let mut listeners: Vec<_> = (0..3).map(|it| nodes[it].listen("eve", 100 + it as u128)).collect();
    nodes[0].becomes((1, 3)).await;
    listeners.iter_mut().for_each(|it| drop(it.heard()));
    for round in 0..5 {
        // Each node twice, all at once, and away again.
        for (at, node) in nodes.iter().enumerate() {
            node.enter("bob", 10 + at as u128);
            node.enter("bob", 20 + at as u128);
        }
        nodes[round % 3].becomes((2, 9)).await;
        for (at, node) in nodes.iter().enumerate() {
            node.leave(20 + at as u128);
        }
        nodes[0].becomes((2, 6)).await;
        for (at, node) in nodes.iter().enumerate() {
            node.leave(10 + at as u128);
        }
        nodes[0].becomes((1, 3)).await;
        for listener in &mut listeners {
            eventually_two(listener).await;
        }
    }
    nodes[1].enter("", 7);
    for listener in &mut listeners {
        listener.hears(&["joined anonymous/7"]).await;
    }
}

async fn eventually_two(listener: &mut super::cluster::Listener) {
    let mut heard = Vec::new();
    eventually("bob is told of", async || {
        heard.extend(listener.heard());
        heard.len() >= 2
    })
    .await;
    let kinds: Vec<_> = heard.iter().map(|it| it.split('/').next().unwrap()).collect();
    assert_eq!(kinds, ["joined bob", "left bob"]);
}

pub(crate) async fn whoever_listens_is_not_told_of_itself(cluster: Cluster) {
    let node = cluster.node("one").await;
    let mut ann = node.listen("ann", 1);
    node.becomes((1, 1)).await;
    let mut bob = node.listen("bob", 2);
    ann.hears(&["joined bob/2"]).await;
    node.leave(1);
    bob.hears(&["left ann/1"]).await;
    assert!(ann.heard().is_empty(), "whoever has left is told nothing");
}

pub(crate) async fn one_connection_of_several_leaves_without_waiting_for_the_grace(mut cluster: Cluster) {
    cluster.grace = Duration::from_secs(3600);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    two.enter("ann", 2);
    two.becomes((2, 3)).await;
    one.leave(1);
    two.becomes((2, 2)).await;
    assert_eq!(two.names().await, ["ann/2", "eve/9"]);
    two.leave(2);
    sleep(WHILE).await;
    assert_eq!(one.names().await, ["ann/2", "eve/9"], "the last connection lingers");
    assert!(eve.heard().is_empty());
}

pub(crate) async fn who_comes_back_within_the_grace_has_never_left(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    // On the other node, on the same, and the same subscription.
    for (from, leaves, to, enters) in [(&one, 1, &two, 2), (&two, 2, &two, 3), (&two, 3, &two, 3)] {
        from.leave(leaves);
        sleep(GRACE / 3).await;
        assert_eq!(one.counts().await, (2, 2));
        to.enter("ann", enters);
        sleep(GRACE * 2).await;
        assert_eq!(one.names().await, [format!("ann/{enters}"), "eve/9".into()]);
        assert!(eve.heard().is_empty());
    }
    two.leave(3);
    eve.hears(&["left ann/3"]).await;
}

pub(crate) async fn who_stays_away_has_left_when_the_grace_is_over_and_not_before(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("", 1);
    eve.hears(&["joined anonymous/1"]).await;
    let left = Instant::now();
    one.leave(1);
    eve.hears(&["left anonymous/1"]).await;
    assert!(left.elapsed() >= GRACE, "{:?}", left.elapsed());
    assert!(left.elapsed() < GRACE + HEARTBEAT, "{:?}", left.elapsed());
    assert_eq!(one.names().await, ["eve/9"]);
}

pub(crate) async fn who_comes_and_goes_at_once_leaves_nothing_behind(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    two.becomes((1, 1)).await;
    for session in 100..200 {
        one.enter("", session);
        one.leave(session);
        one.enter("", session);
        one.leave(session);
    }
    one.leave(1);
    one.enter("end", 2);
    eve.hears(&["joined end/2"]).await;
    assert_eq!(one.names().await, ["end/2", "eve/9"]);
    assert!(one.metrics.render().contains("fanfare_presence_members 1\n"));
}

pub(crate) async fn members_of_a_crashed_node_are_gone_within_two_heartbeats(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let three = cluster.node("three").await;
    let (mut eve, mut mallory) = (two.listen("eve", 8), three.listen("eve", 9));
    two.becomes((1, 2)).await;
    eve.heard();
    mallory.heard();
    one.enter("ann", 1);
    one.enter("", 2);
    one.enter("bob", 3);
    one.becomes((4, 5)).await;
    two.enter("bob", 4);
    eve.hears(&["joined ann/1", "joined anonymous/2", "joined bob/3"]).await;
    mallory.hears(&["joined ann/1", "joined anonymous/2", "joined bob/3"]).await;
    let crashed = Instant::now();
    one.crash();
    for listener in [&mut eve, &mut mallory] {
        let mut heard = Vec::new();
        eventually("both have left", async || {
            heard.extend(listener.heard());
            heard.len() == 2
        })
        .await;
        heard.sort();
        assert_eq!(heard, ["left ann/1", "left anonymous/2"]);
    }
    assert!(crashed.elapsed() < 2 * HEARTBEAT, "{:?}", crashed.elapsed());
    assert!(crashed.elapsed() > HEARTBEAT / 2, "nobody is declared dead for being late");
    assert_eq!(two.names().await, ["bob/4", "eve/8", "eve/9"]);
    sleep(2 * HEARTBEAT).await;
    assert!(eve.heard().is_empty() && mallory.heard().is_empty());
}

pub(crate) async fn a_frozen_node_is_declared_dead_and_enters_again(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    one.enter("bob", 2);
    eve.hears(&["joined ann/1", "joined bob/2"]).await;
    one.freeze();
    let mut heard = Vec::new();
    eventually("both have left", async || {
        heard.extend(eve.heard());
        heard.len() == 2
    })
    .await;
    one.leave(2); // Of which the others hear nothing more: it has left already.
    one.book.set(Fault::None);
    eve.hears(&["joined ann/1"]).await;
    sleep(GRACE + 2 * HEARTBEAT).await;
    assert_eq!(eve.heard(), Vec::<String>::new());
    assert_eq!(two.names().await, ["ann/1", "eve/9"]);
    one.leave(1);
    eve.hears(&["left ann/1"]).await;
}

pub(crate) async fn what_a_dead_node_writes_late_does_not_stay(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    one.freeze();
    one.enter("bob", 2); // Waits at the book, and will be written under a seat that is dead by then.
    eve.hears(&["left ann/1"]).await;
    one.book.set(Fault::None);
    two.becomes((3, 3)).await;
    one.crash();
    two.becomes((1, 1)).await;
    assert_eq!(two.names().await, ["eve/9"]);
}

pub(crate) async fn a_node_that_is_cut_off_for_less_than_a_heartbeat_is_not_missed(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    one.book.set(Fault::Cut);
    one.leave(1);
    one.enter("ann", 2);
    one.enter("bob", 3);
    sleep(HEARTBEAT / 3).await;
    one.book.set(Fault::None);
    eve.hears(&["joined bob/3"]).await;
    sleep(2 * HEARTBEAT).await;
    assert!(eve.heard().is_empty());
    assert_eq!(two.names().await, ["ann/2", "bob/3", "eve/9"]);
}

pub(crate) async fn a_lost_answer_is_made_good_in_silence(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    one.book.set(Fault::Deaf);
    one.enter("bob", 2);
    one.enter("carol", 3);
    eve.hears(&["joined bob/2", "joined carol/3"]).await;
    sleep(WHILE).await;
    one.book.set(Fault::None);
    sleep(HEARTBEAT * 2 / 5).await; // The old seat is still warm: members were moved, not doubled.
    assert_eq!(two.counts().await, (4, 4));
    sleep(2 * HEARTBEAT).await;
    assert_eq!(two.names().await, ["ann/1", "bob/2", "carol/3", "eve/9"]);
    assert!(eve.heard().is_empty());
}

pub(crate) async fn members_of_a_drained_node_have_the_grace_to_come_back(cluster: Cluster) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    one.enter("bob", 2);
    one.enter("carol", 3);
    eve.hears(&["joined ann/1", "joined bob/2", "joined carol/3"]).await;
    let drained = Instant::now();
    one.leave(1);
    one.leave(2);
    one.close().await; // Carol's connection is cut with the node.
    sleep(GRACE / 3).await;
    two.enter("ann", 11);
    let mut heard = Vec::new();
    eventually("bob and carol have left", async || {
        heard.extend(eve.heard());
        heard.len() == 2
    })
    .await;
    heard.sort();
    assert_eq!(heard, ["left bob/2", "left carol/3"]);
    assert!(drained.elapsed() >= GRACE && drained.elapsed() < GRACE + HEARTBEAT, "{:?}", drained.elapsed());
    assert_eq!(two.names().await, ["ann/11", "eve/9"]);
}

pub(crate) async fn a_channel_of_ten_thousand_is_one_crowd(cluster: Cluster) {
    const MANY: u128 = 10_000;
    /// Ten are enough for so many; where the machine stalls, batches are less full.
    const TRIPS: u64 = 100;
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    two.becomes((0, 0)).await;
    for session in 1..=MANY {
        one.enter(&format!("user-{}", session / 2), session);
    }
    one.becomes((5_001, 10_000)).await;
    let writes = one.book.writes.load(Ordering::Relaxed);
    assert!(writes <= TRIPS, "{writes} round trips");
    assert_eq!(two.crowd().await.members.as_ref().unwrap().len(), 10_000);

    let reads = two.book.reads.load(Ordering::Relaxed);
    let answers = futures_util::future::join_all((0..1_000).map(|_| two.counts())).await;
    assert!(answers.iter().all(|counts| *counts == (5_001, 10_000)));
    let reads = two.book.reads.load(Ordering::Relaxed) - reads;
    assert!(reads <= 2, "{reads} reads for a thousand questions");

    // All of them come back by new connections, in the worst order: away together, and then here together.
    let writes = one.book.writes.load(Ordering::Relaxed);
    (1..=MANY).for_each(|session| one.leave(session));
    (1..=MANY).for_each(|session| two.enter(&format!("user-{}", session / 2), MANY + session));
    two.becomes((5_001, 10_000)).await;
    let writes = one.book.writes.load(Ordering::Relaxed) - writes;
    assert!(writes <= TRIPS, "{writes} round trips");
    let crashed = Instant::now();
    two.crash();
    one.becomes((0, 0)).await;
    assert!(crashed.elapsed() < 2 * HEARTBEAT, "{:?}", crashed.elapsed());
}

/// Whatever servers have them, and whichever nodes they are on.
pub(crate) async fn channels_with_anybody_on_them_are_listed(mut cluster: Cluster) {
    cluster.grace = Duration::ZERO;
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let named = |name: &str| Channel::parse(name).unwrap();
    let within = Pattern::parse("room:*").unwrap();
    let lists = async |node: &Node, expected: Vec<(String, u64)>| {
        eventually(format!("{expected:?} are listed"), async || {
            let listed = node.desk.channels(&within).await;
            let counts = |(channel, crowd): &(Channel, _)| {
                let crowd: &Arc<Crowd> = crowd;
                (channel.as_str().to_owned(), crowd.connections)
            };
            listed.is_ok_and(|listed| listed.iter().map(counts).collect::<Vec<_>>() == expected)
        })
        .await;
    };
    // So many that they are in many slots, and on each server.
    let many: Vec<_> = (10..40).map(|it| format!("room:{it}")).collect();
    for (place, name) in many.iter().enumerate() {
        let node = if place % 2 == 0 { &one } else { &two };
        node.enter_on(&named(name), "ann", place as u128 + 1);
    }
    one.enter_on(&named("hall:1"), "ann", 100);
    two.enter_on(&named(&many[0]), "bob", 101);
    let expected = many.iter().enumerate().map(|(place, it)| (it.clone(), if place == 0 { 2 } else { 1 }));
    lists(&one, expected.clone().collect()).await;
    lists(&two, expected.collect()).await;
    for (place, name) in many.iter().enumerate().skip(2) {
        let node = if place % 2 == 0 { &one } else { &two };
        node.desk.leave(&named(name), id(place as u128 + 1));
    }
    two.desk.leave(&named(&many[0]), id(101));
    lists(&two, vec![(many[0].clone(), 1), (many[1].clone(), 1)]).await;
}
