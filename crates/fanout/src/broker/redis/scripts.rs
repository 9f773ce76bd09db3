//! The scripts that run inside Redis: each is one step that nothing can come between.
//!
//! They are sent by their digest (EVALSHA). A connection loads the scripts that it uses before anything else, and once
//! more when Redis does not know one any longer: after SCRIPT FLUSH. Their last argument is always the life of the server
//! that they are sent to, which only the connection knows.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Cmd;

/// A script.
#[derive(Debug)]
pub(super) struct Script {
    code: &'static str,
    digest: LazyLock<String>,
}

macro_rules! script {
    ($file:literal) => {{
        const CODE: &str = concat!(include_str!("scripts/epoch.lua"), include_str!($file));
        Script { code: CODE, digest: LazyLock::new(|| redis::Script::new(CODE).get_hash().to_owned()) }
    }};
}

/// Appends and publishes a draft.
pub(super) static PUBLISH: Script = script!("scripts/publish.lua");

/// Reads a part of a stream.
pub(super) static HISTORY: Script = script!("scripts/history.lua");

/// Says where a stream stands.
pub(super) static POSITION: Script = script!("scripts/position.lua");

impl Script {
    /// Begins a command that runs it on so many keys, which follow; `bytes` is about how long all arguments are.
    pub(super) fn run(&self, keys: usize, bytes: usize) -> Cmd {
        const ARGUMENTS: usize = 16;
        let mut command = Cmd::with_capacity(ARGUMENTS, 128 + bytes);
        command.arg("EVALSHA").arg(self.digest.as_str()).arg(keys);
        command
    }

    /// The command that makes Redis know it.
    pub(super) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(self.code);
        command
    }
}

/// How long Redis remembers where a stream stands, at least: far longer than what was published.
pub(super) const META_TTL: Duration = Duration::from_secs(24 * 3600);

/// An epoch, should the script begin one: any number but the one that no stream ever has.
pub(super) fn fresh_epoch() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

/// A time to live as Redis takes it: it refuses nothing at all, and more than an integer of its own can count to.
pub(super) fn milliseconds(ttl: Duration) -> u64 {
    const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    u64::try_from(ttl.clamp(Duration::from_millis(1), TEN_YEARS).as_millis()).expect("ten years fit")
}
