//! What a client has the backend do, as far as there is one.

use std::time::Duration;

use super::{Effect, Session, State, refuse};
use crate::close::CloseReason;
use crate::error::{ErrorCode, Failure};
use crate::event::{Event, Reply};
use crate::id::RequestId;
use crate::manners::Telling;
use crate::publication::Payload;
use crate::time::Now;

impl Session {
    pub(super) fn call(
        &self,
        id: Option<RequestId>,
        method: Box<str>,
        payload: Payload,
        effects: &mut Vec<Effect>,
    ) {
        match self.takes_calls() {
            Ok(()) => effects.push(Effect::Call { id, method, payload }),
            Err(failure) => refuse(id, None, failure, effects),
        }
    }

    pub(super) fn tell(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        payload: Payload,
        effects: &mut Vec<Effect>,
    ) {
        match self.takes_calls() {
            Ok(()) => effects.push(Effect::Tell { payload }),
            Err(_) if self.manners.telling == Telling::Final => {
                self.close(now, CloseReason::NotOffered, Duration::ZERO, effects);
            }
            Err(failure) => refuse(id, None, failure, effects),
        }
    }

    fn takes_calls(&self) -> Result<(), Failure> {
        match self.policy.takes_calls {
            true => Ok(()),
            false => {
                Err(Failure::new(ErrorCode::NotOffered, "there is no backend that could be called here"))
            }
        }
    }

    /// An answer is the point of a call, so it comes with an id and without.
    pub(super) fn called(
        &self,
        id: Option<RequestId>,
        outcome: Result<Payload, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let State::Open(_) = self.state else { return };
        match outcome {
            Ok(payload) => effects.push(Effect::Send(Reply { id, event: Event::Returned { payload } })),
            Err(failure) => refuse(id, None, failure, effects),
        }
    }
}
