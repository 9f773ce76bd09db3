//! What comes out is read by the node, and what is lost is told.

use super::*;
use crate::config::{self, Source};

/// The configuration as a node reads it.
fn loaded(toml: &str) -> config::Config {
    let file = config::File { path: "fanfare.toml".into(), text: toml.to_owned() };
    let source = Source { file: Some(file), ..Source::default() };
    config::load(&source).unwrap_or_else(|mistakes| panic!("{mistakes}\n{toml}"))
}

fn notes(imported: &Imported, word: &str) -> usize {
    imported.notes.iter().filter(|note| note.contains(word)).count()
}

/// What `centrifugo defaultconfig` of version 6 prints, and what `centrifugo genconfig` does.
#[test]
fn a_configuration_that_says_nothing_of_its_own_lacks_nothing() {
    let imported = import(include_str!("whole-default.json")).unwrap();
    loaded(&imported.toml);
    assert_eq!(notes(&imported, "no equivalent"), 0, "{:#?}", imported.notes);
    let generated = r#"{"client":{"token":{"hmac_secret_key":"a-secret-of-more-than-32-characters!!"},"allowed_origins":[]},
        "admin":{"enabled":false,"password":"p","secret":"s"},"http_api":{"key":"an-api-key"}}"#;
    let imported = import(generated).unwrap();
    let config = loaded(&imported.toml);
    assert_eq!(config.listen.public.to_string(), "0.0.0.0:8000");
    assert!(!config.auth.anonymous);
    assert_eq!(notes(&imported, "no equivalent"), 0, "{:#?}", imported.notes);
}

#[test]
fn versions_5_and_6_come_to_the_same() {
    let five = r#"{"port": 9000, "token_hmac_secret_key": "a-secret-of-more-than-32-characters!!", "api_key": "k", "engine": "redis",
        "redis_address": "10.0.0.1:6379", "allowed_origins": ["https://*.example.com"], "client_channel_limit": 10,
        "allow_anonymous_connect_without_token": true, "presence": true, "history_size": 5, "history_ttl": "1m30s",
        "allow_subscribe_for_client": true, "websocket_message_size_limit": 1000, "websocket_compression": true,
        "namespaces": [{"name": "room", "allow_publish_for_subscriber": true, "allow_subscribe_for_client": true,
        "allow_subscribe_for_anonymous": true}]}"#;
    let six = r#"{"http_server": {"port": 9000}, "client": {"token": {"hmac_secret_key": "a-secret-of-more-than-32-characters!!"},
        "allowed_origins": ["https://*.example.com"], "channel_limit": 10, "allow_anonymous_connect_without_token": true},
        "http_api": {"key": "k"}, "engine": {"type": "redis", "redis": {"address": "10.0.0.1:6379"}},
        "websocket": {"message_size_limit": 1000, "compression": true},
        "channel": {"without_namespace": {"presence": true, "history_size": 5, "history_ttl": "1m30s",
        "allow_subscribe_for_client": true}, "namespaces": [{"name": "room", "allow_publish_for_subscriber": true,
        "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true}]}}"#;
    let [five, six] = [five, six].map(|text| import(text).unwrap());
    assert_eq!((five.toml.as_str(), &five.notes), (six.toml.as_str(), &six.notes));
    loaded(&six.toml);
    for line in [
        "public = \"0.0.0.0:9000\"",
        "urls = [\"redis://10.0.0.1:6379\"]",
        "allow = [\"https://*.example.com\"]",
        "[namespaces.default]\nsubscribe = \"authenticated\"\npublish = \"none\"\npresence = true\nhistory.size = 5\nhistory.ttl_seconds = 90\n",
        "[namespaces.room]\nsubscribe = \"anyone\"\npublish = \"subscribers\"\n",
        "channels = 10\nmessage_bytes = 1000\n",
        "keys = [\"k\"]",
    ] {
        assert!(six.toml.contains(line), "{line} is not in {}", six.toml);
    }
}

#[test]
fn what_has_no_equivalent_is_told_and_opens_nothing() {
    let imported = import(
        r#"{"client": {"token": {"hmac_secret_key": "a-secret-of-more-than-32-characters!!", "user_id_claim": "uid"},
        "proxy": {"connect": {"enabled": true, "endpoint": "http://app/connect"}}},
        "broker": {"enabled": true, "type": "nats", "nats": {"url": "nats://elsewhere:4222"}},
        "consumers": [{"name": "kafka", "type": "kafka"}], "uni_sse": {"enabled": true}, "frobnicate": 7,
        "channel": {"namespaces": [{"name": "asked", "subscribe_proxy_enabled": true, "allowed_delta_types": ["fossil"],
        "channel_regex": "^x"}]}}"#,
    )
    .unwrap();
    loaded(&imported.toml);
    for word in [
        "user_id_claim",
        "http://app/connect",
        "nats",
        "consumers",
        "uni_sse.enabled",
        "frobnicate",
        "allowed_delta_types",
        "channel_regex",
        "until hooks.subscribe is set",
    ] {
        assert!(notes(&imported, word) > 0, "{word} is not in {:#?}", imported.notes);
    }
    assert!(imported.toml.contains("[namespaces.asked]\nsubscribe = \"token\""), "{}", imported.toml);
    let told = imported.notes.join("\n");
    assert!(!told.contains("a-secret"), "secrets are not told");
}

#[test]
fn what_is_no_configuration_is_refused() {
    for text in ["", "[]", "7", "http_server:\n  port: 9000\n"] {
        assert!(import(text).is_err(), "{text}");
    }
}

#[test]
fn durations_are_read_as_go_spells_them() {
    for (text, expected) in [
        ("25s", Some(25)),
        ("1m0s", Some(60)),
        ("720h0m0s", Some(2_592_000)),
        ("300ms", Some(1)),
        ("1d", None),
    ] {
        assert_eq!(seconds(&Value::from(text)), expected, "{text}");
    }
}
