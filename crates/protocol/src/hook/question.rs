//! Questions as JSON.

use std::net::IpAddr;

use crate::channel::Channel;
use crate::grant::Grant;
use crate::id::{SessionId, UserId};
use crate::publication::Payload;
use crate::time::UnixMicros;

/// About whom something is asked.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its conversation; none of a caller of the server API, who is no client.
    pub session: Option<SessionId>,
    /// The node that holds it.
    pub node: &'a str,
    /// Where it is, as far as trusted proxies say; not known of those who came before anybody was to be asked.
    pub address: Option<IpAddr>,
    /// How it is connected.
    pub transport: &'a str,
    /// What is known of it; nothing of a client that is nobody.
    pub grant: Option<&'a Grant>,
}

/// What is asked about a client.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// Who is this, and what may it do?
    Connect {
        /// What it tells the application, where its dialect lets it.
        payload: Option<&'a Payload>,
    },
    /// May it hear this channel?
    Subscribe {
        /// Which.
        channel: &'a Channel,
    },
    /// May it say this?
    Publish {
        /// Where.
        channel: &'a Channel,
        /// What.
        payload: &'a Payload,
    },
    /// It wants something done.
    Call {
        /// What.
        method: &'a str,
        /// With what.
        payload: &'a Payload,
    },
    /// It says something.
    Tell {
        /// What.
        payload: &'a Payload,
    },
}

impl Question<'_> {
    /// The body that asks it.
    pub fn encode(&self, client: &Client<'_>, now: UnixMicros) -> Vec<u8> {
        let mut body = Object::begin();
        body.text("type", self.kind());
        body.number("time", now.millis());
        body.text("node", client.node);
        if let Some(session) = client.session {
            body.text("session", &session.to_string());
        }
        if let Some(address) = client.address {
            body.text("address", &address.to_string());
        }
        body.text("transport", client.transport);
        holder(&mut body, client.grant);
        match self {
            Self::Connect { payload } => {
                if let Some(expires) = client.grant.and_then(|grant| grant.expires) {
                    body.number("expires", expires);
                }
                if let Some(payload) = payload {
                    body.json("data", payload);
                }
            }
            Self::Subscribe { channel } => body.text("channel", channel.as_str()),
            Self::Publish { channel, payload } => {
                body.text("channel", channel.as_str());
                body.json("data", payload);
            }
            Self::Call { method, payload } => {
                body.text("method", method);
                body.json("data", payload);
            }
            Self::Tell { payload } => body.json("data", payload),
        }
        body.end()
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Subscribe { .. } => "subscribe",
            Self::Publish { .. } => "publish",
            Self::Call { .. } => "call",
            Self::Tell { .. } => "tell",
        }
    }
}

/// The body that asks of many clients whether they are still welcome.
pub fn refresh<'a>(
    clients: impl IntoIterator<Item = (SessionId, &'a Grant)>,
    node: &str,
    now: UnixMicros,
) -> Vec<u8> {
    let mut body = Object::begin();
    body.text("type", "refresh");
    body.number("time", now.millis());
    body.text("node", node);
    body.name("clients");
    body.out.push(b'[');
    for (place, (session, grant)) in clients.into_iter().enumerate() {
        if place > 0 {
            body.out.push(b',');
        }
        let mut client = Object { out: std::mem::take(&mut body.out), is_empty: true };
        client.out.push(b'{');
        client.text("session", &session.to_string());
        holder(&mut client, Some(grant));
        body.out = client.end();
    }
    body.out.push(b']');
    body.end()
}

/// Who a client is: `user` is always there, if as null.
fn holder(body: &mut Object, grant: Option<&Grant>) {
    match grant.and_then(|grant| grant.user.as_ref()) {
        Some(user) => body.text("user", UserId::as_str(user)),
        None => body.raw("user", b"null"),
    }
    if let Some(profile) = grant.and_then(|grant| grant.profile.as_ref()) {
        body.json("info", profile);
    }
    if let Some(meta) = grant.and_then(|grant| grant.meta.as_ref()) {
        body.json("meta", meta);
    }
}

/// A JSON object that is being written.
struct Object {
    out: Vec<u8>,
    is_empty: bool,
}

impl Object {
    fn begin() -> Self {
        Self { out: vec![b'{'], is_empty: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        serde_json::to_writer(&mut self.out, text).expect("a string is JSON and a vector takes every byte");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.raw(name, number.to_string().as_bytes());
    }

    fn json(&mut self, name: &str, payload: &Payload) {
        self.name(name);
        payload.write_json(&mut self.out);
    }

    fn end(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }
}
