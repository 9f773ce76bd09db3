//! A `redis-server` that keeps nothing on disk, unless it is asked to.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};
use tempfile::TempDir;

use crate::authority::{Authority, Certificate, GOOD};
use crate::eventually::eventually;
use crate::port::free_port;
use crate::process::Process;

/// How often another port is tried when the one picked was taken in between.
const ATTEMPTS: usize = 10;

/// A server of its own for one test.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    /// Where it speaks TLS.
    secure_port: Option<u16>,
    cluster_port: Option<u16>,
    directory: TempDir,
    process: Option<Process>,
    /// Beyond those that every server gets.
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    ///
    /// # Panics
    /// When it does not start; when `redis-server` is not installed the text says what installs it.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments: `--replicaof`, `127.0.0.1`, `6379`, ….
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::reserve();
        server.arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        server.try_on().await;
        server
    }

    /// The same with TLS on a port of its own beside the other, which is for the test itself, and with a certificate of this
    /// authority.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_secure(authority: &Authority, arguments: &[&str]) -> Self {
        let mut server = Self::reserve();
        server.secure_port = Some(free_port());
        let arguments = arguments.iter().map(|&it| it.to_owned());
        server.arguments = tls(authority).into_iter().chain(arguments).collect();
        server.try_on().await;
        server
    }

    /// Starts it on one port or another.
    async fn try_on(&mut self) {
        for _ in 0..ATTEMPTS {
            if self.try_start().await {
                return;
            }
            self.port = free_port();
            self.secure_port = self.secure_port.map(|_| free_port());
        }
        panic!("redis-server ends at once: {}", self.log());
    }

    /// The same with its data kept over [`RedisServer::stop`] and [`RedisServer::start_again`]: everything it has answered
    /// for, since its log of writes is with the kernel before an answer leaves. (An fsync under way would let answers leave
    /// before that.)
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "no"]).await
    }

    /// Starts a Sentinel that watches the primary on a port, needs one more of its kind to agree that it is down, and
    /// waits until it answers. With an authority it speaks TLS, to the primary as well.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub(crate) async fn start_sentinel(
        name: &str,
        primary: u16,
        down_after: Duration,
        authority: Option<&Authority>,
    ) -> Self {
        let mut server = Self::reserve();
        let file = server.directory.path().join("sentinel.conf");
        let milliseconds = down_after.as_millis();
        server.secure_port = authority.map(|_| free_port());
        let lines = format!(
            "sentinel monitor {name} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {name} {milliseconds}\n\
             sentinel failover-timeout {name} 3000\n"
        );
        std::fs::write(&file, lines).expect("a file can be written");
        server.arguments = vec![file.to_string_lossy().into_owned(), "--sentinel".to_owned()];
        server.arguments.extend(authority.map(tls).into_iter().flatten());
        assert!(server.try_start().await, "a sentinel does not start: {}", server.log());
        server
    }

    /// Starts an empty node of a Redis Cluster, which knows no other, and waits until it answers. Its bus has a port of
    /// its own: that of its clients and 10,000 is where the kernel takes ports for outgoing connections. With an authority it
    /// speaks TLS as well.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub(crate) async fn start_cluster_node(node_timeout: Duration, authority: Option<&Authority>) -> Self {
        let mut server = Self::reserve();
        let secure: Vec<_> = authority.map(tls).into_iter().flatten().collect();
        let milliseconds = node_timeout.as_millis().to_string();
        for _ in 0..ATTEMPTS {
            let bus = free_port();
            let arguments = [
                ["--cluster-enabled", "yes"],
                ["--cluster-port", &bus.to_string()],
                ["--cluster-node-timeout", &milliseconds],
                ["--cluster-replica-validity-factor", "0"],
                ["--cluster-allow-replica-migration", "no"],
                ["--repl-diskless-sync-delay", "0"],
            ];
            let arguments = arguments.concat().into_iter().map(str::to_owned);
            server.arguments = arguments.chain(secure.iter().cloned()).collect();
            server.cluster_port = Some(bus);
            server.secure_port = authority.map(|_| free_port());
            if bus != server.port && server.try_start().await {
                return server;
            }
            server.port = free_port();
        }
        panic!("a node of a cluster ends at once: {}", server.log());
    }

    /// Where a node of a cluster talks to the others; none for other servers.
    pub(crate) fn cluster_port(&self) -> Option<u16> {
        self.cluster_port
    }

    /// Whether it was started and not stopped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Picks a port and starts nothing yet: [`RedisServer::start_again`] does.
    ///
    /// # Panics
    /// When no directory can be made for it.
    #[must_use]
    pub fn reserve() -> Self {
        let directory = TempDir::with_prefix("fanfare-redis-").expect("a temporary directory can be made");
        Self {
            port: free_port(),
            secure_port: None,
            cluster_port: None,
            directory,
            process: None,
            arguments: Vec::new(),
        }
    }

    /// Where it listens, on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens for those that speak TLS, if it does, and otherwise for all.
    #[must_use]
    pub fn service_port(&self) -> u16 {
        self.secure_port.unwrap_or(self.port)
    }

    /// Its address as the gateway's configuration has it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.secure_port.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.service_port())
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

    /// How many commands it has run since its start, those of scripts among them.
    ///
    /// # Panics
    /// When INFO says something unheard of.
    pub async fn commands(&self) -> u64 {
        let stats: String = self.query(cmd("INFO").arg("stats")).await;
        let count = stats.lines().find_map(|it| it.strip_prefix("total_commands_processed:"));
        count.and_then(|it| it.trim().parse().ok()).expect("a count of commands")
    }

    /// Waits until a replica has everything that was written so far. WAIT alone is about what its own connection has written,
    /// and after a full synchronization a replica that counts as online may get nothing for a second.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn is_copied(&self) {
        let mut connection = self.connect().await;
        let () = cmd("SET").arg("copied").arg(1).query_async(&mut connection).await.expect("it takes writes");
        let copies = cmd("WAIT").arg(1).arg(5_000).query_async(&mut connection).await;
        assert!(copies.is_ok_and(|copies: u64| copies >= 1), "no replica follows");
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Panics
    /// When it cannot be run or answers with another type.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect().await;
        command.query_async(&mut connection).await.expect("the server answers as expected")
    }

    /// The same for a server that may be away or cut connections: `None` then.
    pub async fn try_query<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut connection = self.try_connect().await.ok()?;
        command.query_async(&mut connection).await.ok()
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
        Client::open(("127.0.0.1", self.port))?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Whether it came up; it does not when another process was faster on the port.
    async fn try_start(&mut self) -> bool {
        let port = self.port.to_string();
        let arguments = [
            ["--port", &port],
            ["--bind", "127.0.0.1"],
            ["--save", ""],
            ["--daemonize", "no"],
            ["--enable-debug-command", "yes"],
            ["--logfile", "redis.log"],
        ];
        // Its own first: a configuration file has to be.
        let own = self.arguments.iter().map(String::as_str);
        let secure_port = self.secure_port.map(|port| port.to_string());
        let secure = secure_port.iter().flat_map(|port| ["--tls-port", port]);
        let arguments = own.chain(arguments.concat()).chain(secure);
        let mut process = Process::start("redis-server", arguments, self.directory.path());
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

    /// The process id that whoever listens on the port gives, as soon as it works: somebody else's server must not pass for
    /// this one.
    async fn process_id(&self) -> Option<u32> {
        let mut connection = self.try_connect().await.ok()?;
        let info: String = cmd("INFO").query_async(&mut connection).await.ok()?;
        if info.lines().any(|line| line.trim() == "loading:1") {
            return None; // It refuses all else until its data are there.
        }
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

/// What has a server speak TLS with clients that need no certificate, and with its like.
fn tls(authority: &Authority) -> Vec<String> {
    let Certificate { cert, key } = authority.issue("redis", GOOD);
    let files =
        [("--tls-cert-file", cert), ("--tls-key-file", key), ("--tls-ca-cert-file", authority.file())];
    let words = [("--tls-auth-clients", "no"), ("--tls-replication", "yes"), ("--tls-cluster", "yes")];
    let files = files.map(|(name, file)| [name.to_owned(), file.to_string_lossy().into_owned()]);
    files.into_iter().chain(words.map(|(name, word)| [name.to_owned(), word.to_owned()])).flatten().collect()
}
