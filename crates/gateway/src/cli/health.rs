//! `fanfare health`: asks a node whether it is alive, for container health checks in images that have no HTTP client.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Uri;
use serde_json::json;

use super::answer;

/// How long connecting, and each read after it, may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds when a GET of `url` answers 200.
pub(super) fn run(url: &str, json: bool) -> anyhow::Result<()> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        bail!("{url:?} must be a URL such as http://127.0.0.1:8000/health");
    };
    let status = status(authority.host(), authority.port_u16().unwrap_or(80), uri.path())
        .with_context(|| url.to_owned())?;
    if status != "200" {
        bail!("{url} answers {status}");
    }
    if json { answer(&json!({"url": url, "status": 200})) } else { Ok(()) }
}

fn status(host: &str, port: u16, path: &str) -> anyhow::Result<String> {
    // An IPv6 address stands in brackets where it is written, and without them where it is looked up.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = (bare, port).to_socket_addrs()?.next().context("the host has no address")?;
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut head = [0; "HTTP/1.1 200".len()];
    socket.read_exact(&mut head)?;
    let head = std::str::from_utf8(&head).context("the answer is not HTTP")?;
    let status =
        head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).context("the answer is not HTTP")?;
    Ok(status.to_owned())
}
