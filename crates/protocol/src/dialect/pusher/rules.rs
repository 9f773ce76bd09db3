//! What holds on the channels of a realm, by the beginning of their names.

use std::num::NonZeroU32;
use std::time::Duration;

use super::names::{Access, Kind, PREFIXES};
use crate::publication::Retention;
use crate::rules::{Count, MayPublish, MaySubscribe, Rule};

/// What an operator decides for one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether clients may publish to each other, on private and presence channels.
    pub client_events: Option<NonZeroU32>,
    /// The most bytes of the data of one event.
    pub event_bytes: usize,
    /// Of channels that are no presence channels.
    pub numbers: Numbers,
}

/// Who knows how many hear a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Nobody.
    Unknown,
    /// Whoever asks, which its clients cannot do.
    Known,
    /// Those who hear it are told, too.
    Told,
}

/// What is told to who subscribes to a cache channel.
pub(super) const LAST: Retention = Retention {
    size: NonZeroU32::new(1).unwrap(),
    ttl: Duration::from_secs(30 * 60),
    idempotency_ttl: Duration::from_secs(60),
};

/// The rules of a realm's channels; the first counts whose beginning a name has.
pub fn rules(terms: Terms) -> Vec<(Box<str>, Rule)> {
    PREFIXES.into_iter().map(|(prefix, kind)| (prefix.into(), rule(kind, terms))).collect()
}

fn rule(kind: Kind, terms: Terms) -> Rule {
    let takes_client_events = matches!(kind.access, Access::Private | Access::Presence);
    let rate = terms.client_events.filter(|_| takes_client_events);
    Rule {
        publish: if rate.is_some() { MayPublish::Subscribers } else { MayPublish::Nobody },
        subscribe: if kind.access == Access::Public { MaySubscribe::Anyone } else { MaySubscribe::Token },
        payload_bytes: Some(terms.event_bytes),
        rate,
        history: kind.is_cache.then_some(LAST),
        presence: terms.numbers != Numbers::Unknown || kind.access == Access::Presence,
        // Who is on a presence channel is told who is; and alone on a channel of one's own there is nothing to count.
        count: match (terms.numbers, kind.access) {
            (Numbers::Unknown | Numbers::Known, _) | (_, Access::Presence | Access::Personal) => {
                Count::Untold
            }
            (Numbers::Told, Access::Public | Access::Private | Access::Encrypted) => Count::Told,
        },
        ..Rule::OPEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::rules::Rules;

    #[test]
    fn a_channel_is_as_open_as_its_name_says() {
        let terms = |client_events| Terms { client_events, event_bytes: 100, numbers: Numbers::Unknown };
        let ten = NonZeroU32::new(10);
        let of = |terms| Rules::of([]).with_realm("shop", rules(terms));
        let (chatty, quiet) = (of(terms(ten)), of(terms(None)));
        for (name, is_open, takes_client_events, keeps, presence) in [
            ("news", true, false, false, false),
            ("cache-news", true, false, true, false),
            ("private-a", false, true, false, false),
            ("private-cache-a", false, true, true, false),
            ("private-encrypted-a", false, false, false, false),
            ("private-encrypted-cache-a", false, false, true, false),
            ("presence-a", false, true, false, true),
            ("presence-cache-a", false, true, true, true),
            ("#server-to-user-1", false, false, false, false),
        ] {
            let channel = Channel::parse(&format!("shop:{name}")).unwrap();
            let rule = chatty.rule(&channel).unwrap();
            assert_eq!(chatty.may_hear(&channel, None).is_ok(), is_open, "{name}");
            assert_eq!(chatty.may_publish(&channel, None, true).is_ok(), takes_client_events, "{name}");
            assert!(chatty.may_publish(&channel, None, false).is_err(), "{name}: who is not subscribed");
            assert!(quiet.may_publish(&channel, None, true).is_err(), "{name}: client events are off");
            let kept = rule.history.map(|it| it.size.get());
            assert_eq!(
                (kept, rule.presence),
                (keeps.then_some(1), presence),
                "{name}: the last event, or nothing"
            );
            assert_eq!((rule.rate, rule.payload_bytes), (ten.filter(|_| takes_client_events), Some(100)));
        }
        let counting = of(Terms { numbers: Numbers::Told, ..terms(None) });
        for (name, is_told) in [
            ("news", true),
            ("cache-news", true),
            ("private-a", true),
            ("private-encrypted-cache-a", true),
            ("presence-a", false),
            ("presence-cache-a", false),
            ("#server-to-user-1", false),
        ] {
            let channel = Channel::parse(&format!("shop:{name}")).unwrap();
            let rule = counting.rule(&channel).unwrap();
            assert_eq!((rule.presence, rule.count == Count::Told), (true, is_told), "{name}");
            assert_eq!(chatty.rule(&channel).unwrap().count, Count::Untold, "{name}: it is not known");
        }
        let elsewhere = Channel::parse("room:private-a").unwrap();
        assert!(chatty.may_hear(&elsewhere, None).is_ok(), "other namespaces are what they were");
    }
}
