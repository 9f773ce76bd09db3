//! Where golden conversations are replayed, in tests: through decode, session and encode of any dialect, on a fake clock and with
//! a hub that answers at once. What comes out must be what is written, to the letter.
//!
//! | line | means |
//! |---|---|
//! | `# …` | a remark |
//! | `! limit <name> <n>` | sets a bound of the conversations that are opened from here on; times in seconds |
//! | `! namespace <name> key=value …` | configures a namespace (`publish`, `subscribe`, `max_bytes`, `rate`, `history`, `presence`, `overflow`, `asks`) for them |
//! | `! realm <namespace> <key> <secret>` | from here on clients are of this application, which has the rules of its dialect |
//! | `! open`, `! open <token>` | a client connects, anonymous or with a token in its request; what was published before is still the past |
//! | `! anonymous off` | from here on a client without a token in its request has to present one |
//! | `! token <name> <json>` | the token of this name is signed as it ought to be, and these are its claims |
//! | `! backend <json>` | what a backend answers to whatever it is asked from here on; `away` that it does not, `none` that there is none |
//! | `! crowded <user>` | from here on this user has as many connections as it may have |
//! | `! +500ms`, `! +30s` | time passes; the session ticks at its deadlines |
//! | `! published <channel> <json>` | somebody else publishes |
//! | `! event <channel> <label> <json>` | the same, with a label |
//! | `! conflated <n> <channel> <json>` | the same, when for this client so many older ones gave way |
//! | `! joined <channel> <n> [<user> [<json>]]`, `! left …` | so does a user, as a member whose session is this number |
//! | `! sighted <user> …`, `! unsighted <user> …` | it has become known of these users whether they are there |
//! | `! counted <channel> <n>` | so many connections are on the channel |
//! | `! broker away`, `! broker back` | what the hub answers from here on |
//! | `! flushed`, `! expired <channel>` | the broker loses everything; what a channel has kept is too old |
//! | `! failed-over` | the broker loses the last publication of each channel, and goes on under another epoch |
//! | `! lost <channel>` | the node could not keep up with the channel's stream |
//! | `! dismissed <code>` | a backend orders the client away |
//! | `! enlisted <channel> [<token>]`, `! expelled <channel>` | it has it hear a channel, on the terms that this token for the channel has; no longer |
//! | `! in two halves` | clients that come from here on hear by the body of a response, and post what they say |
//! | `! amended <seconds> [<json>]` | it has it expire then, or `never`, and be shown to others as this |
//! | `! overflow`, `! drain <ms>`, `! violated <code>`, `! gone` | the other inputs of a session |
//! | `> …`, `< …` | messages of the client, and of the server; a line break within one is `⏎` |
//! | `>> …`, `<< …` | other frames of the client (`pong`, `binary`: a message in the other kind of frame, `close`, `close <code>`), and of the server |
//! | `= …` | the conversation enters this stage; with the close code it ended with |

use std::collections::HashMap;
use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::close::CloseReason;
use crate::command::Start;
use crate::dialect::{Dialect, Encoding, Incoming, pusher};
use crate::error::{ErrorCode, Failure};
use crate::event::{Event, Member, Reply};
use crate::grant::claims::{self, Expected};
use crate::grant::{Amendment, Grant, Pass, Proof, TokenFault, Visitor};
use crate::hook;
use crate::id::{RequestId, SessionId, Ticket, UserId};
use crate::publication::{Delivery, Draft, Label, Payload, Publication, Retention};
use crate::realm::{Credentials, Realm};
use crate::rules::{Consent, MayPublish, MaySubscribe, Overflow, Rule, Rules};
use crate::session::{Effect, Input, Policy, Session, Stage, Told};
use crate::time::{Moment, Now, UnixMicros};
use crate::websocket::Frame;

mod hub;
mod notation;

use hub::Hub;

/// The first half decides when the first ping comes: with this one, half an interval after the start.
const SESSION: SessionId =
    SessionId::from_random(0x6b1e_4f0a_92d7_8938_c1a5_52e3_7d90_04bf_u128.to_be_bytes());

/// 2026-01-01T00:00:00Z, when every transcript begins.
const BEGINNING: Duration = Duration::from_secs(1_767_225_600);

/// The name and the text of every file.
pub(super) fn transcripts(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialect").join(folder);
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Fails with all transcripts for which the two that `replay` returns, what is said and what ought to be, are not the same.
pub(super) fn check(transcripts: &[(String, String)], replay: impl Fn(&str) -> (String, String)) {
    assert!(!transcripts.is_empty(), "there are transcripts");
    let mut wrong = String::new();
    for (name, written) in transcripts {
        let (said, expected) = replay(written);
        if said != expected {
            writeln!(wrong, "=== {name} ought to be\n{said}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}=== end");
}

/// How the client of a replay speaks, and how a transcript spells that.
#[derive(Clone, Copy)]
pub(super) enum Spelling {
    /// It speaks text, which the transcript tells as it is.
    Text(Encoding),
    /// It speaks bytes, and the transcript tells them in text.
    Translated { encoding: Encoding, to_wire: fn(&str) -> Vec<u8>, from_wire: fn(&[u8]) -> String },
    /// It speaks bytes, which the transcript tells in [`notation`].
    Bytes(Encoding),
}

impl Spelling {
    fn dialect(self) -> &'static dyn Dialect {
        self.encoding().dialect()
    }

    const fn encoding(self) -> Encoding {
        match self {
            Self::Text(encoding) | Self::Translated { encoding, .. } | Self::Bytes(encoding) => encoding,
        }
    }

    /// What is written of this is what was said.
    fn write(self, payload: &[u8]) -> String {
        match self {
            Self::Text(_) => str::from_utf8(payload).unwrap().replace('\n', "⏎"),
            Self::Translated { from_wire, .. } => from_wire(payload),
            Self::Bytes(_) => notation::render(payload),
        }
    }
}

/// What a transcript would be if all of its server lines were what is said now.
pub(super) fn replay(written: &str, spelling: Spelling) -> String {
    let mut theatre = Theatre::new(spelling);
    for line in written.lines() {
        let is_spoken = ["<", "="].iter().any(|mark| line.starts_with(mark));
        if !is_spoken {
            theatre.said.push_str(line);
            theatre.said.push('\n');
            theatre.perform(line);
        }
    }
    theatre.said
}

/// One client's shell, its clock and its hub.
struct Theatre {
    spelling: Spelling,
    policy: Policy,
    namespaces: HashMap<Box<str>, Rule>,
    /// The claims of the tokens that are signed by a trusted key.
    tokens: HashMap<String, String>,
    is_anonymous_off: bool,
    crowded: Option<UserId>,
    /// What the backend answers whatever it is asked; nothing where there is none.
    backend: Option<String>,
    /// By which clients post what they say, where they do.
    ticket: Option<Ticket>,
    session: Option<Session>,
    clock: Duration,
    hub: Hub,
    said: String,
}

impl Theatre {
    fn new(spelling: Spelling) -> Self {
        Self {
            spelling,
            policy: Policy::default(),
            namespaces: HashMap::new(),
            tokens: HashMap::new(),
            is_anonymous_off: false,
            crowded: None,
            backend: None,
            ticket: None,
            session: None,
            clock: Duration::ZERO,
            hub: Hub::default(),
            said: String::new(),
        }
    }

    fn perform(&mut self, line: &str) {
        match line.split_once(' ') {
            None => assert!(line.is_empty(), "not a line of a transcript: {line:?}"),
            Some(("#", _)) => {}
            Some((">", text)) => match self.spelling {
                Spelling::Text(_) => self.hear(Incoming::Text(&text.replace('⏎', "\n"))),
                Spelling::Translated { to_wire, .. } => self.hear(Incoming::Binary(&to_wire(text))),
                Spelling::Bytes(_) => self.hear(Incoming::Binary(&notation::parse(text))),
            },
            Some((">>", frame)) => self.hear_frame(frame),
            Some(("!", directive)) => self.direct(directive),
            Some(_) => panic!("not a line of a transcript: {line:?}"),
        }
    }

    /// The commands of a message are decided together and then performed, as the gateway does it.
    fn hear(&mut self, incoming: Incoming<'_>) {
        let mut inputs = vec![Input::Heard];
        let outcome = self.spelling.dialect().decode(incoming, self.policy.limits.batch, &mut |command| {
            inputs.push(match command {
                Ok(request) => Input::Request(request),
                Err(rejection) => Input::Rejected(rejection),
            });
        });
        inputs.extend(outcome.err().map(Input::Violated));
        self.feed_all(inputs);
    }

    fn hear_frame(&mut self, frame: &str) {
        match frame.split_once(' ').unwrap_or((frame, "")) {
            ("pong", _) => self.feed(Input::Heard),
            ("binary", _) => match self.spelling {
                Spelling::Text(_) => self.hear(Incoming::Binary(&[1, 2, 3])),
                Spelling::Translated { .. } | Spelling::Bytes(_) => self.hear(Incoming::Text("{}")),
            },
            ("close", code) => self.feed(Input::PeerClosed(code.parse().ok())),
            _ => panic!("no frame {frame:?}"),
        }
    }

    fn direct(&mut self, directive: &str) {
        let (verb, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        match verb {
            "limit" => self.limit(rest),
            "namespace" => self.namespace(rest),
            "realm" => self.realm(rest),
            "token" => {
                let (name, claims) = rest.split_once(' ').unwrap();
                self.tokens.insert(name.into(), claims.into());
            }
            "anonymous" => self.is_anonymous_off = rest == "off",
            "crowded" => self.crowded = Some(UserId::new(rest)),
            "backend" => self.backend = Some(rest.into()).filter(|_| rest != "none"),
            "in" => self.ticket = Some(Ticket::from_random("node-1", [0x5e; 16])),
            "open" => self.open(rest),
            "published" => self.publish_elsewhere(rest, None, Delivery::Live),
            "event" => {
                let [channel, label, json] = rest.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
                self.publish_elsewhere(&format!("{channel} {json}"), Label::parse(label), Delivery::Live);
            }
            "conflated" => {
                let (dropped, rest) = rest.split_once(' ').unwrap();
                self.publish_elsewhere(rest, None, Delivery::Conflated(dropped.parse().unwrap()));
            }
            "joined" | "left" => self.turn(rest, verb == "joined"),
            "sighted" | "unsighted" => self.sighted(rest, verb == "sighted"),
            "counted" => self.counted(rest),
            "broker" => self.hub.is_away = rest == "away",
            "flushed" => self.hub.flush(),
            "failed-over" => self.hub.fail_over(),
            "expired" => self.hub.expire(&Channel::parse(rest).unwrap()),
            "lost" => self.feed(Input::Lost { channel: Channel::parse(rest).unwrap() }),
            "overflow" => self.feed(Input::Overflowed),
            "drain" => self.feed(Input::Drain(Duration::from_millis(rest.parse().unwrap()))),
            "violated" => {
                self.feed(Input::Violated(CloseReason::from_number(rest.parse().unwrap()).unwrap()));
            }
            "dismissed" => {
                self.feed(Input::Dismissed(CloseReason::from_number(rest.parse().unwrap()).unwrap()));
            }
            "enlisted" => {
                let (channel, terms) = rest.split_once(' ').unwrap_or((rest, ""));
                let channel = Channel::parse(channel).unwrap();
                let pass = match terms {
                    "" => Pass::default(),
                    token => pass(self.read(token).unwrap(), &channel),
                };
                self.feed(Input::Enlisted { channel, start: Start::Live, pass: Arc::new(pass) });
            }
            "amended" => {
                let (expires, info) =
                    rest.split_once(' ').map_or((rest, None), |(it, info)| (it, Some(info)));
                let expires = (expires != "never").then(|| expires.parse().unwrap());
                let profile = info.map(|json| Payload::parse(json).unwrap());
                self.feed(Input::Amended(Arc::new(Amendment { expires, profile })));
            }
            "expelled" => self.feed(Input::Expelled { channel: Channel::parse(rest).unwrap() }),
            "gone" => self.feed(Input::Gone),
            time => self.pass(time.strip_prefix('+').unwrap_or_else(|| panic!("no directive {directive:?}"))),
        }
    }

    fn limit(&mut self, rest: &str) {
        let (name, number) = rest.split_once(' ').unwrap();
        let number: u32 = number.parse().unwrap();
        let limits = &mut self.policy.limits;
        match name {
            "channels" => limits.channels = number as usize,
            "batch" => limits.batch = number as usize,
            "errors" => limits.errors = number,
            "queue_bytes" => limits.queue_bytes = number as usize,
            "messages_per_second" => limits.messages_per_second = number,
            "auth_timeout" => limits.auth_timeout = Duration::from_secs(number.into()),
            "burst_grace" => limits.burst_grace = Duration::from_secs(number.into()),
            _ => panic!("no limit {name:?}"),
        }
    }

    fn namespace(&mut self, rest: &str) {
        let mut words = rest.split(' ');
        let name = words.next().unwrap();
        let mut rule = Rule { history: None, presence: false, ..Rule::OPEN };
        for word in words {
            match word.split_once('=').unwrap() {
                ("publish", "none") => rule.publish = MayPublish::Nobody,
                ("publish", "subscribers") => rule.publish = MayPublish::Subscribers,
                ("subscribe", "authenticated") => rule.subscribe = MaySubscribe::Authenticated,
                ("subscribe", "token") => rule.subscribe = MaySubscribe::Token,
                ("max_bytes", bytes) => rule.payload_bytes = Some(bytes.parse().unwrap()),
                ("rate", rate) => rule.rate = Some(rate.parse().unwrap()),
                ("asks", "subscribe") => rule.consent_to_subscribe = Consent::Needed,
                ("asks", "publish") => rule.consent_to_publish = Consent::Needed,
                ("presence", "on") => rule.presence = true,
                ("overflow", "drop_oldest") => rule.overflow = Overflow::DropOldest,
                ("history", size) => rule.history = Some(keeping(size.parse().unwrap())),
                _ => panic!("no rule {word:?}"),
            }
        }
        self.namespaces.insert(name.into(), rule);
    }

    fn realm(&mut self, rest: &str) {
        let [namespace, key, secret] = rest.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let credentials = Credentials::new(key, secret);
        self.policy.realm = Some(Realm { namespace: namespace.into(), credentials });
    }

    /// Of these users it has become known whether they are there.
    fn sighted(&mut self, users: &str, is_there: bool) {
        let (known, none) = (self.hub.looked_out_for(users.split(' ').map(UserId::new)), Vec::new());
        let (there, gone) = if is_there { (known, none) } else { (none, known) };
        if !(there.is_empty() && gone.is_empty()) {
            self.say_event(&Reply::unasked(Event::Sighted { there, gone }));
        }
    }

    fn counted(&mut self, rest: &str) {
        let (channel, connections) = rest.split_once(' ').unwrap();
        let (channel, connections) = (Channel::parse(channel).unwrap(), connections.parse().unwrap());
        if self.hub.is_counted(&channel) {
            self.say_event(&Reply::unasked(Event::Counted { channel, connections }));
        }
    }

    fn read(&self, token: &str) -> Result<Grant, Failure> {
        let expected = Expected::default();
        let claims = self.tokens.get(token).ok_or(TokenFault::Signature);
        let grant = claims.and_then(|json| claims::read(json.as_bytes(), &expected, self.now().unix));
        grant.map_err(|fault| {
            let code =
                if fault == TokenFault::Expired { ErrorCode::Expired } else { ErrorCode::Unauthorized };
            Failure::new(code, fault.to_string())
        })
    }

    /// What the gateway makes of a proof.
    fn admit(&self, token: &str, channel: &Channel) -> Result<Pass, Failure> {
        let proven = self.read(token).map_err(|failure| match failure.code {
            ErrorCode::Unauthorized => Failure { code: ErrorCode::Forbidden, ..failure },
            _ => failure,
        })?;
        let user = self.session.as_ref().and_then(Session::grant).and_then(|grant| grant.user.as_ref());
        if proven.proves.as_ref() != Some(channel) || proven.user.as_ref() != user {
            let text = "the token is for another channel, or for another user";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        Ok(pass(proven, channel))
    }

    fn verify(&self, token: &str) -> Result<Arc<Grant>, Failure> {
        let grant = self.read(token)?;
        if grant.user.is_some() && grant.user == self.crowded {
            let text = "this user has as many connections as it may have: close one, or connect again later";
            return Err(Failure::retry(ErrorCode::LimitReached, text, Duration::from_secs(45)));
        }
        Ok(Arc::new(grant))
    }

    fn open(&mut self, token: &str) {
        self.hub.forget_client();
        self.policy.node = "node-1".into();
        self.policy.rules = Rules::of(self.namespaces.clone());
        self.policy.takes_calls = self.backend.is_some();
        if let Some(realm) = &self.policy.realm {
            let terms = pusher::rules::Terms {
                client_events: NonZeroU32::new(2),
                event_bytes: 10_240,
                numbers: pusher::rules::Numbers::Told,
            };
            let rules = pusher::rules::rules(terms);
            self.policy.rules = self.policy.rules.clone().with_realm(&realm.namespace, rules);
        }
        let mut effects = Vec::new();
        let visitor = match token {
            "" if self.backend.is_some() && !self.is_anonymous_off => Visitor::Presumed(None),
            "" if self.is_anonymous_off => Visitor::Unknown,
            "" => Visitor::Anonymous,
            token => Visitor::Known(self.verify(token).expect("a bad token is refused before the upgrade")),
        };
        let policy = Arc::new(self.policy.clone());
        let manners = self.spelling.dialect().manners();
        let mut session = Session::open(SESSION, policy, manners, visitor, self.now(), &mut effects);
        self.ticket.iter().for_each(|ticket| session.speaks_by(ticket.clone()));
        self.session = Some(session);
        effects.into_iter().for_each(|effect| self.effect(effect));
    }

    /// Lets time pass as a sweep would: the session ticks whenever it asked to, and at the end.
    fn pass(&mut self, time: &str) {
        let millis = match (time.strip_suffix("ms"), time.strip_suffix('s')) {
            (Some(millis), _) => millis.parse().unwrap(),
            (None, Some(seconds)) => 1_000 * seconds.parse::<u64>().unwrap(),
            (None, None) => panic!("no time {time:?}"),
        };
        let end = self.clock + Duration::from_millis(millis);
        let mut ticks = 0;
        while let Some(deadline) = self.session.as_ref().unwrap().deadline().map(Moment::since_start)
            && deadline <= end
        {
            self.clock = deadline;
            self.feed(Input::Tick);
            ticks += 1;
            assert!(ticks < 1_000, "ticking makes no progress");
        }
        self.clock = end;
        self.feed(Input::Tick);
    }

    fn feed(&mut self, input: Input) {
        self.feed_all(vec![input]);
    }

    fn feed_all(&mut self, inputs: Vec<Input>) {
        let now = self.now();
        let session = self.session.as_mut().expect("the transcript opens a session");
        let before = session.stage();
        let mut effects = Vec::new();
        inputs.into_iter().for_each(|input| session.handle(now, input, &mut effects));
        let (after, outcome) = (session.stage(), session.outcome());
        effects.into_iter().for_each(|effect| self.effect(effect));
        if after == Stage::Over {
            self.hub.forget_client();
        }
        if after != before {
            let stage = match after {
                Stage::Open => unreachable!("a conversation opens once"),
                Stage::Closing => "closing",
                Stage::Finishing => "finishing",
                Stage::Over => "over",
            };
            writeln!(self.said, "= {stage} {outcome}").unwrap();
        }
    }

    fn say_ping(&mut self) {
        let ping = self.spelling.dialect().ping();
        if ping == Frame::ping(&[]) { self.said.push_str("<< ping\n") } else { self.say(ping.payload()) }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send(reply) => self.say_event(&reply),
            Effect::Exceeded(_) => {}
            Effect::Ping => self.say_ping(),
            Effect::Admit { id, channel, hearing, proof } => {
                let outcome = match (&proof, &self.policy.realm) {
                    (Proof::Token(token), _) => self.admit(token.expose(), &channel),
                    (Proof::Signed(signed), Some(realm)) => {
                        self.spelling.dialect().admit(realm, SESSION, &channel, signed)
                    }
                    (Proof::Signed(_), None) => panic!("there is no realm"),
                };
                self.feed(Input::Admitted { id, channel, hearing, outcome });
            }
            Effect::Authenticate { id, token } => {
                let outcome = match &self.policy.realm {
                    Some(realm) => self.spelling.dialect().recognise(realm, SESSION, &token).map(Arc::new),
                    None => self.verify(token.expose()).and_then(|grant| match self.backend {
                        Some(_) => self.introduce(Some(&grant)),
                        None => Ok(grant),
                    }),
                };
                self.feed(Input::Authenticated { id, outcome });
            }
            Effect::Introduce { .. } | Effect::Reaffirm | Effect::Call { .. } | Effect::Tell { .. } => {
                self.ask_backend(effect);
            }
            Effect::Join { id, channel, terms } => {
                let (start, wording) = (terms.start, terms.wording);
                let consent = if terms.consent == Consent::Needed { self.ask(hook::consent) } else { Ok(()) };
                let outcome = consent.and_then(|()| self.hub.join(&channel, &terms));
                self.feed(Input::Joined { id, channel, start, wording, outcome });
            }
            Effect::Read { id, channel, excerpt } => {
                let outcome = self.hub.history(&channel, excerpt.query());
                self.feed(Input::Read { id, channel, excerpt, outcome });
            }
            Effect::GoLive { channel, reply } => self.go_live(&channel, reply.as_ref()),
            Effect::Survey { channel, member } => {
                self.hub.attend(&channel, member, Told::Nothing);
                let outcome = self.hub.crowd(&channel, true);
                self.feed(Input::Surveyed { channel, outcome });
            }
            Effect::Heed { channel, .. } => self.hub.heed(&channel),
            Effect::Enter { channel, member, told } => self.hub.attend(&channel, member, told),
            Effect::LookOut { acquaintances } => self.hub.look_out(acquaintances),
            Effect::Count { id, channel, members } => {
                let outcome = self.hub.crowd(&channel, members);
                self.feed(Input::Counted { id, channel, outcome });
            }
            Effect::Leave { channel, .. } => self.hub.leave(&channel),
            Effect::Publish { id, draft, consent } => self.publish(id, draft, consent),
            Effect::Close { reason, farewell } => {
                self.say_event(&farewell);
                if self.ticket.is_some() {
                    // There is no other end than that of the body.
                    let farewell = self.spelling.dialect().farewell(reason);
                    return farewell.into_iter().for_each(|frame| self.say(frame.payload()));
                }
                let (code, words) = self.spelling.dialect().close(reason);
                writeln!(self.said, "<< close {code} {words}").unwrap();
            }
            Effect::EchoClose(Some(code)) => writeln!(self.said, "<< close {code}").unwrap(),
            Effect::EchoClose(None) => self.said.push_str("<< close\n"),
        }
    }

    fn ask_backend(&mut self, effect: Effect) {
        match effect {
            Effect::Introduce { id, presumed } => {
                let outcome = self.introduce(presumed.as_deref());
                self.feed(Input::Authenticated { id, outcome });
            }
            Effect::Reaffirm => {
                let grant = self.session.as_ref().unwrap().shared_grant().cloned();
                let outcome = self.introduce(grant.as_deref());
                self.feed(Input::Reaffirmed { outcome });
            }
            Effect::Call { id, method: _, payload: _ } => {
                let outcome = self.ask(hook::call);
                self.feed(Input::Called { id, outcome });
            }
            Effect::Tell { .. } => drop(self.ask(hook::consent)),
            other => unreachable!("{other:?} is no question to the backend"),
        }
    }

    fn publish(&mut self, id: Option<RequestId>, mut draft: Draft, consent: Consent) {
        let channel = draft.channel.clone();
        let instead = if consent == Consent::Needed { self.ask(hook::publish) } else { Ok(None) };
        let published = instead.and_then(|instead| {
            draft.payload = instead.unwrap_or(draft.payload);
            self.session.as_ref().unwrap().check(&draft)?;
            self.hub.publish(draft)
        });
        let (outcome, publication) = published.map_or_else(
            |failure| (Err(failure), None),
            |(position, publication)| (Ok(position), publication),
        );
        self.feed(Input::Placed { id, channel, outcome });
        publication.into_iter().for_each(|it| self.deliver(&it, Delivery::Live));
    }

    /// What the backend says, read as `read` does.
    fn ask<A>(&self, read: impl Fn(&[u8]) -> hook::Word<A>) -> Result<A, Failure> {
        let away = || Failure::retry(ErrorCode::Unavailable, "the backend is away", Duration::from_secs(7));
        match self.backend.as_deref() {
            None | Some("away") => Err(away()),
            Some(body) => read(body.as_bytes()).expect("an answer of a transcript can be understood"),
        }
    }

    fn introduce(&self, presumed: Option<&Grant>) -> Result<Arc<Grant>, Failure> {
        self.ask(|body| hook::connect(body, presumed, self.now().unix)).map(Arc::new)
    }

    fn go_live(&mut self, channel: &Channel, reply: Option<&Reply>) {
        reply.into_iter().for_each(|reply| self.say_event(reply));
        let replay = self.hub.go_live(channel);
        if let Some(Reply { event: Event::Subscribed { start: Start::Rewind(_), .. }, .. }) = reply
            && replay.is_empty()
        {
            self.say_event(&Reply::unasked(Event::NothingKept { channel: channel.clone() }));
        }
        let encoding = self.spelling.encoding();
        let is_chained = self.hub.chain(channel).is_some();
        for missed in replay {
            let missed = if is_chained { missed.whole(encoding) } else { missed };
            self.say(missed.replayed(encoding).payload());
        }
    }

    /// Somebody else's publication, after those that it makes superfluous for this client.
    fn publish_elsewhere(&mut self, what: &str, label: Option<Label>, delivery: Delivery) {
        let (channel, json) = what.split_once(' ').unwrap();
        let draft = draft(channel, json);
        let payload = draft.payload.clone().labelled(label);
        let draft = Draft { payload, ..draft };
        let retention = self.policy.rules.rule(&draft.channel).unwrap().history;
        let draft = Draft { retention, ..draft };
        if let Delivery::Conflated(dropped) = delivery {
            (0..dropped).for_each(|_| drop(self.hub.publish(draft.clone()).unwrap()));
        }
        let (_, publication) = self.hub.publish(draft).unwrap();
        self.deliver(&publication.expect("it has no key"), delivery);
    }

    /// Somebody else comes to a channel, or leaves it.
    fn turn(&mut self, what: &str, has_come: bool) {
        let mut words = what.splitn(4, ' ');
        let channel = Channel::parse(words.next().unwrap()).unwrap();
        let session = SessionId::from_random(words.next().unwrap().parse::<u128>().unwrap().to_be_bytes());
        let user = words.next().map(UserId::new);
        let member = Member {
            user,
            session,
            profile: words.next().map(|json| Payload::parse(json).unwrap()),
            note: None,
        };
        if has_come {
            self.hub.attend(&channel, member.clone(), Told::Nothing);
        } else {
            self.hub.depart(&channel, session);
        }
        if self.hub.is_told(&channel) {
            let event = match has_come {
                true => Event::Joined { channel, member },
                false => Event::Left { channel, member },
            };
            self.say_event(&Reply::unasked(event));
        }
    }

    fn deliver(&mut self, publication: &Publication, delivery: Delivery) {
        if self.hub.is_live(&publication.channel) && publication.exclude != Some(SESSION) {
            let dialect = self.spelling.dialect();
            let said = self.hub.chain(&publication.channel).and_then(|last| {
                let before = last.replace(publication.payload.clone());
                let difference = before.and_then(|before| dialect.encode_chained(publication, Some(&before)));
                difference.or_else(|| dialect.encode_chained(publication, None))
            });
            let said = said.unwrap_or_else(|| dialect.encode_publication(publication, delivery));
            self.say(said.payload());
        }
    }

    fn say_event(&mut self, reply: &Reply) {
        if let Some(frame) = self.spelling.dialect().encode(reply) {
            self.say(frame.payload());
        }
    }

    fn say(&mut self, payload: &[u8]) {
        let text = self.spelling.write(payload);
        assert!(!text.contains('\n'), "an event is one line: {text:?}");
        writeln!(self.said, "< {text}").unwrap();
    }

    fn now(&self) -> Now {
        let unix = UnixMicros(u64::try_from((BEGINNING + self.clock).as_micros()).unwrap());
        Now { moment: Moment::after_start(self.clock), unix }
    }
}

/// What a good proof says of a channel.
fn pass(proven: Grant, channel: &Channel) -> Pass {
    let expires = proven.expires.map(|expires| UnixMicros(expires * 1_000_000));
    let pass = proven.pass(channel).cloned().unwrap_or_default();
    Pass { profile: proven.profile, expires, ..pass }
}

pub(super) fn draft(channel: &str, json: &str) -> Draft {
    Draft {
        channel: Channel::parse(channel).unwrap(),
        payload: Payload::parse(json).unwrap(),
        sender: None,
        exclude: None,
        received: UnixMicros(0),
        retention: None,
        key: None,
        trace: None,
    }
}

fn keeping(size: u32) -> Retention {
    Retention { size: NonZeroU32::new(size).unwrap(), ..Retention::SHORT }
}
