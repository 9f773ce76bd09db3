//! `fanfare subscribe`: prints what channels carry, over lost connections and restarts, until it is interrupted.

use std::io::Write;

use anyhow::bail;
use clap::Args;
use fanfare_client::{Cause, Event, Member, Message, Position, Subscribe};
use futures_util::stream::{StreamExt, select_all};
use serde_json::{Value, json, value::RawValue};

use super::remote::{Remote, runtime};

/// What to hear.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare subscribe room:1
  fanfare subscribe room:1 room:2 --presence
  fanfare subscribe ticker --rewind 10 --json | jq .data
  fanfare subscribe room:1 --since 9f3c1a7b5e0d4520:12
  fanfare subscribe user:ann --url wss://example.com/ws --token \"$(fanfare token --user ann)\"")]
pub(super) struct Wishes {
    /// The channels.
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Hear the last so many messages first, where they are kept.
    #[arg(long, value_name = "COUNT", conflicts_with = "since")]
    rewind: Option<u32>,
    /// Hear what came after this position first, where it is kept. Takes one channel.
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position)]
    since: Option<Position>,
    /// Tell who comes and goes.
    #[arg(long)]
    presence: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Prints until ^C, or until the server ends it for good.
pub(super) fn run(wishes: &Wishes, json: bool) -> anyhow::Result<()> {
    if wishes.since.is_some() && wishes.channels.len() > 1 {
        bail!("--since is a position of one channel, and there are {}", wishes.channels.len());
    }
    runtime()?.block_on(async {
        tokio::select! {
            outcome = print_all(wishes, json) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

async fn print_all(wishes: &Wishes, json: bool) -> anyhow::Result<()> {
    let client = wishes.remote.connect()?;
    let mut subscriptions = Vec::with_capacity(wishes.channels.len());
    for channel in &wishes.channels {
        let how = Subscribe { since: wishes.since.clone(), rewind: wishes.rewind, presence: wishes.presence };
        let subscription = client.subscribe(channel, how).await;
        let subscription = subscription.map_err(|error| anyhow::anyhow!("{channel}: {error}"))?;
        let channel = channel.clone();
        subscriptions.push(subscription.map(move |event| (channel.clone(), event)));
    }
    let mut events = select_all(subscriptions);
    while let Some((channel, event)) = events.next().await {
        let ended = match &event {
            Event::Ended(error) => Some(error.clone()),
            _ => None,
        };
        let line = if json { as_json(&channel, &event) } else { for_people(&channel, &event) };
        // Without a reader there is nobody to print for.
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            return Ok(());
        }
        if let Some(error) = ended {
            bail!("{channel}: {error}");
        }
    }
    Ok(())
}

fn for_people(channel: &str, event: &Event) -> String {
    match event {
        Event::Message(message) => {
            let offset = message.offset.map(|offset| format!(" #{offset}")).unwrap_or_default();
            let from = message.from.as_ref().map(|from| format!(" {}:", from.user)).unwrap_or_default();
            let recovered = if message.recovered { " (replayed)" } else { "" };
            let bytes = message.as_bytes().map(|bytes| format!("{} bytes", bytes.len()));
            let data = message.as_json().map(str::to_owned).or(bytes).unwrap_or_default();
            format!("{channel}{offset}{recovered}{from} {data}")
        }
        Event::Subscribed { recovered: Some(false), .. } => {
            format!("{channel} * live again; something was lost")
        }
        Event::Subscribed { recovered: Some(true), .. } => {
            format!("{channel} * live; all that was missed follows")
        }
        Event::Subscribed { .. } => format!("{channel} * live"),
        Event::Joined(member) => format!("{channel} + {}", named(member)),
        Event::Left(member) => format!("{channel} - {}", named(member)),
        Event::Interrupted(cause) => format!("{channel} * silent: {}", slug(*cause)),
        Event::Ended(error) => format!("{channel} * ended: {error}"),
    }
}

fn named(member: &Member) -> &str {
    member.user.as_deref().unwrap_or("somebody")
}

fn slug(cause: Cause) -> &'static str {
    match cause {
        Cause::Connection => "connection lost",
        Cause::Gap => "gap",
        Cause::Lagged => "lagged",
    }
}

fn as_json(channel: &str, event: &Event) -> String {
    let line = match event {
        Event::Message(message) => return message_as_json(channel, message),
        Event::Subscribed { recovered, position } => {
            json!({"type": "subscribed", "channel": channel, "recovered": recovered, "position": position})
        }
        Event::Joined(member) => {
            json!({"type": "joined", "channel": channel, "member": member_as_json(member)})
        }
        Event::Left(member) => json!({"type": "left", "channel": channel, "member": member_as_json(member)}),
        Event::Interrupted(cause) => {
            json!({"type": "interrupted", "channel": channel, "cause": slug(*cause)})
        }
        Event::Ended(error) => json!({"type": "ended", "channel": channel, "error": error.to_string()}),
    };
    line.to_string()
}

/// By hand, so that the data stay as they were written.
fn message_as_json(channel: &str, message: &Message) -> String {
    let mut fields = json!({"type": "message", "channel": channel, "offset": message.offset, "recovered": message.recovered});
    if message.conflated > 0 {
        fields["conflated"] = json!(message.conflated);
    }
    if let Some(from) = &message.from {
        fields["from"] = json!({"user": from.user, "info": parsed(from.info.as_deref())});
    }
    if let Some(bytes) = message.as_bytes() {
        fields["data_base64"] = json!(data_encoding::BASE64.encode(bytes));
    }
    let mut line = fields.to_string();
    if let Some(data) = message.as_json() {
        line.insert_str(line.len() - 1, &format!(",\"data\":{data}"));
    }
    line
}

fn member_as_json(member: &Member) -> Value {
    json!({"user": member.user, "session": member.session, "info": parsed(member.info.as_deref())})
}

fn parsed(json: Option<&RawValue>) -> Value {
    json.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default()
}

fn position(text: &str) -> Result<Position, String> {
    let parsed = text
        .split_once(':')
        .and_then(|(epoch, offset)| Some(Position { epoch: epoch.to_owned(), offset: offset.parse().ok()? }));
    parsed.ok_or_else(|| "a position is EPOCH:OFFSET, such as 9f3c1a7b5e0d4520:12".to_owned())
}
