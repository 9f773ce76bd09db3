//! The only reader of files and environment: raw text goes in, a checked [`Config`] comes out, or every mistake at once.
//!
//! ```text
//!  keys (the table) ──────┬──────────────┬────────────────┬──────────────────┐
//!                         ▼              ▼                ▼                  ▼
//!  Source ─► layers ─► entries ─► check each ─► merge ─► typed Config ─► cross checks    default file, docs
//!  file, environment,  path,      in its own    last     SocketAddr,     what no single
//!  flags               text,      layer         wins     Duration, …     key can know
//!                      place
//! ```
//!
//! **Invariants.** A key exists by being a line of `keys`: parsing, bounds, suggestions, `fanfare default-config` and
//! `docs/configuration.md` read that line. A value is checked in the layer that wrote it, before layers are merged, so a
//! mistake in the file is told even where the environment overrides it, and each message ends with the place to mend.
//! Merging is the work of the `config` crate; it is handed values that already have their type, since left to itself it
//! rounds 5.7 into 6 and takes "yes" for 1. Nothing here prints a secret: see [`Secret`].
//!
//! A running node keeps its configuration as [`Loaded`], which remembers the merged values: read again, the two are
//! compared key by key, and the table says which of the differences a running node can take.
//!
//! **Deliberately absent:** globals. A [`Source`] is plain data, and [`Source::of_process`] is the one function that
//! looks at the machine.

mod authorities;
mod check;
mod choice;
mod consumers;
mod events;
mod hooks;
mod identity;
mod keys;
mod layer;
mod merge;
mod mistake;
mod network;
mod pages;
mod reload;
mod rules;
mod secret;
mod source;
mod suggest;
mod tokens;
mod tracing;
mod typed;

#[cfg(test)]
mod tests;

pub use authorities::Authorities;
pub use choice::{
    AppEvent, BrokerKind, ClientCertificates, EventKind, ForwardedBy, LogFormat, OnFailure, PublishBy,
    RedisMode, Scope, SlowSubscriber, SourceMode, SubscribeBy, TlsVersion, Trial,
};
pub(crate) use consumers::{BLOCK, is_table};
pub use consumers::{Consumer, OutboxTable, Published, RedisStreams, Store};
pub use events::Events;
pub use hooks::Hooks;
pub(crate) use identity::provider;
pub use identity::{Identity, Standing, Validity};
pub use keys::reloadable;
pub use mistake::Mistakes;
pub use network::{Network, NoNetwork};
pub use pages::{default_json, default_toml, document};
pub use reload::{Changes, Loaded};
pub use secret::Secret;
pub use source::{File, Flag, Source};
pub use tokens::{Issuer, Jwt, KeyFetching};
pub use tracing::Tracing;
pub use typed::{
    Api, Auth, Caller, Centrifugo, Compression, Config, Console, DryRun, Heartbeat, History, Limits, Listen,
    Log, Namespace, Node, Numbers, Origin, Pace, Presence, Proxy, PusherApp, PusherHook, PusherWebhooks,
    Readiness, Redis, Tls, TokenPlaces, Told, WebSocket,
};

/// Reads the layers, the later over the earlier: defaults, file, environment, flags.
///
/// # Errors
///
/// All mistakes of all layers at once, each with its place; then nothing is configured.
pub fn load(source: &Source) -> Result<Config, Mistakes> {
    Loaded::of(source).map(Loaded::into_config)
}
