//! From a Redis Stream.

use std::path::Path;

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::{
    Authority, Client, Gateway, RedisCluster, RedisSentinels, RedisServer, Samples, eventually,
};
use redis::cmd;
use serde_json::json;

use super::{ROOM, degraded, hears_all, kept, subscriber};
use crate::support::{configured, counted, node};

/// A node's configuration with a consumer of this server.
fn config(redis: &RedisServer, further: &str) -> String {
    format!("{ROOM}[consumers.shop]\nurl = \"{}\"\nstream = \"outbox\"\n{further}", redis.url())
}

async fn add(redis: &RedisServer, stream: &str, channel: &str, data: &str) {
    let mut add = cmd("XADD");
    add.arg(stream).arg("*").arg("channel").arg(channel).arg("data").arg(data);
    let _: String = redis.query(&add).await;
}

async fn is_empty(redis: &RedisServer, stream: &str) {
    eventually("everything has been taken out", async || {
        redis.query::<u64>(cmd("XLEN").arg(stream)).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_in_a_stream_is_published_in_order_and_taken_out() {
    let redis = RedisServer::start().await;
    // Before there is a node, or a group; a subscriber that comes later finds it in history.
    add(&redis, "outbox", "room:0", "0").await;
    let node = node(&config(&redis, "batch = 7\n")).await;
    is_empty(&redis, "outbox").await;
    let mut clients = Vec::new();
    for room in 0..3 {
        let mut client = Client::connect(node.public_addr()).await;
        client.send(json!({"type": "subscribe", "channel": format!("room:{room}"), "rewind": 10})).await;
        assert_eq!(client.event().await["type"], "subscribed");
        clients.push(client);
    }
    let mut pipe = redis::pipe();
    for number in 0..100 {
        for room in 0..3 {
            if (room, number) != (0, 0) {
                let channel = format!("room:{room}");
                pipe.cmd("XADD").arg("outbox").arg("*").arg("channel").arg(channel).arg("data").arg(number);
            }
        }
    }
    pipe.query_async::<()>(&mut redis.connect().await).await.expect("it takes entries");
    for (room, client) in clients.iter_mut().enumerate() {
        hears_all(client, &format!("room:{room}"), 100).await;
    }
    is_empty(&redis, "outbox").await;
    counted(&node, "fanfare_consumed_total{outcome=\"accepted\",source=\"redis_stream\"}", 300.0).await;
    counted(&node, "fanfare_consumed_total{outcome=\"refused\",source=\"redis_stream\"}", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_publish_is_put_aside_with_the_reason_and_holds_nothing_up() {
    let redis = RedisServer::start().await;
    let node = node(&config(&redis, "")).await;
    let mut client = subscriber(&node, "room:1").await;
    add(&redis, "outbox", "room:1", "0").await;
    add(&redis, "outbox", "nowhere:1", "1").await;
    add(&redis, "outbox", "room:1", "{").await;
    let odd: String = redis.query(cmd("XADD").arg("outbox").arg("*").arg("other").arg("field")).await;
    add(&redis, "outbox", "room:1", "1").await;
    hears_all(&mut client, "room:1", 2).await;
    is_empty(&redis, "outbox").await;
    counted(&node, "fanfare_consumed_total{outcome=\"refused\",source=\"redis_stream\"}", 3.0).await;
    let dead: Vec<(String, Vec<String>)> =
        redis.query(cmd("XRANGE").arg("{outbox}:dead").arg("-").arg("+")).await;
    let dead: Vec<_> = dead.into_iter().map(|(_, fields)| fields).collect();
    assert_eq!(dead.len(), 3, "{dead:?}");
    for (fields, reason) in dead.iter().zip(["no namespace", "not JSON", "`channel` is missing"]) {
        assert_eq!((&fields[0][..], &fields[2][..]), ("id", "reason"));
        assert!(fields[3].contains(reason), "{fields:?}");
    }
    assert_eq!(&dead[0][4..], ["channel", "nowhere:1", "data", "1"]);
    assert_eq!((&dead[2][1], &dead[2][4..]), (&odd, &["other".to_owned(), "field".to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_streams_of_a_consumer_and_take_over_from_one_that_goes() {
    let (redis, bus) = (RedisServer::start().await, Bus::default());
    let config = |name: &str| {
        configured(&format!(
            "[node]\nname = \"{name}\"\ndrain_seconds = 0\n{}",
            config(&redis, "partitions = 4\n")
        ))
    };
    let holders = async || {
        let mut holders = Vec::new();
        for part in 0..4 {
            let holder: Option<String> =
                redis.query(cmd("GET").arg(format!("{{outbox:{part}}}:fanfare:holder"))).await;
            holders.extend(holder.and_then(|it| it.split_once('-').map(|(name, _)| name.to_owned())));
        }
        holders.sort_unstable();
        holders
    };
    let a = Node::start_on(&config("a"), &bus).await.expect("a node starts");
    eventually("one node holds all", async || holders().await == ["a", "a", "a", "a"]).await;
    let b = Node::start_on(&config("b"), &bus).await.expect("a node starts");
    eventually("each holds its share", async || holders().await == ["a", "a", "b", "b"]).await;

    let mut clients = Vec::new();
    for room in 0..4 {
        clients.push(subscriber(&b, &format!("room:{room}")).await);
    }
    let write = async |from: usize, to: usize| {
        let mut pipe = redis::pipe();
        for (number, room) in (from..to).flat_map(|number| (0..4).map(move |room| (number, room))) {
            let (stream, channel) = (format!("outbox:{room}"), format!("room:{room}"));
            pipe.cmd("XADD").arg(stream).arg("*").arg("channel").arg(channel).arg("data").arg(number);
        }
        pipe.query_async::<()>(&mut redis.connect().await).await.expect("it takes entries");
    };
    write(0, 100).await;
    // In the middle of it.
    a.drain().await;
    write(100, 200).await;
    for (room, client) in clients.iter_mut().enumerate() {
        hears_all(client, &format!("room:{room}"), 200).await;
    }
    eventually("the other holds all", async || holders().await == ["b", "b", "b", "b"]).await;
}

/// The broker has accepted it, the source has not heard of that: then the source goes, or the node dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_again_is_not_heard_again() {
    let (broker, mut source) = (RedisServer::start().await, RedisServer::start_durable().await);
    let settings = |name: &str| {
        [
            format!("node.name={name}"),
            "broker.kind=redis".to_owned(),
            format!("redis.urls={}", broker.url()),
            "namespaces.room.history.size=1000".to_owned(),
            "namespaces.room.history.ttl_seconds=600".to_owned(),
            format!("consumers.shop.url={}", source.url()),
            "consumers.shop.stream=outbox".to_owned(),
        ]
    };
    let start = async |settings: &[String]| {
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await
    };
    let (of_a, of_b, of_ears) = (settings("a"), settings("b"), settings("ears"));
    let a = start(&of_a).await;
    let ears = start(&of_ears[..5]).await; // Without a consumer.
    let mut client = Client::connect(ears.public()).await;
    client.subscribe("room:1").await;

    // From here on nothing can be taken out of the stream.
    let forbid = |rule: &str| cmd("ACL").arg("SETUSER").arg("default").arg(rule).to_owned();
    let () = source.query(&forbid("-xack")).await;
    let mut together = redis::pipe();
    together.atomic();
    for number in 0..3 {
        together.cmd("XADD").arg("outbox").arg("*").arg("channel").arg("room:1").arg("data").arg(number);
    }
    together.query_async::<()>(&mut source.connect().await).await.expect("it takes entries");
    hears_all(&mut client, "room:1", 3).await;
    let again = async |gateway: &Gateway| {
        Samples::of(gateway.internal())
            .await
            .value("fanfare_consumer_redelivered_total{source=\"redis_stream\"}")
    };
    eventually("it is read again", async || again(&a).await >= 3.0).await;
    a.kill().await;
    let b = start(&of_b).await;
    eventually("another node reads it again", async || again(&b).await >= 3.0).await;
    source.stop().await;
    source.start_again().await; // Without the rule.
    add(&source, "outbox", "room:1", "3").await;
    is_empty(&source, "outbox").await;
    assert_eq!(client.message("room:1").await, json!(3), "each was heard once");
    client.assert_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_stays_in_the_stream_until_it_takes_it() {
    let (mut broker, mut source) = (RedisServer::start().await, RedisServer::start_durable().await);
    let of_broker =
        format!("[broker]\nkind = \"redis\"\n[redis]\nurls = [\"{}\"]\ntimeout_ms = 500\n", broker.url());
    let node = node(&format!("{of_broker}{}", config(&source, ""))).await;
    let mut client = subscriber(&node, "room:1").await;
    add(&source, "outbox", "room:1", "0").await;
    hears_all(&mut client, "room:1", 1).await;

    broker.stop().await;
    for number in 1..50 {
        add(&source, "outbox", "room:1", &number.to_string()).await;
    }
    eventually("it is refused", async || {
        let samples = Samples::of(node.internal_addr()).await;
        samples.value("fanfare_consumed_total{outcome=\"deferred\",source=\"redis_stream\"}") > 0.0
    })
    .await;
    broker.start_again().await;
    is_empty(&source, "outbox").await;
    // The broker has come back empty: its stream goes on under another epoch, and the client is told so once.
    let expected: Vec<_> = (1..50).map(|number| json!(number)).collect();
    assert_eq!(kept(&node, "room:1").await, expected, "once and in order");

    // A source that is away is no reason to send clients elsewhere.
    degraded(&node, &json!([])).await;
    source.stop().await;
    degraded(&node, &json!(["consumers"])).await;
    counted(&node, "fanfare_consumers_down{source=\"redis_stream\"}", 1.0).await;
    source.start_again().await;
    add(&source, "outbox", "room:1", "50").await;
    is_empty(&source, "outbox").await;
    degraded(&node, &json!([])).await;
    assert_eq!(kept(&node, "room:1").await.len(), 50);
}

/// The old primary has heard nothing of what was done with the last entries, so the new one hands them out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_read_on_and_nothing_is_heard_again() {
    let authority = Authority::new();
    let mut source = RedisSentinels::start_secure(&authority).await;
    source.are_ready().await;
    let url = source.urls().join(",").replace(",rediss://", ",");
    let node = node(&format!(
        "{ROOM}[outgoing]\nca = \"{}\"\n[consumers.shop]\nurl = \"{url}\"\nmode = \"sentinel\"\nprimary = \"{}\"\n\
         stream = \"outbox\"\n",
        authority.file().display(),
        source.name(),
    ))
    .await;
    let mut client = subscriber(&node, "room:1").await;
    let primary = &source.servers()[0];
    add(primary, "outbox", "room:1", "0").await;
    hears_all(&mut client, "room:1", 1).await;
    is_empty(primary, "outbox").await;

    let () = primary.query(cmd("ACL").arg("SETUSER").arg("default").arg("-xack")).await;
    let mut together = redis::pipe();
    together.atomic();
    for number in 1..10 {
        together.cmd("XADD").arg("outbox").arg("*").arg("channel").arg("room:1").arg("data").arg(number);
    }
    together.query_async::<()>(&mut primary.connect().await).await.expect("it takes entries");
    let heard: Vec<_> = (1..10).map(|number| json!(number)).collect();
    assert_eq!(client.messages("room:1", 9).await, heard);
    primary.is_copied().await;
    let port = primary.service_port();
    source.servers_mut()[0].stop().await;
    source.has_moved_from(port).await;

    let primary = &source.servers()[1];
    is_empty(primary, "outbox").await;
    let again = "fanfare_consumer_redelivered_total{source=\"redis_stream\"}";
    assert!(Samples::of(node.internal_addr()).await.value(again) >= 9.0, "the new primary had them all");
    add(primary, "outbox", "room:1", "10").await;
    assert_eq!(client.message("room:1").await, json!(10), "each was heard once");
    client.assert_silence().await;
    degraded(&node, &json!([])).await;
}

/// The server of the cluster that has a stream now.
async fn owner<'a>(cluster: &'a RedisCluster, stream: &str) -> (usize, &'a RedisServer) {
    let slot: usize = cluster.servers()[3].query(cmd("CLUSTER").arg("KEYSLOT").arg(stream)).await;
    (slot, &cluster.servers()[cluster.owner(slot).await])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_cluster_are_read_on_where_replicas_take_over_and_where_slots_move() {
    const STREAMS: usize = 4;
    let mut source = RedisCluster::start().await;
    // One of its nodes, which is not the one that is going to die, leads to all.
    let node = node(&format!(
        "{ROOM}[consumers.shop]\nurl = \"{}\"\nmode = \"cluster\"\nstream = \"outbox\"\npartitions = {STREAMS}\n",
        source.urls()[3]
    ))
    .await;
    let mut clients = Vec::new();
    for room in 0..STREAMS {
        clients.push(subscriber(&node, &format!("room:{room}")).await);
    }
    let write = async |source: &RedisCluster, from: usize, to: usize| {
        for room in 0..STREAMS {
            let stream = format!("outbox:{room}");
            let (_, server) = owner(source, &stream).await;
            for number in from..to {
                add(server, &stream, &format!("room:{room}"), &number.to_string()).await;
            }
        }
    };
    let mut heard = 0;
    let mut all_hear = async |clients: &mut Vec<Client>, to: usize| {
        let expected: Vec<_> = (heard..to).map(|number| json!(number)).collect();
        for (room, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.messages(&format!("room:{room}"), to - heard).await, expected, "room:{room}");
        }
        heard = to;
    };
    write(&source, 0, 20).await;
    all_hear(&mut clients, 20).await;
    // What nobody could publish leaves in one step with the rest, by the same server.
    let (slot, server) = owner(&source, "outbox:0").await;
    add(server, "outbox:0", "nowhere:1", "1").await;
    eventually("it is put aside", async || {
        server.query::<u64>(cmd("XLEN").arg("{outbox:0}:dead")).await == 1
    })
    .await;
    is_empty(server, "outbox:0").await;

    source.replicas_are_level().await;
    let shard = (0..3).rfind(|&shard| RedisCluster::first_slot(shard) <= slot).expect("a shard has it");
    source.fail_over(shard).await;
    write(&source, 20, 40).await;
    all_hear(&mut clients, 40).await;

    let (slot, from) = owner(&source, "outbox:0").await;
    let others = (0..3).map(RedisCluster::first_slot);
    let mut to = source.servers().len();
    for first in others {
        let at = source.owner(first).await;
        if source.servers()[at].port() != from.port() {
            to = at;
        }
    }
    source.move_slot(slot, to).await;
    write(&source, 40, 60).await;
    all_hear(&mut clients, 60).await;
    for room in 0..STREAMS {
        let stream = format!("outbox:{room}");
        is_empty(owner(&source, &stream).await.1, &stream).await;
    }
    degraded(&node, &json!([])).await;
}
