//! What becomes of the book when a replica takes over from the primary, or a server comes back with what it had on its disk.

use std::time::Duration;

use fanfare_testbed::{RedisServer, eventually};
use redis::{Value, cmd};
use tokio::time::{Instant, sleep_until};

use super::cluster::{Cluster, HEARTBEAT, Listener, Node};
use super::faults::Fault;

/// Longer than a fail-over takes: who leaves meanwhile is told of when all hear again.
const LONG_GRACE: Duration = Duration::from_secs(10);

/// The primary is gone, and its replica has taken over; every node hears what is told there.
async fn fail_over(cluster: &mut Cluster, nodes: usize) {
    let servers = cluster.sentinels();
    let port = servers.servers()[0].port();
    servers.servers_mut()[0].stop().await;
    servers.has_moved_from(port).await;
    all_hear(&servers.servers()[1], nodes).await;
}

/// Notices are told to those who hear at the time.
async fn all_hear(server: &RedisServer, nodes: usize) {
    eventually("every node hears the new primary", async || {
        let question = cmd("PUBSUB").arg("NUMSUB").arg("test:c:{room:1}").to_owned();
        let heard: Option<(String, usize)> = server.try_query(&question).await;
        heard.is_some_and(|(_, count)| count == nodes)
    })
    .await;
}

/// The replica has everything that the primary has.
async fn is_copied(cluster: &mut Cluster) {
    let offset = async |server: &RedisServer, field: &str| -> u64 {
        let info: String = server.query(cmd("INFO").arg("replication")).await;
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map_or(0, |digits| digits.trim().parse().unwrap())
    };
    let [primary, replica] = cluster.sentinels().servers() else { panic!("a primary and a replica") };
    let written = offset(primary, "master_repl_offset").await;
    eventually("the replica has all of it", async || offset(replica, "slave_repl_offset").await >= written)
        .await;
}

/// From now on the replica hears nothing more of what is written.
async fn cut_replication(cluster: &mut Cluster) {
    let [primary, replica] = cluster.sentinels().servers() else { panic!("a primary and a replica") };
    let () = replica.query(cmd("CONFIG").arg("SET").arg("masterauth").arg("not the password")).await;
    let _: Value = primary.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica")).await;
    let info: String = primary.query(cmd("INFO").arg("replication")).await;
    assert!(info.contains("connected_slaves:0"), "{info}");
}

/// Two nodes on a primary with a replica.
async fn two_nodes() -> (Cluster, Node, Node) {
    nodes_with_a_grace_of(LONG_GRACE).await
}

async fn nodes_with_a_grace_of(grace: Duration) -> (Cluster, Node, Node) {
    let mut cluster = Cluster::on_sentinels().await;
    cluster.grace = grace;
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    (cluster, one, two)
}

/// Nobody is told of anything for two intervals.
async fn is_silent(listeners: &mut [&mut Listener]) {
    sleep_until(Instant::now() + 2 * HEARTBEAT).await;
    for listener in listeners {
        assert_eq!(listener.heard(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn who_is_there_stays_there_over_a_fail_over_and_others_are_told_of() {
    let (mut cluster, one, two) = two_nodes().await;
    let mut eve = two.listen("eve", 8);
    one.becomes((1, 1)).await;
    let mut mal = one.listen("mal", 9);
    eve.hears(&["joined mal/9"]).await;
    one.enter("ann", 1);
    one.enter("bob", 2);
    eve.hears(&["joined ann/1", "joined bob/2"]).await;
    mal.hears(&["joined ann/1", "joined bob/2"]).await;
    two.enter("ann", 3);
    two.enter("carol", 4);
    eve.hears(&["joined carol/4"]).await;
    mal.hears(&["joined carol/4"]).await;
    one.leave(2); // Lingers at first.
    two.becomes((5, 6)).await;
    is_copied(&mut cluster).await;

    // They come to the new primary when all hear, so that their news are heard.
    [&one, &two].into_iter().for_each(|node| node.book.set(Fault::Cut));
    two.leave(4);
    one.enter("dave", 5);
    fail_over(&mut cluster, 2).await;
    [&one, &two].into_iter().for_each(|node| node.book.set(Fault::None));
    for listener in [&mut eve, &mut mal] {
        listener.hears(&["joined dave/5"]).await;
    }
    for node in [&one, &two] {
        node.becomes((6, 7)).await;
        let names = ["ann/1", "ann/3", "bob/2", "carol/4", "dave/5", "eve/8", "mal/9"];
        assert_eq!(node.names().await, names);
    }
    for listener in [&mut eve, &mut mal] {
        listener.hears_in_any_order(&["left bob/2", "left carol/4"]).await;
    }
    is_silent(&mut [&mut eve, &mut mal]).await;

    // The old primary comes back, as a replica.
    cluster.sentinels().servers_mut()[0].start_again().await;
    cluster.sentinels().has_been_demoted(0).await;
    one.enter("frank", 6);
    eve.hears(&["joined frank/6"]).await;
    is_silent(&mut [&mut eve]).await;
    assert_eq!(two.names().await, ["ann/1", "ann/3", "dave/5", "eve/8", "frank/6", "mal/9"]);
}

/// What the primary alone knew is made good: who came is there, in silence, and who went away goes again.
#[tokio::test]
async fn what_the_old_primary_has_not_passed_on_is_made_good() {
    let (mut cluster, one, two) = two_nodes().await;
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    one.enter("moves", 2);
    one.enter("returns", 3);
    one.enter("leaves", 4);
    eve.hears(&["joined ann/1", "joined moves/2", "joined returns/3", "joined leaves/4"]).await;
    one.leave(3); // Lingers, which the replica hears.
    two.becomes((5, 5)).await;
    is_copied(&mut cluster).await;
    cut_replication(&mut cluster).await;
    two.enter("moves", 5);
    two.becomes((5, 6)).await;
    one.leave(2);
    two.enter("returns", 6);
    one.enter("comes", 7);
    eve.hears(&["joined comes/7"]).await;
    one.leave(4);
    let names = ["ann/1", "comes/7", "eve/9", "leaves/4", "moves/5", "returns/6"];
    eventually("all of that is written", async || one.names().await == names).await;

    fail_over(&mut cluster, 2).await;
    for node in [&one, &two] {
        let has_it_all = async || node.try_names().await.is_some_and(|it| it == names);
        eventually("the new primary has it all", has_it_all).await;
    }
    assert_eq!(eve.heard(), Vec::<String>::new());
    eve.hears(&["left leaves/4"]).await;
    is_silent(&mut [&mut eve]).await;
    assert_eq!(one.names().await, ["ann/1", "comes/7", "eve/9", "moves/5", "returns/6"]);
}

/// A departure that was told and is lost is told again, when the seat that still holds the ghost has gone cold.
#[tokio::test]
async fn who_had_gone_before_the_fail_over_is_no_ghost_after_it() {
    let (mut cluster, one, two) = nodes_with_a_grace_of(Duration::ZERO).await;
    let three = cluster.node("three").await;
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    three.enter("ghost", 2);
    eve.hears(&["joined ghost/2"]).await;
    is_copied(&mut cluster).await;
    cut_replication(&mut cluster).await;
    three.leave(2);
    eve.hears(&["left ghost/2"]).await;
    fail_over(&mut cluster, 3).await;
    let noticed = Instant::now();
    eve.hears(&["left ghost/2"]).await;
    assert!(noticed.elapsed() < 2 * HEARTBEAT, "{:?}", noticed.elapsed());
    assert_eq!(two.names().await, ["ann/1", "eve/9"]);
    is_silent(&mut [&mut eve]).await;
}

#[tokio::test]
async fn members_of_a_node_that_died_with_the_primary_are_gone_within_two_heartbeats() {
    let (mut cluster, one, two) = two_nodes().await;
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    two.enter("bob", 2);
    eve.hears(&["joined bob/2"]).await;
    is_copied(&mut cluster).await;
    one.crash();
    fail_over(&mut cluster, 1).await;
    let noticed = Instant::now();
    eve.hears(&["left ann/1"]).await;
    assert!(noticed.elapsed() < 2 * HEARTBEAT, "{:?}", noticed.elapsed());
    assert_eq!(two.names().await, ["bob/2", "eve/9"]);
    is_silent(&mut [&mut eve]).await;
}

/// All seats go cold during a fail-over, and nodes come to the new primary one after the other.
#[tokio::test]
async fn a_node_that_notices_later_than_others_is_waited_for() {
    let (mut cluster, one, two) = two_nodes().await;
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    is_copied(&mut cluster).await;
    one.book.set(Fault::Cut);
    two.book.set(Fault::Cut);
    fail_over(&mut cluster, 2).await;
    two.book.set(Fault::None);
    two.becomes((2, 2)).await;
    sleep_until(Instant::now() + HEARTBEAT / 2).await;
    one.book.set(Fault::None);
    is_silent(&mut [&mut eve]).await;
    assert_eq!(two.names().await, ["ann/1", "eve/9"]);
}

/// One that comes too late has left, and joins.
#[tokio::test]
async fn a_node_that_notices_too_late_joins_again() {
    let (mut cluster, one, two) = two_nodes().await;
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    one.enter("bob", 2);
    eve.hears(&["joined ann/1", "joined bob/2"]).await;
    is_copied(&mut cluster).await;
    one.book.set(Fault::Cut);
    one.leave(2);
    fail_over(&mut cluster, 2).await;
    eve.hears_in_any_order(&["left ann/1", "left bob/2"]).await;
    one.book.set(Fault::None);
    eve.hears(&["joined ann/1"]).await;
    is_silent(&mut [&mut eve]).await;
    assert_eq!(two.names().await, ["ann/1", "eve/9"]);
}

/// Nobody knows whether the old primary has told of one whose entrance it has not answered.
#[tokio::test]
async fn who_enters_while_the_primary_hangs_has_joined_after_the_fail_over() {
    let (mut cluster, one, two) = two_nodes().await;
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    is_copied(&mut cluster).await;
    let servers = cluster.sentinels();
    let writes = one.book.writes();
    servers.servers()[0].freeze().await;
    one.enter("dave", 2);
    eventually("dave is on the way", async || one.book.writes() > writes).await;
    one.book.set(Fault::Cut);
    servers.has_moved_from(servers.servers()[0].port()).await;
    all_hear(&servers.servers()[1], 2).await;
    one.book.set(Fault::None);
    eve.hears(&["joined dave/2"]).await;
    servers.servers()[0].thaw().await;
    is_silent(&mut [&mut eve]).await;
    assert_eq!(two.names().await, ["ann/1", "dave/2", "eve/9"]);
}

/// A server that was killed may have lost the end of its log.
#[tokio::test]
async fn a_redis_that_comes_back_with_its_data_is_written_again_in_silence() {
    let mut cluster = Cluster::on_durable_redis().await;
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    two.enter("bob", 2);
    eve.hears(&["joined bob/2"]).await;
    let writes = one.book.writes();
    cluster.redis().stop().await;
    cluster.redis().start_again().await;
    eventually("what it has is not trusted", async || one.book.writes() > writes).await;
    is_silent(&mut [&mut eve]).await;
    assert_eq!(one.names().await, ["ann/1", "bob/2", "eve/9"]);
    one.enter("carol", 3);
    eve.hears(&["joined carol/3"]).await;
}
