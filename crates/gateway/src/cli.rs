//! The command line: `fanfare` serves; the subcommands help to set it up and to watch it.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};

use crate::config::{self, Flag, Mistakes, Source};
use crate::consumers;

mod bench;
mod caller;
mod connections;
mod health;
mod import_centrifugo;
mod log_level;
mod publish;
mod remote;
mod serve;
mod subscribe;
mod token;
mod top;
mod trace;

use serve::Extra;

/// A horizontally scaled WebSocket publish/subscribe gateway.
///
/// Without any configuration it serves on loopback alone: open http://127.0.0.1:8000/ in two tabs.
#[derive(Debug, Parser)]
#[command(
    name = "fanfare",
    version,
    after_help = "Examples:
  fanfare                                            a node, to try things with
  fanfare serve --config fanfare.toml --listen 0.0.0.0:8000
  fanfare check-config --config fanfare.toml
  fanfare subscribe room:1                           and in another terminal: fanfare publish room:1 hello
  fanfare top

Exit codes: 0 it is done, also by ^C where that is how it ends; 1 it has failed, and standard error says why; 2 the command line is
not understood. `fanfare help COMMAND` has examples of each."
)]
struct Arguments {
    /// Print JSON: an object, or one a line. What went wrong is one on standard error, and `serve` logs that way.
    #[arg(long, global = true)]
    json: bool,
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for clients, over listen.public.
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for metrics and the server API, over listen.internal.
    #[arg(long, global = true, value_name = "ADDRESS")]
    internal: Option<String>,
    /// Any other key, as often as needed: --set broker.kind=redis.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop: SIGTERM drains, a second one stops at once. SIGHUP reads the configuration again. This is
    /// the default.
    #[command(after_help = "Examples:
  fanfare serve                                      on loopback alone, with nothing configured
  fanfare serve --config /etc/fanfare/fanfare.toml
  fanfare serve --set broker.kind=redis --set redis.urls=redis://10.0.0.5:6379
  FANFARE__LIMITS__CONNECTIONS=50000 fanfare serve --json")]
    Serve,
    /// Serve, and echo at /echo: for conformance suites, on loopback alone.
    #[command(hide = true)]
    Echo,
    /// Check the configuration as `serve` would read it, and report every mistake at once.
    #[command(after_help = "Examples:
  fanfare check-config --config fanfare.toml
  fanfare check-config --config fanfare.toml --set limits.connections=50000
  fanfare check-config --config fanfare.toml --json | jq -r '.mistakes[]'")]
    CheckConfig,
    /// Print the whole configuration file with its defaults and comments.
    #[command(after_help = "Examples:
  fanfare default-config > fanfare.toml
  fanfare default-config --json | jq -r '.[] | select(.reload) | .key'     the keys that SIGHUP takes")]
    DefaultConfig,
    /// Print a configuration of Centrifugo (version 5 or 6, JSON) as one of Fanfare, and tell what has no equivalent.
    ImportCentrifugo(import_centrifugo::File),
    /// Make a token with `auth.jwt.hmac_secret`, to try things with.
    Token(token::Claims),
    /// Print what channels carry, over lost connections and restarts, until ^C.
    Subscribe(subscribe::Wishes),
    /// Publish on a channel, and wait until the broker has taken it.
    Publish(publish::Publication),
    /// List connections of all nodes.
    Connections(connections::Wanted),
    /// List the channels that somebody is subscribed to, on all nodes.
    Channels(connections::Pattern),
    /// Watch a cluster: its nodes, the channels that most hear, and who reads too slowly.
    Top(top::Watch),
    /// Say how much a node logs, or have it log more or less for a while.
    LogLevel(log_level::Wish),
    /// Look on while one channel, or one user, is served by the whole cluster.
    Trace(trace::Wish),
    /// Put a node or a cluster under a load, and say how late and how complete what it delivers is.
    Bench(bench::Load),
    /// Print the SQL that makes the tables of a consumer of PostgreSQL.
    #[command(after_help = "Examples:
  fanfare outbox-sql | psql shop
  fanfare outbox-sql --table orders_outbox > migrations/0042_outbox.sql")]
    OutboxSql {
        /// What the first table is called, as in `consumers.<name>.table`.
        #[arg(long, value_name = "NAME", default_value = "fanfare_outbox", value_parser = table_name)]
        table: String,
    },
    /// Print completions for a shell.
    #[command(after_help = "Examples:
  fanfare completions bash > /etc/bash_completion.d/fanfare
  fanfare completions zsh > /usr/local/share/zsh/site-functions/_fanfare
  fanfare completions fish > ~/.config/fish/completions/fanfare.fish
  source <(fanfare completions bash)                 for this shell alone")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Ask a node whether it is alive; exit 0 when it is.
    #[command(after_help = "Examples:
  fanfare health
  fanfare health --url http://127.0.0.1:8000/ready   whether clients may come
  HEALTHCHECK CMD [\"fanfare\", \"health\"]            in a Dockerfile")]
    Health {
        /// What to ask.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/health")]
        url: String,
    },
}

/// Runs the program and says how it went.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<NobodyReads>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error, arguments.json);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let json = arguments.json;
    match arguments.command.as_ref().unwrap_or(&Command::Serve) {
        Command::Serve => serve::run(&origin(arguments)?, Extra::None),
        Command::Echo => serve::run(&origin(arguments)?, Extra::Echo),
        Command::CheckConfig => check_config(&origin(arguments)?, json),
        Command::DefaultConfig if json => answer(&config::default_json()),
        Command::DefaultConfig => print(&config::default_toml()),
        Command::ImportCentrifugo(file) => import_centrifugo::run(file, json),
        Command::Token(claims) => token::run(&config::load(&origin(arguments)?.read()?)?, claims, json),
        Command::Subscribe(wishes) => subscribe::run(wishes, json),
        Command::Publish(publication) => publish::run(publication, json),
        Command::Connections(wanted) => connections::run(wanted, json),
        Command::Channels(wanted) => connections::run_channels(wanted, json),
        Command::Top(watch) => top::run(watch, json),
        Command::LogLevel(wish) => log_level::run(wish, json),
        Command::Trace(wish) => trace::run(wish, json),
        Command::Bench(load) => bench::run(load, json),
        Command::OutboxSql { table } if json => {
            answer(&json!({"table": table, "sql": consumers::schema(table)}))
        }
        Command::OutboxSql { table } => print(&consumers::schema(table)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "fanfare", &mut script);
            let script = String::from_utf8_lossy(&script);
            if json {
                return answer(&json!({"shell": shell.to_string(), "script": script}));
            }
            print(&script)
        }
        Command::Health { url } => health::run(url, json),
    }
}

fn check_config(origin: &Origin, json: bool) -> anyhow::Result<()> {
    let loaded = origin.read().and_then(|source| config::load(&source));
    if json {
        let told = match &loaded {
            Ok(config) => json!({"good": true, "summary": config.summary(), "mistakes": []}),
            Err(mistakes) => json!({"good": false, "mistakes": mistakes.iter().collect::<Vec<_>>()}),
        };
        answer(&told)?;
    }
    let summary = loaded?.summary();
    if json { Ok(()) } else { print(&format!("the configuration is good: {summary}\n")) }
}

/// Where the configuration comes from, as the command line has it: read at the start, and whenever told to reload.
#[derive(Debug)]
struct Origin {
    file: Option<PathBuf>,
    flags: Vec<Flag>,
}

impl Origin {
    fn read(&self) -> Result<Source, Mistakes> {
        Source::of_process(self.file.as_deref(), self.flags.clone())
    }
}

fn origin(arguments: &Arguments) -> anyhow::Result<Origin> {
    let mut flags = Vec::new();
    if arguments.json {
        flags.push(Flag { name: "--json".into(), path: "log.format".into(), value: "json".into() });
    }
    let named = [
        ("--listen", "listen.public", &arguments.listen),
        ("--internal", "listen.internal", &arguments.internal),
    ];
    for (name, path, value) in named {
        if let Some(value) = value {
            flags.push(Flag { name: name.into(), path: path.into(), value: value.clone() });
        }
    }
    for pair in &arguments.set {
        let Some((path, value)) = pair.split_once('=') else {
            anyhow::bail!("--set takes KEY=VALUE, such as --set broker.kind=redis, not {pair:?}");
        };
        flags.push(Flag { name: "--set".into(), path: path.into(), value: value.into() });
    }
    Ok(Origin { file: arguments.config.clone(), flags })
}

/// What `consumers.<name>.table` takes.
fn table_name(text: &str) -> Result<String, &'static str> {
    let is_name = config::is_table(text);
    is_name
        .then(|| text.to_owned())
        .ok_or("a table's name has up to 40 lower-case letters, digits and _, no digit first")
}

/// Prints what was asked for; to nobody where the reader has gone, as `head` does when it has enough.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        outcome => outcome.context("standard output"),
    }
}

/// The same for programs: a line of JSON.
fn answer(value: &Value) -> anyhow::Result<()> {
    print(&format!("{value}\n"))
}

/// Whoever read what is printed has enough: the end, and no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
struct NobodyReads;

fn complain(error: &anyhow::Error, json: bool) {
    if json {
        eprintln!("{}", json!({"error": format!("{error:#}")}));
    } else {
        eprintln!("fanfare: {error:#}");
    }
}
