//! A session that is fed anything, as a dialect would spell it and in whatever order the hub answers: it says nothing after its
//! Close, leaves the channels that it has joined, keeps to its bound, and ticking makes progress.
//!
//! Its shell is as the gateway's: effects are performed in order, what follows from an answer before what was decided later.

#![no_main]

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::command::{Command, Request, Start, Wording};
use fanfare_protocol::dialect::Incoming;
use fanfare_protocol::error::{ErrorCode, Failure};
use fanfare_protocol::event::{Crowd, Entry, Event};
use fanfare_protocol::grant::claims::{self, Expected};
use fanfare_protocol::grant::{Grant, Visitor};
use fanfare_protocol::history::Page;
use fanfare_protocol::limits::Limits;
use fanfare_protocol::manners::Manners;
use fanfare_protocol::rules::{MayPublish, MaySubscribe, Rule, Rules};
use fanfare_protocol::session::{Effect, Input, Policy, Session, Stage};
use fanfare_protocol::time::{Moment, Now, UnixMicros};
use fanfare_protocol::{Channel, CloseReason, Encoding, Epoch, Offset, Position, SessionId};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

const START: u64 = 1_767_225_600_000_000;
const CHANNELS_MAX: usize = 3;
const NAMES: [&str; 6] = ["a", "room:1", "room:2", "closed:1", "user:ann", "nowhere:1"];
const TOP: Position = Position { epoch: Epoch(1), offset: Offset(7) };

#[derive(Arbitrary, Debug)]
struct Conversation<'a> {
    visitor: Option<Claims>,
    is_unknown: bool,
    acts: Vec<Act<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Act<'a> {
    Say(Word),
    /// Several that are decided before the first is performed.
    SayTogether(Vec<Word>),
    /// Whatever it is, in the dialect's JSON.
    Raw(&'a str),
    Open(u8),
    PassMillis(u16),
    PassToDeadline,
    Tick,
    Heard,
    Lost(u8),
    /// What the hub is asked from now on fails, or does not.
    HubIs {
        there: bool,
    },
    Overflowed,
    Drain,
    Dismissed,
    Violated,
    PeerClosed(Option<u16>),
    Gone,
    PolicyIs {
        closes: bool,
        channels: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Word {
    Auth(Claims),
    Subscribe { channel: u8, id: Option<u8> },
    SubscribeSince { channel: u8, offset: u8 },
    Unsubscribe { channel: u8, id: Option<u8> },
    Publish { channel: u8, id: Option<u8> },
    History { channel: u8 },
    Presence { channel: u8 },
    Ping,
}

#[derive(Arbitrary, Debug)]
struct Claims {
    is_ann: bool,
    lasts_seconds: Option<u8>,
    channel: u8,
}

impl Claims {
    fn grant(&self, now: UnixMicros) -> Option<Arc<Grant>> {
        let user = if self.is_ann { "ann" } else { "bob" };
        let ends = self.lasts_seconds.map(|it| format!(",\"exp\":{}", now.0 / 1_000_000 + u64::from(it)));
        let (ends, channel) = (ends.unwrap_or_default(), name(self.channel));
        let json = format!(
            r#"{{"sub":"{user}"{ends},"channels":["{channel}"],"allow":[{{"channels":["closed:*"],"can":["subscribe","publish"]}}]}}"#
        );
        claims::read(json.as_bytes(), &Expected::default(), now).ok().map(Arc::new)
    }
}

fn name(number: u8) -> &'static str {
    NAMES[usize::from(number) % NAMES.len()]
}

fuzz_target!(|conversation: Conversation<'_>| {
    let mut shell = Shell::open(&conversation);
    for act in conversation.acts {
        shell.act(act);
    }
    shell.end();
});

struct Shell {
    session: Session,
    now: Now,
    decided: Vec<Effect>,
    to_perform: VecDeque<Effect>,
    /// What the hub has.
    joined: HashSet<Channel>,
    is_hub_there: bool,
    has_closed: bool,
    next_grant: Option<Arc<Grant>>,
}

impl Shell {
    fn open(conversation: &Conversation<'_>) -> Self {
        let now = Now { moment: Moment::after_start(Duration::ZERO), unix: UnixMicros(START) };
        let grant = conversation.visitor.as_ref().and_then(|claims| claims.grant(now.unix));
        let visitor = match grant {
            Some(grant) => Visitor::Known(grant),
            None if conversation.is_unknown => Visitor::Unknown,
            None => Visitor::Anonymous,
        };
        let mut decided = Vec::new();
        let session = Session::open(
            SessionId::from_random([7; 16]),
            policy(false, 3),
            &Manners::PLAIN,
            visitor,
            now,
            &mut decided,
        );
        let (to_perform, joined) = (VecDeque::new(), HashSet::new());
        let mut shell = Self {
            session,
            now,
            decided,
            to_perform,
            joined,
            is_hub_there: true,
            has_closed: false,
            next_grant: None,
        };
        shell.look_at(0);
        shell.perform_all();
        shell
    }

    fn act(&mut self, act: Act<'_>) {
        match act {
            Act::Say(word) => self.say([word]),
            Act::SayTogether(words) => self.say(words),
            Act::Raw(text) => self.hear(text),
            Act::Open(channel) => {
                let channel = Channel::parse(name(channel)).expect("a name");
                let (start, wording) = (Start::Live, Wording::Whole);
                let command =
                    Command::Subscribe { channel, start, presence: true, wording, filter: None, proof: None };
                self.feed(Input::Opening(Request { id: None, command }));
            }
            Act::PassMillis(millis) => self.pass(Duration::from_millis(millis.into())),
            Act::PassToDeadline => {
                if let Some(deadline) = self.session.deadline() {
                    self.pass(deadline.since(self.now.moment));
                    self.tick();
                }
            }
            Act::Tick => self.tick(),
            Act::Heard => self.feed(Input::Heard),
            Act::Lost(channel) => {
                let channel = Channel::parse(name(channel)).expect("a name");
                self.feed(Input::Lost { channel });
            }
            Act::HubIs { there } => self.is_hub_there = there,
            Act::Overflowed => self.feed(Input::Overflowed),
            Act::Drain => self.feed(Input::Drain(Duration::from_millis(500))),
            Act::Dismissed => self.feed(Input::Dismissed(CloseReason::Forbidden)),
            Act::Violated => self.feed(Input::Violated(CloseReason::ProtocolError)),
            Act::PeerClosed(code) => self.feed(Input::PeerClosed(code)),
            Act::Gone => {
                self.feed(Input::Gone);
                assert_eq!(self.session.stage(), Stage::Over);
            }
            Act::PolicyIs { closes, channels } => {
                self.feed(Input::PolicyChanged(policy(closes, usize::from(channels % 4))));
            }
        }
        self.perform_all();
    }

    fn say(&mut self, words: impl IntoIterator<Item = Word>) {
        for word in words {
            let named = |id: Option<u8>| id.map_or(String::new(), |id| format!(",\"id\":{id}"));
            let text = match word {
                Word::Auth(claims) => {
                    self.next_grant = claims.grant(self.now.unix);
                    r#"{"type":"auth","token":"t","id":1}"#.to_owned()
                }
                Word::Subscribe { channel, id } => {
                    format!(
                        r#"{{"type":"subscribe","channel":"{}","presence":true{}}}"#,
                        name(channel),
                        named(id)
                    )
                }
                Word::SubscribeSince { channel, offset } => format!(
                    r#"{{"type":"subscribe","channel":"{}","since":{{"epoch":"{}","offset":{offset}}}}}"#,
                    name(channel),
                    TOP.epoch
                ),
                Word::Unsubscribe { channel, id } => {
                    format!(r#"{{"type":"unsubscribe","channel":"{}"{}}}"#, name(channel), named(id))
                }
                Word::Publish { channel, id } => {
                    format!(r#"{{"type":"publish","channel":"{}","data":[1]{}}}"#, name(channel), named(id))
                }
                Word::History { channel } => format!(r#"{{"type":"history","channel":"{}"}}"#, name(channel)),
                Word::Presence { channel } => {
                    format!(r#"{{"type":"presence","channel":"{}"}}"#, name(channel))
                }
                Word::Ping => r#"{"type":"ping","id":"p"}"#.to_owned(),
            };
            self.hear(&text);
        }
    }

    fn hear(&mut self, text: &str) {
        if self.session.stage() != Stage::Open {
            return;
        }
        let mut decoded = Vec::new();
        let batch_max = self.session.limits().batch;
        let dialect = Encoding::NativeJson.dialect();
        dialect.decode(Incoming::Text(text), batch_max, &mut |it| decoded.push(it)).expect("it is text");
        for command in decoded {
            self.feed(command.map_or_else(Input::Rejected, Input::Request));
        }
        self.feed(Input::Heard);
    }

    fn pass(&mut self, time: Duration) {
        self.now.moment = self.now.moment + time;
        self.now.unix.0 += u64::try_from(time.as_micros()).expect("not for so long");
    }

    fn tick(&mut self) {
        self.feed(Input::Tick);
        assert!(self.session.deadline().is_none_or(|it| it > self.now.moment), "ticking makes progress");
    }

    fn feed(&mut self, input: Input) {
        let before = self.decided.len();
        self.session.handle(self.now, input, &mut self.decided);
        self.look_at(before);
    }

    /// What has been decided is in its order.
    fn look_at(&mut self, from: usize) {
        for effect in &self.decided[from..] {
            match effect {
                Effect::Close { farewell, .. } => {
                    assert!(!self.has_closed, "a conversation is closed once");
                    self.has_closed = true;
                    spell(farewell);
                }
                Effect::EchoClose(_) => {
                    assert!(!self.has_closed, "a conversation is closed once");
                    self.has_closed = true;
                }
                Effect::Send(reply) | Effect::GoLive { reply: Some(reply), .. } => {
                    assert!(!self.has_closed, "something is said after the Close: {effect:?}");
                    spell(reply);
                }
                Effect::Ping | Effect::Enter { .. } | Effect::Heed { .. } | Effect::LookOut { .. } => {
                    assert!(!self.has_closed, "after the Close: {effect:?}")
                }
                Effect::GoLive { reply: None, .. }
                | Effect::Authenticate { .. }
                | Effect::Admit { .. }
                | Effect::Join { .. }
                | Effect::Read { .. }
                | Effect::Count { .. }
                | Effect::Survey { .. }
                | Effect::Leave { .. }
                | Effect::Exceeded(_)
                | Effect::Publish { .. } => {}
                Effect::Introduce { .. } | Effect::Reaffirm | Effect::Call { .. } | Effect::Tell { .. } => {
                    unreachable!("there is no backend: {effect:?}")
                }
            }
        }
    }

    fn perform_all(&mut self) {
        self.to_perform.extend(self.decided.drain(..));
        while let Some(effect) = self.to_perform.pop_front() {
            if let Some(answer) = self.perform(effect) {
                self.feed(answer);
                let decided: Vec<_> = self.decided.drain(..).collect();
                let first = decided.iter().position(asks_hub).unwrap_or(decided.len());
                for (place, effect) in decided.into_iter().enumerate() {
                    // What asks in its turn comes after all that was decided before, and so does what follows it.
                    if place >= first {
                        self.to_perform.push_back(effect);
                    } else {
                        assert!(self.perform(effect).is_none());
                    }
                }
            }
        }
        let listed: HashSet<Channel> = self.session.channels().cloned().collect();
        assert_eq!(listed, self.joined, "a teardown leaves what was joined, and nothing else");
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        let away = || Failure::new(ErrorCode::Unavailable, "away");
        let is_there = self.is_hub_there;
        Some(match effect {
            Effect::Authenticate { id, .. } => {
                let refused = || Failure::new(ErrorCode::Unauthorized, "no");
                let outcome = self.next_grant.take().filter(|_| is_there).ok_or_else(refused);
                Input::Authenticated { id, outcome }
            }
            Effect::Join { id, channel, terms } => {
                let outcome = match is_there {
                    true => {
                        assert!(self.joined.insert(channel.clone()), "joined twice: {channel:?}");
                        Ok(terms.history.then_some(Entry { position: TOP, recovered: false }))
                    }
                    false => Err(away()),
                };
                Input::Joined { id, channel, start: terms.start, wording: terms.wording, outcome }
            }
            Effect::Publish { id, draft, .. } => {
                let outcome = if is_there { Ok(draft.retention.map(|_| TOP)) } else { Err(away()) };
                Input::Placed { id, channel: draft.channel, outcome }
            }
            Effect::Read { id, channel, excerpt } => {
                let page = Page { epoch: TOP.epoch, top: TOP.offset, publications: Vec::new() };
                let outcome = if is_there { Ok(page) } else { Err(away()) };
                Input::Read { id, channel, excerpt, outcome }
            }
            Effect::Count { id, channel, .. } => {
                let crowd = Arc::new(Crowd { users: 1, connections: 1, members: None });
                Input::Counted { id, channel, outcome: if is_there { Ok(crowd) } else { Err(away()) } }
            }
            Effect::Survey { channel, .. } => {
                assert!(self.joined.contains(&channel), "surveyed without having joined: {channel:?}");
                let crowd = Arc::new(Crowd { users: 1, connections: 1, members: Some(Vec::new()) });
                Input::Surveyed { channel, outcome: if is_there { Ok(crowd) } else { Err(away()) } }
            }
            Effect::GoLive { channel, .. } | Effect::Enter { channel, .. } | Effect::Heed { channel, .. } => {
                assert!(self.joined.contains(&channel), "live without having joined: {channel:?}");
                return None;
            }
            Effect::Leave { channel, .. } => {
                self.joined.remove(&channel);
                return None;
            }
            Effect::Admit { .. } => unreachable!("nobody here shows a proof"),
            Effect::Introduce { .. } | Effect::Reaffirm | Effect::Call { .. } | Effect::Tell { .. } => {
                unreachable!("there is no backend")
            }
            Effect::Send(_)
            | Effect::Ping
            | Effect::LookOut { .. }
            | Effect::Exceeded(_)
            | Effect::Close { .. }
            | Effect::EchoClose(_) => return None,
        })
    }

    /// Nothing is waited for for ever: time alone ends a conversation whose client is silent.
    fn end(mut self) {
        for _ in 0..8 {
            self.act(Act::PassToDeadline);
        }
        assert_eq!(self.session.stage(), Stage::Over);
    }
}

fn asks_hub(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Authenticate { .. }
            | Effect::Admit { .. }
            | Effect::Join { .. }
            | Effect::Publish { .. }
            | Effect::Read { .. }
            | Effect::Survey { .. }
            | Effect::Count { .. }
    )
}

fn spell(reply: &fanfare_protocol::event::Reply) {
    for encoding in Encoding::ALL {
        let frame = encoding.dialect().encode(reply);
        assert!(frame.is_none_or(|frame| !frame.payload().is_empty()));
    }
    if let Event::Welcome(welcome) = &reply.event {
        assert!(welcome.subscribed.len() <= CHANNELS_MAX + 1, "no more than the policy allows");
    }
}

fn policy(closes: bool, channels: usize) -> Arc<Policy> {
    let closed =
        || Rule { publish: MayPublish::Nobody, subscribe: MaySubscribe::Token, history: None, ..Rule::OPEN };
    let mut rules = vec![("default", Rule::OPEN), ("closed", closed()), ("user", closed())];
    if !closes {
        rules.push(("room", Rule { publish: MayPublish::Subscribers, ..Rule::OPEN }));
    }
    let rules = Rules::of(rules.into_iter().map(|(name, rule)| (name.into(), rule)));
    let limits = Limits { channels, messages_per_second: 50, errors: 4, ..Limits::default() };
    Arc::new(Policy {
        node: "node".into(),
        limits,
        heartbeat: Default::default(),
        rules,
        takes_calls: false,
        realm: None,
    })
}
