//! What a session decides, with the answers that its shell brings it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::SessionId;
use fanfare_protocol::command::{Command, Request, Start, Wording};
use fanfare_protocol::event::Entry;
use fanfare_protocol::grant::Visitor;
use fanfare_protocol::limits::Limits;
use fanfare_protocol::manners::Manners;
use fanfare_protocol::session::{Effect, Input, Policy, Session};
use fanfare_protocol::time::{Moment, Now, UnixMicros};

use crate::{Case, Operation, sample};

pub(crate) const CASES: &[Case] = &[
    Case { name: "session/publish", prepare: publish },
    Case { name: "session/subscribe-and-leave", prepare: subscribe_and_leave },
    Case { name: "session/heartbeat", prepare: heartbeat },
];

/// A session, and what it wants done.
struct Conversation {
    session: Session,
    now: Now,
    effects: Vec<Effect>,
}

impl Conversation {
    fn open() -> Self {
        let limits = Limits { messages_per_second: 0, ..Limits::default() };
        let policy = Policy { limits, ..Policy::default() };
        let now = Now {
            moment: Moment::after_start(Duration::from_secs(1)),
            unix: UnixMicros(1_700_000_000_000_000),
        };
        let mut effects = Vec::new();
        let (id, policy) = (SessionId::from_random([7; 16]), Arc::new(policy));
        let session = Session::open(id, policy, &Manners::PLAIN, Visitor::Anonymous, now, &mut effects);
        Self { session, now, effects }
    }

    fn take(&mut self, input: Input) {
        self.session.handle(self.now, black_box(input), &mut self.effects);
    }

    fn ask(&mut self, command: Command) {
        self.take(Input::Request(Request { id: sample::request_id(), command }));
    }

    /// Forgets what was decided: the first is what it must be.
    fn expect(&mut self, is_right: impl FnOnce(&Effect) -> bool) {
        assert!(self.effects.first().is_some_and(is_right), "{:?}", self.effects);
        self.effects.clear();
    }
}

fn publish() -> Operation {
    let mut conversation = Conversation::open();
    conversation.effects.clear();
    let (channel, payload) = (sample::channel(), sample::payload(128));
    Box::new(move || {
        let (channel, payload) = (channel.clone(), payload.clone());
        conversation.ask(Command::Publish { channel: channel.clone(), payload, echo: true, key: None });
        conversation.expect(|effect| matches!(effect, Effect::Publish { .. }));
        let outcome = Ok(Some(sample::POSITION));
        conversation.take(Input::Placed { id: sample::request_id(), channel, outcome });
        conversation.expect(|effect| matches!(effect, Effect::Send(_)));
    })
}

fn subscribe_and_leave() -> Operation {
    let mut conversation = Conversation::open();
    conversation.effects.clear();
    let channel = sample::channel();
    Box::new(move || {
        let of = || channel.clone();
        conversation.ask(Command::Subscribe {
            channel: of(),
            start: Start::Live,
            presence: false,
            wording: Wording::Whole,
            filter: None,
            proof: None,
        });
        conversation.expect(|effect| matches!(effect, Effect::Join { .. }));
        let outcome = Ok(Some(Entry { position: sample::POSITION, recovered: true }));
        conversation.take(Input::Joined {
            id: sample::request_id(),
            channel: of(),
            start: Start::Live,
            wording: Wording::Whole,
            outcome,
        });
        conversation.expect(|effect| matches!(effect, Effect::GoLive { .. }));
        conversation.ask(Command::Unsubscribe { channel: of() });
        conversation.expect(|effect| matches!(effect, Effect::Leave { .. }));
    })
}

/// A ping is due, and the peer answers it.
fn heartbeat() -> Operation {
    let mut conversation = Conversation::open();
    conversation.effects.clear();
    Box::new(move || {
        let deadline = conversation.session.deadline().expect("an open session waits for something");
        conversation.now.moment = deadline;
        conversation.take(Input::Tick);
        conversation.expect(|effect| matches!(effect, Effect::Ping));
        conversation.take(Input::Heard);
    })
}
