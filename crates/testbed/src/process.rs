//! A child process that dies with the value that stands for it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::eventually::PATIENCE;

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` in a directory, deaf and mute: servers here log to files.
    ///
    /// # Panics
    /// When it cannot be started. For a program that is not installed the text says what installs it.
    pub fn start(
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        directory: &Path,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(command)
    }

    /// Starts a command that the caller has set up.
    ///
    /// # Panics
    /// Those of [`Process::start`].
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let child = command.kill_on_drop(true).spawn();
        let program = command.as_std().get_program().display();
        match child {
            Ok(child) => Self { child },
            Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
                "{program} is not installed, and this test needs a real one: ./scripts/test installs everything, \
                 or apt-get install {program}"
            ),
            Err(error) => panic!("{program} does not start: {error}"),
        }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked for").is_some()
    }

    /// Sends SIGSTOP: it does nothing any more, while its kernel still takes connections and bytes.
    pub async fn freeze(&self) {
        self.signal("STOP").await;
    }

    /// Sends SIGCONT: it goes on where it was frozen.
    pub async fn thaw(&self) {
        self.signal("CONT").await;
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Sends SIGTERM: it is asked to end.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends SIGQUIT: it is asked to end at once.
    pub(crate) async fn quit(&self) {
        self.signal("QUIT").await;
    }

    /// Sends SIGHUP: it is asked to read its configuration again.
    pub async fn hang_up(&self) {
        self.signal("HUP").await;
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await.expect("the process ends");
        ended.expect("a child can be waited for")
    }

    /// The shell's own `kill`: the standard library has no signals, and unsafe code is forbidden here.
    async fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} could not be sent");
    }
}
