//! The examples of the client's crate, as programs, against a real node.

use std::path::PathBuf;
use std::process::Stdio;

use fanfare_testbed::{PATIENCE, http};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{PROGRAM, gateway, url};

const SECRET: &str = "auth.jwt.hmac_secret=a secret of thirty-two bytes and a few more";

/// An example of the same build: `cargo test` makes them with the tests of their crate.
fn example(name: &str) -> PathBuf {
    let program = PathBuf::from(PROGRAM).with_file_name("examples").join(name);
    assert!(program.exists(), "{} is missing: cargo build -p fanfare-client --examples", program.display());
    program
}

fn run(name: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(example(name));
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
    let command = [PROGRAM, "token", "--user", "ann", "--ttl", "4", "--set", SECRET];
    let said = said(run("token", &[&[url(&node).as_str(), "room:1", "6"], &command[..]].concat())).await;
    assert_eq!(said, "published 1\npublished 2\npublished 3\npublished 4\npublished 5\npublished 6\n");
}

#[test]
fn the_readme_has_the_example_as_it_is_run() {
    let (readme, example) =
        (include_str!("../../../client/README.md"), include_str!("../../../client/examples/hello.rs"));
    let program = &example[example.find("use fanfare_client").unwrap()..];
    assert!(readme.contains(&format!("```rust\n{program}```")), "README.md has another hello.rs");
}
