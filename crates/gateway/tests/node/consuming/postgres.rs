//! From a table of PostgreSQL.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::node::Node;
use fanfare_testbed::authority::GOOD;
use fanfare_testbed::{Authority, Client, Gateway, PostgresServer, RedisServer, Samples, eventually};
use redis::cmd;
use serde_json::json;

use super::{ROOM, degraded, hears_all, kept, subscriber};
use crate::support::{configured, counted, node};

const FANFARE: &str = env!("CARGO_BIN_EXE_fanfare");

/// So seldom that no test sees it: what is found was told.
const NEVER_LOOKS: &str = "poll_ms = 3600000\n";

/// Has the tables made as the program prints them, and a role that may do what is said there and no more.
async fn with_tables(server: &PostgresServer) {
    let printed = Command::new(FANFARE).arg("outbox-sql").output().expect("the program runs");
    let schema = String::from_utf8(printed.stdout).expect("SQL is text").replace("-- GRANT", "GRANT");
    server.execute(&format!("CREATE ROLE fanfare LOGIN PASSWORD 'secret'; {schema}")).await;
}

async fn server() -> PostgresServer {
    let server = PostgresServer::start().await;
    with_tables(&server).await;
    server
}

fn url(server: &PostgresServer) -> String {
    server.url_of("fanfare", "secret")
}

/// A node's configuration with a consumer of this server.
fn config(server: &PostgresServer, further: &str) -> String {
    format!("{ROOM}[node]\ndrain_seconds = 0\n[consumers.shop]\nurl = \"{}\"\n{further}", url(server))
}

/// Rows for some rooms, numbered in each, a transaction for each number.
fn rows(rooms: usize, numbers: Range<usize>) -> String {
    let mut statements = String::new();
    for number in numbers {
        let values: Vec<_> = (0..rooms).map(|room| format!("('room:{room}', '{number}')")).collect();
        let values = values.join(", ");
        writeln!(statements, "BEGIN; INSERT INTO fanfare_outbox (channel, data) VALUES {values}; COMMIT;")
            .expect("a text grows");
    }
    statements
}

async fn is_empty(server: &PostgresServer) {
    eventually("everything has been taken out", async || {
        server.number("SELECT count(*) FROM fanfare_outbox").await == 0
    })
    .await;
}

/// How many rows a node has read, by what became of them.
async fn consumed(node: &Node, outcome: &str) -> f64 {
    let series = format!("fanfare_consumed_total{{outcome=\"{outcome}\",source=\"postgres\"}}");
    Samples::of(node.internal_addr()).await.value(&series)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_published_in_order_by_nodes_that_share_the_work() {
    let (server, bus) = (server().await, Bus::default());
    // Before there is a node; what is rolled back has never been.
    server.execute(&rows(1, 0..1)).await;
    server
        .execute("BEGIN; INSERT INTO fanfare_outbox (channel, data) VALUES ('room:0', '9'); ROLLBACK")
        .await;
    let start = async || {
        let config = configured(&config(&server, &format!("{NEVER_LOOKS}batch = 7\n")));
        Node::start_on(&config, &bus).await.expect("a node starts")
    };
    let (a, b) = (start().await, start().await);
    is_empty(&server).await;
    let mut clients = Vec::new();
    for room in 0..8 {
        let mut client = Client::connect(b.public_addr()).await;
        client.send(json!({"type": "subscribe", "channel": format!("room:{room}"), "rewind": 10})).await;
        assert_eq!(client.event().await["type"], "subscribed");
        clients.push(client);
    }
    server.execute("INSERT INTO fanfare_outbox (channel, data) SELECT 'room:' || n, '0' FROM generate_series(1, 7) n").await;
    server.execute(&rows(8, 1..50)).await;
    for (room, client) in clients.iter_mut().enumerate() {
        hears_all(client, &format!("room:{room}"), 50).await;
    }
    is_empty(&server).await;
    assert!(
        (consumed(&a, "accepted").await + consumed(&b, "accepted").await - 400.0).abs() < 0.5,
        "each once"
    );
    both_work(&server).await;
    // The work of one that goes is the other's.
    a.drain().await;
    let mut client = subscriber(&b, "room:8").await;
    server.execute("INSERT INTO fanfare_outbox (channel, data) VALUES ('room:8', '0')").await;
    hears_all(&mut client, "room:8", 1).await;
    is_empty(&server).await;
    counted(&b, "fanfare_consumed_total{outcome=\"refused\",source=\"postgres\"}", 0.0).await;
}

/// While one node does not come to the end of what it has begun, the other works on what that has left.
async fn both_work(server: &PostgresServer) {
    let other = server.connect().await;
    other
        .batch_execute(
            "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN OLD; END $$; \
             CREATE TRIGGER waits BEFORE DELETE ON fanfare_outbox FOR EACH ROW EXECUTE FUNCTION waits(); \
             SELECT pg_advisory_lock(1); \
             INSERT INTO fanfare_outbox (channel, data) SELECT 'plain:' || n, '1' FROM generate_series(1, 100) n",
        )
        .await
        .expect("it can be made to wait");
    eventually("both have published, and wait", async || {
        server.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'").await == 2
    })
    .await;
    other.batch_execute("SELECT pg_advisory_unlock(1)").await.expect("it was locked");
    is_empty(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_has_in_hand_holds_up_nothing_else_and_what_was_not_told_is_found() {
    let server = server().await;
    let node = node(&config(&server, "poll_ms = 20\n")).await;
    let mut client = subscriber(&node, "room:0").await;
    client.subscribe("room:1").await;
    // Nobody says anything any more.
    server.execute("DROP TRIGGER fanfare_outbox_notify ON fanfare_outbox").await;
    let mut other = server.connect().await;
    let other = other.transaction().await.expect("a transaction begins");
    let in_hand = "SELECT FROM fanfare_outbox_partition WHERE partition = hashtext('room:0') & 15 FOR UPDATE";
    other.execute(in_hand, &[]).await.expect("it is free");
    assert_eq!(
        server
            .number("SELECT count(DISTINCT hashtext('room:' || n) & 15) FROM generate_series(0, 1) n")
            .await,
        2
    );
    server.execute(&rows(2, 0..1)).await;
    assert_eq!(client.event().await["channel"], "room:1", "the other is in hand");
    counted(&node, "fanfare_consumed_total{outcome=\"accepted\",source=\"postgres\"}", 1.0).await;
    other.rollback().await.expect("it leaves it alone");
    assert_eq!(client.event().await["channel"], "room:0");
    is_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_publish_is_put_aside_with_the_reason_and_holds_nothing_up() {
    let server = server().await;
    // Odd, and good.
    let odd = "INSERT INTO fanfare_outbox (channel, data, created_at) VALUES ('room:2', '1', 'infinity')";
    server.execute(odd).await;
    let node = node(&config(&server, NEVER_LOOKS)).await;
    is_empty(&server).await;
    let mut client = subscriber(&node, "room:1").await;
    let (large, long) = ("x".repeat(70_000), "n".repeat(5_000));
    server
        .execute(&format!(
            "INSERT INTO fanfare_outbox (channel, data, bytes, key) VALUES ('room:1', '0', NULL, 'k'), \
             ('nowhere:1', '1', NULL, NULL), ('room:1', '\"{large}\"', NULL, NULL), ('{long}', '1', NULL, NULL), \
             ('plain:1', '1', NULL, 'k'), ('room:1', '7', NULL, 'k'), ('room:1', NULL, '\\x00ff', NULL), \
             ('room:1', '1', NULL, NULL)"
        ))
        .await;
    // With the key of the first the sixth is the same.
    let expected = [json!(0), json!({"$binary": "AP8="}), json!(1)];
    assert_eq!(client.messages("room:1", 3).await, expected);
    is_empty(&server).await;
    counted(&node, "fanfare_consumed_total{outcome=\"refused\",source=\"postgres\"}", 4.0).await;
    let dead = "SELECT left(channel, 9), reason, octet_length(data::text)::bigint FROM fanfare_outbox_dead ORDER BY number";
    let dead: Vec<(String, String, i64)> =
        server.query(dead).await.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = [
        ("nowhere:1", "no namespace", 1),
        ("room:1", "limits.message_bytes", 70_002), // Whole, for whoever mends it.
        (&long[..9], "`channel` is no name", 1),
        ("plain:1", "history", 1),
    ];
    assert_eq!(dead.len(), expected.len(), "{dead:?}");
    for ((channel, reason, bytes), expected) in dead.iter().zip(expected) {
        assert!(
            (channel.as_str(), *bytes) == (expected.0, expected.2) && reason.contains(expected.1),
            "{dead:?}"
        );
    }
    // The last ten thousand are kept.
    let many = "INSERT INTO fanfare_outbox_dead (id, channel, created_at, reason) \
                SELECT n, 'room:1', now(), 'old' FROM generate_series(1, 10050) n";
    server
        .execute(&format!("{many}; INSERT INTO fanfare_outbox (channel, data) VALUES ('nowhere:2', '1')"))
        .await;
    is_empty(&server).await;
    assert_eq!(server.number("SELECT count(*) FROM fanfare_outbox_dead").await, 10_000);
    let last = server.query("SELECT channel FROM fanfare_outbox_dead ORDER BY number DESC LIMIT 1").await;
    assert_eq!(last[0].get::<_, String>(0), "nowhere:2");
}

/// Its ids begin anew, and what they were before is remembered by the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_table_that_was_made_anew_is_not_taken_for_what_was_there_before() {
    let server = server().await;
    let node = node(&config(&server, "poll_ms = 20\n")).await;
    let mut client = subscriber(&node, "room:0").await;
    server.execute(&rows(1, 0..3)).await;
    hears_all(&mut client, "room:0", 3).await;
    is_empty(&server).await;
    server.execute("TRUNCATE fanfare_outbox RESTART IDENTITY").await;
    server.execute(&rows(1, 3..6)).await;
    assert_eq!(server.number("SELECT last_value FROM fanfare_outbox_id_seq").await, 3, "the same ids");
    assert_eq!(client.messages("room:0", 3).await, [json!(3), json!(4), json!(5)]);
}

/// The broker has accepted it, and the transaction that takes it out does not come to its end; then the node dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_again_is_not_heard_again() {
    let (server, broker) = (server().await, RedisServer::start().await);
    let settings = [
        "broker.kind=redis".to_owned(),
        format!("redis.urls={}", broker.url()),
        "namespaces.room.history.size=1000".to_owned(),
        "namespaces.room.history.ttl_seconds=600".to_owned(),
        format!("consumers.shop.url={}", url(&server)),
        "consumers.shop.poll_ms=20".to_owned(),
    ];
    let start = async |settings: &[String]| {
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        Gateway::start(Path::new(FANFARE), &settings).await
    };
    let (a, ears) = (start(&settings).await, start(&settings[..4]).await);
    let mut client = Client::connect(ears.public()).await;
    client.subscribe("room:0").await;
    server
        .execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'nothing is taken out'; END $$; \
             CREATE TRIGGER no BEFORE DELETE ON fanfare_outbox FOR EACH ROW EXECUTE FUNCTION no()",
        )
        .await;
    let together =
        "INSERT INTO fanfare_outbox (channel, data) SELECT 'room:0', to_json(n) FROM generate_series(0, 2) n";
    server.execute(together).await;
    hears_all(&mut client, "room:0", 3).await;
    let again = async |gateway: &Gateway| {
        let series = "fanfare_consumer_redelivered_total{source=\"postgres\"}";
        Samples::of(gateway.internal()).await.value(series)
    };
    eventually("it is published again", async || again(&a).await >= 6.0).await;
    a.kill().await;
    let b = start(&settings).await;
    eventually("another node publishes it again", async || again(&b).await >= 3.0).await;
    server.execute("DROP TRIGGER no ON fanfare_outbox").await;
    server.execute(&rows(1, 3..4)).await;
    is_empty(&server).await;
    assert_eq!(client.message("room:0").await, json!(3), "each was heard once");
    client.assert_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_stays_in_the_table_until_it_takes_it() {
    let (mut server, mut broker) = (server().await, RedisServer::start().await);
    let of_broker =
        format!("[broker]\nkind = \"redis\"\n[redis]\nurls = [\"{}\"]\ntimeout_ms = 500\n", broker.url());
    let node = node(&format!("{of_broker}{}", config(&server, NEVER_LOOKS))).await;
    let mut client = subscriber(&node, "room:0").await;
    server.execute(&rows(1, 0..1)).await;
    hears_all(&mut client, "room:0", 1).await;

    broker.stop().await;
    server.execute(&rows(1, 1..50)).await;
    eventually("it is refused", async || consumed(&node, "deferred").await > 0.0).await;
    broker.start_again().await;
    is_empty(&server).await;
    // The broker has come back empty: its stream goes on under another epoch, and the client is told so once.
    let expected: Vec<_> = (1..50).map(|number| json!(number)).collect();
    assert_eq!(kept(&node, "room:0").await, expected, "once and in order");

    // A source that is away is no reason to send clients elsewhere.
    degraded(&node, &json!([])).await;
    server.stop().await;
    degraded(&node, &json!(["consumers"])).await;
    counted(&node, "fanfare_consumers_down{source=\"postgres\"}", 1.0).await;
    server.start_again().await;
    server.execute(&rows(1, 50..51)).await;
    is_empty(&server).await;
    degraded(&node, &json!([])).await;
    assert_eq!(kept(&node, "room:0").await.len(), 50);
}

/// Those behind a call that fails would be taken, were they tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_takes_again_in_the_middle_of_a_batch_is_in_order() {
    let (server, broker) = (server().await, RedisServer::start().await);
    let of_broker = format!("[broker]\nkind = \"redis\"\n[redis]\nurls = [\"{}\"]\n", broker.url());
    let further = format!("{NEVER_LOOKS}batch = 1000\n");
    let node = node(&format!("{of_broker}{}", config(&server, &further))).await;
    let mut client = subscriber(&node, "room:0").await;
    let rule = |rule: &str| cmd("ACL").arg("SETUSER").arg("default").arg(rule).to_owned();
    let () = broker.query(&rule("-evalsha")).await;
    let many = "INSERT INTO fanfare_outbox (channel, data) SELECT 'room:0', to_json(n) FROM generate_series(0, 999) n";
    server.execute(many).await;
    eventually("it is refused", async || {
        let series = "fanfare_broker_call_errors_total{call=\"publish\",outcome=\"unavailable\"}";
        Samples::of(node.internal_addr()).await.value(series) > 0.0
    })
    .await;
    let () = broker.query(&rule("+evalsha")).await;
    hears_all(&mut client, "room:0", 1000).await;
    is_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_server_is_read_that_an_authority_vouches_for_and_no_other() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let server = PostgresServer::start_secure(&known.issue("postgres", GOOD)).await;
    with_tables(&server).await;
    let trusting = |authority: &Authority| {
        format!("{}[outgoing]\nca = \"{}\"\n", config(&server, NEVER_LOOKS), authority.file().display())
    };
    let (trusts, doubts) = (node(&trusting(&known)).await, node(&trusting(&unknown)).await);
    let mut client = subscriber(&trusts, "room:0").await;
    server.execute(&rows(1, 0..1)).await;
    hears_all(&mut client, "room:0", 1).await;
    degraded(&doubts, &json!(["consumers"])).await;
    degraded(&trusts, &json!([])).await;
}
