//! The configuration as the rest of the gateway sees it: no strings that stand for something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::authorities::Authorities;
use super::choice::{
    AppEvent, BrokerKind, ForwardedBy, LogFormat, PublishBy, RedisMode, Scope, SlowSubscriber, SubscribeBy,
    TlsVersion, Trial,
};
use super::consumers::Consumer;
use super::events::Events;
use super::hooks::Hooks;
use super::identity::Identity;
use super::merge::Merged;
use super::network::Network;
use super::secret::Secret;
use super::tokens::Jwt;
use super::tracing::Tracing;

/// A node's whole configuration, checked. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the node listens.
    pub listen: Listen,
    /// Who the listeners are.
    pub tls: Tls,
    /// Who stands before the public listener.
    pub proxy: Proxy,
    /// This process.
    pub node: Node,
    /// What carries publications between the nodes.
    pub broker: BrokerKind,
    /// The broker's servers, for [`BrokerKind::Redis`].
    pub redis: Redis,
    /// Who may connect.
    pub auth: Auth,
    /// Which pages may connect.
    pub origin: Origin,
    /// The opening handshake.
    pub websocket: WebSocket,
    /// How messages are compressed for clients that offer it. None: not at all.
    pub compression: Option<Compression>,
    /// Every bound.
    pub limits: Limits,
    /// How dead peers are found.
    pub heartbeat: Heartbeat,
    /// How it is known who is subscribed.
    pub presence: Presence,
    /// What holds in each namespace. Empty: every channel is open.
    pub namespaces: BTreeMap<String, Namespace>,
    /// When the node wants no new clients.
    pub readiness: Readiness,
    /// The server API.
    pub api: Api,
    /// Clients of Centrifugo.
    pub centrifugo: Centrifugo,
    /// Whom the node believes where it is the client.
    pub authorities: Authorities,
    /// Applications whose clients speak the Pusher protocol, by their ids.
    pub pusher: BTreeMap<String, PusherApp>,
    /// More places where these are told what happens on their channels.
    pub pusher_webhooks: BTreeMap<String, PusherHook>,
    /// The page at `/`.
    pub console: Console,
    /// What a backend is asked.
    pub hooks: Hooks,
    /// What a backend is told.
    pub events: Events,
    /// What is fetched to be published, by its consumers' names.
    pub consumers: BTreeMap<String, Consumer>,
    /// Where spans go.
    pub tracing: Tracing,
    /// What is logged, and how.
    pub log: Log,
    /// Whether `/echo` is served, for conformance suites. No key sets it: `fanfare echo` does, on loopback.
    pub echo: bool,
}

/// Where the node listens. The two differ, unless a port is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For clients.
    pub public: SocketAddr,
    /// For metrics and the server API.
    pub internal: SocketAddr,
}

/// TLS on the listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who the public listener is. None: it serves in clear.
    pub public: Option<Arc<Identity>>,
    /// Who the internal listener is. None: it serves in clear.
    pub internal: Option<Arc<Identity>>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
    /// How often the files are read again. None: only when told to.
    pub watch: Option<Duration>,
}

/// Who stands between the clients and the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where those are that are believed.
    pub trusted: Vec<Network>,
    /// The header in which they say for whom they speak.
    pub header: ForwardedBy,
    /// Whether their sockets begin with a header of the PROXY protocol.
    pub protocol: bool,
}

/// This process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is called: 1 to 64 letters, digits and `.`, `_`, `-`.
    pub name: String,
    /// The time over which a draining node tells its clients to go.
    pub drain: Duration,
    /// Threads that serve connections. None: one per core.
    pub workers: Option<NonZeroUsize>,
}

/// The broker's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// At least one URL. They may hold a password.
    pub urls: Vec<Secret>,
    /// How the servers are arranged; [`RedisMode::Single`] has one URL.
    pub mode: RedisMode,
    /// What the Sentinels call the primary, for [`RedisMode::Sentinel`].
    pub primary: String,
    /// What begins every name in Redis.
    pub prefix: String,
    /// The deadline of every call.
    pub timeout: Duration,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Whether clients without a token may. Always true where there is no [`Jwt`].
    pub anonymous: bool,
    /// Time for a client that has to present a token.
    pub timeout: Duration,
    /// Where a token may be, beside the header and the subprotocol made for it.
    pub places: TokenPlaces,
    /// Which tokens are good. None: there are none.
    pub jwt: Option<Arc<Jwt>>,
}

/// Where a request may carry a token, beside the header and the subprotocol made for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPlaces {
    /// The name of a cookie.
    pub cookie: Option<String>,
    /// The URL, which proxies write into their logs.
    pub url: bool,
}

/// Which pages may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `scheme://host[:port]` in lower case; the host may begin with `*.`, for all subdomains; `*` is
    /// every origin. Empty: the host that the page connects to, on any port.
    pub allow: Vec<String>,
}

/// The opening handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// Whether a client that offers subprotocols of which none is known is turned away.
    pub strict_subprotocol: bool,
}

/// How messages are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Shorter messages are not.
    pub threshold_bytes: u32,
    /// The effort, 1 to 9.
    pub level: u8,
    /// Whether messages may refer to those before them.
    pub context_takeover: bool,
    /// How far back, as an exponent of 2, from 9 to 15.
    pub window_bits: u8,
}

/// Every bound; of one connection unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the whole node.
    pub connections: NonZeroUsize,
    /// Connections from one address. None: any number.
    pub connections_per_ip: Option<NonZeroU32>,
    /// Connections of one user on this node. None: any number.
    pub connections_per_user: Option<NonZeroU32>,
    /// How many bits of an IPv6 address tell clients apart.
    pub ipv6_prefix: u8,
    /// Sockets, and further connections on them, that the public listener takes. None: any number.
    pub handshakes: Option<Pace>,
    /// The same for one address.
    pub handshakes_per_ip: Option<Pace>,
    /// Streams of one HTTP/2 socket, each a request or a WebSocket.
    pub streams: NonZeroU32,
    /// Bytes of one message from a client.
    pub message_bytes: NonZeroUsize,
    /// Channels subscribed to at once.
    pub channels: NonZeroUsize,
    /// Commands in one message.
    pub batch: NonZeroUsize,
    /// Arrays and objects within each other in one command.
    pub json_depth: usize,
    /// Malformed commands until the connection is closed.
    pub max_errors: NonZeroU32,
    /// Messages a client may send in a second. None: any number.
    pub messages_per_second: Option<NonZeroU32>,
    /// Bytes waiting for a slow client. At least `message_bytes`.
    pub queue_bytes: NonZeroUsize,
    /// Time to send the head of a request.
    pub header_timeout: Duration,
    /// Time to answer our Close, and to take in what was sent before it.
    pub close_timeout: Duration,
    /// Those that are counted and not enforced.
    pub dry_run: DryRun,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

/// Limits that are counted and not enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DryRun(Vec<Trial>);

impl DryRun {
    /// Whether this limit is only counted.
    #[must_use]
    pub fn covers(&self, limit: Trial) -> bool {
        self.0.contains(&limit) || self.0.contains(&Trial::All)
    }
}

/// How dead peers are found. `timeout` is at most `interval`: one ping at a time waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which a peer is pinged.
    pub interval: Duration,
    /// Time to answer.
    pub timeout: Duration,
}

/// How it is known who is subscribed, in namespaces with presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Time for a member that has gone to come back before it has left; at most a minute, and perhaps none.
    pub grace: Duration,
    /// Time between two signs of life of a node's members; 1 second to a minute.
    pub heartbeat: Duration,
}

/// What holds in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Who may publish.
    pub publish: PublishBy,
    /// Who may subscribe.
    pub subscribe: SubscribeBy,
    /// Bytes of one publication's data, at most [`Limits::message_bytes`]. None: that alone.
    pub max_bytes: Option<NonZeroUsize>,
    /// Publications of one connection in a second. None: [`Limits::messages_per_second`] alone.
    pub rate: Option<NonZeroU32>,
    /// Whether it is known who is subscribed.
    pub presence: bool,
    /// Whether a backend is told when its channels are occupied and vacated.
    pub events: Told,
    /// Where a backend is asked about each subscription of a client.
    pub subscribe_hook: Option<String>,
    /// Where it is asked about each of their publications.
    pub publish_hook: Option<String>,
    /// What becomes of subscribers that read too slowly.
    pub overflow: SlowSubscriber,
    /// What is kept of each channel. None: nothing.
    pub history: Option<History>,
}

/// Who is told what becomes of the channels of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody.
    Nobody,
    /// The backend of [`Events`].
    Backend,
}

/// What is kept of the channels of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The most publications of a channel, at most 100,000.
    pub size: NonZeroU32,
    /// How long after the last publication; at least a second.
    pub ttl: Duration,
    /// How long an idempotency key is remembered; at least a second.
    pub idempotency_ttl: Duration,
}

/// What a node is ready with at most. None: that is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The time from publishing to hearing.
    pub lag: Option<Duration>,
    /// For how long it could not be asked where streams stand.
    pub positions: Option<Duration>,
    /// For how long the runtime stood still.
    pub stall: Option<Duration>,
}

/// The server API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Keys that callers present. Empty: loopback peers need none, and others are refused.
    pub keys: Vec<Secret>,
    /// Callers that may not do everything, by name.
    pub callers: BTreeMap<String, Caller>,
}

/// A caller of the server API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it presents, at least one.
    pub keys: Vec<Secret>,
    /// What it may do, at least one.
    pub scopes: Vec<Scope>,
    /// On which channels: patterns. Empty: all.
    pub channels: Vec<String>,
}

/// Clients of Centrifugo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Centrifugo {
    /// Whether they are served, and its channel rules hold.
    pub enabled: bool,
}

/// An application whose clients speak the Pusher protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PusherApp {
    /// Names it to its clients.
    pub key: String,
    /// What its backends sign with.
    pub secret: Secret,
    /// The most bytes of the data of one event.
    pub event_bytes: NonZeroUsize,
    /// The most events that one client publishes in a second. None: clients do not publish.
    pub client_events_per_second: Option<NonZeroU32>,
    /// Of channels that are no presence channels.
    pub numbers: Numbers,
    /// What the application is told. None: nothing.
    pub webhooks: Option<PusherWebhooks>,
}

/// Who knows how many hear a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Nobody.
    Unknown,
    /// The application.
    Known,
    /// Those who hear it, too.
    Told,
}

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PusherWebhooks {
    /// Where.
    pub url: String,
    /// What.
    pub events: Vec<AppEvent>,
    /// Of which channels, by the names that clients know.
    pub channels: Vec<String>,
}

/// Another place where an application is told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PusherHook {
    /// The application's id.
    pub app: String,
    /// Where, and what.
    pub webhooks: PusherWebhooks,
}

/// The pages.
#[expect(clippy::struct_excessive_bools, reason = "each is switched by itself")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Whether newcomers have one at `/` of the public listener.
    pub enabled: bool,
    /// Whether operators have one at `/` of the internal listener.
    pub internal: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// Directives that `EnvFilter` understands.
    pub level: String,
    /// The most lines of one place in the code; 0 for as many as there are.
    pub lines_per_second: u32,
}

impl Config {
    /// Whether clients can only come from this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.listen.public.ip().is_loopback()
    }

    /// One line for the log that says how open the node is:
    /// `serving on loopback only, memory broker, anonymous clients, every channel open` without any configuration.
    #[must_use]
    pub fn summary(&self) -> String {
        let place =
            if self.is_loopback() { "on loopback only".into() } else { format!("on {}", self.listen.public) };
        let place = if self.tls.public.is_some() { format!("{place} over TLS") } else { place };
        let clients = match (&self.auth.jwt, self.auth.anonymous) {
            (Some(_), true) => "clients with a token and anonymous ones",
            (Some(_), false) => "clients with a token",
            (None, _) if self.hooks.connect.is_some() => "clients whom the backend knows",
            (None, _) => "anonymous clients",
        };
        let channels = match self.namespaces.len() {
            0 => "every channel open".into(),
            1 => "channels of 1 namespace".into(),
            count => format!("channels of {count} namespaces"),
        };
        format!("serving {place}, {} broker, {clients}, {channels}", self.broker.as_str())
    }
}

/// Gives each value its type. It never fails: a value that was refused left its default behind. What stands in other
/// files is not read yet.
pub(super) fn build(merged: &Merged, default_name: &str) -> Config {
    let listen = listen(merged);
    let loopback = listen.public.ip().is_loopback();
    let namespaces = merged.names("namespaces").map(|name| (name.clone(), namespace(merged, name)));
    Config {
        tls: Tls {
            public: None,
            internal: None,
            min_version: TlsVersion::of(&text(merged, "tls.min_version")),
            handshake_timeout: seconds(merged, "tls.handshake_seconds"),
            watch: Some(seconds(merged, "tls.watch_seconds")).filter(|it| !it.is_zero()),
        },
        proxy: Proxy {
            trusted: merged.list("proxy.trusted").iter().map(|it| it.parse().expect("checked")).collect(),
            header: ForwardedBy::of(&text(merged, "proxy.header")),
            protocol: merged.switch("proxy.protocol").expect("the key has a default"),
        },
        node: Node {
            name: merged.text("node.name").unwrap_or_else(|| default_name.to_owned()),
            drain: seconds(merged, "node.drain_seconds"),
            workers: NonZeroUsize::new(size(merged, "node.workers")),
        },
        broker: BrokerKind::of(&text(merged, "broker.kind")),
        redis: Redis {
            urls: merged.list("redis.urls").into_iter().map(Secret::new).collect(),
            mode: RedisMode::of(&text(merged, "redis.mode")),
            primary: text(merged, "redis.primary"),
            prefix: text(merged, "redis.prefix"),
            timeout: Duration::from_millis(whole(merged, "redis.timeout_ms")),
        },
        auth: Auth {
            anonymous: false,
            timeout: seconds(merged, "auth.timeout_seconds"),
            places: TokenPlaces {
                cookie: merged.text("auth.cookie"),
                url: merged.switch("auth.token_in_url").expect("the key has a default"),
            },
            jwt: None,
        },
        origin: Origin { allow: merged.list("origin.allow") },
        websocket: WebSocket {
            strict_subprotocol: merged.switch("websocket.strict_subprotocol").expect("the key has a default"),
        },
        compression: compression(merged),
        limits: limits(merged),
        heartbeat: Heartbeat {
            interval: seconds(merged, "heartbeat.interval_seconds"),
            timeout: seconds(merged, "heartbeat.timeout_seconds"),
        },
        presence: presence(merged),
        namespaces: namespaces.collect(),
        readiness: readiness(merged),
        api: Api {
            keys: merged.list("api.keys").into_iter().map(Secret::new).collect(),
            callers: merged.names("api.callers").map(|name| (name.clone(), caller(merged, name))).collect(),
        },
        centrifugo: Centrifugo { enabled: merged.switch("centrifugo.enabled").unwrap_or(true) },
        authorities: Authorities::default(),
        hooks: Hooks::of(merged),
        events: Events::of(merged),
        pusher: merged.names("pusher.apps").map(|id| (id.clone(), pusher_app(merged, id))).collect(),
        pusher_webhooks: pusher_hooks(merged),
        consumers: merged.names("consumers").map(|name| (name.clone(), Consumer::of(merged, name))).collect(),
        console: console(merged, loopback),
        tracing: Tracing::of(merged),
        log: log(merged),
        echo: false,
        listen,
    }
}

fn listen(merged: &Merged) -> Listen {
    Listen { public: address(merged, "listen.public"), internal: address(merged, "listen.internal") }
}

fn compression(merged: &Merged) -> Option<Compression> {
    let switch = |path| merged.switch(path).expect("the key has a default");
    let byte = |path| u8::try_from(whole(merged, path)).expect("bounded from above by 15");
    switch("compression.enabled").then(|| Compression {
        threshold_bytes: u32::try_from(whole(merged, "compression.threshold_bytes"))
            .expect("bounded by 2^30"),
        level: byte("compression.level"),
        context_takeover: switch("compression.context_takeover"),
        window_bits: byte("compression.window_bits"),
    })
}

fn limits(merged: &Merged) -> Limits {
    Limits {
        connections: positive(merged, "limits.connections"),
        connections_per_ip: small(merged, "limits.connections_per_ip"),
        connections_per_user: small(merged, "limits.connections_per_user"),
        ipv6_prefix: u8::try_from(whole(merged, "limits.ipv6_prefix")).expect("bounded from above by 128"),
        handshakes: pace(merged, "limits.handshakes_per_second", "limits.handshakes_burst"),
        handshakes_per_ip: pace(
            merged,
            "limits.handshakes_per_second_per_ip",
            "limits.handshakes_burst_per_ip",
        ),
        streams: small(merged, "limits.streams").expect("bounded from below by 1"),
        message_bytes: positive(merged, "limits.message_bytes"),
        channels: positive(merged, "limits.channels"),
        batch: positive(merged, "limits.batch"),
        json_depth: size(merged, "limits.json_depth"),
        max_errors: small(merged, "limits.max_errors").expect("bounded from below by 1"),
        messages_per_second: small(merged, "limits.messages_per_second"),
        queue_bytes: positive(merged, "limits.queue_bytes"),
        header_timeout: seconds(merged, "limits.header_seconds"),
        close_timeout: seconds(merged, "limits.close_seconds"),
        dry_run: DryRun(merged.list("limits.dry_run").iter().map(|word| Trial::of(word)).collect()),
    }
}

fn pace(merged: &Merged, rate: &str, burst: &str) -> Option<Pace> {
    let per_second = small(merged, rate)?;
    Some(Pace { per_second, burst: small(merged, burst).unwrap_or(per_second) })
}

fn namespace(merged: &Merged, name: &str) -> Namespace {
    let path = |key| format!("namespaces.{name}.{key}");
    Namespace {
        publish: PublishBy::of(&text(merged, &path("publish"))),
        subscribe: SubscribeBy::of(&text(merged, &path("subscribe"))),
        max_bytes: merged.whole(&path("max_bytes")).and_then(|it| NonZeroUsize::new(word(it))),
        rate: merged
            .whole(&path("rate"))
            .map(|it| u32::try_from(it).ok().and_then(NonZeroU32::new).expect("bounded from both sides")),
        presence: merged.switch(&path("presence")).expect("the key has a default"),
        events: match merged.switch(&path("events")).expect("the key has a default") {
            true => Told::Backend,
            false => Told::Nobody,
        },
        subscribe_hook: merged.text(&path("hooks.subscribe")),
        publish_hook: merged.text(&path("hooks.publish")),
        overflow: SlowSubscriber::of(&text(merged, &path("overflow"))),
        history: merged.whole(&path("history.size")).map(|size| History {
            size: u32::try_from(size).ok().and_then(NonZeroU32::new).expect("bounded from both sides"),
            ttl: seconds(merged, &path("history.ttl_seconds")),
            idempotency_ttl: seconds(merged, &path("history.idempotency_ttl_seconds")),
        }),
    }
}

fn presence(merged: &Merged) -> Presence {
    Presence {
        grace: seconds(merged, "presence.grace_seconds"),
        heartbeat: seconds(merged, "presence.heartbeat_seconds"),
    }
}

fn log(merged: &Merged) -> Log {
    let lines = merged.whole("log.lines_per_second").expect("the key has a default");
    Log {
        format: LogFormat::of(&text(merged, "log.format")),
        level: text(merged, "log.level"),
        lines_per_second: u32::try_from(lines).unwrap_or(u32::MAX),
    }
}

fn readiness(merged: &Merged) -> Readiness {
    let millis = |path| Some(Duration::from_millis(whole(merged, path))).filter(|time| !time.is_zero());
    Readiness {
        lag: millis("readiness.lag_ms"),
        positions: millis("readiness.positions_ms"),
        stall: millis("readiness.stall_ms"),
    }
}

fn console(merged: &Merged, loopback: bool) -> Console {
    Console {
        enabled: merged.switch("console.enabled").unwrap_or(loopback),
        internal: merged.switch("console.internal").unwrap_or(true),
    }
}

fn caller(merged: &Merged, name: &str) -> Caller {
    let list = |key: &str| merged.list(&format!("api.callers.{name}.{key}"));
    Caller {
        keys: list("keys").into_iter().map(Secret::new).collect(),
        scopes: list("scopes").iter().map(|word| Scope::of(word)).collect(),
        channels: list("channels"),
    }
}

fn pusher_app(merged: &Merged, id: &str) -> PusherApp {
    let path = |key| format!("pusher.apps.{id}.{key}");
    PusherApp {
        key: merged.text(&path("key")).unwrap_or_default(),
        secret: Secret::new(merged.text(&path("secret")).unwrap_or_default()),
        event_bytes: positive(merged, &path("event_bytes")),
        client_events_per_second: small(merged, &path("client_events_per_second")),
        numbers: match ["counts", "subscription_counts"].map(|key| merged.switch(&path(key))) {
            [Some(true), Some(true)] => Numbers::Told,
            [Some(true), _] => Numbers::Known,
            _ => Numbers::Unknown,
        },
        webhooks: merged.text(&path("webhooks.url")).map(|url| webhooks(merged, url, &path("webhooks"))),
    }
}

fn webhooks(merged: &Merged, url: String, table: &str) -> PusherWebhooks {
    PusherWebhooks {
        url,
        events: merged.list(&format!("{table}.events")).iter().map(|word| AppEvent::of(word)).collect(),
        channels: merged.list(&format!("{table}.channels")),
    }
}

fn pusher_hooks(merged: &Merged) -> BTreeMap<String, PusherHook> {
    merged.names("pusher.webhooks").map(|name| (name.clone(), pusher_hook(merged, name))).collect()
}

fn pusher_hook(merged: &Merged, name: &str) -> PusherHook {
    let table = format!("pusher.webhooks.{name}");
    let text = |key: &str| merged.text(&format!("{table}.{key}")).unwrap_or_default();
    PusherHook { app: text("app"), webhooks: webhooks(merged, text("url"), &table) }
}

fn whole(merged: &Merged, path: &str) -> u64 {
    merged.whole(path).expect("the key has a default")
}

fn text(merged: &Merged, path: &str) -> String {
    merged.text(path).expect("the key has a default")
}

fn address(merged: &Merged, path: &str) -> SocketAddr {
    text(merged, path).parse().expect("checked to be an address")
}

fn seconds(merged: &Merged, path: &str) -> Duration {
    Duration::from_secs(whole(merged, path))
}

fn word(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn size(merged: &Merged, path: &str) -> usize {
    word(whole(merged, path))
}

fn positive(merged: &Merged, path: &str) -> NonZeroUsize {
    NonZeroUsize::new(size(merged, path)).expect("bounded from below by 1")
}

fn small(merged: &Merged, path: &str) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(whole(merged, path)).expect("bounded from above by ten million"))
}
