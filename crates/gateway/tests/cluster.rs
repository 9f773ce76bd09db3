//! The whole thing: three started gateways, a real Redis between them and a real nginx, configured by this repository,
//! before them.

use std::cell::Cell;
use std::path::Path;

use fanfare_testbed::{
    Client, Gateway, LineStream, Nginx, RedisSentinels, RedisServer, Samples, eventually, http,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

const CHANNEL: &str = "room:1";

struct Cluster {
    redis: RedisServer,
    nodes: Vec<Gateway>,
    nginx: Nginx,
}

impl Cluster {
    /// Starts everything and waits until every node is ready.
    async fn start() -> Self {
        Self::configured(&[]).await
    }

    /// The same, with further settings for each node.
    async fn configured(further: &[&str]) -> Self {
        let redis = RedisServer::start().await;
        let url = format!("redis.urls={}", redis.url());
        let mut nodes = Vec::new();
        for name in ["node.name=node-1", "node.name=node-2", "node.name=node-3"] {
            let shared = ["broker.kind=redis", "node.drain_seconds=1", "limits.messages_per_second=0"];
            let settings = [&shared[..], &[&url, name], further].concat();
            nodes.push(Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await);
        }
        let addresses: Vec<_> = nodes.iter().map(Gateway::public).collect();
        let nginx = Nginx::start(&addresses).await;
        let cluster = Self { redis, nodes, nginx };
        cluster.all_ready().await;
        cluster
    }

    async fn all_ready(&self) {
        for node in &self.nodes {
            let ready = async || http::get(node.public(), "/ready").await.status == 200;
            eventually("every node is ready", ready).await;
        }
    }

    /// A client that came in through nginx and is subscribed, on whatever node.
    async fn join(&self) -> Client {
        let mut joined = None;
        eventually("nginx finds a node", async || {
            joined = Client::try_connect(self.nginx.address()).await.ok();
            joined.is_some()
        })
        .await;
        let mut client = joined.expect("it was found");
        client.subscribe(CHANNEL).await;
        client
    }

    /// Clients that came in through nginx, as many on each node.
    async fn crowd(&self, per_node: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..per_node * self.nodes.len() {
            clients.push(self.join().await);
        }
        for node in ["node-1", "node-2", "node-3"] {
            let on_it = clients.iter().filter(|client| client.node() == node).count();
            assert_eq!(on_it, per_node, "nginx gives every node its share");
        }
        clients
    }

    /// Connections that have ended, on all nodes together, for whatever reason.
    async fn closes(&self) -> f64 {
        let samples = join_all(self.nodes.iter().map(|node| Samples::of(node.internal()))).await;
        samples.iter().map(|samples| samples.sum("fanfare_connections_closed_total")).sum()
    }
}

/// Publishes through the server API of a node; whether it was accepted.
async fn publish(node: &Gateway, data: &Value) -> bool {
    let body = json!({"channel": CHANNEL, "data": data}).to_string();
    let answer = http::post(node.internal(), "/api/publish", &[], &body).await;
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    answer.status == 200
}

/// Every client hears this very message next.
async fn all_hear(clients: &mut [Client], data: &Value) {
    for client in clients {
        assert_eq!(client.message(CHANNEL).await, *data, "on {}", client.node());
    }
}

/// Three backends and a client publish at once, each on another node: every client, on every node, hears everything
/// once and in the same order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_anywhere_is_heard_everywhere_once_and_in_order() {
    const COUNT: u64 = 100;
    let cluster = Cluster::start().await;
    let mut clients = cluster.crowd(3).await;
    let mut publisher = Client::connect(cluster.nginx.address()).await;

    let backends = cluster.nodes.iter().zip(["node-1", "node-2", "node-3"]).map(async |(node, by)| {
        for number in 0..COUNT {
            assert!(publish(node, &json!({"by": by, "number": number})).await);
        }
    });
    let client = async {
        for number in 0..COUNT {
            publisher.publish(CHANNEL, json!({"by": "client", "number": number})).await;
        }
    };
    let all = usize::try_from(4 * COUNT).unwrap();
    let hearing = join_all(clients.iter_mut().map(|client| client.messages(CHANNEL, all)));
    let (_, (), heard) = tokio::join!(join_all(backends), client, hearing);

    for by in ["node-1", "node-2", "node-3", "client"] {
        let of_it = heard[0].iter().filter(|data| data["by"] == by);
        let numbers: Vec<_> = of_it.map(|data| data["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "by {by}");
    }
    assert!(heard.iter().all(|other| *other == heard[0]), "there is one order");
    assert!(publish(&cluster.nodes[0], &json!("last")).await);
    all_hear(&mut clients, &json!("last")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_killed_node_come_back_through_nginx_and_go_on() {
    let mut cluster = Cluster::start().await;
    let clients = cluster.crowd(3).await;
    let (mut orphans, mut others): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|client| client.node() == "node-1");

    cluster.nodes.remove(0).kill().await;
    for orphan in &mut orphans {
        assert_eq!(orphan.goodbye().await.code, None, "no goodbye from a killed node");
        *orphan = cluster.join().await;
        assert_ne!(orphan.node(), "node-1");
    }
    for (node, data) in cluster.nodes.iter().zip([json!(1), json!(2)]) {
        assert!(publish(node, &data).await);
        all_hear(&mut orphans, &data).await;
        all_hear(&mut others, &data).await;
    }
    assert!(cluster.closes().await.abs() < f64::EPSILON, "nobody else was disconnected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_disconnects_nobody() {
    let mut cluster = Cluster::start().await;
    let mut clients = cluster.crowd(2).await;
    assert!(publish(&cluster.nodes[0], &json!("before")).await);
    all_hear(&mut clients, &json!("before")).await;

    cluster.redis.stop().await;
    for node in &cluster.nodes {
        eventually("readiness fails", async || http::get(node.public(), "/ready").await.status == 503).await;
        assert!(!publish(node, &json!("lost")).await);
    }
    for client in &mut clients {
        let refused = client.ask(json!({"type": "publish", "channel": CHANNEL, "data": "lost"})).await;
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(4503)), "{refused}");
        assert!(refused["retry_after"].as_u64().is_some_and(|wait| wait > 0), "{refused}");
        let refused = client.ask(json!({"type": "subscribe", "channel": "room:2"})).await;
        assert_eq!(refused["code"], 4503, "{refused}");
        client.assert_silence().await;
    }

    cluster.redis.start_again().await;
    cluster.all_ready().await;
    for client in &mut clients {
        // It came back without its data: nobody can say what was missed, so everybody is told and subscribes again.
        let told = client.event().await;
        assert_eq!((&told["type"], &told["code"]), (&json!("unsubscribed"), &json!(4410)), "{told}");
        client.subscribe(CHANNEL).await;
    }
    for (node, number) in cluster.nodes.iter().zip(1..) {
        assert!(publish(node, &json!(number)).await, "a node that is ready can publish");
        all_hear(&mut clients, &json!(number)).await;
    }
    for client in &mut clients {
        client.subscribe("room:2").await;
    }
    assert!(cluster.closes().await.abs() < f64::EPSILON, "nobody was disconnected");
    for node in &cluster.nodes {
        let samples = Samples::of(node.internal()).await;
        assert!(samples.value("fanfare_broker_reconnects_total") >= 1.0);
        assert!(samples.value("fanfare_command_errors_total{code=\"4503\"}") >= 2.0);
    }
}

/// A rolling restart: the clients of the node are told and come back elsewhere, the others miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_told_to_stop_lets_its_clients_go_and_exits_well() {
    let mut cluster = Cluster::start().await;
    let clients = cluster.crowd(3).await;
    let mut leaving = cluster.nodes.remove(0);
    let (mut drained, mut others): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|client| client.node() == "node-1");

    let gone = Cell::new(false);
    let traffic = async {
        let mut number = 0_u64;
        while !gone.get() {
            assert!(publish(&cluster.nodes[0], &json!(number)).await);
            all_hear(&mut others, &json!(number)).await;
            number += 1;
        }
        number
    };
    let stopping = async {
        leaving.terminate().await;
        let goodbyes = join_all(drained.iter_mut().map(Client::until_closed)).await;
        let status = leaving.ended().await;
        gone.set(true);
        (goodbyes, status)
    };
    let (published, (goodbyes, status)) = tokio::join!(traffic, stopping);

    assert!(status.success(), "{status}: {}", leaving.log());
    assert!(published > 1, "there was traffic meanwhile: {published} messages");
    for (heard, goodbye) in goodbyes {
        assert_eq!(goodbye.code, Some(1001), "{goodbye:?}");
        assert_eq!(goodbye.closing.expect("told before the Close")["reconnect"], true);
        let numbers: Vec<_> = heard.iter().map(|event| event["data"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "until then nothing is missing");
    }
    for client in &mut drained {
        *client = cluster.join().await;
        assert_ne!(client.node(), "node-1");
    }
    assert!(publish(&cluster.nodes[1], &json!("after")).await);
    all_hear(&mut drained, &json!("after")).await;
    all_hear(&mut others, &json!("after")).await;
}

/// nginx brings requests to whatever node is least busy, and there is nothing in this repository's configuration that would bring
/// those of one client to the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_by_a_response_speaks_through_whatever_node_nginx_takes() {
    const COUNT: u64 = 20;
    let room = ["namespaces.room.publish=subscribers", "namespaces.room.history.size=100"];
    let cluster = Cluster::configured(&room).await;
    let mut streams = Vec::new();
    // The third node is the least busy, so that is where most posts go.
    for _ in 0..2 {
        let path = format!("/stream?channel={CHANNEL}");
        let mut stream = LineStream::open(cluster.nginx.address(), &path, &[]).await.unwrap();
        let welcome = stream.json().await.unwrap();
        assert_eq!(stream.json().await.unwrap()["type"], "subscribed");
        streams.push((stream, format!("Authorization: Ticket {}", welcome["ticket"].as_str().unwrap())));
    }
    for number in 0..COUNT {
        for (who, (_, ticket)) in streams.iter().enumerate() {
            let body = json!({"channel": CHANNEL, "data": [number, who]}).to_string();
            let answer = http::post(cluster.nginx.address(), "/publish", &[ticket], &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let all: Vec<_> = (0..COUNT).flat_map(|number| (0..2).map(move |who| json!([number, who]))).collect();
    for (stream, _) in &mut streams {
        for data in &all {
            assert_eq!(stream.json().await.unwrap()["data"], *data);
        }
    }
    let mut handed_on = 0.0;
    for node in &cluster.nodes {
        let samples = Samples::of(node.internal()).await;
        handed_on += samples.value("fanfare_errands_total{outcome=\"answered\"}");
    }
    assert!(handed_on >= 1.0, "nginx spreads the posts");
}

/// Each poll comes to another node, and asks for what came after the answer of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_polls_through_nginx_misses_nothing_wherever_each_poll_goes() {
    const COUNT: u64 = 60;
    let cluster =
        Cluster::configured(&["namespaces.room.history.size=100", "namespaces.room.publish=anyone"]).await;
    let nginx = cluster.nginx.address();
    let first = http::get(nginx, &format!("/poll?channel={CHANNEL}")).await.json();
    let mut since = first["since"].as_str().unwrap().to_owned();
    let publishing = async {
        for number in 1..=COUNT {
            let body = json!({"channel": CHANNEL, "data": number}).to_string();
            let answer = http::post(nginx, "/publish", &[], &body).await;
            assert_eq!(answer.json()["offset"], number, "{}", answer.text());
        }
    };
    let polling = async {
        let mut heard = Vec::new();
        while heard.last() != Some(&COUNT) {
            let answer = http::get(nginx, &format!("/poll?channel={CHANNEL}&since={since}")).await.json();
            answer["since"].as_str().unwrap().clone_into(&mut since);
            for event in answer["events"].as_array().unwrap() {
                match event["type"].as_str() {
                    Some("subscribed") => assert_eq!(event["recovered"], true, "{event}"),
                    Some("message") => heard.push(event["data"].as_u64().unwrap()),
                    _ => panic!("{event}"),
                }
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(publishing, polling);
    assert_eq!(heard, (1..=COUNT).collect::<Vec<_>>());
    for node in &cluster.nodes {
        let samples = Samples::of(node.internal()).await;
        let polls = samples.value("fanfare_transport_connections_total{transport=\"poll\"}");
        assert!(polls >= 1.0, "nginx spreads the polls");
    }
}

#[tokio::test]
async fn nginx_exposes_nothing_internal() {
    let cluster = Cluster::start().await;
    let nginx = cluster.nginx.address();
    for path in ["/metrics", "/api/publish", "/api/", "/ready", "//metrics", "/%6detrics", "/ws/../metrics"] {
        assert_eq!(http::get(nginx, path).await.status, 404, "{path}");
        assert_eq!(http::post(nginx, path, &[], "{}").await.status, 404, "{path}");
    }
    for path in ["/", "/health", "/status"] {
        assert_eq!(http::get(nginx, path).await.status, 200, "{path}");
    }
    assert_eq!(http::get(nginx, "/ws").await.status, 400, "the gateway itself answers there");
}

/// Behind Sentinel it is known who is present, over a fail-over and the death of a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_changes_nothing_about_who_is_present() {
    let mut redis = RedisSentinels::start().await;
    redis.are_ready().await;
    let urls = format!("redis.urls={}", redis.urls().join(","));
    let primary = format!("redis.primary={}", redis.name());
    let mut nodes = Vec::new();
    for name in ["node.name=node-1", "node.name=node-2", "node.name=node-3"] {
        let shared = ["broker.kind=redis", "redis.mode=sentinel", "presence.heartbeat_seconds=2"];
        let settings = [&shared[..], &[&urls, &primary, name]].concat();
        nodes.push(Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await);
    }
    let mut clients = Vec::new();
    for node in &nodes {
        eventually("every node is ready", async || http::get(node.public(), "/ready").await.status == 200)
            .await;
        let mut client = Client::connect(node.public()).await;
        client.subscribe(CHANNEL).await;
        clients.push(client);
    }
    all_name(&nodes, &clients).await;

    let port = redis.servers()[0].port();
    redis.servers_mut()[0].stop().await;
    redis.has_moved_from(port).await;
    let mut late = Client::connect(nodes[1].public()).await;
    eventually("one can subscribe again", async || {
        late.ask(json!({"type": "subscribe", "channel": CHANNEL})).await["type"] == "subscribed"
    })
    .await;
    clients.push(late);
    all_name(&nodes, &clients).await;

    nodes.remove(0).kill().await;
    clients.remove(0);
    all_name(&nodes, &clients).await;
}

/// Every node names these very clients in the end.
async fn all_name(nodes: &[Gateway], clients: &[Client]) {
    let mut sessions: Vec<_> = clients.iter().map(|client| client.welcome()["session"].clone()).collect();
    sessions.sort_by_key(Value::to_string);
    let body = json!({"channel": CHANNEL}).to_string();
    for node in nodes {
        eventually("those who are there are named, and nobody else", async || {
            let answer = http::post(node.internal(), "/api/presence", &[], &body).await;
            let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let members = told["members"].as_array().into_iter().flatten();
            let mut named: Vec<_> = members.map(|member| member["session"].clone()).collect();
            named.sort_by_key(Value::to_string);
            named == sessions
        })
        .await;
    }
}
