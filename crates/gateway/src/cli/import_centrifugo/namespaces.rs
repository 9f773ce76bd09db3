//! The namespaces, and the channels that are in none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Settings, Written, is_nothing, shown};

const WITHOUT: &str = "channel.without_namespace.";

/// What always holds here, or for everybody, so that there is nothing to be written.
const ALWAYS: &[&str] = &[
    "allow_recovery",
    "allow_positioning",
    "force_recovery",
    "force_positioning",
    "allow_user_limited_channels",
    "history_meta_ttl",
    "subscribe_proxy_name",
    "publish_proxy_name",
    "sub_refresh_proxy_name",
    "subscribe_stream_proxy_name",
    "map.",
    "shared_poll.",
];

/// Writes a section for each.
pub(super) fn write(old: &mut Settings, new: &mut Written) {
    let without: BTreeMap<_, _> = old
        .0
        .iter()
        .filter_map(|(path, value)| Some((path.strip_prefix(WITHOUT)?.to_owned(), value.clone())))
        .collect();
    old.forget(WITHOUT);
    namespace("default", Settings(without), new);
    let Some(Value::Array(all)) = old.take("channel.namespaces") else { return };
    for (index, namespace_) in all.into_iter().enumerate() {
        let Value::Object(fields) = namespace_ else {
            new.note(format!("channel.namespaces[{index}] is no object, and left out"));
            continue;
        };
        let mut options = Settings(fields.into_iter().collect());
        match options.text("name") {
            Some(name) => namespace(&name, options, new),
            None => new.note(format!("channel.namespaces[{index}] has no name, and is left out")),
        }
    }
}

fn namespace(name: &str, mut old: Settings, new: &mut Written) {
    let is_bare = name.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-'));
    let quoted = if is_bare { name.to_owned() } else { Value::from(name).to_string() };
    let section = format!("namespaces.{quoted}");
    let asked = old.switch("subscribe_proxy_enabled") | old.switch("proxy_subscribe");
    let anonymous = old.switch("allow_subscribe_for_anonymous");
    let subscribe = match (old.switch("allow_subscribe_for_client"), anonymous) {
        (true, true) => "anyone",
        (true, false) => "authenticated",
        (false, _) => "token",
    };
    new.set(&section, "subscribe", subscribe);
    if asked {
        new.note(format!("{section}: a backend was asked who may subscribe; until hooks.subscribe is set, only a token lets in"));
    }
    let by_client = old.switch("allow_publish_for_client");
    let by_subscriber = old.switch("allow_publish_for_subscriber");
    let by_anonymous = old.switch("allow_publish_for_anonymous");
    let publish = if by_client {
        "anyone"
    } else if by_subscriber {
        "subscribers"
    } else {
        "none"
    };
    new.set(&section, "publish", publish);
    if publish == "anyone" && !by_anonymous {
        new.note(format!("{section}: anonymous clients, if they may connect, may publish too"));
    }
    if old.switch("publish_proxy_enabled") | old.switch("proxy_publish") {
        new.note(format!("{section}: a backend was asked about publications; see hooks.publish"));
    }
    let presence = old.switch("presence");
    let tells = old.switch("join_leave");
    if presence || tells {
        new.set(&section, "presence", true);
    }
    let may_ask =
        ["client", "subscriber", "anonymous"].map(|who| old.switch(&format!("allow_presence_for_{who}")));
    if presence && may_ask == [false; 3] {
        new.note(format!("{section}: whoever may subscribe may ask who is there"));
    }
    let (size, ttl) = (old.number("history_size"), old.seconds("history_ttl"));
    let may_read =
        ["client", "subscriber", "anonymous"].map(|who| old.switch(&format!("allow_history_for_{who}")));
    if let (Some(size), Some(ttl)) = (size, ttl) {
        new.set(&section, "history.size", size);
        new.set(&section, "history.ttl_seconds", ttl);
        if may_read == [false; 3] {
            new.note(format!("{section}: whoever may subscribe may read its history"));
        }
    }
    for (option, value) in &old.0 {
        let is_always = ALWAYS.iter().any(|it| option.starts_with(it));
        if !is_always && !is_nothing(value) {
            new.note(format!("{section}: {option} = {} has no equivalent", shown(option, value)));
        }
    }
}
