//! What is true of every conversation, tried on random ones: commands, answers of the hub, and the other inputs in
//! between, at random times.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::rules::Rule;

const CHANNELS: u8 = 6;

/// What may happen while the session waits for nothing.
#[derive(Clone, Debug)]
enum Act {
    Command { ask: Ask, named: bool, answer: Answer },
    Mistake { code: ErrorCode, named: bool },
    Aside(Aside),
}

#[derive(Clone, Debug)]
enum Ask {
    Subscribe(u8),
    Unsubscribe(u8),
    Publish(u8, bool),
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
    End(Input),
}

fn aside() -> impl Strategy<Value = Aside> {
    let end = prop_oneof![
        Just(Input::Overflowed),
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
        2 => end.prop_map(Aside::End),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let ask = prop_oneof![
        4 => (0..CHANNELS).prop_map(Ask::Subscribe),
        3 => (0..CHANNELS).prop_map(Ask::Unsubscribe),
        3 => (0..CHANNELS, any::<bool>()).prop_map(|(channel, echo)| Ask::Publish(channel, echo)),
        1 => Just(Ask::Ping),
    ];
    let answer = (proptest::collection::vec(aside(), 0..3), proptest::bool::weighted(0.8))
        .prop_map(|(meanwhile, is_ok)| Answer { meanwhile, is_ok });
    let code = prop_oneof![Just(ErrorCode::BadRequest), Just(ErrorCode::NotFound)];
    prop_oneof![
        12 => (ask, any::<bool>(), answer).prop_map(|(ask, named, answer)| Act::Command { ask, named, answer }),
        1 => (code, any::<bool>()).prop_map(|(code, named)| Act::Mistake { code, named }),
        4 => aside().prop_map(Act::Aside),
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
        }
    })
}

/// Channels 0 and 1 are closed to publishers or to subscribers, 2 is for subscribers, the last has no namespace; nor has
/// `closed`.
fn rules(closed: Option<u8>) -> Rules {
    let rule = |publish, subscribe| Rule { publish, subscribe, payload_bytes: None };
    let rules = [
        rule(MayPublish::Nobody, MaySubscribe::Anyone),
        rule(MayPublish::Anyone, MaySubscribe::Token),
        rule(MayPublish::Subscribers, MaySubscribe::Anyone),
        rule(MayPublish::Anyone, MaySubscribe::Anyone),
        rule(MayPublish::Anyone, MaySubscribe::Anyone),
    ];
    let named = (0..).zip(rules).filter(|(number, _)| Some(*number) != closed);
    Rules::of(named.map(|(number, rule)| (number.to_string().into(), rule)))
}

fn channel(number: u8) -> Channel {
    Channel::parse(&format!("{number}:x")).unwrap()
}

/// A session, its shell, and what is known of it without looking inside.
struct Play {
    session: Session,
    clock: Duration,
    /// Joined at the hub, counting from the effect on.
    joined: HashSet<Channel>,
    closed: bool,
    named: i64,
    answers: HashMap<RequestId, u32>,
    /// Replies without an id to the command at hand.
    unnamed_answers: u32,
}

impl Play {
    fn begin(policy: Policy) -> Self {
        let mut effects = Vec::new();
        let session =
            Session::open(SessionId::from_random([7; 16]), Arc::new(policy), Now::default(), &mut effects);
        assert!(
            matches!(&effects[..], [Effect::Send(Reply { id: None, event: Event::Welcome(_) })]),
            "a conversation begins with a welcome alone"
        );
        Self {
            session,
            clock: Duration::ZERO,
            joined: HashSet::new(),
            closed: false,
            named: 0,
            answers: HashMap::new(),
            unnamed_answers: 0,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Aside(aside) => self.aside(aside),
            Act::Mistake { code, named } => {
                let id = self.name(named);
                let failure = Failure::new(code, "no");
                let rejection = Rejection { id: id.clone(), channel: None, failure };
                self.unnamed_answers = 0;
                let question = self.feed(Input::Rejected(rejection));
                assert_eq!(question, None, "a mistake asks the hub nothing");
                self.answered(id, true);
            }
            Act::Command { ask, named, answer } => self.command(&ask, named, answer),
        }
    }

    fn command(&mut self, ask: &Ask, named: bool, answer: Answer) {
        let id = self.name(named);
        let command = match *ask {
            Ask::Subscribe(number) => Command::Subscribe { channel: channel(number) },
            Ask::Unsubscribe(number) => Command::Unsubscribe { channel: channel(number) },
            Ask::Publish(number, echo) => {
                Command::Publish { channel: channel(number), payload: Payload::parse("1").unwrap(), echo }
            }
            Ask::Ping => Command::Ping,
        };
        self.unnamed_answers = 0;
        let question = self.feed(Input::Request(Request { id: id.clone(), command }));
        let is_refused = question.is_some() && !answer.is_ok;
        let is_the_point = matches!(ask, Ask::Subscribe(_) | Ask::Ping);
        if let Some(question) = question {
            answer.meanwhile.into_iter().for_each(|aside| self.aside(aside));
            let failure = || Failure::new(ErrorCode::Unavailable, "away");
            let outcome = if answer.is_ok { Ok(None) } else { Err(failure()) };
            let input = match question {
                Effect::Join { id, channel } => {
                    if outcome.is_err() {
                        self.joined.remove(&channel);
                    }
                    Input::Joined { id, channel, outcome }
                }
                Effect::Publish { id, draft } => Input::Placed { id, channel: draft.channel, outcome },
                other => unreachable!("{other:?} is no question"),
            };
            assert_eq!(self.feed(input), None, "an answer raises no question");
        }
        self.answered(id, is_the_point || is_refused);
    }

    fn name(&mut self, named: bool) -> Option<RequestId> {
        self.named += 1;
        named.then_some(RequestId::Number(self.named))
    }

    /// While the conversation is open every command with an id is answered under it, one without an id when it fails
    /// or the answer is its point, and none is answered twice.
    fn answered(&self, id: Option<RequestId>, is_due_without_id: bool) {
        let (answers, is_due) = match id {
            Some(id) => (self.answers.get(&id).copied().unwrap_or(0), true),
            None => (self.unnamed_answers, is_due_without_id),
        };
        assert!(answers <= 1, "answered {answers} times");
        assert!(answers == 1 || !is_due || self.session.stage() != Stage::Open, "not answered");
    }

    fn aside(&mut self, aside: Aside) {
        match aside {
            Aside::Pass(millis) => self.clock += Duration::from_millis(millis),
            Aside::PassToDeadline => {
                self.clock =
                    self.session.deadline().map_or(self.clock, |at| at.since_start().max(self.clock));
                self.tick();
            }
            Aside::Heard => assert_eq!(self.feed(Input::Heard), None),
            Aside::Tick => self.tick(),
            Aside::PolicyChanged(policy) => self.change(&policy),
            Aside::End(input) => {
                assert_eq!(self.feed(input), None);
                assert_ne!(self.session.stage(), Stage::Open);
            }
        }
    }

    fn tick(&mut self) {
        assert_eq!(self.feed(Input::Tick), None);
        if let Some(deadline) = self.session.deadline() {
            assert!(deadline.since_start() >= self.clock, "the next deadline has passed already");
        }
    }

    /// What the new policy forbids is heard no longer; what it allows is kept, over the new bounds or not.
    fn change(&mut self, policy: &Arc<Policy>) {
        let before = self.session.subscriptions.clone();
        assert_eq!(self.feed(Input::PolicyChanged(Arc::clone(policy))), None);
        if self.session.stage() != Stage::Open {
            return;
        }
        for (channel, subscription) in before {
            let rule = policy.rules.rule(&channel);
            let may_hear = rule.is_ok_and(|rule| rule.subscribe == MaySubscribe::Anyone);
            let kept = self.joined.contains(&channel);
            assert_eq!(kept, may_hear || subscription == Subscription::Joining, "{channel:?}");
        }
    }

    /// Feeds one input, checks what always holds, and returns what the hub is asked.
    fn feed(&mut self, input: Input) -> Option<Effect> {
        let now = Now { moment: Moment::after_start(self.clock), unix: Default::default() };
        let mut effects = Vec::new();
        self.session.handle(now, input, &mut effects);
        let mut question = None;
        for effect in effects {
            assert!(!self.closed, "after its Close: {effect:?}");
            match effect {
                Effect::Send(reply) => self.told(reply),
                Effect::GoLive { channel, reply } => {
                    assert!(self.joined.contains(&channel));
                    assert_eq!(self.session.may_hear(&channel), Ok(()));
                    self.told(reply);
                }
                Effect::Leave { channel } => assert!(self.joined.remove(&channel), "left, never joined"),
                Effect::Close { reason, farewell } => {
                    let told =
                        matches!(&farewell.event, Event::Closing { reason: told, .. } if *told == reason);
                    assert!(told && farewell.id.is_none(), "a farewell says why: {farewell:?}");
                    self.closed = true;
                }
                Effect::EchoClose(_) => self.closed = true,
                Effect::Ping => {}
                asked @ (Effect::Join { .. } | Effect::Publish { .. }) => {
                    if let Effect::Join { channel, .. } = &asked {
                        assert!(self.joined.insert(channel.clone()), "joined twice");
                        assert!(self.joined.len() <= self.session.limits().channels);
                    }
                    assert_eq!(question.replace(asked), None, "one question at a time");
                }
            }
        }
        let channels: HashSet<_> = self.session.channels().cloned().collect();
        assert_eq!(channels, self.joined, "what the session would leave is what it has joined");
        if self.closed {
            assert_ne!(self.session.stage(), Stage::Open);
        }
        assert_eq!(self.session.stage() == Stage::Over, self.session.deadline().is_none());
        question
    }

    fn told(&mut self, Reply { id, event }: Reply) {
        match (id, event) {
            (Some(id), Event::Closing { .. } | Event::Welcome(_)) => {
                panic!("these answer nothing, not {id:?}")
            }
            (Some(id), _) => *self.answers.entry(id).or_default() += 1,
            (None, Event::Pong { .. } | Event::Subscribed { .. } | Event::Refused { .. }) => {
                self.unnamed_answers += 1;
            }
            (None, Event::Unsubscribed { cause: Some(_), .. }) => {}
            (None, other) => panic!("nobody asked for {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_conversation_keeps_its_promises(
        policy in policy(),
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut play = Play::begin(policy);
        acts.into_iter().for_each(|act| play.act(act));
    }

    /// Whatever the heartbeat, a peer that says nothing costs three ticks: ping, close, over.
    #[test]
    fn ticking_alone_ends_a_silent_conversation(policy in policy()) {
        let mut play = Play::begin(policy);
        for stage in [Stage::Open, Stage::Closing, Stage::Over] {
            play.aside(Aside::PassToDeadline);
            prop_assert_eq!(play.session.stage(), stage);
        }
        prop_assert_eq!(play.session.outcome(), CloseReason::HeartbeatTimeout.number());
    }
}

/// An open conversation with the default policy, and what it answers to `inputs`.
fn answers_to(inputs: impl IntoIterator<Item = Input>) -> (Session, Vec<Effect>) {
    let mut effects = Vec::new();
    let id = SessionId::from_random([7; 16]);
    let mut session = Session::open(id, Arc::default(), Now::default(), &mut effects);
    effects.clear();
    inputs.into_iter().for_each(|input| session.handle(Now::default(), input, &mut effects));
    (session, effects)
}

#[test]
fn an_answer_to_a_join_that_was_left_meanwhile_opens_nothing() {
    let command = |command| Input::Request(Request { id: None, command });
    for outcome in [Ok(None), Err(Failure::new(ErrorCode::Unavailable, "away"))] {
        let (session, effects) = answers_to([
            command(Command::Subscribe { channel: channel(1) }),
            command(Command::Unsubscribe { channel: channel(1) }),
            Input::Joined { id: None, channel: channel(1), outcome },
        ]);
        assert_eq!(session.channels().count(), 0);
        assert_eq!(
            effects,
            [Effect::Join { id: None, channel: channel(1) }, Effect::Leave { channel: channel(1) }]
        );
    }
}

#[test]
fn only_a_publisher_that_asks_for_no_echo_is_left_out() {
    for echo in [true, false] {
        let payload = Payload::parse("{}").unwrap();
        let command = Command::Publish { channel: channel(1), payload, echo };
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
