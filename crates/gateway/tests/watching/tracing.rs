//! Looking on while a channel or a user is served: by three started nodes with a real Redis between them.

use fanfare_testbed::{LineStream, Samples};

use super::*;

const SECRET: &str = "auth.jwt.hmac_secret=a-secret-that-is-long-enough-for-us";

struct Cluster {
    _redis: RedisServer,
    nodes: Vec<Gateway>,
}

impl Cluster {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let url = format!("redis.urls={}", redis.url());
        let mut nodes = Vec::new();
        for name in ["node.name=node-1", "node.name=node-2", "node.name=node-3"] {
            let settings = ["broker.kind=redis", "auth.anonymous=true", "namespaces.room.history.size=10"];
            let room = ["namespaces.room.history.ttl_seconds=60", "namespaces.room.max_bytes=5000"];
            let settings = [&settings[..], &room, &[&url, name, SECRET, "api.keys=a-key"]].concat();
            nodes.push(Gateway::start(Path::new(PROGRAM), &settings).await);
        }
        for node in &nodes {
            let all = async || {
                let key = ["Authorization: Bearer a-key"];
                let answer = http::post(node.internal(), "/api/nodes", &key, "{}").await.json();
                answer["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3)
            };
            eventually("the nodes know each other", all).await;
        }
        Self { _redis: redis, nodes }
    }

    /// A client of a user, on the node of this number.
    async fn client(&self, node: usize, user: &str) -> Client {
        let token = run(&["--set", SECRET, "token", "--user", user]).await;
        let client = Client::with_token(self.nodes[node].public(), printed(&token).trim()).await;
        client.expect("the token is good")
    }

    /// Looks on by the first node, once all three do.
    async fn trace(&self, query: &str) -> Trace {
        let path = format!("/api/trace?{query}");
        let lines = LineStream::open(self.nodes[0].internal(), &path, &["Authorization: Bearer a-key"]).await;
        let mut trace = Trace { lines: lines.expect("it is answered"), seen: Vec::new() };
        for node in ["node-1", "node-2", "node-3"] {
            trace.find(&json!({"type": "watching", "node": node})).await;
        }
        trace
    }
}

struct Trace {
    lines: LineStream,
    seen: Vec<Value>,
}

impl Trace {
    /// The first event that has not been found yet and has these fields, whatever comes before it.
    async fn find(&mut self, fields: &Value) -> Value {
        let is_it =
            |event: &Value| fields.as_object().into_iter().flatten().all(|(name, it)| event[name] == *it);
        loop {
            if let Some(at) = self.seen.iter().position(is_it) {
                return self.seen.remove(at);
            }
            match self.lines.json().await {
                Ok(event) => self.seen.push(event),
                Err(end) => panic!("{end:?} before {fields}, after {:?}", self.seen),
            }
        }
    }
}

fn session(client: &Client) -> Value {
    client.welcome()["session"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_is_followed_from_its_publisher_to_every_socket_on_all_nodes() {
    let cluster = Cluster::start().await;
    let mut trace = cluster.trace("channel=room:1").await;
    let mut ann = cluster.client(1, "ann").await;
    let mut bob = cluster.client(2, "bob").await;
    let mut elsewhere = cluster.client(1, "eve").await;
    elsewhere.subscribe("room:2").await;
    for (client, user, node) in [(&mut ann, "ann", "node-2"), (&mut bob, "bob", "node-3")] {
        client.subscribe("room:1").await;
        let subscribed =
            json!({"type": "subscribed", "node": node, "user": user, "session": session(client)});
        assert_eq!(trace.find(&subscribed).await["channel"], "room:1");
    }
    ann.publish("room:1", json!("a secret")).await;
    let published = trace.find(&json!({"type": "published", "by": "client", "user": "ann"})).await;
    assert_eq!((&published["node"], &published["session"]), (&json!("node-2"), &session(&ann)));
    assert_eq!(published["bytes"], 10);
    let (id, offset) = (&published["trace"], &published["offset"]);
    assert!(id.as_str().is_some_and(|id| id.len() == 32) && offset.is_u64(), "{published}");
    for (client, node) in [(&ann, "node-2"), (&bob, "node-3")] {
        let heard = trace.find(&json!({"type": "heard", "node": node, "trace": id, "offset": offset})).await;
        assert_eq!(heard["user"], "ann", "of the publisher");
        let fanned_out = trace.find(&json!({"type": "fanned_out", "node": node})).await;
        assert_eq!(fanned_out["receivers"], 1);
        for kind in ["queued", "written"] {
            let met = json!({"type": kind, "node": node, "session": session(client), "trace": id, "offset": offset});
            let met = trace.find(&met).await;
            assert!(met["user"].is_string(), "{met}");
        }
    }
    let refused = ann.ask(json!({"type": "publish", "channel": "room:1", "data": "x".repeat(6000)})).await;
    assert_eq!(refused["code"], 4413);
    trace.find(&json!({"type": "refused", "code": 4413, "user": "ann", "channel": "room:1"})).await;
    let key = ["Authorization: Bearer a-key"];
    let body = json!({"channel": "room:1", "data": 2}).to_string();
    http::post(cluster.nodes[0].internal(), "/api/publish", &key, &body).await;
    let published = trace.find(&json!({"type": "published", "by": "api", "node": "node-1"})).await;
    trace.find(&json!({"type": "written", "node": "node-3", "trace": published["trace"]})).await;
    let place = json!({"epoch": published["epoch"], "offset": offset});
    bob.close().await;
    let gone = trace.find(&json!({"type": "disconnected", "node": "node-3", "user": "bob"})).await;
    assert_eq!((&gone["code"], &gone["reason"]), (&json!(1000), &json!("normal")));
    let mut bob = cluster.client(2, "bob").await;
    bob.ask(json!({"type": "subscribe", "channel": "room:1", "since": place})).await;
    let back = trace.find(&json!({"type": "subscribed", "user": "bob"})).await;
    assert_eq!((&back["recovered"], &back["replayed"]), (&json!(true), &json!(true)));
    trace.find(&json!({"type": "queued", "session": session(&bob), "replayed": true})).await;
    ann.ask(json!({"type": "unsubscribe", "channel": "room:1"})).await;
    trace.find(&json!({"type": "unsubscribed", "user": "ann"})).await;
    let strange = trace.seen.iter().find(|it| it.to_string().contains("secret") || it["user"] == "eve");
    assert_eq!(strange, None, "neither what was published nor other channels");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_followed_wherever_it_connects_and_what_it_says_is_told_if_asked_for() {
    let cluster = Cluster::start().await;
    let mut early = cluster.client(1, "ann").await;
    let mut trace = cluster.trace("user=ann&payload=true").await;
    let ann = cluster.client(2, "ann").await;
    let mut bob = cluster.client(2, "bob").await;
    let connected =
        trace.find(&json!({"type": "connected", "node": "node-3", "session": session(&ann)})).await;
    assert_eq!((&connected["user"], &connected["transport"]), (&json!("ann"), &json!("websocket")));
    for client in [&mut early, &mut bob] {
        client.subscribe("room:1").await;
    }
    trace.find(&json!({"type": "subscribed", "session": session(&early)})).await;
    bob.publish("room:1", json!({"said by": "bob"})).await;
    trace.find(&json!({"type": "written", "user": "ann", "session": session(&early)})).await;
    early.publish("room:1", json!("y".repeat(2000))).await;
    let published = trace.find(&json!({"type": "published", "user": "ann"})).await;
    assert_eq!(published["payload"].as_str().map(str::len), Some(1024), "{published}");
    assert_eq!(published["truncated"], true);
    trace.find(&json!({"type": "heard", "node": "node-3", "trace": published["trace"]})).await;
    ann.close().await;
    trace.find(&json!({"type": "disconnected", "session": connected["session"]})).await;
    let strange = trace.seen.iter().find(|it| it["user"] == "bob");
    assert_eq!(strange, None, "what bob is sent and does is his");
}

/// Nodes go on as long as they hear that somebody looks on, and no longer: a trace ends with its caller, and with its node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looked_on_and_has_gone_is_forgotten_by_all_nodes() {
    let mut cluster = Cluster::start().await;
    let looked_at = async |node: &Gateway, count: f64| {
        let value = async || Samples::of(node.internal()).await.value("fanfare_traces");
        let is_it = async || (value().await - count).abs() < f64::EPSILON;
        eventually(format_args!("{count} traces"), is_it).await;
    };
    let leaves = cluster.trace("channel=room:1").await;
    let stays = cluster.trace("user=ann").await;
    looked_at(&cluster.nodes[1], 2.0).await;
    drop(leaves);
    for node in &cluster.nodes {
        looked_at(node, 1.0).await;
    }
    cluster.nodes.remove(0).kill().await;
    for node in &cluster.nodes {
        looked_at(node, 0.0).await;
    }
    drop(stays);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_prints_what_is_seen_until_its_time_is_over() {
    let (node, api, key) = node().await;
    let key = key.path().to_str().unwrap();
    let mut client = Client::connect(node.public()).await;
    let trace = ["trace", "--api", &api, "--key-file", key, "--channel", "room:1", "--seconds", "4"];
    let json = [&trace[..], &["--json"]].concat();
    client.subscribe("room:1").await;
    let looks_on = async || Samples::of(node.internal()).await.value("fanfare_traces") > 0.5;
    let mut published = async || {
        eventually("somebody looks on", looks_on).await;
        client.publish("room:1", json!(1)).await;
    };
    let (people, ()) = tokio::join!(run(&trace), published());
    eventually("nobody looks on", async || !looks_on().await).await;
    let (programs, ()) = tokio::join!(run(&json), published());
    for part in ["node-a", "watching", "published", "by=client", "over"] {
        assert!(printed(&people).contains(part), "{part} in {}", printed(&people));
    }
    let events: Vec<Value> =
        printed(&programs).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&events[0]["type"], &events[0]["trace_of"]),
        (&json!("tracing"), &json!({"channel": "room:1"}))
    );
    assert_eq!(events.last().map(|it| &it["reason"]), Some(&json!("seconds")));
    let wrong = run(&["trace", "--api", &api, "--channel", "room:1"]).await;
    assert!(!wrong.status.success() && told(&wrong).contains("401"), "{}", told(&wrong));
}

/// Looking on is for whoever may do everything on the channel, and for eight at a time; it is told in whichever form is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_may_look_on_by_a_node_and_nobody_who_may_not_administer() {
    let callers = [
        "api.keys=a-key",
        "api.callers.reader.keys=reads",
        "api.callers.reader.scopes=read",
        "api.callers.part.keys=administers-a-part",
        "api.callers.part.scopes=admin",
        "api.callers.part.channels=room:*",
    ];
    let node = Gateway::start(Path::new(PROGRAM), &callers).await;
    let look = async |query: &str, key: &str, accept: &str| {
        let (key, accept) = (format!("Authorization: Bearer {key}"), format!("Accept: {accept}"));
        LineStream::open(node.internal(), &format!("/api/trace?{query}"), &[&key, &accept]).await
    };
    for (query, key, status, why) in [
        ("channel=room:1", "nobody's", 401, "key"),
        ("channel=room:1", "reads", 403, "admin"),
        ("channel=news:1", "administers-a-part", 403, "news:1"),
        ("user=ann", "administers-a-part", 403, "channel"),
        ("", "a-key", 400, "`channel` or `user`"),
        ("channel=room:1&user=ann", "a-key", 400, "not both"),
        ("channel=room:1&seconds=3601", "a-key", 400, "3600"),
        ("channel=room:1&payload=perhaps", "a-key", 400, "true or false"),
    ] {
        let refused = look(query, key, "*/*").await.expect_err(query);
        assert_eq!(refused.status, status, "{query} by {key}");
        assert!(refused.text().contains(why), "{query} by {key}: {}", refused.text());
    }
    let mut events = look("channel=room:1", "administers-a-part", "text/event-stream").await.expect("it may");
    assert_eq!(events.head().header("Content-Type"), Some("text/event-stream"));
    let first = events.line().await.expect("it begins");
    let first: Value = serde_json::from_str(first.strip_prefix("data: ").expect("an event")).unwrap();
    assert_eq!(first["type"], "tracing");
    let mut others = Vec::new();
    for _ in 1..8 {
        others.push(look("user=ann", "a-key", "*/*").await.expect("there is room"));
    }
    let ninth = look("user=ann", "a-key", "*/*").await.expect_err("there is none");
    assert_eq!((ninth.status, &ninth.json()["code"]), (503, &json!(4503)), "{}", ninth.text());
    drop(events);
    let again = async || look("user=ann", "a-key", "*/*").await.is_ok();
    eventually("one that is over makes room", again).await;
}
