//! The two kinds of Redis' pub/sub.
//!
//! Several servers that form a Redis Cluster tell each other every PUBLISH; a shard channel stays within the shard that has
//! its slot, so that capacity grows with the shards. A server by itself knows no difference but the words.

use fanfare_protocol::Channel;

use crate::broker::redis::keys;

/// One of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pubsub {
    /// PUBLISH and SUBSCRIBE.
    #[default]
    Plain,
    /// SPUBLISH and SSUBSCRIBE.
    Shard,
}

impl Pubsub {
    /// Publishes.
    pub(super) const fn publish(self) -> &'static str {
        match self {
            Self::Plain => "PUBLISH",
            Self::Shard => "SPUBLISH",
        }
    }

    /// Subscribes.
    pub(super) const fn subscribe(self) -> &'static str {
        match self {
            Self::Plain => "SUBSCRIBE",
            Self::Shard => "SSUBSCRIBE",
        }
    }

    /// Ends subscriptions.
    pub(super) const fn unsubscribe(self) -> &'static str {
        match self {
            Self::Plain => "UNSUBSCRIBE",
            Self::Shard => "SUNSUBSCRIBE",
        }
    }

    /// Divides what a batch speaks of into what one command may name: channels of several slots get CROSSSLOT.
    pub(super) fn commands<T>(self, mut batch: Vec<T>, channel: impl Fn(&T) -> &Channel) -> Vec<Vec<T>> {
        if self == Self::Plain {
            return vec![batch];
        }
        let slot = |it: &T| keys::slot(channel(it));
        batch.sort_by_cached_key(slot);
        let mut commands: Vec<Vec<T>> = Vec::new();
        for it in batch {
            match commands.last_mut() {
                Some(last) if last.first().map(slot) == Some(slot(&it)) => last.push(it),
                _ => commands.push(vec![it]),
            }
        }
        commands
    }
}

/// The slot that a refusal speaks of which says that another server has it: `MOVED 3999 127.0.0.1:6381`.
pub(super) fn moved(reason: &str) -> Option<u16> {
    reason.strip_prefix("MOVED ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_channels_of_one_slot() {
        let channels: Vec<_> = (0..50).map(|it| Channel::parse(&format!("room:{it}")).unwrap()).collect();
        let doubled = [channels.as_slice(), &channels].concat();
        assert_eq!(Pubsub::Plain.commands(channels, |it| it).len(), 1);
        let commands = Pubsub::Shard.commands(doubled, |it| it);
        assert_eq!(commands.len(), 50);
        assert!(commands.iter().all(|command| command.len() == 2 && command[0] == command[1]));
        assert!(Pubsub::Shard.commands(Vec::new(), |it: &Channel| it).is_empty());
    }

    #[test]
    fn a_refusal_names_the_slot_that_has_moved() {
        assert_eq!(moved("MOVED 3999 127.0.0.1:6381"), Some(3999));
        for other in ["MOVED", "ASK 3999 127.0.0.1:6381", "CLUSTERDOWN Hash slot not served", ""] {
            assert_eq!(moved(other), None, "{other}");
        }
    }
}
