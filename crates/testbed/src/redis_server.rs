//! A `redis-server` that keeps nothing on disk, unless it is asked to.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::port::free_port;
use crate::process::Process;

/// How often another port is tried when the one picked was taken in between.
const ATTEMPTS: usize = 10;

/// A server of its own for one test.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    directory: TempDir,
    process: Option<Process>,
    data: Data,
}

/// What a server still knows when it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Forgotten,
    /// Everything it has answered for: its log of writes is with the kernel before an answer leaves.
    Kept,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    ///
    /// # Panics
    /// When it does not start; when `redis-server` is not installed the text says what installs it.
    pub async fn start() -> Self {
        Self::reserve().started().await
    }

    /// The same with its data kept over [`RedisServer::stop`] and [`RedisServer::start_again`].
    ///
    /// # Panics
    /// Those of [`RedisServer::start`].
    pub async fn start_durable() -> Self {
        Self { data: Data::Kept, ..Self::reserve() }.started().await
    }

    async fn started(mut self) -> Self {
        for _ in 0..ATTEMPTS {
            if self.try_start().await {
                return self;
            }
            self.port = free_port();
        }
        panic!("redis-server ends at once: {}", self.log());
    }

    /// Picks a port and starts nothing yet: [`RedisServer::start_again`] does.
    ///
    /// # Panics
    /// When no directory can be made for it.
    #[must_use]
    pub fn reserve() -> Self {
        let directory = TempDir::with_prefix("fanfare-redis-").expect("a temporary directory can be made");
        Self { port: free_port(), directory, process: None, data: Data::Forgotten }
    }

    /// Where it listens, on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address as the gateway's configuration has it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it: connections are reset, and nothing listens any more.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Deletes what a stopped server had kept.
    ///
    /// # Panics
    /// When it is running.
    pub fn forget(&self) {
        assert!(self.process.is_none(), "it is running");
        // Not there: nothing was written yet.
        let _ = std::fs::remove_dir_all(self.directory.path().join("appendonlydir"));
    }

    /// Starts it again on the same port, empty unless it is durable, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is running");
        assert!(self.try_start().await, "redis-server does not come back: {}", self.log());
    }

    /// CLIENT PAUSE: for so long it answers nothing, on any connection.
    pub async fn pause(&self, duration: Duration) {
        let () = self.query(cmd("CLIENT").arg("PAUSE").arg(duration.as_millis() as u64).arg("ALL")).await;
    }

    /// CLIENT KILL TYPE pubsub: cuts every connection that has a subscription, and returns how many there were.
    pub async fn kill_pubsub(&self) -> u64 {
        self.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    pub async fn freeze(&self) {
        self.running().freeze().await;
    }

    /// SIGCONT: undoes [`RedisServer::freeze`].
    pub async fn thaw(&self) {
        self.running().thaw().await;
    }

    /// How often it has run a command since its start, from INFO commandstats: `subscribe`, `publish`, ….
    ///
    /// # Panics
    /// When INFO says something unheard of.
    pub async fn calls(&self, command: &str) -> u64 {
        let stats: String = self.query(cmd("INFO").arg("commandstats")).await;
        let line = format!("cmdstat_{command}:calls=");
        stats.lines().find_map(|it| it.strip_prefix(&line)).map_or(0, |rest| {
            let digits = rest.split(',').next().unwrap_or_default();
            digits.parse().expect("a count of calls")
        })
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Panics
    /// When it cannot be run or answers with another type.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect().await;
        command.query_async(&mut connection).await.expect("the server answers as expected")
    }

    /// A connection to keep, for commands that have to be there at the right moment.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("the server can be reached")
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Whether it came up; it does not when another process was faster on the port.
    async fn try_start(&mut self) -> bool {
        let port = self.port.to_string();
        let append_only = if self.data == Data::Kept { "yes" } else { "no" };
        let arguments = [
            ["--port", &port],
            ["--bind", "127.0.0.1"],
            ["--save", ""],
            ["--appendonly", append_only],
            // An fsync under way would let answers leave before what they speak of is written.
            ["--appendfsync", "no"],
            ["--daemonize", "no"],
            ["--enable-debug-command", "yes"],
            ["--logfile", "redis.log"],
        ];
        let mut process = Process::start("redis-server", arguments.concat(), self.directory.path());
        let own = process.id();
        let mut ended = false;
        eventually("redis-server answers", async || {
            ended = process.has_ended();
            ended || self.process_id().await == Some(own)
        })
        .await;
        self.process = (!ended).then_some(process);
        self.process.is_some()
    }

    /// The process id that whoever listens on the port gives: somebody else's server must not pass for this one.
    async fn process_id(&self) -> Option<u32> {
        let mut connection = self.try_connect().await.ok()?;
        let info: String = cmd("INFO").arg("server").query_async(&mut connection).await.ok()?;
        info.lines().find_map(|line| line.strip_prefix("process_id:")).and_then(|id| id.trim().parse().ok())
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server was started and not stopped")
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("redis.log")).unwrap_or_default()
    }
}
