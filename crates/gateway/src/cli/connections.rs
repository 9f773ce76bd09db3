//! `fanfare connections` and `fanfare channels`: who is there, and what is heard, on all nodes.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::caller::{Caller, cell, table};
use super::{answer, print};

/// Which connections.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare connections                                the first hundred
  fanfare connections --user ann                     those of a user
  fanfare connections --channel room:1 --all --json  all that hear a channel, an object each
  fanfare connections --session 6b1e4f0a92d78938c1a552e37d9004bf
  fanfare connections --api http://10.0.0.7:8001 --key-file /run/secrets/fanfare")]
pub(super) struct Wanted {
    /// Those of a user.
    #[arg(long, value_name = "USER", conflicts_with = "session")]
    user: Option<String>,
    /// The one of a session, with its channels.
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Those that hear a channel.
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// The most to list.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// List all, however many.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    caller: Caller,
}

/// Lists connections, page by page.
pub(super) fn run(wanted: &Wanted, json: bool) -> anyhow::Result<()> {
    let mut filter = Map::new();
    let given = [("user", &wanted.user), ("session", &wanted.session), ("channel", &wanted.channel)];
    for (name, value) in given {
        filter.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    let mut left = if wanted.all { usize::MAX } else { wanted.limit };
    let (mut rows, mut unanswered, mut is_more) = (Vec::new(), Vec::new(), true);
    let progress = Progress::default();
    while left > 0 && is_more {
        filter.insert("limit".into(), json!(left.min(1000)));
        let page = wanted.caller.call("connections", &Value::Object(filter.clone()))?;
        let found = page["connections"].as_array().context("the answer has no connections")?;
        left = left.saturating_sub(found.len());
        if json {
            found.iter().try_for_each(answer)?;
        } else {
            rows.extend(found.iter().map(row));
            progress.shows(rows.len());
        }
        unanswered.extend(page["unanswered"].as_array().into_iter().flatten().map(cell));
        is_more = page["next"].is_string();
        filter.insert("after".into(), page["next"].clone());
    }
    progress.ends();
    if !json {
        print(&table(
            &["SESSION", "USER", "NODE", "ADDRESS", "TRANSPORT", "PROTOCOL", "QUEUED", "CHANNELS"],
            &rows,
        ))?;
    }
    if is_more {
        eprintln!("there are more: --limit, or --all");
    }
    unanswered.sort_unstable();
    unanswered.dedup();
    anyhow::ensure!(
        unanswered.is_empty(),
        "no answer from {}: what they hold is missing",
        unanswered.join(", ")
    );
    Ok(())
}

/// How many have been found, on a terminal: a list of all may take a while.
struct Progress {
    is_shown: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { is_shown: std::io::stderr().is_terminal() }
    }
}

impl Progress {
    fn shows(&self, found: usize) {
        if self.is_shown {
            eprint!("\r{found} connections so far\u{1b}[K");
        }
    }

    fn ends(&self) {
        if self.is_shown {
            eprint!("\r\u{1b}[K");
        }
    }
}

fn row(connection: &Value) -> Vec<String> {
    let channels = connection["channels"].as_array();
    let channels = channels.map_or("".into(), |all| all.iter().map(cell).collect::<Vec<_>>().join(" "));
    ["session", "user", "node", "address", "transport", "protocol", "queued_bytes"]
        .iter()
        .map(|name| cell(&connection[name]))
        .chain([channels])
        .collect()
}

/// Which channels.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare channels                                   all that somebody hears, the busiest first
  fanfare channels 'room:*' --json | jq .channel")]
pub(super) struct Pattern {
    /// Those of this name, in which * stands for any characters.
    #[arg(value_name = "PATTERN", default_value = "*")]
    pattern: String,
    #[command(flatten)]
    caller: Caller,
}

/// Lists channels, those that most connections hear first.
pub(super) fn run_channels(wanted: &Pattern, json: bool) -> anyhow::Result<()> {
    let channels = channels(&wanted.caller, &wanted.pattern)?;
    if json {
        return channels.iter().try_for_each(answer);
    }
    let row = |channel: &Value| ["channel", "users", "connections"].map(|name| cell(&channel[name])).to_vec();
    print(&table(&["CHANNEL", "USERS", "CONNECTIONS"], &channels.iter().map(row).collect::<Vec<_>>()))
}

/// The channels of a pattern, those that most connections hear first.
pub(super) fn channels(caller: &Caller, pattern: &str) -> anyhow::Result<Vec<Value>> {
    let mut answer = caller.call("channels", &json!({ "pattern": pattern }))?;
    let Value::Array(mut channels) = answer["channels"].take() else {
        anyhow::bail!("the answer has no channels");
    };
    let key = |it: &Value| (std::cmp::Reverse(it["connections"].as_u64()), cell(&it["channel"]));
    channels.sort_by_cached_key(key);
    Ok(channels)
}
