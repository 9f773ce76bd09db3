//! What the backend has said of a client lasts as long as it said, and longer if it says so again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use fanfare_testbed::backend::{Asked, Backend};
use fanfare_testbed::{Client, LineStream, eventually, http};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::{outcome, questions, says};
use crate::auth::now;
use crate::support::{counted, node};

const RENEWS: u8 = 0;
const REFUSES: u8 = 1;

/// Clients that came together are asked about together, and stay; when one is refused it goes, and the others do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_for_as_long_as_the_backend_renews_them() {
    const CLIENTS: usize = 20;
    let (number, mood) = (AtomicU8::new(0), Arc::new(AtomicU8::new(RENEWS)));
    let theirs = mood.clone();
    let backend = Backend::start(move |asked: Asked| {
        let question: Value = serde_json::from_slice(asked.body()).expect("JSON");
        let answer = match question["clients"].as_array() {
            None => {
                let user = format!("user-{}", number.fetch_add(1, Ordering::SeqCst));
                json!({"user": user, "expires": now() + 4})
            }
            Some(clients) => {
                let one = |client: &Value| {
                    let is_out = theirs.load(Ordering::SeqCst) == REFUSES && client["user"] == "user-0";
                    let refused = json!({"error": {"reason": "unauthorized", "message": "signed out"}});
                    let answer = if is_out { refused } else { json!({"expires": now() + 4}) };
                    (client["session"].as_str().expect("a name").to_owned(), answer)
                };
                json!({"clients": clients.iter().map(one).collect::<Map<_, _>>()})
            }
        };
        async move { says(200, answer.to_string()) }
    })
    .await;
    let url = backend.url("/");
    let node = node(&format!("[hooks]\nconnect = \"{url}\"\nrefresh = \"{url}\"\n")).await;
    let mut clients = join_all((0..CLIENTS).map(|_| Client::connect(node.public_addr()))).await;
    for client in &mut clients {
        let first = client.welcome()["expires"].as_u64().expect("a time");
        let refreshed = client.event().await;
        let personal = refreshed["channel"].as_str().is_some_and(|it| it.starts_with("user:"));
        let refreshed = if personal { client.event().await } else { refreshed };
        assert_eq!(refreshed["type"], "refreshed", "{refreshed}");
        assert!(refreshed["expires"].as_u64() > Some(first), "{refreshed} after {first}");
    }
    let asked = questions(&backend);
    let sizes: Vec<_> = asked.iter().filter_map(|it| Some(it["clients"].as_array()?.len())).collect();
    assert!(sizes.iter().any(|size| *size > 1), "they are asked about together: {sizes:?}");
    counted(&node, "fanfare_connections", 20.0).await;

    mood.store(REFUSES, Ordering::SeqCst);
    let out = clients.iter().position(|it| it.welcome()["user"] == "user-0").expect("it is one of them");
    let (events, goodbye) = clients.swap_remove(out).until_closed().await;
    assert!(events.iter().any(|it| it["message"] == "signed out"), "{events:?}");
    assert_eq!(goodbye.code, Some(4401));
    counted(&node, "fanfare_connections", 19.0).await;
    // The others are renewed once more: their first word is over by now.
    let before = backend.requests();
    eventually("another question", async || backend.requests() > before).await;
    counted(&node, "fanfare_connections", 19.0).await;
    counted(&node, &outcome("refresh", "failed"), 0.0).await;
}

/// Who hears by a response and speaks by a ticket does so beyond the end of the backend's first word, once that is renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_lasts_as_long_as_the_backend_renews_its_client() {
    let backend = Backend::start(|asked: Asked| {
        let question: Value = serde_json::from_slice(asked.body()).expect("JSON");
        let answer = match question["clients"].as_array() {
            None => json!({"user": "ann", "expires": now() + 5}),
            Some(clients) => {
                let session = clients[0]["session"].as_str().expect("a name");
                json!({"clients": {session: {"expires": now() + 600}}})
            }
        };
        async move { says(200, answer.to_string()) }
    })
    .await;
    let url = backend.url("/");
    let node = node(&format!("[hooks]\nconnect = \"{url}\"\nrefresh = \"{url}\"\n")).await;
    let mut lines =
        LineStream::open(node.public_addr(), "/stream?channel=news", &[]).await.expect("a stream");
    let welcome = lines.json().await.expect("a welcome");
    let first = welcome["expires"].as_u64().expect("a time");
    while lines.json().await.expect("it goes on")["type"] != "refreshed" {}
    let ticket = format!("Authorization: Ticket {}", welcome["ticket"].as_str().expect("a ticket"));
    eventually("the first word is over", async || now() > first).await;
    let said = http::post(node.public_addr(), "/publish", &[&ticket], r#"{"channel":"news","data":1}"#).await;
    assert_eq!(said.status, 200, "{}", said.text());
}

/// Who asks may be refused, or nobody be there to ask: then a client goes when its time is over, and not for having been refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_nobody_renews_ends_when_it_said() {
    let backend = Backend::start(|asked: Asked| {
        let question: Value = serde_json::from_slice(asked.body()).expect("JSON");
        let answer = match question["type"].as_str() {
            Some("connect") => says(200, json!({"user": "ann", "expires": now() + 3}).to_string()),
            _ => says(401, "who are you?"),
        };
        async move { answer }
    })
    .await;
    let url = backend.url("/");
    let asking = node(&format!("[hooks]\nconnect = \"{url}\"\nrefresh = \"{url}\"\n")).await;
    let silent = node(&format!("[hooks]\nconnect = \"{url}\"\n")).await;
    let mut clients =
        [Client::connect(asking.public_addr()).await, Client::connect(silent.public_addr()).await];
    let [renewable, final_word] = join_all(clients.iter_mut().map(|client| async {
        let expires = client.welcome()["expires"].as_u64().expect("a time");
        let goodbye = client.goodbye().await;
        assert!(now() >= expires, "it goes before its time");
        goodbye.code
    }))
    .await[..] else {
        panic!("two clients")
    };
    // The one may come back as it is, the other needs another word.
    assert_eq!((renewable, final_word), (Some(1013), Some(4401)));
    assert!(questions(&backend).iter().any(|question| question["type"] == "refresh"));
}
