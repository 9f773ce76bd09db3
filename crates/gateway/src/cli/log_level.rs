//! `fanfare log-level`: how much a running node logs, for a while.

use clap::Args;
use serde_json::json;

use super::caller::{Caller, cell};
use super::print;

/// Which level, and for how long.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare log-level                                  what it is now
  fanfare log-level debug                            for ten minutes, then as configured again
  fanfare log-level info,fanfare_gateway::hooks=trace --seconds 60 --api http://10.0.0.7:8001

Each node has its own: it is the one of --api whose level changes.")]
pub(super) struct Wish {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives; without one it is only told.
    #[arg(value_name = "LEVEL")]
    level: Option<String>,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "level",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    #[command(flatten)]
    caller: Caller,
}

/// Asks the node, and prints what it logs now.
pub(super) fn run(wish: &Wish, json: bool) -> anyhow::Result<()> {
    let body = match &wish.level {
        Some(level) => json!({"level": level, "seconds": wish.seconds}),
        None => json!({}),
    };
    let answer = wish.caller.call("log", &body)?;
    let level = cell(&answer["level"]);
    print(&match answer["seconds"].as_u64() {
        _ if json => format!("{answer}\n"),
        Some(seconds) => format!("{level}, for {seconds} s\n"),
        None => format!("{level}, as configured\n"),
    })
}
