//! Programs of the operator's: those that ask the node for something, and those that it asks and tells.

use super::{Section, key, unset, whole};
use crate::config::check::Kind;
use crate::config::choice::{EventKind, OnFailure, Scope, SourceMode};
use crate::config::consumers::TABLE_BYTES_MAX;

pub(super) const API: Section = Section {
    name: "api",
    help: "The server API, on the internal listener.",
    keys: &[key(
        "api.keys",
        Kind::Secrets,
        "[]",
        "Keys that callers present as `Authorization: Bearer`. Empty: loopback peers need none, and others are refused.",
    )
    .reloadable()],
};

pub(super) const API_CALLERS: Section = Section {
    name: "api.callers",
    help: "Callers of the server API that may not do everything, each with a name of your choice. A key is exchanged for another by \
           having both for a while.",
    keys: &[
        unset(
            "api.callers.*.keys",
            Kind::Secrets,
            "a caller has one",
            "[\"a-long-random-key\"]",
            "What it presents as `Authorization: Bearer`: one key, or several.",
        )
        .reloadable(),
        unset(
            "api.callers.*.scopes",
            Kind::Choices(Scope::WORDS),
            "a caller has one",
            "[\"publish\"]",
            "What it may do: `publish`; `read` history, presence, and what channels, connections and nodes there are; `admin` is \
             everything.",
        )
        .reloadable(),
        key(
            "api.callers.*.channels",
            Kind::Patterns,
            "[]",
            "The channels that it may do that on, `*` in them standing for any characters: `room:*`. Empty: all. What is about more \
             than a channel is closed to who is limited to some.",
        )
        .reloadable(),
    ],
};

pub(super) const HOOKS: Section = Section {
    name: "hooks",
    help: "A backend of yours that is asked, by POST of a JSON body, about clients and what they do. docs/hooks.md has the \
           questions and the answers.",
    keys: &[
        unset(
            "hooks.connect",
            Kind::Url,
            "who a client is its token says, or nobody",
            "\"https://app.example.com/fanfare/connect\"",
            "Who is this, and what may it do? Asked once for each connection, after its token has been found good if it has one.",
        )
        .reloadable(),
        unset(
            "hooks.refresh",
            Kind::Url,
            "an answer to `connect` that `expires` ends like a token",
            "\"https://app.example.com/fanfare/refresh\"",
            "Are these still welcome? Asked for many clients at once, before what `connect` has said of them expires.",
        )
        .reloadable(),
        unset(
            "hooks.call",
            Kind::Url,
            "clients cannot call the backend",
            "\"https://app.example.com/fanfare/call\"",
            "What clients `call` goes here, and the answer goes back to them.",
        )
        .reloadable(),
        unset(
            "hooks.secret",
            Kind::Secret,
            "questions are not signed",
            "\"(32 bytes or more)\"",
            "The key of HMAC-SHA256 over each body, by which the backend knows who asks: `Fanfare-Signature: sha256=…`.",
        )
        .reloadable(),
        key(
            "hooks.headers",
            Kind::Headers,
            "[]",
            "Headers of the client's own request that are handed on, such as `cookie`. No others are.",
        )
        .reloadable(),
        key("hooks.timeout_ms", whole(10, 60_000), "3000", "Milliseconds for a whole answer, waiting for a place included.")
            .reloadable(),
        key("hooks.concurrency", whole(1, 10_000), "64", "Questions of one URL under way at once, and so connections to it.")
            .reloadable(),
        key(
            "hooks.queue",
            whole(0, 1_000_000),
            "1024",
            "Questions of one URL that wait for others to be answered. What comes on top of them fails at once.",
        )
        .reloadable(),
        key(
            "hooks.on_failure",
            Kind::Choice(OnFailure::WORDS),
            "\"refuse\"",
            "What holds while the backend does not answer, or not sensibly: `refuse` what it would have been asked, for the client \
             to try again; or `allow` what rules and tokens allow without it. Calls always fail.",
        )
        .reloadable(),
    ],
};

pub(super) const EVENTS: Section = Section {
    name: "events",
    help: "A backend of yours that is told, by POST of a JSON body, what has happened; the keys that say how are those of all \
           webhooks, too. docs/events.md has the bodies and what is promised of them.",
    keys: &[
        unset(
            "events.url",
            Kind::Url,
            "nobody is told of connections and channels",
            "\"https://app.example.com/fanfare/events\"",
            "Where it is told.",
        )
        .reloadable(),
        key(
            "events.kinds",
            Kind::Choices(EventKind::WORDS),
            "[\"connected\", \"disconnected\", \"occupied\", \"vacated\"]",
            "What it is told. `occupied` and `vacated` are told of the channels of namespaces with `events = true`.",
        )
        .reloadable(),
        unset(
            "events.secret",
            Kind::Secret,
            "reports are not signed",
            "\"(32 bytes or more)\"",
            "The key of HMAC-SHA256 over the time and the body of each report: `Fanfare-Signature: sha256=…`.",
        )
        .reloadable(),
        unset(
            "events.secret_before",
            Kind::Secret,
            "reports are signed with `events.secret` alone",
            "\"(the one before)\"",
            "While keys are exchanged: each report is signed with both, and whoever knows one of them can tell that it is genuine.",
        )
        .reloadable(),
        key("events.batch_events", whole(1, 10_000), "100", "Events of one report.").reloadable(),
        key("events.batch_bytes", whole(1024, 16 << 20), "262144", "Bytes of one report, about; a single event may have more.")
            .reloadable(),
        key("events.delay_ms", whole(0, 60_000), "100", "Milliseconds that the first event of a report waits for others.")
            .reloadable(),
        key(
            "events.queue",
            whole(1, 10_000_000),
            "10000",
            "Events that wait for their turn on one node. What comes on top of them is lost, and counted. `occupied`, `vacated` and \
             what else is kept in the broker wait there, without this bound.",
        )
        .reloadable(),
        key("events.timeout_ms", whole(10, 60_000), "5000", "Milliseconds for a whole answer.").reloadable(),
        key(
            "events.retry_seconds",
            whole(0, 86_400),
            "300",
            "For how long a report is sent again that the backend has not taken, at growing distances. Then it is lost, and counted.",
        )
        .reloadable(),
    ],
};

pub(super) const CONSUMERS: Section = Section {
    name: "consumers",
    help: "Publications that the cluster fetches by itself: `<name>` is a consumer of a Redis Stream, of several, or of a table of \
           PostgreSQL: its URL says which. Any number of nodes may have it. docs/consumers.md says how entries look and what is promised.",
    keys: &[
        unset(
            "consumers.*.url",
            Kind::Secret,
            "a consumer takes one",
            "\"redis://127.0.0.1:6379\"",
            "The server: `redis://…`, or `rediss://…` over TLS, with several hosts as in `redis://a:26379,b:26379` where `mode` \
             takes them; or `postgresql://…`, where `sslmode=require` takes TLS. Certificates are those that browsers or \
             `outgoing.ca` trust.",
        ),
        key(
            "consumers.*.mode",
            Kind::Choice(SourceMode::WORDS),
            "\"single\"",
            "Of Redis: how the servers are arranged: `single` is one; `sentinel` is the primary that the Sentinels at these addresses \
             name; `cluster` is a Redis Cluster of which these are some nodes.",
        ),
        key(
            "consumers.*.primary",
            Kind::Text { max: 64, also: "._:-" },
            "\"mymaster\"",
            "Of Redis: what the Sentinels call the primary, when `mode` is `sentinel`.",
        ),
        key("consumers.*.batch", whole(1, 1000), "100", "The most entries that are read at once."),
        key(
            "consumers.*.dead_letters",
            Kind::Switch,
            "true",
            "Whether entries that nobody could publish are put aside with the reason, the last 10,000: in the stream `{<stream>}:dead`, \
             or in the table `<table>_dead`. Otherwise they are dropped.",
        ),
        key(
            "consumers.*.stream",
            Kind::Text { max: 48, also: "._-:" },
            "\"fanfare:outbox\"",
            "Of Redis: the stream.",
        ),
        key(
            "consumers.*.partitions",
            whole(1, 64),
            "1",
            "Of Redis: the number of streams. With several they are called `<stream>:0` and so on; nodes share them, and the \
             order of a channel is kept where producers take the same one for it each time.",
        ),
        key(
            "consumers.*.group",
            Kind::Text { max: 64, also: "._-:" },
            "\"fanfare\"",
            "Of Redis: the consumer group, which is made where there is none.",
        ),
        key(
            "consumers.*.keep",
            Kind::Switch,
            "false",
            "Of Redis: whether entries stay in the stream when they have been published, for other groups that read it.",
        ),
        key(
            "consumers.*.table",
            Kind::Text { max: TABLE_BYTES_MAX, also: "_" },
            "\"fanfare_outbox\"",
            "Of PostgreSQL: the table, as `fanfare outbox-sql` makes it.",
        ),
        key(
            "consumers.*.poll_ms",
            whole(10, 3_600_000),
            "1000",
            "Of PostgreSQL: the milliseconds after which the table is looked at without a notification.",
        ),
    ],
};
