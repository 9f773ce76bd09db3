//! The repository's own nginx configuration before some nodes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::eventually::eventually;
use crate::port::free_port;
use crate::process::Process;

/// How often another port is tried when the one picked was taken in between.
const ATTEMPTS: usize = 10;

/// A running `nginx`, killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    directory: TempDir,
    process: Process,
}

impl Nginx {
    /// Starts nginx on a free port before `nodes`, as `scripts/cluster` does, and waits until it accepts.
    ///
    /// # Panics
    /// When it does not start; when it is not installed the text says what installs it.
    pub async fn start(nodes: &[SocketAddr]) -> Self {
        let directory = TempDir::with_prefix("fanfare-nginx-").expect("a temporary directory can be made");
        for _ in 0..ATTEMPTS {
            let port = free_port();
            if let Some(process) = try_start(port, nodes, directory.path()).await {
                return Self { port, directory, process };
            }
        }
        panic!(
            "nginx ends at once: {}",
            std::fs::read_to_string(directory.path().join("log")).unwrap_or_default()
        );
    }

    /// SIGHUP: new workers with the configuration read again; the old ones stay while they have clients.
    pub async fn reload(&self) {
        self.process.hang_up().await;
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// The workers of a master that was killed go on without it, so they are killed with it: the master first, or it would
/// start others.
impl Drop for Nginx {
    fn drop(&mut self) {
        let master = self.process.id();
        let workers = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let kill = format!("kill -KILL {master} {}", workers.unwrap_or_default());
        // What has ended already cannot be killed, and need not be.
        let _ = std::process::Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    }
}

async fn try_start(port: u16, nodes: &[SocketAddr], directory: &Path) -> Option<Process> {
    let configuration = directory.join("nginx.conf");
    let script = root().join("scripts/nginx-config");
    let written = Command::new(script)
        .arg(format!("127.0.0.1:{port}"))
        .args(nodes.iter().map(ToString::to_string))
        .stdout(File::create(&configuration).expect("a file can be written"))
        .status()
        .await;
    assert!(written.is_ok_and(|status| status.success()), "scripts/nginx-config fails");

    let log = File::create(directory.join("log")).expect("a log can be written");
    let mut command = Command::new(program());
    command.arg("-p").arg(directory).args(["-e", "stderr", "-g", "daemon off;", "-c"]).arg(&configuration);
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut process = Process::spawn(command);
    let mut ended = false;
    eventually("nginx accepts", async || {
        ended = process.has_ended();
        ended || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
    })
    .await;
    (!ended && !process.has_ended()).then_some(process)
}

/// Debian keeps daemons where only root's `PATH` looks.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/nginx");
    if debian.exists() { debian } else { "nginx".into() }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
