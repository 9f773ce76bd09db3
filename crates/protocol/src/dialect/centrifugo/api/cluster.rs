//! Calls about the nodes, about all that are connected, and for the application itself.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::sink::{Field, Json, Sink};
use super::{Call, bad};
use crate::command::METHOD_BYTES_MAX;
use crate::error::{ErrorCode, Failure};
use crate::id::UserId;
use crate::publication::Payload;
use crate::server_api::{ApiCall, CONNECTIONS_MAX, Filter, NodeFacts, Roll};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    expression: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

impl Fields<'_> {
    pub(super) fn call(&self, method: &str) -> Call {
        match method {
            "info" => Ok(ApiCall::Nodes),
            "connections" => {
                if !self.expression.is_empty() {
                    let text = "expressions are not evaluated here: name a `user`";
                    return Err(Failure::new(ErrorCode::NotOffered, text));
                }
                let user = Some(&*self.user).filter(|user| !user.is_empty()).map(UserId::new);
                let filter = Filter { user, ..Filter::default() };
                Ok(ApiCall::Connections { filter, after: None, limit: CONNECTIONS_MAX })
            }
            _ => {
                if !(1..=METHOD_BYTES_MAX).contains(&self.method.len()) {
                    return Err(bad("`method` has to be a name of 1 to 255 bytes"));
                }
                let nothing = || Payload::parse("null").expect("it is JSON");
                let payload = self.params.map_or_else(nothing, Payload::from_raw);
                Ok(ApiCall::Call { method: (*self.method).into(), payload })
            }
        }
    }
}

/// Why a list of connections is none: more than one answer holds, or nodes that have not said theirs.
pub(super) fn incomplete(roll: &Roll) -> Option<Failure> {
    if !roll.unanswered.is_empty() {
        let text = format!("{} of the nodes have not answered in time: try again", roll.unanswered.len());
        return Some(Failure::retry(ErrorCode::Unavailable, text, Duration::from_secs(1)));
    }
    roll.next.as_ref().map(|_| {
        let text = format!("there are more than {CONNECTIONS_MAX} connections: name a `user`");
        Failure::new(ErrorCode::LimitReached, text)
    })
}

pub(super) fn connections(sink: &mut Json, roll: &Roll) {
    let connections = roll.connections.iter().map(|it| (it.session.to_string(), it));
    sink.map(Field::always("connections", 1), connections, |sink, it| {
        let transport = if &*it.transport == "stream" { "http_stream" } else { &it.transport };
        sink.text(Field::new("transport", 1), transport);
        sink.text(Field::new("protocol", 2), it.protocol.strip_prefix("centrifuge-").unwrap_or(&it.protocol));
        sink.text(Field::new("user", 3), it.user.as_deref().unwrap_or_default());
    });
}

pub(super) fn nodes(sink: &mut Json, nodes: &[NodeFacts]) {
    sink.list(Field::always("nodes", 1), nodes, |sink, node| {
        // Two nodes of one name would be one to everybody else, too.
        sink.text(Field::always("uid", 1), &node.node);
        sink.text(Field::always("name", 2), &node.node);
        sink.text(Field::always("version", 3), &node.version);
        let counted = [
            ("num_clients", node.connections),
            ("num_users", node.users),
            ("num_channels", node.channels),
            ("num_subs", node.subscriptions),
            ("uptime", node.uptime_seconds),
        ];
        for (name, count) in counted {
            sink.number(Field::always(name, 4), count);
        }
        sink.message(Field::new("process", 10), |sink| {
            sink.number(Field::always("rss", 2), node.memory_bytes)
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;
    use crate::server_api::{ApiReply, Particulars};

    fn answered(method: &str, body: &str, reply: ApiReply) -> (String, u16) {
        let (calls, shape) = decode(method, body.as_bytes());
        assert!(matches!(calls[..], [Ok(_)]), "{calls:?}");
        let (text, status) = encode(&shape, &[Ok(reply)]);
        (String::from_utf8(text).unwrap(), status)
    }

    #[test]
    fn nodes_say_what_they_hold() {
        let node = NodeFacts {
            node: "n-1".into(),
            version: "0.1.0".into(),
            connections: 3,
            users: 2,
            subscriptions: 5,
            channels: 4,
            uptime_seconds: 60,
            memory_bytes: 4096,
            ..NodeFacts::default()
        };
        assert_eq!(decode("info", b"{}").0, [Ok(ApiCall::Nodes)]);
        let (text, status) = answered("info", "{}", ApiReply::Nodes(vec![node]));
        assert_eq!(
            text,
            r#"{"result":{"nodes":[{"uid":"n-1","name":"n-1","version":"0.1.0","num_clients":3,"num_users":2,"num_channels":4,"num_subs":5,"uptime":60,"process":{"rss":4096}}]}}"#
        );
        assert_eq!(status, 200);
    }

    #[test]
    fn connections_are_told_all_or_not_at_all() {
        let one = |transport: &str, protocol: &str, user: Option<&str>| Particulars {
            session: "6b1e".into(),
            user: user.map(Into::into),
            node: "n".into(),
            address: [127, 0, 0, 1].into(),
            transport: transport.into(),
            protocol: protocol.into(),
            connected: 1,
            queued_bytes: 2,
            channels: None,
        };
        let (calls, _) = decode("connections", br#"{"user":"ann"}"#);
        let filter = Filter { user: Some(UserId::new("ann")), ..Filter::default() };
        assert_eq!(calls, [Ok(ApiCall::Connections { filter, after: None, limit: CONNECTIONS_MAX })]);
        let connections = vec![one("stream", "centrifuge-protobuf", Some("ann"))];
        let whole = Roll { connections, ..Roll::default() };
        let (text, _) = answered("connections", "{}", ApiReply::Connections(whole.clone()));
        assert_eq!(
            text,
            r#"{"result":{"connections":{"6b1e":{"transport":"http_stream","protocol":"protobuf","user":"ann"}}}}"#
        );
        for (roll, code, http) in [
            (Roll { next: Some("n~1~2".into()), ..whole.clone() }, 106, 422),
            (Roll { unanswered: vec!["n-2".into()], ..whole }, 100, 500),
        ] {
            let (text, status) = answered("connections", "{}", ApiReply::Connections(roll));
            assert!(text.starts_with(&format!(r#"{{"error":{{"code":{code},"#)), "{text}");
            assert_eq!(status, http, "{text}");
        }
        let (calls, _) = decode("connections", br#"{"expression":"true"}"#);
        assert!(matches!(&calls[..], [Err(failure)] if failure.code == ErrorCode::NotOffered));
    }

    #[test]
    fn the_application_is_called_by_a_name() {
        let payload = Payload::parse(r#"{"of":"tea"}"#).unwrap();
        let (calls, _) = decode("rpc", br#"{"method":"price","params":{"of":"tea"}}"#);
        assert_eq!(calls, [Ok(ApiCall::Call { method: "price".into(), payload: payload.clone() })]);
        let (text, _) = answered("rpc", r#"{"method":"price"}"#, ApiReply::Returned { payload });
        assert_eq!(text, r#"{"result":{"data":{"of":"tea"}}}"#);
        assert!(decode("rpc", b"{}").0[0].is_err());
    }
}
