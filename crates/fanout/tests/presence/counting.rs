//! What is true of the numbers that those are told who hear a channel, whatever book they are kept in.

use std::time::Duration;

use fanfare_fanout::presence::Wants;

use super::cluster::Cluster;

fn wanted() -> Wants {
    Wants { counts: true, ..Wants::default() }
}

/// Connections, not users; on whichever node they come and go, and also when a node takes them with it.
pub(crate) async fn those_who_hear_are_told_how_many_they_are(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (wanted(), Duration::ZERO);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let ann = one.count("", 1);
    ann.hears(1).await;
    let bob = two.count("bob", 2);
    ann.hears(2).await;
    bob.hears(2).await;
    one.enter("bob", 3);
    ann.hears(3).await;
    bob.hears(3).await;
    one.leave(3);
    ann.hears(2).await;
    bob.hears(2).await;
    two.crash();
    ann.hears(1).await;
}

/// Who takes the place of its own lingering connection changes no number, and is told it all the same.
pub(crate) async fn who_comes_back_is_told_how_many_there_are(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (wanted(), Duration::from_secs(60));
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    one.count("bob", 1).hears(1).await;
    one.leave(1);
    two.count("bob", 2).hears(1).await;
}

/// A crowd that comes in one go is told of now and then, and in the end as it is.
pub(crate) async fn a_storm_costs_a_few_words(mut cluster: Cluster) {
    (cluster.wanted, cluster.grace) = (wanted(), Duration::ZERO);
    let one = cluster.node("one").await;
    let ann = one.count("", 1);
    ann.hears(1).await;
    for session in 2..=90 {
        one.enter("", session);
        one.becomes((session as u64, session as u64)).await;
    }
    let heard = ann.hears(90).await;
    assert!(heard.is_sorted() && heard.len() < 60, "{heard:?}");
}
