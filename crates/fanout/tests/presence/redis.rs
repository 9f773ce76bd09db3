//! What is true of the book in Redis alone: its cost in commands, and what becomes of it when Redis is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::cluster::{Cluster, HEARTBEAT};

/// A storm of ten thousand is a handful of commands, and at rest a node costs a few per heartbeat whatever it holds.
#[tokio::test]
async fn ten_thousand_members_cost_redis_a_bounded_number_of_commands() {
    let mut cluster = Cluster::on_redis().await;
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    two.becomes((0, 0)).await;
    let scripts = cluster.redis().calls("evalsha").await;
    for session in 1..=10_000 {
        one.enter("", session);
    }
    two.becomes((10_000, 10_000)).await;
    let storm = cluster.redis().calls("evalsha").await - scripts;
    assert!(storm <= 100, "{storm} scripts");

    let scripts = cluster.redis().calls("evalsha").await;
    let end = Instant::now() + 2 * HEARTBEAT;
    sleep_until(end).await;
    let rest = cluster.redis().calls("evalsha").await - scripts;
    assert!(rest <= 40, "{rest} scripts");
    assert_eq!(two.counts().await, (10_000, 10_000));
}

/// A Redis that comes back empty is told who is there, and nobody else is told anything.
#[tokio::test]
async fn a_redis_that_comes_back_empty_is_written_again_in_silence() {
    let mut cluster = Cluster::on_redis().await;
    cluster.grace = Duration::from_millis(200);
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    one.enter("bob", 2);
    eve.hears(&["joined ann/1", "joined bob/2"]).await;
    cluster.redis().stop().await;
    one.leave(2);
    cluster.redis().start_again().await;
    eve.hears(&["left bob/2"]).await;
    two.becomes((2, 2)).await;
    sleep_until(Instant::now() + 2 * HEARTBEAT).await;
    assert!(eve.heard().is_empty());
    assert_eq!(two.names().await, ["ann/1", "eve/9"]);
    one.enter("carol", 3);
    eve.hears(&["joined carol/3"]).await;
}
