//! What a backend is still to be told of channels, and which node owes it to tell.
//!
//! ```text
//!            write, sweep: is the level another than the told one?
//!  (nothing) ─────────────────────────────────────────────────────► owed by this seat ──► Teller::owe
//!      ▲                                                             │    ▲    ▲
//!      │ settle: level and told are alike                            │    │    └ another seat, when this one is cleared
//!      └────────────────── told := what the backend has taken ◄──────┘    └ settle: there is another level by now
//! ```
//!
//! A [`Topic`] has a *level*: whether anybody is on a channel, whether a user is, how many connections are. The book keeps which
//! level the backend was last told of. Where that is another than the real one, the step that made it so writes down that its
//! seat *owes* word of the topic. So:
//!
//! - One node tells, whichever made the difference; a change while it does only makes it tell again, afterwards. Words about a
//!   topic follow each other, and there is never more than one owed, however long the backend is away.
//! - A debt outlives its node: whoever clears the seat of a dead node inherits what that owed.
//! - Where a channel has several backends each has topics of its own: one that is away keeps none of the others waiting.
//! - What came and went before anybody was told is not told.
//! - Where an answer of the backend is lost, or a node dies between that and taking note of it, the word is told again.
//! - Where the book has lost what was told, members that are written again make a debt, and their channels are told of again.

use std::fmt;
use std::sync::Arc;

use fanfare_protocol::{Channel, UserId};

use crate::presence::Seat;

/// What a backend may be told of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// Whether anybody is on it: 1 or 0.
    Occupancy,
    /// How many connections are.
    Connections,
    /// Whether this user is: 1 or 0.
    User(UserId),
}

/// To which of a channel's backends: the one that has no name, or another by its own, of letters, digits, `_` and `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recipient(Option<Arc<str>>);

impl Recipient {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        debug_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
        Self(Some(name.into()))
    }
}

/// What is said to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    /// To whom.
    pub to: Recipient,
    /// Of what.
    pub about: About,
}

/// What one word is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Which channel.
    pub channel: Channel,
    /// What of it, and to whom.
    pub word: Word,
}

/// Word of a topic, and which seat owes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Debt {
    /// Under which seat it is written down.
    pub seat: Seat,
    /// Of what.
    pub topic: Topic,
}

/// What is to be told of a channel, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// What each of its backends is told.
    pub backends: Vec<(Recipient, Abouts)>,
    /// Whether those who hear it are told how many they are.
    pub counts: bool,
}

impl Wants {
    /// As the scripts in Redis know it.
    pub(crate) fn spell(&self) -> String {
        let mut text = String::from(if self.counts { "n;" } else { "" });
        for (to, abouts) in self.backends.iter().filter(|(_, abouts)| !abouts.is_none()) {
            text += &format!("{}{};", to.spell(), abouts.letters());
        }
        text
    }
}

/// To the one backend that has no name.
impl From<Abouts> for Wants {
    fn from(abouts: Abouts) -> Self {
        Self { backends: vec![(Recipient::default(), abouts)], counts: false }
    }
}

/// What of a channel a backend wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abouts(u8);

impl Abouts {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// [`About::Occupancy`].
    pub const OCCUPANCY: Self = Self(1);
    /// [`About::Connections`].
    pub const CONNECTIONS: Self = Self(2);
    /// [`About::User`], of each that has a name.
    pub const USERS: Self = Self(4);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The first letters of what [`About::spell`] spells.
    fn letters(self) -> String {
        let all = [(Self::OCCUPANCY, 'o'), (Self::CONNECTIONS, 'c'), (Self::USERS, 'u')];
        all.into_iter().filter(|(one, _)| self.covers(*one)).map(|(_, letter)| letter).collect()
    }
}

impl About {
    /// As it stands in Redis. That of a user is the user's key in a roll.
    pub(crate) fn spell(&self) -> String {
        match self {
            Self::Occupancy => "o".into(),
            Self::Connections => "c".into(),
            Self::User(user) => format!("u{}", user.as_str()),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            "o" => Some(Self::Occupancy),
            "c" => Some(Self::Connections),
            _ => text.strip_prefix('u').map(|user| Self::User(UserId::new(user))),
        }
    }
}

impl Recipient {
    fn spell(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |name| format!("@{name} "))
    }
}

impl Word {
    fn spell(&self) -> String {
        format!("{}{}", self.to.spell(), self.about.spell())
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let named = text.strip_prefix('@').and_then(|text| text.split_once(' '));
        let (to, about) =
            named.map_or((Recipient::default(), text), |(name, about)| (Recipient::named(name), about));
        Some(Self { to, about: About::read(about)? })
    }
}

impl Topic {
    /// As it stands in Redis: no name of a channel has a space in it.
    pub(crate) fn spell(&self) -> String {
        format!("{} {}", self.channel.as_str(), self.word.spell())
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let (channel, word) = text.split_once(' ')?;
        Some(Self { channel: Channel::parse(channel).ok()?, word: Word::read(word)? })
    }
}

/// Who tells the backend. Neither of its methods may wait.
pub trait Teller: fmt::Debug + Send + Sync + 'static {
    /// What is to be told of a channel.
    fn wants(&self, channel: &Channel) -> Wants;

    /// This node owes word. It asks [`Presence::settle`](crate::presence::Presence::settle) what there is to tell, and again
    /// when that was taken.
    fn owe(&self, debt: Debt);
}

/// Where there is nobody to tell.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Teller for Silent {
    fn wants(&self, _channel: &Channel) -> Wants {
        Wants::default()
    }

    fn owe(&self, _debt: Debt) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_as_it_was_spelt() {
        let users = ["ann", "", "a b c", "u", "o"].map(|user| About::User(UserId::new(user)));
        for about in [About::Occupancy, About::Connections].into_iter().chain(users) {
            for to in [Recipient::default(), Recipient::named("audit-2")] {
                let word = Word { to, about: about.clone() };
                let topic = Topic { channel: Channel::parse("room:1").unwrap(), word };
                assert_eq!(Topic::read(&topic.spell()), Some(topic));
            }
        }
        for none in ["", "room:1", "room:1 ", "room:1 x", " o", "room:1 @a", "room:1 @a x"] {
            assert_eq!(Topic::read(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_wanted_is_spelt_for_each_backend() {
        let (all, one) = (Abouts::OCCUPANCY.and(Abouts::USERS), Abouts::CONNECTIONS);
        let named = Recipient::named("b");
        let none = Recipient::named("none");
        let backends = vec![(Recipient::default(), all), (named, one), (none, Abouts::NONE)];
        let wants = Wants { backends, counts: true };
        assert_eq!(wants.spell(), "n;ou;@b c;");
        assert_eq!(Wants { counts: false, ..wants }.spell(), "ou;@b c;");
        assert_eq!(
            (Wants::default().spell(), Wants::from(Abouts::NONE).spell()),
            (String::new(), String::new())
        );
    }
}
