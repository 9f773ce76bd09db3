//! What becomes of the book in a Redis Cluster when slots move, a shard fails over or is emptied, and the cluster grows.

use std::time::Duration;

use fanfare_protocol::Channel;
use fanfare_testbed::{RedisCluster, RedisServer, SHARDS, eventually};
use redis::{Value, cmd};
use tokio::time::{Instant, sleep_until};

use super::cluster::{Cluster, HEARTBEAT, Listener, Node};

/// The slot of the channel that all listen to, and that of the hall.
async fn slots(cluster: &mut Cluster) -> (usize, usize) {
    let server = &cluster.shards().servers()[0];
    let slot = async |tag: &str| server.query(cmd("CLUSTER").arg("KEYSLOT").arg(tag)).await;
    (slot("room:1").await, slot("seats").await)
}

/// The server of a slot.
async fn owner_of(cluster: &mut Cluster, slot: usize) -> usize {
    cluster.shards().owner(slot).await
}

/// Notices are told to those who hear at the time.
async fn all_hear(servers: &RedisCluster, owner: usize, nodes: usize) {
    eventually("every node hears the channel where it is", async || {
        let question = cmd("PUBSUB").arg("SHARDNUMSUB").arg("test:c:{room:1}").to_owned();
        let heard: Option<(String, usize)> = servers.servers()[owner].try_query(&question).await;
        heard.is_some_and(|(_, count)| count == nodes)
    })
    .await;
}

/// Nobody is told of anything for two intervals.
async fn is_silent(listener: &mut Listener) {
    sleep_until(Instant::now() + 2 * HEARTBEAT).await;
    assert_eq!(listener.heard(), Vec::<String>::new());
}

async fn has(node: &Node, names: &[&str]) {
    eventually(format!("{names:?} are there"), async || node.try_names().await.is_some_and(|it| it == names))
        .await;
}

/// Ann on the first node, and eve, who listens on the second.
async fn two_nodes(cluster: &Cluster) -> (Node, Node, Listener) {
    let (one, two) = (cluster.node("one").await, cluster.node("two").await);
    let mut eve = two.listen("eve", 9);
    one.enter("ann", 1);
    eve.hears(&["joined ann/1"]).await;
    (one, two, eve)
}

/// Those who come and go while it moves wait until it has.
#[tokio::test]
async fn members_move_with_their_slot_and_nobody_is_told() {
    let mut cluster = Cluster::on_slots().await;
    cluster.grace = Duration::ZERO;
    let (one, two, mut eve) = two_nodes(&cluster).await;
    one.enter("bob", 2);
    eve.hears(&["joined bob/2"]).await;
    let (slot, _) = slots(&mut cluster).await;
    let from = owner_of(&mut cluster, slot).await;
    let to = (from + 1) % SHARDS;
    let servers = &*cluster.shards();
    servers.begin_to_move_slot(slot, to).await;
    one.leave(2);
    two.enter("carol", 3);
    eventually("readers are told to wait", async || two.try_names().await.is_none()).await;
    servers.move_keys(slot, from, to).await;
    servers.end_of_move(slot, to).await;
    all_hear(servers, to, 2).await;
    for node in [&one, &two] {
        has(node, &["ann/1", "carol/3", "eve/9"]).await;
    }
    // Their notices may have been told where nobody heard them yet.
    let heard = eve.heard();
    assert!(heard.iter().all(|it| ["left bob/2", "joined carol/3"].contains(&it.as_str())), "{heard:?}");
    one.enter("dave", 4);
    eve.hears(&["joined dave/4"]).await;
    is_silent(&mut eve).await;
    let crashed = Instant::now();
    one.crash();
    two.becomes((2, 2)).await;
    assert!(crashed.elapsed() < 2 * HEARTBEAT, "{:?}", crashed.elapsed());
    assert_eq!(two.names().await, ["carol/3", "eve/9"]);
}

/// A slot that is stuck on its way holds up nobody but those whose channels are in it.
#[tokio::test]
async fn a_slot_that_is_stuck_on_its_way_keeps_no_other_waiting() {
    let mut cluster = Cluster::on_slots().await;
    let (one, two, mut eve) = two_nodes(&cluster).await;
    let (slot, _) = slots(&mut cluster).await;
    let from = owner_of(&mut cluster, slot).await;
    let to = (from + 1) % SHARDS;
    cluster.shards().begin_to_move_slot(slot, to).await;
    one.enter("bob", 2);
    let others: Vec<_> = (0..50).map(|it| Channel::parse(&format!("other:{it}")).unwrap()).collect();
    for other in &others {
        one.enter_on(other, "ann", 1);
    }
    for other in &others {
        eventually("it is entered", async || two.try_counts_on(other).await == Some((1, 1))).await;
    }
    let servers = &*cluster.shards();
    servers.move_keys(slot, from, to).await;
    servers.end_of_move(slot, to).await;
    has(&two, &["ann/1", "bob/2", "eve/9"]).await;
    eve.heard();
}

/// The primary's last word was that somebody has left, and it has told nobody but the listeners: the replica still has the
/// member, and the hall of another shard does not.
#[tokio::test]
async fn who_had_gone_before_a_shard_failed_over_is_no_ghost_after_it() {
    let mut cluster = Cluster::on_slots_with_replicas().await;
    cluster.grace = Duration::ZERO;
    let (slot, hall) = slots(&mut cluster).await;
    let shard = (0..SHARDS).rfind(|shard| RedisCluster::first_slot(*shard) <= slot).unwrap();
    cluster.shards().move_slot(hall, (shard + 1) % SHARDS).await;
    let (one, two, mut eve) = two_nodes(&cluster).await;
    let three = cluster.node("three").await;
    three.enter("ghost", 2);
    eve.hears(&["joined ghost/2"]).await;
    let owner = owner_of(&mut cluster, slot).await;
    cluster.shards().replicas_are_level().await;
    cut_replication(cluster.shards(), owner).await;
    three.leave(2);
    eve.hears(&["left ghost/2"]).await;
    three.crash(); // Its seat is cleared, and has no page any more.
    let name = "test:p:{seats}:list";
    let server = owner_of(&mut cluster, hall).await;
    eventually("the hall has forgotten it", async || {
        let seats: Vec<String> = cluster.shards().servers()[server].query(cmd("SMEMBERS").arg(name)).await;
        seats.iter().all(|seat| !seat.starts_with("three."))
    })
    .await;
    cluster.shards().fail_over(shard).await;
    let owner = owner_of(&mut cluster, slot).await;
    all_hear(cluster.shards(), owner, 2).await;
    eve.hears(&["left ghost/2"]).await;
    for node in [&one, &two] {
        has(node, &["ann/1", "eve/9"]).await;
    }
    is_silent(&mut eve).await;
}

/// From now on the replica of a server hears nothing more of what is written.
async fn cut_replication(servers: &RedisCluster, primary: usize) {
    let all = servers.servers();
    for server in all {
        let () = server.query(cmd("CONFIG").arg("SET").arg("masterauth").arg("not the password")).await;
    }
    let _: Value = all[primary].query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica")).await;
    eventually("nobody follows", async || {
        let info: String = all[primary].query(cmd("INFO").arg("replication")).await;
        info.contains("connected_slaves:0")
    })
    .await;
}

#[tokio::test]
async fn who_is_there_stays_there_whichever_shard_fails_over() {
    let mut cluster = Cluster::on_slots_with_replicas().await;
    let (one, two, mut eve) = two_nodes(&cluster).await;
    let (slot, _) = slots(&mut cluster).await;
    for (shard, (user, session)) in (0..SHARDS).zip([("bob", 2), ("carol", 3), ("dave", 4)]) {
        cluster.shards().replicas_are_level().await;
        let old = cluster.shards().fail_over(shard).await;
        let owner = owner_of(&mut cluster, slot).await;
        all_hear(cluster.shards(), owner, 2).await;
        one.enter(user, session);
        let joined = format!("joined {user}/{session}");
        eve.hears(&[&joined]).await;
        is_silent(&mut eve).await;
        cluster.shards().servers_mut()[old].start_again().await;
        cluster.shards().is_ready().await;
    }
    has(&two, &["ann/1", "bob/2", "carol/3", "dave/4", "eve/9"]).await;
    one.crash();
    two.becomes((1, 1)).await;
}

/// Whether it had the members or the seats, nobody hears of it, and who dies afterwards is missed.
#[tokio::test]
async fn a_shard_that_is_emptied_is_written_again_in_silence() {
    let mut cluster = Cluster::on_slots().await;
    let (one, two, mut eve) = two_nodes(&cluster).await;
    let (slot, hall) = slots(&mut cluster).await;
    for slot in [slot, hall] {
        let owner = owner_of(&mut cluster, slot).await;
        let server: &RedisServer = &cluster.shards().servers()[owner];
        let () = server.query(&cmd("FLUSHALL")).await;
        let written = cmd("DBSIZE");
        eventually("it is written again", async || server.query::<u64>(&written).await > 0).await;
        is_silent(&mut eve).await;
        has(&two, &["ann/1", "eve/9"]).await;
    }
    one.crash();
    eve.hears(&["left ann/1"]).await;
}

#[tokio::test]
async fn a_cluster_that_grows_is_followed_in_silence() {
    let mut cluster = Cluster::on_slots().await;
    let (one, two, mut eve) = two_nodes(&cluster).await;
    let (slot, hall) = slots(&mut cluster).await;
    cluster.shards().grow().await;
    for slot in [slot, hall] {
        cluster.shards().move_slot(slot, SHARDS).await;
    }
    all_hear(cluster.shards(), SHARDS, 2).await;
    is_silent(&mut eve).await;
    has(&two, &["ann/1", "eve/9"]).await;
    one.enter("bob", 2);
    eve.hears(&["joined bob/2"]).await;
    one.crash();
    two.becomes((1, 1)).await;
}

/// Wherever its channels are.
#[tokio::test]
async fn a_node_that_dies_is_gone_from_every_shard_within_two_heartbeats() {
    let cluster = Cluster::on_slots().await;
    let (one, two, _eve) = two_nodes(&cluster).await;
    let rooms: Vec<_> = (0..1000).map(|it| Channel::parse(&format!("other:{it}")).unwrap()).collect();
    for room in &rooms {
        one.enter_on(room, "ann", 1);
    }
    for room in &rooms {
        eventually("it is entered", async || two.try_counts_on(room).await == Some((1, 1))).await;
    }
    let crashed = Instant::now();
    one.crash();
    for room in &rooms {
        eventually("nobody is there", async || two.try_counts_on(room).await == Some((0, 0))).await;
    }
    assert!(crashed.elapsed() < 2 * HEARTBEAT, "{:?}", crashed.elapsed());
}
