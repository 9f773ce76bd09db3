//! `fanfare publish`: publishes from the command line, once or a line at a time.

use std::io::BufRead;

use anyhow::{Context as _, bail};
use clap::Args;
use fanfare_client::{Client, Error, Position};
use serde_json::{json, value::RawValue};

use super::print;
use super::remote::{Remote, runtime};

/// What to publish, and where.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare publish room:1 '{\"text\":\"hello\"}'
  fanfare publish room:1 hello                       what is not JSON is sent as a string
  tail -f app.log | fanfare publish logs -           a message for each line
  fanfare publish room:1 42 --key order-42           the same key is published once
  fanfare publish room:1 42 --url wss://example.com/ws --token \"$(fanfare token --user ann --allow 'room:*=publish')\"")]
pub(super) struct Publication {
    /// The channel.
    #[arg(value_name = "CHANNEL")]
    channel: String,
    /// JSON, or any text, which is sent as a string; `-` reads it from standard input, one message a line.
    #[arg(value_name = "DATA")]
    data: String,
    /// Makes it the same publication when it is sent again, on a channel with history.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Publishes, and waits until the broker has taken it.
pub(super) fn run(publication: &Publication, json: bool) -> anyhow::Result<()> {
    if publication.data == "-" && publication.key.is_some() {
        bail!("--key makes all lines the same publication: leave it out, or give the data as an argument");
    }
    runtime()?.block_on(async {
        let client = publication.remote.connect()?;
        if publication.data == "-" {
            for line in std::io::stdin().lock().lines() {
                publication.send(&client, &line.context("standard input")?, json).await?;
            }
        } else {
            publication.send(&client, &publication.data, json).await?;
        }
        client.stop().await;
        Ok(())
    })
}

impl Publication {
    async fn send(&self, client: &Client, data: &str, json: bool) -> anyhow::Result<()> {
        let data = match serde_json::from_str::<Box<RawValue>>(data) {
            Ok(json) => json,
            Err(_) => serde_json::value::to_raw_value(data).context("the data")?,
        };
        let placed = match &self.key {
            Some(key) => client.publish_as(&self.channel, &data, key).await.map(Some),
            None => client.publish(&self.channel, &data).await,
        };
        let position = placed.map_err(|error| self.explained(error))?;
        print(&self.report(position, json))
    }

    fn explained(&self, error: Error) -> anyhow::Error {
        match error {
            Error::Timeout => anyhow::anyhow!(
                "{}: there was no answer in time: is a node running there? (--url, --timeout)",
                self.channel
            ),
            error => anyhow::anyhow!("{}: {error}", self.channel),
        }
    }

    fn report(&self, position: Option<Position>, json: bool) -> String {
        if json {
            return format!("{}\n", json!({"channel": self.channel, "position": position}));
        }
        match position {
            Some(Position { epoch, offset }) => format!("{} #{offset} of {epoch}\n", self.channel),
            None => format!("{} published\n", self.channel),
        }
    }
}
