//! Tokens and the program as an operator runs it: `fanfare token`, and a log that never holds one.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::Stdio;

use fanfare_testbed::raw_peer::{HANDSHAKE, RawPeer};
use fanfare_testbed::{Client, Gateway, RedisServer, eventually, http};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanfare");
const SECRET: &str = "a secret of thirty-two bytes and a few more";

/// `fanfare token`, and what it prints or complains of.
async fn token(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(PROGRAM);
    command.arg("token").args(arguments).env_clear().stdin(Stdio::null());
    let output = command.output().await.expect("it starts");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_program_opens_what_it_says() {
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let settings =
        [secret.as_str(), "auth.jwt.issuer=us", "auth.jwt.audience=here", "namespaces.vault.subscribe=token"];
    let gateway = Gateway::start(Path::new(PROGRAM), &settings).await;
    let set: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let wishes = [
        "--user",
        "ann",
        "--allow",
        "vault:*=subscribe,publish",
        "--info",
        "{\"name\":\"Ann\"}",
        "--channel",
        "vault:1",
    ];
    let made = token(&[&set[..], &wishes[..]].concat()).await.unwrap();
    let mut client = Client::with_token(gateway.public(), &made).await.unwrap();
    assert_eq!(client.welcome()["user"], "ann");
    assert_eq!(client.welcome()["channels"], json!(["vault:1"]));
    assert!(client.welcome()["expires"].is_u64(), "{}", client.welcome());
    client.subscribe("vault:2").await;
    client.publish("vault:2", json!(1)).await;

    for (arguments, part) in [
        (&["--user", "ann"][..], "set auth.jwt.hmac_secret"),
        (&["--set", &secret, "--allow", "vault:*"], "--allow takes CHANNELS=VERBS"),
        (&["--set", &secret, "--allow", "vault:*=rule"], "\"rule\" is none of"),
        (&["--set", &secret, "--info", "{"], "--info takes JSON"),
    ] {
        let complaint = token(arguments).await.unwrap_err();
        assert!(complaint.contains(part), "{arguments:?}: {complaint}");
    }
}

/// Good and bad tokens in every place, at the level that says most: neither they nor what they are made of is logged,
/// counted or answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_gets_into_the_log_the_metrics_or_an_answer() {
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let settings = [
        secret.as_str(),
        "auth.cookie=session",
        "auth.token_in_url=true",
        "origin.allow=http://page",
        "log.level=trace",
        // A key server that is away, in whose URL there is a secret too.
        "auth.issuers.far.issuer=far",
        "auth.issuers.far.jwks_url=http://127.0.0.1:1/keys?key=hunter2",
    ];
    let mut gateway = Gateway::start(Path::new(PROGRAM), &settings).await;
    let good = token(&["--set", &secret, "--user", "ann"]).await.unwrap();
    let forged = good.rsplit_once('.').unwrap().0.to_owned() + ".Zm9yZ2Vk";
    let mut told = String::new();
    for token in [&good, &forged] {
        let subprotocol = format!("Sec-WebSocket-Protocol: fanfare.v1.json, bearer.{token}");
        let bearer = format!("Authorization: Bearer {token}");
        let cookie = format!("Origin: http://page\r\nCookie: session={token}");
        for header in [&subprotocol, &bearer, &cookie] {
            let request = HANDSHAKE.replace("Host: fanfare\r\n", &format!("Host: fanfare\r\n{header}\r\n"));
            told += &http::exchange(gateway.public(), request.as_bytes()).await.unwrap().head;
        }
        for path in ["ws", "nowhere", "status"] {
            let path = format!("/{path}?token={token}");
            let request = HANDSHAKE.replace("GET /ws", &format!("GET {path}"));
            let answer = http::exchange(gateway.public(), request.as_bytes()).await.unwrap();
            told += &answer.head;
            told += &String::from_utf8_lossy(&answer.body);
        }
        for text in [
            json!({"type": "auth", "token": token}).to_string(),
            json!({"type": "auth", "id": 1, "token": [token]}).to_string(),
            json!({"type": "auth", "id": 1, "token": {"is": token}}).to_string(),
            format!("{{\"type\":\"auth\",\"token\":\"{token}"),
        ] {
            let mut client = Client::knock(gateway.public(), "/ws", &[]).await.unwrap();
            client.send_frame(text.into()).await.unwrap();
            told += &client.event().await.to_string();
        }
        let request = HANDSHAKE.replace("Host: fanfare\r\n", &format!("Host: fanfare\r\n{bearer}\r\n"));
        if token == &good {
            let socket = TcpStream::connect(gateway.public()).await.unwrap();
            RawPeer::shake_hands(socket, request.as_bytes()).await;
        }
    }
    told += http::get(gateway.internal(), "/metrics").await.text();
    gateway.terminate().await;
    gateway.ended().await;
    let log = gateway.log();
    assert!(log.contains("connection ended"), "it logs at the level that says most: {log}");
    for token in [&good, &forged] {
        for part in token.split('.') {
            assert!(!log.contains(part), "a part of a token is logged: {part}\n{log}");
            assert!(!told.contains(part), "a part of a token is told: {part}\n{told}");
        }
    }
    assert!(log.contains("keys of tokens cannot be fetched"), "{log}");
    for secret in [SECRET, "hunter2"] {
        assert!(!log.contains(secret) && !told.contains(secret), "{log}");
    }
}

/// Three processes and a real Redis: what is revoked on one is revoked on the others, also when their link was lost meanwhile, and on
/// one that starts later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_process_whatever_happens_to_the_link() {
    let redis = RedisServer::start().await;
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let url = format!("redis.urls={}", redis.url());
    let settings = [secret.as_str(), "broker.kind=redis", &url];
    let start = async || {
        let node = Gateway::start(Path::new(PROGRAM), &settings).await;
        eventually("it is ready", async || http::get(node.public(), "/ready").await.status == 200).await;
        node
    };
    let (a, b) = (start().await, start().await);
    let named = async |name: &str| {
        token(&["--set", &secret, "--user", "ann", "--id", name]).await.expect("there is a secret")
    };
    let connect = async |node: &Gateway, token: &str| {
        let mut client = None;
        eventually("a token is taken", async || {
            client = Client::with_token(node.public(), token).await.ok();
            client.is_some()
        })
        .await;
        client.expect("it was waited for")
    };
    let revoke = async |name: &str| {
        let body = json!({"token": name}).to_string();
        http::post(a.internal(), "/api/revoke", &[], &body).await.status == 200
    };
    let (first, second, unused) = (named("t1").await, named("t2").await, named("t3").await);
    let mut on_b = connect(&b, &first).await;
    assert!(revoke("t1").await);
    assert_eq!(on_b.goodbye().await.code, Some(4401));

    let mut still_on_b = connect(&b, &second).await;
    redis.kill_pubsub().await;
    eventually("the order is taken", async || revoke("t2").await && revoke("t3").await).await;
    assert_eq!(still_on_b.goodbye().await.code, Some(4401));
    eventually("it is known there", async || {
        Client::with_token(b.public(), &unused).await.err() == Some(Some(401))
    })
    .await;
    let c = start().await;
    for token in [&first, &second, &unused] {
        eventually("it is known on a node that starts later", async || {
            let refused = Client::with_token(c.public(), token).await.err();
            assert!(refused.is_some(), "it was let in");
            refused == Some(Some(401))
        })
        .await;
    }
    connect(&c, &named("t4").await).await;
}

/// A Redis without a disk forgets what was revoked. The nodes do not, and tell it again, so that nodes which start later know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_outlives_a_redis_that_comes_back_empty() {
    let mut redis = RedisServer::start().await;
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let url = format!("redis.urls={}", redis.url());
    let settings = [secret.as_str(), "broker.kind=redis", &url];
    let start = async || Gateway::start(Path::new(PROGRAM), &settings).await;
    let ready = async |node: &Gateway| {
        eventually("it is ready", async || http::get(node.public(), "/ready").await.status == 200).await;
    };
    let (a, b) = (start().await, start().await);
    for node in [&a, &b] {
        ready(node).await;
    }
    let made = async |user: &str, id: &str| {
        token(&["--set", &secret, "--user", user, "--id", id]).await.expect("there is a secret")
    };
    let (of_user, by_name, good) =
        (made("ann", "t1").await, made("bob", "t2").await, made("bob", "t3").await);
    for body in [json!({"user": "ann"}), json!({"token": "t2"})] {
        let body = body.to_string();
        eventually("the order is taken", async || {
            http::post(a.internal(), "/api/revoke", &[], &body).await.status == 200
        })
        .await;
    }
    let refused = async |node: &Gateway, token: &str| {
        eventually("it is refused", async || {
            Client::with_token(node.public(), token).await.err() == Some(Some(401))
        })
        .await;
    };
    for token in [&of_user, &by_name] {
        refused(&b, token).await;
    }
    let mut stays = Client::with_token(b.public(), &good).await.expect("it is good");
    redis.stop().await;
    redis.start_again().await;
    eventually("it is told again", async || {
        [&a, &b].iter().any(|node| node.log().contains("it is given again"))
    })
    .await;
    for node in [&a, &b] {
        ready(node).await;
    }
    assert_eq!(stays.ask(json!({"type": "ping"})).await["type"], "pong", "nobody is disconnected by that");
    let late = start().await;
    for token in [&of_user, &by_name] {
        eventually("it is known on a node that starts later", async || {
            let refused = Client::with_token(late.public(), token).await.err();
            assert!(refused.is_some(), "it was let in");
            refused == Some(Some(401))
        })
        .await;
    }
    eventually("others are let in", async || Client::with_token(late.public(), &good).await.is_ok()).await;
}

/// The connections of a node that died without a word count for two beats, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_node_died_has_room_on_the_others() {
    let redis = RedisServer::start().await;
    let secret = format!("auth.jwt.hmac_secret={SECRET}");
    let url = format!("redis.urls={}", redis.url());
    let bounds = ["limits.connections_per_user=1", "presence.heartbeat_seconds=1"];
    let settings = [&bounds[..], &[secret.as_str(), "broker.kind=redis", &url]].concat();
    let start = async || {
        let node = Gateway::start(Path::new(PROGRAM), &settings).await;
        eventually("it is ready", async || http::get(node.public(), "/ready").await.status == 200).await;
        node
    };
    let (a, b) = (start().await, start().await);
    let ann = token(&["--set", &secret, "--user", "ann"]).await.expect("there is a secret");
    let _on_a = Client::with_token(a.public(), &ann).await.expect("there is room");
    let knock = async || Client::with_token(b.public(), &ann).await;
    eventually("it counts on the other node", async || knock().await.err() == Some(Some(429))).await;
    redis.kill_pubsub().await;
    eventually("also after a lost link", async || knock().await.err() == Some(Some(429))).await;
    a.kill().await;
    eventually("it counts no more", async || knock().await.is_ok()).await;
}
