//! What a connection counts, in the words of the metrics crate.

use fanfare_metrics::Command as Kind;
use fanfare_protocol::command::{Command, Decoded};

/// The label of a command; one that was not understood is unknown.
pub(super) fn kind(command: &Decoded) -> Kind {
    match command.as_ref().map(|request| &request.command) {
        Ok(Command::Authenticate { .. }) => Kind::Auth,
        Ok(Command::Subscribe { .. }) => Kind::Subscribe,
        Ok(Command::Unsubscribe { .. }) => Kind::Unsubscribe,
        Ok(Command::Publish { .. }) => Kind::Publish,
        Ok(Command::History { .. }) => Kind::History,
        Ok(Command::Presence { .. }) => Kind::Presence,
        Ok(Command::Ping) => Kind::Ping,
        Err(_) => Kind::Unknown,
    }
}
