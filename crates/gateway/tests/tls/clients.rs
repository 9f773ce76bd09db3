//! Clients as people have them: OpenSSL's and curl.

use std::net::SocketAddr;
use std::process::Stdio;

use fanfare_gateway::node::Node;
use fanfare_testbed::authority::GOOD;
use fanfare_testbed::{Authority, PATIENCE};
use tokio::process::Command;
use tokio::time::timeout;

use crate::nodes::{counted, node};
use crate::support::handshakes;

async fn tls_node(authority: &Authority) -> Node {
    node(&authority.issue("node", GOOD).settings("tls")).await
}

/// What a command says on either channel, and whether it succeeds. It is missing: `apt-get install openssl curl`.
async fn run(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output).await.expect("it ends").expect("it is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn s_client(address: SocketAddr, authority: &Authority, more: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &address.to_string(),
        "-servername",
        "localhost",
        "-verify_return_error",
    ]);
    command.arg("-CAfile").arg(authority.file()).args(more);
    run(&mut command).await
}

#[tokio::test]
async fn openssl_agrees_on_1_2_and_1_3_and_is_refused_with_1_1() {
    let authority = Authority::new();
    let node = tls_node(&authority).await;
    // OpenSSL itself refuses 1.1 unless its security level is lowered.
    for (version, is_spoken) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let (succeeds, said) =
            s_client(node.public_addr(), &authority, &[version, "-cipher", "ALL:@SECLEVEL=0"]).await;
        assert_eq!(succeeds, is_spoken, "{version}: {said}");
        if is_spoken {
            assert!(said.contains("Verify return code: 0 (ok)"), "{version}: {said}");
        } else {
            assert!(said.contains("SSL alert number"), "{version}: {said}");
        }
    }
    counted(&node, &handshakes("refused"), 1.0).await;
    counted(&node, &handshakes("full"), 2.0).await;
}

/// Tickets, as OpenSSL keeps them in a file.
#[tokio::test]
async fn openssl_resumes_a_session() {
    let authority = Authority::new();
    let node = tls_node(&authority).await;
    let ticket = authority.path("ticket");
    let ticket = ticket.to_str().unwrap();
    let first = s_client(node.public_addr(), &authority, &["-tls1_2", "-sess_out", ticket]).await;
    assert!(first.1.contains("New, TLSv1.2"), "{}", first.1);
    let second = s_client(node.public_addr(), &authority, &["-tls1_2", "-sess_in", ticket]).await;
    assert!(second.1.contains("Reused, TLSv1.2"), "{}", second.1);
    counted(&node, &handshakes("resumed"), 1.0).await;
}

#[tokio::test]
async fn curl_fetches_the_page_and_the_health() {
    let authority = Authority::new();
    let node = tls_node(&authority).await;
    for (path, expected) in [("/health", "ok\n"), ("/", "<!doctype html>")] {
        let url = format!("https://{}{path}", node.public_addr());
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail", "--http1.1", "--cacert"])
            .arg(authority.file())
            .arg(url);
        let (succeeds, said) = run(&mut command).await;
        assert!(succeeds && said.to_lowercase().starts_with(expected), "{path}: {said}");
    }
}
