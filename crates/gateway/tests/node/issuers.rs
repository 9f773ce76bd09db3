//! Several issuers, and keys that come from key servers: cached, exchanged, away, and asked for what does not exist.
//!
//! The key servers are real ones, and the tokens are signed here with keys that are drawn for the test.

use std::sync::Arc;

use ::http::Response;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use fanfare_gateway::node::Node;
use fanfare_testbed::{Backend, Client, eventually};
use http_body_util::Full;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::auth::{SECRET, now, token};
use crate::support::{configured, counted, node, start};

/// A key that signs, under a name.
enum Signer {
    Ed25519(&'static str, Ed25519KeyPair),
    P256(&'static str, EcdsaKeyPair),
}

impl Signer {
    fn ed25519(kid: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key is drawn");
        Self::Ed25519(kid, Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("it is a key"))
    }

    fn p256(kid: &'static str) -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key is drawn");
        Self::P256(kid, EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("it is a key"))
    }

    /// What a key server says of it.
    fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Ed25519(kid, key) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig",
                "alg": "EdDSA", "x": encode(key.public_key().as_ref())}),
            Self::P256(kid, key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
        }
    }

    fn token(&self, claims: &Value) -> String {
        let (alg, kid) = match self {
            Self::Ed25519(kid, _) => ("EdDSA", kid),
            Self::P256(kid, _) => ("ES256", kid),
        };
        self.token_under(&json!({"alg": alg, "kid": kid}), claims)
    }

    fn token_under(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::Ed25519(_, key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::P256(_, key) => {
                let signature = key.sign(&SystemRandom::new(), signed.as_bytes());
                signature.expect("it signs").as_ref().to_vec()
            }
        };
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// What a key server answers, which a test changes as it goes: a status and a body.
#[derive(Clone)]
struct Published(Arc<Mutex<(u16, Bytes)>>);

impl Published {
    fn keys(keys: &[&Signer]) -> Self {
        let published = Self(Arc::new(Mutex::new((200, Bytes::new()))));
        published.now(keys);
        published
    }

    fn now(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(200, json!({"keys": keys}).to_string());
    }

    fn answer(&self, status: u16, body: impl Into<Bytes>) {
        *self.0.lock() = (status, body.into());
    }

    async fn serve(&self) -> Backend {
        let published = self.clone();
        Backend::start(move |_| {
            let (status, body) = published.0.lock().clone();
            async move { Response::builder().status(status).body(Full::from(body)).expect("an answer") }
        })
        .await
    }
}

fn with_keys_of(server: &Backend, more: &str) -> String {
    format!("[auth.jwt]\njwks_url = \"{}\"\n{more}\n", server.url("/keys?secret=hunter2"))
}

/// Whether a token is taken: its status if it is not.
async fn knock(node: &Node, token: &str) -> Result<(), u16> {
    match Client::with_token(node.public_addr(), token).await {
        Ok(_) => Ok(()),
        Err(status) => Err(status.expect("an answer")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_held_against_the_keys_that_their_issuer_publishes() {
    let (ed, ec, foreign) = (Signer::ed25519("ed"), Signer::p256("ec"), Signer::ed25519("ed"));
    let server = Published::keys(&[&ed, &ec]).serve().await;
    let node = node(&with_keys_of(&server, "audience = \"fanfare\"\nleeway_seconds = 0")).await;
    let good = json!({"sub": "ann", "aud": "fanfare", "exp": now() + 60});
    for signer in [&ed, &ec] {
        assert_eq!(knock(&node, &signer.token(&good)).await, Ok(()));
    }
    let unnamed = ed.token_under(&json!({"alg": "EdDSA"}), &good);
    assert_eq!(knock(&node, &unnamed).await, Ok(()), "a token need not name its key");
    let mut tampered = ed.token(&good);
    let of_another = ec.token(&good);
    tampered.replace_range(
        tampered.rfind('.').expect("it has parts")..,
        &of_another[of_another.rfind('.').expect("so has it")..],
    );
    for (wrong, token) in [
        ("expired", ed.token(&json!({"aud": "fanfare", "exp": now() - 1}))),
        ("another audience", ed.token(&json!({"aud": "others"}))),
        ("a key of that name, and another", foreign.token(&good)),
        ("tampered", tampered),
        ("another key's name", ed.token_under(&json!({"alg": "EdDSA", "kid": "ec"}), &good)),
        ("another algorithm", ed.token_under(&json!({"alg": "ES256", "kid": "ed"}), &good)),
        ("none", ed.token_under(&json!({"alg": "none", "kid": "ed"}), &good)),
        ("a public key as a secret", token(&good)),
        ("no algorithm that there is", ed.token_under(&json!({"alg": "HS256", "kid": "unknown"}), &good)),
    ] {
        assert_eq!(knock(&node, &token).await, Err(401), "{wrong}");
    }
    assert_eq!(server.requests(), 1, "none of that costs the key server anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_fetched_by_the_first_token_that_names_it() {
    let (old, new) = (Signer::ed25519("1"), Signer::ed25519("2"));
    let published = Published::keys(&[&old]);
    let server = published.serve().await;
    let node = node(&with_keys_of(&server, "jwks_cooldown_seconds = 1")).await;
    let claims = json!({"sub": "ann"});
    assert_eq!(knock(&node, &old.token(&claims)).await, Ok(()));
    published.now(&[&new]);
    // At most a cool-down after the first fetch; before that clients are told to come back, and not that the token is bad.
    eventually("the new key is good", async || match knock(&node, &new.token(&claims)).await {
        Ok(()) => true,
        Err(status) => {
            assert_eq!(status, 503);
            false
        }
    })
    .await;
    assert_eq!(server.requests(), 2);
    // What is not published any more is good no more, once that has been asked.
    eventually("the old key is gone", async || knock(&node, &old.token(&claims)).await == Err(401)).await;
    let mut late = Client::knock(node.public_addr(), "/ws", &[]).await.expect("it is heard out");
    let answer = late.ask(json!({"type": "auth", "token": new.token(&claims)})).await;
    assert_eq!(answer["type"], "welcome", "a conversation is as good a place: {answer}");
}

/// Keys are fetched again before they are old, though no token names one that is unknown: what is withdrawn opens nothing then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_published_no_more_is_good_no_more_when_the_keys_are_old() {
    let (stays, goes) = (Signer::ed25519("1"), Signer::ed25519("2"));
    let published = Published::keys(&[&stays, &goes]);
    let server = published.serve().await;
    let node = node(&with_keys_of(&server, "jwks_max_age_seconds = 1\njwks_cooldown_seconds = 3600")).await;
    let claims = json!({"sub": "ann"});
    assert_eq!(knock(&node, &goes.token(&claims)).await, Ok(()));
    published.now(&[&stays]);
    let requests = server.requests();
    eventually("they are fetched again and again", async || server.requests() >= requests + 3).await;
    // Of one that may have appeared since the last fetch nobody can say that there is none; that it is good nobody says either.
    assert!(matches!(knock(&node, &goes.token(&claims)).await, Err(401 | 503)));
    assert_eq!(knock(&node, &stays.token(&claims)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_made_up_key_names_costs_the_key_server_one_request() {
    let (real, forger) = (Signer::ed25519("real"), Signer::ed25519("made up"));
    let server = Published::keys(&[&real]).serve().await;
    let node = node(&with_keys_of(&server, "jwks_cooldown_seconds = 3600")).await;
    let claims = json!({"sub": "ann"});
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..200 {
        let forged = forger.token_under(&json!({"alg": "EdDSA", "kid": format!("k{number}")}), &claims);
        let address = node.public_addr();
        crowd.spawn(async move {
            Client::with_token(address, &forged).await.map(drop).expect_err("it is forged")
        });
    }
    while let Some(status) = crowd.join_next().await {
        assert!(matches!(status.expect("no panic"), Some(401 | 503)));
    }
    assert!(server.requests() <= 2, "{} requests", server.requests());
    assert_eq!(knock(&node, &real.token(&claims)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_key_server_logs_nobody_out() {
    let key = Signer::ed25519("1");
    let published = Published::keys(&[&key]);
    let server = published.serve().await;
    let node = node(&with_keys_of(&server, "jwks_max_age_seconds = 1\njwks_cooldown_seconds = 1")).await;
    let claims = json!({"sub": "ann"});
    let mut early = Client::with_token(node.public_addr(), &key.token(&claims)).await.expect("a good token");
    for (status, body) in [
        (500, ""),
        (302, ""),
        (200, "<html>"),
        (200, r#"{"keys":[]}"#),
        (200, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
    ] {
        published.answer(status, body);
        counted(&node, "fanfare_key_servers_failing", 1.0).await;
        assert_eq!(knock(&node, &key.token(&claims)).await, Ok(()), "{status} {body}");
        published.now(&[&key]);
        counted(&node, "fanfare_key_servers_failing", 0.0).await;
    }
    drop(server);
    counted(&node, "fanfare_key_servers_failing", 1.0).await;
    assert_eq!(knock(&node, &key.token(&claims)).await, Ok(()), "it is gone");
    let unknown = Signer::ed25519("2").token(&claims);
    assert_eq!(knock(&node, &unknown).await, Err(503), "whether there is such a key nobody can tell");
    early.publish("room:1", json!("still here")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_key_server_is_away_from_the_start_serves_and_takes_tokens_once_it_is_back() {
    let key = Signer::ed25519("1");
    let published = Published::keys(&[]);
    published.answer(503, "");
    let server = published.serve().await;
    let node = node(&with_keys_of(&server, "jwks_cooldown_seconds = 1")).await;
    let token = key.token(&json!({"sub": "ann"}));
    assert_eq!(knock(&node, &token).await, Err(503));
    let mut late = Client::knock(node.public_addr(), "/ws", &[]).await.expect("it is heard out");
    let refused = late.ask(json!({"type": "auth", "token": token})).await;
    assert_eq!(refused["reason"], "unavailable", "{refused}");
    published.now(&[&key]);
    eventually("its tokens are taken", async || knock(&node, &token).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_issuers_tokens_are_held_against_its_own_keys() {
    let (ours, theirs) = (Signer::ed25519("k"), Signer::ed25519("k"));
    let (our_server, their_server) =
        (Published::keys(&[&ours]).serve().await, Published::keys(&[&theirs]).serve().await);
    let config = format!(
        "[auth.jwt]\njwks_url = \"{}\"\nissuer = \"us\"\naudience = \"fanfare\"\nleeway_seconds = 0\n\
        [auth.issuers.partner]\njwks_url = \"{}\"\nissuer = \"them\"\naudience = \"partner\"\n\
        [auth.issuers.backend]\nhmac_secret = \"{SECRET}\"\nissuer = \"backend\"\n",
        our_server.url("/"),
        their_server.url("/"),
    );
    let node = node(&config).await;
    for (token, outcome) in [
        (ours.token(&json!({"iss": "us", "aud": "fanfare"})), Ok(())),
        (theirs.token(&json!({"iss": "them", "aud": ["partner", "x"]})), Ok(())),
        (token(&json!({"iss": "backend"})), Ok(())),
        (ours.token(&json!({"iss": "them", "aud": "partner"})), Err(401)),
        (theirs.token(&json!({"iss": "us", "aud": "fanfare"})), Err(401)),
        (theirs.token(&json!({"iss": "backend"})), Err(401)),
        (token(&json!({"iss": "us", "aud": "fanfare"})), Err(401)),
        (ours.token(&json!({"iss": "us", "aud": "partner"})), Err(401)),
        (theirs.token(&json!({"iss": "them", "aud": "fanfare"})), Err(401)),
        (theirs.token(&json!({"iss": "them", "aud": "partner", "exp": now() - 1})), Err(401)),
        (ours.token(&json!({"iss": "nobody", "aud": "fanfare"})), Err(401)),
        (ours.token(&json!({"aud": "fanfare"})), Err(401)),
        (ours.token(&json!({"iss": ["us"], "aud": "fanfare"})), Err(401)),
    ] {
        let claims = token.split('.').nth(1).expect("it has claims");
        let claims =
            String::from_utf8(BASE64URL_NOPAD.decode(claims.as_bytes()).expect("base64")).expect("text");
        assert_eq!(knock(&node, &token).await, outcome, "{claims}");
    }
    assert_eq!((our_server.requests(), their_server.requests()), (1, 1));
}

/// A reload keeps the keys that were fetched, drops issuers that are gone, and takes up those that are new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuers_come_and_go_while_a_node_runs() {
    let (ours, theirs) = (Signer::ed25519("k"), Signer::ed25519("k"));
    let published = Published::keys(&[&ours]);
    let (our_server, their_server) = (published.serve().await, Published::keys(&[&theirs]).serve().await);
    let ours_alone = with_keys_of(&our_server, "issuer = \"us\"");
    let both = format!(
        "{ours_alone}[auth.issuers.partner]\njwks_url = \"{}\"\nissuer = \"them\"\n",
        their_server.url("/")
    );
    let node = start(&configured(&ours_alone)).await;
    let (our_token, their_token) = (ours.token(&json!({"iss": "us"})), theirs.token(&json!({"iss": "them"})));
    let mut stays = Client::with_token(node.public_addr(), &our_token).await.expect("a good token");
    assert_eq!(knock(&node, &their_token).await, Err(401));
    published.answer(500, "");
    node.reload(&configured(&both)).await;
    for token in [&our_token, &their_token] {
        assert_eq!(knock(&node, token).await, Ok(()));
    }
    assert_eq!(our_server.requests(), 1, "what was at hand is at hand still");
    node.reload(&configured(&ours_alone)).await;
    assert_eq!(knock(&node, &their_token).await, Err(401));
    stays.publish("room:1", json!("nobody is disconnected")).await;
}
