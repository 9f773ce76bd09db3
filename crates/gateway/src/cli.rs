//! The command line: `fanfare` serves; the subcommands help to set it up and to watch it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

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

use serve::Extra;

/// A horizontally scaled WebSocket publish/subscribe gateway.
///
/// Without any configuration it serves on loopback alone: open http://127.0.0.1:8000/ in two tabs.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version)]
struct Arguments {
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
    Serve,
    /// Serve, and echo at /echo: for conformance suites, on loopback alone.
    #[command(hide = true)]
    Echo,
    /// Check the configuration as `serve` would read it, and report every mistake at once.
    CheckConfig,
    /// Print the whole configuration file with its defaults and comments.
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
    /// Put a node or a cluster under a load, and say how late and how complete what it delivers is.
    Bench(bench::Load),
    /// Print the SQL that makes the tables of a consumer of PostgreSQL: fanfare outbox-sql | psql shop
    OutboxSql {
        /// What the first table is called, as in `consumers.<name>.table`.
        #[arg(long, value_name = "NAME", default_value = "fanfare_outbox", value_parser = table_name)]
        table: String,
    },
    /// Print completions for a shell: fanfare completions bash > /etc/bash_completion.d/fanfare
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Ask a node whether it is alive; exit 0 when it is.
    Health {
        /// What to ask.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/health")]
        url: String,
    },
}

/// Runs the program and says how it went.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        None | Some(Command::Serve) => origin(&arguments).and_then(|origin| serve::run(&origin, Extra::None)),
        Some(Command::Echo) => origin(&arguments).and_then(|origin| serve::run(&origin, Extra::Echo)),
        Some(Command::CheckConfig) => origin(&arguments).and_then(|origin| {
            let config = config::load(&origin.read()?)?;
            print(&format!("the configuration is good: {}\n", config.summary()));
            Ok(())
        }),
        Some(Command::DefaultConfig) => {
            print(&config::default_toml());
            Ok(())
        }
        Some(Command::ImportCentrifugo(file)) => import_centrifugo::run(file).map(|toml| print(&toml)),
        Some(Command::Token(claims)) => origin(&arguments).and_then(|origin| {
            let config = config::load(&origin.read()?)?;
            print(&format!("{}\n", token::make(&config, claims)?));
            Ok(())
        }),
        Some(Command::Subscribe(wishes)) => subscribe::run(wishes),
        Some(Command::Publish(publication)) => publish::run(publication),
        Some(Command::Connections(wanted)) => connections::run(wanted),
        Some(Command::Channels(wanted)) => connections::run_channels(wanted),
        Some(Command::Top(watch)) => top::run(watch),
        Some(Command::LogLevel(wish)) => log_level::run(wish),
        Some(Command::Bench(load)) => bench::run(load),
        Some(Command::OutboxSql { table }) => {
            print(&consumers::schema(table));
            Ok(())
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "fanfare", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(())
        }
        Some(Command::Health { url }) => health::check(url),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
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

#[expect(clippy::print_stdout, reason = "what was asked for on the command line goes to standard output")]
fn print(text: &str) {
    print!("{text}");
}

fn complain(error: &anyhow::Error) {
    eprintln!("fanfare: {error:#}");
}
