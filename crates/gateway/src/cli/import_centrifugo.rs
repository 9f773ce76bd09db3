//! `fanfare import-centrifugo`: turns a configuration of Centrifugo, of version 5 or 6, into one of ours, and says what has no
//! equivalent.
//!
//! The file is read into one list of settings by the names of version 6. What is understood is taken out of it and written; of
//! what is left, whatever is not at its default is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{answer, print};

mod names;
mod namespaces;

/// What is to be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanfare import-centrifugo config.json > fanfare.toml
  fanfare import-centrifugo config.json --json | jq -r '.notes[]'     what has no equivalent")]
pub(super) struct File {
    /// The configuration of Centrifugo, in JSON.
    #[arg(value_name = "FILE")]
    path: PathBuf,
}

/// A configuration file of ours, and what it does not say.
#[derive(Debug)]
struct Imported {
    toml: String,
    notes: Vec<String>,
}

/// Reads the file; what is printed is a configuration, what is told is what it lacks.
pub(super) fn run(file: &File, json: bool) -> anyhow::Result<()> {
    let path = file.path.display();
    let text = std::fs::read_to_string(&file.path).with_context(|| format!("{path} cannot be read"))?;
    let imported = import(&text).with_context(|| format!("{path} is no configuration of Centrifugo"))?;
    if json {
        return answer(&json!({"toml": imported.toml, "notes": imported.notes}));
    }
    for note in &imported.notes {
        eprintln!("fanfare: {note}");
    }
    let mut out = String::from("# Imported from Centrifugo by `fanfare import-centrifugo`.\n");
    for note in &imported.notes {
        writeln!(out, "# {note}").expect("a string takes everything");
    }
    out.push_str(&imported.toml);
    print(&out)
}

fn import(text: &str) -> anyhow::Result<Imported> {
    let whole: Map<String, Value> =
        serde_json::from_str(text).context("an object of JSON is read; convert YAML and TOML first")?;
    let mut old = Settings(names::of_version_6(whole));
    let mut new = Written::default();
    listen(&mut old, &mut new);
    broker(&mut old, &mut new);
    auth(&mut old, &mut new);
    limits(&mut old, &mut new);
    api(&mut old, &mut new);
    proxies(&mut old, &mut new);
    namespaces::write(&mut old, &mut new);
    let defaults: Map<String, Value> =
        serde_json::from_str(include_str!("import_centrifugo/defaults.json")).expect("it is an object");
    for (path, value) in &old.0 {
        if !is_nothing(value) && defaults.get(path) != Some(value) {
            new.note(format!("{path} = {} has no equivalent", shown(path, value)));
        }
    }
    Ok(Imported { toml: new.toml(), notes: new.notes })
}

/// The settings of Centrifugo that have not been looked at yet, each by its path.
#[derive(Debug)]
struct Settings(BTreeMap<String, Value>);

impl Settings {
    fn take(&mut self, path: &str) -> Option<Value> {
        self.0.remove(path).filter(|value| !is_nothing(value))
    }

    fn text(&mut self, path: &str) -> Option<String> {
        Some(match self.take(path)? {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    fn texts(&mut self, path: &str) -> Vec<String> {
        match self.take(path) {
            Some(Value::Array(all)) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
            Some(Value::String(one)) => {
                one.split([',', ' ']).filter(|it| !it.is_empty()).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }

    fn switch(&mut self, path: &str) -> bool {
        self.take(path).is_some_and(|value| matches!(&value, Value::Bool(true)) || value == "true")
    }

    fn number(&mut self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Whole seconds, at least one.
    fn seconds(&mut self, path: &str) -> Option<u64> {
        seconds(&self.take(path)?)
    }

    /// Leaves what begins so for nobody.
    fn forget(&mut self, prefix: &str) {
        self.0.retain(|path, _| !path.starts_with(prefix));
    }
}

/// A duration as Go spells it, or a number of seconds.
fn seconds(value: &Value) -> Option<u64> {
    let text = match value {
        Value::String(text) => text,
        other => return other.as_u64(),
    };
    let (mut total, mut rest) = (0.0, text.as_str());
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|it: char| it.is_ascii_digit()).map_or(rest.len(), |it| it + digits);
        total += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a duration is small, and not negative"
    )]
    let whole = total.ceil() as u64;
    Some(whole.max(1))
}

/// Whether a setting says no more than its absence would.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0s" | "0" | "false"),
        Value::Array(all) => all.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

/// A value for people to read; secrets are not.
fn shown(path: &str, value: &Value) -> String {
    let is_secret = ["key", "secret", "password", "dsn"].iter().any(|word| path.contains(word));
    let text = if is_secret { "(a secret)".to_owned() } else { value.to_string() };
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

/// The configuration as far as it is written: sections with their keys, in the order of their first mention.
#[derive(Debug, Default)]
struct Written {
    sections: Vec<(String, Vec<String>)>,
    notes: Vec<String>,
}

impl Written {
    fn set(&mut self, section: &str, key: &str, value: impl Into<Value>) {
        let line = format!("{key} = {}", value.into());
        match self.sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, lines)) => {
                // What is said later is said of this alone.
                lines.retain(|it| it.split_once(" = ").is_none_or(|(said, _)| said != key));
                lines.push(line);
            }
            None => self.sections.push((section.to_owned(), vec![line])),
        }
    }

    fn set_if(&mut self, section: &str, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(section, key, value);
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// What JSON spells as TOML does: texts, numbers, truth, and lists of them.
    fn toml(&self) -> String {
        let section = |(name, lines): &(String, Vec<String>)| format!("\n[{name}]\n{}\n", lines.join("\n"));
        self.sections.iter().map(section).collect()
    }
}

fn listen(old: &mut Settings, new: &mut Written) {
    let address = old.text("http_server.address").unwrap_or_else(|| "0.0.0.0".to_owned());
    let port = old.text("http_server.port").unwrap_or_else(|| "8000".to_owned());
    let public = format!("{address}:{port}");
    let can_enter = ["client.token", "client.allow_anonymous_connect_without_token", "client.insecure"];
    let opens =
        |path: &String, value: &Value| can_enter.iter().any(|it| path.starts_with(it)) && !is_nothing(value);
    if old.0.iter().any(|(path, value)| opens(path, value)) {
        new.set("listen", "public", public);
    } else {
        new.set("listen", "public", format!("127.0.0.1:{port}"));
        new.note(format!(
            "nobody could connect, since there is neither a key of tokens nor leave to come without one: set auth.jwt \
             or auth.anonymous, and listen.public = \"{public}\"; until then it listens on loopback"
        ));
    }
    let internal = old.text("http_server.internal_address").unwrap_or_else(|| "127.0.0.1".to_owned());
    let internal_port = old.text("http_server.internal_port").unwrap_or_else(|| "8001".to_owned());
    new.set("listen", "internal", format!("{internal}:{internal_port}"));
    new.note(format!("the HTTP API and the metrics are at {internal}:{internal_port} alone: tell backends, and whoever scrapes"));
    if old.switch("http_server.tls.enabled") {
        new.set_if("tls", "cert", old.text("http_server.tls.cert_pem"));
        new.set_if("tls", "key", old.text("http_server.tls.key_pem"));
        new.set_if("tls", "client_ca", old.text("http_server.tls.client_ca_pem"));
    }
    new.set_if("node", "name", old.text("node.name"));
    new.set_if("node", "drain_seconds", old.seconds("shutdown.timeout"));
    match old.text("log.level").as_deref() {
        Some(level @ ("trace" | "debug" | "info" | "warn" | "error")) => new.set("log", "level", level),
        Some("fatal" | "none") => new.set("log", "level", "error"),
        _ => {}
    }
    for path in ["sse.enabled", "http_stream.enabled", "health.enabled", "prometheus.enabled"] {
        old.take(path); // They are always served.
    }
    if old.take("websocket.compression").is_none() {
        new.set("compression", "enabled", false);
    }
}

fn broker(old: &mut Settings, new: &mut Written) {
    let own = old.switch("broker.enabled");
    let (kind, root) = if own {
        (old.text("broker.type"), "broker.redis")
    } else {
        (old.text("engine.type"), "engine.redis")
    };
    match kind.as_deref() {
        Some("redis") => redis(root, old, new),
        None | Some("memory") => {}
        Some(other) => {
            new.note(format!("the broker {other} has no equivalent: broker.kind is \"memory\", which is one node, or \"redis\""));
        }
    }
}

fn redis(root: &str, old: &mut Settings, new: &mut Written) {
    let at = |name: &str| format!("{root}.{name}");
    new.set("broker", "kind", "redis");
    let mut credentials = old.text(&at("user")).unwrap_or_default();
    if let Some(password) = old.text(&at("password")) {
        write!(credentials, ":{password}").expect("a string takes everything");
    }
    let url = |address: &String| match address.split_once("://") {
        Some(_) => address.clone(),
        None if credentials.is_empty() => format!("redis://{address}"),
        None => format!("redis://{credentials}@{address}"),
    };
    let (cluster, sentinels) = (old.texts(&at("cluster_address")), old.texts(&at("sentinel_address")));
    let addresses = old.texts(&at("address"));
    let (mode, addresses) = match (cluster.is_empty(), sentinels.is_empty(), addresses.len()) {
        (false, ..) => ("cluster", cluster),
        (_, false, _) => ("sentinel", sentinels),
        (_, _, 0) => ("single", vec!["127.0.0.1:6379".to_owned()]),
        (_, _, 1) => ("single", addresses),
        _ => ("sharded", addresses),
    };
    new.set("redis", "mode", mode);
    new.set("redis", "urls", addresses.iter().map(url).collect::<Vec<_>>());
    new.set_if("redis", "primary", old.text(&at("sentinel_master_name")));
    old.take(&at("prefix"));
    new.note("what Centrifugo keeps in Redis, history and presence, is not read: it lies beside ours under another prefix");
}

fn auth(old: &mut Settings, new: &mut Written) {
    const TOKEN: &str = "client.token";
    let mut take = |name: &str| old.text(&format!("{TOKEN}.{name}"));
    let (secret, previous) = (take("hmac_secret_key"), take("hmac_previous_secret_key"));
    let (rsa, ecdsa, keys) = (take("rsa_public_key"), take("ecdsa_public_key"), take("jwks_public_endpoint"));
    let (issuer, audience) = (take("issuer"), take("audience"));
    let anonymous =
        old.switch("client.allow_anonymous_connect_without_token") | old.switch("client.insecure");
    if anonymous || secret.is_some() || rsa.is_some() || ecdsa.is_some() || keys.is_some() {
        new.set("auth", "anonymous", anonymous);
    }
    new.set_if("auth", "timeout_seconds", old.seconds("client.stale_close_delay").map(|it| it.min(60)));
    if rsa.is_some() && ecdsa.is_some() {
        new.note("client.token has an RSA and an ECDSA key: the second is left out, give it an issuer of its own under auth.issuers");
    }
    if let Some(template) = keys.as_ref().filter(|it| it.contains("{{")) {
        new.note(format!("client.token.jwks_public_endpoint = {template:?}: a key server's URL has no variables, name each under auth.issuers"));
    }
    let jwt = "auth.jwt";
    new.set_if(jwt, "hmac_secret", secret);
    new.set_if(jwt, "previous_hmac_secret", previous);
    new.set_if(jwt, "public_key", rsa.or(ecdsa));
    new.set_if(jwt, "jwks_url", keys.filter(|it| !it.contains("{{")));
    new.set_if(jwt, "issuer", issuer);
    new.set_if(jwt, "audience", audience);
    let origins = old.texts("client.allowed_origins");
    if !origins.is_empty() {
        new.set("origin", "allow", origins);
    }
    if old.switch("client.subscribe_to_user_personal_channel.enabled") {
        let namespace = old.text("client.subscribe_to_user_personal_channel.personal_channel_namespace");
        let theirs = namespace.map_or_else(|| "#<id>".to_owned(), |it| format!("{it}:#<id>"));
        new.set("namespaces.user", "subscribe", "token");
        new.note(format!("the personal channel is user:<id> here, and not {theirs}: tell backends"));
    }
}

fn limits(old: &mut Settings, new: &mut Written) {
    for (path, key) in [
        ("client.connection_limit", "connections"),
        ("client.user_connection_limit", "connections_per_user"),
        ("client.connection_rate_limit", "handshakes_per_second"),
        ("client.channel_limit", "channels"),
        ("client.queue_max_size", "queue_bytes"),
        ("websocket.message_size_limit", "message_bytes"),
    ] {
        new.set_if("limits", key, old.number(path));
    }
    let (interval, pong) = (old.seconds("client.ping_interval"), old.seconds("client.pong_timeout"));
    new.set_if("heartbeat", "timeout_seconds", pong.map(|it| it.min(interval.unwrap_or(it))));
    new.set_if("heartbeat", "interval_seconds", interval);
}

fn api(old: &mut Settings, new: &mut Written) {
    if let Some(key) = old.text("http_api.key") {
        new.set("api", "keys", vec![key]);
    }
    if old.switch("http_api.insecure") {
        new.note("http_api.insecure: without api.keys callers of this machine alone are answered");
    }
    if old.switch("grpc_api.enabled") {
        new.note("grpc_api: the server API is HTTP alone");
    }
    old.forget("grpc_api.");
    if old.switch("admin.enabled") {
        new.note("admin: `console.enabled` is the page that there is; it takes no password and shows clients' side alone");
    }
    old.forget("admin.");
}

/// Backends are asked in words of their own here.
fn proxies(old: &mut Settings, new: &mut Written) {
    for (root, ours) in [
        ("client.proxy.connect", "hooks.connect"),
        ("client.proxy.refresh", "hooks.refresh"),
        ("channel.proxy.subscribe", "namespaces.<name>.hooks.subscribe"),
        ("channel.proxy.publish", "namespaces.<name>.hooks.publish"),
        ("rpc.proxy", "hooks.call"),
    ] {
        if let Some(endpoint) = old.text(&format!("{root}.endpoint")) {
            new.note(format!(
                "{root} asks {endpoint}: {ours} is its place, but what is asked and answered is another (docs/hooks.md), so it is not set"
            ));
        }
        old.forget(&format!("{root}."));
    }
}

#[cfg(test)]
mod tests;
