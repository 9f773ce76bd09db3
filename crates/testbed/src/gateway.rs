//! A node of the gateway as an operator runs it: the program, started with settings.

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
    directory: TempDir,
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
        let directory = TempDir::with_prefix("fanfare-gateway-").expect("a temporary directory can be made");
        let log = std::fs::File::create(log_file(&directory)).expect("a log can be written");
        let mut command = Command::new(program);
        command
            .env_clear()
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        for setting in ["listen.public=127.0.0.1:0", "listen.internal=127.0.0.1:0", "log.format=json"] {
            command.args(["--set", setting]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut process = Process::spawn(command);
        let mut serving = None;
        eventually("the gateway serves", async || {
            serving = serving_line(&directory);
            serving.is_some() || process.has_ended()
        })
        .await;
        let Some(serving) = serving else { panic!("the gateway does not start: {}", read_log(&directory)) };
        let address = |field: &str| {
            let address = serving[field].as_str().and_then(|address| address.parse().ok());
            address.unwrap_or_else(|| panic!("{serving} names no {field}"))
        };
        let (public, internal) = (address("public"), address("internal"));
        Self { process, directory, public, internal }
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
        read_log(&self.directory)
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

fn log_file(directory: &TempDir) -> PathBuf {
    directory.path().join("log")
}

fn read_log(directory: &TempDir) -> String {
    std::fs::read_to_string(log_file(directory)).unwrap_or_default()
}

/// The line that says where it listens.
fn serving_line(directory: &TempDir) -> Option<Value> {
    let log = read_log(directory);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["message"] == "serving")
}
