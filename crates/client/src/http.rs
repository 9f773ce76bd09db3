//! A conversation where a network lets no WebSocket through: heard by `/sse`, or where responses are held back until they end, by
//! `/poll`; spoken by `POST /publish`, one after the other, so that what was said first is first.
//!
//! ```text
//!  say ─► channels ─► a request for all of them ─► listening ─┐
//!    └──► posts ────► posting, on a connection of its own ────┴─► came ─► next
//! ```
//!
//! To the driver it looks like a WebSocket: commands in, events out. The channels stand in the request, so a change of them is a new one, from
//! where each was left; the first answer about a channel is given the `id` of the command that asked for it. What only a WebSocket can carry
//! is refused with 4404.
//!
//! **Invariant.** One request is listened to. What one that was given up has brought is dropped, and its place with it, so that the next
//! brings it again. `came` is bounded: a driver that is slow stops the reading, and TCP the server.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::calls::CALLS_MAX;
use crate::line::{Gone, PATIENCE};
use crate::options::{Target, Transport};
use crate::wire::{Kind, Position, Said};

mod listening;
mod posting;
mod request;

use request::Request;

/// How many events wait for the driver.
const CAME_MAX: usize = 64;

/// How long a poll is held; shorter than most proxies' patience.
const POLL: Duration = Duration::from_secs(20);

/// A command, as far as it matters here.
#[derive(Deserialize)]
struct Command {
    #[serde(rename = "type")]
    kind: String,
    id: Option<u64>,
    channel: Option<String>,
    since: Option<Position>,
    rewind: Option<u32>,
    #[serde(default)]
    presence: bool,
    token: Option<String>,
}

/// A channel that is to be heard.
struct Channel {
    name: String,
    /// Of the command that asked for it, until that is answered.
    id: Option<u64>,
    /// Where to go on, as a cursor has it.
    place: Option<String>,
    rewind: u32,
    presence: bool,
}

/// As whom is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Speaker {
    token: Option<String>,
    ticket: Ticket,
}

/// The right to speak as who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Ticket {
    /// There is none: the token has to do.
    #[default]
    None,
    /// It comes when the channels have been answered for.
    Pending,
    Of(String),
}

/// What the tasks bring. The number is that of the request.
enum Came {
    /// A sign of life.
    Alive,
    /// An event, and the cursor after it where that has changed.
    Event(u64, String, Option<String>),
    /// The request was refused, with this body.
    Refused(u64, Gone, String),
    /// It has come to its end.
    Over(u64, Gone),
    /// To something posted.
    Answer(String),
    /// Nothing can be posted any more.
    Mute(Gone),
}

/// An open conversation.
pub(crate) struct Http {
    target: Target,
    transport: Transport,
    speaker: watch::Sender<Speaker>,
    channels: Vec<Channel>,
    /// The channels of the request, in its order.
    asked: Vec<String>,
    unanswered: HashSet<String>,
    promised: Ticket,
    /// Which request is listened to.
    number: u64,
    near: mpsc::Sender<Came>,
    came: mpsc::Receiver<Came>,
    listening: JoinSet<()>,
    posts: mpsc::Sender<(Option<u64>, String)>,
    /// Ends with this.
    posting: JoinSet<()>,
    /// Answers of its own.
    told: VecDeque<String>,
    /// Between two signs of life.
    heartbeat: Duration,
    is_proven: bool,
}

impl Http {
    /// There is nothing to hear before there are channels; that somebody answers is all there is to know.
    pub(crate) async fn open(
        target: &Target,
        transport: Transport,
        token: Option<String>,
    ) -> Result<Self, Gone> {
        Request::get(target, "/health", None)?.answer().await?.succeeded()?;
        Ok(Self::new(target, transport, token))
    }

    fn new(target: &Target, transport: Transport, token: Option<String>) -> Self {
        let (near, came) = mpsc::channel(CAME_MAX);
        let (posts, posted) = mpsc::channel(CALLS_MAX);
        let (speaker, speaks) = watch::channel(Speaker { token, ticket: Ticket::None });
        let mut tasks = JoinSet::new();
        tasks.spawn(posting::post_all(target.clone(), posted, speaks, near.clone()));
        Self {
            target: target.clone(),
            transport,
            speaker,
            channels: Vec::new(),
            asked: Vec::new(),
            unanswered: HashSet::new(),
            promised: Ticket::None,
            number: 0,
            near,
            came,
            listening: JoinSet::new(),
            posts,
            posting: tasks,
            told: VecDeque::new(),
            heartbeat: Duration::ZERO,
            is_proven: false,
        }
    }

    /// Whether the server was heard over it.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// How long it may be silent. Where nothing is asked for nothing is owed.
    pub(crate) fn silence(&self) -> Duration {
        const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        match self.transport {
            _ if self.channels.is_empty() => FOR_EVER,
            Transport::Poll => POLL + PATIENCE,
            _ => self.heartbeat + PATIENCE,
        }
    }

    pub(crate) fn say(&mut self, commands: &mut Vec<String>) -> Result<(), Gone> {
        let mut is_changed = false;
        for text in commands.drain(..) {
            let Ok(command) = serde_json::from_str::<Command>(&text) else { continue };
            let channel = command.channel.unwrap_or_default();
            match command.kind.as_str() {
                "subscribe" => {
                    self.channels.retain(|it| it.name != channel);
                    self.channels.push(Channel {
                        name: channel,
                        id: command.id,
                        place: command.since.map(|it| format!("{}:{}", it.epoch, it.offset)),
                        rewind: command.rewind.unwrap_or(0),
                        presence: command.presence,
                    });
                    is_changed = true;
                }
                "unsubscribe" => {
                    self.channels.retain(|it| it.name != channel);
                    is_changed = true;
                }
                "publish" => {
                    let posted = self.posts.try_send((command.id, text));
                    posted.map_err(|_| Gone::because("nothing more can be posted"))?;
                }
                "auth" => {
                    self.speaker.send_modify(|it| it.token = command.token);
                    self.told.push_back(json!({"type": "refreshed", "id": command.id, "expires": null}).to_string());
                    is_changed = true;
                }
                // No answer is known to come behind all that was replayed, which is what the driver asks by it.
                "ping" => {}
                _ => self.told.push_back(
                    json!({"type": "error", "id": command.id, "channel": channel, "code": 4404, "reason": "not_found",
                        "message": "needs a WebSocket"})
                    .to_string(),
                ),
            }
        }
        if is_changed {
            self.listen();
        }
        Ok(())
    }

    /// The next event, or none for another sign of life. Nothing is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) -> Result<Option<Utf8Bytes>, Gone> {
        if let Some(text) = self.told.pop_front() {
            return Ok(Some(text.into()));
        }
        let came = self.came.recv().await.expect("a sender is kept beside it");
        match came {
            Came::Answer(text) => Ok(Some(text.into())),
            Came::Mute(gone) => Err(gone),
            Came::Event(number, text, cursor) if number == self.number => {
                Ok(Some(self.heard(text, cursor).into()))
            }
            Came::Over(number, gone) if number == self.number => Err(gone),
            Came::Refused(number, gone, body) if number == self.number => self.refused(gone, &body),
            Came::Alive | Came::Event(..) | Came::Over(..) | Came::Refused(..) => Ok(None),
        }
    }

    /// What was posted before is answered first.
    pub(crate) async fn close(mut self) {
        self.listening.abort_all();
        drop(self.posts);
        while self.posting.join_next().await.is_some() {}
    }

    /// Asks for all channels, from where they were left.
    fn listen(&mut self) {
        self.number += 1;
        self.listening = JoinSet::new();
        self.asked = self.channels.iter().map(|it| it.name.clone()).collect();
        self.unanswered = self.asked.iter().cloned().collect();
        let streams = self.transport == Transport::Sse && !self.channels.is_empty();
        self.speaker.send_modify(|it| it.ticket = if streams { Ticket::Pending } else { Ticket::None });
        if self.channels.is_empty() {
            return;
        }
        let token = self.speaker.borrow().token.clone();
        let (near, target, number) = (self.near.clone(), self.target.clone(), self.number);
        let query = self.query();
        match self.transport {
            Transport::Poll => {
                let since = self.cursor();
                self.listening.spawn(listening::poll(target, query, since, token, number, near));
            }
            _ => {
                let since = self.cursor().map(|it| format!("&since={it}")).unwrap_or_default();
                self.listening.spawn(listening::stream(
                    target,
                    format!("/sse?{query}{since}"),
                    token,
                    number,
                    near,
                ));
            }
        }
    }

    /// The channels, and how to hear them.
    fn query(&self) -> String {
        let mut query: Vec<_> =
            self.asked.iter().map(|it| format!("channel={}", request::encoded(it))).collect();
        let rewind = self.channels.iter().map(|it| it.rewind).max().unwrap_or(0);
        if rewind > 0 {
            query.push(format!("rewind={rewind}"));
        }
        if self.channels.iter().any(|it| it.presence) {
            query.push("presence=true".into());
        }
        query.join("&")
    }

    /// Where to go on, if there is a place on any of them.
    fn cursor(&self) -> Option<String> {
        let places: Vec<_> = self.channels.iter().map(|it| it.place.as_deref().unwrap_or("-")).collect();
        places.iter().any(|it| *it != "-").then(|| places.join(","))
    }

    /// Notes what an event says of the channels, and gives it the id of the command that it answers.
    fn heard(&mut self, mut text: String, cursor: Option<String>) -> String {
        self.is_proven = true;
        if let Some(cursor) = cursor {
            for (name, place) in self.asked.iter().zip(cursor.split(',')) {
                if let Some(channel) = self.channels.iter_mut().find(|it| it.name == *name) {
                    channel.place = (place != "-").then(|| place.to_owned());
                }
            }
        }
        let Ok(said) = serde_json::from_str::<Said<'_>>(&text) else { return text };
        if said.kind == Kind::Welcome {
            self.heartbeat = Duration::from_secs(said.heartbeat.unwrap_or(60));
            self.promised = said.ticket.map_or(Ticket::None, Ticket::Of);
            return text;
        }
        let Some(name) = said.channel.map(std::borrow::Cow::into_owned) else { return text };
        let kind = said.kind;
        // The ticket of who hears nothing yet is worth nothing yet.
        if self.unanswered.remove(&name) && self.unanswered.is_empty() && self.transport == Transport::Sse {
            self.speaker.send_modify(|it| it.ticket.clone_from(&self.promised));
        }
        if matches!(kind, Kind::Subscribed | Kind::Error)
            && let Some(id) = self.channels.iter_mut().find(|it| it.name == name).and_then(|it| it.id.take())
        {
            text.insert_str(1, &format!("\"id\":{id},"));
        }
        if matches!(kind, Kind::Error | Kind::Unsubscribed) && self.channels.iter().any(|it| it.name == name)
        {
            self.channels.retain(|it| it.name != name);
            if self.transport == Transport::Poll {
                self.listen(); // The next poll would ask for it again.
            }
        }
        text
    }

    /// None of the channels is to be had, or nothing at all.
    fn refused(&mut self, gone: Gone, body: &str) -> Result<Option<Utf8Bytes>, Gone> {
        #[derive(Deserialize)]
        struct Error {
            code: u16,
            reason: String,
            message: String,
        }
        let error = serde_json::from_str::<Error>(body);
        let (Some(400 | 403 | 404), Ok(error)) = (gone.code, error) else { return Err(gone) };
        self.is_proven = true;
        for channel in std::mem::take(&mut self.channels) {
            let Error { code, reason, message } = &error;
            self.told.push_back(
                json!({"type": if channel.id.is_some() { "error" } else { "unsubscribed" }, "id": channel.id,
                    "channel": channel.name, "code": code, "reason": reason, "message": message})
                .to_string(),
            );
        }
        self.speaker.send_modify(|it| it.ticket = Ticket::None);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation with nobody: what its tasks would bring comes from the test.
    fn conversation() -> Http {
        let (host, authority) = ("127.0.0.1".into(), "127.0.0.1:1".into());
        let target = Target { host, port: 1, tls: None, authority, base: String::new() };
        Http::new(&target, Transport::Sse, None)
    }

    #[tokio::test]
    async fn what_comes_late_of_a_request_that_was_given_up_is_not_heard() {
        let mut http = conversation();
        let subscribe = |channel: &str| format!(r#"{{"type":"subscribe","id":1,"channel":"{channel}"}}"#);
        let message =
            |data: u8| format!(r#"{{"type":"message","channel":"b","offset":{data},"data":{data}}}"#);
        http.say(&mut vec![subscribe("b")]).unwrap();
        let first = http.number;
        http.say(&mut vec![subscribe("a"), r#"{"type":"unsubscribe","channel":"a"}"#.into()]).unwrap();
        http.say(&mut vec![subscribe("c")]).unwrap();
        http.listening = JoinSet::new();
        for (number, data) in [(first, 1), (http.number, 2)] {
            let cursor = Some(if number == first { "e:1".into() } else { "e:2,-".into() });
            http.near.send(Came::Event(number, message(data), cursor)).await.unwrap();
        }
        assert_eq!(http.next().await.unwrap(), None);
        assert_eq!(http.next().await.unwrap().as_deref(), Some(&*message(2)));
        assert_eq!(http.cursor().as_deref(), Some("e:2,-"), "nor is its place");
    }
}
