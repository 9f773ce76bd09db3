//! The program as an operator meets it: its subcommands, exit codes and complaints.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use fanfare_testbed::raw_peer::RawPeer;
use fanfare_testbed::{Gateway, free_port, http};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanfare");

/// Runs the program to its end, with no environment but these variables.
async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    timeout(Duration::from_secs(20), command.output()).await.expect("it ends by itself").expect("it starts")
}

fn told(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("complaints are text")
}

fn printed(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("answers are text")
}

/// A configuration file that goes with the test.
fn file(text: &str) -> tempfile::TempPath {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file can be made");
    std::fs::write(file.path(), text).expect("it can be written");
    file.into_temp_path()
}

#[tokio::test]
async fn check_config_accepts_what_is_good() {
    let output = run(&["check-config"], &[]).await;
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(
        printed(&output),
        "the configuration is good: serving on loopback only, memory broker, anonymous clients, every channel open\n"
    );
    let file = file("[limits]\nconnections = 10\n[namespaces.room]\npublish = \"anyone\"\n");
    let output = run(&["check-config", "--config", file.to_str().unwrap()], &[]).await;
    assert!(printed(&output).ends_with("channels of 1 namespace\n"), "{}", printed(&output));
}

/// Whoever mends a configuration wants to hear of everything at once, each with its place.
#[tokio::test]
async fn check_config_tells_every_mistake_at_once() {
    let file = file("[limits]\nconections = 10\nchannels = 5.7\n");
    let path = file.to_str().unwrap();
    let arguments = ["check-config", "--config", path, "--set", "broker.kind=carrier-pigeon"];
    let output = run(&arguments, &[("FANFARE__HEARTBEAT__INTERVAL_SECONDS", "soon")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(printed(&output), "");
    for part in [
        "limits.connections", // The nearest name to the unknown one.
        "limits.channels",
        "5.7",
        "carrier-pigeon",
        "FANFARE__HEARTBEAT__INTERVAL_SECONDS",
        path,
    ] {
        assert!(told(&output).contains(part), "{part} is missing:\n{}", told(&output));
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_mistake() {
    for command in ["check-config", "serve"] {
        let output = run(&[command, "--config", "no/such/file.toml"], &[]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains("no/such/file.toml"), "{}", told(&output));
    }
}

#[tokio::test]
async fn the_default_file_is_accepted_and_changes_nothing() {
    let defaults = run(&["default-config"], &[]).await;
    assert!(defaults.status.success());
    let file = file(printed(&defaults));
    let with_it = run(&["check-config", "--config", file.to_str().unwrap()], &[]).await;
    assert!(with_it.status.success(), "{}", told(&with_it));
    assert_eq!(printed(&with_it), printed(&run(&["check-config"], &[]).await));
}

#[tokio::test]
async fn it_does_not_open_itself_to_the_world_unless_told_so() {
    for (arguments, named) in [
        (&["--listen", "0.0.0.0:0"][..], "anonymous = true"),
        (&["--listen", "[::]:0"], "anonymous = true"),
        (&["--internal", "0.0.0.0:0"], "api.keys"),
        (&["echo", "--listen", "0.0.0.0:0", "--set", "auth.anonymous=true"], "no loopback address"),
    ] {
        let output = run(arguments, &[]).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(told(&output).contains(named), "{arguments:?}: {}", told(&output));
    }
    let told_so = ["check-config", "--listen", "0.0.0.0:0", "--set", "auth.anonymous=true"];
    assert!(run(&told_so, &[]).await.status.success());
}

/// Whoever opens a node to the world opens what clients need, and nothing else.
#[tokio::test]
async fn what_is_open_to_the_world_shows_no_page_and_nothing_internal() {
    let open = ["listen.public=0.0.0.0:0", "auth.anonymous=true"];
    let gateway = Gateway::start(Path::new(PROGRAM), &open).await;
    for path in ["/", "/console/app.js", "/metrics", "/api/publish", "/echo", "//metrics", "/api/../metrics"]
    {
        assert_eq!(http::get(gateway.public(), path).await.status, 404, "{path}");
        let published = http::post(gateway.public(), path, &[], r#"{"channel":"a","data":1}"#).await;
        assert_eq!(published.status, 404, "{path}");
    }
    assert!(gateway.internal().ip().is_loopback());
}

/// The page may load from its own origin and be framed by nobody; and no answer is taken for something else than it says it is.
#[tokio::test]
async fn answers_tell_browsers_what_not_to_do() {
    let gateway = Gateway::start(Path::new(PROGRAM), &[]).await;
    let page = http::get(gateway.public(), "/").await;
    let policy = page.header("Content-Security-Policy").expect("a policy");
    for rule in ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.split("; ").any(|it| it == rule), "{rule} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"));
    for path in ["/", "/status", "/health", "/poll?channel=a", "/poll", "/nowhere"] {
        let answer = http::get(gateway.public(), path).await;
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn health_exits_as_the_node_is() {
    let gateway = Gateway::start(Path::new(PROGRAM), &[]).await;
    let base = format!("http://{}", gateway.public());
    let output = run(&["health", "--url", &format!("{base}/health")], &[]).await;
    assert!(output.status.success(), "{}", told(&output));

    let nowhere = format!("http://127.0.0.1:{}/health", free_port());
    for (url, part) in [
        (format!("{base}/nothing"), "answers 404"),
        (nowhere, "refused"),
        ("https://127.0.0.1/health".into(), "must be a URL such as"),
        ("no url".into(), "not a URL"),
    ] {
        let output = run(&["health", "--url", &url], &[]).await;
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(told(&output).contains(part), "{url}: {}", told(&output));
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let gateway = Gateway::start(Path::new(PROGRAM), &[]).await;
    let taken = gateway.public().to_string();
    for (flag, key) in [("--listen", "listen.public"), ("--internal", "listen.internal")] {
        let other = if flag == "--listen" { "--internal" } else { "--listen" };
        let output = run(&[flag, &taken, other, "127.0.0.1:0"], &[]).await;
        assert_eq!(output.status.code(), Some(1), "{flag}");
        for part in [key, &taken, "in use"] {
            assert!(told(&output).contains(part), "{flag}: {part} is missing: {}", told(&output));
        }
    }
}

#[tokio::test]
async fn sigterm_drains_and_a_second_one_stops_at_once() {
    let patient = ["node.drain_seconds=3600", "limits.close_seconds=60"];
    let mut gateway = Gateway::start(Path::new(PROGRAM), &patient).await;
    // It does not answer the Close, and the drain would wait a minute for that.
    let mut stubborn = RawPeer::connect(gateway.public()).await;
    gateway.terminate().await;
    assert_eq!(stubborn.until_close().await.1, Some(1001), "it drains");
    gateway.terminate().await;
    assert!(gateway.ended().await.success());
    assert!(gateway.log().contains("told twice"), "{}", gateway.log());
}

#[tokio::test]
async fn an_idle_node_stops_at_once_and_well() {
    let mut gateway = Gateway::start(Path::new(PROGRAM), &["node.drain_seconds=3600"]).await;
    gateway.terminate().await;
    assert!(gateway.ended().await.success(), "{}", gateway.log());
}

/// One line says how open the node is; a password in a URL is never among what is logged.
#[tokio::test]
async fn the_log_says_how_open_the_node_is_and_no_secret() {
    let settings = [
        "broker.kind=redis",
        "redis.urls=redis://:hunter2@127.0.0.1:1",
        "api.keys=open-sesame",
        "log.level=trace",
    ];
    let mut gateway = Gateway::start(Path::new(PROGRAM), &settings).await;
    gateway.terminate().await;
    gateway.ended().await;
    let log = gateway.log();
    assert!(
        log.contains("serving on loopback only, redis broker, anonymous clients, every channel open"),
        "{log}"
    );
    assert!(!log.contains("hunter2") && !log.contains("open-sesame"), "{log}");
}

/// A listener, and publishers by argument, by line and by key, in people's words and in JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_in_one_terminal_is_printed_in_another() {
    let gateway = Gateway::start(Path::new(PROGRAM), &[]).await;
    let url = format!("ws://{}/ws", gateway.public());
    let mut listening = Command::new(PROGRAM);
    listening.args(["subscribe", "room:1", "room:2", "--json", "--url", &url]).env_clear();
    let mut listening = listening.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
    let mut lines = BufReader::new(listening.stdout.take().expect("it is piped")).lines();
    let mut next = async || {
        let line = timeout(Duration::from_secs(20), lines.next_line()).await.expect("it prints").unwrap();
        serde_json::from_str::<Value>(&line.expect("it goes on")).unwrap()
    };
    for _ in 0..2 {
        assert_eq!(next().await["type"], "subscribed");
    }
    let published = run(&["publish", "room:1", "{\"n\": 1.50}", "--key", "k", "--url", &url], &[]).await;
    assert!(printed(&published).starts_with("room:1 #1 of "), "{} {}", printed(&published), told(&published));
    let again = run(&["publish", "room:1", "2", "--key", "k", "--json", "--url", &url], &[]).await;
    let again: Value = serde_json::from_str(printed(&again)).unwrap();
    assert_eq!(again["position"]["offset"], 1, "the same key is published once");
    let heard = next().await;
    assert_eq!((&heard["channel"], &heard["offset"]), (&json!("room:1"), &json!(1)), "{heard}");
    assert_eq!(heard["data"], json!({"n": 1.5}));

    let mut typing = Command::new(PROGRAM);
    typing.args(["publish", "room:2", "-", "--url", &url]).env_clear().stdin(Stdio::piped());
    let mut typing = typing.stdout(Stdio::null()).spawn().expect("it starts");
    typing.stdin.take().expect("it is piped").write_all(b"hello\n[1]\n").await.unwrap();
    assert!(typing.wait().await.unwrap().success());
    assert_eq!((next().await["data"].clone(), next().await["data"].clone()), (json!("hello"), json!([1])));

    let people = run(&["subscribe", "room:1", "--rewind", "1", "--since", "e:1", "--url", &url], &[]).await;
    assert!(told(&people).contains("cannot be used with"), "{}", told(&people));
    let refused = run(&["publish", "no name", "1", "--url", &url], &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("4400 bad_request"), "{}", told(&refused));
    let nobody = format!("ws://127.0.0.1:{}/ws", free_port());
    let alone = run(&["publish", "a", "1", "--timeout", "1", "--url", &nobody], &[]).await;
    assert!(told(&alone).contains("is a node running there?"), "{}", told(&alone));
    let bad = run(&["subscribe", "a", "--url", "http://127.0.0.1:8000/ws"], &[]).await;
    assert!(told(&bad).contains("ws://127.0.0.1:8000/ws or wss://"), "{}", told(&bad));
}

/// Every command that people use, and one of which they have to know more than its name.
const COMMANDS: [&str; 16] = [
    "serve",
    "check-config",
    "default-config",
    "import-centrifugo",
    "token",
    "subscribe",
    "publish",
    "connections",
    "channels",
    "top",
    "log-level",
    "trace",
    "bench",
    "outbox-sql",
    "completions",
    "health",
];

#[tokio::test]
async fn the_help_of_every_command_teaches_by_example_and_says_what_programs_get() {
    let all = run(&["--help"], &[]).await;
    assert!(
        printed(&all).contains("Examples:") && printed(&all).contains("Exit codes: 0"),
        "{}",
        printed(&all)
    );
    let listed = printed(&all).lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.trim().is_empty());
    // A description goes on further to the right.
    let listed: Vec<_> = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).collect();
    let listed: Vec<_> = listed.iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, [&COMMANDS[..], &["help"]].concat(), "{}", printed(&all));
    for command in COMMANDS {
        let help = run(&[command, "--help"], &[]).await;
        let example = format!("\n  fanfare {command}");
        let has_example =
            printed(&help).contains(&example) || printed(&help).contains(&format!("| fanfare {command}"));
        assert!(printed(&help).contains("Examples:") && has_example, "{command}: {}", printed(&help));
        assert!(printed(&help).contains("--json"), "{command}: {}", printed(&help));
    }
}

/// A program reads what is printed and what went wrong, whichever command it runs.
#[tokio::test]
async fn every_command_that_ends_by_itself_answers_in_json() {
    let gateway = Gateway::start(Path::new(PROGRAM), &["namespaces.room.publish=anyone"]).await;
    let [health, socket, api] = [
        format!("http://{}/health", gateway.public()),
        format!("ws://{}/ws", gateway.public()),
        format!("http://{}", gateway.internal()),
    ];
    let old = file("{\"allowed_origins\": [\"https://a.example\"], \"shutdown\": {\"timeout\": \"7s\"}}");
    let secret = "auth.jwt.hmac_secret=a-secret-of-this-test-and-no-other";
    for (arguments, pointer) in [
        (&["check-config"][..], "/summary"),
        (&["default-config"], "/0/key"),
        (&["import-centrifugo", old.to_str().unwrap()], "/toml"),
        (&["token", "--user", "ann", "--set", secret], "/claims/sub"),
        (&["publish", "room:1", "1", "--url", &socket], "/channel"),
        (&["top", "--count", "1", "--api", &api], "/nodes/0/node"),
        (&["log-level", "--api", &api], "/level"),
        (
            &["bench", "--url", &socket, "--seconds", "1", "--rate", "1", "--channel", "room:bench"],
            "/latency_ms/p50",
        ),
        (&["outbox-sql", "--table", "orders"], "/sql"),
        (&["completions", "bash"], "/script"),
        (&["health", "--url", &health], "/status"),
    ] {
        let output = run(&[arguments, &["--json"]].concat(), &[]).await;
        let lines: Vec<Value> = printed(&output)
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        assert!(lines.len() == 1 && lines[0].pointer(pointer).is_some(), "{arguments:?}: {output:?}");
    }
    for (arguments, part) in [
        (&["check-config", "--set", "limits.conections=1"][..], "limits.connections"),
        (&["token", "--user", "ann"], "auth.jwt.hmac_secret"),
        (&["publish", "no name", "1", "--url", &socket], "4400"),
        (&["channels", "--api", "http://127.0.0.1:1"], "--api"),
        (&["health", "--url", "no url"], "not a URL"),
    ] {
        let output = run(&[arguments, &["--json"]].concat(), &[]).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let complaint: Value = serde_json::from_str(told(&output)).expect("a line of JSON");
        assert!(
            complaint["error"].as_str().is_some_and(|it| it.contains(part)),
            "{arguments:?}: {complaint}"
        );
    }
    let mistakes = run(&["check-config", "--json", "--set", "a=1", "--set", "b=2"], &[]).await;
    let report: Value = serde_json::from_str(printed(&mistakes)).expect("a line of JSON");
    assert_eq!((&report["good"], report["mistakes"].as_array().map(Vec::len)), (&json!(false), Some(2)));
}

#[tokio::test]
async fn the_exit_code_tells_what_is_done_what_has_failed_and_what_is_not_understood() {
    for (arguments, code, part) in [
        (&["default-config"][..], 0, ""),
        (&["--help"], 0, ""),
        (&["check-config", "--set", "a=1"], 1, "a"),
        (&["channels", "--api", "http://127.0.0.1:1"], 1, "--api takes the internal listener"),
        (&["chanels"], 2, "similar subcommand exists: 'channels'"),
        (&["top", "--evry", "3"], 2, "'--every'"),
        (&["top", "--every", "0"], 2, "1..=3600"),
        (&["publish", "room:1"], 2, "<DATA>"),
        (&["completions", "tcsh"], 2, "bash"),
    ] {
        let output = run(arguments, &[]).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(part), "{arguments:?}: {part:?} in {}", told(&output));
    }
}

/// As in `fanfare default-config | head -1`.
#[tokio::test]
async fn a_reader_that_has_enough_is_no_failure() {
    let pipe = format!("{PROGRAM} default-config --json | head -c 1 >&2; exit ${{PIPESTATUS[0]}}");
    let output = Command::new("bash").args(["-c", &pipe]).output().await.expect("there is bash");
    assert_eq!((output.status.code(), told(&output)), (Some(0), "["));
}
