//! What is true of every conversation, tried on random ones: commands, tokens, answers of the hub, lost streams, and the
//! other inputs in between, at random times.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;

use proptest::prelude::*;

use super::*;
use crate::event::Crowd;
use crate::grant::{Allowance, Grant, Pattern, Token, Verb};
use crate::history::Page;
use crate::id::UserId;
use crate::publication::{Epoch, IdempotencyKey, Offset, Payload, Position};
use crate::rules::{MayPublish, MaySubscribe, Rule};

const CHANNELS: u8 = 6;

/// Where the hub says every stream stands.
const TOP: Position = Position { epoch: Epoch(1), offset: Offset(7) };

/// What comes from the client or from the node.
#[derive(Clone, Debug)]
enum Act {
    /// Commands that come together: all are decided before the first is performed.
    Commands(Vec<Line>),
    Aside(Aside),
}

#[derive(Clone, Debug)]
enum Line {
    Command { ask: Ask, named: bool, answer: Answer },
    Mistake { code: ErrorCode, named: bool },
}

#[derive(Clone, Debug)]
enum Ask {
    Subscribe(u8, Start),
    Unsubscribe(u8),
    Publish {
        channel: u8,
        echo: bool,
        keyed: bool,
    },
    History(u8, Option<Position>),
    /// And whether to name them.
    Presence(u8, bool),
    Authenticate(Arc<Grant>),
    Ping,
}

/// What the hub says, and what happens before it does.
#[derive(Clone, Debug)]
struct Answer {
    meanwhile: Vec<Aside>,
    is_ok: bool,
}

/// What may happen at any time.
#[derive(Clone, Debug)]
enum Aside {
    Pass(u64),
    PassToDeadline,
    Heard,
    Tick,
    PolicyChanged(Arc<Policy>),
    Lost(u8),
    End(Box<Input>),
}

fn aside() -> impl Strategy<Value = Aside> {
    let end = prop_oneof![
        Just(Input::Overflowed),
        Just(Input::Dismissed(CloseReason::Unauthorized)),
        (0..5_000_u64).prop_map(|millis| Input::Drain(Duration::from_millis(millis))),
        proptest::sample::select(&CloseReason::ALL[..]).prop_map(Input::Violated),
        proptest::option::of(1000..5000_u16).prop_map(Input::PeerClosed),
        Just(Input::Gone),
    ];
    prop_oneof![
        20 => (0..3_000_u64).prop_map(Aside::Pass),
        10 => Just(Aside::PassToDeadline),
        20 => Just(Aside::Heard),
        20 => Just(Aside::Tick),
        5 => policy().prop_map(|policy| Aside::PolicyChanged(Arc::new(policy))),
        20 => (0..CHANNELS).prop_map(Aside::Lost),
        2 => end.prop_map(|input| Aside::End(Box::new(input))),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let since = || {
        (1..3_u64, 0..9_u64)
            .prop_map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset: Offset(offset) })
    };
    let start =
        prop_oneof![Just(Start::Live), since().prop_map(Start::Since), any::<u32>().prop_map(Start::Rewind),];
    let ask = prop_oneof![
        4 => (0..CHANNELS, start).prop_map(|(channel, start)| Ask::Subscribe(channel, start)),
        3 => (0..CHANNELS).prop_map(Ask::Unsubscribe),
        3 => (0..CHANNELS, any::<bool>(), any::<bool>())
            .prop_map(|(channel, echo, keyed)| Ask::Publish { channel, echo, keyed }),
        2 => (0..CHANNELS, proptest::option::of(since()))
            .prop_map(|(channel, since)| Ask::History(channel, since)),
        2 => (0..CHANNELS, any::<bool>()).prop_map(|(channel, members)| Ask::Presence(channel, members)),
        1 => grant().prop_map(Ask::Authenticate),
        1 => Just(Ask::Ping),
    ];
    let answer = (proptest::collection::vec(aside(), 0..3), proptest::bool::weighted(0.8))
        .prop_map(|(meanwhile, is_ok)| Answer { meanwhile, is_ok });
    let code = prop_oneof![Just(ErrorCode::BadRequest), Just(ErrorCode::NotFound)];
    let line = prop_oneof![
        12 => (ask, any::<bool>(), answer).prop_map(|(ask, named, answer)| Line::Command { ask, named, answer }),
        1 => (code, any::<bool>()).prop_map(|(code, named)| Line::Mistake { code, named }),
    ];
    prop_oneof![
        3 => proptest::collection::vec(line, 1..8).prop_map(Act::Commands),
        1 => aside().prop_map(Act::Aside),
    ]
}

/// A token of one of two users, or of nobody, which opens the channels of tokens or does not, lists some channels, and ends
/// soon or never.
fn grant() -> impl Strategy<Value = Arc<Grant>> {
    let user = proptest::option::of(0..2_u8);
    let ends = proptest::option::of(0..20_000_000_u64);
    (user, any::<bool>(), proptest::collection::vec(0..CHANNELS, 0..3), ends).prop_map(
        |(user, is_open, channels, ends)| {
            let pattern = Pattern::parse("1:*").unwrap();
            let allowance = Allowance { channels: vec![pattern], verbs: vec![Verb::Subscribe] };
            Arc::new(Grant {
                user: user.map(|number| UserId::new(&number.to_string())),
                channels: channels.into_iter().map(channel).collect(),
                allowances: if is_open { vec![allowance] } else { Vec::new() },
                ends: ends.map(crate::time::UnixMicros),
                ..Grant::default()
            })
        },
    )
}

fn visitor() -> impl Strategy<Value = Visitor> {
    prop_oneof![
        2 => Just(Visitor::Anonymous),
        1 => Just(Visitor::Unknown),
        1 => grant().prop_map(Visitor::Known),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let limits = (0..4_usize, 0..4_u32, 0..20_u32, 0..3_u64, 0..3_u64);
    let heartbeat = (0..20_000_u64, 0..10_000_u64);
    let closed = proptest::option::of(0..CHANNELS);
    (limits, heartbeat, closed).prop_map(|(limits, heartbeat, closed)| {
        let ((channels, errors, rate, grace, close), (interval, timeout)) = (limits, heartbeat);
        Policy {
            node: "node-1".into(),
            limits: Limits {
                channels,
                errors,
                messages_per_second: rate,
                burst_grace: Duration::from_secs(grace),
                close_timeout: Duration::from_secs(close),
                ..Limits::default()
            },
            heartbeat: Heartbeat {
                interval: Duration::from_millis(interval),
                timeout: Duration::from_millis(timeout),
            },
            rules: rules(closed),
            takes_calls: false,
            realm: None,
        }
    })
}

/// Channels 0 and 1 are closed to publishers or to subscribers, 2 is for subscribers, 4 has no history, and the last has
/// no namespace; nor has `closed`.
fn rules(closed: Option<u8>) -> Rules {
    let rule = |publish, subscribe| Rule { publish, subscribe, ..Rule::OPEN };
    let rules = [
        rule(MayPublish::Nobody, MaySubscribe::Anyone),
        rule(MayPublish::Anyone, MaySubscribe::Token),
        rule(MayPublish::Subscribers, MaySubscribe::Anyone),
        rule(MayPublish::Anyone, MaySubscribe::Anyone),
        Rule { history: None, ..Rule::OPEN },
    ];
    let named = (0..).zip(rules).filter(|(number, _)| Some(*number) != closed);
    Rules::of(named.map(|(number, rule)| (number.to_string().into(), rule)))
}

/// What the hub is told of a channel on which it is asked something.
fn has_history(channel: &Channel) -> bool {
    rules(None).rule(channel).expect("the session has looked").history.is_some()
}

fn channel(number: u8) -> Channel {
    Channel::parse(&format!("{number}:x")).unwrap()
}

/// A command that was fed and is not performed to its end.
struct Pending {
    id: Option<RequestId>,
    /// It is answered even without an id.
    is_answered_anyway: bool,
    /// The position since which it asks for history.
    since: Option<Position>,
    /// What its token says, if that is good.
    grant: Option<Arc<Grant>>,
    answer: Option<Answer>,
}

/// A session, its shell and its hub, and what is known of them without looking inside the session.
struct Play {
    session: Session,
    clock: Duration,
    /// Joined at the hub.
    joined: HashSet<Channel>,
    /// Those on which the cluster was told that it is there.
    members: HashSet<Channel>,
    /// What the session has decided and nobody has performed yet, with the number of the command it came from.
    effects: VecDeque<(Option<usize>, Effect)>,
    commands: Vec<Pending>,
    /// The answers to each command so far, and in the order in which they came.
    answers: HashMap<usize, u32>,
    last_answered: Option<usize>,
    /// As whom the client is known, once it has shown a token; that may be nobody's.
    known_as: Option<Option<UserId>>,
    closed: bool,
}

impl Play {
    fn begin(policy: Policy, visitor: &Visitor) -> Self {
        let mut effects = Vec::new();
        let id = SessionId::from_random([7; 16]);
        let session = Session::open(
            id,
            Arc::new(policy),
            &Manners::PLAIN,
            visitor.clone(),
            Now::default(),
            &mut effects,
        );
        let mut joins = effects.iter();
        if *visitor == Visitor::Unknown {
            assert_eq!(effects, [], "nothing is said to whom nobody knows");
        } else {
            let first = joins.next().expect("a conversation begins");
            assert!(
                matches!(first, Effect::Send(Reply { id: None, event: Event::Welcome(_) })),
                "a conversation begins with a welcome"
            );
        }
        assert!(joins.all(|it| matches!(it, Effect::Join { .. })), "and what a token lists: {effects:?}");
        let mut play = Self {
            session,
            clock: Duration::ZERO,
            joined: HashSet::new(),
            members: HashSet::new(),
            effects: effects.into_iter().map(|effect| (None, effect)).collect(),
            commands: Vec::new(),
            answers: HashMap::new(),
            last_answered: None,
            known_as: if let Visitor::Known(grant) = visitor { Some(grant.user.clone()) } else { None },
            closed: false,
        };
        play.perform_all();
        play
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Aside(aside) => self.aside(aside),
            Act::Commands(lines) => {
                let first = self.commands.len();
                let was_open = self.session.stage() == Stage::Open;
                lines.into_iter().for_each(|line| self.decide(line));
                self.perform_all();
                if was_open && self.session.stage() == Stage::Open {
                    (first..self.commands.len()).for_each(|number| self.assert_answered(number));
                }
            }
        }
        self.perform_all();
        let channels: HashSet<_> = self.session.channels().cloned().collect();
        assert_eq!(channels, self.joined, "what the session would leave is what is joined");
        assert!(self.members.is_subset(&self.joined), "nobody is a member of what it does not leave");
        let known_as = self.session.grant().map(|grant| grant.user.clone());
        assert_eq!(known_as, self.known_as, "who is known stays so, and the same user");
    }

    fn decide(&mut self, line: Line) {
        let number = self.commands.len();
        // What is held is told by its name whose answer is which.
        let is_held = matches!(&self.session.state, State::Authenticating(it) if it.is_asking());
        let name =
            |named: bool| (named || is_held).then(|| RequestId::Number(i64::try_from(number).unwrap()));
        let (pending, input) = match line {
            Line::Mistake { code, named } => {
                let rejection = Rejection { id: name(named), ..Rejection::unnamed(Failure::new(code, "no")) };
                let id = name(named);
                let pending =
                    Pending { id, is_answered_anyway: true, since: None, grant: None, answer: None };
                (pending, Input::Rejected(rejection))
            }
            Line::Command { ask, named, answer } => {
                let is_answered_anyway = !matches!(ask, Ask::Unsubscribe(_) | Ask::Publish { .. });
                let request = Request { id: name(named), command: command(&ask) };
                let since = if let Ask::History(_, since) = ask { since } else { None };
                let grant = if let Ask::Authenticate(grant) = &ask { Some(grant.clone()) } else { None };
                let id = name(named);
                let pending = Pending { id, is_answered_anyway, since, grant, answer: Some(answer) };
                (pending, Input::Request(request))
            }
        };
        self.commands.push(pending);
        let effects = self.feed(input);
        if effects.iter().any(|effect| matches!(effect, Effect::Join { .. })) {
            assert!(self.session.wanted <= self.session.limits().channels, "over the bound");
        }
        self.effects.extend(effects.into_iter().map(|effect| (Some(number), effect)));
    }

    fn perform_all(&mut self) {
        while let Some((number, effect)) = self.effects.pop_front() {
            self.perform(number, effect);
        }
    }

    fn perform(&mut self, number: Option<usize>, effect: Effect) {
        let is_quiet = matches!(effect, Effect::Join { .. } | Effect::Publish { .. } | Effect::Leave { .. })
            || matches!(effect, Effect::Read { .. } | Effect::Count { .. } | Effect::Authenticate { .. })
            || matches!(effect, Effect::Exceeded(_));
        assert!(!self.closed || is_quiet, "after the Close: {effect:?}");
        match effect {
            Effect::Exceeded(_) => {}
            Effect::Send(reply) => self.told(number, reply),
            Effect::GoLive { channel, reply } => {
                assert!(self.joined.contains(&channel), "live, but not joined");
                self.told(number, reply.expect("in these manners it is told when it is live"));
            }
            Effect::Enter { channel, member, told: _ } => {
                assert!(self.joined.contains(&channel), "a member, but not joined");
                assert_eq!(member.session, self.session.id());
                assert_eq!(member.user, self.session.grant().and_then(|grant| grant.user.clone()));
                self.members.insert(channel);
            }
            Effect::Leave { channel, .. } => {
                self.members.remove(&channel);
                self.joined.remove(&channel);
            }
            Effect::Close { reason, farewell } => {
                let told = matches!(&farewell.event, Event::Closing { reason: told, .. } if *told == reason);
                assert!(told && farewell.id.is_none(), "a farewell says why: {farewell:?}");
                self.closed = true;
            }
            Effect::EchoClose(_) => self.closed = true,
            Effect::Ping | Effect::Reaffirm => {}
            Effect::Survey { .. } | Effect::Heed { .. } | Effect::LookOut { .. } => {
                panic!("these manners ask for nobody: {effect:?}")
            }
            Effect::Admit { .. } => unreachable!("nobody here shows a proof"),
            Effect::Authenticate { id, token } => self.verify(number.expect("a command asks"), id, &token),
            Effect::Introduce { .. } | Effect::Call { .. } | Effect::Tell { .. } => {
                unreachable!("there is no backend: {effect:?}")
            }
            question @ (Effect::Join { .. }
            | Effect::Publish { .. }
            | Effect::Read { .. }
            | Effect::Count { .. }) => self.ask_hub(number, question),
        }
    }

    /// Has the keys judge a token, after what happens meanwhile. What follows is told before all that is decided already, and
    /// joined after it.
    fn verify(&mut self, number: usize, id: Option<RequestId>, token: &Token) {
        let Answer { meanwhile, is_ok } = self.commands[number].answer.take().expect("it asks once");
        meanwhile.into_iter().for_each(|aside| self.aside(aside));
        let grant = self.commands[number].grant.take().expect("a command of a token");
        assert_eq!(token.expose(), "t");
        let was_open = self.session.stage() == Stage::Open;
        let bad = Failure::new(ErrorCode::Unauthorized, "bad");
        let before = self.session.grant().cloned();
        let effects = self.feed(Input::Authenticated { id, outcome: is_ok.then_some(grant).ok_or(bad) });
        let now = self.session.grant().cloned();
        assert!(is_ok && was_open || now == before, "a bad token changes nothing");
        self.known_as = self.known_as.take().or(now.map(|grant| grant.user));
        let mut asked = false;
        for (place, effect) in effects.into_iter().enumerate() {
            asked |= asks(&effect);
            let of = number_of(&effect).or((place == 0).then_some(number));
            if asked { self.effects.push_back((of, effect)) } else { self.perform(of, effect) }
        }
        if self.closed {
            // The outbox takes nothing after its last frame, whenever that was decided.
            self.effects.retain(|(_, effect)| !matches!(effect, Effect::Send(_) | Effect::Ping));
        }
    }

    /// Has the hub answer, after what happens meanwhile, and performs what follows before all that is decided already.
    fn ask_hub(&mut self, number: Option<usize>, question: Effect) {
        let of_a_token = Answer { meanwhile: Vec::new(), is_ok: true };
        let answer = number.map(|number| self.commands[number].answer.take().expect("it asks once"));
        let Answer { meanwhile, is_ok } = answer.unwrap_or(of_a_token);
        meanwhile.into_iter().for_each(|aside| self.aside(aside));
        if let Some(number) = number {
            self.commands[number].is_answered_anyway |= !is_ok;
        }
        let answer = self.answer(question, is_ok);
        for effect in self.feed(answer) {
            assert!(
                matches!(
                    effect,
                    Effect::Send(_) | Effect::GoLive { .. } | Effect::Enter { .. } | Effect::Leave { .. }
                ),
                "an answer asks nothing: {effect:?}"
            );
            self.perform(number, effect);
        }
    }

    /// What the hub says. Of a channel without history it is asked nothing that takes one.
    fn answer(&mut self, question: Effect, is_ok: bool) -> Input {
        let away = || Failure::new(ErrorCode::Unavailable, "away");
        match question {
            Effect::Join { id, channel, terms } => {
                assert_eq!(terms.history, has_history(&channel));
                if is_ok {
                    assert!(self.joined.insert(channel.clone()), "joined twice");
                }
                let entry = terms.history.then_some(Entry { position: TOP, recovered: true });
                let (start, wording) = (terms.start, terms.wording);
                Input::Joined {
                    id,
                    channel,
                    start,
                    wording,
                    outcome: is_ok.then_some(entry).ok_or_else(away),
                }
            }
            Effect::Publish { id, draft, .. } => {
                assert_eq!(draft.retention.is_some(), has_history(&draft.channel));
                assert!(draft.key.is_none() || draft.retention.is_some(), "a key takes history");
                let position = draft.retention.map(|_| TOP);
                Input::Placed {
                    id,
                    channel: draft.channel,
                    outcome: is_ok.then_some(position).ok_or_else(away),
                }
            }
            Effect::Count { id, channel, members } => {
                let crowd = Crowd { users: 0, connections: 0, members: members.then(Vec::new) };
                let outcome = is_ok.then(|| Arc::new(crowd)).ok_or_else(away);
                Input::Counted { id, channel, outcome }
            }
            Effect::Read { id, channel, excerpt } => {
                assert!(has_history(&channel));
                let page = Page { epoch: TOP.epoch, top: TOP.offset, publications: Vec::new() };
                Input::Read { id, channel, excerpt, outcome: is_ok.then_some(page).ok_or_else(away) }
            }
            other => unreachable!("{other:?} is no question"),
        }
    }

    fn aside(&mut self, aside: Aside) {
        match aside {
            Aside::Pass(millis) => self.clock += Duration::from_millis(millis),
            Aside::PassToDeadline => {
                self.clock =
                    self.session.deadline().map_or(self.clock, |at| at.since_start().max(self.clock));
                self.tick();
            }
            Aside::Heard => assert_eq!(self.feed(Input::Heard), []),
            Aside::Tick => self.tick(),
            Aside::PolicyChanged(policy) => self.change(&policy),
            Aside::Lost(number) => self.lose(&channel(number)),
            Aside::End(input) => {
                self.feed_aside(*input);
                assert_ne!(self.session.stage(), Stage::Open);
            }
        }
    }

    fn tick(&mut self) {
        self.feed_aside(Input::Tick);
        if let Some(deadline) = self.session.deadline() {
            assert!(deadline.since_start() >= self.clock, "the next deadline has passed already");
        }
    }

    /// The client is told once of each subscription that it loses, and nothing else changes.
    fn lose(&mut self, channel: &Channel) {
        let is_heard = self.session.stage() == Stage::Open && self.session.is_wanted(channel);
        let effects = self.feed(Input::Lost { channel: channel.clone() });
        let event = Event::Unsubscribed { channel: channel.clone(), cause: Some(ErrorCode::Gap) };
        let told = [
            Effect::Leave { channel: channel.clone(), cause: Some(ErrorCode::Gap) },
            Effect::Send(Reply::unasked(event)),
        ];
        assert_eq!(effects, if is_heard { &told[..] } else { &[] });
        assert!(!is_heard || !self.session.is_wanted(channel));
        self.effects.extend(effects.into_iter().map(|effect| (None, effect)));
    }

    fn feed_aside(&mut self, input: Input) {
        let effects = self.feed(input);
        self.effects.extend(effects.into_iter().map(|effect| (None, effect)));
    }

    fn feed(&mut self, input: Input) -> Vec<Effect> {
        let unix = crate::time::UnixMicros(u64::try_from(self.clock.as_micros()).expect("a short play"));
        let now = Now { moment: Moment::after_start(self.clock), unix };
        let was_open = self.session.stage() == Stage::Open;
        let mut effects = Vec::new();
        self.session.handle(now, input, &mut effects);
        assert!(was_open || effects.is_empty(), "after the end was decided: {effects:?}");
        let is_over = self.session.stage() == Stage::Over;
        assert_eq!(is_over, self.session.deadline().is_none());
        effects
    }

    /// What the new policy forbids is wanted no longer; what it allows is kept, over the new bounds or not.
    fn change(&mut self, policy: &Arc<Policy>) {
        let wanted = |session: &Session| -> HashSet<Channel> {
            let subscriptions =
                session.subscriptions.iter().filter(|(_, it)| it.is_wanted && it.unanswered == 0);
            subscriptions.map(|(channel, _)| channel.clone()).collect()
        };
        let before = wanted(&self.session);
        self.feed_aside(Input::PolicyChanged(Arc::clone(policy)));
        if self.session.stage() == Stage::Open {
            let may_hear = |channel: &&Channel| policy.rules.may_hear(channel, self.session.grant()).is_ok();
            let kept: HashSet<_> = before.iter().filter(may_hear).cloned().collect();
            assert_eq!(wanted(&self.session), kept);
        }
    }

    fn told(&mut self, number: Option<usize>, Reply { id, event }: Reply) {
        if number.is_none() {
            let is_unasked = match event {
                Event::Unsubscribed { cause, .. } => cause.is_some(),
                // By a token; and what it lists may be forbidden by the time that the hub answers.
                Event::Welcome(_) | Event::Subscribed { .. } => true,
                Event::Refused { failure, .. } => failure.code != ErrorCode::BadRequest,
                _ => false,
            };
            assert!(is_unasked && id.is_none());
            return;
        }
        let number = number.unwrap_or_else(|| panic!("nobody asked for {event:?}"));
        assert_eq!(id, self.commands[number].id, "answered under another name");
        if let Event::Past { .. } = event {
            let since = self.commands[number].since;
            assert!(since.is_none_or(|it| it.epoch == TOP.epoch), "a page of another stream");
        }
        let is_point = !matches!(event, Event::Unsubscribed { .. } | Event::Published { .. });
        assert!(id.is_some() || is_point, "without an id this is not answered: {event:?}");
        assert!(self.last_answered <= Some(number), "out of order");
        self.last_answered = Some(number);
        *self.answers.entry(number).or_default() += 1;
    }

    /// A command with an id is answered once; one without it when it fails or the answer is its point.
    fn assert_answered(&self, number: usize) {
        let answers = self.answers.get(&number).copied().unwrap_or(0);
        let Pending { id, is_answered_anyway, .. } = &self.commands[number];
        assert!(answers <= 1, "answered {answers} times");
        assert!(answers == 1 || !(id.is_some() || *is_answered_anyway), "not answered");
    }
}

fn asks(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Authenticate { .. }
            | Effect::Join { .. }
            | Effect::Publish { .. }
            | Effect::Read { .. }
            | Effect::Count { .. }
    )
}

/// The command that an effect is named after.
fn number_of(effect: &Effect) -> Option<usize> {
    let id = match effect {
        Effect::Send(Reply { id, .. })
        | Effect::Authenticate { id, .. }
        | Effect::Join { id, .. }
        | Effect::Publish { id, .. }
        | Effect::Read { id, .. }
        | Effect::Count { id, .. } => id.as_ref()?,
        _ => return None,
    };
    if let RequestId::Number(number) = id { usize::try_from(*number).ok() } else { None }
}

fn command(ask: &Ask) -> Command {
    match *ask {
        Ask::Subscribe(number, start) => Command::Subscribe {
            channel: channel(number),
            start,
            presence: false,
            wording: Wording::Whole,
            filter: None,
            proof: None,
        },
        Ask::Unsubscribe(number) => Command::Unsubscribe { channel: channel(number) },
        Ask::Publish { channel: number, echo, keyed } => Command::Publish {
            channel: channel(number),
            payload: Payload::parse("1").unwrap(),
            echo,
            key: keyed.then(|| IdempotencyKey::parse("k").unwrap()),
        },
        Ask::History(number, since) => {
            Command::History { channel: channel(number), since, limit: 10, reverse: false }
        }
        Ask::Authenticate(_) => Command::Authenticate { token: Token::new("t") },
        Ask::Presence(number, members) => Command::Presence { channel: channel(number), members },
        Ask::Ping => Command::Ping,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_conversation_keeps_its_promises(
        policy in policy(),
        visitor in visitor(),
        acts in proptest::collection::vec(act(), 0..30),
    ) {
        let mut play = Play::begin(policy, &visitor);
        acts.into_iter().for_each(|act| play.act(act));
    }

    /// Whatever the heartbeat, a peer that says nothing costs three ticks: ping, close, over.
    #[test]
    fn ticking_alone_ends_a_silent_conversation(policy in policy()) {
        let mut play = Play::begin(policy, &Visitor::Anonymous);
        for stage in [Stage::Open, Stage::Closing, Stage::Over] {
            play.act(Act::Aside(Aside::PassToDeadline));
            prop_assert_eq!(play.session.stage(), stage);
        }
        prop_assert_eq!(play.session.outcome(), CloseReason::HeartbeatTimeout.number());
    }
}

/// An open conversation with the default policy, and what it answers to `inputs`.
fn answers_to(inputs: impl IntoIterator<Item = Input>) -> (Session, Vec<Effect>) {
    let mut effects = Vec::new();
    let id = SessionId::from_random([7; 16]);
    let mut session =
        Session::open(id, Arc::default(), &Manners::PLAIN, Visitor::Anonymous, Now::default(), &mut effects);
    effects.clear();
    inputs.into_iter().for_each(|input| session.handle(Now::default(), input, &mut effects));
    (session, effects)
}

#[test]
fn only_a_publisher_that_asks_for_no_echo_is_left_out() {
    for echo in [true, false] {
        let payload = Payload::parse("{}").unwrap();
        let command = Command::Publish { channel: channel(1), payload, echo, key: None };
        let (session, effects) = answers_to([Input::Request(Request { id: None, command })]);
        let [Effect::Publish { draft, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(draft.exclude, (!echo).then_some(session.id()));
    }
}

#[test]
fn the_outcome_is_the_first_close() {
    let outcome = |inputs: &[Input]| answers_to(inputs.iter().cloned()).0.outcome();
    assert_eq!(outcome(&[]), ABNORMAL);
    assert_eq!(outcome(&[Input::Gone]), ABNORMAL);
    assert_eq!(outcome(&[Input::PeerClosed(None), Input::Overflowed, Input::Gone]), 1000);
    assert_eq!(outcome(&[Input::PeerClosed(Some(4321)), Input::Drain(Duration::ZERO)]), 4321);
    assert_eq!(outcome(&[Input::Overflowed, Input::PeerClosed(Some(1000)), Input::Gone]), 4508);
}

/// Whoever has found out which names collide in one conversation's list knows nothing of another's.
#[test]
fn each_session_draws_keys_for_its_list_of_channels() {
    let [one, another] = [(); 2].map(|()| answers_to([]).0.subscriptions.hasher().hash_one(channel(1)));
    assert_ne!(one, another);
}
