//! `fanfare top`: what a cluster is doing, again and again: its nodes, the channels that most hear, and who reads too slowly.
//!
//! Plain text and a few escape sequences: where standard output is no terminal it prints each view below the last, and
//! with `--json` an object a line.

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::caller::{Caller, cell, table};
use super::connections::channels;
use super::print;
use super::remote::runtime;

/// How many channels and clients are shown.
const SHOWN: usize = 10;

/// How to watch.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare top                                        until ^C
  fanfare top --every 5 --api http://10.0.0.7:8001
  fanfare top --count 1                              once, for a script or a report
  fanfare top --json | jq '.nodes[].connections'")]
pub(super) struct Watch {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// How many looks; otherwise until ^C.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    #[command(flatten)]
    caller: Caller,
}

/// Watches until told to stop.
pub(super) fn run(watch: &Watch, json: bool) -> anyhow::Result<()> {
    let is_live = std::io::stdout().is_terminal() && !json;
    runtime()?.block_on(async {
        let (mut looks, mut last) = (0, None);
        // One for all waits: a ^C that comes during a look is not lost.
        let mut stopped = pin!(tokio::signal::ctrl_c());
        loop {
            let looked = look(&watch.caller);
            let text = match (looked, &last) {
                (Ok(view), _) if json => format!("{view}\n"),
                (Ok(view), _) => last.insert(draw(&view)).clone(),
                // A node that is started again meanwhile is no reason to look away.
                (Err(error), Some(before)) if is_live => format!("{error:#}: trying on\n\n{before}"),
                (Err(error), _) => return Err(error),
            };
            print(&if is_live { over(&text, looks == 0) } else { text })?;
            looks += 1;
            if watch.count.is_some_and(|count| looks >= count) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(watch.every)) => {}
                stopped = stopped.as_mut() => return stopped.context("^C"),
            }
        }
    })
}

/// The old view is overwritten line by line, and what is left of it below erased: clearing first would flicker.
fn over(text: &str, is_first: bool) -> String {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let text = match size {
        Ok(size) if size.ws_row > 1 && size.ws_col > 0 => {
            fitted(text, size.ws_row.into(), size.ws_col.into())
        }
        _ => text.to_owned(),
    };
    let start = if is_first { "\u{1b}[2J" } else { "" };
    format!("{start}\u{1b}[H{}\u{1b}[J", text.replace('\n', "\u{1b}[K\n"))
}

/// As much as a terminal shows without moving, with room for the cursor below.
fn fitted(text: &str, rows: usize, columns: usize) -> String {
    let (lines, most) = (text.lines().count(), rows - 1);
    let shown = if lines > most { most.saturating_sub(1) } else { lines };
    let mut fitted = String::new();
    for line in text.lines().take(shown) {
        fitted.extend(line.chars().take(columns));
        fitted.push('\n');
    }
    if lines > shown {
        fitted.extend(format!("and {} lines more: make it higher", lines - shown).chars().take(columns));
        fitted.push('\n');
    }
    fitted
}

fn look(caller: &Caller) -> anyhow::Result<Value> {
    let mut nodes = caller.call("nodes", &json!({}))?;
    let mut hottest = channels(caller, "*")?;
    hottest.truncate(SHOWN);
    let slowest = caller.call("connections", &json!({ "slowest": true, "limit": SHOWN }))?;
    Ok(json!({
        "nodes": nodes["nodes"].take(), "channels": hottest,
        "slowest": slowest["connections"], "unanswered": slowest["unanswered"],
    }))
}

fn draw(view: &Value) -> String {
    let all = |name: &str| view[name].as_array().map_or(&[][..], |all| &all[..]);
    let sum = |name: &str| all("nodes").iter().filter_map(|node| node[name].as_f64()).sum::<f64>();
    let mut text = format!(
        "{}, {}, {}, {:.0} messages/s in, {:.0} out\n\n",
        several(all("nodes").len() as f64, "node"),
        several(sum("connections"), "connection"),
        several(sum("subscriptions"), "subscription"),
        sum("messages_received_per_second"),
        sum("messages_sent_per_second"),
    );
    let heading =
        ["NODE", "STATE", "CONNECTIONS", "USERS", "CHANNELS", "IN/S", "OUT/S", "QUEUED", "MEMORY", "VERSION"];
    text += &table(&heading, &all("nodes").iter().map(node).collect::<Vec<_>>());
    let hottest: Vec<_> = all("channels")
        .iter()
        .map(|it| ["channel", "users", "connections"].map(|name| cell(&it[name])).to_vec())
        .collect();
    text += &format!("\n{}", table(&["CHANNEL", "USERS", "CONNECTIONS"], &hottest));
    let slowest: Vec<_> = all("slowest")
        .iter()
        .map(|it| {
            let queued = bytes(it["queued_bytes"].as_u64().unwrap_or(0));
            ["session", "user", "node", "address"]
                .iter()
                .map(|name| cell(&it[name]))
                .chain([queued])
                .collect()
        })
        .collect();
    text += &format!("\n{}", table(&["SLOWEST", "USER", "NODE", "ADDRESS", "QUEUED"], &slowest));
    if !all("unanswered").is_empty() {
        text += &format!(
            "\nno answer from {}\n",
            all("unanswered").iter().map(cell).collect::<Vec<_>>().join(", ")
        );
    }
    text
}

fn node(node: &Value) -> Vec<String> {
    let state = match (&node["draining"], &node["ready"]) {
        (Value::Bool(true), _) => "draining",
        (_, Value::Bool(true)) => "ready",
        _ => "not ready",
    };
    let rate = |name: &str| format!("{:.0}", node[name].as_f64().unwrap_or(0.0));
    let size = |name: &str| bytes(node[name].as_u64().unwrap_or(0));
    vec![
        cell(&node["node"]),
        state.into(),
        cell(&node["connections"]),
        cell(&node["users"]),
        cell(&node["channels"]),
        rate("messages_received_per_second"),
        rate("messages_sent_per_second"),
        size("queued_bytes"),
        size("memory_bytes"),
        cell(&node["version"]),
    ]
}

/// So many of something.
fn several(count: f64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1.0 { "" } else { "s" })
}

/// A size as people read it.
fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_never_moves_the_terminal_that_shows_it() {
        let text = "one\ntwo, and longer\nthree\n";
        assert_eq!(fitted(text, 4, 80), text);
        assert_eq!(fitted(text, 3, 6), "one\nand 2 \n");
        assert_eq!(fitted(text, 4, 5), "one\ntwo, \nthree\n");
        for rows in 2..6 {
            assert!(fitted(text, rows, 1).lines().count() < rows);
        }
    }

    #[test]
    fn sizes_are_read_by_people() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"), (1 << 40, "1.0 TiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }
}
