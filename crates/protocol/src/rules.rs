//! Who may do what on which channel: what a namespace opens to everyone, and what a client's token opens beside it.

use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::channel::Channel;
use crate::error::{ErrorCode, Failure};
use crate::grant::{self, Grant, Verb};
use crate::publication::{IdempotencyKey, Payload, Retention};

/// The namespace in which nodes speak with each other: to clients and backends there is none of this name.
pub const RESERVED_NAMESPACE: &str = "$fanfare";

/// The one channel of it that somebody else may hear, an operator: what nodes say of themselves.
pub const FIGURES: &str = "$fanfare:figures";

/// Who may publish on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayPublish {
    /// Backends, and clients whose token says so.
    Nobody,
    /// Clients that are subscribed to it.
    Subscribers,
    /// Every client.
    Anyone,
}

/// Who may subscribe to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaySubscribe {
    /// Clients whose token says so.
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

/// Whether what the rules allow takes the word of a backend as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// The rules are enough.
    #[default]
    Given,
    /// The backend has to be asked first.
    Needed,
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
    /// The most publications of one client in a second; `None` leaves it to the rate of commands.
    pub rate: Option<NonZeroU32>,
    /// What the broker keeps; `None` for a channel without history.
    pub history: Option<Retention>,
    /// Whether it is known who is subscribed.
    pub presence: bool,
    /// For whom it is written down who is.
    pub roll: Roll,
    /// Whether subscribers are told how many they are, which takes `presence`.
    pub count: Count,
    /// What becomes of slow subscribers.
    pub overflow: Overflow,
    /// For a client to subscribe.
    pub consent_to_subscribe: Consent,
    /// For each publication of a client.
    pub consent_to_publish: Consent,
}

/// Whether the subscribers of a channel are told how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// They are.
    Told,
    /// They are not.
    Untold,
}

/// For whom it is written down who is subscribed to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// For clients, where they may ask.
    ForClients,
    /// For a backend too, which is told of it, whether clients may ask or not.
    ForBackend,
}

impl Rule {
    /// Whether it is written down who is subscribed.
    #[must_use]
    pub fn keeps_roll(&self) -> bool {
        self.presence || self.roll == Roll::ForBackend
    }

    /// Everyone may everything, and a short history is kept: the development default.
    pub const OPEN: Self = Self {
        publish: MayPublish::Anyone,
        subscribe: MaySubscribe::Anyone,
        payload_bytes: None,
        rate: None,
        history: Some(Retention::SHORT),
        presence: true,
        roll: Roll::ForClients,
        count: Count::Untold,
        overflow: Overflow::Disconnect,
        consent_to_subscribe: Consent::Given,
        consent_to_publish: Consent::Given,
    };

    /// Where nodes say how they are. The newest is what counts, and there is one of each node.
    const FIGURES: Self = Self {
        publish: MayPublish::Nobody,
        subscribe: MaySubscribe::Token,
        history: None,
        presence: false,
        overflow: Overflow::DropOldest,
        ..Self::OPEN
    };

    /// Whether there is a past to ask for.
    ///
    /// # Errors
    /// 4404 when there is none.
    pub fn keeps_history(&self) -> Result<(), Failure> {
        match self.history {
            Some(_) => Ok(()),
            None => Err(Failure::new(ErrorCode::NotOffered, "no history is kept here")),
        }
    }

    /// Whether it is known here who is subscribed.
    ///
    /// # Errors
    /// 4404 where it is not.
    pub fn knows_presence(&self) -> Result<(), Failure> {
        match self.presence {
            true => Ok(()),
            false => Err(Failure::new(ErrorCode::NotOffered, "presence is off here")),
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

/// Rules that a channel's name states itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// A name that begins so takes a token that allows it; the namespace stands behind.
    pub private: char,
    /// Behind the last of these stand those who may subscribe, with commas between.
    pub users: char,
}

impl NameRules {
    /// `$` and `#`.
    pub const DOLLAR_AND_HASH: Self = Self { private: '$', users: '#' };

    /// Whether the name takes a token.
    fn is_private(self, channel: &Channel) -> bool {
        channel.as_str().starts_with(self.private)
    }

    /// The users whom the name lists, if it does.
    fn listed(self, channel: &Channel) -> Option<impl Iterator<Item = &str>> {
        channel.as_str().rsplit_once(self.users).map(|(_, users)| users.split(','))
    }
}

/// Rules by the beginnings of names: the first counts that a name has.
pub type ByPrefix = Vec<(Box<str>, Rule)>;

/// The rules of all namespaces.
///
/// With no namespace configured every channel is open; with any configured, the others do not exist. A realm has a namespace of
/// its own, whose rules go by how the rest of a name begins, and makes no difference to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    namespaces: HashMap<Box<str>, Rule>,
    realms: HashMap<Box<str>, ByPrefix>,
    open: Option<Rule>,
    names: Option<NameRules>,
}

impl Rules {
    /// Every channel open to everyone: the development default.
    pub fn open() -> Self {
        let (namespaces, realms) = Default::default();
        Self { namespaces, realms, open: Some(Rule::OPEN), names: None }
    }

    /// These namespaces and no others; none at all is [`Rules::open`].
    pub fn of(namespaces: impl IntoIterator<Item = (Box<str>, Rule)>) -> Self {
        let namespaces: HashMap<_, _> = namespaces.into_iter().collect();
        if namespaces.is_empty() { Self::open() } else { Self { namespaces, open: None, ..Self::open() } }
    }

    /// The same, and a realm whose channels follow the first of these rules whose beginning their names have.
    #[must_use]
    pub fn with_realm(mut self, namespace: &str, rules: ByPrefix) -> Self {
        self.realms.insert(namespace.into(), rules);
        self
    }

    /// The same, and what names state holds too, but for those of a realm.
    #[must_use]
    pub fn with_names(self, names: Option<NameRules>) -> Self {
        Self { names, ..self }
    }

    /// The rule of a channel's namespace.
    ///
    /// # Errors
    /// 4404 when there is no such namespace.
    pub fn rule(&self, channel: &Channel) -> Result<&Rule, Failure> {
        if let Some((rules, name)) = self.realm(channel) {
            let ours = rules.iter().find(|(prefix, _)| name.starts_with(&**prefix));
            let none = || Failure::new(ErrorCode::NotFound, "the application has no such channels");
            return ours.map(|(_, rule)| rule).ok_or_else(none);
        }
        if let Some(open) = &self.open
            && channel.within(RESERVED_NAMESPACE).is_none()
        {
            return Ok(open);
        }
        let name = channel.namespace();
        let bare = self.names.and_then(|names| name.strip_prefix(names.private));
        let namespace = bare.filter(|_| channel.within(RESERVED_NAMESPACE).is_none()).unwrap_or(name);
        self.namespaces
            .get(namespace)
            .ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no namespace {namespace:?}")))
    }

    /// The rules of the realm that a channel lies in, and its name there.
    fn realm<'a>(&self, channel: &'a Channel) -> Option<(&ByPrefix, &'a str)> {
        if self.realms.is_empty() {
            return None;
        }
        let (namespace, name) = channel.as_str().split_once(':')?;
        Some((self.realms.get(namespace)?, name))
    }

    /// The rule of a channel that this client may hear.
    ///
    /// # Errors
    /// 4404 when there is no such namespace, 4403 when neither it nor the token lets the client in.
    pub fn may_hear(&self, channel: &Channel, grant: Option<&Grant>) -> Result<&Rule, Failure> {
        if channel.as_str() == FIGURES && grant.is_some_and(|grant| grant.allows(Verb::Figures, channel)) {
            return Ok(&Rule::FIGURES);
        }
        let rule = self.rule(channel)?;
        if grant.is_some_and(|grant| grant.owns(channel) || grant.allows(Verb::Subscribe, channel)) {
            return Ok(rule);
        }
        let user = grant.and_then(|grant| grant.user.as_ref());
        if let Some(names) = self.names.filter(|_| self.realm(channel).is_none()) {
            if names.is_private(channel) {
                return Err(forbidden("subscribing here takes a token that names the channel"));
            }
            if let Some(mut listed) = names.listed(channel) {
                let is_listed = user.is_some_and(|user| listed.any(|it| it == user.as_str()));
                let refused = || forbidden("the channel's name lists those who may subscribe");
                return is_listed.then_some(rule).ok_or_else(refused);
            }
        }
        let text = match rule.subscribe {
            _ if grant::owner(channel).is_some() => "this is the personal channel of another user",
            MaySubscribe::Anyone => return Ok(rule),
            MaySubscribe::Authenticated if user.is_some() => return Ok(rule),
            MaySubscribe::Authenticated | MaySubscribe::Token if user.is_none() => {
                "subscribing here takes a token"
            }
            MaySubscribe::Authenticated | MaySubscribe::Token => "the token does not allow subscribing here",
        };
        Err(forbidden(text))
    }

    /// Whether this client may read what was published: with the channel, or by its token alone.
    ///
    /// # Errors
    /// Those of [`Rules::may_hear`], and 4404 when no history is kept.
    pub fn may_read(&self, channel: &Channel, grant: Option<&Grant>) -> Result<(), Failure> {
        self.opened(channel, grant, Verb::History)?.keeps_history()
    }

    /// Whether this client may know who is there: with the channel, or by its token alone.
    ///
    /// # Errors
    /// Those of [`Rules::may_hear`], and 4404 when it is not known.
    pub fn may_count(&self, channel: &Channel, grant: Option<&Grant>) -> Result<(), Failure> {
        self.rule(channel)?.knows_presence()?;
        self.opened(channel, grant, Verb::Presence).map(drop)
    }

    fn opened(&self, channel: &Channel, grant: Option<&Grant>, verb: Verb) -> Result<&Rule, Failure> {
        if grant.is_some_and(|grant| grant.allows(verb, channel)) {
            return self.rule(channel);
        }
        self.may_hear(channel, grant)
    }

    /// The rule of a channel on which this client may publish.
    ///
    /// # Errors
    /// 4404 when there is no such namespace, 4403 when neither it nor the token lets the client publish.
    pub fn may_publish(
        &self,
        channel: &Channel,
        grant: Option<&Grant>,
        is_subscribed: bool,
    ) -> Result<&Rule, Failure> {
        let rule = self.rule(channel)?;
        if grant.is_some_and(|grant| grant.allows(Verb::Publish, channel)) {
            return Ok(rule);
        }
        match rule.publish {
            MayPublish::Nobody => Err(forbidden("clients may not publish here")),
            MayPublish::Subscribers if !is_subscribed => {
                Err(forbidden("only subscribers may publish here: subscribe first"))
            }
            // A personal channel is nobody else's to write on either, however open the namespace is.
            MayPublish::Anyone
                if grant::owner(channel).is_some() && !grant.is_some_and(|it| it.owns(channel)) =>
            {
                Err(forbidden("this is the personal channel of another user"))
            }
            MayPublish::Subscribers | MayPublish::Anyone => Ok(rule),
        }
    }
}

fn forbidden(explanation: &str) -> Failure {
    Failure::new(ErrorCode::Forbidden, explanation)
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
        let reserved = channel("$fanfare:orders");
        assert_eq!(Rules::open().rule(&reserved).unwrap_err().code, ErrorCode::NotFound);
    }

    #[test]
    fn what_nodes_say_of_themselves_is_for_operators_alone() {
        let all = grant::Pattern::parse("*").unwrap();
        let grant = |verb| {
            let allowances = vec![grant::Allowance { channels: vec![all.clone()], verbs: vec![verb] }];
            Grant { allowances, ..Grant::default() }
        };
        let channel = |name| Channel::parse(name).unwrap();
        let (operator, reader) = (grant(Verb::Figures), grant(Verb::Subscribe));
        let named = Rules::open().with_names(Some(NameRules::DOLLAR_AND_HASH));
        for rules in [Rules::open(), Rules::of([("room".into(), Rule::OPEN)]), named] {
            let hears = |name, grant| rules.may_hear(&channel(name), grant).is_ok();
            assert!(hears(FIGURES, Some(&operator)));
            assert!(!hears(FIGURES, Some(&reader)) && !hears(FIGURES, None), "a token does not open it");
            assert!(!hears("$fanfare:orders", Some(&operator)), "the rest is between the nodes");
            let may_publish = rules.may_publish(&channel(FIGURES), Some(&operator), true);
            assert_eq!(may_publish.unwrap_err().code, ErrorCode::NotFound);
        }
        assert_eq!(Verb::parse("figures"), None);
    }

    #[test]
    fn a_name_may_say_itself_who_hears_it() {
        let user = |id: &str| Grant { user: Some(crate::UserId::new(id)), ..Grant::default() };
        let channel = |name| Channel::parse(name).unwrap();
        let token = Grant { channels: vec![channel("$chat:1")], ..user("ann") };
        let rule = Rule { publish: MayPublish::Nobody, ..Rule::OPEN };
        let plain = Rules::of([
            ("chat".into(), rule.clone()),
            ("default".into(), rule.clone()),
            ("fanfare".into(), rule),
        ]);
        let named = plain.clone().with_names(Some(NameRules::DOLLAR_AND_HASH));
        for (name, who, without, with) in [
            ("chat:1", None, true, true),
            ("$chat:1", Some(&user("ann")), false, false),
            ("$chat:1", Some(&token), false, true),
            ("$chat:2", Some(&token), false, false),
            ("$lobby", None, true, false),
            ("chat:dialog#ann,bob", Some(&user("ann")), true, true),
            ("chat:dialog#ann,bob", Some(&user("bob")), true, true),
            ("chat:dialog#ann,bob", Some(&user("an")), true, false),
            ("chat:dialog#ann,bob", None, true, false),
            ("chat:a#ann#bob", Some(&user("ann")), true, false),
            ("lobby#", None, true, false),
            ("other:x#ann", Some(&user("ann")), false, false),
            ("$fanfare:orders", Some(&token), false, false),
        ] {
            assert_eq!(plain.may_hear(&channel(name), who).is_ok(), without, "{name} by its namespace alone");
            assert_eq!(named.may_hear(&channel(name), who).is_ok(), with, "{name} by its name too");
        }
        let reserved = named.rule(&channel("$fanfare:orders")).unwrap_err();
        assert_eq!(
            reserved.code,
            ErrorCode::NotFound,
            "nodes are among themselves there, whatever a namespace is called"
        );
    }

    /// Every kind of namespace against every kind of client: hear, read, count, publish.
    #[test]
    fn a_namespace_opens_to_all_and_a_token_opens_more() {
        use crate::grant::claims::{Expected, read};
        let rule = |publish, subscribe| Rule { publish, subscribe, ..Rule::OPEN };
        let rules = Rules::of([
            ("open".into(), rule(MayPublish::Anyone, MaySubscribe::Anyone)),
            ("known".into(), rule(MayPublish::Subscribers, MaySubscribe::Authenticated)),
            ("closed".into(), rule(MayPublish::Nobody, MaySubscribe::Token)),
            ("user".into(), rule(MayPublish::Anyone, MaySubscribe::Anyone)),
        ]);
        let grant =
            |claims: &str| read(claims.as_bytes(), &Expected::default(), crate::time::UnixMicros(0)).unwrap();
        let ann = grant(r#"{"sub":"ann"}"#);
        let bearer = grant(r#"{"allow":[{"channels":["known:1"],"can":["subscribe"]}]}"#);
        let all = grant(
            r#"{"sub":"bob","allow":[{"channels":["closed:*"],"can":["subscribe","publish"]},
            {"channels":["*:2"],"can":["history"]},{"channels":["*:3"],"can":["presence"]}]}"#,
        );
        let listed = grant(r#"{"channels":["closed:1"]}"#);
        let channel = |name| Channel::parse(name).unwrap();
        for (name, who, allowed) in [
            ("open:1", None, "hrcp"),
            ("known:1", None, "---s"),
            ("known:1", Some(&ann), "hrcs"),
            ("known:1", Some(&bearer), "hrcs"),
            ("known:2", Some(&bearer), "---s"),
            ("closed:1", None, "----"),
            ("closed:1", Some(&ann), "----"),
            ("closed:1", Some(&all), "hrcp"),
            ("closed:1", Some(&listed), "hrc-"),
            ("closed:2", Some(&listed), "----"),
            ("known:2", Some(&all), "hrcs"),
            ("user:ann", None, "----"),
            ("user:ann", Some(&all), "----"),
            ("user:2", Some(&all), "-r--"),
            ("user:3", Some(&all), "--c-"),
            ("user:ann", Some(&ann), "hrcp"),
            ("other", Some(&all), "----"),
        ] {
            let channel = channel(name);
            let publish = match rules.may_publish(&channel, who, false) {
                Ok(_) => "p",
                Err(_) if rules.may_publish(&channel, who, true).is_ok() => "s",
                Err(_) => "-",
            };
            let found = [
                if rules.may_hear(&channel, who).is_ok() { "h" } else { "-" },
                if rules.may_read(&channel, who).is_ok() { "r" } else { "-" },
                if rules.may_count(&channel, who).is_ok() { "c" } else { "-" },
                publish,
            ];
            assert_eq!(found.concat(), allowed, "{name} {who:?}");
        }
    }
}
