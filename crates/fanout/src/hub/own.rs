//! Which publications are this node's own, some of them: what lies between publishing and hearing one of those is measured by one
//! clock. Between nodes it is two, and their difference would be in the measure.

use std::collections::VecDeque;

use fanfare_protocol::publication::Draft;
use fanfare_protocol::time::UnixMicros;
use fanfare_protocol::{Channel, Publication};
use parking_lot::Mutex;

/// The most that are waited for. What nobody on this node hears is never heard, and goes when others come.
const WAITING_MAX: usize = 64;

/// See the [module's note](self).
#[derive(Debug, Default)]
pub(super) struct Own(Mutex<VecDeque<(UnixMicros, Channel)>>);

impl Own {
    /// It is about to be published.
    pub(super) fn note(&self, draft: &Draft) {
        let mut waiting = self.0.lock();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back((draft.received, draft.channel.clone()));
    }

    /// Whether it was published here. It is waited for no more.
    pub(super) fn take(&self, publication: &Publication) -> bool {
        let mut waiting = self.0.lock();
        let is_it = |(received, channel): &(UnixMicros, Channel)| {
            *received == publication.received && *channel == publication.channel
        };
        let Some(at) = waiting.iter().position(is_it) else { return false };
        waiting.remove(at);
        true
    }
}
