//! What a connection counts, in the words of the metrics crate.

use fanfare_metrics::{Command as Kind, Enforcement, Limit, Metrics};
use fanfare_protocol::command::{Command, Decoded};
use fanfare_protocol::limits::{Bound, Limits};

/// A session met a bound.
pub(crate) fn exceeded(metrics: &Metrics, limits: &Limits, bound: Bound) {
    let limit = match bound {
        Bound::Commands => Limit::Messages,
        Bound::Publications => Limit::Rate,
        Bound::DataBytes => Limit::MaxBytes,
        Bound::Channels => Limit::Channels,
        Bound::Batch => Limit::Batch,
        Bound::Depth => Limit::JsonDepth,
    };
    let is_tried = limits.trial.covers(bound);
    metrics.limit_exceeded(limit, if is_tried { Enforcement::WouldRefuse } else { Enforcement::Refused });
}

/// The label of a command; one that was not understood is unknown.
pub(super) fn kind(command: &Decoded) -> Kind {
    match command.as_ref().map(|request| &request.command) {
        Ok(Command::Open(_) | Command::Authenticate { .. }) => Kind::Auth,
        Ok(Command::Subscribe { .. } | Command::Renew { .. }) => Kind::Subscribe,
        Ok(Command::Unsubscribe { .. }) => Kind::Unsubscribe,
        Ok(Command::Publish { .. }) => Kind::Publish,
        Ok(Command::History { .. }) => Kind::History,
        Ok(Command::Presence { .. }) => Kind::Presence,
        Ok(Command::Call { .. } | Command::Tell { .. }) => Kind::Call,
        Ok(Command::Ping | Command::Pong) => Kind::Ping,
        Err(_) => Kind::Unknown,
    }
}
