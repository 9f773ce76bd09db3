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

use scene::Scene;

/// Everything at once, and a thousand clients that behave. The flood is from an address of its own: what it uses up is none of the
/// other attackers' share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_lose_nothing_while_every_attack_is_mounted_at_once() {
    let settings = ["limits.header_seconds=1", "limits.handshakes_per_second_per_ip=2000"];
    let mut scene = Scene::start(&settings).await;
    scene.fill(1_000).await;
    let public = scene.public();
    scene
        .withstands(async |_| {
            tokio::join!(
                handshakes::slow_heads(public, 100),
                handshakes::slow_bodies(public, 50),
                handshakes::long_heads(public, 20),
                handshakes::flood("127.0.0.41", public, 3_000),
                frames::pings_without_end(public),
                frames::fragments_without_end(public),
                frames::commands_without_end(public, r#"{"type":"publish","channel":"flood","data":1}"#),
                frames::churn(public, 500),
                frames::nothing_is_read(public),
                http2::rapid_resets(public),
                http2::headers_without_end(public),
            );
        })
        .await;
}
