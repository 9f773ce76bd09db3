//! What each channel namespace allows.

use std::collections::HashMap;

use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::publication::{IdempotencyKey, Payload, Retention};

/// Who may publish on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayPublish {
    /// Backends only.
    Nobody,
    /// Clients that are subscribed to it.
    Subscribers,
    /// Every client.
    Anyone,
}

/// Who may subscribe to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaySubscribe {
    /// Clients whose token names the channel.
    Token,
    /// Clients that said who they are.
    Authenticated,
    /// Every client.
    Anyone,
}

/// What becomes of a subscriber that reads more slowly than its channels speak, once `limits.queue_bytes` wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is disconnected with 4508, and may recover what it missed.
    #[default]
    Disconnect,
    /// The oldest waiting publications of such channels give way.
    DropOldest,
    /// Only the newest publication of a channel waits, at all times: for values, not for events.
    Conflate,
}

/// The rules of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Who may publish.
    pub publish: MayPublish,
    /// Who may subscribe.
    pub subscribe: MaySubscribe,
    /// The most bytes of data in one publication; `None` leaves it to the message bound.
    pub payload_bytes: Option<usize>,
    /// What the broker keeps; `None` for a channel without history.
    pub history: Option<Retention>,
    /// Whether it is known who is subscribed.
    pub presence: bool,
    /// What becomes of slow subscribers.
    pub overflow: Overflow,
}

impl Rule {
    /// Everyone may everything, and a short history is kept: the development default.
    pub const OPEN: Self = Self {
        publish: MayPublish::Anyone,
        subscribe: MaySubscribe::Anyone,
        payload_bytes: None,
        history: Some(Retention::SHORT),
        presence: true,
        overflow: Overflow::Disconnect,
    };

    /// Whether there is a past to ask for.
    ///
    /// # Errors
    /// 4404 when there is none.
    pub fn keeps_history(&self) -> Result<(), Failure> {
        match self.history {
            Some(_) => Ok(()),
            None => Err(Failure::new(ErrorCode::NotFound, "no history is kept here")),
        }
    }

    /// Whether it is known here who is subscribed.
    ///
    /// # Errors
    /// 4404 where it is not.
    pub fn knows_presence(&self) -> Result<(), Failure> {
        match self.presence {
            true => Ok(()),
            false => Err(Failure::new(ErrorCode::NotFound, "presence is off here")),
        }
    }

    /// Whether this may be published here, and how it is kept.
    ///
    /// # Errors
    /// 4413 when the data is over the namespace's bound, with both sizes; 4400 for an idempotency key where there is no
    /// history to remember it.
    pub fn check(
        &self,
        payload: &Payload,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Retention>, Failure> {
        let bytes = payload.as_bytes().len();
        match self.payload_bytes {
            Some(most) if bytes > most => {
                let text = format!("`data` has {bytes} bytes, at most {most} are taken here");
                Err(Failure::new(ErrorCode::TooLarge, text))
            }
            _ if key.is_some() && self.history.is_none() => Err(Failure::new(
                ErrorCode::BadRequest,
                "`key` works where history is kept, and none is kept here",
            )),
            _ => Ok(self.history),
        }
    }
}

/// The rules of all namespaces.
///
/// With no namespace configured every channel is open; with any configured, the others do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    namespaces: HashMap<Box<str>, Rule>,
    open: Option<Rule>,
}

impl Rules {
    /// Every channel open to everyone: the development default.
    pub fn open() -> Self {
        Self { namespaces: HashMap::new(), open: Some(Rule::OPEN) }
    }

    /// These namespaces and no others; none at all is [`Rules::open`].
    pub fn of(namespaces: impl IntoIterator<Item = (Box<str>, Rule)>) -> Self {
        let namespaces: HashMap<_, _> = namespaces.into_iter().collect();
        if namespaces.is_empty() { Self::open() } else { Self { namespaces, open: None } }
    }

    /// The rule of a channel's namespace.
    ///
    /// # Errors
    /// 4404 when there is no such namespace.
    pub fn rule(&self, channel: &Channel) -> Result<&Rule, Failure> {
        let namespace = channel.namespace();
        self.open
            .as_ref()
            .or_else(|| self.namespaces.get(namespace))
            .ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no namespace {namespace:?}")))
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_configured_does_not_exist_once_any_is() {
        let rule = Rule { publish: MayPublish::Nobody, ..Rule::OPEN };
        let rules = Rules::of([("room".into(), rule.clone())]);
        let channel = |name| Channel::parse(name).unwrap();
        assert_eq!(rules.rule(&channel("room:1")), Ok(&rule));
        assert_eq!(rules.rule(&channel("lobby")).unwrap_err().code, ErrorCode::NotFound);
        assert!(Rules::of([]).rule(&channel("lobby")).is_ok());
    }
}
