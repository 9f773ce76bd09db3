//! What each channel namespace allows.

use std::collections::HashMap;

use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::publication::Payload;

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

/// The rules of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Who may publish.
    pub publish: MayPublish,
    /// Who may subscribe.
    pub subscribe: MaySubscribe,
    /// The most bytes of data in one publication; `None` leaves it to the message bound.
    pub payload_bytes: Option<usize>,
}

impl Rule {
    /// Whether a publication's data is within the namespace's bound.
    ///
    /// # Errors
    /// 4413, with both sizes.
    pub fn check_size(&self, payload: &Payload) -> Result<(), Failure> {
        let bytes = payload.as_bytes().len();
        match self.payload_bytes {
            Some(most) if bytes > most => {
                let text = format!("`data` has {bytes} bytes, at most {most} are taken here");
                Err(Failure::new(ErrorCode::TooLarge, text))
            }
            _ => Ok(()),
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
        let open = Rule { publish: MayPublish::Anyone, subscribe: MaySubscribe::Anyone, payload_bytes: None };
        Self { namespaces: HashMap::new(), open: Some(open) }
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
        let rule = Rule { publish: MayPublish::Nobody, subscribe: MaySubscribe::Anyone, payload_bytes: None };
        let rules = Rules::of([("room".into(), rule.clone())]);
        let channel = |name| Channel::parse(name).unwrap();
        assert_eq!(rules.rule(&channel("room:1")), Ok(&rule));
        assert_eq!(rules.rule(&channel("lobby")).unwrap_err().code, ErrorCode::NotFound);
        assert!(Rules::of([]).rule(&channel("lobby")).is_ok());
    }
}
