//! What happened, as an application of this dialect is told it: signed by its secret, channels and users by their own names.

use serde::Serialize;
use serde_json::value::RawValue;

use super::api::quoted;
use super::encode::local;
use super::names::{self, Access, Kind};
use crate::channel::Channel;
use crate::happening::{Happening, Kinds, Noticed, Report};
use crate::publication::Label;
use crate::realm::Realm;
use crate::time::UnixMicros;

/// The headers that an application knows its webhooks by.
pub const KEY: &str = "x-pusher-key";
/// See [`KEY`].
pub const SIGNATURE: &str = "x-pusher-signature";

#[derive(Serialize)]
struct Body<'a> {
    time_ms: u64,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
}

/// What there is to be told of a channel of this name.
pub fn kinds(channel: &Channel) -> Kinds {
    let all = Kinds::OCCUPIED.and(Kinds::VACATED).and(Kinds::PUBLISHED).and(Kinds::NOTHING_KEPT);
    match Kind::of(local(channel)).access {
        Access::Presence => all.and(Kinds::JOINED).and(Kinds::LEFT),
        Access::Public | Access::Private | Access::Encrypted => all.and(Kinds::COUNTED),
        // Its subscriber is told of by signing in.
        Access::Personal => Kinds::NONE,
    }
}

/// The body of a report that is sent at this time, and its signature.
pub fn encode(realm: &Realm, report: &Report<'_>, now: UnixMicros) -> (String, String) {
    let events = report.noticed.iter().filter_map(event).collect();
    let body = serde_json::to_string(&Body { time_ms: now.millis(), events })
        .expect("these fields have string keys");
    let signature = realm.credentials.sign(&[&body]);
    (body, signature)
}

fn event(Noticed { happening, .. }: &Noticed) -> Option<Event<'_>> {
    use Happening as It;
    let of = |name, channel| Event {
        name,
        channel: local(channel),
        event: None,
        data: None,
        socket_id: None,
        user_id: None,
        subscription_count: None,
    };
    Some(match happening {
        It::Occupied { channel } => of("channel_occupied", channel),
        It::Vacated { channel } => of("channel_vacated", channel),
        It::Joined { channel, user } => Event { user_id: Some(user.as_str()), ..of("member_added", channel) },
        It::Left { channel, user } => Event { user_id: Some(user.as_str()), ..of("member_removed", channel) },
        It::Counted { channel, connections } => {
            Event { subscription_count: Some(*connections), ..of("subscription_count", channel) }
        }
        It::NothingKept { channel } => of("cache_miss", channel),
        It::Published { channel, payload, session, user } => {
            let is_presence = Kind::of(local(channel)).access == Access::Presence;
            Event {
                event: Some(payload.label().map_or("message", Label::as_str)),
                data: Some(quoted(payload)),
                socket_id: Some(names::socket_id(*session)),
                user_id: user.as_ref().filter(|_| is_presence).map(|user| user.as_str()),
                ..of("client_event", channel)
            }
        }
        It::Connected { .. } | It::Disconnected { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SessionId, UserId};
    use crate::publication::Payload;
    use crate::realm::Credentials;

    fn realm() -> Realm {
        Realm { namespace: "shop".into(), credentials: Credentials::new("key", "secret") }
    }

    fn body(happening: Happening) -> String {
        let noticed = [Noticed { at: UnixMicros(1), happening }];
        let report = Report { id: "1", node: "one", noticed: &noticed };
        let (body, signature) = encode(&realm(), &report, UnixMicros(2_000_000));
        assert!(realm().credentials.signed(&signature, &[&body]));
        body
    }

    #[test]
    fn each_kind_is_spelt_as_the_protocol_has_it() {
        let channel = |name: &str| realm().channel(name).unwrap();
        let (user, session) = (UserId::new("ann"), SessionId::from_random([0; 16]));
        let payload = Payload::parse(r#"{"a":1}"#).unwrap().labelled(Label::parse("client-x"));
        let published = |name, user: Option<&UserId>| Happening::Published {
            channel: channel(name),
            payload: payload.clone(),
            session,
            user: user.cloned(),
        };
        for (happening, event) in [
            (
                Happening::Occupied { channel: channel("news") },
                r#"{"name":"channel_occupied","channel":"news"}"#,
            ),
            (
                Happening::Vacated { channel: channel("news") },
                r#"{"name":"channel_vacated","channel":"news"}"#,
            ),
            (
                Happening::Joined { channel: channel("presence-a"), user: user.clone() },
                r#"{"name":"member_added","channel":"presence-a","user_id":"ann"}"#,
            ),
            (
                Happening::Left { channel: channel("presence-a"), user: user.clone() },
                r#"{"name":"member_removed","channel":"presence-a","user_id":"ann"}"#,
            ),
            (
                Happening::Counted { channel: channel("news"), connections: 3 },
                r#"{"name":"subscription_count","channel":"news","subscription_count":3}"#,
            ),
            (
                Happening::NothingKept { channel: channel("cache-a") },
                r#"{"name":"cache_miss","channel":"cache-a"}"#,
            ),
            (
                published("presence-a", Some(&user)),
                r#"{"name":"client_event","channel":"presence-a","event":"client-x","data":"{\"a\":1}","socket_id":"0.0","user_id":"ann"}"#,
            ),
            (
                published("private-a", Some(&user)),
                r#"{"name":"client_event","channel":"private-a","event":"client-x","data":"{\"a\":1}","socket_id":"0.0"}"#,
            ),
        ] {
            assert_eq!(body(happening), format!(r#"{{"time_ms":2000,"events":[{event}]}}"#));
        }
    }

    #[test]
    fn what_is_told_of_a_channel_its_name_says() {
        for (name, users, counts, any) in [
            ("news", false, true, true),
            ("presence-a", true, false, true),
            ("private-encrypted-a", false, true, true),
            ("#server-to-user-1", false, false, false),
        ] {
            let its = kinds(&realm().channel(name).unwrap());
            let has = [Kinds::JOINED, Kinds::COUNTED, Kinds::OCCUPIED].map(|kind| its.has_any(kind));
            assert_eq!(has, [users, counts, any], "{name}");
        }
    }
}
