//! Nodes with a given configuration.

use std::net::{IpAddr, SocketAddr};

use fanfare_fanout::broker::memory::Bus;
use fanfare_gateway::config::{self, Config, File, Flag, Source};
use fanfare_gateway::node::Node;
use fanfare_testbed::{Gateway, Samples, eventually};
use tokio::net::{TcpSocket, TcpStream};

/// The defaults, a file with this text over them, and ports that the system picks. What a file cannot say, such as a
/// heartbeat of milliseconds, a test sets in the result.
pub(crate) fn configured(text: &str) -> Config {
    let flags = ["listen.public", "listen.internal"].map(|path| Flag {
        name: "test".into(),
        path: path.into(),
        value: "127.0.0.1:0".into(),
    });
    let file = File { path: "test.toml".into(), text: text.into() };
    let source = Source { file: Some(file), flags: flags.into(), ..Source::default() };
    config::load(&source).expect("a test's configuration is good")
}

/// A node of its own.
pub(crate) async fn start(config: &Config) -> Node {
    Node::start(config).await.expect("a node starts")
}

/// A node configured by this text.
pub(crate) async fn node(text: &str) -> Node {
    start(&configured(text)).await
}

/// So many nodes on one bus, which let clients send as fast as they can.
pub(crate) async fn cluster<const COUNT: usize>() -> [Node; COUNT] {
    let (config, bus) = (configured("[limits]\nmessages_per_second = 0"), Bus::default());
    let mut nodes = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        nodes.push(Node::start_on(&config, &bus).await.expect("a node starts"));
    }
    nodes.try_into().expect("as many as were asked for")
}

/// A socket to a node from another address of this machine.
pub(crate) async fn socket_from(source: &str, node: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    let source: IpAddr = source.parse().expect("an address");
    socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is this machine");
    socket.connect(node).await.expect("the gateway listens")
}

/// Waits until a series of a node's metrics has a value.
pub(crate) async fn counted(node: &Node, series: &str, value: f64) {
    let mut last = f64::NAN;
    let reached = async || {
        last = Samples::of(node.internal_addr()).await.value(series);
        (last - value).abs() < f64::EPSILON
    };
    eventually(format_args!("{series} = {value}"), reached).await;
}

/// The counter of how often a limit was met, by what came of that: `refused`, or `would_refuse` where it is only tried.
pub(crate) fn exceeded(limit: &str, mode: &str) -> String {
    format!("fanfare_limit_exceeded_total{{limit=\"{limit}\",mode=\"{mode}\"}}")
}

/// The counter of connections that closed with a code.
pub(crate) fn closed_with(code: u16) -> String {
    format!("fanfare_connections_closed_total{{code=\"{code}\"}}")
}

/// How many bytes of memory a process has, by a field of its status: `VmRSS` now, `VmHWM` at the most so far.
pub(crate) fn weight(gateway: &Gateway, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("it has the field");
    let kib = line.trim_matches(|it: char| !it.is_ascii_digit());
    kib.parse::<u64>().expect("a number") << 10
}
