//! What happens that a backend may be told afterwards, whatever flavour it is told in.

use crate::channel::Channel;
use crate::id::{SessionId, UserId};
use crate::publication::Payload;
use crate::time::UnixMicros;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A conversation has been opened.
    Connected {
        /// Its name.
        session: SessionId,
        /// Whose it is, where that is known.
        user: Option<UserId>,
    },
    /// It is over.
    Disconnected {
        /// Its name.
        session: SessionId,
        /// Whose it was, where that was known.
        user: Option<UserId>,
        /// The code of the Close, 1006 where there was none.
        code: u16,
    },
    /// The first subscriber has come to a channel.
    Occupied {
        /// Which.
        channel: Channel,
    },
    /// The last one has left it.
    Vacated {
        /// Which.
        channel: Channel,
    },
    /// Another number of connections is subscribed to a channel.
    Counted {
        /// Which.
        channel: Channel,
        /// How many.
        connections: u64,
    },
    /// A user has come to a channel.
    Joined {
        /// Which.
        channel: Channel,
        /// Who.
        user: UserId,
    },
    /// It has left, with its last connection.
    Left {
        /// Which.
        channel: Channel,
        /// Who.
        user: UserId,
    },
    /// A client has published.
    Published {
        /// Where.
        channel: Channel,
        /// What.
        payload: Payload,
        /// By which conversation.
        session: SessionId,
        /// As whom.
        user: Option<UserId>,
    },
    /// Somebody asked for the last publication of a channel, and nothing was kept.
    NothingKept {
        /// Of which.
        channel: Channel,
    },
}

/// A happening, and when it was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// By the clock of the node that tells.
    pub at: UnixMicros,
    /// What.
    pub happening: Happening,
}

/// Some that are told together.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Names it: it has the same name when it is sent again.
    pub id: &'a str,
    /// The node that tells.
    pub node: &'a str,
    /// In the order in which they were noticed.
    pub noticed: &'a [Noticed],
}

/// Kinds of happenings: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// [`Happening::Connected`].
    pub const CONNECTED: Self = Self(1);
    /// [`Happening::Disconnected`].
    pub const DISCONNECTED: Self = Self(2);
    /// [`Happening::Occupied`].
    pub const OCCUPIED: Self = Self(4);
    /// [`Happening::Vacated`].
    pub const VACATED: Self = Self(8);
    /// [`Happening::Counted`].
    pub const COUNTED: Self = Self(16);
    /// [`Happening::Joined`].
    pub const JOINED: Self = Self(32);
    /// [`Happening::Left`].
    pub const LEFT: Self = Self(64);
    /// [`Happening::Published`].
    pub const PUBLISHED: Self = Self(128);
    /// [`Happening::NothingKept`].
    pub const NOTHING_KEPT: Self = Self(256);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether any of `other` is in this.
    #[must_use]
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl FromIterator<Self> for Kinds {
    fn from_iter<I: IntoIterator<Item = Self>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::and)
    }
}

impl Happening {
    /// Its kind.
    pub const fn kind(&self) -> Kinds {
        match self {
            Self::Connected { .. } => Kinds::CONNECTED,
            Self::Disconnected { .. } => Kinds::DISCONNECTED,
            Self::Occupied { .. } => Kinds::OCCUPIED,
            Self::Vacated { .. } => Kinds::VACATED,
            Self::Counted { .. } => Kinds::COUNTED,
            Self::Joined { .. } => Kinds::JOINED,
            Self::Left { .. } => Kinds::LEFT,
            Self::Published { .. } => Kinds::PUBLISHED,
            Self::NothingKept { .. } => Kinds::NOTHING_KEPT,
        }
    }

    /// About how many bytes it takes in a report: its texts, and some for what is around them.
    pub fn bytes_about(&self) -> usize {
        const AROUND: usize = 128;
        let name = |user: &Option<UserId>| user.as_ref().map_or(0, |user| user.as_str().len());
        AROUND
            + match self {
                Self::Connected { user, .. } | Self::Disconnected { user, .. } => name(user),
                Self::Occupied { channel }
                | Self::Vacated { channel }
                | Self::Counted { channel, .. }
                | Self::NothingKept { channel } => channel.as_str().len(),
                Self::Joined { channel, user } | Self::Left { channel, user } => {
                    channel.as_str().len() + user.as_str().len()
                }
                Self::Published { channel, payload, user, .. } => {
                    channel.as_str().len() + payload.as_bytes().len() * 5 / 4 + name(user)
                }
            }
    }
}
