//! What operators see from the command line of a running node: `connections`, `channels`, `top`; and completions in real shells.

use std::path::Path;
use std::process::{Output, Stdio};

use fanfare_testbed::{Client, Gateway, RedisServer, eventually, http};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{Duration, timeout};

#[path = "watching/tracing.rs"]
mod tracing;

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
    for part in ["1 node, 1 connection, ", "node-a", "ready", "SLOWEST"] {
        assert!(printed(&once).contains(part), "{part} in {}", printed(&once));
    }
    assert!(!printed(&once).contains('\u{1b}'), "no escape sequences where there is no terminal");
    let json = run(&["top", "--api", &api, "--key-file", key, "--count", "1", "--json"]).await;
    let view: Value = serde_json::from_str(printed(&json)).unwrap();
    assert_eq!((&view["nodes"][0]["node"], &view["unanswered"]), (&json!("node-a"), &json!([])));
}

/// On a terminal the view is drawn over the one before, whether or not the node answers, and ^C ends it well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_is_live_on_a_terminal_until_it_is_interrupted() {
    let (node, api, key) = node().await;
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
    node.kill().await;
    let before = seen.len();
    let told = async {
        // The last view stays below.
        while !String::from_utf8_lossy(&seen[before..])
            .split_once("trying on")
            .is_some_and(|(_, below)| below.contains("node-a"))
        {
            assert_ne!(out.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
    };
    timeout(Duration::from_secs(20), told).await.expect("it says that nobody answers");
    let mut typed = terminal.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut typed, b"\x03").await.unwrap();
    let rest = async {
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).await.unwrap();
        terminal.wait().await.unwrap()
    };
    assert!(timeout(Duration::from_secs(20), rest).await.expect("it ends").success());
}

/// What bash offers for a line that ends in the middle of a word.
const BASH: &str = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _fanfare fanfare \"${*: -1}\" \"${*: -2:1}\"; \
                    printf '%s\\n' \"${COMPREPLY[@]}\"";

/// The same of fish, which takes the line as it is.
const FISH: &str = "source $argv[1]; complete -C \"$argv[2..]\"";

/// zsh offers something to a terminal alone. Whatever it writes there is printed until it is what has to come, which `timeout` bounds.
const ZSH: &str = r#"
zmodload zsh/zpty
export TERM=dumb
zpty shell zsh -f -i
zpty -w shell "PS1='> '; fpath=(${1:h} \$fpath); autoload -U compinit; compinit -u -D; print rea''dy"
zpty -r -m shell out '*ready*'
zpty -w -n shell "${(j: :)@[3,-1]}"$'\t'
zpty -r -m shell out "*$2*"
print -r -- $out
"#;

/// The real shells, asked what they offer for the beginning of a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shells_complete_commands_and_flags() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let lines = [
        (&["fanfare", "con"][..], "connections"),
        (&["fanfare", "check"], "check-config"),
        (&["fanfare", "bench", "--ra"], "--rate"),
        (&["fanfare", "token", "--allo"], "--allow"),
        (&["fanfare", "top", "--js"], "--json"),
    ];
    for (shell, flags, program) in [
        ("bash", &["--norc", "-c"][..], BASH),
        ("fish", &["--no-config", "-c"], FISH),
        ("zsh", &["-f", "-c"], ZSH),
    ] {
        let script = run(&["completions", shell]).await;
        let file = directory.path().join("_fanfare");
        std::fs::write(&file, printed(&script)).expect("a file can be written");
        for (line, expected) in lines {
            let mut asked = Command::new("timeout");
            asked.arg("60").arg(shell).args(flags).arg(program).kill_on_drop(true).stdin(Stdio::null());
            // What follows a program are its arguments, after a name for it but in fish.
            asked.args((shell != "fish").then_some(shell)).arg(&file);
            asked.args((shell == "zsh").then_some(expected)).args(line);
            let offered = asked.output().await.unwrap_or_else(|error| {
                panic!("{shell}: {error}: ./scripts/test installs it, or apt-get install {shell}")
            });
            assert!(printed(&offered).contains(expected), "{shell}: {line:?}: {offered:?}");
        }
    }
}

/// Frozen, a node's kernel still takes connections, and the others have heard from it only just: nobody hangs, and it is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_frozen_is_named_by_whoever_asks_another() {
    let redis = RedisServer::start().await;
    let start = async |name: &str| {
        let (name, url) = (format!("node.name={name}"), format!("redis.urls={}", redis.url()));
        let settings = [name.as_str(), "broker.kind=redis", &url];
        Gateway::start(Path::new(PROGRAM), &settings).await
    };
    let (a, b) = (start("a").await, start("b").await);
    let (mut here, there) = (Client::connect(a.public()).await, Client::connect(b.public()).await);
    let ask =
        async |method: &str| http::post(a.internal(), &format!("/api/{method}"), &[], "{}").await.json();
    let found = async || {
        let page = ask("connections").await;
        let nodes: Vec<_> =
            page["connections"].as_array().expect("a list").iter().map(|it| it["node"].clone()).collect();
        (json!(nodes), page["unanswered"].clone())
    };
    eventually("both answer", async || found().await == (json!(["a", "b"]), json!([]))).await;
    eventually("it is named while it is frozen", async || {
        // One that has been silent for long is not listed at all: again, if this machine was as slow as that.
        b.thaw().await;
        eventually("both are known", async || {
            ask("nodes").await["nodes"].as_array().expect("a list").len() == 2
        })
        .await;
        b.freeze().await;
        found().await == (json!(["a"]), json!(["b"]))
    })
    .await;
    let listed = run(&["connections", "--api", &format!("http://{}", a.internal())]).await;
    assert!(
        printed(&listed).contains(here.welcome()["session"].as_str().expect("a name")),
        "{}",
        printed(&listed)
    );
    here.publish("room:1", json!("others go on")).await;
    b.thaw().await;
    eventually("both answer again", async || found().await == (json!(["a", "b"]), json!([]))).await;
    there.close().await;
}

/// A load of some messages: heard by all, once, and told for people and for programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_says_what_was_published_and_that_all_of_it_was_heard() {
    let settings = ["limits.messages_per_second=0"];
    let node = Gateway::start(Path::new(PROGRAM), &settings).await;
    let url = format!("ws://{}/ws", node.public());
    let load =
        ["--connections", "10", "--channels", "4", "--publishers", "3", "--rate", "60", "--seconds", "1"];
    let output = run(&[&["bench", "--url", &url, "--json"], &load[..]].concat()).await;
    assert!(output.status.success(), "{}{}", printed(&output), told(&output));
    let report: Value = serde_json::from_str(printed(&output)).expect("one object");
    let count = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
    // Whatever was due within the second, however late it was sent: a channel has two subscribers or three.
    assert_eq!(count("published"), 60);
    assert!((120..=180).contains(&count("expected")), "{report}");
    assert_eq!((count("heard"), count("lost"), count("disordered")), (count("expected"), 0, 0), "{report}");
    assert!(report["latency_ms"]["p50"].as_f64() <= report["latency_ms"]["max"].as_f64(), "{report}");
    assert_eq!(told(&output), "", "progress is for terminals");

    let output = run(&[&["bench", "--url", &url], &load[..]].concat()).await;
    for part in ["10 subscribers in 4 channels", "published          60", "lost                0", "p99"] {
        assert!(printed(&output).contains(part), "{part:?} in {}", printed(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_fails_where_not_everything_is_published() {
    // Clients do not publish in this namespace, and there is no other.
    let node = Gateway::start(Path::new(PROGRAM), &["namespaces.quiet.publish=none"]).await;
    let url = format!("ws://{}/ws", node.public());
    let small = ["--connections", "2", "--channels", "1", "--rate", "10", "--seconds", "1"];
    let quiet = run(&[&["bench", "--url", &url, "--channel", "quiet:a"], &small[..]].concat()).await;
    assert!(!quiet.status.success());
    assert!(
        printed(&quiet).contains("failed             10") && printed(&quiet).contains("4403"),
        "{}",
        printed(&quiet)
    );
    assert!(told(&quiet).contains("not everything"), "{}", told(&quiet));
    let nowhere = run(&[&["bench", "--url", &url], &small[..]].concat()).await;
    assert!(!nowhere.status.success() && told(&nowhere).contains("no namespace"), "{}", told(&nowhere));
    let many = run(&["bench", "--url", &url, "--connections", "1", "--channels", "2"]).await;
    assert!(!many.status.success() && told(&many).contains("at least one"), "{}", told(&many));
}

/// The level is another one for a while, and what it shows then says of whom it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_logs_more_for_a_while_when_it_is_asked_to() {
    let (node, api, key) = node().await;
    let key = key.path().to_str().unwrap();
    let level = async |arguments: &[&str]| {
        let output = run(&[&["log-level", "--api", &api, "--key-file", key], arguments].concat()).await;
        assert!(output.status.success(), "{}", told(&output));
        printed(&output).to_owned()
    };
    let logged = |session: &str| {
        let log = node.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["session"] == session)
            .map(|line| line["message"].clone())
            .collect::<Vec<_>>()
    };
    let visit = async || {
        let client = Client::connect(node.public()).await;
        let session = client.welcome()["session"].as_str().unwrap().to_owned();
        client.close().await;
        session
    };
    let before = visit().await;
    assert_eq!(level(&[]).await, "info, as configured\n");
    assert_eq!(
        level(&["info,fanfare_gateway=debug", "--seconds", "600"]).await,
        "info,fanfare_gateway=debug, for 600 s\n"
    );
    assert!(level(&[]).await.starts_with("info,fanfare_gateway=debug, for "));
    let shown = visit().await;
    eventually("it is logged", async || logged(&shown) == ["connection opened", "connection ended"]).await;
    assert_eq!(logged(&before), [""; 0]);
    level(&["debug", "--seconds", "1"]).await;
    eventually("it is what is configured again", async || level(&[]).await == "info, as configured\n").await;
    let after = visit().await;
    let last = visit().await;
    assert!(logged(&after).is_empty() && logged(&last).is_empty());
    let loud = run(&["log-level", "loud", "--api", &api, "--key-file", key]).await;
    assert!(!loud.status.success() && told(&loud).contains("directives such as"), "{}", told(&loud));
}
