//! The server API as OpenAPI 3.1: written from the table below and the bounds that the decoder has, served by the internal listener, and
//! kept in `docs/openapi.json` by a test.
//!
//! Where the schema and the decoder disagree a test against a running node fails: what the schema allows must be taken, what it forbids
//! refused, and what is answered must be what it says.

use fanfare_protocol::dialect::native::api::MANY_MAX;
use fanfare_protocol::grant::TOKEN_BYTES_MAX;
use fanfare_protocol::history::PAGE_MAX;
use fanfare_protocol::publication::{IDEMPOTENCY_KEY_BYTES_MAX, LABEL_BYTES_MAX};
use fanfare_protocol::server_api::CONNECTIONS_MAX;
use serde_json::{Map, Value, json};

use super::log::{LEVEL_BYTES_MAX, PATTERN, SECONDS_MAX};
use crate::config::Scope;
use crate::trace::SECONDS_MAX as SECONDS_LOOKED_ON_MAX;

/// A method of the API.
struct Method {
    name: &'static str,
    summary: &'static str,
    scope: Scope,
    request: fn() -> Value,
    /// The schema of the answer, by its name.
    answer: &'static str,
    /// The statuses of its failures, beside those that all have.
    failures: &'static [u16],
}

const METHODS: &[Method] = &[
    Method {
        name: "publish",
        summary: "Publish on a channel.",
        scope: Scope::Publish,
        request: publish,
        answer: "Published",
        failures: &[404, 413, 503],
    },
    Method {
        name: "broadcast",
        summary: "Publish the same on many channels: each has its answer.",
        scope: Scope::Publish,
        request: broadcast,
        answer: "Responses",
        failures: &[413],
    },
    Method {
        name: "batch",
        summary: "Several calls in one request: each has its answer.",
        scope: Scope::Publish,
        request: batch,
        answer: "Responses",
        failures: &[413],
    },
    Method {
        name: "history",
        summary: "A page of a channel's past.",
        scope: Scope::Read,
        request: history,
        answer: "History",
        failures: &[404, 410, 503],
    },
    Method {
        name: "history/remove",
        summary: "Forget what was published on a channel.",
        scope: Scope::Admin,
        request: of_channel,
        answer: "Done",
        failures: &[404, 503],
    },
    Method {
        name: "presence",
        summary: "Who is subscribed to a channel, on all nodes.",
        scope: Scope::Read,
        request: presence,
        answer: "Presence",
        failures: &[404, 413, 503],
    },
    Method {
        name: "channels",
        summary: "The channels that somebody is subscribed to.",
        scope: Scope::Read,
        request: channels,
        answer: "Channels",
        failures: &[503],
    },
    Method {
        name: "subscribe",
        summary: "Have the connections of a user, or one of them, hear a channel.",
        scope: Scope::Admin,
        request: subscribe,
        answer: "Done",
        failures: &[404, 503],
    },
    Method {
        name: "unsubscribe",
        summary: "Have them hear it no longer.",
        scope: Scope::Admin,
        request: unsubscribe,
        answer: "Done",
        failures: &[503],
    },
    Method {
        name: "disconnect",
        summary: "Close the connections of a user, or one of them.",
        scope: Scope::Admin,
        request: disconnect,
        answer: "Done",
        failures: &[503],
    },
    Method {
        name: "revoke",
        summary: "Take no more of the tokens that were issued so far, and close what they have opened.",
        scope: Scope::Admin,
        request: revoke,
        answer: "Done",
        failures: &[503],
    },
    Method {
        name: "refresh",
        summary: "Have the connections of a user, or one of them, last for longer or shorter than their tokens say.",
        scope: Scope::Admin,
        request: refresh,
        answer: "Done",
        failures: &[503],
    },
    Method {
        name: "connections",
        summary: "Connections of all nodes, page by page.",
        scope: Scope::Read,
        request: connections,
        answer: "Connections",
        failures: &[503],
    },
    Method {
        name: "nodes",
        summary: "The nodes that are alive.",
        scope: Scope::Read,
        request: || object(&[], json!({})),
        answer: "Nodes",
        failures: &[],
    },
];

/// The one that is about the node that is asked.
const LOG: Method = Method {
    name: "log",
    summary: "What the node that is asked logs; at another level for a while, where one is given.",
    scope: Scope::Admin,
    request: log,
    answer: "Log",
    failures: &[404],
};

/// The whole document.
fn document() -> Value {
    let mut paths: Map<_, _> =
        METHODS.iter().map(|method| (format!("/api/{}", method.name), path(method))).collect();
    paths.insert("/api/ingest".into(), ingest());
    paths.insert("/api/log".into(), path(&LOG));
    paths.insert("/api/rights".into(), rights());
    paths.insert("/api/trace".into(), trace());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fanfare server API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "What backends may ask of a node, on its internal listener.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://127.0.0.1:8001" }],
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of `api.keys` or of the keys of `api.callers`. Where there are none, callers on the same \
                                    machine need none.",
                },
            },
            "schemas": schemas(),
        },
    })
}

/// The same, as it is answered.
pub(crate) fn served() -> Vec<u8> {
    serde_json::to_vec(&document()).expect("a document is JSON")
}

fn path(method: &Method) -> Value {
    let mut responses = Map::new();
    let of = |schema: &str, description: &str| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } },
        })
    };
    responses.insert("200".into(), of(method.answer, "Done."));
    for status in [400, 401, 403].iter().chain(method.failures) {
        responses.insert(status.to_string(), of("Error", failure(*status)));
    }
    json!({
        "post": {
            "operationId": method.name.replace('/', "_"),
            "summary": method.summary,
            "description": format!("Takes the scope `{}`.", method.scope.as_str()),
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": (method.request)() } },
            },
            "responses": responses,
        },
    })
}

/// The one whose body is no object.
fn ingest() -> Value {
    let of = |schema: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    let lines = json!({ "type": "string", "description": "What `publish` takes, an object a line." });
    json!({
        "post": {
            "operationId": "ingest",
            "summary": "Publish as many lines as the body has.",
            "description": "Takes the scope `publish`, line by line.",
            "requestBody": { "required": true, "content": { "application/x-ndjson": { "schema": lines } } },
            "responses": {
                "200": { "description": "Every line was looked at.", "content": of("Ingested") },
                "400": { "description": "Not every line: too many have failed, or nothing came.", "content": of("Ingested") },
                "401": { "description": failure(401), "content": of("Error") },
                "503": { "description": "Not every line: the broker is away, or the node goes.", "content": of("Ingested") },
            },
        },
    })
}

fn rights() -> Value {
    let of = |schema: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    json!({
        "get": {
            "operationId": "rights",
            "summary": "What the caller may do.",
            "description": "Takes any scope.",
            "responses": {
                "200": { "description": "Done.", "content": of("Rights") },
                "401": { "description": failure(401), "content": of("Error") },
                "403": { "description": failure(403), "content": of("Error") },
            },
        },
    })
}

/// The one whose answer does not end by itself.
fn trace() -> Value {
    let of = |schema: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    let asked = |name: &str, schema: Value, text: &str| json!({ "name": name, "in": "query", "schema": schema, "description": text });
    let lines = json!({ "type": "string", "description": "An object a line: see `Traced`." });
    json!({
        "get": {
            "operationId": "trace",
            "summary": "Look on while one channel, or one user, is served by all nodes.",
            "description": "Takes the scope `admin`.",
            "parameters": [
                asked("channel", channel(), "What to look at: this, or `user`."),
                asked("user", user(), "What to look at: this, or `channel`."),
                asked("payload", json!({ "type": "boolean", "default": false }), "Whether what is published is told."),
                asked("seconds", json!({ "type": "integer", "minimum": 1, "maximum": SECONDS_LOOKED_ON_MAX, "default": 600 }), "For how long."),
            ],
            "responses": {
                "200": {
                    "description": "What is seen, as it happens.",
                    "content": { "application/x-ndjson": { "schema": lines }, "text/event-stream": { "schema": lines } },
                },
                "400": { "description": failure(400), "content": of("Error") },
                "401": { "description": failure(401), "content": of("Error") },
                "403": { "description": failure(403), "content": of("Error") },
                "503": { "description": "Too many look on at once: try again.", "content": of("Error") },
            },
        },
    })
}

const fn failure(status: u16) -> &'static str {
    match status {
        400 => "The body, or a field of it, is not what it should be.",
        401 => "There is no such key.",
        403 => "The key does not open this.",
        404 => "There is no such namespace, or not for this.",
        410 => "`since` is of a stream that is lost.",
        413 => "Too large.",
        _ => "The broker is away, or too much is asked at once: try again.",
    }
}

#[expect(clippy::needless_pass_by_value, reason = "whoever calls has made it for this")]
fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn channel() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$", "examples": ["room:1"] })
}

/// A text whose bound is one of bytes, of which no schema can speak.
fn text(bytes_max: usize) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": bytes_max, "description": format!("At most {bytes_max} bytes.") })
}

fn session() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-f]{32}$", "minLength": 32, "maxLength": 32 })
}

fn since() -> Value {
    let position = json!({ "epoch": { "type": "string" }, "offset": { "type": "integer", "minimum": 0, "maximum": u64::MAX } });
    object(&["epoch", "offset"], position)
}

/// What is published.
fn payload(mut properties: Map<String, Value>, required: &[&str]) -> Value {
    properties.insert("data".into(), json!({ "description": "Any JSON value." }));
    let base64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
    properties.insert(
        "data_base64".into(),
        json!({ "type": "string", "pattern": base64, "description": "Bytes." }),
    );
    properties.insert("key".into(), text(IDEMPOTENCY_KEY_BYTES_MAX));
    properties.insert("label".into(), text(LABEL_BYTES_MAX));
    let mut whole = object(required, Value::Object(properties));
    whole["oneOf"] = json!([{ "required": ["data"] }, { "required": ["data_base64"] }]);
    whole
}

/// Of somebody: named in one of two ways.
fn whom(kinds: [&str; 2], required: &[&str], properties: Value) -> Value {
    let mut whole = object(required, properties);
    whole["oneOf"] = json!([{ "required": [kinds[0]] }, { "required": [kinds[1]] }]);
    whole
}

fn user() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 255, "description": "At most 255 bytes." })
}

fn publish() -> Value {
    payload(Map::from_iter([("channel".into(), channel())]), &["channel"])
}

fn broadcast() -> Value {
    let names = json!({
        "type": "array", "minItems": 1, "maxItems": MANY_MAX,
        "items": { "type": "string", "description": "A channel's name; what is none is answered in its place." },
    });
    payload(Map::from_iter([("channels".into(), names)]), &["channels"])
}

fn batch() -> Value {
    let commands = json!({
        "type": "array", "minItems": 1, "maxItems": MANY_MAX,
        "items": {
            "description": "An object with its `method` and the fields of that; what is none is answered in its place.",
            "examples": [{ "method": "publish", "channel": "room:1", "data": 1 }],
        },
    });
    let parallel =
        json!({ "type": "boolean", "description": "Whether they may be performed at the same time." });
    object(&["commands"], json!({ "commands": commands, "parallel": parallel }))
}

fn history() -> Value {
    let limit = json!({ "type": "integer", "minimum": 0, "maximum": PAGE_MAX, "default": 100 });
    let reverse = json!({ "type": "boolean", "default": false });
    object(
        &["channel"],
        json!({ "channel": channel(), "since": since(), "limit": limit, "reverse": reverse }),
    )
}

fn of_channel() -> Value {
    object(&["channel"], json!({ "channel": channel() }))
}

fn presence() -> Value {
    object(&["channel"], json!({ "channel": channel(), "members": { "type": "boolean", "default": true } }))
}

fn channels() -> Value {
    object(&[], json!({ "pattern": channel() }))
}

fn subscribe() -> Value {
    let rewind = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
    let fields = json!({
        "user": user(), "session": session(), "channel": channel(), "since": since(), "rewind": rewind,
    });
    let mut whole = whom(["user", "session"], &["channel"], fields);
    whole["not"] = json!({ "required": ["since", "rewind"] });
    whole
}

fn unsubscribe() -> Value {
    let fields = json!({ "user": user(), "session": session(), "channel": channel() });
    whom(["user", "session"], &["channel"], fields)
}

fn disconnect() -> Value {
    let code = json!({ "type": "integer", "enum": [4403, 1000, 1001, 1013, 4401], "default": 4403 });
    whom(["user", "session"], &[], json!({ "user": user(), "session": session(), "code": code }))
}

fn revoke() -> Value {
    let ttl = json!({ "type": "integer", "minimum": 1, "maximum": 2_592_000, "default": 86_400 });
    whom(["user", "token"], &[], json!({ "user": user(), "token": user(), "ttl_seconds": ttl }))
}

fn refresh() -> Value {
    let expires = json!({
        "type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX, "description": "Unix seconds; null: never.",
    });
    let info = json!({ "description": format!("Any JSON value of at most {TOKEN_BYTES_MAX} bytes.") });
    let fields = json!({ "user": user(), "session": session(), "expires": expires, "info": info });
    whom(["user", "session"], &["expires"], fields)
}

fn log() -> Value {
    let level =
        json!({ "type": "string", "pattern": PATTERN, "maxLength": LEVEL_BYTES_MAX, "examples": ["debug"] });
    let seconds = json!({ "type": "integer", "minimum": 1, "maximum": SECONDS_MAX, "default": 600 });
    object(&[], json!({ "level": level, "seconds": seconds }))
}

fn connections() -> Value {
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": CONNECTIONS_MAX, "default": 100 });
    let after = json!({
        "type": "string", "pattern": "^[^~]*~[0-9a-f]{1,16}~[0-9a-f]{1,16}$", "description": "What `next` was.",
    });
    let slowest = json!({ "type": "boolean", "default": false });
    let fields = json!({
        "user": user(), "session": session(), "channel": channel(), "limit": limit, "after": after, "slowest": slowest,
    });
    let mut whole = object(&[], fields);
    // Two ways to name one, and what has one page has none after it.
    whole["not"] = json!({ "anyOf": [
        { "required": ["user", "session"] },
        { "required": ["slowest", "after"], "properties": { "slowest": { "const": true } } },
    ] });
    whole
}

fn schemas() -> Value {
    let count = || json!({ "type": "integer", "minimum": 0 });
    let word = || json!({ "type": "string" });
    let nullable = || json!({ "type": ["string", "null"] });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let typed = |kind: &str, required: &[&str], mut properties: Value| {
        properties["type"] = json!({ "const": kind });
        object(&[&["type"], required].concat(), properties)
    };
    let member =
        object(&["user", "session", "info"], json!({ "user": nullable(), "session": session(), "info": {} }));
    let from = object(&["user"], json!({ "user": word(), "info": {} }));
    let message =
        object(&["offset", "data"], json!({ "offset": count(), "data": {}, "from": from, "label": word() }));
    let listed = object(
        &["channel", "users", "connections"],
        json!({ "channel": word(), "users": count(), "connections": count() }),
    );
    let connection = object(
        &["session", "user", "node", "address", "transport", "protocol", "connected", "queued_bytes"],
        json!({
            "session": session(), "user": nullable(), "node": word(), "address": word(),
            "transport": { "enum": ["websocket", "sse", "stream", "poll"] }, "protocol": word(),
            "connected": count(), "queued_bytes": count(), "channels": list(word()),
        }),
    );
    json!({
        "Error": typed("error", &["code", "reason", "message"], json!({
            "code": { "type": "integer", "minimum": 4000, "maximum": 4999 }, "reason": word(), "message": word(),
            "retry_after": count(),
        })),
        "Done": { "type": "object", "maxProperties": 0 },
        "Ingested": typed("ingested", &["lines", "published", "failed", "failures"], json!({
            "lines": count(), "published": count(), "failed": count(), "stopped": word(),
            "failures": list(object(&["line", "code", "reason", "message"], json!({
                "line": count(), "code": count(), "reason": word(), "message": word(),
            }))),
        })),
        "Published": typed("published", &["channel"], json!({ "channel": channel(), "epoch": word(), "offset": count() })),
        "Responses": object(&["type", "responses"], json!({
            "type": { "enum": ["broadcast", "batch"] },
            "responses": list(json!({ "type": "object", "description": "What the call alone would answer, or an error." })),
        })),
        "History": typed("history", &["channel", "epoch", "offset", "messages"], json!({
            "channel": channel(), "epoch": word(), "offset": count(), "messages": list(message),
        })),
        "Presence": typed("presence", &["channel", "users", "connections"], json!({
            "channel": channel(), "users": count(), "connections": count(), "members": list(member),
        })),
        "Rights": typed("rights", &["caller", "scopes", "channels"], json!({
            "caller": nullable(), "scopes": list(json!({ "enum": ["publish", "read", "admin"] })),
            "channels": { "type": ["array", "null"], "items": { "type": "string" } },
        })),
        "Channels": typed("channels", &["channels"], json!({ "channels": list(listed) })),
        "Connections": typed("connections", &["connections", "unanswered"], json!({
            "connections": list(connection), "next": word(), "unanswered": list(word()),
        })),
        "Log": typed("log", &["level", "seconds"], json!({
            "level": word(), "seconds": { "type": ["integer", "null"], "minimum": 0 },
        })),
        "Traced": object(&["type", "at", "node"], json!({
            "type": word(), "at": { "type": "number" }, "node": word(), "session": session(), "user": nullable(),
            "channel": word(), "trace": word(), "epoch": word(), "offset": count(), "payload": {},
        })),
        "Nodes": typed("nodes", &["nodes"], json!({ "nodes": list(node_facts()) })),
    })
}

fn node_facts() -> Value {
    let (word, flag) = (json!({ "type": "string" }), json!({ "type": "boolean" }));
    let count = json!({ "type": "integer", "minimum": 0 });
    let words = json!({ "type": "array", "items": word });
    let (number, nullable) =
        (json!({ "type": "number", "minimum": 0 }), json!({ "type": ["number", "null"] }));
    let required = [
        "node",
        "version",
        "uptime_seconds",
        "ready",
        "failing",
        "draining",
        "connections",
        "connections_max",
        "users",
        "subscriptions",
        "channels",
    ];
    object(
        &required,
        json!({
            "node": word, "version": word, "uptime_seconds": count, "ready": flag, "failing": words,
            "draining": flag, "connections": count, "connections_max": count, "users": count,
            "subscriptions": count, "channels": count, "messages_received": count, "messages_sent": count,
            "messages_received_per_second": number, "messages_sent_per_second": number,
            "publish_to_write_p50_ms": nullable, "publish_to_write_p99_ms": nullable, "lag_ms": count,
            "queued_bytes": count, "memory_bytes": count, "cpu_seconds": number,
        }),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use fanfare_protocol::dialect::native::api::decode_all;
    use fanfare_protocol::error::ErrorCode;

    use super::*;

    /// `FANFARE_WRITE_DOCS=1 cargo test -p fanfare-gateway openapi` writes it.
    #[test]
    fn the_committed_document_is_what_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let document = format!("{:#}\n", document());
        #[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so")]
        if std::env::var("FANFARE_WRITE_DOCS").is_ok_and(|it| it == "1") {
            fs::write(&path, &document).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap_or_default(), document, "stale: see above");
    }

    /// Both the decoder and the document know them; a method that is not documented is not served.
    #[test]
    fn every_method_is_documented_and_served() {
        for method in METHODS {
            let refused = decode_all(method.name, b"[]").unwrap_err();
            assert_eq!(refused.code, ErrorCode::BadRequest, "{}", method.name);
        }
    }
}
