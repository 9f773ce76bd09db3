//! The configuration from outside: text in, a typed value or exact messages out.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::*;

fn file(text: &str) -> Source {
    Source { file: Some(File { path: "fanfare.toml".into(), text: text.into() }), ..Source::default() }
}

fn with(mut source: Source, variables: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Source {
    source.environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let flag = |(name, path, value): &(&str, &str, &str)| Flag {
        name: (*name).into(),
        path: (*path).into(),
        value: (*value).into(),
    };
    source.flags = flags.iter().map(flag).collect();
    source
}

/// Loads a file that is wrong and compares every message.
#[track_caller]
fn refused(text: &str, messages: &[&str]) {
    let mistakes = load(&file(text)).expect_err(text);
    assert_eq!(mistakes.iter().collect::<Vec<_>>(), messages, "{text}");
}

/// The same for a single variable.
#[track_caller]
fn refused_variable(name: &str, value: &str, message: &str) {
    let source = with(Source::default(), &[(name, value)], &[]);
    assert_eq!(load(&source).expect_err(value).to_string(), format!("{message} (variable {name})"));
}

#[test]
fn without_any_configuration_the_node_is_open_to_its_own_machine_alone() {
    let config = load(&Source::default()).unwrap();
    assert_eq!(config.listen.public, "127.0.0.1:8000".parse().unwrap());
    assert_eq!(config.listen.internal, "127.0.0.1:8001".parse().unwrap());
    assert_eq!(config.node, Node { name: "node".into(), drain: Duration::from_secs(30), workers: None });
    assert_eq!(config.broker, BrokerKind::Memory);
    assert_eq!(config.redis.timeout, Duration::from_secs(2));
    assert_eq!(config.limits.connections.get(), 100_000);
    assert_eq!(config.limits.messages_per_second.unwrap().get(), 100);
    assert_eq!(config.limits.header_timeout, Duration::from_secs(10));
    assert!(config.auth.anonymous && config.console.enabled && config.namespaces.is_empty());
    assert_eq!(
        config.summary(),
        "serving on loopback only, memory broker, anonymous clients, every channel open"
    );
}

#[test]
fn later_layers_stand_over_earlier_ones_key_by_key() {
    let text = "[limits]\nconnections = 1\nchannels = 2\nbatch = 3\n";
    let variables = [("FANFARE__LIMITS__CHANNELS", "20"), ("FANFARE__LIMITS__BATCH", "30")];
    let flags = [("--batch", "limits.batch", "300")];
    let limits = load(&with(file(text), &variables, &flags)).unwrap().limits;
    assert_eq!((limits.connections.get(), limits.channels.get(), limits.batch.get()), (1, 20, 300));
    assert_eq!(limits.max_errors.get(), 32);
}

#[test]
fn variables_spell_every_type() {
    let variables = [
        ("FANFARE__API__KEYS", "one, two"),
        ("FANFARE__AUTH__ANONYMOUS", "true"),
        ("FANFARE__BROKER__KIND", "redis"),
        ("FANFARE__LISTEN__PUBLIC", "[::]:9000"),
        ("FANFARE__NAMESPACES__ROOM__MAX_BYTES", "100"),
        ("FANFARE__NAMESPACES__ROOM__HISTORY__SIZE", "7"),
        ("FANFARE__NODE__WORKERS", "0"),
        ("FANFARE__ORIGIN__ALLOW", "[\"https://a.example\", \"https://*.b.example\"]"),
        ("FANFARE__REDIS__PREFIX", ""),
        ("FANFARE_PORT", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
    ];
    let config = load(&with(Source::default(), &variables, &[])).unwrap();
    assert_eq!(config.api.keys, [Secret::new("one"), Secret::new("two")]);
    assert_eq!(config.broker, BrokerKind::Redis);
    assert_eq!(config.origin.allow, ["https://a.example", "https://*.b.example"]);
    assert_eq!(config.redis.prefix, "fanfare", "an empty variable is not set");
    assert_eq!(config.namespaces["room"].max_bytes.unwrap().get(), 100);
    assert_eq!(config.namespaces["room"].history.as_ref().unwrap().size.get(), 7);
    assert!(!config.console.enabled, "the page is for loopback unless it is asked for");
    assert_eq!(
        config.summary(),
        "serving on [::]:9000, redis broker, anonymous clients, channels of 1 namespace"
    );
}

#[test]
fn a_namespace_exists_by_being_written_down() {
    let config = load(&file("[namespaces.room]\n[namespaces.My-news]\npublish = \"none\"\n")).unwrap();
    assert_eq!(config.namespaces.keys().collect::<Vec<_>>(), ["My-news", "room"]);
    let room = Namespace {
        rate: None,
        publish: PublishBy::Subscribers,
        subscribe: SubscribeBy::Anyone,
        max_bytes: None,
        subscribe_hook: None,
        publish_hook: None,
        presence: false,
        events: Told::Nobody,
        overflow: SlowSubscriber::Disconnect,
        history: None,
    };
    assert_eq!(config.namespaces["room"], room);
    assert_eq!(config.namespaces["My-news"], Namespace { publish: PublishBy::None, ..room });
}

#[test]
fn a_namespace_has_history_by_saying_how_much() {
    let text = "[namespaces.room]\npresence = true\noverflow = \"drop_oldest\"\n[namespaces.room.history]\nsize = 50\n\
                [namespaces.price]\noverflow = \"conflate\"\nhistory = { size = 1, ttl_seconds = 60, \
                idempotency_ttl_seconds = 10 }\n";
    let namespaces = load(&file(text)).unwrap().namespaces;
    let (room, price) = (&namespaces["room"], &namespaces["price"]);
    assert!(room.presence && !price.presence);
    assert_eq!((room.overflow, price.overflow), (SlowSubscriber::DropOldest, SlowSubscriber::Conflate));
    let history = |size, ttl, idempotency_ttl| History {
        size: NonZeroU32::new(size).unwrap(),
        ttl: Duration::from_secs(ttl),
        idempotency_ttl: Duration::from_secs(idempotency_ttl),
    };
    assert_eq!(room.history, Some(history(50, 300, 300)));
    assert_eq!(price.history, Some(history(1, 60, 10)));
    let presence = load(&file("[presence]\ngrace_seconds = 0\n")).unwrap().presence;
    assert_eq!(presence, Presence { grace: Duration::ZERO, heartbeat: Duration::from_secs(5) });
    assert_eq!(load(&Source::default()).unwrap().presence.grace, Duration::from_secs(3));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn values_of_the_wrong_type_are_refused_where_they_stand() {
    let whole = "a whole number from 1 to 10000000 is expected";
    for (value, shown) in [
        ("\"many\"", "\"many\""),
        ("\"7\"", "\"7\""),
        ("5.7", "5.7"),
        ("0", "0"),
        ("-1", "-1"),
        ("10_000_001", "10_000_001"),
        ("99999999999999999999", "99999999999999999999"),
        ("true", "true"),
        ("[1]", "[1]"),
        ("1979-05-27", "1979-05-27"),
    ] {
        refused(
            &format!("# why\n[limits]\n\nconnections = {value} # so\n"),
            &[&format!("limits.connections = {shown}: {whole} (fanfare.toml, line 4)")],
        );
    }
    let cases = [
        (
            "[limits.connections]\nmax = 1",
            "limits.connections: a whole number from 1 to 10000000 is expected, not a table (fanfare.toml, line 1)",
        ),
        ("api = \"hunter2\"", "api: a table of keys is expected (fanfare.toml, line 1)"),
        ("limits = 5", "limits: a table of keys is expected (fanfare.toml, line 1)"),
        (
            "[broker]\nkind = \"nats\"",
            "broker.kind = \"nats\": \"memory\" or \"redis\" is expected (fanfare.toml, line 2)",
        ),
        (
            "[listen]\npublic = 8000",
            "listen.public = 8000: an address and port such as \"127.0.0.1:8000\" or \"[::1]:8000\" is expected \
             (fanfare.toml, line 2)",
        ),
        (
            "[console]\nenabled = \"yes\"",
            "console.enabled = \"yes\": true or false is expected (fanfare.toml, line 2)",
        ),
        (
            "[node]\nname = \"a b\"",
            "node.name = \"a b\": text of 1 to 64 letters, digits and any of \"._-\" is expected (fanfare.toml, line 2)",
        ),
        (
            "[log]\nlevel = \"info,=x=\"",
            "log.level = \"info,=x=\": a level such as \"info\", or directives such as \"info,fanfare_fanout=debug\" is \
             expected (fanfare.toml, line 2)",
        ),
        (
            "[origin]\nallow = [\n  \"null\",\n]",
            "origin.allow = […: a list of origins such as \"https://app.example.com\" or \"https://*.example.com\" is \
             expected (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.\"a b\"]\n",
            "namespaces.a b: the name of a namespace is 1 to 64 letters, digits and any of \"_-\" (fanfare.toml, line 1)",
        ),
        (
            "[namespaces.room]\nsubscribe = \"all\"",
            "namespaces.room.subscribe = \"all\": \"token\", \"authenticated\" or \"anyone\" is expected (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room]\noverflow = \"drop_newest\"",
            "namespaces.room.overflow = \"drop_newest\": \"disconnect\", \"drop_oldest\" or \"conflate\" is expected \
             (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room.history]\nsize = 0",
            "namespaces.room.history.size = 0: a whole number from 1 to 100000 is expected (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room]\nhistory = true",
            "namespaces.room.history: a table of keys is expected (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room]\npresence = 1",
            "namespaces.room.presence = 1: true or false is expected (fanfare.toml, line 2)",
        ),
        (
            "[presence]\ngrace_seconds = 61",
            "presence.grace_seconds = 61: a whole number from 0 to 60 is expected (fanfare.toml, line 2)",
        ),
    ];
    for (text, message) in cases {
        refused(text, &[message]);
    }
}

#[test]
fn variables_and_flags_are_held_to_the_same_types() {
    let name = "FANFARE__LIMITS__CHANNELS";
    let expected = "a whole number from 1 to 1000000 is expected";
    for value in ["many", "5.7", "-1", "+1", " 1", "0x10", "1000001", "true"] {
        refused_variable(name, value, &format!("limits.channels = \"{value}\": {expected}"));
    }
    refused_variable("FANFARE__CONSOLE__ENABLED", "1", "console.enabled = \"1\": true or false is expected");
    refused_variable(
        "FANFARE__LIMITS__CHANELS",
        "1",
        "limits.chanels: no such key; did you mean limits.channels?",
    );
    let source = with(Source::default(), &[], &[("--drain", "node.drain_seconds", "soon")]);
    assert_eq!(
        load(&source).unwrap_err().to_string(),
        "node.drain_seconds = \"soon\": a whole number from 0 to 3600 is expected (flag --drain)"
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    for (text, message) in [
        (
            "[limits]\nconections = 1",
            "limits.conections: no such key; did you mean limits.connections? (fanfare.toml, line 2)",
        ),
        ("[limit]\nbatch = 1", "limit.batch: no such key; did you mean limits.batch? (fanfare.toml, line 2)"),
        (
            "[node]\nchannels = 1",
            "node.channels: no such key; did you mean limits.channels? (fanfare.toml, line 2)",
        ),
        (
            "heartbeat.interval = 1",
            "heartbeat.interval: no such key; did you mean heartbeat.interval_seconds? (fanfare.toml, line 1)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"\nsecret = \"s\"\nsecrets = 1",
            "pusher.apps.shop.secrets: no such key; did you mean pusher.apps.shop.secret? (fanfare.toml, line 4)",
        ),
        (
            "[namespaces.room]\npublisch = \"none\"",
            "namespaces.room.publisch: no such key; did you mean namespaces.room.publish? (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room]\nsize = 1",
            "namespaces.room.size: no such key; did you mean namespaces.room.history.size? (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room.history]\nttl = 1",
            "namespaces.room.history.ttl: no such key; did you mean namespaces.room.history.ttl_seconds? (fanfare.toml, line 2)",
        ),
        (
            "[colours]\n",
            "colours: no such key; `fanfare default-config` prints all keys (fanfare.toml, line 1)",
        ),
        (
            "[limits]\nbatch.size = 1",
            "limits.batch: a whole number from 1 to 100000 is expected, not a table (fanfare.toml, line 2)",
        ),
    ] {
        refused(text, &[message]);
    }
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line() {
    let mistakes = load(&file("[limits]\nbatch = 1\nbatch = 2\n")).unwrap_err().to_string();
    assert_eq!(mistakes, "not TOML: duplicate key (fanfare.toml, line 3)");
    let mistakes = load(&file("[limits\nconections = 1\n")).unwrap_err().to_string();
    assert!(mistakes.starts_with("not TOML: ") && mistakes.ends_with("(fanfare.toml, line 1)"), "{mistakes}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn keys_that_must_agree_are_held_to_it() {
    for (text, message) in [
        (
            "[listen]\npublic = \"0.0.0.0:8000\"",
            "listen.public = \"0.0.0.0:8000\": beyond loopback anyone could connect; configure auth.jwt, so that clients need a \
             token; or if it is meant, write `anonymous = true` under [auth], or set FANFARE__AUTH__ANONYMOUS=true (fanfare.toml, line 2)",
        ),
        (
            "[auth]\nanonymous = false",
            "auth.anonymous = false: nobody could connect, since there is no key that tokens are held against: set \
             auth.jwt.hmac_secret, auth.jwt.public_key or auth.jwt.jwks_url (fanfare.toml, line 2)",
        ),
        (
            "[listen]\npublic = \"0.0.0.0:8000\"\n[auth.jwt]\nhmac_secret = \"hunter2\"",
            "auth.jwt.hmac_secret: beyond loopback a secret has at least 32 bytes, or it could be guessed: take one from \
             `openssl rand -hex 32` (fanfare.toml, line 4)",
        ),
        (
            "[auth.jwt]\naudience = \"here\"",
            "auth.jwt.audience: there is no key in force: set auth.jwt.hmac_secret, auth.jwt.public_key or auth.jwt.jwks_url \
             (fanfare.toml, line 2)",
        ),
        (
            "[auth]\ncookie = \"session\"",
            "auth.cookie: no tokens are taken without auth.jwt.hmac_secret, auth.jwt.public_key or auth.jwt.jwks_url \
             (fanfare.toml, line 2)",
        ),
        (
            "[auth.jwt]\npublic_key = \"no/such.pem\"",
            "auth.jwt.public_key: the file \"no/such.pem\" cannot be read: No such file or directory (os error 2) \
             (fanfare.toml, line 2)",
        ),
        (
            "[auth.jwt]\npublic_key = \"-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----\"",
            "auth.jwt.public_key: it is a private key: whoever checks tokens needs the public one alone (openssl pkey -pubout) \
             (fanfare.toml, line 2)",
        ),
        (
            "[auth.jwt]\njwks_url = \"login.example.com/keys\"",
            "auth.jwt.jwks_url = \"login.example.com/keys\": a URL such as \"https://login.example.com/path\", without a user or \
             a password is expected (fanfare.toml, line 2)",
        ),
        (
            "[auth.jwt]\njwks_url = \"http://login.example.com/keys\"",
            "auth.jwt.jwks_url: over http:// whoever is on the way could put keys of their own in the place of these: use https://; \
             or if the way is safe, write jwks_in_clear = true under [auth.jwt] (fanfare.toml, line 2)",
        ),
        (
            "[auth.issuers.partner]\njwks_url = \"https://a.example\"",
            "auth.issuers.partner.issuer: an issuer beside others is told from them by what its tokens have as `iss`: write it \
             here (fanfare.toml, line 2)",
        ),
        (
            "[auth.issuers.partner]\nissuer = \"a\"",
            "auth.issuers.partner.public_key: an issuer takes one of public_key, jwks_url and hmac_secret (fanfare.toml, line 2)",
        ),
        (
            "[auth.jwt]\nissuer = \"a\"\njwks_url = \"http://[::1]:1\"\n[auth.issuers.b]\nissuer = \"a\"\nhmac_secret = \"s\"",
            "auth.issuers.b.issuer: auth.jwt has this name already (fanfare.toml, line 5)",
        ),
        (
            "[auth.issuers.b]\nissuers = \"a\"",
            "auth.issuers.b.issuers: no such key; did you mean auth.issuers.b.issuer? (fanfare.toml, line 2)",
        ),
        (
            "[auth.jwt]\nhmac_secret = 7",
            "auth.jwt.hmac_secret = (secret): a secret that is not empty is expected (fanfare.toml, line 2)",
        ),
        (
            "[listen]\ninternal = \"0.0.0.0:8001\"",
            "listen.internal = \"0.0.0.0:8001\": beyond loopback the server API needs api.keys, and there are none \
             (fanfare.toml, line 2)",
        ),
        (
            "[listen]\ninternal = \"127.0.0.1:8000\"",
            "listen.internal = \"127.0.0.1:8000\": listen.public = \"127.0.0.1:8000\" takes this port already \
             (fanfare.toml, line 2)",
        ),
        (
            "[listen]\npublic = \"0.0.0.0:8001\"\n[auth]\nanonymous = true",
            "listen.internal = \"127.0.0.1:8001\": listen.public = \"0.0.0.0:8001\" takes this port already \
             (fanfare.toml, line 2)",
        ),
        (
            "[limits]\nqueue_bytes = 2000",
            "limits.queue_bytes = 2000: less than limits.message_bytes = 65536 (fanfare.toml, line 2)",
        ),
        (
            "[limits]\nmessage_bytes = 2000000",
            "limits.queue_bytes = 1048576: less than limits.message_bytes = 2000000 (fanfare.toml, line 2)",
        ),
        (
            "[heartbeat]\ninterval_seconds = 5",
            "heartbeat.timeout_seconds = 10: more than heartbeat.interval_seconds = 5 (fanfare.toml, line 2)",
        ),
        (
            "[redis]\nmode = \"cluster\"\nurls = [\"redis://a:6379\", \"redis://u:p@b:6379/3\"]",
            "redis.urls: Redis Cluster has no databases; with redis.mode = \"cluster\" a URL ends with the port \
             (fanfare.toml, line 3)",
        ),
        (
            "[redis]\nmode = \"sharded\"\nurls = [\"rediss://:hunter2@cache.example\", \"redis://:hunter2@cache.example\"]",
            "redis.urls: all begin with rediss://, which is Redis over TLS, or none does (fanfare.toml, line 3)",
        ),
        (
            "[broker]\nkind = \"redis\"\n[redis]\nurls = []",
            "redis.urls: redis.mode = \"single\" takes one URL, and there are 0 (fanfare.toml, line 4)",
        ),
        (
            "[namespaces.room]\nmax_bytes = 100000",
            "namespaces.room.max_bytes = 100000: more than limits.message_bytes = 65536 (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room.history]\nttl_seconds = 60",
            "namespaces.room.history.ttl_seconds: no history is kept without namespaces.room.history.size \
             (fanfare.toml, line 2)",
        ),
        (
            "[namespaces.room.history]\n",
            "namespaces.room.history: no history is kept without namespaces.room.history.size (fanfare.toml, line 1)",
        ),
        (
            "[api.callers.shop]\nscopes = [\"publish\"]",
            "api.callers.shop.keys: a caller has at least one key (fanfare.toml, line 2)",
        ),
        (
            "[api.callers.shop]\nkeys = [\"k\"]",
            "api.callers.shop.scopes: a caller has at least one of publish, read, admin (fanfare.toml, line 2)",
        ),
        (
            "[api]\nkeys = [\"k\"]\n[api.callers.shop]\nkeys = [\"k\"]\nscopes = [\"read\"]",
            "api.callers.shop.keys: one of these is somebody else's too (fanfare.toml, line 4)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"",
            "pusher.apps.shop.secret: an application takes a key and a secret (fanfare.toml, line 2)",
        ),
        (
            "[pusher.apps.a]\nkey = \"k\"\nsecret = \"s\"\n[pusher.apps.b]\nkey = \"k\"\nsecret = \"t\"",
            "pusher.apps.b.key: the application a has this key already (fanfare.toml, line 5)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"\nsecret = \"s\"\n[namespaces.shop]\npresence = true",
            "namespaces.shop: these are the channels of pusher.apps.shop, whose rules are the protocol's (fanfare.toml, line 2)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"\nsecret = \"s\"\ncounts = false\nsubscription_counts = true",
            "pusher.apps.shop.subscription_counts: nobody knows how many there are without pusher.apps.shop.counts = true (fanfare.toml, line 5)",
        ),
        (
            "[pusher.webhooks.audit]\napp = \"shop\"\nurl = \"http://127.0.0.1/\"",
            "pusher.webhooks.audit.app: there is no application \"shop\" under pusher.apps (fanfare.toml, line 2)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"\nsecret = \"s\"\n[pusher.webhooks.audit]\napp = \"shop\"",
            "pusher.webhooks.audit.url: it is told somewhere (fanfare.toml, line 5)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"\nsecret = \"s\"\ncounts = false\n\
             [pusher.webhooks.audit]\napp = \"shop\"\nurl = \"http://127.0.0.1/\"",
            "pusher.webhooks.audit.events: channel_existence and subscription_count take pusher.apps.shop.counts = true (fanfare.toml, line 4)",
        ),
        (
            "[pusher.apps.shop]\nkey = \"k\"\nsecret = \"s\"\n\
             [pusher.webhooks.audit]\napp = \"shop\"\nurl = \"http://127.0.0.1/\"\nchannels = [\"shop:news\"]",
            "pusher.webhooks.audit.channels: names as clients know them, without the application's, of at most 164 bytes (fanfare.toml, line 7)",
        ),
        (
            "[consumers.shop]\nurl = \"http://127.0.0.1\"",
            "consumers.shop.url: a consumer takes the URL of its server, such as redis://127.0.0.1:6379 or postgresql://user:password@127.0.0.1/database (fanfare.toml, line 2)",
        ),
        (
            "[consumers.shop]\nurl = \"redis://:hunter2@a:1,b:2\"",
            "consumers.shop.url: a single redis is named by exactly one URL, not by 2 (fanfare.toml, line 2)",
        ),
        (
            "[consumers.shop]\nurl = \"redis://:hunter2@a:1,b:2/3\"\nmode = \"cluster\"",
            "consumers.shop.url: redis cluster has no databases: a URL of one ends with the port (fanfare.toml, line 2)",
        ),
        (
            "[consumers.shop]\nkeep = true",
            "consumers.shop.url: a consumer takes the URL of its server, such as redis://127.0.0.1:6379 or postgresql://user:password@127.0.0.1/database (fanfare.toml, line 2)",
        ),
        (
            "[consumers.shop]\nurl = \"postgresql:///shop\"",
            "consumers.shop.url: a consumer takes the URL of its server, such as redis://127.0.0.1:6379 or postgresql://user:password@127.0.0.1/database (fanfare.toml, line 2)",
        ),
        (
            "[consumers.shop]\nurl = \"postgresql://127.0.0.1/shop\"\ntable = \"Outbox\"",
            "consumers.shop.table = \"Outbox\": lower-case letters, digits and _, and no digit first (fanfare.toml, line 3)",
        ),
    ] {
        refused(text, &[message]);
    }
    let source = with(file("[limits]\nqueue_bytes = 3000"), &[("FANFARE__LIMITS__QUEUE_BYTES", "2000")], &[]);
    assert_eq!(
        load(&source).unwrap_err().to_string(),
        "limits.queue_bytes = 2000: less than limits.message_bytes = 65536 (variable FANFARE__LIMITS__QUEUE_BYTES)"
    );
    let free = load(&file("[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"")).unwrap();
    assert_eq!(free.listen.public, free.listen.internal);
    load(&file("[listen]\ninternal = \"0.0.0.0:8001\"\n[api]\nkeys = [\"k\"]")).unwrap();
}

#[test]
fn all_mistakes_of_all_layers_are_told_at_once_and_each_once() {
    let text = "[limits]\nqueue_bytes = 5.7\nbatch = 0\n\n[lisen]\npublic = \"0.0.0.0:1\"\n[heartbeat]\ntimeout_seconds = 40\n";
    let variables = [("FANFARE__BROKER__KIND", "kafka"), ("FANFARE__LIMITS__BATCH", "7")];
    let source = with(file(text), &variables, &[("--listen", "listen.public", "here")]);
    assert_eq!(
        load(&source).unwrap_err().to_string(),
        "limits.queue_bytes = 5.7: a whole number from 1024 to 4294967296 is expected (fanfare.toml, line 2)\n\
         limits.batch = 0: a whole number from 1 to 100000 is expected (fanfare.toml, line 3)\n\
         lisen.public: no such key; did you mean listen.public? (fanfare.toml, line 6)\n\
         broker.kind = \"kafka\": \"memory\" or \"redis\" is expected (variable FANFARE__BROKER__KIND)\n\
         listen.public = \"here\": an address and port such as \"127.0.0.1:8000\" or \"[::1]:8000\" is expected \
         (flag --listen)\n\
         heartbeat.timeout_seconds = 40: more than heartbeat.interval_seconds = 30 (fanfare.toml, line 8)"
    );
}

#[test]
fn secrets_are_never_shown() {
    let text = "[api]\nkeys = [\"hunter2\"]\n[redis]\nurls = [\"redis://:hunter2@127.0.0.1\"]\n";
    let source = with(file(text), &[("FANFARE__API__KEYS", "hunter2")], &[("--key", "api.keys", "hunter2")]);
    let config = load(&source).unwrap();
    assert_eq!(config.redis.urls[0].expose(), "redis://:hunter2@127.0.0.1");
    for shown in [format!("{config:?}"), format!("{config:#?}"), format!("{source:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    refused(
        "[api]\nkeys = [\"hunter2\", \"\"]\n[redis]\nurls = \"http://:hunter2@127.0.0.1\"\n",
        &[
            "api.keys = (secret): a list of keys, each of printable ASCII without spaces is expected (fanfare.toml, line 2)",
            "redis.urls = (secret): a list of URLs such as \"redis://127.0.0.1:6379\" is expected (fanfare.toml, line 4)",
        ],
    );
}

#[test]
fn the_default_file_parses_back_to_the_defaults() {
    let text = default_toml();
    assert_eq!(load(&file(&text)).unwrap(), load(&Source::default()).unwrap());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "lines fit a terminal");
    // What is shown in comments is valid too, but for the files, which are not there.
    let shown: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.ends_with(".pem\"") => line,
            Some(rest) if rest.starts_with('[') || toml::de::DeTable::parse(rest).is_ok() => rest,
            _ => line,
        })
        .collect();
    let config = load(&file(&shown.join("\n"))).unwrap();
    assert_eq!(config.node.name, "gateway-1");
    assert_eq!(config.namespaces["room"].max_bytes.unwrap().get(), 4096);
    assert_eq!(config.namespaces["room"].history.as_ref().unwrap().size.get(), 100);
}

#[test]
fn every_key_of_the_table_stands_in_its_section_and_only_once() {
    for section in keys::SECTIONS {
        for key in section.keys {
            assert!(key.path.starts_with(&format!("{}.", section.name)), "{}", key.path);
            assert_eq!(keys::all().filter(|it| it.path == key.path).count(), 1, "{}", key.path);
            assert!(key.help.ends_with('.') && !key.help.contains('|'), "{}", key.help);
        }
    }
    assert!(reloadable("namespaces.room.publish") && reloadable("namespaces.room.history.size"));
    assert!(reloadable("limits.connections"));
    assert!(!reloadable("listen.public") && !reloadable("no.such"));
}

#[track_caller]
fn reloaded(old: &str, new: &str) -> (Config, Changes) {
    let named = Source { default_name: "drawn-anew".into(), ..file(new) };
    let (next, changes) = Loaded::of(&file(old)).unwrap().reload(&named).unwrap();
    (next.into_config(), changes)
}

#[test]
fn a_reload_takes_what_the_table_allows_and_names_the_rest() {
    let old =
        "[limits]\nchannels = 5\nbatch = 6\n[api]\nkeys = [\"one\"]\n[heartbeat]\ninterval_seconds = 20\n";
    let new = "[limits]\nbatch = 7\nconnections = 100_000\n[api]\nkeys = [\"two\"]\n[node]\nname = \"b\"\n[log]\n\
               format = \"json\"\n";
    let (config, changes) = reloaded(old, new);
    assert_eq!(
        changes.applied,
        ["limits.channels", "limits.batch", "api.keys"],
        "a default written down is no change"
    );
    assert_eq!(changes.waiting, ["node.name", "heartbeat.interval_seconds", "log.format"]);
    let as_applied = "[limits]\nbatch = 7\n[api]\nkeys = [\"two\"]\n[heartbeat]\ninterval_seconds = 20\n";
    assert_eq!(config, load(&file(as_applied)).unwrap(), "and the drawn name stays");
    assert_eq!(reloaded(old, old).1, Changes::default());
}

#[test]
fn what_waits_for_a_restart_is_named_until_then() {
    let old = Loaded::of(&Source::default()).unwrap();
    let new = file("[node]\nworkers = 3\n");
    let (once, first) = old.reload(&new).unwrap();
    let (twice, second) = once.reload(&new).unwrap();
    assert_eq!((first.waiting, second.waiting), (vec!["node.workers".into()], vec!["node.workers".into()]));
    assert_eq!(twice.reload(&Source::default()).unwrap().1, Changes::default());
}

#[test]
fn a_namespace_that_comes_or_goes_is_named_itself() {
    let old = "[namespaces.a]\nmax_bytes = 7\n[namespaces.b]\n";
    let new = "[namespaces.b]\npublish = \"none\"\n[namespaces.C-c]\nmax_bytes = 9\n";
    let (config, changes) = reloaded(old, new);
    assert_eq!(changes.applied, ["namespaces.b.publish", "namespaces.C-c", "namespaces.a"]);
    assert_eq!(config, load(&file(new)).unwrap());
}

#[test]
fn a_reload_is_held_to_every_rule_with_the_keys_that_stay() {
    let old =
        Loaded::of(&file("[listen]\ninternal = \"0.0.0.0:8001\"\n[api]\nkeys = [\"hunter2\"]\n")).unwrap();
    assert_eq!(
        old.reload(&Source::default()).unwrap_err().to_string(),
        "with the keys that need a restart as they are: listen.internal = \"0.0.0.0:8001\": beyond loopback the server API \
         needs api.keys, and there are none"
    );
    let mistakes = old.reload(&file("[limits]\nbatch = 0\n[lmits]\n")).unwrap_err();
    assert_eq!(mistakes.iter().count(), 2, "all at once: {mistakes}");
    assert!(!format!("{old:?}").contains("hunter2"));
}

/// `FANFARE_WRITE_DOCS=1` rewrites the page instead.
#[test]
fn the_page_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    #[expect(clippy::disallowed_methods, reason = "a switch for people who run the tests, not configuration")]
    if std::env::var("FANFARE_WRITE_DOCS").is_ok_and(|it| it == "1") {
        std::fs::write(&path, document()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == document(),
        "docs/configuration.md is stale: FANFARE_WRITE_DOCS=1 cargo test -p fanfare-gateway config"
    );
}

/// With keys, a token is needed unless anonymous clients are written down; and no key is shown.
#[test]
fn keys_for_tokens_close_the_door_to_anonymous_clients() {
    let jwt = "[auth.jwt]\nhmac_secret = \"a secret of thirty-two bytes and a few more\"\n";
    let config = load(&file(jwt)).unwrap();
    assert!(!config.auth.anonymous);
    assert!(config.summary().contains("clients with a token"), "{}", config.summary());
    assert!(!format!("{config:?}").contains("thirty-two"));
    let world = format!("[listen]\npublic = \"0.0.0.0:8000\"\n{jwt}");
    assert!(!load(&file(&world)).unwrap().auth.anonymous, "a key is enough to listen beyond loopback");
    let both = load(&file(&format!("[auth]\nanonymous = true\n{jwt}"))).unwrap();
    assert!(both.auth.anonymous && both.auth.jwt.is_some());
    assert!(both.summary().contains("clients with a token and anonymous ones"), "{}", both.summary());
}
