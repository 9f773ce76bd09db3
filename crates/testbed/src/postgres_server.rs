//! A PostgreSQL server with a cluster of databases of its own.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls, Row};

use crate::authority::Certificate;
use crate::eventually::eventually;
use crate::port::free_port;
use crate::process::Process;

/// Where Debian keeps the programs, which are not in anybody's PATH: a directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Whom it runs as where the tests run as root, which it refuses.
const ACCOUNT: &str = "postgres";

/// What it asks of those who come over TCP. Tests themselves come over its Unix socket, and are asked for nothing.
const PASSWORD: &str = "of-a-test";

/// How often another port is tried when the one picked was taken in between.
const ATTEMPTS: usize = 10;

/// A server of its own for one test.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    /// Over TCP it speaks TLS, and nothing else.
    is_secure: bool,
    process: Option<Process>,
    directory: TempDir,
}

impl PostgresServer {
    /// Makes a cluster of databases, starts a server on a free port and waits until it answers.
    ///
    /// # Panics
    /// When it does not start; when it is not installed the text says what installs it.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same, over TLS with this certificate.
    ///
    /// # Panics
    /// Those of [`PostgresServer::start`].
    pub async fn start_secure(certificate: &Certificate) -> Self {
        Self::start_with(Some(certificate)).await
    }

    async fn start_with(certificate: Option<&Certificate>) -> Self {
        let directory = TempDir::with_prefix("fanfare-postgres-").expect("a temporary directory can be made");
        let is_secure = certificate.is_some();
        let mut server = Self { port: free_port(), is_secure, process: None, directory };
        give(server.directory.path());
        server.write("password", PASSWORD.as_bytes());
        let settings =
            ["--username=postgres", "--pwfile=password", "--auth-local=trust", "--auth-host=scram-sha-256"];
        let mut make = server.command("initdb");
        make.args(["-D", "data", "--no-sync", "--no-locale", "--encoding=UTF8"]).args(settings);
        let made = make.status().await;
        assert!(made.is_ok_and(|it| it.success()), "no databases can be made: {}", server.log());
        if let Some(Certificate { cert, key }) = certificate {
            server.write("data/server.crt", &fs::read(cert).expect("a certificate"));
            server.write("data/server.key", &fs::read(key).expect("a key"));
            server.write(
                "data/pg_hba.conf",
                b"local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
            );
        }
        for _ in 0..ATTEMPTS {
            if server.try_start().await {
                return server;
            }
            server.port = free_port();
        }
        panic!("postgres ends at once: {}", server.log());
    }

    /// Its address as the gateway's configuration has it.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres", PASSWORD)
    }

    /// Its address for another role than the one that may do anything.
    #[must_use]
    pub fn url_of(&self, role: &str, password: &str) -> String {
        let mode = if self.is_secure { "require" } else { "disable" };
        format!("postgresql://{role}:{password}@127.0.0.1:{}/postgres?sslmode={mode}", self.port)
    }

    /// Ends it at once, as a crash would: what was committed is there when it starts again.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.quit().await;
        process.ended().await;
    }

    /// Starts it again on the same port, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is running");
        assert!(self.try_start().await, "postgres does not come back: {}", self.log());
    }

    /// Runs statements, one after the other.
    ///
    /// # Panics
    /// When one of them fails.
    pub async fn execute(&self, statements: &str) {
        let client = self.connect().await;
        client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The rows that a statement answers with.
    ///
    /// # Panics
    /// When it fails.
    pub async fn query(&self, statement: &str) -> Vec<Row> {
        let client = self.connect().await;
        client.query(statement, &[]).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
    }

    /// The one number that a statement answers with.
    ///
    /// # Panics
    /// When it answers with anything else.
    pub async fn number(&self, statement: &str) -> i64 {
        self.query(statement).await[0].get(0)
    }

    /// A connection to keep, as somebody who may do anything: for transactions that last.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn connect(&self) -> Client {
        self.try_connect().await.expect("the server can be reached")
    }

    async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.directory.path()).port(self.port).user("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        #[expect(clippy::disallowed_methods, reason = "it ends with the client")]
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether it came up; it does not when another process was faster on the port. Its socket is its own.
    async fn try_start(&mut self) -> bool {
        let mut command = self.command("postgres");
        command.args(["-D", "data", "-p", &self.port.to_string()]);
        let own = self.directory.path().to_string_lossy();
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("unix_socket_directories={own}"),
            "fsync=off",
            "shared_buffers=16MB",
            if self.is_secure { "ssl=on" } else { "ssl=off" },
        ] {
            command.args(["-c", setting]);
        }
        let mut process = Process::spawn(command);
        let mut ended = false;
        eventually("postgres answers", async || {
            ended = process.has_ended();
            ended || self.try_connect().await.is_ok()
        })
        .await;
        self.process = (!ended).then_some(process);
        self.process.is_some()
    }

    /// A file in its directory that nobody else may read.
    fn write(&self, name: &str, content: &[u8]) {
        let path = self.directory.path().join(name);
        fs::write(&path, content).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file has an owner");
        give(&path);
    }

    /// A program of PostgreSQL's, in the server's directory and as who may run it, which writes to its log.
    fn command(&self, program: &str) -> Command {
        let program = programs().join(program);
        let mut command = match account() {
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={user}"),
                    format!("--regid={group}"),
                    "--clear-groups".to_owned(),
                ]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        let log =
            File::options().create(true).append(true).open(self.log_file()).expect("a log can be written");
        command.current_dir(self.directory.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

/// Killed outright it would leave a segment of shared memory to the machine for good.
impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.process.is_some() {
            let mut end = self.command("pg_ctl");
            end.args(["-D", "data", "-m", "immediate", "stop"]);
            // One that does not end by this is killed.
            let _ = end.into_std().status();
        }
    }
}

/// Gives a file or a directory to whom the server runs as.
fn give(path: &Path) {
    if let Some((user, group)) = account() {
        chown(path, Some(user), Some(group)).expect("root can give a file away");
    }
}

/// The directory of the programs of the newest version.
fn programs() -> PathBuf {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().filter_map(Result::ok);
    let number = |path: &Path| path.file_name().and_then(|it| it.to_str()?.parse::<u32>().ok());
    let found = versions.map(|it| it.path()).filter(|it| it.join("bin/initdb").is_file());
    let newest = found.max_by_key(|path| number(path)).unwrap_or_else(|| {
        panic!(
            "postgresql is not installed, and this test needs a real one: ./scripts/test installs everything, or \
             apt-get install postgresql"
        )
    });
    newest.join("bin")
}

/// The user and the group that it runs as; none where it may run as whoever runs the tests.
fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("Linux has it").uid() != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("a machine has accounts");
    let line = accounts.lines().find_map(|line| line.strip_prefix(ACCOUNT)?.strip_prefix(':'));
    let mut fields = line.expect("Debian's package makes the account").split(':').skip(1);
    let mut id = || fields.next().and_then(|it| it.parse().ok()).expect("an account has numbers");
    Some((id(), id()))
}
