//! The answer to who wants to look on: lines for as long as it listens, and what keeps the nodes telling.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, Uri, header};
use bytes::{BufMut, Bytes, BytesMut};
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::{Channel, UserId};
use hyper::body::{Frame, Incoming};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Lines, Of, TRACES_MAX, Wish, begin, end, raw};
use crate::api::{Rights, bearer};
use crate::census;
use crate::http::{self, Answer, Body};
use crate::node::Services;
use crate::transport::lines::Form;

/// How often the nodes are told that it goes on.
const BEAT: Duration = Duration::from_secs(2);

/// How long nothing may come before the caller is told that it goes on.
const QUIET: Duration = Duration::from_secs(10);

/// How long a trace lasts where the caller does not say, and at most.
const SECONDS: u64 = 600;
pub(crate) const SECONDS_MAX: u64 = 3600;

/// The chunks that may wait for a caller that reads slowly.
const CHUNKS_MAX: usize = 64;

/// What nodes have said and `lead` has not looked at.
const INBOX_MAX: usize = 256;

/// What a caller wants.
#[derive(Debug)]
struct Asked {
    of: Of,
    payload: bool,
    seconds: u64,
}

/// The body of the answer.
#[derive(Debug)]
pub(crate) struct Tail {
    chunks: mpsc::Receiver<Bytes>,
}

impl Tail {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        Poll::Ready(ready!(self.chunks.poll_recv(cx)).map(Frame::data))
    }
}

/// Answers one request.
pub(crate) fn answer(peer: IpAddr, request: &Request<Incoming>, services: &Arc<Services>) -> Answer {
    if request.method() != Method::GET {
        return http::use_instead("GET");
    }
    match open(peer, request.uri(), request.headers(), services) {
        Ok(answer) => answer,
        Err(failure) => http::failure(&failure),
    }
}

fn open(peer: IpAddr, uri: &Uri, headers: &HeaderMap, services: &Arc<Services>) -> Result<Answer, Failure> {
    let rights = services.settings().api_keys.authorise(peer, bearer(headers))?;
    let asked = read(uri)?;
    permit(&rights, &asked.of)?;
    let accepts = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let form = if accepts.contains("text/event-stream") { Form::Events } else { Form::Lines };
    let (tell, chunks) = mpsc::channel(CHUNKS_MAX);
    let (tell_us, inbox) = mpsc::channel(INBOX_MAX);
    let wish = Wish {
        id: fastrand::u64(..),
        asker: services.tracer.node.clone(),
        of: asked.of,
        payload: asked.payload,
    };
    {
        let mut askers = services.tracer.askers.lock();
        if askers.len() >= TRACES_MAX {
            let text = format!("{TRACES_MAX} traces are under way by this node: try again when one is over");
            return Err(Failure::retry(ErrorCode::Unavailable, text, Duration::from_secs(5)));
        }
        askers.insert(wish.id, tell_us);
    }
    let mut lead = Lead::new(wish, form, tell, services.clone());
    lead.introduce(asked.seconds);
    services.spawn_guarded(lead.run(inbox, Duration::from_secs(asked.seconds)));
    let mut answer = http::stream_head(form);
    *answer.body_mut() = Body::Trace(Box::new(Tail { chunks }));
    Ok(answer)
}

fn permit(rights: &Rights, of: &Of) -> Result<(), Failure> {
    match of {
        Of::Channel(name) => rights.check_looking_on(Channel::parse(name).ok().as_ref()),
        Of::User(_) => rights.check_looking_on(None),
    }
}

fn read(uri: &Uri) -> Result<Asked, Failure> {
    let bad = |text: &str| Failure::new(ErrorCode::BadRequest, text);
    let (mut channel, mut user, mut payload, mut seconds) = (None, None, false, SECONDS);
    for (name, value) in http::parameters(uri.query().unwrap_or_default()) {
        let is_text = |it: std::borrow::Cow<'_, str>| it.into_owned();
        let value = value.map(is_text).ok_or_else(|| bad("a parameter is not UTF-8 in percent encoding"))?;
        match &*name {
            "channel" => channel = Some(value),
            "user" => user = Some(value),
            "payload" => payload = value.parse().map_err(|_| bad("`payload` is true or false"))?,
            "seconds" => {
                let number = value.parse().ok().filter(|it| (1..=SECONDS_MAX).contains(it));
                let text = format!("`seconds` is a whole number from 1 to {SECONDS_MAX}");
                seconds = number.ok_or_else(|| bad(&text))?;
            }
            _ => {}
        }
    }
    let of = match (channel, user) {
        (Some(channel), None) => {
            let channel = Channel::parse(&channel);
            let channel =
                channel.map_err(|error| bad(&format!("`channel` is not a channel name: {error}")))?;
            Of::Channel(channel.as_str().into())
        }
        (None, Some(user)) if (1..=255).contains(&user.len()) => Of::User(UserId::new(&user).as_str().into()),
        (None, Some(_)) => return Err(bad("`user` has 1 to 255 bytes")),
        _ => return Err(bad("name what to look at: `channel` or `user`, and not both")),
    };
    Ok(Asked { of, payload, seconds })
}

/// One that is under way.
struct Lead {
    wish: Wish,
    form: Form,
    tell: mpsc::Sender<Bytes>,
    services: Arc<Services>,
    /// The nodes that have said something, and are alive.
    nodes: BTreeSet<Box<str>>,
    /// Lines of each node that the caller had no room for.
    left_out: BTreeMap<Box<str>, u64>,
    last_told: Instant,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.services.tracer.askers.lock().remove(&self.wish.id);
        end(&self.services, self.wish.id);
    }
}

impl Lead {
    fn new(wish: Wish, form: Form, tell: mpsc::Sender<Bytes>, services: Arc<Services>) -> Self {
        let (nodes, left_out) = Default::default();
        Self { wish, form, tell, services, nodes, left_out, last_told: Instant::now() }
    }

    fn introduce(&mut self, seconds: u64) {
        let nodes: Vec<_> = census::names(&self.services);
        let of = match &self.wish.of {
            Of::Channel(name) => json!({ "channel": name }),
            Of::User(name) => json!({ "user": name }),
        };
        self.say("tracing", json!({ "trace_of": of, "nodes": nodes, "seconds": seconds }));
    }

    /// Says something of its own.
    fn say(&mut self, kind: &str, more: Value) {
        let mut line = self.services.tracer.line(kind);
        if let Value::Object(more) = more {
            line.extend(more);
        }
        let node = self.services.tracer.node.clone();
        self.pass(&node, &[raw(&line)]);
    }

    /// Hands lines of a node to the caller, or counts them where it has no room.
    fn pass(&mut self, node: &str, lines: &[Box<RawValue>]) {
        let mut chunk = BytesMut::new();
        for (node, count) in &self.left_out {
            let mut line: Map<_, _> = self.services.tracer.line("left_out");
            line.insert("node".into(), (**node).into());
            line.insert("count".into(), (*count).into());
            self.dress(raw(&line).get(), &mut chunk);
        }
        lines.iter().for_each(|line| self.dress(line.get(), &mut chunk));
        match self.tell.try_send(chunk.freeze()) {
            Ok(()) => self.left_out.clear(),
            Err(_) => *self.left_out.entry(node.into()).or_default() += lines.len() as u64,
        }
        self.last_told = Instant::now();
    }

    fn dress(&self, line: &str, chunk: &mut BytesMut) {
        if self.form == Form::Events {
            chunk.put_slice(b"data: ");
        }
        chunk.put_slice(line.as_bytes());
        chunk.put_slice(if self.form == Form::Events { b"\n\n" } else { b"\n" });
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Lines>, lasts: Duration) {
        let (ends, stop) = (Instant::now() + lasts, self.services.stopping.clone());
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let tell = self.tell.clone();
        loop {
            tokio::select! {
                biased;
                () = tell.closed() => break,
                () = stop.cancelled() => {
                    self.say("over", json!({ "reason": "stopping" }));
                    break;
                }
                () = sleep_until(ends) => {
                    self.say("over", json!({ "reason": "seconds" }));
                    break;
                }
                _ = beat.tick() => self.go_on().await,
                Some((node, lines)) = inbox.recv() => {
                    self.pass(&node, &lines);
                    self.nodes.insert(node);
                }
            }
        }
        end(&self.services, self.wish.id);
        census::look_away(&self.services, self.wish.id).await;
    }

    /// Tells the nodes that somebody looks on still, and the caller which of them cannot be heard.
    async fn go_on(&mut self) {
        begin(&self.services, self.wish.clone());
        census::look_on(&self.services, self.wish.clone()).await;
        let alive: BTreeSet<_> = census::names(&self.services).into_iter().collect();
        let gone: Vec<_> = self.nodes.difference(&alive).cloned().collect();
        for node in gone {
            self.nodes.remove(&node);
            self.say("silent", json!({ "node": node }));
        }
        if self.last_told.elapsed() >= QUIET {
            self.say("alive", json!({}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_wish_is_said() {
        let asked = |query: &str| read(&format!("/api/trace?{query}").parse().unwrap());
        for (query, part) in [
            ("", "`channel` or `user`"),
            ("channel=a&user=b", "not both"),
            ("channel=a%20b", "not a channel name"),
            ("channel=%ff", "not UTF-8"),
            ("user=", "1 to 255"),
            ("user=a&payload=yes", "true or false"),
            ("user=a&seconds=0", "from 1 to 3600"),
            ("user=a&seconds=3601", "from 1 to 3600"),
        ] {
            let failure = asked(query).unwrap_err();
            assert!(failure.explanation.contains(part), "{query}: {}", failure.explanation);
        }
        let good = asked("channel=room%3A1&payload=true&seconds=5&_=7").unwrap();
        assert_eq!((good.of, good.payload, good.seconds), (Of::Channel("room:1".into()), true, 5));
        assert_eq!(asked("user=ann").unwrap().of, Of::User("ann".into()));
    }
}
