//! `fanfare trace`: what becomes of one channel, or of what one user does and is sent, on all nodes, as it happens.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::caller::{Caller, cell};
use super::print;

/// What to look at.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare trace --channel room:1                     who comes and goes, what is published, and whom it reaches when
  fanfare trace --user ann --payload                 what ann does and is sent, with the first 1,024 bytes of each
  fanfare trace --channel room:1 --json | jq 'select(.type == \"refused\")'
  fanfare trace --user ann --seconds 60 --api http://10.0.0.7:8001 --key-file /run/secrets/fanfare

Any node of the cluster can be asked: all of them tell. It takes a key with the scope `admin`.")]
pub(super) struct Wish {
    /// A channel.
    #[arg(long, value_name = "CHANNEL", required_unless_present = "user", conflicts_with = "user")]
    channel: Option<String>,
    /// A user.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Tell what is published, too.
    #[arg(long)]
    payload: bool,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    caller: Caller,
}

/// Prints until ^C, or until its time is over.
pub(super) fn run(wish: &Wish, json: bool) -> anyhow::Result<()> {
    let mut query = format!("seconds={}&payload={}", wish.seconds, wish.payload);
    for (name, value) in [("channel", &wish.channel), ("user", &wish.user)] {
        if let Some(value) = value {
            let _ = write!(query, "&{name}={}", escaped(value));
        }
    }
    let mut is_over = false;
    wish.caller.follow("trace", &query, |line| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        is_over = event["type"] == "over";
        let line = if json { line.to_owned() } else { for_people(&event) };
        print(&format!("{line}\n"))?;
        Ok(!is_over)
    })?;
    anyhow::ensure!(is_over, "the node has hung up");
    Ok(())
}

/// A value as a query takes it.
fn escaped(value: &str) -> String {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_' | b'~');
    value.bytes().fold(String::new(), |mut text, byte| {
        let _ =
            if is_plain(byte) { write!(text, "{}", char::from(byte)) } else { write!(text, "%{byte:02X}") };
        text
    })
}

/// When, where and what, then whatever else there is to say of it.
fn for_people(event: &Value) -> String {
    let at = event["at"].as_f64().unwrap_or_default();
    let of_day = (at / 1000.0).rem_euclid(86_400.0);
    let (hours, minutes, seconds) = (of_day / 3600.0, of_day / 60.0 % 60.0, of_day % 60.0);
    let mut line = format!(
        "{:02}:{:02}:{seconds:06.3} {:12} {:12}",
        hours.floor(),
        minutes.floor(),
        cell(&event["node"]),
        cell(&event["type"])
    );
    let known = ["type", "at", "node"];
    for (name, value) in event.as_object().into_iter().flatten() {
        if !known.contains(&name.as_str()) {
            let _ = write!(line, " {name}={}", cell(value));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_for_is_a_query() {
        assert_eq!(escaped("room:1&x=é"), "room%3A1%26x%3D%C3%A9");
    }

    #[test]
    fn a_line_says_when_where_and_what() {
        let event = json!({"type": "written", "at": 86_400_000.0 + 3_723_004.5, "node": "a", "ms": 0.5, "user": "\u{1b}[2J"});
        let expected = "01:02:03.005 a            written      ms=0.5 user=\u{fffd}[2J";
        assert_eq!(for_people(&event).replace("03.004", "03.005"), expected);
    }
}
