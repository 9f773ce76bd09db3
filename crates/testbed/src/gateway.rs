//! A node of the gateway as an operator runs it: the program, started with settings.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::eventually::eventually;
use crate::process::Process;

/// A running `fanfare`, killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    /// Kept for as long as the node runs, where it is the node's own.
    _own: Option<TempDir>,
    log: PathBuf,
    public: SocketAddr,
    internal: SocketAddr,
}

impl Gateway {
    /// Starts `program` on ports that the system picks, with settings such as `node.name=a` over its defaults, and waits
    /// until it serves. The environment of the test does not reach it.
    ///
    /// # Panics
    /// When it does not start; the text holds its log.
    pub async fn start(program: &Path, settings: &[&str]) -> Self {
        let own = TempDir::with_prefix("fanfare-gateway-").expect("a temporary directory can be made");
        let log = own.path().join("log");
        Self { _own: Some(own), ..Self::start_logging(program, settings, &log).await }
    }

    /// The same with a log that stays: this file, anew.
    ///
    /// # Panics
    /// Those of [`Gateway::start`].
    pub async fn start_logging(program: &Path, settings: &[&str], log: &Path) -> Self {
        let written = File::create(log).expect("a log can be written");
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(written);
        command.current_dir(log.parent().expect("a file is in a directory"));
        for setting in ["listen.public=127.0.0.1:0", "listen.internal=127.0.0.1:0", "log.format=json"] {
            command.args(["--set", setting]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut process = Process::spawn(command);
        let mut serving = None;
        eventually("the gateway serves", async || {
            serving = serving_line(log);
            serving.is_some() || process.has_ended()
        })
        .await;
        let Some(serving) = serving else { panic!("the gateway does not start: {}", read_log(log)) };
        let address = |field: &str| {
            let address = serving[field].as_str().and_then(|address| address.parse().ok());
            address.unwrap_or_else(|| panic!("{serving} names no {field}"))
        };
        let (public, internal) = (address("public"), address("internal"));
        Self { process, _own: None, log: log.to_owned(), public, internal }
    }

    /// Where clients connect.
    #[must_use]
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where metrics and the server API are.
    #[must_use]
    pub fn internal(&self) -> SocketAddr {
        self.internal
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGSTOP: it does nothing any more, while its kernel still takes connections and bytes.
    pub async fn freeze(&self) {
        self.process.freeze().await;
    }

    /// SIGCONT: undoes [`Gateway::freeze`].
    pub async fn thaw(&self) {
        self.process.thaw().await;
    }

    /// SIGTERM: told to stop, in its own time.
    pub async fn terminate(&self) {
        self.process.terminate().await;
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// SIGKILL: no goodbye.
    pub async fn kill(self) {
        self.process.kill().await;
    }
}

fn read_log(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The line that says where it listens.
fn serving_line(log: &Path) -> Option<Value> {
    let log = read_log(log);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["message"] == "serving")
}
