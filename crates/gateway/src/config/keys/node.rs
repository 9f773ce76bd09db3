//! The process itself: what it runs on, and what it tells of itself.

use super::{NAME, Section, key, unset, whole};
use crate::config::check::Kind;
use crate::config::choice::{BrokerKind, LogFormat, RedisMode};

pub(super) const NODE: Section = Section {
    name: "node",
    help: "This process.",
    keys: &[
        unset(
            "node.name",
            NAME,
            "the host's name and a random suffix",
            "\"gateway-1\"",
            "What the node is called, in `welcome` and in logs. Unique in the cluster.",
        ),
        key(
            "node.drain_seconds",
            whole(0, 3_600),
            "30",
            "On SIGTERM, the time over which connections are told to go elsewhere.",
        )
        .reloadable(),
        key("node.workers", whole(0, 1_024), "0", "Threads that serve connections; 0 is one per core."),
    ],
};

pub(super) const BROKER: Section = Section {
    name: "broker",
    help: "What carries publications between the nodes.",
    keys: &[key(
        "broker.kind",
        Kind::Choice(BrokerKind::WORDS),
        "\"memory\"",
        "`memory` is one node alone; `redis` makes nodes a cluster.",
    )],
};

pub(super) const REDIS: Section = Section {
    name: "redis",
    help: "The broker's servers, when `broker.kind` is `redis`.",
    keys: &[
        key(
            "redis.urls",
            Kind::RedisUrls,
            "[\"redis://127.0.0.1:6379\"]",
            "Where they are: `redis://[user:password@]host[:port]`, or `rediss://…`, all of them, over TLS, with certificates that \
             browsers or `outgoing.ca` trust.",
        ),
        key(
            "redis.mode",
            Kind::Choice(RedisMode::WORDS),
            "\"single\"",
            "How they are arranged: `single` is one; `sentinel` is the primary that the Sentinels at these addresses name; `cluster` is a Redis Cluster, of Redis 7 or later, of which these are some nodes; `sharded` are several that know nothing of each other, listed in the same order on all nodes.",
        ),
        key(
            "redis.primary",
            Kind::Text { max: 64, also: "._:-" },
            "\"mymaster\"",
            "What the Sentinels call the primary, when `redis.mode` is `sentinel`.",
        ),
        key(
            "redis.prefix",
            Kind::Text { max: 64, also: "._:-" },
            "\"fanfare\"",
            "What begins the name of every key and channel in Redis. Clusters that share a Redis need different ones.",
        ),
        key(
            "redis.timeout_ms",
            whole(10, 60_000),
            "2000",
            "Milliseconds after which a call to Redis has failed.",
        ),
    ],
};

pub(super) const HEARTBEAT: Section = Section {
    name: "heartbeat",
    help: "How dead peers are found.",
    keys: &[
        key("heartbeat.interval_seconds", whole(1, 3_600), "30", "Silence after which a peer is pinged."),
        key(
            "heartbeat.timeout_seconds",
            whole(1, 3_600),
            "10",
            "Time to answer a ping, else the connection is closed with 4408. At most \
             `heartbeat.interval_seconds`.",
        ),
    ],
};

pub(super) const PRESENCE: Section = Section {
    name: "presence",
    help: "Who is subscribed, for the namespaces that have it switched on.",
    keys: &[
        key(
            "presence.grace_seconds",
            whole(0, 60),
            "3",
            "How long a member that has gone may take to come back before others are told that it `left`.",
        ),
        key(
            "presence.heartbeat_seconds",
            whole(1, 60),
            "5",
            "How often a node says that its members live. Those of a node that is silent for twice as long have left.",
        ),
    ],
};

pub(super) const READINESS: Section = Section {
    name: "readiness",
    help: "When `/ready` answers 503, so that no new clients are sent here; those that are here stay. It does without these while \
           the broker is away or the node drains.",
    keys: &[
        key(
            "readiness.lag_ms",
            whole(0, 3_600_000),
            "5000",
            "Milliseconds that a publication may take from this node through the broker back to it. 0: whatever it takes.",
        )
        .reloadable(),
        key(
            "readiness.positions_ms",
            whole(0, 3_600_000),
            "30000",
            "Milliseconds for which the broker could not be asked where streams stand. 0: however long.",
        )
        .reloadable(),
        key(
            "readiness.stall_ms",
            whole(0, 3_600_000),
            "5000",
            "Milliseconds for which the node may have stood still within the last five seconds. 0: however long.",
        )
        .reloadable(),
    ],
};

pub(super) const OUTGOING: Section = Section {
    name: "outgoing",
    help: "Requests that the node makes itself, of other people's servers.",
    keys: &[unset(
        "outgoing.ca",
        Kind::File,
        "those that browsers trust, as they were when this version was built",
        "\"authority.pem\"",
        "Certificates in PEM of authorities of your own, which are believed beside those that browsers trust.",
    )],
};

pub(super) const CONSOLE: Section = Section {
    name: "console",
    help: "The pages that a node serves: one to try it with, one to run it by.",
    keys: &[
        unset(
            "console.enabled",
            Kind::Switch,
            "`true` while `listen.public` is a loopback address",
            "true",
            "Whether the page to try it with is served, at `/` of the public listener.",
        )
        .reloadable(),
        key(
            "console.internal",
            Kind::Switch,
            "true",
            "Whether the operators' console is served, at `/` of the internal listener. It can do what its user's key of the API can.",
        )
        .reloadable(),
    ],
};

pub(super) const TRACING: Section = Section {
    name: "tracing",
    help: "A collector of OpenTelemetry that is told what was asked and how long it took, by OTLP over HTTP in Protobuf. docs/operations.md says \
           which spans there are.",
    keys: &[
        unset(
            "tracing.url",
            Kind::Url,
            "nothing is recorded",
            "\"http://127.0.0.1:4318/v1/traces\"",
            "Where the collector takes traces: all of the URL.",
        )
        .reloadable(),
        unset(
            "tracing.authorization",
            Kind::Secret,
            "it is told without",
            "\"Bearer (a token)\"",
            "What `Authorization` says to it.",
        )
        .reloadable(),
        key(
            "tracing.one_in",
            whole(1, 1_000_000),
            "100",
            "Of how many that come without a trace one is recorded. A `traceparent` of the server API says for itself whether it is.",
        )
        .reloadable(),
        key("tracing.queue", whole(1, 1_000_000), "8192", "Spans that wait. What comes on top of them is lost, and counted.")
            .reloadable(),
        key("tracing.timeout_ms", whole(10, 60_000), "5000", "Milliseconds for an answer of the collector.").reloadable(),
    ],
};

pub(super) const LOG: Section = Section {
    name: "log",
    help: "What the node writes to standard error.",
    keys: &[
        key(
            "log.format",
            Kind::Choice(LogFormat::WORDS),
            "\"text\"",
            "`text` for people, `json` for machines.",
        ),
        key(
            "log.level",
            Kind::Filter,
            "\"info\"",
            "`error`, `warn`, `info`, `debug` or `trace`, or such directives as `info,fanfare_fanout=debug`.",
        )
        .reloadable(),
        key(
            "log.lines_per_second",
            whole(0, 1_000_000),
            "100",
            "The most lines that one place in the code writes in a second, and so one sort of them. Those on top are counted, and the next \
             line of the sort is preceded by one that says how many. 0: as many as there are.",
        ),
    ],
};
