//! `SIGHUP` against a real process: what can be reloaded takes effect, what cannot is named, a mistake changes nothing,
//! and nobody is disconnected.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are tests as well")]

use std::path::PathBuf;
use std::process::Stdio;

use fanfare_testbed::{PATIENCE, Samples, eventually, http};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const RELOADED: &str = "configuration reloaded";
const IN_PART: &str = "configuration reloaded, but for keys that need a restart";
const REFUSED: &str = "the configuration is not reloaded: the one in force stays";

/// A node in a process of its own, its configuration file, and its log.
struct Gateway {
    child: Child,
    directory: TempDir,
    public: String,
    internal: String,
}

impl Gateway {
    async fn start(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("fanfare.toml"), configuration).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["--config", "fanfare.toml", "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"])
            .args(["--set", "log.format=json"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut gateway = Self { child, directory, public: String::new(), internal: String::new() };
        let serving = gateway.logged("serving", 1).await;
        gateway.public = serving["public"].as_str().unwrap().to_owned();
        gateway.internal = serving["internal"].as_str().unwrap().to_owned();
        gateway
    }

    /// Changes the file and hangs up.
    async fn reload(&self, configuration: &str, outcome: &str) -> Value {
        std::fs::write(self.path("fanfare.toml"), configuration).unwrap();
        self.hang_up(outcome).await
    }

    /// Sends SIGHUP; returns the line that says how it went.
    async fn hang_up(&self, outcome: &str) -> Value {
        let before = self.lines(outcome).len();
        let pid = self.child.id().expect("the node runs");
        let sent = Command::new("sh").args(["-c", &format!("kill -HUP {pid}")]).status().await.unwrap();
        assert!(sent.success());
        self.logged(outcome, before + 1).await
    }

    /// Waits for the line of the log that is the `count`th to say `message`.
    async fn logged(&self, message: &str, count: usize) -> Value {
        eventually(format!("{message:?} in the log"), async || self.lines(message).len() >= count).await;
        self.lines(message).swap_remove(count - 1)
    }

    fn lines(&self, message: &str) -> Vec<Value> {
        // The last line may be half written.
        let lines = self.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn connect(&self) -> Result<Client, Error> {
        let (socket, _) = connect_async(format!("ws://{}/ws", self.public)).await?;
        let mut client = Client(socket);
        assert_eq!(client.hear().await["type"], "welcome");
        Ok(client)
    }

    /// The status of a publication through the server API.
    /// What a series of the node's metrics says.
    async fn counts(&self, series: &str) -> f64 {
        Samples::of(self.internal.parse().unwrap()).await.value(series)
    }

    async fn publish(&self, key: &str) -> u16 {
        let key = format!("Authorization: Bearer {key}");
        let body = json!({"channel": "room:1", "data": 1}).to_string();
        http::post(self.internal.parse().unwrap(), "/api/publish", &[&key], &body).await.status
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn hear(&mut self) -> Value {
        loop {
            let heard =
                timeout(PATIENCE, self.0.next()).await.expect("something is said").expect("still open");
            if let Message::Text(text) = heard.unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// The answer to a command.
    async fn ask(&mut self, mut command: Value) -> Value {
        command["id"] = json!(1);
        self.0.send(Message::text(command.to_string())).await.unwrap();
        self.hear().await
    }

    async fn subscribe(&mut self, channel: &str) -> Value {
        self.ask(json!({"type": "subscribe", "channel": channel})).await
    }
}

fn refusal(outcome: Result<Client, Error>) -> u16 {
    match outcome {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("let in"),
    }
}

#[tokio::test]
async fn bounds_move_and_nobody_is_dropped() {
    let gateway = Gateway::start("[limits]\nconnections = 1\nchannels = 1\n").await;
    let mut first = gateway.connect().await.unwrap();
    assert_eq!(first.subscribe("room:1").await["type"], "subscribed");
    assert_eq!(first.subscribe("room:2").await["code"], 4422, "one channel is the most");
    assert_eq!(refusal(gateway.connect().await), 503);
    assert_eq!(gateway.counts("fanfare_connections_limit").await, 1.0);

    let line = gateway.reload("[limits]\nconnections = 2\nchannels = 2\n", RELOADED).await;
    assert_eq!(line["applied"], "limits.connections, limits.channels");
    assert_eq!(gateway.counts("fanfare_connections_limit").await, 2.0);
    let mut second = gateway.connect().await.unwrap();
    eventually("the session that exists has room for a channel", async || {
        first.subscribe("room:2").await["type"] == "subscribed"
    })
    .await;

    gateway.reload("[limits]\nconnections = 1\nchannels = 1\n", RELOADED).await;
    assert_eq!(refusal(gateway.connect().await), 503);
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    }
}

#[tokio::test]
async fn namespaces_hold_for_sessions_that_exist() {
    let gateway = Gateway::start("[namespaces.room]\n[namespaces.news]\n").await;
    let mut client = gateway.connect().await.unwrap();
    for channel in ["room:1", "news:1"] {
        assert_eq!(client.subscribe(channel).await["type"], "subscribed");
    }
    let line =
        gateway.reload("[namespaces.room]\n[namespaces.club]\nsubscribe = \"token\"\n", RELOADED).await;
    assert_eq!(line["applied"], "namespaces.club, namespaces.news");
    let told = client.hear().await;
    assert_eq!(
        (&told["type"], &told["channel"], &told["code"]),
        (&json!("unsubscribed"), &json!("news:1"), &json!(4404))
    );
    assert_eq!(client.subscribe("club:1").await["code"], 4403);
    let published = client.ask(json!({"type": "publish", "channel": "room:1", "data": 1})).await;
    assert!(["published", "message"].contains(&published["type"].as_str().unwrap()), "{published}");
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_all_are_told_in_one_line() {
    let gateway = Gateway::start("[limits]\nconnections = 1\n").await;
    let mut client = gateway.connect().await.unwrap();
    let line = gateway.reload("[limits]\nconnections = 5\nbatch = 0\n[lmits]\nchannels = 3\n", REFUSED).await;
    assert_eq!(line["level"], "ERROR");
    let mistakes = line["mistakes"].as_str().unwrap();
    assert!(mistakes.contains("limits.batch = 0") && mistakes.contains("lmits.channels"), "{mistakes}");
    assert_eq!(refusal(gateway.connect().await), 503, "the sound keys of a bad file are not taken either");
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");

    std::fs::remove_file(gateway.path("fanfare.toml")).unwrap();
    let line = gateway.hang_up(REFUSED).await;
    assert!(line["mistakes"].as_str().unwrap().contains("cannot be read"), "{line}");
    assert_eq!(refusal(gateway.connect().await), 503, "a file that is gone is not an empty one");

    gateway.reload("[limits]\nconnections = 2\n", RELOADED).await;
    gateway.connect().await.unwrap();
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_and_stay() {
    let gateway = Gateway::start("[limits]\nchannels = 3\n").await;
    let file = "[limits]\nchannels = 4\n[broker]\nkind = \"redis\"\n[redis]\nurls = [\"redis://:hunter2@127.0.0.1:1\"]\n";
    let line = gateway.reload(file, IN_PART).await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        (&line["applied"], &line["needs_restart"]),
        (&json!("limits.channels"), &json!("broker.kind, redis.urls"))
    );
    assert!(!gateway.log().contains("hunter2"));
    let ready = http::get(gateway.public.parse().unwrap(), "/ready").await;
    assert_eq!(ready.status, 200, "the broker is still the one of the start");
}

#[tokio::test]
async fn api_keys_rotate() {
    let gateway = Gateway::start("[api]\nkeys = [\"first-key\"]\n").await;
    assert_eq!((gateway.publish("first-key").await, gateway.publish("second-key").await), (200, 401));
    gateway.reload("[api]\nkeys = [\"first-key\", \"second-key\"]\n", RELOADED).await;
    assert_eq!((gateway.publish("first-key").await, gateway.publish("second-key").await), (200, 200));
    let line = gateway.reload("[api]\nkeys = [\"second-key\"]\n", RELOADED).await;
    assert_eq!((gateway.publish("first-key").await, gateway.publish("second-key").await), (401, 200));
    assert_eq!(line["applied"], "api.keys");
    assert!(!gateway.log().contains("-key"), "keys are secret");
}

#[tokio::test]
async fn the_log_changes_its_level() {
    let gateway = Gateway::start("").await;
    drop(gateway.connect().await.unwrap());
    gateway.reload("[log]\nlevel = \"info,fanfare_gateway=debug\"\n", RELOADED).await;
    let before = gateway.lines("connection ended").len();
    drop(gateway.connect().await.unwrap());
    gateway.logged("connection ended", before + 1).await;
}

#[tokio::test]
async fn origins_are_those_of_the_new_file() {
    let gateway = Gateway::start("[origin]\nallow = [\"https://a.example\"]\n").await;
    let status = async |origin: &str| {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: fanfare\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: {origin}\r\n\r\n"
        );
        http::exchange(gateway.public.parse().unwrap(), request.as_bytes()).await.unwrap().status
    };
    assert_eq!((status("https://a.example").await, status("https://b.example").await), (101, 403));
    gateway.reload("[origin]\nallow = [\"https://b.example\"]\n", RELOADED).await;
    assert_eq!((status("https://a.example").await, status("https://b.example").await), (403, 101));
}
