//! What is compared: the peers and the rows, as two tables.

use std::borrow::Cow;

use crate::protocol::Dialect;

/// A server, in one configuration.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// Below `peers/`: the program that installs and serves it.
    pub(super) folder: &'static str,
    pub(super) dialect: Dialect,
    /// What publishes to its subscribers, where that is another protocol.
    pub(super) publishes: Option<Dialect>,
    /// Whether it takes part where it is not named.
    pub(super) part: Part,
    /// What its channels begin with.
    pub(super) prefix: &'static str,
    /// How many publications of a channel it keeps.
    pub(super) keeps: u64,
    /// Told to the program, beside what every peer is told.
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// Whether it can run as several nodes that share a Redis.
    pub(super) clusters: bool,
    pub(super) wire: Wire,
}

/// When a peer takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Always,
    /// Only in a run that names it.
    Named,
}

/// What it is spoken to over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Clear,
    /// It is given a certificate.
    Tls,
}

const fn peer(name: &'static str, title: &'static str, dialect: Dialect) -> Peer {
    Peer {
        name,
        title,
        folder: name,
        dialect,
        publishes: None,
        part: Part::Always,
        prefix: "load:",
        keeps: 0,
        environment: &[],
        clusters: true,
        wire: Wire::Clear,
    }
}

/// The gateway, heard by another protocol than its own.
const fn variant(name: &'static str, title: &'static str, dialect: Dialect) -> Peer {
    Peer { folder: "fanfare", part: Part::Named, clusters: false, ..peer(name, title, dialect) }
}

/// Floors first, then ours, then the others.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        folder: "floor",
        environment: &[("GATHER", "1")],
        clusters: false,
        ..peer("floor1", "floor, 1 a write", Dialect::Floor)
    },
    Peer {
        folder: "floor",
        environment: &[("GATHER", "8")],
        clusters: false,
        ..peer("floor8", "floor, 8 a write", Dialect::Floor)
    },
    peer("fanfare", "Fanfare", Dialect::Fanfare),
    Peer {
        folder: "fanfare",
        prefix: "kept:",
        keeps: 100, // As its configuration says.
        ..peer("fanfare-history", "Fanfare, history and presence", Dialect::Fanfare)
    },
    Peer {
        folder: "fanfare",
        wire: Wire::Tls,
        clusters: false,
        ..peer("fanfare-tls", "Fanfare, TLS", Dialect::Fanfare)
    },
    // Its other dialects, to be compared with its own: what they need beside that is theirs.
    Peer {
        publishes: Some(Dialect::Fanfare),
        ..variant("fanfare-centrifugo", "Fanfare, heard as Centrifugo in JSON", Dialect::Centrifugo)
    },
    Peer {
        publishes: Some(Dialect::Fanfare),
        ..variant(
            "fanfare-centrifugo-protobuf",
            "Fanfare, heard as Centrifugo in Protobuf",
            Dialect::CentrifugoProtobuf,
        )
    },
    // Nobody but clients of the application publishes there.
    Peer { prefix: "load-", ..variant("fanfare-pusher", "Fanfare, heard as Pusher", Dialect::Pusher) },
    peer("centrifugo", "Centrifugo", Dialect::Centrifugo),
    peer("nchan", "nchan", Dialect::Nchan),
    Peer { clusters: false, ..peer("nats", "NATS", Dialect::Nats) },
    peer("ws", "ws (npm)", Dialect::Ws),
    peer("socketio", "Socket.IO", Dialect::Socketio),
    // What stands before a colon is a namespace there too, and has to be declared.
    Peer { prefix: "load-", ..peer("sockudo", "Sockudo", Dialect::Pusher) },
];

/// Rows that share a server and its connections.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) nodes: usize,
    pub(super) rooms: usize,
    /// Subscribers of each.
    pub(super) size: usize,
    pub(super) rows: Cow<'static, [Row]>,
}

/// One thing that is measured.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) measure: Measure,
}

/// How a row is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    /// What the connections cost that were just opened. The first of its set.
    Idle,
    /// What publications to them cost.
    Flow { payload_bytes: usize, rhythm: Rhythm, burst: u64 },
    /// How long publications take in a small channel of the same server, heard by a generator of its own: while the
    /// crowd is silent, or while it hears as many deliveries a second.
    Neighbour { deliveries_beside: Option<f64> },
}

/// When publications leave.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rhythm {
    /// Flat out, with so many on their way.
    InFlight(usize),
    /// As many as make so many deliveries a second.
    Deliveries(f64),
    /// Half as often as the peer managed in another row of the set, in the same round.
    HalfOf(&'static str),
}

const fn flow(name: &'static str, title: &'static str, payload_bytes: usize, rhythm: Rhythm) -> Row {
    Row { name, title, measure: Measure::Flow { payload_bytes, rhythm, burst: 1 } }
}

const fn room_flow(name: &'static str, title: &'static str, payload_bytes: usize) -> Row {
    let measure = Measure::Flow { payload_bytes, rhythm: Rhythm::InFlight(256), burst: 8 };
    Row { name, title, measure }
}

/// In the order in which they are run.
pub(super) const SETS: &[Set] = &[
    Set {
        name: "rooms",
        nodes: 1,
        rooms: 1000,
        size: 10,
        rows: Cow::Borrowed(&[
            Row { name: "idle", title: "10,000 idle connections", measure: Measure::Idle },
            room_flow("rooms-128", "1,000 rooms of 10, flat out, 128 B", 128),
            room_flow("rooms-1024", "1,000 rooms of 10, flat out, 1 KiB", 1024),
        ]),
    },
    Set {
        name: "wide",
        nodes: 1,
        rooms: 1,
        size: 10_000,
        rows: Cow::Borrowed(&[
            flow("wide-128", "10,000 subscribers, flat out, 128 B", 128, Rhythm::InFlight(8)),
            flow("wide-1024", "10,000 subscribers, flat out, 1 KiB", 1024, Rhythm::InFlight(8)),
            Row {
                name: "neighbour-alone",
                title: "a channel of 10 beside 10,000 silent subscribers",
                measure: Measure::Neighbour { deliveries_beside: None },
            },
            Row {
                name: "neighbour",
                title: "a channel of 10 beside 10,000 subscribers who hear 20,000 deliveries a second",
                measure: Measure::Neighbour { deliveries_beside: Some(20_000.0) },
            },
        ]),
    },
    Set {
        name: "fanout",
        nodes: 1,
        rooms: 1,
        size: 1000,
        rows: Cow::Borrowed(&[
            flow("fanout-128", "1,000 subscribers, flat out, 128 B", 128, Rhythm::InFlight(32)),
            flow("fanout-1024", "1,000 subscribers, flat out, 1 KiB", 1024, Rhythm::InFlight(32)),
            flow(
                "single-128",
                "1,000 subscribers, one publication at a time, 128 B",
                128,
                Rhythm::InFlight(1),
            ),
            flow(
                "rate-128",
                "1,000 subscribers, 20,000 deliveries a second, 128 B",
                128,
                Rhythm::Deliveries(20_000.0),
            ),
            flow(
                "half-128",
                "1,000 subscribers, half its own maximum, 128 B",
                128,
                Rhythm::HalfOf("fanout-128"),
            ),
        ]),
    },
    Set {
        name: "nodes",
        nodes: 2,
        rooms: 1,
        size: 1000,
        rows: Cow::Borrowed(&[
            flow(
                "nodes-128",
                "two nodes and Redis, 1,000 subscribers, flat out, 128 B",
                128,
                Rhythm::InFlight(32),
            ),
            flow(
                "nodes-rate-128",
                "two nodes and Redis, 20,000 deliveries a second, 128 B",
                128,
                Rhythm::Deliveries(20_000.0),
            ),
            flow(
                "nodes-half-128",
                "two nodes and Redis, half its own maximum, 128 B",
                128,
                Rhythm::HalfOf("nodes-128"),
            ),
        ]),
    },
];
