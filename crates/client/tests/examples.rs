//! The examples, as programs, against a real node.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::PathBuf;
use std::process::Stdio;

use fanfare_testbed::{Gateway, PATIENCE, http};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const SECRET: &str = "auth.jwt.hmac_secret=a secret of thirty-two bytes and a few more";

/// A program of the same build: cargo builds examples with tests, and the gateway with the tests of the workspace.
fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join(name);
    assert!(
        program.exists(),
        "{} is missing: cargo build -p fanfare-gateway, or cargo test --workspace",
        program.display()
    );
    program
}

async fn gateway(settings: &[&str]) -> Gateway {
    Gateway::start(&built("fanfare"), settings).await
}

fn url(node: &Gateway) -> String {
    format!("ws://{}/ws", node.public())
}

fn run(example: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(built(&format!("examples/{example}")));
    command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// What it prints until it ends.
async fn said(child: Child) -> String {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn hello_is_heard() {
    let node = gateway(&[]).await;
    let said = said(run("hello", &[&url(&node)])).await;
    assert!(said.starts_with("Subscribed") && said.ends_with("hello\n"), "{said}");
}

#[tokio::test]
async fn tail_prints_what_was_and_what_comes() {
    let node = gateway(&[]).await;
    let publish = async |data: u8| {
        let body = format!(r#"{{"channel":"room:1","data":{data}}}"#);
        http::post(node.public(), "/publish", &[], &body).await
    };
    publish(1).await;
    let mut child = run("tail", &[&url(&node), "room:1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = async |wanted: &str| {
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("there is more").unwrap() {
            if line == wanted {
                return;
            }
        }
        panic!("it ends before {wanted}");
    };
    until("1").await;
    publish(2).await;
    until("2").await;
}

#[tokio::test]
async fn token_goes_on_when_tokens_end() {
    let kept = "namespaces.room.history.size=100";
    let settings =
        [SECRET, "auth.anonymous=false", "auth.jwt.leeway_seconds=0", "namespaces.room.publish=anyone", kept];
    let node = gateway(&settings).await;
    let program = built("fanfare");
    let command = [program.to_str().unwrap(), "token", "--user", "ann", "--ttl", "4", "--set", SECRET];
    let said = said(run("token", &[&[url(&node).as_str(), "room:1", "6"], &command[..]].concat())).await;
    assert_eq!(said, "published 1\npublished 2\npublished 3\npublished 4\npublished 5\npublished 6\n");
}

#[test]
fn the_readme_has_the_example_as_it_is_run() {
    let (readme, example) = (include_str!("../README.md"), include_str!("../examples/hello.rs"));
    let program = &example[example.find("use fanfare_client").unwrap()..];
    assert!(readme.contains(&format!("```rust\n{program}```")), "README.md has another hello.rs");
}
