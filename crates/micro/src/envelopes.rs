//! What crosses Redis, to bytes and back.

use std::hint::black_box;

use fanfare_protocol::UserId;
use fanfare_protocol::publication::Sender;

use crate::{Case, Operation, sample};

// The file itself: it depends on nothing private, and nobody but a benchmark would want it to be public.
#[path = "../../fanout/src/broker/redis/envelope.rs"]
#[allow(dead_code, reason = "the broker uses all of it")]
mod envelope;

pub(crate) const CASES: &[Case] = &[
    Case { name: "redis/write-envelope", prepare: write },
    Case { name: "redis/open-envelope", prepare: || open(None) },
    Case { name: "redis/open-envelope-with-sender", prepare: || open(Some(sender())) },
];

fn sender() -> Box<Sender> {
    let user = Some(UserId::new("alice"));
    Box::new(Sender { user, profile: Some(sample::payload(40)), ..Sender::default() })
}

fn write() -> Operation {
    let draft = sample::draft(128, None);
    Box::new(move || {
        let envelope = envelope::Envelope { draft: black_box(&draft), position: None };
        black_box(redis::cmd("PUBLISH").arg("fanfare:c:room:benchmark").arg(envelope).get_packed_command());
    })
}

fn open(sender: Option<Box<Sender>>) -> Operation {
    let mut draft = sample::draft(128, None);
    draft.sender = sender;
    let envelope = envelope::Envelope { draft: &draft, position: Some(&sample::POSITION) };
    let [bytes]: [Vec<u8>; 1] =
        redis::ToRedisArgs::to_redis_args(&envelope).try_into().expect("an envelope is one argument");
    let channel = sample::channel();
    Box::new(move || {
        let publication =
            envelope::open(channel.clone(), black_box(&bytes)).expect("what was written is read");
        black_box(publication);
    })
}
