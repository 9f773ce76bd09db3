//! The command line, and its help, which teaches by example.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::protocol::Dialect;
use crate::stamp::STAMP_BYTES_MIN;

const EXAMPLES: &str = "\
Examples:
  What does an idle, subscribed connection cost in memory? Fail over 6 KiB.
    fanfare-loadtest idle --url ws://127.0.0.1:8000/ws --connections 10000 \\
        --pid \"$(pgrep -nx fanfare)\" --max-bytes-per-connection 6144
  What does a delivery cost in CPU, flat out, and how long does it take?
    fanfare-loadtest fanout --url ws://127.0.0.1:8000/ws --subscribers 1000 --pid \"$(pgrep -nx fanfare)\"
  How long does a delivery take at 200 publications a second?
    fanfare-loadtest fanout --url ws://127.0.0.1:8000/ws --subscribers 1000 --rate 200
  The same from node to node: the publisher is on the first URL.
    fanfare-loadtest fanout --url ws://127.0.0.1:8000/ws --url ws://127.0.0.1:8010/ws
  Many small channels.
    fanfare-loadtest rooms --url ws://127.0.0.1:8000/ws --rooms 1000 --size 10
  Is every message delivered exactly once, in order, through the proxy of a cluster of three?
    fanfare-loadtest check --url ws://127.0.0.1:8080/ws --connections 5000 --min-nodes 3

Exit codes: 0 all well; 1 something was lost, doubled, out of order, refused, cut off or over its limit;
2 the run could not be done. A gateway's own limits apply: raise `limits.messages_per_second` before
`fanout` and `rooms`.";

/// Load for a WebSocket publish/subscribe gateway, and what it costs the gateway.
#[derive(Debug, Parser)]
// Scripts give defaults and pass on what they are given: the last of a repeated option counts.
#[command(version, after_help = EXAMPLES, max_term_width = 100, args_override_self = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Open and subscribe many connections: bytes and CPU microseconds per connection
    Idle(Idle),
    /// One channel, many subscribers: deliveries per second, CPU per delivery, latency
    Fanout(Fanout),
    /// Many small channels: the same measures as fanout
    Rooms(Rooms),
    /// Many clients that publish and listen: each message exactly once, in one order
    Check(Check),
    /// The same work on several servers, in turn: what scripts/bench runs
    Bench(Bench),
    /// As many connections as fit, on many nodes and one Redis: what scripts/scale runs
    Scale(Scale),
    /// One of the processes of `scale`
    #[command(hide = true)]
    Hold(Hold),
}

/// What all scenarios have.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// WebSocket address; repeat it to spread connections over several
    #[arg(long, required = true, value_name = "ws://HOST:PORT/PATH")]
    pub(crate) url: Vec<String>,
    /// Whom to trust behind `wss://`: a certificate in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// Process to read memory and CPU time of; repeat it to sum over several
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Connections that are being opened at any time
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) concurrency: usize,
    /// Also write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Dialect::Fanfare)]
    pub(crate) protocol: Dialect,
    /// What the names of channels begin with
    #[arg(long, default_value = "load:", value_name = "TEXT")]
    pub(crate) prefix: String,
}

/// Open and subscribe many connections, then look at the gateway's memory.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) connections: usize,
    /// A channel of its own for each connection (the default)
    #[arg(long, conflicts_with = "channel")]
    pub(crate) channel_per_connection: bool,
    /// One channel for all
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<String>,
    /// Keep the connections open for so long after measuring, and fail if any ends
    #[arg(long, default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) hold: Duration,
    /// Fail when a connection costs more resident memory
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes_per_connection: Option<u64>,
}

/// Start nodes and a Redis, hold many connections, publish to all of them, kill a node.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// The gateway's program
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: PathBuf,
    /// Each hears a channel that all share, and a room of ten
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) connections: usize,
    /// Nodes, of which one is killed [default: one for 15,000 connections, at least 3]
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<usize>,
    /// Length of `data` as JSON
    #[arg(long, default_value_t = 128, value_parser = payload, value_name = "BYTES")]
    pub(crate) payload: usize,
    /// Publications to everybody, one at a time
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) broadcasts: u64,
    /// Publications while a node is gone
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) missed: u64,
    /// Time between two pings of the server
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) heartbeat: u64,
    /// How long the crowd is left alone
    #[arg(long, default_value = "40", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) rest: Duration,
    /// The longest that a client waits before it comes back
    #[arg(long, default_value_t = 2_000, value_name = "MILLISECONDS")]
    pub(crate) jitter_ms: u64,
    /// Whether it is known who is in a room
    #[arg(long)]
    pub(crate) presence: bool,
    /// Also write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What one process of the crowd is told when it starts; orders come by its standard input.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The number of the first connection
    #[arg(long)]
    pub(crate) first: usize,
    #[arg(long)]
    pub(crate) count: usize,
    /// Which 127.1.N.0/24 the connections come from
    #[arg(long)]
    pub(crate) network: u8,
    /// Public address of a node; repeat it
    #[arg(long = "node", required = true)]
    pub(crate) nodes: Vec<SocketAddr>,
    #[arg(long)]
    pub(crate) jitter_ms: u64,
}

/// How publications flow in `fanout` and `rooms`.
#[derive(Debug, Args)]
pub(crate) struct Flow {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Length of `data` as JSON
    #[arg(long, default_value_t = 128, value_parser = payload, value_name = "BYTES")]
    pub(crate) payload: usize,
    /// Closed loop: publications that have not reached all their subscribers yet
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(crate) in_flight: usize,
    /// Publish so often, instead of as fast as they are delivered
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// Length of the measured window
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) seconds: Duration,
    /// Time before it
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) warm_up: Duration,
    /// And until so many publications have left: those that a history keeps, for one
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) warm_up_published: u64,
    /// Give up on publications on their way once nothing has arrived for so long
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) patience: Duration,
    /// Publishing connections; the first is on the first URL
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) publishers: usize,
    /// So many publications of a channel leave together before it is the next one's turn
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) burst: u64,
    #[arg(long, value_enum, default_value_t = PublishBy::Websocket)]
    pub(crate) publish_by: PublishBy,
    /// Where `--publish-by api` posts to
    #[arg(long, default_value = "http://127.0.0.1:8001", value_name = "URL")]
    pub(crate) api: String,
    /// Bearer key for the API
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Fail when a delivered message costs the processes more CPU time
    #[arg(long, value_name = "MICROSECONDS", requires = "pid")]
    pub(crate) max_cpu_per_message: Option<f64>,
}

/// How publications reach the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublishBy {
    /// The `publish` command on a connection of its own
    Websocket,
    /// POST, on one connection: Fanfare's /api/publish, one after the other
    Api,
}

/// One channel, many subscribers.
#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) subscribers: usize,
    #[command(flatten)]
    pub(crate) flow: Flow,
}

/// Many small channels.
#[derive(Debug, Args)]
pub(crate) struct Rooms {
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) rooms: usize,
    /// Subscribers of each
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) flow: Flow,
}

/// Exactly once, in one order.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, default_value_t = 5000, value_name = "N")]
    pub(crate) connections: usize,
    /// Subscribers of each channel
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) size: usize,
    /// How many of them publish
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) publishers: usize,
    /// Publications of each publisher
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) messages: u64,
    /// Publications per second, all publishers together
    #[arg(long, default_value_t = 2000.0, value_name = "PER_SECOND")]
    pub(crate) rate: f64,
    /// Length of `data` as JSON
    #[arg(long, default_value_t = 128, value_parser = payload, value_name = "BYTES")]
    pub(crate) payload: usize,
    /// Give up on what is missing once nothing has arrived for so long
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) patience: Duration,
    /// Fail when the connections are served by fewer nodes
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) min_nodes: usize,
}

/// Several servers compared. Every file and directory is named by the script that installs them.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Some of the peers
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    pub(crate) only: Vec<String>,
    /// Some of the rows
    #[arg(long, value_delimiter = ',', value_name = "ROW,…")]
    pub(crate) rows: Vec<String>,
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) rounds: usize,
    /// Length of the measured window of each row
    #[arg(long, default_value = "3", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) seconds: Duration,
    /// A tenth of the connections, some of the rows, ours and the floors; --rows and --only say otherwise
    #[arg(long)]
    pub(crate) quick: bool,
    /// The folders of the peers
    #[arg(long, default_value = "loadtest/bench/peers", value_name = "DIRECTORY")]
    pub(crate) peers: PathBuf,
    /// Where they keep what they have downloaded
    #[arg(long, default_value = "target/bench", value_name = "DIRECTORY")]
    pub(crate) cache: PathBuf,
    /// Where our own programs are
    #[arg(long, default_value = "target/release", value_name = "DIRECTORY")]
    pub(crate) programs: PathBuf,
    /// Write the results here
    #[arg(long, default_value = "target/bench/results.json", value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// Bring performance.md and its chart in this directory up to date
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) docs: Option<PathBuf>,
    /// Measure nothing: write the page from results of before
    #[arg(long, value_name = "FILE")]
    pub(crate) render: Option<PathBuf>,
    /// The build, for the report
    #[arg(long, default_value = "unknown", value_name = "ID")]
    pub(crate) commit: String,
    /// What was typed, for the report
    #[arg(long, default_value = "fanfare-loadtest bench", value_name = "TEXT")]
    pub(crate) command_line: String,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (STAMP_BYTES_MIN..=crate::wire::FRAME_BYTES_MAX / 2).contains(&bytes) => Ok(bytes),
        Ok(_) => Err(format!("at least {STAMP_BYTES_MIN}: number, time and quotes take that")),
        Err(_) => Err("not a number of bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_last_counts_but_addresses_add_up() {
        let line = "x idle --url ws://a --connections 5 --url ws://b --connections 7 --pid 1 --pid 2";
        let Scenario::Idle(idle) = Arguments::try_parse_from(line.split(' ')).unwrap().scenario else {
            panic!("not idle");
        };
        assert_eq!((idle.connections, idle.common.url.len(), idle.common.pid), (7, 2, vec![1, 2]));
    }

    #[test]
    fn every_example_of_the_help_is_accepted() {
        let commands = EXAMPLES.replace("\\\n", " ").replace("\"$(pgrep -nx fanfare)\"", "1");
        let examples: Vec<_> =
            commands.lines().filter(|line| line.trim().starts_with("fanfare-loadtest ")).collect();
        assert_eq!(examples.len(), 6);
        for example in examples {
            Arguments::try_parse_from(example.split_whitespace()).unwrap();
        }
    }
}
