//! The queue to one connection, as its session and its writer see it.

use std::task::{Context, Poll, Waker};

use fanfare_fanout::{Batch, Outbox};
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::{Encoding, SessionId};

use crate::{Case, Operation, sample};

pub(crate) const CASES: &[Case] = &[
    Case { name: "outbox/push-and-take-1", prepare: || push_and_take(1) },
    Case { name: "outbox/push-and-take-8", prepare: || push_and_take(8) },
];

/// A writer that sleeps is woken, takes all that waits, has written it, and sleeps.
fn push_and_take(frames: usize) -> Operation {
    let outbox = Outbox::new(SessionId::from_random([7; 16]), Encoding::NativeJson, 1_048_576);
    let event = Event::Published { channel: sample::channel(), position: None };
    let frame = Encoding::NativeJson.dialect().encode(&Reply::unasked(event)).expect("it has a word for it");
    let mut batch = Batch::default();
    Box::new(move || {
        let context = Context::from_waker(Waker::noop());
        for _ in 0..frames {
            let _ = outbox.push(frame.clone()).expect("room for a few");
        }
        let taken = outbox.poll_take(&context, &mut batch);
        assert!(taken.is_ready());
        assert_eq!(batch.advance(batch.bytes), frames as u64);
        assert_eq!(outbox.poll_take(&context, &mut batch), Poll::Pending);
    })
}
