//! One list of settings out of a file of version 5 or 6: those of version 5 get the names of version 6.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What begins a name of version 5, and what does in version 6. The first that fits counts.
const RENAMED: &[(&str, &str)] = &[
    ("token_", "client.token."),
    ("subscription_token_", "client.subscription_token."),
    ("client_insecure", "client.insecure"),
    ("client_", "client."),
    ("allowed_origins", "client.allowed_origins"),
    ("allow_anonymous_connect_without_token", "client.allow_anonymous_connect_without_token"),
    ("disallow_anonymous_connection_tokens", "client.disallow_anonymous_connection_tokens"),
    ("ping_interval", "client.ping_interval"),
    ("pong_timeout", "client.pong_timeout"),
    ("user_subscribe_to_personal", "client.subscribe_to_user_personal_channel.enabled"),
    (
        "user_personal_channel_namespace",
        "client.subscribe_to_user_personal_channel.personal_channel_namespace",
    ),
    ("user_personal_single_connection", "client.subscribe_to_user_personal_channel.single_connection"),
    ("api_key", "http_api.key"),
    ("api_insecure", "http_api.insecure"),
    ("grpc_api_", "grpc_api."),
    ("grpc_api", "grpc_api.enabled"),
    ("admin_", "admin."),
    ("admin", "admin.enabled"),
    ("redis_", "engine.redis."),
    ("nats_", "broker.nats."),
    ("engine", "engine.type"),
    ("broker", "broker.type"),
    ("address", "http_server.address"),
    ("port", "http_server.port"),
    ("internal_address", "http_server.internal_address"),
    ("internal_port", "http_server.internal_port"),
    ("tls_cert", "http_server.tls.cert_pem"),
    ("tls_key", "http_server.tls.key_pem"),
    ("tls", "http_server.tls.enabled"),
    ("log_level", "log.level"),
    ("log_file", "log.file"),
    ("name", "node.name"),
    ("shutdown_timeout", "shutdown.timeout"),
    ("prometheus", "prometheus.enabled"),
    ("health", "health.enabled"),
    ("sse", "sse.enabled"),
    ("http_stream", "http_stream.enabled"),
    ("websocket_", "websocket."),
    ("proxy_connect_endpoint", "client.proxy.connect.endpoint"),
    ("proxy_refresh_endpoint", "client.proxy.refresh.endpoint"),
    ("proxy_subscribe_endpoint", "channel.proxy.subscribe.endpoint"),
    ("proxy_publish_endpoint", "channel.proxy.publish.endpoint"),
    ("proxy_rpc_endpoint", "rpc.proxy.endpoint"),
    ("namespaces", "channel.namespaces"),
    ("channel_", "channel."),
];

/// Options of channels, which version 5 has at the top, for those without a namespace.
const OF_CHANNELS: &[&str] =
    &["allow_", "history_", "presence", "join_leave", "force_", "delta_", "allowed_delta_types"];

/// The settings of a file by their paths.
pub(super) fn of_version_6(whole: Map<String, Value>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, value) in whole {
        match value {
            Value::Object(fields) => flatten(&name, fields, &mut all),
            value => {
                all.insert(renamed(&name), value);
            }
        }
    }
    all
}

fn flatten(path: &str, fields: Map<String, Value>, all: &mut BTreeMap<String, Value>) {
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match value {
            Value::Object(fields) if !fields.is_empty() => flatten(&path, fields, all),
            value => {
                all.insert(path, value);
            }
        }
    }
}

fn renamed(name: &str) -> String {
    // What ends in an underscore is the beginning of several.
    let of = |(old, new): &(&str, &str)| match old.strip_suffix('_') {
        Some(_) => name.strip_prefix(old).map(|rest| format!("{new}{rest}")),
        None => (name == *old).then(|| (*new).to_owned()),
    };
    if let Some(new) = RENAMED.iter().find_map(of) {
        return new;
    }
    if OF_CHANNELS.iter().any(|it| name.starts_with(it)) {
        return format!("channel.without_namespace.{name}");
    }
    name.to_owned()
}
