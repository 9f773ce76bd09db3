//! A client of Fanfare's native protocol, `fanfare.v1.json`, on tokio.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use fanfare_client::{Client, Event, Options, Subscribe};
//!
//! let client = Client::start(Options::new("ws://127.0.0.1:8000/ws"))?;
//! let mut room = client.subscribe("room:1", Subscribe::default()).await?;
//! client.publish("room:1", &"hello").await?;
//! while let Some(event) = room.next().await {
//!     match event {
//!         Event::Message(message) => println!("{}", message.json::<String>()?),
//!         Event::Subscribed { recovered: Some(false), .. } => println!("something was lost: load your state anew"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **What it does by itself.** It comes back after a lost connection, after a wait with full jitter that doubles up to a bound, or after the
//! one that the server names; subscribes again to everything, `since` the last message that was handed over; presents a fresh
//! token before the old one ends; takes a server that is silent for longer than its heartbeat for dead; and sends what waits as one
//! batch. A publication with a key is sent again until it is answered or its time is up, and published once. Where a network lets no
//! WebSocket through it hears by Server-Sent Events, or by long polls, and publishes by requests, until a WebSocket can be had again.
//!
//! **What it never hides.** A subscription hears [`Event::Interrupted`] when its channel falls silent and [`Event::Subscribed`] when
//! it goes on, with `recovered: Some(false)` where something is gone.
//!
//! **Slow readers.** Each [`Subscription`] has a queue of its own, with a bound. One that is full makes no other wait: the client leaves the
//! channel, and comes back to it `since` the last message in the queue when there is room again.

//!
//! # Deliberate bugs
//! Each was put into the code by itself, and the tests of `crates/gateway/tests/client` were run: coming back without `since`, or with the
//! position of `subscribed` before anything was replayed, fails `a_client_whose_node_dies_hears_everything_once_and_in_order` and two
//! more; no second try for a publication with a key, `a_publication_that_nobody_answered_for_is_sent_again_under_its_key`; no bound on
//! silence, `a_server_that_falls_silent_is_left`; dropping what does not fit into the queue,
//! `who_reads_slowly_makes_no_other_wait_and_misses_nothing`; a token replaced too late, `a_fresh_token_keeps_the_connection`.

mod backoff;
mod calls;
mod client;
mod driver;
mod error;
mod http;
mod line;
mod options;
mod socket;
mod subscriber;
mod subscription;
mod wire;

pub use client::Client;
pub use error::{Ending, Error, OptionsError};
pub use options::{Options, Token, TokenError, Transport};
pub use subscription::{Cause, Event, Subscribe, Subscription};
pub use wire::{History, Member, Message, Position, Presence, Publisher};
