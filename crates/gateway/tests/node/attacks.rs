//! Attacks from outside on a started program, each mounted while others chat.
//!
//! What is shown of every attack: the attacker is bounded and, where it would go on for ever, cut off; whoever chats meanwhile
//! misses nothing and hears it in order; and the memory of the process stays under a bound and comes back when it is over.
//! `docs/security.md` has the table of attacks and bounds.

mod frames;
mod handshakes;
mod http2;
mod scene;
mod smuggling;

use std::net::SocketAddr;

use fanfare_testbed::backend::Backend;
use scene::Scene;

use crate::hooks::says;

/// Deadlines that are short, and long enough for whoever means well on a busy machine; a rate that a flood can pass, and keys, so that a token can be wrong.
const SETTINGS: [&str; 4] = [
    "limits.header_seconds=5",
    "limits.handshakes_per_second_per_ip=2000",
    "auth.anonymous=true",
    "auth.jwt.hmac_secret=a secret of thirty-two bytes and a few more",
];

/// All that one configuration can be attacked with, at once. The flood is from an address of its own: what it uses up is none of
/// the other attackers' share.
async fn everything(flooder: &str, public: SocketAddr) {
    // Held until the others are through.
    let announced = frames::announced(public, 200, 60_000).await;
    tokio::join!(
        handshakes::slow_heads(public, 100),
        handshakes::slow_bodies(public, 50),
        handshakes::piecemeal(public, 10),
        handshakes::long_heads(public, 20),
        handshakes::flood(flooder, public, 3_000),
        handshakes::bad_tokens(public, 100),
        handshakes::made_up_tickets(public, 200),
        smuggling::ambiguous(public),
        frames::pings_without_end(public),
        frames::fragments_without_end(public),
        frames::commands_without_end(public, r#"{"type":"publish","channel":"flood","data":1}"#),
        frames::violations(public, 10),
        frames::churn(public, 500),
        frames::one_lane(public),
        frames::nothing_is_read(public),
        http2::rapid_resets(public),
        http2::headers_without_end(public),
        http2::unread_answers(public),
    );
    drop(announced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_lose_nothing_while_every_attack_is_mounted_at_once() {
    let mut scene = Scene::start(&SETTINGS).await;
    scene.fill(1_000).await;
    scene.withstands(async |public| Box::pin(everything("127.0.0.41", public)).await).await;
}

/// The same where a backend says who comes in: whoever attacks is a question to it, and leaves as little behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_loses_anything_where_a_backend_is_asked_about_attackers() {
    let backend = Backend::start(|_| async { says(200, "{}") }).await;
    let hook = format!("hooks.connect={}", backend.url("/"));
    let settings: Vec<_> = SETTINGS.iter().copied().chain([&*hook]).collect();
    let mut scene = Scene::start(&settings).await;
    scene.fill(200).await;
    scene.withstands(async |public| Box::pin(everything("127.0.0.42", public)).await).await;
    assert!(backend.requests() > 100, "{} questions", backend.requests());
}
