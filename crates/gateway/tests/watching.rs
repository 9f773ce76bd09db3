//! What operators see from the command line of a running node: `connections`, `channels`, `top`, and completions.

use std::path::Path;
use std::process::{Output, Stdio};

use fanfare_testbed::{Client, Gateway, eventually};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{Duration, timeout};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanfare");

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    timeout(Duration::from_secs(20), command.output()).await.expect("it ends by itself").expect("it starts")
}

fn printed(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("answers are text")
}

fn told(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("complaints are text")
}

/// A node whose API takes a key, which is in a file; its URL.
async fn node() -> (Gateway, String, tempfile::NamedTempFile) {
    let settings = ["node.name=node-a", "api.keys=a-key", "namespaces.room.presence=true"];
    let node = Gateway::start(Path::new(PROGRAM), &settings).await;
    let key = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(key.path(), "a-key\n").expect("it can be written");
    let api = format!("http://{}", node.internal());
    (node, api, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_channels_are_listed_for_people_and_for_programs() {
    let (node, api, key) = node().await;
    let key = key.path().to_str().unwrap();
    let mut client = Client::connect(node.public()).await;
    let _other = Client::connect(node.public()).await;
    client.subscribe("room:1").await;
    let session = client.welcome()["session"].as_str().unwrap().to_owned();

    let table = run(&["connections", "--api", &api, "--key-file", key]).await;
    assert!(
        printed(&table).starts_with("SESSION") && printed(&table).contains(&session),
        "{}",
        printed(&table)
    );
    assert_eq!(printed(&table).lines().count(), 3);
    let one = run(&["connections", "--api", &api, "--key", "a-key", "--channel", "room:1", "--json"]).await;
    let listed: Value = serde_json::from_str(printed(&one)).expect("one object a line");
    assert_eq!((&listed["session"], &listed["node"]), (&json!(session), &json!("node-a")));
    let named = run(&["connections", "--api", &api, "--key-file", key, "--session", &session]).await;
    assert!(printed(&named).contains("room:1"), "{}", printed(&named));
    let first = run(&["connections", "--api", &api, "--key-file", key, "--limit", "1"]).await;
    assert!(told(&first).contains("there are more"), "{}", told(&first));
    assert_eq!(printed(&first).lines().count(), 2);

    eventually("presence knows", async || {
        let listed = run(&["channels", "--api", &api, "--key-file", key, "room:*", "--json"]).await;
        printed(&listed).lines().any(|line| {
            serde_json::from_str::<Value>(line).unwrap()
                == json!({"channel": "room:1", "connections": 1, "users": 1})
        })
    })
    .await;
    let wrong = run(&["channels", "--api", &api, "--key", "another"]).await;
    assert!(!wrong.status.success() && told(&wrong).contains("401"), "{}", told(&wrong));
    let nobody = run(&["channels", "--api", "http://127.0.0.1:1"]).await;
    assert!(!nobody.status.success() && told(&nobody).contains("127.0.0.1:1"), "{}", told(&nobody));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_nodes_channels_and_who_is_slow() {
    let (node, api, key) = node().await;
    let key = key.path().to_str().unwrap();
    let mut client = Client::connect(node.public()).await;
    client.subscribe("room:1").await;
    let once = run(&["top", "--api", &api, "--key-file", key, "--count", "1"]).await;
    assert!(once.status.success(), "{}", told(&once));
    for part in ["1 nodes, 1 connections", "node-a", "ready", "SLOWEST"] {
        assert!(printed(&once).contains(part), "{part} in {}", printed(&once));
    }
    assert!(!printed(&once).contains('\u{1b}'), "no escape sequences where there is no terminal");
    let json = run(&["top", "--api", &api, "--key-file", key, "--count", "1", "--json"]).await;
    let view: Value = serde_json::from_str(printed(&json)).unwrap();
    assert_eq!((&view["nodes"][0]["node"], &view["unanswered"]), (&json!("node-a"), &json!([])));
}

/// On a terminal the view is drawn over the one before, and ^C ends it well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_is_live_on_a_terminal_until_it_is_interrupted() {
    let (_node, api, key) = node().await;
    let watch = format!("{PROGRAM} top --every 1 --api {api} --key-file {}", key.path().display());
    // util-linux' `script` gives it a terminal, and tells how it ended.
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &format!("exec {watch}"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script is part of every Linux");
    let mut out = terminal.stdout.take().unwrap();
    let mut seen = Vec::new();
    let views = |seen: &[u8]| String::from_utf8_lossy(seen).matches("\u{1b}[H").count();
    let drawn = async {
        while views(&seen) < 2 {
            assert_ne!(out.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
    };
    timeout(Duration::from_secs(20), drawn).await.expect("it is drawn again");
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("\u{1b}[2J") && text.contains("node-a"), "{text}");
    let mut typed = terminal.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut typed, b"\x03").await.unwrap();
    let rest = async {
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).await.unwrap();
        terminal.wait().await.unwrap()
    };
    assert!(timeout(Duration::from_secs(20), rest).await.expect("it ends").success());
}

#[tokio::test]
async fn completions_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).await;
        for command in ["connections", "channels", "top", "subscribe", "check-config"] {
            assert!(printed(&script).contains(command), "{command} for {shell}");
        }
    }
    let help = run(&["connections", "--help"]).await;
    assert!(printed(&help).contains("Examples:"), "{}", printed(&help));
}
