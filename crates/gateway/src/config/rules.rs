//! What no single key can know: keys that must agree with each other.

use std::net::SocketAddr;

use super::choice::{AppEvent, BrokerKind, RedisMode, SubscribeBy};
use super::consumers::{OutboxTable, Store, is_table};
use super::merge::Merged;
use super::mistake::Mistakes;
use super::tokens::{Jwt, SECRET_BYTES_MIN};
use super::typed::{Config, Numbers, PusherApp, PusherWebhooks, Told};

/// Checks the rules between keys. A rule is silent about keys that are mistaken already.
pub(super) fn check(config: &Config, merged: &Merged, mistakes: &mut Mistakes) {
    let mut rules = Rules { merged, mistakes };
    rules.listeners(config);
    rules.doors(config);
    rules.proxies(config);
    rules.redis(config);
    rules.bounds(config);
    rules.history(config);
    rules.hooks(config);
    rules.events(config);
    rules.applications(config);
    rules.callers(config);
    rules.consumers(config);
}

/// The keys that make tokens be taken.
const HMAC_SECRET: &str = "auth.jwt.hmac_secret";
const PUBLIC_KEY: &str = "auth.jwt.public_key";
const JWKS_URL: &str = "auth.jwt.jwks_url";

struct Rules<'a> {
    merged: &'a Merged,
    mistakes: &'a mut Mistakes,
}

impl Rules<'_> {
    /// Writes down that `holds` is false, in the place of the first of `paths` that a layer has set. Values that were
    /// refused are not judged again.
    fn require(&mut self, holds: bool, paths: &[&str], text: impl FnOnce() -> String) {
        if holds || paths.iter().any(|path| self.mistakes.touch(path)) {
            return;
        }
        match paths.iter().find_map(|path| self.merged.place(path)) {
            Some(place) => self.mistakes.at(paths[0], text(), place),
            None => self.mistakes.add(text()),
        }
    }

    fn listeners(&mut self, config: &Config) {
        let (public, internal) = (config.listen.public, config.listen.internal);
        self.require(!overlap(public, internal), &["listen.internal", "listen.public"], || {
            format!("listen.internal = \"{internal}\": listen.public = \"{public}\" takes this port already")
        });
        let has_keys = !config.api.keys.is_empty() || !config.api.callers.is_empty();
        let kept = internal.ip().is_loopback() || has_keys;
        self.require(kept, &["listen.internal", "api.keys"], || {
            format!(
                "listen.internal = \"{internal}\": beyond loopback the server API needs api.keys, and there are none"
            )
        });
    }

    fn doors(&mut self, config: &Config) {
        let anonymous = self.merged.switch("auth.anonymous");
        let public = config.listen.public;
        let jwt = config.auth.jwt.as_deref();
        let connect = config.hooks.connect.is_some();
        let decided = config.is_loopback() || anonymous.is_some() || jwt.is_some() || connect;
        self.require(decided, &["listen.public", "auth.anonymous", HMAC_SECRET, PUBLIC_KEY, JWKS_URL], || {
            format!(
                "listen.public = \"{public}\": beyond loopback anyone could connect; configure auth.jwt, so that clients need a \
                 token; or if it is meant, write `anonymous = true` under [auth], or set FANFARE__AUTH__ANONYMOUS=true"
            )
        });
        let keys = ["auth.anonymous", HMAC_SECRET, PUBLIC_KEY, JWKS_URL];
        self.require(anonymous != Some(false) || jwt.is_some() || connect, &keys, || {
            "auth.anonymous = false: nobody could connect, since there is no key that tokens are held against: set \
             auth.jwt.hmac_secret, auth.jwt.public_key or auth.jwt.jwks_url"
                .into()
        });
        let is_safe = config.is_loopback() || !jwt.is_some_and(Jwt::has_short_secret);
        self.require(is_safe, &["auth.jwt.hmac_secret", "auth.jwt.previous_hmac_secret"], || {
            format!(
                "auth.jwt.hmac_secret: beyond loopback a secret has at least {SECRET_BYTES_MIN} bytes, or it could be guessed: \
                 take one from `openssl rand -hex 32`"
            )
        });
        for key in ["issuer", "audience", "previous_hmac_secret", "previous_public_key"] {
            let path = format!("auth.jwt.{key}");
            let has_keys = jwt.is_some_and(|jwt| jwt.issuers.iter().any(|issuer| issuer.table == "auth.jwt"));
            let pointless = !has_keys && self.merged.place(&path).is_some();
            self.require(!pointless, &[&path, HMAC_SECRET, PUBLIC_KEY, JWKS_URL], || {
                format!("{path}: there is no key in force: set {HMAC_SECRET}, {PUBLIC_KEY} or {JWKS_URL}")
            });
        }
        let places = &config.auth.places;
        let places = [("cookie", places.cookie.is_some()), ("token_in_url", places.url)];
        for (key, is_used) in places {
            let path = format!("auth.{key}");
            let paths = [path.as_str(), HMAC_SECRET, PUBLIC_KEY, JWKS_URL];
            self.require(jwt.is_some() || !is_used, &paths, || {
                format!("{path}: no tokens are taken without {HMAC_SECRET}, {PUBLIC_KEY} or {JWKS_URL}")
            });
        }
    }

    fn proxies(&mut self, config: &Config) {
        let is_idle = config.proxy.trusted.is_empty() && config.proxy.protocol;
        self.require(!is_idle, &["proxy.protocol", "proxy.trusted"], || {
            "proxy.protocol = true: the headers of nobody are believed: name the proxies' networks in proxy.trusted".into()
        });
        for (burst, rate) in [
            ("limits.handshakes_burst", "limits.handshakes_per_second"),
            ("limits.handshakes_burst_per_ip", "limits.handshakes_per_second_per_ip"),
        ] {
            let is_idle = self.merged.whole(burst) != Some(0) && self.merged.whole(rate) == Some(0);
            self.require(!is_idle, &[burst, rate], || format!("{burst}: there is no rate: set {rate}"));
        }
    }

    fn redis(&mut self, config: &Config) {
        let mode = config.redis.mode;
        let undivided =
            mode != RedisMode::Cluster || config.redis.urls.iter().all(|it| !has_database(it.expose()));
        self.require(undivided, &["redis.urls", "redis.mode"], || {
            "redis.urls: Redis Cluster has no databases; with redis.mode = \"cluster\" a URL ends with the port".into()
        });
        let secure = config.redis.urls.iter().filter(|url| url.expose().starts_with("rediss://")).count();
        let alike = secure == 0 || secure == config.redis.urls.len();
        self.require(alike, &["redis.urls"], || {
            "redis.urls: all begin with rediss://, which is Redis over TLS, or none does".into()
        });
        let count = config.redis.urls.len();
        let (fits, takes) = match mode {
            RedisMode::Single => (count == 1, "one URL"),
            RedisMode::Sentinel | RedisMode::Cluster | RedisMode::Sharded => (count > 0, "at least one URL"),
        };
        self.require(fits || config.broker == BrokerKind::Memory, &["redis.urls", "redis.mode"], || {
            let mode = mode.as_str();
            format!("redis.urls: redis.mode = \"{mode}\" takes {takes}, and there are {count}")
        });
    }

    fn bounds(&mut self, config: &Config) {
        let (queue, message) = (config.limits.queue_bytes, config.limits.message_bytes);
        self.require(queue >= message, &["limits.queue_bytes", "limits.message_bytes"], || {
            format!("limits.queue_bytes = {queue}: less than limits.message_bytes = {message}")
        });
        let (interval, timeout) = (config.heartbeat.interval.as_secs(), config.heartbeat.timeout.as_secs());
        let paths = ["heartbeat.timeout_seconds", "heartbeat.interval_seconds"];
        self.require(timeout <= interval, &paths, || {
            format!(
                "heartbeat.timeout_seconds = {timeout}: more than heartbeat.interval_seconds = {interval}"
            )
        });
        for (name, namespace) in &config.namespaces {
            let path = format!("namespaces.{name}.max_bytes");
            let Some(bytes) = namespace.max_bytes else { continue };
            self.require(bytes <= message, &[&path, "limits.message_bytes"], || {
                format!("{path} = {bytes}: more than limits.message_bytes = {message}")
            });
        }
    }

    /// A consumer knows where to fetch.
    fn consumers(&mut self, config: &Config) {
        for (name, consumer) in &config.consumers {
            let path = |key: &str| format!("consumers.{name}.{key}");
            let url = path("url");
            // Wherever it is written about.
            let others = [
                "mode",
                "primary",
                "stream",
                "partitions",
                "group",
                "batch",
                "dead_letters",
                "keep",
                "table",
                "poll_ms",
            ];
            let others = others.map(path);
            let paths: Vec<_> = std::iter::once(&url).chain(&others).map(String::as_str).collect();
            let fault = consumer.fault_of_url();
            self.require(fault.is_none(), &paths, || format!("{url}: {}", fault.unwrap_or_default()));
            if let Store::Table(OutboxTable { table: name, .. }) = &consumer.store {
                let table = path("table");
                self.require(is_table(name), &[&table], || {
                    format!("{table} = \"{name}\": lower-case letters, digits and _, and no digit first")
                });
            }
        }
    }

    /// A caller has a key that is nobody else's, and may do something with it.
    fn callers(&mut self, config: &Config) {
        for (name, caller) in &config.api.callers {
            let path = |key: &str| format!("api.callers.{name}.{key}");
            let (keys, scopes) = (path("keys"), path("scopes"));
            let table = format!("api.callers.{name}");
            self.require(!caller.keys.is_empty(), &[&keys, &scopes, &table], || {
                format!("{keys}: a caller has at least one key")
            });
            self.require(!caller.scopes.is_empty(), &[&scopes, &keys, &table], || {
                format!("{scopes}: a caller has at least one of publish, read, admin")
            });
            let others = config.api.callers.iter().filter(|(other, _)| *other < name);
            let others = others.flat_map(|(_, other)| &other.keys).chain(&config.api.keys);
            let is_known = others.into_iter().any(|other| caller.keys.contains(other));
            self.require(!is_known, &[&keys], || format!("{keys}: one of these is somebody else's too"));
        }
    }

    /// An application is told from others by its key, and its channels are nobody else's.
    fn applications(&mut self, config: &Config) {
        for (id, app) in &config.pusher {
            let path = |key: &str| format!("pusher.apps.{id}.{key}");
            let given =
                [("key", "secret", !app.key.is_empty()), ("secret", "key", !app.secret.expose().is_empty())];
            for (key, other, is_there) in given {
                let (key, table) = (path(key), format!("pusher.apps.{id}"));
                self.require(is_there, &[&key, &path(other), &table], || {
                    format!("{key}: an application takes a key and a secret")
                });
            }
            let same = config.pusher.iter().find(|(other, it)| *other < id && it.key == app.key);
            self.require(same.is_none() || app.key.is_empty(), &[&path("key")], || {
                format!(
                    "{}: the application {} has this key already",
                    path("key"),
                    same.map_or("", |it| it.0)
                )
            });
            self.require(id != "user", &[&path("key")], || {
                "pusher.apps.user: channels that begin with user: are the personal ones of users: give the application another id"
                    .into()
            });
            let taken = config.namespaces.contains_key(id);
            self.require(!taken, &[&format!("namespaces.{id}"), &path("key")], || {
                format!("namespaces.{id}: these are the channels of pusher.apps.{id}, whose rules are the protocol's")
            });
            let message = config.limits.message_bytes;
            self.require(app.event_bytes <= message, &[&path("event_bytes"), "limits.message_bytes"], || {
                let bytes = app.event_bytes;
                format!("{} = {bytes}: more than limits.message_bytes = {message}", path("event_bytes"))
            });
        }
    }

    /// Whoever writes of history means to have one, and says how much.
    fn history(&mut self, config: &Config) {
        for (name, namespace) in &config.namespaces {
            let size = format!("namespaces.{name}.history.size");
            for key in ["history", "history.ttl_seconds", "history.idempotency_ttl_seconds"] {
                let path = format!("namespaces.{name}.{key}");
                let pointless = namespace.history.is_none() && self.merged.place(&path).is_some();
                self.require(!pointless, &[&path, &size], || {
                    format!("{path}: no history is kept without {size}")
                });
            }
        }
    }
}

impl Rules<'_> {
    /// A hook that is never asked is a mistake of whoever relies on it.
    fn hooks(&mut self, config: &Config) {
        let paths = ["hooks.refresh", "hooks.connect"];
        self.require(config.hooks.refresh.is_none() || config.hooks.connect.is_some(), &paths, || {
            "hooks.refresh: what expires is what hooks.connect has said, and it is not asked".into()
        });
        for (name, namespace) in &config.namespaces {
            let path = format!("namespaces.{name}.hooks.subscribe");
            let subscribe = format!("namespaces.{name}.subscribe");
            let is_idle = namespace.subscribe_hook.is_some() && namespace.subscribe == SubscribeBy::Token;
            self.require(!is_idle, &[&path, &subscribe], || {
                format!(
                    "{path}: nobody is asked about, since with {subscribe} = \"token\" the token has said it: set it to \"anyone\" for \
                     the backend to decide alone"
                )
            });
        }
    }
}

impl Rules<'_> {
    /// Whoever wants to be told has to say where, and has to be able to be.
    fn events(&mut self, config: &Config) {
        let Config { events, pusher, namespaces, .. } = config;
        for (name, namespace) in namespaces {
            let path = format!("namespaces.{name}.events");
            self.require(
                namespace.events == Told::Nobody || events.url.is_some(),
                &[&path, "events.url"],
                || format!("{path}: nobody is told without events.url"),
            );
        }
        let is_alone = events.secrets.len() == 1 && self.merged.place("events.secret_before").is_some();
        self.require(!is_alone, &["events.secret_before", "events.secret"], || {
            "events.secret_before: there is no events.secret that comes after it".into()
        });
        for (id, app) in pusher {
            let (told, counts) =
                (format!("pusher.apps.{id}.subscription_counts"), format!("pusher.apps.{id}.counts"));
            let is_known = app.numbers != Numbers::Unknown || self.merged.switch(&told) != Some(true);
            self.require(is_known, &[&told, &counts], || {
                format!("{told}: nobody knows how many there are without {counts} = true")
            });
            if let Some(webhooks) = &app.webhooks {
                self.webhooks(&format!("pusher.apps.{id}.webhooks"), webhooks, (id, app));
            }
        }
        for (name, hook) in &config.pusher_webhooks {
            let table = format!("pusher.webhooks.{name}");
            let (app, url) = (format!("{table}.app"), format!("{table}.url"));
            self.require(!hook.webhooks.url.is_empty(), &[&url, &app, &table], || {
                format!("{url}: it is told somewhere")
            });
            let known = pusher.get_key_value(&hook.app);
            self.require(known.is_some(), &[&app, &url, &table], || {
                format!("{app}: there is no application {:?} under pusher.apps", hook.app)
            });
            if let Some(app) = known {
                self.webhooks(&table, &hook.webhooks, app);
            }
        }
    }

    /// What is told of an application is known of it, and of channels that it can have.
    fn webhooks(&mut self, table: &str, webhooks: &PusherWebhooks, (id, app): (&String, &PusherApp)) {
        let (events, counts) = (format!("{table}.events"), format!("pusher.apps.{id}.counts"));
        let counted = [AppEvent::ChannelExistence, AppEvent::SubscriptionCount];
        let is_counted =
            app.numbers != Numbers::Unknown || !webhooks.events.iter().any(|it| counted.contains(it));
        self.require(is_counted, &[&events, &counts], || {
            format!("{events}: channel_existence and subscription_count take {counts} = true")
        });
        let channels = format!("{table}.channels");
        let is_name = |name: &String| !name.contains(':') && name.len() <= PATTERN_BYTES_MAX;
        self.require(webhooks.channels.iter().all(is_name), &[&channels, &format!("{table}.url")], || {
            format!("{channels}: names as clients know them, without the application's, of at most {PATTERN_BYTES_MAX} bytes")
        });
    }
}

/// With the longest id of an application and a colon, what can be the name of a channel.
const PATTERN_BYTES_MAX: usize = 164;

/// Whether a URL names another database than the first.
fn has_database(url: &str) -> bool {
    let place = url.rsplit_once('@').or_else(|| url.split_once("://")).map_or(url, |(_, place)| place);
    place.split_once('/').is_some_and(|(_, database)| !matches!(database, "" | "0"))
}

/// Whether two listeners would want the same port of the same address. Port 0 is a free one and clashes with nothing.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_address
}
