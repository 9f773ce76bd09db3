//! What a token says of its holder: who it is, and what it may do beyond what everyone may.
//!
//! A [`Token`] is text that a client presents. Whether its signature is good only the shell can tell, which has the keys;
//! what its claims mean is read here ([`claims`]), and comes out as a [`Grant`]. What a grant opens is asked in
//! [`crate::rules`], beside what a namespace opens to everyone: a grant never takes anything away.
//!
//! **Invariants.** No `Debug`, error or text that is made here holds a part of a token. Patterns and verbs are parsed once;
//! all that a grant holds is bounded by [`TOKEN_BYTES_MAX`].

use std::fmt;
use std::sync::Arc;

use crate::channel::Channel;
use crate::id::UserId;
use crate::publication::{Payload, Sender};
use crate::time::UnixMicros;

pub mod claims;

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The namespace of personal channels: `user:<id>` is heard by that user alone.
pub const PERSONAL_NAMESPACE: &str = "user";

/// A token as it was presented: a secret. Its `Debug` shows that there is one and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Hides `text` from now on.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that verifies it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(token)")
    }
}

/// Why a token is not taken. The texts are constants: they are told to clients and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Over [`TOKEN_BYTES_MAX`].
    #[error("a token has at most {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url with JSON in them, or a header that asks for what is not done here.
    #[error("not a signed JSON Web Token in compact form")]
    Malformed,
    /// `none`, or an algorithm that none of the keys is for.
    #[error("the token's algorithm is not one of the keys that are trusted here")]
    Algorithm,
    /// No trusted key has made the signature.
    #[error("the token's signature is not by a key that is trusted here")]
    Signature,
    /// It names a key (`kid`) that its issuer does not publish.
    #[error("the token names a key that its issuer does not have")]
    UnknownKey,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is missing, or somebody else.
    #[error("the token's issuer is not the one that is trusted here")]
    Issuer,
    /// `aud` is missing, or names others.
    #[error("the token is for another audience")]
    Audience,
    /// It has been revoked, or all tokens of its user that were issued so far.
    #[error("the token has been revoked")]
    Revoked,
    /// It is a proof for a channel, and was shown as what says who its holder is; or the other way.
    #[error("a token with the claim `channel` lets its holder on that channel, and is good for nothing else")]
    Purpose,
    /// A claim is not what it ought to be; the text says which.
    #[error("the token's claims are not as they ought to be: {0}")]
    Claims(&'static str),
}

/// What a verified token says, or a backend instead of one. See the [module's essay](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Who the holder is (`sub`); a token may be good for permissions alone.
    pub user: Option<UserId>,
    /// The token's own name (`jti`), by which it can be revoked.
    pub token: Option<Box<str>>,
    /// Unix seconds at which it was made (`iat`).
    pub issued: Option<u64>,
    /// What others are shown of the user (`info`).
    pub profile: Option<Payload>,
    /// Unix seconds at which the token says that it ends (`exp`).
    pub expires: Option<u64>,
    /// When it is good no longer: [`Grant::expires`], and what clocks may disagree by.
    pub ends: Option<UnixMicros>,
    /// Whether the backend that said all this is asked again before it ends.
    pub is_renewable: bool,
    /// What its holder is subscribed to without asking (`channels`).
    pub channels: Vec<Channel>,
    /// What more is said of some of these, or of the one that it proves.
    pub passes: Vec<(Channel, Pass)>,
    /// What is for the application's own backends, and never shown to a client (`meta`).
    pub meta: Option<Box<Payload>>,
    /// What it allows (`allow`).
    pub allowances: Vec<Allowance>,
    /// The one channel that the token is a [`Proof`] for (`channel`), and good for nothing else.
    pub proves: Option<Channel>,
    /// Of whom its holder is told whether they are there.
    pub acquaintances: Vec<Acquaintance>,
}

/// A user of whom others are told whether it is there: it is while it hears the channel that is its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acquaintance {
    /// Who.
    pub user: UserId,
    /// Where it is heard of.
    pub channel: Channel,
}

/// What a backend changes of what is known of a client that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// Unix seconds at which that ends from now on; none where it does not.
    pub expires: Option<u64>,
    /// What others are shown of the user from now on; none where that stays what it was.
    pub profile: Option<Payload>,
}

impl Grant {
    /// The same client, by what its backend says of it now.
    #[must_use]
    pub fn amended(&self, amendment: &Amendment) -> Self {
        let Amendment { expires, profile } = amendment;
        let ends = expires.map(|expires| UnixMicros(expires.saturating_mul(1_000_000)));
        let profile = profile.as_ref().or(self.profile.as_ref()).cloned();
        Self { expires: *expires, ends, profile, ..self.clone() }
    }
}

/// What a client presents to be let on a channel that is not open to it anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A token that names the channel.
    Token(Token),
    /// A signature of the application that the client belongs to.
    Signed(Signed),
}

/// What an application has signed for one client and one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signature.
    pub token: Token,
    /// What the application says of the client, where it does.
    pub statement: Option<Box<str>>,
}

/// What a good [`Proof`] says: its holder may hear the one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Who the holder is there, where that is said: instead of who it is elsewhere.
    pub user: Option<UserId>,
    /// What others are shown of the holder there, instead of what its own token says, or beside it.
    pub profile: Option<Payload>,
    /// When it is good no longer by its own word; none where it does not end.
    pub expires: Option<UnixMicros>,
    /// What the holder is told when it is let on the channel.
    pub greeting: Option<Payload>,
    /// Whether the holder is told who joins and leaves, even if it has not asked.
    pub notices: bool,
}

/// Some channels, and what may be done on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Any of these.
    pub channels: Vec<Pattern>,
    /// Any of these.
    pub verbs: Vec<Verb>,
}

/// What a token can allow on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Hear it, and with that read its history and ask who is there.
    Subscribe,
    /// Publish on it.
    Publish,
    /// Ask who is there.
    Presence,
    /// Read what was published.
    History,
    /// Hear what nodes say of themselves: no token says so, a key of the server API does.
    Figures,
}

impl Verb {
    /// Reads a word of the claim `can`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "subscribe" => Some(Self::Subscribe),
            "publish" => Some(Self::Publish),
            "presence" => Some(Self::Presence),
            "history" => Some(Self::History),
            _ => None,
        }
    }
}

/// Names channels: `*` stands for any number of any characters, wherever and however often it is written.
///
/// ```
/// use fanfare_protocol::Channel;
/// use fanfare_protocol::grant::Pattern;
/// let pattern = Pattern::parse("room:*:public").unwrap();
/// assert!(pattern.matches(&Channel::parse("room:7:public").unwrap()));
/// assert!(!pattern.matches(&Channel::parse("room:7:private").unwrap()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Channel);

impl Pattern {
    /// Takes what could be a channel's name, `*` being one of its characters.
    pub fn parse(text: &str) -> Option<Self> {
        Channel::parse(text).ok().map(Self)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it names this channel. Takes time in proportion to both lengths, whatever the pattern.
    pub fn matches(&self, channel: &Channel) -> bool {
        let mut parts = self.0.as_str().split('*');
        let first = parts.next().expect("splitting yields a part");
        let Some(mut rest) = channel.as_str().strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The leftmost place leaves the most for those that follow.
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl Grant {
    /// Whether the token itself opens a channel for this.
    pub fn allows(&self, verb: Verb, channel: &Channel) -> bool {
        let names = |it: &Allowance| it.channels.iter().any(|pattern| pattern.matches(channel));
        let is_listed = verb == Verb::Subscribe && self.channels.contains(channel);
        is_listed || self.allowances.iter().any(|it| it.verbs.contains(&verb) && names(it))
    }

    /// What more is said of one of its channels.
    pub fn pass(&self, channel: &Channel) -> Option<&Pass> {
        self.passes.iter().find(|(it, _)| it == channel).map(|(_, pass)| pass)
    }

    /// Whether the channel is the personal one of the token's user.
    pub fn owns(&self, channel: &Channel) -> bool {
        let owner = owner(channel);
        owner.is_some() && owner == self.user.as_ref().map(UserId::as_str)
    }

    /// The personal channel of the token's user: none without a user, or where the id does not make a channel's name.
    pub fn personal_channel(&self) -> Option<Channel> {
        let user = self.user.as_ref()?.as_str();
        Channel::parse(&format!("{PERSONAL_NAMESPACE}:{user}")).ok()
    }

    /// As whom the holder's publications are shown.
    pub fn sender(&self) -> Option<Box<Sender>> {
        let user = Some(self.user.clone()?);
        Some(Box::new(Sender { user, profile: self.profile.clone(), ..Sender::default() }))
    }
}

/// Whose personal channel this is; none where it is nobody's.
pub fn owner(channel: &Channel) -> Option<&str> {
    channel.within(PERSONAL_NAMESPACE)
}

/// With whom a conversation begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Visitor {
    /// Somebody who need not say who it is.
    #[default]
    Anonymous,
    /// The holder of a token that came with the request, and was found good.
    Known(Arc<Grant>),
    /// Somebody of whom a backend says who it is, whatever has been shown so far: nothing, or a token that was found good.
    Presumed(Option<Arc<Grant>>),
    /// Somebody who has to present a token before anything else.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[test]
    fn a_pattern_names_what_its_stars_can_stand_for() {
        for (pattern, name, matches) in [
            ("room:1", "room:1", true),
            ("room:1", "room:10", false),
            ("room:1", "aroom:1", false),
            ("room:*", "room:", true),
            ("room:*", "room:a:b", true),
            ("room:*", "rooms:a", false),
            ("*", "anything", true),
            ("*:public", "a:b:public", true),
            ("*:public", "a:public:b", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("ab*ba", "aba", false),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(&channel(name)), matches, "{pattern:?} {name}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Pattern::parse(&"a*".repeat(127)).unwrap();
        let name = channel(&("a".repeat(254) + "b"));
        (0..10_000).for_each(|_| assert!(pattern.matches(&name)));
    }

    #[test]
    fn a_verb_opens_what_it_names_and_nothing_else() {
        let allowance = Allowance {
            channels: vec![Pattern::parse("room:*").unwrap()],
            verbs: vec![Verb::Publish, Verb::History],
        };
        let grant =
            Grant { channels: vec![channel("news")], allowances: vec![allowance], ..Grant::default() };
        for (verb, name, allows) in [
            (Verb::Publish, "room:1", true),
            (Verb::History, "room:1", true),
            (Verb::Subscribe, "room:1", false),
            (Verb::Presence, "room:1", false),
            (Verb::Publish, "lobby", false),
            (Verb::Subscribe, "news", true),
            (Verb::Publish, "news", false),
        ] {
            assert_eq!(grant.allows(verb, &channel(name)), allows, "{verb:?} {name}");
        }
    }

    #[test]
    fn a_personal_channel_is_its_users_alone() {
        let grant = |user: &str| Grant { user: Some(UserId::new(user)), ..Grant::default() };
        assert!(grant("ann").owns(&channel("user:ann")));
        assert!(grant("a:b").owns(&channel("user:a:b")));
        for (user, name) in
            [("ann", "user:anna"), ("ann", "user:ann:x"), ("ann", "users:ann"), ("ann", "ann")]
        {
            assert!(!grant(user).owns(&channel(name)), "{user} {name}");
        }
        assert!(!Grant::default().owns(&channel("user:")));
        assert_eq!(grant("ann").personal_channel(), Some(channel("user:ann")));
        assert_eq!(grant("a user").personal_channel(), None);
        assert_eq!(Grant::default().personal_channel(), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("eyJhbGciOiJIUzI1NiJ9.secret.part");
        assert_eq!(format!("{token:?}"), "(token)");
    }
}
