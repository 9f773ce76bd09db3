//! The table of all keys: one line makes a key parsed, bounded, suggested, printed and documented.

use super::check::Kind;
use super::choice::{
    AppEvent, BrokerKind, ClientCertificates, EventKind, ForwardedBy, LogFormat, OnFailure, PublishBy,
    RedisMode, Scope, SlowSubscriber, SourceMode, SubscribeBy, TlsVersion, Trial,
};
use super::consumers::TABLE_BYTES_MAX;

/// What stands for a name of the operator's choice in the path of a key.
pub(super) const ANY: &str = "*";

/// One key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// `section.name`; a segment [`ANY`] stands for a name of the operator's choice.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    pub(super) reload: bool,
    /// A sentence or two.
    pub(super) help: &'static str,
}

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// A value, in TOML's spelling.
    Value(&'static str),
    /// Nothing, which means something of its own; and a value to show as an example.
    Unset { meaning: &'static str, example: &'static str },
}

/// A section: the first segment of its keys' paths.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) keys: &'static [Key],
}

const fn key(path: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { path, kind, default: Default::Value(default), reload: false, help }
}

const fn unset(
    path: &'static str,
    kind: Kind,
    meaning: &'static str,
    example: &'static str,
    help: &'static str,
) -> Key {
    Key { path, kind, default: Default::Unset { meaning, example }, reload: false, help }
}

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max }
}

impl Key {
    /// A running node can take a new value.
    const fn reloadable(self) -> Self {
        Self { reload: true, ..self }
    }

    /// Whether this is the key of `path`.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut ours = self.path.split('.');
        let mut theirs = path.split('.');
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a == ANY || a == b => {}
                _ => return false,
            }
        }
    }

    /// The path as it is written under the heading of its section, or of its namespace.
    pub(super) fn below_heading(&self) -> &'static str {
        let (_, below) = self.path.split_once('.').expect("every key has a section");
        below.split_once("*.").map_or(below, |(_, below)| below)
    }

    /// The table whose entries the operator names, if this key is in one.
    pub(super) fn named_table(&self) -> Option<&'static str> {
        self.path.split_once(".*.").map(|(table, _)| table)
    }

    /// The last segment of the path.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

const NAME: Kind = Kind::Text { max: 64, also: "._-" };

pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "listen",
        help: "Where the node listens. Port 0 takes a free one.",
        keys: &[
            key("listen.public", Kind::Address, "\"127.0.0.1:8000\"", "Clients, health checks, and the console page."),
            key(
                "listen.internal",
                Kind::Address,
                "\"127.0.0.1:8001\"",
                "Metrics and the server API. Beyond loopback it needs `api.keys`.",
            ),
        ],
    },
    Section {
        name: "tls",
        help: "TLS on the public listener, and by the keys under `internal` on the internal one; a listener without a certificate \
               serves in clear. The files are PEM, their paths absolute or from the directory that the node is started in.",
        keys: &[
            unset(
                "tls.cert",
                Kind::File,
                "clients are served in clear",
                "\"cert.pem\"",
                "The certificate, and those that lead from it to an authority that clients know.",
            )
            .reloadable(),
            unset("tls.key", Kind::File, "there is no certificate", "\"key.pem\"", "The private key of `tls.cert`.")
                .reloadable(),
            unset(
                "tls.client_ca",
                Kind::File,
                "clients are not asked for certificates",
                "\"clients.pem\"",
                "The authorities whose certificates clients present.",
            )
            .reloadable(),
            key(
                "tls.client_certificates",
                Kind::Choice(ClientCertificates::WORDS),
                "\"required\"",
                "With `tls.client_ca`: whether a client has to present a certificate. A wrong one is always refused.",
            )
            .reloadable(),
            unset("tls.internal.cert", Kind::File, "the internal listener serves in clear", "\"cert.pem\"", "As `tls.cert`.")
                .reloadable(),
            unset("tls.internal.key", Kind::File, "there is no certificate", "\"key.pem\"", "As `tls.key`.").reloadable(),
            unset(
                "tls.internal.client_ca",
                Kind::File,
                "callers are not asked for certificates",
                "\"backends.pem\"",
                "As `tls.client_ca`.",
            )
            .reloadable(),
            key(
                "tls.internal.client_certificates",
                Kind::Choice(ClientCertificates::WORDS),
                "\"required\"",
                "As `tls.client_certificates`.",
            )
            .reloadable(),
            key(
                "tls.min_version",
                Kind::Choice(TlsVersion::WORDS),
                "\"1.2\"",
                "The oldest version spoken, on both listeners; the newest is 1.3.",
            )
            .reloadable(),
            key(
                "tls.handshake_seconds",
                whole(1, 600),
                "10",
                "Time for a handshake, from the moment the socket is open; then it is hung up on.",
            )
            .reloadable(),
            key(
                "tls.watch_seconds",
                whole(0, 86_400),
                "60",
                "How often the files are read again, to take new ones without a signal; 0 is only at SIGHUP.",
            )
            .reloadable(),
        ],
    },
    Section {
        name: "proxy",
        help: "Who stands between the clients and the public listener: limits per address are for what stands behind.",
        keys: &[
            key(
                "proxy.trusted",
                Kind::Networks,
                "[]",
                "The networks of the proxies that are believed when they say for whom they speak. Of the addresses that a \
                 request has passed, the client's is the last one that is in none of them. Empty: nobody is believed.",
            )
            .reloadable(),
            key(
                "proxy.header",
                Kind::Choice(ForwardedBy::WORDS),
                "\"x-forwarded-for\"",
                "The header that the proxies set. The other one is not looked at: they may hand on what a client put there.",
            )
            .reloadable(),
            key(
                "proxy.protocol",
                Kind::Switch,
                "false",
                "Whether sockets from `proxy.trusted` begin with a header of the PROXY protocol, version 1 or 2. Those that do \
                 not within `limits.header_seconds` are hung up on; sockets from elsewhere are taken as they are.",
            )
            .reloadable(),
        ],
    },
    Section {
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
    },
    Section {
        name: "broker",
        help: "What carries publications between the nodes.",
        keys: &[key(
            "broker.kind",
            Kind::Choice(BrokerKind::WORDS),
            "\"memory\"",
            "`memory` is one node alone; `redis` makes nodes a cluster.",
        )],
    },
    Section {
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
            key("redis.timeout_ms", whole(10, 60_000), "2000", "Milliseconds after which a call to Redis has failed."),
        ],
    },
    Section {
        name: "auth",
        help: "Who may connect.",
        keys: &[
            unset(
                "auth.anonymous",
                Kind::Switch,
                "`true` while `listen.public` is a loopback address, and there is neither `auth.jwt` nor `hooks.connect`; elsewhere it has to be written down",
                "true",
                "Whether clients without a token may connect; and with `hooks.connect`, whether those may of whom it names no user.",
            )
            .reloadable(),
            key(
                "auth.timeout_seconds",
                whole(1, 60),
                "10",
                "Time for a client that has to present a token, else the connection is closed with 4401.",
            )
            .reloadable(),
            unset(
                "auth.cookie",
                Kind::Text { max: 64, also: "._-" },
                "no cookie is looked at",
                "\"session\"",
                "The name of a cookie that may hold a token. Requests with it need an allowed Origin, or the word of the browser \
                 that they come from the gateway's own page.",
            )
            .reloadable(),
            key(
                "auth.token_in_url",
                Kind::Switch,
                "false",
                "Whether a token may come as `?token=`. Proxies and browsers keep URLs, and so would keep the token.",
            )
            .reloadable(),
            unset(
                "auth.jwt.hmac_secret",
                Kind::Secret,
                "no token is signed with a secret",
                "\"(32 bytes or more)\"",
                "The secret of HS256, HS384 and HS512: whoever has it can make tokens. At least 32 bytes beyond loopback.",
            )
            .reloadable(),
            unset(
                "auth.jwt.previous_hmac_secret",
                Kind::Secret,
                "there is none",
                "\"(the old one)\"",
                "The secret before, whose tokens are still good.",
            )
            .reloadable(),
            unset(
                "auth.jwt.public_key",
                Kind::PublicKey,
                "no token is signed with a private key",
                "\"/etc/fanfare/tokens.pem\"",
                "The public key of RSA (RS and PS 256 to 512), P-256 (ES256), P-384 (ES384), P-521 (ES512) or Ed25519 (EdDSA).",
            )
            .reloadable(),
            unset(
                "auth.jwt.previous_public_key",
                Kind::PublicKey,
                "there is none",
                "\"/etc/fanfare/tokens-old.pem\"",
                "The key before, whose tokens are still good.",
            )
            .reloadable(),
            unset(
                "auth.jwt.jwks_url",
                Kind::Url,
                "no keys are fetched",
                "\"https://login.example.com/.well-known/jwks.json\"",
                "Where the issuer publishes its public keys, a JSON Web Key Set. A token names one of them by `kid`. They are fetched again before \
                 they are old, and when a token names one that is not among them; while that fails, those at hand stay in force.",
            )
            .reloadable(),
            key(
                "auth.jwt.jwks_max_age_seconds",
                whole(1, 86_400),
                "600",
                "How old fetched keys may grow. Their server may ask for less by `Cache-Control: max-age`, down to 30 seconds.",
            )
            .reloadable(),
            key(
                "auth.jwt.jwks_cooldown_seconds",
                whole(1, 3600),
                "30",
                "The least time between two fetches from one server that tokens are the reason of, whatever keys they name.",
            )
            .reloadable(),
            key(
                "auth.jwt.jwks_in_clear",
                Kind::Switch,
                "false",
                "Whether keys may come over `http://` from other machines: whoever is on the way could exchange them.",
            )
            .reloadable(),
            unset(
                "auth.jwt.issuer",
                Kind::Words,
                "`iss` is not looked at",
                "\"https://login.example.com\"",
                "What `iss` has to be.",
            )
            .reloadable(),
            unset(
                "auth.jwt.audience",
                Kind::Words,
                "`aud` is not looked at",
                "\"fanfare\"",
                "What `aud` has to be, or to hold.",
            )
            .reloadable(),
            key(
                "auth.jwt.leeway_seconds",
                whole(0, 300),
                "30",
                "How far the clock of whoever makes tokens may be off, for `exp` and `nbf`.",
            )
            .reloadable(),
        ],
    },
    Section {
        name: "auth.issuers",
        help: "Further issuers, by names of your choice. A token whose `iss` is an issuer's is held against its keys and no others; any other \
               token against those of `auth.jwt`, if these are for any `iss` or for this. Users of all issuers share one space of names.",
        keys: &[
            unset(
                "auth.issuers.*.issuer",
                Kind::Words,
                "an issuer takes one",
                "\"https://partner.example.com\"",
                "What `iss` is in its tokens.",
            )
            .reloadable(),
            unset(
                "auth.issuers.*.audience",
                Kind::Words,
                "`aud` is not looked at",
                "\"fanfare\"",
                "What `aud` has to be in its tokens, or to hold.",
            )
            .reloadable(),
            unset(
                "auth.issuers.*.jwks_url",
                Kind::Url,
                "no keys are fetched",
                "\"https://partner.example.com/keys\"",
                "As `auth.jwt.jwks_url`.",
            )
            .reloadable(),
            unset(
                "auth.issuers.*.public_key",
                Kind::PublicKey,
                "no token is signed with a private key",
                "\"/etc/fanfare/partner.pem\"",
                "As `auth.jwt.public_key`.",
            )
            .reloadable(),
            unset(
                "auth.issuers.*.previous_public_key",
                Kind::PublicKey,
                "there is none",
                "\"/etc/fanfare/partner-old.pem\"",
                "The key before, whose tokens are still good.",
            )
            .reloadable(),
            unset(
                "auth.issuers.*.hmac_secret",
                Kind::Secret,
                "no token is signed with a secret",
                "\"(32 bytes or more)\"",
                "As `auth.jwt.hmac_secret`.",
            )
            .reloadable(),
            unset(
                "auth.issuers.*.previous_hmac_secret",
                Kind::Secret,
                "there is none",
                "\"(the old one)\"",
                "The secret before, whose tokens are still good.",
            )
            .reloadable(),
        ],
    },
    Section {
        name: "origin",
        help: "Which pages may connect. Clients that are no browser send no Origin and are not concerned.",
        keys: &[key(
            "origin.allow",
            Kind::Origins,
            "[]",
            "Origins such as `https://app.example.com`; `https://*.example.com` is all subdomains, `*` every origin. Empty: pages \
             from the host that they connect to, whatever the port.",
        )
        .reloadable()],
    },
    Section {
        name: "websocket",
        help: "The opening handshake.",
        keys: &[key(
            "websocket.strict_subprotocol",
            Kind::Switch,
            "false",
            "Whether a client that offers subprotocols of which none is known is refused with 400. Otherwise it comes in, the \
             answer names none of them, and `fanfare.v1.json` is spoken.",
        )
        .reloadable()],
    },
    Section {
        name: "compression",
        help: "permessage-deflate (RFC 7692), for clients that offer it. A connection keeps what it agreed on.",
        keys: &[
            key("compression.enabled", Kind::Switch, "true", "Whether it is agreed to.").reloadable(),
            key(
                "compression.threshold_bytes",
                whole(0, 1 << 30),
                "512",
                "Messages of fewer bytes are not compressed: there is little to save.",
            )
            .reloadable(),
            key(
                "compression.level",
                whole(1, 9),
                "1",
                "The effort: 1 is the fastest, 6 common elsewhere, 9 the best. A publication is compressed once, whatever the \
                 number of its subscribers.",
            )
            .reloadable(),
            key(
                "compression.context_takeover",
                Kind::Switch,
                "false",
                "Whether messages may refer to those before them. They get shorter, small ones above all; but each \
                 subscriber's are then its own, compressed for it alone, and a connection remembers up to two windows.",
            )
            .reloadable(),
            key(
                "compression.window_bits",
                whole(9, 15),
                "15",
                "How far back a message may refer, as an exponent of 2: 15 is 32 KiB. Clients may ask for less.",
            )
            .reloadable(),
        ],
    },
    Section {
        name: "limits",
        help: "Bounds, each of one connection unless it says otherwise.",
        keys: &[
            key("limits.connections", whole(1, 10_000_000), "100000", "Connections of the whole node.").reloadable(),
            key(
                "limits.connections_per_ip",
                whole(0, 10_000_000),
                "0",
                "Connections from one address, or from one IPv6 network of `limits.ipv6_prefix` bits; more are refused with 429. \
                 0 is any number. Behind proxies see `proxy.trusted`.",
            )
            .reloadable(),
            key(
                "limits.connections_per_user",
                whole(0, 10_000_000),
                "0",
                "Connections of one user on all nodes together; more are refused with 429, or closed with 4422 where the token comes \
                 later. 0 is any number. Nodes tell each other a few times a second, and one that has died is counted for two of \
                 `presence.heartbeat_seconds`.",
            )
            .reloadable(),
            key(
                "limits.ipv6_prefix",
                whole(16, 128),
                "64",
                "How many bits of an IPv6 address tell one client from another: providers give each customer a whole network.",
            )
            .reloadable(),
            key(
                "limits.handshakes_per_second",
                whole(0, 1_000_000),
                "0",
                "Sockets, and further connections on them, that the public listener takes in a second; beyond it clients are \
                 refused with 503, and hung up on beyond twice that. 0 is any number.",
            )
            .reloadable(),
            key(
                "limits.handshakes_burst",
                whole(0, 10_000_000),
                "0",
                "How many of them may come at once; 0 is a second's worth.",
            )
            .reloadable(),
            key(
                "limits.handshakes_per_second_per_ip",
                whole(0, 1_000_000),
                "0",
                "The same for one address, or one IPv6 network of `limits.ipv6_prefix` bits, refused with 429.",
            )
            .reloadable(),
            key(
                "limits.handshakes_burst_per_ip",
                whole(0, 10_000_000),
                "0",
                "How many of them may come at once; 0 is a second's worth.",
            )
            .reloadable(),
            key(
                "limits.streams",
                whole(1, 10_000),
                "100",
                "Streams of one HTTP/2 socket at a time, each a request or a WebSocket.",
            )
            .reloadable(),
            key(
                "limits.message_bytes",
                whole(128, 1 << 30),
                "65536",
                "Bytes of one message from a client; more closes the connection with 1009. A connection keeps the \
                 bound that it was told in `welcome`.",
            )
            .reloadable(),
            key("limits.channels", whole(1, 1_000_000), "128", "Channels subscribed to at once.").reloadable(),
            key("limits.batch", whole(1, 100_000), "128", "Commands in one message.").reloadable(),
            key(
                "limits.json_depth",
                whole(2, 512),
                "128",
                "Arrays and objects within each other in one command, its own braces among them, in JSON or MessagePack; deeper is \
                 refused with 4400 before it is parsed.",
            )
            .reloadable(),
            key(
                "limits.max_errors",
                whole(1, 1_000_000),
                "32",
                "Malformed commands until the connection is closed with 4400.",
            )
            .reloadable(),
            key(
                "limits.messages_per_second",
                whole(0, 1_000_000),
                "100",
                "Messages in a second that `welcome` tells clients to keep to; 0 is any number.",
            )
            .reloadable(),
            key(
                "limits.queue_bytes",
                whole(1_024, 1 << 32),
                "1048576",
                "Bytes waiting for a client that reads too slowly; more closes the connection with 4508, unless the \
                 `overflow` of its channels makes room. At least `limits.message_bytes`; a publication that may come to more, since it grows from one format to the \
                 other, is refused with 4413. A connection \
                 keeps the bound that it began with.",
            )
            .reloadable(),
            key(
                "limits.header_seconds",
                whole(1, 600),
                "10",
                "Time to send the head of a request, from the moment the socket is open.",
            )
            .reloadable(),
            key(
                "limits.close_seconds",
                whole(1, 60),
                "5",
                "Time for a client to answer a Close, and to take in what was sent before it; then it is hung up on.",
            )
            .reloadable(),
            key(
                "limits.dry_run",
                Kind::Choices(Trial::WORDS),
                "[]",
                "Limits that are not enforced but only counted, by `fanfare_limit_exceeded_total{mode=\"would_refuse\"}`, to see \
                 whom they would hit. What bounds memory is always enforced.",
            )
            .reloadable(),
        ],
    },
    Section {
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
    },
    Section {
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
    },
    Section {
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
    },
    Section {
        name: "api",
        help: "The server API, on the internal listener.",
        keys: &[key(
            "api.keys",
            Kind::Secrets,
            "[]",
            "Keys that callers present as `Authorization: Bearer`. Empty: loopback peers need none, and others are refused.",
        )
        .reloadable()],
    },
    Section {
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
    },
    Section {
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
    },
    Section {
        name: "events",
        help: "A backend of yours that is told, by POST of a JSON body, what has happened; the keys that say how are those of the \
               webhooks of `pusher.apps`, too. docs/events.md has the bodies and what is promised of them.",
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
    },
    Section {
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
    },
    Section {
        name: "pusher.apps",
        help: "Applications whose clients speak the Pusher protocol at `/app/<key>`. `<name>` is the id of the application, and the \
               namespace of its channels: what its clients call `news` is `<name>:news` to others. See docs/protocol/pusher.md.",
        keys: &[
            unset("pusher.apps.*.key", NAME, "an application takes one", "\"app-key\"", "Names the application to its clients.")
                .reloadable(),
            unset(
                "pusher.apps.*.secret",
                Kind::Secret,
                "an application takes one",
                "\"…\"",
                "What the application's backends sign with: what clients may hear, and requests of the HTTP API.",
            )
            .reloadable(),
            key(
                "pusher.apps.*.event_bytes",
                whole(1, 1 << 30),
                "10240",
                "Bytes of the data of one event; more is refused with 413.",
            )
            .reloadable(),
            key(
                "pusher.apps.*.client_events_per_second",
                whole(0, 1_000_000),
                "10",
                "Events that one client may publish in a second, on private and presence channels; more are refused with 4301. 0: \
                 clients may not publish.",
            )
            .reloadable(),
            key(
                "pusher.apps.*.counts",
                Kind::Switch,
                "true",
                "Whether it is known how many hear a channel that is not a presence channel: for `occupied` and \
                 `subscription_count` of the HTTP API, and for watchlists, which ask whether a user hears its own. Each subscription is \
                 then written down in the broker, as those to presence channels are anyway.",
            )
            .reloadable(),
            key(
                "pusher.apps.*.subscription_counts",
                Kind::Switch,
                "false",
                "Whether who hears a channel that is not a presence channel is told how many do, by \
                 `pusher_internal:subscription_count`. Takes `counts`, and nodes of a version that knows of it.",
            )
            .reloadable(),
            unset(
                "pusher.apps.*.webhooks.url",
                Kind::Url,
                "the application is told nothing",
                "\"https://app.example.com/pusher/webhooks\"",
                "Where the application is told what happens on its channels. How it is told the keys under `events` say.",
            )
            .reloadable(),
            key(
                "pusher.apps.*.webhooks.events",
                Kind::Choices(AppEvent::WORDS),
                "[\"channel_existence\", \"presence\"]",
                "What it is told. `channel_existence` and `subscription_count` take `counts`.",
            )
            .reloadable(),
            key(
                "pusher.apps.*.webhooks.channels",
                Kind::Patterns,
                "[\"*\"]",
                "Of which channels, by the names that its clients know; `*` stands for any characters: `\"private-*\"`, `\"*-orders\"`.",
            )
            .reloadable(),
        ],
    },
    Section {
        name: "pusher.webhooks",
        help: "More places where an application is told what happens on its channels. None of them waits for another. A new name is a \
               place that has been told nothing yet.",
        keys: &[
            unset("pusher.webhooks.*.app", NAME, "it takes one", "\"shop\"", "The id of the application.").reloadable(),
            unset(
                "pusher.webhooks.*.url",
                Kind::Url,
                "it takes one",
                "\"https://audit.example.com/pusher\"",
                "Where it is told. How it is told the keys under `events` say.",
            )
            .reloadable(),
            key(
                "pusher.webhooks.*.events",
                Kind::Choices(AppEvent::WORDS),
                "[\"channel_existence\", \"presence\"]",
                "What is told there. `channel_existence` and `subscription_count` take `counts` of the application.",
            )
            .reloadable(),
            key("pusher.webhooks.*.channels", Kind::Patterns, "[\"*\"]", "Of which channels, as with `webhooks.channels` above.")
                .reloadable(),
        ],
    },
    Section {
        name: "centrifugo",
        help: "Clients of Centrifugo, by its protocol at `/connection/websocket`.",
        keys: &[key(
            "centrifugo.enabled",
            Kind::Switch,
            "true",
            "Whether they are served. Then its channel rules hold for every client: a name that begins with `$` takes a token \
             that names it, and what stands behind `#` are the users who may subscribe, with commas between.",
        )
        .reloadable()],
    },
    Section {
        name: "outgoing",
        help: "Requests that the node makes itself, of other people's servers.",
        keys: &[unset(
            "outgoing.ca",
            Kind::File,
            "those that browsers trust, as they were when this version was built",
            "\"authority.pem\"",
            "Certificates in PEM of authorities of your own, which are believed beside those that browsers trust.",
        )],
    },
    Section {
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
    },
    Section {
        name: "log",
        help: "What the node writes to standard error.",
        keys: &[
            key("log.format", Kind::Choice(LogFormat::WORDS), "\"text\"", "`text` for people, `json` for machines."),
            key(
                "log.level",
                Kind::Filter,
                "\"info\"",
                "`error`, `warn`, `info`, `debug` or `trace`, or such directives as `info,fanfare_fanout=debug`.",
            )
            .reloadable(),
        ],
    },
    Section {
        name: "namespaces",
        help: "What holds for the channels of a namespace: those whose name begins with `<name>:`, or has no `:` for the \
               namespace `default`. Once one namespace is written down, channels of the others are refused; with none, \
               every channel is open.",
        keys: &[
            key(
                "namespaces.*.publish",
                Kind::Choice(PublishBy::WORDS),
                "\"subscribers\"",
                "Who may publish: `none` of the clients, `subscribers` of the channel, or `anyone`.",
            )
            .reloadable(),
            key(
                "namespaces.*.subscribe",
                Kind::Choice(SubscribeBy::WORDS),
                "\"anyone\"",
                "Who may subscribe: clients whose `token` names the channel, the `authenticated`, or `anyone`.",
            )
            .reloadable(),
            unset(
                "namespaces.*.max_bytes",
                whole(1, 1 << 30),
                "`limits.message_bytes` alone bounds it",
                "4096",
                "Bytes of the `data` of one publication; more is refused with 4413.",
            )
            .reloadable(),
            unset(
                "namespaces.*.rate",
                whole(1, 1_000_000),
                "`limits.messages_per_second` alone bounds it",
                "10",
                "Publications of one connection in a second, to all channels of the namespace together; as many may come at once. \
                 More are refused with 4429. Posted ones are counted by user, or by address.",
            )
            .reloadable(),
            key("namespaces.*.presence", Kind::Switch, "false", "Whether clients may ask and be told who is subscribed.")
                .reloadable(),
            key(
                "namespaces.*.events",
                Kind::Switch,
                "false",
                "Whether the backend at `events.url` is told when a channel is `occupied` and `vacated`. Each subscription is then written \
                 down in the broker, as with `presence`.",
            )
            .reloadable(),
            unset(
                "namespaces.*.hooks.subscribe",
                Kind::Url,
                "the backend is not asked",
                "\"https://app.example.com/fanfare/subscribe\"",
                "May this client subscribe? Asked of what `subscribe` allows, unless the client's token, or the answer to `connect`, \
                 names the channel.",
            )
            .reloadable(),
            unset(
                "namespaces.*.hooks.publish",
                Kind::Url,
                "the backend is not asked",
                "\"https://app.example.com/fanfare/publish\"",
                "May this client publish that? Asked of what `publish` allows, one publication of a connection after the other.",
            )
            .reloadable(),
            key(
                "namespaces.*.overflow",
                Kind::Choice(SlowSubscriber::WORDS),
                "\"disconnect\"",
                "What becomes of a subscriber for whom `limits.queue_bytes` wait: `disconnect` it with 4508, or `drop_oldest`, the \
                 oldest waiting publications of such channels. With `conflate` only the newest of a channel waits, however \
                 little that is.",
            )
            .reloadable(),
            unset(
                "namespaces.*.history.size",
                whole(1, 100_000),
                "no history is kept",
                "100",
                "The newest publications of a channel that are kept, for clients that come back.",
            )
            .reloadable(),
            key(
                "namespaces.*.history.ttl_seconds",
                whole(1, 31_536_000),
                "300",
                "How long after its last publication a channel's history is kept. Takes `history.size`.",
            )
            .reloadable(),
            key(
                "namespaces.*.history.idempotency_ttl_seconds",
                whole(1, 31_536_000),
                "300",
                "How long a publication's `key` is remembered: the same key again is not published again. Takes \
                 `history.size`.",
            )
            .reloadable(),
        ],
    },
];

/// All keys, in the order of the table.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of `path`, `namespaces.room.publish` among them.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.matches(path))
}

/// The table in which the operator names an entry by this path, and the name.
pub(super) fn named(path: &str) -> Option<(&'static str, &str)> {
    all().filter_map(Key::named_table).find_map(|table| {
        let name = path.strip_prefix(table)?.strip_prefix('.')?.split('.').next()?;
        Some((table, name))
    })
}

/// Whether a running node can take a new value of this key. False for a path that is no key.
#[must_use]
pub fn reloadable(path: &str) -> bool {
    find(path).is_some_and(|key| key.reload)
}

/// Whether `path` is a key that only a start reads.
pub(super) fn needs_restart(path: &str) -> bool {
    find(path).is_some_and(|key| !key.reload)
}

/// Whether `path` is above keys: a section, or one namespace.
pub(super) fn is_table(path: &str) -> bool {
    all().any(|key| {
        let mut theirs = path.split('.');
        let mut ours = key.path.split('.');
        theirs.all(|it| ours.next().is_some_and(|our| our == ANY || our == it)) && ours.next().is_some()
    })
}
