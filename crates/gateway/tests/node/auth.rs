//! Tokens on the wire: every place that may carry one, what a bad one comes to, and how long a good one lasts.
//!
//! The tokens are made here, by a few lines of HMAC that share nothing with the gateway's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use fanfare_testbed::{Client, Samples, eventually, http};
use serde_json::{Value, json};

use crate::support::{closed_with, configured, counted, node, start};

pub(crate) const SECRET: &str = "a secret of thirty-two bytes and a few more";

/// Tokens are needed; the cookie and the URL may hold them.
const STRICT: &str = "[auth]\ncookie = \"session\"\ntoken_in_url = true\n\
    [auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\nleeway_seconds = 0\n\
    [origin]\nallow = [\"https://app.example.com\"]\n";

fn signed_with(secret: &str, claims: &Value) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims.to_string()));
    let signature = hmac_sha256::HMAC::mac(signed.as_bytes(), secret.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

pub(crate) fn token(claims: &Value) -> String {
    signed_with(SECRET, claims)
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "tokens tell the wall's time")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What is wrong with a token, and the counter that says so.
fn bad_tokens() -> [(&'static str, String); 6] {
    let good = token(&json!({"sub": "ann"}));
    let (header, rest) = good.split_once('.').expect("it has parts");
    let none = BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
    [
        ("signature", signed_with("another secret, as long as the other one", &json!({"sub": "ann"}))),
        ("expired", token(&json!({"sub": "ann", "exp": now() - 1}))),
        ("not_yet_valid", token(&json!({"sub": "ann", "nbf": now() + 3600}))),
        ("algorithm", format!("{none}.{rest}")),
        ("malformed", format!("{header}.x")),
        ("claims", token(&json!({"sub": 7}))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_come_in_every_place_and_a_bad_one_is_refused_before_the_upgrade() {
    let node = node(STRICT).await;
    let address = node.public_addr();
    let origin = ("Origin", "https://app.example.com");
    let knock = async |place: &str, token: &str| match place {
        "header" => Client::knock(address, "/ws", &[("Authorization", &format!("Bearer {token}"))]).await,
        "cookie" => {
            Client::knock(address, "/ws", &[("Cookie", &format!("a=b; session={token}")), origin]).await
        }
        "subprotocol" => {
            let offer = format!("fanfare.v1.json, bearer.{token}");
            Client::knock(address, "/ws", &[("Sec-WebSocket-Protocol", &offer)]).await
        }
        _ => Client::knock(address, &format!("/ws?token={token}"), &[]).await,
    };
    let places = ["header", "cookie", "subprotocol", "url"];
    for place in places {
        let good = token(&json!({"sub": place, "exp": now() + 60}));
        let mut client = knock(place, &good).await.unwrap_or_else(|status| panic!("{place}: {status:?}"));
        client.greeted().await.expect("it is welcome");
        assert_eq!(client.welcome()["user"], place, "{place}");
        assert_eq!(
            client.welcome()["expires"],
            json!(now() + 60),
            "{place}, unless a second began meanwhile"
        );
        for (fault, bad) in bad_tokens() {
            assert_eq!(knock(place, &bad).await.err(), Some(Some(401)), "{fault} in {place}");
        }
    }
    for (fault, _) in bad_tokens() {
        counted(&node, &format!("fanfare_tokens_refused_total{{reason=\"{fault}\"}}"), 4.0).await;
    }
    counted(&node, "fanfare_handshakes_refused_total{reason=\"unauthorized\"}", 24.0).await;
    counted(&node, "fanfare_tokens_accepted_total", 4.0).await;
}

/// The answer names the subprotocol and never the token, and a page of another site cannot use a visitor's cookie.
#[tokio::test]
async fn a_token_is_not_echoed_and_a_cookie_alone_opens_nothing() {
    let node = node(STRICT).await;
    let good = token(&json!({"sub": "ann"}));
    let exchange = async |headers: &str| {
        let handshake = fanfare_testbed::raw_peer::HANDSHAKE;
        let request = handshake.replace("Host: fanfare\r\n", &format!("Host: fanfare\r\n{headers}\r\n"));
        http::exchange(node.public_addr(), request.as_bytes()).await.expect("it answers")
    };
    let chosen = exchange(&format!("Sec-WebSocket-Protocol: bearer.{good}, fanfare.v1.json")).await;
    assert_eq!((chosen.status, chosen.header("Sec-WebSocket-Protocol")), (101, Some("fanfare.v1.json")));
    let alone = exchange(&format!("Sec-WebSocket-Protocol: bearer.{good}")).await;
    assert_eq!((alone.status, alone.header("Sec-WebSocket-Protocol")), (101, None));
    assert!(!chosen.head.contains(&good) && !alone.head.contains(&good));

    let cookie = format!("Cookie: session={good}");
    let without = exchange(&cookie).await;
    assert_eq!(without.status, 403, "{}", without.text());
    let stranger = exchange(&format!("{cookie}\r\nOrigin: https://evil.example.com")).await;
    assert_eq!(stranger.status, 403, "{}", stranger.text());
    assert_eq!(exchange(&format!("{cookie}\r\nOrigin: https://app.example.com")).await.status, 101);
    // An Origin that may not connect is not made good by whatever else is said.
    let claim = format!("{cookie}\r\nOrigin: https://evil.example.com\r\nSec-Fetch-Site: same-origin");
    assert_eq!(exchange(&claim).await.status, 403);

    let bad = exchange("Authorization: Bearer a.b.c").await;
    assert_eq!(bad.status, 401);
    assert_eq!(bad.header("WWW-Authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(bad.text(), "not a signed JSON Web Token in compact form\n");
}

/// An `EventSource` of the gateway's own page has no `Origin`: a browser says in another header where the request is from, and no
/// page can make it say otherwise.
#[tokio::test]
async fn a_cookie_without_an_origin_takes_the_word_of_the_browser_that_it_is_its_own_page() {
    let node = node(STRICT).await;
    let cookie = format!("Cookie: session={}", token(&json!({"sub": "ann"})));
    let get = async |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n\r\n");
        http::exchange(node.public_addr(), request.as_bytes()).await.expect("it answers").status
    };
    for site in ["same-site", "cross-site", "none", "Same-Origin", "same-origin, same-origin", ""] {
        let status = get("/poll?channel=a", &format!("{cookie}\r\nSec-Fetch-Site: {site}")).await;
        assert_eq!(status, 403, "{site:?}");
    }
    assert_eq!(get("/poll?channel=a", &cookie).await, 403);
    assert_eq!(get("/poll?channel=a", &format!("{cookie}\r\nSec-Fetch-Site: same-origin")).await, 200);
    // It says where a request is from, not who sends it.
    assert_eq!(get("/poll?channel=a", "Sec-Fetch-Site: same-origin").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_brings_no_token_presents_one_first_or_goes() {
    let mut config = configured(STRICT);
    config.auth.timeout = Duration::from_millis(400);
    let node = start(&config).await;
    let stranger = async || Client::knock(node.public_addr(), "/ws", &[]).await.expect("it is heard out");

    let mut client = stranger().await;
    let early = client.ask(json!({"type": "subscribe", "channel": "room:1"})).await;
    assert_eq!(early["code"], 4401, "{early}");
    let good = token(&json!({"sub": "ann", "info": {"name": "Ann"}}));
    let welcome = client.ask(json!({"type": "auth", "token": good})).await;
    assert_eq!((&welcome["type"], &welcome["user"]), (&json!("welcome"), &json!("ann")), "{welcome}");
    assert_eq!(client.event().await["channel"], "user:ann", "and is subscribed to what is its own");
    client.subscribe("room:1").await;

    let mut silent = stranger().await;
    assert_eq!(silent.goodbye().await.code, Some(4401));
    for (fault, bad) in bad_tokens() {
        let mut forger = stranger().await;
        let refused = forger.ask(json!({"type": "auth", "token": bad})).await;
        assert_eq!(refused["code"], 4401, "{fault}: {refused}");
        let goodbye = forger.goodbye().await;
        assert_eq!(goodbye.code, Some(4401), "{fault}");
        assert_eq!(goodbye.closing.expect("it is told")["reconnect"], false, "{fault}");
    }
    client.publish("room:1", json!(1)).await;
    counted(&node, &closed_with(4401), 7.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lasts_as_long_as_its_token_and_longer_with_another() {
    let node = node(STRICT).await;
    let brief = || token(&json!({"sub": "ann", "exp": now() + 2}));
    let (first, second) = (brief(), brief());
    let mut leaves = Client::with_token(node.public_addr(), &first).await.expect("it is good");
    let mut stays = Client::with_token(node.public_addr(), &second).await.expect("it is good");
    let refused = stays.ask(json!({"type": "auth", "token": token(&json!({"sub": "bob"}))})).await;
    assert_eq!(refused["code"], 4401, "another user's: {refused}");
    let expires = now() + 3600;
    let fresh = token(&json!({"sub": "ann", "exp": expires}));
    let refreshed = stays.ask(json!({"type": "auth", "token": fresh})).await;
    assert_eq!(
        (&refreshed["type"], &refreshed["expires"]),
        (&json!("refreshed"), &json!(expires)),
        "{refreshed}"
    );
    assert_eq!(leaves.goodbye().await.code, Some(4401));
    assert_eq!(
        stays.ask(json!({"type": "ping"})).await["type"],
        "pong",
        "it lives past the first token's end"
    );
    assert_eq!(Client::with_token(node.public_addr(), &first).await.err(), Some(Some(401)), "it is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_somebody_is_shows_in_presence_and_in_what_it_publishes() {
    let node =
        node(&format!("{STRICT}[namespaces.room]\npresence = true\nsubscribe = \"authenticated\"\n")).await;
    let claims = json!({"sub": "ann", "info": {"name": "Ann"}, "channels": ["room:2"]});
    let mut ann = Client::with_token(node.public_addr(), &token(&claims)).await.expect("it is good");
    assert_eq!(ann.welcome()["channels"], json!(["room:2"]), "the namespace `user` does not exist here");
    let listed = ann.event().await;
    assert_eq!((&listed["type"], &listed["channel"]), (&json!("subscribed"), &json!("room:2")), "{listed}");
    ann.subscribe("room:1").await;
    let mut bob =
        Client::with_token(node.public_addr(), &token(&json!({"sub": "bob"}))).await.expect("it is good");
    bob.subscribe("room:1").await;
    ann.publish("room:1", json!("hello")).await;
    let heard = bob.event().await;
    assert_eq!(heard["from"], json!({"user": "ann", "info": {"name": "Ann"}}), "{heard}");
    let there = bob.ask(json!({"type": "presence", "channel": "room:1"})).await;
    let member = json!({"user": "ann", "session": ann.welcome()["session"], "info": {"name": "Ann"}});
    assert!(there["members"].as_array().expect("they are named").contains(&member), "{there}");
}

/// Anonymous clients beside those with a token: who has none is anonymous, and who has a bad one is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_anonymous_clients_are_welcome_a_bad_token_is_not() {
    let text = STRICT.replace("[auth]\n", "[auth]\nanonymous = true\n");
    let node =
        node(&format!("{text}[namespaces.room]\n[namespaces.staff]\nsubscribe = \"authenticated\"\n")).await;
    let mut guest = Client::connect(node.public_addr()).await;
    guest.subscribe("room:1").await;
    let refused = guest.ask(json!({"type": "subscribe", "channel": "staff:1"})).await;
    assert_eq!(refused["code"], 4403, "{refused}");
    assert_eq!(Client::with_token(node.public_addr(), "a.b.c").await.err(), Some(Some(401)));
    let mut ann =
        Client::with_token(node.public_addr(), &token(&json!({"sub": "ann"}))).await.expect("it is good");
    ann.subscribe("staff:1").await;
}

/// Keys are exchanged while the node runs: the old one is good for as long as it is written down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_without_dropping_anybody() {
    let node = node(STRICT).await;
    let old = token(&json!({"sub": "ann"}));
    let next = "the next secret, of thirty-two bytes or more";
    let new = signed_with(next, &json!({"sub": "ann"}));
    let mut client = Client::with_token(node.public_addr(), &old).await.expect("it is good");
    assert_eq!(Client::with_token(node.public_addr(), &new).await.err(), Some(Some(401)));
    let both = STRICT.replace(SECRET, &format!("{next}\"\nprevious_hmac_secret = \"{SECRET}"));
    node.reload(&configured(&both)).await;
    for token in [&old, &new] {
        Client::with_token(node.public_addr(), token).await.expect("both are good");
    }
    node.reload(&configured(&STRICT.replace(SECRET, next))).await;
    assert_eq!(Client::with_token(node.public_addr(), &old).await.err(), Some(Some(401)));
    Client::with_token(node.public_addr(), &new).await.expect("it is good");
    client.publish("room:1", json!(1)).await;
}

/// Whatever is sent where: nothing that the node counts holds a part of it. (What it logs: `tests/cli.rs`.)
#[tokio::test]
async fn metrics_know_no_tokens() {
    let node = node(STRICT).await;
    for (_, bad) in bad_tokens() {
        assert!(Client::with_token(node.public_addr(), &bad).await.is_err());
    }
    let metrics = http::get(node.internal_addr(), "/metrics").await;
    assert!(metrics.text().contains("fanfare_tokens_refused_total"));
    assert!(!metrics.text().contains("eyJ"), "what every token begins with");
    eventually("all are gone", async || {
        Samples::of(node.internal_addr()).await.value("fanfare_connections") == 0.0
    })
    .await;
}
