//! A caller of the server API, for the subcommands that are one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use http::Uri;
use serde_json::Value;

/// How long connecting, and each read after it, may take: longer than a node waits for the others.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node that has promised lines may say nothing: three times what it may.
const SILENCE: Duration = Duration::from_secs(30);

/// Which node is asked, and by whom.
#[derive(Debug, Args)]
pub(super) struct Caller {
    /// The internal listener of any node of the cluster.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001")]
    api: String,
    /// One of the keys of the API, where the node has any.
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// The file that holds it: what is on the command line everybody on the machine may see.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Caller {
    /// What a method of the API answers.
    pub(super) fn call(&self, method: &str, body: &Value) -> anyhow::Result<Value> {
        let (host, port) = self.place()?;
        let answer = self.post(&host, port, method, &body.to_string());
        let (status, answer) = answer
            .with_context(|| format!("{} (--api takes the internal listener of a running node)", self.api))?;
        if status != "200" {
            let told = answer["message"].as_str().unwrap_or("no reason is given");
            let hint = if status == "401" { " (--key-file names the file of a key)" } else { "" };
            bail!("{}/api/{method} answers {status}: {told}{hint}", self.api);
        }
        Ok(answer)
    }

    /// Hands on the lines that a method answers with, for as long as they are wanted and come.
    pub(super) fn follow(
        &self,
        method: &str,
        query: &str,
        mut wants_more: impl FnMut(&str) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let (host, port) = self.place()?;
        // HTTP/1.0 has no chunks: the body is all that comes.
        let head =
            format!("GET /api/{method}?{query} HTTP/1.0\r\nHost: {host}\r\n{}\r\n", self.authorization()?);
        let mut socket = connect(&host, port, SILENCE)?;
        socket.write_all(head.as_bytes())?;
        let mut lines = BufReader::new(socket);
        let (mut status, mut line) = (String::new(), String::new());
        lines.read_line(&mut status)?;
        while lines.read_line(&mut line)? > 2 {
            line.clear();
        }
        let status = status.get(9..12).context("the answer is not HTTP")?;
        if status != "200" {
            let mut answer = String::new();
            lines.read_to_string(&mut answer)?;
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            let told = answer["message"].as_str().unwrap_or("no reason is given");
            bail!("{}/api/{method} answers {status}: {told}", self.api);
        }
        for line in lines.lines() {
            let line = line.context("the node is silent")?;
            if !line.is_empty() && !wants_more(&line)? {
                break;
            }
        }
        Ok(())
    }

    fn place(&self) -> anyhow::Result<(String, u16)> {
        let uri: Uri = self.api.parse().with_context(|| format!("{:?} is not a URL", self.api))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("--api takes a URL such as http://127.0.0.1:8001, not {:?}", self.api);
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok((host.to_owned(), authority.port_u16().unwrap_or(80)))
    }

    fn authorization(&self) -> anyhow::Result<String> {
        let key = match &self.key_file {
            Some(file) => Some(std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?),
            None => self.key.clone(),
        };
        Ok(key.map_or_else(String::new, |key| format!("Authorization: Bearer {}\r\n", key.trim())))
    }

    fn post(&self, host: &str, port: u16, method: &str, body: &str) -> anyhow::Result<(String, Value)> {
        let authorization = self.authorization()?;
        let mut socket = connect(host, port, TIMEOUT)?;
        write!(
            socket,
            "POST /api/{method} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").context("the answer is not HTTP")?;
        let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .context("the answer is not HTTP")?;
        let value =
            serde_json::from_slice(body).with_context(|| format!("the answer is {status}, and no JSON"))?;
        Ok((status.to_owned(), value))
    }
}

fn connect(host: &str, port: u16, patience: Duration) -> anyhow::Result<TcpStream> {
    let address = (host, port).to_socket_addrs()?.next().context("the host has no address")?;
    let socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// Rows under a heading, each column as wide as its longest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let heading: Vec<_> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(line(&heading)).chain(rows.iter().map(|row| line(row))).collect()
}

/// A text of an answer, as it is shown in a table: what a client has chosen may hold anything.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [vec!["a".into(), "long one".into()], vec!["longer".into(), "b".into()]];
        assert_eq!(table(&["x", "y"], &rows), "x       y\na       long one\nlonger  b\n");
    }

    #[test]
    fn nothing_that_a_client_has_chosen_moves_the_cursor() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\n")), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!((cell(&Value::Null), cell(&json!(7))), ("-".into(), "7".into()));
    }
}
