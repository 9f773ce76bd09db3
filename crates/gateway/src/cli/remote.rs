//! A client of a running node, for the subcommands that are one.

use std::time::Duration;

use clap::Args;
use fanfare_client::{Client, Options, Token};

/// Which node, and as whom.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The node or the cluster: its WebSocket endpoint, ws:// or wss://.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8000/ws")]
    url: String,
    /// A token, for nodes that need one: --token "$(fanfare token --user ann)".
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Seconds to wait for an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

impl Remote {
    /// Starts the client. Has to be called on a runtime.
    pub(super) fn connect(&self) -> anyhow::Result<Client> {
        let token = self.token.clone().map_or(Token::None, Token::Fixed);
        let timeout = Duration::from_secs(self.timeout);
        Ok(Client::start(Options { timeout, ..Options::new(&self.url) }.token(token))?)
    }
}

/// A runtime for one client.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
