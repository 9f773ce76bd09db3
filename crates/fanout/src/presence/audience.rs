//! Who on this node has asked to be told who joins and leaves.

use std::collections::HashMap;
use std::sync::Arc;

use fanfare_metrics::Metrics;
use fanfare_protocol::event::{Event, Reply};
use fanfare_protocol::websocket::Frame;
use fanfare_protocol::{Channel, Encoding, SessionId};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::task::yield_now;

use crate::outbox::{Outbox, Queued};
use crate::presence::{Notice, Turn, TurnKind};

/// The listeners of every channel.
#[derive(Debug, Default)]
pub(super) struct Audience(Mutex<HashMap<Channel, IndexMap<SessionId, Arc<Outbox>>>>);

impl Audience {
    pub(super) fn add(&self, channel: &Channel, session: SessionId, outbox: Arc<Outbox>) {
        self.0.lock().entry(channel.clone()).or_default().insert(session, outbox);
    }

    /// From the return on nothing is queued for it.
    pub(super) fn remove(&self, channel: &Channel, session: SessionId) {
        let mut channels = self.0.lock();
        if let Some(listeners) = channels.get_mut(channel) {
            listeners.swap_remove(&session);
            if listeners.is_empty() {
                channels.remove(channel);
            }
        }
    }

    /// Queues a notice for everyone who listens. The lock is held for one turn at a time, and writers come between.
    pub(super) async fn tell(&self, notice: Notice, metrics: &Metrics) {
        for turn in notice.turns {
            self.tell_turn(&notice.channel, turn, metrics);
            yield_now().await;
        }
    }

    fn tell_turn(&self, channel: &Channel, turn: Turn, metrics: &Metrics) {
        let channels = self.0.lock();
        let Some(listeners) = channels.get(channel) else { return };
        let session = turn.member.session;
        let event = event(channel, turn);
        let mut frames: [Option<Option<Frame>>; Encoding::ALL.len()] = Default::default();
        for (_, outbox) in listeners.iter().filter(|(listener, _)| **listener != session) {
            let encoding = outbox.encoding();
            let frame = frames[encoding as usize].get_or_insert_with(|| encoding.dialect().encode(&event));
            let Some(frame) = frame else { continue };
            outbox.push(frame.clone()).unwrap_or_else(Queued::from).count(metrics);
        }
    }
}

fn event(channel: &Channel, Turn { kind, member }: Turn) -> Reply {
    let channel = channel.clone();
    Reply::unasked(match kind {
        TurnKind::Joined => Event::Joined { channel, member },
        TurnKind::Left => Event::Left { channel, member },
    })
}
